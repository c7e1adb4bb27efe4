//! `walhalla-restore`: one WAL file, delivered whole and verified, or an answer that is proven.

use super::arguments::{self, Asked, RestoreArguments};
use super::call::{self, Call, Outcome};
use super::mode;
use super::program::{self, Ended, Leash};
use crate::error::{Error, ErrorKind};
use crate::exit::{self, FetchOutcome, RecoveryMode};
use crate::pg::{TimelineId, WalFileName};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

pub(super) const PROGRAM: &str = "walhalla-restore";

/// How long what comes before the first attempt may take: a look at a few local files.
const BEFORE_FIRST: Duration = Duration::from_secs(5);

/// What the program answers: the exit status, and what it says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: u8,
    line: Option<String>,
}

/// The whole program: from its arguments (its own name left out) to the exit status.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    program::one_line_panics(PROGRAM);
    let arguments = match arguments::restore(words) {
        Ok(Asked::Work(arguments)) => arguments,
        Ok(Asked::Help) => {
            program::show(arguments::RESTORE_HELP);
            return exit::SUCCESS;
        }
        Ok(Asked::Version) => {
            program::show(&program::version(PROGRAM));
            return exit::SUCCESS;
        }
        Err(error) => {
            let mode = mode::detect_without_arguments(Path::new("."));
            return say(refusal(mode, &error));
        }
    };
    let path = arguments.path.clone();
    let verdict = match arguments.name.parse::<WalFileName>() {
        // Timeline 1 has no history; Postgres asks for it all the same when it leaves timeline 1.
        Ok(WalFileName::History(TimelineId::FIRST)) => {
            Verdict { status: status(&path, FetchOutcome::Absent), line: None }
        }
        Ok(name) => supervised(arguments, name),
        Err(cause) => {
            let error = Error::new(ErrorKind::Config, "wrong arguments").because(cause).hint("use %f as the first");
            refusal(mode_of(&path), &error)
        }
    };
    say(verdict)
}

fn say(verdict: Verdict) -> u8 {
    if let Some(line) = verdict.line {
        program::say(PROGRAM, &line);
    }
    verdict.status
}

/// Runs the call where nothing that hangs or breaks can keep the answer from Postgres.
fn supervised(arguments: RestoreArguments, name: WalFileName) -> Verdict {
    let path = arguments.path.clone();
    match program::supervise(BEFORE_FIRST, move |leash| work(arguments, name, leash)) {
        Ended::Done(verdict) => verdict,
        Ended::Panicked => Verdict { status: status(&path, FetchOutcome::Trouble(ErrorKind::Bug)), line: None },
        Ended::Overdue => {
            let mode = mode_of(&path);
            refusal(mode, &call::overdue().context(format!("cannot fetch {name}")))
        }
    }
}

async fn work(arguments: RestoreArguments, name: WalFileName, leash: Leash) -> Verdict {
    let call = Call::new(arguments, name, leash);
    let outcome = call.ask().await;
    judge(&call, name, outcome).await
}

/// From the outcome to the answer: the mode decides what it means, the line says it.
async fn judge(call: &Call, name: WalFileName, outcome: Outcome) -> Verdict {
    let mode = call.mode();
    match outcome {
        Outcome::Delivered => Verdict { status: exit::restore_status(mode, FetchOutcome::Delivered), line: None },
        Outcome::Absent => {
            Verdict { status: exit::restore_status(mode, FetchOutcome::Absent), line: end_of_archive(mode, name) }
        }
        Outcome::Passed(text) => Verdict { status: exit::restore_status(mode, FetchOutcome::Absent), line: Some(text) },
        Outcome::Gap(found) => {
            let cure = call.cure().await.map(|cure| format!("; {cure}")).unwrap_or_default();
            let (mode, why) = column(call, mode, ErrorKind::Gap);
            let status = exit::restore_status(mode, FetchOutcome::Gap);
            let line = format!(
                "there is a gap in the archive: {found}{cure}{}",
                why.unwrap_or_else(|| consequence(mode, name))
            );
            Verdict { status, line: Some(line) }
        }
        Outcome::Trouble(error) => {
            let (mode, why) = column(call, mode, error.kind());
            let status = exit::restore_status(mode, FetchOutcome::Trouble(error.kind()));
            let why = why.unwrap_or_else(|| consequence(mode, name));
            Verdict { status, line: Some(format!("cannot fetch {name}: {error}{why}")) }
        }
    }
}

/// In which column of the table trouble is judged: the mode's own, unless an earlier call of the same promotion met trouble.
/// Then a history that is wanted now decides the new timeline's number, and must not be called absent.
fn column(call: &Call, mode: RecoveryMode, kind: ErrorKind) -> (RecoveryMode, Option<String>) {
    if call.note_trouble(kind) {
        let why = "; a promotion is under way: the server stops rather than use a timeline's number twice, and starts as a \
                   standby again";
        return (RecoveryMode::Recovery, Some(why.to_owned()));
    }
    (mode, None)
}

/// What the answer means, in the words of the operator who reads the server's log.
fn consequence(mode: RecoveryMode, name: WalFileName) -> String {
    match mode {
        RecoveryMode::Recovery => "; recovery stops rather than end too early".to_owned(),
        RecoveryMode::Promoting { needs_archive: true } => {
            "; the promotion needs the archive (WALHALLA_PROMOTE_NEEDS_ARCHIVE): the server stops, and starts as a standby again"
                .to_owned()
        }
        RecoveryMode::Promoting { needs_archive: false } => {
            format!("; the promotion goes on without the archive: WAL from {name} on that only the archive holds is lost to it")
        }
        RecoveryMode::Standby => "; answered as absent, so that Postgres tries streaming, and asks again".to_owned(),
        RecoveryMode::Ending => "; answered as absent: the recovery has ended already".to_owned(),
    }
}

/// One line where a recovery comes to the end of the archive; a standby comes there every few seconds.
fn end_of_archive(mode: RecoveryMode, name: WalFileName) -> Option<String> {
    let segment = name.segment().filter(|_| mode != RecoveryMode::Standby)?;
    Some(format!("{segment} is proven not to be in the archive: it ends before it"))
}

fn refusal(mode: RecoveryMode, error: &Error) -> Verdict {
    Verdict { status: exit::restore_status(mode, FetchOutcome::Trouble(error.kind())), line: Some(error.to_string()) }
}

fn mode_of(path: &Path) -> RecoveryMode {
    mode::detect(super::data_directory::DataDirectory::of(path).path(), path, false)
}

fn status(path: &Path, outcome: FetchOutcome) -> u8 {
    exit::restore_status(mode_of(path), outcome)
}
