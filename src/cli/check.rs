//! `walhalla check`: a line for each finding, and the line that a monitoring system reads.

use super::{args, show};
use crate::check::{self, Finding, Measure, Opened, Report, Request, Severity, Threshold};
use crate::config::{self, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::exit::{self, CheckOutcome};
use crate::pg::ParseError;
use crate::repo::Repository;
use crate::spool::Spool;
use crate::storage::{self, Bounds, Limits};
use crate::wire::ConnectOptions;
use std::path::Path;
use std::time::Duration;

/// A check is no long job: a storage that does not answer is a finding, soon.
const BOUNDS: Bounds = Bounds {
    deadline: None,
    stall: Duration::from_secs(10),
    idle: None,
    request: Duration::from_secs(60),
    connect: Duration::from_secs(10),
    attempts: 3,
};

/// What `--json` prints; described in `docs/json.md`.
#[derive(Debug, serde::Serialize)]
struct Answer<'a> {
    status: Severity,
    exit_status: u8,
    summary: String,
    storage: &'a str,
    system_identifier: Option<String>,
    findings: &'a [Finding],
    measures: &'a [Measure],
}

/// Checks, tells, and answers the exit status. Never an error: a check that cannot begin is `UNKNOWN`.
pub(super) async fn run(config: Option<&Path>, verb: args::Check) -> Result<u8> {
    let report = match prepared(config, &verb) {
        Ok((request, opened)) => check::run(&request, &opened).await,
        Err(error) => Report::cannot(&error),
    };
    let status = exit::check_status(outcome(report.severity()));
    if verb.json {
        show::json(&Answer {
            status: report.severity(),
            exit_status: status,
            summary: report.summary(),
            storage: &report.storage,
            system_identifier: report.system.map(|system| system.to_string()),
            findings: &report.findings,
            measures: &report.measures,
        })?;
    } else {
        show::text(&text(&report, verb.nagios));
    }
    Ok(status)
}

fn outcome(severity: Severity) -> CheckOutcome {
    match severity {
        Severity::Ok | Severity::Skipped => CheckOutcome::Ok,
        Severity::Warning => CheckOutcome::Warning,
        Severity::Critical => CheckOutcome::Critical,
        Severity::Unknown => CheckOutcome::Unknown,
    }
}

fn prepared(config: Option<&Path>, verb: &args::Check) -> Result<(Request, Opened)> {
    let settings = Settings::from_process(config)?;
    let named = |option: &str, error: Error| error.context(format!("--{option}"));
    let time = |option: &str, text: &str| config::parse_duration(text).map_err(|error| named(option, error));
    let request = Request {
        config: config.map(Path::to_owned),
        server: ConnectOptions::from_environment(verb.server.dsn.as_deref())?,
        cluster: match &verb.cluster {
            Some(text) => Some(text.parse().map_err(|error: ParseError| {
                named("cluster", Error::new(ErrorKind::Config, "no system identifier").because(error))
            })?),
            None => None,
        },
        switch: !verb.no_switch,
        wait: time("wait", &verb.wait)?,
        timeout: time("timeout", &verb.timeout)?,
        backlog: Threshold { warning: verb.backlog_warning, critical: verb.backlog_critical },
        delay: Threshold {
            warning: time("delay-warning", &verb.delay_warning)?,
            critical: time("delay-critical", &verb.delay_critical)?,
        },
        backup_age: Threshold {
            warning: time("backup-age-warning", &verb.backup_age_warning)?,
            critical: time("backup-age-critical", &verb.backup_age_critical)?,
        },
        settings,
    };
    let storage = storage::open(&request.settings, &Limits::new(BOUNDS))?;
    let spool = Spool::find(request.settings.spool.as_deref(), None).unwrap_or_default();
    let remembers = spool.is_some();
    let repository = Repository::new(std::sync::Arc::clone(&storage), spool);
    Ok((request, Opened { storage, repository, remembers }))
}

fn text(report: &Report, for_nagios: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    for finding in &report.findings {
        let said = !for_nagios || !matches!(finding.severity, Severity::Ok | Severity::Skipped);
        lines.extend(said.then(|| line(finding)));
    }
    let closing = report.closing_line();
    lines.insert(if for_nagios { 0 } else { lines.len() }, closing);
    lines.join("\n") + "\n"
}

/// A bar would begin the performance data.
fn line(finding: &Finding) -> String {
    let Finding { subject, severity, text, advice } = finding;
    let advice = advice.as_ref().map(|advice| format!(" → {advice}")).unwrap_or_default();
    format!("{:<8}  {subject}: {text}{advice}", severity.word()).replace('|', "¦")
}
