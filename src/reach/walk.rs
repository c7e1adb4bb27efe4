//! What the WAL itself tells: when the last transaction ended, and where a name or a transaction is.

use super::chain::{self, Chain, own_segments};
use super::lineage::Lineage;
use super::source::{Source, blocking, must_belong};
use super::time::TargetTime;
use crate::codec::{self, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Event, Lsn, Milestone, MilestoneReader, SegmentName, WalFileName};
use crate::repo::Manifest;
use crate::storage::{Key, Object};
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

/// What the end of a chain told.
#[derive(Debug)]
pub struct Tail<T> {
    /// What was looked for.
    pub found: Option<T>,
    /// The first segment behind it that is there and cannot be read: replay ends before it.
    pub damaged: Option<Damaged>,
}

/// A segment that is there and cannot be read.
#[derive(Debug)]
pub struct Damaged {
    /// Where it begins.
    pub start: Lsn,
    /// What is wrong with it: `Corrupt` or `Mismatch`.
    pub error: Error,
}

impl<T> Tail<T> {
    /// Where replay ends: with the chain, or before what cannot be read.
    pub fn end(&self, chain: &Chain) -> Lsn {
        self.damaged.as_ref().map_or(chain.end, |damaged| damaged.start.min(chain.end))
    }
}

/// Whether an error says that a segment is there and is none, rather than that the storage is in trouble.
pub fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch)
}

/// How far the chain goes in time: the last commit or abort in it, walking back at most 16 segments, over those that cannot be
/// read.
pub async fn last_commit(source: &Source, backup: &Manifest, lineage: &Lineage, chain: &Chain) -> Result<Tail<Commit>> {
    walk_back(source, backup, lineage, chain, |seen| seen.last_commit.map(Some)).await
}

/// Where the last record of the chain begins, before what cannot be read: a position beyond it is never reached.
pub async fn last_record(source: &Source, backup: &Manifest, lineage: &Lineage, chain: &Chain) -> Result<Tail<Lsn>> {
    walk_back(source, backup, lineage, chain, |seen| Some(seen.last_record)).await
}

/// Goes back from the end of the chain until `answer` has one.
async fn walk_back<T>(
    source: &Source,
    backup: &Manifest,
    lineage: &Lineage,
    chain: &Chain,
    answer: impl Fn(Seen) -> Option<Option<T>>,
) -> Result<Tail<T>> {
    let mut tail = Tail { found: None, damaged: None };
    let names: Vec<_> = chain::names(backup, lineage, chain).rev().take(WALK_BACK).collect();
    for name in names {
        match look_through(source, backup, name).await {
            Ok(seen) => {
                if let Some(found) = answer(seen) {
                    tail.found = found;
                    break;
                }
            }
            Err(error) if is_damage(&error) => {
                let start = name.start(backup.wal_segment_size).unwrap_or(backup.start_lsn);
                tail.damaged = Some(Damaged { start, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(tail)
}

async fn look_through(source: &Source, backup: &Manifest, name: SegmentName) -> Result<Seen> {
    let mut seen = Seen::default();
    let reader = reader_at(backup, name)?;
    let walk = feed(source, backup, name, reader, |milestone| {
        if milestone.event.ends_transaction()
            && let Some(time) = TargetTime::from_unix_micros(milestone.time.unix_micros())
            // Times are taken before the records are written, so that they come out of order: the latest is what a target in
            // time is held against.
            && seen.last_commit.is_none_or(|last| last.time <= time)
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
    let (key, object) = fetch(source, backup, name).await?;
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

/// The segment from where recovery reads it: the archive; the backup's own copy, which may be cut short and padded, only where
/// the archive has none.
async fn fetch(source: &Source, backup: &Manifest, name: SegmentName) -> Result<(Key, Object)> {
    let layout = source.cluster.layout();
    let file = WalFileName::Segment(name);
    let key = layout.wal(&file);
    match source.get(&key).await {
        Err(error) if error.kind() == ErrorKind::Gap && own_segments(backup).contains(&name) => {
            let key = layout.backup_wal(&backup.id, &file);
            let object = source.get(&key).await?;
            Ok((key, object))
        }
        answer => answer.map(|object| (key, object)),
    }
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Shelf, backup, lsn, tli};
    use super::*;
    use crate::pg::test_wal::{WalWriter, one_mib};
    use crate::repo::manifest::NeededWal;

    const START: Lsn = Lsn(0x30_0000);

    fn name(number: u64) -> SegmentName {
        SegmentName::at(tli(1), Lsn(number << 20), one_mib())
    }

    /// A backup that begins and ends in the first of segments of 1 MiB.
    fn small(end_lsn: Lsn) -> Manifest {
        let wal = vec![NeededWal { name: name(3), own: false }];
        Manifest { wal_segment_size: one_mib(), end_lsn, wal, ..backup("a", 1, "0/300028", "0/300100") }
    }

    /// Segments from number 3 on, as they lie in the archive.
    fn put(shelf: &Shelf, writer: &WalWriter) {
        for (number, bytes) in (3..).zip(writer.bytes.chunks(1 << 20)) {
            let key = shelf.layout().wal(&WalFileName::Segment(name(number)));
            shelf.place(&key, Kind::Wal, tli(1), Lsn(number << 20), bytes);
        }
    }

    #[tokio::test]
    async fn the_archives_segment_comes_before_the_backups_padded_one() {
        let shelf = Shelf::new();
        let mut writer = WalWriter::new(START, one_mib());
        writer.commit(700, 1_000_000);
        let cut = writer.position();
        let mut padded = writer.bytes.clone();
        padded.resize(1 << 20, 0);
        let second = writer.commit(701, 2_000_000);
        writer.switch();
        writer.commit(702, 3_000_000);
        writer.blank();
        let mut backup = small(cut);
        backup.wal[0].own = true;
        let own = shelf.layout().backup_wal(&backup.id, &WalFileName::Segment(name(3)));
        shelf.place(&own, Kind::Wal, tli(1), START, &padded);
        let look = async |xid: u32, names: &[SegmentName]| {
            let wanted = |milestone: &Milestone| ends(milestone, xid);
            match find(&shelf.source(), &backup, names, cut, &mut 10, wanted).await.unwrap() {
                Found::Yes(milestone) => Some(milestone.lsn),
                _ => None,
            }
        };
        assert_eq!(look(701, &[name(3)]).await, None);
        put(&shelf, &writer);
        assert_eq!(look(701, &[name(3)]).await, Some(second));
        assert!(look(702, &[name(3), name(4)]).await.is_some());
        let missing = find(&shelf.source(), &backup, &[name(9)], cut, &mut 10, |_| true).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Gap);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_stepped_over_and_told() {
        let shelf = Shelf::new();
        let mut writer = WalWriter::new(START, one_mib());
        let mut commits = Vec::new();
        for number in 0..4 {
            commits.push(writer.commit(700 + number, i64::from(number) * 1_000_000));
            writer.switch();
        }
        put(&shelf, &writer);
        let backup = small(lsn("0/300100"));
        let lineage = Lineage::first();
        let segments: Vec<SegmentName> = (3..7).map(name).collect();
        let archived = chain::Archived::from([(tli(1), segments)]);
        let chain = chain::from_backup(&backup, &lineage, &archived);
        let source = shelf.source();
        let commit = async || last_commit(&source, &backup, &lineage, &chain).await;
        let whole = commit().await.unwrap();
        assert_eq!((whole.found.unwrap().lsn, whole.end(&chain)), (commits[3], lsn("0/700000")));
        for (number, damage) in [(6, &b""[..]), (5, b"junk")] {
            shelf.write(&shelf.layout().wal(&WalFileName::Segment(name(number))), damage);
        }
        let tail = commit().await.unwrap();
        assert_eq!((tail.found.unwrap().lsn, tail.end(&chain)), (commits[1], lsn("0/500000")));
        assert!(tail.damaged.unwrap().error.to_string().contains("000000010000000000000005"));
        let tail = last_record(&source, &backup, &lineage, &chain).await.unwrap();
        // The record that switches segments is the last.
        assert!(tail.found.unwrap() > commits[1] && tail.found.unwrap() < lsn("0/500000"));
        // A segment that is gone is another matter.
        let whole = Shelf::new();
        let missing = last_commit(&whole.source(), &backup, &lineage, &chain).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Gap);
    }

    #[tokio::test]
    async fn the_latest_time_of_a_segment_not_the_last() {
        let shelf = Shelf::new();
        let mut writer = WalWriter::new(START, one_mib());
        writer.commit(700, 1_000_000);
        let latest = writer.commit(701, 3_000_000);
        writer.commit(702, 2_000_000);
        writer.switch();
        put(&shelf, &writer);
        let seen = look_through(&shelf.source(), &small(lsn("0/300100")), name(3)).await.unwrap();
        assert_eq!(seen.last_commit.unwrap().lsn, latest);
    }
}
