//! What the unit tests of this room and of its neighbours share.

use super::Source;
use crate::codec::{self, Encoding, Identities, Kind, Recipients, Subject};
use crate::pg::{Lsn, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use crate::repo::manifest::NeededWal;
use crate::repo::{Layout, Manifest, Repository};
use crate::storage::file::FileStorage;
use crate::storage::{Bounds, Key, Limits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A repository in a directory of its own, into which a test puts what it likes.
pub(crate) struct Shelf(tempfile::TempDir);

impl Shelf {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(SystemIdentifier(7))
    }

    pub(crate) fn source(&self) -> Source {
        let storage = Arc::new(FileStorage::new(self.0.path().to_owned(), Limits::new(Bounds::PATIENT)));
        let cluster = Repository::new(storage, None).cluster(self.layout().system());
        Source { cluster, identities: Identities::default(), concurrency: 2 }
    }

    /// These very bytes.
    pub(crate) fn write(&self, key: &Key, bytes: &[u8]) {
        let path = self.0.path().join(key.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// An object with this content.
    pub(crate) fn place(&self, key: &Key, kind: Kind, timeline: TimelineId, start: Lsn, plain: &[u8]) {
        let subject = Subject { kind, system_identifier: self.layout().system(), timeline: timeline.get(), start };
        let encoding = Encoding { level: 1, recipients: Recipients::default() };
        self.write(key, &codec::encode_bytes(plain, subject, &encoding).unwrap().bytes);
    }
}

pub(crate) fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub(crate) fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

pub(crate) fn names(texts: &[&str]) -> Vec<SegmentName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A whole backup on one timeline; `letter` makes its id, and the minute at which it ended (`a`: 00, `b`: 01 …).
pub(crate) fn backup(letter: &str, timeline: u32, start: &str, end: &str) -> Manifest {
    let (timeline, start_lsn, end_lsn) = (tli(timeline), lsn(start), lsn(end));
    let size = SegmentSize::DEFAULT;
    let mut wal = vec![SegmentName::at(timeline, start_lsn, size)];
    while *wal.last().unwrap() < SegmentName::at(timeline, Lsn(end_lsn.0 - 1), size) {
        wal.push(wal.last().unwrap().next(size).unwrap());
    }
    let minute = letter.as_bytes()[0] - b'a';
    Manifest {
        format: Manifest::FORMAT,
        id: format!("20261123T17{minute:02}00Z-00000{letter}").parse().unwrap(),
        system_identifier: SystemIdentifier(7),
        postgres_major: PgMajor(15),
        server_version_num: 150_018,
        wal_segment_size: size,
        parent: None,
        label: "test".into(),
        from_standby: false,
        started_at: format!("2026-11-23T17:{minute:02}:00Z"),
        finished_at: format!("2026-11-23T17:{minute:02}:30Z"),
        start_lsn,
        start_timeline: timeline,
        end_lsn,
        end_timeline: timeline,
        wal: wal.into_iter().map(|name| NeededWal { name, own: false }).collect(),
        archives: Vec::new(),
        index: Vec::new(),
        pg_manifest: Vec::new(),
        encrypted: false,
        damaged: Vec::new(),
        outside: BTreeMap::new(),
        server_settings: BTreeMap::new(),
        files: 0,
        tar_bytes: 0,
        stored_bytes: 0,
        written_by: "walhalla test".into(),
    }
}
