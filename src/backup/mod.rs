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
//! | `compress`, `assemble`, `upload` | frames to objects to the storage |
//! | `agreement` | Postgres' own manifest, held against what came |
//! | `wal`, `fetch` | the WAL it needs: waited for, fetched |

mod agreement;
mod assemble;
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
