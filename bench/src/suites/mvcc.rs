//! Snapshots and concurrency: what a read transaction costs, many readers, readers beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::data::{Rng, Rows};
use crate::error::Result;
use crate::row::{Ctx, Loaded, Outcome, Row};
use crate::sample::{Sample, Until, in_threads, measure};
use crate::target::{Db, Options, Table, WriteBatch};
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
];

/// Question: `begin_read` and drop. Not timed: loading. Unit: one open and close, batches of 64 divided. Bound: one store
/// and one fence (6.3 ns on the machine of `performance_targets_v0`); no lock, no allocation.
fn snapshot_open_close(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let open = |_| {
        std::hint::black_box(warm.db.begin_read()?);
        Ok(())
    };
    measure(Until::Ops(10_000), 64, open)?;
    let before = warm.db.stats()?;
    let sample = measure(ctx.until(0.3), 64, open)?;
    let after = warm.db.stats()?;
    let (p50, allocs) = (sample.p50(), sample.allocs_per_op());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .figure("begin_read_p50", p50)
        .figure("begin_read_allocs", allocs)
        .note("batches of 64"))
}

/// A loop of gets, each checked, in batches of 16.
fn gets(db: &Db, table: &Table, rows: Rows, rng: &mut Rng, until: Until) -> Result<Sample> {
    let txn = db.begin_read()?;
    measure(until, 16, |_| {
        let i = rng.below(rows.n);
        txn.get_with(table, rows.key(i), |value| rows.check(i, value))?
    })
}

/// Question: gets from 256 threads, a snapshot each, writer idle. Not timed: loading, starting the threads. Unit: one get,
/// batches of 16 divided; a batch that was descheduled keeps its whole wait. Bound: the gets of one thread times the cores.
fn readers_256_point_get_hot(ctx: &mut Ctx) -> Result<Outcome> {
    let Loaded { db, table, rows } = ctx.warm()?;
    let threads = ctx.threads(256);
    let single = gets(&db, &table, rows, &mut ctx.rng(60), ctx.until(0.2))?;
    let each = (single.per_second() * ctx.scale.seconds / threads as f64) as u64;
    let before = db.stats()?;
    let sample = in_threads(
        threads,
        |thread| Ok(ctx.rng(61 + thread as u64)),
        |_, mut rng| gets(&db, &table, rows, &mut rng, Until::Ops(each.max(64))),
    )?;
    let after = db.stats()?;
    let (all, one) = (sample.per_second(), single.per_second());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate("one thread", one, Unit::PerSecond, all)
        .note("batches of 16"))
}

/// Question: durable transactions of 100 updates of random rows, while 128 threads get without pause. Not timed: loading.
/// Unit: one commit. Bound: one append and flush, once the writer gets a core: with more readers than cores its wait is the
/// scheduler's. `reader_p99_ns` and `reader_idle_p99_ns` are of the readers with and without the writer.
fn writer_commits_with_readers_128(ctx: &mut Ctx) -> Result<Outcome> {
    let Loaded { db, table, rows } = ctx.loaded("writer", Options::new())?;
    let threads = ctx.threads(128);
    let until = Until::Elapsed(ctx.time(0.5));
    let read = |rng: &mut Rng| gets(&db, &table, rows, rng, until);
    let prepare = |thread: usize| Ok(ctx.rng(400 + thread as u64));
    let idle = in_threads(threads, prepare, |_, mut rng| read(&mut rng))?;

    let (stop, mut rng) = (AtomicBool::new(false), ctx.rng(399));
    let before = db.stats()?;
    let (writer, readers) = std::thread::scope(|scope| -> Result<(Sample, Sample)> {
        let readers = scope.spawn(|| {
            in_threads(threads, prepare, |_, mut rng| {
                let mut all = Sample::new();
                while !stop.load(Ordering::Relaxed) {
                    all.then(&gets(&db, &table, rows, &mut rng, Until::Ops(1600))?);
                }
                Ok(all)
            })
        });
        let writer = measure(ctx.until(1.0), 1, |version| {
            let mut batch = WriteBatch::new();
            for _ in 0..100 {
                let i = rng.below(rows.n);
                batch.put(&table, rows.key(i), rows.value(i, version));
            }
            db.commit(batch)?;
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let readers = readers.join().map_err(|_| {
            crate::error::BenchError::Child("the readers' thread panicked".into())
        })??;
        Ok((writer?, readers))
    })?;
    let after = db.stats()?;
    db.close()?;
    Ok(Outcome::of(writer)
        .cost(&before, &after)
        .extra("reader_p99_ns", readers.nanos(99.0))
        .extra("reader_idle_p99_ns", idle.nanos(99.0))
        .extra("reader_gets_per_second", readers.per_second())
        .extra("reader_idle_gets_per_second", idle.per_second()))
}
