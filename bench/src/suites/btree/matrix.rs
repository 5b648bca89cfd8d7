//! Keys of 16, 32 and 128 bytes with values of 0, 128 and 4,096: gets and puts of each, small.

use crate::data::Shape;
use crate::error::Result;
use crate::row::{Ctx, Outcome, Row, remove};
use crate::sample::{Sample, Until, measure};
use crate::target::{Db, Durability, Table, WriteBatch};
use crate::units::Unit;

/// One row for gets or puts of one shape.
macro_rules! cell {
    ($name:literal, $question:literal, $unit:literal, $of:ident, $key:literal, $value:literal) => {
        Row {
            name: $name,
            question: $question,
            unit: $unit,
            run: |ctx| $of(ctx, $key, $value),
        }
    };
}

/// The matrix.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    cell!("bench/btree/get_k16_v0", "What does a get cost: keys of 16 bytes, no values?", "get", get, 16, 0),
    cell!("bench/btree/get_k16_v128", "What does a get cost: keys of 16 bytes, values of 128 bytes?", "get", get, 16, 128),
    cell!("bench/btree/get_k16_v4096", "What does a get cost: keys of 16 bytes, values of 4,096 bytes?", "get", get, 16, 4096),
    cell!("bench/btree/get_k32_v0", "What does a get cost: keys of 32 bytes, no values?", "get", get, 32, 0),
    cell!("bench/btree/get_k32_v128", "What does a get cost: keys of 32 bytes, values of 128 bytes?", "get", get, 32, 128),
    cell!("bench/btree/get_k32_v4096", "What does a get cost: keys of 32 bytes, values of 4,096 bytes?", "get", get, 32, 4096),
    cell!("bench/btree/get_k128_v0", "What does a get cost: keys of 128 bytes, no values?", "get", get, 128, 0),
    cell!("bench/btree/get_k128_v128", "What does a get cost: keys of 128 bytes, values of 128 bytes?", "get", get, 128, 128),
    cell!("bench/btree/get_k128_v4096", "What does a get cost: keys of 128 bytes, values of 4,096 bytes?", "get", get, 128, 4096),
    cell!("bench/btree/put_k16_v0", "What do puts cost and write: keys of 16 bytes, no values?", "row", put, 16, 0),
    cell!("bench/btree/put_k16_v128", "What do puts cost and write: keys of 16 bytes, values of 128 bytes?", "row", put, 16, 128),
    cell!("bench/btree/put_k16_v4096", "What do puts cost and write: keys of 16 bytes, values of 4,096 bytes?", "row", put, 16, 4096),
    cell!("bench/btree/put_k32_v0", "What do puts cost and write: keys of 32 bytes, no values?", "row", put, 32, 0),
    cell!("bench/btree/put_k32_v128", "What do puts cost and write: keys of 32 bytes, values of 128 bytes?", "row", put, 32, 128),
    cell!("bench/btree/put_k32_v4096", "What do puts cost and write: keys of 32 bytes, values of 4,096 bytes?", "row", put, 32, 4096),
    cell!("bench/btree/put_k128_v0", "What do puts cost and write: keys of 128 bytes, no values?", "row", put, 128, 0),
    cell!("bench/btree/put_k128_v128", "What do puts cost and write: keys of 128 bytes, values of 128 bytes?", "row", put, 128, 128),
    cell!("bench/btree/put_k128_v4096", "What do puts cost and write: keys of 128 bytes, values of 4,096 bytes?", "row", put, 128, 4096),
];

/// Bytes of rows for each row of the `_1m` tables: 16 MB where these have a million.
const BYTES_PER_ROW: u64 = 16;
/// Rows at most for each row of the `_1m` tables, so that those without values do not take longest.
const ROWS_SHARE: u64 = 5;

fn shape(ctx: &Ctx, key_bytes: usize, value_bytes: usize) -> Shape {
    let row = (key_bytes + value_bytes) as u64;
    let rows = ctx.scale.rows * BYTES_PER_ROW / row;
    Shape {
        n: rows.clamp(50, ctx.scale.rows / ROWS_SHARE),
        key_bytes,
        value_bytes,
    }
}

/// Puts all rows in random order, a hundred a buffered transaction, and merges them into pages.
fn fill(ctx: &Ctx, (db, table): (&Db, &Table), shape: Shape) -> Result<Sample> {
    let order = ctx.rng(240).permutation(shape.n);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let chunks: Vec<&[u64]> = order.chunks(100).collect();
    let started = crate::clock::now();
    let mut sample = measure(Until::Ops(chunks.len() as u64), 1, |at| {
        let mut batch = WriteBatch::new();
        batch.durability(Durability::Buffered);
        for &i in chunks[at as usize] {
            shape.key_into(i, &mut key);
            shape.value_into(i, &mut value);
            batch.put(table, &key, &value);
        }
        db.commit(batch)?;
        Ok(())
    })?;
    db.checkpoint()?;
    sample.ops = shape.n;
    sample.elapsed = started.elapsed();
    Ok(sample)
}

/// Question: `get_with` of a random row, all resident, delta empty, in blocks that alternate with gets of `point_get_hot_1m`.
/// Not timed: loading, one pass over all rows. Unit: one get, batches of 16 divided; making the key is in it. Bound: the get
/// of 16 and 100 bytes beside it, which has a larger table; large values add their cache lines only where they are looked at.
fn get(ctx: &mut Ctx, key_bytes: usize, value_bytes: usize) -> Result<Outcome> {
    let warm = ctx.warm()?;
    let shape = shape(ctx, key_bytes, value_bytes);
    let (db, table) = ctx.fresh("matrix")?;
    fill(ctx, (&db, &table), shape)?;
    let (txn, usual) = (db.begin_read()?, warm.db.begin_read()?);
    let mut key = Vec::new();
    let mut one = |i: u64| {
        shape.key_into(i, &mut key);
        txn.get_with(&table, &key, |value| shape.check(i, value))?
    };
    for i in 0..shape.n {
        one(i)?;
    }
    let (mut all, mut beside, mut rng) = (Sample::new(), Sample::new(), ctx.rng(250));
    for _ in 0..3 {
        beside.then(&measure(ctx.until(0.02), 16, |_| {
            let i = rng.below(warm.rows.n);
            let check = |value: Option<&[u8]>| warm.rows.check(i, value);
            usual.get_with(&warm.table, warm.rows.key(i), check)?
        })?);
        all.then(&measure(ctx.until(0.02), 16, |_| one(rng.below(shape.n)))?);
    }
    drop(txn);
    let stats = db.stats()?;
    db.close()?;
    remove(&ctx.scratch.join("matrix"))?;
    Ok(Outcome::of(all)
        .floor_p50("get of 16 + 100 bytes", &beside)
        .extra("rows", shape.n as f64)
        .extra("data_file_bytes", stats.data_file_bytes as f64)
        .note("batches of 16"))
}

/// Question: all rows put in random order, a hundred a buffered transaction, and merged into pages. Unit: one row; the
/// latency is a transaction's, throughput includes the checkpoint. Bound: each byte once to the log and once to a page.
fn put(ctx: &mut Ctx, key_bytes: usize, value_bytes: usize) -> Result<Outcome> {
    let shape = shape(ctx, key_bytes, value_bytes);
    let (db, table) = ctx.fresh("matrix")?;
    let before = db.stats()?;
    let sample = fill(ctx, (&db, &table), shape)?;
    let after = db.stats()?;
    db.close()?;
    remove(&ctx.scratch.join("matrix"))?;
    let outcome = Outcome::of(sample).cost(&before, &after);
    let written = outcome.cost.map_or(0, |cost| cost.bytes_written) as f64;
    let user = (shape.n * shape.row_bytes()) as f64;
    Ok(outcome
        .floor_rate("bytes of the rows", user, Unit::Bytes, written)
        .extra("rows", shape.n as f64)
        .note("latency is of a batch of 100; throughput is rows and includes the checkpoint"))
}
