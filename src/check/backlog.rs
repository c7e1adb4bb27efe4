//! What waits to be archived, and what the server believes to be archived.

use super::server::{Facts, Server};
use super::time::Deadline;
use super::{Finding, Report, Request, Severity, arrival, number};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SegmentName, WalFileName};
use crate::repo::Cluster;
use crate::wire::ResultSet;
use std::time::Duration;

const ARCHIVER: &str = "SELECT archived_count, last_archived_wal, failed_count, last_failed_wal, \
     extract(epoch FROM clock_timestamp() - last_failed_time)::float8, \
     coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), \
     extract(epoch FROM clock_timestamp() - last_archived_time)::float8 FROM pg_stat_archiver";

const READY: &str = "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(modification)), 0)::float8, \
     min(substr(name, 1, 24)) FILTER (WHERE name ~ '^[0-9A-F]{24}[.]ready$') \
     FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";

const WAL: &str = "SELECT count(*), coalesce(sum(size), 0)::int8 FROM pg_ls_waldir()";

const READ_THE_LOG: &str = "read the server's log: walhalla-archive says there what failed and what to do";

/// What the others go by.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// A file that this server archived was seen in the repository, whole.
    pub(super) proven: bool,
    /// The first segment that waits to be archived.
    pub(super) first_waiting: Option<SegmentName>,
}

pub(super) async fn judge(
    request: &Request,
    server: &mut Server,
    facts: &Facts,
    cluster: Option<&Cluster>,
    arrived: bool,
    deadline: &Deadline,
    report: &mut Report,
) -> Stats {
    let mut stats = Stats { proven: arrived, first_waiting: None };
    if facts.setting("archive_mode") == "off" {
        report.add(Finding::skipped("archiver", "nothing is archived: archive_mode = off"));
    } else {
        let finding = archiver(server, facts, cluster, deadline, &mut stats).await;
        report.add(finding.unwrap_or_else(|error| Finding::of_error("archiver", Severity::Unknown, &error)));
    }
    if facts.rights.look {
        for finding in waiting(request, server, facts, deadline, report, &mut stats).await {
            report.add(finding);
        }
    } else {
        let advice = format!("as a superuser: GRANT pg_monitor TO \"{}\"", server.role);
        report.add(Finding::unknown("backlog", "the role may not see what waits in pg_wal").advise(advice));
    }
    if let Some(cluster) = cluster {
        let finding = lag(request, facts, cluster, deadline, report).await;
        report.add(finding.unwrap_or_else(|error| Finding::of_error("lag", Severity::Unknown, &error)));
    }
    stats
}

/// What the archiver did last, and whether it is true.
async fn archiver(
    server: &mut Server,
    facts: &Facts,
    cluster: Option<&Cluster>,
    deadline: &Deadline,
    stats: &mut Stats,
) -> Result<Finding> {
    let row = server.ask(deadline, "asking for the archiver's statistics", ARCHIVER).await?;
    let count = |column| number::<u64>(row.text(0, column)).unwrap_or(0);
    let (archived, failed) = (count(0), count(2));
    if row.text(0, 5).as_deref() == Some("t") {
        let ago: f64 = number(row.text(0, 4)).unwrap_or(0.0);
        let name = row.text(0, 3).unwrap_or_default().into_owned();
        let text = format!("the last attempt failed: {name}, {} ago ({failed} failures so far)", span(ago));
        return Ok(Finding::critical("archiver", text).advise(READ_THE_LOG));
    }
    let last = row.text(0, 1).map(std::borrow::Cow::into_owned);
    let Some(last) = last.filter(|_| archived > 0) else {
        return Ok(match stats.proven {
            true => Finding::ok("archiver", "its first segment has just come"),
            false if facts.in_recovery => Finding::skipped("archiver", "this standby has archived nothing"),
            false => Finding::unknown("archiver", "it has archived nothing since its statistics were reset")
                .advise("let this check end a segment, to see one arrive (without --no-switch)"),
        });
    };
    let text = told(&row, archived, failed, &last);
    believed(facts, cluster, deadline, stats, &last, text).await
}

fn told(row: &ResultSet, archived: u64, failed: u64, last: &str) -> String {
    let ago: f64 = number(row.text(0, 6)).unwrap_or(0.0);
    let failures =
        if failed == 0 { "none failed".to_owned() } else { format!("{failed} failed attempts, made good since") };
    format!("{archived} files archived, the last {last}, {} ago; {failures}", span(ago))
}

/// Holds what the server believes against what is there.
async fn believed(
    facts: &Facts,
    cluster: Option<&Cluster>,
    deadline: &Deadline,
    stats: &mut Stats,
    last: &str,
    text: String,
) -> Result<Finding> {
    let subject = "archiver";
    let (Some(cluster), Ok(name)) = (cluster, last.parse::<WalFileName>()) else {
        return Ok(Finding::unknown(subject, format!("{text}; whether it is in the repository is not known")));
    };
    match deadline.step("looking for what was archived last", cluster.get(&cluster.layout().wal(&name))).await {
        Ok(object) => {
            if let Err(error) = arrival::verify(object, name, facts).await {
                let finding = Finding::of_error(subject, Severity::Critical, &error.context(last));
                return Ok(finding.advise("take a new backup: nothing can be restored across this file"));
            }
            stats.proven = true;
            Ok(Finding::ok(subject, text))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gap) => {
            let text = format!("the server counts {last} as archived, and it is not in this repository");
            let advice = "archive_command stores elsewhere, or lies: correct it, then take a new backup";
            Ok(Finding::critical(subject, text).advise(advice))
        }
        Err(error) => Err(error),
    }
}

/// The files that wait, and the room that WAL takes.
async fn waiting(
    request: &Request,
    server: &mut Server,
    facts: &Facts,
    deadline: &Deadline,
    report: &mut Report,
    stats: &mut Stats,
) -> Vec<Finding> {
    let unknown = |subject, error: Error| Finding::of_error(subject, Severity::Unknown, &error);
    let mut findings = Vec::new();
    match server.ask(deadline, "counting what waits to be archived", READY).await {
        Ok(row) => {
            let count: u64 = number(row.text(0, 0)).unwrap_or(0);
            let age: f64 = number::<f64>(row.text(0, 1)).unwrap_or(0.0).max(0.0);
            stats.first_waiting = number(row.text(0, 2));
            let limits = &request.backlog;
            report.measure_against("backlog", count as f64, "", (limits.warning as f64, limits.critical as f64));
            let limits = (request.delay.warning.as_secs_f64(), request.delay.critical.as_secs_f64());
            report.measure_against("delay", age, "s", limits);
            findings.push(backlog(request, facts, count, age));
        }
        Err(error) => findings.push(unknown("backlog", error)),
    }
    match server.ask(deadline, "asking how much WAL there is", WAL).await {
        Ok(row) => {
            let (count, bytes): (u64, u64) = (number(row.text(0, 0)).unwrap_or(0), number(row.text(0, 1)).unwrap_or(0));
            report.measure("wal", bytes as f64, "B");
            findings.push(Finding::ok("pg_wal", format!("pg_wal holds {count} files, {}", size(bytes))));
        }
        Err(error) => findings.push(unknown("pg_wal", error)),
    }
    findings
}

fn backlog(request: &Request, facts: &Facts, count: u64, age: f64) -> Finding {
    let bytes = count.saturating_mul(facts.segment_size.bytes());
    let severity = request.backlog.judge(count).max(request.delay.judge(Duration::from_secs_f64(age)));
    if count == 0 {
        return Finding::ok("backlog", "nothing waits to be archived");
    }
    let text = format!("{count} files wait to be archived, {} or less, the oldest since {}", size(bytes), span(age));
    let finding = Finding::of("backlog", severity, text);
    if severity == Severity::Ok { finding } else { finding.advise(format!("{READ_THE_LOG}; see that pg_wal has room")) }
}

/// How far the repository is behind the server.
async fn lag(
    request: &Request,
    facts: &Facts,
    cluster: &Cluster,
    deadline: &Deadline,
    report: &mut Report,
) -> Result<Finding> {
    let subject = "lag";
    let size_of_one = facts.segment_size.bytes();
    // No further back than twice what is critical: a long archive is not listed for this.
    let back = request.backlog.critical.max(64).saturating_mul(2).saturating_mul(size_of_one);
    let from = SegmentName::at(facts.timeline, Lsn(facts.position.0.saturating_sub(back)), facts.segment_size);
    let listed = cluster.segments(facts.timeline, Some(from));
    let newest = deadline.step("looking for the newest segment", listed).await?.pop();
    let Some((newest, start)) = newest.and_then(|name| Some((name, name.start(facts.segment_size)?))) else {
        let text = format!("no segment of timeline {} from {from} on is in the repository", facts.timeline);
        return Ok(Finding::unknown(subject, text).advise("a new server has none yet; else see the archiver above"));
    };
    let archived = start.checked_add(size_of_one).unwrap_or(start);
    let behind = facts.position.since(archived).unwrap_or(0);
    report.measure("lag", behind as f64, "B");
    let text = format!("archived up to {archived} ({newest}), {} behind the server", size(behind));
    // Where what waits cannot be counted, this is as good as a count.
    let severity = if facts.rights.look { Severity::Ok } else { request.backlog.judge(behind / size_of_one) };
    let finding = Finding::of(subject, severity, text);
    Ok(if severity == Severity::Ok { finding } else { finding.advise(READ_THE_LOG) })
}

/// Seconds as a person reads them.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    for (worth, unit) in [(86_400.0, "d"), (3600.0, "h"), (60.0, "min")] {
        if seconds >= 2.0 * worth {
            return format!("{:.0} {unit}", seconds / worth);
        }
    }
    format!("{seconds:.0} s")
}

/// Bytes as a person reads them.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, text) in
            [(-1.0, "0 s"), (1.4, "1 s"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (2.0e6, "23 d")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
