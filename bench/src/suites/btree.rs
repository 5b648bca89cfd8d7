//! The tree: building it, getting from it hot and cold, scanning it.

pub(crate) mod matrix;
pub(crate) mod updates;

use std::ops::ControlFlow;

use crate::data::{ROW_BYTES, Rng, touch};
use crate::error::{BenchError, Result};
use crate::floor::{Chase, PAGE_BYTES, ReadFloor, Stream};
use crate::row::{Cost, Ctx, Loaded, Outcome, Row, plain};
use crate::sample::{Sample, Until, in_threads, measure};
use crate::target::{Durability, ReadTxn, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/btree/build_sequential_insert_1m",
        question: "How fast is a tree built from rows that rise?",
        unit: "row",
        run: build_sequential_insert_1m,
    },
    Row {
        name: "bench/btree/point_get_hot_1m",
        question: "How fast is a get when everything is in memory?",
        unit: "get",
        run: point_get_hot_1m,
    },
    Row {
        name: "bench/btree/point_get_hot_1m_two_threads",
        question: "Do two threads read twice as fast as one?",
        unit: "get",
        run: point_get_hot_1m_two_threads,
    },
    Row {
        name: "bench/btree/point_get_hot_1m_delta_300k",
        question: "What does a get cost while the delta holds other keys?",
        unit: "get",
        run: point_get_hot_1m_delta_300k,
    },
    Row {
        name: "bench/btree/point_get_cold_1m",
        question: "How fast is a get whose leaf must be read?",
        unit: "get",
        run: point_get_cold_1m,
    },
    Row {
        name: "bench/btree/range_scan_1k_rows_hot",
        question: "How fast are 1,000 rows from a random start?",
        unit: "scan of 1,000 rows",
        run: range_scan_1k_rows_hot,
    },
    Row {
        name: "bench/btree/scan_full_warm",
        question: "How many rows a second does a scan of everything visit in memory?",
        unit: "row",
        run: scan_full_warm,
    },
    Row {
        name: "bench/btree/scan_full_cold",
        question: "How close does a scan of everything come to a raw sequential read?",
        unit: "row",
        run: scan_full_cold,
    },
];

/// Question: ascending rows in buffered batches of 1,000, then a checkpoint. Unit: one row, recorded by batch; the
/// checkpoint counts in throughput. Bound: each byte once to the log and once to a page; beside it, a raw sequential write of
/// the rows' bytes, flushed, before and after.
fn build_sequential_insert_1m(ctx: &mut Ctx) -> Result<Outcome> {
    let rows = ctx.rows();
    let floor = ReadFloor::open(&ctx.scratch, rows.n * ROW_BYTES)?;
    let raw = floor.durable_writes()?;
    let (db, table) = ctx.fresh("build")?;
    let before = db.stats()?;
    let started = crate::clock::now();
    let mut sample = measure(Until::Ops(rows.n / 1000), 1, |b| {
        let mut batch = WriteBatch::new();
        batch.durability(Durability::Buffered);
        for i in b * 1000..(b + 1) * 1000 {
            batch.put(&table, rows.key(i), rows.value(i, 0));
        }
        db.commit(batch)?;
        Ok(())
    })?;
    db.checkpoint()?;
    sample.count_parts(1000);
    sample.elapsed = started.elapsed();
    let after = db.stats()?;
    db.close()?;
    let raw = raw.max(floor.durable_writes()?);
    let rate = sample.per_second() * ROW_BYTES as f64;
    let outcome = Outcome::of(sample).cost(&before, &after);
    let written = outcome.cost.map_or(0, |cost| cost.bytes_written);
    let amplification = outcome.sample.per_op(written) / ROW_BYTES as f64;
    Ok(outcome
        .floor_rate(
            "raw sequential write + flush",
            raw,
            Unit::BytesPerSecond,
            rate,
        )
        .extra("bytes_written_per_byte_put", amplification)
        .note("latency is of a batch of 1,000; throughput is rows and includes the checkpoint"))
}

/// One timed loop of checked gets of random rows.
fn gets(loaded: &Loaded, txn: &ReadTxn, rng: &mut Rng, until: Until) -> Result<Sample> {
    let Loaded { table, rows, .. } = loaded;
    measure(until, 16, |_| {
        let i = rng.below(rows.n);
        txn.get_with(table, rows.key(i), |value| rows.check(i, value))?
    })
}

/// Question: `get_with` of a random row, all pages resident, delta empty, one snapshot. Not timed: loading, one pass over all
/// rows. Unit: one get, batches of 16 divided; making the key and checking the value are in it (about 10 ns). Bound: three
/// dependent cache misses (0.37 µs on the machine of `performance_targets_v0`): three loads, each of the place that the one
/// before it gave, of random cache lines of as much memory as the rows take, in blocks that alternate with the gets.
fn point_get_hot_1m(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let txn = warm.db.begin_read()?;
    let mut rng = ctx.rng(20);
    let mut chase = Chase::new(warm.rows.n * ROW_BYTES, &mut rng);
    gets(&warm, &txn, &mut rng, ctx.until(0.1))?;
    let (mut sample, mut loads) = (Sample::new(), Sample::new());
    let before = warm.db.stats()?;
    for _ in 0..4 {
        loads.then(&chase.run(ctx.until(0.05))?);
        sample.then(&gets(&warm, &txn, &mut rng, ctx.until(0.25))?);
    }
    let after = warm.db.stats()?;
    let (p50, allocs) = (sample.p50(), sample.allocs_per_op());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("three dependent cache misses", &loads)
        .figure("get_warm_p50", p50)
        .figure_if("get_warm_allocs", allocs)
        .note("batches of 16"))
}

/// Question: the same loop on two threads against one, in alternating blocks. Unit: one get, batches of 16 divided. Bound:
/// twice the throughput of one thread, as nothing is shared that is written.
fn point_get_hot_1m_two_threads(ctx: &mut Ctx) -> Result<Outcome> {
    let many = ctx.threads(2);
    let warm = ctx.warm()?;
    let (mut one, mut two) = (Sample::new(), Sample::new());
    two.threads = many;
    for round in 0..6 {
        let loops = |threads: usize| {
            in_threads(
                threads,
                |thread| {
                    Ok((
                        warm.db.begin_read()?,
                        ctx.rng(21 + round * 2 + thread as u64),
                    ))
                },
                |_, (txn, mut rng)| gets(&warm, &txn, &mut rng, ctx.until(0.15)),
            )
        };
        one.then(&loops(1)?);
        two.then(&loops(many)?);
    }
    let (single, double) = (one.per_second(), two.per_second());
    Ok(Outcome::of(two)
        .floor_rate("one thread", single, Unit::PerSecond, double)
        .figure_beside("get_warm_two_threads", double, single)
        .note("batches of 16"))
}

/// Question: the same loop while the delta holds 300 K keys that lie between the rows, in alternating blocks with an empty
/// delta. Not timed: loading both databases. Unit: one get, batches of 16 divided. Bound: the empty delta's figure plus one
/// look into a filter.
fn point_get_hot_1m_delta_300k(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let options = plain()
        .memory_budget(1 << 30)
        .delta_bytes(256 << 20)
        .idle_after(std::time::Duration::from_secs(3600));
    let full = ctx.loaded("delta", options)?;
    let step = (full.rows.n / ctx.scale.delta_keys).max(1);
    let others: Vec<u64> = (0..ctx.scale.delta_keys)
        .map(|k| k * step % full.rows.n)
        .collect();
    for chunk in others.chunks(1000) {
        let mut batch = WriteBatch::new();
        batch.durability(Durability::Buffered);
        for i in chunk {
            batch.put(
                &full.table,
                full.rows.key_between(*i),
                full.rows.value(*i, 1),
            );
        }
        full.db.commit(batch)?;
    }
    let held = full.db.stats()?.delta_bytes;
    if held == 0 {
        return Err(BenchError::Wrong {
            what: "the delta was merged before it could be read".into(),
        });
    }
    let (txn, plain) = (full.db.begin_read()?, warm.db.begin_read()?);
    let mut rng = ctx.rng(30);
    gets(&full, &txn, &mut rng, Until::Ops(full.rows.n))?;
    let (mut with, mut without) = (Sample::new(), Sample::new());
    for _ in 0..6 {
        without.then(&gets(&warm, &plain, &mut rng, ctx.until(0.15))?);
        with.then(&gets(&full, &txn, &mut rng, ctx.until(0.15))?);
    }
    drop(txn);
    full.db.close()?;
    let (held_p50, empty_p50) = (with.p50(), without.p50());
    Ok(Outcome::of(with)
        .floor_p50("the same, delta empty", &without)
        .figure_beside("get_with_delta_p50", held_p50, empty_p50)
        .extra("delta_bytes", held as f64)
        .note("batches of 16"))
}

/// Question: one get in each leaf, in random order, after a reopen. Not timed: loading, reopening. Unit: one get. Bound: one
/// 16 KiB `O_DIRECT` read at depth 1, measured before and after.
fn point_get_cold_1m(ctx: &mut Ctx) -> Result<Outcome> {
    let Loaded { db, rows, .. } = ctx.loaded("cold", plain())?;
    db.close()?;
    let db = plain().open(ctx.scratch.join("cold"))?;
    let table = db.table("rows")?;
    let txn = db.begin_read()?;
    // Further apart than the rows of a leaf, so no two gets share one.
    let apart = (PAGE_BYTES as u64 / ROW_BYTES) * 9 / 8;
    let order = ctx.rng(40).permutation(rows.n / apart);
    let floor = ReadFloor::open(&ctx.scratch, rows.n * ROW_BYTES)?;
    let mut rng = ctx.rng(41);
    let mut raw = floor.random(ctx.until(0.1), &mut rng)?;
    let before = db.stats()?;
    let sample = measure(Until::Ops(order.len() as u64), 1, |at| {
        let i = order[at as usize] * apart + apart / 2;
        txn.get_with(&table, rows.key(i), |value| rows.check(i, value))?
    })?;
    let after = db.stats()?;
    raw.then(&floor.random(ctx.until(0.1), &mut rng)?);
    drop(txn);
    db.close()?;
    let reads = (after.page_reads - before.page_reads) as f64 / sample.ops as f64;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("raw 16 KiB read", &raw)
        .extra("page_reads_per_op", reads))
}

/// Question: `scan` of 1,000 rows from a random start, all resident; each cache line of each value is read. Not timed: loading.
/// Unit: one scan. Bound: one get and 116 KB of memory stream (about 8 µs at 15 GB/s); beside it, in turn, every word of as
/// many bytes added, from a random start of as much memory as the rows take.
fn range_scan_1k_rows_hot(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let Loaded { table, rows, .. } = &warm;
    let wanted = 1000.min(rows.n / 2);
    let txn = warm.db.begin_read()?;
    let mut rng = ctx.rng(50);
    let stream = Stream::new(rows.n * ROW_BYTES);
    let scan = |first: u64| {
        let (mut visited, mut sum, mut wrong) = (0, 0u64, Ok(()));
        txn.scan(table, rows.key(first).., |_, value| {
            if visited == 0 {
                wrong = rows.check(first, Some(value));
            }
            sum = sum.wrapping_add(touch(value));
            visited += 1;
            if visited < wanted {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        std::hint::black_box(sum);
        wrong?;
        expect_rows(visited, wanted)
    };
    let (mut sample, mut streamed) = (Sample::new(), Sample::new());
    let before = warm.db.stats()?;
    for _ in 0..4 {
        streamed.then(&stream.run(ctx.until(0.03), wanted * ROW_BYTES, &mut rng)?);
        sample.then(&measure(ctx.until(0.13), 1, |_| {
            scan(rng.below(rows.n - wanted))
        })?);
    }
    let after = warm.db.stats()?;
    let per_second = sample.per_second() * wanted as f64;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("memory stream of as many bytes", &streamed)
        .extra("rows_per_second", per_second))
}

fn expect_rows(found: u64, wanted: u64) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(BenchError::Wrong {
        what: format!("a scan visited {found} rows of {wanted}"),
    })
}

/// Visits every row of a snapshot, and reads each cache line of each value and a byte of each key.
fn scan_all(txn: &ReadTxn, loaded: &Loaded) -> Result<()> {
    let (mut visited, mut sum) = (0u64, 0u64);
    txn.scan::<&[u8]>(&loaded.table, .., |key, value| {
        visited += 1;
        sum = sum.wrapping_add(u64::from(key[8]) + touch(value));
        ControlFlow::Continue(())
    })?;
    std::hint::black_box(sum);
    expect_rows(visited, loaded.rows.n)
}

/// Question: `scan` over all rows, all resident; each cache line of each value and a byte of each key is read. Not timed:
/// loading. Unit: one row, a whole scan divided. Bound: the memory stream of 116 bytes a row, every word added, in turn with
/// the scans.
fn scan_full_warm(ctx: &mut Ctx) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let txn = warm.db.begin_read()?;
    let (bytes, mut rng) = (warm.rows.n * ROW_BYTES, ctx.rng(51));
    let stream = Stream::new(bytes);
    scan_all(&txn, &warm)?;
    let (mut scans, mut streamed) = (Sample::new(), Sample::new());
    let before = warm.db.stats()?;
    for _ in 0..4 {
        streamed.then(&stream.run(ctx.until(0.03), bytes, &mut rng)?);
        scans.then(&measure(ctx.until(0.13), 1, |_| scan_all(&txn, &warm))?);
    }
    let after = warm.db.stats()?;
    let rate = |scan: &Sample| warm.rows.n as f64 * 1e9 / scan.p50();
    let (per_second, stream) = (rate(&scans), rate(&streamed));
    Ok(Outcome::of(by_row(&scans, warm.rows.n))
        .cost(&before, &after)
        .floor_rate(
            "memory stream",
            stream * ROW_BYTES as f64,
            Unit::BytesPerSecond,
            per_second * ROW_BYTES as f64,
        )
        .figure("scan_warm", per_second)
        .note("the figure is the median scan's"))
}

/// The sample of scans as one of rows: each latency divided by the rows of a scan.
fn by_row(scans: &Sample, rows: u64) -> Sample {
    let mut by_row = Sample::new();
    by_row.record_split(scans, rows);
    by_row
}

/// Question: `scan` over all rows after a reopen, so that every page is read. Not timed: loading, reopening. Unit: one row, a
/// whole scan divided. Bound: a raw sequential `O_DIRECT` read of as many bytes, measured before each scan; the bytes
/// counted are those of the rows, so half-empty pages do not flatter.
fn scan_full_cold(ctx: &mut Ctx) -> Result<Outcome> {
    let mut loaded = ctx.loaded("cold", plain())?;
    loaded.db.close()?;
    let bytes = loaded.rows.n * ROW_BYTES;
    let floor = ReadFloor::open(&ctx.scratch, bytes)?;
    let (mut scans, mut raw, mut cost) = (Sample::new(), Vec::new(), Cost::default());
    for _ in 0..5 {
        raw.push(floor.sequential()?);
        loaded.db = plain().open(ctx.scratch.join("cold"))?;
        loaded.table = loaded.db.table("rows")?;
        let txn = loaded.db.begin_read()?;
        let before = loaded.db.stats()?;
        scans.then(&measure(Until::Ops(1), 1, |_| scan_all(&txn, &loaded))?);
        cost.add(Cost::between(&before, &loaded.db.stats()?));
        drop(txn);
        loaded.db.clone().close()?;
    }
    raw.sort_by(f64::total_cmp);
    let raw = raw[raw.len() / 2];
    let rate = bytes as f64 * 1e9 / scans.p50();
    let mut outcome = Outcome::of(by_row(&scans, loaded.rows.n))
        .floor_rate("raw sequential read", raw, Unit::BytesPerSecond, rate)
        .figure_beside("scan_cold", rate, raw)
        .note("bytes of rows, not of pages; median of five");
    outcome.cost = Some(cost);
    Ok(outcome)
}
