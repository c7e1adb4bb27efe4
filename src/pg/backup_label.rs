//! `backup_label`, and the `.backup` file that a backup leaves in the archive.
//!
//! The server must get its `backup_label` back byte for byte: whoever restores keeps the bytes; this is their meaning.

use super::{Lsn, ParseError, SegmentName, TimelineId};

/// What `backup_label` says: where replay of a backup begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins (the redo position of the backup's checkpoint).
    pub start: Lsn,
    /// The segment that this position is in.
    pub start_segment: SegmentName,
    /// Position of the backup's checkpoint record.
    pub checkpoint: Lsn,
    /// How the backup was taken.
    pub method: BackupMethod,
    /// Where from.
    pub source: BackupSource,
    /// When it began, in the server's own time zone, as written: `2026-11-24 09:01:37 UTC`.
    pub start_time: String,
    /// What the operator named it. Bytes that are no UTF-8 are replaced.
    pub label: String,
    /// The timeline on which it began.
    pub start_timeline: TimelineId,
    /// Where the backup began that this incremental one (17 and later) builds upon.
    pub incremental_from: Option<(Lsn, TimelineId)>,
}

/// How a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMethod {
    /// `streamed`: by BASE_BACKUP, or with the non-exclusive functions.
    Streamed,
    /// `pg_start_backup`: exclusive, up to 14.
    Exclusive,
}

/// Where a backup was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupSource {
    /// `primary`; 13 calls it `master`.
    Primary,
    /// `standby`.
    Standby,
}

/// What a `.backup` file says: the label, and where the backup ended. Informational; never needed for a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHistory {
    /// How it began.
    pub label: BackupLabel,
    /// Position after its last WAL. (The file's segment name for it is rounded differently by version: compute it from here.)
    pub stop: Lsn,
    /// When it ended, as written.
    pub stop_time: String,
    /// On which timeline.
    pub stop_timeline: TimelineId,
}

impl BackupLabel {
    /// Reads `backup_label`.
    pub fn parse(file: &[u8]) -> Result<Self, ParseError> {
        let lines = Lines::collect("backup_label", file)?;
        if lines.stop.is_some() || lines.stop_time.is_some() || lines.stop_timeline.is_some() {
            return Err(lines.bad("it says where the backup stopped, as only a .backup file does"));
        }
        lines.label()
    }

    /// Whether it is an incremental backup, on which no server starts before it was combined with those it builds upon.
    pub fn is_incremental(&self) -> bool {
        self.incremental_from.is_some()
    }
}

impl BackupHistory {
    /// Reads the body of a `.backup` file.
    pub fn parse(file: &[u8]) -> Result<Self, ParseError> {
        let lines = Lines::collect("backup history file", file)?;
        Ok(Self {
            label: lines.label()?,
            stop: located(lines.what, "STOP WAL LOCATION", lines.stop)?.0,
            stop_time: lines.required("STOP TIME", lines.stop_time)?.to_owned(),
            stop_timeline: lines.timeline("STOP TIMELINE", lines.stop_timeline)?,
        })
    }
}

const LABEL: &[u8] = b"LABEL: ";

/// The values of the lines, each at most once.
struct Lines<'a> {
    what: &'static str,
    start: Option<&'a str>,
    stop: Option<&'a str>,
    checkpoint: Option<&'a str>,
    method: Option<&'a str>,
    from: Option<&'a str>,
    start_time: Option<&'a str>,
    label: Option<String>,
    start_timeline: Option<&'a str>,
    stop_time: Option<&'a str>,
    stop_timeline: Option<&'a str>,
    incremental_lsn: Option<&'a str>,
    incremental_timeline: Option<&'a str>,
}

impl<'a> Lines<'a> {
    fn collect(what: &'static str, file: &'a [u8]) -> Result<Self, ParseError> {
        let body =
            file.strip_suffix(b"\n").ok_or_else(|| ParseError::new(what, "it does not end with a line break"))?;
        let mut lines = Self::empty(what);
        for (line, number) in body.split(|byte| *byte == b'\n').zip(1..) {
            match &mut lines.label {
                None if line.starts_with(LABEL) => {
                    lines.label = line.strip_prefix(LABEL).map(|label| String::from_utf8_lossy(label).into_owned());
                }
                // Nothing keeps line breaks out of a label; it ends where the line after it begins.
                Some(label) if lines.start_timeline.is_none() && !line.starts_with(b"START TIMELINE: ") => {
                    label.push('\n');
                    label.push_str(&String::from_utf8_lossy(line));
                }
                _ => {
                    let slot = std::str::from_utf8(line).ok().and_then(|line| lines.slot(line));
                    match slot {
                        Some((slot, value)) if slot.is_none() => *slot = Some(value),
                        _ => {
                            let line = String::from_utf8_lossy(line);
                            return Err(lines.bad(format!("line {number}, {line:?}, is unknown, or there twice")));
                        }
                    }
                }
            }
        }
        Ok(lines)
    }

    fn empty(what: &'static str) -> Self {
        Self {
            what,
            start: None,
            stop: None,
            checkpoint: None,
            method: None,
            from: None,
            start_time: None,
            label: None,
            start_timeline: None,
            stop_time: None,
            stop_timeline: None,
            incremental_lsn: None,
            incremental_timeline: None,
        }
    }

    /// Where the value of this line goes.
    fn slot(&mut self, line: &'a str) -> Option<(&mut Option<&'a str>, &'a str)> {
        let (key, value) = line.split_once(": ")?;
        let slot = match key {
            "START WAL LOCATION" => &mut self.start,
            "STOP WAL LOCATION" => &mut self.stop,
            "CHECKPOINT LOCATION" => &mut self.checkpoint,
            "BACKUP METHOD" => &mut self.method,
            "BACKUP FROM" => &mut self.from,
            "START TIME" => &mut self.start_time,
            "START TIMELINE" => &mut self.start_timeline,
            "STOP TIME" => &mut self.stop_time,
            "STOP TIMELINE" => &mut self.stop_timeline,
            "INCREMENTAL FROM LSN" => &mut self.incremental_lsn,
            "INCREMENTAL FROM TLI" => &mut self.incremental_timeline,
            _ => return None,
        };
        Some((slot, value))
    }

    fn label(&self) -> Result<BackupLabel, ParseError> {
        let (start, start_segment) = located(self.what, "START WAL LOCATION", self.start)?;
        let start_timeline = self.timeline("START TIMELINE", self.start_timeline)?;
        if start_segment.timeline() != start_timeline {
            return Err(self.bad(format!("timeline {start_timeline} is not that of {start_segment}")));
        }
        Ok(BackupLabel {
            start,
            start_segment,
            checkpoint: self.lsn("CHECKPOINT LOCATION", self.checkpoint)?,
            method: match self.required("BACKUP METHOD", self.method)? {
                "streamed" => BackupMethod::Streamed,
                "pg_start_backup" => BackupMethod::Exclusive,
                other => return Err(self.bad(format!("{other:?} is no known backup method"))),
            },
            source: match self.required("BACKUP FROM", self.from)? {
                "primary" | "master" => BackupSource::Primary,
                "standby" => BackupSource::Standby,
                other => return Err(self.bad(format!("{other:?} is no known source of a backup"))),
            },
            start_time: self.required("START TIME", self.start_time)?.to_owned(),
            label: self.label.clone().ok_or_else(|| self.missing("LABEL"))?,
            start_timeline,
            incremental_from: match (self.incremental_lsn, self.incremental_timeline) {
                (None, None) => None,
                (lsn, timeline) => {
                    Some((self.lsn("INCREMENTAL FROM LSN", lsn)?, self.timeline("INCREMENTAL FROM TLI", timeline)?))
                }
            },
        })
    }

    fn required(&self, key: &str, value: Option<&'a str>) -> Result<&'a str, ParseError> {
        value.ok_or_else(|| self.missing(key))
    }

    fn lsn(&self, key: &str, value: Option<&str>) -> Result<Lsn, ParseError> {
        value.ok_or_else(|| self.missing(key))?.parse().map_err(|error: ParseError| self.bad(format!("{key}: {error}")))
    }

    fn timeline(&self, key: &str, value: Option<&str>) -> Result<TimelineId, ParseError> {
        let value = value.ok_or_else(|| self.missing(key))?;
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| value.parse().ok())
            .flatten()
            .and_then(TimelineId::new)
            .ok_or_else(|| self.bad(format!("{key}: {value:?} is no timeline")))
    }

    fn missing(&self, key: &str) -> ParseError {
        self.bad(format!("there is no line {key}"))
    }

    fn bad(&self, why: impl Into<String>) -> ParseError {
        ParseError::new(self.what, why)
    }
}

/// Reads `0/B00028 (file 00000001000000000000000B)`.
fn located(what: &'static str, key: &str, value: Option<&str>) -> Result<(Lsn, SegmentName), ParseError> {
    let value = value.ok_or_else(|| ParseError::new(what, format!("there is no line {key}")))?;
    let parts = value.split_once(" (file ").and_then(|(lsn, rest)| Some((lsn, rest.strip_suffix(')')?)));
    parts
        .and_then(|(lsn, file)| Some((lsn.parse().ok()?, file.parse().ok()?)))
        .ok_or_else(|| ParseError::new(what, format!("{key}: {value:?} is not a position and its file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL_15: &str = "START WAL LOCATION: 0/B00028 (file 00000001000000000000000B)
CHECKPOINT LOCATION: 0/B00060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-24 09:01:37 UTC
LABEL: pg_basebackup base backup
START TIMELINE: 1
";

    const HISTORY_15: &str = "START WAL LOCATION: 0/B00028 (file 00000001000000000000000B)
STOP WAL LOCATION: 0/B00100 (file 00000001000000000000000B)
CHECKPOINT LOCATION: 0/B00060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-24 09:01:37 UTC
LABEL: pg_basebackup base backup
START TIMELINE: 1
STOP TIME: 2026-11-24 09:01:38 UTC
STOP TIMELINE: 1
";

    fn parse(text: &str) -> Result<BackupLabel, ParseError> {
        BackupLabel::parse(text.as_bytes())
    }

    #[test]
    fn a_label() {
        let label = parse(LABEL_15).unwrap();
        assert_eq!((label.start, label.checkpoint), (Lsn(0xB0_0028), Lsn(0xB0_0060)));
        assert_eq!(label.start_segment.to_string(), "00000001000000000000000B");
        assert_eq!((label.method, label.source), (BackupMethod::Streamed, BackupSource::Primary));
        assert_eq!(
            (label.start_time.as_str(), label.label.as_str()),
            ("2026-11-24 09:01:37 UTC", "pg_basebackup base backup")
        );
        assert_eq!((label.start_timeline, label.incremental_from), (TimelineId::FIRST, None));
    }

    #[test]
    fn what_other_versions_write() {
        assert_eq!(parse(&LABEL_15.replace("primary", "master")), parse(LABEL_15), "13");
        assert_eq!(parse(&LABEL_15.replace("primary", "standby")).unwrap().source, BackupSource::Standby);
        let exclusive = parse(&LABEL_15.replace("streamed", "pg_start_backup")).unwrap();
        assert_eq!(exclusive.method, BackupMethod::Exclusive);
        let incremental = format!("{LABEL_15}INCREMENTAL FROM LSN: 0/A00028\nINCREMENTAL FROM TLI: 1\n");
        let incremental = parse(&incremental).unwrap();
        assert!(incremental.is_incremental());
        assert_eq!(incremental.incremental_from, Some((Lsn(0xA0_0028), TimelineId::FIRST)));
        assert_eq!(parse(&LABEL_15.replace("0/B00060", "0/00B00060")), parse(LABEL_15), "19");
    }

    #[test]
    fn labels_are_free_text() {
        for label in ["", "nightly: full", "one\ntwo", "one\n\ntwo\n", "LABEL: x", "a\nLABEL: b"] {
            let parsed = parse(&LABEL_15.replace("pg_basebackup base backup", label)).unwrap();
            assert_eq!(parsed.label, label);
        }
        let mut bytes = LABEL_15.as_bytes().to_vec();
        let at = LABEL_15.find("pg_basebackup").unwrap();
        bytes[at] = 0xFF;
        assert_eq!(BackupLabel::parse(&bytes).unwrap().label, "\u{FFFD}g_basebackup base backup");
    }

    #[test]
    fn a_backup_file() {
        let history = BackupHistory::parse(HISTORY_15.as_bytes()).unwrap();
        assert_eq!(history.label, parse(LABEL_15).unwrap());
        assert_eq!((history.stop, history.stop_timeline), (Lsn(0xB0_0100), TimelineId::FIRST));
        assert_eq!(history.stop_time, "2026-11-24 09:01:38 UTC");
        assert!(parse(HISTORY_15).is_err(), "a .backup file is no label");
        assert!(BackupHistory::parse(LABEL_15.as_bytes()).is_err(), "a label is no .backup file");
    }

    #[test]
    fn every_line_is_needed_once() {
        for skipped in 0..7 {
            let mut text = String::new();
            for (number, line) in LABEL_15.lines().enumerate() {
                if number != skipped {
                    text += &format!("{line}\n");
                }
            }
            assert!(parse(&text).is_err(), "without line {}", skipped + 1);
        }
        for twice in LABEL_15.lines().filter(|line| !line.starts_with("LABEL")) {
            assert!(parse(&format!("{twice}\n{LABEL_15}")).is_err(), "{twice}");
        }
        for length in 0..LABEL_15.len() {
            assert!(parse(&LABEL_15[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn what_no_server_writes() {
        for (from, to) in [
            ("0/B00028", "B00028"),
            ("(file 00000001000000000000000B)", "(file 00000001000000000000000b)"),
            ("(file 00000001000000000000000B)", ""),
            ("(file 00000001", "(file 00000002"),
            ("START TIMELINE: 1", "START TIMELINE: 0"),
            ("START TIMELINE: 1", "START TIMELINE: +1"),
            ("START TIMELINE: 1", "START TIMELINE: "),
            ("streamed", "carried"),
            ("primary", "attic"),
            ("START TIMELINE: 1", "START TIMELINE: 1\nINCREMENTAL FROM LSN: 0/1"),
            ("START TIMELINE: 1", "START TIMELINE: 1\nand more"),
            ("BACKUP METHOD", "BACKUP_METHOD"),
        ] {
            assert!(parse(&LABEL_15.replace(from, to)).is_err(), "{to}");
        }
        assert!(parse("").is_err());
    }
}
