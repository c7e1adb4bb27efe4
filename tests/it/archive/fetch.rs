//! `walhalla-restore` by hand: what it delivers, and how it comes to its answers.

use super::bench::{Bench, SEGMENT, finish, segment, segment_name};
use crate::support::fake_s3::FakeS3;
use crate::support::proxy::{Plan, Proxy};
use std::time::{Duration, Instant};

/// A store with segments 1 to 3, and a cluster in a recovery.
fn stocked() -> (FakeS3, Bench) {
    let (s3, bench) = Bench::stocked();
    bench.write("recovery.signal", "");
    s3.forget_requests();
    (s3, bench.with("WALHALLA_RESTORE_TIMEOUT", "1s"))
}

fn delivered(bench: &Bench) -> Vec<u8> {
    std::fs::read(bench.data().join("pg_wal/RECOVERYXLOG")).unwrap()
}

#[test]
fn a_segment_is_delivered_whole_with_one_request_as_often_as_it_is_asked_for() {
    let (s3, bench) = stocked();
    for _ in 0..2 {
        bench.fetch(&segment_name(2)).expect_silent_success();
        assert!(delivered(&bench) == segment(2));
        assert_eq!(bench.pg_wal(), ["RECOVERYXLOG"]);
    }
    assert_eq!(s3.requests().len(), 2);
    // What lies there is replaced.
    bench.fetch(&segment_name(3)).expect_silent_success();
    assert!(delivered(&bench) == segment(3));
}

#[test]
fn out_of_a_local_directory() {
    let bench = Bench::on_directory();
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    bench.write("recovery.signal", "");
    bench.fetch(&segment_name(1)).expect_silent_success();
    assert!(delivered(&bench) == segment(1));
    bench.fetch(&segment_name(2)).expect(1, &["proven not to be in the archive"]);
    // The disk that is not mounted is no empty archive.
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "1s");
    std::fs::remove_dir_all(bench.repository()).unwrap();
    let answer = bench.fetch(&segment_name(2));
    assert!(answer.status >= 200, "{answer:?}");
}

#[test]
fn histories_and_the_first_timeline() {
    let (s3, bench) = stocked();
    bench.fetch("00000001.history").expect(1, &[]);
    assert!(s3.requests().is_empty(), "it never exists");
    let text = "1\t0/300028\tno recovery target specified\n";
    bench.write("pg_wal/00000002.history", text);
    bench.archive(&["pg_wal/00000002.history"]).expect_silent_success();
    bench.fetch("00000002.history").expect_silent_success();
    assert_eq!(std::fs::read_to_string(bench.data().join("pg_wal/RECOVERYHISTORY")).unwrap(), text);
    bench.fetch("00000003.history").expect(1, &[]);
}

#[test]
fn on_a_standby_absence_is_one_get() {
    let (s3, bench) = stocked();
    bench.write("standby.signal", "");
    bench.fetch(&segment_name(4)).expect(1, &[]);
    assert_eq!(s3.requests().len(), 1);
    assert_eq!(s3.requests()[0].method, "GET");
}

#[test]
fn an_outage_that_passes_is_waited_for() {
    let (mut s3, bench) = stocked();
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "20s");
    s3.down();
    let begun = Instant::now();
    let call = bench.start("walhalla-restore", &[&segment_name(2), "pg_wal/RECOVERYXLOG"]);
    std::thread::sleep(Duration::from_secs(2));
    s3.up();
    finish(call, begun).expect_silent_success();
    assert!(delivered(&bench) == segment(2));
}

#[test]
fn a_gap_that_is_filled_is_none() {
    let (s3, bench) = stocked();
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "20s");
    let second = s3.object(&bench.key(&segment_name(2))).unwrap().body;
    s3.remove(&bench.key(&segment_name(2)));
    let begun = Instant::now();
    let call = bench.start("walhalla-restore", &[&segment_name(2), "pg_wal/RECOVERYXLOG"]);
    std::thread::sleep(Duration::from_secs(2));
    s3.insert(&bench.key(&segment_name(2)), second);
    finish(call, begun).expect_silent_success();
}

#[test]
fn a_gap_that_was_accepted_ends_the_recovery_for_that_segment_alone() {
    let (s3, bench) = stocked();
    s3.remove(&bench.key(&segment_name(1)));
    s3.remove(&bench.key(&segment_name(2)));
    let accept = |name: &str| bench.restore(&["--accept-gap", &segment_name(2), name, "pg_wal/RECOVERYXLOG"]);
    accept(&segment_name(2)).expect(1, &["is missing", "accepted"]);
    accept(&segment_name(1)).expect(206, &["gap", "--accept-gap 000000010000000000000001"]);
    accept(&segment_name(3)).expect_silent_success();
}

/// A recycled or half-written file in `pg_wal` is no copy of the missing segment. (A valid one is tested with a real server.)
#[test]
fn a_gap_is_not_filled_by_what_only_looks_like_a_segment() {
    let (s3, bench) = stocked();
    s3.remove(&bench.key(&segment_name(2)));
    for content in [segment(1), segment(2), vec![0; SEGMENT], segment(2)[..SEGMENT / 2].to_vec()] {
        bench.write(&format!("pg_wal/{}", segment_name(2)), content);
        bench.fetch(&segment_name(2)).expect(206, &["gap", "000000010000000000000003 is there"]);
    }
}

#[test]
fn a_lost_history_can_be_put_back_from_a_later_one() {
    let (s3, bench) = stocked();
    bench.write("pg_wal/00000003.history", "1\t0/300028\tno recovery target specified\n2\t0/400028\tbefore noon\n");
    bench.archive(&["pg_wal/00000003.history"]).expect_silent_success();
    let answer = bench.fetch("00000002.history");
    answer.expect(206, &["1\\t0/300028\\tno recovery target specified\\n", "00000003.history"]);
    answer.expect(206, &["walhalla-archive pg_wal/00000002.history"]);
    drop(s3);
}

#[test]
fn where_no_data_directory_tells_the_cluster() {
    let (s3, bench) = stocked();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("pg_wal/000000010000000000000002");
    std::fs::create_dir(elsewhere.path().join("pg_wal")).unwrap();
    let to = target.display().to_string();
    bench.restore(&[&segment_name(2), &to]).expect_silent_success();
    assert!(std::fs::read(&target).unwrap() == segment(2));
    // Of several clusters none is guessed.
    let text =
        format!("{{\"format\":1,\"system_identifier\":\"7\",\"postgres_major\":15,\"wal_segment_size\":{SEGMENT}}}\n");
    s3.insert("cluster/7/cluster.json", text);
    bench.restore(&[&segment_name(2), &to]).expect(200, &["2 clusters", "--cluster"]);
    let system = bench.system().to_string();
    bench.restore(&["--cluster", &system, &segment_name(2), &to]).expect_silent_success();
    bench.restore(&["--cluster", "7", &segment_name(2), &to]).expect(1, &[]);
    bench.restore(&["--cluster", "8", &segment_name(2), &to]).expect(200, &["no such cluster"]);
    bench.restore(&["--cluster", "7", &segment_name(2), "pg_wal/RECOVERYXLOG"]).expect(204, &["--cluster is 7"]);
}

/// A standby gives the archive thirty seconds once, and then, for a minute, three at a time (each the smaller of that and the
/// restore timeout).
#[test]
fn a_standby_in_trouble_asks_briefly() {
    let (s3, bench) = stocked();
    let proxy = Proxy::to(s3.port());
    proxy.always(Plan::silence());
    let bench = bench.at(&proxy.endpoint()).with("WALHALLA_RESTORE_TIMEOUT", "6s");
    bench.write("standby.signal", "");
    let answer = bench.fetch(&segment_name(2));
    answer.expect(1, &["tries streaming"]);
    assert!(answer.took > Duration::from_millis(5500) && answer.took < Duration::from_millis(7500), "{answer:?}");
    let answer = bench.fetch(&segment_name(2));
    answer.expect(1, &["tries streaming"]);
    assert!(answer.took > Duration::from_millis(2500) && answer.took < Duration::from_millis(4500), "{answer:?}");
    proxy.always(Plan::pass());
    bench.fetch(&segment_name(2)).expect_silent_success();
    proxy.always(Plan::silence());
    let answer = bench.fetch(&segment_name(2));
    assert!(answer.took > Duration::from_millis(5500), "the storage was reached in between: {answer:?}");
}

/// The mode is looked at while the call runs: a promotion that is ordered meanwhile has its own patience.
#[test]
fn a_promotion_ordered_during_a_call() {
    let (mut s3, bench) = stocked();
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "3s").with("WALHALLA_PROMOTE_TIMEOUT", "20s");
    bench.write("standby.signal", "");
    s3.down();
    let begun = Instant::now();
    let call = bench.start("walhalla-restore", &[&segment_name(2), "pg_wal/RECOVERYXLOG"]);
    std::thread::sleep(Duration::from_secs(1));
    bench.write("promote", "");
    std::thread::sleep(Duration::from_secs(4));
    s3.up();
    let answer = finish(call, begun);
    answer.expect_silent_success();
    assert!(answer.took > Duration::from_secs(4), "{answer:?}");
}

#[test]
fn what_a_killed_call_left_is_swept() {
    let (_s3, bench) = stocked();
    for (name, age) in [(".walhalla-old", 7200), (".walhalla-new", 10), ("other", 7200)] {
        bench.write(&format!("pg_wal/{name}"), "x");
        let file = std::fs::File::options().write(true).open(bench.data().join("pg_wal").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    bench.fetch("00000002.history").expect(1, &[]);
    assert_eq!(bench.pg_wal(), [".walhalla-new", "other"]);
}

/// Postgres ends its commands by signals: a signal must look like one.
#[test]
fn a_signal_looks_like_a_signal() {
    use std::os::unix::process::ExitStatusExt;
    let (mut s3, bench) = stocked();
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "60s");
    s3.down();
    let mut call = bench.start("walhalla-restore", &[&segment_name(2), "pg_wal/RECOVERYXLOG"]);
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&call);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(call.wait().unwrap().signal(), Some(15));
}

/// Encrypted, an object tells no WAL, is archived again as the same, and is delivered to the holder of the key alone: without it
/// the file is neither delivered nor absent.
#[test]
fn encrypted_objects_through_both_commands() {
    use age::secrecy::ExposeSecret;
    let key = age::x25519::Identity::generate();
    let other = age::x25519::Identity::generate();
    let secret = |key: &age::x25519::Identity| key.to_string().expose_secret().to_owned();
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3).with("WALHALLA_RECIPIENTS", key.to_public());
    let path = bench.wal(1);
    bench.archive(&[&path]).expect_silent_success();
    bench.archive(&[&path]).expect_silent_success();
    let object = s3.object(&bench.key(&segment_name(1))).unwrap().body;
    let identities = walhalla::codec::Identities::default();
    assert!(walhalla::codec::plain_of(&object, &identities).is_err(), "it is not encrypted");
    std::fs::remove_file(bench.data().join(path)).unwrap();
    for (signal, status) in [("recovery.signal", 200), ("standby.signal", 1)] {
        bench.write(signal, "");
        for identity in [None, Some(secret(&other))] {
            let again = Bench::on(&s3).with("WALHALLA_RESTORE_TIMEOUT", "20s");
            let again = match identity {
                None => again,
                Some(secret) => again.with("WALHALLA_IDENTITY", secret),
            };
            again.write(signal, "");
            let answer = again.fetch(&segment_name(1));
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(again.pg_wal().is_empty() && !answer.stderr.contains("AGE-SECRET-KEY"), "{answer:?}");
        }
    }
    let bench = bench.with("WALHALLA_IDENTITY", secret(&key));
    bench.fetch(&segment_name(1)).expect_silent_success();
    assert!(delivered(&bench) == segment(1));
}
