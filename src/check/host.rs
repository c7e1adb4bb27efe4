//! The server's own machine, where that is this one: the program that it would run, the environment in which it would, its spool.

use super::archiving;
use super::server::{Facts, Server};
use super::time::Deadline;
use super::{Finding, Report, Request, Severity};
use crate::account::Accounts;
use crate::archive::data_directory::DataDirectory;
use crate::config::{self, Settings, StorageUrl};
use crate::error::{Error, ErrorKind, Result};
use crate::spool::{self, Spool};
use crate::wire::Address;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Where a server finds programs if nobody has said anything else.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long `walhalla-archive --version` may take.
const RUN: Duration = Duration::from_secs(5);

/// What can be seen of the server's machine.
#[derive(Debug)]
pub(super) struct Host {
    data: DataDirectory,
    /// The server's user: the data directory's owner.
    uid: u32,
    gid: u32,
    /// The environment of the running server, where this process may read it.
    environment: Option<Vec<(OsString, OsString)>>,
}

impl Host {
    fn variable(&self, name: &str) -> Option<OsString> {
        let (_, value) = self.environment.as_ref()?.iter().find(|(variable, _)| variable == name)?;
        Some(value.clone())
    }

    /// Whether this process is, or may become, the server's user.
    fn can_be_server(&self) -> bool {
        let own = rustix::process::geteuid();
        own.is_root() || own.as_raw() == self.uid
    }

    /// Whether the server's user may do this (4: read, 1: execute or enter) with a path, as far as its mode tells.
    fn may(&self, path: &Path, right: u32) -> Result<(), String> {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for directory in above.into_iter().rev().filter(|directory| !directory.as_os_str().is_empty()) {
            self.has(directory, 1)?;
        }
        self.has(path, right)
    }

    fn has(&self, path: &Path, right: u32) -> Result<(), String> {
        let metadata = path.metadata().map_err(|error| format!("{}: {error}", path.display()))?;
        let shift = match (metadata.uid() == self.uid, metadata.gid() == self.gid || self.is_member(&metadata)) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        let allowed = self.uid == 0 || metadata.mode() >> shift & right == right;
        if allowed { Ok(()) } else { Err(format!("{}: the server's user may not", path.display())) }
    }

    fn is_member(&self, metadata: &Metadata) -> bool {
        let accounts = Accounts::read();
        let Some(account) = accounts.of_uid(self.uid) else { return false };
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        groups.lines().any(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            matches!(fields[..], [_, _, gid, members]
                if gid.parse() == Ok(metadata.gid()) && members.split(',').any(|member| member == account.name))
        })
    }
}

/// Looks whether the server's data directory can be seen from here. The error says why not.
pub(super) async fn find(server: &Server, facts: &Facts) -> Result<Host, String> {
    let is_here = match &server.host.address {
        Address::Unix(_) => true,
        Address::Tcp { name, address } => {
            name == "localhost" || address.or(name.parse::<IpAddr>().ok()).is_some_and(|address| address.is_loopback())
        }
    };
    if !is_here {
        return Err("the server runs on another machine".to_owned());
    }
    let path = facts.setting("data_directory");
    if path.is_empty() {
        return Err("the role may not see data_directory (pg_monitor may)".to_owned());
    }
    let data = DataDirectory::at(Path::new(path));
    let metadata = data.path().metadata().map_err(|error| format!("cannot look at {path}: {error}"))?;
    // Behind a forwarded port another machine's server may name a directory that is here by accident.
    if let Ok(Some(control)) = data.control().await
        && control.system_identifier != facts.system
    {
        return Err(format!("{path} is another cluster's: the server runs elsewhere"));
    }
    let environment = data.postmaster().and_then(|postmaster| environment(postmaster.pid));
    Ok(Host { data, uid: metadata.uid(), gid: metadata.gid(), environment })
}

/// The environment of a process. Nobody but its user and root may read it.
fn environment(pid: u32) -> Option<Vec<(OsString, OsString)>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        let (name, value) = variable.split_at(at);
        Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value.get(1..)?).to_owned()))
    });
    Some(variables.collect())
}

/// What else can be seen there.
pub(super) fn judge(request: &Request, host: &Result<Host, String>, report: &mut Report) {
    let host = match host {
        Ok(host) => host,
        Err(why) => {
            report.add(Finding::skipped("spool", format!("the server's spool cannot be seen from here: {why}")));
            return;
        }
    };
    if let Err(error) = host.data.refuse_if_held() {
        report.add(Finding::of_error("held", Severity::Critical, &error));
    }
    report.add(spool(request, host));
}

/// What is known of the program that `archive_command` names.
#[derive(Debug)]
pub(super) enum Program {
    /// This.
    Seen(Finding),
    /// Nothing, because of this.
    Unseen(String),
}

/// Looks at the program: found, allowed, run, and set to the same repository.
pub(super) async fn program(
    request: &Request,
    facts: Option<&Facts>,
    host: &Result<Host, String>,
    deadline: &Deadline,
) -> Program {
    let Some(line) = facts.and_then(archiving::archive_line) else {
        return Program::Seen(Finding::skipped("program", "no archive_command that calls walhalla-archive was seen"));
    };
    let host = match host {
        Ok(host) => host,
        Err(why) => return Program::Unseen(why.clone()),
    };
    match examine(request, host, line.program.as_deref().unwrap_or_default(), &line.arguments, deadline).await {
        Ok(Ok(text)) => Program::Seen(Finding::ok("program", text)),
        Ok(Err(why)) => Program::Unseen(why),
        Err(finding) => Program::Seen(finding),
    }
}

/// The program that was not seen: `proven` if a segment of this server was seen in the repository after it counted as archived.
pub(super) fn by_its_work(proven: bool, why: &str) -> Finding {
    if proven {
        return Finding::ok("program", "walhalla-archive works: what it archived is in the repository");
    }
    Finding::unknown("program", format!("whether walhalla-archive can be run cannot be seen from here: {why}"))
        .advise("run this check on the server's machine, as the server's user or root")
}

/// `Err`: a finding that is certain. Else what was seen, or why nothing could be.
async fn examine(
    request: &Request,
    host: &Host,
    word: &str,
    arguments: &[String],
    deadline: &Deadline,
) -> Result<Result<String, String>, Finding> {
    let subject = "program";
    let path = match look_up(host, word) {
        Ok(path) => path,
        Err((certain, why)) if certain => {
            let advice = "install it there, or name it by its whole path in archive_command";
            return Err(Finding::critical(subject, why).advise(advice));
        }
        Err((_, why)) => return Ok(Err(why)),
    };
    host.may(&path, 1).map_err(|why| {
        Finding::critical(subject, format!("the server's user cannot execute it: {why}"))
            .advise(format!("chmod 755 {}, and let its user enter the directories above", path.display()))
    })?;
    let version = if host.can_be_server() { Some(version(host, &path, deadline).await?) } else { None };
    same_repository(request, host, arguments)?;
    let own = env!("CARGO_PKG_VERSION");
    match version {
        Some(version) if version != own => {
            let text = format!("{} is version {version}, this is {own}", path.display());
            Err(Finding::warning(subject, text).advise("install the three programs of one version"))
        }
        Some(version) => Ok(Ok(format!("{} {version} runs as the server's user", path.display()))),
        None => Ok(Ok(format!("{} is there, and the server's user may execute it", path.display()))),
    }
}

/// Where the shell would find the program. With the error, whether that is certain.
fn look_up(host: &Host, word: &str) -> Result<PathBuf, (bool, String)> {
    if word.contains(['$', '`', '~', '*']) {
        return Err((false, "its path holds what only the shell can tell".to_owned()));
    }
    if word.contains('/') {
        let path = host.data.path().join(word);
        return match path.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => Err((true, format!("{} is no file", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err((false, format!("{}: {error}", path.display())))
            }
            Err(error) => Err((true, format!("{}: {error}", path.display()))),
        };
    }
    let known = host.variable("PATH");
    let certain = host.environment.is_some();
    let places = known.unwrap_or_else(|| USUAL_PATH.into());
    let found = std::env::split_paths(&places).map(|place| host.data.path().join(place).join(word));
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    found.into_iter().find(is_program).ok_or_else(|| {
        let whose = if certain { "the server's PATH" } else { "the usual places" };
        (certain, format!("{word} is not in {whose} ({})", places.display()))
    })
}

/// Runs it as the server's user would, for its version. Nothing but `walhalla-archive` is ever run.
async fn version(host: &Host, path: &Path, deadline: &Deadline) -> Result<String, Finding> {
    let mut command = tokio::process::Command::new(path);
    command.arg("--version").env_clear().env("PATH", USUAL_PATH).current_dir(host.data.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.uid(host.uid).gid(host.gid);
    }
    let run = async {
        let output = command.output().await;
        output.map_err(|error| Error::new(ErrorKind::LocalIo, format!("cannot run {}", path.display())).because(error))
    };
    let output = deadline.bounded("running walhalla-archive --version", RUN, run).await.and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let told = text.strip_prefix("walhalla-archive ").and_then(|rest| rest.rsplit(' ').next()).map(str::to_owned);
        told.filter(|_| output.status.success()).ok_or_else(|| {
            Error::new(ErrorKind::LocalIo, format!("{} --version: {}, and no version", path.display(), output.status))
        })
    });
    output.map_err(|error| {
        Finding::of_error("program", Severity::Critical, &error)
            .advise("install walhalla-archive again: a static program that runs on this machine")
    })
}

/// Holds what the program would read for settings against ours.
fn same_repository(request: &Request, host: &Host, arguments: &[String]) -> Result<(), Finding> {
    let Some(environment) = &host.environment else { return Ok(()) };
    let look = |name: &str| environment.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.clone());
    let given = arguments.iter().position(|word| word == "--config").and_then(|at| arguments.get(at + 1));
    let given = given.map(|file| host.data.path().join(file));
    let file = given.clone().or_else(|| look("WALHALLA_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from));
    let file = file.unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE));
    if file.exists()
        && let Err(why) = host.may(&file, 4)
    {
        return Err(Finding::critical(
            "program",
            format!("the server's user cannot read the configuration file: {why}"),
        )
        .advise(format!("chgrp {} {} && chmod 640 {}", host.gid, file.display(), file.display())));
    }
    let theirs = config::load(given.as_deref(), &look).map_err(|error| {
        Finding::of_error("program", Severity::Critical, &error.context("walhalla-archive would refuse its settings"))
            .advise_else("give the server its settings with walhalla init --write-config")
    })?;
    if is_same(&theirs, &request.settings) {
        return Ok(());
    }
    let text = "walhalla-archive, with the server's environment and configuration, archives into another repository than the one looked at";
    Err(Finding::critical("program", text)
        .advise("give this check the server's settings (the same configuration file and WALHALLA_STORAGE)"))
}

fn is_same(theirs: &Settings, ours: &Settings) -> bool {
    let endpoint = |settings: &Settings| settings.s3.endpoint.as_deref().map(|it| it.trim_end_matches('/').to_owned());
    let is_local = matches!(ours.storage, StorageUrl::File(_));
    theirs.storage == ours.storage && (is_local || endpoint(theirs) == endpoint(ours))
}

/// Whether the server's user has a spool.
fn spool(request: &Request, host: &Host) -> Finding {
    let subject = "spool";
    let slow = "without a spool each call asks the storage anew, and none works ahead";
    let cure = "name a directory of the server's user alone (mode 0700) with WALHALLA_SPOOL";
    if rustix::process::geteuid().as_raw() == host.uid {
        return match Spool::find(request.settings.spool.as_deref(), Some(host.data.path())) {
            Ok(Some(spool)) => Finding::ok(subject, format!("{} is usable", spool.directory().display())),
            Ok(None) => Finding::warning(subject, format!("no spool can be made: {slow}")).advise(cure),
            Err(error) => Finding::of_error(subject, Severity::Warning, &error).advise_else(cure),
        };
    }
    let places = match (&request.settings.spool, host.variable("WALHALLA_SPOOL")) {
        (_, Some(place)) => vec![PathBuf::from(place)],
        (Some(place), None) => vec![place.clone()],
        (None, None) => spool::places(host.uid),
    };
    let is_good = |place: &PathBuf| {
        place.symlink_metadata().is_ok_and(|it| it.is_dir() && it.uid() == host.uid && it.mode() & 0o077 == 0)
    };
    let can_be_made = |place: &PathBuf| {
        let above = place.parent().and_then(|above| above.metadata().ok());
        !place.exists() && above.is_some_and(|above| above.uid() == host.uid && above.mode() & 0o300 == 0o300)
    };
    match (places.iter().find(|place| is_good(place)), places.iter().find(|place| can_be_made(place))) {
        (Some(place), _) => Finding::ok(subject, format!("{} is usable", place.display())),
        (None, Some(place)) => Finding::ok(subject, format!("{} will be made", place.display())),
        (None, None) => Finding::warning(subject, format!("the server's user has no spool: {slow}")).advise(cure),
    }
}
