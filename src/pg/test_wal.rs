//! For tests: WAL as Postgres would write it, and segments that it did write.

use super::record::{RM_XACT, RM_XLOG};
use super::{Lsn, SegmentName, SegmentSize, SystemIdentifier};

/// The smallest segments there are, so that tests are quick.
pub(crate) fn one_mib() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// Segments of 1 MiB that servers of 13 to 18 wrote, ended by `pg_switch_wal`: name, cluster, bytes.
pub(crate) fn real_segments() -> Vec<(u16, SegmentName, SystemIdentifier, Vec<u8>)> {
    const FILES: [(u16, &str, u64, &[u8]); 6] = [
        (
            13,
            "00000001000000000000000F",
            7_711_660_593_361_116_421,
            include_bytes!("../../tests/fixtures/pg/segment_13.zst"),
        ),
        (
            14,
            "000000010000000000000010",
            7_711_660_606_375_550_289,
            include_bytes!("../../tests/fixtures/pg/segment_14.zst"),
        ),
        (
            15,
            "00000001000000000000000F",
            7_711_660_580_010_605_755,
            include_bytes!("../../tests/fixtures/pg/segment_15.zst"),
        ),
        (
            16,
            "00000001000000000000000E",
            7_711_660_619_159_002_524,
            include_bytes!("../../tests/fixtures/pg/segment_16.zst"),
        ),
        (
            17,
            "00000001000000000000000E",
            7_711_660_631_737_548_328,
            include_bytes!("../../tests/fixtures/pg/segment_17.zst"),
        ),
        (
            18,
            "000000010000000000000010",
            7_711_660_644_488_916_594,
            include_bytes!("../../tests/fixtures/pg/segment_18.zst"),
        ),
    ];
    let read = |(major, name, system, bytes): &(u16, &str, u64, &[u8])| {
        let segment = zstd::decode_all(*bytes).unwrap();
        (*major, name.parse().unwrap(), SystemIdentifier(*system), segment)
    };
    FILES.iter().map(read).collect()
}

/// Writes WAL records into pages.
pub(crate) struct WalWriter {
    pub(crate) size: SegmentSize,
    pub(crate) start: Lsn,
    pub(crate) timeline: u32,
    pub(crate) bytes: Vec<u8>,
    prev: u64,
    /// Flags for the next page header.
    pub(crate) next_flags: u16,
}

impl WalWriter {
    pub(crate) const SYSTEM: SystemIdentifier = SystemIdentifier(7_711_660_580_010_605_755);
    const PAGE: usize = 8192;

    pub(crate) fn new(start: Lsn, size: SegmentSize) -> Self {
        Self { size, start, timeline: 1, bytes: Vec::new(), prev: start.0.saturating_sub(64), next_flags: 0 }
    }

    pub(crate) fn position(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    /// Bytes left in the page; a whole one at its beginning.
    fn page_left(&self) -> usize {
        Self::PAGE - self.bytes.len() % Self::PAGE
    }

    fn begin_page(&mut self, remaining: usize) {
        if !self.bytes.len().is_multiple_of(Self::PAGE) {
            return;
        }
        let at = self.position().0;
        let first = at.is_multiple_of(self.size.bytes());
        let info = u16::from(remaining > 0) | if first { 2 } else { 0 } | std::mem::take(&mut self.next_flags);
        self.bytes.extend(0xD110_u16.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend(u32::try_from(remaining).unwrap().to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(Self::SYSTEM.0.to_le_bytes());
            self.bytes.extend(u32::try_from(self.size.bytes()).unwrap().to_le_bytes());
            self.bytes.extend(8192_u32.to_le_bytes());
        }
    }

    /// Writes a record; returns where it begins.
    pub(crate) fn record(&mut self, resource_manager: u8, info: u8, xid: u32, body: &[u8]) -> Lsn {
        self.begin_page(0);
        let begin = self.position();
        let mut record = u32::try_from(24 + body.len()).unwrap().to_le_bytes().to_vec();
        record.extend(xid.to_le_bytes());
        record.extend(self.prev.to_le_bytes());
        record.extend([info, resource_manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        let mut rest = &record[..];
        while !rest.is_empty() {
            self.begin_page(rest.len());
            let (now, later) = rest.split_at(rest.len().min(self.page_left()));
            self.bytes.extend(now);
            rest = later;
        }
        let aligned = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(aligned, 0);
        self.prev = begin.0;
        begin
    }

    /// A body with main data alone.
    pub(crate) fn main_data(data: &[u8]) -> Vec<u8> {
        match u8::try_from(data.len()) {
            Ok(short) => [&[255, short], data].concat(),
            Err(_) => [&[254][..], &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat(),
        }
    }

    pub(crate) fn commit(&mut self, xid: u32, time: i64) -> Lsn {
        self.record(RM_XACT, 0, xid, &Self::main_data(&time.to_le_bytes()))
    }

    /// Ends the use of the segment as `pg_switch_wal` does.
    pub(crate) fn switch(&mut self) -> Lsn {
        let begin = self.record(RM_XLOG, 0x40, 0, &[]);
        self.blank();
        begin
    }

    /// Zeros to the end of the segment.
    pub(crate) fn blank(&mut self) {
        let size = usize::try_from(self.size.bytes()).unwrap();
        let end = self.bytes.len().next_multiple_of(size);
        self.bytes.resize(end, 0);
    }

    /// Fills the segment to its last byte with records.
    pub(crate) fn fill(&mut self) {
        let size = usize::try_from(self.size.bytes()).unwrap();
        let end = (self.bytes.len() + 1).next_multiple_of(size);
        while self.bytes.len() < end {
            self.begin_page(0);
            let left = self.page_left();
            // A record of the rest of the page, or one that leaves room for another to begin there.
            let body = if left >= 24 { left.clamp(24, 2048) - 24 } else { 40 - left };
            self.record(10, 0, 1, &vec![b'x'; body]);
        }
    }
}
