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
    if candidates.is_empty() { Err(none_at_all(request, backups)) } else { Ok(candidates) }
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
        RecoveryTarget::Latest | RecoveryTarget::Immediate => "the newest backup".to_owned(),
        target => format!("the newest backup that ended before {target}"),
    };
    Ok((candidate, why))
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
    let what = match request.timeline {
        TargetTimeline::Number(timeline) if !lineages.contains_key(&timeline) => {
            format!("timeline {timeline} is not in the archive: there is no {}.history", timeline.hex())
        }
        TargetTimeline::Number(timeline) => {
            format!("timeline {timeline} had left timeline {} before backup {} ended", backup.end_timeline, backup.id)
        }
        TargetTimeline::Latest | TargetTimeline::Current => {
            format!("the history of backup {}'s timeline {} is not in the archive", backup.id, backup.end_timeline)
        }
    };
    Error::new(ErrorKind::Config, what).hint("choose another --target-timeline or --backup; nothing was written")
}

fn none_at_all(request: &RestoreRequest, backups: &[Manifest]) -> Error {
    let damaged = backups.iter().filter(|backup| !backup.damaged.is_empty()).count();
    let what = match (backups.len(), damaged) {
        (0, _) => "there is no backup in the repository".to_owned(),
        (all, damaged) if all == damaged => format!("there are only damaged backups ({damaged})"),
        (all, _) => match request.timeline {
            TargetTimeline::Number(timeline) => format!("none of the {all} backups leads to timeline {timeline}"),
            TargetTimeline::Latest | TargetTimeline::Current => {
                format!("of none of the {all} backups the timeline's history is in the archive")
            }
        },
    };
    let hint =
        if damaged > 0 { "a damaged backup can be restored by naming it with --backup" } else { "see walhalla list" };
    Error::new(ErrorKind::Config, what).hint(hint)
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
