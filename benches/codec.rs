//! What encoding, decoding and hashing cost, in bytes of plain WAL a second: `cargo bench --bench codec`.

use age::secrecy::ExposeSecret;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;
use walhalla::codec::{self, ContentHash, Encoding, Identities, Kind, Recipients, Subject};
use walhalla::pg::{Lsn, SystemIdentifier};

type Outcome = Result<(), Box<dyn Error>>;

/// A whole segment of the usual size.
const SEGMENT: usize = 16 << 20;
const PAGE: usize = 8192;

const SUBJECT: Subject =
    Subject { kind: Kind::Wal, system_identifier: SystemIdentifier(7), timeline: 1, start: Lsn(SEGMENT as u64) };

/// The three kinds of WAL that there are, each from a seed: page headers, and between them
/// * pgbench: images of pages half full of similar rows, and small records,
/// * bulk: rows of COPY, text that repeats in part,
/// * switched: a few records, then zeros, as `pg_switch_wal` leaves them.
fn segments() -> [(&'static str, Vec<u8>); 3] {
    let mut random = fastrand::Rng::with_seed(7);
    let pgbench = segment(&mut random, SEGMENT, |random, page| {
        for row in 0..random.u32(20..40) {
            page.extend_from_slice(&random.u64(..).to_le_bytes());
            page.extend_from_slice(&row.to_le_bytes());
            page.extend_from_slice(&[b' '; 84]);
        }
    });
    let bulk = segment(&mut random, SEGMENT, |random, page| {
        page.extend_from_slice(&random.u64(..1_000_000).to_le_bytes());
        page.extend_from_slice(format!("customer {} {:032x}", random.u16(..10_000), random.u128(..)).as_bytes());
        page.extend_from_slice(&b" and so on and so on"[..random.usize(..20)]);
    });
    let switched = segment(&mut random, 2 * PAGE, |random, page| page.extend_from_slice(&random.u64(..).to_le_bytes()));
    [("pgbench", pgbench), ("bulk", bulk), ("switched", switched)]
}

/// A segment whose pages are filled up to `filled` bytes of it, and zero behind.
fn segment(random: &mut fastrand::Rng, filled: usize, fill: fn(&mut fastrand::Rng, &mut Vec<u8>)) -> Vec<u8> {
    let mut segment = Vec::with_capacity(SEGMENT);
    while segment.len() < filled {
        let mut page = Vec::with_capacity(2 * PAGE);
        page.extend_from_slice(&[0x10, 0xd1, 0, 0, 1, 0, 0, 0]);
        page.extend_from_slice(&(SEGMENT + segment.len()).to_le_bytes());
        page.resize(24, 0);
        while page.len() < PAGE {
            fill(random, &mut page);
        }
        segment.extend_from_slice(&page[..PAGE]);
    }
    segment.resize(SEGMENT, 0);
    segment
}

fn codec(criterion: &mut Criterion) {
    if let Err(error) = measure(criterion) {
        // A benchmark that measures something else than it says must not go on.
        eprintln!("error: {error}");
        std::process::abort();
    }
}

fn measure(criterion: &mut Criterion) -> Outcome {
    let key = age::x25519::Identity::generate();
    let sealed = Encoding { level: 3, recipients: Recipients::parse(&key.to_public().to_string())? };
    let plain = |level| Encoding { level, recipients: Recipients::default() };
    let identities = Identities::parse(key.to_string().expose_secret())?;
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(3));
    for (kind, segment) in &segments() {
        let id = |what: &str| BenchmarkId::new(what, kind);
        group.bench_function(id("hash"), |bencher| bencher.iter(|| ContentHash::of(black_box(segment))));
        for (what, encoding) in
            [("encode, level 1", plain(1)), ("encode, level 3", plain(3)), ("encode, encrypted", sealed.clone())]
        {
            codec::encode_bytes(segment, SUBJECT, &encoding)?;
            group.bench_function(id(what), |bencher| {
                bencher.iter(|| codec::encode_bytes(black_box(segment), SUBJECT, &encoding));
            });
        }
        for (what, encoding) in [("decode", plain(3)), ("decode, encrypted", sealed.clone())] {
            let object = codec::encode_bytes(segment, SUBJECT, &encoding)?.bytes;
            codec::decode(&object, &identities, &mut std::io::sink())?;
            group.bench_function(id(what), |bencher| {
                bencher.iter(|| codec::decode(black_box(&object), &identities, &mut std::io::sink()));
            });
        }
    }
    group.finish();
    Ok(())
}

criterion_group!(benches, codec);
criterion_main!(benches);
