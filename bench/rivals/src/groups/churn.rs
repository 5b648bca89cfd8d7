//! A long time of deletes, overwrites and inserts, and what it does to the disk.

use std::time::Duration;

use super::{Metric, P99, Row, Run};
use crate::bench::{Bench, Measured};
use crate::clock::{now, seconds};
use crate::error::Result;
use crate::files::{device_written_bytes, disk_bytes, write_back};
use crate::rival::Op;
use crate::sample::Sample;
use crate::units::Unit;

pub(super) const METRICS: &[Metric] = &[
    Metric::more("rows_per_second", "rows", Unit::PerSecond),
    P99,
    Metric::less("disk_bytes_highest", "disk, highest", Unit::Bytes),
    Metric::less("disk_bytes_after", "disk, after", Unit::Bytes),
    Metric::less("disk_per_live_byte", "per live byte", Unit::Ratio),
    Metric::less("written_per_byte", "written per byte", Unit::Ratio),
];

pub(super) const ROWS: &[Row] = &[Row {
    name: "churn/delete_and_overwrite",
    question: "durable transactions of 1,000: of random rows one in three is deleted, the others overwritten; deleted ones \
               come back",
    metrics: METRICS,
    run: Run::Loaded(churn),
    once: true,
}];

/// Rows of one transaction.
const TXN_ROWS: u64 = 1000;
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn churn(bench: &mut Bench) -> Result<Measured> {
    let time = Duration::from_secs_f64(bench.scale.churn_seconds);
    let (mut rng, mut sample) = (bench.rng(0), Sample::new());
    let (mut highest, mut bytes) = (disk_bytes(&bench.dir)?, 0_u64);
    write_back(&bench.dir)?;
    let written_before = device_written_bytes(&bench.dir);
    let started = now();
    let mut looked = started;
    while started.elapsed() < time {
        let (version, mut changes) = (bench.ledger.fresh(), Vec::new());
        for i in bench.choose(&mut rng, TXN_ROWS) {
            let deleted = bench.ledger.has(i) && rng.below(3) == 0;
            changes.push((i, (!deleted).then_some(version)));
        }
        let op = |(i, version): &(u64, Option<u32>)| Op {
            key: bench.content.key(*i),
            value: version.map(|version| bench.content.value(*i, version)),
        };
        let ops: Vec<Op> = changes.iter().map(op).collect();
        let begun = now();
        bench.session()?.commit(&ops)?;
        let took = begun.elapsed();
        sample.record(took, 1);
        sample.elapsed += took;
        for (i, version) in changes {
            bytes += version.map_or(16, |_| bench.content.row_bytes());
            bench.ledger.set(i, version);
        }
        if looked.elapsed() >= LOOK_EVERY {
            highest = highest.max(disk_bytes(&bench.dir)?);
            looked = now();
        }
    }
    highest = highest.max(disk_bytes(&bench.dir)?);
    bench.settle()?;
    let after = disk_bytes(&bench.dir)?;
    let live = (bench.ledger.present() * bench.content.row_bytes()).max(1);
    let rows = sample.ops * TXN_ROWS.min(bench.content.len().div_ceil(2));
    let mut measured = Measured::default()
        .with("rows_per_second", rows as f64 / seconds(sample.elapsed))
        .with("p99_ns", sample.nanos(99.0))
        .with("disk_bytes_highest", highest.max(after) as f64)
        .with("disk_bytes_after", after as f64)
        .with("disk_per_live_byte", after as f64 / live as f64);
    if let (Some(before), Some(after)) = (written_before, device_written_bytes(&bench.dir)) {
        let written = after.saturating_sub(before) as f64;
        measured = measured.with("written_per_byte", written / bytes.max(1) as f64);
    }
    Ok(measured)
}
