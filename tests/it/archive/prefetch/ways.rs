//! What is delivered, in both ways: the same as without.

use super::startup::{SOON, Startup, WAYS, ahead, content, helpers, named, object, stock, stocked, times_asked};
use crate::archive::bench::{Bench, SEGMENT};
use crate::support::fake_s3::{Answer, FakeS3, Fault};
use crate::support::wait_until;
use std::os::unix::fs::MetadataExt as _;

#[test]
fn the_same_files_in_the_same_order_whatever_the_way_and_the_concurrency() {
    for way in ["off", "call", "helper"] {
        for concurrency in [1, 8, 32] {
            let (s3, bench) = stocked(24);
            let bench = bench.with("WALHALLA_CONCURRENCY", concurrency);
            let mut startup = Startup::of(&bench, way);
            for number in 1..=24 {
                startup.expect(&named(1, number), &content(1, number, SEGMENT));
            }
            assert_eq!(startup.call(&named(1, 25)), 1, "{way} {concurrency}");
            let spared = (1..=24).filter(|number| times_asked(&s3, &named(1, *number)) == 1).count();
            // A helper may be on its way to a file while the call asks for it.
            assert!(spared >= if way == "helper" { 20 } else { 24 }, "{way} {concurrency}: {spared}");
            assert_eq!(startup.said().lines().count(), 1, "{}", startup.said());
        }
    }
}

#[test]
fn a_call_whose_segment_is_in_the_spool_asks_nobody() {
    for way in WAYS {
        let (mut s3, bench) = stocked(4);
        let mut startup = Startup::of(&bench, way);
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        startup.wait_ahead(&named(1, 2));
        s3.down();
        startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
        // It was given away.
        assert!(!ahead(&bench).iter().any(|(name, _)| *name == named(1, 2)));
        s3.up();
        s3.forget_requests();
        startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
        assert_eq!(times_asked(&s3, &named(1, 2)), 1, "asked for again, it is fetched again");
    }
}

#[test]
fn by_rename_or_by_copy_but_never_by_a_link() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    for elsewhere in [false, true] {
        let (_s3, mut bench) = stocked(3);
        if elsewhere {
            bench = bench.with("WALHALLA_SPOOL", memory.path().join("spool").display());
        }
        let mut startup = Startup::of(&bench, "call");
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        let to = bench.data().join("pg_wal/RECOVERYXLOG");
        let fetched = std::fs::metadata(&to).unwrap();
        let path = ahead(&bench).remove(0).1;
        let prefetched = std::fs::metadata(&path).unwrap();
        // What a copy left that was given up, and one that may be at work.
        for (name, age) in [(".walhalla-left", 120), (".walhalla-work", 0)] {
            let left = bench.data().join("pg_wal").join(name);
            std::fs::write(&left, "x").unwrap();
            let written = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::options().write(true).open(left).unwrap().set_modified(written).unwrap();
        }
        startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
        let delivered = std::fs::symlink_metadata(&to).unwrap();
        assert!(delivered.is_file() && delivered.nlink() == 1 && !path.exists());
        assert_eq!((delivered.dev(), delivered.ino()) == (prefetched.dev(), prefetched.ino()), !elsewhere);
        let of = |file: &std::fs::Metadata| (file.mode(), file.uid(), file.gid());
        assert_eq!(of(&delivered), of(&fetched));
        let left: &[&str] = if elsewhere { &[".walhalla-work"] } else { &[".walhalla-left", ".walhalla-work"] };
        let mut names = bench.pg_wal();
        names.retain(|name| name != "RECOVERYXLOG");
        assert_eq!(names, left, "a rename does not look for it");
    }
}

#[test]
fn across_timelines() {
    for way in WAYS {
        let (s3, bench) = stocked(3);
        stock(&s3, &bench, 2, 3..=5);
        stock(&s3, &bench, 3, 5..=8);
        let text = "1\t0/300028\tone\n2\t0/500000\ttwo\n";
        bench.write("pg_wal/00000003.history", text);
        bench.archive(&["pg_wal/00000003.history"]).expect_silent_success();
        std::fs::remove_file(bench.data().join("pg_wal/00000003.history")).unwrap();
        let mut startup = Startup::of(&bench, way);
        assert_eq!(startup.call("00000003.history"), 0);
        let path = [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6), (3, 7), (3, 8)];
        for (timeline, number) in path {
            startup.expect(&named(timeline, number), &content(timeline, number, SEGMENT));
        }
        // Nobody has asked for what is on no way.
        for other in [named(1, 3), named(2, 5)] {
            assert_eq!(times_asked(&s3, &other), 0, "{way}: {other}");
        }
    }
}

/// Replay asks for another timeline than was thought: it gets that one, and what is useless is dropped.
#[test]
fn another_timeline_than_was_prefetched() {
    for way in WAYS {
        let (s3, bench) = stocked(8);
        stock(&s3, &bench, 2, 3..=8);
        let mut startup = Startup::of(&bench, way);
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        startup.wait_ahead(&named(1, 2));
        startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
        startup.expect(&named(1, 3), &content(1, 3, SEGMENT));
        startup.wait_ahead(&named(1, 5));
        startup.expect(&named(2, 4), &content(2, 4, SEGMENT));
        startup.wait_ahead(&named(2, 6));
        // What was on its way meanwhile is dropped as soon as it has come.
        let is_dropped = || ahead(&bench).iter().all(|(name, _)| name.starts_with("00000002"));
        wait_until("the other timeline is dropped", SOON, is_dropped);
    }
}

/// A damaged object never appears in the spool; its own call judges it. Trouble ahead is not told either.
#[test]
fn trouble_ahead_is_left_to_its_own_call() {
    for way in WAYS {
        let (s3, bench) = stocked(6);
        s3.damage(&bench.key(&named(1, 2)), |body| *body.last_mut().unwrap() ^= 1);
        let mut startup = Startup::of(&bench, way);
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        wait_until("the damaged one was read", SOON, || times_asked(&s3, &named(1, 2)) > 0);
        wait_until("no helper is left", SOON, || helpers(&bench).is_empty());
        assert!(startup.said().is_empty() && ahead(&bench).is_empty());
        assert_eq!(startup.call(&named(1, 2)), 203);
        stock(&s3, &bench, 1, [2]);
        s3.fault(Fault::new(Answer::slow_down()).method("GET").on(&named(1, 3)).times(1));
        for number in 2..=6 {
            startup.expect(&named(1, number), &content(1, number, SEGMENT));
        }
        assert_eq!(startup.said().lines().count(), 1, "{}", startup.said());
    }
}

/// A standby lives at the end of the archive. Its rounds cost one request each, and nobody is kept for nothing.
#[test]
fn at_the_end_of_the_archive_little_is_asked_in_vain() {
    for way in WAYS {
        let (s3, bench) = stocked(3);
        std::fs::remove_file(bench.data().join("recovery.signal")).unwrap();
        bench.write("standby.signal", "");
        let mut startup = Startup::of(&bench, way);
        for number in 1..=3 {
            startup.expect(&named(1, number), &content(1, number, SEGMENT));
        }
        wait_until("no helper is left", SOON, || helpers(&bench).is_empty());
        s3.forget_requests();
        for _ in 0..5 {
            assert_eq!(startup.call(&named(1, 4)), 1);
        }
        assert_eq!(s3.requests().len(), 5, "{way}");
        // One more comes: itself, and one that is not there yet.
        stock(&s3, &bench, 1, [4]);
        s3.forget_requests();
        startup.expect(&named(1, 4), &content(1, 4, SEGMENT));
        wait_until("no helper is left", SOON, || helpers(&bench).is_empty());
        // Nor does a helper begin there, each time anew.
        let most = if way == "helper" { 1 } else { 2 };
        assert!(s3.requests().len() <= most, "{way}: {} requests", s3.requests().len());
        assert_eq!(startup.said(), "");
    }
}

/// Nothing is begun where nobody replays: by hand, for pg_rewind, in a promotion, at the end of a recovery.
#[test]
fn only_replay_is_worked_ahead_for() {
    for way in WAYS {
        let (s3, bench) = stocked(5);
        let bench = bench.with("WALHALLA_PREFETCH", way);
        bench.fetch(&named(1, 1)).expect_silent_success();
        let absolute = bench.data().join("pg_wal").join(named(1, 1)).display().to_string();
        bench.restore(&[&named(1, 1), &absolute]).expect_silent_success();
        let mut startup = Startup::of(&bench, way);
        bench.write("standby.signal", "");
        bench.write("promote", "");
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        for name in ["standby.signal", "promote", "recovery.signal"] {
            std::fs::remove_file(bench.data().join(name)).unwrap();
        }
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        assert!(helpers(&bench).is_empty() && ahead(&bench).is_empty());
        assert_eq!(times_asked(&s3, &named(1, 2)), 0);
    }
}

/// While a backlog is being uploaded, later segments are there before earlier ones. Everything is reached.
#[test]
fn a_backlog_that_is_uploaded_out_of_order() {
    for way in WAYS {
        let (s3, bench) = stocked(2);
        let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "20s");
        stock(&s3, &bench, 1, [4, 6, 7, 10]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in [5, 3, 9, 8] {
                    std::thread::sleep(std::time::Duration::from_millis(300));
                    stock(&s3, &bench, 1, [number]);
                }
            });
            let mut startup = Startup::of(&bench, way);
            for number in 1..=10 {
                startup.expect(&named(1, number), &content(1, number, SEGMENT));
            }
            assert_eq!(startup.call(&named(1, 11)), 1);
        });
    }
}

/// Every size, by a cluster that has it.
#[test]
fn every_segment_size() {
    let large = if crate::support::long_run() { 1024 } else { 128 };
    for mib in [16, 64, large] {
        for way in WAYS {
            let size = mib << 20;
            let s3 = FakeS3::start();
            let bench = Bench::on(&s3);
            bench.write("recovery.signal", "");
            let mut control = std::fs::read(bench.data().join("global/pg_control")).unwrap();
            control[228..232].copy_from_slice(&(size as u32).to_le_bytes());
            let crc = crc32c::crc32c(&control[..288]);
            control[288..292].copy_from_slice(&crc.to_le_bytes());
            bench.write("global/pg_control", control);
            let name = |number: usize| {
                let per_log = (1_usize << 32) / size;
                format!("00000001{:08X}{:08X}", number / per_log, number % per_log)
            };
            for number in 2..=5 {
                s3.insert(&bench.key(&name(number)), object(&bench, 1, number as u64, size));
            }
            let mut startup = Startup::of(&bench, way);
            for number in 2..=5 {
                startup.expect(&name(number), &content(1, number as u64, size));
                let held = ahead(&bench).len();
                assert!(held * size <= (256 << 20).max(size), "{held} of {mib} MiB");
                if way == "helper" && number == 2 {
                    startup.wait_ahead(&name(3));
                }
                if way == "call" {
                    // One is fetched ahead, and given away.
                    assert_eq!(held > 0, mib <= 64 && number % 2 == 0, "{mib} MiB, {number}");
                    if held > 0 {
                        assert_eq!(ahead(&bench)[0].0, name(number + 1));
                    }
                }
            }
        }
    }
}
