//! Which segments some WAL lies in.

use super::pg_manifest::WalRange;
use super::{Lsn, ParseError, SegmentName, SegmentSize};
use std::collections::BTreeMap;

/// More than any backup spans: at 16 MiB, 16 TiB of WAL.
const MAX_SEGMENTS: u64 = 1 << 20;

/// The segments that replay of these ranges asks for, oldest first.
///
/// Where one timeline ends and the next begins within a segment, only the later timeline's file is needed: it begins with a
/// copy of the earlier one's pages, Postgres asks for it first, and the earlier one may never have been completed.
pub fn needed_segments(ranges: &[WalRange], size: SegmentSize) -> Result<Vec<SegmentName>, ParseError> {
    let mut segments: BTreeMap<u64, SegmentName> = BTreeMap::new();
    for range in ranges {
        let bad = |why: &str| {
            let WalRange { timeline, start, end } = range;
            ParseError::new("WAL range", format!("{start} to {end} on timeline {timeline} {why}"))
        };
        if range.end < range.start {
            return Err(bad("ends before it begins"));
        }
        let Some(last) = range.end.0.checked_sub(1).filter(|last| *last >= range.start.0) else { continue };
        let (first, last) = (range.start.0 / size.bytes(), last / size.bytes());
        if last - first >= MAX_SEGMENTS {
            return Err(bad("is more WAL than any backup spans"));
        }
        for number in first..=last {
            let name = SegmentName::at(range.timeline, Lsn(number * size.bytes()), size);
            let kept = segments.entry(number).or_insert(name);
            *kept = name.max(*kept);
        }
    }
    Ok(segments.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::super::TimelineId;
    use super::*;

    fn needed(ranges: &[(u32, u64, u64)]) -> Result<Vec<String>, ParseError> {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|(timeline, start, end)| WalRange {
                timeline: TimelineId::new(*timeline).unwrap(),
                start: Lsn(*start),
                end: Lsn(*end),
            })
            .collect();
        let names = needed_segments(&ranges, SegmentSize::DEFAULT)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_end_is_not_included() {
        assert_eq!(needed(&[(1, 0x200_0028, 0x200_0100)]).unwrap(), ["000000010000000000000002"]);
        assert_eq!(needed(&[(1, 0x200_0028, 0x300_0000)]).unwrap(), ["000000010000000000000002"]);
        let two = ["000000010000000000000002", "000000010000000000000003"];
        assert_eq!(needed(&[(1, 0x200_0028, 0x300_0001)]).unwrap(), two);
        let over = ["0000000100000000000000FF", "000000010000000100000000"];
        assert_eq!(needed(&[(1, 0xFF00_0028, 0x1_0000_0001)]).unwrap(), over);
        assert!(needed(&[]).unwrap().is_empty());
        assert!(needed(&[(1, 0x200_0028, 0x200_0028)]).unwrap().is_empty());
        assert!(needed(&[(1, 0, 0)]).unwrap().is_empty());
    }

    #[test]
    fn a_switch_of_timelines() {
        // The manifest lists the newest first.
        let names = needed(&[(2, 0x350_0000, 0x400_0100), (1, 0x200_0028, 0x350_0000)]).unwrap();
        assert_eq!(names, ["000000010000000000000002", "000000020000000000000003", "000000020000000000000004"]);
        // At a boundary nothing is shared.
        let names = needed(&[(2, 0x300_0000, 0x300_0100), (1, 0x200_0028, 0x300_0000)]).unwrap();
        assert_eq!(names, ["000000010000000000000002", "000000020000000000000003"]);
    }

    #[test]
    fn nonsense() {
        assert!(needed(&[(1, 5, 4)]).is_err());
        assert!(needed(&[(1, 0, u64::MAX)]).is_err());
        assert_eq!(needed(&[(1, u64::MAX - 1, u64::MAX)]).unwrap(), ["00000001FFFFFFFF000000FF"]);
    }
}
