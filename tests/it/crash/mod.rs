//! The operator's program, ended at its crash points, and the power lost while it works.

mod backup;
mod init;
mod restore;

use crate::support::fake_s3::FakeS3;
use crate::support::stores::{self, Variables};
use crate::support::strace::Program;
use crate::support::{binaries, user};
use std::path::{Path, PathBuf};
use walhalla::codec;

/// A directory with a repository and a spool in it, or with the false S3 instead of the repository.
struct Place {
    home: tempfile::TempDir,
    s3: Option<FakeS3>,
}

impl Place {
    /// In a directory.
    fn in_directory() -> Self {
        Self::with(None)
    }

    fn in_s3() -> Self {
        Self::with(Some(FakeS3::start()))
    }

    fn with(s3: Option<FakeS3>) -> Self {
        // Where syncing costs nothing: what counts here is the order of calls.
        let fast = rustix::fs::statvfs("/dev/shm").is_ok_and(|free| free.f_bavail * free.f_frsize > 1 << 30);
        let place = if fast { Path::new("/dev/shm") } else { Path::new("/tmp") };
        let home = tempfile::Builder::new().prefix("walhalla-").tempdir_in(place).unwrap();
        for name in ["", "repository", "spool"] {
            user::make_directory(&home.path().join(name));
        }
        Self { home, s3 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn variables(&self) -> Variables {
        let mut variables = match &self.s3 {
            Some(s3) => stores::fake(s3, &s3.endpoint(), "cluster"),
            None => stores::directory(&self.path("repository")),
        };
        variables.push(("WALHALLA_SPOOL", self.path("spool").display().to_string()));
        variables.push(("WALHALLA_CONFIG", "/dev/null".to_owned()));
        variables
    }

    /// `walhalla` with these arguments, to be traced.
    fn program(&self, arguments: &[&str]) -> Program {
        Program {
            path: binaries::walhalla(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: self.variables().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            directory: self.home.path().to_owned(),
            as_server: true,
        }
    }

    /// Runs it.
    fn walhalla(&self, arguments: &[&str]) -> binaries::Output {
        binaries::run_as_server(&binaries::walhalla(), arguments, &self.variables(), self.home.path())
    }

    /// Runs it, and panics unless it succeeds. Answers its stdout.
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.walhalla(arguments);
        assert_eq!(output.status, Some(0), "walhalla {}: {}", arguments.join(" "), output.stderr);
        output.stdout
    }

    fn objects(&self) -> Vec<(String, Vec<u8>)> {
        match &self.s3 {
            Some(s3) => {
                s3.keys().into_iter().map(|key| (key.clone(), s3.object(&key).unwrap().body.to_vec())).collect()
            }
            None => stores::objects_in(&self.path("repository")),
        }
    }

    /// Every object is whole.
    fn nothing_is_torn(&self) {
        for (key, body) in self.objects() {
            if key.ends_with("/cluster.json") {
                serde_json::from_slice::<serde_json::Value>(&body).unwrap();
            } else if !key.contains("/probe/") {
                codec::verify(&body).unwrap_or_else(|defect| panic!("{key} ({} bytes): {defect}", body.len()));
            }
        }
    }

    /// The ids of the backups that are listed; none where there is no cluster yet.
    fn backups(&self) -> Vec<String> {
        if !self.objects().iter().any(|(key, _)| key.ends_with("/cluster.json")) {
            return Vec::new();
        }
        let listed: serde_json::Value = serde_json::from_str(&self.succeeds(&["list", "--json"])).unwrap();
        let backups = listed["backups"].as_array().unwrap();
        backups.iter().map(|backup| backup["id"].as_str().unwrap_or_else(|| panic!("{backup}")).to_owned()).collect()
    }

    /// Each backup that is listed can be restored, as far as a plan can tell: all its objects are there.
    fn backups_are_whole(&self) -> usize {
        let backups = self.backups();
        for id in &backups {
            let to = self.path("nowhere").display().to_string();
            let plan = ["restore", "--dry-run", "--to", &to, "--backup", id, "--target-immediate", "--as", "copy"];
            self.succeeds(&plan);
        }
        backups.len()
    }
}
