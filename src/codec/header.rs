//! The header in the clear.

use super::Defect;
use crate::pg::{Lsn, SystemIdentifier};
use std::fmt;

/// Length of the whole skippable frame that carries the header, in bytes: the payload begins here.
pub const HEADER_LEN: usize = 144;

/// BLAKE3-256 of plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ContentHash {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl std::str::FromStr for ContentHash {
    type Err = crate::pg::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text)
            .map_err(|error| crate::pg::ParseError::new("content hash", format!("{text:?}: {error}")))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl serde::Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A WAL file of any of the four sorts.
    Wal = 1,
    /// The first object of a backup (JSON).
    BackupStarted = 2,
    /// A slice of a backup's tar stream.
    BackupData = 3,
    /// Records of a backup's files and frames (JSON lines).
    BackupIndex = 4,
    /// A slice of Postgres' own `backup_manifest`.
    PgManifest = 5,
    /// A backup's manifest (JSON): its last object.
    BackupManifest = 6,
}

/// What an object is about; together with its key this binds the object to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject {
    /// What it holds.
    pub kind: Kind,
    /// Whose it is.
    pub system_identifier: SystemIdentifier,
    /// The timeline of the WAL file's name, or of the backup's start.
    pub timeline: u32,
    /// The first position of a segment or `.partial`; a `.backup`'s start position; 0 for a `.history`; a backup's start.
    pub start: Lsn,
}

/// Length and hash of an encrypted payload, so that it can be verified without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PayloadSeal {
    /// Bytes behind the header.
    pub length: u64,
    /// BLAKE3-256 of them.
    pub hash: ContentHash,
}

/// The header of a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectHeader {
    /// What the object is about.
    pub subject: Subject,
    /// Length of the plain bytes.
    pub plain_length: u64,
    /// Hash of the plain bytes.
    pub plain_hash: ContentHash,
    /// Present if and only if the payload is encrypted.
    pub seal: Option<PayloadSeal>,
}

impl ObjectHeader {
    /// Reads the header at the beginning of an object.
    pub fn parse(_object: &[u8]) -> Result<Self, Defect> {
        Err(Defect::Foreign)
    }

    /// The whole skippable frame.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        [0; HEADER_LEN]
    }
}
