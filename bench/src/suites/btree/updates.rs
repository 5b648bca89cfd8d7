//! The tree under change: hot rows updated, rows deleted, gets and puts mixed.

use crate::data::ROW_BYTES;
use crate::error::{BenchError, Result};
use crate::floor::AppendFloor;
use crate::row::{Cost, Ctx, Loaded, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::target::{Durability, WriteBatch};
use crate::units::Unit;

/// The rows about changes.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/btree/point_put_update_10pct_hot",
        question: "What does a durable update of one hot row cost?",
        unit: "update",
        run: point_put_update_10pct_hot,
    },
    Row {
        name: "bench/btree/point_put_update_10pct_hot_txn_10",
        question: "How much cheaper is an update when ten share a transaction?",
        unit: "update",
        run: point_put_update_10pct_hot_txn_10,
    },
    Row {
        name: "bench/btree/point_put_update_10pct_hot_txn_100",
        question: "How much cheaper is an update when a hundred share a transaction?",
        unit: "update",
        run: point_put_update_10pct_hot_txn_100,
    },
    Row {
        name: "bench/btree/delete_10pct",
        question: "Is deleting every tenth row as fast as overwriting it, and is all else still there?",
        unit: "row deleted",
        run: delete_10pct,
    },
    Row {
        name: "bench/btree/point_get_zipfian_1m",
        question: "What does a get cost when few rows are asked for most?",
        unit: "get",
        run: point_get_zipfian_1m,
    },
    Row {
        name: "bench/btree/mixed_80_20_1m",
        question: "How many operations a second does one thread do when one in five is a put?",
        unit: "operation",
        run: mixed_80_20_1m,
    },
];

/// Commits durable transactions of `size` updates of hot rows, which are every tenth of the table.
fn update_hot(
    ctx: &Ctx,
    loaded: &Loaded,
    (size, until): (u64, Until),
    version: &mut u64,
) -> Result<Sample> {
    let Loaded { db, table, rows } = loaded;
    let mut rng = ctx.rng(200 + *version);
    let mut sample = measure(until, 1, |_| {
        *version += 1;
        let mut batch = WriteBatch::new();
        for _ in 0..size {
            let i = rng.below(rows.n / 10) * 10;
            batch.put(table, rows.key(i), rows.value(i, *version));
        }
        db.commit(batch)?;
        Ok(())
    })?;
    sample.count_parts(size);
    Ok(sample)
}

/// Question: durable updates of a tenth of the rows, one a transaction, all resident; blocks of 50 alternate with raw appends
/// and flushes. Not timed: loading. Unit: one update. Bound: the raw append.
fn point_put_update_10pct_hot(ctx: &mut Ctx) -> Result<Outcome> {
    let loaded = ctx.loaded("updates", plain())?;
    let mut floor = AppendFloor::open(&ctx.scratch)?;
    let (mut all, mut raw, mut version) = (Sample::new(), Sample::new(), 0);
    let before = loaded.db.stats()?;
    while all.elapsed + raw.elapsed < ctx.time(0.6) {
        raw.then(&floor.run(Until::Ops(50))?);
        all.then(&update_hot(
            ctx,
            &loaded,
            (1, Until::Ops(50)),
            &mut version,
        )?);
    }
    let after = loaded.db.stats()?;
    loaded.db.close()?;
    remove(&ctx.scratch.join("updates"))?;
    Ok(Outcome::of(all)
        .cost(&before, &after)
        .floor_p50("raw append + flush", &raw))
}

/// Question: as above, ten a transaction, in blocks that alternate with blocks of one a transaction. Unit: one update; the
/// latency is a transaction's. Bound: ten times the updates of one a transaction.
fn point_put_update_10pct_hot_txn_10(ctx: &mut Ctx) -> Result<Outcome> {
    update_together(ctx, 10)
}

/// Question: as above, a hundred a transaction. Unit: one update; the latency is a transaction's. Bound: a hundred times,
/// until encoding and insertion (about 1.5 µs an update) are what takes time; at least ten times.
fn point_put_update_10pct_hot_txn_100(ctx: &mut Ctx) -> Result<Outcome> {
    update_together(ctx, 100)
}

fn update_together(ctx: &Ctx, size: u64) -> Result<Outcome> {
    let loaded = ctx.loaded("updates", plain())?;
    let (mut all, mut alone, mut version) = (Sample::new(), Sample::new(), 0);
    let mut cost = Cost::default();
    while all.elapsed + alone.elapsed < ctx.time(0.6) {
        alone.then(&update_hot(
            ctx,
            &loaded,
            (1, Until::Ops(50)),
            &mut version,
        )?);
        let before = loaded.db.stats()?;
        all.then(&update_hot(
            ctx,
            &loaded,
            (size, Until::Ops(50)),
            &mut version,
        )?);
        cost.add(Cost::between(&before, &loaded.db.stats()?));
    }
    loaded.db.close()?;
    remove(&ctx.scratch.join("updates"))?;
    let (rate, one) = (all.per_second(), alone.per_second());
    Ok(Outcome::of(all)
        .total_cost(cost)
        .floor_rate("one update a transaction", one, Unit::PerSecond, rate)
        .note(format!("latency is of a transaction of {size}")))
}

/// Question: every tenth row deleted in random order, in buffered transactions of 1,000, then a checkpoint. Before it another
/// tenth is overwritten in the same way. Not timed: loading; checking that what was deleted is gone, that its neighbours and
/// the number of rows are right, and that every page is sound. Unit: one row, the checkpoint counts in throughput. Bound: the
/// overwrites, since both rewrite every leaf.
fn delete_10pct(ctx: &mut Ctx) -> Result<Outcome> {
    let loaded = ctx.loaded("delete", plain())?;
    let overwritten = change_tenth(ctx, &loaded, 1, |batch, i| {
        let Loaded { table, rows, .. } = &loaded;
        batch.put(table, rows.key(i), rows.value(i, 1));
    })?;
    let before = loaded.db.stats()?;
    let deleted = change_tenth(ctx, &loaded, 0, |batch, i| {
        batch.delete(&loaded.table, loaded.rows.key(i));
    })?;
    let after = loaded.db.stats()?;
    check_deleted(&loaded)?;
    let dir = ctx.scratch.join("delete");
    loaded.db.close()?;
    remove(&dir)?;
    let (rate, overwrites) = (deleted.per_second(), overwritten.per_second());
    Ok(Outcome::of(deleted)
        .cost(&before, &after)
        .floor_rate(
            "overwriting as many rows",
            overwrites,
            Unit::PerSecond,
            rate,
        )
        .note("latency is of a batch of 1,000; throughput is rows and includes the checkpoint"))
}

/// Changes each row whose index ends with `digit`, in random order, and merges the changes into pages.
fn change_tenth(
    ctx: &Ctx,
    loaded: &Loaded,
    digit: u64,
    change: impl Fn(&mut WriteBatch, u64),
) -> Result<Sample> {
    let order = ctx.rng(210 + digit).permutation(loaded.rows.n / 10);
    let started = crate::clock::now();
    let chunks: Vec<&[u64]> = order.chunks(1000).collect();
    let mut sample = measure(Until::Ops(chunks.len() as u64), 1, |at| {
        let mut batch = WriteBatch::new();
        batch.durability(Durability::Buffered);
        for tenth in chunks[at as usize] {
            change(&mut batch, tenth * 10 + digit);
        }
        loaded.db.commit(batch)?;
        Ok(())
    })?;
    loaded.db.checkpoint()?;
    sample.ops = order.len() as u64;
    sample.elapsed = started.elapsed();
    Ok(sample)
}

/// Fails unless exactly every tenth row is gone and the file is sound.
fn check_deleted(loaded: &Loaded) -> Result<()> {
    let Loaded { db, table, rows } = loaded;
    let txn = db.begin_read()?;
    for i in (0..rows.n).step_by(10) {
        if txn.contains(table, rows.key(i))? {
            let what = format!("row {i} was deleted and is there");
            return Err(BenchError::Wrong { what });
        }
        txn.get_with(table, rows.key(i + 1), |value| rows.check(i + 1, value))??;
    }
    let mut left = 0u64;
    txn.scan::<&[u8]>(table, .., |_, _| {
        left += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    drop(txn);
    let report = db.check()?;
    if left == rows.n / 10 * 9 && report.faults.is_empty() {
        return Ok(());
    }
    Err(BenchError::Wrong {
        what: format!("{left} rows are left; faults: {:?}", report.faults),
    })
}

/// Question: `get_with` of rows drawn with a zipfian skew of 0.99, all resident, in blocks that alternate with uniform draws.
/// Not timed: loading, drawing. Unit: one get, batches of 16 divided. Bound: the uniform get, less the cache misses that the
/// favourites save.
fn point_get_zipfian_1m(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let txn = warm.db.begin_read()?;
    let mut rng = ctx.rng(220);
    // More than the processor's caches see again; the loops go round.
    let count = (ctx.scale.rows / 2).next_power_of_two() as usize;
    let skewed = crate::data::Zipfian::new(warm.rows.n).draw(count, &mut rng);
    let even: Vec<u64> = (0..count).map(|_| rng.below(warm.rows.n)).collect();
    let block = |draws: &[u64], from: &mut usize| {
        measure(ctx.until(0.08), 16, |_| {
            let i = draws[*from % draws.len()];
            *from += 1;
            let Loaded { table, rows, .. } = &warm;
            txn.get_with(table, rows.key(i), |value| rows.check(i, value))?
        })
    };
    let (mut all, mut uniform) = (Sample::new(), Sample::new());
    let (mut at_skewed, mut at_even) = (0, 0);
    let mut cost = Cost::default();
    for _ in 0..4 {
        uniform.then(&block(&even, &mut at_even)?);
        let before = warm.db.stats()?;
        all.then(&block(&skewed, &mut at_skewed)?);
        cost.add(Cost::between(&before, &warm.db.stats()?));
    }
    Ok(Outcome::of(all)
        .total_cost(cost)
        .floor_p50("uniform gets", &uniform)
        .note("batches of 16"))
}

/// Question: one thread that gets eight random rows and puts two, over and over, the puts in a buffered transaction of their
/// own; blocks alternate with gets alone. Not timed: loading. Unit: one get or put; the latency is ten's, divided. Bound:
/// gets at their own speed, puts at that of `append_commit_record`.
fn mixed_80_20_1m(ctx: &mut Ctx) -> Result<Outcome> {
    let loaded = ctx.loaded("mixed", plain())?;
    let Loaded { db, table, rows } = &loaded;
    let (mut all, mut gets, mut rng) = (Sample::new(), Sample::new(), ctx.rng(230));
    let mut cost = Cost::default();
    let mut version = 0;
    for _ in 0..4 {
        let txn = db.begin_read()?;
        gets.then(&measure(ctx.until(0.08), 10, |_| {
            let i = rng.below(rows.n);
            txn.get_with(table, rows.key(i), |value| rows.check(i, value))?
        })?);
        drop(txn);
        let before = db.stats()?;
        let mut block = Sample::new();
        block.record_split(
            &measure(ctx.until(0.15), 1, |_| {
                let txn = db.begin_read()?;
                for _ in 0..8 {
                    let i = rng.below(rows.n);
                    txn.get_with(table, rows.key(i), |value| rows.check(i, value))??;
                }
                version += 1;
                let mut batch = WriteBatch::new();
                batch.durability(Durability::Buffered);
                for _ in 0..2 {
                    let i = rng.below(rows.n);
                    batch.put(table, rows.key(i), rows.value(i, version));
                }
                db.commit(batch)?;
                Ok(())
            })?,
            10,
        );
        all.then(&block);
        cost.add(Cost::between(&before, &db.stats()?));
    }
    let written = all.per_op(cost.bytes_written);
    loaded.db.close()?;
    remove(&ctx.scratch.join("mixed"))?;
    let (rate, alone) = (all.per_second(), gets.per_second());
    Ok(Outcome::of(all)
        .total_cost(cost)
        .floor_rate("gets alone", alone, Unit::PerSecond, rate)
        .extra(
            "bytes_written_per_byte_put",
            // One operation in five is a put.
            written * 5.0 / ROW_BYTES as f64,
        )
        .note("batches of 10"))
}
