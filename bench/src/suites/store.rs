//! The store as a whole: sustained writes beyond the cache, loading, space on disk, memory, opening.

pub(crate) mod crash;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::child::{Child, DELTA_FULL_BYTES, Task, check_filled};
use crate::clock::now;
use crate::data::{ROW_BYTES, Rows, load};
use crate::error::{BenchError, Result};
use crate::floor::{AppendFloor, ReadFloor, sorted_map};
use crate::row::{Cost, Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::stats::median;
use crate::target::{Db, Options, Table, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/store/load_sorted_one_go",
        question: "How fast does one transaction take all rows in key order?",
        unit: "row",
        run: load_sorted_one_go,
    },
    Row {
        name: "bench/store/load_sorted_durable_batches",
        question: "How long do all rows in key order take in durable transactions of 1,000?",
        unit: "durable commit of 1,000 rows",
        run: load_sorted_durable_batches,
    },
    Row {
        name: "bench/store/random_puts_beyond_cache",
        question: "How many random rows a second are overwritten blindly when the data is four times the cache?",
        unit: "row",
        run: random_puts_beyond_cache,
    },
    Row {
        name: "bench/store/disk_after_overwrites",
        question: "How much disk do the rows take when loaded, under overwrites, and after?",
        unit: "durable commit of 1,000 rows",
        run: disk_after_overwrites,
    },
    Row {
        name: "bench/store/memory_within_budget",
        question: "Does the process stay within the memory budget while it loads, reads and overwrites?",
        unit: "run",
        run: memory_within_budget,
    },
    Row {
        name: "bench/store/open_after_kill",
        question: "How long does opening take after kill -9 with a full delta?",
        unit: "open",
        run: open_after_kill,
    },
    Row {
        name: "bench/store/open_after_close",
        question: "How long does opening take after a clean close?",
        unit: "open",
        run: open_after_close,
    },
];

/// Bytes of storage that the files below `dir` occupy.
pub(super) fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(BenchError::file(dir))? {
        let path = entry.map_err(BenchError::file(dir))?.path();
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            // The engine may remove a file between the listing and the look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(BenchError::file(&path)(error)),
        };
        bytes += if meta.is_dir() {
            disk_bytes(&path)?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(bytes)
}

/// Question: one durable transaction of all rows, from the first put to the acknowledged commit, into a fresh database,
/// three times over. Unit: one row. Bound: the bytes once through the log and memory; beside it, in turn, a raw sequential
/// write of the rows' bytes, flushed.
fn load_sorted_one_go(ctx: &mut Ctx) -> Result<Outcome> {
    let rows = ctx.rows();
    let floor = ReadFloor::open(&ctx.scratch, rows.n * ROW_BYTES)?;
    let (mut all, mut merged, mut cost) = (Sample::new(), Sample::new(), Cost::default());
    let mut raw = Vec::new();
    for _ in 0..3 {
        raw.push(floor.durable_writes()?);
        let (db, table) = ctx.fresh("one_go")?;
        let before = db.stats()?;
        let started = now();
        let allocs = crate::alloc::Allocs::of_this_thread();
        let mut batch = WriteBatch::new();
        for i in 0..rows.n {
            batch.put(&table, rows.key(i), rows.value(i, 0));
        }
        db.commit(batch)?;
        let mut sample = Sample::new();
        sample.elapsed = started.elapsed();
        sample.record(sample.elapsed, rows.n);
        sample.allocs = Some(allocs.since());
        all.then(&sample);
        cost.add(Cost::between(&before, &db.stats()?));
        check_some(&db, &table, rows)?;
        db.checkpoint()?;
        merged.record(started.elapsed(), rows.n);
        check_some(&db, &table, rows)?;
        db.close()?;
        remove(&ctx.scratch.join("one_go"))?;
    }
    let (rate, with_checkpoint) = (1e9 / all.p50(), 1e9 / merged.p50());
    Ok(Outcome::of(all)
        .total_cost(cost)
        .floor_rate(
            "raw sequential write + flush",
            median(&raw),
            Unit::BytesPerSecond,
            rate * ROW_BYTES as f64,
        )
        .figure("load_one_go", rate)
        .extra("with_checkpoint_rows_per_second", with_checkpoint)
        .note("one WriteBatch, durable; acknowledged and readable, in pages later; the figure is the median load"))
}

/// Reads a thousandth of the rows, evenly spread.
pub(super) fn check_some(db: &Db, table: &Table, rows: Rows) -> Result<()> {
    let txn = db.begin_read()?;
    for i in (0..rows.n).step_by(997) {
        txn.get_with(table, rows.key(i), |value| rows.check(i, value))??;
    }
    Ok(())
}

/// Question: all rows in ascending order in durable transactions of 1,000. Unit: one transaction. Bound: one append of 120
/// KiB and a flush each, with the insertions overlapped; beside it, in turn, raw appends of as much with flush.
fn load_sorted_durable_batches(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("batches")?;
    let rows = ctx.rows();
    let mut floor = AppendFloor::of_blocks(&ctx.scratch, 120 << 10)?;
    let (mut sample, mut raw) = (Sample::new(), Sample::new());
    let batches = rows.n / 1000;
    let block = batches.div_ceil(10);
    let before = db.stats()?;
    while sample.ops < batches {
        raw.then(&floor.run(Until::Ops(5))?);
        let done = sample.ops;
        let left = block.min(batches - done);
        sample.then(&measure(Until::Ops(left), 1, |b| {
            let mut batch = WriteBatch::new();
            for i in (done + b) * 1000..(done + b + 1) * 1000 {
                batch.put(&table, rows.key(i), rows.value(i, 0));
            }
            db.commit(batch)?;
            Ok(())
        })?);
    }
    let after = db.stats()?;
    check_some(&db, &table, rows)?;
    db.close()?;
    let took = sample.elapsed.as_nanos() as f64;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("raw append + flush of 120 KiB", &raw)
        .figure("load_batches", took))
}

/// Commits durable batches of 1,000 random rows for `time`; calls `each` after every batch.
fn overwrite(
    ctx: &Ctx,
    (db, table, rows): (&Db, &Table, Rows),
    time: Duration,
    mut each: impl FnMut() -> Result<()>,
) -> Result<Sample> {
    let mut rng = ctx.rng(100);
    measure(Until::Elapsed(time), 1, |version| {
        let mut batch = WriteBatch::new();
        for _ in 0..1000 {
            let i = rng.below(rows.n);
            batch.put(table, rows.key(i), rows.value(i, version));
        }
        db.commit(batch)?;
        each()
    })
}

/// Options of a database whose data will be four times its memory, and the rows that make it so.
fn small(ctx: &Ctx) -> (Options, Rows) {
    let budget = ctx.scale.small_budget_mib << 20;
    let options = plain()
        .memory_budget(budget as usize)
        .delta_bytes((ctx.scale.small_delta_mib << 20) as usize);
    let fourfold = if ctx.scale.rows < 100_000 {
        ctx.scale.rows * 4
    } else {
        4 * budget / ROW_BYTES
    };
    (options, Rows::new(fourfold))
}

/// Question: blind durable puts of random rows in batches of 1,000, sustained, the data four times the memory budget, so that
/// checkpoints read and write leaves all along. Not timed: loading. Unit: one row; the latency is a batch's. Bound: log bytes
/// plus leaves read and written a row, at the device's bandwidth; beside it, a raw sequential write of as many bytes as rows of
/// the `_1m` tables take, flushed, before and after.
fn random_puts_beyond_cache(ctx: &mut Ctx) -> Result<Outcome> {
    let (options, rows) = small(ctx);
    let (db, table) = ctx.fresh_with("beyond", options)?;
    load(&db, &table, rows, 1000)?;
    let floor = ReadFloor::open(&ctx.scratch, ctx.scale.rows * ROW_BYTES)?;
    let mut raw = vec![floor.durable_writes()?, floor.durable_writes()?];
    let (mut batches, mut second, mut slowest) = (0u64, now(), f64::INFINITY);
    let before = db.stats()?;
    let mut sample = overwrite(ctx, (&db, &table, rows), ctx.sustained(), || {
        batches += 1;
        if second.elapsed() >= Duration::from_secs(1) {
            slowest = slowest.min(batches as f64 * 1000.0 / second.elapsed().as_secs_f64());
            (batches, second) = (0, now());
        }
        Ok(())
    })?;
    let after = db.stats()?;
    check_some(&db, &table, rows)?;
    db.close()?;
    remove(&ctx.scratch.join("beyond"))?;
    raw.extend([floor.durable_writes()?, floor.durable_writes()?]);
    sample.count_parts(1000);
    let (rate, stall) = (sample.per_second(), sample.nanos(100.0));
    let outcome = Outcome::of(sample).cost(&before, &after);
    let written = outcome.cost.map_or(0, |cost| cost.bytes_written);
    let written = outcome.sample.per_op(written);
    Ok(outcome
        .floor_rate(
            "raw sequential write + flush",
            median(&raw),
            Unit::BytesPerSecond,
            rate * ROW_BYTES as f64,
        )
        .figure("blind_puts", rate)
        .figure("blind_puts_stall", stall)
        .extra(
            "slowest_second_rows_per_second",
            if slowest.is_finite() { slowest } else { rate },
        )
        .extra("bytes_written_per_byte_put", written / ROW_BYTES as f64)
        .extra(
            "checkpoints",
            (after.checkpoints - before.checkpoints) as f64,
        )
        .extra(
            "throttled_ns",
            (after.throttled_ns - before.throttled_ns) as f64,
        )
        .note("latency is of a batch of 1,000; throughput is rows"))
}

/// Question: blocks that the database's files occupy: loaded and merged, the highest seen while random rows are overwritten in
/// durable batches of 1,000, and once the database has been idle for up to ten seconds. Unit: one batch. Bound: the rows'
/// bytes, a copy of what a checkpoint replaces, and the log's tail.
fn disk_after_overwrites(ctx: &mut Ctx) -> Result<Outcome> {
    let loaded = ctx.loaded("disk", plain())?;
    let dir = ctx.scratch.join("disk");
    let after_load = disk_bytes(&dir)?;
    let (mut highest, mut looked) = (after_load, now());
    let before = loaded.db.stats()?;
    let target = (&loaded.db, &loaded.table, loaded.rows);
    let sample = overwrite(ctx, target, ctx.sustained(), || {
        if looked.elapsed() >= Duration::from_millis(20) {
            highest = highest.max(disk_bytes(&dir)?);
            looked = now();
        }
        Ok(())
    })?;
    highest = highest.max(disk_bytes(&dir)?);
    let after = loaded.db.stats()?;
    let (idle, mut lowest) = (now(), u64::MAX);
    while idle.elapsed() < Duration::from_secs_f64(ctx.sustained().as_secs_f64().min(10.0)) {
        lowest = lowest.min(disk_bytes(&dir)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    let idle = disk_bytes(&dir)?;
    check_some(&loaded.db, &loaded.table, loaded.rows)?;
    loaded.db.close()?;
    let closed = disk_bytes(&dir)?;
    remove(&dir)?;
    let outcome = Outcome::of(sample).cost(&before, &after);
    let written = outcome.cost.map_or(0, |cost| cost.bytes_written);
    let written = outcome.sample.per_op(written) / (1000 * ROW_BYTES) as f64;
    let user = (loaded.rows.n * ROW_BYTES) as f64;
    Ok(outcome
        .floor_rate("bytes of the rows", user, Unit::Bytes, idle as f64)
        .figure("disk_loaded", after_load as f64)
        .figure("disk_overwritten", highest as f64)
        .figure("disk_idle", idle as f64)
        .extra("disk_idle_lowest", lowest as f64)
        .extra("disk_closed", closed as f64)
        .extra("bytes_written_per_byte_put", written))
}

/// Question: the highest resident set of a process that loads data four times its budget, reads it and overwrites it. A child
/// process does the work, so that nothing but the engine and a few buffers counts. Unit: the whole run. Bound: the budget.
fn memory_within_budget(ctx: &mut Ctx) -> Result<Outcome> {
    let dir = ctx.dir("memory")?;
    let (_, rows) = small(ctx);
    let task = Task::Memory {
        dir: dir.clone(),
        rows: rows.n,
        seed: ctx.seed,
        budget: ctx.scale.small_budget_mib << 20,
        delta: ctx.scale.small_delta_mib << 20,
        seconds: ctx.scale.seconds * 2.0,
    };
    let mut highest = Ok(0);
    let sample = measure(Until::Ops(1), 1, |_| {
        highest = Child::run_to_end(&task);
        Ok(())
    })?;
    remove(&dir)?;
    let highest = highest? as f64;
    let budget = (ctx.scale.small_budget_mib << 20) as f64;
    Ok(Outcome::of(sample)
        .floor_rate("memory budget", budget, Unit::Bytes, highest)
        .figure_beside("memory_resident", highest, budget)
        .extra("resident_bytes_highest", highest))
}

/// Question: `open` of a database whose process was killed with SIGKILL when its delta was nearly full, three times over; each
/// time a fresh one. Not timed: filling, and checking that every acknowledged batch is there. Unit: one open. Bound: reading
/// the log tail and inserting its rows; beside it, in turn, as many rows put into a sorted map in memory.
fn open_after_kill(ctx: &mut Ctx) -> Result<Outcome> {
    let (mut sample, mut replayed) = (Sample::new(), 0);
    let (mut maps, mut rng) = (Vec::new(), ctx.rng(101));
    for round in 0..3 {
        let dir = ctx.dir("killed")?;
        let task = Task::FillDelta {
            dir: dir.clone(),
            rows: ctx.scale.rows,
            seed: ctx.seed + round,
            delta_bytes: DELTA_FULL_BYTES,
            load: false,
        };
        let acknowledged = Child::run_until_killed(&task)?;
        let map = sorted_map(ctx.rows(), acknowledged, &mut rng)?;
        maps.push(map.elapsed.as_nanos() as f64);
        let mut opened = None;
        sample.then(&measure(Until::Ops(1), 1, |_| {
            opened = Some(plain().open(&dir)?);
            Ok(())
        })?);
        if let Some(db) = opened {
            replayed = db.stats()?.replayed_records;
            check_filled(&db, &task, acknowledged)?;
            db.close()?;
        }
        remove(&dir)?;
    }
    let (worst, open) = (sample.nanos(100.0), sample.p50());
    Ok(Outcome::of(sample)
        .floor_rate(
            "as many rows put into a sorted map",
            median(&maps),
            Unit::Nanos,
            open,
        )
        .figure("open_after_kill", worst)
        .extra("records_replayed", replayed as f64)
        .note("the figure is the slowest open of three"))
}

/// Question: `open` after `close`, for all rows and for a hundredth of them. Unit: one open of the larger. Bound: reading the
/// meta pages, whatever the size.
fn open_after_close(ctx: &mut Ctx) -> Result<Outcome> {
    let mut samples = Vec::new();
    for (name, n) in [
        ("closed_small", ctx.scale.rows / 100),
        ("closed", ctx.scale.rows),
    ] {
        let (db, table) = ctx.fresh(name)?;
        load(&db, &table, Rows::new(n), 1000)?;
        db.close()?;
        let dir = ctx.scratch.join(name);
        let mut sample = Sample::new();
        for _ in 0..20 {
            let mut opened = None;
            sample.then(&measure(Until::Ops(1), 1, |_| {
                opened = Some(plain().open(&dir)?);
                Ok(())
            })?);
            if let Some(db) = opened {
                db.close()?;
            }
        }
        samples.push(sample);
        remove(&dir)?;
    }
    let (Some(large), Some(small)) = (samples.pop(), samples.pop()) else {
        return Err(BenchError::Wrong {
            what: "no sample".into(),
        });
    };
    let p50 = large.p50();
    Ok(Outcome::of(large)
        .floor_p50("a hundredth of the rows", &small)
        .figure("open_after_close", p50)
        .note("the figure is the median of twenty opens"))
}
