//! Whole stories, as the people who use the engine would live them.

pub(crate) mod task_queue;

use std::path::Path;

use crate::agents::{Model, Tree};
use crate::child::{Child, Task};
use crate::clock::now;
use crate::data::Rng;
use crate::error::{BenchError, Result};
use crate::row::{Ctx, Outcome, Row, remove};
use crate::sample::{Sample, Until, measure};
use crate::target::{Db, LogFilter, Options, Retention, TxnId};
use crate::units::{Unit, show};

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "bench/macro/time_travel_replay",
    question: "Is every state that agents editing a source tree went through there, exactly, before and after a kill and after a reopening, and what does reading it cost?",
    unit: "get at any transaction",
    run: time_travel_replay,
}];

/// Gets and whole scans at random transactions, each time that states are looked at, for as many edits as a full-size table has rows.
const GETS: u64 = 10_000;
const SCANS: u64 = 200;

/// How the database of the story is opened.
pub(crate) fn options() -> Options {
    Options::new()
        .history(Retention::All)
        .log_retention(Retention::All)
}

/// How many of `of` there are after so many edits.
fn share(of: u64, edits: u64) -> u64 {
    (of * edits / 1_000_000).clamp(20, of)
}

/// Reads at random transactions after `begin`, as many as so many `edits` have, compared with the model.
pub(crate) fn read_back(
    db: &Db,
    model: &Model<'_>,
    (begin, rng): (TxnId, &mut Rng),
    edits: u64,
) -> Result<(Sample, Sample)> {
    let table = db.open_table("lines")?;
    let any = |rng: &mut Rng| {
        let number = rng.below(model.edits + 1);
        (number, TxnId::new(begin.get() + number))
    };
    let got = measure(Until::Ops(share(GETS, edits)), 1, |_| {
        let (number, at) = any(rng);
        let row = rng.below(model.rows() as u64) as usize;
        let read = db.begin_read_at(at)?;
        model.check_row(&read, &table, row, number)
    })?;
    let mut rows = 0;
    let mut scanned = measure(Until::Ops(share(SCANS, edits)), 1, |_| {
        let (number, at) = any(rng);
        let read = db.begin_read_at(at)?;
        rows += model.check_all(&read, &table, number)?;
        Ok(())
    })?;
    // Rows a second are what is told of scans.
    scanned.ops = rows;
    Ok((got, scanned))
}

/// Question: a process of which agents edit the lines of a source tree, as many transactions as a table has rows, is killed while they go
/// on. Three times, before the kill, after it and after a clean reopening, 10,000 gets and 200 whole scans at random transactions are each
/// compared with what follows from the edits alone, byte for byte; and the log is replayed into an empty
/// database, whose digest must be the same at the end and wherever a checkpoint noted one. Unit: one get of the latter two, its check
/// included. Not timed in it: all else, which is told beside it. Scaled down with the rows below a million.
fn time_travel_replay(ctx: &mut Ctx) -> Result<Outcome> {
    let (edits, seed) = (ctx.scale.rows, ctx.seed);
    let dir = ctx.dir("agents")?;
    let task = Task::Agents {
        dir: dir.clone(),
        edits,
        seed,
    };
    let begin = TxnId::new(Child::run_until_killed(&task)?);
    let tree = Tree::read();
    let mut rng = ctx.rng(720);

    let started = now();
    let db = options().open(&dir)?;
    let opened = started.elapsed();
    let last = db.begin_read()?.txn_id();
    let done = last.get() - begin.get();
    if done < edits {
        return Err(BenchError::Wrong {
            what: format!("{done} edits are there after the kill, {edits} were acknowledged"),
        });
    }
    let model = Model::after(&tree, seed, done);
    let (mut sample, mut scanned) = read_back(&db, &model, (begin, &mut rng), edits)?;
    let stats = db.stats()?;
    db.close()?;

    let db = options().open(&dir)?;
    let (got, again) = read_back(&db, &model, (begin, &mut rng), edits)?;
    sample.then(&got);
    scanned.then(&again);
    let edited = edit_rate(&db, begin, edits)?;
    let (replayed, compared) = replay(&db, &ctx.dir("agents-copy")?)?;
    let faults = db.check()?.faults;
    if let Some(fault) = faults.first() {
        return Err(BenchError::Wrong {
            what: format!("{} faults, the first: {fault}", faults.len()),
        });
    }
    db.close()?;
    remove(&dir)?;
    remove(&ctx.scratch.join("agents-copy"))?;

    let scan_rate = scanned.ops as f64 / scanned.elapsed.as_secs_f64();
    let replay_rate = last.get() as f64 / replayed;
    Ok(Outcome::of(sample)
        .extra("edits", done as f64)
        .extra("edits_per_second", edited)
        .extra("scanned_rows_per_second", scan_rate)
        .extra("replayed_per_second", replay_rate)
        .extra("digests_compared", compared as f64)
        .extra("open_after_kill_ns", opened.as_nanos() as f64)
        .extra("history_bytes", (stats.history_pages * u64::from(stats.page_bytes)) as f64)
        .note(format!(
            "{done} durable edits of {} lines at {}; three times {} gets and {} scans equal to the model; scans {}; replayed at {}, {compared} digests equal",
            tree.rows(),
            show(edited, Unit::PerSecond),
            share(GETS, edits),
            share(SCANS, edits),
            show(scan_rate, Unit::PerSecond),
            show(replay_rate, Unit::PerSecond),
        )))
}

/// Edits a second, by the times in the log.
fn edit_rate(db: &Db, begin: TxnId, edits: u64) -> Result<f64> {
    let log = db.log()?;
    let time = |number: u64| {
        let txn = TxnId::new(begin.get() + number);
        let found = log.tail(txn, LogFilter::all())?.try_next()?;
        found
            .map(|found| found.time())
            .ok_or_else(|| BenchError::Wrong {
                what: format!("{txn} is not in the log"),
            })
    };
    let took = time(edits)?.duration_since(time(1)?);
    Ok(edits as f64 / took.map_or(f64::NAN, |took| took.as_secs_f64().max(1e-9)))
}

/// Replays the log into a database at `path`; gives the seconds that took, comparing aside, and the digests compared.
fn replay(db: &Db, path: &Path) -> Result<(f64, u64)> {
    let copy = Options::new().history(Retention::Txns(1)).open(path)?;
    let mut points = db.state_hashes()?;
    let newest = db.begin_read()?;
    points.push((newest.txn_id(), newest.state_hash()?));
    drop(newest);
    let mut took = 0.0;
    let first = TxnId::ZERO.next();
    let mut tail = db.log()?.tail(first, LogFilter::every_transaction())?;
    let compared = points.len() as u64;
    for (txn, expected) in points {
        let started = now();
        let mut apply = copy.begin_apply()?;
        while apply.next() <= txn {
            match tail.try_next()? {
                Some(found) => apply.push(found)?,
                None => break,
            }
        }
        apply.finish()?;
        took += started.elapsed().as_secs_f64();
        let found = copy.begin_read()?.state_hash()?;
        if found != expected {
            return Err(BenchError::Wrong {
                what: format!("the digest at {txn} is {expected}, replayed it is {found}"),
            });
        }
    }
    copy.close()?;
    Ok((took, compared))
}
