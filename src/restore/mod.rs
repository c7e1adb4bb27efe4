//! Rebuilding a data directory (`walhalla restore`).
//!
//! [`plan()`] looks and decides: which backup, along which timeline, how far one can go, whether everything is there and fits.
//! Its result is a value that can be printed; nothing was written. [`execute()`] carries it out, `global/pg_control` last, so that
//! half a restore cannot be started. [`release()`] lets a restored server archive.
//!
//! | file | what it knows |
//! |---|---|
//! | `request`, `time` | what was asked for, and moments that nobody can misread |
//! | `lineage`, `chain`, `reach` | timelines; WAL without a hole; what the WAL itself tells |
//! | `choose`, `search` | which backup |
//! | `target`, `checks`, `inventory`, `place` | what is proven before the first byte is written |
//! | `unroll`, `object`, `make` | from an index to files |
//! | `settings`, `minimal`, `tablespaces`, `manifest_edit`, `finish` | from files to a server |

mod chain;
mod checks;
mod choose;
mod execute;
mod fetch;
mod finish;
mod inventory;
mod lineage;
mod make;
mod manifest_edit;
mod minimal;
mod object;
mod owner;
mod place;
mod plan;
mod reach;
mod release;
mod report;
mod request;
mod search;
mod settings;
mod tablespaces;
mod target;
mod time;
mod unroll;

#[cfg(test)]
mod testing;

pub use chain::{Chain, Hole};
pub use execute::{Progress, execute};
pub use fetch::Source;
pub use owner::Owner;
pub use place::Space;
pub use plan::{ChosenBackup, RestorePlan, WalPlan, Window, plan};
pub use reach::Commit;
pub use release::{HELD, Release, release};
pub use report::{RestoreReport, bytes};
pub use request::{
    Programs, RecoveryTarget, Relocation, RestoreRequest, Role, TargetAction, TargetTimeline, default_action,
};
pub use tablespaces::Tablespace;
pub use time::TargetTime;
