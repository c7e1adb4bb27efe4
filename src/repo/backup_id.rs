//! Backup ids: `20261123T170159Z-7f3a1c`.

use crate::pg::ParseError;
use std::fmt;
use std::str::FromStr;

/// The name of a backup: the server's clock in UTC, and six random characters. Order and times come from manifests, not from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl BackupId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BackupId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let shape = "dddddddd'T'dddddd'Z-'xxxxxx".replace('\'', "");
        let fits = text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                b'x' => byte.is_ascii_digit() || byte.is_ascii_lowercase(),
                other => byte == other,
            });
        fits.then(|| Self(text.to_owned()))
            .ok_or_else(|| ParseError::new("backup id", format!("{text:?} is not of the form 20261123T170159Z-7f3a1c")))
    }
}

crate::pg::json_as_text!(BackupId);

#[cfg(test)]
mod tests {
    use super::BackupId;

    #[test]
    fn form() {
        assert!("20261123T170159Z-7f3a1c".parse::<BackupId>().is_ok());
        for text in [
            "",
            "20261123T170159Z-7f3a1",
            "20261123T170159Z-7F3A1C",
            "20261123X170159Z-7f3a1c",
            "../20261123T170159Z-7f3a",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
    }
}
