//! The log: durable commits alone and together, records taken in, records replayed.

use crate::child::{Child, DELTA_FULL_BYTES, Task};
use crate::data::{Rng, Rows};
use crate::error::Result;
use crate::floor::{AppendFloor, sorted_map};
use crate::row::{Cost, Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, in_threads, measure, warm_up};
use crate::target::{Db, Durability, Table, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/log/commit_solo_durable",
        question: "How far is a lone durable commit from one raw append and flush?",
        unit: "commit of one row",
        run: commit_solo_durable,
    },
    Row {
        name: "bench/log/commit_32_committers",
        question: "How many durable commits a second do 32 threads make together?",
        unit: "commit of one row",
        run: commit_32_committers,
    },
    Row {
        name: "bench/log/commit_128_committers",
        question: "How many durable commits a second do 128 threads make together?",
        unit: "commit of one row",
        run: commit_128_committers,
    },
    Row {
        name: "bench/log/commit_100_random_puts",
        question: "How many durable transactions of 100 random puts a second does one thread make?",
        unit: "commit of 100 rows",
        run: commit_100_random_puts,
    },
    Row {
        name: "bench/log/append_durable_64k",
        question: "How far is a durable commit of 64 KiB from one raw append and flush as large?",
        unit: "commit of 64 KiB",
        run: append_durable_64k,
    },
    Row {
        name: "bench/log/encode_commit_record",
        question: "What does gathering the operations of a record cost?",
        unit: "record of 100 rows",
        run: encode_commit_record,
    },
    Row {
        name: "bench/log/append_commit_record",
        question: "How many commit records a second does the log take when nobody waits for it?",
        unit: "buffered commit of one row",
        run: append_commit_record,
    },
    Row {
        name: "bench/log/replay_into_memtable",
        question: "How fast does recovery put records into the delta?",
        unit: "row replayed",
        run: replay_into_memtable,
    },
];

/// One durable commit of one random row.
pub(super) fn commit_one(
    db: &Db,
    table: &Table,
    rows: Rows,
    rng: &mut Rng,
    version: u64,
) -> Result<()> {
    let i = rng.below(rows.n);
    let mut batch = WriteBatch::new();
    batch.put(table, rows.key(i), rows.value(i, version));
    db.commit(batch)?;
    Ok(())
}

/// Question: a durable commit of one random row by one thread, against 4 KiB raw appends with flush; blocks of 100 of each
/// alternate, so both see the same device. Unit: one commit. Bound: the raw append.
fn commit_solo_durable(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("solo")?;
    let (rows, mut rng) = (ctx.rows(), ctx.rng(70));
    let mut floor = AppendFloor::open(&ctx.scratch)?;
    let (mut engine, mut raw) = (Sample::new(), Sample::new());
    let (mut version, block) = (0, 100);
    let mut one = |_| {
        version += 1;
        commit_one(&db, &table, rows, &mut rng, version)
    };
    warm_up(50, &mut one)?;
    let before = db.stats()?;
    while engine.elapsed + raw.elapsed < ctx.time(2.0) {
        raw.then(&floor.run(Until::Ops(block))?);
        engine.then(&measure(Until::Ops(block), 1, &mut one)?);
    }
    let after = db.stats()?;
    db.close()?;
    let cost = Cost::between(&before, &after);
    let (p50, floor_p50) = (engine.p50(), raw.p50());
    let per_txn = |flushes: u64| flushes as f64 / cost.txns.max(1) as f64;
    Ok(Outcome::of(engine)
        .cost(&before, &after)
        .floor_p50("raw append + flush", &raw)
        .figure_beside("solo_commit_p50", p50, floor_p50)
        .figure("solo_log_flushes", per_txn(cost.log_flushes))
        .figure("solo_other_flushes", per_txn(cost.other_flushes))
        .extra("raw_p99_ns", raw.nanos(99.0))
        .note(format!(
            "floor: {}; engine: {}",
            floor.method(),
            after.sync_method
        )))
}

/// Question: 32 threads, each waiting for its own durable commits of one row. Unit: one commit. Bound: commits a flush times
/// raw appends and flushes a second.
fn commit_32_committers(ctx: &mut Ctx) -> Result<Outcome> {
    committers(ctx, 32, ["committers_32", "committers_32_flushes"])
}

/// Question: as above with 128 threads. Unit: one commit. Bound: as above, until the processors are busy.
fn commit_128_committers(ctx: &mut Ctx) -> Result<Outcome> {
    committers(ctx, 128, ["committers_128", "committers_128_flushes"])
}

fn committers(
    ctx: &mut Ctx,
    threads: usize,
    [rate_id, flushes_id]: [&'static str; 2],
) -> Result<Outcome> {
    let threads = ctx.threads(threads);
    let (db, table) = ctx.fresh("committers")?;
    let rows = ctx.rows();
    let mut floor = AppendFloor::open(&ctx.scratch)?;
    let mut raw = floor.run(ctx.until(0.2))?;
    let before = db.stats()?;
    let sample = in_threads(
        threads,
        |thread| Ok(ctx.rng(80 + thread as u64)),
        |_, mut rng| {
            measure(ctx.until(1.0), 1, |v| {
                commit_one(&db, &table, rows, &mut rng, v)
            })
        },
    )?;
    let after = db.stats()?;
    raw.then(&floor.run(ctx.until(0.2))?);
    db.close()?;
    let (rate, raw_rate) = (sample.per_second(), raw.per_second());
    let outcome = Outcome::of(sample).cost(&before, &after);
    let flushes = outcome
        .cost
        .and_then(|cost| cost.flushes_per_txn())
        .unwrap_or(f64::NAN);
    Ok(outcome
        .floor_rate("raw append + flush", raw_rate, Unit::PerSecond, rate)
        .figure_beside(rate_id, rate, raw_rate)
        .figure(flushes_id, flushes))
}

/// Question: `begin_write`, 100 puts of random rows of a loaded table, durable `commit`; in turn with raw appends of 12 KiB
/// with flush. Not timed: loading. Unit: one transaction. Bound: one append of three blocks, which are 12 KiB, and a flush,
/// and 100 insertions into the delta.
fn commit_100_random_puts(ctx: &mut Ctx) -> Result<Outcome> {
    let loaded = ctx.loaded("puts", plain())?;
    let (db, table, rows) = (loaded.db, loaded.table, loaded.rows);
    let mut rng = ctx.rng(90);
    let mut floor = AppendFloor::of_blocks(&ctx.scratch, 12 << 10)?;
    let (mut sample, mut raw) = (Sample::new(), Sample::new());
    let before = db.stats()?;
    for _ in 0..5 {
        raw.then(&floor.run(ctx.until(0.08))?);
        sample.then(&measure(ctx.until(0.3), 1, |version| {
            let mut txn = db.begin_write()?;
            for _ in 0..100 {
                let i = rng.below(rows.n);
                txn.put(&table, rows.key(i), rows.value(i, version))?;
            }
            txn.commit()?;
            Ok(())
        })?);
    }
    let after = db.stats()?;
    db.close()?;
    let (rate, raw_rate) = (sample.per_second(), raw.per_second());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate(
            "raw append + flush of 12 KiB",
            raw_rate,
            Unit::PerSecond,
            rate,
        )
        .figure_beside("txn_100_puts", rate, raw_rate))
}

/// Bytes of a record that fills 64 KiB of log: less header, trailer, key and lengths.
const RECORD_64K_BYTES: usize = (64 << 10) - 256;

/// Question: a durable commit of one row of nearly 64 KiB, in blocks of 20 that alternate with raw appends of 64 KiB with
/// flush. Unit: one commit. Bound: the raw append.
fn append_durable_64k(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("append_64k")?;
    let mut floor = AppendFloor::of_blocks(&ctx.scratch, 64 << 10)?;
    let (mut engine, mut raw) = (Sample::new(), Sample::new());
    let mut value = vec![0x5a; RECORD_64K_BYTES];
    let mut cost = Cost::default();
    while engine.elapsed + raw.elapsed < ctx.time(0.6) {
        raw.then(&floor.run(Until::Ops(20))?);
        let before = db.stats()?;
        engine.then(&measure(Until::Ops(20), 1, |i| {
            value[0] = i.to_le_bytes()[0];
            let mut batch = WriteBatch::new();
            batch.put(&table, (i % 64).to_be_bytes(), &value);
            db.commit(batch)?;
            Ok(())
        })?);
        cost.add(Cost::between(&before, &db.stats()?));
    }
    db.close()?;
    remove(&ctx.scratch.join("append_64k"))?;
    Ok(Outcome::of(engine)
        .total_cost(cost)
        .floor_p50("raw append + flush of 64 KiB", &raw))
}

/// Question: a `WriteBatch` of 100 rows built and dropped: the operations of a record, encoded as the log carries them, without
/// its frame. Blocks alternate with copies of as many bytes from memory to memory. Not timed: making keys and values. Unit: one
/// batch. Bound: the copy.
fn encode_commit_record(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("encode")?;
    let rows: Vec<_> = (0..100)
        .map(|i| (ctx.rows().key(i), ctx.rows().value(i, 0)))
        .collect();
    let source = vec![0x5a_u8; 100 * crate::data::ROW_BYTES as usize];
    let (mut all, mut copies) = (Sample::new(), Sample::new());
    for _ in 0..4 {
        copies.then(&measure(ctx.until(0.02), 16, |_| {
            std::hint::black_box(std::hint::black_box(&source).clone());
            Ok(())
        })?);
        all.then(&measure(ctx.until(0.05), 16, |_| {
            let mut batch = WriteBatch::new();
            for (key, value) in &rows {
                batch.put(&table, key, value);
            }
            std::hint::black_box(&batch);
            Ok(())
        })?);
    }
    db.close()?;
    Ok(Outcome::of(all)
        .floor_p50("a copy of as many bytes", &copies)
        .note("batches of 16"))
}

/// Question: buffered commits of one row by one thread: record encoding, insertion into the delta, group append, with
/// nobody waiting for the flush. Unit: one commit; throughput counts until a last, durable commit of each block is
/// acknowledged. Bound: encoding and insertion (1.5 to 3 µs); beside it, in turn, rows put into a sorted map in memory.
fn append_commit_record(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("append")?;
    let (rows, mut rng) = (ctx.rows(), ctx.rng(91));
    let (mut sample, mut map) = (Sample::new(), Sample::new());
    let before = db.stats()?;
    for _ in 0..4 {
        map.then(&sorted_map(rows, rows.n / 10, &mut rng)?);
        let mut block = measure(ctx.until(0.25), 1, |version| {
            let i = rng.below(rows.n);
            let mut batch = WriteBatch::new();
            batch.durability(Durability::Buffered);
            batch.put(&table, rows.key(i), rows.value(i, version));
            db.commit(batch)?;
            Ok(())
        })?;
        let last = crate::clock::now();
        commit_one(&db, &table, rows, &mut rng, u64::MAX)?;
        block.elapsed += last.elapsed();
        sample.then(&block);
    }
    let after = db.stats()?;
    db.close()?;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("a row put into a sorted map", &map))
}

/// Question: opening a database whose delta was full when its process was killed, told as rows a second. A child process
/// commits batches of 1,000 random rows and is killed with SIGKILL. Unit: one row replayed; the latency is the whole open
/// divided. Bound: reading the log tail and one insertion a row (about 1 µs); beside it, as many rows put into a sorted map in
/// memory, before and after. Checked: every acknowledged batch is there.
fn replay_into_memtable(ctx: &mut Ctx) -> Result<Outcome> {
    let dir = ctx.dir("replay")?;
    let task = Task::FillDelta {
        dir: dir.clone(),
        rows: ctx.scale.rows,
        seed: ctx.seed,
        delta_bytes: DELTA_FULL_BYTES,
        load: false,
    };
    let acknowledged = Child::run_until_killed(&task)?;
    let (rows, mut rng) = (ctx.rows(), ctx.rng(92));
    let mut map = sorted_map(rows, acknowledged, &mut rng)?;
    let mut sample = Sample::new();
    let allocs = crate::alloc::Allocs::of_this_thread();
    let started = crate::clock::now();
    let db = plain().open(&dir)?;
    let took = started.elapsed();
    sample.allocs = Some(allocs.since());
    map.then(&sorted_map(rows, acknowledged, &mut rng)?);
    let stats = db.stats()?;
    crate::child::check_filled(&db, &task, acknowledged)?;
    db.close()?;
    remove(&dir)?;
    sample.record(took, acknowledged);
    sample.elapsed = took;
    let (rate, puts) = (sample.per_second(), map.per_second());
    Ok(Outcome::of(sample)
        .floor_rate("rows put into a sorted map", puts, Unit::PerSecond, rate)
        .extra("records_replayed", stats.replayed_records as f64)
        .extra("open_ns", took.as_nanos() as f64))
}
