//! Names and transactions: which backup comes before them can only be read from the WAL itself.

use super::checks::gap;
use super::choose::Candidate;
use super::request::{RecoveryTarget, RestoreRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Event, Lsn, SegmentName};
use crate::reach::chain;
use crate::reach::source::Source;
use crate::reach::walk::{self, Found};
use crate::reach::window;

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
    let mut end: Option<Lsn> = None;
    let mut hole = None;
    for candidate in candidates {
        let Candidate { backup, lineage } = candidate;
        let chain = window::chain(source, lineage, backup).await?;
        let accepted = chain.hole.as_ref().is_some_and(|hole| request.accept_gap.contains(&hole.missing));
        if !accepted {
            hole = hole.or_else(|| gap(&chain, &format!("{} was not found", request.target)));
        }
        let size = backup.wal_segment_size;
        let is_in = |name: &SegmentName| {
            name.start(size)
                .is_some_and(|start| start.0 + size.bytes() > backup.end_lsn.0 && end.is_none_or(|end| start < end))
        };
        let names: Vec<SegmentName> = chain::names(backup, lineage, &chain).filter(is_in).collect();
        let wanted = |milestone: &crate::pg::Milestone| match (&request.target, &milestone.event) {
            (RecoveryTarget::Name(wanted), Event::RestorePoint { name }) => {
                seen_names.push(name.clone());
                name == wanted
            }
            (RecoveryTarget::Xid(xid), _) => walk::ends(milestone, *xid),
            _ => false,
        };
        let found = match walk::find(source, backup, &names, backup.end_lsn, &mut remaining, wanted).await {
            // It may still lie before an older segment that cannot be read; nothing behind that one is reached.
            Err(error) if walk::is_damage(&error) => {
                hole = hole.or_else(|| Some(error.context(format!("{} was not found", request.target))));
                Found::No
            }
            found => found?,
        };
        match found {
            Found::Yes(milestone) => {
                let why = format!(
                    "the newest backup before {}, which was found in the WAL at {}",
                    request.target, milestone.lsn
                );
                return Ok((candidate.clone(), if request.backup.is_some() { "it was asked for".into() } else { why }));
            }
            Found::No => end = Some(backup.end_lsn),
            Found::GaveUp => return Ok(oldest(request, candidates, candidate)),
        }
    }
    Err(hole.unwrap_or_else(|| not_there(request, candidates, &seen_names)))
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
