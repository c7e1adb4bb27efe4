//! A server and a storage of which there is nothing to say, and what is said all the same.

use super::*;
use crate::support::postgres::server_programs;
use crate::support::skipped;

/// Everything there is, in the order of the story: stable names, which monitoring may rely on.
const SUBJECTS: [&str; 27] = [
    "server",
    "role",
    "wal_level",
    "senders",
    "durability",
    "data_checksums",
    "archive_mode",
    "archive_command",
    "archive_timeout",
    "restore_command",
    "spool",
    "program",
    "storage",
    "encryption",
    "identity",
    "permissions",
    "listing",
    "create_only",
    "integrity",
    "if_match",
    "delete",
    "clock",
    "arrival",
    "archiver",
    "backlog",
    "pg_wal",
    "lag",
];

const BEHIND: [&str; 3] = ["backups", "gaps", "window"];

#[test]
fn all_is_well_and_nothing_is_left_behind() {
    for major in [13, 15, 18] {
        if server_programs(major).is_none() {
            skipped(&format!("check of Postgres {major}"), "it is not here");
            continue;
        }
        let site = Site::new();
        let server = site.ready(major);
        let checked = site.check(&server, &[]);
        assert_eq!(checked.complaints(), [""; 0], "{:#}", checked.json);
        checked.expect_status(0);
        assert_eq!(checked.subjects(), [&SUBJECTS[..], &BEHIND[..]].concat());
        checked.expect("arrival", "ok", &["came from the server into the repository"]);
        checked.expect("program", "ok", &["runs as the server's user"]);
        checked.expect("gaps", "ok", &["no segment is missing"]);
        checked.expect("delete", "ok", &["may also delete"]);
        checked.expect("backups", "ok", &["1 backups"]);
        for name in ["arrival", "backlog", "delay", "wal", "lag", "backup_age", "clock_skew"] {
            checked.measure(name);
        }
        let control = server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
        assert_eq!(checked.json["system_identifier"], control.as_str());
        assert_eq!(checked.json["status"], "ok");
        // Whatever is there, others put there: the archiver, the backup; and the permanent objects of the probe.
        for key in site.s3.keys() {
            let rest = key.strip_prefix(&format!("{PREFIX}/{control}/")).unwrap_or_else(|| panic!("{key}"));
            let known = ["cluster.json", "probe/create", "probe/checksum", "probe/match"];
            assert!(known.contains(&rest) || rest.starts_with("wal/") || rest.starts_with("backup/"), "{key}");
        }
    }
}

#[test]
fn lines_for_a_person_and_for_a_monitoring_system() {
    let site = Site::new();
    let server = site.ready(15);
    let output = site.walhalla(&["check", "--dsn", &server.dsn(), "--no-switch"]);
    assert_eq!((output.status, output.stderr.as_str()), (Some(0), ""), "{}", output.stdout);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let (closing, findings) = lines.split_last().unwrap();
    assert!(findings.iter().all(|line| line.starts_with("OK ") || line.starts_with("SKIPPED ")), "{findings:#?}");
    assert!(findings.iter().any(|line| line.starts_with("SKIPPED   arrival: ") && line.contains("--no-switch")));
    assert!(closing.starts_with("WALHALLA OK - "), "{closing}");
    let (_, data) = closing.split_once(" | ").unwrap();
    for datum in ["backlog=0;64;512", "delay=0s;300;1800", "lag=", "backup_age="] {
        assert!(data.contains(datum), "{data}");
    }

    site.s3.personality(|personality| personality.clock = 120);
    let output = site.walhalla(&["check", "--dsn", &server.dsn(), "--no-switch", "--nagios"]);
    assert_eq!(output.status, Some(1), "{}", output.stdout);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].starts_with("WALHALLA WARNING - clock: "), "{lines:#?}");
    assert!(lines[1].starts_with("WARNING   clock: ") && lines[1].contains(" → "), "{lines:#?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_directory_and_the_program_from_the_path() {
    let site = Site::new();
    let repository = site.home.path().join("repository");
    user::make_directory(&repository);
    let mut variables = stores::directory(&repository);
    variables.push(("WALHALLA_SPOOL", site.home.path().join("spool").display().to_string()));
    variables.push(("WALHALLA_CONFIG", "/dev/null".to_owned()));
    let mut builder = site.builder(15).setting("archive_command", "walhalla-archive %p");
    for (name, value) in &variables {
        builder = builder.env(name, value);
    }
    let path = format!("/usr/bin:/bin:{}", binaries::directory().display());
    let server = builder.env("PATH", path).start();
    let output = site.walhalla_with(&variables, &["backup", "--dsn", &server.dsn()]);
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    let checked = Checked::of(site.walhalla_with(&variables, &["check", "--json", "--dsn", &server.dsn()]));
    assert_eq!(checked.complaints(), [""; 0], "{:#}", checked.json);
    checked.expect_status(0).expect("program", "ok", &["walhalla-archive", "runs as the server's user"]);
    assert!(!checked.subjects().iter().any(|subject| subject == "clock" || subject == "delete"));

    // Root, who checks, leaves nothing that is root's in it.
    if user::is_root() {
        let output = binaries::run(
            &binaries::walhalla(),
            &["check", "--json", "--dsn", &server.dsn()],
            &variables,
            site.home.path(),
        );
        let checked = Checked::of(output);
        checked.expect_status(0).expect("permissions", "skipped", &["directory's owner"]);
        let mut folders = vec![repository];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let owner = std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap());
                assert_ne!(owner, 0, "{:?}", entry.path());
                folders.extend(entry.metadata().unwrap().is_dir().then(|| entry.path()));
            }
        }
    }
}
