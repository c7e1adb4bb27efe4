//! The course of BASE_BACKUP, by version: from a server's answers to pieces of archives and of its manifest. No I/O.
//!
//! 15 and later send one copy whose messages carry a type; 13 and 14 one copy for each archive, in the order of their list of
//! tablespaces, and one more for the manifest.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, PgMajor, TimelineId};
use crate::wire::{Event, ResultSet};
use bytes::Bytes;

/// What the operator may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish<'a> {
    pub(super) label: &'a str,
    pub(super) fast_checkpoint: bool,
    /// In kB/s.
    pub(super) max_rate: Option<u32>,
    /// Let the server say how much there will be; costs it a walk over all files.
    pub(super) estimate: bool,
}

/// The command.
pub(super) fn command(major: PgMajor, wish: &Wish<'_>) -> String {
    let label = wish.label.replace('\'', "''");
    let mut words = vec![format!("LABEL '{label}'")];
    if major >= PgMajor(15) {
        words.extend(wish.estimate.then(|| "PROGRESS".to_owned()));
        words.push(format!("CHECKPOINT '{}'", if wish.fast_checkpoint { "fast" } else { "spread" }));
        words.push("WAIT 0".to_owned());
        words.extend(wish.max_rate.map(|rate| format!("MAX_RATE {rate}")));
        words.extend(["TABLESPACE_MAP", "MANIFEST 'yes'", "MANIFEST_CHECKSUMS 'CRC32C'"].map(str::to_owned));
        format!("BASE_BACKUP ({})", words.join(", "))
    } else {
        words.extend(wish.estimate.then(|| "PROGRESS".to_owned()));
        words.extend(wish.fast_checkpoint.then(|| "FAST".to_owned()));
        words.push("NOWAIT".to_owned());
        words.extend(wish.max_rate.map(|rate| format!("MAX_RATE {rate}")));
        words.extend(["TABLESPACE_MAP", "MANIFEST 'yes'", "MANIFEST_CHECKSUMS 'CRC32C'"].map(str::to_owned));
        format!("BASE_BACKUP {}", words.join(" "))
    }
}

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) lsn: Lsn,
    pub(super) timeline: TimelineId,
}

/// A tablespace, or the data directory itself (`base`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Space {
    /// `base`, or the oid.
    pub(super) name: String,
    pub(super) location: Option<String>,
}

/// One step of a backup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The checkpoint is done: where the backup begins.
    Start(Point),
    /// What there will be, the data directory last, and the server's estimate of it in bytes.
    Spaces { spaces: Vec<Space>, estimate: Option<u64> },
    /// A new archive begins; the one before has ended.
    Archive(Space),
    /// Its bytes.
    Data(Bytes),
    /// Postgres' manifest begins; the last archive has ended.
    Manifest,
    /// Its bytes.
    ManifestData(Bytes),
    /// Where the backup ends. Only the server's verdict follows.
    End(Point),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Start,
    Spaces,
    /// Between copies; so many have begun.
    Copies(usize),
    /// In an archive's copy (13, 14), or in one that has not begun with a type yet (15).
    Archive(usize),
    Manifest(usize),
    End,
}

/// Follows the course.
#[derive(Debug)]
pub(super) struct Flow {
    major: PgMajor,
    state: State,
    spaces: Vec<Space>,
}

fn unexpected(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server's base backup went another way than its version's: {what}"))
}

impl Flow {
    pub(super) fn new(major: PgMajor) -> Self {
        Self { major, state: State::Start, spaces: Vec::new() }
    }

    /// Whether the course is complete, so that the command may end.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Takes the next answer; most have a meaning.
    pub(super) fn take(&mut self, event: Event) -> Result<Option<Piece>> {
        match (event, &self.state) {
            (Event::Result(result), State::Start) => {
                self.state = State::Spaces;
                Ok(Some(Piece::Start(point(&result)?)))
            }
            (Event::Result(result), State::Spaces) => {
                let (spaces, estimate) = spaces(&result)?;
                self.spaces.clone_from(&spaces);
                self.state = State::Copies(0);
                Ok(Some(Piece::Spaces { spaces, estimate }))
            }
            (Event::CopyOut, State::Copies(begun)) if *begun < self.copies() => self.copy_begins(*begun),
            (Event::CopyData(bytes), State::Archive(_) | State::Manifest(_)) => self.data(bytes),
            (Event::CopyDone, State::Archive(begun) | State::Manifest(begun)) => {
                self.state = State::Copies(*begun);
                Ok(None)
            }
            (Event::Result(result), State::Copies(begun)) if *begun == self.copies() => {
                self.state = State::End;
                Ok(Some(Piece::End(point(&result)?)))
            }
            (Event::Complete(_), State::End) => Ok(None),
            (event, state) => Err(unexpected(format!("{} in {state:?}", named(&event)))),
        }
    }

    fn is_typed(&self) -> bool {
        self.major >= PgMajor(15)
    }

    /// How many copies there are in all.
    fn copies(&self) -> usize {
        if self.is_typed() { 1 } else { self.spaces.len() + 1 }
    }

    fn copy_begins(&mut self, begun: usize) -> Result<Option<Piece>> {
        if self.is_typed() {
            self.state = State::Archive(begun + 1);
            return Ok(None);
        }
        match self.spaces.get(begun).cloned() {
            Some(space) => {
                self.state = State::Archive(begun + 1);
                Ok(Some(Piece::Archive(space)))
            }
            None => {
                self.state = State::Manifest(begun + 1);
                Ok(Some(Piece::Manifest))
            }
        }
    }

    fn data(&mut self, bytes: Bytes) -> Result<Option<Piece>> {
        let in_manifest = matches!(self.state, State::Manifest(_));
        let plain = |bytes| if in_manifest { Piece::ManifestData(bytes) } else { Piece::Data(bytes) };
        if !self.is_typed() {
            return Ok(Some(plain(bytes)));
        }
        match bytes.first() {
            Some(b'd') => Ok(Some(plain(bytes.slice(1..)))),
            Some(b'n') if !in_manifest => self.named_archive(&bytes).map(Some),
            Some(b'm') if !in_manifest => {
                self.state = State::Manifest(1);
                Ok(Some(Piece::Manifest))
            }
            // How far it is; we count ourselves.
            Some(b'p') => Ok(None),
            other => Err(unexpected(format!("a message of type {other:?}"))),
        }
    }

    /// `n`, then the archive's name and its location, each ended by a zero byte.
    fn named_archive(&self, bytes: &[u8]) -> Result<Piece> {
        let mut parts = bytes.get(1..).unwrap_or_default().split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let name = parts.next().unwrap_or_default();
        let name = name.strip_suffix(".tar").ok_or_else(|| unexpected(format!("an archive named {name:?}")))?;
        let space = self.spaces.iter().find(|space| space.name == name);
        space.cloned().map(Piece::Archive).ok_or_else(|| unexpected(format!("an archive named {name:?}")))
    }
}

fn named(event: &Event) -> &'static str {
    match event {
        Event::Result(_) => "rows",
        Event::Complete(_) => "the end of a command",
        Event::CopyOut => "a copy",
        Event::CopyBoth => "a copy both ways",
        Event::CopyData(_) => "data",
        Event::CopyDone => "the end of a copy",
    }
}

fn point(result: &ResultSet) -> Result<Point> {
    let lsn = result.text(0, 0).and_then(|text| text.parse().ok());
    let timeline = result.text(0, 1).and_then(|text| text.parse().ok()).and_then(TimelineId::new);
    match (lsn, timeline) {
        (Some(lsn), Some(timeline)) => Ok(Point { lsn, timeline }),
        _ => Err(unexpected("a position that cannot be read")),
    }
}

/// Rows of oid, location and size in kB; oid and location are NULL for the data directory, the size where nobody asked.
fn spaces(result: &ResultSet) -> Result<(Vec<Space>, Option<u64>)> {
    let mut spaces = Vec::new();
    let mut estimate = None;
    for row in 0..result.rows.len() {
        let name = match result.text(row, 0) {
            None => "base".to_owned(),
            Some(oid) if !oid.is_empty() && oid.bytes().all(|b| b.is_ascii_digit()) => oid.into_owned(),
            Some(oid) => return Err(unexpected(format!("a tablespace {oid:?}"))),
        };
        let location = result.text(row, 1).map(std::borrow::Cow::into_owned);
        spaces.push(Space { name, location });
        let size = result.text(row, 2).and_then(|text| text.parse::<u64>().ok());
        estimate = size.map(|size| estimate.unwrap_or(0) + size * 1024).or(estimate);
    }
    if spaces.iter().filter(|space| space.name == "base").count() == 1 {
        Ok((spaces, estimate))
    } else {
        Err(unexpected("not one data directory in the list of tablespaces"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[Option<&str>]]) -> Event {
        let cell = |cell: &Option<&str>| cell.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let rows = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        Event::Result(ResultSet { columns: Vec::new(), rows })
    }

    fn data(bytes: &'static [u8]) -> Event {
        Event::CopyData(Bytes::from_static(bytes))
    }

    fn start() -> Vec<Event> {
        let base = [None, None, Some("20")];
        let space = [Some("16384"), Some("/space"), Some("10")];
        vec![rows(&[&[Some("0/2000028"), Some("1")]]), rows(&[&space, &base])]
    }

    fn told(major: u16, events: Vec<Event>) -> Result<Vec<String>> {
        let mut flow = Flow::new(PgMajor(major));
        let mut told = Vec::new();
        for event in events {
            told.extend(flow.take(event)?.map(|piece| match piece {
                Piece::Start(point) => format!("start {} {}", point.lsn, point.timeline),
                Piece::Spaces { spaces, estimate } => format!("{} spaces {estimate:?}", spaces.len()),
                Piece::Archive(space) => format!("{} {}", space.name, space.location.unwrap_or_default()),
                Piece::Data(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Piece::Manifest => "manifest".to_owned(),
                Piece::ManifestData(bytes) => format!("m{}", String::from_utf8_lossy(&bytes)),
                Piece::End(point) => format!("end {}", point.lsn),
            }));
        }
        told.push(format!("complete {}", flow.is_complete()));
        Ok(told)
    }

    const EXPECTED: [&str; 11] = [
        "start 0/2000028 1",
        "2 spaces Some(30720)",
        "16384 /space",
        "one",
        "base ",
        "two",
        "three",
        "manifest",
        "m{}",
        "end 0/2000100",
        "complete true",
    ];

    #[test]
    fn typed_since_15() {
        let mut events = start();
        events.extend([
            Event::CopyOut,
            data(b"n16384.tar\0/space\0"),
            data(b"done"),
            data(b"p\0\0\0\0\0\0\0\x01"),
            data(b"nbase.tar\0\0"),
            data(b"dtwo"),
            data(b"dthree"),
            data(b"m"),
            data(b"d{}"),
            Event::CopyDone,
            rows(&[&[Some("0/2000100"), Some("1")]]),
            Event::Complete("BASE_BACKUP".to_owned()),
        ]);
        assert_eq!(told(15, events).unwrap(), EXPECTED);
    }

    #[test]
    fn a_copy_each_before() {
        let mut events = start();
        events.extend([
            Event::CopyOut,
            data(b"one"),
            Event::CopyDone,
            Event::CopyOut,
            data(b"two"),
            data(b"three"),
            Event::CopyDone,
            Event::CopyOut,
            data(b"{}"),
            Event::CopyDone,
            rows(&[&[Some("0/2000100"), Some("1")]]),
            Event::Complete("SELECT".to_owned()),
        ]);
        assert_eq!(told(14, events).unwrap(), EXPECTED);
    }

    #[test]
    fn other_courses_are_refused() {
        let end = || rows(&[&[Some("0/2000100"), Some("1")]]);
        let after = |events: Vec<Event>| start().into_iter().chain(events).collect::<Vec<_>>();
        for (major, events) in [
            (15, vec![Event::CopyOut]),
            (15, vec![rows(&[&[Some("x"), Some("1")]])]),
            (15, after(vec![end()])),
            (15, after(vec![Event::CopyOut, data(b"x")])),
            (15, after(vec![Event::CopyOut, data(b"nother.tar\0\0")])),
            (15, after(vec![Event::CopyOut, data(b"nbase.tar.gz\0\0")])),
            (15, after(vec![Event::CopyOut, Event::CopyDone, Event::CopyOut])),
            (14, after(vec![Event::CopyOut, Event::CopyDone, end()])),
            (14, after(vec![Event::CopyBoth])),
        ] {
            assert!(told(major, events).is_err());
        }
    }

    #[test]
    fn commands() {
        let wish = Wish { label: "it's", fast_checkpoint: true, max_rate: Some(64), estimate: false };
        assert_eq!(
            command(PgMajor(15), &wish),
            "BASE_BACKUP (LABEL 'it''s', CHECKPOINT 'fast', WAIT 0, MAX_RATE 64, TABLESPACE_MAP, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'CRC32C')"
        );
        assert_eq!(
            command(PgMajor(13), &Wish { max_rate: None, estimate: true, ..wish }),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
    }
}
