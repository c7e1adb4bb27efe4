//! The repository and one cluster's folder in it: the door through which the verbs see objects.

use super::Layout;
use super::claim::Pace;
use super::probe::Learnt;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::SystemIdentifier;
use crate::spool::Spool;
use crate::storage::{ETag, Key, ListRequest, Object, Storage, StorageErrorKind};
use std::sync::Arc;
use std::time::SystemTime;

/// All of a prefix.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    spool: Option<Spool>,
    learnt: Arc<Learnt>,
}

impl Repository {
    /// The repository in this storage; the spool caches what was learnt of it.
    pub fn new(storage: Arc<dyn Storage>, spool: Option<Spool>) -> Self {
        Self { storage, spool, learnt: Arc::default() }
    }

    /// The clusters that have a folder with an identity, sorted.
    pub async fn clusters(&self) -> Result<Vec<SystemIdentifier>> {
        let mut systems = Vec::new();
        for folder in self.storage.folders("").await? {
            let Ok(system) = folder.parse::<SystemIdentifier>() else { continue };
            match self.storage.get(&Layout::new(system).identity(), None).await {
                Ok(_) => systems.push(system),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        systems.sort_unstable();
        Ok(systems)
    }

    /// The only cluster in the repository; else an error that lists them and asks for `--cluster`.
    pub async fn only_cluster(&self) -> Result<SystemIdentifier> {
        let systems = self.clusters().await?;
        let place = self.storage.location();
        match systems.as_slice() {
            [only] => Ok(*only),
            [] => Err(Error::new(ErrorKind::Config, format!("there is no cluster in {place}"))
                .hint("check WALHALLA_STORAGE: the bucket, or the prefix, is another one or empty")),
            several => {
                let list = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(Error::new(ErrorKind::Config, format!("there are {} clusters in {place}: {list}", several.len()))
                    .hint("name one with --cluster"))
            }
        }
    }

    /// One cluster's folder. No request is made.
    pub fn cluster(&self, system: SystemIdentifier) -> Cluster {
        Cluster {
            storage: Arc::clone(&self.storage),
            layout: Layout::new(system),
            spool: self.spool.clone(),
            learnt: Arc::clone(&self.learnt),
            pace: Pace::HOUSE,
        }
    }
}

/// How a put ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deposited {
    /// Stored by this call.
    New,
    /// The same content was proven to be there already.
    Already,
    /// A second `.partial` or `.backup`: stored beside the first. What the first one is ("other content"); worth a log line.
    Beside(String),
    /// An object that nobody could restore anything from was replaced. What was wrong with it; worth a log line.
    Replaced(String),
}

/// What the store said of an object when it was proven to be there: enough to see in a listing that it still is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its stored length in bytes.
    pub length: u64,
    /// Its tag: of the put's answer, or of the reading that proved it. Some stores name none.
    pub etag: Option<ETag>,
}

/// A WAL file that was stored, or was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// How it ended.
    pub deposited: Deposited,
    /// The receipt for the object under the name's own key, or, of [`Deposited::Beside`], beside it.
    pub receipt: Receipt,
}

impl Stored {
    pub(super) fn new(deposited: Deposited, length: usize, etag: Option<ETag>) -> Self {
        Self { deposited, receipt: Receipt { length: length as u64, etag } }
    }
}

/// One cluster's folder.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) layout: Layout,
    pub(super) spool: Option<Spool>,
    pub(super) learnt: Arc<Learnt>,
    pub(super) pace: Pace,
}

impl Cluster {
    /// The folder's keys.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The storage beneath.
    pub fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    /// The same folder, reached by another door to the same storage: one that does not try again, say.
    #[must_use]
    pub fn through(&self, storage: Arc<dyn Storage>) -> Cluster {
        Cluster { storage, ..self.clone() }
    }

    /// Reads a whole object. `NotFound` only as the storage promises; a delete marker is a `Gap`.
    pub async fn get(&self, key: &Key) -> Result<Object> {
        self.storage.get(key, None).await.map_err(|error| {
            let deleted = error.kind == StorageErrorKind::NotFound { deleted: true };
            let error = Error::from(error);
            if deleted {
                error.with_kind(ErrorKind::Gap).hint("it was deleted from a bucket that keeps versions: put it back")
            } else {
                error
            }
        })
    }

    /// The store's clock, as it stands with a listing of hardly anything; `None` where it does not tell.
    pub async fn clock(&self) -> Result<Option<SystemTime>> {
        let request = ListRequest { limit: Some(1), ..ListRequest::prefix(self.layout.probes()) };
        Ok(self.storage.list(&request).await?.date)
    }

    /// A key and where it is, for messages.
    pub(super) fn place(&self, key: &Key) -> String {
        format!("{key} in {}", self.storage.location())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fault, Personality, Shelf, cluster, identity};
    use super::*;

    fn repository(shelf: &Arc<Shelf>) -> Repository {
        Repository::new(Arc::clone(shelf) as Arc<dyn Storage>, None)
    }

    #[tokio::test]
    async fn clusters() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let repository = repository(&shelf);
        let error = repository.only_cluster().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("memory:shelf"), "{error}");
        for key in ["10/cluster.json", "junk/cluster.json", "9/wal/00000001/x", "007/cluster.json"] {
            shelf.place(key, identity().to_bytes());
        }
        assert_eq!(repository.only_cluster().await.unwrap(), SystemIdentifier(10));
        shelf.place("7/cluster.json", identity().to_bytes());
        assert_eq!(repository.clusters().await.unwrap(), [SystemIdentifier(7), SystemIdentifier(10)]);
        let line = repository.only_cluster().await.unwrap_err().to_string();
        assert!(line.contains("7, 10") && line.contains("--cluster"), "{line}");
        for (operation, key) in [("LIST", ""), ("GET", "7/cluster.json")] {
            shelf.fault(operation, key, Fault::Fail(StorageErrorKind::Unavailable));
            assert_eq!(repository.only_cluster().await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }

    #[tokio::test]
    async fn reading() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let cluster = cluster(&shelf);
        let key = cluster.layout().identity();
        assert_eq!(cluster.get(&key).await.unwrap_err().kind(), ErrorKind::NotFound);
        shelf.place(key.as_str(), "x");
        assert_eq!(cluster.get(&key).await.unwrap().body, "x");
        shelf.remove(key.as_str(), true);
        assert_eq!(cluster.get(&key).await.unwrap_err().kind(), ErrorKind::Gap);
        shelf.fault("GET", "", Fault::Fail(StorageErrorKind::Denied));
        assert_eq!(cluster.get(&key).await.unwrap_err().kind(), ErrorKind::Denied);
    }
}
