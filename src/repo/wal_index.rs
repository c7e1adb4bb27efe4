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
                if let Ok(name) = entry.key.name().parse::<SegmentName>() {
                    if name.timeline() == timeline && from.is_none_or(|from| name >= from) {
                        show(name);
                    }
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
