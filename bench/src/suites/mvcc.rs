//! Snapshots and concurrency: what a read transaction costs, many readers, readers beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::data::{Rng, Rows};
use crate::error::{BenchError, Result};
use crate::floor::{AppendFloor, announcement};
use crate::row::{Ctx, Loaded, Outcome, Row, plain};
use crate::sample::{Sample, Until, beside, in_threads, measure};
use crate::target::{Db, Table, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/mvcc/snapshot_open_close",
        question: "What do begin_read and the drop of its transaction cost?",
        unit: "open + close",
        run: snapshot_open_close,
    },
    Row {
        name: "bench/mvcc/readers_256_point_get_hot",
        question: "Do 256 reading threads together do what the cores can?",
        unit: "get",
        run: readers_256_point_get_hot,
    },
    Row {
        name: "bench/mvcc/writer_commits_with_readers_128",
        question: "How does a writer fare beside 128 threads that never stop reading?",
        unit: "durable commit of 100 updates",
        run: writer_commits_with_readers_128,
    },
    Row {
        name: "bench/mvcc/conflict_detection_basic",
        question: "What does it cost a transaction to see whether what it read has changed?",
        unit: "transaction of 10 swaps",
        run: conflict_detection_basic,
    },
];

/// Question: `begin_read` and drop. Not timed: loading. Unit: one open and close, batches of 64 divided. Bound: one store
/// and one fence (6.3 ns on the machine of `performance_targets_v0`), in turn with it: stored, fenced, looked at and taken
/// back; no lock, no allocation.
fn snapshot_open_close(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let open = |_| {
        std::hint::black_box(warm.db.begin_read()?);
        Ok(())
    };
    measure(Until::Ops(10_000), 64, open)?;
    let (mut sample, mut stores) = (Sample::new(), Sample::new());
    let before = warm.db.stats()?;
    for _ in 0..4 {
        stores.then(&announcement(ctx.until(0.02))?);
        sample.then(&measure(ctx.until(0.08), 64, open)?);
    }
    let after = warm.db.stats()?;
    let (p50, allocs) = (sample.p50(), sample.allocs_per_op());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("a store, a fence, a load", &stores)
        .figure("begin_read_p50", p50)
        .figure_if("begin_read_allocs", allocs)
        .note("batches of 64"))
}

/// A loop of gets, each checked, in batches of 16.
pub(super) fn gets(
    db: &Db,
    table: &Table,
    rows: Rows,
    rng: &mut Rng,
    until: Until,
) -> Result<Sample> {
    let txn = db.begin_read()?;
    measure(until, 16, |_| {
        let i = rng.below(rows.n);
        txn.get_with(table, rows.key(i), |value| rows.check(i, value))?
    })
}

/// The gets a second that so many threads could do if each core did what `single` did.
pub(super) fn bound(single: &Sample, threads: usize) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    single.per_second() * cores.min(threads) as f64
}

/// Question: gets from 256 threads, a snapshot each, writer idle. Not timed: loading, starting the threads. Unit: one get,
/// batches of 16 divided; a batch that was descheduled keeps its whole wait. Bound: the gets of one thread times the
/// cores, measured before and after.
fn readers_256_point_get_hot(ctx: &mut Ctx) -> Result<Outcome> {
    let Loaded { db, table, rows } = ctx.warm()?;
    let threads = ctx.threads(256);
    let mut rng = ctx.rng(60);
    let mut single = gets(&db, &table, rows, &mut rng, ctx.until(0.1))?;
    let each = (single.per_second() * ctx.scale.seconds / threads as f64) as u64;
    let before = db.stats()?;
    let sample = in_threads(
        threads,
        |thread| Ok(ctx.rng(61 + thread as u64)),
        |_, mut rng| gets(&db, &table, rows, &mut rng, Until::Ops(each.max(64))),
    )?;
    let after = db.stats()?;
    single.then(&gets(&db, &table, rows, &mut rng, ctx.until(0.1))?);
    let bound = bound(&single, threads);
    let all = sample.per_second();
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate("one thread times the cores", bound, Unit::PerSecond, all)
        .note("batches of 16"))
}

/// Question: durable transactions of 100 updates of random rows, while 128 threads get without pause. Not timed: loading.
/// Unit: one commit. Bound: one append and flush of 12 KiB, once the writer gets a core: with more readers than cores its
/// wait is the scheduler's, so the raw appends are made in turn with the commits beside the same readers. `reader_p99_ns`
/// and `reader_idle_p99_ns` are of the readers with and without a thread that writes.
fn writer_commits_with_readers_128(ctx: &mut Ctx) -> Result<Outcome> {
    let Loaded { db, table, rows } = ctx.loaded("writer", plain())?;
    let threads = ctx.threads(128);
    let until = Until::Elapsed(ctx.time(0.5));
    let read = |rng: &mut Rng| gets(&db, &table, rows, rng, until);
    let prepare = |thread: usize| Ok(ctx.rng(400 + thread as u64));
    let idle = in_threads(threads, prepare, |_, mut rng| read(&mut rng))?;
    let mut floor = AppendFloor::of_blocks(&ctx.scratch, 12 << 10)?;

    let mut rng = ctx.rng(399);
    let before = db.stats()?;
    let reading = |stop: &AtomicBool| {
        in_threads(threads, prepare, |_, mut rng| {
            let mut all = Sample::new();
            while !stop.load(Ordering::Relaxed) {
                all.then(&gets(&db, &table, rows, &mut rng, Until::Ops(1600))?);
            }
            Ok(all)
        })
    };
    let (readers, (commits, raw)) = beside(reading, |_| {
        let (mut commits, mut raw) = (Sample::new(), Sample::new());
        for _ in 0..8 {
            raw.then(&floor.run(ctx.until(0.04))?);
            commits.then(&measure(ctx.until(0.12), 1, |version| {
                let mut batch = WriteBatch::new();
                for _ in 0..100 {
                    let i = rng.below(rows.n);
                    batch.put(&table, rows.key(i), rows.value(i, version));
                }
                db.commit(batch)?;
                Ok(())
            })?);
        }
        Ok((commits, raw))
    })?;
    let after = db.stats()?;
    db.close()?;
    let (rate, raw) = (commits.per_second(), raw.per_second());
    Ok(Outcome::of(commits)
        .cost(&before, &after)
        .floor_rate(
            "raw append + flush of 12 KiB beside as many readers",
            raw,
            Unit::PerSecond,
            rate,
        )
        .extra("reader_p99_ns", readers.nanos(99.0))
        .extra("reader_idle_p99_ns", idle.nanos(99.0))
        .extra("reader_gets_per_second", readers.per_second())
        .extra("reader_idle_gets_per_second", idle.per_second()))
}

/// Rows of [`conflict_detection_basic`]'s table.
const SWAPPED: u64 = 1000;

/// Question: transactions of ten `compare_and_swap`, none of which conflicts, in blocks that alternate with transactions of
/// ten gets and ten puts: what remains is the detection. A database in memory, so that no device hides it. Not timed: filling it.
/// Unit: one committed transaction. Bound: the gets and puts, plus ten comparisons. `conflict_ns` is a transaction whose first swap
/// meets another value and that ends there. Checked: every swap and every conflict gives the right answer.
fn conflict_detection_basic(ctx: &mut Ctx) -> Result<Outcome> {
    let db = plain().memory()?;
    let table = db.table("rows")?;
    let mut batch = WriteBatch::new();
    for i in 0..SWAPPED {
        batch.put(&table, i.to_be_bytes(), 0u64.to_le_bytes());
    }
    db.commit(batch)?;
    let mut rng = ctx.rng(500);
    let mut keys = || [0; 10].map(|_: u64| rng.below(SWAPPED).to_be_bytes());
    let (mut swaps, mut puts, mut conflicts) = (Sample::new(), Sample::new(), Sample::new());
    let wrong = |what: &str| BenchError::Wrong {
        what: what.to_owned(),
    };
    let value_of = |found: Option<&[u8]>| {
        let bytes = found.and_then(|value| value.first_chunk::<8>());
        bytes.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
    };
    for _ in 0..6 {
        puts.then(&measure(ctx.until(0.03), 1, |_| {
            let mut txn = db.begin_write()?;
            for key in keys() {
                let old = txn.get_with(&table, key, value_of)?;
                txn.put(&table, key, (old + 1).to_le_bytes())?;
            }
            txn.commit()?;
            Ok(())
        })?);
        swaps.then(&measure(ctx.until(0.03), 1, |_| {
            let mut txn = db.begin_write()?;
            for key in keys() {
                let old = txn.get_with(&table, key, value_of)?;
                let (old, new) = (old.to_le_bytes(), (old + 1).to_le_bytes());
                if !txn.compare_and_swap(&table, key, Some(&old), Some(&new))? {
                    return Err(wrong("a swap of the value that was just read was refused"));
                }
            }
            txn.commit()?;
            Ok(())
        })?);
        conflicts.then(&measure(ctx.until(0.01), 1, |_| {
            let mut txn = db.begin_write()?;
            let other = u64::MAX.to_le_bytes();
            if txn.compare_and_swap(&table, keys()[0], Some(&other), None)? {
                return Err(wrong("a swap of a value that nobody wrote was made"));
            }
            txn.abort();
            Ok(())
        })?);
    }
    // The rows also hold what was done to warm up.
    let done = [&swaps, &puts].map(|sample| sample.ops + sample.warmup_ops);
    let done = (done[0] + done[1]) * 10;
    let txn = db.begin_read()?;
    let mut sum = 0;
    for i in 0..SWAPPED {
        sum += txn.get_with(&table, i.to_be_bytes(), value_of)?;
    }
    drop(txn);
    db.close()?;
    if sum != done {
        return Err(wrong(&format!(
            "{done} rises were acknowledged, the rows hold {sum}"
        )));
    }
    Ok(Outcome::of(swaps)
        .floor_p50("as many gets and puts", &puts)
        .extra("conflict_ns", conflicts.p50())
        .note("in memory; write transactions exclude each other, so only a swap can conflict"))
}
