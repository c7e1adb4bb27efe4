//! How far one can go: timelines, WAL without a hole, and what the WAL itself tells of time. What every verb that judges a
//! repository goes by.
//!
//! | file | what it knows |
//! |---|---|
//! | `source` | where backups come from, and how objects are held against what vouches for them |
//! | `lineage` | the way a timeline came, and which one to follow |
//! | `chain` | WAL without a hole, from a backup on |
//! | `walk` | the last commit, a restore point, a transaction: read from the WAL |
//! | `time` | moments that nobody can misread |
//! | `window` | from when to when one can restore |

pub mod chain;
pub mod lineage;
pub mod source;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod walk;
pub mod window;

pub use chain::{Chain, Hole};
pub use lineage::TargetTimeline;
pub use source::Source;
pub use time::TargetTime;
pub use walk::Commit;
pub use window::{Reach, Window};
