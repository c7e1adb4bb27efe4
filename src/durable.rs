//! Files that survive power loss: stage, sync, rename, sync the directory. The only rename in the house.

use crate::error::Result;
use std::path::Path;

/// Writes a file so that after Ok it is durable and whole under its name, replacing what was there; after an error or a crash
/// the name shows the old content or the new, never a part. `mode` are the permission bits.
pub fn write(_path: &Path, _content: &[u8], _mode: u32) -> Result<()> {
    Ok(())
}

/// Renames a finished, synced temporary file to its final name in the same file system and syncs the directory.
pub fn publish(_temporary: &Path, _path: &Path) -> Result<()> {
    Ok(())
}

/// Syncs a directory, so that names made, renamed or removed in it are durable.
pub fn sync_directory(_path: &Path) -> Result<()> {
    Ok(())
}
