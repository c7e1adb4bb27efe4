//! A backup's own manifest: small, in the clear, written last. A backup exists if and only if it does.

use super::BackupId;
use crate::codec::ContentHash;
use crate::pg::{Lsn, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use std::collections::BTreeMap;

/// The manifest (`backup/<id>/manifest`), stored as JSON in an object of kind `BackupManifest`, never encrypted.
///
/// Readers ignore fields they do not know; what they must not ignore is a feature (`feature/`), or another `format`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Format of the manifest: 1.
    pub format: u32,
    /// The backup's id.
    pub id: BackupId,
    /// Whose it is.
    pub system_identifier: SystemIdentifier,
    /// Major version of Postgres.
    pub postgres_major: PgMajor,
    /// `server_version_num`, like 150018.
    pub server_version_num: u32,
    /// Size of a WAL segment, in bytes.
    pub wal_segment_size: SegmentSize,
    /// The full backup that an incremental one builds upon; absent for a full one. Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// The label the operator gave.
    pub label: String,
    /// Taken from a standby.
    pub from_standby: bool,
    /// Server's clock before the backup: RFC 3339, UTC.
    pub started_at: String,
    /// Server's clock when Postgres declared the backup complete: RFC 3339, UTC. One can restore from here on.
    pub finished_at: String,
    /// Redo position at which replay begins.
    pub start_lsn: Lsn,
    /// Its timeline.
    pub start_timeline: TimelineId,
    /// Position that replay must reach for consistency.
    pub end_lsn: Lsn,
    /// Its timeline.
    pub end_timeline: TimelineId,
    /// Every WAL segment that the backup needs, oldest first.
    pub wal: Vec<NeededWal>,
    /// One per tar stream, in the order of the stream.
    pub archives: Vec<Archive>,
    /// Parts of the index, in order.
    pub index: Vec<ObjectRef>,
    /// Slices of Postgres' manifest, in order; empty if the server sent none.
    pub pg_manifest: Vec<ObjectRef>,
    /// Whether data, index and Postgres' manifest are encrypted.
    pub encrypted: bool,
    /// What Postgres said about damaged pages, a line each; not empty means damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
    /// Configuration files outside the data directory, hence not in the backup: setting name to path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outside: BTreeMap<String, String>,
    /// Settings of the server that a copy needs to start as a hot standby, and others worth knowing (`max_connections` …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub server_settings: BTreeMap<String, String>,
    /// Regular files in all archives.
    pub files: u64,
    /// Bytes of all tar streams.
    pub tar_bytes: u64,
    /// Bytes of all objects as stored, this one left out.
    pub stored_bytes: u64,
    /// Version of the program that wrote it.
    pub written_by: String,
}

impl Manifest {
    /// The format written and read.
    pub const FORMAT: u32 = 1;
}

/// A WAL segment that a backup needs, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NeededWal {
    /// Its name.
    pub name: SegmentName,
    /// In the backup's own `wal/` rather than in the archive.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
}

/// One tar stream of a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Archive {
    /// `base`, or the tablespace's oid.
    pub name: String,
    /// The tablespace's directory on the server; absent for `base`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How many data objects it has.
    pub objects: u32,
    /// Length of the tar stream in bytes, its two closing blocks included.
    pub tar_bytes: u64,
}

/// An object that the manifest vouches for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ObjectRef {
    /// Stored size in bytes.
    pub size: u64,
    /// Length of its plain bytes.
    pub plain: u64,
    /// BLAKE3-256 of its plain bytes.
    pub hash: ContentHash,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{PgMajor, WalFileName};
    use proptest::prelude::*;

    prop_compose! {
        fn object_refs()(sizes in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<[u8; 32]>()), 0..4)) -> Vec<ObjectRef> {
            sizes.into_iter().map(|(size, plain, hash)| ObjectRef { size, plain, hash: ContentHash(hash) }).collect()
        }
    }

    prop_compose! {
        fn manifests()(
            major in 13_u16..=18,
            shift in 20_u32..=30,
            (system, start, end) in any::<(u64, u64, u64)>(),
            timeline in 1_u32..,
            texts in proptest::collection::vec(".*", 5),
            (from_standby, encrypted, own) in any::<(bool, bool, bool)>(),
            (index, pg_manifest) in (object_refs(), object_refs()),
            figures in any::<[u64; 3]>(),
        ) -> Manifest {
            let size = SegmentSize::new(1 << shift).unwrap();
            let timeline = TimelineId::new(timeline).unwrap();
            Manifest {
                format: Manifest::FORMAT,
                id: "20261123T170159Z-7f3a1c".parse().unwrap(),
                system_identifier: SystemIdentifier(system),
                postgres_major: PgMajor(major),
                server_version_num: u32::from(major) * 10_000,
                wal_segment_size: size,
                parent: None,
                label: texts[0].clone(),
                from_standby,
                started_at: texts[1].clone(),
                finished_at: texts[2].clone(),
                start_lsn: Lsn(start),
                start_timeline: timeline,
                end_lsn: Lsn(end),
                end_timeline: timeline,
                wal: vec![NeededWal { name: SegmentName::at(timeline, Lsn(start), size), own }],
                archives: vec![Archive { name: "base".to_owned(), location: Some(texts[3].clone()), objects: 3, tar_bytes: start }],
                index,
                pg_manifest,
                encrypted,
                damaged: texts.clone(),
                outside: BTreeMap::from([(texts[3].clone(), texts[4].clone())]),
                server_settings: BTreeMap::new(),
                files: figures[0],
                tar_bytes: figures[1],
                stored_bytes: figures[2],
                written_by: texts[4].clone(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(manifest in manifests()) {
            let text = serde_json::to_vec(&manifest).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Manifest>(&text).unwrap(), manifest.clone());
            // What a later version adds is passed over.
            let mut json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            json["later"] = serde_json::json!([1, 2]);
            prop_assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest.clone());
            // Half of it is nothing.
            prop_assert!(serde_json::from_slice::<Manifest>(&text[..text.len() / 2]).is_err());
            let name = WalFileName::Segment(manifest.wal[0].name);
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }
    }
}
