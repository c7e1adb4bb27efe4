//! Files, directories and links of the restored server, made for their owner.

use super::owner::Owner;
use crate::error::{Error, ErrorKind, Result};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes things for an owner.
#[derive(Debug, Clone, Default)]
pub(super) struct Maker {
    owner: Option<Owner>,
}

impl Maker {
    /// For this owner; without one, for whoever runs this.
    pub(super) fn new(owner: Option<Owner>) -> Self {
        Self { owner }
    }

    /// Opens a file for writing, making it where it is missing. Its mode is 0600 until it is finished. A link under its name is
    /// not followed: what somebody put there must not lead the writing elsewhere.
    pub(super) fn open(&self, path: &Path) -> Result<File> {
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
        let open = || options.open(path);
        let file = match open() {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                self.directories_above(path)?;
                open()
            }
            other => other,
        }
        .map_err(|cause| failed("create", path, cause))?;
        self.give(&file, path)?;
        Ok(file)
    }

    /// Gives a file its mode, and its time where there is one.
    pub(super) fn finish(&self, file: &File, path: &Path, mode: u32, mtime: Option<u64>) -> Result<()> {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))
            .map_err(|cause| failed("set the mode of", path, cause))?;
        let Some(seconds) = mtime.and_then(|seconds| i64::try_from(seconds).ok()) else { return Ok(()) };
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(file, &times).map_err(|cause| failed("set the time of", path, cause.into()))
    }

    /// Writes a whole small file, replacing what is there.
    pub(super) fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let mut file = self.open(path)?;
        file.set_len(0).and_then(|()| file.write_all(content)).map_err(|cause| failed("write", path, cause))?;
        self.finish(&file, path, mode, None)
    }

    /// Makes a directory and those above it. One that is there gets the mode and the owner.
    pub(super) fn directory(&self, path: &Path, mode: u32) -> Result<()> {
        let make = || DirBuilder::new().mode(0o700).create(path);
        let made = match make() {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                self.directories_above(path)?;
                make()
            }
            other => other,
        };
        match made {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed("create", path, cause));
            }
            _ => {}
        }
        let directory = File::open(path).map_err(|cause| failed("open", path, cause))?;
        if !directory.metadata().is_ok_and(|found| found.is_dir()) {
            return Err(Error::new(
                ErrorKind::LocalIo,
                format!("{} is in the way: it is no directory", path.display()),
            ));
        }
        self.give(&directory, path)?;
        directory
            .set_permissions(Permissions::from_mode(mode & 0o7777))
            .map_err(|cause| failed("set the mode of", path, cause))
    }

    fn directories_above(&self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) if !parent.exists() => self.directory(parent, 0o700),
            _ => Ok(()),
        }
    }

    /// Makes a symbolic link, replacing a directory that is empty.
    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<()> {
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir(path).map_err(|cause| failed("replace", path, cause))?;
        }
        std::os::unix::fs::symlink(target, path).map_err(|cause| failed("create the link", path, cause))?;
        let Some(owner) = &self.owner else { return Ok(()) };
        std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
            .map_err(|cause| failed("give away", path, cause))
    }

    fn give(&self, file: &File, path: &Path) -> Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid)).map_err(|cause| failed("give away", path, cause.into()))
    }
}

/// A failure to write. A full disk is told apart: nothing else helps than room, and a new start.
pub(super) fn failed(doing: &str, path: &Path, cause: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let full = matches!(cause.kind(), Io::StorageFull | Io::QuotaExceeded);
    let error = Error::local(doing, path, cause).with_kind(ErrorKind::LocalIo);
    if full { error.hint("the disk is full: make room, or restore to a larger one, and start anew") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_times_and_directories_above() {
        let place = tempfile::tempdir().unwrap();
        let maker = Maker::default();
        let path = place.path().join("a/b/file");
        let file = maker.open(&path).unwrap();
        maker.finish(&file, &path, 0o640, Some(1_000_000_000)).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o640);
        assert_eq!(found.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_000_000_000);
        maker.directory(&place.path().join("a/b"), 0o750).unwrap();
        assert_eq!(std::fs::metadata(place.path().join("a/b")).unwrap().permissions().mode() & 0o777, 0o750);
        assert!(maker.directory(&path, 0o700).is_err());
        maker.write(&path, b"longer", 0o600).unwrap();
        maker.write(&path, b"short", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn a_link_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (elsewhere, link) = (place.path().join("elsewhere"), place.path().join("link"));
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        assert_eq!(Maker::default().open(&link).unwrap_err().kind(), ErrorKind::LocalIo);
        assert!(!elsewhere.exists());
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = std::io::Error::from_raw_os_error(28);
        let error = failed("write", Path::new("/x"), full);
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
}
