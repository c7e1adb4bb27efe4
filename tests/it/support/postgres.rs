//! A throwaway Postgres: a real server of a real major, in a directory of its own, gone when the value is dropped.
//!
//! ```ignore
//! let server = Postgres::builder(15).archive_command("walhalla-archive %p").env("WALHALLA_STORAGE", url).start();
//! server.psql("CREATE TABLE t (a int)").unwrap();
//! ```

use super::processes::{self, Guardian};
use super::{checkout, free_port, skipped, tools, user, wait_until};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// The majors to test: `WALHALLA_TEST_MAJORS` (as in `13,18`), else 15. One that was asked for and is not there is skipped with a word.
pub(crate) fn postgres_majors() -> Vec<u32> {
    let asked = std::env::var("WALHALLA_TEST_MAJORS").unwrap_or_default();
    let mut majors: Vec<u32> = asked
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().unwrap_or_else(|_| panic!("WALHALLA_TEST_MAJORS: {word:?} is no major")))
        .collect();
    if majors.is_empty() {
        majors.push(15);
    }
    majors.retain(|major| {
        let there = server_programs(*major).is_some();
        if !there {
            skipped(&format!("Postgres {major}"), &format!("not here; scripts/postgres {major} brings it"));
        }
        there
    });
    majors
}

/// The directory of the server programs of a major.
pub(crate) fn server_programs(major: u32) -> Option<PathBuf> {
    [PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), tools().join(format!("postgres/{major}/bin"))]
        .into_iter()
        .find(|dir| dir.join("postgres").exists() && dir.join("initdb").exists())
}

/// A client program (psql, pg_basebackup, pg_verifybackup, …) fit for a server of this major: its own, else the nearest newer one.
pub(crate) fn client_program(major: u32, name: &str) -> PathBuf {
    (major..=18)
        .filter_map(server_programs)
        .map(|dir| dir.join(name))
        .find(|program| program.exists())
        .unwrap_or_else(|| panic!("there is no {name} for Postgres {major} in {}", checkout().display()))
}

/// How a server is asked to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    Smart,
    Fast,
    Immediate,
}

/// What a server shall be like.
#[derive(Debug)]
pub(crate) struct Builder {
    major: u32,
    segment_mb: u32,
    checksums: Option<bool>,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    signal_files: Vec<String>,
}

impl Builder {
    /// The size of its WAL segments in MB; 1 unless said, which keeps tests fast.
    pub(crate) fn segment_mb(mut self, size: u32) -> Self {
        self.segment_mb = size;
        self
    }

    /// With or without checksums of pages; what the major does by itself unless said.
    pub(crate) fn checksums(mut self, on: bool) -> Self {
        self.checksums = Some(on);
        self
    }

    /// A line of postgresql.conf. A later one beats an earlier one.
    pub(crate) fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// `archive_mode = on` with this command.
    pub(crate) fn archive_command(self, command: &str) -> Self {
        self.setting("archive_mode", "on").setting("archive_command", command)
    }

    /// `restore_command`.
    pub(crate) fn restore_command(self, command: &str) -> Self {
        self.setting("restore_command", command)
    }

    /// A variable in the server's environment, and so in that of the commands it calls.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_str().unwrap().to_owned()));
        self
    }

    /// `recovery.signal` or `standby.signal`.
    pub(crate) fn signal_file(mut self, name: &str) -> Self {
        self.signal_files.push(name.to_owned());
        self
    }

    /// Makes the cluster with initdb, and does not start it.
    pub(crate) fn create(self) -> Postgres {
        let home = Home::new();
        let data = home.path().join("data");
        let mut initdb = user::command(&programs(self.major).join("initdb"));
        initdb.current_dir(home.path()).arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]);
        initdb.args(["--encoding=UTF8", "--locale=C"]).arg(format!("--wal-segsize={}", self.segment_mb));
        match self.checksums {
            Some(true) => drop(initdb.arg("--data-checksums")),
            Some(false) if self.major >= 18 => drop(initdb.arg("--no-data-checksums")),
            _ => {}
        }
        run(&mut initdb).unwrap_or_else(|error| panic!("initdb of {}: {error}", self.major));
        self.over(home, data)
    }

    /// Makes the cluster and starts it.
    pub(crate) fn start(self) -> Postgres {
        let server = self.create();
        server.start().unwrap();
        server
    }

    /// Takes a copy of a running server with `pg_basebackup`, and does not start it. `-X none`, so that the WAL must come from the archive,
    /// unless `wal` is set.
    pub(crate) fn clone_of(self, origin: &Postgres, wal: bool) -> Postgres {
        let home = Home::new();
        let data = home.path().join("data");
        let mut copy = user::command(&client_program(self.major, "pg_basebackup"));
        copy.current_dir(home.path())
            .arg("-D")
            .arg(&data)
            .args(["-c", "fast", "-N", "-h"])
            .arg(origin.socket_directory());
        copy.args(["-p", &origin.port().to_string(), "-U", "postgres", "-X", if wal { "stream" } else { "none" }]);
        run(&mut copy).unwrap_or_else(|error| panic!("pg_basebackup: {error}"));
        self.over(home, data)
    }

    /// Takes a data directory that somebody else made, for instance a restored one. Stays where it is, is given to the server's user,
    /// and is not removed at the end. Settings given here are appended to its postgresql.conf.
    pub(crate) fn adopt(self, data: &Path) -> Postgres {
        user::give(data);
        self.over(Home::new(), data.to_owned())
    }

    fn over(self, home: Home, data: PathBuf) -> Postgres {
        for name in ["socket", "home"] {
            user::make_directory(&home.path().join(name));
        }
        let server = Postgres {
            major: self.major,
            data,
            home,
            environment: self.environment,
            syncs: self.settings.iter().any(|(name, _)| name == "fsync"),
            state: Mutex::new(State { port: free_port(), running: None }),
        };
        for name in &self.signal_files {
            server.write(name, "");
        }
        server.configure(&self.settings);
        server
    }
}

/// A directory of the server's user.
#[derive(Debug)]
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = super::temporary();
        user::make_directory(home.path());
        Home(home)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A Postgres cluster, running or not.
#[derive(Debug)]
pub(crate) struct Postgres {
    major: u32,
    data: PathBuf,
    environment: Vec<(String, String)>,
    /// Its own word on fsync counts; else it is off, for speed.
    syncs: bool,
    state: Mutex<State>,
    // Dropped last, when nothing runs in it any more.
    home: Home,
}

#[derive(Debug)]
struct State {
    port: u16,
    running: Option<(Child, Guardian)>,
}

impl Postgres {
    /// A server of this major.
    pub(crate) fn builder(major: u32) -> Builder {
        Builder {
            major,
            segment_mb: 1,
            checksums: None,
            settings: Vec::new(),
            environment: Vec::new(),
            signal_files: Vec::new(),
        }
    }

    /// Its major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// A directory of its user beside the data directory, removed at the end: room for archives, spools, copies.
    pub(crate) fn directory(&self) -> &Path {
        self.home.path()
    }

    /// Its TCP port on 127.0.0.1 and the number in its socket's name.
    pub(crate) fn port(&self) -> u16 {
        self.state.lock().unwrap().port
    }

    /// The directory of its Unix socket.
    pub(crate) fn socket_directory(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// A connection string for libpq, over TCP.
    pub(crate) fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port())
    }

    /// Everything the server and its commands have said.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.home.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes a file of the data directory, as the server's user.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.data.join(name);
        std::fs::write(&path, content).unwrap();
        user::give(&path);
    }

    /// Appends settings to postgresql.conf; they count at the next start or reload.
    pub(crate) fn configure(&self, settings: &[(String, String)]) {
        let path = self.data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        for (name, value) in settings {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        user::give(&path);
    }

    /// Appends one setting and has it reloaded.
    pub(crate) fn reconfigure(&self, name: &str, value: &str) {
        self.configure(&[(name.to_owned(), value.to_owned())]);
        self.psql("SELECT pg_reload_conf()").unwrap();
    }

    /// Starts it and waits until it takes connections (as a primary or as a hot standby).
    pub(crate) fn start(&self) -> Result<(), String> {
        for attempt in 1.. {
            self.launch();
            let result = self.wait_ready(Duration::from_secs(60));
            let stolen = result.as_ref().is_err_and(|error| error.contains("could not create any TCP/IP sockets"));
            if attempt >= 5 || !stolen {
                return result;
            }
            // Somebody else took the port since it was chosen.
            self.state.lock().unwrap().port = free_port();
        }
        unreachable!()
    }

    /// Starts it and does not wait.
    pub(crate) fn launch(&self) {
        let mut state = self.state.lock().unwrap();
        assert!(!state.is_running(), "this server is running already");
        let mut command = self.server_command(state.port);
        let child = command.spawn().unwrap();
        let guardian = Guardian::over(&child, "QUIT");
        state.running = Some((child, guardian));
    }

    /// Starts it below other programs, as their last words, and leaves it to the caller: it is not ended with this value.
    pub(crate) fn launch_with(&self, wrapper: &[&str]) -> Child {
        let inner = self.server_command(self.port());
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = self.open_log();
        command.current_dir(self.home.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    fn open_log(&self) -> std::fs::File {
        std::fs::OpenOptions::new().append(true).create(true).open(self.home.path().join("log")).unwrap()
    }

    fn server_command(&self, port: u16) -> Command {
        let log = self.open_log();
        let mut command = user::command(&programs(self.major).join("postgres"));
        // Only what belongs to the place stands here: what is given here beats every file.
        command.current_dir(self.home.path()).arg("-D").arg(&self.data).args(["-c", "listen_addresses=127.0.0.1"]);
        command.arg("-c").arg(format!("port={port}"));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.socket_directory().display()));
        for small in ["fsync=off", "shared_buffers=16MB", "max_connections=30", "log_line_prefix=%m [%p] "] {
            if !(self.syncs && small.starts_with("fsync")) {
                command.args(["-c", small]);
            }
        }
        command
            .env("HOME", self.home.path().join("home"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Waits until it takes connections. An error where it ends before, or does not within `limit`, with the end of its log.
    pub(crate) fn wait_ready(&self, limit: Duration) -> Result<(), String> {
        let end = std::time::Instant::now() + limit;
        loop {
            if !self.is_running() {
                return Err(format!("the server ended:\n{}", self.log_end()));
            }
            if matches!(self.status().as_str(), "ready" | "standby") {
                return Ok(());
            }
            if std::time::Instant::now() > end {
                return Err(format!("the server takes no connections after {limit:?}:\n{}", self.log_end()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Line 8 of postmaster.pid: `starting`, `stopping`, `ready` or `standby`; empty where there is none, or it is another's.
    pub(crate) fn status(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let state = self.state.lock().unwrap();
        let ours = state.running.as_ref().map(|(child, _)| child.id().to_string());
        if lines.first().map(|line| line.trim().to_owned()) != ours {
            return String::new();
        }
        lines.get(7).map(|line| line.trim().to_owned()).unwrap_or_default()
    }

    /// Whether the server process is there.
    pub(crate) fn is_running(&self) -> bool {
        self.state.lock().unwrap().is_running()
    }

    /// Waits until the server has ended by itself, and answers how; `None` where it does not within `limit`.
    pub(crate) fn wait_exit(&self, limit: Duration) -> Option<ExitStatus> {
        let mut state = self.state.lock().unwrap();
        let (child, _) = state.running.as_mut().expect("this server was not started");
        let status = processes::wait_for(child, limit)?;
        state.running = None;
        Some(status)
    }

    /// Asks it to end and waits up to a minute for that. An error where it does not.
    pub(crate) fn stop(&self, how: Stop) -> Result<ExitStatus, String> {
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        self.signal(signal);
        self.wait_exit(Duration::from_secs(60)).ok_or_else(|| format!("{how:?} stop: no end\n{}", self.log_end()))
    }

    /// Sends a signal to the server process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some((child, _)) = &self.state.lock().unwrap().running {
            processes::signal(child, signal);
        }
    }

    /// Power loss: every process of the server, and every command it called, is gone at once.
    pub(crate) fn kill(&self) {
        let mut state = self.state.lock().unwrap();
        if let Some((mut child, guardian)) = state.running.take() {
            drop(guardian);
            processes::signal(&child, Signal::KILL);
            child.wait().unwrap();
        }
        processes::kill_below(&self.data);
    }

    /// Stops it (fast) and starts it again.
    pub(crate) fn restart(&self) {
        self.stop(Stop::Fast).unwrap();
        self.start().unwrap();
    }

    /// Orders a promotion, and does not wait for it.
    pub(crate) fn order_promotion(&self) {
        self.pg_ctl(&["promote", "-W"]).unwrap();
    }

    /// Orders a promotion and waits until it is out of recovery.
    pub(crate) fn promote(&self) {
        self.order_promotion();
        self.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
    }

    /// Runs pg_ctl on it as its user.
    pub(crate) fn pg_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = user::command(&programs(self.major).join("pg_ctl"));
        run(command.current_dir(self.home.path()).args(arguments).arg("-D").arg(&self.data))
    }

    /// A client program of its major with the variables to reach it, run as its user in its directory.
    pub(crate) fn client(&self, name: &str) -> Command {
        let mut command = user::command(&client_program(self.major, name));
        command.current_dir(self.home.path()).env("HOME", self.home.path().join("home"));
        command.env("PGHOST", self.socket_directory()).env("PGPORT", self.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Runs SQL through psql; rows are lines, columns are parted by `|`.
    pub(crate) fn psql(&self, sql: &str) -> Result<String, String> {
        let mut command = self.client("psql");
        run(command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Waits until a query answers `expected`; errors (a server that is starting) count as another answer.
    pub(crate) fn wait_sql(&self, sql: &str, expected: &str, limit: Duration) {
        let mut last = Ok(String::new());
        let what = || format!("{sql} = {expected}");
        let end = std::time::Instant::now() + limit;
        while std::time::Instant::now() < end {
            last = self.psql(sql);
            if last.as_deref() == Ok(expected) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited {limit:?} in vain for {}; the last answer: {last:?}\n{}", what(), self.log_end());
    }

    /// Waits until the log holds this text.
    pub(crate) fn wait_log(&self, text: &str, limit: Duration) {
        wait_until(&format!("{text:?} in the log"), limit, || self.log().contains(text));
    }

    /// Ends the current WAL segment and answers its name: the next that archive_command is called for.
    pub(crate) fn switch_wal(&self) -> String {
        // A switch at the very start of a segment does nothing, so something is written first.
        self.psql("SELECT pg_walfile_name(pg_logical_emit_message(false, 'test', 'a'))").unwrap();
        self.psql("SELECT pg_walfile_name(pg_switch_wal())").unwrap()
    }

    /// Waits until everything that was due is archived: no `.ready` is left.
    pub(crate) fn wait_archived(&self, name: &str, limit: Duration) {
        let done = self.data.join("pg_wal/archive_status").join(format!("{name}.done"));
        wait_until(&format!("{name} archived\n{}", self.log_end()), limit, || done.exists());
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl State {
    fn is_running(&mut self) -> bool {
        let ended = match &mut self.running {
            None => return false,
            Some((child, _)) => child.try_wait().unwrap().is_some(),
        };
        !ended
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the end of the log of Postgres {} on port {}:\n{}\n---",
                self.major,
                self.port(),
                self.log_end()
            );
        }
        // Asked first, because a server that ends by itself waits for its own children; then made to.
        self.signal(Signal::QUIT);
        if let Some((child, _)) = &mut self.state.lock().unwrap().running {
            processes::wait_for(child, Duration::from_secs(10));
        }
        self.kill();
        // Anything else that was started beside the data directory.
        processes::kill_below(self.home.path());
    }
}

fn programs(major: u32) -> PathBuf {
    server_programs(major).unwrap_or_else(|| panic!("Postgres {major} is not here; scripts/postgres {major} brings it"))
}

/// Runs a command to its end: what it printed, without the last line break, or what it complained of.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{}: {}{stdout}", output.status, String::from_utf8_lossy(&output.stderr)))
}
