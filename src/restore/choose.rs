//! Which backup to begin with.

use super::request::{RecoveryTarget, RestoreRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::reach::TargetTime;
use crate::reach::TargetTimeline;
use crate::reach::lineage::{Lineage, Lineages, follow};
use crate::repo::Manifest;

/// A backup that could be begun with, and the timeline to follow from it.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    /// The backup.
    pub backup: &'a Manifest,
    /// The way from it.
    pub lineage: &'a Lineage,
}

/// The backups that the request allows, best first: those that lead to the newest timeline, among them the newest. A backup that
/// was named is the only candidate.
pub(super) fn candidates<'a>(
    request: &RestoreRequest,
    backups: &'a [Manifest],
    lineages: &'a Lineages,
) -> Result<Vec<Candidate<'a>>> {
    if let Some(id) = &request.backup {
        let backup = backups.iter().find(|backup| backup.id == *id).ok_or_else(|| no_such_backup(id, backups))?;
        let lineage =
            follow(request.timeline, backup, lineages).ok_or_else(|| not_on_timeline(request, backup, lineages))?;
        must_be_full(backup)?;
        return Ok(vec![Candidate { backup, lineage }]);
    }
    let whole = backups.iter().filter(|backup| backup.damaged.is_empty() && backup.parent.is_none());
    let mut candidates: Vec<Candidate<'a>> = whole
        .filter_map(|backup| follow(request.timeline, backup, lineages).map(|lineage| Candidate { backup, lineage }))
        .collect();
    candidates.sort_by(|a, b| {
        let rank = |c: &Candidate<'a>| (c.lineage.timeline(), c.backup.end_lsn);
        rank(b).cmp(&rank(a)).then_with(|| b.backup.finished_at.cmp(&a.backup.finished_at))
    });
    if !candidates.is_empty() {
        return Ok(candidates);
    }
    // Where none leads anywhere, what stands in the newest one's way is worth more than a count.
    let newest = backups.iter().filter(|backup| backup.damaged.is_empty()).max_by_key(|backup| backup.end_lsn);
    Err(newest.map_or_else(
        || none_at_all(backups),
        |backup| must_be_full(backup).err().unwrap_or_else(|| not_on_timeline(request, backup, lineages)),
    ))
}

/// The best candidate that ended before the target, where that can be told without reading WAL: all targets but a name and a
/// transaction. Also why it is this one.
pub(super) fn before_target<'a>(
    request: &RestoreRequest,
    candidates: &[Candidate<'a>],
) -> Result<(Candidate<'a>, String)> {
    let named = request.backup.is_some();
    let mut chosen = None;
    for candidate in candidates {
        if ended_before(&request.target, candidate.backup)? {
            chosen = Some(candidate.clone());
            break;
        }
    }
    let Some(candidate) = chosen else { return Err(all_too_late(request, candidates)) };
    let why = match &request.target {
        _ if named => "it was asked for".to_owned(),
        RecoveryTarget::Latest | RecoveryTarget::Immediate => {
            format!("the newest backup that leads to timeline {}", candidate.lineage.timeline())
        }
        target => format!("the newest backup that ended before {target}"),
    };
    Ok((candidate, why))
}

/// What to tell of a sound backup that is newer than the chosen one and lies beside the timeline that is followed: what happens
/// where a copy was promoted long ago, archived a timeline of its own, and the server went on upon the old one.
pub(super) fn newer_elsewhere(
    request: &RestoreRequest,
    chosen: &Candidate<'_>,
    backups: &[Manifest],
    lineages: &Lineages,
) -> Option<String> {
    if request.backup.is_some() || request.timeline != TargetTimeline::Latest {
        return None;
    }
    let newer = |backup: &&Manifest| {
        let sound = backup.damaged.is_empty() && backup.parent.is_none();
        sound && backup.finished_at > chosen.backup.finished_at && !chosen.lineage.covers(backup)
    };
    let beside =
        backups.iter().filter(newer).filter_map(|backup| Some((backup, follow(request.timeline, backup, lineages)?)));
    let (backup, lineage) = beside.max_by(|(a, _), (b, _)| a.finished_at.cmp(&b.finished_at))?;
    let timeline = lineage.timeline();
    Some(format!(
        "backup {}, of {}, is newer and lies on timeline {timeline}: --target-timeline {timeline} begins with it",
        backup.id, backup.finished_at
    ))
}

/// Nobody who asks for the newest state means an old one: where two timelines could be meant, the operator says which.
pub(super) fn must_not_be_stale(
    request: &RestoreRequest,
    chosen: &Candidate<'_>,
    elsewhere: Option<&String>,
) -> Result<()> {
    let (RecoveryTarget::Latest, Some(elsewhere)) = (&request.target, elsewhere) else { return Ok(()) };
    let timeline = chosen.lineage.timeline();
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "timeline {timeline} is the newest, but the newest backup that leads to it is {}, of {}",
            chosen.backup.id, chosen.backup.finished_at
        ),
    )
    .hint(format!("{elsewhere}; --target-timeline {timeline} if that is meant; nothing was written")))
}

/// Whether a backup had ended when the target came, so that the target can be replayed to from it. Names and transactions are
/// taken to be later.
pub(super) fn ended_before(target: &RecoveryTarget, backup: &Manifest) -> Result<bool> {
    Ok(match target {
        RecoveryTarget::Time(time) => TargetTime::from_manifest(&backup.finished_at)? <= *time,
        RecoveryTarget::Lsn(lsn) => backup.end_lsn <= *lsn,
        RecoveryTarget::Latest | RecoveryTarget::Immediate | RecoveryTarget::Name(_) | RecoveryTarget::Xid(_) => true,
    })
}

fn must_be_full(backup: &Manifest) -> Result<()> {
    match &backup.parent {
        None => Ok(()),
        Some(parent) => Err(Error::new(
            ErrorKind::Config,
            format!("backup {} builds upon {parent}, and this version restores full backups only", backup.id),
        )
        .hint("use a newer version of Walhalla")),
    }
}

fn no_such_backup(id: &crate::repo::BackupId, backups: &[Manifest]) -> Error {
    let newest = backups.iter().max_by(|a, b| a.finished_at.cmp(&b.finished_at));
    let hint = match newest {
        Some(newest) => format!("the newest is {}; see walhalla list", newest.id),
        None => "there is no backup at all".to_owned(),
    };
    Error::new(ErrorKind::Config, format!("there is no backup {id}")).hint(hint)
}

fn not_on_timeline(request: &RestoreRequest, backup: &Manifest, lineages: &Lineages) -> Error {
    let elsewhere = "choose another --target-timeline or --backup; nothing was written".to_owned();
    let (what, hint) = match request.timeline {
        TargetTimeline::Number(timeline) if !lineages.contains_key(&timeline) => {
            (format!("timeline {timeline} is not in the archive: there is no {}.history", timeline.hex()), elsewhere)
        }
        TargetTimeline::Number(timeline) => {
            (format!("timeline {timeline} does not go through the whole of backup {}", backup.id), elsewhere)
        }
        TargetTimeline::Latest | TargetTimeline::Current => {
            let name = format!("{}.history", backup.end_timeline.hex());
            let hint =
                format!("archive it from where it still is: walhalla-archive pg_wal/{name}; nothing was written");
            (format!("{name} is missing from the archive, and backup {} is on that timeline", backup.id), hint)
        }
    };
    Error::new(ErrorKind::Config, what).hint(hint)
}

fn none_at_all(backups: &[Manifest]) -> Error {
    let damaged = backups.iter().filter(|backup| !backup.damaged.is_empty()).count();
    if damaged == 0 {
        return Error::new(ErrorKind::Config, "there is no backup in the repository")
            .hint("take one with walhalla backup");
    }
    Error::new(ErrorKind::Config, format!("there are only damaged backups ({damaged})"))
        .hint("a damaged backup can be restored by naming it with --backup; see walhalla list")
}

/// The earliest that could be restored to, in the target's own terms.
fn all_too_late(request: &RestoreRequest, candidates: &[Candidate<'_>]) -> Error {
    let earliest = candidates.iter().min_by_key(|candidate| candidate.backup.end_lsn).map(|candidate| candidate.backup);
    let from = earliest.map_or_else(String::new, |backup| match &request.target {
        RecoveryTarget::Lsn(_) => format!("{} (the end of backup {})", backup.end_lsn, backup.id),
        _ => format!("{} (the end of backup {})", backup.finished_at, backup.id),
    });
    let what = match &request.backup {
        Some(id) => format!("backup {id} ended after {}", request.target),
        None => format!("no backup had ended before {}", request.target),
    };
    Error::new(ErrorKind::Config, what).hint(format!("the earliest that can be restored to is {from}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::TimelineId;
    use crate::reach::testing::{backup, lsn, tli};

    fn lineages() -> Lineages {
        Lineages::from([
            (TimelineId::FIRST, Lineage::first()),
            (tli(2), Lineage::new(tli(2), [(tli(1), lsn("0/5000000"))])),
        ])
    }

    /// `a` and `b` before the branch, `c` behind it on the old timeline, `d` on the new one.
    fn backups() -> Vec<Manifest> {
        vec![
            backup("a", 1, "0/2000028", "0/2000100"),
            backup("b", 1, "0/3000028", "0/3000100"),
            backup("c", 1, "0/7000028", "0/7000100"),
            backup("d", 2, "0/6000028", "0/6000100"),
        ]
    }

    fn chosen(request: &RestoreRequest, backups: &[Manifest]) -> Result<String> {
        let lineages = lineages();
        let candidates = candidates(request, backups, &lineages)?;
        let (candidate, _) = before_target(request, &candidates)?;
        Ok(format!("{} on {}", &candidate.backup.id.as_str()[22..], candidate.lineage.timeline()))
    }

    fn request(target: RecoveryTarget) -> RestoreRequest {
        RestoreRequest { target, ..RestoreRequest::new("/d") }
    }

    #[test]
    fn the_newest_backup_that_leads_to_the_target() {
        let time = |text: &str| RecoveryTarget::Time(text.parse().unwrap());
        for (target, wanted) in [
            (RecoveryTarget::Latest, "d on 2"),
            (RecoveryTarget::Immediate, "d on 2"),
            (RecoveryTarget::Lsn(lsn("0/6000100")), "d on 2"),
            (RecoveryTarget::Lsn(lsn("0/60000FF")), "b on 2"),
            (time("2026-11-23 17:03:30Z"), "d on 2"),
            (time("2026-11-23 17:03:29Z"), "b on 2"),
            (time("2026-11-23 17:01:29Z"), "a on 2"),
        ] {
            assert_eq!(chosen(&request(target.clone()), &backups()).unwrap(), wanted, "{target}");
        }
        let on_first = RestoreRequest { timeline: TargetTimeline::Number(tli(1)), ..request(RecoveryTarget::Latest) };
        assert_eq!(chosen(&on_first, &backups()).unwrap(), "c on 1");
    }

    #[test]
    fn an_old_backup_is_not_taken_silently_for_an_old_branch() {
        // A drill branched off at 0/5000000 long ago; the server went on upon timeline 1.
        let (lineages, backups) = (lineages(), &backups()[..3]);
        let judge = |request: &RestoreRequest| {
            let candidates = candidates(request, backups, &lineages).unwrap();
            let (chosen, why) = before_target(request, &candidates).unwrap();
            let elsewhere = newer_elsewhere(request, &chosen, backups, &lineages);
            let stale = must_not_be_stale(request, &chosen, elsewhere.as_ref()).map_err(|error| error.to_string());
            (chosen.backup.id.clone(), why, elsewhere, stale)
        };
        let latest = request(RecoveryTarget::Latest);
        let (id, why, elsewhere, stale) = judge(&latest);
        assert_eq!((&id, why.as_str()), (&backups[1].id, "the newest backup that leads to timeline 2"));
        let elsewhere = elsewhere.unwrap();
        assert!(elsewhere.contains(backups[2].id.as_str()) && elsewhere.contains("--target-timeline 1"), "{elsewhere}");
        let stale = stale.unwrap_err();
        assert!(stale.contains(&elsewhere) && stale.contains("--target-timeline 2"), "{stale}");
        // Another target: said, not refused.
        let (_, _, elsewhere, stale) = judge(&request(RecoveryTarget::Lsn(lsn("0/6000000"))));
        assert!(elsewhere.is_some() && stale.is_ok());
        // Said by the operator: the backup, or the timeline.
        let named = RestoreRequest { backup: Some(id), ..latest.clone() };
        let second = RestoreRequest { timeline: TargetTimeline::Number(tli(2)), ..latest.clone() };
        let first = RestoreRequest { timeline: TargetTimeline::Number(tli(1)), ..latest };
        for request in [named, second, first] {
            let (_, _, elsewhere, stale) = judge(&request);
            assert!(elsewhere.is_none() && stale.is_ok(), "{request:?}");
        }
    }

    #[test]
    fn what_lies_before_every_backup_is_told_with_the_earliest() {
        let early = request(RecoveryTarget::Time("2026-11-23 17:00:00Z".parse().unwrap()));
        let error = chosen(&early, &backups()).unwrap_err().to_string();
        assert!(error.contains("the earliest that can be restored to is 2026-11-23T17:00:30Z"), "{error}");
        let error = chosen(&request(RecoveryTarget::Latest), &[]).unwrap_err().to_string();
        assert!(error.contains("no backup in the repository"), "{error}");
    }

    #[test]
    fn a_damaged_backup_only_by_its_name() {
        let mut backups = backups();
        for backup in &mut backups[1..] {
            backup.damaged.push("page 3".into());
        }
        assert_eq!(chosen(&request(RecoveryTarget::Latest), &backups).unwrap(), "a on 2");
        let named = RestoreRequest { backup: Some(backups[1].id.clone()), ..request(RecoveryTarget::Latest) };
        assert_eq!(chosen(&named, &backups).unwrap(), "b on 2");
        let unknown =
            RestoreRequest { backup: "20200101T000000Z-000000".parse().ok(), ..request(RecoveryTarget::Latest) };
        assert!(chosen(&unknown, &backups).unwrap_err().to_string().contains("there is no backup"));
    }
}
