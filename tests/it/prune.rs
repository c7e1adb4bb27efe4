//! `walhalla prune` through the real program: what it deletes, nobody misses.

use crate::support::fake_s3::{Answer, FakeS3, Fault, Right};
use crate::support::postgres::Postgres;
use crate::support::stores::{self, Variables};
use crate::support::{binaries, temporary, user};
use std::path::PathBuf;
use std::time::Duration;

/// A server that archives, and three backups of it, each a table further.
struct Site {
    place: tempfile::TempDir,
    variables: Variables,
    server: Postgres,
}

impl Site {
    fn new(variables: Variables) -> Self {
        let place = temporary();
        user::make_directory(place.path());
        let mut site = Self { server: Postgres::builder(15).create(), place, variables };
        site.variables.push(("WALHALLA_SPOOL", site.path("spool").display().to_string()));
        let builder = Postgres::builder(15).archive_command(&format!("{} %p", binaries::walhalla_archive().display()));
        let builder = site.variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        site.server = builder.start();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs it with this table [keep].
    fn run(&self, keep: &str, arguments: &[&str]) -> binaries::Output {
        let config = self.path("walhalla.toml");
        std::fs::write(&config, format!("[keep]\n{keep}\n")).unwrap();
        user::give(&config);
        let config = config.display().to_string();
        let arguments = [&["--config", &config], arguments].concat();
        binaries::run_as_server(&binaries::walhalla(), &arguments, &self.variables, self.place.path())
    }

    fn walhalla(&self, keep: &str, arguments: &[&str]) -> String {
        let output = self.run(keep, arguments);
        assert_eq!(output.status, Some(0), "walhalla {}: {}", arguments.join(" "), output.stderr);
        output.stdout
    }

    fn back_up(&self, number: usize) {
        self.server.psql(&format!("CREATE TABLE t{number} AS SELECT n FROM generate_series(1, 100) n")).unwrap();
        self.walhalla("", &["backup", "--dsn", &self.server.dsn(), "--label", &format!("number {number}")]);
        let segment = self.server.switch_wal();
        self.server.wait_archived(&segment, Duration::from_secs(60));
    }

    fn json(&self, keep: &str, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.walhalla(keep, arguments)).unwrap()
    }
}

const LITTLE: &str = "last = 1\ndaily = 0\nweekly = 0\nwindow = \"0s\"";

fn denied() -> Fault {
    Fault::new(Answer::error(403, "AccessDenied")).times(1000)
}

fn stays(backup: &serde_json::Value) -> bool {
    !backup["stays"].as_array().unwrap().is_empty()
}

#[test]
fn what_goes_nobody_misses() {
    let s3 = FakeS3::start();
    let site = Site::new(stores::fake(&s3, &s3.endpoint(), "p"));
    for number in 1..=3 {
        site.back_up(number);
    }
    let keys = s3.keys();
    // By default the first stays, from which every moment can be restored, and the day's last; a plan deletes nothing.
    let plan = site.json("", &["prune", "--json"]);
    assert_eq!(plan["backups"].as_array().unwrap().iter().map(stays).collect::<Vec<_>>(), [true, false, true]);
    let plan = site.json(LITTLE, &["prune", "--json"]);
    assert_eq!((plan["deleted"].as_bool(), s3.keys()), (Some(false), keys.clone()));
    // Which of the first two, depends on where the store's clock, which knows whole seconds, lets the window begin.
    let backups = plan["backups"].as_array().unwrap();
    assert!(!backups[..2].iter().all(stays) && stays(&backups[2]), "{plan}");
    // What cannot be listed ends it before anything is deleted.
    let wal = keys.iter().find_map(|key| Some(key.split_once("/wal/00000001/")?.0)).unwrap();
    s3.personality(|personality| personality.denied = vec![(Right::List, format!("{wal}/wal/00000001/"))]);
    let refused = site.run(LITTLE, &["prune", "--confirm"]);
    assert_ne!(refused.status, Some(0));
    assert_eq!(s3.keys(), keys, "{}", refused.stderr);
    s3.personality(|personality| personality.denied.clear());
    // Interrupted at a delete, and begun anew.
    s3.fault(denied().method("DELETE").on("/data/"));
    let refused = site.run(LITTLE, &["prune", "--confirm"]);
    assert!(refused.stderr.contains("may delete"), "{}", refused.stderr);
    s3.heal();
    let listed = site.json("", &["list", "--json"]);
    let listed = listed["backups"].as_array().unwrap();
    assert!(listed.len() < 3, "a backup loses its manifest first");
    let permanent = format!("{LITTLE}\npermanent = [\"number 1\"]");
    site.walhalla(&permanent, &["prune", "--confirm"]);
    let reach = &site.json("", &["list", "--json"])["backups"][0]["reach"];
    assert!(reach["segments"].as_u64() >= Some(1) && reach["hole"].is_null(), "{reach}");
    site.server.psql("INSERT INTO t3 VALUES (0)").unwrap();
    let segment = site.server.switch_wal();
    site.server.wait_archived(&segment, Duration::from_secs(60));
    let to = site.path("restored");
    site.walhalla("", &["restore", "--to", to.to_str().unwrap(), "--as", "copy"]);
    let restore = format!("{} %f %p", binaries::walhalla_restore().display());
    let builder = Postgres::builder(15).restore_command(&restore);
    let builder = site.variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
    let copy = builder.adopt(&to);
    copy.start().unwrap();
    copy.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
    assert_eq!(copy.psql("SELECT count(*) FROM t3").unwrap(), "101");
}
