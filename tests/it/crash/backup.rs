//! `walhalla backup`: a backup exists if and only if its manifest does, and then it is whole.

use super::Place;
use crate::support::crash::{Sample, Scenario, try_points};
use crate::support::forgetful::{self, Disk, Survives};
use crate::support::postgres::Postgres;
use crate::support::{seed, skipped, strace};
use std::time::Duration;

/// A small server that does not archive: the backup fetches its WAL itself.
fn server() -> Postgres {
    let server = Postgres::builder(15).start();
    server.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    server
}

fn arguments(server: &Postgres) -> [String; 5] {
    ["backup", "--wal-timeout", "1s", "--dsn", &server.dsn()].map(str::to_owned)
}

fn backing_up(name: &str, server: &Postgres, prepare: &(dyn Fn() -> Place + Sync)) {
    let arguments = arguments(server);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let scenario = Scenario {
        name,
        prepare,
        root: &|place| place.home.path().to_owned(),
        program: &|place| place.program(&arguments),
        broken: &|place| {
            place.nothing_is_torn();
            place.backups_are_whole();
        },
        again: &|place| {
            let before = place.backups().len();
            place.succeeds(&arguments);
            place.nothing_is_torn();
            assert_eq!(place.backups_are_whole(), before + 1);
        },
    };
    try_points(&scenario, &["KILL", "TERM", "QUIT"], Sample::Within(Duration::from_secs(8)));
}

#[test]
fn ended_at_any_point() {
    let server = server();
    backing_up("walhalla backup into a directory", &server, &Place::in_directory);
    backing_up("walhalla backup into S3", &server, &Place::in_s3);
}

#[test]
fn power_loss() {
    if let Some(why) = strace::unavailable() {
        return skipped("power loss in walhalla backup", why);
    }
    let (server, place) = (server(), Place::in_directory());
    let arguments = arguments(&server);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let repository = place.path("repository");
    let start = Disk::of(std::slice::from_ref(&repository));
    let ended = strace::trace(&place.program(&arguments), forgetful::CALLS, None, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);

    let ours = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().starts_with(".~");
    let mut disk = start.clone();
    let mut promised = false;
    for (number, call) in ended.calls.iter().enumerate() {
        disk.apply(call);
        let undecided: Vec<_> = disk.undecided().into_iter().filter(|path| !ours(path)).collect();
        let torn: Vec<_> = disk.torn().into_iter().filter(|path| !ours(path)).collect();
        assert!(torn.is_empty(), "after call {number}, {call:?}, a power loss tears {torn:?}");
        promised |= undecided.iter().any(|path| path.ends_with("manifest"));
        // From the moment on at which the manifest may survive, all that it names does.
        let missing: Vec<_> = undecided.iter().filter(|path| promised && !path.ends_with("manifest")).collect();
        assert!(missing.is_empty(), "after call {number} the manifest may survive without {missing:?}");
    }
    assert!(promised && !disk.undecided().iter().any(|path| !ours(path)), "{:?}", disk.undecided());

    // Some disks as they may be found: what is listed is whole, and the next backup succeeds.
    let contents = disk.contents();
    let seed = seed();
    let mut chance = fastrand::Rng::with_seed(seed);
    println!("{} calls; seed {seed}", ended.calls.len());
    for survives in [Survives::Nothing, Survives::Names, Survives::Some(seed)] {
        let mut disk = start.clone();
        ended.calls[..chance.usize(1..ended.calls.len())].iter().for_each(|call| disk.apply(call));
        disk.learn(&contents);
        let after = Place::in_directory();
        forgetful::lay_out(&disk.after_power_loss(survives), &repository, &after.path("repository"));
        crate::support::user::give(&after.path("repository"));
        after.nothing_is_torn();
        after.succeeds(&arguments);
        after.nothing_is_torn();
        assert!(after.backups_are_whole() >= 1);
    }
}
