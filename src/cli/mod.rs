//! Arguments and output, one file per verb.
//!
//! What a verb has to say goes to stdout; progress, warnings and the one line of an error go to stderr.

mod args;
mod backup;
mod check;
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

/// Prints what [`parse`] did not take for arguments, `words` being these. Help that was asked for is no failure.
pub fn refuse(refusal: &clap::Error, words: &[OsString]) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if !refusal.use_stderr() || matches!(refusal.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        // Nobody is left to be told where the terminal is gone.
        drop(refusal.print());
    } else {
        show::note(&format!("walhalla: {}", on_one_line(&refusal.render().to_string())));
    }
    match (refusal.use_stderr(), asks_for_check(words)) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(exit::check_status(exit::CheckOutcome::Unknown)),
        (true, false) => ExitCode::from(exit::USAGE),
    }
}

/// Whether the verb is `check`, whose statuses mean something else: the first word that is no option, nor the value of the only
/// option that may stand before a verb.
fn asks_for_check(words: &[OsString]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_string_lossy().as_ref() {
            "--config" => drop(words.next()),
            option if option.starts_with('-') => {}
            verb => return verb == "check",
        }
    }
    false
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

/// Does what was asked for, and answers the exit status.
pub fn run(arguments: Arguments) -> Result<u8> {
    let config = arguments.config.as_deref();
    match arguments.verb {
        Verb::Init(verb) => on_runtime(init::run(config, verb)),
        Verb::Check(verb) => return on_abandoned_runtime(check::run(config, *verb)),
        Verb::Backup(verb) => on_runtime(backup::run(config, verb)),
        Verb::List(verb) => on_runtime(list::run(config, verb)),
        Verb::Restore(verb) => on_runtime(restore::run(config, *verb)),
        Verb::Prune(verb) => on_runtime(prune::run(config, verb)),
        Verb::Demo(verb) => on_runtime(demo::run(verb)),
        Verb::Completions { shell } => pages::completions(shell),
        Verb::Man { directory } => pages::man(&directory),
    }?;
    Ok(exit::SUCCESS)
}

fn on_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(work)
}

/// A disk that hangs keeps its thread for ever; whoever has a deadline leaves it behind.
fn on_abandoned_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::LocalIo, "cannot start the runtime").because(error))
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
