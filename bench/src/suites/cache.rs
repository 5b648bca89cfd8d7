//! The page cache: what stays in it under scans, and what a miss costs when something must go.

use std::ops::ControlFlow;

use crate::data::{ROW_BYTES, Rows, Zipfian, load};
use crate::error::Result;
use crate::floor::{PAGE_BYTES, ReadFloor};
use crate::row::{Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::target::{Db, ReadTxn, Table};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/cache/hit_ratio_under_scans",
        question: "Do pages that are asked for again and again stay in memory while everything is scanned?",
        unit: "get",
        run: hit_ratio_under_scans,
    },
    Row {
        name: "bench/cache/get_zipfian_beyond_cache",
        question: "What is a get when few rows are asked for most, the data four times the cache?",
        unit: "get",
        run: get_zipfian_beyond_cache,
    },
    Row {
        name: "bench/cache/get_uniform_evicting",
        question: "What is a get when nearly each must drop a page for the one that it reads?",
        unit: "get",
        run: get_uniform_evicting,
    },
];

/// A database whose rows take four times its cache.
struct Beyond {
    db: Db,
    table: Table,
    rows: Rows,
    /// Pages that the cache has room for.
    frames: u64,
}

impl Beyond {
    fn make(ctx: &Ctx) -> Result<Self> {
        // Of which log and I/O take 14 MiB, and deltas 3 sixteenths.
        let budget = match ctx.scale.rows {
            ..100_000 => 16 << 20,
            100_000..500_000 => 32 << 20,
            _ => 64 << 20,
        };
        let options = plain()
            .memory_budget(budget)
            .delta_bytes(budget / 16)
            .idle_after(std::time::Duration::from_secs(3600));
        let (db, table) = ctx.fresh_with("beyond", options)?;
        let frames = db.stats()?.frames;
        let rows = Rows::new(4 * frames * PAGE_BYTES as u64 / ROW_BYTES);
        load(&db, &table, rows, 1000)?;
        Ok(Self {
            db,
            table,
            rows,
            frames,
        })
    }

    fn get(&self, txn: &ReadTxn, i: u64) -> Result<()> {
        let rows = self.rows;
        txn.get_with(&self.table, rows.key(i), |value| rows.check(i, value))?
    }

    fn scan(&self, txn: &ReadTxn) -> Result<()> {
        let mut left = self.rows.n;
        txn.scan::<&[u8]>(&self.table, .., |_, _| {
            left -= 1;
            ControlFlow::Continue(())
        })?;
        match left {
            0 => Ok(()),
            _ => Err(crate::error::BenchError::Wrong {
                what: format!("a scan left out {left} rows"),
            }),
        }
    }

    fn end(self, ctx: &Ctx) -> Result<()> {
        self.db.close()?;
        remove(&ctx.scratch.join("beyond"))
    }
}

/// The share of gets that read nothing, and what they took.
fn hits(beyond: &Beyond, gets: u64, mut which: impl FnMut() -> u64) -> Result<(f64, Sample)> {
    let txn = beyond.db.begin_read()?;
    let before = beyond.db.stats()?.page_reads;
    let sample = measure(Until::Ops(gets), 1, |_| beyond.get(&txn, which()))?;
    let reads = beyond.db.stats()?.page_reads - before;
    Ok((1.0 - reads as f64 / gets as f64, sample))
}

/// Question: the share of gets that find their pages in memory, right after a scan over everything, against the same before the
/// first. The gets go to rows of adjacent leaves that fill half the cache, eight a leaf; the data is four times the cache. Three
/// rounds. Not timed: loading, the scans. Unit: one get. Bound: the share without scans; a loss of 2 % is what is allowed.
fn hit_ratio_under_scans(ctx: &mut Ctx) -> Result<Outcome> {
    let beyond = Beyond::make(ctx)?;
    let hot = beyond.frames / 2 * (PAGE_BYTES as u64 / ROW_BYTES) * 9 / 10;
    let gets = (beyond.frames / 2 * 8).max(1);
    let mut rng = ctx.rng(300);
    let (mut all, mut before, mut after) = (Sample::new(), 0.0, 0.0);
    let rounds = 3;
    // Until they have been asked for often enough to be known as such.
    for _ in 0..4 {
        hits(&beyond, gets, || rng.below(hot))?;
    }
    // What a scan drove out would be missing in a later round's.
    for _ in 0..rounds {
        before += hits(&beyond, gets, || rng.below(hot))?.0 / f64::from(rounds);
    }
    for _ in 0..rounds {
        beyond.scan(&beyond.db.begin_read()?)?;
        let (share, sample) = hits(&beyond, gets, || rng.below(hot))?;
        after += share / f64::from(rounds);
        all.then(&sample);
    }
    let evictions = beyond.db.stats()?.evictions as f64;
    beyond.end(ctx)?;
    Ok(Outcome::of(all)
        .floor_rate("the hit ratio without scans", before, Unit::Ratio, after)
        .figure_beside("hits_under_scans", after, before)
        .extra("hit_ratio", after)
        .extra("evictions", evictions))
}

/// Question: gets of rows drawn with a zipfian skew of 0.99 over everything, the data four times the cache. Not timed: loading,
/// as many gets to warm the cache, drawing. Unit: one get. Bound: the raw reads that its misses need, measured beside it.
fn get_zipfian_beyond_cache(ctx: &mut Ctx) -> Result<Outcome> {
    let beyond = Beyond::make(ctx)?;
    let (zipfian, mut rng) = (Zipfian::new(beyond.rows.n), ctx.rng(310));
    let count = if ctx.scale.rows < 100_000 {
        500
    } else {
        (30_000.0 * ctx.scale.seconds) as usize
    };
    let draws = zipfian.draw(2 * count, &mut rng);
    missing(ctx, beyond, &draws)
}

/// Question: gets of uniformly random rows, the data four times the cache, so that three in four read a page and drop another.
/// Not timed: loading, as many gets to fill the cache. Unit: one get. Bound: the raw reads that its misses need.
fn get_uniform_evicting(ctx: &mut Ctx) -> Result<Outcome> {
    let beyond = Beyond::make(ctx)?;
    let mut rng = ctx.rng(320);
    let count = if ctx.scale.rows < 100_000 {
        500
    } else {
        (5_000.0 * ctx.scale.seconds) as usize
    };
    let draws: Vec<u64> = (0..2 * count).map(|_| rng.below(beyond.rows.n)).collect();
    missing(ctx, beyond, &draws)
}

/// Gets the first half of the draws to warm the cache, and measures the second.
fn missing(ctx: &Ctx, beyond: Beyond, draws: &[u64]) -> Result<Outcome> {
    let (warming, timed) = draws.split_at(draws.len() / 2);
    // Four times as much as fits.
    let floor = ReadFloor::open(&ctx.scratch, 4 * beyond.frames * PAGE_BYTES as u64)?;
    let mut rng = ctx.rng(330);
    let mut next = warming.iter();
    hits(&beyond, warming.len() as u64, || {
        next.next().copied().unwrap_or(0)
    })?;
    let mut raw = floor.random(ctx.until(0.05), &mut rng)?;
    let before = beyond.db.stats()?;
    let mut next = timed.iter();
    let (share, sample) = hits(&beyond, timed.len() as u64, || {
        next.next().copied().unwrap_or(0)
    })?;
    let after = beyond.db.stats()?;
    raw.then(&floor.random(ctx.until(0.05), &mut rng)?);
    beyond.end(ctx)?;
    let reads = (after.page_reads - before.page_reads) as f64 / timed.len() as f64;
    let evictions = (after.evictions - before.evictions) as f64 / timed.len() as f64;
    let (rate, bound) = (sample.per_second(), raw.per_second() / reads.max(1e-6));
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate("raw reads for its misses", bound, Unit::PerSecond, rate)
        .extra("hit_ratio", share)
        .extra("page_reads_per_op", reads)
        .extra("evictions_per_op", evictions))
}
