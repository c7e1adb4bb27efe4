//! A file system that forgets: the model by which power loss is tried.
//!
//! It is fed the system calls of a recorded run, one after the other, and knows at each moment what a disk may hold if the power
//! fails then: bytes of a file as of its last sync, names of a directory as of *its* last sync; all else may have survived or not,
//! each by itself and in any order. (POSIX promises no more; ext4 and xfs often keep more.)

use super::strace::Call;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The calls that it must be fed.
pub(crate) const CALLS: &str = "openat,creat,write,pwrite64,writev,pwritev,copy_file_range,sendfile,ftruncate,fallocate,fchmod,fchown,\
    fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat";

/// The number of a file or directory in the model.
pub(crate) type Node = usize;

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Item {
    Directory,
    File(Arc<[u8]>),
    Link,
}

/// What of the unsynced survives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Survives {
    Nothing,
    /// Names, but no bytes: files of length zero.
    Names,
    /// Bytes, but no names.
    Bytes,
    /// Each by chance, a file's bytes also by half.
    Some(u64),
    /// What a killed process leaves, where the machine lives on.
    Everything,
}

#[derive(Debug, Clone)]
enum Kind {
    File { known: Option<Arc<[u8]>> },
    Directory { now: BTreeMap<String, Node>, durable: BTreeMap<String, Node> },
    Link,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    /// How often it was changed, and as of which change it is durable.
    changes: u64,
    synced: u64,
}

/// The trees below some directories.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    roots: Vec<(PathBuf, Node)>,
    entries: Vec<Entry>,
}

impl Disk {
    /// What is below these directories, all of it durable.
    pub(crate) fn of(roots: &[PathBuf]) -> Self {
        let mut disk = Self { roots: Vec::new(), entries: Vec::new() };
        for root in roots {
            let root = root.canonicalize().unwrap();
            let node = disk.load(&root);
            disk.roots.push((root, node));
        }
        disk
    }

    /// Takes it that nothing below the roots was ever synced.
    pub(crate) fn forget_syncs(&mut self) {
        for entry in &mut self.entries {
            match &mut entry.kind {
                Kind::Directory { durable, .. } => durable.clear(),
                _ => entry.changes = entry.synced + 1,
            }
        }
    }

    fn load(&mut self, path: &Path) -> Node {
        let kind = if path.is_symlink() {
            Kind::Link
        } else if path.is_dir() {
            let names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            let now: BTreeMap<String, Node> = names
                .into_iter()
                .map(|name| (name.to_str().unwrap().to_owned(), self.load(&path.join(&name))))
                .collect();
            Kind::Directory { durable: now.clone(), now }
        } else {
            Kind::File { known: Some(std::fs::read(path).unwrap().into()) }
        };
        self.add(kind, 0)
    }

    fn add(&mut self, kind: Kind, changes: u64) -> Node {
        self.entries.push(Entry { kind, changes, synced: 0 });
        self.entries.len() - 1
    }

    fn new_directory() -> Kind {
        Kind::Directory { now: BTreeMap::new(), durable: BTreeMap::new() }
    }

    /// What has this path now, if it is below one of the roots.
    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        let (root, start) = self.roots.iter().find(|(root, _)| path.starts_with(root))?;
        path.strip_prefix(root).unwrap().components().try_fold(*start, |node, part| {
            match (&self.entries[node].kind, part) {
                (Kind::Directory { now, .. }, Component::Normal(name)) => now.get(name.to_str()?).copied(),
                _ => None,
            }
        })
    }

    /// The names in the directory of a path, and the last part of it.
    fn place(&mut self, path: &Path) -> Option<(&mut BTreeMap<String, Node>, String)> {
        let parent = self.find(path.parent()?)?;
        let name = path.file_name()?.to_str()?.to_owned();
        match &mut self.entries[parent].kind {
            Kind::Directory { now, .. } => Some((now, name)),
            _ => None,
        }
    }

    fn name(&mut self, path: &Path, node: Node) {
        if let Some((now, name)) = self.place(path) {
            now.insert(name, node);
        }
    }

    fn unname(&mut self, path: &Path) {
        if let Some((now, name)) = self.place(path) {
            now.remove(&name);
        }
    }

    /// A call has returned.
    pub(crate) fn apply(&mut self, call: &Call) {
        if !call.succeeded() {
            return;
        }
        let path = |at| call.path(at).unwrap_or_default();
        match call.name.as_str() {
            "openat" | "creat" => self.open(call),
            "write" | "pwrite64" | "writev" | "pwritev" | "ftruncate" | "fallocate" | "fchmod" | "fchown"
            | "sendfile" => {
                self.change(&call.arguments[0]);
            }
            "copy_file_range" => self.change(&call.arguments[2]),
            "fsync" | "fdatasync" => self.sync(&call.arguments[0]),
            "syncfs" => (0..self.entries.len()).for_each(|node| self.sync_node(node)),
            "rename" => self.rename(&path(0), &path(1)),
            "renameat" | "renameat2" => self.rename(&path(1), &path(3)),
            "link" => self.link(&path(0), &path(1)),
            "linkat" => self.link(&path(1), &path(3)),
            "unlink" | "rmdir" => self.unname(&path(0)),
            "unlinkat" => self.unname(&path(1)),
            "mkdir" => self.make(&path(0), Self::new_directory()),
            "mkdirat" => self.make(&path(1), Self::new_directory()),
            "symlink" => self.make(&path(1), Kind::Link),
            "symlinkat" => self.make(&path(2), Kind::Link),
            other => panic!("a call that the model does not know: {other}"),
        }
    }

    fn make(&mut self, path: &Path, kind: Kind) {
        let node = self.add(kind, 0);
        self.name(path, node);
    }

    fn open(&mut self, call: &Call) {
        let Some(path) = Call::described(&call.result).map(PathBuf::from) else { return };
        let flags = call.arguments.get(2).map_or("O_CREAT|O_TRUNC", String::as_str);
        match self.find(&path) {
            None if flags.contains("O_CREAT") => {
                let node = self.add(Kind::File { known: None }, 1);
                self.name(&path, node);
            }
            Some(node) if flags.contains("O_TRUNC") => self.entries[node].changes += 1,
            _ => {}
        }
    }

    fn change(&mut self, descriptor: &str) {
        if let Some(node) = Call::described(descriptor).and_then(|path| self.find(Path::new(path))) {
            self.entries[node].changes += 1;
        }
    }

    fn sync(&mut self, descriptor: &str) {
        if let Some(node) = Call::described(descriptor).and_then(|path| self.find(Path::new(path))) {
            self.sync_node(node);
        }
    }

    fn sync_node(&mut self, node: Node) {
        let entry = &mut self.entries[node];
        entry.synced = entry.changes;
        if let Kind::Directory { now, durable } = &mut entry.kind {
            durable.clone_from(now);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let found = self.find(from);
        self.unname(from);
        match found {
            Some(node) => self.name(to, node),
            // From elsewhere: nobody has synced it, as far as is known here.
            None => self.make(to, Kind::File { known: None }),
        }
    }

    fn link(&mut self, from: &Path, to: &Path) {
        if let Some(node) = self.find(from) {
            self.name(to, node);
        }
    }

    /// Reads the content of all files that are there under some name, after the run: for [`Self::learn`].
    pub(crate) fn contents(&self) -> HashMap<Node, Arc<[u8]>> {
        let files = self.walk(Survives::Everything).into_iter();
        files.filter_map(|(path, node)| Some((node, std::fs::read(path).ok()?.into()))).collect()
    }

    /// Knows what the files of the run will contain in the end. (Ours are written once and then only named.)
    pub(crate) fn learn(&mut self, contents: &HashMap<Node, Arc<[u8]>>) {
        for (node, content) in contents {
            if let Some(Entry { kind: Kind::File { known }, .. }) = self.entries.get_mut(*node) {
                known.get_or_insert_with(|| content.clone());
            }
        }
    }

    /// Every path below the roots with its node, the roots first.
    fn walk(&self, survives: Survives) -> Vec<(PathBuf, Node)> {
        let mut chance = fastrand::Rng::with_seed(if let Survives::Some(seed) = survives { seed } else { 0 });
        let mut found: Vec<(PathBuf, Node)> = Vec::new();
        let mut rest = self.roots.clone();
        while let Some((path, node)) = rest.pop() {
            if let Kind::Directory { now, durable } = &self.entries[node].kind {
                let names: std::collections::BTreeSet<&String> = now.keys().chain(durable.keys()).collect();
                for name in names {
                    let entry = match survives {
                        Survives::Nothing | Survives::Bytes => durable.get(name),
                        Survives::Names | Survives::Everything => now.get(name),
                        Survives::Some(_) => {
                            if chance.bool() {
                                now.get(name)
                            } else {
                                durable.get(name)
                            }
                        }
                    };
                    rest.extend(entry.map(|node| (path.join(name), *node)));
                }
            }
            found.push((path, node));
        }
        found
    }

    /// A disk as it may be found after the power failed.
    pub(crate) fn after_power_loss(&self, survives: Survives) -> BTreeMap<PathBuf, Item> {
        let mut chance = fastrand::Rng::with_seed(if let Survives::Some(seed) = survives { !seed } else { 0 });
        let item = |node: Node| match &self.entries[node].kind {
            Kind::Directory { .. } => Item::Directory,
            Kind::Link => Item::Link,
            Kind::File { known } => {
                let whole = known.clone().unwrap_or_else(|| vec![0; 512].into());
                let kept = match survives {
                    _ if self.is_synced(node) => whole.len(),
                    Survives::Nothing | Survives::Names => 0,
                    Survives::Bytes | Survives::Everything => whole.len(),
                    Survives::Some(_) => whole.len() * chance.usize(..3) / 2,
                };
                Item::File(whole[..kept].into())
            }
        };
        let mut item = item;
        self.walk(survives).into_iter().map(|(path, node)| (path, item(node))).collect()
    }

    fn is_synced(&self, node: Node) -> bool {
        self.entries[node].synced == self.entries[node].changes
    }

    /// The files that have a name now, or may have one after a power loss, and whose bytes may be lost: whatever of the names
    /// survives, nothing below these is torn if there are none.
    pub(crate) fn torn(&self) -> Vec<PathBuf> {
        let mut found = [self.walk(Survives::Everything), self.walk(Survives::Nothing)].concat();
        found.retain(|(_, node)| matches!(self.entries[*node].kind, Kind::File { .. }) && !self.is_synced(*node));
        let mut found: Vec<PathBuf> = found.into_iter().map(|(path, _)| path).collect();
        found.sort();
        found.dedup();
        found
    }

    /// What a power loss may undo: names that were given, taken away or moved, and bytes that were written.
    pub(crate) fn undecided(&self) -> Vec<PathBuf> {
        let mut found = self.torn();
        for (path, node) in self.walk(Survives::Everything) {
            let Kind::Directory { now, durable } = &self.entries[node].kind else { continue };
            let differ = |name: &&String| now.get(*name) != durable.get(*name);
            let names: std::collections::BTreeSet<&String> = now.keys().chain(durable.keys()).filter(differ).collect();
            found.extend(names.into_iter().map(|name| path.join(name)));
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Makes such a disk real: what lay below `from` comes below `to`, which is emptied first.
pub(crate) fn lay_out(disk: &BTreeMap<PathBuf, Item>, from: &Path, to: &Path) {
    let from = from.canonicalize().unwrap();
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    for (path, item) in disk {
        let Ok(rest) = path.strip_prefix(&from) else { continue };
        let path = to.join(rest);
        match item {
            Item::Directory => std::fs::create_dir_all(&path).unwrap(),
            Item::File(content) => std::fs::write(&path, content).unwrap(),
            Item::Link => std::os::unix::fs::symlink("/nowhere", &path).unwrap(),
        }
    }
}

#[test]
fn what_is_forgotten() {
    let place = super::temporary();
    let root = place.path().canonicalize().unwrap();
    std::fs::write(root.join("old"), "old").unwrap();
    let mut disk = Disk::of(std::slice::from_ref(&root));
    let mut call = |name: &str, arguments: &[String], result: &str| {
        let call = Call { thread: 1, name: name.into(), arguments: arguments.to_vec(), result: result.into() };
        disk.apply(&call);
        let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
        let names = |paths: Vec<PathBuf>| paths.iter().map(name).collect::<Vec<_>>().join(" ");
        (names(disk.torn()), names(disk.undecided()))
    };
    let path = |name: &str| root.join(name).display().to_string();
    let (quoted, open) = (|name: &str| format!("\"{}\"", path(name)), |name: &str| format!("3<{}>", path(name)));
    let both = |text: &str| (text.to_owned(), text.to_owned());
    let nothing = || (String::new(), String::new());
    let create = ["AT_FDCWD</>".to_owned(), quoted("a"), "O_WRONLY|O_CREAT|O_EXCL".to_owned(), "0600".to_owned()];
    assert_eq!(call("openat", &create, &open("a")), both("a"));
    call("write", &[open("a")], "5");
    assert_eq!(call("fsync", &[open("a")], "0"), (String::new(), "a".into()), "its bytes are durable, its name is not");
    assert_eq!(call("rename", &[quoted("a"), quoted("old")], "0"), (String::new(), "old".into()));
    assert_eq!(call("fsync", &[format!("4<{}>", root.display())], "0"), nothing());
    assert_eq!(call("write", &[open("old")], "-1 ENOSPC (No space left)"), nothing());
    assert_eq!(call("write", &[open("old")], "1"), both("old"));
    assert_eq!(call("mkdir", &[quoted("d"), "0700".into()], "0"), ("old".into(), "d old".into()));
    assert_eq!(call("syncfs", &[open("d")], "0"), nothing());
}
