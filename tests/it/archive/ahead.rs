//! `walhalla-archive` while a backlog waits: what goes ahead, what a marker is worth, and what must never happen.

use super::bench::{Bench, SEGMENT, finish, segment, segment_name};
use crate::support::fake_s3::{Answer as Says, FakeS3, Fault, Personality, Request, Right};
use crate::support::proxy::{Break, Plan, Proxy};
use crate::support::{skipped, user};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use walhalla::codec::{self, Identities};

/// A backlog of the segments of these numbers.
fn backlog(bench: &Bench, numbers: impl IntoIterator<Item = u8>) {
    std::fs::create_dir_all(bench.data().join("pg_wal/archive_status")).unwrap();
    for number in numbers {
        bench.wal(number);
        ready(bench, &segment_name(number));
    }
}

fn ready(bench: &Bench, name: &str) {
    bench.write(&format!("pg_wal/archive_status/{name}.ready"), "");
}

/// As Postgres does after a success.
fn done(bench: &Bench, name: &str) {
    bench.write(&format!("pg_wal/archive_status/{name}.done"), "");
    std::fs::remove_file(bench.data().join(format!("pg_wal/archive_status/{name}.ready"))).unwrap();
}

fn path(number: u8) -> String {
    format!("pg_wal/{}", segment_name(number))
}

/// Archives a segment as Postgres does.
fn turn(bench: &Bench, number: u8) {
    bench.archive(&[&path(number)]).expect_silent_success();
    done(bench, &segment_name(number));
}

/// The WAL files in the store, by name.
fn stored(s3: &FakeS3) -> Vec<String> {
    let keys = s3.keys();
    keys.iter().filter(|key| key.contains("/wal/")).map(|key| key.rsplit('/').next().unwrap().to_owned()).collect()
}

fn names(numbers: impl IntoIterator<Item = u8>) -> Vec<String> {
    numbers.into_iter().map(segment_name).collect()
}

fn puts_of(s3: &FakeS3, number: u8) -> usize {
    s3.requests_of("PUT")
        .iter()
        .filter(|put| put.key.ends_with(&format!("/wal/00000001/{}", segment_name(number))))
        .count()
}

/// Requests about WAL files, without what opens a repository.
fn shown(requests: &[Request]) -> Vec<String> {
    let name = |request: &Request| match request.key.rsplit('/').next() {
        Some("") | None => format!("list {}", request.prefix.rsplit('/').next().unwrap_or_default()),
        Some(name) => name.to_owned(),
    };
    requests.iter().map(|request| format!("{} {}", request.method, name(request))).collect()
}

/// The markers in the spool, of all places.
fn markers(bench: &Bench) -> Vec<PathBuf> {
    let spool = PathBuf::from(&bench.environment()["WALHALLA_SPOOL"]);
    let folders = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ahead-"));
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.file_name().unwrap().len() >= 24).collect();
    files.sort();
    files
}

/// Lets this much time pass for all markers of a bench on a false S3; a negative one: sets the clock back.
fn pass(bench: &Bench, seconds: i64) {
    let location = format!(
        "{} {} at {}",
        bench.system(),
        bench.environment()["WALHALLA_STORAGE"],
        bench.environment()["WALHALLA_S3_ENDPOINT"]
    );
    for path in markers(bench) {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut marker: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let confirmed = marker["confirmed"].as_i64().unwrap() - seconds;
        marker["confirmed"] = confirmed.into();
        let line = marker.to_string();
        let seal = walhalla::spool::tag([location.as_bytes(), line.as_bytes()]);
        std::fs::write(&path, format!("{line}\n{seal}\n")).unwrap();
    }
}

/// A store, and a bench with a backlog of the segments 1 to `last`, of which the first call has stored all.
fn after_the_first_call(last: u8) -> (FakeS3, Bench) {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    backlog(&bench, 1..=last);
    turn(&bench, 1);
    assert_eq!(stored(&s3), names(1..=last));
    s3.forget_requests();
    (s3, bench)
}

#[test]
fn one_call_stores_what_waits_and_the_next_ask_nothing() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    backlog(&bench, 1..=6);
    turn(&bench, 1);
    assert_eq!(stored(&s3), names(1..=6));
    assert_eq!(markers(&bench).len(), 5);
    for number in 2..=6 {
        assert_eq!(puts_of(&s3, number), 1);
    }
    s3.forget_requests();
    for number in 2..=6 {
        turn(&bench, number);
    }
    assert_eq!(shown(&s3.requests()), [""; 0]);
    assert!(markers(&bench).is_empty(), "used, and gone");
    for number in 1..=6 {
        let restored = format!("restored-{number}");
        bench.restore(&[&segment_name(number), &restored]).expect_silent_success();
        assert_eq!(std::fs::read(bench.data().join(restored)).unwrap(), segment(number));
    }
}

/// Two servers promoted at one place, or a data directory put back: the first segment that differs is refused, and what is behind
/// it must not take the names that the right server needs.
#[test]
fn nothing_goes_ahead_of_a_segment_that_is_not_this_servers() {
    let s3 = FakeS3::start();
    let right = Bench::on(&s3).with("WALHALLA_CONCURRENCY", 1);
    for number in 1..=2 {
        right.archive(&[&right.wal(number)]).expect_silent_success();
    }
    let wrong = Bench::on(&s3);
    backlog(&wrong, 1..=8);
    differ(&wrong, 2..=8);
    // The first is the same in both, the second is not.
    turn(&wrong, 1);
    assert_eq!(stored(&s3), names(1..=2));
    wrong.archive(&[&path(2)]).expect(65, &["is taken by other content"]);
    assert_eq!(stored(&s3), names(1..=2));
    right.archive(&[&right.wal(3)]).expect_silent_success();
}

/// Makes the segments of these numbers on the bench other ones than everybody else's.
fn differ(bench: &Bench, numbers: impl IntoIterator<Item = u8>) {
    for number in numbers {
        bench.write(&path(number), other_segment(number));
    }
}

fn other_segment(number: u8) -> Vec<u8> {
    let mut bytes = segment(number);
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

/// A clone drains the same backlog, and differs from some segment on: whoever was second anywhere goes one by one, and so takes no
/// name that the first one needs.
#[test]
fn two_servers_with_one_backlog_do_not_share_what_is_behind_it() {
    let s3 = FakeS3::start();
    let [first, second] = [0, 1].map(|_| Bench::on(&s3).with("WALHALLA_CONCURRENCY", 4));
    for bench in [&first, &second] {
        backlog(bench, 1..=12);
    }
    differ(&second, 7..=12);
    turn(&first, 1);
    assert_eq!(stored(&s3), names(1..=4));
    for number in 1..=4 {
        turn(&second, number);
    }
    assert_eq!(stored(&s3), names(1..=4), "it was second");
    for number in 2..=4 {
        turn(&first, number);
    }
    // The first one leaves a hole, which the second fills: they agree on it.
    s3.fault(Fault::new(Says::internal_error()).method("PUT").on(&segment_name(6)));
    first.archive(&[&path(5)]).expect(0, &["working ahead", &segment_name(6)]);
    done(&first, &segment_name(5));
    s3.heal();
    for number in 5..=6 {
        turn(&second, number);
    }
    assert_eq!(stored(&s3), names(1..=8), "nothing that only the second one has");
    second.archive(&[&path(7)]).expect(65, &["is taken by other content"]);
    for number in 6..=12 {
        turn(&first, number);
    }
    for number in 7..=12 {
        let object = s3.object(&first.key(&segment_name(number))).unwrap();
        assert!(codec::plain_of(&object.body, &Identities::default()).unwrap().1 == segment(number), "{number}");
    }
}

/// Something lies under a name ahead, be it the same: another server may be there. It is not read, and nothing more goes ahead.
#[test]
fn what_is_met_ahead_ends_working_ahead() {
    let s3 = FakeS3::start();
    let rival = Bench::on(&s3).with("WALHALLA_CONCURRENCY", 1);
    rival.archive(&[&rival.wal(4)]).expect_silent_success();
    let bench = Bench::on(&s3).with("WALHALLA_CONCURRENCY", 4);
    backlog(&bench, 1..=9);
    s3.forget_requests();
    turn(&bench, 1);
    let read = |number| shown(&s3.requests()).contains(&format!("GET {}", segment_name(number)));
    assert!(!read(4));
    for number in 2..=6 {
        turn(&bench, number);
        assert!(!stored(&s3).contains(&segment_name(number + 3)), "one by one: {:?}", stored(&s3));
    }
    assert!(read(4), "in its own turn");
}

/// A call that was killed has left files without markers: they are looked at, by themselves, and are no sign of another server.
#[test]
fn what_a_killed_call_has_sent_is_looked_at() {
    for first_is_there in [true, false] {
        let (s3, bench) = after_the_first_call(5);
        let folder = markers(&bench)[0].parent().unwrap().to_owned();
        for marker in markers(&bench) {
            std::fs::remove_file(marker).unwrap();
        }
        std::fs::write(folder.join("sending"), names(2..=5).join("\n")).unwrap();
        backlog(&bench, 6..=9);
        if first_is_there {
            for number in 2..=5 {
                turn(&bench, number);
            }
        } else {
            s3.remove(&bench.key(&segment_name(2)));
            turn(&bench, 2);
            assert_eq!(markers(&bench).len(), 3);
            for number in 3..=5 {
                turn(&bench, number);
            }
        }
        assert_eq!(stored(&s3), names(1..=5));
        turn(&bench, 6);
        assert_eq!(stored(&s3), names(1..=9), "not one by one");
        assert!(!folder.join("sending").exists());
    }
}

#[test]
fn the_oldest_first_and_no_more_than_was_set() {
    for (concurrency, last) in [(1, 1), (2, 2), (4, 4), (128, 12)] {
        let s3 = FakeS3::start();
        let bench = Bench::on(&s3).with("WALHALLA_CONCURRENCY", concurrency);
        backlog(&bench, 1..=12);
        turn(&bench, 1);
        assert_eq!(stored(&s3), names(1..=last), "concurrency {concurrency}");
    }
}

/// However many go at once, and on whatever store: the same files in the end.
#[test]
fn the_same_files_whatever_the_concurrency() {
    let mut files: Vec<BTreeMap<String, Vec<u8>>> = Vec::new();
    for concurrency in [1, 8, 32] {
        for personality in [Personality::honest(), Personality::without_conditions(), Personality::liar()] {
            let s3 = FakeS3::with(personality, false);
            let bench = Bench::on(&s3).with("WALHALLA_CONCURRENCY", concurrency);
            backlog(&bench, 1..=9);
            for number in 1..=9 {
                turn(&bench, number);
            }
            let plain = |name: String| {
                let object = s3.object(&bench.key(&name)).unwrap();
                (name, codec::plain_of(&object.body, &Identities::default()).unwrap().1)
            };
            files.push(stored(&s3).into_iter().map(plain).collect());
        }
    }
    assert_eq!(files[0].len(), 9);
    assert!(files.iter().all(|others| *others == files[0]));
}

#[test]
fn a_marker_is_never_believed_for_other_content() {
    let (s3, bench) = after_the_first_call(3);
    let mut other = segment(2);
    other[SEGMENT - 1] ^= 1;
    bench.write(&path(2), &other);
    bench.archive(&[&path(2)]).expect(65, &["taken by other content"]);
    assert_eq!(puts_of(&s3, 2), 1, "it was tried");
    // And a file that is no segment any more is refused before its marker is looked at.
    bench.write(&path(3), &segment(3)[..100]);
    bench.archive(&[&path(3)]).expect(65, &["has 100 bytes"]);
}

#[test]
fn a_marker_is_never_believed_for_another_place() {
    let (s3, bench) = after_the_first_call(4);
    let elsewhere = FakeS3::start();
    let bench = bench.with("WALHALLA_STORAGE", "s3://bucket/other");
    bench.archive(&[&path(2)]).expect_silent_success();
    assert_eq!(stored(&s3).iter().filter(|name| **name == segment_name(2)).count(), 2);
    let bench =
        bench.with("WALHALLA_STORAGE", "s3://bucket/cluster").with("WALHALLA_S3_ENDPOINT", elsewhere.endpoint());
    bench.archive(&[&path(3)]).expect_silent_success();
    assert!(stored(&elsewhere).contains(&segment_name(3)));
    // Nor one that somebody carries there.
    elsewhere.remove(&bench.key(&segment_name(4)));
    let of_four: Vec<_> = markers(&bench).into_iter().filter(|path| path.ends_with(segment_name(4))).collect();
    let bytes: Vec<_> = of_four.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(of_four.len(), 3, "one for each place");
    for (at, path) in of_four.iter().enumerate() {
        std::fs::write(path, &bytes[(at + 1) % 3]).unwrap();
    }
    bench.archive(&[&path(4)]).expect_silent_success();
    assert!(elsewhere.object(&bench.key(&segment_name(4))).is_some());
}

/// After thirty seconds one listing confirms all markers, and what it does not show is stored again.
#[test]
fn an_old_confirmation_is_renewed_for_all_at_once() {
    let (s3, bench) = after_the_first_call(5);
    s3.remove(&bench.key(&segment_name(4)));
    pass(&bench, 31);
    turn(&bench, 2);
    assert_eq!(shown(&s3.requests()), ["GET list 0000000100000000000000"]);
    s3.forget_requests();
    turn(&bench, 3);
    assert_eq!(shown(&s3.requests()), [""; 0], "confirmed by the same listing");
    turn(&bench, 4);
    assert_eq!(puts_of(&s3, 4), 1);
    assert_eq!(stored(&s3), names(1..=5));
    // The clock was set back: a confirmation from the future is none.
    s3.forget_requests();
    pass(&bench, -3600);
    s3.remove(&bench.key(&segment_name(5)));
    turn(&bench, 5);
    assert_eq!(puts_of(&s3, 5), 1);
}

/// Where length and tag do not settle it, the object is read back; where the listing fails, storing decides.
#[test]
fn what_a_listing_leaves_open_is_read_back() {
    let (s3, bench) = after_the_first_call(6);
    pass(&bench, 31);
    // The same bytes under another tag: nothing is sent.
    s3.personality(|p| p.etag_is_md5 = false);
    let key = bench.key(&segment_name(2));
    s3.insert(&key, s3.object(&key).unwrap().body);
    turn(&bench, 2);
    assert_eq!(
        shown(&s3.requests()),
        ["GET list 0000000100000000000000".to_owned(), format!("GET {}", segment_name(2))]
    );
    // Something else in its place: refused, as without a marker.
    pass(&bench, 31);
    let other = s3.object(&bench.key(&segment_name(3))).unwrap().body;
    s3.insert(&bench.key(&segment_name(4)), other);
    bench.archive(&[&path(4)]).expect(65, &["is taken"]);
    // No right to list.
    s3.personality(|p| p.denied = vec![(Right::List, String::new())]);
    pass(&bench, 31);
    turn(&bench, 5);
    assert_eq!(stored(&s3), names(1..=6));
    // An outage: no success without the store's word, also for a file that it has.
    s3.personality(|p| p.denied = Vec::new());
    s3.fault(Fault::new(Says::internal_error()));
    pass(&bench, 31);
    let bench = bench.with("WALHALLA_ARCHIVE_TIMEOUT", "1s");
    bench.archive(&[&path(6)]).expect(75, &["cannot archive"]);
}

#[test]
fn a_marker_cut_in_two_is_none() {
    let (s3, bench) = after_the_first_call(4);
    for marker in markers(&bench) {
        let bytes = std::fs::read(&marker).unwrap();
        std::fs::write(&marker, &bytes[..bytes.len() / 2]).unwrap();
    }
    turn(&bench, 2);
    // Refused by the store, and read back: not stored twice.
    let expected = [format!("PUT {}", segment_name(2)), format!("GET {}", segment_name(2))];
    assert_eq!(shown(&s3.requests()), expected);
    assert_eq!(stored(&s3), names(1..=4));
}

/// After a reboot the spool may be empty, or half there.
#[test]
fn a_spool_that_vanished_costs_requests_and_nothing_else() {
    let (s3, bench) = after_the_first_call(5);
    std::fs::remove_file(&markers(&bench)[1]).unwrap();
    turn(&bench, 2);
    turn(&bench, 3);
    std::fs::remove_dir_all(&bench.environment()["WALHALLA_SPOOL"]).unwrap();
    turn(&bench, 4);
    turn(&bench, 5);
    assert_eq!(stored(&s3), names(1..=5));
}

#[test]
fn without_a_spool_each_call_stores_its_own_file() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3).with("WALHALLA_SPOOL", "/proc/nowhere");
    backlog(&bench, 1..=3);
    for number in 1..=3 {
        turn(&bench, number);
        assert_eq!(stored(&s3), names(1..=number));
    }
}

/// A disk with no room for a marker: nothing goes ahead that would only be sent twice.
#[test]
fn a_full_spool_is_no_spool() {
    let place = crate::support::temporary();
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(place.path()).status();
    if !user::is_root() || !mount(&["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"]).is_ok_and(|s| s.success()) {
        skipped("a full spool", "no small file system can be mounted here");
        return;
    }
    let _unmount = Unmount(place.path().to_owned());
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3).with("WALHALLA_SPOOL", place.path().display());
    backlog(&bench, 1..=6);
    turn(&bench, 1);
    assert_eq!(stored(&s3), names(1..=6), "while there is room");
    backlog(&bench, 7..=9);
    for number in 2..=8 {
        // A marker that was used leaves room for another.
        let mut filler = std::fs::File::create(place.path().join(format!("filler-{number}"))).unwrap();
        while std::io::Write::write_all(&mut filler, &[1; 512]).is_ok() {}
        turn(&bench, number);
    }
    assert_eq!(stored(&s3), names(1..=8), "no room, one by one");
    assert_eq!([7, 8].map(|number| puts_of(&s3, number)), [1, 1]);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// A history first: nothing of its timeline is stored while it waits, and nothing at all beside it.
#[test]
fn history_first() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    backlog(&bench, 1..=3);
    let (history, later) = ("00000002.history", "000000020000000000000003");
    bench.write(&format!("pg_wal/{history}"), "1\t0/300028\tno recovery target specified\n");
    let mut segment = segment(3);
    segment[4..8].copy_from_slice(&2_u32.to_le_bytes());
    bench.write(&format!("pg_wal/{later}"), segment);
    for name in [history, later] {
        ready(&bench, name);
    }
    turn(&bench, 1);
    assert_eq!(stored(&s3), names(1..=3), "only what is older");
    s3.fault(Fault::new(Says::error(403, "AccessDenied")).on(history));
    bench.archive(&[&format!("pg_wal/{history}")]).expect(77, &["AccessDenied"]);
    turn(&bench, 2);
    assert_eq!(stored(&s3), names(1..=3), "refused is not stored");
    s3.heal();
    backlog(&bench, 4..=5);
    s3.forget_requests();
    bench.archive(&[&format!("pg_wal/{history}")]).expect_silent_success();
    assert_eq!(shown(&s3.requests()), [format!("PUT {history}")], "alone");
    done(&bench, history);
    turn(&bench, 4);
    let found = || {
        let mut found = stored(&s3);
        found.sort();
        found
    };
    let mut expected = names(1..=5);
    expected.push(history.to_owned());
    assert_eq!(found(), expected, "who stores a timeline's last segment need not have the next timeline");
    bench.archive(&[&format!("pg_wal/{later}")]).expect_silent_success();
    expected.push(later.to_owned());
    expected.sort();
    assert_eq!(found(), expected);
}

#[test]
fn a_stopping_server_is_not_worked_ahead_for() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    backlog(&bench, 1..=4);
    let status =
        |word: &str| bench.write("postmaster.pid", format!("1\n/data\n1700000000\n5432\n/tmp\n*\n  1 2\n{word}\n"));
    status("stopping");
    turn(&bench, 1);
    assert_eq!(stored(&s3), names(1..=1));
    status("ready   ");
    turn(&bench, 2);
    assert_eq!(stored(&s3), names(1..=4));
}

/// A failure of a file ahead is told in one line, tried once, and left for the file's own turn.
#[test]
fn a_failure_ahead_is_not_the_calls() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    bench.archive(&[&bench.wal(9)]).expect_silent_success();
    backlog(&bench, 1..=4);
    s3.fault(Fault::new(Says::internal_error()).method("PUT").on(&segment_name(3)));
    bench.archive(&[&path(1)]).expect(0, &["working ahead", &segment_name(3), "InternalError"]);
    done(&bench, &segment_name(1));
    assert_eq!((puts_of(&s3, 1), puts_of(&s3, 3)), (1, 1));
    assert!(s3.object(&bench.key(&segment_name(3))).is_none());
    s3.heal();
    for number in 2..=4 {
        bench.archive(&[&path(number)]).expect_silent_success();
        done(&bench, &segment_name(number));
    }
    assert_eq!(stored(&s3), names([1, 2, 3, 4, 9]));
}

/// Files that nobody should store are passed over without a word, each until its own turn.
#[test]
fn what_is_wrong_with_a_file_is_said_in_its_own_turn() {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3);
    backlog(&bench, 1..=7);
    bench.write(&path(2), &segment(2)[..1000]);
    std::fs::remove_file(bench.data().join(path(3))).unwrap();
    bench.write(&path(4), segment(5));
    std::fs::write(bench.data().join(path(6)), vec![0; SEGMENT]).unwrap();
    turn(&bench, 1);
    assert_eq!(stored(&s3), names([1, 5, 7]));
    bench.archive(&[&path(2)]).expect(65, &["has 1000 bytes"]);
    bench.archive(&[&path(3)]).expect(74, &["cannot look at"]);
    bench.archive(&[&path(4)]).expect(65, &["is not the segment that its name says"]);
    // Other content under a name ahead.
    let (s3, bench) = after_the_first_call(1);
    backlog(&bench, 2..=3);
    let object = s3.object(&bench.key(&segment_name(1))).unwrap().body;
    s3.insert(&bench.key(&segment_name(3)), object);
    turn(&bench, 2);
    bench.archive(&[&path(3)]).expect(65, &["is taken"]);
}

/// A file ahead whose line hangs costs the call no more than a quarter of its time, and keeps the next from trying again.
#[test]
fn what_hangs_ahead_is_given_up() {
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let bench = Bench::bare().at(&proxy.endpoint()).with("WALHALLA_ARCHIVE_TIMEOUT", "8s");
    bench.archive(&[&bench.wal(9)]).expect_silent_success();
    backlog(&bench, 1..=4);
    proxy.always(Plan::up(Break::Stall, 0).once_sent(&format!("{} HTTP", segment_name(3))));
    let answer = bench.archive(&[&path(1)]);
    answer.expect_silent_success();
    assert!(answer.took < Duration::from_secs(6), "{answer:?}");
    assert!(s3.object(&bench.key(&segment_name(1))).is_some());
    proxy.always(Plan::pass());
    backlog(&bench, 5..=8);
    bench.archive(&[&path(3)]).expect_silent_success();
    assert_eq!(stored(&s3), names([1, 2, 3, 4, 9]), "not ahead again so soon");
}

/// The server begins to stop while files are under way: they are given up.
#[test]
fn a_server_that_begins_to_stop_ends_what_is_ahead() {
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let bench = Bench::bare().at(&proxy.endpoint());
    bench.archive(&[&bench.wal(9)]).expect_silent_success();
    backlog(&bench, 1..=2);
    proxy.always(Plan::up(Break::Stall, 0).once_sent(&format!("{} HTTP", segment_name(2))));
    let begun = Instant::now();
    let call = bench.start("walhalla-archive", &[&path(1)]);
    crate::support::wait_until("its own file is stored", Duration::from_secs(30), || {
        s3.object(&bench.key(&segment_name(1))).is_some()
    });
    bench.write("postmaster.pid", "1\n/data\n1700000000\n5432\n/tmp\n*\n  1 2\nstopping\n");
    let answer = finish(call, begun);
    answer.expect_silent_success();
    assert!(answer.took < Duration::from_secs(5), "{answer:?}");
}

/// Nobody answers for a directory but the kernel: the object itself is looked at by each call.
#[test]
fn a_directory_is_looked_at_each_time() {
    let bench = Bench::on_directory();
    backlog(&bench, 1..=5);
    turn(&bench, 1);
    let folder = bench.repository().join(format!("{}/wal/00000001", bench.system()));
    let count = || std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(count(), 5);
    turn(&bench, 2);
    std::fs::remove_file(folder.join(segment_name(3))).unwrap();
    turn(&bench, 3);
    assert_eq!(count(), 5, "stored again");
    // Cut short: replaced, and said.
    std::fs::OpenOptions::new().write(true).open(folder.join(segment_name(4))).unwrap().set_len(100).unwrap();
    bench.archive(&[&path(4)]).expect(0, &["replaced"]);
    // A volume that is not mounted.
    std::fs::remove_dir_all(bench.repository()).unwrap();
    std::fs::create_dir(bench.repository()).unwrap();
    bench.archive(&[&path(5)]).expect(78, &["is the volume mounted?"]);
}

/// Markers go with what they were for.
#[test]
fn markers_are_cleaned_up() {
    let (_s3, bench) = after_the_first_call(4);
    // Somebody else archived 3; 2 has its turn.
    done(&bench, &segment_name(3));
    turn(&bench, 2);
    assert_eq!(markers(&bench).len(), 2, "a call that asks nothing tidies nothing");
    backlog(&bench, 5..=6);
    turn(&bench, 5);
    let left: Vec<_> =
        markers(&bench).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(left, names([4, 6]));
    // Those of another place, after a week.
    let folder = markers(&bench)[0].parent().unwrap().with_file_name("ahead-0000000000000000");
    std::fs::create_dir(&folder).unwrap();
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    let age = old.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(Command::new("touch").args(["-d", &format!("@{age}")]).arg(&folder).status().unwrap().success());
    backlog(&bench, 7..=8);
    turn(&bench, 7);
    assert!(!folder.exists());
}

/// A segment of any size; those too large to share the memory go alone.
#[test]
fn every_segment_size() {
    for (mib, ahead) in [(1, true), (16, true), (64, false), (1024, false)] {
        let s3 = FakeS3::start();
        let bench = Bench::on(&s3);
        resize(&bench, mib);
        std::fs::create_dir_all(bench.data().join("pg_wal/archive_status")).unwrap();
        let names: Vec<String> = (1..=3).map(|number| sized(&bench, mib, number)).collect();
        for (number, name) in names.iter().enumerate() {
            bench.archive(&[&format!("pg_wal/{name}")]).expect_silent_success();
            done(&bench, name);
            let there = if ahead { 3 } else { number + 1 };
            assert_eq!(stored(&s3), names[..there], "{mib} MiB");
            assert!(s3.requests_of("PUT").iter().filter(|put| put.key.ends_with(name)).count() == 1);
        }
    }
}

/// Makes the cluster on the bench one of another segment size.
fn resize(bench: &Bench, mib: u32) {
    let place = bench.data().join("global/pg_control");
    let mut control = std::fs::read(&place).unwrap();
    let crc_at = (0..control.len() - 4)
        .step_by(4)
        .find(|at| control[*at..*at + 4] == crc32c::crc32c(&control[..*at]).to_le_bytes())
        .unwrap();
    let sizes = [8192_u32.to_le_bytes(), (1_u32 << 20).to_le_bytes()].concat();
    let at = control.windows(8).position(|window| window == sizes).unwrap() + 4;
    control[at..at + 4].copy_from_slice(&(mib << 20).to_le_bytes());
    let crc = crc32c::crc32c(&control[..crc_at]);
    control[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(place, control).unwrap();
}

/// A segment of this size that `pg_switch_wal` cut short, waiting.
fn sized(bench: &Bench, mib: u32, number: u64) -> String {
    let bytes = u64::from(mib) << 20;
    let start = number * bytes;
    let mut head = segment(1);
    head[8..16].copy_from_slice(&start.to_le_bytes());
    head[32..36].copy_from_slice(&(mib << 20).to_le_bytes());
    let name = format!("00000001{:08X}{:08X}", start >> 32, (start & 0xffff_ffff) / bytes);
    let path = format!("pg_wal/{name}");
    bench.write(&path, head);
    std::fs::OpenOptions::new().write(true).open(bench.data().join(path)).unwrap().set_len(bytes).unwrap();
    ready(bench, &name);
    name
}
