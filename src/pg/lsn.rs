//! Positions in the WAL.

use super::{ParseError, hex_u32};
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

impl serde::Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
