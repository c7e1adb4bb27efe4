//! From what is there, and the policy, to what goes.

use super::survey::{Extent, Other, Survey, Way};
use super::wal::Remains;
use crate::config::Keep;
use crate::reach::TargetTime;
use crate::repo::{BackupId, Manifest};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// After this long without a manifest a backup is taken for given up: none takes a week.
const GIVEN_UP: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The configuration names it as permanent.
    Permanent,
    /// It is one of the newest.
    Last,
    /// Moments of the window are restored from it.
    Window,
    /// The newest of this day.
    Daily(String),
    /// The newest of this week.
    Weekly(String),
    /// This one builds upon it.
    Parent(BackupId),
    /// WAL that it needs is missing, and it is too young, or too precious, to be given up.
    Unproven,
}

/// A backup in a plan.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// Its label.
    pub label: String,
    /// When it ended: RFC 3339, UTC.
    pub finished_at: String,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Why it stays; empty: it goes.
    pub stays: Vec<Reason>,
}

impl Backup {
    /// Whether it goes.
    pub fn goes(&self) -> bool {
        self.stays.is_empty()
    }
}

/// What goes, and what stays and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// The moment for which it was made.
    pub now: Option<TargetTime>,
    /// From here on every moment stays restorable that is so now.
    pub window_from: Option<TargetTime>,
    /// The backups that can be read, by end position.
    pub backups: Vec<Backup>,
    /// Backups that were given up: they have no manifest, and were begun more than a week ago. They go.
    pub given_up: Vec<BackupId>,
    /// Backups that may be under way. They stay, with all WAL from their start on.
    pub under_way: Vec<BackupId>,
    /// Backups whose manifest cannot be believed. They stay, with all WAL from their start on, or all where that is not known.
    pub unreadable: Vec<BackupId>,
    /// The WAL that stays.
    #[serde(skip)]
    pub wal: Remains,
}

impl Plan {
    /// Makes the plan.
    pub fn new(survey: &Survey, keep: &Keep) -> Self {
        let span = SignedDuration::try_from(keep.window).unwrap_or(SignedDuration::MAX);
        let window_from = survey.now.checked_sub(span).unwrap_or(Timestamp::MIN);
        let backups = Backups::of(survey);
        let mut stays = Stays::default();
        let anchors = anchors(survey, &backups, window_from);
        stays.all(&anchors, |_| Reason::Window);
        stays.by_policy(survey, &backups, keep);
        stays.unproven(survey, &backups, window_from);
        stays.parents(survey);
        let (given_up, under_way) = divide(survey);
        let pinned = under_way.iter().chain(&survey.damaged);
        let wal = Remains::new(survey, &backups.finished, &anchors, &stays.kept(), pinned);
        Self {
            now: TargetTime::from_timestamp(survey.now),
            window_from: TargetTime::from_timestamp(window_from),
            backups: survey.backups.iter().enumerate().map(|(at, backup)| stays.of(at, backup)).collect(),
            given_up: given_up.into_iter().map(|other| other.id).collect(),
            under_way: under_way.into_iter().map(|other| other.id).collect(),
            unreadable: survey.damaged.iter().map(|other| other.id.clone()).collect(),
            wal,
        }
    }

    /// The ids of the backups that go: those with a manifest, then those that were given up.
    pub fn gone(&self) -> impl Iterator<Item = &BackupId> {
        self.backups.iter().filter(|backup| backup.goes()).map(|backup| &backup.id).chain(&self.given_up)
    }
}

/// What the rules ask of the backups.
struct Backups {
    /// When each ended; `None` where its manifest has no moment.
    finished: Vec<Option<Timestamp>>,
    /// Those that can be restored by what is there.
    good: BTreeSet<usize>,
}

impl Backups {
    fn of(survey: &Survey) -> Self {
        let finished: Vec<_> = survey.backups.iter().map(|backup| backup.finished_at.parse().ok()).collect();
        let reached = survey.ways.iter().flat_map(|way| &way.extents).map(|extent| extent.backup);
        let good = reached.filter(|at| finished.get(*at).is_some_and(Option::is_some)).collect();
        Self { finished, good }
    }

    fn finished(&self, at: usize) -> Timestamp {
        // Only good ones are asked, and those have one.
        self.finished.get(at).copied().flatten().unwrap_or(Timestamp::MIN)
    }

    /// What makes one backup better than another: that no page of it was damaged, then that it is newer.
    fn rank(&self, survey: &Survey, at: usize) -> (bool, Timestamp, usize) {
        (is_sound(survey, at), self.finished(at), at)
    }

    fn best(&self, survey: &Survey, among: impl Iterator<Item = usize>) -> Option<usize> {
        among.max_by_key(|at| self.rank(survey, *at))
    }
}

/// Whether Postgres found no damaged page when it was taken.
fn is_sound(survey: &Survey, at: usize) -> bool {
    survey.backups.get(at).is_some_and(|backup| backup.damaged.is_empty())
}

/// The backups from which the moments of the window are restored: for each timeline, and each stretch of WAL without a hole on it
/// that reaches into the window, the newest that ended before the window, else the first behind its start.
fn anchors(survey: &Survey, backups: &Backups, window_from: Timestamp) -> BTreeSet<usize> {
    let current = survey.ways.iter().filter(|way| !way.extents.is_empty()).map(|way| way.timeline).max();
    let mut anchors = BTreeSet::new();
    for way in &survey.ways {
        let stretches = stretches(way, backups);
        for (at, stretch) in stretches.iter().enumerate() {
            // A hole ends a stretch before the next backup ended.
            let ends = match stretches.get(at + 1).and_then(|next| next.first()) {
                Some(next) => Some(backups.finished(*next)),
                // On the current timeline what is idle is not old.
                None if current == Some(way.timeline) => None,
                None => way.tip,
            };
            if ends.is_none_or(|ends| ends >= window_from) {
                anchors.extend(anchors_of(survey, backups, stretch, window_from));
            }
        }
    }
    anchors
}

/// The backups of each stretch of WAL without a hole, both in order.
fn stretches(way: &Way, backups: &Backups) -> Vec<Vec<usize>> {
    let mut by_end: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for Extent { backup, end } in way.extents.iter().filter(|extent| backups.good.contains(&extent.backup)) {
        by_end.entry(*end).or_default().push(*backup);
    }
    by_end.into_values().collect()
}

fn anchors_of(survey: &Survey, backups: &Backups, stretch: &[usize], window_from: Timestamp) -> Vec<usize> {
    let before = |at: &usize| backups.finished(*at) <= window_from;
    let newest_before = backups.best(survey, stretch.iter().copied().filter(before));
    // Of those in the window the one by which the earliest moments are reached, and, should that have damaged pages, the first
    // that has none.
    let first = || {
        let mut within: Vec<usize> = stretch.iter().copied().filter(|at| !before(at)).collect();
        within.sort_by_key(|at| backups.finished(*at));
        let sound = within.iter().copied().find(|at| is_sound(survey, *at));
        within.first().copied().into_iter().chain(sound)
    };
    match newest_before {
        Some(found) if is_sound(survey, found) => vec![found],
        found => found.into_iter().chain(first()).collect(),
    }
}

/// Those without a manifest: given up, or perhaps under way.
fn divide(survey: &Survey) -> (Vec<Other>, Vec<Other>) {
    survey
        .unfinished
        .iter()
        .cloned()
        .partition(|other| begun(&other.id).is_some_and(|begun| survey.now.duration_since(begun) > GIVEN_UP))
}

/// When a backup was begun, by its id.
fn begun(id: &BackupId) -> Option<Timestamp> {
    let (time, _) = id.as_str().split_once('-')?;
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

/// Why each backup stays.
#[derive(Default)]
struct Stays(BTreeMap<usize, BTreeSet<Reason>>);

impl Stays {
    fn add(&mut self, at: usize, reason: Reason) {
        self.0.entry(at).or_default().insert(reason);
    }

    fn all(&mut self, backups: &BTreeSet<usize>, reason: impl Fn(usize) -> Reason) {
        for at in backups {
            self.add(*at, reason(*at));
        }
    }

    fn kept(&self) -> BTreeSet<usize> {
        self.0.keys().copied().collect()
    }

    fn of(&self, at: usize, backup: &Manifest) -> Backup {
        Backup {
            id: backup.id.clone(),
            label: backup.label.clone(),
            finished_at: backup.finished_at.clone(),
            stored_bytes: backup.stored_bytes,
            stays: self.0.get(&at).into_iter().flatten().cloned().collect(),
        }
    }

    fn by_policy(&mut self, survey: &Survey, backups: &Backups, keep: &Keep) {
        let named =
            |backup: &Manifest| keep.permanent.iter().any(|name| *name == backup.label || *name == backup.id.as_str());
        for (at, _) in survey.backups.iter().enumerate().filter(|(_, backup)| named(backup)) {
            self.add(at, Reason::Permanent);
        }
        let mut newest: Vec<usize> = backups.good.iter().copied().collect();
        newest.sort_by_key(|at| std::cmp::Reverse(backups.rank(survey, *at)));
        for at in newest.iter().take(keep.last.max(1) as usize) {
            self.add(*at, Reason::Last);
        }
        // One with damaged pages may be the newest on the timeline that lives.
        if let Some(newest) = backups.good.iter().copied().max_by_key(|at| backups.finished(*at)) {
            self.add(newest, Reason::Last);
        }
        let day = |at: usize| TimeZone::UTC.to_datetime(backups.finished(at)).date();
        self.newest_of_each(survey, backups, keep.daily, day, |day: Date| Reason::Daily(day.to_string()));
        let week = |at: usize| {
            let week = day(at).iso_week_date();
            (week.year(), week.week())
        };
        self.newest_of_each(survey, backups, keep.weekly, week, |(year, week)| {
            Reason::Weekly(format!("{year}-W{week:02}"))
        });
    }

    /// The best backup of each of the last `count` periods that have one.
    fn newest_of_each<P: Ord>(
        &mut self,
        survey: &Survey,
        backups: &Backups,
        count: u32,
        period: impl Fn(usize) -> P,
        reason: impl Fn(P) -> Reason,
    ) {
        let mut by_period: BTreeMap<P, Vec<usize>> = BTreeMap::new();
        for at in &backups.good {
            by_period.entry(period(*at)).or_default().push(*at);
        }
        for (period, members) in by_period.into_iter().rev().take(count as usize) {
            if let Some(best) = backups.best(survey, members.into_iter()) {
                self.add(best, reason(period));
            }
        }
    }

    /// A backup whose WAL is missing is given up only when it ended before the window, and a good one came after it.
    fn unproven(&mut self, survey: &Survey, backups: &Backups, window_from: Timestamp) {
        let newest_good = backups.good.iter().map(|at| backups.finished(*at)).max();
        for (at, finished) in backups.finished.iter().enumerate().filter(|(at, _)| !backups.good.contains(at)) {
            let dispensable = finished
                .is_some_and(|finished| finished < window_from && newest_good.is_some_and(|newest| newest > finished));
            if !dispensable && survey.backups.get(at).is_some() {
                self.add(at, Reason::Unproven);
            }
        }
    }

    /// What a kept backup builds upon stays with it.
    fn parents(&mut self, survey: &Survey) {
        let place = |id: &BackupId| survey.backups.iter().position(|backup| backup.id == *id);
        loop {
            let kept = self.kept();
            let built_upon = kept.iter().filter_map(|child| {
                let backup = survey.backups.get(*child)?;
                let parent = place(backup.parent.as_ref()?).filter(|parent| !kept.contains(parent))?;
                Some((parent, Reason::Parent(backup.id.clone())))
            });
            let built_upon: Vec<_> = built_upon.collect();
            if built_upon.is_empty() {
                return;
            }
            for (parent, reason) in built_upon {
                self.add(parent, reason);
            }
        }
    }
}
