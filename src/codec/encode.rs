//! Plain bytes to a stored object.

use super::{ContentHash, ObjectHeader, Recipients, Subject};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::io::Read;

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
pub fn encode(_source: &mut dyn Read, _plain_length: u64, _subject: Subject, _encoding: &Encoding) -> Result<Encoded> {
    Err(Error::new(ErrorKind::Bug, "stub"))
}

/// [`encode`] of bytes in memory.
pub fn encode_bytes(plain: &[u8], subject: Subject, encoding: &Encoding) -> Result<Encoded> {
    encode(&mut &plain[..], plain.len() as u64, subject, encoding)
}

/// Puts header and, where asked, encryption around frames that the caller compressed itself (backup data). `frames` is one or
/// more whole zstd frames whose plain bytes have this length and hash.
pub fn seal(
    _frames: Vec<u8>,
    _plain_length: u64,
    _plain_hash: ContentHash,
    _subject: Subject,
    _recipients: &Recipients,
) -> Result<Encoded> {
    Err(Error::new(ErrorKind::Bug, "stub"))
}
