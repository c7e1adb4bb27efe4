//! What objects mean: keys, identity, the rules of storing and of proving absence, backups, the WAL that is there.

pub mod backup_id;
pub mod identity;
pub mod index;
pub mod layout;
pub mod manifest;
pub mod repository;

pub use backup_id::BackupId;
pub use identity::ClusterIdentity;
pub use layout::Layout;
pub use manifest::Manifest;
pub use repository::{Absence, Cluster, Deposited, Repository};
