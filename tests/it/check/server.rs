//! Servers that are not there, roles that may not, standbys; arguments that are wrong.

use super::*;
use crate::support::free_port;
use crate::support::proxy::{Plan, Proxy};

#[test]
fn a_server_that_is_not_there() {
    let site = Site::new();
    let server = site.ready(15);
    let dsn = server.dsn();
    drop(server);
    let checked = site.check_at(&dsn, &[]);
    checked.expect_status(2).expect("server", "critical", &["cannot reach", "--dsn"]);
    for subject in ["archiving", "arrival", "backlog"] {
        checked.expect(subject, "unknown", &["the server cannot be asked"]);
    }
    // The rest is looked at all the same: the repository holds one cluster only.
    checked.expect("permissions", "ok", &[]).expect("gaps", "ok", &[]).expect(
        "window",
        "ok",
        &["one can restore from"],
    );
}

#[test]
fn a_role_that_may_not() {
    for major in [13, 18] {
        let site = Site::new();
        if crate::support::postgres::server_programs(major).is_none() {
            crate::support::skipped(&format!("roles of Postgres {major}"), "it is not here");
            continue;
        }
        let server = site.ready(major);
        server.psql("CREATE ROLE watcher LOGIN").unwrap();
        // A database of its name there is not: any will do.
        let dsn = format!("host=127.0.0.1 port={} user=watcher", server.port());
        let checked = site.check_at(&dsn, &[]);
        checked.expect_status(3);
        checked.expect(
            "role",
            "unknown",
            &["watcher", "GRANT pg_monitor", "GRANT EXECUTE ON FUNCTION pg_switch_wal()"],
        );
        checked.expect("arrival", "unknown", &["pg_switch_wal"]).expect("backlog", "unknown", &["GRANT pg_monitor"]);
        // What it cannot see it can still conclude: the last that counts as archived is there.
        checked.expect("archiver", "ok", &[]).expect("lag", "ok", &[]).expect("program", "ok", &["works"]);
        server.psql("GRANT pg_monitor TO watcher").unwrap();
        let checked = site.check_at(&dsn, &["--no-switch"]);
        checked.expect_status(0).expect("role", "ok", &["no REPLICATION"]);
        server.psql("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO watcher").unwrap();
        site.check_at(&dsn, &[]).expect_status(0).expect("arrival", "ok", &[]);
        // Who may not even come in.
        let checked = site.check_at(&format!("host=127.0.0.1 port={} user=nobody-here", server.port()), &[]);
        checked.expect_status(3).expect("server", "unknown", &["nobody-here"]);
    }
}

#[test]
fn a_standby() {
    let site = Site::new();
    let primary = site.ready(15);
    let standby = site
        .builder(15)
        .setting("primary_conninfo", primary.dsn())
        .signal_file("standby.signal")
        .clone_of(&primary, true);
    standby.start().unwrap();
    let checked = site.check(&standby, &[]);
    checked.expect_status(0).expect("server", "ok", &["a standby"]);
    checked.expect("archive_mode", "ok", &["once it is promoted"]);
    checked.expect("arrival", "skipped", &["standby"]);
    standby.reconfigure("restore_command", "");
    standby.wait_sql("SHOW restore_command", "", LONG);
    site.check(&standby, &[]).expect_status(1).expect("restore_command", "warning", &["walhalla-restore %f %p"]);
}

#[test]
fn an_age_that_is_too_great_and_a_backlog() {
    let site = Site::new();
    let server = site.ready(15);
    use crate::support::fake_s3::{Answer, Fault};
    site.s3.fault(Fault::new(Answer::error(403, "AccessDenied")).method("PUT").on("/wal/"));
    for _ in 0..4 {
        server.switch_wal();
    }
    server.wait_sql("SELECT failed_count > 0 FROM pg_stat_archiver", "t", LONG);
    let checked = site.check(&server, &["--no-switch", "--backlog-warning", "2", "--backlog-critical", "99"]);
    checked.expect("backlog", "warning", &["files wait to be archived", "server's log"]);
    checked.expect_status(2).expect("archiver", "critical", &["the last attempt failed"]);
    assert!(checked.measure("backlog") >= 4.0 && checked.measure("lag") > 3.0e6);
    let checked = site.check(&server, &["--no-switch", "--backlog-critical", "4"]);
    checked.expect("backlog", "critical", &[]);
    let checked = site.check(&server, &["--no-switch", "--delay-critical", "0s"]);
    checked.expect("backlog", "critical", &[]);
    // What is forced now waits behind them.
    let checked = site.check(&server, &["--wait", "2s"]);
    checked.expect("arrival", "critical", &["within 2 s", "server's log"]);
    site.s3.heal();
    server.wait_sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'", "0", LONG);
    server.wait_sql("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver", "t", LONG);
    let checked = site.check(&server, &[]);
    checked.expect_status(0).expect("archiver", "ok", &["made good since"]);
}

#[test]
fn a_server_that_says_nothing_ends_no_check() {
    let site = Site::new();
    let server = site.ready(15);
    let proxy = Proxy::to(server.port());
    proxy.always(Plan::silence());
    let dsn = format!("host=127.0.0.1 port={} user=postgres sslmode=disable", proxy.port());
    let checked = site.check_at(&dsn, &["--timeout", "20s"]);
    checked.expect_status(2).expect("server", "critical", &["no end within 15 s"]);
}

#[test]
fn wrong_arguments_and_settings_are_unknown() {
    let site = Site::new();
    for arguments in [&["check", "--frob"][..], &["--config", "/dev/null", "check", "--backlog-warning", "x"]] {
        let output = site.walhalla(arguments);
        assert_eq!(output.status, Some(3), "{}", output.stderr);
    }
    assert_eq!(site.walhalla(&["check", "--help"]).status, Some(0));
    assert_eq!(site.walhalla(&["list", "--frob"]).status, Some(64));
    let dsn = format!("host=127.0.0.1 port={}", free_port());
    for (more, words) in [
        (&["--wait", "soon"][..], "--wait"),
        (&["--backup-age-warning", "x"], "--backup-age-warning"),
        (&["--cluster", "x"], "--cluster"),
    ] {
        site.check_at(&dsn, more).expect_status(3).expect("settings", "unknown", &[words]);
    }
    let checked =
        Checked::of(site.walhalla_with(&vec![("WALHALLA_CONFIG", "/dev/null".to_owned())], &["check", "--json"]));
    checked.expect_status(3).expect("settings", "unknown", &["WALHALLA_STORAGE"]);
}
