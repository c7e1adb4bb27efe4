//! The main job through the real programs, in every store: init, archive, back up, lose everything, restore to a second, go on.

use crate::support::engines::ENGINES;
use crate::support::fake_s3::{FakeS3, Personality};
use crate::support::postgres::{Postgres, postgres_majors};
use crate::support::stores::{self, Variables};
use crate::support::{binaries, skipped, temporary, user};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(90);

/// One store, and everything that happens around it.
struct Story {
    place: tempfile::TempDir,
    variables: Variables,
    major: u32,
}

impl Story {
    fn new(major: u32, variables: impl FnOnce(&Path) -> Variables) -> Self {
        let place = temporary();
        user::make_directory(place.path());
        let mut variables = variables(place.path());
        variables.push(("WALHALLA_SPOOL", place.path().join("spool").display().to_string()));
        variables.push(("WALHALLA_CONFIG", "/dev/null".to_owned()));
        Self { place, variables, major }
    }

    fn walhalla(&self, arguments: &[&str]) -> String {
        let output = binaries::run_as_server(&binaries::walhalla(), arguments, &self.variables, self.place.path());
        println!("$ walhalla {}\n{}{}", arguments.join(" "), output.stdout, output.stderr);
        assert_eq!(output.status, Some(0), "walhalla {}: {}", arguments.join(" "), output.stderr);
        output.stdout
    }

    fn builder(&self) -> crate::support::postgres::Builder {
        let builder = Postgres::builder(self.major)
            .archive_command(&format!("{} %p", binaries::walhalla_archive().display()))
            .restore_command(&format!("{} %f %p", binaries::walhalla_restore().display()));
        self.variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
    }

    fn archive(server: &Postgres) {
        let segment = server.switch_wal();
        server.wait_archived(&segment, LONG);
    }

    /// From the first line to the last.
    fn tell(&self) {
        let server = self.builder().create();
        let data = server.data().display().to_string();
        let said = self.walhalla(&["init", "--data-directory", &data]);
        assert!(said.contains("identity written") && said.contains("archive_command = "), "{said}");
        server.start().unwrap();
        server.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 20000) n").unwrap();
        self.walhalla(&["backup", "--dsn", &server.dsn()]);
        server.psql("INSERT INTO t SELECT n FROM generate_series(20001, 20500) n").unwrap();
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
        let moment = server.psql(now).unwrap();
        server.psql("DROP TABLE t").unwrap();
        Self::archive(&server);
        server.kill();
        std::fs::remove_dir_all(server.data()).unwrap();

        let listed: serde_json::Value = serde_json::from_str(&self.walhalla(&["list", "--json"])).unwrap();
        assert_eq!(listed["backups"].as_array().map(Vec::len), Some(1), "{listed}");
        assert!(listed["backups"][0]["reach"]["window"]["until"]["time"].is_string(), "{listed}");
        let to = self.place.path().join("new");
        let to_text = to.display().to_string();
        let target = ["--target-time", &moment, "--target-action", "promote", "--as", "primary"];
        self.walhalla(&[&["restore", "--to", &to_text], &target[..]].concat());

        let rescued = self.builder().adopt(&to);
        rescued.start().unwrap();
        rescued.wait_sql("SELECT pg_is_in_recovery()", "f", LONG);
        assert_eq!(rescued.psql("SELECT count(*) FROM t").unwrap(), "20500");
        // It goes on: its own timeline's history and WAL arrive beside what was there.
        rescued.psql("INSERT INTO t VALUES (0)").unwrap();
        Self::archive(&rescued);
        // The statistics come late up to Postgres 14.
        rescued.wait_sql("SELECT substr(last_archived_wal, 1, 8) FROM pg_stat_archiver", "00000002", LONG);
        rescued.kill();
        let again = self.place.path().join("again");
        let again_text = again.display().to_string();
        self.walhalla(&["restore", "--to", &again_text, "--as", "copy"]);
        let copy = self.builder().adopt(&again);
        copy.start().unwrap();
        copy.wait_sql("SELECT pg_is_in_recovery()", "f", LONG);
        assert_eq!(copy.psql("SELECT count(*) FROM t WHERE n = 0").unwrap(), "1");
    }
}

#[test]
fn in_a_directory_on_every_major() {
    for major in postgres_majors() {
        println!("Postgres {major}");
        Story::new(major, |place| {
            let repository = place.join("repository");
            user::make_directory(&repository);
            stores::directory(&repository)
        })
        .tell();
    }
}

#[test]
fn what_root_prepares_in_a_directory_is_the_servers() {
    use std::os::unix::fs::MetadataExt;
    if !user::is_root() {
        return skipped("init by root", "only root can give files away");
    }
    let server = Postgres::builder(15).create();
    let place = temporary();
    user::make_directory(place.path());
    let repository = place.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    let mut variables = stores::directory(&repository);
    variables.push(("WALHALLA_CONFIG", "/dev/null".to_owned()));
    let data = server.data().display().to_string();
    let init = || {
        let arguments = ["init", "--data-directory", &data];
        binaries::run(&binaries::walhalla(), &arguments, &variables, place.path())
    };
    let refused = init();
    assert_eq!(refused.status, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("chown"), "{}", refused.stderr);
    user::give(&repository);
    assert_eq!(init().status, Some(0));
    let owner = repository.metadata().unwrap().uid();
    let mut folders = vec![repository];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().uid(), owner, "{}", entry.path().display());
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

#[test]
fn in_the_strict_false_s3_over_https() {
    let s3 = FakeS3::start_https();
    Story::new(15, |_| stores::fake(&s3, &s3.endpoint(), "some/prefix")).tell();
}

#[test]
fn in_a_store_that_ignores_conditions_and_checksums() {
    let s3 = FakeS3::with(Personality::without_conditions(), false);
    Story::new(15, |_| stores::fake(&s3, &s3.endpoint(), "prefix")).tell();
}

#[test]
fn in_every_real_engine() {
    for (_, start) in ENGINES {
        if let Some(engine) = start() {
            println!("{}", engine.endpoint());
            Story::new(15, |_| stores::engine(&engine, "story")).tell();
        }
    }
}
