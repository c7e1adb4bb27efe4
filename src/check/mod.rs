//! `walhalla check`: whether archiving works, end to end, and what to do where it does not.
//!
//! | file | what it knows |
//! |---|---|
//! | `finding` | one line of the answer: how bad, about what, what to do |
//! | `report` | all of them, and the line that a monitoring system reads |
//! | `time` | how long each step may take |
//! | `server` | the server, asked: a question that is not answered in time ends no other |
//! | `settings` | the server's settings that matter, but for the commands |
//! | `command` | a command line as the shell will read it. Pure |
//! | `archiving` | `archive_mode`, `archive_command`, `restore_command`, held against what Postgres makes of them |
//! | `host` | the server's own machine, where that is this one: its program, its environment, its spool |
//! | `storage` | what the storage does, whose the repository is, what the key may do |
//! | `arrival` | a segment, forced, on its way from the server into the repository |
//! | `backlog` | what waits to be archived, and what the server believes to be archived |
//! | `backups` | backups, gaps, and up to when one can restore |
//!
//! A check that cannot be made is `UNKNOWN` with its reason, never `OK`. Nothing is changed on the server but one WAL segment
//! ended early, and nothing is left in the storage but the permanent objects of the probe.

mod archiving;
mod arrival;
mod backlog;
mod backups;
mod command;
mod finding;
mod host;
mod report;
mod server;
mod settings;
mod storage;
mod time;

pub use finding::{Finding, Severity};
pub use report::{Measure, Report};

use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::SystemIdentifier;
use crate::reach::Source;
use crate::repo::{Cluster, Repository};
use crate::storage::Storage;
use crate::wire::ConnectOptions;
use backlog::Stats;
use host::Program;
use server::{Facts, Server};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use time::Deadline;

/// From when on something is a warning, and from when on critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold<T> {
    /// From here on a warning.
    pub warning: T,
    /// From here on critical.
    pub critical: T,
}

impl<T: PartialOrd> Threshold<T> {
    fn judge(&self, value: T) -> Severity {
        if value >= self.critical {
            Severity::Critical
        } else if value >= self.warning {
            Severity::Warning
        } else {
            Severity::Ok
        }
    }
}

/// What is to be checked, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The settings, as this process reads them.
    pub settings: Settings,
    /// The configuration file that was named, if one was.
    pub config: Option<PathBuf>,
    /// The server.
    pub server: ConnectOptions,
    /// Which cluster, where the server cannot be asked.
    pub cluster: Option<SystemIdentifier>,
    /// Whether a segment may be ended early, to see it arrive.
    pub switch: bool,
    /// How long that segment is waited for.
    pub wait: Duration,
    /// How long everything may take together.
    pub timeout: Duration,
    /// How many files may wait to be archived.
    pub backlog: Threshold<u64>,
    /// How long the oldest of them may have waited.
    pub delay: Threshold<Duration>,
    /// How old the newest backup may be.
    pub backup_age: Threshold<Duration>,
}

/// Checks everything that can be checked, in at most `request.timeout`. `opened` is what the settings name.
///
/// Never an error: what cannot be looked at is a finding.
pub async fn run(request: &Request, opened: &Opened) -> Report {
    let deadline = Deadline::after(request.timeout);
    let mut report = Report::new(opened.storage.location());
    let mut server = server::connect(request, &deadline, &mut report).await;
    let facts = match &mut server {
        Some(server) => server::facts(server, &deadline, &mut report).await,
        None => None,
    };
    let host = match (&server, &facts) {
        (Some(server), Some(facts)) => host::find(server, facts).await,
        _ => Err("the server cannot be asked".to_owned()),
    };
    if let Some(facts) = &facts {
        settings::judge(facts, &mut report);
        archiving::judge(facts, &mut report);
    } else {
        report.add(Finding::unknown("archiving", "the server cannot be asked for its settings"));
    }
    host::judge(request, &host, &mut report);
    // What cannot be seen of the program may be proven by what it does: then its line is written here, later.
    let program = host::program(request, facts.as_ref(), &host, &deadline).await;
    let place = report.len();
    let unseen = match program {
        Program::Seen(finding) => {
            report.add(finding);
            None
        }
        Program::Unseen(why) => Some(why),
    };

    let cluster = cluster(request, opened, facts.as_ref(), &deadline, &mut report).await;
    let usable = match &cluster {
        Some(cluster) => storage::judge(request, cluster, opened, facts.as_ref(), &deadline, &mut report).await,
        None => false,
    };
    let cluster = cluster.filter(|_| usable);
    let stats = archived(request, server.as_mut(), facts.as_ref(), cluster.as_ref(), &deadline, &mut report).await;
    if let Some(why) = unseen {
        let proven = stats.as_ref().is_some_and(|stats| stats.proven);
        report.insert(place, host::by_its_work(proven, &why));
    }
    match &cluster {
        Some(cluster) => {
            let source = source(request, cluster);
            backups::judge(request, &source, stats.as_ref(), &deadline, &mut report).await;
        }
        None => report.add(Finding::unknown("backups", "the repository cannot be read")),
    }
    report
}

/// The repository that the settings name.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Where it is.
    pub storage: Arc<dyn Storage>,
    /// What is in it.
    pub repository: Repository,
    /// Whether this process has a spool to remember answers in.
    pub remembers: bool,
}

fn source(request: &Request, cluster: &Cluster) -> Source {
    Source {
        cluster: cluster.clone(),
        identities: request.settings.identities.clone(),
        concurrency: request.settings.concurrency,
    }
}

/// The cluster: the server's own, else the one that was named, else the only one there is.
async fn cluster(
    request: &Request,
    opened: &Opened,
    facts: Option<&Facts>,
    deadline: &Deadline,
    report: &mut Report,
) -> Option<Cluster> {
    let known = facts.map(|facts| facts.system).or(request.cluster);
    let found = match known {
        Some(system) => Ok(system),
        None => deadline.step("looking for the cluster", opened.repository.only_cluster()).await,
    };
    match found {
        Ok(system) => {
            report.system = Some(system);
            Some(opened.repository.cluster(system))
        }
        Err(error) => {
            let severity = storage::severity(error.kind());
            report.add(Finding::of_error("storage", severity, &error));
            None
        }
    }
}

/// A forced segment on its way, and what waits or failed before it.
async fn archived(
    request: &Request,
    server: Option<&mut Server>,
    facts: Option<&Facts>,
    cluster: Option<&Cluster>,
    deadline: &Deadline,
    report: &mut Report,
) -> Option<Stats> {
    let (Some(server), Some(facts)) = (server, facts) else {
        report.add(Finding::unknown("arrival", "the server cannot be asked for a segment"));
        report.add(Finding::unknown("backlog", "the server cannot be asked what waits"));
        return None;
    };
    let arrived = arrival::judge(request, server, facts, cluster, deadline, report).await;
    Some(backlog::judge(request, server, facts, cluster, arrived, deadline, report).await)
}

/// For what is not begun any more.
fn no_time() -> Error {
    Error::new(ErrorKind::Unavailable, "no time was left").hint("give it more with --timeout")
}

/// A number that the server told as text.
fn number<T: std::str::FromStr>(text: Option<std::borrow::Cow<'_, str>>) -> Option<T> {
    text.and_then(|text| text.trim().parse().ok())
}

/// What every server tells.
fn or_unknown<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::new(ErrorKind::Protocol, format!("the server does not tell {what}")))
}
