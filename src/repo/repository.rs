//! The repository and one cluster's folder in it: the door through which the verbs see objects.

use super::{BackupId, ClusterIdentity, Layout, manifest::Manifest};
use crate::codec::Encoded;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{SegmentName, SystemIdentifier, TimelineId, WalFileName};
use crate::spool::Spool;
use crate::storage::{Capabilities, Key, Object, Storage};
use std::sync::Arc;

/// All of a prefix.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    spool: Option<Spool>,
}

impl Repository {
    /// The repository in this storage; the spool caches what was learnt of it.
    pub fn new(storage: Arc<dyn Storage>, spool: Option<Spool>) -> Self {
        Self { storage, spool }
    }

    /// The clusters that have a folder with an identity, sorted.
    pub async fn clusters(&self) -> Result<Vec<SystemIdentifier>> {
        let _ = &self.spool;
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// The only cluster in the repository; else an error that lists them and asks for `--cluster`.
    pub async fn only_cluster(&self) -> Result<SystemIdentifier> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// One cluster's folder. No request is made.
    pub fn cluster(&self, system: SystemIdentifier) -> Cluster {
        Cluster { storage: Arc::clone(&self.storage), layout: Layout::new(system) }
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

/// What became of the proof that a WAL file is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// It is not in the archive, nothing behind it is, and nothing speaks against that.
    Proven,
    /// It is missing while something later exists: a hole. The text names what was found.
    Gap(String),
    /// A feature or object that this version does not know: nothing is proven. The text names it.
    Unknown(String),
}

/// One cluster's folder.
#[derive(Debug, Clone)]
pub struct Cluster {
    storage: Arc<dyn Storage>,
    layout: Layout,
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

    /// Reads `cluster.json`. `NotFound` if there is none; damaged, or of another format: `Corrupt`, `Config`.
    pub async fn identity(&self) -> Result<ClusterIdentity> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// Makes sure that `cluster.json` is there and says exactly this; writes it where it is missing. Any difference: `Mismatch`.
    /// Remembered in the spool, so that the steady state costs no request.
    pub async fn ensure_identity(&self, _identity: &ClusterIdentity) -> Result<()> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// What the endpoint really does: known by construction, remembered in the spool for 7 days, or probed now.
    pub async fn capabilities(&self) -> Result<Capabilities> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// Stores an object under a key that nobody may have used: create-only, resolved by reading back, or by the claim protocol.
    /// Ok means durable and proven; other content under the key is `Duplicate`.
    pub async fn deposit(&self, _key: &Key, _object: &Encoded) -> Result<Deposited> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// [`Self::deposit`] of a WAL file under its name, a second `.partial` or `.backup` beside the first.
    pub async fn deposit_wal(&self, _name: &WalFileName, _object: &Encoded) -> Result<Deposited> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// Reads a whole object. `NotFound` only as the storage promises; a delete marker is a `Gap`.
    pub async fn get(&self, _key: &Key) -> Result<Object> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// The full proof that a WAL file is absent from the archive: identity, key, features, tails, later segments or timelines.
    pub async fn prove_absent(&self, _name: &WalFileName) -> Result<Absence> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// The ids of all backups that have a manifest, sorted. One folder listing and a small GET each.
    pub async fn backups(&self) -> Result<Vec<Manifest>> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// One backup's manifest, verified.
    pub async fn manifest(&self, _id: &BackupId) -> Result<Manifest> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// The timelines that have a folder below `wal/`, sorted.
    pub async fn timelines(&self) -> Result<Vec<TimelineId>> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }

    /// The segments of a timeline that lie in the archive, sorted, from `from` on.
    pub async fn segments(&self, _timeline: TimelineId, _from: Option<SegmentName>) -> Result<Vec<SegmentName>> {
        Err(Error::new(ErrorKind::Bug, "stub"))
    }
}
