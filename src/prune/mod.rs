//! Retention: what of the past goes, and what stays and why.
//!
//! | file | subject |
//! |---|---|
//! | `survey` | what is there: backups, timelines, WAL, how far each backup reaches |
//! | `plan` | from that and the policy to what goes: a value, made without a request |
//! | `wal` | which WAL files a plan leaves |
//! | `execute` | carries a plan out: manifests first, then data, then WAL, oldest first |
//!
//! The order of the rules: nothing that could not be read goes, nothing of a backup that may be under way, never a `.history`, never
//! the last good backup; then what the policy promises stays ([`crate::config::Keep`]); only the rest goes.

pub mod execute;
pub mod plan;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod wal;

pub use execute::{Done, execute, measure};
pub use plan::{Backup, Plan, Reason};
pub use survey::{Survey, survey};
pub use wal::Remains;
