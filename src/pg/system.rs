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

crate::pg::json_as_text!(SystemIdentifier);

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

    /// The major that wrote a `pg_control` with this catalog version, if it is a release from 13 to 18. Development versions and
    /// later releases are told by `PG_VERSION`.
    pub fn from_catalog_version(number: u32) -> Option<Self> {
        Some(Self(match number {
            202_007_201 => 13,
            202_107_181 => 14,
            202_209_061 => 15,
            202_307_071 => 16,
            202_406_281 => 17,
            202_506_291 => 18,
            _ => return None,
        }))
    }

    /// Reads a data directory's `PG_VERSION`: `15` and a line break.
    pub fn from_version_file(file: &[u8]) -> Result<Self, ParseError> {
        let bad = || {
            let text = String::from_utf8_lossy(file);
            ParseError::new("PG_VERSION", format!("{text:?} is not a major version from 10 on"))
        };
        let digits = std::str::from_utf8(file).map_err(|_| bad())?.trim_end_matches(['\r', '\n']);
        let plain = (2..=4).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        plain.then(|| digits.parse().ok()).flatten().map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_identifiers() {
        for text in ["7711660580010605755", "18446744073709551615", "1", "0"] {
            let identifier: SystemIdentifier = text.parse().unwrap();
            assert_eq!(identifier.to_string(), text);
            let json = serde_json::to_string(&identifier).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<SystemIdentifier>(&json).unwrap(), identifier);
        }
        for text in ["", "01", "+1", "-1", " 1", "1 ", "18446744073709551616", "1e3", "0x1", "\u{661}"] {
            assert!(text.parse::<SystemIdentifier>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<SystemIdentifier>("7711660580010605755").is_err(), "a JSON number is not exact");
    }

    #[test]
    fn majors() {
        for (number, major) in [(130_023, 13), (140_005, 14), (150_018, 15), (180_006, 18), (190_000, 19)] {
            assert_eq!(PgMajor::from_version_num(number), PgMajor(major));
        }
        for (file, major) in [("13\n", 13), ("18\n", 18), ("19", 19), ("15\r\n", 15)] {
            assert_eq!(PgMajor::from_version_file(file.as_bytes()), Ok(PgMajor(major)));
        }
        for file in ["", "\n", "9.6\n", "9\n", "+15\n", "015\n", " 15\n", "15 \n", "15\n1", "99999\n", "15devel\n"] {
            assert!(PgMajor::from_version_file(file.as_bytes()).is_err(), "{file:?}");
        }
        assert_eq!(PgMajor::from_catalog_version(202_209_061), Some(PgMajor(15)));
        assert_eq!(PgMajor::from_catalog_version(202_209_062), None);
    }
}
