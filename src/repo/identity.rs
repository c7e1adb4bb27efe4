//! `cluster.json`: which cluster a folder of the repository belongs to.

use crate::pg::{PgMajor, SegmentSize, SystemIdentifier};

/// The version of the repository's format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The identity of a cluster. Any difference makes it another cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIdentity {
    /// Format of the repository.
    pub format: u32,
    /// The number `initdb` gave the cluster.
    pub system_identifier: SystemIdentifier,
    /// Major version of Postgres.
    pub postgres_major: PgMajor,
    /// Size of a WAL segment, in bytes.
    pub wal_segment_size: SegmentSize,
}
