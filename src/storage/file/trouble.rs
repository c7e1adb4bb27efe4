//! What a failed system call means to a storage, and what to do about it.

use crate::error::Error;
use crate::storage::{StorageError, StorageErrorKind};
use rustix::io::Errno;
use std::error::Error as StdError;
use std::io;
use std::path::Path;

/// A failed step on a file of the directory storage: `doing` completes "cannot … path".
pub(super) fn failed(doing: &str, path: &Path, cause: &io::Error) -> StorageError {
    let message = format!("cannot {doing} {}: {cause}", path.display());
    let (kind, hint) = meaning(cause);
    StorageError { hint: hint.map(str::to_owned), ..StorageError::new(kind, message) }
}

/// A symbolic link of the storage that leads nowhere. What should lie behind it is not absent: it cannot be seen.
pub(super) fn leads_nowhere(link: &Path) -> StorageError {
    let message = format!("{} is a link that leads nowhere", link.display());
    let hint = "is its volume mounted? If the link is no more needed, remove it".to_owned();
    StorageError { hint: Some(hint), ..StorageError::new(StorageErrorKind::LocalIo, message) }
}

/// Whether a path is a symbolic link that leads nowhere.
pub(super) fn is_dangling(path: &Path) -> bool {
    path.is_symlink() && path.metadata().is_err_and(|cause| super::disk::is_absence(&cause))
}

/// [`failed`] for an error of the durable primitives, which carry their system call's.
pub(super) fn durable(error: &Error) -> StorageError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            let (kind, hint) = meaning(inner);
            return StorageError { hint: hint.map(str::to_owned), ..StorageError::new(kind, error.to_string()) };
        }
        cause = inner.source();
    }
    StorageError::new(StorageErrorKind::LocalIo, error.to_string())
}

fn meaning(cause: &io::Error) -> (StorageErrorKind, Option<&'static str>) {
    use StorageErrorKind::{Config, Denied, LocalIo, Unavailable};
    match cause.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS) => {
            (Denied, Some("give this user the right to read and write the storage's directory and all below"))
        }
        Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => (
            Config,
            Some("the storage's directory must lie on a file system with hard links (ext4, xfs, btrfs, zfs, nfs)"),
        ),
        Some(Errno::XDEV) => (Config, Some("a folder of the storage must not straddle two file systems")),
        Some(Errno::NOSPC | Errno::DQUOT) => (LocalIo, Some("the storage's disk or quota is full: make room there")),
        Some(Errno::ROFS) => (LocalIo, Some("the storage is mounted read-only")),
        Some(Errno::NAMETOOLONG) => (Config, Some("use a shorter directory for the storage")),
        Some(Errno::NOTDIR | Errno::ISDIR) => {
            (Config, Some("a file and a folder of the storage have the same name; is something else stored there too?"))
        }
        // The words of a network file system whose server is away; it may come back.
        Some(
            Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::NOTCONN | Errno::HOSTUNREACH | Errno::NETUNREACH,
        ) => (Unavailable, Some("is the network file system below the storage in order?")),
        _ => (LocalIo, None),
    }
}
