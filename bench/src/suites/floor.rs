//! The floors as rows of their own: what the machine does with no database in between.

use crate::error::Result;
use crate::floor::{AppendFloor, PAGE_BYTES, ReadFloor, Through, Way, memory_passes};
use crate::row::{Ctx, Outcome, Row};

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/floor/append_4k_flush",
        question: "How fast is one durable 4 KiB write, the least that a durable commit needs?",
        unit: "append",
        run: append_4k_flush,
    },
    Row {
        name: "bench/floor/read_16k_depth_1",
        question: "How fast is one random 16 KiB read, the least that a cold get needs?",
        unit: "read",
        run: read_16k_depth_1,
    },
    Row {
        name: "bench/floor/read_16k_depth_32",
        question: "How many random 16 KiB reads a second does the device do with 32 in flight?",
        unit: "read",
        run: read_16k_depth_32,
    },
    Row {
        name: "bench/floor/read_sequential",
        question: "How fast is a file read from front to back, the bound of a cold scan?",
        unit: "pass over the file",
        run: read_sequential,
    },
    Row {
        name: "bench/floor/memory_stream",
        question: "How fast is memory read from front to back, the bound of a warm scan?",
        unit: "pass over 256 MiB",
        run: memory_stream_256m,
    },
];

/// Bytes of the file that the read floors read.
fn file_bytes(ctx: &Ctx) -> u64 {
    ctx.scale.pages * PAGE_BYTES as u64 * 4
}

/// Question: one durable 4 KiB write into a zero-filled file. Not timed: writing the file. Unit: one append. Bound: one
/// device write and one cache flush.
fn append_4k_flush(ctx: &mut Ctx) -> Result<Outcome> {
    let mut floor = AppendFloor::open(&ctx.scratch)?;
    let method = floor.method();
    Ok(Outcome::of(floor.run(ctx.until(0.5))?).note(method))
}

/// Question: one random 16 KiB `O_DIRECT` read. Not timed: writing the file. Unit: one read. Bound: device latency.
fn read_16k_depth_1(ctx: &mut Ctx) -> Result<Outcome> {
    let floor = ReadFloor::open(&ctx.scratch, file_bytes(ctx))?;
    Ok(Outcome::of(floor.random(ctx.until(0.5), &mut ctx.rng(1))?))
}

/// Question: random 16 KiB `O_DIRECT` reads, 32 in flight through a ring of the kernel's. Unit: one read; the latency is
/// the time between completions. Bound: the device's parallelism.
fn read_16k_depth_32(ctx: &mut Ctx) -> Result<Outcome> {
    let floor = ReadFloor::open(&ctx.scratch, file_bytes(ctx))?;
    let sample =
        floor.random_at_depth(Through::Ring, Way::Read, 32, ctx.time(0.5), &mut ctx.rng(2))?;
    Ok(Outcome::of(sample).note("latency is the time from one completion to the next"))
}

/// Question: a file read in 256 KiB pieces, 8 in flight. Unit: one pass; bytes a second are in `bytes_per_second`.
/// Bound: the device's bandwidth.
fn read_sequential(ctx: &mut Ctx) -> Result<Outcome> {
    let floor = ReadFloor::open(&ctx.scratch, file_bytes(ctx))?;
    let mut best: f64 = 0.0;
    let sample = crate::sample::measure(ctx.until(0.3), 1, |_| {
        best = best.max(floor.sequential()?);
        Ok(())
    })?;
    Ok(Outcome::of(sample).extra("bytes_per_second", best))
}

/// Question: memory summed word by word. Unit: one pass over 256 MiB, of four. Bound: memory bandwidth of one
/// core; `bytes_per_second` is of the best pass.
fn memory_stream_256m(ctx: &mut Ctx) -> Result<Outcome> {
    let bytes = if ctx.scale.pages < 1024 {
        4 << 20
    } else {
        256 << 20
    };
    let sample = memory_passes(bytes)?;
    let best = bytes as f64 * 1e9 / sample.nanos(0.0);
    Ok(Outcome::of(sample).extra("bytes_per_second", best))
}
