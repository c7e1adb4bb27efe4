//! Postgres' own manifest, read as it arrives: one line a file, so that a manifest of a million files needs no memory.
//!
//! The format is `backup_manifest`'s, versions 1 and 2. Whitespace counts: the server's checksum is over the bytes.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SystemIdentifier, TimelineId};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// No line is longer: a path has at most 4096 bytes, in hexadecimal twice as many.
const LONGEST_LINE: usize = 64 << 10;

/// A file as Postgres describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TheirFile {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) crc32c: u32,
}

/// WAL that the backup needs, on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalRange {
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
}

/// What the whole manifest said besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Newest timeline first, as the server writes it.
    pub(super) ranges: Vec<WalRange>,
    /// Since version 2 (17).
    pub(super) system: Option<SystemIdentifier>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Version,
    Head,
    Files,
    BetweenFilesAndWal,
    Wal,
    Tail,
    Over,
}

/// The reader.
#[derive(Debug)]
pub(super) struct PgManifest {
    line: Vec<u8>,
    part: Part,
    hasher: Sha256,
    ranges: Vec<WalRange>,
    system: Option<SystemIdentifier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    #[allow(dead_code)]
    modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: String,
    #[serde(rename = "Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WalLine {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server's backup_manifest cannot be read: {why}"))
}

impl PgManifest {
    pub(super) fn new() -> Self {
        Self { line: Vec::new(), part: Part::Version, hasher: Sha256::new(), ranges: Vec::new(), system: None }
    }

    /// Takes the next bytes; every file in them goes to `file`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], file: &mut dyn FnMut(TheirFile)) -> Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = bytes.split_at(end + 1);
            self.line.extend_from_slice(head);
            let line = std::mem::take(&mut self.line);
            self.take(&line, file)?;
            self.line = line;
            self.line.clear();
            bytes = rest;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LONGEST_LINE { Err(malformed("an endless line")) } else { Ok(()) }
    }

    /// The manifest has ended.
    pub(super) fn finish(self) -> Result<Facts> {
        match self.part {
            Part::Over if self.line.is_empty() && !self.ranges.is_empty() => {
                Ok(Facts { ranges: self.ranges, system: self.system })
            }
            _ => Err(malformed("it ends early")),
        }
    }

    fn take(&mut self, line: &[u8], file: &mut dyn FnMut(TheirFile)) -> Result<()> {
        let text = std::str::from_utf8(line).map_err(malformed)?.trim_end_matches('\n');
        let bad = || malformed(format!("the line {text:?}"));
        if self.part == Part::Tail {
            return self.take_checksum(text);
        }
        self.hasher.update(line);
        // A closing bracket may stand alone or begin the next part.
        match (self.part, text) {
            (Part::Version, text) => {
                let version = text.strip_prefix("{ \"PostgreSQL-Backup-Manifest-Version\": ");
                match version.and_then(|text| text.strip_suffix(',')) {
                    Some("1" | "2") => self.part = Part::Head,
                    _ => return Err(bad()),
                }
            }
            (Part::Head, "\"Files\": [") => self.part = Part::Files,
            (Part::Head, text) => {
                let system = text.strip_prefix("\"System-Identifier\": ").and_then(|text| text.strip_suffix(','));
                self.system = Some(system.and_then(|text| text.parse().ok()).ok_or_else(bad)?);
            }
            (Part::Files, "],") => self.part = Part::BetweenFilesAndWal,
            (Part::Files, text) => file(their_file(text).ok_or_else(bad)?),
            (Part::BetweenFilesAndWal, "\"WAL-Ranges\": [") => self.part = Part::Wal,
            (Part::Wal, "],") => self.part = Part::Tail,
            (Part::Wal, text) => {
                let line: WalLine = serde_json::from_str(text.trim_end_matches(',')).map_err(malformed)?;
                let timeline = TimelineId::new(line.timeline).ok_or_else(bad)?;
                self.ranges.push(WalRange { timeline, start: line.start, end: line.end });
            }
            _ => return Err(bad()),
        }
        Ok(())
    }

    fn take_checksum(&mut self, text: &str) -> Result<()> {
        let told = text.strip_prefix("\"Manifest-Checksum\": \"").and_then(|text| text.strip_suffix("\"}"));
        let told = told.ok_or_else(|| malformed("it has no checksum"))?;
        let digest = std::mem::take(&mut self.hasher).finalize();
        let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if told != found {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the server's backup_manifest arrived damaged: its own checksum \
                does not fit",
            ));
        }
        self.part = Part::Over;
        Ok(())
    }
}

fn their_file(text: &str) -> Option<TheirFile> {
    let line: FileLine = serde_json::from_str(text.trim_end_matches(',')).ok()?;
    let path = match (line.path, line.encoded) {
        (Some(path), None) => path,
        (None, Some(hex)) => String::from_utf8(bytes_of(&hex)?).ok()?,
        _ => return None,
    };
    // The four bytes as they lie in memory, on every machine that Postgres and we run on: little-endian.
    let checksum = bytes_of(&line.checksum).filter(|_| line.algorithm == "CRC32C")?;
    let crc32c = u32::from_le_bytes(checksum.as_slice().try_into().ok()?);
    Some(TheirFile { path, size: line.size, crc32c })
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(head: &str) -> String {
        let body = format!(
            "{head}\"Files\": [\n\
             {{ \"Path\": \"backup_label\", \"Size\": 225, \"Last-Modified\": \"2026-11-23 16:49:37 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"6b4df0f3\" }},\n\
             {{ \"Encoded-Path\": \"6261\", \"Size\": 0, \"Last-Modified\": \"2026-11-23 16:49:37 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }}\n\
             ],\n\"WAL-Ranges\": [\n\
             {{ \"Timeline\": 2, \"Start-LSN\": \"0/1100028\", \"End-LSN\": \"0/1100100\" }},\n\
             {{ \"Timeline\": 1, \"Start-LSN\": \"0/1000028\", \"End-LSN\": \"0/01100028\" }}\n],\n"
        );
        let digest = Sha256::digest(body.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{body}\"Manifest-Checksum\": \"{hex}\"}}\n")
    }

    fn read(text: &str, piece: usize) -> Result<(Vec<TheirFile>, Facts)> {
        let mut reader = PgManifest::new();
        let mut files = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            reader.feed(bytes, &mut |file| files.push(file))?;
        }
        Ok((files, reader.finish()?))
    }

    const V1: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n";
    const V2: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7711408607253972328,\n";

    #[test]
    fn both_versions_in_pieces_of_any_size() {
        for (head, system) in [(V1, None), (V2, Some(SystemIdentifier(7_711_408_607_253_972_328)))] {
            for piece in [1, 10, 1000, 100_000] {
                let (files, facts) = read(&manifest(head), piece).unwrap();
                assert_eq!(facts.system, system);
                assert_eq!(facts.ranges.len(), 2);
                assert_eq!(facts.ranges[1].end, Lsn(0x110_0028));
                assert_eq!(files[0], TheirFile { path: "backup_label".into(), size: 225, crc32c: 0xf3f0_4d6b });
                assert_eq!(files[1].path, "ba");
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        let good = manifest(V1);
        assert_eq!(read(&good.replace("225", "226"), 99).unwrap_err().kind(), ErrorKind::Corrupt);
        for bad in [
            good[..good.len() - 1].to_owned(),
            good[..good.len() - 100].to_owned(),
            format!("{good}more\n"),
            good.replace("Version\": 1", "Version\": 3"),
            good.replace("CRC32C", "SHA256"),
            good.replace("6b4df0f3", "6b4df0"),
            good.replace("\"Encoded-Path\": \"6261\"", "\"Encoded-Path\": \"ff\""),
            good.replace("\"Size\": 225", "\"Size\": 225, \"New\": 1"),
            "x".repeat(100_000),
        ] {
            assert!(read(&bad, 4096).is_err());
        }
    }
}
