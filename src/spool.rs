//! The spool: a private local directory for what may be lost without harm: cached probes, notes, later markers and prefetched
//! files. Everything works without one.
//!
//! What lies there is believed to a degree (a cached probe says how careful to be), so nobody else may write into it: it is
//! ours, 0700, no symbolic link, and outside the data directory, which base backups copy.

use crate::account::Accounts;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the spool is by default, if it can be.
const SYSTEM_SPOOL: &str = "/var/spool/walhalla";

/// The folder in the user's home that stands in for it.
const HOME_SPOOL: &str = ".walhalla";

/// Tells apart what lies in one spool: 16 hex digits of a hash over these parts, none of which can run into the next.
pub fn tag<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let hash = hasher.finalize().to_hex();
    hash.as_str().get(..16).unwrap_or_default().to_owned()
}

/// A usable spool: owned by us, 0700, outside the data directory.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// The directory of `setting`, else `/var/spool/walhalla`, else `.walhalla` in the user's home (from the passwd file),
    /// made where it is missing (`/var/spool/walhalla` not by root). `Ok(None)` where none is usable; an unusable `setting` is an error for the caller to show.
    pub fn find(setting: Option<&Path>, data_directory: Option<&Path>) -> Result<Option<Spool>> {
        match setting {
            Some(dir) => Self::open(dir, data_directory).map(Some),
            None => Ok(first_usable(default_places(), data_directory)),
        }
    }

    /// Makes or checks one directory.
    fn open(dir: &Path, data_directory: Option<&Path>) -> Result<Spool> {
        let refuse = |why: &str| {
            let hint = "name a directory of this user alone with WALHALLA_SPOOL";
            Err(Error::new(ErrorKind::Config, format!("{} cannot be the spool: {why}", dir.display())).hint(hint))
        };
        if !dir.is_absolute() {
            return refuse("it is no absolute path");
        }
        let Some(place) = real_place(dir) else {
            return refuse("the directory above it does not exist");
        };
        if data_directory.is_some_and(|data| inside(&place, data)) {
            return refuse("it lies in the data directory");
        }
        let found = match fs::symlink_metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match DirBuilder::new().mode(0o700).create(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return refuse(&error.to_string()),
                _ => fs::symlink_metadata(dir),
            },
            found => found,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return refuse(&error.to_string()),
        };
        if !found.is_dir() {
            return refuse("it is no directory, or a symbolic link");
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return refuse("it belongs to another user");
        }
        if found.permissions().mode() & 0o077 != 0 {
            return refuse("others may enter it (it must have mode 0700)");
        }
        Ok(Spool { dir: place })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// A private folder in the spool, made where it is missing. Its name is as plain as a note's; what is in it belongs to the
    /// caller. It may vanish at any moment, with all that is in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path =
            self.path(name).ok_or_else(|| Error::new(ErrorKind::Bug, format!("{name:?} is no name for a folder")))?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::local("make", &path, error)),
            _ => Ok(path),
        }
    }

    /// The content of a note, if there is one that can be read. Names are plain: `[a-z0-9._-]`.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)?).ok()
    }

    /// Writes a note: whole or not at all, through a temporary name and a rename. Not synced: a note may be lost.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path =
            self.path(name).ok_or_else(|| Error::new(ErrorKind::Bug, format!("{name:?} is no name for a note")))?;
        durable::write_unsynced(&path, content, 0o600)
    }

    /// Removes a note, if it is there.
    pub fn remove(&self, name: &str) {
        if let Some(path) = self.path(name) {
            // A note that stays is no worse than one never removed: readers judge its age.
            fs::remove_file(path).unwrap_or(());
        }
    }

    /// Plain names only, and none that begins like a temporary one.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let fits = (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain);
        fits.then(|| self.dir.join(name))
    }
}

fn first_usable(places: impl IntoIterator<Item = PathBuf>, data_directory: Option<&Path>) -> Option<Spool> {
    places.into_iter().find_map(|place| Spool::open(&place, data_directory).ok())
}

fn default_places() -> impl Iterator<Item = PathBuf> {
    places_of(rustix::process::geteuid().as_raw(), Path::new(SYSTEM_SPOOL), Accounts::read)
}

/// Where a user's spool is looked for by default, best first.
pub fn places(user: u32) -> Vec<PathBuf> {
    places_of(user, Path::new(SYSTEM_SPOOL), Accounts::read).collect()
}

/// The places of a user. Root, as whom no server runs, uses the system's spool only where it is already: one that root made
/// would be closed to the server's user ever after. The accounts are read only where the first place will not do.
fn places_of(user: u32, system: &Path, accounts: impl FnOnce() -> Accounts) -> impl Iterator<Item = PathBuf> {
    let may_make = user != 0 || system.symlink_metadata().is_ok();
    let system = may_make.then(|| system.to_owned());
    let home = std::iter::once_with(move || home_of(user, &accounts()).map(|home| home.join(HOME_SPOOL)));
    system.into_iter().chain(home.flatten())
}

/// The home of a user by number.
fn home_of(user: u32, accounts: &Accounts) -> Option<PathBuf> {
    // A home of `/` is no home: nothing is to be put into the root directory unasked.
    let home = &accounts.of_uid(user)?.home;
    (home.is_absolute() && home.parent().is_some()).then(|| home.clone())
}

/// Where a directory really is, or would be: the directory above it with all links resolved, and its name.
fn real_place(dir: &Path) -> Option<PathBuf> {
    let name = dir.file_name()?;
    Some(dir.parent()?.canonicalize().ok()?.join(name))
}

/// Whether a place lies in the data directory, or in the directory that its `pg_wal` points to.
fn inside(place: &Path, data_directory: &Path) -> bool {
    let roots = [data_directory.to_owned(), data_directory.join("pg_wal")];
    roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| place.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refusal(dir: &Path, data: Option<&Path>) -> String {
        let error = Spool::find(Some(dir), data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn is_made_private_and_found_again() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("spool");
        for _ in 0..2 {
            let spool = Spool::find(Some(&dir), None).unwrap().unwrap();
            assert_eq!(spool.directory(), dir.canonicalize().unwrap());
            assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn only_a_directory_of_ours_alone() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::create_dir(at("real")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        fs::write(at("file"), b"").unwrap();
        for (dir, why) in [
            (at("open"), "0700"),
            (at("link"), "symbolic link"),
            (at("file"), "no directory"),
            (at("file/below"), "Not a directory"),
            (at("missing/below"), "above it does not exist"),
            (PathBuf::from("spool"), "no absolute path"),
            (PathBuf::from("/"), "above it does not exist"),
            (at("real/.."), "above it does not exist"),
        ] {
            let message = refusal(&dir, None);
            assert!(message.contains(why), "{message}");
        }
        // Somebody else's: for root a directory given away, for others one of root's.
        let foreign = if rustix::process::geteuid().is_root() {
            fs::create_dir(at("given")).unwrap();
            fs::set_permissions(at("given"), fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(at("given"), Some(12345), None).unwrap();
            at("given")
        } else {
            PathBuf::from("/usr")
        };
        assert!(refusal(&foreign, None).contains("another user"));
    }

    #[test]
    fn never_in_the_data_directory() {
        let above = tempfile::tempdir().unwrap();
        let data = above.path().join("data");
        let elsewhere = above.path().join("wal");
        fs::create_dir(&data).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, data.join("pg_wal")).unwrap();
        symlink(&data, above.path().join("alias")).unwrap();
        for dir in [data.join("spool"), above.path().join("alias/spool"), data.clone(), elsewhere.join("spool")] {
            let message = refusal(&dir, Some(&data));
            assert!(message.contains("in the data directory"), "{message}");
        }
        assert!(!data.join("spool").exists(), "nothing was made there");
        assert!(refusal(&data.join("spool"), Some(&above.path().join("alias"))).contains("in the data directory"));
        assert!(Spool::find(Some(&above.path().join("data-spool")), Some(&data)).unwrap().is_some());
    }

    #[test]
    fn defaults_are_tried_in_turn_without_a_word() {
        let above = tempfile::tempdir().unwrap();
        let (bad, good) = (above.path().join("missing/spool"), above.path().join("home"));
        let spool = first_usable(vec![bad.clone(), good.clone()], None).unwrap();
        assert_eq!(spool.directory(), good.canonicalize().unwrap());
        assert!(first_usable(vec![bad], None).is_none());
    }

    #[test]
    fn root_makes_no_place_that_the_servers_user_could_not_enter() {
        let above = tempfile::tempdir().unwrap();
        let system = above.path().join("walhalla");
        let accounts =
            || Accounts::parse("root:x:0:0:root:/root:/bin/bash\npostgres:x:105:109::/var/lib/postgresql:/bin/bash\n");
        let homes = [PathBuf::from("/root/.walhalla"), PathBuf::from("/var/lib/postgresql/.walhalla")];
        let places = |user| places_of(user, &system, accounts).collect::<Vec<_>>();
        assert_eq!(places(0), homes[..1]);
        assert_eq!(places(105), [system.clone(), homes[1].clone()]);
        fs::create_dir(&system).unwrap();
        assert_eq!(places(0), [system.clone(), homes[0].clone()]);
        let unread = || -> Accounts { panic!("the accounts are read") };
        assert_eq!(places_of(105, &system, unread).next(), Some(system.clone()));
    }

    #[test]
    fn homes() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
                      # comment\nshort:x\n\
                      nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n\
                      odd:x:7:7::relative:/bin/sh\n\
                      postgres:x:105:109:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";
        let accounts = Accounts::parse(passwd);
        for (user, home) in
            [(0, Some("/root")), (105, Some("/var/lib/postgresql")), (10, None), (7, None), (65534, None), (1000, None)]
        {
            assert_eq!(home_of(user, &accounts), home.map(PathBuf::from), "{user}");
        }
        assert_eq!(home_of(0, &Accounts::default()), None);
    }

    #[test]
    fn folders_and_tags() {
        let above = tempfile::tempdir().unwrap();
        let spool = Spool::find(Some(&above.path().join("spool")), None).unwrap().unwrap();
        for _ in 0..2 {
            let folder = spool.folder("ahead-1").unwrap();
            assert_eq!(folder, spool.directory().join("ahead-1"));
            assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(spool.folder("../x").unwrap_err().kind(), ErrorKind::Bug);
        let tags = [tag([&b"ab"[..], b"c"]), tag([&b"a"[..], b"bc"]), tag([&b"abc"[..]]), tag([])];
        for (at, tag) in tags.iter().enumerate() {
            assert_eq!(tag.len(), 16);
            assert!(!tags[..at].contains(tag));
        }
    }

    #[test]
    fn notes() {
        let above = tempfile::tempdir().unwrap();
        let spool = Spool::find(Some(&above.path().join("spool")), None).unwrap().unwrap();
        assert_eq!(spool.read("probe-1"), None);
        for content in [&b"one"[..], b"two, longer"] {
            spool.write("probe-1", content).unwrap();
            assert_eq!(spool.read("probe-1").as_deref(), Some(content));
        }
        let names: Vec<_> = fs::read_dir(spool.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["probe-1"]);
        spool.remove("probe-1");
        spool.remove("probe-1");
        assert_eq!(spool.read("probe-1"), None);
        for name in ["", ".", "..", ".walhalla-1", "a/b", "../x", "UPPER", "a b", "ä", &"x".repeat(201)] {
            assert_eq!(spool.read(name), None, "{name:?}");
            assert_eq!(spool.write(name, b"").unwrap_err().kind(), ErrorKind::Bug, "{name:?}");
            spool.remove(name);
        }
    }
}
