//! What lies in the spool: whole, bound to its recovery and its repository, and never in anybody's way.

use super::startup::{Startup, WAYS, ahead, content, folders, helpers, kill, named, stocked, wait_gone};
use crate::archive::bench::SEGMENT;
use crate::archive::site::LONG;
use crate::support::{skipped, user, wait_until};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// After a change of settings nothing old is believed.
#[test]
fn files_of_another_repository_are_not_believed() {
    for way in WAYS {
        let (s3, bench) = stocked(8);
        let mut startup = Startup::of(&bench, way);
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        startup.wait_ahead(&named(1, 2));
        let other = bench.key(&named(1, 2)).replace("cluster/", "other/");
        let text = super::startup::object(&bench, 1, 7, SEGMENT);
        let wrong = "WALHALLA_STORAGE=s3://bucket/other";
        s3.insert(&other, text);
        // That object is of another segment: only who asks the other repository meets it.
        assert_eq!(startup.call_with(wrong, &named(1, 2)), 204);
        startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
    }
}

/// The next recovery believes nothing of this one, and clears it away; another server's is left alone.
#[test]
fn each_recovery_has_its_own() {
    for way in WAYS {
        let (s3, bench) = stocked(8);
        let (other_s3, other) = stocked(8);
        let other = other.with("WALHALLA_SPOOL", &bench.environment()["WALHALLA_SPOOL"]);
        let mut theirs = Startup::of(&other, way);
        theirs.expect(&named(1, 1), &content(1, 1, SEGMENT));
        theirs.wait_ahead(&named(1, 2));
        let mut first = Startup::of(&bench, "call");
        first.expect(&named(1, 1), &content(1, 1, SEGMENT));
        first.wait_ahead(&named(1, 2));
        assert_eq!(folders(&bench).len(), 2);
        drop(first);
        s3.forget_requests();
        let mut second = Startup::of(&bench, way);
        second.expect(&named(1, 2), &content(1, 2, SEGMENT));
        assert_eq!(super::startup::times_asked(&s3, &named(1, 2)), 1);
        second.wait_ahead(&named(1, 3));
        wait_until("the first one's is swept", LONG, || folders(&bench).len() == 2);
        drop(other_s3);
        theirs.expect(&named(1, 2), &content(1, 2, SEGMENT));
    }
}

/// Two servers restore at once on one host, from one repository, through one spool.
#[test]
fn two_servers_at_once() {
    for way in WAYS {
        let (s3, bench) = stocked(20);
        let (_unused, other) = stocked(0);
        let other = other.at(&s3.endpoint()).with("WALHALLA_SPOOL", &bench.environment()["WALHALLA_SPOOL"]);
        std::thread::scope(|scope| {
            for bench in [&bench, &other] {
                scope.spawn(move || {
                    let mut startup = Startup::of(bench, way);
                    for number in 1..=20 {
                        startup.expect(&named(1, number), &content(1, number, SEGMENT));
                    }
                    assert_eq!(startup.said(), "");
                });
            }
        });
    }
}

/// The end of a recovery clears up, on the first timeline too, whose history nobody asks the archive for.
#[test]
fn the_end_of_a_recovery_clears_up() {
    for history in ["00000001.history", "00000002.history"] {
        for way in WAYS {
            let (_s3, bench) = stocked(8);
            let mut startup = Startup::of(&bench, way);
            startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
            startup.wait_ahead(&named(1, 2));
            std::fs::remove_file(bench.data().join("recovery.signal")).unwrap();
            assert_eq!(startup.call(history), 1);
            assert!(ahead(&bench).is_empty(), "{way} {history}: {:?}", ahead(&bench));
        }
    }
}

/// Clearing up decides nothing: settings that hang do not keep a server from its new timeline.
#[test]
fn the_end_of_a_recovery_waits_for_no_clearing() {
    let (_s3, bench) = stocked(1);
    std::fs::remove_file(bench.data().join("recovery.signal")).unwrap();
    let hanging = bench.data().join("hanging.toml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &hanging, 0o666.into()).unwrap();
    let mut startup = Startup::of(&bench, "call");
    assert_eq!(startup.call_with("WALHALLA_CONFIG=hanging.toml", "00000001.history"), 1);
    assert_eq!(startup.said(), "");
}

/// A copy from another file system has as long as the file's own call, not only as long as a program may take to begin.
#[test]
fn a_slow_copy_is_waited_for() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skipped("a slow copy", "strace, which slows it down, is not there");
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (s3, bench) = stocked(3);
    let bench = bench.with("WALHALLA_SPOOL", memory.path().join("spool").display());
    let mut startup = Startup::of(&bench, "call");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    s3.forget_requests();
    let slow = "strace -f -qq -o /dev/null -e trace=copy_file_range,sendfile,splice,read \
                -e inject=copy_file_range:delay_enter=8000000:when=1 ";
    assert_eq!(startup.call_with(slow, &named(1, 2)), 0, "{}", startup.said());
    assert!(startup.delivered() == content(1, 2, SEGMENT));
    assert_eq!(s3.requests().len(), 0);
}

/// Killed at any moment: what has a final name is whole, and the calls go on.
#[test]
fn killed_at_any_moment_everything_is_whole() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rounds = if crate::support::long_run() { 60 } else { 8 };
    for way in WAYS {
        let (_s3, bench) = stocked(200);
        let mut startup = Startup::of(&bench, way);
        let mut number = 1;
        for _ in 0..rounds {
            startup.expect(&named(1, number), &content(1, number, SEGMENT));
            number += 1;
            let delay = Duration::from_millis(random.u64(0..60));
            if way == "helper" {
                std::thread::sleep(delay);
                for helper in helpers(&bench) {
                    kill(helper, Signal::KILL);
                    wait_gone(helper, Duration::from_secs(20));
                }
            } else {
                // The call's own process, while it fetches the next ones.
                let millis = delay.as_millis();
                let line = format!("timeout -s KILL 0.0{millis:02} ");
                number += u64::from(startup.call_with(&line, &named(1, number)) == 0);
            }
            for (name, path) in ahead(&bench) {
                let segment: walhalla::pg::SegmentName = name.parse().unwrap();
                let found = segment.number(walhalla::pg::SegmentSize::new(SEGMENT as u64).unwrap()).unwrap();
                // It may have been taken, or dropped, just now.
                let Ok(bytes) = std::fs::read(&path) else { continue };
                assert!(bytes == content(1, found, SEGMENT), "{name} is not whole (seed {seed})");
            }
        }
        // What the killed ones left is cleared away.
        startup.expect(&named(1, number), &content(1, number, SEGMENT));
        startup.expect(&named(1, number + 1), &content(1, number + 1, SEGMENT));
        startup.wait_ahead(&named(1, number + 3));
        if way == "call" {
            let left = folders(&bench).into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
            let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            assert!(!left.iter().any(|name| name.starts_with(".walhalla-")), "{left:?}");
        }
    }
}

/// A file system of this size, gone when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).output();
        if !user::is_root() || !mounted.is_ok_and(|output| output.status.success()) {
            skipped("a full disk", "no file system can be mounted here");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

/// A spool without room: every call fetches its own file, and no call fails.
#[test]
fn a_full_disk_means_no_prefetch() {
    let home = crate::support::temporary();
    for (size, content_of_disk) in [("2m", 0), ("64k", 0), ("16m", 14 << 20)] {
        for way in WAYS {
            let at = home.path().join(format!("{size}-{way}"));
            let Some(_disk) = Disk::mount(&at, size) else { return };
            std::fs::write(at.join("filler"), vec![1; content_of_disk]).unwrap();
            let (_s3, bench) = stocked(6);
            let bench = bench.with("WALHALLA_SPOOL", at.display());
            let mut startup = Startup::of(&bench, way);
            for number in 1..=6 {
                startup.expect(&named(1, number), &content(1, number, SEGMENT));
                assert!(ahead(&bench).is_empty(), "{size} {way}");
            }
            assert_eq!(startup.said(), "");
        }
    }
}

/// A file that is not whole is not delivered, whoever put it there.
#[test]
fn a_short_file_is_not_delivered() {
    let (_s3, bench) = stocked(4);
    let mut startup = Startup::of(&bench, "call");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let path = ahead(&bench).remove(0).1;
    std::fs::write(&path, b"short").unwrap();
    startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
}
