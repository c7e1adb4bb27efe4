//! `walhalla-archive` by hand: what it stores, what it refuses, and how long it takes about it.

use super::bench::{Answer, Bench, SEGMENT, finish, segment, segment_name};
use crate::support::fake_s3::{Answer as Says, FakeS3, Fault, Moment, Right};
use crate::support::proxy::{Plan, Proxy};
use std::time::{Duration, Instant};

fn wal_keys(s3: &FakeS3) -> Vec<String> {
    s3.keys().into_iter().filter(|key| key.contains("/wal/")).collect()
}

#[test]
fn the_steady_state_is_one_put() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    s3.forget_requests();
    bench.archive(&[&bench.wal(2)]).expect_silent_success();
    let requests: Vec<_> = s3.requests().iter().map(|request| (request.method.clone(), request.key.clone())).collect();
    assert_eq!(requests, [("PUT".to_owned(), bench.key(&segment_name(2)))]);
    assert_eq!(s3.requests()[0].headers.get("if-none-match").map(String::as_str), Some("*"));
}

#[test]
fn without_a_spool_it_works_too() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3).with("WALHALLA_SPOOL", "/proc/nowhere");
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    bench.archive(&[&bench.wal(2)]).expect_silent_success();
    assert_eq!(wal_keys(&s3), [bench.key(&segment_name(1)), bench.key(&segment_name(2))]);
}

#[test]
fn the_same_again_is_success_and_other_content_is_refused() {
    for bench in [Bench::on_directory(), Bench::on(Box::leak(Box::new(FakeS3::start())))] {
        let path = bench.wal(1);
        bench.archive(&[&path]).expect_silent_success();
        bench.archive(&[&path]).expect_silent_success();
        // The whole path, from somewhere else.
        let absolute = bench.data().join(&path).display().to_string();
        bench.archive(&[&absolute]).expect_silent_success();
        let mut other = segment(1);
        other[SEGMENT - 1] ^= 1;
        bench.write(&path, other);
        bench.archive(&[&path]).expect(65, &["taken by other content", "BLAKE3", "stop the wrong one"]);
        bench.wal(1);
        bench.archive(&[&path]).expect_silent_success();
    }
}

#[test]
fn every_kind_of_file() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    let partial = "000000010000000000000004.partial";
    bench.write(&format!("pg_wal/{partial}"), segment(4));
    bench.write("pg_wal/00000002.history", "1\t0/400028\tno recovery target specified\n");
    let backup = "000000010000000000000001.00000028.backup";
    bench.write(&format!("pg_wal/{backup}"), "START WAL LOCATION: 0/100028 (file 000000010000000000000001)\n");
    for name in [partial, "00000002.history", backup] {
        bench.archive(&[&format!("pg_wal/{name}")]).expect_silent_success();
        assert!(s3.object(&bench.key(name)).is_some());
    }
    // A second promotion's leftovers lie beside the first's; a second history is another cluster's past.
    let mut other = segment(4);
    other[SEGMENT - 1] ^= 1;
    bench.write(&format!("pg_wal/{partial}"), other);
    bench.archive(&[&format!("pg_wal/{partial}")]).expect(0, &["stored beside it"]);
    bench.write(&format!("pg_wal/{backup}"), "START WAL LOCATION: 0/100028 (file 000000010000000000000001)\nX\n");
    bench.archive(&[&format!("pg_wal/{backup}")]).expect(0, &["stored beside it"]);
    bench.write("pg_wal/00000002.history", "1\t0/400099\tno recovery target specified\n");
    bench.archive(&["pg_wal/00000002.history"]).expect(65, &["taken by other content"]);
    let beside = |name: &str| s3.keys().iter().filter(|key| key.starts_with(&format!("{}-", bench.key(name)))).count();
    assert_eq!((beside(partial), beside(backup), beside("00000002.history")), (1, 1, 0));
}

#[test]
fn a_history_that_postgres_cannot_read_is_stored_with_a_word_and_one_that_is_no_text_is_not() {
    let bench = Bench::on_directory();
    bench.write("pg_wal/00000003.history", "what is this\n");
    bench.archive(&["pg_wal/00000003.history"]).expect(0, &["Postgres will not be able to read it"]);
    for (content, text) in [(&b""[..], "is empty"), (b"1\t0/4\0", "is not text"), (b"\xff\xfe", "is not text")] {
        bench.write("pg_wal/00000004.history", content);
        bench.archive(&["pg_wal/00000004.history"]).expect(65, &[text, "pg_wal/00000004.history"]);
    }
}

/// Everything that is no WAL file of this cluster is refused, each with its reason, and nothing is stored.
#[test]
fn bad_input_is_refused() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    let name = format!("pg_wal/{}", segment_name(7));
    let whole = segment(7);
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    for (content, status, texts) in [
        (Vec::new(), 65, &["has 0 bytes", "1048576"][..]),
        (whole[..100].to_vec(), 65, &["has 100 bytes"]),
        (whole[..SEGMENT - 1].to_vec(), 65, &["has 1048575 bytes"]),
        ([&whole[..], b"x"].concat(), 65, &["has 1048577 bytes"]),
        (vec![0; SEGMENT], 65, &["does not begin as a WAL segment does"]),
        (vec![b'x'; SEGMENT], 65, &["does not begin as a WAL segment does"]),
        (segment(8), 65, &["is not the segment that its name says", "0/800000"]),
        (
            changed(24, &4242_u64.to_le_bytes()),
            65,
            &["belongs to another cluster", "4242", &bench.system().to_string()],
        ),
        (changed(32, &(16_u32 << 20).to_le_bytes()), 65, &["pg_wal/"]),
        (changed(4, &2_u32.to_le_bytes()), 65, &["is not the segment that its name says"]),
    ] {
        bench.write(&name, content);
        bench.archive(&[&name]).expect(status, texts);
        bench.archive(&[&name]).expect(status, &["cannot archive pg_wal/"]);
    }
    for (path, status, text) in [
        ("pg_wal/000000010000000000000099", 74, "cannot look at pg_wal/000000010000000000000099"),
        ("pg_wal", 65, "no segment, .partial, .history or .backup"),
        ("pg_wal/xlogtemp.1234", 65, "pg_wal/xlogtemp.1234 is not archived"),
        ("pg_wal/00000001000000000000009a", 65, "is not archived"),
        ("pg_wal/000000010000000000001000", 65, "no name of a WAL file with segments of 1 MiB"),
    ] {
        bench.archive(&[path]).expect(status, &[text]);
    }
    std::fs::create_dir(bench.data().join("pg_wal/000000010000000000000098")).unwrap();
    bench.archive(&["pg_wal/000000010000000000000098"]).expect(65, &["is not a regular file"]);
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.data().join("pg_wal/000000010000000000000097"), 0o600.into()).unwrap();
    bench.archive(&["pg_wal/000000010000000000000097"]).expect(65, &["is not a regular file"]);
    assert_eq!(s3.keys(), [""; 0], "nothing was stored");
}

#[test]
fn wrong_arguments_settings_and_places() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    let path = bench.wal(1);
    for arguments in [&[][..], &["a", "b"], &["--what", "a"], &["--config"], &[""]] {
        bench.archive(arguments).expect(64, &["wrong arguments: ", "; "]);
    }
    for arguments in [["--help"], ["--version"]] {
        bench.archive(&arguments).expect_silent_success();
    }
    bench.archive(&["--config", "/nowhere.toml", &path]).expect(78, &["/nowhere.toml"]);
    bench.write("w.toml", "storage = 's3://bucket/x'\nstorrage = 1\n");
    bench.archive(&["--config", "w.toml", &path]).expect(78, &["w.toml", "storrage"]);
    let bench = bench.without("WALHALLA_STORAGE");
    bench.archive(&[&path]).expect(78, &["WALHALLA_STORAGE"]);
    let bench = bench.with("WALHALLA_STORAGE", "ftp://x");
    bench.archive(&[&path]).expect(78, &["WALHALLA_STORAGE", "ftp"]);

    let bench = Bench::on(&s3);
    let path = bench.wal(1);
    let control = std::fs::read(bench.data().join("global/pg_control")).unwrap();
    bench.write("global/pg_control", [&control[..100], &[1], &control[101..]].concat());
    bench.archive(&[&path]).expect(65, &["global/pg_control", "checksum"]);
    std::fs::remove_file(bench.data().join("global/pg_control")).unwrap();
    bench.archive(&[&path]).expect(78, &["no global/pg_control", "run it in the data directory"]);
    assert_eq!(s3.keys(), [""; 0]);
}

#[test]
fn a_pg_control_that_is_just_being_written_is_read_again() {
    let bench = Bench::on_directory();
    let path = bench.wal(1);
    let control = std::fs::read(bench.data().join("global/pg_control")).unwrap();
    bench.write("global/pg_control", [&control[..100], &[1], &control[101..]].concat());
    let begun = Instant::now();
    let call = bench.start("walhalla-archive", &[&path]);
    std::thread::sleep(Duration::from_millis(300));
    bench.write("global/pg_control", control);
    finish(call, begun).expect_silent_success();
}

#[test]
fn held_until_released() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    let path = bench.wal(1);
    bench.write("walhalla.held", "");
    bench.archive(&[&path]).expect(1, &["archiving is held", "walhalla restore --release /"]);
    let absolute = bench.data().join(&path).display().to_string();
    bench.archive(&[&absolute]).expect(1, &["archiving is held"]);
    assert!(s3.requests().is_empty());
    std::fs::remove_file(bench.data().join("walhalla.held")).unwrap();
    bench.archive(&[&path]).expect_silent_success();
}

/// The answer to the one PUT is lost after the store has committed: the retry finds its own content.
#[test]
fn a_lost_answer_is_no_failure() {
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let bench = Bench::bare().at(&proxy.endpoint());
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    proxy.next(Plan::lose_answer());
    bench.archive(&[&bench.wal(2)]).expect_silent_success();
    assert_eq!(wal_keys(&s3), [bench.key(&segment_name(1)), bench.key(&segment_name(2))]);
    assert_eq!(s3.requests_of("PUT").iter().filter(|r| r.key == bench.key(&segment_name(2))).count(), 2);
    // And where the store itself denies what it has done.
    s3.fault(Fault::new(Says::internal_error()).method("PUT").moment(Moment::AfterCommit).times(1));
    bench.archive(&[&bench.wal(3)]).expect_silent_success();
}

#[test]
fn a_store_that_asks_for_patience_gets_it() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    for (number, answer) in [(2, Says::slow_down()), (3, Says::too_many_requests()), (4, Says::wasabi_throttle())] {
        s3.fault(Fault::new(answer).method("PUT").times(2));
        bench.archive(&[&bench.wal(number)]).expect_silent_success();
        assert!(s3.object(&bench.key(&segment_name(number))).is_some());
    }
}

/// A store that will never take it: each reason has its own words and status.
#[test]
fn refusals_of_the_store() {
    let s3 = FakeS3::start();
    let call = |change: fn(Bench) -> Bench| -> Answer {
        let bench = change(Bench::on(&s3));
        bench.archive(&[&bench.wal(1)])
    };
    call(|b| b.with("AWS_SECRET_ACCESS_KEY", "wrong")).expect(77, &["SignatureDoesNotMatch", "127.0.0.1"]);
    call(|b| b.with("AWS_ACCESS_KEY_ID", "unknown")).expect(77, &["InvalidAccessKeyId"]);
    call(|b| b.with("WALHALLA_STORAGE", "s3://elsewhere/x")).expect(78, &["NoSuchBucket", "elsewhere"]);
    s3.personality(|p| p.denied = vec![(Right::Put, String::new())]);
    call(|b| b).expect(77, &["AccessDenied"]);
    s3.personality(|p| p.denied = vec![(Right::List, String::new())]);
    // Without the right to list, a missing key answers 403: nothing is ever concluded from that.
    let answer = call(|b| b);
    assert!([0, 77].contains(&answer.status), "{answer:?}");
    s3.personality(|p| *p = crate::support::fake_s3::Personality::honest());
    s3.personality(|p| p.region = Some("eu-central-1".to_owned()));
    call(|b| b.with("WALHALLA_S3_REGION", "us-west-2")).expect_silent_success();
    assert_eq!(wal_keys(&s3).len(), 1);

    let https = FakeS3::start_https();
    let bench = Bench::on(&https).with("WALHALLA_ARCHIVE_TIMEOUT", "3s");
    let answer = bench.archive(&[&bench.wal(1)]);
    assert!([75, 78].contains(&answer.status), "{answer:?}");
    answer.expect(answer.status, &["certificate"]);
    let bench = bench.with("WALHALLA_S3_CA_FILE", https.ca_file().display());
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
}

/// Whatever the peer does, the call ends within its limit and a second.
#[test]
fn it_ends_in_time() {
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let bench = Bench::bare().at(&proxy.endpoint()).with("WALHALLA_ARCHIVE_TIMEOUT", "2s");
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    proxy.always(Plan::silence());
    let path = bench.wal(2);
    let answer = bench.archive(&[&path]);
    answer.expect(75, &["cannot archive pg_wal/", "127.0.0.1"]);
    assert!(answer.took < Duration::from_secs(3), "{answer:?}");

    // Nobody listens at all.
    let mut proxy = proxy;
    proxy.cut();
    let answer = bench.archive(&[&path]);
    answer.expect(75, &["cannot archive pg_wal/"]);
    assert!(answer.took < Duration::from_secs(3), "{answer:?}");
}

/// Nor does a file of the server's own that hangs keep it longer than was set.
#[test]
fn it_ends_in_time_where_the_data_directory_hangs() {
    let bench = Bench::on_directory().with("WALHALLA_ARCHIVE_TIMEOUT", "1s");
    let path = bench.wal(1);
    bench.hang("global/pg_control");
    let answer = bench.archive(&[&path]);
    answer.expect(75, &["cannot archive pg_wal/", "WALHALLA_ARCHIVE_TIMEOUT"]);
    assert!(answer.took < Duration::from_millis(2500), "{answer:?}");
}

/// A machine that is short of something is no bug of the program, and it is said.
#[test]
fn without_a_file_descriptor_left_it_says_so() {
    let bench = Bench::on_directory();
    let path = bench.wal(1);
    bench
        .with_few_files("walhalla-archive", &[&path])
        .expect(74, &["cannot archive pg_wal/", "cannot start", "ulimit"]);
}

/// A server that is shutting down is not kept, whether the call sees it at once or while it runs.
#[test]
fn it_gives_up_for_a_stopping_server() {
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let bench = Bench::bare().at(&proxy.endpoint());
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    let path = bench.wal(2);
    let status = |word: &str| {
        bench.write("postmaster.pid", format!("1\n/data\n1700000000\n5432\n/tmp\n*\n  1 2\n{word}\n"));
    };
    proxy.always(Plan::silence());
    status("stopping");
    let answer = bench.archive(&[&path]);
    answer.expect(75, &["cannot archive"]);
    assert!(answer.took < Duration::from_millis(3500), "{answer:?}");

    status("ready   ");
    let begun = Instant::now();
    let call = bench.start("walhalla-archive", &[&path]);
    std::thread::sleep(Duration::from_secs(2));
    status("stopping");
    let answer = finish(call, begun);
    answer.expect(75, &["cannot archive"]);
    assert!(answer.took < Duration::from_millis(5500), "{answer:?}");
}
