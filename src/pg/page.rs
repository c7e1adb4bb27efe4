//! Headers of WAL pages (`access/xlog_internal.h`).
//!
//! Every page of 8 kB begins with a short header; the first page of every segment with a long one, which says whose it is.

use super::bytes::{u16_at, u32_at, u64_at};
use super::{Lsn, ParseError, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId};

/// Length of a page's header, in bytes.
pub const SHORT_HEADER_LEN: usize = 24;

/// Length of the header of a segment's first page, in bytes.
pub const LONG_HEADER_LEN: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
/// What `FIRST_IS_OVERWRITE_CONTRECORD` is from 19 on; before, a hint for compressors that means nothing to readers.
const OVERWRITE_FROM_19: u16 = 0x0004;
const OVERWRITE_TO_18: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// A page's magic number: which major version of Postgres wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageMagic(pub u16);

impl PageMagic {
    const KNOWN: [(u16, u16); 6] = [(0xD106, 13), (0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

    /// The major version, if it is one that we know.
    pub fn major(self) -> Option<PgMajor> {
        Self::KNOWN.iter().find(|(magic, _)| *magic == self.0).map(|(_, major)| PgMajor(*major))
    }

    /// A version after those that we know. Its pages are read all the same: the header has been the same since 9.3.
    pub fn is_newer(self) -> bool {
        (0xD119..=0xDFFF).contains(&self.0)
    }
}

/// The header that every page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Which version wrote it.
    pub magic: PageMagic,
    /// Flags, as they stand.
    pub info: u16,
    /// The timeline that wrote it: the name's, or an ancestor where the segment was begun by one.
    pub timeline: TimelineId,
    /// The position of the page's first byte.
    pub address: Lsn,
    /// How many bytes of a record begun on an earlier page are still to come, from this page on.
    pub remaining: u32,
}

impl PageHeader {
    /// Reads the 24 bytes at the beginning of a page.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let bad = |why: String| ParseError::new("WAL page", why);
        let short = || bad(format!("{} bytes are too few for a page header", bytes.len()));
        let magic = PageMagic(u16_at(bytes, 0).ok_or_else(short)?);
        let info = u16_at(bytes, 2).ok_or_else(short)?;
        let timeline = u32_at(bytes, 4).ok_or_else(short)?;
        let address = Lsn(u64_at(bytes, 8).ok_or_else(short)?);
        let remaining = u32_at(bytes, 16).ok_or_else(short)?;
        if magic.major().is_none() && !magic.is_newer() {
            return Err(bad(format!("magic number {:04X} is not that of any Postgres from 13 on", magic.0)));
        }
        if info & !ALL_FLAGS != 0 {
            return Err(bad(format!("flags {info:04X} are not known")));
        }
        let timeline = TimelineId::new(timeline).ok_or_else(|| bad("timeline 0".into()))?;
        let header = Self { magic, info, timeline, address, remaining };
        if header.continues_record() && remaining == 0 {
            return Err(bad(format!("page {address} continues a record of which nothing is left")));
        }
        Ok(header)
    }

    /// Whether the page begins with the rest of a record that an earlier page began.
    pub fn continues_record(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }

    /// Whether a long header follows: so it is in the first page of each segment, and in no other.
    pub fn is_long(&self) -> bool {
        self.info & LONG_HEADER != 0
    }

    /// Whether the record that the page before began was given up: after a crash, new WAL went over its missing rest.
    pub fn overwrites_record(&self) -> bool {
        self.info & if self.magic.is_newer() { OVERWRITE_FROM_19 } else { OVERWRITE_TO_18 } != 0
    }
}

/// The header of a segment's first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What every page's header has.
    pub page: PageHeader,
    /// Whose it is.
    pub system_identifier: SystemIdentifier,
    /// How long the segment is.
    pub segment_size: SegmentSize,
    /// How long a WAL page is, in bytes; a power of two, usually 8192.
    pub block_size: u32,
}

impl SegmentHeader {
    /// Reads the 40 bytes at the beginning of a segment.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let bad = |why: String| ParseError::new("WAL segment", why);
        let short = || bad(format!("{} bytes are too few for a segment's header", bytes.len()));
        if bytes.len() < LONG_HEADER_LEN {
            return Err(short());
        }
        let page = PageHeader::parse(bytes).map_err(|error| bad(error.why))?;
        if !page.is_long() {
            return Err(bad(format!("its first page, {}, has no long header", page.address)));
        }
        let segment_size = SegmentSize::new(u64::from(u32_at(bytes, 32).ok_or_else(short)?))?;
        let block_size = u32_at(bytes, 36).ok_or_else(short)?;
        if !block_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&block_size) {
            return Err(bad(format!("pages of {block_size} bytes")));
        }
        if !page.address.0.is_multiple_of(segment_size.bytes()) {
            return Err(bad(format!("its first page says {}, which begins no segment", page.address)));
        }
        let system_identifier = SystemIdentifier(u64_at(bytes, 24).ok_or_else(short)?);
        Ok(Self { page, system_identifier, segment_size, block_size })
    }

    /// Whether this header can stand at the beginning of the segment of this name: the right position, and a timeline that is
    /// the name's or an earlier one (a new timeline's first segment begins with a copy of its parent's pages).
    ///
    /// The commonest other case is a recycled file that was not yet written over.
    pub fn check_name(&self, name: SegmentName) -> Result<(), ParseError> {
        let bad = |why: String| Err(ParseError::new("WAL segment", why));
        let Some(start) = name.start(self.segment_size) else {
            return bad(format!("no segment of {} bytes is named {name}", self.segment_size.bytes()));
        };
        if self.page.address != start {
            return bad(format!("its first page says {}, but {name} begins at {start}", self.page.address));
        }
        if self.page.timeline > name.timeline() {
            return bad(format!("its first page says timeline {}, which {name} cannot hold", self.page.timeline));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn long_header() -> [u8; LONG_HEADER_LEN] {
        let mut bytes = [0; LONG_HEADER_LEN];
        bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        bytes[2..4].copy_from_slice(&0x0006_u16.to_le_bytes());
        bytes[4..8].copy_from_slice(&2_u32.to_le_bytes());
        bytes[8..16].copy_from_slice(&0x1_0700_0000_u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&7_711_660_580_010_605_755_u64.to_le_bytes());
        bytes[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        bytes
    }

    fn with<const N: usize>(offset: usize, value: [u8; N]) -> [u8; LONG_HEADER_LEN] {
        let mut bytes = long_header();
        bytes[offset..offset + N].copy_from_slice(&value);
        bytes
    }

    #[test]
    fn a_segments_header() {
        let header = SegmentHeader::parse(&long_header()).unwrap();
        assert_eq!(header.page.magic.major(), Some(PgMajor(15)));
        assert_eq!(header.page.address, Lsn(0x1_0700_0000));
        assert_eq!(header.page.timeline.get(), 2);
        assert_eq!(header.system_identifier, SystemIdentifier(7_711_660_580_010_605_755));
        assert_eq!((header.segment_size, header.block_size), (SegmentSize::DEFAULT, 8192));
        assert!(header.page.is_long() && !header.page.continues_record() && !header.page.overwrites_record());

        assert_eq!(header.check_name("000000020000000100000007".parse().unwrap()), Ok(()));
        assert_eq!(header.check_name("000000030000000100000007".parse().unwrap()), Ok(()), "an ancestor's page");
        for name in ["000000010000000100000007", "000000020000000100000008", "000000020000000100000107"] {
            assert!(header.check_name(name.parse().unwrap()).is_err(), "{name}");
        }
    }

    #[test]
    fn every_magic() {
        for (magic, major) in [(0xD106, 13), (0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)] {
            let header = PageHeader::parse(&with(0, u16::to_le_bytes(magic))).unwrap();
            assert_eq!(header.magic.major(), Some(PgMajor(major)));
            assert!(!header.magic.is_newer());
        }
        for newer in [0xD119_u16, 0xD11D, 0xD121] {
            let header = PageHeader::parse(&with(0, newer.to_le_bytes())).unwrap();
            assert_eq!((header.magic.major(), header.magic.is_newer()), (None, true));
            assert!(header.overwrites_record(), "from 19 on, 0x0004 is that flag");
        }
        for junk in [0_u16, 0xD101, 0xD107, 0xD117, 0xE000, 0x10D1, 0xFFFF] {
            assert!(PageHeader::parse(&with(0, junk.to_le_bytes())).is_err(), "{junk:04X}");
        }
    }

    #[test]
    fn what_is_no_segments_header() {
        let cases = [
            ("unknown flag", with(2, 0x0012_u16.to_le_bytes())),
            ("short header", with(2, 0x0004_u16.to_le_bytes())),
            ("continues nothing", with(2, 0x0003_u16.to_le_bytes())),
            ("timeline 0", with(4, 0_u32.to_le_bytes())),
            ("mid-segment address", with(8, 0x1_0700_2000_u64.to_le_bytes())),
            ("segment size", with(32, (3_u32 << 20).to_le_bytes())),
            ("page size", with(36, 8191_u32.to_le_bytes())),
            ("page size 0", with(36, 0_u32.to_le_bytes())),
            ("zeros", [0; LONG_HEADER_LEN]),
        ];
        for (what, bytes) in cases {
            assert!(SegmentHeader::parse(&bytes).is_err(), "{what}");
        }
        for length in 0..LONG_HEADER_LEN {
            assert!(SegmentHeader::parse(&long_header()[..length]).is_err(), "{length} bytes");
        }
    }
}
