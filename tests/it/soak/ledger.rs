//! What was committed, written down outside the server, and what a restored server must and must not show of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use walhalla::pg::Lsn;

/// Microseconds since 1970, by the clock that this process and the servers share.
pub(super) type Micros = i64;

/// Now.
pub(super) fn now() -> Micros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_micros().try_into().unwrap()
}

/// How it went with a row's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// COMMIT was sent, and nobody knows.
    Unknown,
    /// COMMIT returned.
    Committed,
    /// It lies behind the point from which a later timeline went on.
    Lost,
}

/// A row: its transaction began at `from` and had ended by `to`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    fate: Fate,
    begun: Micros,
    ended: Option<Micros>,
    from: Option<Lsn>,
    to: Option<Lsn>,
}

/// A moment to restore to. What had ended by `all_before` must be there; what began after `none_after` must not.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    Time { all_before: Micros, none_after: Micros },
    Position { all_before: Lsn, none_after: Lsn },
}

/// All rows by their number.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<BTreeMap<i64, Row>>);

impl Ledger {
    /// A transaction that adds a row is about to be sent. Answers the row's number.
    pub(super) fn begin(&self) -> i64 {
        let mut rows = self.0.lock().unwrap();
        let id = rows.last_key_value().map_or(1, |(last, _)| last + 1);
        rows.insert(id, Row { fate: Fate::Unknown, begun: now(), ended: None, from: None, to: None });
        id
    }

    /// Its transaction began at this position or behind it.
    pub(super) fn began_at(&self, id: i64, from: Lsn) {
        self.change(id, |row| row.from = Some(from));
    }

    /// COMMIT returned.
    pub(super) fn committed(&self, id: i64) {
        let ended = now();
        self.change(id, |row| (row.fate, row.ended) = (Fate::Committed, Some(ended)));
    }

    /// Its commit record lies before this position.
    pub(super) fn ended_at(&self, id: i64, to: Lsn) {
        self.change(id, |row| row.to = Some(to));
    }

    fn change(&self, id: i64, change: impl FnOnce(&mut Row)) {
        change(self.0.lock().unwrap().get_mut(&id).unwrap());
    }

    /// How many rows were begun, and of how many COMMIT returned.
    pub(super) fn counts(&self) -> (usize, usize) {
        let rows = self.0.lock().unwrap();
        (rows.len(), rows.values().filter(|row| row.ended.is_some()).count())
    }

    /// Two rows that were committed between these positions, by lot: the end of one, in time and position, where the other began
    /// later.
    pub(super) fn some_moment(&self, random: &mut fastrand::Rng, after: Lsn, before: Lsn) -> Option<(Micros, Lsn)> {
        let rows = self.0.lock().unwrap();
        let fit = rows.values().filter(|row| row.fate == Fate::Committed).filter_map(|row| {
            let (from, to, ended) = (row.from?, row.to?, row.ended?);
            (from > after && to < before).then_some((from, row.begun, to, ended))
        });
        let fit: Vec<_> = fit.collect();
        let (one, other) = (random.choice(&fit)?, random.choice(&fit)?);
        let (earlier, later) = (one.min(other), one.max(other));
        (earlier.2 < later.0 && earlier.3 < later.1).then_some((earlier.3, earlier.2))
    }

    /// Holds the rows that a restored server shows against what it must show. Answers how many of them the moment decides, or
    /// what is wrong.
    pub(super) fn compare(&self, shown: &BTreeSet<i64>, moment: Moment) -> Result<usize, String> {
        let rows = self.0.lock().unwrap();
        let (mut decided, mut wrong) = (0, Vec::new());
        for (id, row) in rows.iter() {
            let Some(must) = row.must_be_there(moment) else { continue };
            decided += 1;
            if must != shown.contains(id) {
                wrong.push(format!("row {id} is {}: {row:?}", if must { "missing" } else { "there" }));
            }
        }
        wrong.extend(shown.iter().filter(|id| !rows.contains_key(id)).map(|id| format!("row {id} was never written")));
        if wrong.is_empty() {
            return Ok(decided);
        }
        let many = wrong.len();
        wrong.truncate(10);
        Err(format!("{moment:?}: {many} rows are wrong, among them\n{}", wrong.join("\n")))
    }

    /// A server goes on from what it shows, at this position: the rest is lost for good.
    pub(super) fn go_on_with(&self, shown: &BTreeSet<i64>, from: Lsn) {
        for (id, row) in self.0.lock().unwrap().iter_mut() {
            if !shown.contains(id) {
                row.fate = Fate::Lost;
            } else if row.fate == Fate::Unknown {
                row.fate = Fate::Committed;
            }
            row.to = row.to.or(Some(from));
        }
    }
}

impl Row {
    fn must_be_there(&self, moment: Moment) -> Option<bool> {
        if self.fate == Fate::Lost {
            return Some(false);
        }
        let (over, ahead) = match moment {
            Moment::Time { all_before, none_after } => {
                (self.ended.is_some_and(|ended| ended <= all_before), self.begun > none_after)
            }
            Moment::Position { all_before, none_after } => {
                (self.to.is_some_and(|to| to <= all_before), self.from.is_some_and(|from| from > none_after))
            }
        };
        match (over && self.fate == Fate::Committed, ahead) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

#[test]
fn the_ledger_tells_too_few_and_too_many() {
    let ledger = Ledger::default();
    for number in 1..=4_u64 {
        let id = ledger.begin();
        ledger.began_at(id, Lsn(number * 100));
        if number < 4 {
            ledger.committed(id);
            ledger.ended_at(id, Lsn(number * 100 + 50));
        }
    }
    let at = |lsn| Moment::Position { all_before: Lsn(lsn), none_after: Lsn(lsn) };
    let shown = |ids: &[i64]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(ledger.compare(&shown(&[1, 2]), at(250)), Ok(4));
    // The third had begun: it may or may not be there. Nobody knows of the fourth.
    assert_eq!(ledger.compare(&shown(&[1, 2]), at(320)), Ok(3));
    assert_eq!(ledger.compare(&shown(&[1, 2, 3]), at(320)), Ok(3));
    assert_eq!(ledger.compare(&shown(&[1, 2, 3, 4]), at(1000)), Ok(3));
    for (ids, word) in [(&[1][..], "row 2 is missing"), (&[1, 2, 3], "row 3 is there"), (&[1, 2, 9], "never written")] {
        let wrong = ledger.compare(&shown(ids), at(250)).unwrap_err();
        assert!(wrong.contains(word), "{wrong}");
    }
    ledger.go_on_with(&shown(&[1, 4]), Lsn(500));
    assert_eq!(ledger.compare(&shown(&[1, 4]), at(1000)), Ok(4));
    assert!(ledger.compare(&shown(&[1, 2, 4]), at(1000)).unwrap_err().contains("row 2 is there"));
    assert!(ledger.compare(&shown(&[1]), at(1000)).unwrap_err().contains("row 4 is missing"));
}
