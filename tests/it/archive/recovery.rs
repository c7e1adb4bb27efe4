//! The exit-code table of `walhalla-restore`, proven by what real servers make of it: recoveries.

use super::site::{LONG, Site, add_row, rows, timeline, wait_primary};
use crate::support::fake_s3::{FakeS3, Personality, Right};
use crate::support::postgres::{Postgres, Stop, postgres_majors};
use crate::support::user;

/// Its name, what is said of it, and how it comes about.
type Trouble<'a> = (&'static str, &'static str, &'a dyn Fn(&mut FakeS3));

/// Archives, loses the server, recovers: every row is back. Then the same from the first backup again, across two timelines.
#[test]
fn archived_lost_and_recovered() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let primary = site.primary();
        let copy = |name: &str| site.server(name).signal_file("recovery.signal").clone_of(&primary, false);
        let [first, second] = ["first", "second"].map(copy);
        for value in 1..=3 {
            add_row(&primary, value);
        }
        primary.kill();

        first.start().unwrap();
        wait_primary(&first);
        assert_eq!((rows(&first).as_str(), timeline(&first).as_str()), ("1,2,3", "00000002"));
        add_row(&first, 4);
        first.stop(Stop::Fast).unwrap();
        site.key("00000002.history");

        second.start().unwrap();
        wait_primary(&second);
        assert_eq!((rows(&second).as_str(), timeline(&second).as_str()), ("1,2,3,4", "00000003"));
        add_row(&second, 5);
        site.key("00000003.history");
        assert!(!second.log().contains("cannot"), "{}", second.log());
    }
}

/// With the store unreachable, denied, damaged or gapped the server does not come up promoted: it stops, and once the trouble is
/// over it comes up with every row.
#[test]
fn no_trouble_ends_a_recovery() {
    for major in postgres_majors() {
        let mut site = Site::new(major);
        let primary = site.primary();
        let copy = site
            .server("copy")
            .env("WALHALLA_RESTORE_TIMEOUT", "2s")
            .signal_file("recovery.signal")
            .clone_of(&primary, false);
        add_row(&primary, 1);
        let second = add_row(&primary, 2);
        add_row(&primary, 3);
        primary.stop(Stop::Fast).unwrap();
        let key = site.key(&second);
        let body = site.s3.object(&key).unwrap().body;

        let troubles: [Trouble<'_>; 7] = [
            ("unreachable", "cannot fetch", &|s3| s3.down()),
            ("denied", "AccessDenied", &|s3| s3.personality(|p| p.denied = vec![(Right::Get, String::new())])),
            ("no right to list", "AccessDenied", &|s3| {
                s3.personality(|p| p.denied = vec![(Right::List, String::new())])
            }),
            ("no bucket", "NoSuchBucket", &|s3| s3.personality(|p| p.no_such_bucket = true)),
            ("damaged", "damaged", &|s3| s3.damage(&key, |body| *body.last_mut().unwrap() ^= 1)),
            ("empty", "the object is empty", &|s3| s3.insert(&key, "")),
            ("gapped", "there is a gap", &|s3| s3.remove(&key)),
        ];
        for (name, said, trouble) in troubles {
            trouble(&mut site.s3);
            let before = copy.log().len();
            copy.launch();
            let status = copy.wait_exit(LONG).unwrap_or_else(|| panic!("{name}: it still runs:\n{}", copy.log()));
            assert!(!status.success(), "{name}");
            let log = copy.log()[before..].to_owned();
            assert!(log.contains(said), "{name}: {said:?} is not in\n{log}");
            for wrong in ["selected new timeline ID", "archive recovery complete"] {
                assert!(!log.contains(wrong), "{name}: {wrong}\n{log}");
            }
            assert!(copy.data().join("recovery.signal").exists(), "{name}");
            site.s3.personality(|p| *p = Personality::honest());
            site.s3.insert(&key, body.clone());
            if name == "unreachable" {
                site.s3.up();
            }
        }
        copy.start().unwrap();
        wait_primary(&copy);
        assert_eq!(rows(&copy), "1,2,3");
    }
}

/// A segment that is valid in `pg_wal` is read there, whether the archive misses it, has it damaged, or has another in its place.
#[test]
fn what_the_archive_lacks_is_read_from_pg_wal() {
    for major in postgres_majors() {
        is_read_from_pg_wal(major, |site, second, _| site.s3.remove(&site.key(second)));
        is_read_from_pg_wal(major, |site, second, _| {
            site.s3.damage(&site.key(second), |body| *body.last_mut().unwrap() ^= 1);
        });
        is_read_from_pg_wal(major, |site, second, third| {
            let other = site.s3.object(&site.key(third)).unwrap().body;
            site.s3.insert(&site.key(second), other);
        });
    }
}

/// A recovery past the second of three segments, of which `pg_wal` has a copy, after this trouble in the archive.
fn is_read_from_pg_wal(major: u32, trouble: impl FnOnce(&Site, &str, &str)) {
    let site = Site::new(major);
    let primary = site.primary();
    let copy = site
        .server("copy")
        .env("WALHALLA_RESTORE_TIMEOUT", "3s")
        .signal_file("recovery.signal")
        .clone_of(&primary, false);
    add_row(&primary, 1);
    let second = add_row(&primary, 2);
    let kept = std::fs::read(primary.data().join("pg_wal").join(&second)).unwrap();
    let third = add_row(&primary, 3);
    primary.stop(Stop::Fast).unwrap();
    trouble(&site, &second, &third);
    let place = copy.data().join("pg_wal").join(&second);
    std::fs::write(&place, kept).unwrap();
    user::give(&place);
    copy.start().unwrap();
    wait_primary(&copy);
    assert_eq!(rows(&copy), "1,2,3");
    assert!(copy.log().contains("pg_wal has a valid copy"), "{}", copy.log());
}

/// The store goes out of reach at the very end, when Postgres has removed the signal file and asks for the parent's history: the
/// server comes up on its new timeline with every row, and so does its next start. (A status above 125 there would stop it, and the
/// next start would come up read-write on the old timeline.)
#[test]
fn an_outage_at_the_very_end_never_brings_the_old_timeline_up() {
    for major in postgres_majors() {
        for signal in ["recovery.signal", "standby.signal"] {
            let site = Site::new(major);
            let primary = site.primary();
            let grandchild = ends_in_an_outage(&site, signal).clone_of(&primary, false);
            let child = site.server("child").signal_file("recovery.signal").clone_of(&primary, false);
            add_row(&primary, 1);
            primary.stop(Stop::Fast).unwrap();
            child.start().unwrap();
            wait_primary(&child);
            add_row(&child, 2);
            child.stop(Stop::Fast).unwrap();

            grandchild.start().unwrap();
            grandchild.wait_sql("SELECT count(*) FROM t", "2", LONG);
            if signal == "standby.signal" {
                grandchild.order_promotion();
            }
            wait_primary(&grandchild);
            assert!(grandchild.log().contains("the recovery has ended already"), "{signal}:\n{}", grandchild.log());
            for _ in 0..2 {
                assert_eq!(
                    (rows(&grandchild).as_str(), timeline(&grandchild).as_str()),
                    ("1,2", "00000003"),
                    "{signal}"
                );
                grandchild.restart();
            }
        }
    }
}

/// A server whose store is out of reach as soon as its signal file is gone.
fn ends_in_an_outage(site: &Site, signal: &str) -> crate::support::postgres::Builder {
    let restore = crate::support::binaries::walhalla_restore();
    site.server("grandchild")
        .restore_command(&format!(
            "test -e {signal} || export WALHALLA_S3_ENDPOINT=http://127.0.0.1:9; exec {} %f %p",
            restore.display()
        ))
        .env("WALHALLA_RESTORE_TIMEOUT", "2s")
        .signal_file(signal)
}

/// The recovery's end is a proof: in the log it says so, once for each time that Postgres asked.
#[test]
fn the_end_of_the_archive_is_said() {
    let site = Site::new(15);
    let primary = site.primary();
    let copy = site.server("copy").signal_file("recovery.signal").clone_of(&primary, false);
    add_row(&primary, 1);
    primary.kill();
    copy.start().unwrap();
    wait_primary(&copy);
    let said = |server: &Postgres| server.log().matches("is proven not to be in the archive").count();
    assert!((1..=2).contains(&said(&copy)), "{}", copy.log());
}
