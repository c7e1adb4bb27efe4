//! From what went wrong to the exit status, exhaustively, per program. The one place where statuses are numbers.
//!
//! What Postgres makes of a status decides the numbers (`shell_restore`, `shell_archive`, `wait_result_is_any_signal`):
//!
//! * `restore_command`: 0 delivered; 1 to 125 "not there, go on without" (which ends a recovery); above 125 FATAL, the server
//!   stops; 143 is taken for a shutdown. 126 and 127 are the shell's own.
//! * `archive_command`: 0 archived; 1 to 125 try again; above 125 the archiver process itself ends and the failure is not
//!   even counted.
//!
//! `docs/exit-codes.md` holds the tables that [`markdown`] makes, and a test compares them.

use crate::error::{Error, ErrorKind};
use std::fmt::Write;

/// Success, and nothing else.
pub const SUCCESS: u8 = 0;

/// `walhalla-archive` and `walhalla`: wrong arguments (`EX_USAGE`). (`walhalla-restore` answers as for a wrong setting, by
/// [`restore_status`]: its numbers mean something else to Postgres.)
pub const USAGE: u8 = 64;

/// `walhalla-archive` and `walhalla`: a panic; the same as a bug that was noticed (`EX_SOFTWARE`).
pub const PANIC: u8 = 70;

/// The status of `walhalla-archive` after this error: 1 to 125.
pub fn archive_status(error: &Error) -> u8 {
    archive_kind(error.kind())
}

/// After `sysexits.h`, where it has a word for it.
fn archive_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Gap | ErrorKind::Mismatch | ErrorKind::Duplicate | ErrorKind::Corrupt => 65,
        ErrorKind::NotFound | ErrorKind::LocalIo => 74,
        ErrorKind::Unavailable => 75,
        ErrorKind::Denied => 77,
        ErrorKind::Config => 78,
        ErrorKind::Protocol | ErrorKind::Bug => PANIC,
        ErrorKind::Held | ErrorKind::Interrupted => 1,
    }
}

/// The status of `walhalla`, the operator's program, after this error: 1 to 125. As `walhalla-archive`, except that what was
/// asked for and is not there has a number of its own (`EX_NOINPUT`).
pub fn operator_status(error: &Error) -> u8 {
    operator_kind(error.kind())
}

fn operator_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound | ErrorKind::Gap => 66,
        ErrorKind::Mismatch | ErrorKind::Duplicate | ErrorKind::Corrupt => 65,
        ErrorKind::LocalIo => 74,
        ErrorKind::Unavailable => 75,
        ErrorKind::Denied => 77,
        ErrorKind::Config => 78,
        ErrorKind::Protocol | ErrorKind::Bug => PANIC,
        ErrorKind::Held | ErrorKind::Interrupted => 1,
    }
}

/// What the server is doing when it calls `walhalla-restore`: the column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecoveryMode {
    /// `recovery.signal` is there; also calls by hand and by `pg_rewind`.
    Recovery,
    /// `standby.signal` is there.
    Standby,
    /// A standby that was ordered to promote: `promote` is there. Also, with `needs_archive`, a request for a `.history` in a
    /// promotion in which an earlier call met trouble: 1 there would let a timeline id be used twice.
    Promoting {
        /// Whether it must rather stop than promote without the archive (`WALHALLA_PROMOTE_NEEDS_ARCHIVE`).
        needs_archive: bool,
    },
    /// No signal file is there, and `pg_wal/RECOVERY…` is asked for: the server removed it a moment ago. A status above 125
    /// stops the server, and its next start comes up read-write on the old timeline.
    Ending,
}

/// How a call of `walhalla-restore` ended: the row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FetchOutcome {
    /// The verified file is in its place.
    Delivered,
    /// Proven absent.
    Absent,
    /// A gap that stays.
    Gap,
    /// Anything else. An error of kind `NotFound` is trouble like any other: only [`FetchOutcome::Absent`] is a proof.
    Trouble(ErrorKind),
}

/// The status of `walhalla-restore`: 0, 1, or 200 and up. Never 126 to 199, and never above 125 in the last column.
pub fn restore_status(mode: RecoveryMode, outcome: FetchOutcome) -> u8 {
    let stop = match outcome {
        FetchOutcome::Delivered => return SUCCESS,
        FetchOutcome::Absent => return 1,
        FetchOutcome::Gap => restore_kind(ErrorKind::Gap),
        FetchOutcome::Trouble(kind) => restore_kind(kind),
    };
    match mode {
        RecoveryMode::Recovery | RecoveryMode::Promoting { needs_archive: true } => stop,
        RecoveryMode::Standby | RecoveryMode::Promoting { needs_archive: false } | RecoveryMode::Ending => 1,
    }
}

/// Above 125, away from the shell's 126 and 127 and from 128 plus a signal.
fn restore_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Config | ErrorKind::Held => 200,
        ErrorKind::Denied => 201,
        ErrorKind::Unavailable => 202,
        ErrorKind::Corrupt => 203,
        ErrorKind::Mismatch | ErrorKind::Duplicate => 204,
        // "Not found" of something local, or unproven: all the same no proof that the WAL file is absent.
        ErrorKind::LocalIo | ErrorKind::NotFound => 205,
        ErrorKind::Gap => 206,
        ErrorKind::Protocol | ErrorKind::Bug | ErrorKind::Interrupted => 255,
    }
}

/// How `walhalla check` ended, as the plugins of Nagios and its kin say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckOutcome {
    /// All is well.
    Ok,
    /// Something should be seen to.
    Warning,
    /// WAL may be lost, or nothing could be restored.
    Critical,
    /// Something could not be looked at, and nothing worse was found; or the arguments or settings are wrong.
    Unknown,
}

/// The status of `walhalla check`: 0 to 3. It has no other, whatever goes wrong.
pub fn check_status(outcome: CheckOutcome) -> u8 {
    match outcome {
        CheckOutcome::Ok => SUCCESS,
        CheckOutcome::Warning => 1,
        CheckOutcome::Critical => 2,
        CheckOutcome::Unknown => 3,
    }
}

fn check_table() -> String {
    let mut table = String::from("| outcome | status |\n|---|---|\n");
    for (outcome, words) in [
        (CheckOutcome::Ok, "OK"),
        (CheckOutcome::Warning, "WARNING"),
        (CheckOutcome::Critical, "CRITICAL"),
        (CheckOutcome::Unknown, "UNKNOWN; also wrong arguments or settings"),
    ] {
        row(&mut table, words, &[check_status(outcome)]);
    }
    table
}

/// The kinds one after another, from [`ErrorKind::NotFound`] on.
fn following(kind: ErrorKind) -> Option<ErrorKind> {
    Some(match kind {
        ErrorKind::NotFound => ErrorKind::Gap,
        ErrorKind::Gap => ErrorKind::Mismatch,
        ErrorKind::Mismatch => ErrorKind::Duplicate,
        ErrorKind::Duplicate => ErrorKind::Corrupt,
        ErrorKind::Corrupt => ErrorKind::Config,
        ErrorKind::Config => ErrorKind::Denied,
        ErrorKind::Denied => ErrorKind::Unavailable,
        ErrorKind::Unavailable => ErrorKind::LocalIo,
        ErrorKind::LocalIo => ErrorKind::Protocol,
        ErrorKind::Protocol => ErrorKind::Held,
        ErrorKind::Held => ErrorKind::Interrupted,
        ErrorKind::Interrupted => ErrorKind::Bug,
        ErrorKind::Bug => return None,
    })
}

fn kinds() -> impl Iterator<Item = ErrorKind> {
    std::iter::successors(Some(ErrorKind::NotFound), |kind| following(*kind))
}

/// A kind in the words of the tables.
fn words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not found",
        ErrorKind::Gap => "a gap in the WAL",
        ErrorKind::Mismatch => "belongs to another cluster, name or size",
        ErrorKind::Duplicate => "the name is taken by other content",
        ErrorKind::Corrupt => "damaged",
        ErrorKind::Config => "wrong setting or set-up",
        ErrorKind::Denied => "refused: credentials, permissions",
        ErrorKind::Unavailable => "storage or server out of reach, throttled, deadline over",
        ErrorKind::LocalIo => "a local file cannot be read or written",
        ErrorKind::Protocol => "the peer broke its protocol",
        ErrorKind::Held => "archiving is held in this data directory",
        ErrorKind::Interrupted => "stopped by the operator",
        ErrorKind::Bug => "a mistake of ours, a panic",
    }
}

/// The tables of `docs/exit-codes.md`, in this order: `walhalla-restore`, `walhalla-archive`, `walhalla`, `walhalla check`.
pub fn markdown() -> [String; 4] {
    let plain = |status: fn(ErrorKind) -> u8| {
        let mut table = String::from("| outcome | status |\n|---|---|\n| done | 0 |\n");
        row(&mut table, "wrong arguments", &[USAGE]);
        for kind in kinds() {
            row(&mut table, words(kind), &[status(kind)]);
        }
        table
    };
    [restore_table(), plain(archive_kind), plain(operator_kind), check_table()]
}

/// The columns of `walhalla-restore`'s table.
const MODES: [RecoveryMode; 5] = [
    RecoveryMode::Recovery,
    RecoveryMode::Standby,
    RecoveryMode::Promoting { needs_archive: false },
    RecoveryMode::Promoting { needs_archive: true },
    RecoveryMode::Ending,
];

fn restore_table() -> String {
    let mut table = String::from(
        "| outcome | recovery | standby | promotion | promotion that needs the archive | recovery is ending |\n\
         |---|---|---|---|---|---|\n",
    );
    let troubles = kinds().filter(|kind| !matches!(kind, ErrorKind::Gap | ErrorKind::Held | ErrorKind::Interrupted));
    let outcomes = [
        (FetchOutcome::Delivered, "verified file delivered"),
        (FetchOutcome::Absent, "proven absent"),
        (FetchOutcome::Gap, "a gap that stays"),
    ];
    let troubles = troubles.map(|kind| {
        // The bare words would look like the proof that this is not.
        let words = if kind == ErrorKind::NotFound { "something else not found: no proof" } else { words(kind) };
        (FetchOutcome::Trouble(kind), words)
    });
    for (outcome, words) in outcomes.into_iter().chain(troubles) {
        row(&mut table, words, &MODES.map(|mode| restore_status(mode, outcome)));
    }
    table
}

fn row(table: &mut String, words: &str, statuses: &[u8]) {
    // Writing into a text cannot fail.
    write!(table, "| {words} |").unwrap_or(());
    for status in statuses {
        write!(table, " {status} |").unwrap_or(());
    }
    table.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_tables() {
        let all: Vec<_> = kinds().collect();
        assert_eq!(all.len(), 13, "a new kind needs its place in `following`");
        assert!(all.iter().all(|kind| all.iter().filter(|other| words(**other) == words(*kind)).count() == 1));
    }

    #[test]
    fn archive_and_operator() {
        for (kind, archive, operator) in [
            (ErrorKind::NotFound, 74, 66),
            (ErrorKind::Gap, 65, 66),
            (ErrorKind::Mismatch, 65, 65),
            (ErrorKind::Duplicate, 65, 65),
            (ErrorKind::Corrupt, 65, 65),
            (ErrorKind::Config, 78, 78),
            (ErrorKind::Denied, 77, 77),
            (ErrorKind::Unavailable, 75, 75),
            (ErrorKind::LocalIo, 74, 74),
            (ErrorKind::Protocol, 70, 70),
            (ErrorKind::Held, 1, 1),
            (ErrorKind::Interrupted, 1, 1),
            (ErrorKind::Bug, 70, 70),
        ] {
            let error = Error::new(kind, "x");
            assert_eq!((archive_status(&error), operator_status(&error)), (archive, operator), "{kind:?}");
            assert!((1..=125).contains(&archive) && (1..=125).contains(&operator));
        }
    }

    #[test]
    fn restore_cell_by_cell() {
        use FetchOutcome::{Absent, Delivered, Gap, Trouble};
        for (outcome, statuses) in [
            (Delivered, [0, 0, 0, 0, 0]),
            (Absent, [1, 1, 1, 1, 1]),
            (Gap, [206, 1, 1, 206, 1]),
            (Trouble(ErrorKind::NotFound), [205, 1, 1, 205, 1]),
            (Trouble(ErrorKind::Gap), [206, 1, 1, 206, 1]),
            (Trouble(ErrorKind::Mismatch), [204, 1, 1, 204, 1]),
            (Trouble(ErrorKind::Duplicate), [204, 1, 1, 204, 1]),
            (Trouble(ErrorKind::Corrupt), [203, 1, 1, 203, 1]),
            (Trouble(ErrorKind::Config), [200, 1, 1, 200, 1]),
            (Trouble(ErrorKind::Denied), [201, 1, 1, 201, 1]),
            (Trouble(ErrorKind::Unavailable), [202, 1, 1, 202, 1]),
            (Trouble(ErrorKind::LocalIo), [205, 1, 1, 205, 1]),
            (Trouble(ErrorKind::Protocol), [255, 1, 1, 255, 1]),
            (Trouble(ErrorKind::Held), [200, 1, 1, 200, 1]),
            (Trouble(ErrorKind::Interrupted), [255, 1, 1, 255, 1]),
            (Trouble(ErrorKind::Bug), [255, 1, 1, 255, 1]),
        ] {
            assert_eq!(MODES.map(|mode| restore_status(mode, outcome)), statuses, "{outcome:?}");
        }
    }

    #[test]
    fn what_no_status_may_be() {
        let outcomes = kinds().map(FetchOutcome::Trouble).chain([FetchOutcome::Absent, FetchOutcome::Gap]);
        for outcome in outcomes {
            for mode in MODES {
                let status = restore_status(mode, outcome);
                assert!(status != 0 && !(126..=199).contains(&status), "{mode:?} {outcome:?}: {status}");
                // In a recovery, 1 is said of a proven absence alone.
                if mode == RecoveryMode::Recovery && outcome != FetchOutcome::Absent {
                    assert!(status >= 200, "{outcome:?}");
                }
                if mode == RecoveryMode::Ending {
                    assert!(status <= 125, "{outcome:?}");
                }
            }
        }
    }

    #[test]
    fn the_documentation_has_these_tables() {
        let documentation = include_str!("../docs/exit-codes.md");
        for table in markdown() {
            assert!(documentation.contains(&table), "docs/exit-codes.md lacks or differs from\n{table}");
        }
    }
}
