//! Which WAL segments a backup needs. Pure.

use super::flow::Point;
use super::pg_manifest::WalRange;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SegmentName, SegmentSize};
use std::collections::BTreeMap;

/// The segments that hold these ranges, oldest first.
///
/// Where a timeline ends inside a segment, the next one's segment of the same number holds the older WAL too; recovery reads
/// that one, and the older timeline's may never be complete. So for each number the newest timeline is needed.
pub(super) fn segments(ranges: &[WalRange], size: SegmentSize) -> Vec<SegmentName> {
    let mut newest = BTreeMap::new();
    for range in ranges {
        let (first, last) = (range.start.0 / size.bytes(), range.end.0.saturating_sub(1) / size.bytes());
        for number in first..=last {
            let timeline = newest.entry(number).or_insert(range.timeline);
            *timeline = range.timeline.max(*timeline);
        }
    }
    newest.into_iter().map(|(number, timeline)| SegmentName::at(timeline, Lsn(number * size.bytes()), size)).collect()
}

/// Holds the manifest's ranges against where the server said that the backup begins and ends.
pub(super) fn check(ranges: &[WalRange], start: Point, end: Point) -> Result<()> {
    let from = ranges.last().map(|range| (range.timeline, range.start));
    let to = ranges.first().map(|range| (range.timeline, range.end));
    if from == Some((start.timeline, start.lsn)) && to == Some((end.timeline, end.lsn)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Protocol,
        format!(
            "the server's backup_manifest speaks of other WAL than the backup: {from:?} to {to:?} instead of {} to {}",
            start.lsn, end.lsn
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::TimelineId;

    fn range(timeline: u32, start: u64, end: u64) -> WalRange {
        WalRange { timeline: TimelineId::new(timeline).unwrap(), start: Lsn(start), end: Lsn(end) }
    }

    fn names(ranges: &[WalRange]) -> Vec<String> {
        let size = SegmentSize::new(1 << 20).unwrap();
        segments(ranges, size)
            .iter()
            .map(|name| format!("{}:{}", name.timeline(), name.number(size).unwrap()))
            .collect()
    }

    #[test]
    fn the_newest_timeline_of_each_number() {
        let mb = 1 << 20;
        assert_eq!(names(&[range(1, 3 * mb + 40, 3 * mb + 100)]), ["1:3"]);
        assert_eq!(names(&[range(1, 3 * mb + 40, 4 * mb)]), ["1:3"]);
        assert_eq!(names(&[range(1, 3 * mb, 5 * mb + 1)]), ["1:3", "1:4", "1:5"]);
        assert_eq!(names(&[range(2, 4 * mb + 9, 5 * mb + 1), range(1, 3 * mb, 4 * mb + 9)]), ["1:3", "2:4", "2:5"]);
    }

    #[test]
    fn ranges_must_be_the_backups() {
        let point = |timeline, lsn| Point { lsn: Lsn(lsn), timeline: TimelineId::new(timeline).unwrap() };
        let ranges = [range(2, 200, 300), range(1, 100, 200)];
        assert!(check(&ranges, point(1, 100), point(2, 300)).is_ok());
        assert!(check(&ranges, point(1, 101), point(2, 300)).is_err());
        assert!(check(&ranges, point(1, 100), point(1, 300)).is_err());
        assert!(check(&[], point(1, 100), point(1, 300)).is_err());
    }
}
