//! The password file (`~/.pgpass`): `host:port:database:user:password`, first match wins.

use crate::config::Secret;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What was found at the password file's place.
#[derive(Debug, Clone, Default)]
pub(super) struct PassFile {
    entries: Vec<Entry>,
    /// The file was there and was not used, with the reason; for the hint when a password is asked for after all.
    pub(super) ignored: Option<(PathBuf, &'static str)>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Host, port, database, user; `None` is `*`.
    fields: [Option<String>; 4],
    password: Secret,
}

impl PassFile {
    /// Reads the file. As in libpq, one that is missing, no plain file or open to others is passed over, not an error.
    pub(super) fn read(path: &Path) -> Self {
        let ignored = |why| Self { entries: Vec::new(), ignored: Some((path.to_owned(), why)) };
        let Ok(metadata) = std::fs::metadata(path) else { return Self::default() };
        if !metadata.is_file() {
            return ignored("it is not a plain file");
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return ignored("others than its owner may access it; chmod it to 0600");
        }
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Err(_) => ignored("it cannot be read"),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(|line| line.trim_end_matches('\r'));
        let entries =
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(Entry::parse).collect();
        Self { entries, ignored: None }
    }

    /// The password for this connection.
    pub(super) fn password(&self, host: &str, port: u16, database: &str, user: &str) -> Option<&Secret> {
        let port = port.to_string();
        let asked = [host, port.as_str(), database, user];
        let fits = |entry: &&Entry| {
            entry.fields.iter().zip(asked).all(|(field, asked)| field.as_deref().is_none_or(|field| field == asked))
        };
        self.entries.iter().find(fits).map(|entry| &entry.password)
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut field = || {
            let (raw, after) = split_field(rest)?;
            rest = after;
            Some(if raw == "*" { None } else { Some(unescape(raw)) })
        };
        let fields = [field()?, field()?, field()?, field()?];
        (!rest.is_empty()).then(|| Self { fields, password: Secret::new(unescape(rest)) })
    }
}

/// Up to the next colon that no backslash precedes, and what follows it.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let colon = text.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((text.get(..colon)?, text.get(colon + 1..)?))
}

fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_match_wins() {
        let file = PassFile::parse(
            "# comment\n\nbroken\ndb:5432:*:u:first\n*:*:replication:*:two\r\n\\:\\:1:*:a\\\\b:*:p\\:w\\\\x\nh:*:*:*:\n",
        );
        let find = |host, port, database, user| file.password(host, port, database, user).map(Secret::reveal);
        assert_eq!(find("db", 5432, "x", "u"), Some("first"));
        assert_eq!(find("db", 5432, "replication", "u"), Some("first"));
        assert_eq!(find("db", 5433, "replication", "u"), Some("two"));
        assert_eq!(find("::1", 1, "a\\b", "who"), Some("p:w\\x"));
        assert_eq!(find("h", 1, "d", "u"), None);
        assert!(!format!("{file:?}").contains("first"));
    }

    #[test]
    fn open_files_are_passed_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert!(PassFile::read(file.path()).password("h", 1, "d", "u").is_some());
        mode(0o640);
        let read = PassFile::read(file.path());
        assert!(read.password("h", 1, "d", "u").is_none());
        assert!(read.ignored.is_some());
        assert!(PassFile::read(Path::new("/nonexistent")).ignored.is_none());
        assert!(PassFile::read(Path::new("/")).ignored.is_some());
    }
}
