//! What is there, as far as retention must know it.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, TimelineId};
use crate::reach::chain::{self, Archived};
use crate::reach::lineage::{self, Lineage, Lineages};
use crate::reach::{Source, TargetTime, walk, window};
use crate::repo::{BackupId, Manifest};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// How far one can go from a backup along one lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The backup, by its place in [`Survey::backups`].
    pub backup: usize,
    /// The end of the WAL without a hole.
    pub end: Lsn,
}

/// One timeline with its ancestors: a way that a recovery can take.
#[derive(Debug, Clone)]
pub struct Way {
    /// The timeline it leads to.
    pub timeline: TimelineId,
    /// The backups on it whose WAL makes them consistent, by their end position.
    pub extents: Vec<Extent>,
    /// The last commit of the timeline; `None` where that is not known.
    pub tip: Option<Timestamp>,
}

/// Something below `backup/` that is no readable backup.
#[derive(Debug, Clone)]
pub struct Other {
    /// Its id.
    pub id: BackupId,
    /// Where replay would begin, from its first object; `None` where that cannot be read.
    pub start_lsn: Option<Lsn>,
}

/// What a plan is made from.
#[derive(Debug, Clone)]
pub struct Survey {
    /// By the earlier of this host's clock and the store's.
    pub now: Timestamp,
    /// The backups that can be read, by end position.
    pub backups: Vec<Manifest>,
    /// Those whose manifest is there but cannot be believed.
    pub damaged: Vec<Other>,
    /// Those without a manifest: under way, or given up.
    pub unfinished: Vec<Other>,
    /// Every timeline whose history is known.
    pub ways: Vec<Way>,
    /// Timelines with WAL whose history cannot be read.
    pub obscure: BTreeSet<TimelineId>,
}

/// Looks at all of a cluster's folder. Anything that cannot be listed or fetched is an error: nobody prunes by half a view.
pub async fn survey(source: &Source) -> Result<Survey> {
    refuse_unknown_features(source).await?;
    let now = earlier_clock(source).await?;
    let catalog = source.cluster.catalog().await?;
    let lineages = lineage::lineages(source, &catalog.backups).await?;
    let mut archived = Archived::new();
    for timeline in source.cluster.timelines().await? {
        archived.insert(timeline, source.cluster.segments(timeline, None).await?);
    }
    let mut ways = Vec::new();
    for lineage in lineages.values() {
        ways.push(way(source, lineage, &catalog.backups, &archived).await?);
    }
    Ok(Survey {
        now,
        obscure: obscure(&lineages, &archived),
        ways,
        damaged: others(source, catalog.damaged.into_iter().map(|damaged| damaged.id)).await?,
        unfinished: others(source, catalog.unfinished).await?,
        backups: catalog.backups,
    })
}

/// A feature that this version does not know may need what this version takes for superfluous.
async fn refuse_unknown_features(source: &Source) -> Result<()> {
    let unknown = source.cluster.unknown_features().await?;
    let Some(feature) = unknown.first() else { return Ok(()) };
    let text =
        format!("the repository uses the feature {feature:?}, which this version does not know: nothing is pruned");
    Err(Error::new(ErrorKind::Config, text).hint("use a newer version of Walhalla"))
}

/// A clock that runs ahead would shorten what is kept; of two the one behind is believed.
async fn earlier_clock(source: &Source) -> Result<Timestamp> {
    let theirs = source.cluster.clock().await?.and_then(|time| Timestamp::try_from(time).ok());
    let ours = Timestamp::now();
    Ok(theirs.map_or(ours, |theirs| theirs.min(ours)))
}

async fn way(source: &Source, lineage: &Lineage, backups: &[Manifest], archived: &Archived) -> Result<Way> {
    let mut extents = Vec::new();
    let mut newest = None;
    for (at, backup) in backups.iter().enumerate().filter(|(_, backup)| lineage.covers(backup)) {
        let chain = chain::from_backup(backup, lineage, archived);
        if chain::reaches(&chain, backup.end_lsn) {
            extents.push(Extent { backup: at, end: chain.end });
            newest = Some((backup, chain));
        }
    }
    let tip = match newest {
        Some((backup, chain)) => tip(source, lineage, backup, &chain).await?,
        None => None,
    };
    Ok(Way { timeline: lineage.timeline(), extents, tip })
}

/// The last commit, where it can be read: it is what makes an abandoned timeline old.
async fn tip(source: &Source, lineage: &Lineage, backup: &Manifest, chain: &chain::Chain) -> Result<Option<Timestamp>> {
    let ended = window::start(backup)?;
    match walk::last_commit(source, backup, lineage, chain).await {
        // WAL that cannot be read, or a key that is not here, is no reason to think it old.
        Ok(tail) if tail.damaged.is_none() => {
            Ok(tail.found.map(|commit| commit.time.max(ended)).map(TargetTime::timestamp))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Corrupt | ErrorKind::Mismatch) => Ok(None),
        Err(error) => Err(error),
    }
}

fn obscure(lineages: &Lineages, archived: &Archived) -> BTreeSet<TimelineId> {
    archived.keys().copied().filter(|timeline| !lineages.contains_key(timeline)).collect()
}

async fn others(source: &Source, ids: impl IntoIterator<Item = BackupId>) -> Result<Vec<Other>> {
    let mut others = Vec::new();
    for id in ids {
        let start_lsn = match source.cluster.started(&id).await {
            Ok(started) => Some(started.start_lsn),
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::LocalIo) => {
                return Err(error);
            }
            Err(_) => None,
        };
        others.push(Other { id, start_lsn });
    }
    Ok(others)
}
