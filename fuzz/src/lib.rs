//! What each fuzz target does with its bytes: no parser may panic, hang or eat memory on any of them, and what it accepts must
//! survive being written and read again.
//!
//! The targets in `fuzz_targets/` call these functions; so does the test `tests/it/fuzz_corpus.rs`, over the seeds in
//! `corpus/`. `scripts/fuzz` runs them.

// A fuzz target tells of a fault by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod repository;

pub use repository::{backup_index, backup_manifest, cluster_json, frame, spool_notes};

use sha2::Digest as _;
use std::hint::black_box;
use walhalla::pg::{
    BackupHistory, BackupLabel, ControlFile, Lsn, ManifestReader, Milestone, MilestoneReader, PageMagic, ParseError,
    PgMajor, PostmasterPid, Record, RecordHeader, RecordReader, SegmentChecker, SegmentHeader, SegmentName,
    SegmentSize, SystemIdentifier, TablespaceMap, TimelineHistory, TimelineId, WalFileName, last_commit,
};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; each has a file in `fuzz_targets/` and seeds in `corpus/<name>/`.
pub const TARGETS: &[Target] = &[
    ("names", names),
    ("page", page),
    ("records", records),
    ("record_body", record_body),
    ("control", control),
    ("backup_label", backup_label),
    ("tablespace_map", tablespace_map),
    ("history", history),
    ("pg_manifest", pg_manifest),
    ("postmaster_pid", postmaster_pid),
    ("codec_object", codec_object),
    ("config", config),
    ("connection_string", connection_string),
    ("messages", messages),
    ("tar", tar),
    ("cluster_json", cluster_json),
    ("backup_manifest", backup_manifest),
    ("backup_index", backup_index),
    ("frame", frame),
    ("spool_notes", spool_notes),
];

/// Names of WAL files, positions, timelines, identifiers.
pub fn names(data: &[u8]) {
    black_box(PgMajor::from_version_file(data).ok());
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<WalFileName>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = text.parse::<SegmentName>() {
        assert_eq!(name.to_string(), text);
        for shift in 20..=30 {
            segment_name(name, SegmentSize::new(1 << shift).unwrap());
        }
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
    if let Ok(timeline) = TimelineId::from_hex(text) {
        assert_eq!(timeline.hex(), text);
    }
    if let Ok(system) = text.parse::<SystemIdentifier>() {
        assert_eq!(system.to_string(), text);
    }
}

fn segment_name(name: SegmentName, size: SegmentSize) {
    let Some(start) = name.start(size) else {
        assert_eq!((name.next(size), name.previous(size)), (None, None));
        return;
    };
    assert_eq!(SegmentName::at(name.timeline(), start, size), name);
    if let Some(next) = name.next(size) {
        assert!(next > name);
        assert_eq!(next.previous(size), Some(name));
        assert_eq!(next.start(size), start.checked_add(size.bytes()));
    }
}

/// Headers of pages and segments.
pub fn page(data: &[u8]) {
    let Ok(header) = SegmentHeader::parse(data) else { return };
    let timeline = header.page.timeline;
    let name = SegmentName::at(timeline, header.page.address, header.segment_size);
    assert_eq!(header.check_name(name), Ok(()));
    assert_eq!(header.page.magic.major().is_none(), header.page.magic.is_newer());
}

/// Reads all records in pieces of this size: how many, and where the valid WAL ends.
fn walk(data: &[u8], header: &SegmentHeader, piece: usize) -> (u64, Option<ParseError>) {
    let mut reader = RecordReader::new(header.page.address, header.segment_size, |_| true).unwrap();
    let mut count = 0;
    for mut piece in data.chunks(piece) {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(record)) => {
                    assert!(record.lsn < record.end);
                    black_box(record.main_data().ok());
                    count += 1;
                }
                Ok(None) => break,
                Err(error) => return (count, Some(error)),
            }
        }
    }
    (count, None)
}

/// A segment's records, its check, its milestones.
pub fn records(data: &[u8]) {
    let Ok(header) = SegmentHeader::parse(data) else { return };
    let size = header.segment_size;
    assert_eq!(walk(data, &header, 1 << 20), walk(data, &header, 37), "the size of the pieces does not matter");
    black_box(last_commit(data, header.page.address, size));
    let mut reader = MilestoneReader::new(header.page.address, size).unwrap();
    let mut rest = data;
    while let Ok(Some(milestone)) = reader.next(&mut rest) {
        black_box(milestone);
    }
    let name = SegmentName::at(header.page.timeline, header.page.address, size);
    let mut checker = SegmentChecker::new(name, size, header.system_identifier).unwrap();
    black_box(checker.feed(data).is_ok());
    assert!(data.len() as u64 == size.bytes() || checker.finish().is_err());
}

/// The inside of a record whose checksum fits. First two bytes: version and kind; then four of its length; then its body.
pub fn record_body(data: &[u8]) {
    let [version, kind, a, b, c, d, body @ ..] = data else { return };
    let magics = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118, 0xD11D];
    let claimed = u32::from_le_bytes([*a, *b, *c, *d]);
    let honest = u32::try_from(body.len()).unwrap_or(u32::MAX).saturating_add(24);
    let header = RecordHeader {
        total_len: if version & 0x80 != 0 { claimed } else { honest },
        xid: 7,
        prev: Lsn(8),
        info: *kind,
        resource_manager: u8::from(kind & 0xF0 != 0x70),
        crc: 0,
    };
    let magic = PageMagic(magics[usize::from(version & 0x7F) % magics.len()]);
    let record =
        Record { lsn: Lsn(64), end: Lsn(128), timeline: TimelineId::FIRST, magic, header, body: body.to_vec() };
    if let Ok(main) = record.main_data() {
        assert!(main.len() <= body.len());
    }
    black_box(Milestone::of(&record).ok());
}

/// `pg_control`, as it is, and with its checksum put right.
pub fn control(data: &[u8]) {
    black_box(ControlFile::parse(data).ok());
    let mut data = data.to_vec();
    for at in [288, 292] {
        let crc = data.get(..at).map(crc32c);
        if let (Some(crc), Some(place)) = (crc, data.get_mut(at..at + 4)) {
            place.copy_from_slice(&crc.to_le_bytes());
            if let Ok(control) = ControlFile::parse(&data) {
                assert!(control.latest_timeline() >= control.timeline);
            }
        }
    }
}

/// CRC-32C, bit by bit: short, and not the one that is tested.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

/// `backup_label` and `.backup` files.
pub fn backup_label(data: &[u8]) {
    let label = BackupLabel::parse(data);
    let history = BackupHistory::parse(data);
    assert!(label.is_err() || history.is_err(), "no file is both");
    if let Ok(label) = label {
        assert_eq!(label.start_segment.timeline(), label.start_timeline);
    }
}

/// `tablespace_map`.
pub fn tablespace_map(data: &[u8]) {
    if let Ok(map) = TablespaceMap::parse(data) {
        assert_eq!(TablespaceMap::parse(&map.to_bytes()), Ok(map));
    }
}

/// Timeline history files. The first byte is the timeline's number.
pub fn history(data: &[u8]) {
    let Some((number, file)) = data.split_first() else { return };
    let timeline = TimelineId::new(u32::from(*number).max(1)).unwrap();
    let Ok(history) = TimelineHistory::parse(timeline, file) else { return };
    assert!(history.contains(timeline));
    for ancestor in &history.ancestors {
        assert!(ancestor.timeline < timeline);
        assert!(history.includes(ancestor.timeline, ancestor.end));
        assert!(history.contains(history.timeline_of(ancestor.end)));
    }
    assert_eq!(history.spans().len(), history.ancestors.len() + 1);
    assert_eq!(history.timeline_of(Lsn(u64::MAX)), timeline);
}

/// Reads a manifest in pieces of this size: how many files, or why not.
fn manifest(data: &[u8], piece: usize) -> Result<u64, ParseError> {
    let mut reader = ManifestReader::new();
    for mut piece in data.chunks(piece) {
        while let Some(file) = reader.next(&mut piece)? {
            assert!(!file.path.starts_with(b"/") && !file.path.starts_with(b"../"));
        }
    }
    Ok(reader.finish()?.files)
}

/// `backup_manifest`: as it is, and with its checksum put right.
pub fn pg_manifest(data: &[u8]) {
    read_manifest(data);
    const CHECKSUM: &[u8] = b"\"Manifest-Checksum\": \"";
    let body = data.windows(CHECKSUM.len()).position(|window| window == CHECKSUM).and_then(|at| data.get(..at));
    if let Some(body) = body {
        let digest: String = sha2::Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        read_manifest(&[body, CHECKSUM, digest.as_bytes(), b"\"}\n"].concat());
    }
}

fn read_manifest(data: &[u8]) {
    assert_eq!(manifest(data, 1 << 20), manifest(data, 13), "the size of the pieces does not matter");
}

/// `postmaster.pid`.
pub fn postmaster_pid(data: &[u8]) {
    if let Ok(file) = PostmasterPid::parse(data) {
        assert_ne!(file.pid, 0);
    }
}

/// Stored objects.
pub fn codec_object(data: &[u8]) {
    use walhalla::codec::{Identities, decode, header_of, unseal, verify};
    let Ok(header) = header_of(data) else {
        assert!(verify(data).is_err());
        return;
    };
    // A few bytes may claim to be very many; that costs time, and time is not what is looked for here.
    if header.plain_length > 64 << 20 {
        return;
    }
    let nobody = Identities::default();
    let mut written = Count(0);
    let decoded = decode(data, &nobody, &mut written);
    assert!(written.0 <= header.plain_length, "never more than announced");
    if decoded.is_ok() {
        assert_eq!(written.0, header.plain_length);
        assert_eq!(verify(data), Ok(header));
    }
    black_box(unseal(data, &nobody).is_ok());
}

struct Count(u64);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = walhalla::config::parse_text(text) {
        assert!(!error.to_string().contains('\n'), "an error is one line");
    }
}

/// Connection strings, of both forms.
pub fn connection_string(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match walhalla::wire::parsers::connection_string(text) {
        Ok(pairs) => assert!(pairs.iter().map(|(_, value)| value.len()).sum::<usize>() <= text.len() * 2 + 16),
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line"),
    }
}

/// The server's messages, and the WAL that streams in them.
pub fn messages(data: &[u8]) {
    use walhalla::wire::parsers::{messages, streamed};
    let whole = messages(std::iter::once(data));
    let pieces = messages(data.chunks(3));
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!(whole, pieces, "the size of the pieces does not matter");
            assert!(whole.1 <= data.len());
        }
        (whole, pieces) => assert!(whole.is_err() && pieces.is_err()),
    }
    if let Ok(wal) = streamed(&data.to_vec().into()) {
        assert!(wal < data.len());
    }
}

/// Tar streams of a base backup.
pub fn tar(data: &[u8]) {
    use walhalla::backup::scan_tar;
    let whole = scan_tar(data, 1 << 20).ok();
    assert_eq!(whole, scan_tar(data, 13).ok(), "the size of the pieces does not matter");
}
