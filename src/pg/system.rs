//! Which cluster: the system identifier and the major version.

use super::ParseError;
use std::fmt;
use std::str::FromStr;

/// The number `initdb` gave a cluster; it survives restores, promotions and standbys, and changes with `initdb` and `pg_upgrade`.
///
/// Decimal in text; a string in JSON, because it exceeds what a JSON number carries exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemIdentifier {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let plain =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        plain
            .then(|| text.parse().ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| ParseError::new("system identifier", format!("{text:?} is not a decimal number of 64 bits")))
    }
}

impl serde::Serialize for SystemIdentifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A major version of Postgres: 13 to 18 today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PgMajor(pub u16);

impl PgMajor {
    /// The oldest that we support.
    pub const OLDEST: PgMajor = PgMajor(13);

    /// The major of a `server_version_num` (150018 is 15).
    pub fn from_version_num(number: u32) -> Self {
        Self(u16::try_from(number / 10_000).unwrap_or(u16::MAX))
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
