//! Plain bytes to a stored object.

use super::crypt::AGE_MAGIC;
use super::frames::parameters;
use super::{ContentHash, HEADER_LEN, ObjectHeader, PayloadSeal, Recipients, Subject};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::io::{self, Read, Write};
use zstd::zstd_safe::CParameter;

/// How much is read at once.
const PIECE: usize = 128 << 10;

/// How much one of several threads compresses at once, in bytes: the least that zstd allows, because each has some memory.
const JOB: u32 = 512 << 10;

/// How much room an object gets at first. It grows as far as it must.
const FIRST_ROOM: u64 = 4 << 20;

/// How to encode.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// zstd level.
    pub level: i32,
    /// Whom to encrypt to.
    pub recipients: Recipients,
}

/// An object ready to be stored.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its header.
    pub header: ObjectHeader,
    /// All its bytes, the header's frame first.
    pub bytes: Bytes,
}

/// Reads `plain_length` bytes from `source` in one pass with small buffers, hashing and compressing. Fewer or more bytes than
/// announced are an error of kind `Mismatch`; a failed read is `LocalIo`.
///
/// Memory: the object's own size, and a few MiB for zstd.
pub fn encode(source: &mut dyn Read, plain_length: u64, subject: Subject, encoding: &Encoding) -> Result<Encoded> {
    encode_beside(source, plain_length, subject, encoding, 1)
}

/// [`encode`], compressed by this many threads beside the one that calls, which reads and hashes; with 1, by that one itself.
/// Two threads and more make the same bytes; one makes others, of the same plain bytes.
pub fn encode_beside(
    source: &mut dyn Read,
    plain_length: u64,
    subject: Subject,
    encoding: &Encoding,
    threads: u32,
) -> Result<Encoded> {
    let room = HEADER_LEN as u64 + (plain_length / 4).min(FIRST_ROOM);
    let sink = Sink::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)), &encoding.recipients)?;
    let mut zstd = compressor(sink, plain_length, encoding.level, threads).map_err(cannot("start zstd"))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; usize::try_from(plain_length).unwrap_or(PIECE).clamp(1, PIECE)];
    let mut left = plain_length;
    loop {
        let read = match source.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::new(ErrorKind::LocalIo, "cannot read the source").because(error)),
        };
        let bytes = &piece[..read];
        if read == 0 || read as u64 > left {
            return if read == 0 && left == 0 {
                finish(zstd, hasher, plain_length, subject)
            } else {
                Err(other_length(plain_length, left, read))
            };
        }
        hasher.update(bytes);
        zstd.write_all(bytes).map_err(cannot("compress"))?;
        left -= read as u64;
    }
}

fn other_length(announced: u64, left: u64, read: usize) -> Error {
    let what = match read {
        0 => format!("it ended after {} of {announced} bytes", announced - left),
        _ => format!("there is more of it than the announced {announced} bytes"),
    };
    Error::new(ErrorKind::Mismatch, format!("the source changed while it was read: {what}"))
}

type Compressor = zstd::stream::write::Encoder<'static, Sink>;

fn compressor(sink: Sink, plain_length: u64, level: i32, threads: u32) -> io::Result<Compressor> {
    let mut zstd = zstd::stream::write::Encoder::new(sink, level)?;
    for parameter in parameters(level).into_iter().chain(suited_to_wal(level)) {
        zstd.set_parameter(parameter)?;
    }
    if threads > 1 {
        zstd.set_parameter(CParameter::NbWorkers(threads))?;
        zstd.set_parameter(CParameter::JobSize(JOB))?;
    }
    zstd.set_pledged_src_size(Some(plain_length))?;
    Ok(zstd)
}

/// What zstd's level 1 is given for WAL, which repeats itself in pieces shorter than those it looks for (7 bytes) and soon: it
/// then makes objects about as small as level 3 does, in half the time (`docs/decisions.md`).
fn suited_to_wal(level: i32) -> Vec<CParameter> {
    match level {
        1 => vec![CParameter::WindowLog(19), CParameter::HashLog(13), CParameter::MinMatch(5)],
        _ => Vec::new(),
    }
}

fn finish(zstd: Compressor, hasher: blake3::Hasher, plain_length: u64, subject: Subject) -> Result<Encoded> {
    let sink = zstd.finish().map_err(cannot("compress"))?;
    sink.finish(plain_length, ContentHash(*hasher.finalize().as_bytes()), subject)
}

/// Nothing here touches a file: what fails is zstd or age themselves.
fn cannot(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::new(ErrorKind::Bug, format!("cannot {doing}")).because(error)
}

/// [`encode`] of bytes in memory.
pub fn encode_bytes(plain: &[u8], subject: Subject, encoding: &Encoding) -> Result<Encoded> {
    encode(&mut &plain[..], plain.len() as u64, subject, encoding)
}

/// Puts header and, where asked, encryption around frames that the caller compressed itself (backup data). `frames` is one or
/// more whole zstd frames of [`super::FrameEncoder`] whose plain bytes have this length and hash.
pub fn seal(
    frames: Vec<u8>,
    plain_length: u64,
    plain_hash: ContentHash,
    subject: Subject,
    recipients: &Recipients,
) -> Result<Encoded> {
    if recipients.is_empty() {
        let mut object = frames;
        object.splice(0..0, [0; HEADER_LEN]);
        return Sink::Plain(object).finish(plain_length, plain_hash, subject);
    }
    let mut sink = Sink::new(Vec::with_capacity(frames.len() + 4096), recipients)?;
    sink.write_all(&frames).map_err(cannot("encrypt"))?;
    drop(frames);
    sink.finish(plain_length, plain_hash, subject)
}

/// Where the compressed bytes go: an object that begins with room for its header.
enum Sink {
    Plain(Vec<u8>),
    Sealed(Box<age::stream::StreamWriter<Vec<u8>>>),
}

impl Sink {
    fn new(mut object: Vec<u8>, recipients: &Recipients) -> Result<Self> {
        object.extend_from_slice(&[0; HEADER_LEN]);
        if recipients.is_empty() {
            return Ok(Self::Plain(object));
        }
        let writer = recipients.wrap(object).map_err(cannot("encrypt"))?;
        Ok(Self::Sealed(Box::new(writer)))
    }

    /// Closes the payload and puts the header before it.
    fn finish(self, plain_length: u64, plain_hash: ContentHash, subject: Subject) -> Result<Encoded> {
        let (mut object, sealed) = match self {
            Self::Plain(object) => (object, false),
            Self::Sealed(writer) => (writer.finish().map_err(cannot("encrypt"))?, true),
        };
        let (head, payload) = object.split_at_mut(HEADER_LEN);
        if sealed && !payload.starts_with(AGE_MAGIC) {
            return Err(Error::new(ErrorKind::Bug, "an object that was to be encrypted is not"));
        }
        let seal = sealed.then(|| PayloadSeal { length: payload.len() as u64, hash: ContentHash::of(payload) });
        let header = ObjectHeader { subject, plain_length, plain_hash, seal };
        head.copy_from_slice(&header.to_bytes());
        Ok(Encoded { header, bytes: Bytes::from(object) })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(object) => object.write(bytes),
            Self::Sealed(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
