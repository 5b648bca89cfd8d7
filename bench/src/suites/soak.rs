//! The long run: the same mix of work for as long as asked, and nothing may grow. Runs only if asked for.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use crate::clock::now;
use crate::data::{Rng, Rows};
use crate::error::{BenchError, Result};
use crate::machine::resident_bytes;
use crate::row::{Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::suites::store::disk_bytes;
use crate::target::{Db, Durability, ReadTxn, Table, TxnId, WriteBatch};
use crate::units::{Unit, show};

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "bench/soak/steady_mixed",
    question: "Do memory, file size and the 99th percentile stay as they are while the same work goes on?",
    unit: "step of 100 operations",
    run: steady_mixed,
}];

/// Parts into which the time is divided. The first quarter lets everything come to its size; of the rest the first half
/// is held against the second.
const WINDOWS: usize = 16;
/// Below this many seconds nothing has had the time to grow, and nothing is judged.
const SECONDS_MIN: f64 = 60.0;
/// Growth of memory that is let pass: a share, and bytes on top for what the process does besides.
const MEMORY: (f64, f64) = (0.05, 8_388_608.0);
/// Growth of the files that is let pass: a share, and bytes on top for a log segment or two.
const FILES: (f64, f64) = (0.10, 8_388_608.0);
/// Rise of the 99th percentile that is let pass.
const P99: f64 = 0.25;
/// Snapshots held at a time, each for as many steps.
const HELD: usize = 64;

/// What a window ended with.
#[derive(Debug, Clone, Copy)]
struct Window {
    p99: f64,
    memory: f64,
    files: f64,
}

/// The work, and what it must find.
struct Work {
    db: Db,
    table: Table,
    rows: Rows,
    rng: Rng,
    /// The version of each row, 0 for absent, and the transaction that wrote it.
    versions: Vec<(u64, TxnId)>,
    version: u64,
    /// Old snapshots, each with a row and the version that it has there.
    held: VecDeque<(ReadTxn, u64, u64)>,
}

impl Work {
    fn expect(&self, txn: &ReadTxn, i: u64, version: u64) -> Result<()> {
        let right = txn.get_with(&self.table, self.rows.key(i), |found| match version {
            0 => found.is_none(),
            _ => found == Some(&self.rows.value(i, version)),
        })?;
        if right {
            return Ok(());
        }
        let what = format!("row {i} is not in its version {version}");
        Err(BenchError::Wrong { what })
    }

    /// As [`Work::expect`] with the newest version, if the snapshot is not older: a buffered commit is seen once it is durable.
    fn expect_newest(&self, txn: &ReadTxn, i: u64) -> Result<()> {
        let (version, written) = self.versions[i as usize];
        if written > txn.txn_id() {
            return Ok(());
        }
        self.expect(txn, i, version)
    }

    /// 70 gets, a scan of 10 rows, 18 puts and 2 deletes in one transaction, of which one in 16 is durable; a snapshot opened,
    /// and one that was opened 64 steps before read again and dropped.
    fn step(&mut self, index: u64) -> Result<()> {
        let txn = self.db.begin_read()?;
        for _ in 0..70 {
            let i = self.rng.below(self.rows.n);
            self.expect_newest(&txn, i)?;
        }
        let (first, mut left) = (self.rng.below(self.rows.n), 10);
        txn.scan(&self.table, self.rows.key(first).., |_, _| {
            left -= 1;
            match left {
                0 => std::ops::ControlFlow::Break(()),
                _ => std::ops::ControlFlow::Continue(()),
            }
        })?;
        let i = self.rng.below(self.rows.n);
        let (version, written) = self.versions[i as usize];
        if written <= txn.txn_id() {
            self.held.push_back((txn, i, version));
        }
        if self.held.len() > HELD
            && let Some((old, i, version)) = self.held.pop_front()
        {
            self.expect(&old, i, version)?;
        }
        self.version += 1;
        let mut batch = WriteBatch::new();
        if !index.is_multiple_of(16) {
            batch.durability(Durability::Buffered);
        }
        let changed = [0; 20].map(|_: u64| self.rng.below(self.rows.n));
        for (change, &i) in changed.iter().enumerate() {
            let key = self.rows.key(i);
            if change < 18 {
                batch.put(&self.table, key, self.rows.value(i, self.version));
            } else {
                batch.delete(&self.table, key);
            }
        }
        let written = self.db.commit(batch)?.txn_id;
        for (change, &i) in changed.iter().enumerate() {
            let version = if change < 18 { self.version } else { 0 };
            self.versions[i as usize] = (version, written);
        }
        Ok(())
    }
}

/// Question: as of [`steady`], for the profile's sustained seconds or `--minutes`. Not timed, unit, bound: as there.
fn steady_mixed(ctx: &mut Ctx) -> Result<Outcome> {
    steady(ctx, ctx.soak)
}

/// Question: one thread's steady mix of gets, scans, puts, deletes and snapshots over data that is twice the cache, for
/// so long. Not timed: filling. Unit: one step. Bound: the first half of the windows, after a quarter to settle. Checked:
/// every value against a model; memory, files and the 99th percentile of the second half against the first; every page at the
/// end.
pub(super) fn steady(ctx: &Ctx, whole: Duration) -> Result<Outcome> {
    let options = plain().memory_budget(64 << 20).delta_bytes(8 << 20);
    let (db, table) = ctx.fresh_with("soak", options)?;
    let dir = ctx.scratch.join("soak");
    let rows = Rows::new(ctx.scale.rows / 2);
    let mut work = Work {
        db,
        table,
        rows,
        rng: ctx.rng(700),
        versions: vec![(0, TxnId::default()); rows.n as usize],
        version: 0,
        held: VecDeque::new(),
    };
    let before = work.db.stats()?;
    let (mut all, mut windows) = (Sample::new(), Vec::new());
    for window in 0..WINDOWS {
        let started = now();
        let time = whole / WINDOWS as u32;
        let sample = measure(Until::Elapsed(time), 1, |index| work.step(index))?;
        all.then(&sample);
        let memory = resident_bytes().map_or(0, |(resident, _)| resident);
        windows.push(Window {
            p99: sample.p99(),
            memory: memory as f64,
            files: disk_bytes(&dir)? as f64,
        });
        if whole.as_secs_f64() >= SECONDS_MIN {
            let Window { p99, memory, files } = windows[window];
            crate::cli::say(&format!(
                "  {:>3} of {WINDOWS}, {}: p99 {}, memory {}, files {}\n",
                window + 1,
                show(started.elapsed().as_nanos() as f64, Unit::Nanos),
                show(p99, Unit::Nanos),
                show(memory, Unit::Bytes),
                show(files, Unit::Bytes),
            ));
        }
    }
    let after = work.db.stats()?;
    finish(work, &dir)?;
    let drift = drift(&windows, whole.as_secs_f64())?;
    Ok(Outcome::of(all)
        .cost(&before, &after)
        .floor_rate(
            "memory, first half",
            drift.early.memory,
            Unit::Bytes,
            drift.late.memory,
        )
        .floor_rate(
            "files, first half",
            drift.early.files,
            Unit::Bytes,
            drift.late.files,
        )
        .floor_rate(
            "p99, first half",
            drift.early.p99,
            Unit::Nanos,
            drift.late.p99,
        )
        .extra("minutes", whole.as_secs_f64() / 60.0)
        .note(drift.word))
}

/// Reads every row and every page once more.
fn finish(mut work: Work, dir: &Path) -> Result<()> {
    work.held.clear();
    // Durable, so that all before it is seen.
    let mut last = WriteBatch::new();
    last.put(&work.table, work.rows.key_between(0), []);
    work.db.commit(last)?;
    let txn = work.db.begin_read()?;
    for (i, (version, _)) in work.versions.iter().enumerate() {
        work.expect(&txn, i as u64, *version)?;
    }
    drop(txn);
    let faults = work.db.check()?.faults;
    work.db.close()?;
    remove(dir)?;
    match faults.is_empty() {
        true => Ok(()),
        false => Err(BenchError::Wrong {
            what: format!("the pages are not sound: {faults:?}"),
        }),
    }
}

/// The two halves, and what is to be said about them.
#[derive(Debug)]
struct Drift {
    early: Window,
    late: Window,
    word: String,
}

/// Holds the halves against each other.
fn drift(windows: &[Window], seconds: f64) -> Result<Drift> {
    let settled = &windows[windows.len() / 4..];
    let (early, late) = settled.split_at(settled.len() / 2);
    let p99s = |half: &[Window]| half.iter().map(|window| window.p99).collect::<Vec<_>>();
    let highest = |half: &[Window], of: fn(&Window) -> f64| half.iter().map(of).fold(0.0, f64::max);
    let whole = |half: &[Window]| Window {
        p99: crate::stats::median(&p99s(half)),
        memory: highest(half, |window| window.memory),
        files: highest(half, |window| window.files),
    };
    let spread = crate::stats::spread(&p99s(early)).max(crate::stats::spread(&p99s(late)));
    let (early, late) = (whole(early), whole(late));
    let told = |word: &str| {
        Ok(Drift {
            early,
            late,
            word: word.to_owned(),
        })
    };
    if seconds < SECONDS_MIN {
        return told("too short to judge: a minute at least, by --minutes");
    }
    for (what, early, late, (share, bytes)) in [
        ("memory", early.memory, late.memory, MEMORY),
        ("files", early.files, late.files, FILES),
    ] {
        if late > early * (1.0 + share) + bytes {
            let (early, late) = (show(early, Unit::Bytes), show(late, Unit::Bytes));
            return Err(BenchError::Drifted(format!(
                "{what} grew from {early} to {late}"
            )));
        }
    }
    let rise = late.p99 - early.p99;
    if rise > (P99 * early.p99).max(3.0 * spread) {
        let (early, late) = (show(early.p99, Unit::Nanos), show(late.p99, Unit::Nanos));
        return Err(BenchError::Drifted(format!(
            "the 99th percentile rose from {early} to {late}"
        )));
    }
    match rise > P99 * early.p99 {
        true => told("memory and files stayed; the 99th percentile is too noisy to tell"),
        false => told("memory, files and the 99th percentile stayed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(change: impl Fn(usize, &mut Window)) -> Vec<Window> {
        let one = |at| {
            let mut window = Window {
                p99: 100.0 + (at % 3) as f64,
                memory: 70e6,
                files: 90e6,
            };
            change(at, &mut window);
            window
        };
        (0..WINDOWS).map(one).collect()
    }

    #[test]
    fn what_grows_is_found_and_what_swings_is_not_judged() {
        let told = |change: &dyn Fn(usize, &mut Window)| match drift(&windows(change), 600.0) {
            Ok(drift) => drift.word,
            Err(error) => error.to_string(),
        };
        assert!(told(&|_, _| {}).contains("stayed"));
        // What happens while everything comes to its size is no drift.
        assert!(told(&|at, now| now.memory = if at < 4 { 20e6 } else { 70e6 }).contains("stayed"));
        assert!(told(&|at, now| now.memory += at as f64 * 3e6).contains("memory grew"));
        assert!(told(&|at, now| now.files += at as f64 * 4e6).contains("files grew"));
        assert!(told(&|at, now| now.p99 += at as f64 * 8.0).contains("rose"));
        let swing = |at: usize, now: &mut Window| now.p99 *= [1.0, 3.0, 0.5, 2.0, 5.0][at % 5];
        assert!(
            told(&|at, now| {
                swing(at, now);
                now.p99 *= if at < 10 { 1.0 } else { 3.0 };
            })
            .contains("too noisy")
        );
        let grown = windows(|at, now| now.files += at as f64 * 4e6);
        let short = drift(&grown, 1.0).map(|drift| drift.word);
        assert!(short.is_ok_and(|word| word.contains("too short")));
    }
}
