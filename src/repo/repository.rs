//! The repository and one cluster's folder in it: the door through which the verbs see objects.

use super::Layout;
use super::claim::Pace;
use super::probe::Learnt;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::SystemIdentifier;
use crate::spool::Spool;
use crate::storage::{Key, Object, Storage, StorageErrorKind};
use std::sync::Arc;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deposited {
    /// Stored by this call.
    New,
    /// The same content was proven to be there already.
    Already,
    /// A second `.partial` or `.backup` with other content: stored beside the first.
    Beside,
    /// An object that nobody could restore anything from was replaced; worth a log line.
    Replaced,
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

    /// A key and where it is, for messages.
    pub(super) fn place(&self, key: &Key) -> String {
        format!("{key} in {}", self.storage.location())
    }
}
