//! Positions in the WAL.

use super::{ParseError, SegmentSize, hex_u32};
use std::fmt;
use std::str::FromStr;

/// A log sequence number: a byte position in the WAL of a cluster.
///
/// Text is `%X/%X` up to Postgres 18 and `%X/%08X` from 19 on; both are read, the first is written. Never compare the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`: no position at all.
    pub const INVALID: Lsn = Lsn(0);

    /// Whether it is a position at all.
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position `bytes` further on; `None` beyond the end of all WAL.
    pub fn checked_add(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_add(bytes).map(Lsn)
    }

    /// How many bytes it lies after `earlier`; `None` if it lies before.
    pub fn since(self, earlier: Lsn) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// How many bytes of its segment lie before it.
    pub fn offset_in_segment(self, size: SegmentSize) -> u64 {
        self.0 % size.bytes()
    }

    /// The first position of its segment: where streaming starts, so that whole segments can be written.
    pub fn segment_start(self, size: SegmentSize) -> Lsn {
        Lsn(self.0 - self.offset_in_segment(size))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("LSN", format!("{text:?} is not of the form 16/B374D848"));
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let high = hex_u32(high, false).ok_or_else(bad)?;
        let low = hex_u32(low, false).ok_or_else(bad)?;
        Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

crate::pg::json_as_text!(Lsn);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text() {
        for (text, value) in
            [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX), ("0/01500090", 0x150_0090)]
        {
            assert_eq!(text.parse::<Lsn>(), Ok(Lsn(value)), "{text}");
        }
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for text in ["", "/", "0", "0/", "/0", "1FFFFFFFF/0", "0/1FFFFFFFF", "0/0/0", "+1/0", "0x1/0", " 0/0", "g/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic() {
        assert_eq!(Lsn(5).checked_add(3), Some(Lsn(8)));
        assert_eq!(Lsn(u64::MAX).checked_add(1), None);
        assert_eq!((Lsn(8).since(Lsn(5)), Lsn(5).since(Lsn(8)), Lsn(5).since(Lsn(5))), (Some(3), None, Some(0)));
        let size = SegmentSize::DEFAULT;
        assert_eq!(Lsn(0x1_0234_5678).segment_start(size), Lsn(0x1_0200_0000));
        assert_eq!(Lsn(0x1_0234_5678).offset_in_segment(size), 0x34_5678);
        assert_eq!(Lsn(0x1_0200_0000).segment_start(size), Lsn(0x1_0200_0000));
        assert!(!Lsn::INVALID.is_valid() && Lsn(1).is_valid());
    }

    proptest! {
        #[test]
        fn text_survives(value: u64) {
            let lsn = Lsn(value);
            prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
            prop_assert_eq!(format!("{:X}/{:08X}", value >> 32, value & 0xFFFF_FFFF).parse(), Ok(lsn), "as 19 writes it");
            prop_assert_eq!(lsn.to_string().to_lowercase().parse(), Ok(lsn));
            let json = serde_json::to_string(&lsn).unwrap();
            prop_assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), lsn);
        }

        #[test]
        fn sums_and_differences_undo_each_other(value: u64, bytes: u64, shift in 20_u32..=30) {
            let lsn = Lsn(value);
            match lsn.checked_add(bytes) {
                Some(later) => {
                    prop_assert_eq!(later.since(lsn), Some(bytes));
                    prop_assert_eq!(lsn.since(later), if bytes == 0 { Some(0) } else { None });
                }
                None => prop_assert!(bytes > u64::MAX - value),
            }
            let size = SegmentSize::new(1 << shift).unwrap();
            let (start, offset) = (lsn.segment_start(size), lsn.offset_in_segment(size));
            prop_assert_eq!(start.checked_add(offset), Some(lsn));
            prop_assert!(offset < size.bytes() && start.offset_in_segment(size) == 0);
        }

        #[test]
        fn junk_is_refused_or_reads_back(text in "[0-9A-Fa-fx+/ -]{0,20}") {
            if let Ok(lsn) = text.parse::<Lsn>() {
                prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'/'));
            }
        }
    }
}
