//! Postgres' own `backup_manifest`, versions 1 (13 to 16) and 2 (from 17 on), read as it streams past.
//!
//! It is JSON, but Postgres writes one file a line, and a million files make 141 MiB: so it is read line by line, in bounded
//! memory, and every other layout is refused.

use super::{ChecksumAlgorithm, FileChecksum, Lsn, ParseError, SystemIdentifier, TimelineId};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its path below the data directory, with `/`; relative, and without `.` and `..`. Files of tablespaces are below
    /// `pg_tblspc/<oid>/`.
    pub path: Vec<u8>,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last modified, as written: `2026-11-23 16:49:37 GMT`.
    pub modified: String,
    /// Its checksum, unless the backup was taken without.
    pub checksum: Option<FileChecksum>,
}

/// WAL that the backup needs on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins.
    pub start: Lsn,
    /// The position after its last byte.
    pub end: Lsn,
}

/// What a manifest says besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSummary {
    /// 1 or 2.
    pub version: u32,
    /// The cluster; only version 2 tells.
    pub system_identifier: Option<SystemIdentifier>,
    /// How many files it lists.
    pub files: u64,
    /// The WAL that the backup needs, in the order of the manifest: newest timeline first.
    pub wal_ranges: Vec<WalRange>,
}

/// Reads a manifest that comes in pieces.
#[derive(Debug, Default)]
pub struct ManifestReader {
    lines: Lines,
    grammar: Grammar,
}

impl ManifestReader {
    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on to the next file and takes what it read from `input`. `None`: it needs more bytes. After an error nothing that
    /// follows can be trusted.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<ManifestFile>, ParseError> {
        while let Some(line) = self.lines.take(input)? {
            if let Line::File(file) = self.grammar.line(&line)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The rest, once all bytes were read. Whatever [`ManifestReader::next`] gave out counts only when this is `Ok`: the
    /// manifest's own checksum is its last line.
    pub fn finish(self) -> Result<ManifestSummary, ParseError> {
        self.lines.finish()?;
        self.grammar.finish()
    }
}

fn bad(why: impl Into<String>) -> ParseError {
    ParseError::new("backup_manifest", why)
}

/// Cuts the stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Longer than any line with a path of the 1024 bytes that Postgres allows, every one of them escaped.
    const MAX_LINE: usize = 16 << 10;

    /// The next line with its line break; `None` if its end has not come yet.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, ParseError> {
        let end = input.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let (now, later) = input.split_at_checked(end.unwrap_or(input.len())).unwrap_or((input, &[]));
        if self.0.len() + now.len() > Self::MAX_LINE {
            return Err(bad(format!("a line of more than {} bytes", Self::MAX_LINE)));
        }
        self.0.extend_from_slice(now);
        *input = later;
        Ok(end.map(|_| std::mem::take(&mut self.0)))
    }

    pub(super) fn finish(self) -> Result<(), ParseError> {
        if self.0.is_empty() { Ok(()) } else { Err(bad("it ends within a line")) }
    }
}

/// What a line was.
pub(super) enum Line {
    /// A file.
    File(ManifestFile),
    /// The manifest's own checksum.
    Checksum,
    /// Anything else.
    Other,
}

/// Which line comes next, and what was read so far.
#[derive(Debug, Default)]
pub(super) struct Grammar {
    state: State,
    hash: Sha256,
    number: u64,
    version: u32,
    system_identifier: Option<SystemIdentifier>,
    files: u64,
    wal_ranges: Vec<WalRange>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Version,
    SystemIdentifier,
    Files,
    /// Within the list of files; `more`: the line before ended with a comma.
    File {
        more: bool,
        first: bool,
    },
    WalRanges,
    WalRange {
        more: bool,
        first: bool,
    },
    Checksum,
    End,
}

impl Grammar {
    const MAX_RANGES: usize = 10_000;

    /// Takes a line with its line break.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Line, ParseError> {
        self.number += 1;
        if self.state != State::Checksum {
            self.hash.update(line);
        }
        let text = std::str::from_utf8(line).map_err(|_| bad(format!("line {} is no UTF-8", self.number)))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let error = || bad(format!("line {}, {:?}, is not what Postgres writes there", self.number, shortened(text)));
        match self.state {
            State::Version => {
                self.version = version(text).ok_or_else(error)?;
                self.state = if self.version == 1 { State::Files } else { State::SystemIdentifier };
            }
            State::SystemIdentifier => {
                let number = value(text, "\"System-Identifier\": ").and_then(|text| text.strip_suffix(','));
                self.system_identifier = Some(number.and_then(|text| text.parse().ok()).ok_or_else(error)?);
                self.state = State::Files;
            }
            State::Files if text == "\"Files\": [" => self.state = State::File { more: false, first: true },
            State::File { more: false, .. } if text == "]," => self.state = State::WalRanges,
            State::File { more, first } if more || first => {
                let (json, more) = entry(text);
                let file = RawFile::parse(json).ok_or_else(error)?;
                self.files += 1;
                self.state = State::File { more, first: false };
                return Ok(Line::File(file));
            }
            State::WalRanges if text == "\"WAL-Ranges\": [" => {
                self.state = State::WalRange { more: false, first: true };
            }
            State::WalRange { more: false, .. } if text == "]," => self.state = State::Checksum,
            State::WalRange { more, first } if more || first => {
                let (json, more) = entry(text);
                let range = RawRange::parse(json).filter(|_| self.wal_ranges.len() < Self::MAX_RANGES);
                self.wal_ranges.push(range.ok_or_else(error)?);
                self.state = State::WalRange { more, first: false };
            }
            State::Checksum => {
                let says = value(text, "\"Manifest-Checksum\": \"").and_then(|text| text.strip_suffix("\"}"));
                if says.ok_or_else(error)? != hex(&self.hash.finalize_reset()) {
                    return Err(bad("its own checksum does not fit: it was damaged or changed"));
                }
                self.state = State::End;
                return Ok(Line::Checksum);
            }
            _ => return Err(error()),
        }
        Ok(Line::Other)
    }

    pub(super) fn finish(self) -> Result<ManifestSummary, ParseError> {
        if self.state != State::End {
            return Err(bad(format!("it ends after line {}, before its checksum", self.number)));
        }
        let Self { version, system_identifier, files, wal_ranges, .. } = self;
        Ok(ManifestSummary { version, system_identifier, files, wal_ranges })
    }
}

fn version(text: &str) -> Option<u32> {
    match value(text, "{ \"PostgreSQL-Backup-Manifest-Version\": ")? {
        "1," => Some(1),
        "2," => Some(2),
        _ => None,
    }
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.strip_prefix(key)
}

/// A member of a list, and whether another follows.
fn entry(text: &str) -> (&str, bool) {
    text.strip_suffix(',').map_or((text, false), |json| (json, true))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// A line may be long, and an error is one line.
fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile<'a> {
    #[serde(rename = "Path", borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(rename = "Encoded-Path", borrow)]
    encoded_path: Option<Cow<'a, str>>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "Checksum-Algorithm", borrow)]
    algorithm: Option<Cow<'a, str>>,
    #[serde(rename = "Checksum", borrow)]
    checksum: Option<Cow<'a, str>>,
}

impl RawFile<'_> {
    fn parse(json: &str) -> Option<ManifestFile> {
        let raw: RawFile<'_> = serde_json::from_str(json).ok()?;
        let path = match (raw.path, raw.encoded_path) {
            (Some(path), None) => path.into_owned().into_bytes(),
            (None, Some(digits)) => unhex(&digits)?,
            _ => return None,
        };
        let checksum = match (raw.algorithm, raw.checksum) {
            (None, None) => None,
            (Some(algorithm), Some(digits)) => {
                let algorithm = ChecksumAlgorithm::of_name(&algorithm)?;
                let digest = unhex(&digits).filter(|digest| digest.len() == algorithm.digest_len())?;
                Some(FileChecksum { algorithm, digest })
            }
            _ => return None,
        };
        let file = ManifestFile { path, size: raw.size, modified: raw.modified, checksum };
        is_inside(&file.path).then_some(file)
    }
}

/// Whether a path stays below the directory that it is relative to.
fn is_inside(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: TimelineId,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl RawRange {
    fn parse(json: &str) -> Option<WalRange> {
        let Self { timeline, start, end } = serde_json::from_str(json).ok()?;
        (start <= end).then_some(WalRange { timeline, start, end })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const VERSION_1: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 222, "Last-Modified": "2026-11-24 09:01:37 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "6b4df0f3" },
{ "Encoded-Path": "6261642dff", "Size": 0, "Last-Modified": "2026-11-24 09:01:37 GMT" },
{ "Path": "tablespace_map", "Size": 30, "Last-Modified": "2026-11-24 09:01:37 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "0/1200000", "End-LSN": "0/12000F8" },
{ "Timeline": 1, "Start-LSN": "0/1100028", "End-LSN": "0/1200000" }
],
"Manifest-Checksum": "b5cc02d084cf51999646849b603c502b5ed440a3a0b5c9c40161cd589fc83384"}
"#;

    pub(crate) const VERSION_2: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7711660644488916594,
"Files": [
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/C00028", "End-LSN": "0/C00120" }
],
"Manifest-Checksum": "af8c8479b8f8236435f7a8b034c1396f3ef9fa604f55f1ee57816532a5984598"}
"#;

    /// The manifest with its checksum computed anew, as someone would who wants to deceive.
    fn sealed(text: &str) -> String {
        let body = text.split("\"Manifest-Checksum\"").next().unwrap();
        format!("{body}\"Manifest-Checksum\": \"{}\"}}\n", hex(&Sha256::digest(body)))
    }

    fn read(bytes: &[u8], chunk: usize) -> Result<(Vec<ManifestFile>, ManifestSummary), ParseError> {
        let mut reader = ManifestReader::new();
        let mut files = Vec::new();
        for mut piece in bytes.chunks(chunk) {
            while let Some(file) = reader.next(&mut piece)? {
                files.push(file);
            }
        }
        Ok((files, reader.finish()?))
    }

    fn check(text: &str) -> Result<(Vec<ManifestFile>, ManifestSummary), ParseError> {
        read(text.as_bytes(), 1 << 20)
    }

    #[test]
    fn version_1() {
        let (files, summary) = check(VERSION_1).unwrap();
        assert_eq!((summary.version, summary.system_identifier, summary.files), (1, None, 3));
        assert_eq!(files[0].path, b"backup_label");
        assert_eq!((files[0].size, files[0].modified.as_str()), (222, "2026-11-24 09:01:37 GMT"));
        let checksum = files[0].checksum.as_ref().unwrap();
        assert_eq!((checksum.algorithm, checksum.to_string().as_str()), (ChecksumAlgorithm::Crc32c, "6b4df0f3"));
        assert_eq!((&files[1].path[..], &files[1].checksum), (&b"bad-\xFF"[..], &None));
        let ranges: Vec<_> = summary.wal_ranges.iter().map(|r| (r.timeline.get(), r.start.0, r.end.0)).collect();
        assert_eq!(ranges, [(2, 0x120_0000, 0x120_00F8), (1, 0x110_0028, 0x120_0000)]);
        for chunk in [1, 7, 100] {
            assert_eq!(read(VERSION_1.as_bytes(), chunk), Ok((files.clone(), summary.clone())));
        }
    }

    #[test]
    fn version_2() {
        let (files, summary) = check(VERSION_2).unwrap();
        assert_eq!((files.len(), summary.version), (0, 2));
        assert_eq!(summary.system_identifier, Some(SystemIdentifier(7_711_660_644_488_916_594)), "exact beyond 2^53");
    }

    #[test]
    fn any_change_is_seen() {
        for at in 0..VERSION_1.len() {
            let mut bytes = VERSION_1.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(read(&bytes, 1000).is_err(), "byte {at}");
            assert!(read(&VERSION_1.as_bytes()[..at], 1000).is_err(), "cut at {at}");
        }
        assert!(check(&format!("{VERSION_1}\n")).is_err());
        assert!(check(&format!("{VERSION_1}x")).is_err());
        assert!(check(&VERSION_1.replace("\"Size\": 222", "\"Size\": 223")).unwrap_err().why.contains("checksum"));
    }

    #[test]
    fn what_no_server_writes() {
        let file = "\"Path\": \"backup_label\"";
        for (from, to) in [
            (file, "\"Path\": \"/etc/passwd\""),
            (file, "\"Path\": \"../x\""),
            (file, "\"Path\": \"a/../x\""),
            (file, "\"Path\": \"a//x\""),
            (file, "\"Path\": \"./x\""),
            (file, "\"Path\": \"\""),
            (file, "\"Path\": \"a\\u0000b\""),
            (file, "\"Path\": \"a\", \"Encoded-Path\": \"61\""),
            (file, "\"Path\": \"a\", \"Path\": \"b\""),
            (file, "\"Encoded-Path\": \"616\""),
            (file, "\"Encoded-Path\": \"6g\""),
            (file, "\"Encoded-Path\": \"2e2e\""),
            (file, "\"Mode\": 1, \"Path\": \"a\""),
            ("\"Size\": 222", "\"Size\": -1"),
            ("\"Size\": 222", "\"Size\": 2.5"),
            ("\"Size\": 222", "\"Size\": 18446744073709551616"),
            ("\"6b4df0f3\"", "\"6b4df0f\""),
            ("\"6b4df0f3\"", "\"6b4df0f300\""),
            ("\"CRC32C\"", "\"MD5\""),
            (", \"Checksum\": \"6b4df0f3\"", ""),
            (" },\n{ \"Encoded", " }\n{ \"Encoded"),
            ("\"00000000\" }", "\"00000000\" },"),
            ("Version\": 1", "Version\": 3"),
            ("Version\": 1,", "Version\": 2,"),
            ("Version\": 1,", "Version\": 1,\n\"System-Identifier\": 5,"),
            ("\"Timeline\": 2", "\"Timeline\": 0"),
            ("0/12000F8", "0/11FFFFF"),
            ("0/12000F8", "x"),
            ("\"WAL-Ranges\": [", "\"WAL-Range\": ["),
        ] {
            let text = sealed(&VERSION_1.replacen(from, to, 1));
            assert_ne!(text, VERSION_1, "{to}");
            assert!(check(&text).is_err(), "{to}");
        }
        for text in ["", "{}", "\n", "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n"] {
            assert!(check(text).is_err(), "{text:?}");
        }
        let text = sealed(&VERSION_2.replace("7711660644488916594", "\"7711660644488916594\""));
        assert!(check(&text).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let endless = vec![b'x'; 1 << 20];
        assert!(read(&endless, 1000).unwrap_err().why.contains("line of more than"));
    }

    #[test]
    fn every_byte_of_a_path() {
        let path: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
        let digits = hex(&path);
        let text = sealed(&VERSION_1.replace("6261642dff", &digits));
        assert_eq!(check(&text).unwrap().0[1].path, path);
        let text = sealed(&VERSION_1.replace("\"backup_label\"", r#""a\"\\\n\u0001é""#));
        assert_eq!(check(&text).unwrap().0[0].path, "a\"\\\n\u{1}é".as_bytes());
    }
}
