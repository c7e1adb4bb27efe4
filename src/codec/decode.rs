//! A stored object to plain bytes.

use super::frames::{Stopped, Unpacker};
use super::{ContentHash, Defect, HEADER_LEN, Identities, ObjectHeader};
use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::io::{self, Read, Write};

/// How much of an encrypted payload is opened at once.
const PIECE: usize = 64 << 10;

/// The header alone; says nothing about the payload.
pub fn header_of(object: &[u8]) -> Result<ObjectHeader, Defect> {
    ObjectHeader::parse(object)
}

/// Writes the plain bytes to `out` and proves length and hash. When this is not Ok, what was written is worthless.
///
/// Never writes more than the header's plain length. An `out` that fails is an error of kind `LocalIo`.
pub fn decode(object: &[u8], identities: &Identities, out: &mut dyn Write) -> Result<ObjectHeader> {
    let header = header_of(object)?;
    let payload = sealed_payload(object, &header)?;
    let ended = match header.seal {
        None => unpack(payload, &header, out),
        Some(_) => open(payload, identities).map_err(Stopped::By).and_then(|plain| unpack_from(plain, &header, out)),
    };
    match ended {
        Ok(()) => Ok(header),
        Err(Stopped::By(defect)) => Err(defect.into()),
        Err(Stopped::Output(error)) => {
            Err(Error::new(ErrorKind::LocalIo, "cannot write what was decoded").because(error))
        }
    }
}

/// [`decode`] into memory; for small objects. Memory grows with what really comes out, not with what the header claims.
pub fn plain_of(object: &[u8], identities: &Identities) -> Result<(ObjectHeader, Vec<u8>)> {
    let mut plain = Vec::new();
    let header = decode(object, identities, &mut plain)?;
    Ok((header, plain))
}

/// Proves that the payload is what the header says. A plain object is decompressed and hashed; an encrypted one is held
/// against its seal, with or without a key.
pub fn verify(object: &[u8]) -> Result<ObjectHeader, Defect> {
    let header = header_of(object)?;
    let payload = sealed_payload(object, &header)?;
    if header.seal.is_some() {
        return Ok(header);
    }
    match unpack(payload, &header, &mut io::sink()) {
        Ok(()) => Ok(header),
        Err(Stopped::By(defect)) => Err(defect),
        Err(Stopped::Output(error)) => Err(Defect::PayloadDamaged(error.to_string())),
    }
}

/// The zstd frames of an object, decrypted where needed, without decompressing them: for reading single frames of a backup's
/// data. Encrypted payloads are held against their seal first; of a plain object nothing but the header is proven.
pub fn unseal<'a>(object: &'a [u8], identities: &Identities) -> Result<(ObjectHeader, Cow<'a, [u8]>)> {
    let header = header_of(object)?;
    let payload = sealed_payload(object, &header)?;
    if header.seal.is_none() {
        return Ok((header, Cow::Borrowed(payload)));
    }
    let mut frames = Vec::with_capacity(payload.len());
    open(payload, identities)?.read_to_end(&mut frames).map_err(broken_age)?;
    Ok((header, Cow::Owned(frames)))
}

/// The bytes behind the header; where there is a seal, proven to be what it says.
fn sealed_payload<'a>(object: &'a [u8], header: &ObjectHeader) -> Result<&'a [u8], Defect> {
    let payload = object.get(HEADER_LEN..).unwrap_or_default();
    let Some(seal) = header.seal else { return Ok(payload) };
    let length = payload.len() as u64;
    if length < seal.length {
        return Err(Defect::Truncated);
    }
    if length > seal.length {
        return Err(Defect::TrailingBytes(length - seal.length));
    }
    if ContentHash::of(payload) != seal.hash {
        return Err(Defect::PayloadDamaged("the encrypted bytes have another hash than the header says".into()));
    }
    Ok(payload)
}

fn open<'a>(payload: &'a [u8], identities: &Identities) -> Result<impl Read + use<'a>, Defect> {
    if identities.is_empty() {
        return Err(Defect::NoIdentity);
    }
    identities.unwrap(payload)
}

fn unpack(payload: &[u8], header: &ObjectHeader, out: &mut dyn Write) -> Result<(), Stopped> {
    let mut unpacker = Unpacker::new(header.plain_length, out);
    unpacker.feed(payload)?;
    Ok(unpacker.finish(&header.plain_hash)?)
}

fn unpack_from(mut payload: impl Read, header: &ObjectHeader, out: &mut dyn Write) -> Result<(), Stopped> {
    let mut unpacker = Unpacker::new(header.plain_length, out);
    let mut piece = vec![0; PIECE];
    loop {
        match payload.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => unpacker.feed(&piece[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken_age(error).into()),
        }
    }
    Ok(unpacker.finish(&header.plain_hash)?)
}

fn broken_age(error: io::Error) -> Defect {
    Defect::PayloadDamaged(format!("as an age file: {error}"))
}
