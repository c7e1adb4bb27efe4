//! Arguments and output, one file per verb.
//!
//! What a verb has to say goes to stdout; progress, warnings and the one line of an error go to stderr.

mod args;
mod backup;
mod demo;
mod init;
mod list;
mod open;
mod pages;
mod prune;
mod restore;
mod show;

pub use args::Arguments;

use crate::error::{Error, ErrorKind, Result};
use crate::exit;
use args::Verb;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Reads the arguments. `Err` carries help that was asked for, or what is wrong with them: see [`refuse`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Arguments, clap::Error> {
    Arguments::try_parse_from(arguments)
}

/// Prints what [`parse`] did not take for arguments. Help that was asked for is no failure.
pub fn refuse(refusal: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if !refusal.use_stderr() || matches!(refusal.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        // Nobody is left to be told where the terminal is gone.
        drop(refusal.print());
    } else {
        show::note(&format!("walhalla: {}", on_one_line(&refusal.render().to_string())));
    }
    if refusal.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}

/// What clap spreads over several lines, without its first word: what is wrong, what was meant, and where to read on.
fn on_one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage:"));
    let mut parts: Vec<String> = Vec::new();
    for line in lines {
        let line = line
            .strip_prefix("For more information, ")
            .map_or_else(|| line.to_owned(), |rest| format!("for more, {}", rest.trim_end_matches('.')));
        match parts.last_mut() {
            // What is wrong may go on with a list.
            Some(last) if last.ends_with(':') => *last = format!("{last} {line}"),
            _ => parts.push(line),
        }
    }
    parts.join("; ")
}

/// The one line of an error, on stderr.
pub fn complain(error: &Error) {
    show::note(&format!("walhalla: {error}"));
}

/// Does what was asked for.
pub fn run(arguments: Arguments) -> Result<()> {
    let config = arguments.config.as_deref();
    match arguments.verb {
        Verb::Init(verb) => on_runtime(init::run(config, verb)),
        Verb::Backup(verb) => on_runtime(backup::run(config, verb)),
        Verb::List(verb) => on_runtime(list::run(config, verb)),
        Verb::Restore(verb) => on_runtime(restore::run(config, *verb)),
        Verb::Prune(verb) => on_runtime(prune::run(config, verb)),
        Verb::Demo(verb) => on_runtime(demo::run(verb)),
        Verb::Completions { shell } => pages::completions(shell),
        Verb::Man { directory } => pages::man(&directory),
    }
}

fn on_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::LocalIo, "cannot start the runtime").because(error))?
        .block_on(work)
}

/// Ctrl-C, or a polite request to end.
async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => drop(pressed),
        _ = terminate.recv() => {}
    }
}
