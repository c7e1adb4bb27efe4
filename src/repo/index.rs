//! Records of a backup's files and frames, one JSON value a line, in the order of the stream.
//!
//! Archives follow one another; within one, records are in the order of positions: a `File` when its member's header passes,
//! a `Sum` when its last byte has passed, a `Data` when a data object is complete. So a reader that goes through the records
//! once knows, when it meets a `Data`, every file that this object holds bytes of, and needs to remember only the files that
//! are not yet complete. A line never spans two index objects. The manifest vouches for the index, the index for the data.

use crate::codec::ContentHash;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// A new archive begins: `base` or a tablespace's oid.
    Archive(String),
    /// A member of the archive.
    File(Member),
    /// A regular file is complete.
    Sum(Sum),
    /// A data object is complete.
    Data(DataObject),
}

/// What a member of a tar stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
}

/// A member of a tar stream.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// What it is.
    pub kind: MemberKind,
    /// Path relative to the archive's root, without leading `./` and closing slash. Bytes that are not UTF-8 are refused at backup.
    pub path: String,
    /// Length in bytes; 0 unless a regular file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Position of its first byte (behind its tar header) in the archive's tar stream.
    pub at: u64,
}

/// The checksum of a regular file that has just ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sum {
    /// [`Member::at`] of the file.
    pub at: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

/// A data object: the next slice of the archive's tar stream. Slices join without gap or overlap.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DataObject {
    /// Its number in the archive, from 0.
    pub number: u32,
    /// Position of its first plain byte in the archive's tar stream.
    pub at: u64,
    /// Length of its plain bytes.
    pub plain: u64,
    /// BLAKE3-256 of its plain bytes.
    pub hash: ContentHash,
    /// Stored size in bytes.
    pub size: u64,
    /// Its zstd frames, in order.
    pub frames: Vec<Frame>,
}

/// One zstd frame of a data object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Length of the compressed frame in bytes.
    pub packed: u32,
    /// Length of its plain bytes.
    pub plain: u32,
    /// CRC-32 of its plain bytes.
    pub crc32: u32,
}
