//! Objects as a whole: round trips, and every kind of damage.

use super::*;
use crate::error::ErrorKind;
use crate::pg::{Lsn, SystemIdentifier};
use age::secrecy::ExposeSecret;
use proptest::prelude::*;
use std::io::{self, Read, Write};

fn subject(kind: Kind) -> Subject {
    Subject { kind, system_identifier: SystemIdentifier(7), timeline: 1, start: Lsn(0x0300_0000) }
}

fn plainly(level: i32) -> Encoding {
    Encoding { level, recipients: Recipients::default() }
}

fn key() -> (Recipients, Identities) {
    let key = age::x25519::Identity::generate();
    let recipients = Recipients::parse(&key.to_public().to_string()).unwrap();
    (recipients, Identities::parse(key.to_string().expose_secret()).unwrap())
}

/// Bytes that compress like WAL does: runs, repeats and noise.
fn sample(length: usize) -> Vec<u8> {
    let mut noise = fastrand::Rng::with_seed(15);
    (0..length).map(|i| if i % 64 < 40 { (i / 512) as u8 } else { noise.u8(..) }).collect()
}

/// Gives out small and uneven pieces.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 % 7919 + 1;
        if self.1.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = self.1.min(self.0.len()).min(buffer.len());
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn round_trips_of_many_lengths() {
    let (recipients, identities) = key();
    for length in [0, 1, 143, 144, 65_535, 65_536, 131_072, 131_073, 1 << 20, 3_000_001] {
        let plain = sample(length);
        for recipients in [Recipients::default(), recipients.clone()] {
            let encoding = Encoding { level: 1, recipients };
            let encoded = encode(&mut Drip(&plain, 3), length as u64, subject(Kind::Wal), &encoding).unwrap();
            let sealed = !encoding.recipients.is_empty();
            assert_eq!(encoded.header.plain_length, length as u64);
            assert_eq!(encoded.header.plain_hash, ContentHash::of(&plain));
            assert_eq!(encoded.header.seal.is_some(), sealed);
            assert_eq!(header_of(&encoded.bytes), Ok(encoded.header));
            assert_eq!(verify(&encoded.bytes), Ok(encoded.header), "{length}");
            assert_eq!(plain_of(&encoded.bytes, &identities).unwrap(), (encoded.header, plain.clone()));
            let (_, frames) = unseal(&encoded.bytes, &identities).unwrap();
            assert_eq!(zstd::decode_all(&frames[..]).unwrap(), plain);
            assert_eq!(zstd::zstd_safe::get_frame_content_size(&frames).ok(), Some(Some(length as u64)));
        }
    }
}

#[test]
fn objects_of_every_level_and_number_of_threads() {
    let (recipients, identities) = key();
    for (level, length) in [(1, 0), (1, 511_999), (1, 2_000_001), (3, 1_500_000), (9, 1_100_000)] {
        let plain = sample(length);
        for recipients in [Recipients::default(), recipients.clone()] {
            let encoding = Encoding { level, recipients };
            let made = [1, 2, 3].map(|threads| {
                let mut source = Drip(&plain, 3);
                encode_beside(&mut source, length as u64, subject(Kind::Wal), &encoding, threads).unwrap()
            });
            for object in &made {
                assert_eq!(verify(&object.bytes), Ok(object.header), "level {level}, {length} bytes");
                assert_eq!(plain_of(&object.bytes, &identities).unwrap(), (object.header, plain.clone()));
                let (_, frames) = unseal(&object.bytes, &identities).unwrap();
                assert_eq!(zstd::zstd_safe::get_frame_content_size(&frames).ok(), Some(Some(length as u64)));
                if encoding.recipients.is_empty() {
                    assert!(through_zstd(object.bytes.to_vec()).is_none_or(|bytes| bytes == plain));
                }
            }
            assert_eq!(made[1].header.plain_hash, made[0].header.plain_hash);
            if encoding.recipients.is_empty() {
                assert_eq!(made[1].bytes, made[2].bytes, "however many threads above one: the same bytes");
            }
        }
    }
}

#[test]
fn threads_are_no_excuse_for_a_source_of_another_length() {
    let plain = sample(2_000_000);
    for announced in [1_999_999, 2_000_001] {
        let error = encode_beside(&mut &plain[..], announced, subject(Kind::Wal), &plainly(1), 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{announced}");
    }
}

#[test]
fn a_segment_cut_short_is_a_few_kilobytes() {
    let mut plain = sample(8192);
    plain.resize(16 << 20, 0);
    for threads in [1, 2] {
        let object = encode_beside(&mut &plain[..], 16 << 20, subject(Kind::Wal), &plainly(1), threads).unwrap();
        assert!(object.bytes.len() < 8192, "{} bytes with {threads} threads", object.bytes.len());
    }
}

/// What the `zstd` program makes of these bytes; `None` where there is no such program.
fn through_zstd(input: Vec<u8>) -> Option<Vec<u8>> {
    let piped = std::process::Stdio::piped;
    let child = std::process::Command::new("zstd").args(["-d", "-c"]).stdin(piped()).stdout(piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no zstd on this machine");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}

#[test]
fn a_plain_zstd_opens_plain_objects_one_and_several() {
    let plain = sample(200_000);
    let object = encode_bytes(&plain, subject(Kind::Wal), &plainly(3)).unwrap().bytes;
    assert_eq!(zstd::decode_all(&object[..]).unwrap(), plain);
    assert!(through_zstd(object.to_vec()).is_none_or(|bytes| bytes == plain));

    // The slices of an archive, as `cat` joins them (`docs/format.md`).
    let slices: Vec<_> = plain
        .chunks(70_001)
        .map(|slice| encode_bytes(slice, subject(Kind::BackupData), &plainly(1)).unwrap().bytes)
        .collect();
    assert!(through_zstd(slices.concat()).is_none_or(|bytes| bytes == plain));
}

#[test]
fn behind_the_header_lies_an_age_file() {
    let (recipients, identities) = key();
    let plain = sample(200_000);
    let object = encode_bytes(&plain, subject(Kind::Wal), &Encoding { level: 3, recipients }).unwrap().bytes;
    // What `tail -c +145 | age -d | zstd -d` does.
    let mut frames = Vec::new();
    identities.unwrap(&object[144..]).unwrap().read_to_end(&mut frames).unwrap();
    assert_eq!(zstd::decode_all(&frames[..]).unwrap(), plain);
}

#[test]
fn a_configured_key_always_encrypts() {
    let (recipients, identities) = key();
    let plain = b"SELECT pg_create_restore_point('a word that must not show')".repeat(50);
    let encoding = Encoding { level: 3, recipients: recipients.clone() };
    let mut frames = Vec::new();
    encode_frame(&plain, 3, &mut frames).unwrap();
    let sealed = seal(frames, plain.len() as u64, ContentHash::of(&plain), subject(Kind::BackupData), &recipients);
    for encoded in [encode_bytes(&plain, subject(Kind::Wal), &encoding).unwrap(), sealed.unwrap()] {
        let payload = &encoded.bytes[HEADER_LEN..];
        assert!(payload.starts_with(b"age-encryption.org/v1\n-> X25519 "));
        assert!(!encoded.bytes.windows(9).any(|window| window == b"must not "), "the plain text shows");
        assert!(!payload.windows(4).any(|window| window == [0x28, 0xB5, 0x2F, 0xFD]), "a zstd frame shows");
        assert_eq!(encoded.header.seal.unwrap().length, payload.len() as u64);
        assert_eq!(plain_of(&encoded.bytes, &identities).unwrap().1, plain);
        assert_eq!(verify(&encoded.bytes), Ok(encoded.header), "verified without the key");

        let error = plain_of(&encoded.bytes, &Identities::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.advice().unwrap().contains("WALHALLA_IDENTITY"));
        let error = plain_of(&encoded.bytes, &key().1).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("none of the given identities")),
            (ErrorKind::Config, true)
        );
        let error = unseal(&encoded.bytes, &key().1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[test]
fn several_recipients_and_identities() {
    let ((a, open_a), (b, open_b)) = (key(), key());
    let both = Recipients::parse(&format!("{a},{b}")).unwrap();
    let object = encode_bytes(b"for two", subject(Kind::Wal), &Encoding { level: 3, recipients: both }).unwrap();
    for identities in [open_a, open_b] {
        assert_eq!(plain_of(&object.bytes, &identities).unwrap().1, b"for two");
    }
}

#[test]
fn sealed_frames_are_an_object() {
    let (recipients, identities) = key();
    let plain = sample(500_000);
    let mut encoder = FrameEncoder::new(3).unwrap();
    let mut frames = Vec::new();
    let index: Vec<_> = plain.chunks(150_000).map(|part| (part, encoder.encode(part, &mut frames).unwrap())).collect();
    for recipients in [Recipients::default(), recipients] {
        let subject = subject(Kind::BackupData);
        let object = seal(frames.clone(), 500_000, ContentHash::of(&plain), subject, &recipients).unwrap();
        assert_eq!(verify(&object.bytes), Ok(object.header));
        assert_eq!(plain_of(&object.bytes, &identities).unwrap(), (object.header, plain.clone()));
        let (_, unsealed) = unseal(&object.bytes, &identities).unwrap();
        assert_eq!(unsealed, frames);
        let mut at = 0;
        for (part, (packed, crc32)) in &index {
            let frame = &unsealed[at..at + *packed as usize];
            assert_eq!(&decode_frame(frame, part.len() as u32, *crc32).unwrap(), part);
            at += *packed as usize;
        }
    }
}

#[test]
fn a_source_that_is_not_as_long_as_announced() {
    let plain = sample(300_000);
    for announced in [0, 1, 299_999, 300_001, 131_072, u64::MAX] {
        let error = encode(&mut &plain[..], announced, subject(Kind::Wal), &plainly(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{announced}: {error}");
    }
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("input/output error"))
        }
    }
    let error = encode(&mut Broken, 10, subject(Kind::Wal), &plainly(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LocalIo);
}

/// Never the wrong bytes; returns the defect where there is one.
fn defect_of(object: &[u8], identities: &Identities, plain: &[u8]) -> Option<Defect> {
    let decoded = plain_of(object, identities);
    if let Ok((header, bytes)) = &decoded {
        assert!(bytes == plain && header.plain_hash == ContentHash::of(plain), "decoded to something else");
    }
    let verified = verify(object);
    assert_eq!(decoded.is_ok(), verified.is_ok(), "decode {decoded:?} and verify {verified:?} differ");
    verified.err()
}

#[test]
fn every_cut_is_named() {
    let (recipients, identities) = key();
    let plain = sample(700);
    for recipients in [Recipients::default(), recipients] {
        let object = encode_bytes(&plain, subject(Kind::Wal), &Encoding { level: 3, recipients }).unwrap().bytes;
        for length in 0..object.len() {
            let expected = match length {
                0 => Defect::Empty,
                1..HEADER_LEN => Defect::HeaderTruncated(length),
                _ => Defect::Truncated,
            };
            assert_eq!(defect_of(&object[..length], &identities, &plain), Some(expected), "after {length} bytes");
        }
    }
}

#[test]
fn every_flip_is_found() {
    let (recipients, identities) = key();
    let plain = sample(700);
    for recipients in [Recipients::default(), recipients] {
        let sealed = !recipients.is_empty();
        let object = encode_bytes(&plain, subject(Kind::Wal), &Encoding { level: 3, recipients }).unwrap().bytes;
        for bit in 0..object.len() * 8 {
            let mut flipped = object.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let defect = defect_of(&flipped, &identities, &plain);
            match bit / 8 {
                0..=3 | 8..=15 => assert_eq!(defect, Some(Defect::Foreign), "bit {bit}"),
                0..HEADER_LEN => assert_eq!(defect, Some(Defect::HeaderDamaged), "bit {bit}"),
                // A plain payload's length and content are zstd's to judge: a flipped length may read as a cut or as a rest,
                // and a bit without meaning (the window's size) as nothing at all. `defect_of` has compared the content.
                _ if !sealed => {}
                _ => assert!(matches!(defect, Some(Defect::PayloadDamaged(_))), "bit {bit}: {defect:?}"),
            }
        }
    }
}

#[test]
fn incompressible_flips_are_all_damage() {
    let mut noise = fastrand::Rng::with_seed(3);
    let plain: Vec<u8> = (0..500).map(|_| noise.u8(..)).collect();
    let object = encode_bytes(&plain, subject(Kind::Wal), &plainly(3)).unwrap().bytes;
    // A raw block: frame header 7 bytes, block header 3, content, checksum 4.
    for bit in (HEADER_LEN + 10) * 8..object.len() * 8 {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let defect = defect_of(&flipped, &Identities::default(), &plain);
        assert!(matches!(defect, Some(Defect::PayloadDamaged(_))), "bit {bit}: {defect:?}");
    }
}

#[test]
fn bytes_behind_the_payload() {
    let (recipients, identities) = key();
    let plain = sample(700);
    let mut frame = Vec::new();
    encode_frame(b"", 3, &mut frame).unwrap();
    for recipients in [Recipients::default(), recipients] {
        for plain in [&plain[..], b""] {
            let encoding = Encoding { level: 3, recipients: recipients.clone() };
            let object = encode_bytes(plain, subject(Kind::Wal), &encoding).unwrap().bytes;
            for rest in [&b"x"[..], &[0; 100], &object, &frame] {
                let longer = [&object[..], rest].concat();
                let expected = Defect::TrailingBytes(rest.len() as u64);
                assert_eq!(defect_of(&longer, &identities, plain), Some(expected));
            }
        }
    }
}

/// An object of these frames whose header says what it is told to say.
fn claim(frames: &[u8], plain_length: u64, plain_hash: ContentHash) -> Vec<u8> {
    let sealed = seal(frames.to_vec(), plain_length, plain_hash, subject(Kind::Wal), &Recipients::default());
    sealed.unwrap().bytes.to_vec()
}

#[test]
fn headers_that_lie() {
    let plain = sample(100_000);
    let hash = ContentHash::of(&plain);
    let mut frame = Vec::new();
    encode_frame(&plain, 3, &mut frame).unwrap();
    let damaged = |object: &[u8]| matches!(verify(object), Err(Defect::PayloadDamaged(_)));

    assert!(verify(&claim(&frame, 100_000, hash)).is_ok());
    assert!(damaged(&claim(&frame, 100_000, ContentHash::of(b"other"))), "another hash");
    assert!(damaged(&claim(&frame, 99_999, hash)), "more than announced");
    assert_eq!(verify(&claim(&frame, 100_001, hash)), Err(Defect::Truncated));
    assert_eq!(verify(&claim(&frame, u64::MAX, hash)), Err(Defect::Truncated), "and nothing was allocated for it");
    assert!(damaged(&claim(&frame, 0, ContentHash::of(b""))));
    assert_eq!(verify(&claim(b"", 0, ContentHash::of(b""))), Err(Defect::Truncated), "no frame at all");

    let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9][..], &frame].concat();
    assert!(damaged(&claim(&skippable, 100_000, hash)), "a skippable frame in the payload");
    let unchecked = zstd::bulk::compress(&plain, 3).unwrap();
    assert!(damaged(&claim(&unchecked, 100_000, hash)), "a frame without zstd's own checksum");
}

#[test]
fn a_bomb_stops_at_the_announced_length() {
    struct Counting(u64);
    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut bomb = Vec::new();
    encode_frame(&vec![0; 64 << 20], 3, &mut bomb).unwrap();
    let mut out = Counting(0);
    let object = claim(&bomb, 1000, ContentHash::of(&[0; 1000]));
    let error = decode(&object, &Identities::default(), &mut out).unwrap_err();
    assert_eq!((error.kind(), out.0 <= 1000), (ErrorKind::Corrupt, true), "{} bytes came out", out.0);

    let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    wide.include_checksum(true).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(b"asks for 128 MiB of window").unwrap();
    let object = claim(&wide.finish().unwrap(), 26, ContentHash::of(b"asks for 128 MiB of window"));
    assert!(matches!(verify(&object), Err(Defect::PayloadDamaged(why)) if why.contains("too much memory")));
}

#[test]
fn an_output_that_fails_is_no_damage() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let object = encode_bytes(b"plain", subject(Kind::Wal), &plainly(3)).unwrap();
    let error = decode(&object.bytes, &Identities::default(), &mut Full).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LocalIo);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_back(plain in proptest::collection::vec(any::<u8>(), 0..5000), level in 1..=19, sealed: bool) {
        let (recipients, identities) = if sealed { key() } else { Default::default() };
        let object = encode_bytes(&plain, subject(Kind::BackupIndex), &Encoding { level, recipients }).unwrap();
        prop_assert_eq!(plain_of(&object.bytes, &identities).unwrap(), (object.header, plain));
        prop_assert_eq!(verify(&object.bytes), Ok(object.header));
    }

    #[test]
    fn any_frames_come_back(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..900), 1..8)) {
        let mut encoder = FrameEncoder::new(3).unwrap();
        let mut frames = Vec::new();
        for part in &parts {
            encoder.encode(part, &mut frames).unwrap();
        }
        let plain = parts.concat();
        let object = claim(&frames, plain.len() as u64, ContentHash::of(&plain));
        prop_assert_eq!(plain_of(&object, &Identities::default()).unwrap().1, plain);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), as_payload: bool, length in 0..1000_u64) {
        let object = if as_payload { claim(&bytes, length, ContentHash::of(&bytes)) } else { bytes };
        prop_assert!(verify(&object).is_err());
    }
}
