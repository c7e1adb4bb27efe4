//! What the server that asks is doing: the column of the exit-code table (`docs/exit-codes.md`).
//!
//! Postgres does not say it. It shows in files: `standby.signal` (which wins) and `recovery.signal`, `promote` while an
//! ordered promotion has not been taken up, and at the very end none of them, because Postgres removes the signal file
//! *before* it asks for the parent's history. All of them may change while a call runs, so a call looks again each second.

use super::data_directory;
use crate::exit::RecoveryMode;
use std::path::{Component, Path};

/// The mode of the server in `data_directory` that wants a file at `destination` (`%p`). `needs_archive` is what was configured for
/// a promotion.
///
/// An absolute path is `pg_rewind`'s, or somebody's by hand: for them nothing goes on as if the archive had ended. But both of
/// them name the file as it is called; under `RECOVERYXLOG` or `RECOVERYHISTORY` a server asks, whose wrapper made the path
/// absolute (`restore_command = 'walhalla-restore %f "/data/%p"'`).
pub fn detect(data_directory: &Path, destination: &Path, needs_archive: bool) -> RecoveryMode {
    let there = |name: &str| data_directory.join(name).symlink_metadata().is_ok();
    let is_from_server = is_from_server(data_directory, destination);
    if destination.is_absolute() && !is_from_server {
        return RecoveryMode::Recovery;
    }
    if there("standby.signal") {
        return if there("promote") { RecoveryMode::Promoting { needs_archive } } else { RecoveryMode::Standby };
    }
    if !there("recovery.signal") && is_from_server {
        return RecoveryMode::Ending;
    }
    RecoveryMode::Recovery
}

/// The mode when the arguments are not even understood. Where a server may be asking, its most delicate moment is assumed.
pub fn detect_without_arguments(data_directory: &Path) -> RecoveryMode {
    if data_directory.join("postmaster.pid").exists() {
        return detect(data_directory, Path::new("pg_wal/RECOVERYHISTORY"), false);
    }
    RecoveryMode::Recovery
}

/// The two names under which a server in archive recovery asks, in its `pg_wal`; nobody else does. By an absolute path only what
/// is a data directory has a server: the last column of the table must not be anybody's guess.
fn is_from_server(data_directory: &Path, destination: &Path) -> bool {
    let name = destination.file_name().and_then(|name| name.to_str());
    if !name.is_some_and(|name| matches!(name, "RECOVERYXLOG" | "RECOVERYHISTORY")) {
        return false;
    }
    if destination.is_absolute() {
        return data_directory::is_one(data_directory) && data_directory::is_in_pg_wal_of(data_directory, destination);
    }
    destination.components().find(|part| *part != Component::CurDir) == Some(Component::Normal("pg_wal".as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_by_its_files() {
        let segment = "pg_wal/RECOVERYXLOG";
        let history = "pg_wal/RECOVERYHISTORY";
        for (files, destination, expected) in [
            (&["recovery.signal"][..], segment, RecoveryMode::Recovery),
            (&["recovery.signal"], history, RecoveryMode::Recovery),
            (&["recovery.signal", "promote"], segment, RecoveryMode::Recovery),
            (&["standby.signal"], segment, RecoveryMode::Standby),
            (&["standby.signal", "recovery.signal"], segment, RecoveryMode::Standby),
            (&["standby.signal", "promote"], segment, RecoveryMode::Promoting { needs_archive: true }),
            (
                &["standby.signal", "recovery.signal", "promote"],
                history,
                RecoveryMode::Promoting { needs_archive: true },
            ),
            (&[], history, RecoveryMode::Ending),
            (&[], segment, RecoveryMode::Ending),
            (&["promote"], history, RecoveryMode::Ending),
            (&[], "./pg_wal/RECOVERYXLOG", RecoveryMode::Ending),
            (&[], "somewhere", RecoveryMode::Recovery),
            (&[], "pg_wal/000000010000000000000001", RecoveryMode::Recovery),
            (&[], "/data/pg_wal/000000010000000000000001", RecoveryMode::Recovery),
            (&["standby.signal"], "/data/pg_wal/000000010000000000000001", RecoveryMode::Recovery),
        ] {
            let directory = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(directory.path().join(file), "").unwrap();
            }
            assert_eq!(detect(directory.path(), Path::new(destination), true), expected, "{files:?} {destination}");
        }
    }

    #[test]
    fn a_wrapper_may_make_the_path_absolute() {
        let standby = RecoveryMode::Standby;
        let promoting = RecoveryMode::Promoting { needs_archive: true };
        for (files, name, expected) in [
            (&["PG_VERSION", "standby.signal"][..], "RECOVERYXLOG", standby),
            (&["PG_VERSION", "standby.signal"], "RECOVERYHISTORY", standby),
            (&["PG_VERSION", "standby.signal", "promote"], "RECOVERYXLOG", promoting),
            (&["PG_VERSION", "recovery.signal"], "RECOVERYXLOG", RecoveryMode::Recovery),
            (&["PG_VERSION"], "RECOVERYHISTORY", RecoveryMode::Ending),
            // No data directory: no server is there that could be ending its recovery.
            (&[], "RECOVERYHISTORY", RecoveryMode::Recovery),
            // pg_rewind, in the data directory of a server that was a standby.
            (&["PG_VERSION", "standby.signal"], "000000010000000000000001", RecoveryMode::Recovery),
            (&["PG_VERSION"], "000000010000000000000001", RecoveryMode::Recovery),
        ] {
            let directory = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(directory.path().join(file), "").unwrap();
            }
            let destination = directory.path().join("pg_wal").join(name);
            assert_eq!(detect(directory.path(), &destination, true), expected, "{files:?} {name}");
            let elsewhere = directory.path().join("elsewhere").join(name);
            assert_eq!(detect(directory.path(), &elsewhere, true), RecoveryMode::Recovery, "{files:?} {name}");
        }
    }

    #[test]
    fn without_arguments_a_running_server_is_given_its_most_delicate_moment() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(detect_without_arguments(directory.path()), RecoveryMode::Recovery);
        std::fs::write(directory.path().join("postmaster.pid"), "1").unwrap();
        assert_eq!(detect_without_arguments(directory.path()), RecoveryMode::Ending);
        std::fs::write(directory.path().join("recovery.signal"), "").unwrap();
        assert_eq!(detect_without_arguments(directory.path()), RecoveryMode::Recovery);
    }
}
