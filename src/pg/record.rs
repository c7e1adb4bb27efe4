//! WAL records (`access/xlogrecord.h`): the header, and where in the body the record's own data lie.

use super::bytes::{u8_at, u16_at, u32_at, u64_at};
use super::{Lsn, PageMagic, ParseError, TimelineId};

/// Length of a record's header, in bytes.
pub const RECORD_HEADER_LEN: usize = 24;

/// The resource manager of checkpoints, switches and restore points (`RM_XLOG_ID`).
pub const RM_XLOG: u8 = 0;

/// The resource manager of commits and aborts (`RM_XACT_ID`).
pub const RM_XACT: u8 = 1;

const XLOG_SWITCH: u8 = 0x40;

/// What stands at the beginning of every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Length of the whole record in bytes, header included.
    pub total_len: u32,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Where the record before it begins.
    pub prev: Lsn,
    /// The resource manager's flags in the upper four bits, the system's in the lower.
    pub info: u8,
    /// The resource manager: who can replay it.
    pub resource_manager: u8,
    /// CRC-32C of the body, then of the first 20 bytes of the header.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the 24 bytes; says nothing about their sense.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            total_len: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            prev: Lsn(u64_at(bytes, 8)?),
            info: u8_at(bytes, 16)?,
            resource_manager: u8_at(bytes, 17)?,
            crc: u32_at(bytes, 20)?,
        })
    }

    /// The part of `info` that belongs to the resource manager.
    pub fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// Whether it ends the use of its segment: what comes after it there is no WAL (`pg_switch_wal`, `archive_timeout`).
    pub fn is_switch(&self) -> bool {
        self.resource_manager == RM_XLOG && self.operation() == XLOG_SWITCH
    }
}

/// A whole record, its checksum proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it begins.
    pub lsn: Lsn,
    /// The position after it: where the next one may begin, page headers left aside. For a switch, the next segment.
    pub end: Lsn,
    /// The timeline of the page in which it ends.
    pub timeline: TimelineId,
    /// The version that wrote it.
    pub magic: PageMagic,
    /// Its header.
    pub header: RecordHeader,
    /// What follows the header; empty where it was not asked for, and cut off after [`Record::MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

impl Record {
    /// How much of a body is kept, in bytes.
    pub const MAX_BODY: usize = 16 << 20;

    /// The record's main data: what its resource manager wrote that belongs to no page. Goes as far as the body was kept.
    pub fn main_data(&self) -> Result<&[u8], ParseError> {
        let bad = |why: &str| ParseError::new("WAL record", format!("at {}: {why}", self.lsn));
        let layout = BodyLayout::read(&self.body, self.magic).ok_or_else(|| bad("its inner headers make no sense"))?;
        let whole = (self.header.total_len as usize).saturating_sub(RECORD_HEADER_LEN);
        if layout.main_start.checked_add(layout.main_len) != Some(whole) {
            return Err(bad("its parts do not add up to its length"));
        }
        let kept = layout.main_start.min(self.body.len())..whole.min(self.body.len());
        self.body.get(kept).ok_or_else(|| bad("its main data are missing"))
    }
}

/// Where the main data lie: behind all headers and all pages' data, at the end.
struct BodyLayout {
    main_start: usize,
    main_len: usize,
}

const MAX_BLOCK_ID: u8 = 32;
const ID_TOPLEVEL_XID: u8 = 252;
const ID_ORIGIN: u8 = 253;
const ID_DATA_LONG: u8 = 254;
const ID_DATA_SHORT: u8 = 255;

impl BodyLayout {
    /// Walks the headers (`DecodeXLogRecord`). That of the main data is always the last; a record without any has none.
    fn read(body: &[u8], magic: PageMagic) -> Option<Self> {
        let mut at = 0_usize;
        let mut pages = 0_usize;
        while let Some(id) = u8_at(body, at) {
            at += 1;
            match id {
                ID_DATA_SHORT => {
                    let main_len = usize::from(u8_at(body, at)?);
                    return Some(Self { main_start: at + 1 + pages, main_len });
                }
                ID_DATA_LONG => {
                    let main_len = usize::try_from(u32_at(body, at)?).ok()?;
                    return Some(Self { main_start: at + 4 + pages, main_len });
                }
                ID_ORIGIN => at += 2,
                ID_TOPLEVEL_XID => at += 4,
                0..=MAX_BLOCK_ID => pages += block_reference(body, &mut at, magic)?,
                _ => return None,
            }
            // The pages' data begin where the headers end; without main data, that is all that tells.
            if at + pages >= body.len() {
                break;
            }
        }
        Some(Self { main_start: at + pages, main_len: 0 })
    }
}

const HAS_IMAGE: u8 = 0x10;
const SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// Walks over one block reference behind its id; returns how many bytes of page data belong to it.
fn block_reference(body: &[u8], at: &mut usize, magic: PageMagic) -> Option<usize> {
    let flags = u8_at(body, *at)?;
    let mut pages = usize::from(u16_at(body, *at + 1)?);
    *at += 3;
    if flags & HAS_IMAGE != 0 {
        pages += usize::from(u16_at(body, *at)?);
        let image = u8_at(body, *at + 4)?;
        *at += 5;
        if image & IMAGE_HAS_HOLE != 0 && image & compressed(magic) != 0 {
            *at += 2;
        }
    }
    if flags & SAME_RELATION == 0 {
        *at += 12;
    }
    *at += 4;
    Some(pages)
}

/// The flags of a page image that say it is compressed: one method up to 14, three from 15 on.
fn compressed(magic: PageMagic) -> u8 {
    const MAGIC_15: u16 = 0xD110;
    if magic.0 < MAGIC_15 { 0x02 } else { 0x04 | 0x08 | 0x10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: Vec<u8>, magic: u16) -> Record {
        let header = RecordHeader {
            total_len: u32::try_from(body.len() + RECORD_HEADER_LEN).unwrap(),
            xid: 0,
            prev: Lsn(0),
            info: 0,
            resource_manager: RM_XACT,
            crc: 0,
        };
        let timeline = TimelineId::FIRST;
        Record { lsn: Lsn(8), end: Lsn(16), timeline, magic: PageMagic(magic), header, body }
    }

    #[test]
    fn main_data_behind_every_kind_of_header() {
        let origin = [253, 1, 0];
        let toplevel = [252, 9, 0, 0, 0];
        let plain_block = [&[0, 0x20, 3, 0][..], &[1; 12], &[7, 0, 0, 0]].concat();
        let same_block = [1, 0xA0, 2, 0, 7, 0, 0, 0];
        let short = [255, 4];
        let body = [&plain_block[..], &same_block, &origin, &toplevel, &short, b"abc", b"de", b"main"].concat();
        assert_eq!(record(body, 0xD110).main_data().unwrap(), b"main");

        let long = [&[254, 0, 1, 0, 0][..], &[b'm'; 256]].concat();
        assert_eq!(record(long, 0xD110).main_data().unwrap(), [b'm'; 256]);
        assert_eq!(record(vec![], 0xD110).main_data().unwrap(), b"");
    }

    #[test]
    fn page_images_by_version() {
        // A compressed image with a hole has two bytes more; the flag for "compressed" moved with 15.
        for (magic, info, hole) in [
            (0xD106, 0x01, false),
            (0xD106, 0x03, true),
            (0xD10D, 0x05, false),
            (0xD10D, 0x07, true),
            (0xD110, 0x03, false),
            (0xD110, 0x05, true),
            (0xD118, 0x09, true),
            (0xD118, 0x11, true),
            (0xD118, 0x04, false),
        ] {
            let mut body = vec![0, 0x10, 0, 0, 5, 0, 0, 0, info];
            if hole {
                body.extend([1, 0]);
            }
            body.extend([1; 16]);
            body.extend([255, 2]);
            body.extend(b"imagemm");
            assert_eq!(record(body, magic).main_data().unwrap(), b"mm", "{magic:04X} {info:02X}");
        }
    }

    #[test]
    fn nonsense_in_headers() {
        for body in [&[33][..], &[251, 0], &[255], &[254, 0, 0], &[0], &[0, 0x10, 1], &[255, 9, 1], &[255, 0, 1]] {
            assert!(record(body.to_vec(), 0xD110).main_data().is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_body_that_was_cut() {
        let mut cut = record([&[254, 0, 0, 0, 2][..], &[b'm'; 40]].concat(), 0xD110);
        cut.header.total_len = 24 + 5 + (2 << 24);
        assert_eq!(cut.main_data().unwrap(), [b'm'; 40]);
    }
}
