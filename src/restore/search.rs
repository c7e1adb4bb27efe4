//! Names and transactions: which backup comes before them can only be read from the WAL itself.

use super::checks::gap;
use super::choose::Candidate;
use super::request::{RecoveryTarget, RestoreRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Event, Lsn, SegmentName, TimelineId};
use crate::reach::chain;
use crate::reach::source::Source;
use crate::reach::walk::{self, Found};
use crate::reach::window;
use crate::repo::Manifest;

/// Segments that are read for it at most.
const MOST: usize = 1024;

/// The newest candidate that ended before the restore point or the end of the transaction. The WAL behind each backup is read,
/// that of the newest first, each up to where the backup after it ended. If what may be read is not enough, the oldest is taken.
pub(super) async fn before_milestone<'a>(
    source: &Source,
    request: &RestoreRequest,
    candidates: &[Candidate<'a>],
) -> Result<(Candidate<'a>, String)> {
    let mut remaining = MOST;
    let mut seen_names: Vec<String> = Vec::new();
    // Up to where a newer backup of the same timeline has been looked through.
    let mut searched: Option<(TimelineId, Lsn)> = None;
    let mut hole = None;
    let mut too_early = None;
    for candidate in candidates {
        let Candidate { backup, lineage } = candidate;
        let chain = window::chain(source, lineage, backup).await?;
        let accepted = chain.hole.as_ref().is_some_and(|hole| request.accept_gap.contains(&hole.missing));
        if !accepted {
            hole = hole.or_else(|| gap(&chain, &format!("{} was not found", request.target)));
        }
        let size = backup.wal_segment_size;
        let end = searched.filter(|(timeline, _)| *timeline == lineage.timeline()).map(|(_, end)| end);
        let is_in = |name: &SegmentName| name.start(size).is_some_and(|start| end.is_none_or(|end| start < end));
        let names: Vec<SegmentName> = chain::names(backup, lineage, &chain).filter(is_in).collect();
        let wanted = |milestone: &crate::pg::Milestone| match (&request.target, &milestone.event) {
            (RecoveryTarget::Name(wanted), Event::RestorePoint { name }) => {
                seen_names.push(name.clone());
                name == wanted
            }
            (RecoveryTarget::Xid(xid), _) => walk::ends(milestone, *xid),
            _ => false,
        };
        let found = match walk::find(source, backup, &names, backup.start_lsn, &mut remaining, wanted).await {
            // It may still lie before an older segment that cannot be read; nothing behind that one is reached.
            Err(error) if walk::is_damage(&error) => {
                hole = hole.or_else(|| Some(error.context(format!("{} was not found", request.target))));
                Found::No
            }
            found => found?,
        };
        match found {
            // Postgres stops at the first that it meets, though it be before consistency: this backup is too new.
            Found::Yes(milestone) if milestone.lsn < backup.end_lsn => {
                too_early = Some(too_early_for(request, backup, milestone.lsn));
            }
            Found::Yes(milestone) => {
                let why = format!(
                    "the newest backup before {}, which was found in the WAL at {}",
                    request.target, milestone.lsn
                );
                return Ok((candidate.clone(), if request.backup.is_some() { "it was asked for".into() } else { why }));
            }
            Found::No => {}
            Found::GaveUp => return Ok(oldest(request, candidates, candidate)),
        }
        searched = Some((lineage.timeline(), backup.end_lsn));
    }
    Err(too_early.or(hole).unwrap_or_else(|| not_there(request, candidates, &seen_names)))
}

/// The oldest: wherever the target is, replay from there comes past it.
fn oldest<'a>(
    request: &RestoreRequest,
    candidates: &[Candidate<'a>],
    current: &Candidate<'a>,
) -> (Candidate<'a>, String) {
    let why = format!(
        "the oldest backup, because {} was not found in the {MOST} segments that were looked through; --backup can name a newer one",
        request.target
    );
    (candidates.last().unwrap_or(current).clone(), why)
}

fn too_early_for(request: &RestoreRequest, backup: &Manifest, at: Lsn) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("{} at {at} lies before the end of backup {} at {}", request.target, backup.id, backup.end_lsn),
    )
    .hint("an older backup is needed; or --target-time for something later; nothing was written")
}

fn not_there(request: &RestoreRequest, candidates: &[Candidate<'_>], seen: &[String]) -> Error {
    let from =
        candidates.last().map_or_else(String::new, |oldest| format!(" since the end of backup {}", oldest.backup.id));
    let hint = match (&request.target, seen) {
        (RecoveryTarget::Name(_), []) => "there is no restore point in it".to_owned(),
        (RecoveryTarget::Name(_), seen) => {
            let newest: Vec<&str> = seen.iter().rev().take(5).map(String::as_str).collect();
            format!("the restore points in it: {}", newest.join(", "))
        }
        _ => "a transaction that only read has no commit in the WAL; see pg_waldump".to_owned(),
    };
    Error::new(ErrorKind::Config, format!("{} is not in the archived WAL{from}", request.target)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Kind;
    use crate::pg::WalFileName;
    use crate::pg::test_wal::{WalWriter, one_mib};
    use crate::reach::lineage::Lineage;
    use crate::reach::testing::{Shelf, backup, lsn, tli};

    const START: Lsn = Lsn(0x30_0000);

    /// Segments of 1 MiB from number 3 on, each with a restore point of this name, none where it is empty.
    fn archive(shelf: &Shelf, timeline: u32, first: u64, names: &[&str]) -> Vec<Lsn> {
        let start = Lsn(first << 20);
        let mut writer = WalWriter::new(start, one_mib());
        writer.timeline = timeline;
        let mut points = Vec::new();
        for name in names {
            let mut data = [0; 72];
            data[8..8 + name.len()].copy_from_slice(name.as_bytes());
            points.push(match name.is_empty() {
                true => writer.commit(700, 1),
                false => writer.record(0, 0x70, 0, &WalWriter::main_data(&data)),
            });
            writer.switch();
        }
        for (number, bytes) in (first..).zip(writer.bytes.chunks(1 << 20)) {
            let name = SegmentName::at(tli(timeline), Lsn(number << 20), one_mib());
            let key = shelf.layout().wal(&WalFileName::Segment(name));
            shelf.place(&key, Kind::Wal, tli(timeline), Lsn(number << 20), bytes);
        }
        points
    }

    fn small(letter: &str, timeline: u32, start: Lsn, end_lsn: Lsn) -> Manifest {
        let wal = Vec::new();
        Manifest {
            wal_segment_size: one_mib(),
            start_lsn: start,
            end_lsn,
            wal,
            ..backup(letter, timeline, "0/28", "0/100")
        }
    }

    async fn chosen(shelf: &Shelf, name: &str, candidates: &[(&Manifest, &Lineage)]) -> Result<String> {
        let candidates: Vec<_> = candidates.iter().map(|(backup, lineage)| Candidate { backup, lineage }).collect();
        let request = RestoreRequest { target: RecoveryTarget::Name(name.into()), ..RestoreRequest::new("/d") };
        let found = before_milestone(&shelf.source(), &request, &candidates).await?;
        Ok(found.0.backup.id.to_string())
    }

    #[tokio::test]
    async fn a_restore_point_within_a_backup_is_met_before_its_end() {
        let shelf = Shelf::new();
        let points = archive(&shelf, 1, 3, &["", "x", "x", "y"]);
        let old = small("a", 1, START, Lsn(START.0 + 0x30));
        // It began before the first x, and ended behind it.
        let new = small("b", 1, lsn("0/400000"), Lsn(points[1].0 + 1));
        let first = Lineage::first();
        assert_eq!(chosen(&shelf, "x", &[(&new, &first), (&old, &first)]).await.unwrap(), old.id.as_str());
        assert_eq!(chosen(&shelf, "y", &[(&new, &first), (&old, &first)]).await.unwrap(), new.id.as_str());
        let line = chosen(&shelf, "x", &[(&new, &first)]).await.unwrap_err().to_string();
        assert!(line.contains("lies before the end of backup") && line.contains(new.id.as_str()), "{line}");
    }

    #[tokio::test]
    async fn what_was_searched_on_one_timeline_is_not_on_another() {
        let shelf = Shelf::new();
        archive(&shelf, 1, 3, &["", "", "", "x"]);
        archive(&shelf, 2, 4, &[""]);
        let second = Lineage::new(tli(2), [(tli(1), lsn("0/400000"))]);
        let first = Lineage::first();
        let on_second = small("a", 2, lsn("0/400000"), lsn("0/400100"));
        let on_first = small("b", 1, START, Lsn(START.0 + 0x30));
        let found = chosen(&shelf, "x", &[(&on_second, &second), (&on_first, &first)]).await;
        assert_eq!(found.unwrap(), on_first.id.as_str());
    }

    #[tokio::test]
    async fn a_damaged_segment_behind_the_name_is_none_of_its_business() {
        let shelf = Shelf::new();
        archive(&shelf, 1, 3, &["x", "", ""]);
        let name = SegmentName::at(tli(1), lsn("0/500000"), one_mib());
        shelf.write(&shelf.layout().wal(&WalFileName::Segment(name)), b"");
        let old = small("a", 1, START, Lsn(START.0 + 0x28));
        let new = small("b", 1, lsn("0/400000"), lsn("0/400100"));
        let first = Lineage::first();
        assert_eq!(chosen(&shelf, "x", &[(&new, &first), (&old, &first)]).await.unwrap(), old.id.as_str());
        let error = chosen(&shelf, "z", &[(&new, &first), (&old, &first)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
