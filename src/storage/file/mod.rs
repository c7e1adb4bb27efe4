//! A directory as a storage: objects are files, and `put` answers when the file and its names are on the disk.
//!
//! * Create-only is a hard link, which the kernel refuses where the name is taken; nothing is checked first and written then.
//! * Whatever else changes a name (`IfMatch`, `Overwrite`, `delete`) happens under one lock, `.~lock` in the root, so that no
//!   two of them interleave.
//! * Names that begin with `.~` are ours and no key can spell them: the lock, and files being written. One that a crash left
//!   behind is never read and harms nothing.
//! * The root must exist. A missing root is a volume that is not mounted, never an empty archive.

mod disk;
mod trouble;
mod walk;

use super::bounded::{Progress, bounded};
use super::{Capabilities, ETag, Integrity, Key, Limits, ListPage, ListRequest, Object, PutMode};
use super::{Storage, StorageError, StorageErrorKind, StorageResult};
use bytes::Bytes;
use disk::Disk;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory as a storage.
#[derive(Debug)]
pub struct FileStorage {
    disk: Arc<Disk>,
    location: String,
    limits: Limits,
}

impl FileStorage {
    /// The storage in this directory, which must exist when it is used. Touches nothing.
    pub fn new(root: impl Into<PathBuf>, limits: Limits) -> Self {
        let root = root.into();
        Self { location: location(&root), disk: Arc::new(Disk::new(root)), limits }
    }

    /// Does blocking work on its own thread, within the limits. A disk that hangs (a dead NFS server) is given up like a
    /// network that hangs; the thread then ends without effect if it still can.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> String,
        work: impl FnOnce(&Disk, &Progress) -> StorageResult<T> + Send + 'static,
    ) -> StorageResult<T> {
        let (disk, progress) = (Arc::clone(&self.disk), Progress::start());
        let pulse = progress.clone();
        let work = tokio::task::spawn_blocking(move || work(&disk, &pulse));
        match bounded(&self.limits, &progress, work).await {
            Ok(Ok(done)) => done,
            Ok(Err(cause)) => {
                let message = format!("{}: {cause}", operation());
                Err(StorageError::new(StorageErrorKind::LocalIo, message))
            }
            Err(overrun) => Err(overrun.error(&format!("{} in {}", operation(), self.location))),
        }
    }
}

/// Where the storage in this directory is, for messages and caches.
pub(super) fn location(root: &Path) -> String {
    format!("file://{}", root.display())
}

#[async_trait::async_trait]
impl Storage for FileStorage {
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>> {
        if integrity == Integrity::WrongOnPurpose {
            // Nothing lies between the bytes and the file: what would arrive damaged elsewhere is refused here.
            let message = format!("cannot store {key}: other bytes arrived than were announced");
            return Err(StorageError::new(StorageErrorKind::DamagedOnTheWay, message));
        }
        let (path, mode) = (key.clone(), mode.clone());
        let put = move |disk: &Disk, progress: &Progress| disk.put(&path, &body, &mode, progress).map(Some);
        self.blocking(|| format!("cannot store {key}"), put).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
        let path = key.clone();
        self.blocking(|| format!("cannot read {key}"), move |disk, progress| disk.get(&path, range, progress)).await
    }

    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
        let owned = request.clone();
        let list = move |disk: &Disk, progress: &Progress| walk::list(disk, &owned, progress);
        self.blocking(|| format!("cannot list {}", request.prefix), list).await
    }

    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
        let owned = prefix.to_owned();
        let folders = move |disk: &Disk, progress: &Progress| walk::folders(disk, &owned, progress);
        self.blocking(|| format!("cannot list the folders of {prefix}"), folders).await
    }

    async fn delete(&self, key: &Key) -> StorageResult<()> {
        let path = key.clone();
        self.blocking(|| format!("cannot delete {key}"), move |disk, _| disk.delete(&path)).await
    }

    fn capabilities(&self) -> Option<Capabilities> {
        Some(Capabilities::ALL)
    }

    fn location(&self) -> &str {
        &self.location
    }
}

#[cfg(test)]
mod tests;
