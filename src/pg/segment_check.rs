//! Whether a whole segment file is what its name says, to its last page.

use super::{Lsn, ParseError, RecordReader, SegmentHeader, SegmentName, SegmentSize, SystemIdentifier};

/// Checks a segment that is fed in pieces: full size, the cluster, every page's position and timeline, the chain and checksums
/// of its records. Pages may be empty only after a switch record ended the use of the segment. What begins in this segment and
/// ends in the next, and the other way round, is held against the page headers alone.
///
/// This is what makes a file in `pg_wal` as good as one in the archive: recycled, half-written and half-received files fail.
#[derive(Debug)]
pub struct SegmentChecker {
    name: SegmentName,
    size: SegmentSize,
    system_identifier: SystemIdentifier,
    reader: RecordReader,
    fed: u64,
    failed: Option<ParseError>,
}

/// A segment that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedSegment {
    /// The header of its first page.
    pub header: SegmentHeader,
    /// The position after the last record that is whole within it; none if all of it belongs to records from before or beyond.
    pub last_record_end: Option<Lsn>,
}

impl SegmentChecker {
    /// A checker for the segment of this name, size and cluster.
    pub fn new(name: SegmentName, size: SegmentSize, system_identifier: SystemIdentifier) -> Result<Self, ParseError> {
        let start = name.start(size).ok_or_else(|| {
            ParseError::new("WAL segment", format!("no segment of {} bytes is named {name}", size.bytes()))
        })?;
        let reader = RecordReader::new(start, size, |_| false)?;
        Ok(Self { name, size, system_identifier, reader, fed: 0, failed: None })
    }

    /// Takes the next bytes of the file. The first defect is reported, and again by every later call.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        if self.failed.is_none() {
            self.failed = self.look(bytes).err();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The verdict, once the whole file was fed.
    pub fn finish(self) -> Result<CheckedSegment, ParseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.reader.segment() {
            Some(header) if self.fed == self.size.bytes() => {
                let last_record_end = self.reader.last_record().map(|(_, end)| end);
                Ok(CheckedSegment { header: *header, last_record_end })
            }
            _ => Err(self.bad(format!("it has {} bytes, not {}", self.fed, self.size.bytes()))),
        }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        if self.fed > self.size.bytes() {
            return Err(self.bad(format!("it has more than {} bytes", self.size.bytes())));
        }
        let mut rest = bytes;
        let mut walked = Ok(());
        while !rest.is_empty() && walked.is_ok() {
            walked = self.reader.next(&mut rest).map(|_| ());
        }
        // Whose it is comes first: that is the better message.
        self.check_identity()?;
        walked.map_err(|error| self.bad(error.why))
    }

    fn check_identity(&self) -> Result<(), ParseError> {
        let Some(header) = self.reader.segment() else { return Ok(()) };
        if header.system_identifier != self.system_identifier {
            return Err(
                self.bad(format!("it belongs to cluster {}, not {}", header.system_identifier, self.system_identifier))
            );
        }
        match self.reader.timeline() {
            Some(timeline) if timeline > self.name.timeline() => {
                Err(self.bad(format!("a page says timeline {timeline}, which it cannot hold")))
            }
            _ => Ok(()),
        }
    }

    fn bad(&self, why: impl std::fmt::Display) -> ParseError {
        ParseError::new("WAL segment", format!("{}: {why}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_wal::{WalWriter, one_mib, real_segments};
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "000000020000000000000005";
    const START: Lsn = Lsn(5 << 20);

    fn check(bytes: &[u8]) -> Result<CheckedSegment, ParseError> {
        check_in(bytes, 100_000)
    }

    fn check_in(bytes: &[u8], chunk: usize) -> Result<CheckedSegment, ParseError> {
        let mut checker = SegmentChecker::new(NAME.parse().unwrap(), one_mib(), WalWriter::SYSTEM)?;
        for piece in bytes.chunks(chunk) {
            if let Err(error) = checker.feed(piece) {
                assert_eq!(checker.feed(b"x"), Err(error.clone()));
                assert_eq!(checker.finish(), Err(error.clone()));
                return Err(error);
            }
        }
        checker.finish()
    }

    /// A segment of timeline 2 whose first pages were copied from timeline 1; used to its end.
    fn full() -> Vec<u8> {
        let mut writer = WalWriter::new(START, one_mib());
        for xid in 1..30 {
            writer.record(10, 0, xid, &[1; 1000]);
        }
        writer.timeline = 2;
        writer.fill();
        assert_eq!(writer.bytes.len(), 1 << 20);
        writer.bytes
    }

    #[test]
    fn segments_that_servers_wrote() {
        for (major, name, system, bytes) in real_segments() {
            let judge = |name: SegmentName, system| {
                let mut checker = SegmentChecker::new(name, one_mib(), system)?;
                bytes.chunks(5000).try_for_each(|piece| checker.feed(piece))?;
                checker.finish()
            };
            let checked = judge(name, system).unwrap();
            assert_eq!(checked.header.page.magic.major().unwrap().0, major);
            assert_eq!(checked.last_record_end, name.next(one_mib()).unwrap().start(one_mib()));
            assert!(judge(name, SystemIdentifier(1)).unwrap_err().why.contains("belongs to cluster"));
            assert!(judge(name.next(one_mib()).unwrap(), system).unwrap_err().why.contains("says it is the one at"));
        }
    }

    #[test]
    fn a_full_segment() {
        let checked = check(&full()).unwrap();
        assert_eq!(checked.last_record_end, Some(Lsn(6 << 20)));
        assert_eq!(check_in(&full(), 1), Ok(checked));
    }

    #[test]
    fn one_that_ends_with_a_switch() {
        let mut writer = WalWriter::new(START, one_mib());
        writer.commit(7, 1);
        writer.switch();
        assert!(check(&writer.bytes).is_ok());
        // The unused part may hold empty pages, or pages that say where they are; not another position's.
        let mut bytes = writer.bytes.clone();
        bytes[8192..8192 + 24].copy_from_slice(&full()[8192..8192 + 24]);
        assert!(check(&bytes).is_ok());
        bytes[8192 + 8] ^= 0x40;
        assert!(check(&bytes).is_err());
    }

    #[test]
    fn one_that_is_not_whole() {
        let full = full();
        for length in [0, 39, 40, 8192, (1 << 20) - 8192, (1 << 20) - 1] {
            let why = check(&full[..length]).unwrap_err().why;
            assert!(why.contains(&format!("it has {length} bytes, not 1048576")), "{why}");
        }
        assert!(check(&[&full[..], b"x"].concat()).unwrap_err().why.contains("more than"));
        // Preallocated: zeros from some point on, without a switch.
        for used in [0, 1, 5, 127] {
            let mut bytes = full.clone();
            bytes[used * 8192..].fill(0);
            assert!(check(&bytes).is_err(), "{used} pages");
        }
        // Recycled: an older segment's pages from some point on.
        let mut old = WalWriter::new(Lsn(START.0 - (1 << 20)), one_mib());
        old.fill();
        for used in [0, 1, 5, 127] {
            let bytes = [&full[..used * 8192], &old.bytes[used * 8192..]].concat();
            assert!(check(&bytes).is_err(), "{used} pages");
        }
    }

    #[test]
    fn a_later_timelines_page() {
        let mut writer = WalWriter::new(START, one_mib());
        writer.timeline = 3;
        writer.fill();
        assert!(check(&writer.bytes).unwrap_err().why.contains("timeline 3"));
    }

    #[test]
    fn names_that_no_segment_of_the_size_has() {
        let size = SegmentSize::new(1 << 30).unwrap();
        let system = SystemIdentifier(1);
        assert!(SegmentChecker::new("000000010000000000000004".parse().unwrap(), size, system).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn a_flipped_bit_is_seen(at in prop_oneof![0_usize..1 << 20, (0_usize..128, 0_usize..64).prop_map(|(page, byte)| page * 8192 + byte)], bit in 0_u8..8) {
            let mut bytes = full();
            bytes[at] ^= 1 << bit;
            // What nobody reads: a hint in the flags; the flag for a record given up, where none was begun; the length of what
            // is continued, where nothing is; padding.
            let in_page = at % 8192;
            let flags = in_page == 2 && (bit == 2 || bit == 3);
            let nothing_continued = bytes[at - in_page + 2] & 1 == 0 && (16..20).contains(&in_page);
            // In the last page a wrong length may say that the record goes on in the next segment.
            let beyond = at / 8192 == 127 && in_page >= 24;
            if !(beyond || flags || nothing_continued || (20..24).contains(&in_page)) {
                prop_assert!(check(&bytes).is_err(), "byte {in_page} of page {}, bit {bit}", at / 8192);
            }
        }
    }
}
