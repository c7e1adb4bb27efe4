//! `tablespace_map`: where a backup's tablespaces lie (`read_tablespace_map` in `access/transam/xlogrecovery.c`).
//!
//! One line for each: its oid, a space, its directory; line breaks and backslashes in the directory's name have a backslash in
//! front. From it the server makes the links in `pg_tblspc` when it starts on a backup.

use super::ParseError;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// The tablespaces of a backup, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablespaceMap {
    /// Its entries; no two with the same oid.
    pub tablespaces: Vec<Tablespace>,
}

/// A tablespace and its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its oid: the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its directory.
    pub path: PathBuf,
}

impl TablespaceMap {
    /// Reads the file.
    pub fn parse(file: &[u8]) -> Result<Self, ParseError> {
        let bad = |why: &str| ParseError::new("tablespace_map", why.to_owned());
        let mut map = Self::default();
        let mut line = Vec::new();
        let mut escaped = false;
        for byte in file {
            match byte {
                b'\\' if !escaped => escaped = true,
                b'\n' | b'\r' if !escaped => {
                    // An empty line is the second half of a Windows line break.
                    if !line.is_empty() {
                        map.add(std::mem::take(&mut line))?;
                    }
                }
                _ => {
                    line.push(*byte);
                    escaped = false;
                }
            }
        }
        if escaped || !line.is_empty() { Err(bad("its last line has no end")) } else { Ok(map) }
    }

    /// The file, as the server writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for tablespace in &self.tablespaces {
            file.extend_from_slice(format!("{} ", tablespace.oid).as_bytes());
            for byte in tablespace.path.as_os_str().as_bytes() {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    file.push(b'\\');
                }
                file.push(*byte);
            }
            file.push(b'\n');
        }
        file
    }

    fn add(&mut self, line: Vec<u8>) -> Result<(), ParseError> {
        let bad = |why: &str| ParseError::new("tablespace_map", format!("{:?}: {why}", String::from_utf8_lossy(&line)));
        let space = line.iter().position(|byte| *byte == b' ').ok_or_else(|| bad("there is no directory"))?;
        let (digits, rest) = line.split_at_checked(space).ok_or_else(|| bad("there is no directory"))?;
        let oid = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0'))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| bad("it does not begin with an oid"))?;
        let path = rest.get(1..).filter(|path| !path.is_empty() && !path.contains(&0));
        let path = path.ok_or_else(|| bad("its directory has no name"))?;
        if self.tablespaces.iter().any(|known| known.oid == oid) {
            return Err(bad("the oid is there twice"));
        }
        self.tablespaces.push(Tablespace { oid, path: PathBuf::from(OsString::from_vec(path.to_vec())) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_servers_write() {
        let map = TablespaceMap::parse(b"16390 /srv/tbl space\n16400 /srv/two\\\nlines\\\\x\n").unwrap();
        assert_eq!(
            map.tablespaces,
            [
                Tablespace { oid: 16390, path: "/srv/tbl space".into() },
                Tablespace { oid: 16400, path: "/srv/two\nlines\\x".into() },
            ]
        );
        assert_eq!(TablespaceMap::parse(b"").unwrap().tablespaces, []);
        assert_eq!(TablespaceMap::parse(b"7 /a\r\n8 /b\r\n").unwrap().to_bytes(), b"7 /a\n8 /b\n");
    }

    #[test]
    fn what_no_server_writes() {
        for text in [
            "16390 /srv",
            "16390\n",
            "16390 \n",
            " /srv\n",
            "x /srv\n",
            "0 /srv\n",
            "4294967296 /srv\n",
            "+1 /srv\n",
            "1 /a\n1 /b\n",
            "1 /a\\\n",
            "1 /a\n\\",
            "/srv\n",
            "1 /a\0b\n",
        ] {
            assert!(TablespaceMap::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_directory_survives(
            paths in prop::collection::vec(prop::collection::vec(1_u8..=255, 1..40), 0..5),
        ) {
            let tablespaces = (1..).zip(paths);
            let tablespaces =
                tablespaces.map(|(oid, path)| Tablespace { oid, path: OsString::from_vec(path).into() }).collect();
            let map = TablespaceMap { tablespaces };
            prop_assert_eq!(TablespaceMap::parse(&map.to_bytes()).unwrap(), map);
        }
    }
}
