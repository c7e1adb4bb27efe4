//! Files that survive power loss: stage, sync, rename, sync the directory. The only rename in the house.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind as Io, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file so that after Ok it is durable and whole under its name, replacing what was there; after an error or a crash
/// the name shows the old content or the new, never a part. `mode` are the permission bits.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut staged = tempfile::Builder::new()
        .prefix(".~")
        .tempfile_in(directory_of(path))
        .map_err(|cause| Error::local("create a file beside", path, cause))?;
    let fill = |file: &mut File| {
        file.write_all(content)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()
    };
    fill(staged.as_file_mut()).map_err(|cause| Error::local("write", path, cause))?;
    publish(staged.path(), path)
}

/// Renames a finished, synced temporary file to its final name in the same file system and syncs the directory.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    #[allow(clippy::disallowed_methods)] // This is the one rename.
    std::fs::rename(temporary, path).map_err(|cause| Error::local("rename a finished file to", path, cause))?;
    sync_directory(directory_of(path))
}

/// Gives a finished, synced temporary file its final name by a hard link, which never replaces anything, and syncs the directory.
/// `false`: the name is taken, and nothing was changed. The temporary name stays: its owner removes it.
pub fn create_new_by_link(temporary: &Path, path: &Path) -> Result<bool> {
    match std::fs::hard_link(temporary, path) {
        Ok(()) => sync_directory(directory_of(path)).map(|()| true),
        Err(cause) if cause.kind() == Io::AlreadyExists => Ok(false),
        Err(cause) => Err(Error::local("link a finished file to", path, cause)),
    }
}

/// Syncs a directory, so that names made, renamed or removed in it are durable.
pub fn sync_directory(path: &Path) -> Result<()> {
    match File::open(path).and_then(|directory| directory.sync_all()) {
        // Some file systems (CIFS) have no such thing as syncing a directory, and say EINVAL; Postgres passes over it too.
        Err(cause) if cause.kind() == Io::InvalidInput => Ok(()),
        Err(cause) => Err(Error::local("sync the directory", path, cause)),
        Ok(()) => Ok(()),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_never_replaces_and_a_rename_does() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, name] = ["first", "second", "name"].map(|name| directory.path().join(name));
        write(&first, b"1", 0o600).unwrap();
        write(&second, b"2", 0o640).unwrap();
        assert!(create_new_by_link(&first, &name).unwrap());
        assert!(!create_new_by_link(&second, &name).unwrap());
        assert_eq!(std::fs::read(&name).unwrap(), b"1");
        publish(&second, &name).unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
