//! Working ahead, called by real servers.

use super::site::{LONG, Site, timeline, wait_primary};
use crate::support::fake_s3::{Answer, FakeS3, Fault};
use crate::support::postgres::{Postgres, Stop, postgres_majors};
use crate::support::processes::working_below;
use crate::support::{long_run, wait_until};
use std::collections::BTreeMap;

/// Completes so many segments, almost empty ones.
fn fill(server: &Postgres, segments: usize) {
    let one = "PERFORM pg_logical_emit_message(false, 'filler', repeat('x', 100)); PERFORM pg_switch_wal();";
    server.psql(&format!("DO $$ BEGIN FOR i IN 1..{segments} LOOP {one} END LOOP; END $$")).unwrap();
}

/// Files with this state in `archive_status`.
fn status(server: &Postgres, state: &str) -> Vec<String> {
    let entries = std::fs::read_dir(server.data().join("pg_wal/archive_status")).unwrap();
    let names = entries.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let mut names: Vec<_> = names.filter_map(|name| name.strip_suffix(state).map(str::to_owned)).collect();
    names.sort();
    names
}

/// How often each WAL file was stored: puts that the store did.
fn stored(s3: &FakeS3) -> BTreeMap<String, usize> {
    let mut stored = BTreeMap::new();
    for key in s3.keys().iter().filter(|key| key.contains("/wal/")) {
        stored.insert(key.rsplit('/').next().unwrap().to_owned(), 0);
    }
    for (key, count) in s3.commits() {
        if let Some(name) = key.rsplit('/').next().filter(|_| key.contains("/wal/")) {
            *stored.entry(name.to_owned()).or_default() += count;
        }
    }
    stored
}

/// The archiver and the commands that it runs, killed as a whole.
fn kill_archiver(server: &Postgres) {
    for pid in working_below(server.data()) {
        let title = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if String::from_utf8_lossy(&title).contains("archiver") {
            rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

/// A backlog whose archiver is killed again and again, with all that it started: nothing is lost, nothing is stored twice.
/// Postgres waits ten seconds before it starts another archiver; a server that is started anew does not.
#[test]
fn a_backlog_survives_the_archivers_death() {
    let (segments, step) = if long_run() { (2000, 150) } else { (300, 60) };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut site = Site::new(15);
    let server = site.primary();
    site.s3.down();
    fill(&server, segments);
    let waiting = status(&server, ".ready");
    assert!(waiting.len() >= segments, "{} wait", waiting.len());
    site.s3.up();
    let mut left = waiting.len();
    while left > 0 {
        let goal = left.saturating_sub(random.usize(step / 2..step));
        wait_until(&format!("no more than {goal} wait, seed {seed}"), LONG * 3, || {
            status(&server, ".ready").len() <= goal
        });
        left = goal;
        kill_archiver(&server);
        if left > 0 {
            server.stop(Stop::Immediate).unwrap();
            server.start().unwrap();
        }
    }
    let stored = stored(&site.s3);
    for name in &waiting {
        assert_eq!(stored.get(name), Some(&1), "{name}, seed {seed}");
    }
    assert!(stored.values().all(|count| *count == 1), "{stored:?}, seed {seed}");
}

/// A promotion in the middle of a backlog: the new timeline's history is there before anything of it.
#[test]
fn a_promotion_archives_its_history_first() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        primary.wait_archived(&primary.switch_wal(), LONG);
        let standby = site
            .server("standby")
            .signal_file("standby.signal")
            .setting("primary_conninfo", primary.dsn())
            .clone_of(&primary, true);
        standby.start().unwrap();
        standby.wait_sql("SELECT status FROM pg_stat_wal_receiver", "streaming", LONG);
        site.s3.fault(Fault::new(Answer::slow_down()).method("PUT").on("/wal/00000002/"));
        standby.promote();
        wait_primary(&standby);
        assert_eq!(timeline(&standby), "00000002");
        fill(&standby, 12);
        wait_until("the history was refused", LONG, || {
            site.s3.requests_of("PUT").iter().any(|put| put.key.ends_with("/00000002.history"))
        });
        site.s3.heal();
        wait_until("all is archived", LONG, || status(&standby, ".ready").is_empty());
        let puts = site.s3.requests_of("PUT");
        let of_second: Vec<_> = puts.iter().filter(|put| put.key.contains("/wal/00000002/")).collect();
        let last_history = of_second.iter().rposition(|put| put.key.ends_with(".history")).unwrap();
        assert!(of_second[..last_history].iter().all(|put| put.key.ends_with(".history")), "{major}: {of_second:?}");
        assert!(of_second.len() > 12);
        assert!(stored(&site.s3).values().all(|count| *count == 1));
    }
}

/// A store that fails for one file: Postgres stops there, as it must, and goes on when it is healed; all is stored once.
#[test]
fn a_store_that_fails_for_one_file() {
    let mut site = Site::new(15);
    let server = site.primary();
    server.wait_archived(&server.switch_wal(), LONG);
    site.s3.down();
    fill(&server, 20);
    let waiting = status(&server, ".ready");
    let sick = waiting[6].clone();
    site.s3.fault(Fault::new(Answer::error(403, "AccessDenied")).method("PUT").on(&sick));
    site.s3.up();
    wait_until("it has come to the sick one", LONG, || status(&server, ".ready").first() == Some(&sick));
    wait_until("its own turn was refused", LONG, || {
        site.s3.requests_of("PUT").iter().filter(|put| put.key.ends_with(&sick)).count() >= 2
    });
    assert_eq!(status(&server, ".ready").first(), Some(&sick));
    site.s3.heal();
    server.psql("SELECT pg_switch_wal()").unwrap();
    wait_until("all is archived", LONG, || status(&server, ".ready").is_empty());
    let stored = stored(&site.s3);
    assert!(waiting.iter().all(|name| stored.get(name) == Some(&1)), "{stored:?}");
}
