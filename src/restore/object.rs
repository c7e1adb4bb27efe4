//! One data object to the files it holds pieces of: opened, decompressed, proven and written in one pass.

use super::make::{Maker, failed};
use super::unroll::{Job, Piece};
use crate::codec::{self, ContentHash, Identities, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::SystemIdentifier;
use crate::reach::source::{must_belong, not_vouched};
use crate::repo::index::Frame;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Plain bytes at a time: little enough to be hashed, summed and written while they are warm.
const PIECE: usize = 256 << 10;

/// Writes the pieces of a job from the stored object. What was written before an error is worthless; `stop` ends it early.
pub(super) fn write(
    stored: &[u8],
    job: &Job,
    system: SystemIdentifier,
    identities: &Identities,
    maker: &Maker,
    stop: &AtomicBool,
) -> Result<()> {
    let (header, frames) = codec::unseal(stored, identities)?;
    must_belong(&header, Kind::BackupData, system)?;
    let object = &job.object;
    if stored.len() as u64 != object.size || header.plain_hash != object.hash || header.plain_length != object.plain {
        return Err(not_vouched());
    }
    let mut writer =
        Writer { maker, pieces: job.pieces.iter(), current: None, position: 0, hash: blake3::Hasher::new() };
    writer.advance()?;
    let mut decoder = Decoder::new().map_err(damaged)?;
    let mut buffer = vec![0; PIECE];
    let mut rest: &[u8] = &frames;
    for frame in &object.frames {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "stopped"));
        }
        let (packed, behind) =
            rest.split_at_checked(frame.packed as usize).ok_or_else(|| damaged("it is cut short"))?;
        unpack(&mut decoder, packed, frame, &mut buffer, |plain| writer.take(plain))?;
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(damaged(format!("it has {} bytes too many", rest.len())));
    }
    writer.end(&object.hash)
}

/// One frame: its length and checksum are proven, too, so that an error names the place.
fn unpack(
    decoder: &mut Decoder<'_>,
    packed: &[u8],
    frame: &Frame,
    buffer: &mut [u8],
    mut out: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    decoder.reinit().map_err(damaged)?;
    let mut input = InBuffer::around(packed);
    let mut sum = crc32fast::Hasher::new();
    let mut length = 0_u64;
    loop {
        let mut output = OutBuffer::around(buffer);
        let before = input.pos();
        let more = decoder.run(&mut input, &mut output).map_err(damaged)?;
        let plain = output.as_slice();
        length += plain.len() as u64;
        if length > u64::from(frame.plain) {
            return Err(damaged("a frame is longer than the index says"));
        }
        sum.update(plain);
        out(plain)?;
        if more == 0 {
            break;
        }
        if plain.is_empty() && input.pos() == before {
            return Err(damaged("a frame is cut short"));
        }
    }
    if length != u64::from(frame.plain) || sum.finalize() != frame.crc32 || input.pos() != packed.len() {
        return Err(damaged("a frame is not the one that the index describes"));
    }
    Ok(())
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the object's payload is damaged: {why}"))
}

/// Takes the object's plain bytes in order and writes each to its place.
struct Writer<'a> {
    maker: &'a Maker,
    pieces: std::slice::Iter<'a, Piece>,
    current: Option<(&'a Piece, File)>,
    position: u64,
    hash: blake3::Hasher,
}

impl Writer<'_> {
    fn advance(&mut self) -> Result<()> {
        self.current = match self.pieces.next() {
            None => None,
            Some(piece) => Some((piece, self.maker.open(&piece.file.path)?)),
        };
        Ok(())
    }

    fn take(&mut self, plain: &[u8]) -> Result<()> {
        self.hash.update(plain);
        let end = self.position + plain.len() as u64;
        while let Some((piece, file)) = &self.current {
            let from = piece.from.max(self.position);
            let to = end.min(piece.from + piece.length);
            if from >= to {
                break;
            }
            // Both lie within `plain`, whose length is a usize.
            let bytes = &plain[(from - self.position) as usize..(to - self.position) as usize];
            let path = &piece.file.path;
            file.write_all_at(bytes, piece.to + (from - piece.from)).map_err(|cause| failed("write", path, cause))?;
            if to < piece.from + piece.length {
                break;
            }
            if piece.file.written(piece.length) {
                self.maker.finish(file, path, piece.file.mode, Some(piece.file.mtime))?;
            }
            self.advance()?;
        }
        self.position = end;
        Ok(())
    }

    fn end(self, hash: &ContentHash) -> Result<()> {
        if ContentHash(*self.hash.finalize().as_bytes()) != *hash {
            return Err(damaged("its bytes have another hash than the index says"));
        }
        if self.current.is_some() {
            return Err(damaged("it ends before its files do"));
        }
        Ok(())
    }
}
