//! Timelines: the way a timeline came, and which one to follow.

use super::Source;
use super::source::must_belong;
use crate::codec::{self, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SegmentSize, TimelineHistory, TimelineId, WalFileName};
use crate::repo::{BackupId, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// A stretch of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it branched off its parent; 0 for the first.
    pub begin: Lsn,
    /// Where the next one branched off it; none for the last.
    pub end: Option<Lsn>,
}

/// A timeline with its ancestors, oldest first: the way replay takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    timeline: TimelineId,
    ancestors: Vec<Step>,
    begin: Lsn,
    kept_in: Option<BackupId>,
}

impl Lineage {
    /// The lineage of a timeline whose history file has these lines: parent, and where it was left; oldest first.
    pub fn new(timeline: TimelineId, lines: impl IntoIterator<Item = (TimelineId, Lsn)>) -> Self {
        let mut begin = Lsn(0);
        let mut ancestors = Vec::new();
        for (parent, left) in lines {
            ancestors.push(Step { timeline: parent, begin, end: Some(left) });
            begin = left;
        }
        Self { timeline, ancestors, begin, kept_in: None }
    }

    /// The lineage of the first timeline.
    pub fn first() -> Self {
        Self::new(TimelineId::FIRST, [])
    }

    /// The timeline it leads to.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The backup that carries its history file, where the archive has none that can be read.
    pub fn kept_in(&self) -> Option<&BackupId> {
        self.kept_in.as_ref()
    }

    /// All its steps, oldest first.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = Step> + '_ {
        let last = Step { timeline: self.timeline, begin: self.begin, end: None };
        self.ancestors.iter().copied().chain([last])
    }

    /// The timelines before the last, oldest first, each with where it was left.
    pub fn parents(&self) -> &[Step] {
        &self.ancestors
    }

    fn step(&self, timeline: TimelineId) -> Option<Step> {
        self.steps().find(|step| step.timeline == timeline)
    }

    /// Whether replay along this lineage can begin at this backup: it starts and ends on it, before it was left.
    pub fn covers(&self, backup: &Manifest) -> bool {
        let starts = self
            .step(backup.start_timeline)
            .is_some_and(|step| step.begin <= backup.start_lsn && step.end.is_none_or(|end| backup.start_lsn < end));
        let ends = self
            .step(backup.end_timeline)
            .is_some_and(|step| step.begin <= backup.end_lsn && step.end.is_none_or(|end| backup.end_lsn <= end));
        starts && ends
    }

    /// The timeline under which recovery reads the segment of this number: the newest that has begun in it.
    pub fn timeline_of(&self, number: u64, size: SegmentSize) -> TimelineId {
        self.steps()
            .rev()
            .find(|step| step.begin.0 / size.bytes() <= number)
            .map_or(self.timeline, |step| step.timeline)
    }
}

/// Along which timeline to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetTimeline {
    /// The newest that the backup can reach.
    #[default]
    Latest,
    /// The backup's own.
    Current,
    /// This one.
    Number(TimelineId),
}

impl FromStr for TargetTimeline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "latest" => return Ok(Self::Latest),
            "current" => return Ok(Self::Current),
            _ => {}
        }
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let number = match hex {
            Some(digits) => crate::pg::hex_u32(digits, false),
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        number.and_then(TimelineId::new).map(Self::Number).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("no timeline: {text:?}"))
                .hint("give latest, current, a number like 3, or 0x3")
        })
    }
}

/// All lineages that the archive's history files tell of, by timeline.
pub type Lineages = BTreeMap<TimelineId, Lineage>;

/// The lineage of every timeline that the archive or a backup knows and whose history is there, in the archive or in a backup that
/// ended on it; the first needs none.
///
/// A history that is missing, deleted or damaged is left out: it must not stand in the way of what does not need it, and a plan
/// that does says so.
pub async fn lineages(source: &Source, backups: &[Manifest]) -> Result<Lineages> {
    let mut timelines: BTreeSet<TimelineId> = source.cluster.timelines().await?.into_iter().collect();
    timelines.extend(backups.iter().map(|backup| backup.end_timeline));
    let mut lineages = Lineages::from([(TimelineId::FIRST, Lineage::first())]);
    for timeline in timelines.into_iter().filter(|timeline| *timeline != TimelineId::FIRST) {
        let archived =
            source.cluster.history(timeline, &source.identities).await.map(|found| found.map(|it| it.history));
        let found = match usable(archived)? {
            Some(history) => Some((history, None)),
            None => kept_history(source, backups, timeline).await?.map(|(history, id)| (history, Some(id))),
        };
        if let Some((history, kept_in)) = found {
            let lines = history.ancestors.iter().map(|ancestor| (ancestor.timeline, ancestor.end));
            lineages.insert(timeline, Lineage { kept_in, ..Lineage::new(timeline, lines) });
        }
    }
    Ok(lineages)
}

/// A backup of a timeline whose history was never archived carries it itself.
async fn kept_history(
    source: &Source,
    backups: &[Manifest],
    timeline: TimelineId,
) -> Result<Option<(TimelineHistory, BackupId)>> {
    for backup in backups.iter().filter(|backup| backup.end_timeline == timeline) {
        let read = own_history(source, &backup.id, timeline).await.map(|found| found.map(|(_, history)| history));
        if let Some(history) = usable(read)? {
            return Ok(Some((history, backup.id.clone())));
        }
    }
    Ok(None)
}

/// The history file that a backup carries, and what it says; `None` where it carries none.
pub async fn own_history(
    source: &Source,
    id: &BackupId,
    timeline: TimelineId,
) -> Result<Option<(Vec<u8>, TimelineHistory)>> {
    let layout = source.cluster.layout();
    let key = layout.backup_wal(id, &WalFileName::History(timeline));
    let object = match source.cluster.get(&key).await {
        Ok(object) => object,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let read = || {
        let (header, bytes) = codec::plain_of(&object.body, &source.identities)?;
        must_belong(&header, Kind::Wal, layout.system())?;
        let history = TimelineHistory::parse(timeline, &bytes)
            .map_err(|error| Error::new(ErrorKind::Corrupt, error.to_string()))?;
        Ok((bytes, history))
    };
    read().map(Some).map_err(|error: Error| error.context(&key))
}

/// Deleted and damaged are as good as missing, and worth a line in the log; trouble on the way is not.
fn usable<T>(read: Result<Option<T>>) -> Result<Option<T>> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::Gap | ErrorKind::Corrupt | ErrorKind::Mismatch) => {
            tracing::warn!("a timeline's history is passed over: {error}");
            Ok(None)
        }
        answer => answer,
    }
}

/// Which timeline to follow from a backup, or why there is none.
pub fn follow<'a>(asked: TargetTimeline, backup: &Manifest, lineages: &'a Lineages) -> Option<&'a Lineage> {
    match asked {
        TargetTimeline::Current => lineages.get(&backup.end_timeline).filter(|lineage| lineage.covers(backup)),
        TargetTimeline::Number(timeline) => lineages.get(&timeline).filter(|lineage| lineage.covers(backup)),
        TargetTimeline::Latest => lineages.values().rev().find(|lineage| lineage.covers(backup)),
    }
}

/// The value of `recovery_target_timeline`, and what to tell the operator about it.
///
/// `latest` stays `latest` only where Postgres' own search is bound to find the same: it tries one number after the other and
/// stops at the first without a history file, and takes the highest, related or not. Else the number is written (F5).
pub fn setting(
    asked: TargetTimeline,
    chosen: &Lineage,
    backup: &Manifest,
    lineages: &Lineages,
) -> (String, Option<String>) {
    let number = chosen.timeline().to_string();
    match asked {
        TargetTimeline::Current => return ("current".into(), None),
        TargetTimeline::Number(_) => return (number, None),
        TargetTimeline::Latest => {}
    }
    let mut found = backup.end_timeline;
    while let Some(next) =
        found.get().checked_add(1).and_then(TimelineId::new).filter(|next| lineages.contains_key(next))
    {
        found = next;
    }
    let others = branches_beside(chosen, backup, lineages);
    if found == chosen.timeline() && others.is_empty() {
        return ("latest".into(), None);
    }
    let note = if others.is_empty() {
        format!("timeline {number} is followed by its number: searching for the latest would end at timeline {found}")
    } else {
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        format!(
            "timeline {number} is followed, the newest; from this backup one could also follow timeline {} (--target-timeline)",
            others.join(" or ")
        )
    };
    (number, Some(note))
}

/// Ends of other branches that the backup could follow as well.
fn branches_beside(chosen: &Lineage, backup: &Manifest, lineages: &Lineages) -> Vec<TimelineId> {
    let is_ancestor =
        |timeline| lineages.values().any(|other| other.parents().iter().any(|step| step.timeline == timeline));
    lineages
        .values()
        .filter(|other| other.timeline() != chosen.timeline() && other.covers(backup))
        .map(Lineage::timeline)
        .filter(|timeline| !is_ancestor(*timeline))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shelf, backup, lsn, tli};
    use super::*;

    const HISTORY: &[u8] = b"1\t0/5000000\tno recovery target specified\n";

    #[tokio::test]
    async fn a_history_that_only_the_backup_has_is_found() {
        let shelf = Shelf::new();
        let backup = backup("a", 2, "0/6000028", "0/6000100");
        let name = WalFileName::History(tli(2));
        let (archived, own) = (shelf.layout().wal(&name), shelf.layout().backup_wal(&backup.id, &name));
        let found = async || super::lineages(&shelf.source(), std::slice::from_ref(&backup)).await.unwrap();
        assert_eq!(found().await.len(), 1);
        shelf.place(&own, Kind::Wal, tli(2), Lsn(0), HISTORY);
        let lineage = found().await.remove(&tli(2)).unwrap();
        assert!(lineage.covers(&backup));
        assert_eq!(lineage.kept_in(), Some(&backup.id));
        // Of another kind, or damaged: as if there were none.
        shelf.place(&own, Kind::BackupData, tli(2), Lsn(0), HISTORY);
        assert_eq!(found().await.len(), 1);
        shelf.place(&own, Kind::Wal, tli(2), Lsn(0), b"junk");
        assert_eq!(found().await.len(), 1);
        // The archive's comes first.
        shelf.place(&own, Kind::Wal, tli(2), Lsn(0), HISTORY);
        shelf.place(&archived, Kind::Wal, tli(2), Lsn(0), HISTORY);
        assert_eq!(found().await[&tli(2)].kept_in(), None);
    }

    #[tokio::test]
    async fn a_damaged_history_stands_in_nobodys_way() {
        let shelf = Shelf::new();
        let backup = backup("a", 2, "0/6000028", "0/6000100");
        shelf.place(&shelf.layout().wal(&WalFileName::History(tli(2))), Kind::Wal, tli(2), Lsn(0), HISTORY);
        shelf.write(&shelf.layout().wal(&WalFileName::History(tli(3))), b"");
        shelf.place(&shelf.layout().wal(&WalFileName::History(tli(4))), Kind::Wal, tli(5), Lsn(0), HISTORY);
        let found = super::lineages(&shelf.source(), &[backup]).await.unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [tli(1), tli(2)]);
    }

    fn lineages(histories: &[(u32, &[(u32, &str)])]) -> Lineages {
        let mut all = Lineages::from([(TimelineId::FIRST, Lineage::first())]);
        for (timeline, lines) in histories {
            let lines = lines.iter().map(|(parent, left)| (tli(*parent), lsn(left)));
            all.insert(tli(*timeline), Lineage::new(tli(*timeline), lines));
        }
        all
    }

    #[test]
    fn the_newest_timeline_that_has_begun_names_the_segment() {
        let all = lineages(&[(3, &[(1, "0/3500000"), (2, "0/3600000")])]);
        let size = SegmentSize::new(1 << 20).unwrap();
        let lineage = &all[&tli(3)];
        let named: Vec<u32> = [0x34, 0x35, 0x36, 0x37].map(|n| lineage.timeline_of(n, size).get()).to_vec();
        assert_eq!(named, [1, 2, 3, 3]);
    }

    #[test]
    fn a_backup_beyond_the_branch_is_not_covered() {
        let all = lineages(&[(2, &[(1, "0/5000000")])]);
        let before = backup("a", 1, "0/3000028", "0/3000100");
        let across = backup("b", 1, "0/4000028", "0/5000100");
        assert_eq!(follow(TargetTimeline::Latest, &before, &all).unwrap().timeline(), tli(2));
        assert_eq!(follow(TargetTimeline::Latest, &across, &all).unwrap().timeline(), tli(1));
        assert_eq!(follow(TargetTimeline::Number(tli(2)), &across, &all), None);
        assert_eq!(follow(TargetTimeline::Current, &before, &all).unwrap().timeline(), tli(1));
    }

    #[test]
    fn latest_is_written_only_where_it_cannot_go_wrong() {
        let backup = backup("a", 1, "0/3000028", "0/3000100");
        let setting_of = |all: &Lineages| {
            let chosen = follow(TargetTimeline::Latest, &backup, all).unwrap();
            setting(TargetTimeline::Latest, chosen, &backup, all)
        };
        assert_eq!(setting_of(&lineages(&[])), ("latest".into(), None));
        assert_eq!(setting_of(&lineages(&[(2, &[(1, "0/5000000")])])), ("latest".into(), None));
        // A hole in the numbers stops Postgres' search.
        let (written, note) = setting_of(&lineages(&[(3, &[(1, "0/5000000")])]));
        assert!(written == "3" && note.unwrap().contains("end at timeline 1"));
        // A copy was promoted with archiving on: two branches.
        let (written, note) = setting_of(&lineages(&[(2, &[(1, "0/5000000")]), (3, &[(1, "0/6000000")])]));
        assert!(written == "3" && note.unwrap().contains("timeline 2"));
        // An unrelated newest timeline: Postgres would refuse to start.
        let (written, _) = setting_of(&lineages(&[(2, &[(1, "0/5000000")]), (3, &[(1, "0/2000000")])]));
        assert_eq!(written, "2");
    }

    #[test]
    fn timelines() {
        let number = |n| TimelineId::new(n).map(TargetTimeline::Number).unwrap();
        for (text, wanted) in [
            ("latest", TargetTimeline::Latest),
            ("current", TargetTimeline::Current),
            ("1", number(1)),
            ("12", number(12)),
            ("0xC", number(12)),
        ] {
            assert_eq!(text.parse::<TargetTimeline>().unwrap(), wanted, "{text}");
        }
        for text in ["", "0", "-1", "+1", "0x", "0xg", "Latest", "4294967296", "1 "] {
            assert!(text.parse::<TargetTimeline>().is_err(), "{text:?}");
        }
    }
}
