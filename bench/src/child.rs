//! Work done in a child process: to be killed in the middle of its life, or to have its memory counted alone.
//!
//! - Failure: a child that ends early, or says something else than expected, is an error with what it said.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agents::{Model, Tree};
use crate::counted::{self, Counted};
use crate::data::{Rng, Rows, load};
use crate::error::{BenchError, Result};
use crate::machine::resident_bytes;
use crate::row::plain;
use crate::sample::{Until, measure};
use crate::suites::macros;
use crate::target::{Db, Table, WriteBatch};

/// Rows of one transaction of [`Task::FillDelta`].
const BATCH_ROWS: u64 = 1000;
/// Bytes of changes that fill the default delta: nine tenths of the default delta, so that no checkpoint starts.
pub(crate) const DELTA_FULL_BYTES: u64 = (64 << 20) / 10 * 9;

/// What a child is to do; travels as JSON on its command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Commit durable batches of random rows until the delta holds so many bytes, then wait to be killed.
    FillDelta {
        /// The database.
        dir: PathBuf,
        /// Rows to choose from.
        rows: u64,
        /// Which rows.
        seed: u64,
        /// Bytes of changes after which it stops.
        delta_bytes: u64,
        /// All rows are in pages first.
        load: bool,
    },
    /// Load a source tree, edit it in so many durable transactions, compare states of the past with what they must be, say with
    /// which one that began, and go on editing until killed.
    Agents {
        /// The database.
        dir: PathBuf,
        /// Edits before it says anything.
        edits: u64,
        /// Which edits.
        seed: u64,
    },
    /// Do an operation over and over where callgrind counts it; say how often.
    Counted {
        /// Which.
        what: Counted,
        /// Which rows.
        seed: u64,
    },
    /// Load, read and overwrite, then say how much memory was resident at most.
    Memory {
        /// The database.
        dir: PathBuf,
        /// Rows to load.
        rows: u64,
        /// Which rows are read and overwritten.
        seed: u64,
        /// Memory budget in bytes.
        budget: u64,
        /// Delta in bytes.
        delta: u64,
        /// How long to read, and how long to overwrite.
        seconds: f64,
    },
}

/// The parent's side.
#[derive(Debug)]
pub(crate) struct Child;

impl Child {
    /// Starts the task, waits until it is ready, kills it with SIGKILL; gives the batches it said were acknowledged.
    pub(crate) fn run_until_killed(task: &Task) -> Result<u64> {
        Self::run(own()?, task, true)
    }

    /// Runs the task to its end and gives the number it printed.
    pub(crate) fn run_to_end(task: &Task) -> Result<u64> {
        Self::run(own()?, task, false)
    }

    /// As [`Child::run_to_end`], by a command that ends with this program and has yet to be given its arguments.
    pub(crate) fn run_by(command: Command, task: &Task) -> Result<u64> {
        Self::run(command, task, false)
    }

    fn run(mut command: Command, task: &Task, kill: bool) -> Result<u64> {
        let failed = |why: String| BenchError::Child(why);
        let json = serde_json::to_string(task).map_err(|error| failed(error.to_string()))?;
        let mut child = command
            .args(["child", &json])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot start: {error}")))?;
        let mut line = String::new();
        let read = match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout).read_line(&mut line).map(drop),
            None => Ok(()),
        };
        if kill {
            child
                .kill()
                .map_err(|error| failed(format!("cannot kill: {error}")))?;
        }
        // Dropping its standard input lets a child that waits go on; a killed one is only collected.
        drop(child.stdin.take());
        let status = child
            .wait()
            .map_err(|error| failed(format!("cannot wait: {error}")))?;
        read.map_err(|error| failed(error.to_string()))?;
        let answer = line.trim().parse();
        answer.map_err(|_| failed(format!("it ended with {status} and said {:?}", line.trim())))
    }
}

/// This program.
fn own() -> Result<Command> {
    let exe = std::env::current_exe();
    exe.map(Command::new)
        .map_err(|error| BenchError::Child(error.to_string()))
}

/// The child's side: does the task, prints one number, waits for the end of standard input.
pub(crate) fn serve(json: &str) -> Result<()> {
    let task = serde_json::from_str(json).map_err(|error| BenchError::Child(error.to_string()))?;
    let (_db, answer) = match task {
        Task::FillDelta {
            dir,
            rows,
            seed,
            delta_bytes,
            load,
        } => fill_delta(&dir, (Rows::new(rows), load), seed, delta_bytes)?,
        Task::Agents { dir, edits, seed } => edit(&dir, edits, seed)?,
        Task::Counted { what, seed } => counted::serve(what, seed)?,
        Task::Memory {
            dir,
            rows,
            seed,
            budget,
            delta,
            seconds,
        } => {
            let options = plain()
                .memory_budget(budget as usize)
                .delta_bytes(delta as usize);
            let time = Duration::from_secs_f64(seconds);
            exercise(options.open(dir)?, Rows::new(rows), seed, time)?
        }
    };
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{answer}").and_then(|()| out.flush());
    said.map_err(|error| BenchError::Child(error.to_string()))?;
    let waited = std::io::stdin().lock().read_to_end(&mut Vec::new());
    waited
        .map(drop)
        .map_err(|error| BenchError::Child(error.to_string()))
}

/// The rows of batch `b`.
fn batch_rows(rows: Rows, seed: u64, b: u64) -> impl Iterator<Item = u64> {
    let mut rng = Rng::new(seed, b);
    (0..BATCH_ROWS).map(move |_| rng.below(rows.n))
}

fn put_batch(db: &Db, table: &Table, rows: Rows, seed: u64, b: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    for i in batch_rows(rows, seed, b) {
        batch.put(table, rows.key(i), rows.value(i, b));
    }
    db.commit(batch)?;
    Ok(())
}

fn fill_delta(
    dir: &std::path::Path,
    (rows, loaded): (Rows, bool),
    seed: u64,
    delta_bytes: u64,
) -> Result<(Db, u64)> {
    let db = plain().idle_after(Duration::from_secs(3600)).open(dir)?;
    let table = db.table("rows")?;
    if loaded {
        load(&db, &table, rows, 1000)?;
    }
    let mut batches = 0;
    // A small table is only rewritten: twenty versions of each row are enough for a test.
    let batches_max = if rows.n < 100_000 {
        rows.n / 50
    } else {
        u64::MAX
    };
    while db.stats()?.delta_bytes < delta_bytes && batches < batches_max {
        put_batch(&db, &table, rows, seed, batches)?;
        batches += 1;
    }
    Ok((db, batches * BATCH_ROWS))
}

/// Fails unless every row that [`Task::FillDelta`] said was acknowledged is there in its last version.
pub(crate) fn check_filled(db: &Db, task: &Task, acknowledged: u64) -> Result<()> {
    let Task::FillDelta { rows, seed, .. } = task else {
        return Ok(());
    };
    let (rows, table) = (Rows::new(*rows), db.open_table("rows")?);
    let mut last = BTreeMap::new();
    for b in 0..acknowledged / BATCH_ROWS {
        last.extend(batch_rows(rows, *seed, b).map(|i| (i, b)));
    }
    let txn = db.begin_read()?;
    for (i, version) in last {
        let same = txn.get_with(&table, rows.key(i), |value| {
            value == Some(&rows.value(i, version))
        })?;
        if !same {
            let what =
                format!("row {i}, acknowledged in version {version}, is not there after the kill");
            return Err(BenchError::Wrong { what });
        }
    }
    Ok(())
}

/// See [`Task::Agents`].
fn edit(dir: &std::path::Path, edits: u64, seed: u64) -> Result<(Db, u64)> {
    let db = macros::options().open(dir)?;
    let table = db.table("lines")?;
    let tree = Tree::read();
    let begin = tree.load(&db, &table)?;
    let mut last = None;
    for number in 1..=edits {
        last = Some(db.submit(tree.batch(&table, seed, number))?);
    }
    if let Some(last) = last {
        last.wait()?;
    }
    let (model, mut rng) = (Model::after(&tree, seed, edits), Rng::new(seed, 721));
    macros::read_back(&db, &model, (begin, &mut rng), edits)?;
    drop(model);
    let on = db.clone();
    std::thread::spawn(move || {
        let mut number = edits;
        loop {
            number += 1;
            if on.submit(tree.batch(&table, seed, number)).is_err() {
                break;
            }
        }
    });
    // So that it is killed in the middle of something.
    std::thread::sleep(Duration::from_millis(150));
    Ok((db, begin.get()))
}

/// Loads, gets, scans a part, overwrites; gives the resident set's highest size in bytes.
fn exercise(db: Db, rows: Rows, seed: u64, time: Duration) -> Result<(Db, u64)> {
    let table = db.table("rows")?;
    load(&db, &table, rows, 1000)?;
    let mut rng = Rng::new(seed, 1);
    let txn = db.begin_read()?;
    measure(Until::Elapsed(time), 16, |_| {
        let i = rng.below(rows.n);
        txn.get_with(&table, rows.key(i), |value| rows.check(i, value))?
    })?;
    drop(txn);
    measure(Until::Elapsed(time), 1, |b| {
        put_batch(&db, &table, rows, seed, b)
    })?;
    let highest = resident_bytes().map(|(_, highest)| highest);
    let highest =
        highest.ok_or_else(|| BenchError::Child("/proc tells no resident size".into()))?;
    Ok((db, highest))
}
