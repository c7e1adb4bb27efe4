//! What encoding and decoding cost: `cargo bench --bench codec`.

use criterion::{Criterion, criterion_group, criterion_main};

fn codec(criterion: &mut Criterion) {
    criterion.bench_function("hash", |bencher| bencher.iter(|| walhalla::codec::ContentHash::of(&[0; 1024])));
}

criterion_group!(benches, codec);
criterion_main!(benches);
