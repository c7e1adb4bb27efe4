//! Frames to objects, and the index that describes them. Runs on a thread of its own: it waits for the threads that compress.

use super::budget::{Budget, Share};
use super::compress::{Packed, Pending};
use super::upload::Upload;
use crate::codec::{ContentHash, Encoding, HEADER_LEN, Kind, Subject, encode_bytes, seal};
use crate::error::{Error, ErrorKind, Result};
use crate::repo::index::{DataObject, Frame, Record};
use crate::repo::manifest::{Archive, ObjectRef};
use crate::repo::{BackupId, Layout};
use crate::storage::Key;
use tokio::sync::mpsc;

/// How many plain bytes of records or of Postgres' manifest go into one object.
pub(super) const SLICE: usize = 1 << 20;

/// How many bytes objects may take at once: the one under way, and those that are being stored.
const OBJECTS: usize = 50 << 20;

/// Room for an object whose frames did not shrink.
const ROOM: usize = super::pack::OBJECT + HEADER_LEN + (128 << 10);

// One object must always fit, also where it is in memory twice.
const _: () = assert!(2 * ROOM <= OBJECTS);

/// How often an object is in memory.
#[derive(Debug, Clone, Copy)]
struct Copies {
    /// While it is made: encrypting makes another of it.
    made: usize,
    /// While it is stored: some endpoints make us read back what they were given.
    stored: usize,
}

impl Copies {
    fn new(is_encrypted: bool, is_read_back: bool) -> Self {
        Self { made: 1 + usize::from(is_encrypted), stored: 1 + usize::from(is_read_back) }
    }

    /// For an object whose size is not known yet. A share never grows: so what storing will need is taken as well.
    fn room(self) -> usize {
        ROOM * self.made.max(self.stored)
    }

    /// For a finished one of so many bytes.
    fn finished(self, bytes: usize) -> usize {
        bytes * self.stored
    }
}

/// What is to be assembled, in the order of the stream.
pub(super) enum Item {
    /// A new archive begins.
    Archive { name: String, location: Option<String> },
    /// A record for the index.
    Record(Record),
    /// The next frame of the current object.
    Frame(Pending),
    /// The current object is complete.
    ObjectEnd,
    /// The current archive is complete; its length.
    ArchiveEnd(u64),
    /// The next slice of Postgres' manifest.
    PgManifest(Vec<u8>),
}

/// What objects of this backup are about, and how they are made.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) layout: Layout,
    pub(super) id: BackupId,
    pub(super) subject: Subject,
    pub(super) encoding: Encoding,
}

impl Maker {
    /// The subject for this kind of object.
    pub(super) fn subject(&self, kind: Kind) -> Subject {
        Subject { kind, ..self.subject }
    }

    fn slice(&self, kind: Kind, key: Key, plain: &[u8]) -> Result<(Upload, ObjectRef)> {
        let object = encode_bytes(plain, self.subject(kind), &self.encoding)?;
        let reference = ObjectRef {
            size: object.bytes.len() as u64,
            plain: object.header.plain_length,
            hash: object.header.plain_hash,
        };
        Ok((Upload { key, object, share: None }, reference))
    }
}

/// What was assembled.
#[derive(Debug, Default)]
pub(super) struct Assembled {
    pub(super) archives: Vec<Archive>,
    pub(super) index: Vec<ObjectRef>,
    pub(super) pg_manifest: Vec<ObjectRef>,
}

/// The object under way.
struct Open {
    /// Room for the header, then frames.
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
    plain: u64,
    frames: Vec<Frame>,
    share: Share,
}

impl Open {
    /// Waits for room.
    fn new(budget: &Budget, copies: Copies) -> Self {
        let share = budget.take(copies.room());
        // With room for the header that `seal` puts in front, so that nothing need be moved to another place. What is not
        // written to takes no memory.
        let bytes = Vec::with_capacity(ROOM);
        Self { bytes, hasher: blake3::Hasher::new(), plain: 0, frames: Vec::new(), share }
    }
}

struct Assembler {
    maker: Maker,
    uploads: mpsc::Sender<Upload>,
    records: Vec<u8>,
    budget: Budget,
    copies: Copies,
    open: Option<Open>,
    /// Position of the open object in its archive.
    at: u64,
    done: Assembled,
}

/// Assembles what comes until there is no more. Blocks. `is_read_back`: storing an object takes as much memory again.
pub(super) fn run(
    maker: Maker,
    mut items: mpsc::Receiver<Item>,
    uploads: mpsc::Sender<Upload>,
    is_read_back: bool,
) -> Result<Assembled> {
    let budget = Budget::new(OBJECTS);
    let copies = Copies::new(!maker.encoding.recipients.is_empty(), is_read_back);
    let (records, done) = (Vec::new(), Assembled::default());
    let mut assembler = Assembler { maker, uploads, records, budget, copies, open: None, at: 0, done };
    while let Some(item) = items.blocking_recv() {
        assembler.take(item)?;
    }
    assembler.flush_records()?;
    Ok(assembler.done)
}

/// The other side has been given up; its error is the one that counts.
fn given_up() -> Error {
    Error::new(ErrorKind::Interrupted, "the backup was given up")
}

impl Assembler {
    fn take(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Archive { name, location } => {
                self.at = 0;
                self.record(&Record::Archive(name.clone()))?;
                self.done.archives.push(Archive { name, location, objects: 0, tar_bytes: 0 });
                Ok(())
            }
            Item::Record(record) => self.record(&record),
            Item::Frame(pending) => {
                let packed = pending.blocking_recv().map_err(|_| given_up())??;
                self.frame(&packed)
            }
            Item::ObjectEnd => self.object_end(),
            Item::ArchiveEnd(tar_bytes) => {
                let archive = self.archive()?;
                archive.tar_bytes = tar_bytes;
                Ok(())
            }
            Item::PgManifest(slice) => self.pg_manifest(&slice),
        }
    }

    fn archive(&mut self) -> Result<&mut Archive> {
        self.done.archives.last_mut().ok_or_else(|| Error::new(ErrorKind::Bug, "data without an archive"))
    }

    fn frame(&mut self, packed: &Packed) -> Result<()> {
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map_err(|_| Error::new(ErrorKind::Bug, "a frame of more than 4 GiB"))
        };
        let open = self.open.get_or_insert_with(|| Open::new(&self.budget, self.copies));
        open.frames.push(Frame { packed: length(&packed.frame)?, plain: length(&packed.plain)?, crc32: packed.crc32 });
        open.hasher.update(&packed.plain);
        open.plain += packed.plain.len() as u64;
        open.bytes.extend_from_slice(&packed.frame);
        Ok(())
    }

    fn object_end(&mut self) -> Result<()> {
        let open = self.open.take().ok_or_else(|| Error::new(ErrorKind::Bug, "an object without frames"))?;
        let Open { mut bytes, hasher, plain, frames, mut share } = open;
        bytes.shrink_to(bytes.len() + HEADER_LEN);
        let hash = ContentHash(*hasher.finalize().as_bytes());
        let subject = self.maker.subject(Kind::BackupData);
        let object = seal(bytes, plain, hash, subject, &self.maker.encoding.recipients)?;
        let archive = self.archive()?;
        let number = archive.objects;
        archive.objects += 1;
        let key = {
            let name = archive.name.clone();
            self.maker.layout.backup_data(&self.maker.id, &name, number)
        };
        let size = object.bytes.len() as u64;
        self.record(&Record::Data(DataObject { number, at: self.at, plain, hash, size, frames }))?;
        self.at += plain;
        share.shrink(self.copies.finished(object.bytes.len()));
        self.upload(Upload { key, object, share: Some(share) })
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_vec(record)
            .map_err(|error| Error::new(ErrorKind::Bug, "cannot write a record of the index").because(error))?;
        if !self.records.is_empty() && self.records.len() + line.len() >= SLICE {
            self.flush_records()?;
        }
        self.records.extend_from_slice(&line);
        self.records.push(b'\n');
        Ok(())
    }

    fn flush_records(&mut self) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let number = number(&self.done.index)?;
        let key = self.maker.layout.backup_index(&self.maker.id, number);
        let (upload, reference) = self.maker.slice(Kind::BackupIndex, key, &self.records)?;
        self.records.clear();
        self.done.index.push(reference);
        self.upload(upload)
    }

    fn pg_manifest(&mut self, slice: &[u8]) -> Result<()> {
        let number = number(&self.done.pg_manifest)?;
        let key = self.maker.layout.backup_pg_manifest(&self.maker.id, number);
        let (upload, reference) = self.maker.slice(Kind::PgManifest, key, slice)?;
        self.done.pg_manifest.push(reference);
        self.upload(upload)
    }

    fn upload(&self, upload: Upload) -> Result<()> {
        self.uploads.blocking_send(upload).map_err(|_| given_up())
    }
}

fn number(made: &[ObjectRef]) -> Result<u32> {
    u32::try_from(made.len()).map_err(|_| Error::new(ErrorKind::Bug, "more objects than have numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_twice_is_counted_twice() {
        for (is_encrypted, is_read_back, room, finished) in [
            (false, false, ROOM, 10),
            (true, false, 2 * ROOM, 10),
            (false, true, 2 * ROOM, 20),
            (true, true, 2 * ROOM, 20),
        ] {
            let copies = Copies::new(is_encrypted, is_read_back);
            assert_eq!((copies.room(), copies.finished(10)), (room, finished));
            assert!(copies.finished(ROOM) <= copies.room(), "a share only shrinks");
        }
    }
}
