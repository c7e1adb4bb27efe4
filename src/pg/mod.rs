//! Postgres' own vocabulary: positions, timelines, file names, and the files that both sides read.
//!
//! Pure and synchronous: bytes and text in, values out. No file, no socket, no clock. Every parser here returns an error for
//! anything that Postgres would not have written, never panics, and has a fuzz target.

pub mod backup_label;
mod bytes;
pub mod checksum;
pub mod control;
pub mod history;
pub mod lsn;
pub mod milestone;
pub mod name;
pub mod needed;
pub mod page;
pub mod pg_manifest;
pub mod postmaster_pid;
pub mod record;
pub mod segment_check;
pub mod system;
pub mod tablespace_map;
pub mod time;
pub mod timeline;
pub mod walk;

pub use backup_label::{BackupHistory, BackupLabel, BackupMethod, BackupSource};
pub use checksum::{ChecksumAlgorithm, FileChecksum, FileHasher};
pub use control::{ClusterState, ControlError, ControlFile, StandbySettings};
pub use history::{Ancestor, TimelineHistory};
pub use lsn::Lsn;
pub use milestone::{Event, Milestone, MilestoneReader, last_commit};
pub use name::{SegmentName, SegmentSize, WalFileName};
pub use needed::needed_segments;
pub use page::{PageHeader, PageMagic, SegmentHeader};
pub use pg_manifest::{ManifestFile, ManifestReader, ManifestSummary, WalRange};
pub use postmaster_pid::{PostmasterPid, PostmasterStatus};
pub use record::{Record, RecordHeader};
pub use segment_check::{CheckedSegment, SegmentChecker};
pub use system::{PgMajor, SystemIdentifier};
pub use tablespace_map::{Tablespace, TablespaceMap};
pub use time::PgTimestamp;
pub use timeline::TimelineId;
pub use walk::RecordReader;

/// Text or bytes that are not what Postgres writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct ParseError {
    /// What was being read: "LSN", "WAL file name", "pg_control" …
    pub what: &'static str,
    /// Why it is none, with the offending text or number.
    pub why: String,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

/// A type that JSON shows as its text: serde by way of `Display` and `FromStr`.
macro_rules! json_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use json_as_text;

/// Reads exactly `text.len()` hexadecimal digits; `upper_only` as in WAL file names.
pub(crate) fn hex_u32(text: &str, upper_only: bool) -> Option<u32> {
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    let mut value = 0_u32;
    for byte in text.bytes() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'F' => byte - b'A' + 10,
            b'a'..=b'f' if !upper_only => byte - b'a' + 10,
            _ => return None,
        };
        value = (value << 4) | u32::from(digit);
    }
    Some(value)
}

#[cfg(test)]
pub(crate) mod test_wal;
