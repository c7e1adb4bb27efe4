//! Base backups over the replication protocol, streamed into the storage without local staging, in bounded memory.
//!
//! ```text
//! server ── wire ── flow ── pack ─┬─ compress (threads) ─┐
//!                  (by version)   └─ records ─────────── assemble (a thread) ── upload ── storage
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `run` | a backup from beginning to end |
//! | `source` | the server: version, settings, clock, configuration outside the data directory |
//! | `flow`, `stream` | the course of BASE_BACKUP, by version |
//! | `tar_scan`, `pack` | tar streams: scanned, hashed, cut into frames |
//! | `compress`, `assemble`, `budget`, `upload` | frames to objects to the storage |
//! | `agreement` | Postgres' own manifest, held against what came |
//! | `wal`, `fetch` | the WAL it needs: waited for, fetched |

mod agreement;
mod assemble;
mod budget;
mod compress;
mod fetch;
mod flow;
mod options;
mod pack;
mod run;
mod source;
mod stream;
mod tar_scan;
mod upload;
mod wal;

pub use options::{BackupOptions, BackupReport, Phase, Progress, Unwatched};
pub use run::run;

/// Scans a tar stream that comes in pieces of this size, for the fuzz target: its members, a line each, with where they and
/// their content end.
#[doc(hidden)]
pub fn scan_tar(stream: &[u8], piece: usize) -> crate::error::Result<Vec<String>> {
    let mut scan = tar_scan::TarScan::new();
    let (mut lines, mut content) = (Vec::new(), 0);
    for mut input in stream.chunks(piece.max(1)) {
        while !input.is_empty() || scan.has_file_end() {
            let (taken, step) = scan.step(input)?;
            match step {
                tar_scan::Step::Nothing => {}
                tar_scan::Step::Member(member) => lines.push(format!("{member:?}")),
                tar_scan::Step::Content => content += taken,
                tar_scan::Step::FileEnd => {
                    lines.push(format!("{} after {}", scan.position(), std::mem::take(&mut content)));
                }
            }
            input = input.get(taken..).unwrap_or_default();
        }
    }
    Ok(lines)
}
