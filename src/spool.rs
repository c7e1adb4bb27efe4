//! The spool: a private local directory for what may be lost without harm: cached probes, notes, later markers and prefetched
//! files. Everything works without one.

use crate::error::Result;
use std::path::{Path, PathBuf};

/// A usable spool: owned by us, 0700, outside the data directory.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// The directory of `setting`, else `/var/spool/walhalla`, else `.walhalla` in the user's home (from the passwd file),
    /// made where it is missing. `Ok(None)` where none is usable; an unusable `setting` is an error for the caller to show.
    pub fn find(_setting: Option<&Path>, _data_directory: Option<&Path>) -> Result<Option<Spool>> {
        Ok(None)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// The content of a note, if there is one that can be read. Names are plain: `[a-z0-9._-]`.
    pub fn read(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }

    /// Writes a note: whole or not at all, through a temporary name and a rename. Not synced: a note may be lost.
    pub fn write(&self, _name: &str, _content: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Removes a note, if it is there.
    pub fn remove(&self, _name: &str) {}
}
