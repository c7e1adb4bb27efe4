//! A copy of a `backup_manifest` in which one file was replaced.
//!
//! A restore with relocated tablespaces must change `tablespace_map`, and `pg_verifybackup` holds it against the manifest: so
//! that file's size and checksum, and the manifest's own checksum, are computed anew. Everything else is copied as it is.

use super::pg_manifest::{Grammar, Line, Lines, ManifestFile, ManifestSummary, hex};
use super::{FileChecksum, ParseError};
use sha2::{Digest, Sha256};

/// Copies a manifest that comes in pieces.
#[derive(Debug)]
pub struct ManifestRewriter {
    lines: Lines,
    grammar: Grammar,
    hash: Sha256,
    path: Vec<u8>,
    content: Vec<u8>,
    replaced: bool,
}

impl ManifestRewriter {
    /// A copier that replaces the file at `path` (below the data directory) by one of this content.
    pub fn new(path: impl Into<Vec<u8>>, content: impl Into<Vec<u8>>) -> Self {
        Self {
            lines: Lines::default(),
            grammar: Grammar::default(),
            hash: Sha256::new(),
            path: path.into(),
            content: content.into(),
            replaced: false,
        }
    }

    /// Takes the next bytes and appends what is ready of the copy to `out`.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ParseError> {
        while let Some(line) = self.lines.take(&mut bytes)? {
            match self.grammar.line(&line)? {
                Line::File { file, encoded, more } if file.path == self.path => {
                    self.replaced = true;
                    let line = self.replacement(&file, encoded, more);
                    self.emit(line.as_bytes(), out);
                }
                Line::Checksum => {
                    let digest = hex(&self.hash.finalize_reset());
                    out.extend_from_slice(format!("\"Manifest-Checksum\": \"{digest}\"}}\n").as_bytes());
                }
                _ => self.emit(&line, out),
            }
        }
        Ok(())
    }

    /// The verdict, once all bytes were fed. What was written counts only if this is `Ok`: an original that is damaged, or does
    /// not list the file, gets no fitting checksum out of us.
    pub fn finish(self) -> Result<ManifestSummary, ParseError> {
        self.lines.finish()?;
        let summary = self.grammar.finish()?;
        if !self.replaced {
            let path = String::from_utf8_lossy(&self.path);
            return Err(ParseError::new("backup_manifest", format!("it does not list {path:?}")));
        }
        Ok(summary)
    }

    fn emit(&mut self, line: &[u8], out: &mut Vec<u8>) {
        self.hash.update(line);
        out.extend_from_slice(line);
    }

    /// The line of the file, in Postgres' layout.
    fn replacement(&self, file: &ManifestFile, encoded: bool, more: bool) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (key, path) = match std::str::from_utf8(&file.path) {
            Ok(path) if !encoded => ("Path", quoted(path)),
            _ => ("Encoded-Path", quoted(&hex(&file.path))),
        };
        let size = self.content.len();
        let mut line = format!(r#"{{ "{key}": {path}, "Size": {size}, "Last-Modified": {}"#, quoted(&file.modified));
        if let Some(old) = &file.checksum {
            let new = FileChecksum::of(old.algorithm, &self.content);
            line += &format!(r#", "Checksum-Algorithm": "{}", "Checksum": "{new}""#, new.algorithm.name());
        }
        line + if more { " },\n" } else { " }\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pg_manifest::tests::{VERSION_1, VERSION_2};
    use super::super::{ChecksumAlgorithm, ManifestReader};
    use super::*;

    fn rewrite(manifest: &str, path: &[u8], content: &[u8], chunk: usize) -> Result<String, ParseError> {
        let mut rewriter = ManifestRewriter::new(path, content);
        let mut out = Vec::new();
        for piece in manifest.as_bytes().chunks(chunk) {
            rewriter.feed(piece, &mut out)?;
        }
        rewriter.finish()?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn one_file_changes() {
        let new = rewrite(VERSION_1, b"tablespace_map", b"16390 /else/where\n", 50).unwrap();
        assert_eq!(new, rewrite(VERSION_1, b"tablespace_map", b"16390 /else/where\n", 1).unwrap());
        let changed: Vec<_> = VERSION_1.lines().zip(new.lines()).filter(|(old, new)| old != new).collect();
        let checksum = FileChecksum::of(ChecksumAlgorithm::Crc32c, b"16390 /else/where\n");
        let line = format!(
            r#"{{ "Path": "tablespace_map", "Size": 18, "Last-Modified": "2026-11-24 09:01:37 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "{checksum}" }}"#
        );
        assert_eq!(changed.len(), 2);
        assert_eq!(changed[0].1, line);
        let mut reader = ManifestReader::new();
        let mut input = new.as_bytes();
        while reader.next(&mut input).unwrap().is_some() {}
        assert_eq!(reader.finish().unwrap().files, 3);
    }

    #[test]
    fn the_same_content_changes_nothing() {
        let once = rewrite(VERSION_1, b"tablespace_map", b"x\n", 100).unwrap();
        assert_eq!(rewrite(&once, b"tablespace_map", b"x\n", 100).unwrap(), once);
        let encoded = rewrite(VERSION_1, b"bad-\xFF", b"", 100).unwrap();
        assert_eq!(encoded, VERSION_1, "without checksum, by encoded path, followed by another");
    }

    #[test]
    fn no_blessing_for_what_is_damaged() {
        assert!(rewrite(VERSION_2, b"tablespace_map", b"", 100).unwrap_err().why.contains("does not list"));
        let damaged = VERSION_1.replace("222", "223");
        assert!(rewrite(&damaged, b"tablespace_map", b"", 100).is_err());
        for cut in [0, 1, 300, VERSION_1.len() - 1] {
            assert!(rewrite(&VERSION_1[..cut], b"tablespace_map", b"", 100).is_err());
        }
    }
}
