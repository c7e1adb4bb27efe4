//! Rebuilding a data directory (`walhalla restore`).
//!
//! [`plan()`] looks and decides: which backup, along which timeline, how far one can go, whether everything is there and fits.
//! Its result is a value that can be printed; nothing was written. [`execute()`] carries it out, `global/pg_control` last, so that
//! half a restore cannot be started. [`release()`] lets a restored server archive.
//!
//! | file | what it knows |
//! |---|---|
//! | `request` | what was asked for |
//! | `choose`, `search` | which backup |
//! | `target`, `checks`, `inventory`, `place` | what is proven before the first byte is written |
//! | `unroll`, `object`, `make` | from an index to files |
//! | `settings`, `minimal`, `tablespaces`, `manifest_edit`, `finish` | from files to a server |

mod checks;
mod choose;
mod execute;
mod finish;
mod inventory;
mod make;
mod manifest_edit;
mod minimal;
mod object;
mod owner;
mod place;
mod plan;
mod release;
mod report;
mod request;
mod search;
mod settings;
mod tablespaces;
mod target;
mod unroll;

pub use execute::{Progress, execute};
pub use owner::Owner;
pub use place::Space;
pub use plan::{ChosenBackup, RestorePlan, WalPlan, plan};
pub use release::{HELD, Release, release};
pub use report::{RestoreReport, bytes};
pub use request::{Programs, RecoveryTarget, Relocation, RestoreRequest, Role, TargetAction, default_action};
pub use tablespaces::Tablespace;
