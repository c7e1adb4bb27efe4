//! Backups, gaps, and up to when one can restore.

use super::backlog::{Stats, span};
use super::time::Deadline;
use super::{Finding, Report, Request, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::SegmentName;
use crate::reach::chain::{self, Archived};
use crate::reach::lineage::{self, Lineage, Lineages};
use crate::reach::{Chain, Source, TargetTimeline, walk, window};
use crate::repo::{Catalog, Manifest};
use jiff::Timestamp;
use std::time::Duration;

/// Listing a long archive takes its time.
const LISTING: Duration = Duration::from_secs(90);

/// Segments are uploaded side by side: a gap counts when it outlasts this.
const AGAIN: Duration = Duration::from_secs(3);

const TAKE_ONE: &str = "walhalla backup, nightly";

/// A backup and the WAL that leads on from it.
struct Followed<'a> {
    backup: &'a Manifest,
    lineage: Option<&'a Lineage>,
    chain: Option<Chain>,
}

impl Followed<'_> {
    /// Whether the backup itself can be restored: the WAL up to its end is there.
    fn is_whole(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain::reaches(chain, self.backup.end_lsn))
    }

    fn hole(&self) -> Option<SegmentName> {
        self.chain.as_ref().and_then(|chain| chain.hole.as_ref()).map(|hole| hole.missing)
    }
}

pub(super) async fn judge(
    request: &Request,
    source: &Source,
    stats: Option<&Stats>,
    deadline: &Deadline,
    report: &mut Report,
) {
    let read = async {
        let catalog = source.cluster.catalog().await?;
        let lineages = lineage::lineages(source, &catalog.backups).await?;
        Ok((catalog, lineages))
    };
    let (catalog, lineages) = match deadline.bounded("reading the backups", LISTING, read).await {
        Ok(read) => read,
        Err(error) => return report.add(Finding::of_error("backups", Severity::Unknown, &error)),
    };
    for damaged in &catalog.damaged {
        let finding = Finding::warning("damaged", format!("{} is no backup any more: {}", damaged.id, damaged.why));
        report.add(finding.advise("take another; keep this one's WAL until then"));
    }
    let Some(newest) = newest(&catalog) else {
        report.add(Finding::critical("backups", "there is no backup: nothing can be restored").advise(TAKE_ONE));
        report.add(Finding::unknown("gaps", "without a backup there is nothing to follow the WAL from"));
        return;
    };
    let seconds = measured_age(report, request, newest);
    report.add(age(request, &catalog, newest, seconds));
    let followed = deadline.bounded("looking for gaps", LISTING, steady(source, &catalog, &lineages)).await;
    match followed {
        Ok(followed) => {
            report.add(gaps(&followed, newest, stats));
            report.add(reach(source, &followed, newest, deadline).await);
        }
        Err(error) => report.add(Finding::of_error("gaps", Severity::Unknown, &error)),
    }
}

/// The one that ended last, by the server's clock.
fn newest(catalog: &Catalog) -> Option<&Manifest> {
    catalog.backups.iter().max_by_key(|backup| finished(backup))
}

fn finished(backup: &Manifest) -> Option<Timestamp> {
    backup.finished_at.parse().ok()
}

fn measured_age(report: &mut Report, request: &Request, newest: &Manifest) -> Option<f64> {
    let age = Timestamp::now().duration_since(finished(newest)?).as_secs_f64().max(0.0);
    let limits = (request.backup_age.warning.as_secs_f64(), request.backup_age.critical.as_secs_f64());
    report.measure_against("backup_age", age, "s", limits);
    Some(age)
}

fn age(request: &Request, catalog: &Catalog, newest: &Manifest, age: Option<f64>) -> Finding {
    let subject = "backups";
    let Some(age) = age else {
        return Finding::unknown(subject, format!("{} has no time: {:?}", newest.id, newest.finished_at));
    };
    let text = format!("{} backups, the newest {}, {} old", catalog.backups.len(), newest.id, span(age));
    if !newest.damaged.is_empty() {
        return Finding::warning(subject, format!("{text}, with damaged pages")).advise("find out what damages them");
    }
    let severity = request.backup_age.judge(Duration::from_secs_f64(age));
    let finding = Finding::of(subject, severity, text);
    if severity == Severity::Ok { finding } else { finding.advise(format!("see why the last did not run: {TAKE_ONE}")) }
}

/// The chains of all backups; where one has a gap, looked at again: it may be about to be filled.
async fn steady<'a>(source: &Source, catalog: &'a Catalog, lineages: &'a Lineages) -> Result<Vec<Followed<'a>>> {
    let followed = follow(source, catalog, lineages).await?;
    if followed.iter().all(|it| it.hole().is_none()) {
        return Ok(followed);
    }
    tokio::time::sleep(AGAIN).await;
    follow(source, catalog, lineages).await
}

/// One listing for all: from the segment in which the oldest begins.
async fn follow<'a>(source: &Source, catalog: &'a Catalog, lineages: &'a Lineages) -> Result<Vec<Followed<'a>>> {
    let Some(oldest) = catalog.backups.iter().min_by_key(|backup| backup.start_lsn) else { return Ok(Vec::new()) };
    let first = SegmentName::at(oldest.start_timeline, oldest.start_lsn, oldest.wal_segment_size);
    let mut archived = Archived::new();
    let mut all = Vec::new();
    for backup in &catalog.backups {
        let lineage = lineage::follow(TargetTimeline::Latest, backup, lineages);
        for step in lineage.into_iter().flat_map(Lineage::steps) {
            if step.timeline >= oldest.start_timeline && !archived.contains_key(&step.timeline) {
                let segments = source.cluster.segments(step.timeline, Some(first.on(step.timeline))).await?;
                archived.insert(step.timeline, segments);
            }
        }
        let chain = lineage.map(|lineage| chain::from_backup(backup, lineage, &archived));
        all.push(Followed { backup, lineage, chain });
    }
    Ok(all)
}

fn gaps(followed: &[Followed<'_>], newest: &Manifest, stats: Option<&Stats>) -> Finding {
    let subject = "gaps";
    let is_newest = |it: &Followed<'_>| it.backup.id == newest.id;
    let gone: Vec<&Followed<'_>> = followed.iter().filter(|it| !it.is_whole()).collect();
    if let Some(gone) = gone.iter().find(|it| is_newest(it)).or(gone.first()) {
        let severity = if is_newest(gone) { Severity::Critical } else { Severity::Warning };
        let missing = gone.hole().map(|name| format!(": {name} is missing")).unwrap_or_default();
        let text = format!("backup {} cannot be restored, WAL that it needs is not there{missing}", gone.backup.id);
        return Finding::of(subject, severity, text).advise("take a new backup now");
    }
    let holes: Vec<(&Followed<'_>, SegmentName)> = followed.iter().filter_map(|it| Some((it, it.hole()?))).collect();
    let Some((hole, missing)) = holes.iter().find(|(it, _)| is_newest(it)).or(holes.first()) else {
        let text = "no segment is missing since the oldest backup".to_owned();
        return Finding::ok(subject, text);
    };
    let waits = stats.and_then(|stats| stats.first_waiting).is_some_and(|first| first <= *missing);
    if waits {
        let text = format!("{missing} is missing while later ones are there: it may still wait in pg_wal");
        return Finding::warning(subject, text).advise("wait, and check again");
    }
    let text =
        format!("{missing} is missing behind backup {}: nothing beyond it can be restored from it", hole.backup.id);
    match is_newest(hole) {
        true => Finding::critical(subject, text).advise("take a new backup now, and find out who removed it"),
        false => Finding::warning(subject, format!("{text}; the newest backup has no gap"))
            .advise("keep the newer backups; find out who removed it"),
    }
}

/// From when to when one can restore.
async fn reach(source: &Source, followed: &[Followed<'_>], newest: &Manifest, deadline: &Deadline) -> Finding {
    let subject = "window";
    let sound = followed.iter().filter(|it| it.is_whole() && it.hole().is_none());
    let from = sound.clone().min_by_key(|it| finished(it.backup)).and_then(|it| window::start(it.backup).ok());
    let last = followed.iter().find(|it| it.backup.id == newest.id && it.is_whole());
    let Some((lineage, chain)) = last.and_then(|it| Some((it.lineage?, it.chain.as_ref()?))) else {
        return Finding::unknown(subject, "the newest backup cannot be followed");
    };
    let from = from.or_else(|| window::start(newest).ok()).map(|from| from.to_string()).unwrap_or_default();
    let tail = walk::last_commit(source, newest, lineage, chain);
    let (until, known) = match deadline.step("reading the newest WAL", tail).await {
        Ok(tail) => match &tail.found {
            Some(commit) => (format!("to {}", commit.time), true),
            None => (format!("at least to then (position {})", tail.end(chain)), true),
        },
        Err(error) => (format!("to position {} ({error})", chain.end), is_no_key(&error)),
    };
    let severity = if known { Severity::Ok } else { Severity::Unknown };
    Finding::of(subject, severity, format!("one can restore from {from} {until}"))
}

/// A machine that only archives has no key to read with, and should not.
fn is_no_key(error: &Error) -> bool {
    error.kind() == ErrorKind::Config
}
