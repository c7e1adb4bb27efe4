//! Objects of a backup, fetched and held against what vouches for them.

use crate::codec::{self, Identities, Kind, ObjectHeader};
use crate::error::{Error, ErrorKind, Result};
use crate::repo::manifest::{Manifest, ObjectRef};
use crate::repo::{Cluster, index};
use crate::storage::{Key, Object};

/// Where backups come from, and how they may be read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The cluster's folder.
    pub cluster: Cluster,
    /// What opens encrypted objects.
    pub identities: Identities,
    /// How many requests at once.
    pub concurrency: usize,
}

impl Source {
    /// Reads a whole object; one that is missing is a hole in the backup.
    pub async fn get(&self, key: &Key) -> Result<Object> {
        self.cluster.get(key).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_kind(ErrorKind::Gap).context("the backup is not whole"),
            _ => error,
        })
    }

    /// The plain bytes of an object that the manifest vouches for.
    pub async fn vouched(&self, backup: &Manifest, key: Key, kind: Kind, reference: &ObjectRef) -> Result<Vec<u8>> {
        let object = self.get(&key).await?;
        let (identities, system) = (self.identities.clone(), backup.system_identifier);
        let reference = reference.clone();
        blocking(move || {
            let read = || {
                let (header, plain) = codec::plain_of(&object.body, &identities)?;
                must_belong(&header, kind, system)?;
                let same = object.body.len() as u64 == reference.size
                    && header.plain_length == reference.plain
                    && header.plain_hash == reference.hash;
                if same { Ok(plain) } else { Err(not_vouched()) }
            };
            read().map_err(|error: Error| error.context(&key))
        })
        .await
    }

    /// The records of one part of the index.
    pub async fn index_part(&self, backup: &Manifest, number: u32) -> Result<Vec<index::Record>> {
        let key = self.cluster.layout().backup_index(&backup.id, number);
        let reference = backup.index.get(number as usize).ok_or_else(not_vouched)?;
        let plain = self.vouched(backup, key.clone(), Kind::BackupIndex, reference).await?;
        blocking(move || {
            let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|error| {
                Error::new(ErrorKind::Corrupt, format!("{key}: a record of the index cannot be read")).because(error)
            })
        })
        .await
    }
}

/// Refuses an object of another sort or another cluster.
pub fn must_belong(header: &ObjectHeader, kind: Kind, system: crate::pg::SystemIdentifier) -> Result<()> {
    if header.subject.kind == kind && header.subject.system_identifier == system {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Mismatch,
        format!("the object is of kind {:?} and cluster {}", header.subject.kind, header.subject.system_identifier),
    ))
}

/// The object is whole, but not the one that the backup was made with.
pub fn not_vouched() -> Error {
    Error::new(ErrorKind::Corrupt, "the object is not the one that the backup names")
}

/// Runs what computes, or waits for a disk, beside the network.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Bug, "a thread of the restore died").because(error))?
}
