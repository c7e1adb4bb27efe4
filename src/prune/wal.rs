//! Which WAL files stay.

use super::survey::{Other, Survey};
use crate::pg::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::repo::Manifest;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// The WAL that a plan leaves: everything from one position on, on whatever timeline; before it only what kept backups need to be
/// consistent.
///
/// One position for all timelines keeps more than is needed after a recovery to an earlier position, and never too little: where
/// one timeline branched off another, what leads there has smaller positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// The number of the first segment that stays in any case, and the size by which it counts; `None`: all stay.
    from: Option<(u64, SegmentSize)>,
    /// Segments before it that stay.
    needed: BTreeSet<SegmentName>,
    /// The timelines that were looked at and understood. What lies on others stays.
    timelines: BTreeSet<TimelineId>,
}

impl Remains {
    /// What stays for these backups: those in `anchors` with all that follows them, the others of `kept` with what they need, those
    /// in `pinned`, whose needs are not known, with all that follows.
    pub(super) fn new<'a>(
        survey: &Survey,
        finished: &[Option<Timestamp>],
        anchors: &BTreeSet<usize>,
        kept: &BTreeSet<usize>,
        pinned: impl Iterator<Item = &'a Other>,
    ) -> Self {
        let timelines =
            survey.ways.iter().map(|way| way.timeline).filter(|one| !survey.obscure.contains(one)).collect();
        let all = |places: &BTreeSet<usize>| places.iter().filter_map(|at| survey.backups.get(*at)).collect::<Vec<_>>();
        let needed = all(kept).into_iter().flat_map(needed_in_archive).collect();
        let mut remains = Self { from: None, needed, timelines };
        let Some(size) = survey.backups.first().map(|backup| backup.wal_segment_size) else { return remains };
        let ended = |at: &usize| finished.get(*at).copied().flatten();
        let Some(earliest) = anchors.iter().filter_map(ended).min() else { return remains };
        let in_window = kept.iter().filter(|at| ended(at).is_none_or(|ended| ended >= earliest)).copied().collect();
        let starts = all(&in_window).into_iter().map(|backup| backup.start_lsn);
        let pins = pinned.map(|other| other.start_lsn.unwrap_or(Lsn(0)));
        remains.from = starts.chain(pins).min().map(|start| (start.0 / size.bytes(), size));
        remains
    }

    /// Whether a WAL file stays. A history file always does.
    pub fn stays(&self, name: &WalFileName) -> bool {
        let segment = match name {
            WalFileName::History(_) => return true,
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment,
            WalFileName::BackupHistory { segment, .. } => segment,
        };
        let Some((from, size)) = self.from.filter(|_| self.timelines.contains(&segment.timeline())) else {
            return true;
        };
        segment.number(size).is_none_or(|number| number >= from) || self.needed.contains(segment)
    }

    /// The timelines on which WAL may go, in order.
    pub fn timelines(&self) -> impl Iterator<Item = TimelineId> + '_ {
        self.timelines.iter().copied().filter(|_| self.from.is_some())
    }

    /// The position from which on all WAL stays; `None`: all of it does.
    pub fn from(&self) -> Option<Lsn> {
        self.from.map(|(number, size)| Lsn(number.saturating_mul(size.bytes())))
    }
}

/// The segments of the archive that make a backup consistent.
fn needed_in_archive(backup: &Manifest) -> impl Iterator<Item = SegmentName> + '_ {
    backup.wal.iter().filter(|needed| !needed.own).map(|needed| needed.name)
}
