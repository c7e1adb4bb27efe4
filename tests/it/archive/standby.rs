//! The exit-code table of `walhalla-restore`, proven by what real servers make of it: standbys and promotions; and how long
//! `walhalla-archive` keeps a server that stops.

use super::site::{LONG, Site, add_row, rows, timeline, wait_primary};
use crate::support::postgres::{Builder, Postgres, Stop, postgres_majors};
use crate::support::proxy::{Plan, Proxy};
use crate::support::wait_until;
use std::time::{Duration, Instant};

/// A running standby that has the first row, behind a line of its own.
fn standby(site: &Site, change: impl FnOnce(Builder) -> Builder) -> (Postgres, Postgres, Proxy) {
    let primary = site.primary();
    let proxy = Proxy::to(site.s3.port());
    let builder = site.server_at("standby", &proxy.endpoint()).signal_file("standby.signal");
    let standby = change(builder).clone_of(&primary, false);
    add_row(&primary, 1);
    standby.start().unwrap();
    standby.wait_sql("SELECT count(*) FROM t", "1", LONG);
    (primary, standby, proxy)
}

#[test]
fn a_standby_stays_up_and_goes_on_when_the_outage_is_over() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let (primary, standby, mut proxy) = standby(&site, |builder| builder.env("WALHALLA_RESTORE_TIMEOUT", "2s"));
        proxy.cut();
        add_row(&primary, 2);
        standby.wait_log("so that Postgres tries streaming", LONG);
        let said = || standby.log().matches("so that Postgres tries streaming").count();
        wait_until("it asks again and again", LONG, || said() >= 4);
        assert_eq!(rows(&standby), "1");
        proxy.restore();
        standby.wait_sql("SELECT count(*) FROM t", "2", LONG);
        // A damaged object does not end it either.
        let third = {
            proxy.cut();
            add_row(&primary, 3)
        };
        let key = site.key(&third);
        let body = site.s3.object(&key).unwrap().body;
        site.s3.damage(&key, |body| body.truncate(200));
        proxy.restore();
        standby.wait_log(&format!("cannot fetch {third}"), LONG);
        assert!(standby.is_running());
        site.s3.insert(&key, body);
        standby.wait_sql("SELECT count(*) FROM t", "3", LONG);
    }
}

#[test]
fn a_promotion_ordered_during_an_outage_waits_for_the_archive() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let (primary, standby, mut proxy) = standby(&site, |builder| builder.env("WALHALLA_RESTORE_TIMEOUT", "3s"));
        proxy.cut();
        add_row(&primary, 2);
        add_row(&primary, 3);
        primary.stop(Stop::Fast).unwrap();
        standby.order_promotion();
        // Longer than a standby's patience.
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
        proxy.restore();
        wait_primary(&standby);
        assert_eq!((rows(&standby).as_str(), timeline(&standby).as_str()), ("1,2,3", "00000002"));
    }
}

/// Patience ends: what may be missing is said, and the number of a timeline is not given away by guess. The server stops, is a
/// standby again, and loses nothing.
#[test]
fn a_promotion_that_the_archive_does_not_answer_uses_no_timeline_twice() {
    for major in postgres_majors() {
        for needs_archive in ["off", "on"] {
            let site = Site::new(major);
            let (primary, standby, mut proxy) = standby(&site, |builder| {
                builder
                    .env("WALHALLA_RESTORE_TIMEOUT", "2s")
                    .env("WALHALLA_PROMOTE_TIMEOUT", "3s")
                    .env("WALHALLA_PROMOTE_NEEDS_ARCHIVE", needs_archive)
            });
            proxy.cut();
            add_row(&primary, 2);
            primary.stop(Stop::Fast).unwrap();
            standby.order_promotion();
            let status = standby.wait_exit(LONG).unwrap_or_else(|| panic!("it still runs:\n{}", standby.log()));
            assert!(!status.success());
            let log = standby.log();
            let said = if needs_archive == "on" {
                "the promotion needs the archive"
            } else {
                "goes on without the archive: WAL from"
            };
            assert!(log.contains(said), "{said:?} is not in\n{log}");
            if needs_archive == "off" {
                assert!(log.contains("use a timeline's number twice"), "{log}");
            }
            assert!(!log.contains("selected new timeline ID"), "{log}");
            assert!(standby.data().join("standby.signal").exists());

            proxy.restore();
            standby.start().unwrap();
            standby.wait_sql("SELECT count(*) FROM t", "2", LONG);
            standby.promote();
            assert_eq!((rows(&standby).as_str(), timeline(&standby).as_str()), ("1,2", "00000002"));
        }
    }
}

/// A store that takes connections and never answers: a fast stop costs a bounded time, and nothing is lost.
#[test]
fn a_fast_stop_is_bounded_while_the_store_hangs() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let proxy = Proxy::to(site.s3.port());
        let server = site.server_at("server", &proxy.endpoint()).start();
        server.psql("CREATE TABLE t (a int)").unwrap();
        add_row(&server, 1);
        proxy.always(Plan::silence());
        server.psql("INSERT INTO t VALUES (2)").unwrap();
        let segment = server.switch_wal();
        wait_until("the command runs", LONG, || proxy.connections() > 3);
        let begun = Instant::now();
        server.stop(Stop::Fast).unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
        assert!(server.data().join(format!("pg_wal/archive_status/{segment}.ready")).exists());
        proxy.always(Plan::pass());
        server.start().unwrap();
        server.wait_archived(&segment, LONG);
        site.key(&segment);
    }
}

/// A restored copy that holds archiving writes nothing into production's history until it is released.
#[test]
fn a_held_server_archives_nothing() {
    let site = Site::new(15);
    let primary = site.primary();
    let copy = site.server("copy").signal_file("recovery.signal").clone_of(&primary, false);
    copy.write("walhalla.held", "");
    add_row(&primary, 1);
    primary.stop(Stop::Fast).unwrap();
    copy.start().unwrap();
    wait_primary(&copy);
    copy.wait_log("archiving is held", LONG);
    let keys = site.s3.keys();
    copy.psql("INSERT INTO t VALUES (2)").unwrap();
    let segment = copy.switch_wal();
    assert_eq!(site.s3.keys(), keys);
    std::fs::remove_file(copy.data().join("walhalla.held")).unwrap();
    copy.wait_archived(&segment, LONG);
    site.key("00000002.history");
}
