//! The backups that exist: those that have a manifest, read and verified.

use super::manifest::Archive;
use super::repository::Cluster;
use super::started::Started;
use super::{BackupId, Manifest};
use crate::codec::{self, Identities, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Object;
use std::collections::BTreeSet;
use std::path::{Component, Path};
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

    /// The first object of a backup, verified; errors as [`Self::manifest`].
    pub async fn started(&self, id: &BackupId) -> Result<Started> {
        let key = self.layout.backup_started(id);
        let object = self.get(&key).await?;
        let read = || {
            let (header, plain) = codec::plain_of(&object.body, &Identities::default())?;
            let started: Started = serde_json::from_slice(&plain).map_err(unreadable)?;
            let system = self.layout.system();
            let ours = header.subject.kind == Kind::BackupStarted
                && header.subject.system_identifier == system
                && started.system_identifier == system
                && started.id == *id;
            if ours { Ok(started) } else { Err(mismatch("it belongs to another backup".to_owned())) }
        };
        read().map_err(|error: Error| error.context(self.place(&key)))
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
        must_name_plain_archives(&manifest)?;
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

/// Names and locations of the archives become keys and paths, and the manifest is neither signed nor secret: only what a server
/// itself sends is taken. `base` without a location, or a tablespace by its oid, in place or at an absolute path.
fn must_name_plain_archives(manifest: &Manifest) -> Result<()> {
    let mut names = BTreeSet::new();
    for archive in &manifest.archives {
        if !names.insert(&archive.name) || !is_plain(archive) {
            return Err(Error::new(ErrorKind::Corrupt, "the manifest names an archive that no server sends"));
        }
    }
    Ok(())
}

fn is_plain(archive: &Archive) -> bool {
    let name = archive.name.as_str();
    let Some(location) = &archive.location else { return name == "base" };
    // An oid has 32 bits: ten digits.
    let is_oid = (1..=10).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit());
    let leads_up = Path::new(location).components().any(|part| part == Component::ParentDir);
    let is_place = location.starts_with('/') && !leads_up && !location.contains('\0');
    is_oid && (is_place || location.strip_prefix("pg_tblspc/") == Some(name))
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "the manifest cannot be read").because(error)
}

fn mismatch(why: String) -> Error {
    Error::new(ErrorKind::Mismatch, why)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fault, Personality, SYSTEM, Shelf, cluster, encoded, manifest};
    use super::*;
    use crate::pg::{Lsn, SystemIdentifier};
    use crate::storage::StorageErrorKind;
    use std::sync::Arc;

    fn stored(kind: Kind, json: &[u8]) -> bytes::Bytes {
        encoded(kind, 1, Lsn(0x200_0028), json, 1).bytes
    }

    fn place(shelf: &Shelf, manifest: &Manifest) {
        let json = serde_json::to_vec(manifest).unwrap();
        shelf.place(&format!("7/backup/{}/manifest", manifest.id), stored(Kind::BackupManifest, &json));
    }

    fn id(number: u32) -> BackupId {
        format!("2026112{number}T170159Z-aaaaaa").parse().unwrap()
    }

    #[tokio::test]
    async fn backups_are_those_with_a_manifest() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let cluster = cluster(&shelf);
        assert_eq!(cluster.backups().await.unwrap(), []);
        let late = Manifest { end_lsn: Lsn(0x900_0000), ..manifest(&id(1)) };
        let early = Manifest { end_lsn: Lsn(0x300_0000), ..manifest(&id(2)) };
        let early_too = Manifest { finished_at: "2026-11-30T00:00:00Z".to_owned(), ..early.clone() };
        let early_too = Manifest { id: id(0), ..early_too };
        for manifest in [&late, &early, &early_too] {
            place(&shelf, manifest);
        }
        shelf.place(&format!("7/backup/{}/started", id(5)), "x");
        shelf.place("7/backup/junk/manifest", "x");
        let catalog = cluster.catalog().await.unwrap();
        assert_eq!(catalog.backups, [early.clone(), early_too.clone(), late.clone()]);
        assert_eq!(catalog.unfinished, [id(5)]);
        assert_eq!(catalog.damaged, []);
        assert_eq!(cluster.backups().await.unwrap(), catalog.backups);
        assert_eq!(cluster.manifest(&id(1)).await.unwrap(), late);
        assert_eq!(cluster.manifest(&id(5)).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_manifest_that_cannot_be_believed_is_shown_and_never_used() {
        let whole = serde_json::to_value(manifest(&id(1))).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut json = whole.clone();
            json[key] = value;
            stored(Kind::BackupManifest, &serde_json::to_vec(&json).unwrap())
        };
        let sound = stored(Kind::BackupManifest, &serde_json::to_vec(&whole).unwrap());
        for (object, kind, part) in [
            (bytes::Bytes::new(), ErrorKind::Corrupt, "empty"),
            (sound.slice(..sound.len() - 2), ErrorKind::Corrupt, "cut short"),
            (stored(Kind::BackupStarted, b"{}"), ErrorKind::Mismatch, "BackupStarted"),
            (stored(Kind::BackupManifest, b"{}"), ErrorKind::Corrupt, "format"),
            (with("format", 2.into()), ErrorKind::Config, "format 2"),
            (with("end_lsn", "x".into()), ErrorKind::Corrupt, "LSN"),
            (with("system_identifier", "8".into()), ErrorKind::Mismatch, "cluster 8"),
            (with("id", id(3).as_str().into()), ErrorKind::Mismatch, id(3).as_str()),
        ] {
            let shelf = Arc::new(Shelf::new(Personality::HONEST));
            shelf.place(&format!("7/backup/{}/manifest", id(1)), object);
            place(&shelf, &manifest(&id(2)));
            let cluster = cluster(&shelf);
            let error = cluster.manifest(&id(1)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            let line = error.to_string();
            assert!(line.contains(part) && line.contains(id(1).as_str()), "{line}");
            let catalog = cluster.catalog().await.unwrap();
            assert_eq!(catalog.damaged, [DamagedBackup { id: id(1), why: line }]);
            assert_eq!(catalog.backups, [manifest(&id(2))]);
        }
        assert_ne!(SYSTEM, SystemIdentifier(8));
    }

    #[tokio::test]
    async fn an_archive_that_leads_elsewhere_is_no_archive() {
        let archive = |name: &str, location: Option<&str>| Archive {
            name: name.to_owned(),
            location: location.map(str::to_owned),
            objects: 1,
            tar_bytes: 1024,
        };
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let cluster = cluster(&shelf);
        let read = async |archives: &[Archive]| {
            place(&shelf, &Manifest { archives: archives.to_vec(), ..manifest(&id(1)) });
            cluster.manifest(&id(1)).await
        };
        let base = archive("base", None);
        let sound = [
            base.clone(),
            archive("16385", Some("/srv/fast..disk")),
            archive("4294967295", Some("pg_tblspc/4294967295")),
        ];
        read(&sound).await.unwrap();
        for bad in [
            base.clone(),
            archive("base", Some("/srv/a")),
            archive("16385", None),
            archive("16385", Some("../../etc/cron.d")),
            archive("16385", Some("/srv/../etc/cron.d")),
            archive("16385", Some("pg_tblspc/16386")),
            archive("16385", Some("pg_tblspc/../16385")),
            archive("16385", Some("")),
            archive("../../x", Some("pg_tblspc/../../x")),
            archive("", Some("pg_tblspc/")),
            archive("16385/x", Some("/srv/a")),
            archive("12345678901", Some("/srv/a")),
        ] {
            let error = read(&[base.clone(), bad.clone()]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:?}");
            assert!(error.to_string().contains("an archive that no server sends"), "{error}");
        }
    }

    #[tokio::test]
    async fn trouble_with_the_storage_is_no_empty_list() {
        for kind in [StorageErrorKind::Unavailable, StorageErrorKind::Denied, StorageErrorKind::Config] {
            for (operation, key) in [("LIST", "7/backup/"), ("GET", "manifest")] {
                let shelf = Arc::new(Shelf::new(Personality::HONEST));
                place(&shelf, &manifest(&id(1)));
                shelf.fault(operation, key, Fault::Fail(kind));
                assert!(cluster(&shelf).catalog().await.is_err(), "{kind:?} at {operation}");
            }
        }
    }
}
