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
