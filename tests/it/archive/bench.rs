//! A data directory without a server, in which the two programs are called as Postgres would call them.

use crate::support::fake_s3::{ACCESS_KEY, BUCKET, FakeS3, SECRET_KEY};
use crate::support::postgres::Postgres;
use crate::support::{self, binaries, user};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// One MiB, the segment size of the cluster on the bench.
pub(super) const SEGMENT: usize = 1 << 20;

/// What initdb made: enough to be a cluster for the two programs.
struct Template {
    control: Vec<u8>,
    version: Vec<u8>,
    segment: Vec<u8>,
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let cluster = Postgres::builder(15).create();
        let read = |name: &str| std::fs::read(cluster.data().join(name)).unwrap();
        let wal = std::fs::read_dir(cluster.data().join("pg_wal")).unwrap();
        let names = wal.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let segment = names.filter(|name| name.len() == 24).min().unwrap();
        Template {
            control: read("global/pg_control"),
            version: read("PG_VERSION"),
            segment: read(&format!("pg_wal/{segment}")),
        }
    })
}

/// The segment of this number on timeline 1, by its first page; its records are those of another.
pub(super) fn segment(number: u8) -> Vec<u8> {
    let mut bytes = template().segment.clone();
    bytes[8..16].copy_from_slice(&(u64::from(number) << 20).to_le_bytes());
    bytes
}

/// Its name.
pub(super) fn segment_name(number: u8) -> String {
    format!("0000000100000000000000{number:02X}")
}

/// What a program answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) stderr: String,
    pub(super) took: Duration,
}

impl Answer {
    /// Panics unless it is this status, said in at most one line that holds all of these texts.
    #[track_caller]
    pub(super) fn expect(&self, status: i32, texts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.stderr.lines().count() <= 1, "more than one line: {self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        }
    }

    /// Panics unless it succeeded without a word.
    #[track_caller]
    pub(super) fn expect_silent_success(&self) {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
    }
}

/// The data directory, and the environment of the programs.
pub(super) struct Bench {
    home: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

impl Bench {
    /// A cluster without a repository.
    pub(super) fn bare() -> Self {
        let home = support::temporary();
        let bench = Self { home, environment: BTreeMap::new() };
        for name in ["data/global", "data/pg_wal"] {
            std::fs::create_dir_all(bench.home.path().join(name)).unwrap();
        }
        bench.restore_template();
        let spool = bench.home.path().join("spool").display().to_string();
        bench.with("WALHALLA_SPOOL", spool)
    }

    /// Writes anew what initdb had made.
    pub(super) fn restore_template(&self) {
        let Template { control, version, .. } = template();
        self.write("global/pg_control", control);
        self.write("PG_VERSION", version);
    }

    /// A cluster with a repository in this store.
    pub(super) fn on(s3: &FakeS3) -> Self {
        Self::bare().at(&s3.endpoint())
    }

    /// A cluster whose segments 1 to 3 are in a repository in this store, and not in its `pg_wal`.
    pub(super) fn stocked() -> (FakeS3, Self) {
        static STOCK: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
        let stock = STOCK.get_or_init(|| {
            let s3 = FakeS3::start();
            let bench = Self::on(&s3);
            for number in 1..=3 {
                bench.archive(&[&bench.wal(number)]).expect_silent_success();
            }
            s3.keys().into_iter().map(|key| (key.clone(), s3.object(&key).unwrap().body.to_vec())).collect()
        });
        let s3 = FakeS3::start();
        for (key, body) in stock {
            s3.insert(key, body.clone());
        }
        let bench = Self::on(&s3);
        (s3, bench)
    }

    /// A cluster with a repository in a local directory.
    pub(super) fn on_directory() -> Self {
        let bench = Self::bare();
        let repository = bench.repository();
        std::fs::create_dir(&repository).unwrap();
        bench.with("WALHALLA_STORAGE", format!("file://{}", repository.display()))
    }

    /// With its repository behind this endpoint.
    pub(super) fn at(self, endpoint: &str) -> Self {
        self.with("WALHALLA_STORAGE", format!("s3://{BUCKET}/cluster"))
            .with("WALHALLA_S3_ENDPOINT", endpoint)
            .with("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .with("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    }

    /// With this variable.
    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Without this variable.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Where a repository in a local directory is.
    pub(super) fn repository(&self) -> PathBuf {
        self.home.path().join("repository")
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What the programs are told.
    pub(super) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The cluster's system identifier.
    pub(super) fn system(&self) -> u64 {
        u64::from_le_bytes(template().control[..8].try_into().unwrap())
    }

    /// The key of a WAL file in the false S3.
    pub(super) fn key(&self, name: &str) -> String {
        format!("cluster/{}/wal/{}/{name}", self.system(), &name[..8])
    }

    /// Writes a file into the data directory.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.data().join(name), content).unwrap();
    }

    /// Puts the segment of this number into `pg_wal` and answers `%p`.
    pub(super) fn wal(&self, number: u8) -> String {
        let path = format!("pg_wal/{}", segment_name(number));
        self.write(&path, segment(number));
        path
    }

    /// What is in `pg_wal`, sorted.
    pub(super) fn pg_wal(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.data().join("pg_wal")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `walhalla-archive` with these arguments.
    pub(super) fn archive(&self, arguments: &[&str]) -> Answer {
        finish(self.start("walhalla-archive", arguments), Instant::now())
    }

    /// `walhalla-restore` with these arguments.
    pub(super) fn restore(&self, arguments: &[&str]) -> Answer {
        finish(self.start("walhalla-restore", arguments), Instant::now())
    }

    /// `walhalla-restore` for this name, as the server asks.
    pub(super) fn fetch(&self, name: &str) -> Answer {
        self.restore(&[name, asked_as(name)])
    }

    /// The same through a wrapper that makes `%p` absolute.
    pub(super) fn fetch_absolute(&self, name: &str) -> Answer {
        self.restore(&[name, &self.data().join(asked_as(name)).display().to_string()])
    }

    /// A shell in the data directory, whose commands are the children of one process, as those of a startup process are. The
    /// programs are in its `PATH`, and this process is its postmaster.
    pub(super) fn shell(&self, script: &str) -> Answer {
        let postmaster = std::process::id();
        self.write("postmaster.pid", format!("{postmaster}\n/data\n1700000000\n5432\n/tmp\n*\n  1 2\nstandby \n"));
        let script = format!("PATH={}:$PATH\n{script}", binaries::directory().display());
        finish(self.start("/bin/sh", &["-c", &script]), Instant::now())
    }

    /// A program that can open no file.
    pub(super) fn with_few_files(&self, program: &str, arguments: &[&str]) -> Answer {
        let program = binaries::directory().join(program).display().to_string();
        let script = ["-c", "ulimit -n 3; exec \"$@\"", "sh", &program];
        finish(self.start("/bin/sh", &[&script, arguments].concat()), Instant::now())
    }

    /// Replaces a file by one that nobody can open without waiting for ever.
    pub(super) fn hang(&self, name: &str) {
        let path = self.data().join(name);
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    }

    /// Lets the time pass after which a standby's absent files are looked at again.
    pub(super) fn pass_five_minutes(&self) {
        for entry in std::fs::read_dir(self.home.path().join("spool")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("restore-absent-") {
                let text = std::fs::read_to_string(&path).unwrap();
                let (name, next) = text.split_once(' ').unwrap();
                let next = next.parse::<u64>().unwrap() - 300;
                std::fs::write(&path, format!("{name} {next}")).unwrap();
            }
        }
    }

    /// Starts a program in the data directory.
    pub(super) fn start(&self, program: &str, arguments: &[&str]) -> Child {
        // `env` changes the directory: where the standard library would have to, it forks this process, which is large, for each of
        // thousands of calls.
        let mut command = Command::new("/usr/bin/env");
        user::clean_environment(&mut command);
        command.arg("-C").arg(self.data()).arg(binaries::directory().join(program));
        command.args(arguments).envs(&self.environment);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// `%p` of a server that asks for this file.
fn asked_as(name: &str) -> &'static str {
    if name.ends_with(".history") { "pg_wal/RECOVERYHISTORY" } else { "pg_wal/RECOVERYXLOG" }
}

/// Waits for a program that was started then.
pub(super) fn finish(child: Child, begun: Instant) -> Answer {
    let output = child.wait_with_output().unwrap();
    let took = begun.elapsed();
    let status = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"));
    Answer { status, stderr: String::from_utf8(output.stderr).unwrap(), took }
}
