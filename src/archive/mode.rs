//! What the server that asks is doing: the column of the exit-code table (`docs/exit-codes.md`).
//!
//! Postgres does not say it. It shows in files: `standby.signal` (which wins) and `recovery.signal`, `promote` while an
//! ordered promotion has not been taken up, and at the very end none of them, because Postgres removes the signal file
//! *before* it asks for the parent's history. All of them may change while a call runs, so a call looks again each second.

use crate::exit::Mode;
use std::path::Path;

/// The mode of the server in `data_directory` that wants a file at `destination` (`%p`).
pub fn detect(data_directory: &Path, destination: &Path) -> Mode {
    let there = |name: &str| data_directory.join(name).symlink_metadata().is_ok();
    if destination.is_absolute() {
        return Mode::Recovery; // pg_rewind, or somebody by hand: nothing goes on as if the archive had ended.
    }
    if there("standby.signal") {
        return if there("promote") { Mode::Promoting } else { Mode::Standby };
    }
    if !there("recovery.signal") && is_from_server(destination) {
        return Mode::Ending;
    }
    Mode::Recovery
}

/// The mode when the arguments are not even understood. Where a server may be asking, its most delicate moment is assumed.
pub fn detect_without_arguments(data_directory: &Path) -> Mode {
    if data_directory.join("postmaster.pid").exists() {
        return detect(data_directory, Path::new("pg_wal/RECOVERYHISTORY"));
    }
    Mode::Recovery
}

/// The two names under which a server in archive recovery asks; nobody else does.
fn is_from_server(destination: &Path) -> bool {
    destination.starts_with("pg_wal")
        && destination
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| matches!(name, "RECOVERYXLOG" | "RECOVERYHISTORY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_by_its_files() {
        let segment = "pg_wal/RECOVERYXLOG";
        let history = "pg_wal/RECOVERYHISTORY";
        for (files, destination, expected) in [
            (&["recovery.signal"][..], segment, Mode::Recovery),
            (&["recovery.signal"], history, Mode::Recovery),
            (&["recovery.signal", "promote"], segment, Mode::Recovery),
            (&["standby.signal"], segment, Mode::Standby),
            (&["standby.signal", "recovery.signal"], segment, Mode::Standby),
            (&["standby.signal", "promote"], segment, Mode::Promoting),
            (&["standby.signal", "recovery.signal", "promote"], history, Mode::Promoting),
            (&[], history, Mode::Ending),
            (&[], segment, Mode::Ending),
            (&["promote"], history, Mode::Ending),
            (&[], "somewhere", Mode::Recovery),
            (&[], "pg_wal/000000010000000000000001", Mode::Recovery),
            (&[], "/data/pg_wal/000000010000000000000001", Mode::Recovery),
            (&["standby.signal"], "/data/pg_wal/000000010000000000000001", Mode::Recovery),
        ] {
            let directory = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(directory.path().join(file), "").unwrap();
            }
            assert_eq!(detect(directory.path(), Path::new(destination)), expected, "{files:?} {destination}");
        }
    }

    #[test]
    fn without_arguments_a_running_server_is_given_its_most_delicate_moment() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(detect_without_arguments(directory.path()), Mode::Recovery);
        std::fs::write(directory.path().join("postmaster.pid"), "1").unwrap();
        assert_eq!(detect_without_arguments(directory.path()), Mode::Ending);
        std::fs::write(directory.path().join("recovery.signal"), "").unwrap();
        assert_eq!(detect_without_arguments(directory.path()), Mode::Recovery);
    }
}
