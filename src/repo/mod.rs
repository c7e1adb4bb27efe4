//! What objects mean: keys, identity, the rules of storing and of proving absence, backups, the WAL that is there.

pub mod absence;
pub mod backup_id;
pub mod catalog;
mod claim;
mod confirm;
mod deposit;
pub mod history;
pub mod identity;
pub mod index;
mod judge;
pub mod layout;
pub mod manifest;
mod notes;
mod probe;
mod replace;
pub mod repository;
pub mod started;
#[cfg(test)]
mod testing;
pub mod wal_index;

pub use absence::Absence;
pub use backup_id::BackupId;
pub use catalog::{Catalog, DamagedBackup};
pub use confirm::Presence;
pub use history::ArchivedHistory;
pub use identity::ClusterIdentity;
pub use layout::Layout;
pub use manifest::Manifest;
pub use probe::{Examination, Listed};
pub use repository::{Cluster, Deposited, Receipt, Repository, Stored};
