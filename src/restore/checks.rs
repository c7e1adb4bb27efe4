//! The checks that a plan makes before anything is written, one function each.

use super::request::{RecoveryTarget, RestoreRequest, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::TimelineId;
use crate::reach::lineage::{Lineage, Lineages};
use crate::reach::source::Source;
use crate::reach::{Chain, chain};
use crate::repo::Manifest;

/// What Postgres would refuse at its start is refused here.
pub(super) fn request_is_sane(request: &RestoreRequest) -> Result<()> {
    let bad = |what: &str| Err(Error::new(ErrorKind::Config, what));
    match &request.target {
        RecoveryTarget::Name(name) if name.is_empty() => return bad("the restore point's name is empty"),
        RecoveryTarget::Name(name) if name.len() > 63 => return bad("a restore point's name has at most 63 bytes"),
        RecoveryTarget::Xid(xid) if *xid < 3 => return bad("transactions are numbered from 3 on"),
        RecoveryTarget::Lsn(lsn) if !lsn.is_valid() => return bad("0/0 is no position"),
        _ => {}
    }
    let has_limit = matches!(request.target, RecoveryTarget::Time(_) | RecoveryTarget::Lsn(_) | RecoveryTarget::Xid(_));
    if !request.inclusive && !has_limit {
        return bad("only a time, a position or a transaction can be excluded");
    }
    if request.primary_conninfo.is_some() && !request.standby {
        return bad("only a standby has a primary to connect to; add --standby");
    }
    if request.restore_command.as_ref().is_some_and(|command| command.trim().is_empty()) {
        return bad("the restore command is empty: recovery would find no WAL");
    }
    Ok(())
}

/// The repository has an identity, and nothing in it that this version does not know.
pub(super) async fn repository_is_understood(source: &Source) -> Result<()> {
    source.cluster.identity().await?;
    match source.cluster.unknown_features().await?.first() {
        None => Ok(()),
        Some(feature) => Err(Error::new(
            ErrorKind::Config,
            format!("the repository has the feature {feature}, which this version does not know: what it would restore is not proven"),
        )
        .hint("use a newer version of Walhalla; nothing was written")),
    }
}

/// All WAL that the backup itself needs is there; and behind it no hole that stands in the way of the target. A hole that was
/// accepted, or lies behind the target, is noted.
pub(super) fn wal_is_whole(request: &RestoreRequest, backup: &Manifest, chain: &Chain) -> Result<Vec<String>> {
    if !chain::reaches(chain, backup.end_lsn) {
        let missing = chain.hole.as_ref().map_or_else(|| next_of(backup, chain), |hole| hole.missing.to_string());
        return Err(Error::new(
            ErrorKind::Gap,
            format!("backup {} needs {missing}, which is neither in the archive nor in the backup", backup.id),
        )
        .hint("restore from another backup with --backup; nothing was written"));
    }
    let mut notes: Vec<String> = request
        .accept_gap
        .iter()
        .filter(|name| chain.hole.as_ref().is_none_or(|hole| hole.missing != **name))
        .map(|name| format!("{name} is accepted as missing, but it is not what replay misses first"))
        .collect();
    let Some(hole) = &chain.hole else { return Ok(notes) };
    if request.accept_gap.contains(&hole.missing) {
        notes.push(format!("{} is missing, and accepted: what {} and later hold is lost", hole.missing, hole.next));
        return Ok(notes);
    }
    match request.target {
        // These end before the hole, or are refused when that is looked at.
        RecoveryTarget::Immediate | RecoveryTarget::Time(_) | RecoveryTarget::Lsn(_) => {
            notes.push(format!("{} is missing from the archive: one cannot restore beyond it", hole.missing));
            Ok(notes)
        }
        // Found before the hole, since the search ends there.
        RecoveryTarget::Name(_) | RecoveryTarget::Xid(_) => Ok(notes),
        RecoveryTarget::Latest => {
            Err(gap(chain, "the archive has a hole").unwrap_or_else(|| Error::new(ErrorKind::Bug, "no hole")))
        }
    }
}

/// The error that names the hole behind a chain.
pub(super) fn gap(chain: &Chain, what: &str) -> Option<Error> {
    let hole = chain.hole.as_ref()?;
    Some(Error::new(ErrorKind::Gap, format!("{what}: {} is missing, while {} is there", hole.missing, hole.next)).hint(
        format!(
            "put it into the archive, or give up what lies behind it with --accept-gap {}; nothing was written",
            hole.missing
        ),
    ))
}

fn next_of(backup: &Manifest, chain: &Chain) -> String {
    let next = match chain.last {
        Some(last) => last.next(backup.wal_segment_size),
        None => Some(chain.first),
    };
    next.map_or_else(|| "a segment".to_owned(), |name| name.to_string())
}

/// The history files that the server will ask for are there: those of the timeline and its ancestors since the backup. Others
/// between them, which Postgres asks for, too, are noted.
pub(super) fn histories_are_there(lineage: &Lineage, backup: &Manifest, lineages: &Lineages) -> Result<Vec<String>> {
    let last = lineage.timeline().get();
    let asked = (backup.start_timeline.get()..=last).filter_map(TimelineId::new).filter(|t| *t != TimelineId::FIRST);
    let mut notes = Vec::new();
    for timeline in asked {
        if lineages.contains_key(&timeline) {
            continue;
        }
        let on_the_way = lineage.steps().any(|step| step.timeline == timeline);
        if on_the_way {
            return Err(missing_history(lineage, timeline));
        }
        notes.push(format!(
            "{}.history is missing from the archive: the server will ask for it, and its recovery stop there",
            timeline.hex()
        ));
    }
    Ok(notes)
}

/// What a missing history file said stands at the head of every later one.
fn missing_history(lineage: &Lineage, timeline: TimelineId) -> Error {
    let lines: Vec<String> = lineage
        .parents()
        .iter()
        .filter(|step| step.timeline < timeline)
        .filter_map(|step| Some(format!("{}\\t{}\\tput back", step.timeline, step.end?)))
        .collect();
    Error::new(ErrorKind::Gap, format!("{}.history is missing from the archive", timeline.hex())).hint(format!(
        "put it back: printf '{}\\n' > {name} && walhalla-archive {name}; nothing was written",
        lines.join("\\n"),
        name = format_args!("{}.history", timeline.hex()),
    ))
}

/// What stands in nobody's way but should be known.
pub(super) fn worth_knowing(request: &RestoreRequest, backup: &Manifest, configuration: &[&str]) -> Vec<String> {
    let mut notes = Vec::new();
    if !backup.damaged.is_empty() {
        notes.push(format!("the backup is damaged: {}", backup.damaged.join("; ")));
    }
    if !configuration.is_empty() {
        let old: Vec<&str> = backup.outside.values().map(String::as_str).collect();
        let old = if old.is_empty() { String::new() } else { format!(" (it lay in {})", old.join(", ")) };
        notes.push(format!(
            "the configuration lay outside of the data directory and is not in the backup{old}: {} will be written, enough to start",
            configuration.join(", ")
        ));
    }
    let synchronous = backup.server_settings.get("synchronous_standby_names").filter(|names| !names.is_empty());
    if let (Some(names), Role::Primary | Role::Held) = (synchronous, request.role) {
        notes.push(format!("synchronous_standby_names is '{names}': commits will wait for those standbys"));
    }
    if request.programs.config.is_none() && request.restore_command.is_none() {
        notes.push("the server finds the repository in /etc/walhalla.toml or in its own environment".to_owned());
    }
    if backup.pg_manifest.is_empty() {
        notes.push(
            "the server sent no manifest with this backup: pg_verifybackup will have nothing to go by".to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::Hole;
    use crate::reach::testing::{backup, lsn, names, tli};

    fn chain(end: &str, hole: bool) -> Chain {
        let [first, last, missing, next] = names(&[
            "000000010000000000000003",
            "000000010000000000000004",
            "000000010000000000000005",
            "000000010000000000000007",
        ])
        .try_into()
        .unwrap();
        Chain { first, segments: 2, last: Some(last), end: lsn(end), hole: hole.then_some(Hole { missing, next }) }
    }

    #[test]
    fn a_hole_before_the_target_is_an_error_and_behind_it_a_note() {
        let backup = backup("a", 1, "0/3000028", "0/3000100");
        let with_hole = chain("0/5000000", true);
        let mut request = RestoreRequest::new("/d");
        let error = wal_is_whole(&request, &backup, &with_hole).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap);
        assert!(error.to_string().contains("--accept-gap 000000010000000000000005"), "{error}");
        request.target = RecoveryTarget::Immediate;
        assert_eq!(wal_is_whole(&request, &backup, &with_hole).unwrap().len(), 1);
        request.target = RecoveryTarget::Latest;
        request.accept_gap = names(&["000000010000000000000005"]);
        let notes = wal_is_whole(&request, &backup, &with_hole).unwrap();
        assert!(notes[0].contains("accepted"), "{notes:?}");
        let notes = wal_is_whole(&request, &backup, &chain("0/5000000", false)).unwrap();
        assert!(notes[0].contains("not what replay misses"), "{notes:?}");
    }

    #[test]
    fn a_backup_without_its_own_wal_is_none() {
        let backup = backup("a", 1, "0/3000028", "0/5000100");
        let error = wal_is_whole(&RestoreRequest::new("/d"), &backup, &chain("0/5000000", false)).unwrap_err();
        assert!(error.to_string().contains("needs 000000010000000000000005"), "{error}");
    }

    #[test]
    fn a_missing_history_is_told_with_its_lines() {
        let backup = backup("a", 1, "0/3000028", "0/3000100");
        let lineage = Lineage::new(tli(3), [(tli(1), lsn("0/5000000")), (tli(2), lsn("0/6000000"))]);
        let mut lineages = Lineages::new();
        lineages.insert(tli(1), Lineage::first());
        lineages.insert(tli(3), lineage.clone());
        let error = histories_are_there(&lineage, &backup, &lineages).unwrap_err().to_string();
        assert!(error.contains("00000002.history is missing"), "{error}");
        assert!(error.contains(r"printf '1\t0/5000000\tput back\n' > 00000002.history"), "{error}");
        let direct = Lineage::new(tli(3), [(tli(1), lsn("0/5000000"))]);
        let notes = histories_are_there(&direct, &backup, &lineages).unwrap();
        assert!(notes[0].contains("00000002.history"), "{notes:?}");
    }

    #[test]
    fn what_postgres_would_refuse() {
        let refused = |change: &dyn Fn(&mut RestoreRequest)| {
            let mut request = RestoreRequest::new("/d");
            change(&mut request);
            request_is_sane(&request).unwrap_err().kind()
        };
        for change in [
            &(|r: &mut RestoreRequest| r.target = RecoveryTarget::Name(String::new())) as &dyn Fn(&mut RestoreRequest),
            &|r| r.target = RecoveryTarget::Name("x".repeat(64)),
            &|r| r.target = RecoveryTarget::Xid(2),
            &|r| r.target = RecoveryTarget::Lsn(crate::pg::Lsn(0)),
            &|r| r.inclusive = false,
            &|r| r.primary_conninfo = Some("host=x".into()),
            &|r| r.restore_command = Some(" ".into()),
        ] {
            assert_eq!(refused(change), ErrorKind::Config);
        }
    }
}
