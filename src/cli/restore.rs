//! `walhalla restore`

use super::{args, open, show};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::ParseError;
use crate::reach::Source;
use crate::restore::{Programs, Progress, RecoveryTarget, RestoreRequest, Role, TargetAction, execute, plan, release};
use indicatif::ProgressBar;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) async fn run(config: Option<&Path>, verb: args::Restore) -> Result<()> {
    if let Some(directory) = &verb.release {
        let released = release(directory)?;
        show::line(&released.to_string());
        return Ok(());
    }
    let mut request = request(config, &verb)?;
    let opened = open::open(config)?;
    let source = Source {
        cluster: opened.cluster(verb.cluster.as_deref()).await?,
        identities: opened.settings.identities.clone(),
        concurrency: opened.settings.concurrency,
    };
    if verb.role.is_none() && !verb.dry_run && !verb.standby {
        request.role = ask()?;
    }
    let plan = plan(&source, &request).await?;
    if verb.dry_run {
        match verb.json {
            true => show::json(&plan)?,
            false => show::text(&plan.to_string()),
        }
        return Ok(());
    }
    let watcher = Watcher { bar: show::progress(Some(plan.tar_bytes)) };
    let report = execute(&source, &plan, &watcher).await;
    watcher.bar.finish_and_clear();
    let report = report?;
    match verb.json {
        true => show::json(&report)?,
        false => show::text(&report.to_string()),
    }
    Ok(())
}

fn request(config: Option<&Path>, verb: &args::Restore) -> Result<RestoreRequest> {
    let to = verb.to.clone().ok_or_else(|| Error::new(ErrorKind::Config, "--to is missing"))?;
    let mut request = RestoreRequest::new(to);
    request.backup = verb.backup.as_deref().map(|text| value("--backup", text)).transpose()?;
    request.target = target(verb)?;
    request.inclusive = !verb.target_exclusive;
    request.timeline = verb.target_timeline.parse().map_err(|error: Error| error.context("--target-timeline"))?;
    request.action = verb.target_action.map(|action| match action {
        args::Action::Pause => TargetAction::Pause,
        args::Action::Promote => TargetAction::Promote,
        args::Action::Shutdown => TargetAction::Shutdown,
    });
    request.tablespaces = verb.tablespace.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    request.standby = verb.standby;
    request.primary_conninfo = verb.primary_conninfo.clone();
    request.owner = verb.owner.clone();
    request.role = match verb.role {
        Some(args::Role::Copy) => Role::Copy,
        Some(args::Role::Primary) => Role::Primary,
        None => Role::Held,
    };
    request.accept_gap = verb.accept_gap.iter().map(|name| value("--accept-gap", name)).collect::<Result<_>>()?;
    request.programs = programs(config);
    Ok(request)
}

fn target(verb: &args::Restore) -> Result<RecoveryTarget> {
    if let Some(time) = &verb.target_time {
        let time = time.parse().map_err(|error: Error| error.context("--target-time"))?;
        return Ok(RecoveryTarget::Time(time));
    }
    if let Some(lsn) = &verb.target_lsn {
        return value("--target-lsn", lsn).map(RecoveryTarget::Lsn);
    }
    if let Some(name) = &verb.target_name {
        // Postgres refuses longer ones when it starts (MAXFNAMELEN).
        if name.is_empty() || name.len() > 63 {
            return Err(Error::new(ErrorKind::Config, "--target-name: a restore point's name has from 1 to 63 bytes"));
        }
        return Ok(RecoveryTarget::Name(name.clone()));
    }
    if let Some(xid) = verb.target_xid {
        let xid = u32::try_from(xid).map_err(|_| {
            Error::new(ErrorKind::Config, format!("--target-xid {xid} is more than 32 bits"))
                .hint("leave the epoch away: give the number modulo 2^32")
        })?;
        // 0 to 2 are Postgres' own and never commit.
        if xid < 3 {
            return Err(Error::new(ErrorKind::Config, format!("--target-xid {xid} is no transaction's")));
        }
        return Ok(RecoveryTarget::Xid(xid));
    }
    Ok(if verb.target_immediate { RecoveryTarget::Immediate } else { RecoveryTarget::Latest })
}

fn value<T: FromStr<Err = ParseError>>(option: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: ParseError| Error::new(ErrorKind::Config, option).because(error))
}

/// How the restored server will find our two programs, and they their settings: as this one was told.
fn programs(config: Option<&Path>) -> Programs {
    let own = std::env::current_exe().unwrap_or_default();
    let environment = std::env::var_os("WALHALLA_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let file = config.map(Path::to_owned).or(environment);
    Programs::beside(&own, file.map(|file| std::path::absolute(&file).unwrap_or(file)))
}

/// On a terminal the operator decides what the server is to be; elsewhere nothing is decided, and archiving is held.
fn ask() -> Result<Role> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(Role::Held);
    }
    let mut terminal = std::io::stderr().lock();
    drop(write!(
        terminal,
        "What is the restored server to be?\n  primary  it takes over: archiving stays on\n  copy     for a look: archiving is off\n  (empty)  not decided: archiving is held until walhalla restore --release\n> "
    ));
    drop(terminal);
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Error::local("read", Path::new("the answer"), error))?;
    match answer.trim() {
        "" => Ok(Role::Held),
        answer => answer.parse(),
    }
}

struct Watcher {
    bar: ProgressBar,
}

impl Progress for Watcher {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn stage(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}
