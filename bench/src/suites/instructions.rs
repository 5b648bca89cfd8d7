//! Instructions of the hot paths: what a gate can hold against on a machine whose times it cannot trust.
//!
//! Each row runs the same loop twice: under valgrind, which counts, and without it, for latency and allocations. Of these
//! rows only what is counted is compared. See [`crate::counted`].

use crate::counted::Counted;
use crate::error::Result;
use crate::row::{Ctx, Outcome, Row};
use crate::sample::{Until, measure};

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/instructions/point_get_hot",
        question: "How many instructions is a get of a random row, all in memory, delta empty?",
        unit: "get",
        run: point_get_hot,
    },
    Row {
        name: "bench/instructions/leaf_search",
        question: "How many of them are there when the root is the leaf?",
        unit: "get",
        run: leaf_search,
    },
    Row {
        name: "bench/instructions/snapshot_open_close",
        question: "How many instructions are begin_read and the drop of its transaction?",
        unit: "open + close",
        run: snapshot_open_close,
    },
    Row {
        name: "bench/instructions/commit_memory",
        question: "How many instructions does a committer spend on a commit of one row, in memory?",
        unit: "commit of one row",
        run: commit_memory,
    },
    Row {
        name: "bench/instructions/record_encode",
        question: "How many instructions is it to gather the operations of a record?",
        unit: "record of 8 rows",
        run: record_encode,
    },
];

/// Question: `get_with` of a random row of 20,000 in a database in memory, checked. Unit: one get. Bound: making and
/// checking key and value, two nodes searched by vector instructions, one key compared: two thousand with AVX2.
fn point_get_hot(ctx: &mut Ctx) -> Result<Outcome> {
    counted(ctx, Counted::PointGetHot)
}

/// Question: as above with a hundred rows, which one leaf holds. Unit: one get. Bound: the above less one node.
fn leaf_search(ctx: &mut Ctx) -> Result<Outcome> {
    counted(ctx, Counted::LeafSearch)
}

/// Question: `begin_read` and drop. Unit: both. Bound: a slot claimed, one fence, a re-check: some hundred.
fn snapshot_open_close(ctx: &mut Ctx) -> Result<Outcome> {
    counted(ctx, Counted::SnapshotOpenClose)
}

/// Question: a commit of one random row of 2,000 in a database in memory: batch, record, checksum, insertion, publication.
/// Unit: one commit, the committing thread's part. Bound: what of it is work on bytes (116 of them), and a dozen atomic
/// operations.
fn commit_memory(ctx: &mut Ctx) -> Result<Outcome> {
    counted(ctx, Counted::CommitMemory)
}

/// Question: a `WriteBatch` of eight rows built and dropped, as many as fit what a batch takes at first: what growing costs depends
/// on how the heap lies. Unit: one batch. Bound: eight copies of 116 bytes and their lengths.
fn record_encode(ctx: &mut Ctx) -> Result<Outcome> {
    counted(ctx, Counted::RecordEncode)
}

fn counted(ctx: &Ctx, what: Counted) -> Result<Outcome> {
    let instructions = what.instructions_per_op(&ctx.scratch, ctx.seed)?;
    let (db, mut work) = what.prepare(ctx.seed)?;
    measure(Until::Ops(crate::counted::OPS), 16, &mut work)?;
    let before = db.stats()?;
    let sample = measure(ctx.until(0.03), 16, &mut work)?;
    let after = db.stats()?;
    drop(work);
    db.close()?;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .extra("instructions_per_op", instructions)
        .note("counted by callgrind; times are of the same loop without it"))
}
