//! The WAL that lies in the archive: timelines, their histories, their segments.

use super::repository::Cluster;
use crate::error::Result;
use crate::pg::{SegmentName, TimelineId, WalFileName};
use crate::storage::{Key, ListRequest};

impl Cluster {
    /// The timelines that have a folder below `wal/`, sorted.
    pub async fn timelines(&self) -> Result<Vec<TimelineId>> {
        let folders = self.storage.folders(&self.layout.all_wal()).await?;
        let mut timelines: Vec<_> = folders.iter().filter_map(|name| TimelineId::from_hex(name).ok()).collect();
        timelines.sort_unstable();
        timelines.dedup();
        Ok(timelines)
    }

    /// The segments of a timeline that lie in the archive, sorted, from `from` on. Twelve bytes of memory each.
    pub async fn segments(&self, timeline: TimelineId, from: Option<SegmentName>) -> Result<Vec<SegmentName>> {
        let mut segments = Vec::new();
        self.each_segment(timeline, from, |name| segments.push(name)).await?;
        segments.sort_unstable();
        segments.dedup();
        Ok(segments)
    }

    /// Shows every segment of a timeline from `from` on, in the order in which the store lists, perhaps twice. One page of the
    /// listing in memory.
    pub(super) async fn each_segment(
        &self,
        timeline: TimelineId,
        from: Option<SegmentName>,
        mut show: impl FnMut(SegmentName),
    ) -> Result<()> {
        let start_after =
            from.filter(|_| self.known_capabilities().start_after).and_then(|name| self.just_before(name));
        let mut request = ListRequest { start_after, ..ListRequest::prefix(self.layout.wal_of(timeline)) };
        loop {
            let page = self.storage.list(&request).await?;
            for entry in &page.entries {
                // Names of exactly 24 digits: `.partial` and what lies beside it are no segments.
                if let Ok(name) = entry.key.name().parse::<SegmentName>()
                    && name.timeline() == timeline
                    && from.is_none_or(|from| name >= from)
                {
                    show(name);
                }
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(()),
            }
        }
    }

    /// A key that sorts before the segment's and behind that of every segment but a few before it: its name without the last
    /// digit. Listing after it does not leave the segment out, as listing after the segment itself would.
    fn just_before(&self, name: SegmentName) -> Option<Key> {
        let key = self.layout.wal(&WalFileName::Segment(name));
        let shorter = key.as_str().get(..key.as_str().len().checked_sub(1)?)?;
        Key::new(shorter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fault, Personality, Shelf, cluster, segment, timeline};
    use super::*;
    use crate::storage::{Capabilities, StorageErrorKind};
    use std::sync::Arc;

    fn shelf(personality: Personality) -> (Arc<Shelf>, Cluster) {
        let shelf = Arc::new(Shelf::new(personality));
        for number in [1, 2, 0x0F, 0x10, 0x11, 0x1_00] {
            shelf.place(&format!("7/wal/00000001/{}", segment(number)), "x");
        }
        for other in [
            "00000001/000000010000000000000003.partial",
            "00000001/000000010000000000000004.00000028.backup",
            "00000001/000000020000000000000005",
            "00000003/00000003.history",
            "0000000A/0000000A0000000000000006",
            "junk/x",
        ] {
            shelf.place(&format!("7/wal/{other}"), "x");
        }
        let cluster = cluster(&shelf);
        (shelf, cluster)
    }

    #[tokio::test]
    async fn timelines() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        assert_eq!(cluster.timelines().await.unwrap(), [timeline(1), timeline(3), timeline(10)]);
        shelf.fault("LIST", "7/wal/", Fault::Fail(StorageErrorKind::Unavailable));
        assert!(cluster.timelines().await.is_err());
    }

    #[tokio::test]
    async fn segments() {
        let inexact = Capabilities { start_after: false, ..Capabilities::ALL };
        for known in [Capabilities::ALL, inexact] {
            for exact in [true, false] {
                let (shelf, cluster) = shelf(Personality { exact, known: Some(known), ..Personality::HONEST });
                let all = [1, 2, 0x0F, 0x10, 0x11, 0x1_00].map(segment);
                assert_eq!(cluster.segments(timeline(1), None).await.unwrap(), all);
                for (from, expected) in
                    [(1, &all[..]), (2, &all[1..]), (3, &all[2..]), (0x10, &all[3..]), (0x12, &all[5..]), (0x1_01, &[])]
                {
                    let found = cluster.segments(timeline(1), Some(segment(from))).await.unwrap();
                    assert_eq!(found, expected, "from {from:#x}");
                }
                assert_eq!(cluster.segments(timeline(2), None).await.unwrap(), []);
                shelf.fault("LIST", "7/wal/", Fault::Fail(StorageErrorKind::Unavailable));
                assert!(cluster.segments(timeline(1), None).await.is_err());
            }
        }
    }
}
