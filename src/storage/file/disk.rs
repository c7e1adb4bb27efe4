//! The blocking half: one object in, one object out, with every sync that "durable" needs.

use super::trouble;
use crate::durable;
use crate::storage::bounded::Progress;
use crate::storage::memory::clip;
use crate::storage::{ETag, Key, LARGEST_OBJECT, Object, PutMode, StorageError, StorageErrorKind, StorageResult};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::TempPath;

/// What our own names in the storage begin with. `~` is in no key.
pub(super) const OURS: &str = ".~";
/// Objects hold the cluster's data: for the user and the group, and nobody else.
const FILE_MODE: u32 = 0o640;
/// How often the folders of a key are made again before that is given up.
const FOLDER_ROUNDS: usize = 100;
const FOLDER_MODE: u32 = 0o750;
/// How much is read or written between two signs of progress.
const CHUNK: usize = 1 << 20;

/// The directory.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    /// Folders known to be durable up to the root, with their inode: a folder removed and made anew is another one.
    settled: Mutex<HashMap<PathBuf, u64>>,
}

impl Disk {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, settled: Mutex::default() }
    }

    /// Stores an object; see [`crate::storage::Storage::put`].
    pub(super) fn put(&self, key: &Key, body: &[u8], mode: &PutMode, progress: &Progress) -> StorageResult<ETag> {
        let target = self.root.join(key.as_str());
        if *mode == PutMode::CreateOnly && target.symlink_metadata().is_ok() {
            // Spares the writing; what decides is the link below.
            return Err(self.taken(key, &target));
        }
        let staged = self.stage(key, &target, body, progress)?;
        go_on(key, progress)?;
        match mode {
            PutMode::CreateOnly => {
                let created = durable::create_new_by_link(&staged, &target);
                if !created.map_err(|error| trouble::durable(&error))? {
                    return Err(self.taken(key, &target));
                }
                self.etag(&target)
            }
            PutMode::Overwrite => {
                let _lock = self.lock()?;
                self.replace(staged, &target)
            }
            PutMode::IfMatch(expected) => {
                let _lock = self.lock()?;
                let found = target.metadata().ok().filter(Metadata::is_file).map(|metadata| etag_of(&metadata));
                if found.as_ref() != Some(expected) {
                    return Err(precondition(key, "what is there is not what was expected"));
                }
                self.replace(staged, &target)
            }
        }
    }

    /// Reads an object; see [`crate::storage::Storage::get`].
    pub(super) fn get(&self, key: &Key, range: Option<Range<u64>>, progress: &Progress) -> StorageResult<Object> {
        let path = self.root.join(key.as_str());
        let metadata = match path.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            // A folder of that name is no object.
            Ok(_) => return Err(self.absent(key)),
            Err(cause) if is_absence(&cause) => return Err(self.absent(key)),
            Err(cause) => return Err(trouble::failed("read", &path, &cause)),
        };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if is_absence(&cause) => return Err(self.absent(key)),
            Err(cause) => return Err(trouble::failed("read", &path, &cause)),
        };
        // From the open file: the name may have been given to another one meanwhile.
        let metadata = file.metadata().unwrap_or(metadata);
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let part = range.map_or(0..length, |range| clip(&range, length));
        if part.len() as u64 > LARGEST_OBJECT {
            let message =
                format!("cannot read {}: it has {} bytes, and is no object of ours", path.display(), part.len());
            return Err(StorageError::new(StorageErrorKind::Config, message));
        }
        let body = read_part(&mut file, &part, progress).map_err(|cause| trouble::failed("read", &path, &cause))?;
        if body.len() != part.len() {
            let message = format!("cannot read {}: it became shorter meanwhile", path.display());
            return Err(StorageError::new(StorageErrorKind::Unavailable, message));
        }
        Ok(Object { body: body.into(), etag: Some(etag_of(&metadata)) })
    }

    /// Removes an object, and the folders that this leaves empty: an empty folder is no folder of a storage.
    pub(super) fn delete(&self, key: &Key) -> StorageResult<()> {
        self.require_root()?;
        let path = self.root.join(key.as_str());
        let _lock = self.lock()?;
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(cause) if is_absence(&cause) => return self.vouch_for_absence(key.as_str()),
            Err(cause) if cause.kind() == Io::IsADirectory => return Ok(()),
            Err(cause) => return Err(trouble::failed("delete", &path, &cause)),
        }
        let mut folder = parent(&path);
        durable::sync_directory(folder).map_err(|error| trouble::durable(&error))?;
        while folder != self.root && std::fs::remove_dir(folder).is_ok() {
            folder = parent(folder);
        }
        Ok(())
    }

    /// An error unless the root is there.
    pub(super) fn require_root(&self) -> StorageResult<()> {
        let problem = match self.root.metadata() {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => "it is no directory".to_owned(),
            Err(cause) if is_absence(&cause) => "it does not exist".to_owned(),
            Err(cause) => return Err(trouble::failed("look at the storage's directory", &self.root, &cause)),
        };
        let message = format!("the storage's directory {}: {problem}", self.root.display());
        let hint = "mount its volume, or create it if the storage is new".to_owned();
        Err(StorageError { hint: Some(hint), ..StorageError::new(StorageErrorKind::Config, message) })
    }

    /// An error unless the kernel's "no such name" for a path below the root may be believed: the root is there, and no link on
    /// the way leads nowhere, as one to a volume does that is not mounted.
    pub(super) fn vouch_for_absence(&self, path: &str) -> StorageResult<()> {
        self.require_root()?;
        let mut place = self.root.clone();
        let mut through_link = false;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            place.push(part);
            match place.symlink_metadata() {
                Ok(found) => through_link |= found.is_symlink(),
                Err(cause) if is_absence(&cause) => return Ok(()),
                Err(cause) => return Err(trouble::failed("look at", &place, &cause)),
            }
            match place.metadata() {
                Ok(_) => {}
                Err(cause) if is_absence(&cause) => return Err(trouble::leads_nowhere(&place)),
                Err(cause) => return Err(trouble::failed("look at", &place, &cause)),
            }
        }
        // All of it is there now, behind a link: a volume that was mounted in this very moment, perhaps.
        if through_link && !place.is_dir() {
            let message = format!("cannot read {}: it has come in this moment", place.display());
            return Err(StorageError::new(StorageErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// The error of a key that is not there; of what else makes it seem so.
    fn absent(&self, key: &Key) -> StorageError {
        match self.vouch_for_absence(key.as_str()) {
            Err(error) => error,
            Ok(()) => {
                let message = format!("cannot read {key}: no such file in {}", self.root.display());
                StorageError::new(StorageErrorKind::NotFound { deleted: false }, message)
            }
        }
    }

    /// The error of a name that is taken. Whoever hears it will read the object and may call it stored, so it is made durable
    /// first: a rival may not have synced it yet, or may have died before it could.
    fn taken(&self, key: &Key, target: &Path) -> StorageError {
        let settle = || -> StorageResult<()> {
            let failed = |cause| trouble::failed("sync", target, &cause);
            if target.metadata().map_err(failed)?.is_dir() {
                let hint =
                    "a folder of the storage has the object's name; is something else stored there too?".to_owned();
                let message = format!("cannot store {key}: {} is a directory", target.display());
                return Err(StorageError { hint: Some(hint), ..StorageError::new(StorageErrorKind::Config, message) });
            }
            File::open(target).and_then(|file| file.sync_all()).map_err(failed)?;
            durable::sync_directory(parent(target)).map_err(|error| trouble::durable(&error))?;
            self.settle(parent(target))
        };
        settle().err().unwrap_or_else(|| precondition(key, "the name is taken"))
    }

    /// Writes the bytes to a file of ours beside the target and syncs it; makes the folders durable on the way.
    fn stage(&self, key: &Key, target: &Path, body: &[u8], progress: &Progress) -> StorageResult<TempPath> {
        let folder = parent(target);
        // A `delete` elsewhere may remove the folder while it is empty: then it is made once more.
        let mut tries = FOLDER_ROUNDS;
        let (mut file, staged) = loop {
            self.make_folders(key)?;
            let path = folder.join(format!("{OURS}{:032x}", fastrand::u128(..)));
            let opened = File::options().create_new(true).write(true).mode(FILE_MODE).open(&path);
            match opened.and_then(|file| Ok((file, TempPath::try_from_path(path)?))) {
                Ok(staged) => break staged,
                Err(cause) if cause.kind() == Io::NotFound && tries > 0 => tries -= 1,
                Err(cause) => return Err(trouble::failed("create a file in", folder, &cause)),
            }
        };
        for chunk in body.chunks(CHUNK) {
            go_on(key, progress)?;
            file.write_all(chunk).map_err(|cause| trouble::failed("write", target, &cause))?;
            progress.touch();
        }
        file.sync_all().map_err(|cause| trouble::failed("sync", target, &cause))?;
        progress.touch();
        self.settle(folder)?;
        progress.touch();
        Ok(staged)
    }

    /// Makes the folders of a key. A deletion beside us removes folders that it leaves empty, also one that we have just made to
    /// make another in: then they are made again.
    fn make_folders(&self, key: &Key) -> StorageResult<()> {
        for _ in 0..FOLDER_ROUNDS {
            if self.make_folders_once(key)? {
                return Ok(());
            }
        }
        Err(StorageError::new(
            StorageErrorKind::Unavailable,
            format!("the folders of {key} are removed as often as they are made"),
        ))
    }

    /// `false`: a folder vanished meanwhile.
    fn make_folders_once(&self, key: &Key) -> StorageResult<bool> {
        self.require_root()?;
        let mut folder = self.root.clone();
        let folders = key.as_str().rsplit_once('/').map_or("", |(folders, _)| folders);
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder.push(part);
            match std::fs::DirBuilder::new().mode(FOLDER_MODE).create(&folder) {
                Err(cause) if cause.kind() == Io::AlreadyExists && trouble::is_dangling(&folder) => {
                    return Err(trouble::leads_nowhere(&folder));
                }
                Err(cause) if cause.kind() == Io::NotFound => return Ok(false),
                Err(cause) if cause.kind() != Io::AlreadyExists => {
                    return Err(trouble::failed("create the folder", &folder, &cause));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Syncs what names a folder, up to the root: whoever made it may not have come so far.
    fn settle(&self, folder: &Path) -> StorageResult<()> {
        let inode = folder.metadata().map_err(|cause| trouble::failed("look at", folder, &cause))?.ino();
        let settled = || self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled().get(folder) == Some(&inode) {
            return Ok(());
        }
        for above in folder.ancestors().take_while(|above| above.starts_with(&self.root)) {
            durable::sync_directory(above).map_err(|error| trouble::durable(&error))?;
        }
        settled().insert(folder.to_owned(), inode);
        Ok(())
    }

    /// Renames a staged file over the target.
    fn replace(&self, staged: TempPath, target: &Path) -> StorageResult<ETag> {
        durable::publish(&staged, target).map_err(|error| trouble::durable(&error))?;
        self.etag(target)
    }

    /// Waits for the lock under which names change other than by creation. Given back when the file is closed.
    fn lock(&self) -> StorageResult<File> {
        let path = self.root.join(format!("{OURS}lock"));
        let mut options = File::options();
        let open = options.create(true).truncate(false).write(true).mode(FILE_MODE).open(&path);
        let lock = open.and_then(|file| file.lock().map(|()| file));
        lock.map_err(|cause| trouble::failed("lock", &path, &cause))
    }

    fn etag(&self, path: &Path) -> StorageResult<ETag> {
        let metadata = path.metadata().map_err(|cause| trouble::failed("look at", path, &cause))?;
        Ok(etag_of(&metadata))
    }
}

/// The tag of a file. Every put makes a new file, so its number, its time and its size tell contents apart.
pub(super) fn etag_of(metadata: &Metadata) -> ETag {
    ETag(format!("{:x}-{:x}.{:09}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

/// Whether the kernel says that there is no such name.
pub(super) fn is_absence(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), Io::NotFound | Io::NotADirectory)
}

fn read_part(file: &mut File, part: &Range<usize>, progress: &Progress) -> std::io::Result<Vec<u8>> {
    if part.start > 0 {
        file.seek(SeekFrom::Start(part.start as u64))?;
    }
    let mut body = Vec::with_capacity(part.len());
    while body.len() < part.len() {
        let chunk = CHUNK.min(part.len() - body.len()) as u64;
        if Read::by_ref(file).take(chunk).read_to_end(&mut body)? == 0 {
            break;
        }
        progress.touch();
    }
    Ok(body)
}

/// An error once nobody waits for the object any more: what is staged is removed.
fn go_on(key: &Key, progress: &Progress) -> StorageResult<()> {
    if progress.is_abandoned() {
        return Err(StorageError::new(StorageErrorKind::Unavailable, format!("cannot store {key}: given up")));
    }
    Ok(())
}

fn precondition(key: &Key, why: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Precondition, format!("cannot store {key}: {why}"))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
