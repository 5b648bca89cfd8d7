//! northstar-io's small parts alone: buffers, and what a queue costs where the disk costs nothing. `cargo bench -p northstar-io`.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use northstar_io::{Buf, BufPool, Disk, MemoryDisk, Op, OpenMode};

const PAGE_BYTES: usize = 16 * 1024;

/// Question: a page's buffer taken and given back. Bound: from the allocator, its zeros; from a pool, a lock.
fn buffers(c: &mut Criterion) {
    let mut group = c.benchmark_group("buffer_16k");
    group.bench_function("zeroed", |b| {
        b.iter(|| drop(black_box(Buf::zeroed(PAGE_BYTES))));
    });
    let pool = BufPool::new(PAGE_BYTES, 8);
    drop(pool.take());
    group.bench_function("pooled", |b| b.iter(|| drop(black_box(pool.take()))));
    group.finish();
}

/// Question: one transfer of a page through a queue, and past it, in memory. Bound: one copy of 16 KiB.
fn transfers(c: &mut Criterion) {
    let disk = MemoryDisk::new();
    let file = disk.open("data".as_ref(), OpenMode::CreateNew).unwrap();
    let mut buf = Buf::zeroed(PAGE_BYTES);
    file.write_at(0, &buf, PAGE_BYTES).unwrap();
    let mut group = c.benchmark_group("memory_disk_16k");
    group.throughput(Throughput::Bytes(PAGE_BYTES as u64));
    group.bench_function("write_at", |b| {
        b.iter(|| file.write_at(0, black_box(&buf), PAGE_BYTES).unwrap());
    });
    group.bench_function("read_at", |b| {
        b.iter(|| file.read_at(0, black_box(&mut buf)).unwrap());
    });
    let mut queue = disk.queue(8).unwrap();
    let (mut spare, mut ended) = (Some(buf), Vec::new());
    group.bench_function("queue_read", |b| {
        b.iter(|| {
            let read = Op::Read {
                file: Arc::clone(&file),
                offset: 0,
                buf: spare.take().unwrap(),
            };
            queue.submit(1, read).unwrap();
            queue.poll(1, &mut ended).unwrap();
            spare = ended.pop().unwrap().buf;
        });
    });
    group.finish();
}

criterion_group!(parts, buffers, transfers);
criterion_main!(parts);
