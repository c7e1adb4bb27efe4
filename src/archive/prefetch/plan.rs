//! Which segments replay will ask for next, and how many of them are fetched ahead.

use crate::pg::{SegmentName, SegmentSize, TimelineHistory, TimelineId};

/// What may lie ahead of replay in the spool, in bytes, where a helper fetches beside it; but one segment at least.
const BESIDE: u64 = 256 << 20;
/// What one call fetches together, its own file left out: replay waits for all of it.
const TOGETHER: u64 = 112 << 20;
/// Plain bytes of the objects that are in memory at once for what lies ahead. An object is held whole, compressed: this is the
/// worst that it can be.
const IN_MEMORY: u64 = 64 << 20;
/// However small segments are: further ahead nothing is gained.
const MOST_BESIDE: u64 = 64;
const MOST_TOGETHER: u64 = 32;

/// How many segments of this size a helper keeps ahead of replay: at least one, also of 1 GiB.
pub(super) fn beside(size: SegmentSize) -> usize {
    count((BESIDE / size.bytes()).clamp(1, MOST_BESIDE))
}

/// How many segments one call fetches beside its own. None of a size that would need more memory than is allowed ahead: such
/// a segment takes so long that a round trip more or less does not matter.
pub(super) fn together(size: SegmentSize) -> usize {
    if size.bytes() > IN_MEMORY { 0 } else { count((TOGETHER / size.bytes()).min(MOST_TOGETHER)) }
}

/// How many are fetched at once, of `concurrency` (`WALHALLA_CONCURRENCY`) that are allowed.
pub(super) fn at_once(size: SegmentSize, concurrency: usize) -> usize {
    concurrency.clamp(1, count((IN_MEMORY / size.bytes()).max(1)))
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The segments behind `position` that replay asks for first, oldest first. `history` is that of the timeline which recovery is
/// believed to follow; one that has nothing to do with `position` is not believed.
///
/// For each segment Postgres asks first for the newest timeline of its history that begins in it or before, and never for an
/// older timeline than it has come to (`XLogFileReadAnyTLI`).
pub(super) fn after(
    position: SegmentName,
    history: Option<&TimelineHistory>,
    size: SegmentSize,
    count: usize,
) -> Vec<SegmentName> {
    let history = history.filter(|history| history.contains(position.timeline()));
    std::iter::successors(position.next(size), |name| name.next(size))
        .take(count)
        .map(|name| match (history, name.number(size)) {
            (Some(history), Some(number)) => name.on(timeline_of(number, position.timeline(), history, size)),
            _ => name,
        })
        .collect()
}

fn timeline_of(number: u64, reached: TimelineId, history: &TimelineHistory, size: SegmentSize) -> TimelineId {
    let begun = history.spans().into_iter().filter(|span| span.begin.0 / size.bytes() <= number);
    begun.map(|span| span.timeline).max().map_or(reached, |newest| newest.max(reached))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(position: &str, history: Option<(u32, &str)>, count: usize) -> Vec<String> {
        let history = history.map(|(timeline, text)| {
            TimelineHistory::parse(TimelineId::new(timeline).unwrap(), text.as_bytes()).unwrap()
        });
        let names = after(position.parse().unwrap(), history.as_ref(), SegmentSize::DEFAULT, count);
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_timeline() {
        let next = ["0000000100000000000000FF", "000000010000000100000000", "000000010000000100000001"];
        assert_eq!(names("0000000100000000000000FE", None, 3), next);
        assert_eq!(names("0000000100000000000000FE", Some((1, "")), 2), next[..2]);
        assert!(names("0000000100000000000000FE", None, 0).is_empty());
        assert!(names("00000001FFFFFFFF000000FF", None, 3).is_empty(), "behind the end of all WAL");
    }

    #[test]
    fn across_switches() {
        let history = "1\t0/3500028\tx\n2\t0/5000000\ty\n";
        let expected = [
            "000000010000000000000002",
            "000000020000000000000003",
            "000000020000000000000004",
            "000000030000000000000005",
            "000000030000000000000006",
        ];
        assert_eq!(names("000000010000000000000001", Some((3, history)), 5), expected);
        // Replay that had to take the older timeline's file in the segment of the switch.
        assert_eq!(names("000000010000000000000003", Some((3, history)), 1), expected[2..3]);
        // It never goes back.
        assert_eq!(names("000000030000000000000001", Some((3, history)), 1), ["000000030000000000000002"]);
        // Two switches in one segment.
        let history = "1\t0/3500028\tx\n2\t0/3500100\ty\n";
        assert_eq!(names("000000010000000000000002", Some((3, history)), 1), ["000000030000000000000003"]);
    }

    #[test]
    fn a_history_of_others_is_not_believed() {
        let history = "1\t0/3500028\tx\n";
        assert_eq!(names("000000050000000000000004", Some((6, history)), 1), ["000000050000000000000005"]);
    }

    #[test]
    fn bounds_for_every_size() {
        for (mib, expected) in
            [(1, (64, 32, 8)), (16, (16, 7, 4)), (64, (4, 1, 1)), (128, (2, 0, 1)), (1024, (1, 0, 1))]
        {
            let size = SegmentSize::new(mib << 20).unwrap();
            assert_eq!((beside(size), together(size), at_once(size, 8)), expected, "{mib} MiB");
        }
        assert_eq!(at_once(SegmentSize::new(1 << 20).unwrap(), 1), 1);
        assert_eq!(at_once(SegmentSize::new(1 << 20).unwrap(), 128), 64);
    }
}
