//! The engine's small parts alone, in caches that are warm: what a change to one of them does, before `nsbench` shows what it
//! does to the whole. `cargo bench -p northstardb --features internals`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking"
)]
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use northstardb::internals::{Buffered, KeyFilter, Node, crc32c, encode_record};

/// One step of splitmix64.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keys of 16 bytes, spread over the whole range, in order.
fn keys(count: u64) -> Vec<Vec<u8>> {
    let key = |i: u64| {
        let position = i * (u64::MAX / count);
        [position.to_be_bytes(), mix(i).to_be_bytes()].concat()
    };
    (0..count).map(key).collect()
}

fn rows(count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    keys(count)
        .into_iter()
        .map(|key| (key, vec![0x5a; 90]))
        .collect()
}

/// Question: which entry of a node has a key. Bound: the heads, 4 bytes each, through a vector register, and one key compared.
fn node_search(c: &mut Criterion) {
    let mut group = c.benchmark_group("node_search");
    let leaf_rows = rows(130);
    let leaf = Node::leaf(&leaf_rows);
    let mut at = 0;
    group.bench_function("leaf_130_rows", |b| {
        b.iter(|| {
            at = (at + 37) % leaf_rows.len();
            leaf.row(black_box(&leaf_rows[at].0)).unwrap()
        });
    });
    group.bench_function("leaf_130_rows_absent", |b| {
        let absent = [0x77; 16];
        b.iter(|| leaf.row(black_box(&absent)));
    });
    let separators = keys(400);
    let branch = Node::branch(&separators);
    group.bench_function("branch_400_children", |b| {
        b.iter(|| {
            at = (at + 37) % separators.len();
            branch.child(black_box(&separators[at])).unwrap()
        });
    });
    group.finish();
}

/// Question: a record made from its rows, checksum and frame included. Bound: one copy and one checksum of its bytes.
fn record_encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("record_encode");
    for count in [1, 10, 100] {
        let rows = rows(count);
        group.throughput(Throughput::Bytes(encode_record(&rows) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &rows, |b, rows| {
            b.iter(|| encode_record(black_box(rows)));
        });
    }
    group.finish();
}

/// Question: CRC-32C of a log block and of a page. Bound: about 100 GB/s in the processor's caches with carry-less multiplication.
fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [64, 4096, 16 * 1024] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &bytes, |b, bytes| {
            b.iter(|| crc32c(black_box(bytes)));
        });
    }
    group.finish();
}

/// Question: a key hashed and held against the filter. Bound: a few multiplications and one cache line.
fn filter(c: &mut Criterion) {
    let (filter, keys) = (KeyFilter::new(20_000), keys(20_000));
    for key in keys.iter().step_by(2) {
        filter.insert(key);
    }
    let mut group = c.benchmark_group("filter");
    for (name, first) in [("present", 0), ("absent", 1)] {
        let mut at = first;
        group.bench_function(name, |b| {
            b.iter(|| {
                at = (at + 2 * 37) % keys.len();
                filter.may_contain(black_box(&keys[at]))
            });
        });
    }
    group.finish();
}

/// Question: a row put into the delta and found in it, at a size that the processor's caches hold. Bound: two or three wide
/// nodes; for a put also the copy of key and value.
fn delta(c: &mut Criterion) {
    const KEYS: u64 = 10_000;
    let keys = keys(KEYS);
    let shuffled: Vec<&Vec<u8>> = (0..KEYS)
        .map(|i| &keys[usize::try_from(i * 7919 % KEYS).unwrap()])
        .collect();
    let rising: Vec<&Vec<u8>> = keys.iter().collect();
    let empty = || Buffered::new(64 << 20, 10_000).unwrap();
    let fill = |mut delta: Buffered, keys: &[&Vec<u8>]| {
        for key in keys {
            assert!(delta.put(key, &[0x5a; 90]));
        }
        delta
    };
    let mut group = c.benchmark_group("delta");
    group.throughput(Throughput::Elements(KEYS));
    for (name, order) in [
        ("insert_10k_rising", &rising),
        ("insert_10k_random", &shuffled),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(empty, |delta| fill(delta, order), BatchSize::PerIteration);
        });
    }
    group.throughput(Throughput::Elements(1));
    let full = fill(empty(), &shuffled);
    let mut at = 0;
    group.bench_function("lookup_10k", |b| {
        b.iter(|| {
            at = (at + 37) % keys.len();
            full.get(black_box(&keys[at])).unwrap()
        });
    });
    group.bench_function("lookup_10k_absent", |b| {
        let absent = [0x77; 16];
        b.iter(|| full.get(black_box(&absent)));
    });
    group.finish();
}

criterion_group!(parts, node_search, record_encode, checksum, filter, delta);
criterion_main!(parts);
