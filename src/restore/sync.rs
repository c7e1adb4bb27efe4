//! Everything on the disk before `pg_control` makes it a data directory.

use super::make::failed;
use crate::error::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How many threads sync. They wait for the disk, not for the processor.
const THREADS: usize = 4;

/// Syncs all files and directories below these, and the directories that name them.
///
/// The file system is told first to write all it has (`syncfs`), which it can do in its own best order; the sync of each file that
/// follows then finds little to do, and is what reports an error on every kernel and every file system.
pub fn trees(roots: &[PathBuf]) -> Result<()> {
    for root in roots {
        let directory = File::open(root).map_err(|cause| failed("open", root, cause))?;
        rustix::fs::syncfs(&directory).map_err(|cause| failed("sync the file system of", root, cause.into()))?;
    }
    let mut directories = Vec::new();
    for root in roots {
        list(root, &mut directories)?;
    }
    let queue = Mutex::new(directories);
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| drain(&queue))).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    for result in results {
        result.map_err(|_| Error::new(crate::error::ErrorKind::Bug, "a thread that syncs died"))??;
    }
    for root in roots {
        if let Some(parent) = root.parent() {
            crate::durable::sync_directory(parent)?;
        }
    }
    Ok(())
}

/// All directories below `root`, itself first. Links are not followed: what they lead to is a root of its own.
fn list(root: &Path, directories: &mut Vec<PathBuf>) -> Result<()> {
    let mut next = directories.len();
    directories.push(root.to_path_buf());
    while let Some(directory) = directories.get(next).cloned() {
        for entry in entries(&directory)? {
            let kind = entry.file_type().map_err(|cause| failed("look at", &entry.path(), cause))?;
            if kind.is_dir() {
                directories.push(entry.path());
            }
        }
        next += 1;
    }
    Ok(())
}

fn drain(queue: &Mutex<Vec<PathBuf>>) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let Some(directory) = next else { return Ok(()) };
        for entry in entries(&directory)? {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                File::open(&path).and_then(|file| file.sync_all()).map_err(|cause| failed("sync", &path, cause))?;
            }
        }
        crate::durable::sync_directory(&directory)?;
    }
}

fn entries(directory: &Path) -> Result<Vec<std::fs::DirEntry>> {
    std::fs::read_dir(directory)
        .and_then(|entries| entries.collect())
        .map_err(|cause| failed("look into", directory, cause))
}
