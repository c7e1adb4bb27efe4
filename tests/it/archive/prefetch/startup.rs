//! A startup process without its server: a shell whose children are the calls, with this process for its postmaster.

use crate::archive::bench::{Bench, SEGMENT};
use crate::support::fake_s3::FakeS3;
use crate::support::{binaries, user, wait_until};
use rustix::process::Pid;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use walhalla::codec::{self, Encoding, Kind, Recipients, Subject};

pub(super) const SOON: Duration = Duration::from_secs(30);

/// Both ways of fetching ahead.
pub(super) const WAYS: [&str; 2] = ["call", "helper"];

/// It lives until it is dropped; then its recovery is over.
pub(super) struct Startup<'a> {
    bench: &'a Bench,
    shell: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl<'a> Startup<'a> {
    /// For a cluster in a recovery, with this `WALHALLA_PREFETCH`.
    pub(super) fn of(bench: &'a Bench, way: &str) -> Self {
        Self::with(bench, way, "")
    }

    /// The same behind a line of shell.
    pub(super) fn with(bench: &'a Bench, way: &str, before: &str) -> Self {
        bench.write("postmaster.pid", postmaster(std::process::id(), "standby"));
        let mut command = Command::new("/bin/sh");
        user::clean_environment(&mut command);
        command.current_dir(bench.data()).envs(bench.environment()).env("WALHALLA_PREFETCH", way);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let commands = shell.stdin.take().unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let mut startup = Self { bench, shell, commands, answers };
        startup.say(&format!("PATH={}:$PATH; {before}", binaries::directory().display()));
        startup
    }

    fn say(&mut self, line: &str) {
        writeln!(self.commands, "{line}").unwrap();
    }

    /// The exit status of one call for this name.
    pub(super) fn call(&mut self, name: &str) -> i32 {
        self.call_with("", name)
    }

    /// The same with these variables set.
    pub(super) fn call_with(&mut self, variables: &str, name: &str) -> i32 {
        let to = if name.ends_with(".history") { "RECOVERYHISTORY" } else { "RECOVERYXLOG" };
        let _gone = std::fs::remove_file(self.bench.data().join("pg_wal").join(to));
        self.say(&format!("{variables} walhalla-restore {name} pg_wal/{to} </dev/null 2>>stderr; echo $?"));
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap_or_else(|_| panic!("{name}: {answer:?}"))
    }

    /// Calls, and holds what was delivered against what it must be.
    pub(super) fn expect(&mut self, name: &str, content: &[u8]) {
        assert_eq!(self.call(name), 0, "{name}: {}", self.said());
        assert!(self.delivered() == content, "{name} is another file");
    }

    pub(super) fn delivered(&self) -> Vec<u8> {
        std::fs::read(self.bench.data().join("pg_wal/RECOVERYXLOG")).unwrap()
    }

    /// What the calls have said.
    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(self.bench.data().join("stderr")).unwrap_or_default()
    }

    /// The only helper.
    pub(super) fn helper(&self) -> Pid {
        let mut found = Vec::new();
        wait_until("there is a helper", SOON, || {
            found = helpers(self.bench);
            !found.is_empty()
        });
        assert_eq!(found.len(), 1);
        found[0]
    }

    /// Waits until this segment lies in the spool.
    pub(super) fn wait_ahead(&self, name: &str) {
        wait_until(&format!("{name} is ahead"), SOON, || ahead(self.bench).iter().any(|(found, _)| found == name));
    }
}

impl Drop for Startup<'_> {
    fn drop(&mut self) {
        self.shell.kill().ok();
        self.shell.wait().ok();
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while !std::thread::panicking() && !helpers(self.bench).is_empty() {
            assert!(std::time::Instant::now() < limit, "a helper outlives its recovery");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// `postmaster.pid` of a server with this process id.
pub(super) fn postmaster(pid: u32, status: &str) -> String {
    format!("{pid}\n/data\n1700000000\n5432\n/tmp\n*\n  1 2\n{status} \n")
}

/// The helpers that work for this data directory.
pub(super) fn helpers(bench: &Bench) -> Vec<Pid> {
    helpers_of(&bench.data())
}

pub(super) fn helpers_of(data: &std::path::Path) -> Vec<Pid> {
    let data = data.canonicalize().unwrap().display().to_string();
    let is_one = |pid: &i32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.contains("--prefetch-for") && words.split('\0').any(|word| word == data)
    };
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_one).filter_map(Pid::from_raw).collect()
}

/// The folders of recoveries in the spool.
pub(super) fn folders(bench: &Bench) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(&bench.environment()["WALHALLA_SPOOL"]) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("prefetch-")).collect()
}

/// What lies ahead in the spool under final names, and where.
pub(super) fn ahead(bench: &Bench) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for folder in folders(bench) {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut parts = name.split('.');
            let segment = parts.next().unwrap().to_owned();
            if segment.len() == 24 && parts.count() == 1 {
                found.push((segment, path));
            }
        }
    }
    found.sort();
    found
}

/// A name on a timeline, with segments of 1 MiB.
pub(super) fn named(timeline: u32, number: u64) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

/// What the archive has under a name: nothing that two segments have in common.
pub(super) fn content(timeline: u32, number: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(timeline) << 32 | number);
    let block: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
    block.iter().copied().cycle().take(length).collect()
}

/// The object of it, for a cluster with segments of `size` bytes.
pub(super) fn object(bench: &Bench, timeline: u32, number: u64, size: usize) -> Vec<u8> {
    let system_identifier = walhalla::pg::SystemIdentifier(bench.system());
    let start = walhalla::pg::Lsn(number * size as u64);
    let subject = Subject { kind: Kind::Wal, system_identifier, timeline, start };
    let encoding = Encoding { level: 1, recipients: Recipients::default() };
    codec::encode_bytes(&content(timeline, number, size), subject, &encoding).unwrap().bytes.to_vec()
}

/// Puts segments of 1 MiB into the archive.
pub(super) fn stock(s3: &FakeS3, bench: &Bench, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        s3.insert(&bench.key(&named(timeline, number)), object(bench, timeline, number, SEGMENT));
    }
}

/// A cluster in a recovery, with the segments 1 to `last` in its archive.
pub(super) fn stocked(last: u64) -> (FakeS3, Bench) {
    let s3 = FakeS3::start();
    let bench = Bench::on(&s3).with("WALHALLA_RESTORE_TIMEOUT", "30s");
    bench.write("recovery.signal", "");
    let identity = format!(
        "{{\"format\":1,\"system_identifier\":\"{}\",\"postgres_major\":15,\"wal_segment_size\":{SEGMENT}}}\n",
        bench.system()
    );
    s3.insert(&format!("cluster/{}/cluster.json", bench.system()), identity);
    stock(&s3, &bench, 1, 1..=last);
    (s3, bench)
}

/// How often each segment was asked of the store.
pub(super) fn times_asked(s3: &FakeS3, name: &str) -> usize {
    s3.requests_of("GET").iter().filter(|request| request.key.ends_with(&format!("/{name}"))).count()
}

/// Sends a signal to a process that is not ours.
pub(super) fn kill(pid: Pid, signal: rustix::process::Signal) {
    rustix::process::kill_process(pid, signal).ok();
}

/// Waits until a process is gone; panics where it is not within `limit`.
pub(super) fn wait_gone(pid: Pid, limit: Duration) {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    wait_until("the process is gone", limit, || {
        std::fs::read_to_string(&path).map_or(true, |stat| stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
    });
}
