//! A throwaway Postgres, run by an unprivileged account.

use crate::account::{Account, Accounts};
use crate::error::{Error, ErrorKind, Result};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where Postgres' programs are: what was asked for, else `pg_config --bindir`, else the newest in `/usr/lib/postgresql`.
pub(super) fn find_binaries(asked: Option<&Path>) -> Result<PathBuf> {
    let complete =
        |directory: &Path| ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|name| directory.join(name).is_file());
    if let Some(directory) = asked {
        return if complete(directory) {
            Ok(directory.to_owned())
        } else {
            Err(Error::new(
                ErrorKind::Config,
                format!("{} lacks initdb, pg_ctl, postgres or psql", directory.display()),
            ))
        };
    }
    let told = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output().ok();
    let told = told.and_then(|output| String::from_utf8(output.stdout).ok()).map(|text| PathBuf::from(text.trim()));
    told.into_iter().chain(debian_binaries()).find(|directory| complete(directory)).ok_or_else(|| {
        Error::new(ErrorKind::Config, "found no Postgres server on this machine")
            .hint("install one (apt-get install postgresql), or name its programs with --bin-directory")
    })
}

fn debian_binaries() -> Vec<PathBuf> {
    let mut majors: Vec<u32> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))).collect()
}

/// The account that everything runs as: ourselves, unless we are root.
pub(super) fn account() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = Accounts::read();
    let account = accounts.named("postgres").or_else(|| accounts.named("nobody"));
    account.cloned().map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Config,
            "Postgres refuses to run as root, and there is no account postgres or nobody to run it as",
        )
    })
}

/// Programs run in one directory, with a clean environment, as an unprivileged account.
#[derive(Debug)]
pub(super) struct Stage {
    /// The directory that holds everything.
    pub(super) directory: PathBuf,
    /// Where Postgres' programs are.
    pub(super) binaries: PathBuf,
    /// Whom to run as.
    pub(super) account: Option<Account>,
    /// Environment of every program.
    pub(super) environment: Vec<(String, String)>,
    /// Set when the operator has seen enough.
    pub(super) interrupted: Arc<AtomicBool>,
}

impl Stage {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment.iter().cloned()).current_dir(&self.directory).stdin(Stdio::null());
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Runs a program of Postgres to its end and returns what it printed.
    pub(super) fn postgres<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Result<String> {
        self.run(&self.binaries.join(program), arguments)
    }

    /// Runs a program to its end and returns what it printed; nothing is begun any more once the operator has seen enough.
    pub(super) fn run<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Result<String> {
        let done = if self.is_interrupted() { Err(interrupted()) } else { self.finish(program, arguments) };
        if self.is_interrupted() { Err(interrupted()) } else { done }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Whatever fails is told with the end of what it said.
    fn finish<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Result<String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A server inherits the files of pg_ctl: a pipe would stay open as long as it lives, so output goes through a file.
        let output =
            tempfile::tempfile().map_err(|error| Error::local("create", Path::new("a temporary file"), error))?;
        let share = || output.try_clone().map_err(|error| Error::local("share", Path::new("a temporary file"), error));
        let status = self
            .command(program)
            .args(arguments)
            .stdout(share()?)
            .stderr(share()?)
            .status()
            .map_err(|error| Error::local("run", program, error))?;
        let text = read_back(output).map_err(|error| Error::local("read", Path::new("a temporary file"), error))?;
        if status.success() {
            return Ok(text);
        }
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let end = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
        Err(Error::new(ErrorKind::Protocol, format!("{name} failed ({status}): {end}")))
    }

    /// Gives a path of ours to the account that the server runs as.
    pub(super) fn hand_over(&self, path: &Path) -> Result<()> {
        match &self.account {
            Some(account) => std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
                .map_err(|error| Error::local("change the owner of", path, error)),
            None => Ok(()),
        }
    }

    /// One statement through psql; the rows, unaligned.
    pub(super) fn sql(&self, statement: &str) -> Result<String> {
        let quiet = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres"].map(OsStr::new);
        let rest = [OsStr::new("-h"), self.directory.as_os_str(), OsStr::new("-c"), OsStr::new(statement)];
        let arguments = [&quiet[..], &rest[..]].concat();
        self.postgres("psql", &arguments).map(|text| text.trim().to_owned())
    }

    /// Starts the server in `data` and waits until it answers.
    pub(super) fn start(&self, data: &Path) -> Result<()> {
        let log = self.directory.join("server.log");
        let arguments = [OsStr::new("-D"), data.as_os_str(), OsStr::new("-l"), log.as_os_str()];
        let arguments = [&arguments[..], &["-w", "-t", "60", "start"].map(OsStr::new)[..]].concat();
        self.postgres("pg_ctl", &arguments).map(drop).map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().last().unwrap_or_default().to_owned();
            error.context(format!("the server did not start, its log ends with {last:?}"))
        })
    }

    /// Stops the server in `data`, also after an interruption; `mode` is one of pg_ctl's.
    pub(super) fn stop(&self, data: &Path, mode: &str) -> Result<()> {
        let arguments = [OsStr::new("-D"), data.as_os_str()];
        let arguments = [&arguments[..], &["-w", "-t", "60", "-m", mode, "stop"].map(OsStr::new)[..]].concat();
        self.finish(&self.binaries.join("pg_ctl"), &arguments).map(drop)
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "the demo was interrupted; its server is stopped and its directory removed")
}

fn read_back(mut file: std::fs::File) -> std::io::Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
