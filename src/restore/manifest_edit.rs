//! Postgres' `backup_manifest`, made to describe what was restored.
//!
//! `pg_verifybackup` holds every file of the directory against it, so what the restore changed (`tablespace_map`), left out or added
//! must be changed, left out and added there, and the manifest's own checksum computed anew: SHA-256 of everything before the
//! line that names it. All else is copied byte for byte, as it comes.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::ParseError;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A longer line is none that Postgres writes: a path has at most 1024 bytes, twice that in hexadecimal.
const LONGEST_LINE: usize = 16 << 10;

/// Copies a manifest that comes in pieces.
#[derive(Debug)]
pub(super) struct ManifestEditor {
    /// Path to new content; none: the file is not there. What the manifest does not list yet is added.
    edits: BTreeMap<String, Option<Vec<u8>>>,
    /// What `Last-Modified` shall say of edited files, in Postgres' form.
    modified: String,
    line: Vec<u8>,
    hash: Sha256,
    /// The last file's entry, without its comma: only the next line tells whether it needs one.
    entry: Option<Vec<u8>>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Files,
    Tail,
    Done,
}

impl ManifestEditor {
    /// For these edits: path below the data directory, and its content.
    pub(super) fn new(edits: BTreeMap<String, Option<Vec<u8>>>, modified: impl Into<String>) -> Self {
        let modified = modified.into();
        Self { edits, modified, line: Vec::new(), hash: Sha256::new(), entry: None, state: State::Head }
    }

    /// Takes the next bytes and appends what is ready of the copy to `out`.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(&line, out)?;
            } else if self.line.len() > LONGEST_LINE {
                return Err(strange("a line is too long"));
            }
        }
        Ok(())
    }

    /// Whether the manifest was whole.
    pub(super) fn finish(self) -> Result<()> {
        if self.state == State::Done && self.line.is_empty() { Ok(()) } else { Err(strange("it ends early")) }
    }

    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.state {
            State::Head => {
                self.emit(line, out);
                if line == b"\"Files\": [\n" {
                    self.state = State::Files;
                }
            }
            State::Files if line.starts_with(b"{ ") => self.file(line, out)?,
            State::Files if line == b"],\n" => {
                for (path, content) in std::mem::take(&mut self.edits) {
                    if let Some(content) = content {
                        self.push(self.entry_of(&path, &content), out);
                    }
                }
                if let Some(last) = self.entry.take() {
                    self.emit(&last, out);
                    self.emit(b"\n", out);
                }
                self.emit(line, out);
                self.state = State::Tail;
            }
            State::Tail if line.starts_with(b"\"Manifest-Checksum\"") => {
                let digest = self.hash.finalize_reset();
                let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                out.extend_from_slice(format!("\"Manifest-Checksum\": \"{hex}\"}}\n").as_bytes());
                self.state = State::Done;
            }
            State::Tail => self.emit(line, out),
            State::Files | State::Done => return Err(strange("a line stands where none may")),
        }
        Ok(())
    }

    fn file(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let entry = line.strip_suffix(b",").unwrap_or(line);
        if !entry.ends_with(b"}") {
            return Err(strange("a file's entry has no end"));
        }
        let edited = self.edits.keys().find(|path| names(entry, path)).cloned();
        match edited.and_then(|path| self.edits.remove_entry(&path)) {
            None => self.push(entry.to_vec(), out),
            Some((path, Some(content))) => self.push(self.entry_of(&path, &content), out),
            Some((_, None)) => {}
        }
        Ok(())
    }

    fn push(&mut self, entry: Vec<u8>, out: &mut Vec<u8>) {
        if let Some(before) = self.entry.replace(entry) {
            self.emit(&before, out);
            self.emit(b",\n", out);
        }
    }

    /// A file's entry in Postgres' layout. Each entry names its own algorithm, so ours need not be the others'.
    fn entry_of(&self, path: &str, content: &[u8]) -> Vec<u8> {
        let sum: String = crc32c::crc32c(content).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"{}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{sum}\" }}",
            content.len(),
            self.modified
        )
        .into_bytes()
    }

    fn emit(&mut self, line: &[u8], out: &mut Vec<u8>) {
        self.hash.update(line);
        out.extend_from_slice(line);
    }
}

/// Whether an entry is that of this path, which needs no escapes; written plainly or, under `force-encode`, in hexadecimal.
fn names(entry: &[u8], path: &str) -> bool {
    if let Some(rest) = entry.strip_prefix(b"{ \"Path\": \"") {
        return rest.strip_prefix(path.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""));
    }
    let hex: String = path.bytes().map(|byte| format!("{byte:02x}")).collect();
    entry
        .strip_prefix(b"{ \"Encoded-Path\": \"")
        .and_then(|rest| rest.strip_prefix(hex.as_bytes()))
        .is_some_and(|rest| rest.starts_with(b"\""))
}

fn strange(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, ParseError::new("backup_manifest", why).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n";
    const TAIL: &str = "],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/1\", \"End-LSN\": \"0/2\" }\n],\n";

    fn entry(path: &str) -> String {
        format!(
            "{{ \"Path\": \"{path}\", \"Size\": 1, \"Last-Modified\": \"x\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00\" }}"
        )
    }

    fn manifest(entries: &[&str]) -> String {
        let list = entries.join(",\n");
        let body = format!("{HEAD}{list}{}{TAIL}", if entries.is_empty() { "" } else { "\n" });
        let digest: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{body}\"Manifest-Checksum\": \"{digest}\"}}\n")
    }

    fn edited(original: &str, edits: &[(&str, Option<&str>)], piece: usize) -> Result<String> {
        let edits =
            edits.iter().map(|(path, content)| ((*path).to_owned(), content.map(|c| c.as_bytes().to_vec()))).collect();
        let mut editor = ManifestEditor::new(edits, "m");
        let mut out = Vec::new();
        for bytes in original.as_bytes().chunks(piece) {
            editor.feed(bytes, &mut out)?;
        }
        editor.finish()?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn without_edits_it_is_copied() {
        for original in [manifest(&[&entry("a"), &entry("b")]), manifest(&[])] {
            for piece in [1, 7, 10_000] {
                assert_eq!(edited(&original, &[], piece).unwrap(), original);
            }
        }
    }

    #[test]
    fn files_are_replaced_left_out_and_added() {
        let original = manifest(&[&entry("tablespace_map"), &entry("tablespace_map.x"), &entry("walhalla.held")]);
        let edits = [("tablespace_map", Some("123456789")), ("walhalla.held", None), ("pg_hba.conf", Some(""))];
        let added = |path: &str, size: u32, sum: &str| {
            format!(
                "{{ \"Path\": \"{path}\", \"Size\": {size}, \"Last-Modified\": \"m\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{sum}\" }}"
            )
        };
        // The check value of CRC-32C is e3069283; Postgres prints the bytes as they lie in memory.
        let wanted = manifest(&[
            &added("tablespace_map", 9, "839206e3"),
            &entry("tablespace_map.x"),
            &added("pg_hba.conf", 0, "00000000"),
        ]);
        assert_eq!(edited(&original, &edits, 5).unwrap(), wanted);
        let encoded = entry("b").replace("\"Path\": \"b\"", "\"Encoded-Path\": \"6161\"");
        assert_eq!(edited(&manifest(&[&encoded]), &[("aa", None)], 9).unwrap(), manifest(&[]));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let whole = manifest(&[&entry("a")]);
        for broken in ["", "{}\n", &whole[..whole.len() - 1], &whole[..60], &format!("{whole}x\n")] {
            assert!(edited(broken, &[], 8).is_err(), "{broken:?}");
        }
        assert!(edited(&"x".repeat(100_000), &[], 4096).is_err());
    }
}
