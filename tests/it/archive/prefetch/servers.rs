//! Real servers that recover through what was fetched ahead.

use super::startup::{WAYS, helpers_of, kill, wait_gone};
use crate::archive::site::{LONG, Site, add_row, rows, timeline, wait_primary};
use crate::support::postgres::{Postgres, Stop, postgres_majors};
use crate::support::{skipped, user, wait_until};
use rustix::process::{Pid, Signal};
use std::process::{Command, Stdio};
use std::time::Duration;

const PROMPT: Duration = Duration::from_secs(2);

/// Promoted twice, and restored through both switches: the same rows in every way.
#[test]
fn recovered_through_two_promotions_with_the_same_rows() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        let copy = |way: &str| {
            let server = site.server(way).env("WALHALLA_PREFETCH", way).signal_file("recovery.signal");
            server.clone_of(&primary, false)
        };
        let [first, second, off, call, helper] = ["helper", "call", "off", "call", "helper"].map(copy);
        (1..=6).for_each(|value| drop(add_row(&primary, value)));
        primary.kill();
        for (server, values, line) in [(&first, 7..=10, "00000002"), (&second, 11..=14, "00000003")] {
            server.start().unwrap();
            wait_primary(server);
            assert_eq!(timeline(server), line);
            values.for_each(|value| drop(add_row(server, value)));
            server.stop(Stop::Fast).unwrap();
        }
        let mut expected: Vec<_> = (1..=14).map(|value| value.to_string()).collect();
        for (server, line) in [(off, "00000004"), (call, "00000005"), (helper, "00000006")] {
            server.start().unwrap();
            wait_primary(&server);
            assert_eq!((rows(&server), timeline(&server).as_str()), (expected.join(","), line));
            // The next one finds this timeline, and follows it.
            let value = expected.len() as u32 + 1;
            add_row(&server, value);
            expected.push(value.to_string());
            assert!(!server.log().contains("cannot"), "{}", server.log());
            wait_until("the helper is gone", LONG, || helpers_of(server.data()).is_empty());
            server.stop(Stop::Immediate).unwrap();
        }
    }
}

/// A helper that has work left lives, and goes with its server.
#[test]
fn a_helper_ends_within_two_seconds_when_the_server_stops() {
    for major in postgres_majors() {
        for how in [Stop::Immediate, Stop::Fast] {
            let site = Site::new(major);
            let primary = site.primary();
            let standby = site.server("standby").env("WALHALLA_PREFETCH", "helper").signal_file("standby.signal");
            // Replay waits at the first commit, and the helper with it.
            let standby = standby.setting("recovery_min_apply_delay", "10min").clone_of(&primary, false);
            (1..=20).for_each(|value| drop(add_row(&primary, value)));
            standby.launch();
            let mut found = Vec::new();
            wait_until("there is a helper", LONG, || {
                found = helpers_of(standby.data());
                !found.is_empty()
            });
            standby.stop(how).unwrap();
            for helper in found {
                wait_gone(helper, PROMPT);
            }
            assert!(helpers_of(standby.data()).is_empty());
        }
    }
}

/// Helpers killed while a server replays: every row is there, nothing was restarted.
#[test]
fn helpers_may_be_killed() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        let standby = site.server("standby").env("WALHALLA_PREFETCH", "helper").signal_file("standby.signal");
        let standby = standby.clone_of(&primary, false);
        (1..=30).for_each(|value| drop(add_row(&primary, value)));
        standby.start().unwrap();
        let started = standby.psql("SELECT pg_postmaster_start_time()").unwrap();
        let end = std::time::Instant::now() + LONG;
        while standby.psql("SELECT count(*) FROM t").as_deref() != Ok("30") {
            assert!(std::time::Instant::now() < end, "{}", standby.log());
            for helper in helpers_of(standby.data()) {
                kill(helper, Signal::KILL);
            }
        }
        assert_eq!(standby.psql("SELECT pg_postmaster_start_time()").unwrap(), started);
    }
}

/// Postgres as process 1 of a namespace, as in a container: it adopts orphans. By itself nothing is left to it; with a helper by
/// force, one that is asked to end does so with status 0, and no session notices.
#[test]
fn as_process_one_no_session_is_ever_restarted() {
    for major in postgres_majors() {
        for way in ["auto", "call", "helper"] {
            let site = Site::new(major);
            let primary = site.primary();
            let standby = site.server("standby").env("WALHALLA_PREFETCH", way).signal_file("standby.signal");
            // Replay keeps behind the archive: a helper has something to hold.
            let standby = standby.setting("recovery_min_apply_delay", "2s").clone_of(&primary, false);
            let Some(mut namespace) = Namespace::start(&standby) else { return };
            wait_until("it takes connections", LONG, || standby.psql("SELECT 1").is_ok());
            let mut session = standby.client("psql");
            session.args(["-X", "-q", "-A", "-t", "-c", "SELECT pg_sleep(10)", "-c", "SELECT 'still here'"]);
            let mut session =
                session.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let before = standby.psql("SELECT pg_postmaster_start_time()").unwrap();
            let ended = std::sync::atomic::AtomicBool::new(false);
            let mut killed = 0;
            // The primary goes on, and replay with it.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        add_row(&primary, 1);
                    }
                });
                while session.try_wait().unwrap().is_none() {
                    for helper in helpers_of(standby.data()) {
                        kill(helper, Signal::TERM);
                        killed += 1;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            let output = session.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "still here", "{way}: {output:?}");
            assert_eq!(standby.psql("SELECT pg_postmaster_start_time()").unwrap(), before);
            assert_eq!(killed > 0, way == "helper", "{way}: {killed} helpers");
            for text in ["terminating", "reinitializing", "untracked child"] {
                assert!(!standby.log().contains(text), "{way}: {text} is in {}", standby.log());
            }
            namespace.end();
        }
    }
}

/// A server that is process 1 of its own namespace.
struct Namespace {
    outside: std::process::Child,
    data: std::path::PathBuf,
}

impl Namespace {
    fn start(server: &Postgres) -> Option<Self> {
        let possible = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
        if !user::is_root() || !possible.is_ok_and(|output| output.status.success()) {
            skipped("Postgres as process 1", "no PID namespace can be made here");
            return None;
        }
        let outside = server.launch_with(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        Some(Self { outside, data: server.data().to_owned() })
    }

    fn end(&mut self) {
        // The server is the child of `unshare`; killed, it takes all of its namespace with it.
        let children = format!("/proc/{0}/task/{0}/children", self.outside.id());
        let server = std::fs::read_to_string(children).unwrap_or_default();
        if let Some(pid) = server.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().unwrap())) {
            kill(pid, Signal::KILL);
        }
        self.outside.kill().ok();
        self.outside.wait().ok();
        assert!(std::thread::panicking() || helpers_of(&self.data).is_empty());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Every way in one run: a standby keeps up with a primary that goes on writing.
#[test]
fn a_standby_follows() {
    let site = Site::new(15);
    let primary = site.primary();
    let standbys = WAYS.map(|way| {
        let standby = site.server(way).env("WALHALLA_PREFETCH", way).signal_file("standby.signal");
        let standby = standby.clone_of(&primary, false);
        standby.start().unwrap();
        standby
    });
    for value in 1..=8 {
        add_row(&primary, value);
    }
    for standby in &standbys {
        standby.wait_sql("SELECT count(*) FROM t", "8", LONG);
    }
    standbys[0].promote();
    assert_eq!(timeline(&standbys[0]), "00000002");
    let after = add_row(&standbys[0], 9);
    assert!(after.starts_with("00000002"));
    // The other follows the new timeline through the archive.
    primary.stop(Stop::Fast).unwrap();
    standbys[1].wait_sql("SELECT count(*) FROM t", "9", LONG);
}
