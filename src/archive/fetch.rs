//! `walhalla-restore`: one WAL file, delivered whole and verified, or an answer that is proven.

use super::arguments::{self, Asked, RestoreArguments};
use super::call::{self, Call, Outcome};
use super::data_directory::DataDirectory;
use super::mode;
use super::prefetch::helper;
use super::program::{self, Begun, Ended};
use super::promotion::Promotion;
use crate::error::{Error, ErrorKind};
use crate::exit::{self, FetchOutcome, RecoveryMode};
use crate::pg::{TimelineId, WalFileName};
use std::ffi::OsString;
use std::future::Ready;
use std::path::Path;
use std::time::Duration;

pub(super) const PROGRAM: &str = "walhalla-restore";

/// How long what comes before the first attempt may take: a look at a few local files.
const BEFORE_FIRST: Duration = Duration::from_secs(5);
/// How long clearing up may take; with the grace of the leash a second.
const FOR_CLEARING: Duration = Duration::from_millis(300);

/// What the program answers: the exit status, and what it says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: u8,
    line: Option<String>,
}

/// The whole program: from its arguments (its own name left out) to the exit status.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    program::one_line_panics(PROGRAM);
    let words: Vec<OsString> = words.into_iter().collect();
    if let Some(words) = helper::words_of_helper(&words) {
        return helper::run(words);
    }
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
        Ok(name @ WalFileName::History(TimelineId::FIRST)) => {
            let mode = mode_of(&path);
            if mode == RecoveryMode::Ending {
                clear_up(arguments, name);
            }
            Verdict { status: exit::restore_status(mode, FetchOutcome::Absent), line: None }
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
    let promotion = Promotion::default();
    let theirs = promotion.clone();
    let ended = program::supervise_from(BEFORE_FIRST, move |leash| {
        let call = Call::new(arguments, name, leash, theirs.clone());
        if call.is_at_hand() {
            return Begun::Done(delivered(call.mode()));
        }
        Begun::GoesOn(async move {
            let outcome = call.run().await;
            judge(&call, &theirs, name, outcome).await
        })
    });
    // As the call itself would have judged: by what it had learnt.
    let mode = || detected(&path, promotion.needs_archive());
    match ended {
        Ended::Done(verdict) => verdict,
        Ended::Panicked => Verdict { line: None, ..trouble(&promotion, mode(), name, &Error::new(ErrorKind::Bug, "")) },
        Ended::Overdue => trouble(&promotion, mode(), name, &call::overdue()),
        Ended::Unable(cause) => trouble(&promotion, mode(), name, &program::unable(&cause)),
    }
}

/// Clears up behind the recovery that this call ends. Its answer does not depend on that, nor wait for it longer than a second.
fn clear_up(arguments: RestoreArguments, name: WalFileName) {
    program::supervise_from(FOR_CLEARING, move |leash| {
        Call::new(arguments, name, leash, Promotion::default()).clear_up();
        Begun::<(), Ready<()>>::Done(())
    });
}

fn delivered(mode: RecoveryMode) -> Verdict {
    Verdict { status: exit::restore_status(mode, FetchOutcome::Delivered), line: None }
}

/// From the outcome to the answer: the mode decides what it means, the line says it.
async fn judge(call: &Call, promotion: &Promotion, name: WalFileName, outcome: Outcome) -> Verdict {
    let mode = call.mode();
    match outcome {
        Outcome::Delivered => delivered(mode),
        Outcome::Absent => {
            Verdict { status: exit::restore_status(mode, FetchOutcome::Absent), line: end_of_archive(mode, name) }
        }
        Outcome::Passed(text) => Verdict { status: exit::restore_status(mode, FetchOutcome::Absent), line: Some(text) },
        Outcome::Gap(found) => {
            let cure = call.cure().await.map(|cure| format!("; {cure}")).unwrap_or_default();
            call.note_trouble(ErrorKind::Gap);
            let status = exit::restore_status(promotion.column(mode, &name), FetchOutcome::Gap);
            let why = consequence(promotion, mode, name);
            Verdict { status, line: Some(format!("there is a gap in the archive: {found}{cure}{why}")) }
        }
        Outcome::Trouble(error) => {
            call.note_trouble(error.kind());
            trouble(promotion, mode, name, &error)
        }
    }
}

/// Nothing is known: what that means in this mode, and why.
fn trouble(promotion: &Promotion, mode: RecoveryMode, name: WalFileName, error: &Error) -> Verdict {
    let status = exit::restore_status(promotion.column(mode, &name), FetchOutcome::Trouble(error.kind()));
    let why = consequence(promotion, mode, name);
    Verdict { status, line: Some(format!("cannot fetch {name}: {error}{why}")) }
}

/// What the answer means, in the words of the operator who reads the server's log.
fn consequence(promotion: &Promotion, mode: RecoveryMode, name: WalFileName) -> String {
    if promotion.is_decided_by(mode, &name) {
        return "; a promotion is under way: the server stops rather than use a timeline's number twice, and starts as a standby \
                again"
            .to_owned();
    }
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
    detected(path, false)
}

fn detected(path: &Path, needs_archive: bool) -> RecoveryMode {
    mode::detect(DataDirectory::of(path).path(), path, needs_archive)
}
