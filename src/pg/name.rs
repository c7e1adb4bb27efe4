//! Names of WAL files, as `archive_command` and `restore_command` meet them (`xlog_internal.h`).

use super::{Lsn, ParseError, TimelineId, hex_u32};
use std::fmt;
use std::str::FromStr;

/// `wal_segment_size`: a power of two from 1 MiB to 1 GiB, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MiB, the default of `initdb`.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// The size of this many bytes, if Postgres allows it.
    pub fn new(bytes: u64) -> Result<Self, ParseError> {
        u32::try_from(bytes)
            .ok()
            .filter(|b| b.is_power_of_two() && (1 << 20..=1 << 30).contains(b))
            .map(Self)
            .ok_or_else(|| {
                ParseError::new("wal_segment_size", format!("{bytes} bytes is not a power of two from 1 MiB to 1 GiB"))
            })
    }

    /// The size that `SHOW wal_segment_size` answers: `1MB` to `1GB`.
    pub fn from_setting(text: &str) -> Result<Self, ParseError> {
        let bytes = || {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
            let unit = match unit {
                "MB" => 1 << 20,
                "GB" => 1 << 30,
                _ => return None,
            };
            // Digits only: a sign, which `parse` would take, is no part of what Postgres says.
            number
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| number.parse::<u64>().ok())
                .flatten()?
                .checked_mul(unit)
        };
        let bytes =
            bytes().ok_or_else(|| ParseError::new("wal_segment_size", format!("{text:?} is no size in MB or GB")))?;
        Self::new(bytes)
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments there are for each value of a name's middle eight digits (`XLogSegmentsPerXLogId`).
    pub fn segments_per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = ParseError;
    fn try_from(bytes: u64) -> Result<Self, ParseError> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.bytes()
    }
}

/// The 24 digits that name a WAL segment: timeline, then the two halves of its number. Sorts as (timeline, position) does.
///
/// What position it names depends on the segment size, which the name does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// The segment of `timeline` that holds the byte at `lsn`. For an end position ask with `lsn - 1`.
    pub fn at(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        Self::numbered(timeline, lsn.0 / size.bytes(), size)
    }

    fn numbered(timeline: TimelineId, number: u64, size: SegmentSize) -> Self {
        let per_log = size.segments_per_log();
        // Both fit: a number is at most 2^64 / size, and size * per_log is 2^32.
        let half = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self { timeline, log: half(number / per_log), segment: half(number % per_log) }
    }

    /// Its timeline.
    pub fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// Its number (`XLogSegNo`); `None` if no segment of this size has this name.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        let per_log = size.segments_per_log();
        (u64::from(self.segment) < per_log).then(|| u64::from(self.log) * per_log + u64::from(self.segment))
    }

    /// The position of its first byte; `None` if no segment of this size has this name.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size).map(|number| Lsn(number * size.bytes()))
    }

    /// The segment after it on the same timeline; `None` at the end of all WAL, or if no segment of this size has this name.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let number = self.number(size)?.checked_add(1)?;
        number.checked_mul(size.bytes())?;
        Some(Self::numbered(self.timeline, number, size))
    }

    /// The segment before it on the same timeline; `None` at the beginning of all WAL, or if no segment of this size has this
    /// name.
    pub fn previous(self, size: SegmentSize) -> Option<Self> {
        Some(Self::numbered(self.timeline, self.number(size)?.checked_sub(1)?, size))
    }

    /// The same position on another timeline.
    #[must_use]
    pub fn on(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.segment)
    }
}

impl FromStr for SegmentName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("segment name", format!("{text:?} is not 24 upper-case hexadecimal digits"));
        if text.len() != 24 || !text.is_ascii() {
            return Err(bad());
        }
        let part = |range| text.get(range).and_then(|digits| hex_u32(digits, true)).ok_or_else(bad);
        let timeline = TimelineId::new(part(0..8)?).ok_or_else(bad)?;
        Ok(Self { timeline, log: part(8..16)?, segment: part(16..24)? })
    }
}

crate::pg::json_as_text!(SegmentName);

/// The name of a file that Postgres offers to `archive_command` or asks of `restore_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A whole segment: `0000000100000000000000A3`.
    Segment(SegmentName),
    /// The last, half-filled segment of a timeline that a promotion left: `0000000100000000000000A3.partial`.
    Partial(SegmentName),
    /// A timeline's history: `00000002.history`.
    History(TimelineId),
    /// What `pg_backup_stop` left about a backup: `0000000100000000000000A3.00000028.backup`. Informational.
    BackupHistory {
        /// The segment in which the backup started.
        segment: SegmentName,
        /// The start position's offset in that segment, in bytes.
        offset: u32,
    },
}

impl WalFileName {
    /// The timeline that the name begins with.
    pub fn timeline(&self) -> TimelineId {
        match self {
            Self::Segment(name) | Self::Partial(name) | Self::BackupHistory { segment: name, .. } => name.timeline(),
            Self::History(timeline) => *timeline,
        }
    }

    /// The segment it names, if it is a whole one.
    pub fn segment(&self) -> Option<SegmentName> {
        match self {
            Self::Segment(name) => Some(*name),
            _ => None,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => name.fmt(f),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.get()),
            Self::BackupHistory { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || {
            ParseError::new(
                "WAL file name",
                format!("{text:?} is no segment, .partial, .history or .backup of Postgres"),
            )
        };
        let Some((stem, rest)) = text.split_once('.') else {
            return text.parse().map(Self::Segment).map_err(|_: ParseError| bad());
        };
        match rest {
            "partial" => stem.parse().map(Self::Partial).map_err(|_: ParseError| bad()),
            "history" => TimelineId::from_hex(stem).map(Self::History).map_err(|_: ParseError| bad()),
            _ => {
                let digits = rest.strip_suffix(".backup").filter(|d| d.len() == 8).ok_or_else(bad)?;
                let segment = stem.parse().map_err(|_: ParseError| bad())?;
                let offset = hex_u32(digits, true).ok_or_else(bad)?;
                Ok(Self::BackupHistory { segment, offset })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn segment_sizes_as_the_server_shows_them() {
        let read = |text| super::SegmentSize::from_setting(text).map(super::SegmentSize::bytes).ok();
        for (text, bytes) in [("1MB", Some(1 << 20)), ("16MB", Some(16 << 20)), ("1GB", Some(1 << 30)), ("3MB", None)] {
            assert_eq!(read(text), bytes, "{text}");
        }
        for text in ["", "B", "16", "16kB", "MB", "-1MB", "+16MB", " 16MB", "µB", "2GB"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    use super::*;
    use proptest::prelude::*;

    fn sizes() -> impl Iterator<Item = SegmentSize> {
        (20..=30).map(|shift| SegmentSize::new(1 << shift).unwrap())
    }

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    #[test]
    fn sizes_that_postgres_allows() {
        assert_eq!(sizes().count(), 11);
        assert_eq!(SegmentSize::new(16 << 20), Ok(SegmentSize::DEFAULT));
        for bytes in [0, 1, (1 << 20) - 1, (1 << 20) + 1, 1 << 19, 1 << 31, 3 << 20, 1 << 32, u64::MAX] {
            assert!(SegmentSize::new(bytes).is_err(), "{bytes}");
            assert!(serde_json::from_str::<SegmentSize>(&bytes.to_string()).is_err());
        }
        for (megabytes, per_log) in [(1, 4096), (16, 256), (1024, 4)] {
            assert_eq!(SegmentSize::new(megabytes << 20).unwrap().segments_per_log(), per_log);
        }
    }

    #[test]
    fn the_last_field_by_size() {
        for size in sizes() {
            let last = size.segments_per_log() - 1;
            let at = |lsn| SegmentName::at(TimelineId::FIRST, Lsn(lsn), size);
            assert_eq!(at(0).to_string(), "000000010000000000000000");
            assert_eq!(at(size.bytes() - 1), at(0));
            assert_eq!(at(size.bytes()).to_string(), "000000010000000000000001");
            let end = at((1 << 32) - 1);
            assert_eq!(end.to_string(), format!("0000000100000000{last:08X}"), "there is no gap at FF");
            assert_eq!(end.next(size).unwrap().to_string(), "000000010000000100000000");
            assert_eq!(at(1 << 32), end.next(size).unwrap());
            assert_eq!(end.next(size).unwrap().previous(size), Some(end));
            assert_eq!(at(0).previous(size), None);
            let beyond = name(&format!("0000000100000000{:08X}", last + 1));
            assert_eq!((beyond.number(size), beyond.start(size), beyond.next(size)), (None, None, None));
            let very_last = at(u64::MAX);
            assert_eq!(very_last.to_string(), format!("00000001FFFFFFFF{last:08X}"));
            assert_eq!(very_last.next(size), None);
        }
    }

    #[test]
    fn names_sort_by_timeline_then_position() {
        let sorted = [
            "000000010000000000000002",
            "0000000100000000000000FF",
            "000000010000000100000000",
            "000000020000000000000000",
        ];
        assert!(sorted.map(name).is_sorted());
        assert_eq!(name(sorted[0]).on(TimelineId::new(7).unwrap()).to_string(), "000000070000000000000002");
    }

    #[test]
    fn the_four_kinds() {
        let a3 = name("0000000100000000000000A3");
        for (text, expected) in [
            ("0000000100000000000000A3", WalFileName::Segment(a3)),
            ("0000000100000000000000A3.partial", WalFileName::Partial(a3)),
            ("00000002.history", WalFileName::History(TimelineId::new(2).unwrap())),
            ("0000000100000000000000A3.00000028.backup", WalFileName::BackupHistory { segment: a3, offset: 0x28 }),
        ] {
            assert_eq!(text.parse(), Ok(expected));
            assert_eq!(expected.to_string(), text);
            assert_eq!(expected.segment().is_some(), text.len() == 24);
            assert_eq!(expected.timeline().hex(), text[..8]);
        }
    }

    #[test]
    fn junk() {
        for text in [
            "",
            ".",
            "..",
            "0",
            ".history",
            ".partial",
            ".backup",
            "00000000.history",
            "0000002.history",
            "000000002.history",
            "0000000g.history",
            "0000000a.history",
            "00000002.histor",
            "00000002.history ",
            "00000002.history.partial",
            "00000002-history",
            "0000000100000000000000A",
            "0000000100000000000000A30",
            "0000000100000000000000a3",
            "000000000000000000000001",
            "+00000010000000000000001",
            "0000000100000000000000A:",
            "0000000100000000000000A3.",
            "0000000100000000000000A3.Partial",
            "0000000100000000000000A3.partial.partial",
            "0000000100000000000000A3.backup",
            "0000000100000000000000A3.0000028.backup",
            "0000000100000000000000A3.000000028.backup",
            "0000000100000000000000A3.0000002G.backup",
            "0000000100000000000000A3.00000028.backup.backup",
            "0000000100000000000000A3.gz",
            "pg_wal/0000000100000000000000A3",
            "RECOVERYXLOG",
            "archive_status",
            "0000000100000000000000A3\n",
            "0000000100000000000000A3\0",
            "00000001000000000000\u{e9}\u{e9}",
            "\u{ff10}0000001000000000000001",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn positions_survive(lsn: u64, timeline in 1_u32.., shift in 20_u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let timeline = TimelineId::new(timeline).unwrap();
            let segment = SegmentName::at(timeline, Lsn(lsn), size);
            prop_assert_eq!(segment.to_string().parse(), Ok(segment));
            prop_assert_eq!(segment.start(size), Some(Lsn(lsn).segment_start(size)));
            prop_assert_eq!(segment.number(size), Some(lsn / size.bytes()));
            if let Some(next) = segment.next(size) {
                prop_assert_eq!(next.start(size), Lsn(lsn).segment_start(size).checked_add(size.bytes()));
                prop_assert_eq!(next.previous(size), Some(segment));
                prop_assert!(segment < next && segment.to_string() < next.to_string());
            }
        }

        #[test]
        fn names_sort_as_text_does(a: (u32, u64), b: (u32, u64), shift in 20_u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let make = |(timeline, lsn): (u32, u64)| {
                SegmentName::at(TimelineId::new(timeline.max(1)).unwrap(), Lsn(lsn), size)
            };
            let (a, b) = (make(a), make(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn what_is_read_is_written_the_same(
            text in "[0-9A-F]{8}|[0-9A-F]{24}|[0-9A-Ga-f]{23,25}",
            suffix in r"(\.history|\.partial|\.[0-9A-F]{8}\.backup|\.[a-z]{0,8})?",
        ) {
            let text = text + &suffix;
            if let Ok(parsed) = text.parse::<WalFileName>() {
                prop_assert_eq!(parsed.to_string(), text);
            }
        }
    }
}
