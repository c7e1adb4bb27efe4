//! `walhalla restore`: until `pg_control` has its name nothing can be started, and from then on all of it is there.

use super::Place;
use crate::support::crash::{Sample, Scenario, try_points};
use crate::support::forgetful::{self, Disk};
use crate::support::postgres::{self, Postgres, client_program};
use crate::support::{skipped, strace, user};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A repository with one backup, and no server any more.
fn stocked(place: Place) -> Place {
    let server = Postgres::builder(15).start();
    server.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    place.succeeds(&["backup", "--wal-timeout", "1s", "--dsn", &server.dsn()]);
    place
}

/// Where one restore goes.
struct Target(tempfile::TempDir);

impl Target {
    fn in_place(place: &Place) -> Self {
        let target = Self(tempfile::Builder::new().prefix("to-").tempdir_in(place.home.path()).unwrap());
        user::make_directory(target.0.path());
        target
    }

    /// Two directories that the restore must make.
    fn data(&self) -> PathBuf {
        self.0.path().join("new/data")
    }

    fn arguments(&self) -> Vec<String> {
        let to = self.data().display().to_string();
        ["restore", "--to", &to, "--as", "copy", "--target-immediate"].map(str::to_owned).to_vec()
    }
}

fn verify(data: &Path) {
    let mut verify = user::command(&client_program(15, "pg_verifybackup"));
    postgres::run(verify.current_dir("/").args(["-n", "-e"]).arg(data)).unwrap_or_else(|error| panic!("{error}"));
}

fn restoring(name: &str, repository: &Place) {
    let run = |target: &Target| {
        let arguments = target.arguments();
        repository.walhalla(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let scenario = Scenario {
        name,
        prepare: &|| Target::in_place(repository),
        root: &|target| target.0.path().to_owned(),
        program: &|target| {
            let arguments = target.arguments();
            repository.program(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        },
        broken: &|target| {
            if target.data().join("global/pg_control").exists() {
                verify(&target.data());
            }
        },
        again: &|target| {
            let data = target.data();
            let begun = data.exists() && std::fs::read_dir(&data).unwrap().next().is_some();
            if data.join("global/pg_control").exists() {
                // Finished: it is the operator's, and never written over.
                let refused = run(target);
                assert!(refused.status != Some(0) && refused.stderr.contains("is not empty"), "{refused:?}");
            } else if begun {
                let refused = run(target);
                assert!(refused.stderr.contains("holds a restore that did not finish"), "{refused:?}");
                assert!(refused.stderr.contains("remove what is in it and run again"), "{refused:?}");
            }
            if begun {
                std::fs::remove_dir_all(&data).unwrap();
            }
            let done = run(target);
            assert_eq!(done.status, Some(0), "{done:?}");
            verify(&data);
        },
    };
    try_points(&scenario, &["KILL", "TERM", "QUIT"], Sample::Within(Duration::from_secs(8)));
}

#[test]
fn ended_at_any_point() {
    restoring("walhalla restore from a directory", &stocked(Place::in_directory()));
    restoring("walhalla restore from S3", &stocked(Place::in_s3()));
}

#[test]
fn power_loss() {
    if let Some(why) = strace::unavailable() {
        return skipped("power loss in walhalla restore", why);
    }
    let place = stocked(Place::in_directory());
    let target = Target::in_place(&place);
    let arguments = target.arguments();
    let mut disk = Disk::of(&[target.0.path().to_owned()]);
    let program = place.program(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let ended = strace::trace(&program, forgetful::CALLS, None, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);

    let control = target.data().join("global/pg_control");
    let mut named = 0;
    for (number, call) in ended.calls.iter().enumerate() {
        disk.apply(call);
        if disk.find(&control).is_some() {
            named += 1;
            // Its own name, and the temporary one that it had, may yet be forgotten; nothing else.
            let mut undecided = disk.undecided();
            undecided.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("pg_control"));
            assert!(
                undecided.is_empty(),
                "after call {number}, {call:?}, pg_control may survive without {undecided:?}"
            );
        }
    }
    println!("{} calls, {named} of them with pg_control in place", ended.calls.len());
    assert!(named > 0, "the model never saw {}", control.display());
    assert!(disk.undecided().is_empty(), "exit 0, and a power loss takes {:?}", disk.undecided());
}
