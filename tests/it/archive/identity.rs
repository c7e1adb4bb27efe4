//! Who may write into an archive: foreign clusters, clones, servers that were put back, and settings that change under them. Each is
//! kept apart, or refused in words that name the situation and say what to do.

use super::site::{LONG, Site, add_row, rows, timeline, wait_primary};
use crate::support::fake_s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
use crate::support::postgres::{Postgres, Stop, postgres_majors, run};
use crate::support::{binaries, stores, user, wait_until};

/// The command that [`Site::server`] sets, for a server that was started with another.
fn archive_command() -> String {
    format!("{} %p", binaries::walhalla_archive().display())
}

/// A server restored from a copy, out of recovery, that archives nothing yet.
fn promoted(site: &Site, name: &str, copy: impl FnOnce(crate::support::postgres::Builder) -> Postgres) -> Postgres {
    let server = copy(site.server(name).setting("archive_command", "false").signal_file("recovery.signal"));
    server.start().unwrap();
    wait_primary(&server);
    server
}

/// Waits until the server was refused so, and a second time: it asks again and again, and stores nothing meanwhile.
#[track_caller]
fn refused(site: &Site, server: &Postgres, texts: &[&str]) {
    wait_until(&format!("{texts:?} in the log, twice"), LONG, || {
        let log = server.log();
        log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count() >= 2
    });
    assert!(!site.s3.keys().is_empty());
}

#[test]
fn clones_of_one_backup_that_both_archive_are_kept_apart() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        let copy = |name: &str| site.server(name).signal_file("recovery.signal").clone_of(&primary, false);
        let [first, second] = ["first", "second"].map(copy);
        add_row(&primary, 1);
        primary.kill();
        for clone in [&first, &second] {
            clone.start().unwrap();
            wait_primary(clone);
            add_row(clone, 2);
        }
        assert_eq!((timeline(&first).as_str(), timeline(&second).as_str()), ("00000002", "00000003"));
        // Side by side, from here on.
        for value in 3..5 {
            add_row(&first, value);
            add_row(&second, value * 10);
        }
        assert!(!(first.log() + &second.log()).contains("cannot archive"), "{}{}", first.log(), second.log());
        // Neither has written into the other's history.
        assert_eq!(rows(&second), "1,2,2,30,40");
    }
}

/// Neither saw the other's history when it chose its timeline: both took number 2, at different places.
#[test]
fn of_two_promoted_to_one_timeline_the_second_is_refused() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        let mut clones = Vec::new();
        for (name, value) in [("first", 1), ("second", 2)] {
            add_row(&primary, value);
            clones.push(promoted(&site, name, |builder| builder.clone_of(&primary, false)));
        }
        primary.kill();
        let [first, second] = &clones[..] else { unreachable!() };
        assert_eq!((timeline(first).as_str(), timeline(second).as_str()), ("00000002", "00000002"));
        first.reconfigure("archive_command", &archive_command());
        add_row(first, 10);
        let before = site.s3.keys();
        second.reconfigure("archive_command", &archive_command());
        second.psql("INSERT INTO t VALUES (20)").unwrap();
        second.switch_wal();
        refused(
            &site,
            second,
            &["00000002.history", "is taken by other content", "promoted to the same timeline", "rebuild"],
        );
        assert_eq!(site.s3.keys(), before, "nothing of the second is stored");
        add_row(first, 11);
    }
}

/// Both were promoted at the same place: their histories are the same to the byte, and the first segment tells them apart.
#[test]
fn of_two_promoted_at_one_place_the_second_is_refused_by_its_first_segment() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        add_row(&primary, 1);
        let copies = ["first", "second"].map(|name| {
            site.server(name)
                .setting("archive_command", "false")
                .signal_file("recovery.signal")
                .clone_of(&primary, false)
        });
        add_row(&primary, 2);
        primary.kill();
        for copy in &copies {
            copy.start().unwrap();
            wait_primary(copy);
        }
        let [first, second] = &copies;
        let history = |server: &Postgres| std::fs::read(server.data().join("pg_wal/00000002.history")).unwrap();
        assert_eq!(history(first), history(second));
        first.reconfigure("archive_command", &archive_command());
        add_row(first, 10);
        let before = site.s3.keys();
        second.reconfigure("archive_command", &archive_command());
        second.psql("INSERT INTO t VALUES (20)").unwrap();
        second.switch_wal();
        refused(&site, second, &["is taken by other content", "two primaries", "stop the wrong one"]);
        let after: Vec<_> = site.s3.keys().into_iter().filter(|key| !before.contains(key)).collect();
        // What informs a reader of a promotion lies beside the first's.
        assert!(after.iter().all(|key| key.contains(".partial")), "{after:?}");
        add_row(first, 11);
    }
}

/// An old copy of the data directory is put back under a server whose archive has gone on.
#[test]
fn a_data_directory_put_back_behind_its_archive_is_refused() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        add_row(&primary, 1);
        primary.stop(Stop::Fast).unwrap();
        let snapshot = primary.directory().join("snapshot");
        let copy = |from: &std::path::Path, to: &std::path::Path| {
            run(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).unwrap();
        };
        copy(primary.data(), &snapshot);
        primary.start().unwrap();
        for value in 2..5 {
            add_row(&primary, value);
        }
        primary.stop(Stop::Fast).unwrap();
        std::fs::remove_dir_all(primary.data()).unwrap();
        copy(&snapshot, primary.data());
        user::give(primary.data());
        let before = site.s3.keys();
        primary.start().unwrap();
        assert_eq!(rows(&primary), "1");
        for value in 100..108 {
            primary.psql(&format!("INSERT INTO t VALUES ({value})")).unwrap();
            primary.switch_wal();
        }
        refused(&site, &primary, &["is taken by other content", "an older copy of this data directory was put back"]);
        assert_eq!(site.s3.keys(), before, "nothing of the second life is mixed into the first");
    }
}

#[test]
fn foreign_clusters_under_one_prefix_do_not_meet() {
    let major = postgres_majors()[0];
    let site = Site::new(major);
    let (one, other) = (site.primary(), site.server("other").start());
    let clone = site.server("clone").signal_file("recovery.signal").clone_of(&one, false);
    other.psql("CREATE TABLE t (a int)").unwrap();
    for value in 1..4 {
        add_row(&one, value);
        add_row(&other, value * 10);
    }
    one.kill();
    clone.start().unwrap();
    wait_primary(&clone);
    assert_eq!(rows(&clone), "1,2,3");
    // A segment of the other's, by its name.
    let segment = std::fs::read_dir(other.data().join("pg_wal")).unwrap().map(|entry| entry.unwrap().file_name());
    let segment = segment.map(|name| name.into_string().unwrap()).filter(|name| name.len() == 24).max().unwrap();
    let place = clone.data().join("pg_wal").join(&segment);
    let ours = std::fs::read(&place).ok();
    std::fs::copy(other.data().join("pg_wal").join(&segment), &place).unwrap();
    let variables = stores::s3_at(&site.s3.endpoint(), BUCKET, "cluster", ACCESS_KEY, SECRET_KEY);
    let output =
        binaries::run(&binaries::walhalla_archive(), &[&format!("pg_wal/{segment}")], &variables, clone.data());
    assert!(output.status != Some(0) && output.stderr.contains("belongs to another cluster"), "{output:?}");
    if let Some(ours) = ours {
        std::fs::write(&place, ours).unwrap();
    }
    // Where there are two, the operator says which.
    let restore = ["restore", "--dry-run", "--to", "/nowhere/at/all"];
    let output = binaries::run(&binaries::walhalla(), &restore, &variables, std::path::Path::new("/"));
    assert!(output.status != Some(0) && output.stderr.contains("--cluster"), "{output:?}");
}

/// The commands read their settings anew each time: from one file on they store elsewhere, and mix nothing up.
#[test]
fn a_storage_changed_under_a_running_server() {
    let site = Site::new(postgres_majors()[0]);
    let place = crate::support::temporary();
    let file = place.path().join("walhalla.toml");
    let storage = |prefix: &str| std::fs::write(&file, format!("storage = 's3://{BUCKET}/{prefix}'\n")).unwrap();
    storage("one");
    let server = site.server("primary").env("WALHALLA_STORAGE", "").env("WALHALLA_CONFIG", &file).start();
    server.psql("CREATE TABLE t (a int)").unwrap();
    add_row(&server, 1);
    let one = site.s3.keys();
    storage("two");
    add_row(&server, 2);
    add_row(&server, 3);
    let (kept, two): (Vec<_>, Vec<_>) = site.s3.keys().into_iter().partition(|key| key.starts_with("one/"));
    assert_eq!(kept, one, "nothing more goes where the setting no longer points");
    let ends = |end: &str| two.iter().any(|key| key.starts_with("two/") && key.ends_with(end));
    assert!(ends("/cluster.json") && two.iter().filter(|key| key.contains("/wal/")).count() == 2, "{two:?}");
    // And back: what was stored there is known there.
    storage("one");
    let segment = add_row(&server, 4);
    assert!(site.s3.keys().iter().any(|key| key.starts_with("one/") && key.ends_with(&segment)));
    assert_eq!(rows(&server), "1,2,3,4");
}
