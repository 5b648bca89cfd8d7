//! Durable commits: alone, from many threads, and of many rows.

use super::{Metric, P50, P99, Row, Run};
use crate::bench::{Bench, Measured};
use crate::error::Result;
use crate::generator::Rng;
use crate::ledger::Writes;
use crate::rival::Op;
use crate::sample::{in_threads, measure_prepared};
use crate::units::Unit;

const COMMITS: &[Metric] = &[
    Metric::more("per_second", "commits", Unit::PerSecond),
    P50,
    P99,
];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "commit/solo",
        question: "durable transactions of one random put, one thread",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 1, 1)),
        once: false,
    },
    Row {
        name: "commit/threads_8",
        question: "the same, 8 threads",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 8, 1)),
        once: false,
    },
    Row {
        name: "commit/threads_32",
        question: "the same, 32 threads",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 32, 1)),
        once: false,
    },
    Row {
        name: "commit/threads_128",
        question: "the same, 128 threads",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 128, 1)),
        once: false,
    },
    Row {
        name: "commit/rows_100",
        question: "durable transactions of 100 random puts, one thread",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 1, 100)),
        once: false,
    },
    Row {
        name: "commit/rows_1000",
        question: "durable transactions of 1,000 random puts, one thread",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 1, 1000)),
        once: false,
    },
    Row {
        name: "commit/threads_8_rows_100",
        question: "durable transactions of 100 random puts, 8 threads",
        metrics: COMMITS,
        run: Run::Shared(|bench| commits(bench, 8, 100)),
        once: false,
    },
];

/// The puts of one transaction: different rows, so that their order within it says nothing.
pub(super) fn puts(
    bench: &Bench,
    rng: &mut Rng,
    rows: u64,
    version: u32,
    writes: &mut Writes,
) -> Vec<Op> {
    let chosen = bench.choose(rng, rows);
    writes.extend(chosen.iter().map(|i| (*i, version)));
    chosen.into_iter().map(|i| bench.put(i, version)).collect()
}

/// Commits from `threads` threads, `rows` puts each.
pub(super) fn commits(bench: &mut Bench, threads: usize, rows: u64) -> Result<Measured> {
    let (first, until) = (bench.ledger.fresh(), bench.until(1.0));
    let shared = &*bench;
    let one = |thread: usize, mut rng: Rng| {
        let mut session = shared.session()?;
        let mut writes = Writes::new();
        // Versions differ between threads: what is found later tells who wrote it.
        let mut version = first + thread as u32;
        let prepare = |_| {
            let ops = puts(shared, &mut rng, rows, version, &mut writes);
            version += threads as u32;
            ops
        };
        let sample = measure_prepared(until, 1, prepare, |_, ops| session.commit(&ops))?;
        Ok((sample, writes))
    };
    let (sample, writes) = in_threads(threads, |thread| Ok(shared.rng(thread)), one)?;
    bench.ledger.merge(writes);
    let mut measured = Measured::of(&sample);
    // Nothing was read: what is stored is compared afterwards.
    measured.rows_checked = 0;
    Ok(measured)
}
