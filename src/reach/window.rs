//! From when to when one can restore.

use super::chain::{self, Archived, Chain};
use super::lineage::{self, Lineage, Lineages, TargetTimeline};
use super::{Source, TargetTime, walk};
use crate::error::Result;
use crate::pg::{Lsn, SegmentName, TimelineId};
use crate::repo::Manifest;

/// From when to when one can restore.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Window {
    /// The end of the backup.
    pub from: TargetTime,
    /// The last commit in the WAL that is there; none if the last segments hold none: then the end is not known.
    pub until: Option<walk::Commit>,
    /// Nothing behind this position can be replayed.
    pub end: Lsn,
}

/// How far one can go from a backup along the newest timeline that it reaches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reach {
    /// That timeline.
    pub timeline: TimelineId,
    /// The WAL without a hole.
    #[serde(flatten)]
    pub chain: Chain,
    /// From when to when.
    pub window: Window,
}

/// The WAL without a hole from a backup on, along a lineage: from what really lies in the archive and in the backup.
pub async fn chain(source: &Source, lineage: &Lineage, backup: &Manifest) -> Result<Chain> {
    let first = SegmentName::at(backup.start_timeline, backup.start_lsn, backup.wal_segment_size);
    let mut archived = Archived::new();
    for step in lineage.steps().filter(|step| step.timeline >= backup.start_timeline) {
        let segments = source.cluster.segments(step.timeline, Some(first.on(step.timeline))).await?;
        archived.insert(step.timeline, segments);
    }
    Ok(chain::from_backup(backup, lineage, &archived))
}

/// From when on one can restore: the end of the backup.
pub fn start(backup: &Manifest) -> Result<TargetTime> {
    TargetTime::from_manifest(&backup.finished_at)
}

/// How far one can go from this backup; `None` where no timeline of the archive holds it.
pub async fn reach(source: &Source, backup: &Manifest, lineages: &Lineages) -> Result<Option<Reach>> {
    let Some(lineage) = lineage::follow(TargetTimeline::Latest, backup, lineages) else { return Ok(None) };
    let chain = chain(source, lineage, backup).await?;
    let tail = walk::last_commit(source, backup, lineage, &chain).await?;
    if let Some(damaged) = &tail.damaged {
        tracing::warn!("one cannot restore beyond {}: {}", damaged.start, damaged.error);
    }
    let window = Window { from: start(backup)?, end: tail.end(&chain), until: tail.found };
    Ok(Some(Reach { timeline: lineage.timeline(), chain, window }))
}
