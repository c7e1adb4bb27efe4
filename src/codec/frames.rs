//! zstd frames: unpacking a payload piece by piece, and making and reading the single frames of backup data.

use super::Defect;
use crate::error::{Error, ErrorKind, Result};
use std::io::{self, Write};
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

/// The largest window a frame may ask for: 2^23 bytes, 8 MiB. It bounds the memory of every reader.
pub const WINDOW_LOG_MAX: u32 = 23;

/// The most plain bytes that one frame of backup data may hold: 64 MiB. It bounds what a damaged index can make us allocate.
pub const FRAME_PLAIN_MAX: u32 = 64 << 20;

/// The first bytes of a zstd frame.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// How much is unpacked at once.
const PIECE: usize = 128 << 10;

/// The name of zstd's error.
pub(super) fn zstd_error(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", zstd_safe::get_error_name(code)))
}

/// Why unpacking ended.
pub(super) enum Stopped {
    /// The payload is at fault.
    By(Defect),
    /// The plain bytes could not be written.
    Output(io::Error),
}

impl From<Defect> for Stopped {
    fn from(defect: Defect) -> Self {
        Self::By(defect)
    }
}

/// Unpacks a payload of known plain length, fed piece by piece; hashes what comes out.
///
/// Stricter than zstd: no skippable frames, no frame without a checksum, no reserved bit, no bytes behind the last frame.
pub(super) struct Unpacker<'o> {
    context: DCtx<'static>,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    output: &'o mut dyn Write,
    plain_length: u64,
    produced: u64,
    /// Bytes of the current frame seen so far; 0 between frames.
    in_frame: u64,
    frames: u64,
    trailing: u64,
}

impl<'o> Unpacker<'o> {
    pub(super) fn new(plain_length: u64, output: &'o mut dyn Write) -> Self {
        Self {
            context: DCtx::create(),
            buffer: Vec::with_capacity(PIECE),
            hasher: blake3::Hasher::new(),
            output,
            plain_length,
            produced: 0,
            in_frame: 0,
            frames: 0,
            trailing: 0,
        }
    }

    /// Takes the next piece of the payload.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), Stopped> {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.in_frame == 0 && self.frames > 0 && self.produced == self.plain_length {
                self.trailing += rest.len() as u64;
                return Ok(());
            }
            // The first five bytes go in one by one, so that they are looked at before zstd sees them.
            let taken = match self.in_frame {
                0..=4 => self.check_start(rest[0]).map(|()| 1)?,
                _ => rest.len(),
            };
            let consumed = self.unpack(&rest[..taken])?;
            rest = &rest[consumed..];
        }
        Ok(())
    }

    /// One of the first five bytes of a frame: its magic, then its descriptor (RFC 8878, 3.1.1.1.1).
    fn check_start(&mut self, byte: u8) -> Result<(), Defect> {
        let fits = match self.in_frame {
            position @ 0..=3 => FRAME_MAGIC.get(position as usize) == Some(&byte),
            // Bit 4 is unused, bit 3 reserved, bit 2 says that a checksum follows; a dictionary (bits 0, 1) is none of ours.
            _ => byte & 0b0001_1111 == 0b0000_0100,
        };
        if fits { Ok(()) } else { Err(Defect::PayloadDamaged("not a zstd frame with a checksum".into())) }
    }

    /// Gives zstd these bytes of one frame; returns how many it took, which are fewer only where the frame ends.
    fn unpack(&mut self, bytes: &[u8]) -> Result<usize, Stopped> {
        if self.in_frame == 0 && self.frames == 0 {
            let limit = DParameter::WindowLogMax(WINDOW_LOG_MAX);
            self.context.set_parameter(limit).map_err(|code| damaged(zstd_error(code)))?;
        }
        let mut input = InBuffer::around(bytes);
        loop {
            self.buffer.clear();
            let mut output = OutBuffer::around(&mut self.buffer);
            let hint = self.context.decompress_stream(&mut output, &mut input);
            let hint = hint.map_err(|code| damaged(zstd_error(code)))?;
            let full = output.pos() == output.capacity();
            self.deliver()?;
            if hint == 0 {
                self.frames += 1;
                self.in_frame = 0;
                return Ok(input.pos());
            }
            if input.pos() == bytes.len() && !full {
                self.in_frame += bytes.len() as u64;
                return Ok(bytes.len());
            }
        }
    }

    /// Hashes and writes what was just unpacked, never more than the announced length.
    fn deliver(&mut self) -> Result<(), Stopped> {
        self.produced += self.buffer.len() as u64;
        if self.produced > self.plain_length {
            return Err(damaged("it holds more plain bytes than its header says").into());
        }
        self.hasher.update(&self.buffer);
        self.output.write_all(&self.buffer).map_err(Stopped::Output)
    }

    /// The payload is over: judges it as a whole.
    pub(super) fn finish(self, plain_hash: &super::ContentHash) -> Result<(), Defect> {
        if self.in_frame > 0 || self.frames == 0 || self.produced < self.plain_length {
            return Err(Defect::Truncated);
        }
        if self.hasher.finalize().as_bytes() != &plain_hash.0 {
            return Err(damaged("its plain bytes have another hash than its header says"));
        }
        if self.trailing > 0 { Err(Defect::TrailingBytes(self.trailing)) } else { Ok(()) }
    }
}

fn damaged(why: impl ToString) -> Defect {
    Defect::PayloadDamaged(why.to_string())
}

/// Makes single frames; keeps zstd's context from one to the next.
pub struct FrameEncoder {
    context: CCtx<'static>,
}

impl FrameEncoder {
    /// Frames of this zstd level.
    pub fn new(level: i32) -> Result<Self> {
        let mut context = CCtx::create();
        for parameter in parameters(level) {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Self { context })
    }

    /// Appends one frame of `plain` to `frames`; returns the frame's length and the CRC-32 of `plain`.
    /// At most [`FRAME_PLAIN_MAX`] bytes go into one frame.
    pub fn encode(&mut self, plain: &[u8], frames: &mut Vec<u8>) -> Result<(u32, u32)> {
        if plain.len() > FRAME_PLAIN_MAX as usize {
            return Err(Error::new(ErrorKind::Bug, format!("{} bytes are too many for one zstd frame", plain.len())));
        }
        let before = frames.len();
        frames.reserve(zstd_safe::compress_bound(plain.len()));
        let mut behind = io::Cursor::new(&mut *frames);
        behind.set_position(before as u64);
        self.context.compress2(&mut behind, plain).map_err(failed)?;
        let packed = u32::try_from(frames.len() - before)
            .map_err(|_| Error::new(ErrorKind::Bug, "a zstd frame is longer than 4 GiB"))?;
        Ok((packed, crc32fast::hash(plain)))
    }
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameEncoder")
    }
}

/// How every frame of ours is made.
pub(super) fn parameters(level: i32) -> Vec<CParameter> {
    let mut parameters =
        vec![CParameter::CompressionLevel(level), CParameter::ChecksumFlag(true), CParameter::ContentSizeFlag(true)];
    // Only the highest levels choose larger windows by themselves.
    if level > 19 {
        parameters.push(CParameter::WindowLog(WINDOW_LOG_MAX));
    }
    parameters
}

fn failed(code: usize) -> Error {
    Error::new(ErrorKind::Bug, "cannot compress").because(zstd_error(code))
}

/// [`FrameEncoder::encode`] with a context of its own; returns the frame's length and the CRC-32 of `plain`.
pub fn encode_frame(plain: &[u8], level: i32, frames: &mut Vec<u8>) -> Result<(u32, u32)> {
    FrameEncoder::new(level)?.encode(plain, frames)
}

/// Unpacks one frame whose plain length and CRC-32 are known from a backup's index. `packed` is exactly that frame.
pub fn decode_frame(packed: &[u8], plain: u32, crc32: u32) -> Result<Vec<u8>> {
    let bad = |why: String| Error::new(ErrorKind::Corrupt, format!("a frame of backup data is damaged: {why}"));
    if plain > FRAME_PLAIN_MAX {
        return Err(bad(format!("it is said to hold {plain} bytes, more than any frame may")));
    }
    match zstd_safe::find_frame_compressed_size(packed) {
        Ok(length) if length == packed.len() => {}
        Ok(length) => return Err(bad(format!("it ends after {length} of {} bytes", packed.len()))),
        Err(code) => return Err(bad(zstd_error(code).to_string())),
    }
    let mut bytes = Vec::with_capacity(plain as usize);
    DCtx::create().decompress(&mut bytes, packed).map_err(|code| bad(zstd_error(code).to_string()))?;
    if bytes.len() != plain as usize {
        return Err(bad(format!("it holds {} plain bytes instead of {plain}", bytes.len())));
    }
    if crc32fast::hash(&bytes) != crc32 {
        return Err(bad("its plain bytes have another CRC-32 than the index says".into()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_one_another_in_one_buffer() {
        let mut encoder = FrameEncoder::new(3).unwrap();
        let plains: [&[u8]; 4] = [b"", b"one", &[7; 300_000], b"last"];
        let mut frames = Vec::new();
        let mut index = Vec::new();
        for plain in plains {
            index.push(encoder.encode(plain, &mut frames).unwrap());
        }
        let mut at = 0;
        for ((packed, crc32), plain) in index.into_iter().zip(plains) {
            let frame = &frames[at..at + packed as usize];
            assert_eq!(decode_frame(frame, plain.len() as u32, crc32).unwrap(), plain);
            assert_eq!(frame[4] & 0b0000_0100, 0b0000_0100, "zstd's own checksum is on");
            at += packed as usize;
        }
        assert_eq!(at, frames.len());
    }

    #[test]
    fn a_frame_that_is_not_what_the_index_says() {
        let mut frame = Vec::new();
        let (_, crc32) = encode_frame(b"some plain bytes", 3, &mut frame).unwrap();
        assert!(decode_frame(&frame, 16, crc32).is_ok());
        for (packed, plain, crc32) in [
            (&frame[..], 15, crc32),
            (&frame[..], 17, crc32),
            (&frame[..], u32::MAX, crc32),
            (&frame[..], 16, crc32 ^ 1),
            (&frame[..frame.len() - 1], 16, crc32),
            (&[&frame[..], b"x"].concat(), 16, crc32),
            (&[&frame[..], &frame[..]].concat(), 16, crc32),
            (b"", 16, crc32),
            (b"", 0, 0),
            (b"not a frame at all", 16, crc32),
        ] {
            let error = decode_frame(packed, plain, crc32).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        for at in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(plain) = decode_frame(&flipped, 16, crc32) {
                assert_eq!(plain, b"some plain bytes", "bit {at}");
            }
        }
    }

    #[test]
    fn the_highest_levels_keep_to_the_window() {
        let plain: Vec<u8> = (0..9 << 20_u32).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut frame = Vec::new();
        encode_frame(&plain, 20, &mut frame).unwrap();
        let mut out = Vec::new();
        let mut unpacker = Unpacker::new(plain.len() as u64, &mut out);
        assert!(unpacker.feed(&frame).is_ok());
        assert_eq!(unpacker.finish(&super::super::ContentHash::of(&plain)), Ok(()));
    }
}
