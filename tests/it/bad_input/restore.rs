//! `walhalla restore`: what cannot be done is told before anything is written.

use super::*;
use crate::support::postgres::Postgres;
use crate::support::{skipped, user};
use std::time::Duration;

/// An encrypted repository with one backup and some WAL behind it.
struct World {
    server: Postgres,
    variables: Variables,
    backup: String,
}

/// A recipient and its identity; of this test alone.
fn age_identity() -> (String, String) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    (identity.to_public().to_string(), identity.to_string().expose_secret().to_owned())
}

impl World {
    fn new() -> Self {
        let (recipient, identity) = age_identity();
        let builder = Postgres::builder(15)
            .setting("archive_mode", "on")
            .setting("archive_command", format!("{} %p", binaries::walhalla_archive().display()));
        // The server needs to know where; that is known once its directory is.
        let server = builder.create();
        let mut variables = depot(server.directory());
        variables.push(("WALHALLA_RECIPIENTS", recipient));
        variables.push(("WALHALLA_IDENTITY", identity));
        let set: String = variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        let command = format!("{set}WALHALLA_CONFIG=/dev/null {} %p", binaries::walhalla_archive().display());
        server.configure(&[("archive_command".to_owned(), command)]);
        server.start().unwrap();
        server.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
        let output = walhalla(server.directory(), &variables, &["backup", "--json", "--dsn", &server.dsn()]);
        assert_eq!(output.status, Some(0), "{}", output.stderr);
        let manifest: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        server.psql("INSERT INTO t VALUES (0)").unwrap();
        let segment = server.switch_wal();
        server.wait_archived(&segment, Duration::from_secs(60));
        Self { backup: manifest["id"].as_str().unwrap().to_owned(), variables, server }
    }

    fn refused(&self, more: &[&str], status: u8, words: &[&str]) -> String {
        self.refused_with(&self.variables, more, status, words)
    }

    fn refused_with(&self, variables: &Variables, more: &[&str], status: u8, words: &[&str]) -> String {
        let to = self.server.directory().join("target");
        let arguments = [&["restore", "--to", to.to_str().unwrap()], more].concat();
        let line = refused(self.server.directory(), variables, &arguments, status, words);
        assert!(!to.exists(), "something was written");
        line
    }

    fn identity(&self, identity: Option<String>) -> Variables {
        let mut variables = self.variables.clone();
        variables.retain(|(name, _)| *name != "WALHALLA_IDENTITY");
        variables.extend(identity.map(|identity| ("WALHALLA_IDENTITY", identity)));
        variables
    }
}

#[test]
fn what_cannot_be_restored() {
    let world = World::new();
    let full = world.server.directory().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("keep"), "me").unwrap();
    user::give(&full);
    let name = full.display().to_string();
    refused(world.server.directory(), &world.variables, &["restore", "--to", &name], 78, &[&name, "not empty", "keep"]);
    assert_eq!(std::fs::read(full.join("keep")).unwrap(), b"me");

    world.refused(&["--backup", "20200101T000000Z-000000"], 78, &["no backup 20200101T000000Z-000000", &world.backup]);
    world.refused(&["--cluster", "7000000000000000000"], 66, &["7000000000000000000"]);
    let words = ["2020-01-01", "the earliest that can be restored to is", &world.backup];
    world.refused(&["--target-time", "2020-01-01 00:00:00+00"], 78, &words);
    world.refused(
        &["--target-time", "2099-01-01 00:00:00+00"],
        78,
        &["2099-01-01", "one can restore to any time from"],
    );
    world.refused(&["--target-lsn", "0/1"], 78, &["0/1", "the earliest that can be restored to is"]);
    world.refused(&["--target-lsn", "FF/0"], 78, &["FF/0", "the last record in the archive begins at"]);
    world.refused(&["--target-name", "never"], 78, &["never"]);
    world.refused(&["--target-xid", "4000000000"], 78, &["4000000000"]);
    world.refused(&["--target-timeline", "7"], 78, &["timeline 7", "00000007.history"]);

    // What was encrypted needs its identity.
    let nobody = world.identity(None);
    world.refused_with(&nobody, &[], 78, &["WALHALLA_IDENTITY"]);
    let (_, other) = age_identity();
    world.refused_with(&world.identity(Some(other)), &[], 78, &["identit"]);
    // Without it, too, one may see what is there.
    let listed = walhalla(world.server.directory(), &nobody, &["list"]);
    assert_eq!(listed.status, Some(0));
    assert!(listed.stdout.contains(&world.backup), "{}", listed.stdout);
}

/// A small file system that goes with the value; `None` where there cannot be one.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(place: &Path, options: &str) -> Option<Self> {
        user::make_directory(place);
        let (uid, gid) = user::unprivileged().map_or((0, 0), |user| (user.uid, user.gid));
        let options = format!("{options},mode=0700,uid={uid},gid={gid}");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &options, "walhalla-test"]).arg(place).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(place.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk() {
    let world = World::new();
    let mounts = [("few-bytes", "size=4m"), ("few-files", "size=256m,nr_inodes=200")];
    for (name, options) in mounts {
        let place = world.server.directory().join(name);
        let Some(small) = Small::mount(&place, options) else {
            skipped("a restore onto a full disk", "no file system can be mounted here");
            return;
        };
        let to = small.0.join("target").display().to_string();
        let output = walhalla(world.server.directory(), &world.variables, &["restore", "--to", &to]);
        let line = must_refuse(&output, 74, &[name]);
        assert!(line.contains("has") || line.contains("No space left"), "{line}");
        assert!(!small.0.join("target/global/pg_control").exists());
    }
}
