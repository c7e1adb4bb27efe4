//! The plan, held against a checker that knows nothing of how it is made, and carried out on a directory.

use super::plan::{Plan, Reason};
use super::survey::{Extent, Other, Survey, Way};
use super::{execute, measure, survey};
use crate::codec::Kind;
use crate::config::Keep;
use crate::pg::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::reach::chain::{self, Archived};
use crate::reach::lineage::Lineage;
use crate::reach::testing::{Shelf, backup, tli};
use crate::repo::{BackupId, Manifest};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

/// The moment at which hour zero was.
fn at(hour: i64) -> Timestamp {
    "2026-01-05T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hour)
}

fn id(hour: i64, number: usize) -> BackupId {
    format!("{}-{number:06x}", at(hour).strftime("%Y%m%dT%H%M%SZ")).parse().unwrap()
}

/// A backup on one timeline that begins and ends in the segment of this number, at this hour.
fn taken(number: u64, timeline: u32, segment: u64, hour: i64) -> Manifest {
    let start = Lsn(segment * SIZE.bytes() + 0x28);
    let end = Lsn(segment * SIZE.bytes() + 0x100);
    let template = backup("a", timeline, &start.to_string(), &end.to_string());
    Manifest { id: id(hour, number as usize), finished_at: at(hour).to_string(), ..template }
}

fn keep(last: u32, daily: u32, weekly: u32, window_hours: u64) -> Keep {
    Keep { last, daily, weekly, window: Duration::from_secs(window_hours * 3600), permanent: Vec::new() }
}

/// A repository as it might be: one hour makes one segment.
#[derive(Debug, Clone)]
struct World {
    lineages: Vec<(Lineage, i64)>,
    archived: Archived,
    backups: Vec<Manifest>,
    now: i64,
}

impl World {
    /// One timeline of this many segments, with backups in these.
    fn straight(segments: u64, backups: &[u64]) -> Self {
        let all = (0..segments).map(|number| segment(1, number)).collect();
        let backups = backups.iter().map(|number| taken(*number, 1, *number, *number as i64)).collect();
        Self {
            lineages: vec![(Lineage::first(), segments as i64)],
            archived: Archived::from([(tli(1), all)]),
            backups,
            now: segments as i64,
        }
    }

    fn lose(mut self, timeline: u32, number: u64) -> Self {
        self.archived.get_mut(&tli(timeline)).unwrap().retain(|name| *name != segment(timeline, number));
        self
    }

    fn survey(&self) -> Survey {
        let mut backups = self.backups.clone();
        backups.sort_by_key(|backup| (backup.end_lsn, backup.finished_at.clone()));
        let ways = self.lineages.iter().map(|(lineage, tip)| {
            let covered = backups.iter().enumerate().filter(|(_, backup)| lineage.covers(backup));
            let extents = covered.filter_map(|(at, backup)| {
                let chain = chain::from_backup(backup, lineage, &self.archived);
                chain::reaches(&chain, backup.end_lsn).then_some(Extent { backup: at, end: chain.end })
            });
            Way { timeline: lineage.timeline(), extents: extents.collect(), tip: Some(at(*tip)) }
        });
        let ways = ways.collect();
        Survey {
            now: at(self.now),
            backups,
            damaged: Vec::new(),
            unfinished: Vec::new(),
            ways,
            obscure: BTreeSet::new(),
        }
    }

    /// What the plan leaves.
    fn pruned(&self, plan: &Plan) -> Self {
        let goes: BTreeSet<_> = plan.gone().cloned().collect();
        let mut left = self.clone();
        left.backups.retain(|backup| !goes.contains(&backup.id));
        for segments in left.archived.values_mut() {
            segments.retain(|name| plan.wal.stays(&WalFileName::Segment(*name)));
        }
        left
    }

    /// Whether this position, at this hour, can be restored along a lineage: by the definition, not by any cleverness.
    fn restorable(&self, lineage: &Lineage, position: u64, hour: i64) -> bool {
        let there = |number: u64| {
            let name = segment(lineage.timeline_of(number, SIZE).get(), number);
            self.archived.get(&name.timeline()).is_some_and(|segments| segments.contains(&name))
        };
        self.backups.iter().any(|backup| {
            let first = backup.start_lsn.0 / SIZE.bytes();
            let ended: Timestamp = backup.finished_at.parse().unwrap();
            lineage.covers(backup) && first <= position && ended <= at(hour) && (first..=position).all(there)
        })
    }
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::at(tli(timeline), Lsn(number * SIZE.bytes()), SIZE)
}

fn kept(plan: &Plan) -> Vec<(String, Vec<Reason>)> {
    let kept = plan.backups.iter().filter(|backup| !backup.goes());
    kept.map(|backup| (backup.finished_at.clone(), backup.stays.clone())).collect()
}

#[test]
fn days_weeks_and_the_window() {
    // A backup every night for forty days; a Monday is day zero.
    let nights: Vec<u64> = (0..40).map(|day| day * 24 + 2).collect();
    let world = World::straight(40 * 24, &nights);
    let plan = Plan::new(&world.survey(), &keep(1, 7, 4, 24 * 24));
    let kept = kept(&plan);
    let days: Vec<_> = kept.iter().map(|(ended, _)| ended.get(..10).unwrap().to_owned()).collect();
    // The base of the window, three Sundays, the last seven days (the last week's newest is among them).
    let mut expected = vec!["2026-01-20".to_owned(), "2026-01-25".into(), "2026-02-01".into()];
    expected.extend((7..=13).map(|day| format!("2026-02-{day:02}")));
    assert_eq!(days, expected);
    assert_eq!(kept[0].1, [Reason::Window]);
    assert_eq!(kept[1].1, [Reason::Weekly("2026-W04".into())]);
    assert!(kept[9].1.contains(&Reason::Last) && kept[9].1.contains(&Reason::Daily("2026-02-13".into())));
    assert_eq!(plan.wal.from(), Some(Lsn((15 * 24 + 2) * SIZE.bytes())));
    // Without a window only the WAL behind the newest stays, and what older ones need.
    let plan = Plan::new(&world.survey(), &keep(1, 0, 2, 0));
    let stays = |number| plan.wal.stays(&WalFileName::Segment(segment(1, number)));
    assert!(stays(39 * 24 + 2) && !stays(39 * 24 + 1));
    assert!(stays(34 * 24 + 2) && !stays(34 * 24 + 3) && !stays(34 * 24 + 1));
    assert!(plan.wal.stays(&"00000001.history".parse().unwrap()));
    let beside = |text: &str| plan.wal.stays(&text.parse().unwrap());
    assert!(!beside("000000010000000000000001.partial") && !beside("000000010000000000000001.00000028.backup"));
    assert!(plan.wal.stays(&WalFileName::Segment(segment(9, 1))), "a timeline that nobody looked at");
}

#[test]
fn what_stays_in_any_case() {
    let world = World::straight(400, &[1, 100, 390]);
    let none = keep(1, 0, 0, 0);
    let gone = |survey: &Survey, keep: &Keep| -> Vec<u64> {
        let plan = Plan::new(survey, keep);
        let numbers = survey.backups.iter().map(|backup| backup.start_lsn.0 / SIZE.bytes());
        numbers.zip(&plan.backups).filter(|(_, backup)| backup.goes()).map(|(number, _)| number).collect()
    };
    assert_eq!(gone(&world.survey(), &none), [1, 100]);
    let by_label = Keep { permanent: vec!["test".into()], ..none.clone() };
    assert_eq!(gone(&world.survey(), &by_label), [0_u64; 0]);
    let by_id = Keep { permanent: vec![id(100, 100).to_string()], ..none.clone() };
    assert_eq!(gone(&world.survey(), &by_id), [1]);
    // The newest has damaged pages: the last good one stays as well.
    let mut survey = world.survey();
    survey.backups[2].damaged = vec!["page 3".into()];
    assert_eq!(gone(&survey, &none), [1]);
    // The newest lacks WAL: it is no good backup, and too young to be given up.
    assert_eq!(gone(&world.clone().lose(1, 390).survey(), &none), [1]);
    // None is good: nothing goes, WAL least of all.
    let lost = world.clone().lose(1, 1).lose(1, 100).lose(1, 390).survey();
    assert_eq!(gone(&lost, &none), [0_u64; 0]);
    assert_eq!(Plan::new(&lost, &none).wal.from(), None);
    // An incremental backup keeps what it builds upon.
    let mut survey = world.survey();
    survey.backups[2].parent = Some(id(100, 100));
    survey.backups[1].parent = Some(id(1, 1));
    assert_eq!(gone(&survey, &none), [0_u64; 0]);
}

#[test]
fn what_cannot_be_read_or_may_be_under_way_keeps_its_wal() {
    let world = World::straight(400, &[1, 390]);
    let from = |survey: &Survey| Plan::new(survey, &keep(1, 0, 0, 0)).wal.from().map(|from| from.0 / SIZE.bytes());
    let other = |hour, number, segment: Option<u64>| Other {
        id: id(hour, number),
        start_lsn: segment.map(|segment| Lsn(segment * SIZE.bytes())),
    };
    assert_eq!(from(&world.survey()), Some(390));
    let mut survey = world.survey();
    survey.unfinished = vec![other(395, 7, Some(50)), other(1, 8, Some(1))];
    let plan = Plan::new(&survey, &keep(1, 0, 0, 0));
    assert_eq!((plan.under_way.as_slice(), plan.given_up.as_slice()), (&[id(395, 7)][..], &[id(1, 8)][..]));
    assert_eq!(from(&survey), Some(50));
    survey.damaged = vec![other(2, 9, Some(20))];
    assert_eq!(from(&survey), Some(20));
    assert!(!Plan::new(&survey, &keep(1, 0, 0, 0)).gone().any(|gone| *gone == id(2, 9)));
    survey.damaged = vec![other(2, 9, None)];
    assert_eq!(from(&survey), Some(0), "nobody knows where it begins");
    let mut survey = world.survey();
    survey.obscure = BTreeSet::from([tli(1)]);
    let plan = Plan::new(&survey, &keep(1, 0, 0, 0));
    assert!(plan.wal.stays(&WalFileName::Segment(segment(1, 5))));
}

#[test]
fn a_hole_makes_the_backup_behind_it_precious() {
    let world = World::straight(100, &[10, 20, 30, 40, 50, 60]).lose(1, 35);
    let plan = Plan::new(&world.survey(), &keep(1, 0, 0, 75));
    let kept: Vec<_> = kept(&plan).into_iter().map(|(ended, _)| ended).collect();
    let expected: Vec<_> = [20, 40, 60].map(|hour| at(hour).to_string()).into();
    assert_eq!(kept, expected);
}

fn worlds() -> impl Strategy<Value = World> {
    let segments = 60_u64;
    let backups = proptest::collection::btree_set(0..segments - 1, 0..12);
    let losses = proptest::collection::btree_set(0..segments, 0..4);
    // Where the second timeline branches off the first, where its backups are, and how long it has become.
    let branch = proptest::option::of((5..segments, proptest::collection::btree_set(0..30_u64, 0..5), 1..40_u64));
    (backups, losses, branch).prop_map(move |(backups, losses, branch)| {
        let backups: Vec<u64> = backups.into_iter().collect();
        let mut world = World::straight(segments, &backups);
        if let Some((branched, later, length)) = branch {
            let line = Lineage::new(tli(2), [(tli(1), Lsn(branched * SIZE.bytes() + 0x800))]);
            // The first segment of the new timeline is a copy of the old one's, up to the branch; time goes on behind.
            let second = (branched..branched + length).map(|number| segment(2, number)).collect();
            world.archived.insert(tli(2), second);
            world.now = (segments + length) as i64;
            for number in later.into_iter().filter(|number| *number + 1 < length) {
                let mut one = taken(number + 1000, 2, branched + number + 1, (segments + number + 1) as i64);
                one.id = id((segments + number + 1) as i64, 1000 + number as usize);
                world.backups.push(one);
            }
            world.lineages.push((line, world.now));
        }
        losses.into_iter().fold(world, |world, number| world.lose(1, number))
    })
}

proptest! {
    /// After any prune every promised moment is restorable that was so before, and every kept backup is.
    #[test]
    fn no_promised_moment_is_lost(
        world in worlds(), last in 1_u32..4, daily in 0_u32..4, weekly in 0_u32..3, window in 0_u64..100
    ) {
        let plan = Plan::new(&world.survey(), &keep(last, daily, weekly, window));
        let left = world.pruned(&plan);
        let window_from = world.now - window as i64;
        for (lineage, _) in &world.lineages {
            let begun = lineage.parents().last().and_then(|parent| parent.end).map(|end| end.0 / SIZE.bytes());
            for position in 0..100_u64 {
                // When this segment was current: on the second timeline the clock had gone on.
                let hour = match begun {
                    Some(begun) if position >= begun => 60 + (position - begun) as i64,
                    _ => position as i64,
                };
                if hour >= window_from && hour <= world.now && world.restorable(lineage, position, hour) {
                    prop_assert!(
                        left.restorable(lineage, position, hour),
                        "timeline {}, segment {position}, hour {hour}: {plan:?}", lineage.timeline()
                    );
                }
            }
        }
        for backup in &left.backups {
            let was = |world: &World| world.lineages.iter().any(|(lineage, _)| {
                let end = backup.end_lsn.0 / SIZE.bytes();
                world.restorable(lineage, end, 1_000_000)
            });
            prop_assert!(!was(&world) || was(&left), "{} lost its WAL", backup.id);
        }
        let (before, after) = (world.survey(), left.survey());
        let newest = |survey: &Survey| {
            let good = survey.ways.iter().flat_map(|way| &way.extents);
            good.map(|extent| survey.backups[extent.backup].finished_at.clone()).max()
        };
        prop_assert_eq!(newest(&before), newest(&after), "the last good backup");
        // Once more finds nothing to do.
        let again = Plan::new(&after, &keep(last, daily, weekly, window));
        prop_assert_eq!(again.gone().count(), 0);
    }
}

/// A directory with three backups, WAL, a history, a claim and evidence of a drill.
fn stocked() -> (Shelf, Vec<Manifest>) {
    let shelf = Shelf::new();
    let layout = shelf.layout();
    let backups: Vec<_> = [(3, "a"), (5, "b"), (7, "c")]
        .map(|(segment, letter)| backup(letter, 1, &format!("0/{segment}000028"), &format!("0/{segment}000100")))
        .into();
    for backup in &backups {
        let json = serde_json::to_vec(backup).unwrap();
        shelf.place(&layout.backup_manifest(&backup.id), Kind::BackupManifest, TimelineId::FIRST, Lsn(0), &json);
        for name in ["data/base/00000000", "index/00000000"] {
            let key = crate::storage::Key::new(format!("{}{name}", layout.backup(&backup.id))).unwrap();
            shelf.write(&key, b"data");
        }
    }
    for number in 1..=9 {
        let name = WalFileName::Segment(segment(1, number));
        shelf.place(&layout.wal(&name), Kind::Wal, TimelineId::FIRST, Lsn(number << 24), b"wal");
        let claim = format!("{}00000001/{name}/{}", layout.claims(), "0".repeat(64));
        shelf.write(&crate::storage::Key::new(claim).unwrap(), b"claim");
    }
    for other in ["wal/00000001/00000001.history", "wal/00000001/junk", "restore-tests/2026-01-01/report.json"] {
        shelf.write(&crate::storage::Key::new(format!("{}{other}", layout.folder())).unwrap(), b"x");
    }
    (shelf, backups)
}

async fn keys(shelf: &Shelf) -> Vec<String> {
    let source = shelf.source();
    let all = crate::storage::list_all(source.cluster.storage(), "").await.unwrap();
    all.into_iter().map(|entry| entry.key.as_str().to_owned()).collect()
}

#[tokio::test]
async fn carried_out_it_leaves_what_it_says() {
    let (shelf, backups) = stocked();
    let source = shelf.source();
    let found = survey(&source).await.unwrap();
    assert_eq!(found.backups.len(), 3);
    let plan = Plan::new(&found, &keep(1, 0, 0, 0));
    let measured = measure(&source, &plan).await.unwrap();
    let before = keys(&shelf).await;
    assert_eq!(execute(&source, &plan, |_| ()).await.unwrap(), measured);
    let left = keys(&shelf).await;
    let gone = before.iter().filter(|key| !left.contains(key));
    let said = |key: &&String| {
        backups[..2].iter().any(|backup| key.contains(backup.id.as_str()))
            || (1..7).any(|number| key.contains(&segment(1, number).to_string()))
    };
    assert!(gone.clone().all(|key| said(&key)), "{:?}", gone.collect::<Vec<_>>());
    assert!(!left.iter().any(|key| said(&key)), "{left:?}");
    assert_eq!(
        measure(&source, &Plan::new(&survey(&source).await.unwrap(), &keep(1, 0, 0, 0))).await.unwrap().objects,
        0
    );
}

#[tokio::test]
async fn an_unknown_feature_ends_it() {
    let (shelf, _) = stocked();
    let key = crate::storage::Key::new(format!("{}feature/incremental", shelf.layout().folder())).unwrap();
    shelf.write(&key, b"x");
    let error = survey(&shelf.source()).await.unwrap_err();
    assert!(error.to_string().contains("nothing is pruned"), "{error}");
}
