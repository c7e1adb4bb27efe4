//! Where objects live: the promises of a storage, and the backends that keep them.
//!
//! A backend is finished when it passes the conformance suite (`tests/it/conformance.rs`). What objects *mean* is no
//! business of this room: see [`crate::repo`].

mod bounded;
pub mod file;
pub mod first_contact;
pub mod key;
pub mod limits;
pub mod memory;
pub mod retry;
#[cfg(feature = "s3")]
pub mod s3;

pub use file::FileStorage;
pub use first_contact::FirstContact;
pub use key::Key;
pub use limits::{Bounds, Limits};
pub use memory::MemoryStorage;
pub use retry::Retrying;
#[cfg(feature = "s3")]
pub use s3::S3Storage;

use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

/// What a failed storage operation means. Every backend maps its own troubles to these, in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The store itself said that this key does not exist, on a reachable bucket, with valid credentials.
    NotFound {
        /// It exists no more: a versioned bucket answered with a delete marker.
        deleted: bool,
    },
    /// A create-only put met an existing object, or an `IfMatch` put met another ETag (412). Nothing was changed.
    Precondition,
    /// The store cannot do conditional puts, and said so (501, or a 400 about the header).
    ConditionUnsupported,
    /// The store received other bytes than were sent, and said so (`BadDigest` and its kin). Nothing was stored.
    DamagedOnTheWay,
    /// Credentials, signature or permissions (401, 403, except throttling in disguise).
    Denied,
    /// No such bucket, wrong region, malformed request: asking again changes nothing.
    Config,
    /// Out of reach, timed out, cut off, 5xx, an answer that is no storage's. Worth another try.
    Unavailable,
    /// Asked to slow down (503 SlowDown, 429, and 403 on Wasabi). Worth another try, later.
    Throttled,
    /// A local file could not be read or written (the directory backend).
    LocalIo,
}

impl StorageErrorKind {
    /// Whether the same operation may succeed when it is simply done again.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Throttled | Self::DamagedOnTheWay)
    }
}

/// A failed storage operation.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    /// What it means.
    pub kind: StorageErrorKind,
    /// One line: which operation failed, on which object, at which endpoint, with the service's code, text and request id.
    pub message: String,
    /// What to do about it, where the backend knows.
    pub hint: Option<String>,
    /// How long the store asked us to wait (`Retry-After`).
    pub retry_after: Option<std::time::Duration>,
}

impl StorageError {
    /// An error of this kind with this message.
    pub fn new(kind: StorageErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, retry_after: None }
    }

    /// Whether it is the store's own "no such key".
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, StorageErrorKind::NotFound { .. })
    }
}

impl From<StorageError> for crate::error::Error {
    fn from(error: StorageError) -> Self {
        use crate::error::{Error, ErrorKind};
        let kind = match error.kind {
            StorageErrorKind::NotFound { .. } => ErrorKind::NotFound,
            StorageErrorKind::Precondition => ErrorKind::Duplicate,
            StorageErrorKind::ConditionUnsupported | StorageErrorKind::Config => ErrorKind::Config,
            StorageErrorKind::DamagedOnTheWay => ErrorKind::Unavailable,
            StorageErrorKind::Denied => ErrorKind::Denied,
            StorageErrorKind::Unavailable | StorageErrorKind::Throttled => ErrorKind::Unavailable,
            StorageErrorKind::LocalIo => ErrorKind::LocalIo,
        };
        let converted = Error::new(kind, error.message);
        match error.hint {
            Some(hint) => converted.hint(hint),
            None => converted,
        }
    }
}

/// Results of this room.
pub type StorageResult<T> = std::result::Result<T, StorageError>;

/// An opaque tag that changes when an object's content does. Compared for equality only; never taken for an MD5.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// On which condition a put may store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutMode {
    /// Only if the key does not exist: `If-None-Match: *`, a hard link. Where the endpoint ignores the condition (see
    /// [`crate::repo`]'s probe) this overwrites silently: the caller must know.
    CreateOnly,
    /// Only if the object there still has this ETag.
    IfMatch(ETag),
    /// Whatever is there. For claims, and for the claim protocol's last step; nothing else.
    Overwrite,
}

/// What is wrong with a put on purpose; used by the probe alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Integrity {
    /// The integrity header fits the body.
    #[default]
    Sound,
    /// The integrity header belongs to other bytes: an endpoint that verifies must refuse and store nothing.
    WrongOnPurpose,
}

/// No object of ours has more bytes: a segment of 1 GiB, the largest that Postgres knows, and what wraps it. What has is not
/// read; nobody makes us reserve memory without end.
pub const LARGEST_OBJECT: u64 = (1 << 30) + (64 << 20);

/// A stored object, whole or the asked part of it.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its bytes. Exactly as many as the answer announced: a short body is an error of kind `Unavailable`.
    pub body: Bytes,
    /// Its tag.
    pub etag: Option<ETag>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Stored size in bytes.
    pub size: u64,
    /// Its tag, where the listing tells.
    pub etag: Option<ETag>,
    /// When the store says it was last written. Believed for claims only.
    pub last_modified: Option<SystemTime>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Keys that start with this text. May end in the middle of a name.
    pub prefix: String,
    /// Only keys behind this one, in byte order. An optimisation that some stores get wrong: never decides alone.
    pub start_after: Option<Key>,
    /// Where the page before ended ([`ListPage::next`]).
    pub token: Option<String>,
    /// At most this many entries; the store's own limit (1000) where unset.
    pub limit: Option<usize>,
}

impl ListRequest {
    /// All keys that start with `prefix`, from the first page on.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// One page of a listing, in the order in which the store gave it (sort before you rely on it).
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Token of the next page; `None` when this was the last.
    pub next: Option<String>,
    /// The store's clock when it answered (the `Date` header; the local clock for local backends).
    pub date: Option<SystemTime>,
}

/// What an endpoint really does, shown by the probe or known by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// A second create-only put of a key is refused.
    pub create_only: bool,
    /// A put whose bytes do not fit its integrity header is refused, and nothing is stored.
    pub verifies_integrity: bool,
    /// `IfMatch` stores on the right tag and refuses on a wrong one.
    pub if_match: bool,
    /// `start_after` of a listing is exact for keys of ours.
    pub start_after: bool,
}

impl Capabilities {
    /// A store that keeps every promise.
    pub const ALL: Capabilities =
        Capabilities { create_only: true, verifies_integrity: true, if_match: true, start_after: true };
    /// Nothing is known: the worst is assumed.
    pub const NONE: Capabilities =
        Capabilities { create_only: false, verifies_integrity: false, if_match: false, start_after: false };
}

/// Where objects live. Object-safe; every method is one attempt bounded by the [`Limits`] the backend was opened with.
///
/// Promises, which the conformance suite holds every backend to:
/// * `put` answering Ok means durable: on disk and in its directory, or acknowledged by the service with an ETag.
/// * An object appears whole under its key or not at all; a failed or dropped put leaves nothing that `get` delivers
///   (except on services known for it: the repository's resolve step deals with those).
/// * `PutMode::CreateOnly` is atomic where [`Capabilities::create_only`] holds: of several racing puts exactly one is Ok.
/// * `get` answers `NotFound` only when the store itself said so for the key; anything unclear is another kind.
/// * What a put acknowledged is seen by the next `get` and `list`, from anywhere.
/// * Dropping the future of an operation cancels it as far as the backend can.
#[async_trait::async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// Stores an object.
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>>;

    /// Reads an object, or the part of it in `range` (bytes; clipped at its end).
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object>;

    /// One page of the keys that start with a prefix.
    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage>;

    /// The names of the folders directly below `prefix` (which is empty or ends in `/`), without their slashes, sorted.
    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>>;

    /// Removes an object. Ok also when it was not there.
    async fn delete(&self, key: &Key) -> StorageResult<()>;

    /// Begins what the first request will need, a connection say, and returns at once. Only a hint: nothing is asked of the store,
    /// nothing fails here, and what comes of it is used by the next request or by none.
    fn prepare(&self) {}

    /// What this backend does by construction; `None` where only a probe can tell.
    fn capabilities(&self) -> Option<Capabilities>;

    /// Where this is, for messages and as the key of caches: endpoint, bucket and prefix, without secrets.
    fn location(&self) -> &str;

    /// The region that the store itself named, where the settings name another: each process learns it anew, with one refused
    /// request, until they do. `None` where there is nothing to say.
    fn region_learnt(&self) -> Option<String> {
        None
    }
}

/// All entries under a prefix, sorted by key in byte order, whatever order the store lists in.
pub async fn list_all(storage: &dyn Storage, prefix: &str) -> StorageResult<Vec<Entry>> {
    let mut entries = Vec::new();
    each_page(storage, prefix, |page| entries.extend(page)).await?;
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries.dedup_by(|a, b| a.key == b.key);
    Ok(entries)
}

/// Shows the entries under a prefix page by page, in the order in which the store lists, perhaps one of them twice. One page in
/// memory.
pub async fn each_page(storage: &dyn Storage, prefix: &str, mut show: impl FnMut(Vec<Entry>)) -> StorageResult<()> {
    let mut request = ListRequest::prefix(prefix);
    loop {
        let page = storage.list(&request).await?;
        show(page.entries);
        match page.next {
            Some(token) => request.token = Some(token),
            None => return Ok(()),
        }
    }
}

/// Opens the storage that the settings name, behind the one retry policy (`retry.rs`). No request is made.
pub fn open(settings: &crate::config::Settings, limits: &Limits) -> crate::error::Result<std::sync::Arc<dyn Storage>> {
    Ok(std::sync::Arc::new(Retrying::new(open_once(settings, limits)?, limits.clone())))
}

/// Where the storage is that the settings name, in the words of its [`Storage::location`], without opening it.
pub fn location(settings: &crate::config::Settings) -> String {
    use crate::config::StorageUrl;
    match &settings.storage {
        StorageUrl::File(root) => file::location(root),
        #[cfg(feature = "s3")]
        StorageUrl::S3 { bucket, prefix } => s3::location(&settings.s3, bucket, prefix),
        #[cfg(not(feature = "s3"))]
        StorageUrl::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
    }
}

/// [`open`] without the retry policy: everything is tried once.
pub fn open_once(
    settings: &crate::config::Settings,
    limits: &Limits,
) -> crate::error::Result<std::sync::Arc<dyn Storage>> {
    use crate::config::StorageUrl;
    use std::sync::Arc;
    Ok(match &settings.storage {
        StorageUrl::File(root) => Arc::new(FileStorage::new(root, limits.clone())),
        #[cfg(feature = "s3")]
        StorageUrl::S3 { bucket, prefix } => Arc::new(S3Storage::new(&settings.s3, bucket, prefix, limits.clone())?),
        #[cfg(not(feature = "s3"))]
        StorageUrl::S3 { .. } => {
            let message = "this program was built without the s3 feature";
            return Err(crate::error::Error::new(crate::error::ErrorKind::Config, message));
        }
    })
}

/// [`open`] for a long job, with [`Bounds::PATIENT`]: a store that never answered is given up soon ([`FirstContact`]), one that
/// did is waited for.
pub fn open_patient(settings: &crate::config::Settings) -> crate::error::Result<std::sync::Arc<dyn Storage>> {
    let limits = Limits::new(Bounds::PATIENT);
    Ok(std::sync::Arc::new(FirstContact::new(open(settings, &limits)?, limits)))
}
