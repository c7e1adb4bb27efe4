//! The tar streams as they come: scanned, hashed file by file, and cut into frames and objects.

use super::agreement::{self, Agreement};
use super::assemble::{Item, SLICE};
use super::compress::Compressors;
use super::flow::Space;
use super::tar_scan::{Step, TarScan};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{ManifestReader, ManifestSummary, ParseError};
use crate::repo::index::{Member, MemberKind, Record, Sum};
use tokio::sync::mpsc;

/// A frame is closed at the first boundary between members from here on …
const FRAME: usize = 512 << 10;
/// … and within a file at this length, so that small files share frames and large ones have several.
pub(super) const FRAME_MOST: usize = 1536 << 10;
/// An object holds at most so many plain bytes.
pub(super) const OBJECT: usize = 16 << 20;
/// A file of the data directory that is kept for ourselves has at most so many bytes.
const KEPT_MOST: u64 = 64 << 10;

/// Files of the data directory that a backup may lack because they lie elsewhere.
const CONFIGURATION: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// The file under way.
#[derive(Debug)]
struct File {
    member: Member,
    crc32c: u32,
}

/// One archive.
#[derive(Debug)]
struct Open {
    space: Space,
    scan: TarScan,
    file: Option<File>,
    /// Plain bytes of the current object that are in frames already.
    in_object: usize,
}

/// What the streams told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `backup_label`, byte for byte.
    pub(super) label: Vec<u8>,
    /// Which of the configuration files are in the backup.
    pub(super) configuration: Vec<&'static str>,
    /// Bytes of all tar streams.
    pub(super) tar_bytes: u64,
    /// Regular files.
    pub(super) files: u64,
}

/// Takes what the server sends.
pub(super) struct Packer {
    compressors: Compressors,
    items: mpsc::Sender<Item>,
    open: Option<Open>,
    frame: Vec<u8>,
    agreement: Agreement,
    manifest: ManifestReader,
    slice: Vec<u8>,
    told: Told,
}

fn bug(what: &str) -> Error {
    Error::new(ErrorKind::Bug, what)
}

fn unreadable(cause: ParseError) -> Error {
    Error::new(ErrorKind::Corrupt, "the server's backup_manifest cannot be read").because(cause)
}

impl Packer {
    pub(super) fn new(compressors: Compressors, items: mpsc::Sender<Item>) -> Self {
        Self {
            compressors,
            items,
            open: None,
            frame: Vec::new(),
            agreement: Agreement::default(),
            manifest: ManifestReader::new(),
            slice: Vec::new(),
            told: Told::default(),
        }
    }

    /// Bytes of tar streams that have come.
    pub(super) fn received(&self) -> u64 {
        self.told.tar_bytes + self.open.as_ref().map_or(0, |open| open.scan.position())
    }

    /// A new archive begins; the one before has ended.
    pub(super) async fn archive(&mut self, space: Space) -> Result<()> {
        self.end_archive().await?;
        self.send(Item::Archive { name: space.name.clone(), location: space.location.clone() }).await?;
        self.open = Some(Open { space, scan: TarScan::new(), file: None, in_object: 0 });
        Ok(())
    }

    /// The next bytes of the archive.
    pub(super) async fn data(&mut self, mut input: &[u8]) -> Result<()> {
        while let Some(open) = self.open.as_mut().filter(|open| !input.is_empty() || open.scan.has_file_end()) {
            if open.scan.has_file_end() {
                // Before anything is cut: a file's sum precedes the object that its last byte is in.
                let (_, step) = open.scan.step(&[])?;
                self.met(step, &[]).await?;
                continue;
            }
            if open.scan.is_at_boundary() && self.frame.len() >= FRAME {
                self.cut_frame().await?;
                continue;
            }
            let room = FRAME_MOST.saturating_sub(self.frame.len());
            if room == 0 {
                self.cut_frame().await?;
                continue;
            }
            let (taken, step) = open.scan.step(input.get(..room.min(input.len())).unwrap_or(input))?;
            let (bytes, rest) = input.split_at(taken);
            self.frame.extend_from_slice(bytes);
            input = rest;
            self.met(step, bytes).await?;
        }
        if input.is_empty() {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Protocol, "the server sent data of no archive"))
        }
    }

    async fn met(&mut self, step: Step, bytes: &[u8]) -> Result<()> {
        let open = self.open.as_mut().ok_or_else(|| bug("a member of no archive"))?;
        match step {
            Step::Nothing => Ok(()),
            Step::Member(member) => {
                let base = open.space.name == "base";
                let known = CONFIGURATION.iter().find(|name| base && **name == member.path);
                self.told.configuration.extend(known);
                if base && member.path == "backup_label" && member.size > KEPT_MOST {
                    return Err(Error::new(ErrorKind::Protocol, "backup_label is too long to be one"));
                }
                let record = Record::File(member.clone());
                open.file = (member.kind == MemberKind::File).then_some(File { member, crc32c: 0 });
                self.send(Item::Record(record)).await
            }
            Step::Content => {
                let file = open.file.as_mut().ok_or_else(|| bug("content of no file"))?;
                file.crc32c = crc32c::crc32c_append(file.crc32c, bytes);
                if open.space.name == "base" && file.member.path == "backup_label" {
                    self.told.label.extend_from_slice(bytes);
                }
                Ok(())
            }
            Step::FileEnd => {
                let File { member, crc32c } = open.file.take().ok_or_else(|| bug("the end of no file"))?;
                let path = match open.space.name.as_str() {
                    "base" => member.path,
                    oid => format!("pg_tblspc/{oid}/{}", member.path),
                };
                self.agreement.ours(agreement::File { path: path.into_bytes(), size: member.size, crc32c });
                self.send(Item::Record(Record::Sum(Sum { at: member.at, crc32c }))).await
            }
        }
    }

    /// Closes the frame, and the object before it where it would become too large.
    async fn cut_frame(&mut self) -> Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let plain = std::mem::replace(&mut self.frame, Vec::with_capacity(FRAME_MOST));
        let length = plain.len();
        let pending = self.compressors.compress(plain).await?;
        self.send(Item::Frame(pending)).await?;
        let open = self.open.as_mut().ok_or_else(|| bug("a frame of no archive"))?;
        open.in_object += length;
        // Records are in the order of positions, so an object must end when its last byte passes, not later.
        if open.in_object + FRAME_MOST > OBJECT {
            open.in_object = 0;
            self.send(Item::ObjectEnd).await?;
        }
        Ok(())
    }

    async fn end_archive(&mut self) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        // A stored archive is a whole tar file, whatever the server's version leaves out.
        let missing = open.scan.missing_end()?;
        self.data(&vec![0; missing]).await?;
        self.cut_frame().await?;
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.in_object > 0 {
            self.send(Item::ObjectEnd).await?;
        }
        self.told.tar_bytes += open.scan.position();
        self.send(Item::ArchiveEnd(open.scan.position())).await
    }

    /// Postgres' manifest begins: all archives have ended.
    pub(super) async fn manifest(&mut self) -> Result<()> {
        self.end_archive().await
    }

    /// The next bytes of Postgres' manifest.
    pub(super) async fn manifest_data(&mut self, bytes: &[u8]) -> Result<()> {
        let mut unread = bytes;
        while let Some(file) = self.manifest.next(&mut unread).map_err(unreadable)? {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            let file = agreement::File::theirs(file).ok_or_else(|| {
                Error::new(ErrorKind::Protocol, format!("the server's backup_manifest has no CRC-32C of {path}"))
            })?;
            self.agreement.theirs(&file);
        }
        self.slice.extend_from_slice(bytes);
        while self.slice.len() >= SLICE {
            let rest = self.slice.split_off(SLICE);
            let slice = std::mem::replace(&mut self.slice, rest);
            self.send(Item::PgManifest(slice)).await?;
        }
        Ok(())
    }

    /// Everything has come: whether it is what Postgres says it sent.
    pub(super) async fn finish(mut self) -> Result<(Told, ManifestSummary)> {
        let slice = std::mem::take(&mut self.slice);
        if !slice.is_empty() {
            self.send(Item::PgManifest(slice)).await?;
        }
        let summary = self.manifest.finish().map_err(unreadable)?;
        let files = self.agreement.files();
        self.agreement.verdict()?;
        Ok((Told { files, ..self.told }, summary))
    }

    async fn send(&self, item: Item) -> Result<()> {
        // Whoever receives has ended with an error of his own, which is the one that counts.
        self.items.send(item).await.map_err(|_| Error::new(ErrorKind::Interrupted, "the backup was given up"))
    }
}
