//! Archiving set up wrongly, in each of the ways.

use super::*;
use crate::support::postgres::server_programs;
use crate::support::skipped;

#[test]
fn archive_mode_off() {
    let site = Site::new();
    let server = site.ready(15);
    server.configure(&[("archive_mode".to_owned(), "off".to_owned())]);
    server.restart();
    let checked = site.check(&server, &[]);
    checked.expect_status(2).expect("archive_mode", "critical", &["archive_mode = off", "restart"]);
    checked.expect("arrival", "skipped", &["as it is set up"]);
    checked.expect("archiver", "skipped", &[]);
    assert_eq!(checked.complaints(), ["archive_mode"]);
    // Set right, and not yet in force.
    server.reconfigure("archive_mode", "on");
    server.wait_sql("SELECT pending_restart FROM pg_settings WHERE name = 'archive_mode'", "t", LONG);
    site.check(&server, &[]).expect("archive_mode", "critical", &["waits for a restart"]);
}

#[test]
fn wal_level_minimal() {
    let site = Site::new();
    let server = site.ready(15);
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    server.configure(&[
        setting("archive_mode", "off"),
        setting("wal_level", "minimal"),
        setting("max_wal_senders", "0"),
    ]);
    server.restart();
    let checked = site.check(&server, &[]);
    checked.expect_status(2).expect("wal_level", "critical", &["wal_level = replica"]);
    checked.expect("senders", "critical", &["no base backup"]);
    checked.expect("arrival", "skipped", &[]);
}

#[test]
fn senders_durability_and_timeout() {
    let site = Site::new();
    let server = site
        .builder(15)
        .setting("fsync", "off")
        .setting("full_page_writes", "off")
        .setting("max_wal_senders", 1)
        .setting("max_replication_slots", 0)
        .setting("archive_timeout", 0)
        .start();
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect("durability", "critical", &["fsync and full_page_writes off"]);
    checked.expect("senders", "warning", &["needs 2"]);
    checked.expect("archive_timeout", "warning", &["archive_timeout = 300"]);
    server.reconfigure("archive_timeout", "7200");
    server.wait_sql("SHOW archive_timeout", "2h", LONG);
    site.check(&server, &["--no-switch"]).expect("archive_timeout", "warning", &["7200 s"]);
}

#[test]
fn the_command_in_every_wrong_way() {
    for major in [13, 18] {
        if server_programs(major).is_none() {
            skipped(&format!("archive_command of Postgres {major}"), "it is not here");
            continue;
        }
        let site = Site::new();
        let server = site.ready(major);
        let program = binaries::walhalla_archive().display().to_string();
        let refuses = major >= 16;
        for (command, subject, severity, words) in [
            (String::new(), "archive_command", "critical", &["empty", "walhalla-archive %p"][..]),
            (program.clone(), "archive_command", "critical", &["no %p"]),
            (format!("{program} %f"), "archive_command", "critical", &["no %p"]),
            (format!("{program} %p %f"), "archive_command", "critical", &["one path"]),
            (format!("{program} %p || true"), "archive_command", "critical", &["exit status away"]),
            ("/bin/true %p".to_owned(), "archive_command", "critical", &["archives nothing"]),
            ("cp %p /srv/%f".to_owned(), "archive_command", "critical", &["calls cp"]),
            (
                format!("KEY=100% {program} %p"),
                "archive_command",
                if refuses { "critical" } else { "warning" },
                &["100%"],
            ),
            ("/nowhere/walhalla-archive %p".to_owned(), "program", "critical", &["/nowhere/walhalla-archive"]),
            ("walhalla-archive-x/walhalla-archive %p".to_owned(), "program", "critical", &["walhalla-archive-x"]),
            (format!("{program} --config /nowhere.toml %p"), "program", "critical", &["/nowhere.toml"]),
        ] {
            let words = if words == ["100%"] { &["archive_command has %"][..] } else { words };
            server.reconfigure("archive_command", &command);
            server.wait_sql("SHOW archive_command", &command, LONG);
            let checked = site.check(&server, &["--wait", "1s"]);
            checked.expect(subject, severity, words);
            checked.expect_status(if severity == "critical" { 2 } else { 1 });
            if severity == "critical" {
                checked.expect("arrival", "skipped", &[]);
            }
        }
    }
}

#[test]
fn a_library_beside_the_command() {
    for major in [15, 18] {
        if server_programs(major).is_none() {
            skipped(&format!("archive_library of Postgres {major}"), "it is not here");
            continue;
        }
        let site = Site::new();
        let server = site.ready(major);
        server.reconfigure("archive_library", "basic_archive");
        server.wait_sql("SHOW archive_library", "basic_archive", LONG);
        let words = if major >= 16 { "refuses both" } else { "not called" };
        site.check(&server, &[]).expect_status(2).expect("archive_command", "critical", &[words, "archive_library"]);
    }
}

#[test]
fn a_program_that_cannot_be_run() {
    let site = Site::new();
    let server = site.ready(15);
    let set = |command: &str| {
        server.reconfigure("archive_command", command);
        server.wait_sql("SHOW archive_command", command, LONG);
    };
    let copy = copy_of_archiver(&server, 0o600);
    set(&format!("{} %p", copy.display()));
    site.check(&server, &[]).expect_status(2).expect("program", "critical", &["cannot execute", "chmod 755"]);
    // It is there, it may be executed, and it is no program.
    copy_of_archiver(&server, 0o755);
    std::fs::write(&copy, b"\x7fELF and nothing more").unwrap();
    site.check(&server, &[]).expect("program", "critical", &["and no version"]);
    std::fs::write(&copy, b"#!/bin/sh\necho walhalla-archive 0.0.1\n").unwrap();
    site.check(&server, &["--no-switch"]).expect("program", "warning", &["version 0.0.1"]);
    // Not in the server's PATH.
    set("walhalla-archive %p");
    site.check(&server, &[]).expect("program", "critical", &["not in the server's PATH"]);
}

#[test]
fn it_archives_into_another_repository() {
    let site = Site::new();
    let server = site.ready(15);
    let mut variables = site.variables();
    variables[0].1 = format!("s3://{}/elsewhere", fake_s3::BUCKET);
    let checked = Checked::of(site.walhalla_with(&variables, &["check", "--json", "--dsn", &server.dsn()]));
    checked.expect_status(2).expect("program", "critical", &["another repository"]);
    checked.expect("identity", "critical", &["no cluster.json", "nothing was ever archived"]);
    checked.expect("permissions", "unknown", &["walhalla init"]);
    assert!(!site.s3.keys().iter().any(|key| key.starts_with("elsewhere")), "nothing is written there");
}

#[test]
fn what_it_believes_to_be_archived_is_not_there() {
    let site = Site::new();
    let server = site.ready(15);
    let right = server.psql("SHOW archive_command").unwrap();
    server.reconfigure("archive_command", "true");
    server.wait_sql("SHOW archive_command", "true", LONG);
    let lost = server.switch_wal();
    server.wait_archived(&lost, LONG);
    let last = format!("SELECT last_archived_wal >= '{lost}' FROM pg_stat_archiver");
    server.wait_sql(&last, "t", LONG);
    server.reconfigure("archive_command", &right);
    server.wait_sql("SHOW archive_command", &right, LONG);
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(2).expect("archiver", "critical", &[&lost, "not in this repository", "new backup"]);
    // With a segment that comes, the gap is what is left of it.
    let checked = site.check(&server, &[]);
    checked.expect("arrival", "ok", &[]);
    checked.expect_status(2).expect("gaps", "critical", &[&lost, "new backup"]);
}

#[test]
fn archiving_is_held() {
    let site = Site::new();
    let server = site.ready(15);
    server.write("walhalla.held", "");
    site.check(&server, &[]).expect_status(2).expect("held", "critical", &["--release"]);
}
