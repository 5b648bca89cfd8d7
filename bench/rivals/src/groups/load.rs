//! Loading an empty database.

use super::{Metric, Row, Run};
use crate::bench::{Bench, Measured};
use crate::clock::{now, seconds};
use crate::error::Result;
use crate::generator::Rng;
use crate::rival::Op;
use crate::sample::Sample;
use crate::units::Unit;

/// Rows of one transaction.
const TXN_ROWS: usize = 1000;

const RATE: &[Metric] = &[
    Metric::more("rows_per_second", "rows", Unit::PerSecond),
    Metric::less("disk_bytes", "on disk", Unit::Bytes),
];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "load/sorted_one_txn",
        question: "rows in key order, all in one durable transaction, each engine in its way for that",
        metrics: RATE,
        run: Run::Empty(sorted_one_txn),
        once: false,
    },
    Row {
        name: "load/sorted_txns_1000",
        question: "rows in key order, in durable transactions of 1,000",
        metrics: RATE,
        run: Run::Empty(sorted_txns),
        once: false,
    },
    Row {
        name: "load/random_txns_1000",
        question: "rows in random order, in durable transactions of 1,000",
        metrics: RATE,
        run: Run::Empty(random_txns),
        once: false,
    },
];

fn measured(bench: &mut Bench, rows: u64, seconds: f64) -> Result<Measured> {
    let measured = Measured::default().with("rows_per_second", rows as f64 / seconds);
    // What waits to be merged is merged first, so that everyone's files hold the same.
    bench.settle()?;
    let disk = crate::files::disk_bytes(&bench.dir)?;
    Ok(measured.with("disk_bytes", disk as f64))
}

fn sorted_one_txn(bench: &mut Bench) -> Result<Measured> {
    let n = bench.content.len();
    let started = now();
    bench.load(0, n)?;
    let took = seconds(started.elapsed());
    measured(bench, n, took)
}

fn sorted_txns(bench: &mut Bench) -> Result<Measured> {
    let order: Vec<u64> = (0..bench.content.len()).collect();
    txns(bench, &order)
}

fn random_txns(bench: &mut Bench) -> Result<Measured> {
    // One order for all repeats and engines.
    let order = Rng::new(7, 7).permutation(bench.content.len());
    txns(bench, &order)
}

/// Puts rows in `order`. Making the rows is not timed.
fn txns(bench: &mut Bench, order: &[u64]) -> Result<Measured> {
    let mut sample = Sample::new();
    {
        let mut session = bench.session()?;
        for part in order.chunks(TXN_ROWS) {
            let ops: Vec<Op> = part.iter().map(|i| bench.put(*i, 0)).collect();
            let started = now();
            session.commit(&ops)?;
            let took = started.elapsed();
            sample.record(took, ops.len() as u64);
            sample.elapsed += took;
        }
    }
    for i in order {
        bench.ledger.set(*i, Some(0));
    }
    measured(bench, sample.ops, seconds(sample.elapsed))
}
