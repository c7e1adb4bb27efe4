//! The WAL from a backup on: how far it goes without a hole.

use super::lineage::Lineage;
use crate::pg::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::repo::Manifest;
use std::collections::{BTreeMap, BTreeSet};

/// Segments in the archive, by timeline, sorted.
pub type Archived = BTreeMap<TimelineId, Vec<SegmentName>>;

/// WAL without a hole.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Chain {
    /// The segment in which replay begins.
    pub first: SegmentName,
    /// The segments from the first on, in the order of replay: how many there are.
    pub segments: u64,
    /// The last of them; none if even the first is missing.
    pub last: Option<SegmentName>,
    /// Position behind the last: nothing beyond it can be replayed.
    pub end: Lsn,
    /// What ends it, if it is not the end of the archive.
    pub hole: Option<Hole>,
}

/// A segment is missing while later ones are there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hole {
    /// The first that is missing.
    pub missing: SegmentName,
    /// The first behind the hole.
    pub next: SegmentName,
}

/// The segments that a backup carries itself.
pub fn own_segments(backup: &Manifest) -> BTreeSet<SegmentName> {
    backup.wal.iter().filter(|needed| needed.own).map(|needed| needed.name).collect()
}

/// Follows the WAL from the backup's start along a lineage.
pub fn from_backup(backup: &Manifest, lineage: &Lineage, archived: &Archived) -> Chain {
    let size = backup.wal_segment_size;
    let own = own_segments(backup);
    let in_archive = |name: SegmentName| {
        archived.get(&name.timeline()).is_some_and(|segments| segments.binary_search(&name).is_ok())
    };
    let is_there = |name: SegmentName| own.contains(&name) || in_archive(name);
    let begin = backup.start_lsn.0 / size.bytes();
    let named = |number: u64| segment(lineage.timeline_of(number, size), number, size);
    let mut number = begin;
    let mut last = None;
    let mut cut = false;
    loop {
        let name = named(number);
        if is_there(name) {
            last = Some(name);
            cut = is_cut(backup, number) && !in_archive(name);
            if cut {
                number += 1;
                break;
            }
        } else if let Some(older) = under_older_timeline(backup, number).filter(|older| is_there(*older)) {
            // The backup's end lies in a segment in which a newer timeline begins, and only the older timeline's is there:
            // enough for the backup, not for anything after it.
            last = Some(older);
            number += 1;
            break;
        } else {
            break;
        }
        number += 1;
    }
    // The rest of a segment that is cut short is missing, not the one behind it.
    let missing = named(if cut { number - 1 } else { number });
    let next = first_behind(lineage, size, number, archived, &own);
    Chain {
        first: named(begin),
        segments: number - begin,
        last,
        end: if cut { backup.end_lsn } else { Lsn(number.saturating_mul(size.bytes())) },
        hole: next.map(|next| Hole { missing, next }),
    }
}

/// Whether the backup's own copy of this segment ends with the backup: a standby cannot switch segments, so the last was fetched
/// while it was being filled.
fn is_cut(backup: &Manifest, number: u64) -> bool {
    let size = backup.wal_segment_size;
    let ends_within = backup.end_lsn.0 / size.bytes() == number && backup.end_lsn.offset_in_segment(size) > 0;
    backup.from_standby && ends_within
}

/// The segments of the chain, oldest first.
pub fn names(backup: &Manifest, lineage: &Lineage, chain: &Chain) -> impl DoubleEndedIterator<Item = SegmentName> {
    let size = backup.wal_segment_size;
    let begin = backup.start_lsn.0 / size.bytes();
    let last = chain.last;
    let lineage = lineage.clone();
    (begin..begin + chain.segments).map(move |number| {
        let name = segment(lineage.timeline_of(number, size), number, size);
        // The exception of `from_backup`: the last may have been found under an older timeline.
        last.filter(|last| last.number(size) == Some(number)).unwrap_or(name)
    })
}

fn segment(timeline: TimelineId, number: u64, size: SegmentSize) -> SegmentName {
    SegmentName::at(timeline, Lsn(number.saturating_mul(size.bytes())), size)
}

/// The name under which the backup's own list has the segment of this number.
fn under_older_timeline(backup: &Manifest, number: u64) -> Option<SegmentName> {
    let size = backup.wal_segment_size;
    backup.wal.iter().map(|needed| needed.name).rfind(|name| name.number(size) == Some(number))
}

/// The first segment of the lineage at or after this number that is there.
fn first_behind(
    lineage: &Lineage,
    size: SegmentSize,
    number: u64,
    archived: &Archived,
    own: &BTreeSet<SegmentName>,
) -> Option<SegmentName> {
    let on_the_way = |name: &SegmentName| {
        name.number(size).is_some_and(|n| n >= number && lineage.timeline_of(n, size) == name.timeline())
    };
    let in_archive = lineage.steps().filter_map(|step| archived.get(&step.timeline)).flatten();
    in_archive.chain(own).filter(|name| on_the_way(name)).min_by_key(|name| name.number(size)).copied()
}

/// Whether everything up to this position is in the chain.
pub fn reaches(chain: &Chain, position: Lsn) -> bool {
    position <= chain.end && chain.last.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{backup, lsn, names as parse, tli};
    use super::*;
    use crate::repo::manifest::NeededWal;

    fn archived(segments: &[&str]) -> Archived {
        let mut all = Archived::new();
        for name in parse(segments) {
            all.entry(name.timeline()).or_default().push(name);
        }
        all
    }

    const A: [&str; 4] = [
        "000000010000000000000003",
        "000000010000000000000004",
        "000000010000000000000005",
        "000000010000000000000006",
    ];

    #[test]
    fn to_the_end_of_the_archive() {
        let backup = backup("a", 1, "0/3000028", "0/3000100");
        let chain = from_backup(&backup, &Lineage::first(), &archived(&A));
        assert_eq!((chain.segments, chain.end, chain.hole), (4, lsn("0/7000000"), None));
    }

    #[test]
    fn a_hole_is_named() {
        let backup = backup("a", 1, "0/3000028", "0/3000100");
        let chain = from_backup(&backup, &Lineage::first(), &archived(&[A[0], A[1], A[3]]));
        let hole = chain.hole.clone().unwrap();
        assert_eq!((hole.missing.to_string().as_str(), hole.next.to_string().as_str()), (A[2], A[3]));
        assert_eq!(chain.last.unwrap().to_string(), A[1]);
        assert!(reaches(&chain, lsn("0/5000000")) && !reaches(&chain, lsn("0/5000001")));
        let none = from_backup(&backup, &Lineage::first(), &archived(&[]));
        assert!(none.last.is_none() && none.hole.is_none() && !reaches(&none, lsn("0/3000100")));
    }

    #[test]
    fn a_segment_that_was_fetched_half_full_ends_the_chain() {
        let mut backup = backup("a", 1, "0/3000028", "0/4000100");
        backup.from_standby = true;
        backup.wal[1].own = true;
        let chain = |there: &[&str]| from_backup(&backup, &Lineage::first(), &archived(there));
        let at_the_end = chain(&[A[0]]);
        assert_eq!((at_the_end.segments, at_the_end.end, &at_the_end.hole), (2, lsn("0/4000100"), &None));
        assert!(reaches(&at_the_end, backup.end_lsn));
        let found: Vec<_> = names(&backup, &Lineage::first(), &at_the_end).collect();
        assert_eq!(found, parse(&A[..2]));
        let before_others = chain(&[A[0], A[2], A[3]]);
        assert_eq!((before_others.last, before_others.end), (Some(parse(&A[1..2])[0]), lsn("0/4000100")));
        let hole = before_others.hole.unwrap();
        assert_eq!((hole.missing.to_string().as_str(), hole.next.to_string().as_str()), (A[1], A[2]));
        // Once the archive has it, it is whole; and so is one in which the backup does not end.
        assert_eq!(chain(&A).end, lsn("0/7000000"));
        let mut longer = backup.clone();
        longer.end_lsn = lsn("0/5000000");
        assert_eq!(from_backup(&longer, &Lineage::first(), &archived(&[A[0], A[2], A[3]])).end, lsn("0/7000000"));
    }

    #[test]
    fn across_timelines_and_through_the_backups_own_segments() {
        let mut backup = backup("a", 1, "0/3000028", "0/4000100");
        backup.wal[1] = NeededWal { own: true, ..backup.wal[1].clone() };
        let lineage = Lineage::new(tli(2), [(tli(1), lsn("0/5800000"))]);
        let there = archived(&[A[0], A[2], A[3], "000000020000000000000005", "000000020000000000000006"]);
        let chain = from_backup(&backup, &lineage, &there);
        let found: Vec<String> = names(&backup, &lineage, &chain).map(|name| name.to_string()).collect();
        assert_eq!(found, [A[0], A[1], "000000020000000000000005", "000000020000000000000006"]);
        assert_eq!(chain.hole, None);
    }

    #[test]
    fn segments_of_the_old_timeline_behind_the_branch_are_no_part_of_it() {
        let backup = backup("a", 1, "0/3000028", "0/3000100");
        let lineage = Lineage::new(tli(2), [(tli(1), lsn("0/4800000"))]);
        let chain = from_backup(&backup, &lineage, &archived(&[A[0], A[1], A[2], A[3]]));
        assert_eq!((chain.segments, chain.hole), (1, None));
    }

    #[test]
    fn the_older_timelines_segment_is_enough_for_the_backup_alone() {
        let backup = backup("a", 1, "0/3000028", "0/4000100");
        let lineage = Lineage::new(tli(2), [(tli(1), lsn("0/4000200"))]);
        let chain = from_backup(&backup, &lineage, &archived(&[A[0], A[1], "000000020000000000000005"]));
        assert_eq!(chain.last.unwrap().to_string(), A[1]);
        assert_eq!(chain.hole.unwrap().next.to_string(), "000000020000000000000005");
    }
}
