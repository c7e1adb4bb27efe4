//! A tar stream, read as it flows past: where members begin and end. No I/O, nothing kept but the header under way.
//!
//! Postgres writes plain ustar, with GNU's base-256 for sizes of 8 GiB and more; anything else is refused. What is refused
//! cannot be described in the index, and a backup that cannot be described must not be made.

use crate::error::{Error, ErrorKind, Result};
use crate::repo::index::{Member, MemberKind};

/// Size of a tar block.
const BLOCK: usize = 512;

/// What a step met in the bytes it took.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Part of a header, padding, or the closing blocks.
    Nothing,
    /// A member's header has passed.
    Member(Member),
    /// Content of the current file.
    Content,
    /// The current file's last byte has passed (in an earlier step). Takes no bytes.
    FileEnd,
}

#[derive(Debug)]
enum State {
    /// Within a header; so many bytes of it are in `header`.
    Header(usize),
    /// Within a file: so many bytes are to come, then padding.
    Content { left: u64, padding: usize },
    /// Behind a file.
    Padding(usize),
    /// Behind the last member; so many bytes of closing zeros have passed.
    Closed(usize),
}

/// The scanner of one archive.
#[derive(Debug)]
pub(super) struct TarScan {
    state: State,
    header: [u8; BLOCK],
    /// Bytes that have passed.
    position: u64,
}

impl TarScan {
    pub(super) fn new() -> Self {
        Self { state: State::Header(0), header: [0; BLOCK], position: 0 }
    }

    /// Bytes that have passed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the next byte begins a member (or closes the archive).
    pub(super) fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Header(0))
    }

    /// Takes some of the bytes at the beginning of `input`: how many, and what they were. `input` is not empty, or the last
    /// step may have left a [`Step::FileEnd`] to be told.
    pub(super) fn step(&mut self, input: &[u8]) -> Result<(usize, Step)> {
        let (taken, step) = match self.state {
            State::Header(filled) => {
                let taken = input.len().min(BLOCK - filled);
                if let (Some(room), Some(bytes)) = (self.header.get_mut(filled..filled + taken), input.get(..taken)) {
                    room.copy_from_slice(bytes);
                }
                self.state = State::Header(filled + taken);
                self.position += taken as u64;
                let step = if filled + taken == BLOCK { self.header_done()? } else { Step::Nothing };
                return Ok((taken, step));
            }
            State::Content { left: 0, padding } => {
                self.state = if padding == 0 { State::Header(0) } else { State::Padding(padding) };
                (0, Step::FileEnd)
            }
            State::Content { left, padding } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                self.state = State::Content { left: left - taken as u64, padding };
                (taken, Step::Content)
            }
            State::Padding(left) => {
                let taken = left.min(input.len());
                self.state = if taken == left { State::Header(0) } else { State::Padding(left - taken) };
                (taken, Step::Nothing)
            }
            State::Closed(passed) => {
                if input.iter().any(|byte| *byte != 0) {
                    return Err(malformed("there is something behind its end"));
                }
                self.state = State::Closed(passed + input.len());
                (input.len(), Step::Nothing)
            }
        };
        self.position += taken as u64;
        Ok((taken, step))
    }

    /// Whether a [`Step::FileEnd`] waits to be told.
    pub(super) fn has_file_end(&self) -> bool {
        matches!(self.state, State::Content { left: 0, .. })
    }

    /// The stream has ended: how many zero bytes are missing to its two closing blocks (13 and 14 leave them out).
    pub(super) fn missing_end(&self) -> Result<usize> {
        match self.state {
            State::Header(0) => Ok(2 * BLOCK),
            State::Closed(passed) if passed % BLOCK == 0 => Ok((2 * BLOCK).saturating_sub(passed)),
            _ => Err(malformed("it ends in the middle of a member")),
        }
    }

    fn header_done(&mut self) -> Result<Step> {
        if self.header.iter().all(|byte| *byte == 0) {
            self.state = State::Closed(BLOCK);
            return Ok(Step::Nothing);
        }
        let member = read_header(&self.header, self.position)?;
        self.state = match member.kind {
            MemberKind::File => {
                let over = usize::try_from(member.size % BLOCK as u64).unwrap_or(0);
                State::Content { left: member.size, padding: if over == 0 { 0 } else { BLOCK - over } }
            }
            MemberKind::Dir | MemberKind::Link => State::Header(0),
        };
        Ok(Step::Member(member))
    }
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server sent a malformed tar archive: {why}"))
}

fn read_header(block: &[u8; BLOCK], at: u64) -> Result<Member> {
    let header = tar::Header::from_byte_slice(block);
    let number = |read: std::io::Result<u64>| read.map_err(|error| malformed(error.to_string()));
    // The checksum is of the header with its own field blank.
    let sum: u32 =
        block.iter().enumerate().map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b })).sum();
    if number(header.cksum().map(u64::from))? != u64::from(sum) {
        return Err(malformed("a header's checksum is wrong"));
    }
    let kind = match block.get(156) {
        Some(b'0' | 0) => MemberKind::File,
        Some(b'5') => MemberKind::Dir,
        Some(b'2') => MemberKind::Link,
        other => return Err(malformed(format!("a member of type {other:?}"))),
    };
    let path = path(&header.path_bytes())?;
    let target = match kind {
        MemberKind::Link => Some(text(&header.link_name_bytes().unwrap_or_default())?),
        MemberKind::File | MemberKind::Dir => None,
    };
    let size = if kind == MemberKind::File { number(header.entry_size())? } else { 0 };
    let mode = header.mode().map_err(|error| malformed(error.to_string()))? & 0o7777;
    Ok(Member { kind, path, size, mode, mtime: number(header.mtime())?, target, at })
}

/// A name without leading `./` and closing slash; nothing that could lead out of where it is restored.
fn path(bytes: &[u8]) -> Result<String> {
    let name = text(bytes)?;
    let plain = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/');
    let safe = !plain.is_empty() && plain.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if safe { Ok(plain.to_owned()) } else { Err(malformed(format!("a member named {name:?}"))) }
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
        Error::new(ErrorKind::Config, format!("the file name {shown:?} in the data directory is not UTF-8"))
            .hint("Postgres makes no such names: remove or rename the file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o100_600);
            header.set_mtime(7);
            if kind == tar::EntryType::Symlink {
                header.set_link_name_literal("/somewhere").unwrap();
            }
            header.set_cksum();
            builder.append(&header, content).unwrap();
        };
        add("backup_label", tar::EntryType::Regular, b"START");
        add("./pg_wal/archive_status/", tar::EntryType::Directory, b"");
        add("empty", tar::EntryType::Regular, b"");
        add("block", tar::EntryType::Regular, &[1; 512]);
        add("pg_tblspc/1/", tar::EntryType::Symlink, b"");
        add("global/pg_control", tar::EntryType::Regular, &[2; 1300]);
        builder.into_inner().unwrap()
    }

    /// What a scan in pieces of this size tells, a line each.
    fn told(stream: &[u8], piece: usize) -> Result<(Vec<String>, TarScan)> {
        let mut scan = TarScan::new();
        let (mut lines, mut content) = (Vec::new(), 0);
        for mut input in stream.chunks(piece) {
            while !input.is_empty() || scan.has_file_end() {
                let (taken, step) = scan.step(input)?;
                match step {
                    Step::Nothing => {}
                    Step::Member(member) => lines.push(format!("{:?} {} {}", member.kind, member.path, member.size)),
                    Step::Content => content += taken,
                    Step::FileEnd => lines.push(format!("end after {}", std::mem::take(&mut content))),
                }
                input = &input[taken..];
            }
        }
        Ok((lines, scan))
    }

    #[test]
    fn the_same_in_pieces_of_any_size() {
        let stream = archive();
        let expected = [
            "File backup_label 5",
            "end after 5",
            "Dir pg_wal/archive_status 0",
            "File empty 0",
            "end after 0",
            "File block 512",
            "end after 512",
            "Link pg_tblspc/1 0",
            "File global/pg_control 1300",
            "end after 1300",
        ];
        for piece in [1, 7, 511, 512, 513, 1024, 5000, usize::MAX] {
            let (lines, scan) = told(&stream, piece).unwrap();
            assert_eq!(lines, expected, "{piece}");
            assert_eq!(scan.position(), stream.len() as u64);
            assert_eq!(scan.missing_end().unwrap(), 0);
        }
        // 13 and 14 leave the closing blocks out.
        let (_, scan) = told(&stream[..stream.len() - 1024], 100).unwrap();
        assert_eq!(scan.missing_end().unwrap(), 1024);
        let (_, scan) = told(&stream[..stream.len() - 512], 100).unwrap();
        assert_eq!(scan.missing_end().unwrap(), 512);
    }

    #[test]
    fn positions_modes_and_targets() {
        let mut scan = TarScan::new();
        let stream = archive();
        let (_, Step::Member(first)) = scan.step(&stream).unwrap() else { panic!() };
        assert_eq!((first.at, first.mode, first.mtime), (512, 0o600, 7));
        let link = stream.chunks(512).position(|block| block.starts_with(b"pg_tblspc/1/")).unwrap();
        let mut scan = TarScan::new();
        let (_, Step::Member(link)) = scan.step(&stream[link * 512..]).unwrap() else { panic!() };
        assert_eq!((link.kind, link.target.as_deref()), (MemberKind::Link, Some("/somewhere")));
    }

    #[test]
    fn sizes_beyond_8_gib() {
        let mut header = tar::Header::new_ustar();
        header.set_path("big").unwrap();
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_size(9 << 30);
        header.set_cksum();
        assert_eq!(header.as_old().size[0], 0x80, "base-256");
        let (_, Step::Member(member)) = TarScan::new().step(header.as_bytes()).unwrap() else { panic!() };
        assert_eq!(member.size, 9 << 30);
    }

    #[test]
    fn what_is_no_tar_of_postgres() {
        let header = |name: &[u8], change: fn(&mut tar::Header)| {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_size(0);
            header.set_mode(0o600);
            header.set_mtime(0);
            change(&mut header);
            header.set_cksum();
            *header.as_bytes()
        };
        for block in [
            header(b"/etc/passwd", |_| {}),
            header(b"../up", |_| {}),
            header(b"a/../up", |_| {}),
            header(b"./", |_| {}),
            header(b"a//b", |_| {}),
            header(b"a\xff", |_| {}),
            header(b"fifo", |header| header.set_entry_type(tar::EntryType::Fifo)),
            [1; 512],
        ] {
            assert!(TarScan::new().step(&block).is_err());
        }
        let mut damaged = header(b"fine", |_| {});
        damaged[0] ^= 1;
        assert!(TarScan::new().step(&damaged).is_err());
        assert!(TarScan::new().step(&header(b"fine", |_| {})).is_ok());
        let stream = archive();
        assert!(told(&stream[..700], 512).unwrap().1.missing_end().is_err());
        let mut more = stream.clone();
        more.push(1);
        assert!(told(&more, 512).is_err());
    }
}
