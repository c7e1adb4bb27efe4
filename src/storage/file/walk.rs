//! Listing: the files below the root in the byte order of their keys, in bounded memory however many there are.

use super::disk::{Disk, etag_of, is_absence};
use super::trouble;
use crate::storage::bounded::Progress;
use crate::storage::memory::after;
use crate::storage::{Entry, Key, ListPage, ListRequest, StorageError, StorageErrorKind, StorageResult};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

/// Entries of a page where the request names no limit. A directory is read again for each page, so pages are large.
const PAGE: usize = 100_000;

/// One page of keys; see [`crate::storage::Storage::list`].
pub(super) fn list(disk: &Disk, request: &ListRequest, progress: &Progress) -> StorageResult<ListPage> {
    disk.require_root()?;
    let date = SystemTime::now();
    let limit = request.limit.unwrap_or(PAGE).max(1);
    let mut walk = Walk { disk, prefix: &request.prefix, after: after(request).unwrap_or(""), limit, progress };
    let mut entries = Vec::new();
    // One more than a page holds tells whether there is a next one.
    walk.limit += 1;
    // Nothing lies below a folder that the listing has left behind.
    let lies_ahead = |folder: &&str| walk.after <= *folder || walk.after.starts_with(folder);
    if let Some(folder) = start(&request.prefix).filter(lies_ahead) {
        walk.folder(folder, &mut entries)?;
    }
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| last.key.as_str().to_owned());
    Ok(ListPage { entries, next, date: Some(date) })
}

/// The folders directly below a prefix; see [`crate::storage::Storage::folders`].
pub(super) fn folders(disk: &Disk, prefix: &str, progress: &Progress) -> StorageResult<Vec<String>> {
    disk.require_root()?;
    let Some(above) = start(prefix).filter(|above| *above == prefix) else { return Ok(Vec::new()) };
    let everything = Walk { disk, prefix, after: "", limit: usize::MAX, progress };
    let mut folders = Vec::new();
    for name in everything.names(above)? {
        let Some(folder) = name.strip_suffix('/') else { continue };
        // A folder without an object is what a crash left behind, and no folder of a storage.
        let mut first = Vec::new();
        Walk { limit: 1, ..everything }.folder(&format!("{above}{name}"), &mut first)?;
        if !first.is_empty() {
            folders.push(folder.to_owned());
        }
    }
    folders.sort();
    Ok(folders)
}

/// The folder in which all keys of a prefix lie, with its slash, or empty; `None` if no key can start so.
fn start(prefix: &str) -> Option<&str> {
    match prefix.rfind('/') {
        None => Some(""),
        Some(slash) => Key::new(&prefix[..slash]).map(|_| &prefix[..=slash]),
    }
}

/// What is wanted, while walking.
#[derive(Clone, Copy)]
struct Walk<'a> {
    disk: &'a Disk,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    progress: &'a Progress,
}

impl Walk<'_> {
    /// Adds the entries below a folder (named with its slash) until there are as many as wanted.
    fn folder(&self, folder: &str, entries: &mut Vec<Entry>) -> StorageResult<()> {
        // A folder may turn out to hold nothing; then the names beyond the first `limit` are needed after all.
        let mut walk = *self;
        let mut last = String::new();
        loop {
            walk.limit = self.limit.saturating_sub(entries.len());
            let names = walk.names_behind(folder, &last)?;
            let exhausted = names.len() < walk.limit || walk.limit == usize::MAX;
            for name in &names {
                let path = format!("{folder}{name}");
                if name.ends_with('/') {
                    self.folder(&path, entries)?;
                } else {
                    entries.extend(self.entry(&path)?);
                }
                if entries.len() >= self.limit {
                    return Ok(());
                }
            }
            match names.last() {
                Some(name) if !exhausted => name.clone_into(&mut last),
                _ => return Ok(()),
            }
        }
    }

    fn names(&self, folder: &str) -> StorageResult<BTreeSet<String>> {
        self.names_behind(folder, "")
    }

    /// The first `limit` wanted names of a folder behind `last`, folders with a slash: so sorted, they are in their keys' order.
    fn names_behind(&self, folder: &str, last: &str) -> StorageResult<BTreeSet<String>> {
        let path = self.disk.root.join(folder);
        let failed = |cause: std::io::Error| trouble::failed("list", &path, &cause);
        let mut names = BTreeSet::new();
        let wanted = Wanted::in_folder(self, folder);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(cause) if is_absence(&cause) => return self.disk.vouch_for_absence(folder).map(|()| names),
            Err(cause) => return Err(failed(cause)),
        };
        for (count, entry) in entries.enumerate() {
            if count % 4096 == 0 {
                self.progress.touch();
                self.still_wanted(&path)?;
            }
            let entry = entry.map_err(failed)?;
            let Some(mut name) = entry.file_name().into_string().ok().filter(|name| is_part(name)) else { continue };
            let mut kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                match entry.path().metadata() {
                    Ok(metadata) => kind = metadata.file_type(),
                    // Whatever is behind it cannot be seen; not to list it would call it absent.
                    Err(_) if !wanted.may_have(&name) => continue,
                    Err(cause) if !is_absence(&cause) => return Err(failed(cause)),
                    Err(_) if entry.path().is_symlink() => return Err(trouble::leads_nowhere(&entry.path())),
                    // The link itself was removed meanwhile.
                    Err(_) => continue,
                }
            }
            if kind.is_dir() {
                name.push('/');
            } else if !kind.is_file() {
                continue;
            }
            if name.as_str() <= last || !wanted.has(&name) {
                continue;
            }
            names.insert(name);
            if names.len() > self.limit {
                names.pop_last();
            }
        }
        Ok(names)
    }

    /// The entry of a file; none if it was removed meanwhile, or its name is too long for a key.
    fn entry(&self, path: &str) -> StorageResult<Option<Entry>> {
        let Some(key) = Key::new(path) else { return Ok(None) };
        self.progress.touch();
        match self.disk.root.join(path).metadata() {
            Ok(metadata) => Ok(Some(Entry {
                key,
                size: metadata.len(),
                etag: Some(etag_of(&metadata)),
                last_modified: metadata.modified().ok(),
            })),
            Err(cause) if is_absence(&cause) => self.disk.vouch_for_absence(path).map(|()| None),
            Err(cause) => Err(trouble::failed("look at", Path::new(path), &cause)),
        }
    }

    fn still_wanted(&self, path: &Path) -> StorageResult<()> {
        if !self.progress.is_abandoned() {
            return Ok(());
        }
        Err(StorageError::new(StorageErrorKind::Unavailable, format!("cannot list {}: given up", path.display())))
    }
}

/// Which names of one folder are wanted: worked out once, since a folder may hold a million of them.
struct Wanted<'a> {
    /// What they begin with.
    prefix: &'a str,
    /// Behind which they lie.
    after: &'a str,
}

impl<'a> Wanted<'a> {
    /// The folder itself is one that is wanted: it lies below the prefix or above it, and so for `after`.
    fn in_folder(walk: &Walk<'a>, folder: &str) -> Self {
        Self {
            prefix: walk.prefix.strip_prefix(folder).unwrap_or(""),
            after: walk.after.strip_prefix(folder).unwrap_or(""),
        }
    }

    /// Whether a name is wanted that may be a file's or a folder's.
    fn may_have(&self, name: &str) -> bool {
        self.has(name) || self.has(&format!("{name}/"))
    }

    fn has(&self, name: &str) -> bool {
        if name.ends_with('/') {
            let has_prefix = name.starts_with(self.prefix) || self.prefix.starts_with(name);
            has_prefix && (name > self.after || self.after.starts_with(name))
        } else {
            name.starts_with(self.prefix) && name > self.after
        }
    }
}

/// Whether a file's name can stand in a key.
fn is_part(name: &str) -> bool {
    !name.contains('/') && Key::new(name).is_some()
}
