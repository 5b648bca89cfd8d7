//! States of the past: opening one, reading from it, what keeping it costs.

use crate::data::{Rng, Rows, load, touch};
use crate::error::{BenchError, Result};
use crate::row::{Ctx, Outcome, Row, remove};
use crate::sample::{Sample, Until, measure};
use crate::target::{Db, Options, ReadTxn, Retention, Table, TxnId, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/timetravel/open_snapshot_by_txn",
        question: "What do begin_read_at of any transaction and the drop of it cost?",
        unit: "open + close",
        run: open_snapshot_by_txn,
    },
    Row {
        name: "bench/timetravel/get_at",
        question: "How long does a get at any transaction take in a table that is always written to?",
        unit: "open, get, close",
        run: get_at,
    },
    Row {
        name: "bench/timetravel/get_at_quiet",
        question: "Is a get at an earlier transaction as fast as any where nothing has changed since?",
        unit: "get",
        run: get_at_quiet,
    },
    Row {
        name: "bench/timetravel/range_at_1000",
        question: "How fast are ranges at any transaction?",
        unit: "range of 1,000 rows",
        run: range_at_1000,
    },
    Row {
        name: "bench/timetravel/diff_1000",
        question: "What does it cost to list what 1,000 transactions of long ago changed?",
        unit: "diff of 1,000 transactions",
        run: diff_1000,
    },
    Row {
        name: "bench/timetravel/kept_bytes",
        question: "How much room does a superseded version take?",
        unit: "durable transaction of one put",
        run: kept_bytes,
    },
    Row {
        name: "bench/timetravel/held_snapshot",
        question: "How much larger does the file become because a snapshot is held while everything is overwritten?",
        unit: "durable commit of 100 updates",
        run: held_snapshot,
    },
    Row {
        name: "bench/timetravel/commit_keeping_all",
        question: "How much slower are updates if every version is kept?",
        unit: "durable commit of 100 updates",
        run: commit_keeping_all,
    },
];

/// A database with a long past: a table whose rows were updated one transaction at a time, and one that was only loaded.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    db: Db,
    busy: Table,
    quiet: Table,
    /// Rows of each table.
    rows: Rows,
    /// The transaction before the first update; as many follow as there are in `updates`.
    begin: TxnId,
    /// The row of each update.
    updates: std::sync::Arc<[u32]>,
    /// How long the updates took.
    sample: Sample,
    /// Pages of history, times their size.
    kept_bytes: u64,
}

impl Past {
    /// A transaction among the updates.
    fn any(&self, rng: &mut Rng) -> TxnId {
        TxnId::new(self.begin.get() + rng.below(self.updates.len() as u64 + 1))
    }

    /// The last transaction.
    fn end(&self) -> TxnId {
        TxnId::new(self.begin.get() + self.updates.len() as u64)
    }

    /// The version of `row` at `at`: the number of its last update.
    fn version(&self, row: u64, at: TxnId) -> u64 {
        let seen = (at.get() - self.begin.get()) as usize;
        let last = self.updates[..seen]
            .iter()
            .rposition(|update| u64::from(*update) == row);
        last.map_or(0, |last| last as u64 + 1)
    }
}

/// Builds it, or gives the one that was built: as many transactions as rows, each of which updates a random one.
fn past(ctx: &mut Ctx) -> Result<Past> {
    if let Some(past) = &ctx.past {
        return Ok(past.clone());
    }
    let rows = ctx.rows();
    // All in memory, and nothing cleans up meanwhile.
    let options = Options::new()
        .history(Retention::All)
        .log_retention(Retention::All)
        .memory_budget(1 << 30)
        .idle_after(std::time::Duration::from_secs(3600));
    let (db, busy) = ctx.fresh_with("past", options)?;
    let quiet = db.table("quiet")?;
    load(&db, &busy, rows, 1000)?;
    load(&db, &quiet, rows, 1000)?;
    let begin = db.begin_read()?.txn_id();
    let mut rng = ctx.rng(700);
    let updates: Vec<u32> = (0..ctx.scale.rows)
        .map(|_| rng.below(rows.n) as u32)
        .collect();
    let mut last = None;
    let sample = measure(Until::Ops(ctx.scale.rows), 1, |at| {
        let row = u64::from(updates[at as usize]);
        let mut batch = WriteBatch::new();
        batch.put(&busy, rows.key(row), rows.value(row, at + 1));
        last = Some(db.submit(batch)?);
        Ok(())
    })?;
    if let Some(last) = last {
        last.wait()?;
    }
    db.checkpoint()?;
    let stats = db.stats()?;
    let past = Past {
        db,
        busy,
        quiet,
        rows,
        begin,
        updates: updates.into(),
        sample,
        kept_bytes: stats.history_pages * u64::from(stats.page_bytes),
    };
    // Every state is what it was.
    for _ in 0..500 {
        let (at, row) = (past.any(&mut rng), rng.below(rows.n));
        let read = past.db.begin_read_at(at)?;
        let expected = rows.value(row, past.version(row, at));
        if read.get(&past.busy, rows.key(row))?.as_deref() != Some(&expected[..]) {
            return Err(BenchError::Wrong {
                what: format!("row {row} has another value as of {at}"),
            });
        }
    }
    // All of it is in memory from here on.
    for (table, at) in [
        (&past.busy, begin),
        (&past.busy, past.end()),
        (&past.quiet, begin),
    ] {
        let read = past.db.begin_read_at(at)?;
        let mut seen = 0;
        read.scan::<&[u8]>(table, .., |_, _| {
            seen += 1;
            std::ops::ControlFlow::Continue(())
        })?;
        if seen != rows.n {
            return Err(BenchError::Wrong {
                what: format!("{seen} rows as of {at}, not {}", rows.n),
            });
        }
    }
    ctx.past = Some(past.clone());
    Ok(past)
}

/// Question: `begin_read_at` of a random transaction, and drop. Not timed: building the past. Unit: one open and close,
/// batches of 64 divided. Bound: `begin_read` and drop, in turn with it; no lock, no allocation.
fn open_snapshot_by_txn(ctx: &mut Ctx) -> Result<Outcome> {
    let past = past(ctx)?;
    let mut rng = ctx.rng(701);
    let (mut sample, mut newest) = (Sample::new(), Sample::new());
    for _ in 0..4 {
        sample.then(&measure(ctx.until(0.05), 64, |_| {
            std::hint::black_box(past.db.begin_read_at(past.any(&mut rng))?);
            Ok(())
        })?);
        newest.then(&measure(ctx.until(0.05), 64, |_| {
            std::hint::black_box(past.db.begin_read()?);
            Ok(())
        })?);
    }
    let (p50, p99, allocs) = (sample.p50(), sample.p99(), sample.allocs_per_op());
    Ok(Outcome::of(sample)
        .floor_p50("begin_read", &newest)
        .figure("open_at_p50", p50)
        .figure("open_at_p99", p99)
        .figure_if("open_at_allocs", allocs)
        .note("batches of 64"))
}

/// Question: a get of a random row at a random transaction of as many as there are rows in a full-size table, each of which
/// updated one row; opening and closing the state included. Not timed: building the past. Unit: one get. Bound: a get of the
/// newest state in turn with it, opened and closed likewise.
fn get_at(ctx: &mut Ctx) -> Result<Outcome> {
    let past = past(ctx)?;
    let mut rng = ctx.rng(702);
    let get = |at: Option<TxnId>, row: u64| -> Result<()> {
        let read = match at {
            Some(at) => past.db.begin_read_at(at)?,
            None => past.db.begin_read()?,
        };
        let key = past.rows.key(row);
        read.get_with(&past.busy, key, |value| past.rows.check(row, value))?
    };
    let (mut sample, mut newest) = (Sample::new(), Sample::new());
    for _ in 0..4 {
        sample.then(&measure(ctx.until(0.1), 1, |_| {
            get(Some(past.any(&mut rng)), rng.below(past.rows.n))
        })?);
        newest.then(&measure(ctx.until(0.05), 1, |_| {
            get(None, rng.below(past.rows.n))
        })?);
    }
    let p50 = sample.p50();
    let stats = past.db.stats()?;
    Ok(Outcome::of(sample)
        .floor_p50("get of the newest state", &newest)
        .figure("get_at_p50", p50)
        .extra("runs", stats.history_runs as f64)
        .extra("transactions", past.updates.len() as f64))
}

/// Question: gets at a transaction in the middle of the past, in a table that was not written to since. Not timed: building the
/// past. Unit: one get, batches of 16 divided. Bound: the same gets of the newest state, in turn with them.
fn get_at_quiet(ctx: &mut Ctx) -> Result<Outcome> {
    let past = past(ctx)?;
    let middle = TxnId::new(past.begin.get() + past.updates.len() as u64 / 2);
    let (then, now) = (past.db.begin_read_at(middle)?, past.db.begin_read()?);
    let mut rng = ctx.rng(703);
    let mut get = |read: &ReadTxn| {
        let row = rng.below(past.rows.n);
        let key = past.rows.key(row);
        read.get_with(&past.quiet, key, |value| past.rows.check(row, value))?
    };
    let (mut sample, mut newest) = (Sample::new(), Sample::new());
    for _ in 0..4 {
        sample.then(&measure(ctx.until(0.05), 16, |_| get(&then))?);
        newest.then(&measure(ctx.until(0.05), 16, |_| get(&now))?);
    }
    let p50 = sample.p50();
    Ok(Outcome::of(sample)
        .floor_p50("get of the newest state", &newest)
        .figure_beside("get_at_quiet_p50", p50, newest.p50())
        .note("batches of 16"))
}

/// Question: ranges of 1,000 rows from a random one on, at a random transaction. Not timed: building the past. Unit: one range,
/// opening included; each cache line of each value is read. Bound: the same ranges of the newest state, in turn with them and
/// read likewise. Checked: the number of rows.
fn range_at_1000(ctx: &mut Ctx) -> Result<Outcome> {
    let past = past(ctx)?;
    let mut rng = ctx.rng(704);
    let wanted = past.rows.n.min(1000);
    let range = |at: Option<TxnId>, from: u64| -> Result<()> {
        let read = match at {
            Some(at) => past.db.begin_read_at(at)?,
            None => past.db.begin_read()?,
        };
        let (from, mut left, mut sum) = (past.rows.key(from), wanted, 0u64);
        read.scan(&past.busy, from.as_slice().., |_, value| {
            sum = sum.wrapping_add(touch(value));
            left -= 1;
            match left {
                0 => std::ops::ControlFlow::Break(()),
                _ => std::ops::ControlFlow::Continue(()),
            }
        })?;
        std::hint::black_box(sum);
        if left > 0 {
            return Err(BenchError::Wrong {
                what: format!("{left} rows of a range are missing"),
            });
        }
        Ok(())
    };
    let last = past.rows.n - wanted + 1;
    let before = past.db.stats()?;
    let (mut sample, mut newest) = (Sample::new(), Sample::new());
    // In turn so often that a machine whose pace changes from one tenth of a second to the next does so for both.
    for _ in 0..20 {
        sample.then(&measure(ctx.until(0.02), 1, |_| {
            range(Some(past.any(&mut rng)), rng.below(last))
        })?);
        newest.then(&measure(ctx.until(0.01), 1, |_| {
            range(None, rng.below(last))
        })?);
    }
    let (all, floor) = (sample.p50(), newest.p50());
    let after = past.db.stats()?;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("range of the newest state", &newest)
        .figure_beside("range_at_p50", all, floor))
}

/// Question: the keys that differ between two states 1,000 transactions apart, with both values, anywhere in the past. Not timed:
/// building the past. Unit: one diff. Bound: gets of the same keys in both states, in turn with them. Checked: how many keys, and
/// once in each of sixteen places which.
fn diff_1000(ctx: &mut Ctx) -> Result<Outcome> {
    let past = past(ctx)?;
    let mut rng = ctx.rng(705);
    let apart = past.updates.len().min(1000);
    let mut any = || {
        let first = rng.below((past.updates.len() - apart) as u64 + 1);
        let mut rows = past.updates[first as usize..][..apart].to_vec();
        rows.sort_unstable();
        rows.dedup();
        let before = past.begin.get() + first;
        let states = [before, before + apart as u64].map(TxnId::new);
        (states, rows)
    };
    let before = past.db.stats()?;
    let (mut sample, mut gets) = (Sample::new(), Sample::new());
    for _ in 0..4 {
        let places: [_; 16] = std::array::from_fn(|_| any());
        for ([then, now], rows) in &places {
            let mut keys = Vec::new();
            past.db.diff(&past.busy, *then, *now, |found| {
                keys.push(found.key.to_vec());
                std::ops::ControlFlow::Continue(())
            })?;
            let expected = rows.iter().map(|row| past.rows.key(u64::from(*row)));
            if !keys.iter().map(Vec::as_slice).eq(expected) {
                return Err(BenchError::Wrong {
                    what: format!("other keys differ between {then} and {now}"),
                });
            }
        }
        sample.then(&measure(ctx.until(0.1), 1, |nth| {
            let ([then, now], rows) = &places[nth as usize % places.len()];
            let (then, now) = (*then, *now);
            let mut found = 0;
            past.db.diff(&past.busy, then, now, |_| {
                found += 1;
                std::ops::ControlFlow::Continue(())
            })?;
            match found == rows.len() {
                true => Ok(()),
                false => Err(BenchError::Wrong {
                    what: format!(
                        "{found} keys differ between {then} and {now}, not {}",
                        rows.len()
                    ),
                }),
            }
        })?);
        let mut states = Vec::new();
        for ([then, now], _) in &places {
            states.push([past.db.begin_read_at(*then)?, past.db.begin_read_at(*now)?]);
        }
        gets.then(&measure(ctx.until(0.05), 1, |nth| {
            let nth = nth as usize % places.len();
            for row in &places[nth].1 {
                let key = past.rows.key(u64::from(*row));
                let [then, now] = &states[nth];
                let pair = (then.get(&past.busy, key)?, now.get(&past.busy, key)?);
                std::hint::black_box(&pair);
            }
            Ok(())
        })?);
    }
    let after = past.db.stats()?;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("gets of the same keys in both states", &gets))
}

/// Question: the pages that history takes, against the keys and values in it: one version of a random row a transaction. Unit: one
/// of the transactions that built the past, handed over without waiting for each. Bound: keys and values of the versions, and 8
/// bytes for the transaction of each.
fn kept_bytes(ctx: &mut Ctx) -> Result<Outcome> {
    if ctx.past_is_told {
        // A repeat measures again.
        ctx.end_past()?;
    }
    let past = past(ctx)?;
    ctx.past_is_told = true;
    let user = (crate::data::ROW_BYTES + 8) * past.updates.len() as u64;
    let (kept, user) = (past.kept_bytes as f64, user as f64);
    Ok(Outcome::of(past.sample.clone())
        .floor_rate("bytes of the versions", user, Unit::Bytes, kept)
        .figure_beside("kept_bytes", kept, user)
        .extra("bytes_a_version", kept / past.updates.len() as f64))
}

/// Question: durable commits of 100 updates of random rows for as long as a sustained loop takes, with history kept; then as many
/// again in another database, where a snapshot is held from before the first until after the last. Not timed: loading.
/// Unit: one commit of the second half. Bound: the file of the first. Checked: the snapshot, at the end. So many rows that few
/// of a page's change between two checkpoints: a snapshot that kept pages would keep many times what is kept of history.
fn held_snapshot(ctx: &mut Ctx) -> Result<Outcome> {
    let rows = ctx.rows();
    let mut lengths = Vec::new();
    let (mut until, mut sample) = (Until::Elapsed(ctx.sustained()), Sample::new());
    let (mut moved, mut cost) = (0, None);
    for holds in [false, true] {
        let options = Options::new().history(Retention::All);
        let (db, table) = ctx.fresh_with("held", options)?;
        load(&db, &table, rows, 1000)?;
        let held = holds.then(|| db.begin_read()).transpose()?;
        let before = db.stats()?;
        let mut rng = ctx.rng(706);
        sample = measure(until, 1, |version| {
            let mut batch = WriteBatch::new();
            for _ in 0..100 {
                let i = rng.below(rows.n);
                batch.put(&table, rows.key(i), rows.value(i, version + 1));
            }
            db.commit(batch)?;
            Ok(())
        })?;
        // What the first did to warm up is in its file too.
        until = Until::Ops(sample.ops + sample.warmup_ops);
        db.checkpoint()?;
        let stats = db.stats()?;
        lengths.push(stats.data_file_bytes as f64);
        moved = stats.snapshots_moved;
        cost = Some((before, stats));
        if let Some(read) = held {
            let mut seen = 0;
            for i in 0..rows.n {
                let is_first = |found: Option<&[u8]>| found == Some(&rows.value(i, 0)[..]);
                seen += u64::from(read.get_with(&table, rows.key(i), is_first)?);
            }
            if seen != rows.n {
                return Err(BenchError::Wrong {
                    what: format!("{} rows of the snapshot have changed", rows.n - seen),
                });
            }
        }
        db.close()?;
    }
    remove(&ctx.scratch.join("held"))?;
    let (without, with) = (lengths[0], lengths[1]);
    let mut outcome = Outcome::of(sample);
    if let Some((before, after)) = cost {
        outcome = outcome.cost(&before, &after);
    }
    Ok(outcome
        .floor_rate("the file without a snapshot", without, Unit::Bytes, with)
        .figure_beside("held_growth", with, without)
        .extra("snapshots_moved", moved as f64)
        .note(format!(
            "{} with a snapshot held, {} without",
            crate::units::show(with, Unit::Bytes),
            crate::units::show(without, Unit::Bytes)
        )))
}

/// Question: durable commits of 100 updates of random rows, with history kept and without, in turn. Not timed: loading. Unit: one
/// commit. Bound: the same without history. Figures of the whole rate, checkpoints included: each half ends with one.
fn commit_keeping_all(ctx: &mut Ctx) -> Result<Outcome> {
    let rows = Rows::new(ctx.scale.rows / 10);
    let (mut both, mut begun) = (Vec::new(), Vec::new());
    for (name, kept) in [("keeping", Retention::All), ("plain", Retention::None)] {
        let options = Options::new().history(kept).delta_bytes(16 << 20);
        let (db, table) = ctx.fresh_with(name, options)?;
        load(&db, &table, rows, 1000)?;
        begun.push(db.stats()?);
        both.push((db, table, Sample::new(), ctx.rng(705), 0.0));
    }
    for _ in 0..3 {
        for (db, table, sample, rng, seconds) in &mut both {
            let started = crate::clock::now();
            sample.then(&measure(Until::Ops(ctx.scale.rows / 200), 1, |version| {
                let mut batch = WriteBatch::new();
                for _ in 0..100 {
                    let i = rng.below(rows.n);
                    batch.put(&*table, rows.key(i), rows.value(i, version));
                }
                db.commit(batch)?;
                Ok(())
            })?);
            db.checkpoint()?;
            *seconds += started.elapsed().as_secs_f64();
        }
    }
    let (mut rates, mut samples, mut spent) = (Vec::new(), Vec::new(), Vec::new());
    let both = both.into_iter().zip(["keeping", "plain"]).zip(begun);
    for (((db, _, sample, _, seconds), name), before) in both {
        rates.push(sample.ops as f64 / seconds);
        samples.push(sample);
        spent.push((before, db.stats()?));
        db.close()?;
        remove(&ctx.scratch.join(name))?;
    }
    let (kept, plain) = (rates[0], rates[1]);
    let (before, after) = spent.swap_remove(0);
    Ok(Outcome::of(samples.swap_remove(0))
        .cost(&before, &after)
        .floor_rate("without history", plain, Unit::PerSecond, kept)
        .figure_beside("commit_keeping_all", kept, plain))
}

impl Ctx {
    /// Closes the database with the past.
    pub(crate) fn end_past(&mut self) -> Result<()> {
        if let Some(past) = self.past.take() {
            past.db.close()?;
        }
        Ok(())
    }
}
