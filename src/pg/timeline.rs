//! Timelines.

use super::{ParseError, hex_u32};
use std::fmt;
use std::num::NonZeroU32;

/// A timeline's number, from 1. Written in names as eight hexadecimal digits, in text as a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline of a freshly initialised cluster. It has no history file.
    pub const FIRST: TimelineId = TimelineId(NonZeroU32::MIN);

    /// The timeline of this number, if it is one.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Reads the eight upper-case hexadecimal digits of a name.
    pub fn from_hex(text: &str) -> Result<Self, ParseError> {
        (text.len() == 8)
            .then(|| hex_u32(text, true))
            .flatten()
            .and_then(Self::new)
            .ok_or_else(|| ParseError::new("timeline", format!("{text:?} is not eight hexadecimal digits above zero")))
    }

    /// The eight upper-case hexadecimal digits of a name.
    pub fn hex(self) -> String {
        format!("{:08X}", self.get())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits() {
        for (text, number) in [("00000001", 1), ("0000000A", 10), ("FFFFFFFF", u32::MAX)] {
            let timeline = TimelineId::from_hex(text).unwrap();
            assert_eq!((timeline.get(), timeline.hex().as_str()), (number, text));
            assert_eq!(timeline.to_string(), number.to_string(), "decimal in text");
        }
        for text in ["", "0", "00000000", "1", "0000001", "000000001", "0000000a", "+0000001", "0000000g", "0x000001"] {
            assert!(TimelineId::from_hex(text).is_err(), "{text:?}");
        }
        assert_eq!(TimelineId::new(0), None);
        assert!(serde_json::from_str::<TimelineId>("0").is_err());
        assert_eq!(serde_json::to_string(&TimelineId::FIRST).unwrap(), "1");
    }
}
