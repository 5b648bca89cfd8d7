//! Heavy traffic: a thousand threads that read, writers beside them, bursts, an hour of it.

pub(crate) mod burst;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::data::Rng;
use crate::error::{BenchError, Result};
use crate::machine::resident_bytes;
use crate::row::{Ctx, Loaded, Outcome, Row, plain};
use crate::sample::{Sample, Until, beside, in_threads, measure, measure_until};
use crate::suites::{mvcc, soak};
use crate::target::{ReadTxn, WriteBatch};
use crate::units::Unit;

/// The suite's rows, without those of [`burst`].
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/load/concurrent_readers_1000",
        question: "Do a thousand threads that open snapshot after snapshot read what the cores can, and does memory stay?",
        unit: "get",
        run: concurrent_readers_1000,
    },
    Row {
        name: "bench/load/mixed_read_write_1000x4",
        question: "How much do four writers cost a thousand readers, and does each snapshot show whole transactions?",
        unit: "get",
        run: mixed_read_write_1000x4,
    },
    Row {
        name: "bench/load/sustained_1hour",
        question: "Do memory, file size and the 99th percentile stay as they are through an hour of the same work?",
        unit: "step of 100 operations",
        run: sustained_1hour,
    },
];

/// Gets in each snapshot of a reader, those of a pair among them.
const GETS: u64 = 16;
/// Threads that write.
const WRITERS: usize = 4;
/// Pairs of rows that they write: few, so that readers meet new versions.
const PAIRS: u64 = 256;

/// Pairs of rows that are only written together, so that every snapshot has both in the same version.
struct Pairs<'a> {
    at: &'a Loaded,
    /// The newest acknowledged version of each pair.
    acknowledged: Vec<AtomicU64>,
}

impl<'a> Pairs<'a> {
    fn new(at: &'a Loaded) -> Self {
        Self {
            at,
            acknowledged: (0..PAIRS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The rows of a pair: in pages far from each other.
    fn rows(&self, pair: u64) -> [u64; 2] {
        let half = self.at.rows.n / 2;
        let first = pair * half / PAIRS;
        [first, first + half]
    }

    fn newest(&self, pair: u64) -> &AtomicU64 {
        &self.acknowledged[pair as usize]
    }

    /// A durable commit of one of a writer's own pairs; versions rise with each.
    fn write(&self, writer: usize, version: u64, rng: &mut Rng) -> Result<()> {
        let writers = WRITERS as u64;
        let pair = rng.below(PAIRS / writers) * writers + writer as u64;
        let Loaded { db, table, rows } = self.at;
        let mut batch = WriteBatch::new();
        for i in self.rows(pair) {
            batch.put(table, rows.key(i), rows.value(i, version));
        }
        db.commit(batch)?;
        // With the load before a snapshot is opened: who sees this version here opens one that has it.
        self.newest(pair).store(version, Ordering::Release);
        Ok(())
    }

    /// Fails unless both rows of every pair are there in the version that was acknowledged last; nobody writes any more.
    fn check(&self) -> Result<()> {
        let Loaded { db, table, rows } = self.at;
        let txn = db.begin_read()?;
        for pair in 0..PAIRS {
            let newest = self.newest(pair).load(Ordering::Acquire);
            for i in self.rows(pair) {
                let found = txn.get_with(table, rows.key(i), |value| rows.version(i, value))??;
                if found != newest {
                    return Err(wrong(i, found, newest));
                }
            }
        }
        Ok(())
    }

    /// So many threads that read, snapshot after snapshot.
    fn readers(&self, ctx: &Ctx, threads: usize, until: Until) -> Result<Sample> {
        let prepare = |thread| Reader::new(self, ctx.rng(800 + thread as u64));
        in_threads(threads, prepare, |_, mut reader| {
            measure(until, GETS, |index| reader.get(index))
        })
    }
}

#[cold]
fn wrong(i: u64, found: u64, expected: u64) -> BenchError {
    let what = format!("row {i} is in version {found} where {expected} was expected");
    BenchError::Wrong { what }
}

/// A thread that reads.
struct Reader<'a> {
    pairs: &'a Pairs<'a>,
    rng: Rng,
    txn: ReadTxn,
    /// The pair that is looked at in this snapshot.
    pair: u64,
    /// The version of its first row, and at least that which was acknowledged before the snapshot was opened.
    version: u64,
}

impl<'a> Reader<'a> {
    fn new(pairs: &'a Pairs<'a>, rng: Rng) -> Result<Self> {
        Ok(Self {
            pairs,
            rng,
            txn: pairs.at.db.begin_read()?,
            pair: 0,
            version: 0,
        })
    }

    /// A get: of a pair with the first two of each snapshot, else of a random row.
    fn get(&mut self, index: u64) -> Result<()> {
        let Loaded { db, rows, .. } = self.pairs.at;
        match index % GETS {
            0 => {
                self.pair = self.rng.below(PAIRS);
                let newest = self.pairs.newest(self.pair).load(Ordering::Acquire);
                self.txn = db.begin_read()?;
                let [i, _] = self.pairs.rows(self.pair);
                self.version = self.version_of(i)?;
                match self.version < newest {
                    true => Err(wrong(i, self.version, newest)),
                    false => Ok(()),
                }
            }
            1 => {
                let [_, i] = self.pairs.rows(self.pair);
                match self.version_of(i)? {
                    version if version == self.version => Ok(()),
                    version => Err(wrong(i, version, self.version)),
                }
            }
            _ => {
                let i = self.rng.below(rows.n);
                self.version_of(i).map(drop)
            }
        }
    }

    fn version_of(&self, i: u64) -> Result<u64> {
        let Loaded { table, rows, .. } = self.pairs.at;
        let found = |value: Option<&[u8]>| rows.version(i, value);
        self.txn.get_with(table, rows.key(i), found)?
    }
}

fn resident() -> f64 {
    resident_bytes().map_or(0.0, |(resident, _)| resident as f64)
}

/// Question: 1,000 threads, each of which opens a snapshot, gets 16 random rows in it and opens the next, nobody writing. Twice:
/// `resident_growth_bytes` is what the second time left behind beyond the first, which lets everything come to its size. Not timed:
/// loading, starting the threads. Unit: one get with its sixteenth of a snapshot, batches of 16 divided; a batch that was descheduled
/// keeps its whole wait. Bound: the gets of one thread in one snapshot times the cores, measured before and after. Checked:
/// every value; the first wrong one fails the row.
fn concurrent_readers_1000(ctx: &mut Ctx) -> Result<Outcome> {
    let threads = ctx.threads(1000);
    let warm = ctx.warm()?;
    let pairs = Pairs::new(&warm);
    let Loaded { db, table, rows } = &warm;
    let mut rng = ctx.rng(790);
    let mut single = mvcc::gets(db, table, *rows, &mut rng, ctx.until(0.1))?;
    let before = db.stats()?;
    let mut sample = pairs.readers(ctx, threads, ctx.until(0.5))?;
    let settled = resident();
    sample.then(&pairs.readers(ctx, threads, ctx.until(0.5))?);
    let grown = resident() - settled;
    let after = db.stats()?;
    single.then(&mvcc::gets(db, table, *rows, &mut rng, ctx.until(0.1))?);
    sample.threads = threads;
    let (bound, all) = (mvcc::bound(&single, threads), sample.per_second());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate("one thread times the cores", bound, Unit::PerSecond, all)
        .extra("resident_bytes", settled)
        .extra("resident_growth_bytes", grown)
        .note("batches of 16, a snapshot each"))
}

/// Question: the readers of [`concurrent_readers_1000`] while four threads make durable commits, each of the two rows of a pair, without
/// pause. Not timed: loading, starting the threads. Unit: one get. Bound: the same readers without writers, before and after;
/// four fifths of it are the aim. Checked: every value; in each snapshot both rows of one of the 256 pairs, which must be in one
/// version, and in none older than was acknowledged before the snapshot was opened; in the end all pairs. The first
/// wrong one fails the row.
fn mixed_read_write_1000x4(ctx: &mut Ctx) -> Result<Outcome> {
    let threads = ctx.threads(1000);
    let loaded = ctx.loaded("mixed", plain())?;
    let (pairs, db) = (Pairs::new(&loaded), &loaded.db);
    let mut idle = pairs.readers(ctx, threads, ctx.until(0.5))?;
    let before = db.stats()?;
    let (commits, sample) = beside(
        |stop| {
            let prepare = |writer| Ok(ctx.rng(791 + writer as u64));
            in_threads(WRITERS, prepare, |writer, mut rng| {
                measure_until(stop, |index| pairs.write(writer, index + 1, &mut rng))
            })
        },
        |_| pairs.readers(ctx, threads, ctx.until(1.0)),
    )?;
    let after = db.stats()?;
    idle.then(&pairs.readers(ctx, threads, ctx.until(0.5))?);
    pairs.check()?;
    loaded.db.close()?;
    let (rate, without) = (sample.per_second(), idle.per_second());
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate(
            "the same readers without writers",
            without,
            Unit::PerSecond,
            rate,
        )
        .extra("commits_per_second", commits.per_second())
        .extra("commit_p50_ns", commits.p50())
        .extra("commit_p99_ns", commits.p99())
        .extra("reader_idle_p99_ns", idle.p99())
        .note("batches of 16, a snapshot and a pair each"))
}

/// Question: as of `soak/steady_mixed`, for an hour at full size or `--minutes`. Not timed, unit, bound, checked: as there.
fn sustained_1hour(ctx: &mut Ctx) -> Result<Outcome> {
    soak::steady(ctx, ctx.hour)
}
