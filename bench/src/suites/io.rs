//! northstar-io's queue by its depth: how much the device does at once, and what the queue itself costs.

use crate::error::Result;
use crate::floor::{PAGE_BYTES, ReadFloor};
use crate::row::{Ctx, Outcome, Row};
use crate::sample::Sample;
use crate::units::Unit;

/// One row of a curve.
macro_rules! depth {
    ($name:literal, $question:literal, $unit:literal, $of:ident, $depth:literal) => {
        Row {
            name: $name,
            question: $question,
            unit: $unit,
            run: |ctx| $of(ctx, $depth),
        }
    };
}

/// The suite's rows.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    depth!("bench/io/queue_read_16k", "What does the queue add to a read that is alone?", "read", read, 1),
    depth!("bench/io/read_16k_depth_2", "How many reads a second are done 2 at a time?", "read", read, 2),
    depth!("bench/io/read_16k_depth_4", "How many reads a second are done 4 at a time?", "read", read, 4),
    depth!("bench/io/read_16k_depth_8", "How many reads a second are done 8 at a time?", "read", read, 8),
    depth!("bench/io/read_16k_depth_16", "How many reads a second are done 16 at a time?", "read", read, 16),
    depth!("bench/io/read_16k_depth_32", "How many reads a second are done 32 at a time?", "read", read, 32),
    depth!("bench/io/read_16k_depth_64", "How many reads a second are done 64 at a time?", "read", read, 64),
    depth!("bench/io/read_16k_depth_128", "How many reads a second are done 128 at a time?", "read", read, 128),
    depth!("bench/io/write_16k_depth_1", "What does the queue add to a write that is alone?", "write", write, 1),
    depth!("bench/io/write_16k_depth_4", "How many writes a second are done 4 at a time?", "write", write, 4),
    depth!("bench/io/write_16k_depth_16", "How many writes a second are done 16 at a time?", "write", write, 16),
    depth!("bench/io/write_16k_depth_64", "How many writes a second are done 64 at a time?", "write", write, 64),
];

/// Blocks of each side, in turns.
const ROUNDS: u32 = 3;

fn file(ctx: &Ctx) -> Result<ReadFloor> {
    ReadFloor::open(&ctx.scratch, ctx.scale.pages * PAGE_BYTES as u64)
}

/// Question: random 16 KiB `O_DIRECT` reads through northstar-io's queue, `depth` in flight, in blocks that alternate with
/// `pread` one at a time. Not timed: writing the file. Unit: one read; the latency is the time between completions. Bound: the
/// device's parallelism; at depth 1 the `pread`.
fn read(ctx: &mut Ctx, depth: u32) -> Result<Outcome> {
    let floor = file(ctx)?;
    let (mut all, mut plain) = (Sample::new(), Sample::new());
    for round in 0..ROUNDS {
        let mut rng = ctx.rng(u64::from(600 + depth * 10 + round));
        plain.then(&floor.random(ctx.until(0.02), &mut rng)?);
        all.then(&floor.random_at_depth(depth, ctx.time(0.04), &mut rng)?);
    }
    Ok(beside(all, &plain, "pread, one at a time"))
}

/// Question: as above, written and not flushed. The file's blocks were written before. Unit: one write. Bound: as above, with
/// `pwrite`.
fn write(ctx: &mut Ctx, depth: u32) -> Result<Outcome> {
    let floor = file(ctx)?;
    let (mut all, mut plain) = (Sample::new(), Sample::new());
    for round in 0..ROUNDS {
        let mut rng = ctx.rng(u64::from(2000 + depth * 10 + round));
        plain.then(&floor.random_writes(ctx.until(0.02), &mut rng)?);
        all.then(&floor.writes_at_depth(depth, ctx.time(0.04), &mut rng)?);
    }
    Ok(beside(all, &plain, "pwrite, one at a time"))
}

fn beside(all: Sample, plain: &Sample, what: &'static str) -> Outcome {
    let (rate, one) = (all.per_second(), plain.per_second());
    let bytes = rate * PAGE_BYTES as f64;
    Outcome::of(all)
        .floor_rate(what, one, Unit::PerSecond, rate)
        .extra("bytes_per_second", bytes)
        .note("latency is the time from one completion to the next")
}
