//! Object keys.

use std::fmt;

/// A key below the storage's prefix: parts of `[A-Za-z0-9_.-]` joined by single slashes, none of them empty, `.` or `..`.
///
/// Plain ASCII in one order everywhere: some stores list anything else wrongly, and a directory backend must not be led astray.
/// Keys are built in `repo::layout` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key of this text, if it is one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let part_is_plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        (text.len() <= 512 && text.split('/').all(part_is_plain)).then_some(Self(text))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind its last slash.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn only_plain_keys() {
        for text in ["a", "7/wal/00000001/0000000100000000000000A3", "a/b-c_d.e"] {
            assert_eq!(Key::new(text).map(|key| key.as_str().to_owned()), Some(text.to_owned()));
        }
        for text in ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "ä", "a\n", "a\\b", "a:b"] {
            assert_eq!(Key::new(text), None, "{text:?}");
        }
    }
}
