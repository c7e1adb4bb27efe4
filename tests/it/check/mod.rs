//! `walhalla check` against real servers and false stores: what it says of each thing that can be wrong, and its exit status.

mod archive_command;
mod backups;
mod rights;
mod server;
mod storage;
mod well;

use crate::support::binaries::{self, Output};
use crate::support::fake_s3::{self, FakeS3};
use crate::support::postgres::{Builder, Postgres};
use crate::support::stores::{self, Variables};
use crate::support::{temporary, user};
use std::path::PathBuf;
use std::time::Duration;

/// What a loaded machine may need for anything.
const LONG: Duration = Duration::from_secs(90);

/// Where the repository lies in the bucket.
const PREFIX: &str = "cluster";

/// A false S3, and a place for the spool.
struct Site {
    s3: FakeS3,
    home: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let home = temporary();
        user::make_directory(home.path());
        Self { s3: FakeS3::start(), home }
    }

    fn variables(&self) -> Variables {
        let mut variables = stores::fake(&self.s3, &self.s3.endpoint(), PREFIX);
        variables.push(("WALHALLA_SPOOL", self.home.path().join("spool").display().to_string()));
        variables.push(("WALHALLA_CONFIG", "/dev/null".to_owned()));
        variables
    }

    /// A server that archives into it and of which a check has nothing to say.
    fn builder(&self, major: u32) -> Builder {
        let mut builder = Postgres::builder(major)
            .archive_command(&format!("{} %p", binaries::walhalla_archive().display()))
            .restore_command(&format!("{} %f %p", binaries::walhalla_restore().display()))
            .setting("archive_timeout", 300)
            .setting("autovacuum", "off")
            .setting("fsync", "on");
        for (name, value) in self.variables() {
            builder = builder.env(name, value);
        }
        builder
    }

    fn server(&self, major: u32) -> Postgres {
        self.builder(major).start()
    }

    /// Runs the operator's program, as the server's user.
    fn walhalla(&self, arguments: &[&str]) -> Output {
        self.walhalla_with(&self.variables(), arguments)
    }

    fn walhalla_with(&self, variables: &Variables, arguments: &[&str]) -> Output {
        let output = binaries::run_as_server(&binaries::walhalla(), arguments, variables, self.home.path());
        for stream in [&output.stdout, &output.stderr] {
            assert!(!stream.contains(fake_s3::SECRET_KEY), "a secret is told: {stream}");
            assert!(!stream.contains("panicked"), "{stream}");
        }
        output
    }

    /// Checks this server.
    fn check(&self, server: &Postgres, more: &[&str]) -> Checked {
        self.check_at(&server.dsn(), more)
    }

    fn check_at(&self, dsn: &str, more: &[&str]) -> Checked {
        Checked::of(self.walhalla(&[&["check", "--json", "--dsn", dsn], more].concat()))
    }

    /// Takes a backup.
    fn backup(&self, server: &Postgres) {
        let output = self.walhalla(&["backup", "--dsn", &server.dsn()]);
        assert_eq!(output.status, Some(0), "{}", output.stderr);
    }

    /// A server that archives and has a backup.
    fn ready(&self, major: u32) -> Postgres {
        let server = self.server(major);
        self.backup(&server);
        server
    }

    /// The key of this WAL file.
    fn key(&self, name: &str) -> String {
        let keys = self.s3.keys();
        let key = keys.iter().find(|key| key.ends_with(&format!("/{name}")));
        key.unwrap_or_else(|| panic!("{name} is not in {keys:?}")).clone()
    }
}

/// What a check said.
struct Checked {
    json: serde_json::Value,
    status: i32,
}

/// A finding, as a test reads it.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    severity: String,
    text: String,
    advice: String,
}

impl Checked {
    fn of(output: Output) -> Self {
        let json: serde_json::Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
        let checked = Self { json, status: output.status.unwrap() };
        assert_eq!(checked.json["exit_status"], checked.status);
        checked
    }

    fn subjects(&self) -> Vec<String> {
        let findings = self.json["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["subject"].as_str().unwrap().to_owned()).collect()
    }

    fn all(&self) -> Vec<(String, Said)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let said = |finding: &serde_json::Value| Said {
            severity: text(&finding["severity"]),
            text: text(&finding["text"]),
            advice: text(&finding["advice"]),
        };
        let findings = self.json["findings"].as_array().unwrap().iter();
        findings.map(|finding| (text(&finding["subject"]), said(finding))).collect()
    }

    fn said(&self, subject: &str) -> Said {
        let found = self.all().into_iter().find(|(name, _)| name == subject);
        found.unwrap_or_else(|| panic!("nothing of {subject} in {:#}", self.json)).1
    }

    /// Asserts that this was said of it, with a word on what to do where it is not right.
    fn expect(&self, subject: &str, severity: &str, words: &[&str]) -> &Self {
        let said = self.said(subject);
        assert_eq!(said.severity, severity, "{subject}: {said:?}\n{:#}", self.json);
        for word in words {
            assert!(format!("{} → {}", said.text, said.advice).contains(word), "{word:?} is not in {said:?}");
        }
        if matches!(severity, "warning" | "critical") {
            assert!(!said.advice.is_empty(), "nothing to do: {said:?}");
        }
        self
    }

    fn expect_status(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{:#}", self.json);
        self
    }

    /// Everything that is neither right nor left out.
    fn complaints(&self) -> Vec<String> {
        let all = self.all().into_iter();
        all.filter(|(_, said)| !matches!(said.severity.as_str(), "ok" | "skipped")).map(|(name, _)| name).collect()
    }

    fn measure(&self, name: &str) -> f64 {
        let measures = self.json["measures"].as_array().unwrap();
        let found = measures.iter().find(|measure| measure["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {measures:?}"))["value"].as_f64().unwrap()
    }
}

/// A copy of the archiver's program elsewhere.
fn copy_of_archiver(server: &Postgres, mode: u32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let folder = server.directory().join("programs");
    user::make_directory(&folder);
    let copy = folder.join("walhalla-archive");
    std::fs::copy(binaries::walhalla_archive(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
    user::give(&copy);
    copy
}
