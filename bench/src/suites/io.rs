//! northstar-io's queue by its depth: how much the device does at once, and what the queue itself costs.

use crate::data::Rng;
use crate::error::Result;
use crate::floor::{PAGE_BYTES, ReadFloor, Through, Way};
use crate::row::{Ctx, Outcome, Row};
use crate::sample::{Sample, Until};
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
/// the bounds. Not timed: writing the file. Unit: one read; the latency is the time between completions. Bounds: `pread` one at a
/// time, and as many in flight through a ring of the kernel's that nothing of ours is around.
fn read(ctx: &mut Ctx, depth: u32) -> Result<Outcome> {
    let floor = file(ctx)?;
    let one = |until, rng: &mut Rng| floor.random(until, rng);
    curve(ctx, &floor, Way::Read, depth, one, "pread, one at a time")
}

/// Question: as above, written and not flushed. The file's blocks were written before. Unit: one write. Bounds: as above, with
/// `pwrite`.
fn write(ctx: &mut Ctx, depth: u32) -> Result<Outcome> {
    let floor = file(ctx)?;
    let one = |until, rng: &mut Rng| floor.random_writes(until, rng);
    curve(ctx, &floor, Way::Write, depth, one, "pwrite, one at a time")
}

/// Both bounds and the queue, in turn.
fn curve(
    ctx: &Ctx,
    floor: &ReadFloor,
    way: Way,
    depth: u32,
    one: impl Fn(Until, &mut Rng) -> Result<Sample>,
    what: &'static str,
) -> Result<Outcome> {
    let (mut all, mut plain, mut ring) = (Sample::new(), Sample::new(), Sample::new());
    let has_ring = ReadFloor::has_ring();
    for round in 0..ROUNDS {
        let mut rng = ctx.rng(u64::from(600 + depth * 10 + round));
        plain.then(&one(ctx.until(0.02), &mut rng)?);
        let mut part =
            |through| floor.random_at_depth(through, way, depth, ctx.time(0.04), &mut rng);
        if has_ring {
            ring.then(&part(Through::Ring)?);
        }
        all.then(&part(Through::Queue)?);
    }
    let rate = all.per_second();
    let outcome = Outcome::of(all)
        .floor_rate(what, plain.per_second(), Unit::PerSecond, rate)
        .extra("bytes_per_second", rate * PAGE_BYTES as f64)
        .note("latency is the time from one completion to the next");
    if !has_ring {
        return Ok(outcome.note("the kernel gives no ring"));
    }
    let ring = ring.per_second();
    Ok(outcome.floor_rate(
        "a plain ring, as many in flight",
        ring,
        Unit::PerSecond,
        rate,
    ))
}
