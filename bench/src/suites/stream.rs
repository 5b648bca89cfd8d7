//! The commit stream: how soon it is delivered, and how fast a database is made of it.

use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::clock::now;
use crate::data::{ROW_BYTES, load};
use crate::error::{BenchError, Result};
use crate::floor::{ReadFloor, sorted_map};
use crate::row::{Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::stats::median;
use crate::target::{Db, LogFilter, Retention, TxnId, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/log/tail_live",
        question: "How soon after a commit was acknowledged does a waiting reader of the log have it?",
        unit: "commit delivered",
        run: tail_live,
    },
    Row {
        name: "bench/log/replay_single_puts",
        question: "How fast is a database made of its log, where each transaction is one put?",
        unit: "transaction replayed",
        run: replay_single_puts,
    },
    Row {
        name: "bench/log/replay_100_puts",
        question: "How many rows a second does a replay put, where each transaction is a hundred?",
        unit: "row replayed",
        run: replay_100_puts,
    },
    Row {
        name: "bench/store/backup_restore",
        question: "How fast are backups written and restored?",
        unit: "row backed up",
        run: backup_restore,
    },
];

/// Question: a thread that waits for the log, and another that makes a durable commit of one row about every millisecond, so that
/// the reader sleeps in between. Unit: one commit, from the return of `commit` to its delivery; 0 if it was delivered
/// before. Bound: one wake-up of a thread: before every fourth commit a third thread, which sleeps likewise, is woken by a word
/// through a channel.
fn tail_live(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("tail")?;
    let rows = ctx.rows();
    let log = db.log()?;
    let tail = log.tail(log.next(), LogFilter::all())?;
    let (say, hear) = mpsc::channel::<(TxnId, Instant)>();
    let (call, called) = mpsc::channel::<Instant>();
    let commits = (1000.0 * ctx.time(1.0).as_secs_f64()) as u64;
    let (mut sample, mut woken) = (Sample::new(), Sample::new());
    let mut wrong = None;
    let before = db.stats()?;
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(move || {
            let (mut sample, mut wrong) = (Sample::new(), None);
            let started = now();
            for found in tail.take(commits as usize) {
                let delivered = now();
                let Ok((txn, acknowledged)) = hear.recv() else {
                    break;
                };
                let expected = found.map(|found| found.txn_id());
                if !matches!(expected, Ok(found) if found == txn) {
                    wrong = Some(format!("{expected:?} was delivered, {txn} committed"));
                    break;
                }
                let took = delivered.saturating_duration_since(acknowledged);
                sample.record(took, 1);
            }
            sample.elapsed = started.elapsed();
            (sample, wrong)
        });
        let sleeper = scope.spawn(move || {
            let mut woken = Sample::new();
            for sent in called {
                woken.record(now().saturating_duration_since(sent), 1);
            }
            woken
        });
        for version in 0..commits {
            std::thread::sleep(Duration::from_millis(1));
            // Who sleeps is woken well before the commit.
            if version % 4 == 0 {
                let _asleep = call.send(now()).is_ok();
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut batch = WriteBatch::new();
            let row = version % rows.n;
            batch.put(&table, rows.key(row), rows.value(row, version));
            let commit = db.commit(batch)?;
            // A reader that ended says why below.
            if say.send((commit.txn_id, now())).is_err() {
                break;
            }
        }
        drop((say, call));
        if let Ok((delivered, why)) = reader.join() {
            (sample, wrong) = (delivered, why);
        }
        if let Ok(slept) = sleeper.join() {
            woken = slept;
        }
        Ok(())
    })?;
    if let Some(what) = wrong {
        return Err(BenchError::Wrong { what });
    }
    let after = db.stats()?;
    db.close()?;
    let p99 = sample.p99();
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("a wake-up of a thread", &woken)
        .figure("tail_live_p99", p99)
        .note("0 where the reader had it before the committer returned"))
}

/// Question: a log of as many transactions as there are rows, each one put of a random row, applied to an empty database beside it.
/// Not timed: making the log. Unit: one transaction. Bound: reading the log, one insertion each, writing the log again;
/// beside it, rows put into a sorted map in memory, before and after. Checked: the digest of both states.
fn replay_single_puts(ctx: &mut Ctx) -> Result<Outcome> {
    let (outcome, rate) = replay(ctx, 1)?;
    Ok(outcome.figure("replay_million", 1e9 * 1e6 / rate))
}

/// Question: as above, with as many rows in a hundredth of the transactions. Unit: one row. Bound: one insertion each,
/// beside it as above.
fn replay_100_puts(ctx: &mut Ctx) -> Result<Outcome> {
    let (outcome, rate) = replay(ctx, 100)?;
    let outcome = outcome.figure("replay_rows", rate);
    Ok(outcome.note("latency is of a transaction of 100; throughput is rows"))
}

/// Replays a log of transactions of so many rows; gives rows a second.
fn replay(ctx: &Ctx, each: u64) -> Result<(Outcome, f64)> {
    let kept = plain().log_retention(Retention::All);
    let (db, table) = ctx.fresh_with("replayed", kept)?;
    let (rows, mut rng) = (ctx.rows(), ctx.rng(710));
    let mut last = None;
    let transactions = rows.n.div_ceil(each);
    for version in 0..transactions {
        let mut batch = WriteBatch::new();
        for _ in 0..each {
            let row = rng.below(rows.n);
            batch.put(&table, rows.key(row), rows.value(row, version));
        }
        last = Some(db.submit(batch)?);
    }
    if let Some(last) = last {
        last.wait()?;
    }
    db.checkpoint()?;
    let mut map = sorted_map(rows, rows.n / 4, &mut rng)?;
    let copy = plain().open(ctx.dir("replay")?)?;
    let before = copy.stats()?;
    let mut apply = copy.begin_apply()?;
    let mut tail = db
        .log()?
        .tail(apply.next(), LogFilter::every_transaction())?;
    // The first transaction makes the table.
    let mut sample = measure(Until::Ops(transactions + 1), 64 / each.min(64), |_| {
        if let Some(found) = tail.try_next()? {
            apply.push(found)?;
        }
        Ok(())
    })?;
    let started = now();
    apply.finish()?;
    sample.elapsed += started.elapsed();
    let after = copy.stats()?;
    map.then(&sorted_map(rows, rows.n / 4, &mut rng)?);
    let same = copy.begin_read()?.state_hash()? == db.begin_read()?.state_hash()?;
    if !same {
        return Err(BenchError::Wrong {
            what: "what was replayed is another state".to_owned(),
        });
    }
    drop(tail);
    for (db, name) in [(db, "replayed"), (copy, "replay")] {
        db.close()?;
        remove(&ctx.scratch.join(name))?;
    }
    // Of rows, as the unit says.
    sample.ops = transactions * each;
    let rate = sample.ops as f64 / sample.elapsed.as_secs_f64();
    let puts = map.per_second();
    let outcome = Outcome::of(sample).cost(&before, &after).floor_rate(
        "rows put into a sorted map",
        puts,
        Unit::PerSecond,
        rate,
    );
    Ok((outcome, rate))
}

/// Question: a full backup of all rows to a file, with a sync, and a database made of it, three times over. Unit: one row written
/// to the backup. Bound: a scan of all rows, and writing them once; restoring reads them once, writes them once, and reads
/// them again. Beside both, in turn, a raw sequential write of the rows' bytes, flushed. Checked: the digest of each state.
fn backup_restore(ctx: &mut Ctx) -> Result<Outcome> {
    let rows = ctx.rows();
    let (db, table) = ctx.fresh("saved")?;
    load(&db, &table, rows, 1000)?;
    let state = db.begin_read()?.state_hash()?;
    let floor = ReadFloor::open(&ctx.scratch, rows.n * ROW_BYTES)?;
    let path = ctx.dir("backup")?.join("full");
    let (mut saved, mut restored, mut raw) = (Sample::new(), Sample::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..3 {
        raw.push(floor.durable_writes()?);
        bytes = back_up(&db, &path, &mut saved)?;
        let copy = restore(&path, &ctx.dir("restored")?, rows.n, &mut restored)?;
        if copy.begin_read()?.state_hash()? != state {
            return Err(BenchError::Wrong {
                what: "what was restored is another state".to_owned(),
            });
        }
        copy.close()?;
    }
    db.close()?;
    for name in ["saved", "backup", "restored"] {
        remove(&ctx.scratch.join(name))?;
    }
    let (rate, restored_rate) = (1e9 / saved.p50(), 1e9 / restored.p50());
    let (raw, of_bytes) = (median(&raw), ROW_BYTES as f64);
    let unit = Unit::BytesPerSecond;
    Ok(Outcome::of(saved)
        .floor_rate("raw sequential write + flush", raw, unit, rate * of_bytes)
        .floor_rate("the same, restored", raw, unit, restored_rate * of_bytes)
        .extra("restored_rows_per_second", restored_rate)
        .extra("bytes", bytes as f64)
        .note(format!(
            "restored at {}; medians of three",
            crate::units::show(restored_rate, Unit::PerSecond)
        )))
}

/// Writes a backup to `path` and records it by its rows; gives its bytes.
fn back_up(db: &Db, path: &Path, sample: &mut Sample) -> Result<u64> {
    let started = now();
    let file = std::fs::File::create(path).map_err(BenchError::file(path))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let backup = db.backup(&mut file)?;
    let file = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error);
    let synced = file.and_then(|file| file.sync_all());
    synced.map_err(BenchError::file(path))?;
    record(sample, started, backup.count);
    Ok(backup.bytes)
}

/// Makes a database in `dir` of the backup at `path` and records it by its rows.
fn restore(path: &Path, dir: &Path, rows: u64, sample: &mut Sample) -> Result<Db> {
    let started = now();
    let file = std::fs::OpenOptions::new().read(true).open(path);
    let file = file.map_err(BenchError::file(path))?;
    let file = BufReader::with_capacity(1 << 20, file);
    let restored = plain().restore(dir, file)?.finish();
    record(sample, started, rows);
    Ok(restored)
}

fn record(sample: &mut Sample, started: Instant, rows: u64) {
    let took = started.elapsed();
    sample.record(took, rows);
    sample.elapsed += took;
}
