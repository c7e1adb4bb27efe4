//! The first object of a backup (`backup/<id>/started`): that somebody began one. Without a manifest it means nothing else.

use super::BackupId;
use crate::pg::{Lsn, PgMajor, SystemIdentifier, TimelineId};

/// Who began a backup, where and when; stored as JSON in an object of kind `BackupStarted`, never encrypted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Started {
    /// Format: 1.
    pub format: u32,
    /// The backup's id.
    pub id: BackupId,
    /// Whose it is.
    pub system_identifier: SystemIdentifier,
    /// Major version of Postgres.
    pub postgres_major: PgMajor,
    /// Server's clock before the backup: RFC 3339, UTC.
    pub started_at: String,
    /// Redo position at which replay begins.
    pub start_lsn: Lsn,
    /// Its timeline.
    pub start_timeline: TimelineId,
    /// The label the operator gave.
    pub label: String,
    /// Name of the host that took it.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// Version of the program that took it.
    pub written_by: String,
}

impl Started {
    /// The format written and read.
    pub const FORMAT: u32 = 1;
}
