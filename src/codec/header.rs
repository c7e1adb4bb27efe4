//! The header in the clear.

use super::Defect;
use crate::pg::{Lsn, SystemIdentifier};
use std::fmt;

/// Length of the whole skippable frame that carries the header, in bytes: the payload begins here.
pub const HEADER_LEN: usize = 144;

/// BLAKE3-256 of plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ContentHash {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl std::str::FromStr for ContentHash {
    type Err = crate::pg::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text)
            .map_err(|error| crate::pg::ParseError::new("content hash", format!("{text:?}: {error}")))?;
        Ok(Self(*hash.as_bytes()))
    }
}

crate::pg::json_as_text!(ContentHash);

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A WAL file of any of the four sorts.
    Wal = 1,
    /// The first object of a backup (JSON).
    BackupStarted = 2,
    /// A slice of a backup's tar stream.
    BackupData = 3,
    /// Records of a backup's files and frames (JSON lines).
    BackupIndex = 4,
    /// A slice of Postgres' own `backup_manifest`.
    PgManifest = 5,
    /// A backup's manifest (JSON): its last object.
    BackupManifest = 6,
}

/// What an object is about; together with its key this binds the object to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject {
    /// What it holds.
    pub kind: Kind,
    /// Whose it is.
    pub system_identifier: SystemIdentifier,
    /// The timeline of the WAL file's name, or of the backup's start.
    pub timeline: u32,
    /// The first position of a segment or `.partial`; a `.backup`'s start position; 0 for a `.history`; a backup's start.
    pub start: Lsn,
}

/// Length and hash of an encrypted payload, so that it can be verified without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PayloadSeal {
    /// Bytes behind the header.
    pub length: u64,
    /// BLAKE3-256 of them.
    pub hash: ContentHash,
}

/// The header of a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectHeader {
    /// What the object is about.
    pub subject: Subject,
    /// Length of the plain bytes.
    pub plain_length: u64,
    /// Hash of the plain bytes.
    pub plain_hash: ContentHash,
    /// Present if and only if the payload is encrypted.
    pub seal: Option<PayloadSeal>,
}

/// Where everything lies in the skippable frame of version 1. All numbers are little endian.
mod at {
    use std::ops::Range;
    pub(super) const ZSTD_MAGIC: Range<usize> = 0..4;
    pub(super) const FRAME_SIZE: Range<usize> = 4..8;
    pub(super) const MAGIC: Range<usize> = 8..16;
    pub(super) const VERSION: usize = 16;
    pub(super) const KIND: usize = 17;
    pub(super) const FLAGS: Range<usize> = 18..20;
    pub(super) const TIMELINE: Range<usize> = 20..24;
    pub(super) const SYSTEM: Range<usize> = 24..32;
    pub(super) const START: Range<usize> = 32..40;
    pub(super) const PLAIN_LENGTH: Range<usize> = 40..48;
    pub(super) const PLAIN_HASH: Range<usize> = 48..80;
    pub(super) const PAYLOAD_LENGTH: Range<usize> = 80..88;
    pub(super) const PAYLOAD_HASH: Range<usize> = 88..120;
    pub(super) const RESERVED: Range<usize> = 120..140;
}

/// One of zstd's sixteen magic numbers of skippable frames (0x184D2A50 to 5F): the one whose first byte is a `W`.
const ZSTD_SKIPPABLE: u32 = 0x184D_2A57;

/// Our own magic, behind the frame's size.
const MAGIC: [u8; 8] = *b"WALHALLA";

/// The version written and read.
const VERSION: u8 = 1;

/// The only flag: the payload is an `age` file.
const ENCRYPTED: u16 = 1;

/// A later version's header may be longer, but not longer than this.
const HEADER_MAX: usize = 4096;

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            Self::Wal,
            Self::BackupStarted,
            Self::BackupData,
            Self::BackupIndex,
            Self::PgManifest,
            Self::BackupManifest,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The bytes of a number. The ranges of `at` lie within `HEADER_LEN`; a shorter slice reads as zero and is refused before.
fn bytes<const N: usize>(frame: &[u8], range: std::ops::Range<usize>) -> [u8; N] {
    frame.get(range).and_then(|slice| slice.try_into().ok()).unwrap_or([0; N])
}

impl ObjectHeader {
    /// Reads the header at the beginning of an object.
    ///
    /// A header of another version is [`Defect::UnknownFormat`] only when its checksum fits: in every version the last four
    /// bytes of the skippable frame are the CRC-32 of all bytes before them.
    pub fn parse(object: &[u8]) -> Result<Self, Defect> {
        let frame = whole_frame(object)?;
        let (checked, sum) = frame.split_at(frame.len() - 4);
        if crc32fast::hash(checked) != u32::from_le_bytes(bytes(sum, 0..4)) {
            return Err(Defect::HeaderDamaged);
        }
        let (version, kind, flags) = (frame[at::VERSION], frame[at::KIND], u16::from_le_bytes(bytes(frame, at::FLAGS)));
        let unknown = Defect::UnknownFormat { version, kind, flags };
        let known_kind = Kind::from_byte(kind).filter(|_| {
            version == VERSION && flags & !ENCRYPTED == 0 && frame[at::RESERVED].iter().all(|byte| *byte == 0)
        });
        let kind = known_kind.ok_or(unknown)?;
        let payload = PayloadSeal {
            length: u64::from_le_bytes(bytes(frame, at::PAYLOAD_LENGTH)),
            hash: ContentHash(bytes(frame, at::PAYLOAD_HASH)),
        };
        let sealed = flags & ENCRYPTED != 0;
        if !sealed && payload != PayloadSeal::NONE {
            return Err(Defect::HeaderDamaged);
        }
        Ok(Self {
            subject: Subject {
                kind,
                system_identifier: SystemIdentifier(u64::from_le_bytes(bytes(frame, at::SYSTEM))),
                timeline: u32::from_le_bytes(bytes(frame, at::TIMELINE)),
                start: Lsn(u64::from_le_bytes(bytes(frame, at::START))),
            },
            plain_length: u64::from_le_bytes(bytes(frame, at::PLAIN_LENGTH)),
            plain_hash: ContentHash(bytes(frame, at::PLAIN_HASH)),
            seal: sealed.then_some(payload),
        })
    }

    /// The whole skippable frame.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut frame = [0; HEADER_LEN];
        let seal = self.seal.unwrap_or(PayloadSeal::NONE);
        let flags = if self.seal.is_some() { ENCRYPTED } else { 0 };
        frame[at::ZSTD_MAGIC].copy_from_slice(&ZSTD_SKIPPABLE.to_le_bytes());
        frame[at::FRAME_SIZE].copy_from_slice(&(HEADER_LEN as u32 - 8).to_le_bytes());
        frame[at::MAGIC].copy_from_slice(&MAGIC);
        frame[at::VERSION] = VERSION;
        frame[at::KIND] = self.subject.kind as u8;
        frame[at::FLAGS].copy_from_slice(&flags.to_le_bytes());
        frame[at::TIMELINE].copy_from_slice(&self.subject.timeline.to_le_bytes());
        frame[at::SYSTEM].copy_from_slice(&self.subject.system_identifier.0.to_le_bytes());
        frame[at::START].copy_from_slice(&self.subject.start.0.to_le_bytes());
        frame[at::PLAIN_LENGTH].copy_from_slice(&self.plain_length.to_le_bytes());
        frame[at::PLAIN_HASH].copy_from_slice(&self.plain_hash.0);
        frame[at::PAYLOAD_LENGTH].copy_from_slice(&seal.length.to_le_bytes());
        frame[at::PAYLOAD_HASH].copy_from_slice(&seal.hash.0);
        let (checked, sum) = frame.split_at_mut(HEADER_LEN - 4);
        sum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
        frame
    }
}

impl PayloadSeal {
    /// What stands in the header of an object that is not encrypted.
    const NONE: PayloadSeal = PayloadSeal { length: 0, hash: ContentHash([0; 32]) };
}

/// The skippable frame at the beginning of an object, if it is one of ours and whole.
fn whole_frame(object: &[u8]) -> Result<&[u8], Defect> {
    if object.is_empty() {
        return Err(Defect::Empty);
    }
    let mut start = [0; at::MAGIC.end];
    start[at::ZSTD_MAGIC].copy_from_slice(&ZSTD_SKIPPABLE.to_le_bytes());
    start[at::FRAME_SIZE].copy_from_slice(object.get(at::FRAME_SIZE).unwrap_or(&[0; 4]));
    start[at::MAGIC].copy_from_slice(&MAGIC);
    let differs =
        |(position, (byte, wanted)): (usize, (&u8, &u8))| !at::FRAME_SIZE.contains(&position) && byte != wanted;
    if object.iter().zip(&start).enumerate().any(differs) {
        return Err(Defect::Foreign);
    }
    let Some(version) = object.get(at::VERSION) else { return Err(Defect::HeaderTruncated(object.len())) };
    let length = (u32::from_le_bytes(bytes(&start, at::FRAME_SIZE)) as usize).saturating_add(8);
    if !(HEADER_LEN..=HEADER_MAX).contains(&length) || (*version == VERSION && length != HEADER_LEN) {
        return Err(Defect::HeaderDamaged);
    }
    object.get(..length).ok_or(Defect::HeaderTruncated(object.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(seal: Option<PayloadSeal>) -> ObjectHeader {
        ObjectHeader {
            subject: Subject {
                kind: Kind::BackupData,
                system_identifier: SystemIdentifier(7_300_000_000_000_000_001),
                timeline: 0x0102_0304,
                start: Lsn(0x16_B374_D848),
            },
            plain_length: 16 << 20,
            plain_hash: ContentHash::of(b"plain"),
            seal,
        }
    }

    fn with_sum(mut frame: Vec<u8>) -> Vec<u8> {
        let end = frame.len() - 4;
        let sum = crc32fast::hash(&frame[..end]).to_le_bytes();
        frame[end..].copy_from_slice(&sum);
        frame
    }

    #[test]
    fn layout_is_as_documented() {
        let seal = PayloadSeal { length: 0x1122, hash: ContentHash([0xEE; 32]) };
        let frame = header(Some(seal)).to_bytes();
        assert_eq!(frame[..20], *b"W\x2A\x4D\x18\x88\0\0\0WALHALLA\x01\x03\x01\0");
        assert_eq!(frame[20..24], [4, 3, 2, 1]);
        assert_eq!(frame[24..32], 7_300_000_000_000_000_001_u64.to_le_bytes());
        assert_eq!(frame[32..40], [0x48, 0xD8, 0x74, 0xB3, 0x16, 0, 0, 0]);
        assert_eq!(frame[40..48], [0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(frame[48..80], ContentHash::of(b"plain").0);
        assert_eq!(frame[80..88], [0x22, 0x11, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[88..120], [0xEE; 32]);
        assert_eq!(frame[120..140], [0; 20]);
        assert_eq!(frame[140..], crc32fast::hash(&frame[..140]).to_le_bytes());
        assert_eq!(header(None).to_bytes()[80..140], [0; 60]);
    }

    #[test]
    fn round_trip_of_every_kind() {
        for byte in 0..=u8::MAX {
            let mut object = header(None).to_bytes().to_vec();
            object[17] = byte;
            let parsed = ObjectHeader::parse(&with_sum(object));
            match Kind::from_byte(byte) {
                Some(kind) => assert_eq!(parsed.unwrap().subject.kind, kind),
                None => assert_eq!(parsed, Err(Defect::UnknownFormat { version: 1, kind: byte, flags: 0 })),
            }
        }
        let seal = PayloadSeal { length: u64::MAX, hash: ContentHash([1; 32]) };
        for header in [header(None), header(Some(seal))] {
            assert_eq!(ObjectHeader::parse(&header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn every_cut_and_every_flip_is_named() {
        let frame = header(None).to_bytes();
        assert_eq!(ObjectHeader::parse(b""), Err(Defect::Empty));
        for length in 1..HEADER_LEN {
            assert_eq!(ObjectHeader::parse(&frame[..length]), Err(Defect::HeaderTruncated(length)), "{length}");
        }
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = frame;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..=3 | 8..=15 => Defect::Foreign,
                _ => Defect::HeaderDamaged,
            };
            assert_eq!(ObjectHeader::parse(&flipped), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn later_formats_are_known_to_be_later() {
        let frame = header(None).to_bytes().to_vec();
        let changed = |position: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[position] = byte;
            ObjectHeader::parse(&with_sum(frame))
        };
        assert_eq!(changed(16, 2), Err(Defect::UnknownFormat { version: 2, kind: 3, flags: 0 }));
        assert_eq!(changed(18, 2), Err(Defect::UnknownFormat { version: 1, kind: 3, flags: 2 }));
        assert_eq!(changed(19, 0x80), Err(Defect::UnknownFormat { version: 1, kind: 3, flags: 0x8000 }));
        assert_eq!(changed(130, 1), Err(Defect::UnknownFormat { version: 1, kind: 3, flags: 0 }));
        assert_eq!(changed(80, 1), Err(Defect::HeaderDamaged), "a seal on an object that is not encrypted");

        let mut longer = [&frame[..], &[0; 16]].concat();
        longer[16] = 9;
        longer[4] = 0x98;
        assert_eq!(
            ObjectHeader::parse(&with_sum(longer)),
            Err(Defect::UnknownFormat { version: 9, kind: 3, flags: 0 })
        );
    }

    #[test]
    fn what_others_wrote_is_foreign() {
        let mut foreign = vec![0x50, 0x2A, 0x4D, 0x18];
        foreign.extend([0; 200]);
        for object in
            [&b"hello"[..], b"<?xml version=\"1.0\"?>", &[0; 16 << 10], &foreign, &[0x28, 0xB5, 0x2F, 0xFD, 4]]
        {
            assert_eq!(ObjectHeader::parse(object), Err(Defect::Foreign));
        }
    }

    #[test]
    fn hash_text() {
        let hash = ContentHash::of(b"");
        assert_eq!(hash.to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("af13".parse::<ContentHash>().is_err());
    }
}
