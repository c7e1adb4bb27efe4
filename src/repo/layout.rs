//! Every key of the repository is built here, and nowhere else (`docs/format.md`).

use super::BackupId;
use crate::codec::ContentHash;
use crate::pg::{SystemIdentifier, TimelineId, WalFileName};
use crate::storage::Key;

/// The folder of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    system: SystemIdentifier,
}

impl Layout {
    /// The folder of this cluster.
    pub fn new(system: SystemIdentifier) -> Self {
        Self { system }
    }

    /// Whose folder it is.
    pub fn system(&self) -> SystemIdentifier {
        self.system
    }

    fn key(&self, rest: &str) -> Key {
        // Only plain parts are ever passed here: numbers, WAL file names, backup ids, hashes.
        Key::new(format!("{}/{rest}", self.system)).unwrap_or_else(|| unreachable!("a key of plain parts: {rest}"))
    }

    /// The whole folder, with its slash.
    pub fn folder(&self) -> String {
        format!("{}/", self.system)
    }

    /// The identity.
    pub fn identity(&self) -> Key {
        self.key("cluster.json")
    }

    /// The folder of features that a reader must know.
    pub fn features(&self) -> String {
        format!("{}/feature/", self.system)
    }

    /// A permanent object of the probe: `create`, `checksum` or `match`.
    pub fn probe(&self, name: &str) -> Key {
        self.key(&format!("probe/{name}"))
    }

    /// The folder of those.
    pub fn probes(&self) -> String {
        format!("{}/probe/", self.system)
    }

    /// A WAL file.
    pub fn wal(&self, name: &WalFileName) -> Key {
        self.key(&format!("wal/{}/{name}", name.timeline().hex()))
    }

    /// A second `.partial` or `.backup` of the same name and other content.
    pub fn wal_beside(&self, name: &WalFileName, plain: &ContentHash) -> Key {
        self.key(&format!("wal/{}/{name}-{plain}", name.timeline().hex()))
    }

    /// The folder of all timelines' WAL.
    pub fn all_wal(&self) -> String {
        format!("{}/wal/", self.system)
    }

    /// The folder of one timeline's WAL.
    pub fn wal_of(&self, timeline: TimelineId) -> String {
        format!("{}/wal/{}/", self.system, timeline.hex())
    }

    /// The folder of all claims.
    pub fn claims(&self) -> String {
        format!("{}/claim/", self.system)
    }

    /// The folder of claims on a key (see `claim`): the key's own path below the cluster's folder, `wal/` left out where it
    /// is a WAL file.
    pub fn claims_on(&self, key: &Key) -> String {
        let below = key.as_str().strip_prefix(&self.folder()).unwrap_or(key.as_str());
        let below = below.strip_prefix("wal/").unwrap_or(below);
        format!("{}/claim/{below}/", self.system)
    }

    /// One claim.
    pub fn claim(&self, key: &Key, plain: &ContentHash) -> Key {
        Key::new(format!("{}{plain}", self.claims_on(key)))
            .unwrap_or_else(|| unreachable!("a key and a hash make a key"))
    }

    /// The folder of streamed tails of a timeline; reserved.
    pub fn tail_of(&self, timeline: TimelineId) -> String {
        format!("{}/tail/{}/", self.system, timeline.hex())
    }

    /// The folder of all streamed tails; reserved.
    pub fn all_tails(&self) -> String {
        format!("{}/tail/", self.system)
    }

    /// The folder of all backups.
    pub fn backups(&self) -> String {
        format!("{}/backup/", self.system)
    }

    /// The folder of one backup.
    pub fn backup(&self, id: &BackupId) -> String {
        format!("{}/backup/{id}/", self.system)
    }

    /// The first object of a backup.
    pub fn backup_started(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}/started"))
    }

    /// A slice of an archive's tar stream. `archive` is `base` or a tablespace's oid.
    pub fn backup_data(&self, id: &BackupId, archive: &str, number: u32) -> Key {
        self.key(&format!("backup/{id}/data/{archive}/{number:08}"))
    }

    /// A part of the backup's index.
    pub fn backup_index(&self, id: &BackupId, number: u32) -> Key {
        self.key(&format!("backup/{id}/index/{number:08}"))
    }

    /// A slice of Postgres' own manifest.
    pub fn backup_pg_manifest(&self, id: &BackupId, number: u32) -> Key {
        self.key(&format!("backup/{id}/pg_manifest/{number:08}"))
    }

    /// A WAL file that the backup fetched by itself.
    pub fn backup_wal(&self, id: &BackupId, name: &WalFileName) -> Key {
        self.key(&format!("backup/{id}/wal/{name}"))
    }

    /// The folder of those.
    pub fn backup_wal_folder(&self, id: &BackupId) -> String {
        format!("{}/backup/{id}/wal/", self.system)
    }

    /// The manifest: a backup exists if and only if this object does.
    pub fn backup_manifest(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}/manifest"))
    }
}
