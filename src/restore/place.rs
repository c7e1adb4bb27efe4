//! The directories to restore into: whether they are fit for it, and roomy enough.

use super::unroll::PG_CONTROL_STAGED;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory that an unfinished restore leaves this file in; the last thing to go before `pg_control` comes.
pub(super) const UNFINISHED: &str = "walhalla.unfinished";

/// What a restore needs in a file system, and what there is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Space {
    /// A directory in it, one that exists.
    pub directory: PathBuf,
    /// Bytes that the restore writes there, WAL of the replay left out.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
}

/// The directory's absolute path; a relative one is taken from the working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let refused = |why: &str| Error::new(ErrorKind::Config, format!("cannot restore into {}: {why}", path.display()));
    let absolute = std::path::absolute(path).map_err(|cause| Error::local("find", path, cause))?;
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        if part == std::path::Component::ParentDir {
            // What `..` means behind a link, only the file system knows.
            plain = plain.join("..").canonicalize().map_err(|cause| Error::local("find", path, cause))?;
        } else {
            plain.push(part);
        }
    }
    if plain.parent().is_none() {
        return Err(refused("it is the root directory"));
    }
    match plain.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => Ok(plain),
        _ => Err(refused("Postgres' own files could not name it")),
    }
}

/// Refuses a directory that is not absent or empty. `what` names it in the error: "the target", "tablespace 16385's directory".
pub(super) fn must_be_empty(directory: &Path, what: &str) -> Result<()> {
    let refused = |why: &str| {
        Error::new(ErrorKind::Config, format!("{what} {} {why}", directory.display()))
            .hint("restore into a directory that is empty or does not exist; nothing was written")
    };
    let mut entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotADirectory => return Err(refused("is no directory")),
        Err(cause) => return Err(Error::local("look into", directory, cause)),
    };
    // Where the note has gone already, `pg_control` still has its temporary name.
    if [UNFINISHED, PG_CONTROL_STAGED].iter().any(|name| directory.join(name).exists()) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{what} {} holds a restore that did not finish, and cannot be started", directory.display()),
        )
        .hint("remove what is in it and run again; nothing was written"));
    }
    match entries.next() {
        None => Ok(()),
        Some(Ok(entry)) => Err(refused(&format!("is not empty: it holds {}", entry.file_name().to_string_lossy()))),
        Some(Err(cause)) => Err(Error::local("look into", directory, cause)),
    }
}

/// Refuses directories that are equal or lie within one another.
pub(super) fn must_be_apart(directories: &[(String, PathBuf)]) -> Result<()> {
    for (at, (what, directory)) in directories.iter().enumerate() {
        for (other, beside) in directories.iter().skip(at + 1) {
            if directory.starts_with(beside) || beside.starts_with(directory) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{what} {} and {other} {} lie within one another", directory.display(), beside.display()),
                )
                .hint("give each its own place with --tablespace OLD=NEW; nothing was written"));
            }
        }
    }
    Ok(())
}

/// Adds up what is written below each directory by file system, and asks each how much is free.
pub(super) fn space(needs: &[(PathBuf, u64)]) -> Result<Vec<Space>> {
    let mut by_device: BTreeMap<u64, Space> = BTreeMap::new();
    for (directory, bytes) in needs {
        let existing = nearest_existing(directory)?;
        let device = std::fs::metadata(&existing).map_err(|cause| Error::local("look at", &existing, cause))?.dev();
        let free = free_bytes(&existing)?;
        let space = by_device.entry(device).or_insert(Space { directory: existing, needed: 0, free });
        space.needed = space.needed.saturating_add(*bytes);
    }
    Ok(by_device.into_values().collect())
}

/// Refuses where a file system has too little room.
pub(super) fn must_fit(spaces: &[Space]) -> Result<()> {
    match spaces.iter().find(|space| space.needed > space.free) {
        None => Ok(()),
        Some(space) => Err(Error::new(
            ErrorKind::LocalIo,
            format!(
                "the file system of {} has {} free, and the restore needs {} there",
                space.directory.display(),
                super::report::bytes(space.free),
                super::report::bytes(space.needed)
            ),
        )
        .hint("make room or restore elsewhere; nothing was written")),
    }
}

fn nearest_existing(directory: &Path) -> Result<PathBuf> {
    directory
        .ancestors()
        .find(|path| path.exists())
        .map(Path::to_path_buf)
        .ok_or_else(|| Error::new(ErrorKind::LocalIo, format!("no part of {} exists", directory.display())))
}

fn free_bytes(directory: &Path) -> Result<u64> {
    let figures = rustix::fs::statvfs(directory)
        .map_err(|cause| Error::local("ask the free space of", directory, cause.into()))?;
    let blocks = if rustix::process::geteuid().is_root() { figures.f_bfree } else { figures.f_bavail };
    Ok(blocks.saturating_mul(figures.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_empty_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        must_be_empty(directory.path(), "the target").unwrap();
        must_be_empty(&directory.path().join("absent"), "the target").unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        let error = must_be_empty(directory.path(), "the target").unwrap_err().to_string();
        assert!(error.contains("is not empty: it holds file"), "{error}");
        assert!(must_be_empty(&directory.path().join("file"), "the target").is_err());
        std::fs::write(directory.path().join(UNFINISHED), "x").unwrap();
        let error = must_be_empty(directory.path(), "the target").unwrap_err().to_string();
        assert!(error.contains("did not finish"), "{error}");
    }

    #[test]
    fn places_are_apart() {
        let place = |path: &str| ("the directory".to_owned(), PathBuf::from(path));
        must_be_apart(&[place("/a/b"), place("/a/bc"), place("/c")]).unwrap();
        assert!(must_be_apart(&[place("/a/b"), place("/a/b/c")]).is_err());
        assert!(must_be_apart(&[place("/a"), place("/b"), place("/a")]).is_err());
    }

    #[test]
    fn absolute_paths() {
        assert_eq!(absolute(Path::new("/usr/./bin/../nowhere/")).unwrap(), Path::new("/usr/nowhere"));
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
        assert!(absolute(Path::new("/")).is_err() && absolute(Path::new("/a\nb")).is_err());
    }

    #[test]
    fn room_is_counted_by_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let needs = [(directory.path().join("a"), 1000), (directory.path().join("b/c"), 24)];
        let spaces = space(&needs).unwrap();
        assert_eq!((spaces.len(), spaces[0].needed), (1, 1024));
        must_fit(&spaces).unwrap();
        let error = must_fit(&[Space { needed: u64::MAX, ..spaces[0].clone() }]).unwrap_err();
        assert!(error.to_string().contains("nothing was written"), "{error}");
    }
}
