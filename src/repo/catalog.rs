//! The backups that exist: those that have a manifest, read and verified.

use super::repository::Cluster;
use super::{BackupId, Manifest};
use crate::codec::{self, Identities, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Object;
use tokio::task::JoinSet;

/// Manifests fetched at once.
const AT_ONCE: usize = 8;

/// What lies below `backup/`.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The backups, by end position, then by the time they ended.
    pub backups: Vec<Manifest>,
    /// Those whose manifest is there but cannot be believed, by id: shown, never restored from.
    pub damaged: Vec<DamagedBackup>,
    /// Those without a manifest, by id: under way, or given up. No backups.
    pub unfinished: Vec<BackupId>,
}

/// A backup whose manifest cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBackup {
    /// Its id.
    pub id: BackupId,
    /// What is wrong with the manifest, in one line.
    pub why: String,
}

impl Cluster {
    /// Everything below `backup/`: one folder listing and a small GET each. Trouble with the storage is an error; a damaged
    /// manifest is told of in the catalog.
    pub async fn catalog(&self) -> Result<Catalog> {
        let folders = self.storage.folders(&self.layout.backups()).await?;
        let mut ids = folders.into_iter().filter_map(|name| name.parse::<BackupId>().ok());
        let mut catalog = Catalog::default();
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < AT_ONCE {
                let Some(id) = ids.next() else { break };
                let cluster = self.clone();
                reading.spawn(async move { (cluster.get(&cluster.layout.backup_manifest(&id)).await, id) });
            }
            let Some(read) = reading.join_next().await else { break };
            let (object, id) = read.map_err(|error| {
                Error::new(ErrorKind::Bug, "cannot read the manifests of the backups").because(error)
            })?;
            match object {
                Ok(object) => match self.read_manifest(&id, &object) {
                    Ok(manifest) => catalog.backups.push(manifest),
                    Err(error) => catalog.damaged.push(DamagedBackup { id, why: error.to_string() }),
                },
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gap) => {
                    catalog.unfinished.push(id)
                }
                Err(error) => return Err(error),
            }
        }
        catalog.sort();
        Ok(catalog)
    }

    /// All backups that have a manifest which can be believed, by end position, then by the time they ended.
    pub async fn backups(&self) -> Result<Vec<Manifest>> {
        Ok(self.catalog().await?.backups)
    }

    /// One backup's manifest, verified. `NotFound`: there is no such backup. `Corrupt`, `Mismatch`, `Config` (another format):
    /// it cannot be believed.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest> {
        let key = self.layout.backup_manifest(id);
        let object = self.get(&key).await?;
        self.read_manifest(id, &object)
    }

    fn read_manifest(&self, id: &BackupId, object: &Object) -> Result<Manifest> {
        let place = self.place(&self.layout.backup_manifest(id));
        self.understand_manifest(id, object).map_err(|error| error.context(place))
    }

    fn understand_manifest(&self, id: &BackupId, object: &Object) -> Result<Manifest> {
        let (header, plain) = codec::plain_of(&object.body, &Identities::default())?;
        if header.subject.kind != Kind::BackupManifest {
            return Err(mismatch(format!("it is of kind {:?}, not a backup's manifest", header.subject.kind)));
        }
        let format = format_of(&plain)?;
        if format != u64::from(Manifest::FORMAT) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the manifest has format {format}, and this version knows format {} only", Manifest::FORMAT),
            )
            .hint("use a newer version of Walhalla"));
        }
        let manifest: Manifest = serde_json::from_slice(&plain).map_err(unreadable)?;
        let system = self.layout.system();
        if header.subject.system_identifier != system || manifest.system_identifier != system {
            return Err(mismatch(format!("it belongs to cluster {}", manifest.system_identifier)));
        }
        if manifest.id != *id {
            return Err(mismatch(format!("it belongs to backup {}", manifest.id)));
        }
        Ok(manifest)
    }
}

impl Catalog {
    fn sort(&mut self) {
        self.backups.sort_by(|a, b| (a.end_lsn, &a.finished_at, &a.id).cmp(&(b.end_lsn, &b.finished_at, &b.id)));
        self.damaged.sort_by(|a, b| a.id.cmp(&b.id));
        self.unfinished.sort();
    }
}

/// The format alone: what the other fields of an unknown one mean is not ours to say.
fn format_of(plain: &[u8]) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u64,
    }
    serde_json::from_slice::<Format>(plain).map(|read| read.format).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "the manifest cannot be read").because(error)
}

fn mismatch(why: String) -> Error {
    Error::new(ErrorKind::Mismatch, why)
}
