//! Files that survive power loss: stage, sync, rename, sync the directory. The only rename in the house.
//!
//! A rename or link is durable only when the *directory* is synced; a file only when the file is. Nothing here answers Ok
//! before both are. What Postgres does in `durable_rename` (`fd.c`) and this does not: it also syncs the target file before
//! the rename, so that a crash leaves one of two synced files; ours are only ever written through here, hence synced already.

use crate::error::{Error, ErrorKind, Result};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What the temporary names made here begin with: no WAL file, key or setting does.
pub const TEMPORARY_PREFIX: &str = ".walhalla-";

/// Writes a file so that after Ok it is durable and whole under its name, replacing what was there; after an error or a crash
/// the name shows the old content or the new, never a part. `mode` are the permission bits.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut staged = Staged::beside(path, mode)?;
    staged.write_all(content).map_err(|error| Error::local("write", path, error))?;
    staged.publish()
}

/// As [`write()`], but nothing is synced: after a crash of the machine the file may be old, new, or gone. For what may be lost.
pub fn write_unsynced(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut staged = Staged::beside(path, mode)?;
    staged.write_all(content).map_err(|error| Error::local("write", path, error))?;
    staged.publish_unsynced()
}

/// Renames a finished, synced temporary file to its final name in the same file system and syncs the directory.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    // Here is the one place that may.
    #[allow(clippy::disallowed_methods)]
    fs::rename(temporary, path).map_err(|error| Error::local("rename a temporary file to", path, error))?;
    sync_directory(parent(path))
}

/// Gives a whole file to somebody else: by a rename within a file system, else by a copy (a shared one where the file system can)
/// that is whole when it appears. Never by a link: the new owner may change the file in place. Nothing is synced: whoever wrote the
/// file has synced its content, or what could not be stored of it is found out by nobody once there is a copy. After Ok the old
/// name is gone; after an error the file may still be there.
pub fn hand_over(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if move_within(from, to)? {
        return Ok(());
    }
    let mut staged = Staged::beside(to, mode)?;
    let copied = File::open(from).and_then(|mut source| io::copy(&mut source, staged.file()));
    copied.map_err(|error| Error::local("copy a file to", to, error))?;
    staged.publish_unsynced()?;
    fs::remove_file(from).map_err(|error| Error::local("remove", from, error))
}

/// As [`hand_over`], but never by a copy. `false`: they lie in two file systems, and nothing has happened.
pub fn move_within(from: &Path, to: &Path) -> Result<bool> {
    #[allow(clippy::disallowed_methods)]
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
        renamed => renamed.map(|()| true).map_err(|error| Error::local("rename a file to", to, error)),
    }
}

/// Gives a finished, synced temporary file its final name only if that is free: by a hard link, so that of several writers
/// exactly one succeeds. Answers whether this one did. The temporary name is gone either way.
///
/// The directory is synced also when the name was taken: whoever finds the same content there and reports it as stored must
/// not depend on whether the first writer has come that far.
pub fn create_new_by_link(temporary: &Path, path: &Path) -> Result<bool> {
    let created = match fs::hard_link(temporary, path) {
        Ok(()) => true,
        // Over NFS an answer may be lost and the link made again: then it is our own file that is in the way.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => same_file(temporary, path),
        Err(error) => {
            let hint = "the repository's file system must allow hard links";
            return Err(Error::local("link a temporary file to", path, error).hint(hint));
        }
    };
    fs::remove_file(temporary).map_err(|error| Error::local("remove", temporary, error))?;
    sync_directory(parent(path))?;
    Ok(created)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::symlink_metadata(a), fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Syncs a directory, so that names made, renamed or removed in it are durable.
///
/// File systems that cannot sync directories at all answer `EINVAL` or `EBADF`; like Postgres (`fsync_fname_ext`) we take that
/// for an answer.
pub fn sync_directory(path: &Path) -> Result<()> {
    match File::open(path).and_then(|directory| directory.sync_all()) {
        Err(error) if matches!(error.raw_os_error(), Some(code) if CANNOT_SYNC.contains(&code)) => Ok(()),
        result => result.map_err(|error| Error::local("sync the directory", path, error)),
    }
}

/// `EBADF` and `EINVAL`.
const CANNOT_SYNC: [i32; 2] = [rustix::io::Errno::BADF.raw_os_error(), rustix::io::Errno::INVAL.raw_os_error()];

/// Syncs every regular file and directory below and including `directory`, the deepest first. Symbolic links are not followed:
/// what they point to is another tree. Memory: a handle for each level of the tree.
pub fn sync_tree(directory: &Path) -> Result<()> {
    // Lets the kernel write everything at once; what counts are the single syncs, which then find little to do.
    if let Ok(handle) = File::open(directory) {
        rustix::fs::syncfs(&handle).unwrap_or(());
    }
    sync_below(directory)
}

fn sync_below(directory: &Path) -> Result<()> {
    let unreadable = |error| Error::local("read the directory", directory, error);
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| Error::local("look at", &path, error))?;
        if kind.is_dir() {
            sync_below(&path)?;
        } else if kind.is_file() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| Error::local("sync", &path, error))?;
        }
    }
    sync_directory(directory)
}

/// A file under a temporary name in the directory of its final one. Dropped, it disappears.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Creates it beside `path`, with these permission bits.
    pub fn beside(path: &Path, mode: u32) -> Result<Self> {
        let cannot = |error| Error::local("create a temporary file beside", path, error);
        let file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(parent(path)).map_err(cannot)?;
        file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(cannot)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Its temporary name.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Gives it its final name without syncing anything: for a file that its reader syncs itself, or that may be lost.
    pub fn publish_unsynced(self) -> Result<()> {
        let Self { file, path } = self;
        file.persist(&path).map(drop).map_err(|error| Error::local("rename a temporary file to", &path, error.error))
    }

    /// Makes it durable under its final name, replacing what was there.
    pub fn publish(self) -> Result<()> {
        self.sync()?;
        publish(self.file.path(), &self.path)?;
        // The temporary name is gone; nothing is left to remove.
        let (_, gone) = self.file.into_parts();
        gone.keep().map(drop).map_err(|error| Error::new(ErrorKind::Bug, "cannot let go of a name").because(error))
    }

    /// Makes it durable under its final name if that is free; answers whether it was ([`create_new_by_link`]).
    pub fn create_new(self) -> Result<bool> {
        self.sync()?;
        let (_, temporary) = self.file.into_parts();
        let created = create_new_by_link(&temporary, &self.path)?;
        temporary
            .keep()
            .map(drop)
            .map_err(|error| Error::new(ErrorKind::Bug, "cannot let go of a name").because(error))?;
        Ok(created)
    }

    fn sync(&self) -> Result<()> {
        self.file.as_file().sync_all().map_err(|error| Error::local("sync a temporary file beside", &self.path, error))
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The directory of a path; the working directory for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn write_makes_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (content, mode) in [(&b"old"[..], 0o600), (b"new and longer", 0o640), (b"", 0o444)] {
            write(&path, content, mode).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            assert_eq!(names(dir.path()), ["file"], "no temporary name is left");
        }
        write_unsynced(&path, b"note", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"note");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("x"), b"").unwrap();
        let error = write(&taken, b"content", 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LocalIo);
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(names(dir.path()), ["taken"]);
        let error = write(&dir.path().join("missing/file"), b"", 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn publish_renames() {
        let dir = tempfile::tempdir().unwrap();
        let (temporary, path) = (dir.path().join("t"), dir.path().join("p"));
        fs::write(&temporary, b"1").unwrap();
        publish(&temporary, &path).unwrap();
        assert_eq!(names(dir.path()), ["p"]);
        assert_eq!(publish(&temporary, &path).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn handed_over_within_a_file_system_and_across() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Path::new("/dev/shm");
        let elsewhere = memory.is_dir().then(|| tempfile::tempdir_in(memory).unwrap());
        for home in [Some(&dir), elsewhere.as_ref()].into_iter().flatten() {
            let (from, to) = (home.path().join("from"), dir.path().join("to"));
            write_unsynced(&from, b"content", 0o600).unwrap();
            hand_over(&from, &to, 0o600).unwrap();
            assert_eq!((fs::read(&to).unwrap().as_slice(), from.exists()), (&b"content"[..], false));
            let found = fs::symlink_metadata(&to).unwrap();
            assert!(found.is_file() && found.nlink() == 1 && found.permissions().mode() & 0o7777 == 0o600);
            assert!(hand_over(&from, &to, 0o600).is_err());
            assert_eq!(names(dir.path()), ["to"]);
        }
    }

    #[test]
    fn a_link_creates_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let (temporary, path) = (dir.path().join("t"), dir.path().join("p"));
        for (content, created) in [("first", true), ("second", false)] {
            fs::write(&temporary, content).unwrap();
            assert_eq!(create_new_by_link(&temporary, &path).unwrap(), created);
            assert_eq!((fs::read_to_string(&path).unwrap(), names(dir.path())), ("first".into(), vec!["p".into()]));
        }
        // An answer lost on the way: the link is there, made by us.
        fs::hard_link(&path, &temporary).unwrap();
        assert!(create_new_by_link(&temporary, &path).unwrap());

        let mut staged = Staged::beside(&path, 0o600).unwrap();
        staged.write_all(b"third").unwrap();
        assert!(!staged.create_new().unwrap());
        let mut staged = Staged::beside(&dir.path().join("q"), 0o600).unwrap();
        staged.write_all(b"fourth").unwrap();
        assert!(staged.create_new().unwrap());
        assert_eq!(names(dir.path()), ["p", "q"]);
    }

    #[test]
    fn of_many_writers_one_creates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        let created: usize = std::thread::scope(|scope| {
            let writer = |number: usize| {
                let path = &path;
                scope.spawn(move || {
                    let mut staged = Staged::beside(path, 0o600).unwrap();
                    write!(staged, "{number}").unwrap();
                    usize::from(staged.create_new().unwrap())
                })
            };
            let writers: Vec<_> = (0..16).map(writer).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!((created, names(dir.path()).len()), (1, 1));
    }

    #[test]
    fn a_dropped_stage_disappears() {
        let dir = tempfile::tempdir().unwrap();
        let mut staged = Staged::beside(&dir.path().join("x"), 0o600).unwrap();
        staged.write_all(b"half").unwrap();
        assert!(staged.temporary().file_name().unwrap().to_str().unwrap().starts_with(TEMPORARY_PREFIX));
        drop(staged);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_tree_is_synced_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("base/1/2")).unwrap();
        fs::write(dir.path().join("base/1/2/file"), b"x").unwrap();
        symlink("/nowhere/at/all", dir.path().join("base/dangling")).unwrap();
        symlink(dir.path(), dir.path().join("base/loop")).unwrap();
        sync_tree(dir.path()).unwrap();
        assert_eq!(sync_tree(&dir.path().join("missing")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
