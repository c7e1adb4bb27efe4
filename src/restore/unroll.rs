//! From the records of an index to what is to be written where.
//!
//! The records come in the order of the tar streams, so one pass with little memory is enough: what is remembered are the files
//! whose last byte has not passed yet.

use crate::error::{Error, ErrorKind, Result};
use crate::repo::index::{DataObject, Member, MemberKind, Record};
use crate::repo::manifest::Manifest;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What lies under this name is written last, by [`super::finish`], under its own.
pub(super) const PG_CONTROL: &str = "global/pg_control";
/// Until then it lies here.
pub(super) const PG_CONTROL_STAGED: &str = "global/pg_control.walhalla";

/// Files of the base archive that are not restored: they tell of the server that was backed up, not of this one.
pub(super) const LEFT_OUT: [&str; 10] = [
    "walhalla.held",
    super::place::UNFINISHED,
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    "backup_label.old",
    "tablespace_map.old",
    "postmaster.pid",
    "postmaster.opts",
    "backup_manifest",
];

/// Whether a file of the base archive is not restored.
pub(super) fn is_left_out(path: &str) -> bool {
    LEFT_OUT.contains(&path)
}

/// A regular file on its way to the disk, shared by all objects that hold parts of it.
#[derive(Debug)]
pub(super) struct FileTarget {
    /// Where it goes.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes still to be written.
    remaining: AtomicU64,
}

impl FileTarget {
    fn new(path: PathBuf, member: &Member) -> Self {
        Self { path, mode: member.mode, mtime: member.mtime, remaining: AtomicU64::new(member.size) }
    }

    /// Notes that so many bytes more are written; whether these were the last.
    pub(super) fn written(&self, bytes: u64) -> bool {
        self.remaining.fetch_sub(bytes, Ordering::AcqRel) == bytes
    }
}

/// Bytes of an object that belong to a file.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Whose.
    pub file: Arc<FileTarget>,
    /// Where they begin in the object's plain bytes.
    pub from: u64,
    /// Where they go in the file.
    pub to: u64,
    /// How many.
    pub length: u64,
}

/// A data object and the pieces it holds, in order.
#[derive(Debug)]
pub(super) struct Job {
    /// The archive's name.
    pub archive: String,
    /// The object.
    pub object: DataObject,
    /// What of it goes where.
    pub pieces: Vec<Piece>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Make a directory.
    Directory(PathBuf, u32),
    /// Make an empty file.
    Empty(FileTarget),
    /// Fetch an object and write its pieces.
    Job(Job),
}

struct OpenFile {
    at: u64,
    size: u64,
    /// None: its bytes are passed over.
    target: Option<Arc<FileTarget>>,
}

/// Reads records; see the head of this file.
pub(super) struct Unroller {
    /// Archive to the directory it goes to.
    roots: BTreeMap<String, PathBuf>,
    expected: BTreeMap<String, (u32, u64)>,
    archive: Option<(String, PathBuf)>,
    number: u32,
    position: u64,
    open: VecDeque<OpenFile>,
    /// Links of `pg_tblspc` in backups without a tablespace map: oid and target.
    pub links: Vec<(String, String)>,
}

impl std::fmt::Debug for Unroller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unroller")
            .field("archive", &self.archive)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Unroller {
    /// For this backup, each archive going to its directory.
    pub(super) fn new(backup: &Manifest, roots: BTreeMap<String, PathBuf>) -> Self {
        let expected = backup
            .archives
            .iter()
            .map(|archive| (archive.name.clone(), (archive.objects, archive.tar_bytes)))
            .collect();
        Self { roots, expected, archive: None, number: 0, position: 0, open: VecDeque::new(), links: Vec::new() }
    }

    /// Takes the next record. Data objects come only after everything that is needed to write them.
    pub(super) fn next(&mut self, record: Record) -> Result<Option<Step>> {
        match record {
            Record::Archive(name) => {
                self.end_archive()?;
                let root = self
                    .roots
                    .get(&name)
                    .cloned()
                    .ok_or_else(|| disagree(&format!("archive {name} is not in the manifest")))?;
                self.archive = Some((name, root));
                Ok(None)
            }
            Record::File(member) => self.member(member),
            Record::Sum(_) => Ok(None),
            Record::Data(object) => self.data(object).map(Step::Job).map(Some),
        }
    }

    /// After the last record: everything that the manifest announced has come.
    pub(super) fn end(&mut self) -> Result<()> {
        self.end_archive()?;
        match self.expected.iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(disagree(&format!("archive {name} is not in the index"))),
        }
    }

    fn end_archive(&mut self) -> Result<()> {
        let Some((name, _)) = self.archive.take() else { return Ok(()) };
        if let Some(file) = self.open.front() {
            return Err(disagree(&format!("archive {name} ends before the file at {} does", file.at)));
        }
        let (number, position) = (std::mem::take(&mut self.number), std::mem::take(&mut self.position));
        match self.expected.remove(&name) {
            Some(expected) if expected == (number, position) => Ok(()),
            Some(_) => Err(disagree(&format!("archive {name} has {number} objects and {position} bytes"))),
            None => Err(disagree(&format!("archive {name} comes twice"))),
        }
    }

    fn member(&mut self, member: Member) -> Result<Option<Step>> {
        let (archive, root) = self.archive.as_ref().ok_or_else(|| disagree("a file comes before any archive"))?;
        must_stay_inside(&member.path)?;
        let base = archive == "base";
        match member.kind {
            MemberKind::Dir => Ok(Some(Step::Directory(root.join(&member.path), member.mode))),
            MemberKind::Link => {
                let oid = member
                    .path
                    .strip_prefix("pg_tblspc/")
                    .filter(|oid| base && oid.bytes().all(|b| b.is_ascii_digit()));
                let (Some(oid), Some(target)) = (oid, member.target) else {
                    return Err(disagree(&format!("a link where none belongs: {}", member.path)));
                };
                self.links.push((oid.to_owned(), target));
                Ok(None)
            }
            MemberKind::File => {
                let target = (!(base && is_left_out(&member.path))).then(|| {
                    let name = if base && member.path == PG_CONTROL { PG_CONTROL_STAGED } else { &member.path };
                    FileTarget::new(root.join(name), &member)
                });
                if member.size == 0 {
                    return Ok(target.map(Step::Empty));
                }
                let behind = self.open.back().map_or(self.position, |file| file.at + file.size);
                if member.at < behind {
                    return Err(disagree(&format!("{} overlaps what comes before it", member.path)));
                }
                self.open.push_back(OpenFile { at: member.at, size: member.size, target: target.map(Arc::new) });
                Ok(None)
            }
        }
    }

    fn data(&mut self, object: DataObject) -> Result<Job> {
        let (archive, _) = self.archive.as_ref().ok_or_else(|| disagree("data come before any archive"))?;
        let archive = archive.clone();
        let frames: u64 = object.frames.iter().map(|frame| u64::from(frame.plain)).sum();
        if object.number != self.number || object.at != self.position || frames != object.plain {
            return Err(disagree(&format!(
                "object {} of archive {archive} does not join the one before",
                object.number
            )));
        }
        let end = object.at.checked_add(object.plain).ok_or_else(|| disagree("an object beyond all bounds"))?;
        let mut pieces = Vec::new();
        for file in &self.open {
            let from = file.at.max(object.at);
            let to = end.min(file.at + file.size);
            if let (Some(target), true) = (&file.target, from < to) {
                pieces.push(Piece {
                    file: Arc::clone(target),
                    from: from - object.at,
                    to: from - file.at,
                    length: to - from,
                });
            }
        }
        while self.open.front().is_some_and(|file| file.at + file.size <= end) {
            self.open.pop_front();
        }
        self.number += 1;
        self.position = end;
        Ok(Job { archive, object, pieces })
    }
}

/// The manifest's hashes hold, and yet its parts do not fit: a bug of whoever wrote it, or a forgery.
fn disagree(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the backup's index does not fit its manifest: {why}"))
}

/// A path from outside must not lead out of the directory.
fn must_stay_inside(path: &str) -> Result<()> {
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    if !path.is_empty() && !path.contains('\0') && Path::new(path).components().all(plain) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, format!("the backup's index names a file outside its archive: {path:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ContentHash;
    use crate::reach::testing::backup;
    use crate::repo::index::Frame;
    use crate::repo::manifest::Archive;

    fn file(path: &str, at: u64, size: u64) -> Record {
        let kind = MemberKind::File;
        Record::File(Member { kind, path: path.into(), size, mode: 0o600, mtime: 1, target: None, at })
    }

    fn data(number: u32, at: u64, plain: u32) -> Record {
        let frames = vec![Frame { packed: 1, plain, crc32: 0 }];
        Record::Data(DataObject { number, at, plain: plain.into(), hash: ContentHash([0; 32]), size: 1, frames })
    }

    fn unroller(objects: u32, tar_bytes: u64) -> Unroller {
        let mut backup = backup("a", 1, "0/3000028", "0/3000100");
        backup.archives = vec![Archive { name: "base".into(), location: None, objects, tar_bytes }];
        let mut unroller = Unroller::new(&backup, BTreeMap::from([("base".into(), "/d".into())]));
        unroller.next(Record::Archive("base".into())).unwrap();
        unroller
    }

    #[test]
    fn a_file_over_several_objects() {
        let mut unroller = unroller(3, 3000);
        assert!(unroller.next(file("base/1/1", 512, 2000)).unwrap().is_none());
        let mut pieces = Vec::new();
        for (number, at) in [(0, 0), (1, 1000), (2, 2000)] {
            let Some(Step::Job(job)) = unroller.next(data(number, at, 1000)).unwrap() else { panic!("no job") };
            pieces.extend(job.pieces);
        }
        let places: Vec<_> = pieces.iter().map(|p| (p.from, p.to, p.length)).collect();
        assert_eq!(places, [(512, 0, 488), (0, 488, 1000), (0, 1488, 512)]);
        let last: Vec<bool> = pieces.iter().map(|piece| piece.file.written(piece.length)).collect();
        assert_eq!(last, [false, false, true]);
        unroller.end().unwrap();
    }

    #[test]
    fn what_belongs_to_the_old_server_is_left_out_and_pg_control_staged() {
        let mut unroller = unroller(1, 4096);
        assert!(unroller.next(file("standby.signal", 512, 0)).unwrap().is_none());
        unroller.next(file("walhalla.held", 1024, 10)).unwrap();
        unroller.next(file("global/pg_control", 2048, 100)).unwrap();
        let Some(Step::Empty(empty)) = unroller.next(file("base/1/2", 3072, 0)).unwrap() else { panic!("no file") };
        assert_eq!(empty.path, Path::new("/d/base/1/2"));
        let Some(Step::Job(job)) = unroller.next(data(0, 0, 4096)).unwrap() else { panic!("no job") };
        let paths: Vec<_> = job.pieces.iter().map(|piece| piece.file.path.clone()).collect();
        assert_eq!(paths, [Path::new("/d/global/pg_control.walhalla")]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "", ".", "a\0b"] {
            assert!(unroller(1, 1).next(file(path, 512, 1)).is_err(), "{path:?}");
        }
        let mut short = unroller(2, 2000);
        short.next(data(0, 0, 1000)).unwrap();
        assert!(short.end().is_err());
        assert!(unroller(1, 1000).next(data(1, 0, 1000)).is_err());
        assert!(unroller(1, 1000).next(data(0, 1, 1000)).is_err());
        let mut open = unroller(1, 1000);
        open.next(file("a", 512, 600)).unwrap();
        open.next(data(0, 0, 1000)).unwrap();
        assert!(open.end().unwrap_err().to_string().contains("ends before"));
        let mut overlapping = unroller(1, 1000);
        overlapping.next(file("a", 512, 600)).unwrap();
        assert!(overlapping.next(file("b", 600, 1)).is_err());
        assert!(unroller(0, 0).next(Record::Archive("16385".into())).is_err());
    }
}
