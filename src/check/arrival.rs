//! A segment, forced, on its way from the server into the repository.

use super::server::{Facts, Server};
use super::time::Deadline;
use super::{Finding, Report, Request, number, or_unknown};
use crate::codec::{self, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SegmentName, WalFileName};
use crate::reach::source::blocking;
use crate::repo::Cluster;
use crate::storage::Object;
use std::time::Duration;
use tokio::time::Instant;

/// The pauses between two looks: from, to.
const GLANCE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A switch at the very start of a segment does nothing, so a few bytes are written first. They change no table.
const SWITCH: &str = "SELECT pg_logical_emit_message(false, 'walhalla', 'check'); SELECT pg_switch_wal()";

/// Ends a segment and waits until it is in the repository, whole. Whether it came.
pub(super) async fn judge(
    request: &Request,
    server: &mut Server,
    facts: &Facts,
    cluster: Option<&Cluster>,
    deadline: &Deadline,
    report: &mut Report,
) -> bool {
    let begun = Instant::now();
    let finding = match not_now(request, facts, cluster, report) {
        Some(finding) => finding,
        None => match watch(request, server, facts, cluster, deadline).await {
            Ok(name) => {
                let took = begun.elapsed().as_secs_f64();
                report.measure("arrival", took, "s");
                report.add(Finding::ok(
                    "arrival",
                    format!("{name} came from the server into the repository in {took:.1} s"),
                ));
                return true;
            }
            Err(finding) => finding,
        },
    };
    report.add(finding);
    false
}

/// Why it is not tried.
fn not_now(request: &Request, facts: &Facts, cluster: Option<&Cluster>, report: &Report) -> Option<Finding> {
    let subject = "arrival";
    if !request.switch {
        return Some(Finding::skipped(subject, "no segment was ended to see it arrive (--no-switch)"));
    }
    if facts.in_recovery {
        return Some(Finding::skipped(subject, "a standby cannot end a segment: check the primary for that"));
    }
    if cluster.is_none() {
        return Some(Finding::unknown(subject, "the repository cannot be read"));
    }
    let set_up = ["archive_mode", "archive_command", "wal_level", "program", "held", "identity"];
    if report.is_critical(&set_up) {
        return Some(Finding::skipped(subject, "not tried: as it is set up, no segment can come"));
    }
    if !facts.rights.switch {
        let finding = Finding::unknown(subject, "the role may not end a segment to see it arrive");
        return Some(finding.advise("grant it EXECUTE on pg_switch_wal(), or leave this out with --no-switch"));
    }
    None
}

async fn watch(
    request: &Request,
    server: &mut Server,
    facts: &Facts,
    cluster: Option<&Cluster>,
    deadline: &Deadline,
) -> Result<SegmentName, Finding> {
    let unknown = |error: Error| Finding::of_error("arrival", super::Severity::Unknown, &error);
    let Some(cluster) = cluster else { return Err(Finding::unknown("arrival", "the repository cannot be read")) };
    let name = switch(server, facts, deadline).await.map_err(unknown)?;
    let end = deadline.within(request.wait);
    let key = cluster.layout().wal(&WalFileName::Segment(name));
    let mut pause = GLANCE.0;
    loop {
        match tokio::time::timeout_at(end, cluster.get(&key)).await {
            Ok(Ok(object)) => {
                let whole = verify(object, WalFileName::Segment(name), facts).await;
                return whole
                    .map(|()| name)
                    .map_err(|error| Finding::of_error("arrival", super::Severity::Critical, &error.context(&key)));
            }
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {}
            Ok(Err(error)) => return Err(unknown(error)),
            Err(_) => return Err(too_late(request, name, deadline)),
        }
        if Instant::now() + pause >= end {
            tokio::time::sleep_until(end).await;
            return Err(too_late(request, name, deadline));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(GLANCE.1);
    }
}

/// Ends the segment being written. Which one that was.
async fn switch(server: &mut Server, facts: &Facts, deadline: &Deadline) -> Result<SegmentName> {
    let answer = server.ask(deadline, "ending a WAL segment", SWITCH).await?;
    let end: Lsn = or_unknown(number(answer.text(0, 0)), "where it ended the segment")?;
    // The position behind the last byte: in the segment, or the first of the next.
    Ok(SegmentName::at(facts.timeline, Lsn(end.0.saturating_sub(1)), facts.segment_size))
}

fn too_late(request: &Request, name: SegmentName, deadline: &Deadline) -> Finding {
    if deadline.is_over() {
        let finding = Finding::unknown("arrival", format!("{name} had not come when the time for all was over"));
        return finding.advise("give it more with --timeout");
    }
    let text = format!("{name} did not come into the repository within {} s", request.wait.as_secs());
    Finding::critical("arrival", text)
        .advise("read the server's log: walhalla-archive says there what failed; or wait longer with --wait")
}

/// The object is whole, and is this WAL file of this cluster.
pub(super) async fn verify(object: Object, name: WalFileName, facts: &Facts) -> Result<()> {
    let system = facts.system;
    let start = match name {
        WalFileName::Segment(segment) => segment.start(facts.segment_size),
        _ => None,
    };
    blocking(move || {
        let subject = codec::verify(&object.body).map_err(Error::from)?.subject;
        let is_it = subject.kind == Kind::Wal
            && subject.system_identifier == system
            && subject.timeline == name.timeline().get()
            && start.is_none_or(|start| subject.start == start);
        if is_it { Ok(()) } else { Err(Error::new(ErrorKind::Mismatch, format!("the object is not {name}"))) }
    })
    .await
}
