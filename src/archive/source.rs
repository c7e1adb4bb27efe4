//! The WAL file to be archived: opened, and held against its name and its cluster before a byte of it is sent.

use super::subject::subject_of;
use crate::codec::Subject;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::page::SegmentHeader;
use crate::pg::{SegmentName, WalFileName};
use crate::repo::ClusterIdentity;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A history or backup history file is a few kilobytes; what is longer than this is none.
pub(super) const LONGEST_TEXT: u64 = 1 << 20;
/// How much of a segment is looked at before it is sent: its long page header is inside.
const HEAD: usize = 8192;

/// A WAL file that may be archived.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: WalFileName,
    /// What its object will say.
    pub subject: Subject,
    /// Its length in bytes.
    pub length: u64,
    /// What is odd about it, though no reason to refuse it.
    pub odd: Option<String>,
    head: Vec<u8>,
    file: File,
}

impl Source {
    /// Opens the file at `path` and holds it against its name and against its cluster. An empty, short or overlong file, one of
    /// another cluster, and one under another's name are refused: once archived they would stand in the way of the right one.
    pub fn open(path: &Path, identity: &ClusterIdentity) -> Result<Self> {
        let name = name_of(path)?;
        let size = identity.wal_segment_size;
        let subject = subject_of(&name, identity.system_identifier, size).ok_or_else(|| {
            let text = format!("{name} is no name of a WAL file with segments of {} MiB", size.bytes() >> 20);
            Error::new(ErrorKind::Mismatch, text)
        })?;
        // Before it is opened: a pipe would hang there.
        let metadata = std::fs::metadata(path).map_err(|cause| Error::local("look at", path, cause))?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::Mismatch, format!("{} is not a regular file", path.display())));
        }
        let mut file = File::open(path).map_err(|cause| Error::local("open", path, cause))?;
        let length = file.metadata().map_err(|cause| Error::local("look at", path, cause))?.len();
        let read = |file: &mut File, limit: u64| {
            let mut bytes = Vec::new();
            let read = file.take(limit).read_to_end(&mut bytes);
            read.map(|_| bytes).map_err(|cause| Error::local("read", path, cause))
        };
        match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                check_length(path, length, size.bytes())?;
                let head = read(&mut file, HEAD as u64)?;
                check_header(path, segment, identity, &head)?;
                Ok(Self { name, subject, length, odd: None, head, file })
            }
            WalFileName::History(_) | WalFileName::BackupHistory { .. } => {
                let head = read(&mut file, LONGEST_TEXT + 1)?;
                let odd = check_text(path, &name, &head)?;
                let length = head.len() as u64;
                Ok(Self { name, subject, length, odd, head, file })
            }
        }
    }

    /// Whether its last page is zero: a segment that `pg_switch_wal` cut short, which takes no time to compress.
    pub fn ends_in_zeros(&self) -> bool {
        let mut page = [0; HEAD];
        let at = self.length.checked_sub(HEAD as u64);
        at.is_some_and(|at| self.file.read_exact_at(&mut page, at).is_ok()) && page.iter().all(|byte| *byte == 0)
    }

    /// Its bytes from the first on, each read from the disk once.
    pub fn into_reader(self) -> impl Read + Send {
        std::io::Cursor::new(self.head).chain(self.file)
    }
}

/// The name at the end of `%p`.
pub fn name_of(path: &Path) -> Result<WalFileName> {
    let text = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    text.parse().map_err(|cause: crate::pg::ParseError| {
        Error::new(ErrorKind::Mismatch, format!("{} is not archived", path.display()))
            .because(cause)
            .hint("only files that Postgres itself offers to archive_command are")
    })
}

fn check_length(path: &Path, length: u64, expected: u64) -> Result<()> {
    if length == expected {
        return Ok(());
    }
    let kind = if length < expected { ErrorKind::Corrupt } else { ErrorKind::Mismatch };
    let text = format!("{} has {length} bytes, and a segment of this cluster has {expected}", path.display());
    Err(Error::new(kind, text).hint("the file is damaged, or not this server's: nothing was archived"))
}

fn check_header(path: &Path, segment: SegmentName, identity: &ClusterIdentity, head: &[u8]) -> Result<()> {
    let path = path.display();
    let header = SegmentHeader::parse(head).map_err(|cause| {
        Error::new(ErrorKind::Corrupt, format!("{path} does not begin as a WAL segment does"))
            .because(cause)
            .hint("the file is damaged: nothing was archived")
    })?;
    let mismatch = |text: String| Error::new(ErrorKind::Mismatch, text).hint("nothing was archived");
    if header.system_identifier != identity.system_identifier {
        let (theirs, ours) = (header.system_identifier, identity.system_identifier);
        return Err(mismatch(format!(
            "{path} belongs to another cluster: its system identifier is {theirs}, this server's {ours}"
        )));
    }
    if header.segment_size != identity.wal_segment_size {
        let (theirs, ours) = (header.segment_size.bytes(), identity.wal_segment_size.bytes());
        return Err(mismatch(format!("{path} says that segments have {theirs} bytes, and this server's have {ours}")));
    }
    header
        .check_name(segment)
        .map_err(|cause| mismatch(format!("{path} is not the segment that its name says")).because(cause))
}

/// A history file that Postgres could not read is stored all the same, since the archiver must never stop for ever at a file
/// that nobody will repair; but not one that is no text at all.
fn check_text(path: &Path, name: &WalFileName, bytes: &[u8]) -> Result<Option<String>> {
    let path = path.display();
    let refused = |what: &str| {
        let error = Error::new(ErrorKind::Corrupt, format!("{path} {what}"));
        Err(error.hint("the file is damaged: nothing was archived"))
    };
    if bytes.is_empty() {
        return refused("is empty");
    }
    if bytes.len() as u64 > LONGEST_TEXT {
        return refused("is too long for its name");
    }
    if std::str::from_utf8(bytes).map_or(true, |text| text.contains('\0')) {
        return refused("is not text");
    }
    if let WalFileName::History(timeline) = name
        && let Err(cause) = TimelineHistory::parse(*timeline, bytes)
    {
        return Ok(Some(format!("{path} is stored, but Postgres will not be able to read it: {cause}")));
    }
    Ok(None)
}
