//! What the WAL itself tells: when the last transaction ended, and where a name or a transaction is.

use super::chain::{self, Chain, own_segments};
use super::lineage::Lineage;
use super::source::{Source, blocking, must_belong};
use super::time::TargetTime;
use crate::codec::{self, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Event, Lsn, Milestone, MilestoneReader, SegmentName, WalFileName};
use crate::repo::Manifest;
use crate::storage::Key;
use std::io::Write;

/// How many segments are walked back for the last commit.
const WALK_BACK: usize = 16;

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Commit {
    /// When, by the server's clock.
    pub time: TargetTime,
    /// Where its record begins.
    pub lsn: Lsn,
}

/// What a segment showed.
#[derive(Debug, Default)]
struct Seen {
    last_commit: Option<Commit>,
    last_record: Option<Lsn>,
}

/// How far the chain goes in time: the last commit or abort in it, walking back at most 16 segments.
pub async fn last_commit(
    source: &Source,
    backup: &Manifest,
    lineage: &Lineage,
    chain: &Chain,
) -> Result<Option<Commit>> {
    let names: Vec<_> = chain::names(backup, lineage, chain).rev().take(WALK_BACK).collect();
    for name in names {
        if let Some(commit) = look_through(source, backup, name).await?.last_commit {
            return Ok(Some(commit));
        }
    }
    Ok(None)
}

/// Where the last record of the chain begins: a position beyond it is never reached.
pub async fn last_record(source: &Source, backup: &Manifest, chain: &Chain) -> Result<Option<Lsn>> {
    match chain.last {
        None => Ok(None),
        Some(name) => Ok(look_through(source, backup, name).await?.last_record),
    }
}

async fn look_through(source: &Source, backup: &Manifest, name: SegmentName) -> Result<Seen> {
    let mut seen = Seen::default();
    let reader = reader_at(backup, name)?;
    let walk = feed(source, backup, name, reader, |milestone| {
        if milestone.event.ends_transaction()
            && let Some(time) = TargetTime::from_unix_micros(milestone.time.unix_micros())
        {
            seen.last_commit = Some(Commit { time, lsn: milestone.lsn });
        }
        false
    });
    let walk = walk.await?;
    seen.last_record = walk.reader.records().last_record().map(|(begin, _)| begin);
    Ok(seen)
}

/// Looks for the first milestone from `from` on that `wanted` says yes to, in these segments, which join one another.
/// `remaining` is how many may still be read.
pub async fn find(
    source: &Source,
    backup: &Manifest,
    names: &[SegmentName],
    from: Lsn,
    remaining: &mut usize,
    mut wanted: impl FnMut(&Milestone) -> bool,
) -> Result<Found> {
    let Some(first) = names.first() else { return Ok(Found::No) };
    let mut reader = reader_at(backup, *first)?;
    for name in names {
        if *remaining == 0 {
            return Ok(Found::GaveUp);
        }
        *remaining -= 1;
        let mut hit = None;
        let walk = feed(source, backup, *name, reader, |milestone| {
            if hit.is_none() && milestone.lsn >= from && wanted(milestone) {
                hit = Some(milestone.clone());
            }
            hit.is_some()
        });
        let walk = walk.await?;
        if let Some(milestone) = hit {
            return Ok(Found::Yes(milestone));
        }
        if walk.ended {
            return Ok(Found::No);
        }
        reader = walk.reader;
    }
    Ok(Found::No)
}

/// How a search ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Here it is.
    Yes(Milestone),
    /// It is in none of the segments.
    No,
    /// More segments than may be read.
    GaveUp,
}

/// Whether a milestone is the end of this transaction.
pub fn ends(milestone: &Milestone, wanted: u32) -> bool {
    matches!(milestone.event, Event::Commit { xid } | Event::Abort { xid } if xid == wanted)
}

fn reader_at(backup: &Manifest, name: SegmentName) -> Result<MilestoneReader> {
    let size = backup.wal_segment_size;
    let start = name
        .start(size)
        .ok_or_else(|| Error::new(ErrorKind::Mismatch, format!("{name} is no segment of {} bytes", size.bytes())))?;
    MilestoneReader::new(start, size).map_err(|error| Error::new(ErrorKind::Bug, "cannot read WAL").because(error))
}

struct Walk {
    reader: MilestoneReader,
    /// The valid WAL ended, or enough was seen.
    ended: bool,
}

/// Fetches a segment and leads its plain bytes past the reader, a piece at a time.
async fn feed(
    source: &Source,
    backup: &Manifest,
    name: SegmentName,
    reader: MilestoneReader,
    mut show: impl FnMut(&Milestone) -> bool,
) -> Result<Walk> {
    let key = key_of(source, backup, name);
    let object = source.get(&key).await?;
    let (identities, system) = (source.identities.clone(), backup.system_identifier);
    let (walk, milestones) = blocking(move || {
        let mut sink = Sink { walk: Walk { reader, ended: false }, milestones: Vec::new() };
        let decoded = codec::decode(&object.body, &identities, &mut sink);
        let header = decoded.map_err(|error| error.context(&key))?;
        must_belong(&header, Kind::Wal, system).map_err(|error| error.context(&key))?;
        Ok((sink.walk, sink.milestones))
    })
    .await?;
    let enough = milestones.iter().any(&mut show);
    Ok(Walk { ended: walk.ended || enough, ..walk })
}

fn key_of(source: &Source, backup: &Manifest, name: SegmentName) -> Key {
    let layout = source.cluster.layout();
    let file = WalFileName::Segment(name);
    if own_segments(backup).contains(&name) { layout.backup_wal(&backup.id, &file) } else { layout.wal(&file) }
}

struct Sink {
    walk: Walk,
    milestones: Vec<Milestone>,
}

impl Write for Sink {
    fn write(&mut self, plain: &[u8]) -> std::io::Result<usize> {
        let mut rest = plain;
        while !self.walk.ended {
            match self.walk.reader.next(&mut rest) {
                Ok(Some(milestone)) => self.milestones.push(milestone),
                Ok(None) => break,
                // The valid WAL ends here; the rest of the segment is still decoded, so that its hash is proven.
                Err(_) => self.walk.ended = true,
            }
        }
        Ok(plain.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
