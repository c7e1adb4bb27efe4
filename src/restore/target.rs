//! Whether the target can be reached: the histories, and what the end of the WAL says about it (requirement K1).

use super::checks::gap;
use super::request::{RecoveryTarget, RestoreRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Lsn;
use crate::reach::walk::Damaged;
use crate::reach::{Chain, TargetTime, Window};
use crate::repo::Manifest;

/// Refuses a target that replay would never come to: Postgres would replay everything and then stop with "recovery ended before
/// configured recovery target was reached". `elsewhere` tells of a newer backup on another timeline, from which it might be.
pub(super) fn must_be_reachable(
    request: &RestoreRequest,
    chain: &Chain,
    window: &Window,
    last_record: Option<Lsn>,
    elsewhere: Option<&str>,
) -> Result<Option<String>> {
    match &request.target {
        RecoveryTarget::Time(time) => time_is_reached(*time, request, chain, window, elsewhere),
        RecoveryTarget::Lsn(lsn) => {
            position_is_reached(*lsn, chain, last_record.unwrap_or(window.end), elsewhere).map(|()| None)
        }
        RecoveryTarget::Latest | RecoveryTarget::Immediate | RecoveryTarget::Name(_) | RecoveryTarget::Xid(_) => {
            Ok(None)
        }
    }
}

/// A segment near the end that cannot be read stands in the way of what lies behind it, and of nothing else.
pub(super) fn must_come_before_damage(
    request: &RestoreRequest,
    backup: &Manifest,
    window: &Window,
    damaged: Option<Damaged>,
) -> Result<Option<String>> {
    let Some(damaged) = damaged else { return Ok(None) };
    let before = match &request.target {
        RecoveryTarget::Latest => false,
        RecoveryTarget::Time(time) => window.until.is_some_and(|last| passes(last.time, *time, request)),
        RecoveryTarget::Lsn(lsn) => *lsn < damaged.start,
        // Names and transactions were found by reading all the WAL before them.
        RecoveryTarget::Immediate | RecoveryTarget::Name(_) | RecoveryTarget::Xid(_) => true,
    };
    if before && backup.end_lsn <= damaged.start {
        return Ok(Some(format!("one cannot restore beyond {}: {}", damaged.start, damaged.error)));
    }
    let hint = match window.until {
        Some(last) if backup.end_lsn <= damaged.start => {
            format!("put a sound one in its place, or restore to before it: to a time before {}", last.time)
        }
        _ => "put a sound one in its place, or restore to before it".to_owned(),
    };
    let what = format!("{} cannot be reached: replay ends at {}", request.target, damaged.start);
    Err(damaged.error.context(what).hint(format!("{hint}; nothing was written")))
}

/// Whether replay comes to a time when it meets the end of a transaction at `last`.
fn passes(last: TargetTime, time: TargetTime, request: &RestoreRequest) -> bool {
    last > time || (!request.inclusive && last == time)
}

/// A time is reached when a transaction ended behind it (at it, where it is excluded).
fn time_is_reached(
    time: TargetTime,
    request: &RestoreRequest,
    chain: &Chain,
    window: &Window,
    elsewhere: Option<&str>,
) -> Result<Option<String>> {
    let Some(last) = window.until else {
        return Ok(Some(format!(
            "the last segments of the archive hold no commit: whether {time} is reached could not be checked"
        )));
    };
    if passes(last.time, time, request) {
        return Ok(None);
    }
    if let Some(gap) = gap(chain, &format!("{time} cannot be reached")) {
        return Err(gap);
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "{time} cannot be reached: the last transaction in the archive ended at {}, at {}",
            last.time, last.lsn
        ),
    )
    .hint(match (elsewhere, last.time <= window.from) {
        (Some(elsewhere), _) => elsewhere.to_owned(),
        (None, true) => {
            "leave --target-time out to restore all there is: nothing was committed after the backup".to_owned()
        }
        (None, false) => format!(
            "leave --target-time out to restore all there is; one can restore to any time from {} to before {}",
            window.from, last.time
        ),
    }))
}

/// A position is reached when a record begins at it or behind it.
fn position_is_reached(lsn: Lsn, chain: &Chain, last: Lsn, elsewhere: Option<&str>) -> Result<()> {
    if lsn <= last {
        return Ok(());
    }
    if let Some(gap) = gap(chain, &format!("position {lsn} cannot be reached")) {
        return Err(gap);
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("position {lsn} cannot be reached: the last record in the archive begins at {last}"),
    )
    .hint(elsewhere.unwrap_or("leave --target-lsn out to restore all there is")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::testing::{backup, lsn, names};
    use crate::reach::{Commit, Hole};

    fn chain(hole: bool) -> Chain {
        let [first, missing, next] =
            names(&["000000010000000000000003", "000000010000000000000004", "000000010000000000000005"])
                .try_into()
                .unwrap();
        Chain {
            first,
            segments: 1,
            last: Some(first),
            end: lsn("0/4000000"),
            hole: hole.then_some(Hole { missing, next }),
        }
    }

    fn window(until: Option<&str>) -> Window {
        let until = until.map(|time| Commit { time: time.parse().unwrap(), lsn: lsn("0/3000200") });
        Window { from: "2026-11-23 17:00:30Z".parse().unwrap(), until, end: lsn("0/4000000") }
    }

    #[test]
    fn a_time_behind_the_last_commit_is_not_reached() {
        let check = |time: &str, inclusive, hole, until| {
            let request = RestoreRequest { inclusive, ..RestoreRequest::new("/d") };
            time_is_reached(time.parse().unwrap(), &request, &chain(hole), &window(until), None)
        };
        let last = Some("2026-11-23 17:05:00Z");
        assert_eq!(check("2026-11-23 17:04:59Z", true, false, last).unwrap(), None);
        assert_eq!(check("2026-11-23 17:05:00Z", false, false, last).unwrap(), None);
        let error = check("2026-11-23 17:05:00Z", true, false, last).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains("from 2026-11-23 17:00:30 UTC to before 2026-11-23 17:05:00 UTC"),
            "{error}"
        );
        let error = check("2026-11-23 17:06:00Z", true, true, last).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap);
        assert!(check("2026-11-23 17:06:00Z", true, false, None).unwrap().unwrap().contains("could not be checked"));
    }

    #[test]
    fn a_position_behind_the_last_record_is_not_reached() {
        position_is_reached(lsn("0/3000300"), &chain(false), lsn("0/3000300"), None).unwrap();
        let error = position_is_reached(lsn("0/3000301"), &chain(false), lsn("0/3000300"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let hint = Some("--target-timeline 2");
        let error =
            position_is_reached(lsn("0/3000301"), &chain(false), lsn("0/3000300"), hint).unwrap_err().to_string();
        assert!(error.contains("--target-timeline 2"), "{error}");
        let error = position_is_reached(lsn("0/5000000"), &chain(true), lsn("0/3000300"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap);
    }

    #[test]
    fn damage_stands_only_in_the_way_of_what_lies_behind_it() {
        let check = |target: RecoveryTarget, end: &str, until| {
            let damaged = Damaged { start: lsn("0/4000000"), error: Error::new(ErrorKind::Corrupt, "0004: empty") };
            let request = RestoreRequest { target, ..RestoreRequest::new("/d") };
            must_come_before_damage(&request, &backup("a", 1, "0/3000028", end), &window(until), Some(damaged))
        };
        let time = |text: &str| RecoveryTarget::Time(text.parse().unwrap());
        let (end, last) = ("0/3000100", Some("2026-11-23 17:05:00Z"));
        for target in [
            RecoveryTarget::Immediate,
            RecoveryTarget::Name("x".into()),
            RecoveryTarget::Lsn(lsn("0/3FFFFFF")),
            time("2026-11-23 17:04:59Z"),
        ] {
            let note = check(target.clone(), end, last).unwrap().unwrap();
            assert!(note.contains("beyond 0/4000000: 0004: empty"), "{note}");
            // What the backup itself needs is damaged.
            assert!(check(target, "0/4000100", last).is_err());
        }
        for target in [RecoveryTarget::Latest, RecoveryTarget::Lsn(lsn("0/4000000")), time("2026-11-23 17:05:00Z")] {
            let error = check(target.clone(), end, last).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let line = error.to_string();
            assert!(line.contains("0004: empty") && line.contains("before 2026-11-23 17:05:00"), "{line}");
        }
        assert!(check(time("2026-11-23 17:00:40Z"), end, None).is_err());
    }
}
