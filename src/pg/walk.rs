//! A walk over WAL, record by record, across pages and segments (`access/transam/xlogreader.c`).
//!
//! It goes as far as Postgres' own replay would: a page that does not fit, a length that makes no sense, a broken chain or a
//! wrong checksum ends it.

use super::page::{LONG_HEADER_LEN, SHORT_HEADER_LEN};
use super::record::{RECORD_HEADER_LEN, Record, RecordHeader};
use super::{Lsn, PageHeader, ParseError, SegmentHeader, SegmentSize, TimelineId};

/// More than any Postgres writes: it cannot allocate a record of a GiB.
const MAX_RECORD_LEN: u32 = 1 << 30;

/// Reads records from the bytes of consecutive segments.
///
/// Give it the bytes in order, in pieces of any size, from the beginning of a segment. What that segment's first page continues
/// is skipped. At a switch of timelines, go on with the new timeline's segment: it begins with what the old one held.
#[derive(Debug)]
pub struct RecordReader {
    size: SegmentSize,
    keep: fn(&RecordHeader) -> bool,
    /// Of the next byte to come.
    position: Lsn,
    /// Of the first segment; its version, cluster and page size hold for all.
    segment: Option<SegmentHeader>,
    timeline: Option<TimelineId>,
    /// Bytes of the current page still to come; 0: a page header comes next.
    page_left: u32,
    page_head: [u8; LONG_HEADER_LEN],
    page_head_len: usize,
    state: State,
    /// Begin and end of the last whole record.
    last: Option<(Lsn, Lsn)>,
    /// Where the next record's `prev` must point, where that is known.
    previous: Option<Lsn>,
    /// The first bytes looked like the rest of a switch record: if nothing follows them, it was one.
    perhaps_switched: bool,
    failed: Option<ParseError>,
}

/// What the next byte within a page belongs to.
#[derive(Debug)]
enum State {
    /// To the first page, which may continue a record from before.
    Start,
    /// To such a record.
    Continued { left: u32, tail: Tail },
    /// To a record that may begin at the next multiple of 8.
    Between,
    /// To a record that was begun.
    Record(Box<Partial>),
    /// To nothing: a switch record ended the use of this segment.
    Unused,
}

/// The rest of a continued record, if it is so short that it may be that of a switch record.
#[derive(Debug, Default)]
struct Tail {
    bytes: [u8; 16],
    len: usize,
    too_long: bool,
}

#[derive(Debug)]
struct Partial {
    lsn: Lsn,
    head: [u8; RECORD_HEADER_LEN],
    /// Bytes read so far, header included.
    got: u32,
    /// Known after the first four bytes.
    total: u32,
    header: Option<RecordHeader>,
    keep: bool,
    crc: u32,
    body: Vec<u8>,
}

impl RecordReader {
    /// A reader of WAL from `start` on, which must be the beginning of a segment. It keeps the bodies of the records that
    /// `keep` asks for.
    pub fn new(start: Lsn, size: SegmentSize, keep: fn(&RecordHeader) -> bool) -> Result<Self, ParseError> {
        if !start.0.is_multiple_of(size.bytes()) {
            return Err(ParseError::new("WAL", format!("{start} begins no segment of {} bytes", size.bytes())));
        }
        Ok(Self {
            size,
            keep,
            position: start,
            segment: None,
            timeline: None,
            page_left: 0,
            page_head: [0; LONG_HEADER_LEN],
            page_head_len: 0,
            state: State::Start,
            last: None,
            previous: None,
            perhaps_switched: false,
            failed: None,
        })
    }

    /// Reads on until a record is whole, and takes what it read from `input`. `None`: it needs more bytes. An error is where the
    /// valid WAL ends; the reader then says the same for ever.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Record>, ParseError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while !input.is_empty() {
            match self.step(input) {
                Ok(None) => {}
                Ok(Some(record)) => return Ok(Some(record)),
                Err(why) => {
                    let error = ParseError::new("WAL", why);
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// The position of the next byte that it wants.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The header of the first segment, once it was read.
    pub fn segment(&self) -> Option<&SegmentHeader> {
        self.segment.as_ref()
    }

    /// The timeline of the last page that was begun. It never decreases.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    /// Begin and end of the last whole record.
    pub fn last_record(&self) -> Option<(Lsn, Lsn)> {
        self.last
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Record>, String> {
        if self.page_left == 0 {
            return self.read_page_head(input).map(|()| None);
        }
        let in_page = input.len().min(self.page_left as usize);
        match &mut self.state {
            State::Start | State::Unused => self.advance(input, in_page).map(|_| None),
            State::Continued { left, tail } => {
                let taken = in_page.min(*left as usize);
                tail.push(input.get(..taken).unwrap_or_default());
                *left -= u32::try_from(taken).unwrap_or(*left);
                if *left == 0 {
                    self.perhaps_switched = tail.is_switch();
                    self.state = State::Between;
                }
                self.advance(input, taken).map(|_| None)
            }
            State::Between => {
                let padding = self.position.0.wrapping_neg() % 8;
                if padding > 0 {
                    return self.advance(input, in_page.min(padding as usize)).map(|_| None);
                }
                self.state = State::Record(Box::new(Partial::new(self.position)));
                Ok(None)
            }
            State::Record(partial) => {
                let wanted = partial.wanted().min(in_page);
                partial.push(input.get(..wanted).unwrap_or_default(), self.previous, self.keep)?;
                if partial.total == 0 {
                    let at = partial.lsn;
                    self.end_of_records(at)?;
                }
                self.advance(input, wanted)?;
                self.finish_record()
            }
        }
    }

    /// Takes `count` bytes of the page from the input.
    fn advance(&mut self, input: &mut &[u8], count: usize) -> Result<(), String> {
        let counted = u32::try_from(count).ok().and_then(|count| self.page_left.checked_sub(count));
        self.page_left = counted.ok_or("a page of impossible length")?;
        self.pass(input, count)
    }

    fn pass(&mut self, input: &mut &[u8], count: usize) -> Result<(), String> {
        *input = input.get(count..).unwrap_or_default();
        let position = self.position.0.checked_add(count as u64);
        self.position = Lsn(position.ok_or("the end of all WAL")?);
        Ok(())
    }

    /// No record begins where one could.
    fn end_of_records(&mut self, at: Lsn) -> Result<(), String> {
        if !self.perhaps_switched {
            return Err(format!("it ends at {at}: no record begins there"));
        }
        self.state = State::Unused;
        Ok(())
    }

    fn finish_record(&mut self) -> Result<Option<Record>, String> {
        let State::Record(partial) = &mut self.state else { return Ok(None) };
        let Some(header) = partial.header.filter(|_| partial.got == partial.total) else { return Ok(None) };
        partial.check_crc(&header)?;
        let (Some(segment), Some(timeline)) = (&self.segment, self.timeline) else { return Ok(None) };
        let aligned = self.position.0.checked_next_multiple_of(if header.is_switch() { self.size.bytes() } else { 8 });
        let record = Record {
            lsn: partial.lsn,
            end: Lsn(aligned.ok_or("the end of all WAL")?),
            timeline,
            magic: segment.page.magic,
            header,
            body: std::mem::take(&mut partial.body),
        };
        self.state = if header.is_switch() { State::Unused } else { State::Between };
        self.perhaps_switched = false;
        self.previous = Some(record.lsn);
        self.last = Some((record.lsn, record.end));
        Ok(Some(record))
    }

    fn read_page_head(&mut self, input: &mut &[u8]) -> Result<(), String> {
        let page = self.position.0 - self.page_head_len as u64;
        let first = page.is_multiple_of(self.size.bytes());
        let needed = if first { LONG_HEADER_LEN } else { SHORT_HEADER_LEN };
        let taken = input.len().min(needed - self.page_head_len);
        let into = self.page_head.get_mut(self.page_head_len..self.page_head_len + taken);
        if let (Some(into), Some(from)) = (into, input.get(..taken)) {
            into.copy_from_slice(from);
        }
        self.page_head_len += taken;
        self.pass(input, taken)?;
        if self.page_head_len < needed {
            return Ok(());
        }
        self.page_head_len = 0;
        if first && matches!(self.state, State::Unused) {
            self.state = State::Between;
        }
        let head = self.page_head;
        let head = head.get(..needed).unwrap_or_default();
        self.begin_page(Lsn(page), first, head)?;
        let length = self.segment.as_ref().map_or(0, |segment| segment.block_size);
        self.page_left = length.saturating_sub(needed as u32);
        Ok(())
    }

    fn begin_page(&mut self, at: Lsn, first: bool, head: &[u8]) -> Result<(), String> {
        if head.iter().all(|byte| *byte == 0) {
            return match self.state {
                State::Unused => Ok(()),
                _ => Err(format!("the page at {at} is empty, though no switch ended the WAL before it")),
            };
        }
        let bad = |error: ParseError| format!("at {at}: {error}");
        let page = if first {
            let segment = SegmentHeader::parse(head).map_err(bad)?;
            self.check_segment(&segment).map_err(|why| format!("the segment at {at} {why}"))?;
            segment.page
        } else {
            PageHeader::parse(head).map_err(bad)?
        };
        self.check_page(at, first, &page).map_err(|why| format!("the page at {at} {why}"))?;
        self.timeline = Some(page.timeline);
        self.join(&page).map_err(|why| format!("the page at {at} {why}"))
    }

    fn check_segment(&mut self, segment: &SegmentHeader) -> Result<(), String> {
        if segment.segment_size != self.size {
            return Err(format!("says it has {} bytes, not {}", segment.segment_size.bytes(), self.size.bytes()));
        }
        let known = *self.segment.get_or_insert(*segment);
        if known.system_identifier != segment.system_identifier {
            return Err(format!("belongs to cluster {}, not {}", segment.system_identifier, known.system_identifier));
        }
        if known.block_size != segment.block_size {
            return Err(format!("says its pages have {} bytes, not {}", segment.block_size, known.block_size));
        }
        Ok(())
    }

    fn check_page(&self, at: Lsn, first: bool, page: &PageHeader) -> Result<(), String> {
        if page.address != at {
            return Err(format!("says it is the one at {}", page.address));
        }
        if page.is_long() != first {
            return Err("has a long header where a short one belongs".into());
        }
        if self.segment.is_some_and(|segment| segment.page.magic != page.magic) {
            return Err("was written by another version of Postgres than the one before".into());
        }
        if self.timeline.is_some_and(|timeline| page.timeline < timeline) {
            return Err(format!("says timeline {}, which is before that of the page before", page.timeline));
        }
        Ok(())
    }

    /// Holds what the page says it continues against what is being read.
    fn join(&mut self, page: &PageHeader) -> Result<(), String> {
        let left = match &self.state {
            State::Unused => return Ok(()),
            State::Start => {
                self.state = match page.remaining {
                    left if page.continues_record() => State::Continued { left, tail: Tail::default() },
                    _ => State::Between,
                };
                return Ok(());
            }
            State::Between => 0,
            State::Continued { left, .. } => *left,
            State::Record(partial) => partial.total.saturating_sub(partial.got),
        };
        let says = if page.continues_record() { page.remaining } else { 0 };
        if says == left {
            return Ok(());
        }
        if page.overwrites_record() && says == 0 {
            // After a crash the rest of the record was never written. The next record's `prev` names the one before it.
            self.state = State::Between;
            self.previous = None;
            return Ok(());
        }
        Err(format!("says that {says} bytes of an earlier record follow, where {left} are missing"))
    }
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(into) => {
                into.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.too_long = true,
        }
    }

    /// A switch record that began at the very end of the segment before uses up this whole one. Of its 24 bytes, the last 8 or
    /// 16 are here: flags, resource manager, two zeros and the checksum at their end.
    fn is_switch(&self) -> bool {
        let end = match (self.too_long, self.len) {
            (false, 8) => self.bytes.get(..8),
            (false, 16) => self.bytes.get(8..),
            _ => None,
        };
        matches!(end, Some([info, 0, 0, 0, ..]) if info & 0xF0 == 0x40)
    }
}

impl Partial {
    fn new(lsn: Lsn) -> Self {
        Self {
            lsn,
            head: [0; RECORD_HEADER_LEN],
            got: 0,
            total: RECORD_HEADER_LEN as u32,
            header: None,
            keep: false,
            crc: 0,
            body: Vec::new(),
        }
    }

    /// How many bytes it takes at once: to the end of its length, of its header, or of itself.
    fn wanted(&self) -> usize {
        let until = match self.got {
            0..4 => 4,
            4..24 => RECORD_HEADER_LEN as u32,
            _ => self.total,
        };
        until.saturating_sub(self.got) as usize
    }

    fn push(&mut self, bytes: &[u8], prev: Option<Lsn>, keep: fn(&RecordHeader) -> bool) -> Result<(), String> {
        let at = self.got as usize;
        self.got = self.got.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if at < RECORD_HEADER_LEN {
            if let Some(into) = self.head.get_mut(at..at + bytes.len()) {
                into.copy_from_slice(bytes);
            }
            return self.read_head(prev, keep);
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if self.keep {
            let room = Record::MAX_BODY.saturating_sub(self.body.len()).min(bytes.len());
            self.body.extend_from_slice(bytes.get(..room).unwrap_or_default());
        }
        Ok(())
    }

    /// Looks at what is there of the header: the length as soon as it is, all of it once it is.
    fn read_head(&mut self, prev: Option<Lsn>, keep: fn(&RecordHeader) -> bool) -> Result<(), String> {
        let at = self.lsn;
        if self.got == 4 {
            self.total = super::bytes::u32_at(&self.head, 0).unwrap_or(0);
            if self.total != 0 && !(RECORD_HEADER_LEN as u32..=MAX_RECORD_LEN).contains(&self.total) {
                return Err(format!("the record at {at} says it has {} bytes", self.total));
            }
        }
        if self.got as usize == RECORD_HEADER_LEN {
            let header = RecordHeader::parse(&self.head).ok_or("a record header of impossible length")?;
            if prev.map_or(header.prev >= at, |prev| header.prev != prev) {
                return Err(format!("the record at {at} says the one before it is at {}", header.prev));
            }
            if header.is_switch() && self.total as usize != RECORD_HEADER_LEN {
                return Err(format!("the switch record at {at} says it has {} bytes", self.total));
            }
            self.keep = keep(&header);
            self.header = Some(header);
        }
        Ok(())
    }

    fn check_crc(&self, header: &RecordHeader) -> Result<(), String> {
        let covered = self.head.get(..20).unwrap_or_default();
        if crc32c::crc32c_append(self.crc, covered) != header.crc {
            return Err(format!("the checksum of the record at {} does not fit", self.lsn));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_wal::{WalWriter, one_mib, real_segments};
    use super::*;
    use proptest::prelude::*;

    const START: Lsn = Lsn(5 << 20);

    /// All records, and why it ended, with the bytes given in pieces of `chunk`.
    fn walk(bytes: &[u8], start: Lsn, chunk: usize) -> (Vec<Record>, Result<(), ParseError>) {
        let mut reader = RecordReader::new(start, one_mib(), |_| true).unwrap();
        let mut records = Vec::new();
        for mut piece in bytes.chunks(chunk) {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(record)) => records.push(record),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(reader.next(&mut piece), Err(error.clone()), "it stays failed");
                        return (records, Err(error));
                    }
                }
            }
        }
        (records, Ok(()))
    }

    fn why(result: Result<(), ParseError>) -> String {
        result.unwrap_err().why
    }

    #[test]
    fn segments_that_servers_wrote() {
        for (major, name, system, bytes) in real_segments() {
            let start = name.start(one_mib()).unwrap();
            let (records, end) = walk(&bytes, start, 1 << 20);
            assert_eq!(end, Ok(()), "{major}");
            assert!(records.len() > 20 && records.last().unwrap().header.is_switch(), "{major}");
            assert_eq!(records.last().unwrap().end, Lsn(start.0 + (1 << 20)));
            for pair in records.windows(2) {
                assert_eq!(pair[1].header.prev, pair[0].lsn);
            }
            for record in &records {
                record.main_data().unwrap();
            }
            assert_eq!(walk(&bytes, start, 777).0, records, "{major}: in small pieces");
            let mut reader = RecordReader::new(start, one_mib(), |_| false).unwrap();
            assert!(reader.next(&mut &bytes[..]).unwrap().unwrap().body.is_empty());
            assert_eq!(reader.segment().unwrap().system_identifier, system);
            assert_eq!(reader.segment().unwrap().page.magic.major().unwrap().0, major);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn whatever_is_written_is_read(
            bodies in prop::collection::vec(prop_oneof![0_usize..200, 0_usize..20_000], 1..60),
            chunk in prop_oneof![1_usize..50, 50_usize..100_000],
        ) {
            let mut writer = WalWriter::new(START, one_mib());
            let mut written = Vec::new();
            for (number, body) in (1..).zip(&bodies) {
                let body = vec![b'a'; *body];
                written.push((writer.record(10, 0x20, number, &body), number, body));
            }
            let (records, end) = walk(&writer.bytes, START, chunk);
            prop_assert_eq!(end, Ok(()));
            let read: Vec<_> = records.iter().map(|r| (r.lsn, r.header.xid, r.body.clone())).collect();
            prop_assert_eq!(read, written);
            prop_assert_eq!(records.last().unwrap().end, writer.position());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0_usize..20_000) {
            let mut writer = WalWriter::new(START, one_mib());
            for xid in 1..200 {
                writer.record(10, 0, xid, &[0; 100]);
            }
            writer.bytes.splice(at..(at + bytes.len()).min(writer.bytes.len()), bytes.iter().copied());
            let _records = walk(&writer.bytes, START, 1000);
            let _noise = walk(&bytes, START, 7);
        }
    }

    #[test]
    fn a_record_over_several_segments() {
        let mut writer = WalWriter::new(START, one_mib());
        let small = writer.record(10, 0, 1, b"small");
        let large = writer.record(10, 0, 2, &vec![7; 2_500_000]);
        let after = writer.record(10, 0, 3, b"after");
        let (records, end) = walk(&writer.bytes, START, 4096);
        assert_eq!(end, Ok(()));
        assert_eq!(records.iter().map(|r| r.lsn).collect::<Vec<_>>(), [small, large, after]);
        assert_eq!(records[1].body.len(), 2_500_000);
        // Begun within the large record, the walk finds the first that begins after it.
        for segments in [1, 2] {
            let skipped = segments << 20;
            let (records, end) = walk(&writer.bytes[skipped..], Lsn(START.0 + skipped as u64), 4096);
            assert_eq!(end, Ok(()));
            assert_eq!(records.iter().map(|r| r.lsn).collect::<Vec<_>>(), [after]);
        }
    }

    #[test]
    fn a_switch_goes_on_in_the_next_segment() {
        let mut writer = WalWriter::new(START, one_mib());
        writer.record(10, 0, 1, b"one");
        writer.switch();
        let next = writer.record(10, 0, 2, b"two");
        assert_eq!(next, Lsn(START.0 + (1 << 20) + 40));
        let (records, end) = walk(&writer.bytes, START, 1000);
        assert_eq!((records.len(), end), (3, Ok(())));
        assert_eq!(records[1].end, Lsn(START.0 + (1 << 20)));
    }

    /// Fills a segment but for `left` bytes at its end.
    fn almost_full(left: usize) -> WalWriter {
        let mut writer = WalWriter::new(START, one_mib());
        while writer.bytes.len() < (1 << 20) - 8192 {
            writer.record(10, 0, 1, &[0; 1000]);
        }
        let body = (1 << 20) - left - writer.bytes.len() - 24;
        writer.record(10, 0, 1, &vec![0; body]);
        assert_eq!(writer.bytes.len(), (1 << 20) - left);
        writer
    }

    #[test]
    fn a_switch_record_across_the_end_of_a_segment_uses_up_the_next() {
        for left in [8, 16] {
            let mut writer = almost_full(left);
            writer.switch();
            assert_eq!(writer.bytes.len(), 2 << 20);
            writer.record(10, 0, 2, b"after");
            assert_eq!(walk(&writer.bytes, START, 999).1, Ok(()));
            // So it is when only the second half of the switch record is seen.
            let (records, end) = walk(&writer.bytes[1 << 20..], Lsn(START.0 + (1 << 20)), 7);
            assert_eq!((records.len(), end), (1, Ok(())), "{left}");
        }
        // A record that only looks like it, because others follow.
        let mut writer = almost_full(16);
        writer.record(0, 0x40, 1, &[]);
        writer.record(10, 0, 2, b"after");
        let (records, end) = walk(&writer.bytes[1 << 20..], Lsn(START.0 + (1 << 20)), 7);
        assert_eq!((records.len(), end), (1, Ok(())));
    }

    #[test]
    fn a_record_given_up_after_a_crash() {
        let mut writer = WalWriter::new(START, one_mib());
        let one = writer.record(10, 0, 1, b"one");
        writer.record(10, 0, 2, &vec![0; 20_000]);
        writer.bytes.truncate(8192);
        let page = writer.position();
        let mut again = WalWriter::new(page, one_mib());
        again.next_flags = 8;
        let two = again.record(10, 0, 3, b"two");
        writer.bytes.extend(again.bytes);
        let (records, end) = walk(&writer.bytes, START, 100);
        assert_eq!(end, Ok(()));
        assert_eq!(records.iter().map(|r| r.lsn).collect::<Vec<_>>(), [one, two]);
    }

    #[test]
    fn where_valid_wal_ends() {
        let good = || {
            let mut writer = WalWriter::new(START, one_mib());
            for xid in 1..50 {
                writer.record(10, 0, xid, &[3; 1000]);
            }
            writer.bytes
        };
        let broken = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good();
            change(&mut bytes);
            why(walk(&bytes, START, 4000).1)
        };
        assert!(broken(&|b| b[200] ^= 1).contains("checksum"));
        assert!(broken(&|b| b[8192 + 8] ^= 1).contains("says it is the one at"));
        assert!(broken(&|b| b[8192..].fill(0)).contains("is empty"));
        assert!(broken(&|b| b[8192] = 0x0D).contains("another version"));
        assert!(broken(&|b| b[8192 + 16] ^= 1).contains("of an earlier record follow"));
        assert!(broken(&|b| b[8192 + 2] = 2).contains("long header"));
        assert!(broken(&|b| b[40..44].copy_from_slice(&7_u32.to_le_bytes())).contains("7 bytes"));
        assert!(broken(&|b| b[40..44].fill(0xFF)).contains("4294967295 bytes"));
        assert!(broken(&|b| b[48..56].fill(0xFF)).contains("the one before it"));
        assert!(broken(&|b| b.resize(b.len() + 8, 0)).contains("it ends at"));
        assert!(broken(&|b| b[32..36].copy_from_slice(&(2_u32 << 20).to_le_bytes())).contains("begins no segment"));
        let mut larger = WalWriter::new(Lsn(16 << 20), SegmentSize::DEFAULT);
        larger.record(10, 0, 1, b"one");
        assert!(why(walk(&larger.bytes, Lsn(16 << 20), 100).1).contains("says it has 16777216 bytes, not 1048576"));
        assert!(RecordReader::new(Lsn(8192), one_mib(), |_| true).is_err());
    }

    #[test]
    fn the_end_is_the_same_however_the_bytes_come() {
        let mut writer = WalWriter::new(START, one_mib());
        writer.record(10, 0, 1, b"one");
        let end = writer.position();
        writer.blank();
        for chunk in [1, 2, 3, 5, 37, 4096] {
            let why = why(walk(&writer.bytes, START, chunk).1);
            assert_eq!(why, format!("it ends at {end}: no record begins there"), "in pieces of {chunk}");
        }
    }

    #[test]
    fn timelines_never_go_back() {
        let mut writer = WalWriter::new(START, one_mib());
        writer.record(10, 0, 1, &[1; 8000]);
        writer.timeline = 3;
        writer.record(10, 0, 2, &[1; 8000]);
        assert_eq!(walk(&writer.bytes, START, 100).1, Ok(()));
        writer.timeline = 2;
        writer.record(10, 0, 2, &[1; 8000]);
        assert!(why(walk(&writer.bytes, START, 100).1).contains("timeline 2"));
    }

    #[test]
    fn the_end_of_all_wal() {
        let start = Lsn(u64::MAX - (1 << 20) + 1);
        let mut writer = WalWriter::new(start, one_mib());
        writer.record(10, 0, 1, &[1; 100]);
        let mut bytes = writer.bytes;
        bytes.resize(2 << 20, 0);
        assert_eq!(walk(&bytes, start, 4096).0.len(), 1);
    }
}
