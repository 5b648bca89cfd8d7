//! Instructions of the hot paths, counted by valgrind's callgrind in a child process: the same on a busy machine as on a
//! quiet one.
//!
//! The child prepares a database in memory, runs the operation a while, and then runs it inside [`nsbench_counted`], the
//! only function in which callgrind collects. What other threads do meanwhile is not collected; what the operation calls is.
//!
//! - Units: instructions retired, of user space; system calls are one each. The vector instructions are those that valgrind
//!   knows (AVX2), whatever the processor has.
//! - Cost: valgrind runs at about a fiftieth of the speed; a row takes seconds.
//! - Failure: without valgrind a row is [`BenchError::Absent`], which is said and fails nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::child::{Child, Task};
use crate::data::{Rng, Rows, load};
use crate::error::{BenchError, Result};
use crate::row::plain;
use crate::target::{Db, WriteBatch};

/// Operations that callgrind collects.
pub(crate) const OPS: u64 = 2000;
/// Operations before it does, so that what happens once is over.
const OPS_BEFORE: u64 = 200;
/// Rows of the table that has more than one leaf.
const ROWS: u64 = 20_000;
/// Rows that fit into one leaf.
const LEAF_ROWS: u64 = 100;

/// What is counted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Counted {
    /// A get of a random row; delta empty.
    PointGetHot,
    /// `begin_read` and drop.
    SnapshotOpenClose,
    /// A commit of one row where nothing is written to a device.
    CommitMemory,
    /// Eight rows put into a batch.
    RecordEncode,
    /// A get where the root is a leaf: the search in it, and what every get does.
    LeafSearch,
}

/// One operation, over and over.
pub(crate) type Work = Box<dyn FnMut(u64) -> Result<()>>;

impl Counted {
    /// The operation, and the database that it works on.
    pub(crate) fn prepare(self, seed: u64) -> Result<(Db, Work)> {
        // No more than it takes: loading is slow under valgrind.
        let rows = Rows::new(match self {
            Self::PointGetHot => ROWS,
            Self::CommitMemory => ROWS / 10,
            Self::LeafSearch | Self::SnapshotOpenClose | Self::RecordEncode => LEAF_ROWS,
        });
        // Nothing may happen on its own while it is counted.
        let db = plain()
            .idle_after(std::time::Duration::from_secs(3600))
            .buffered_flush(std::time::Duration::from_secs(3600))
            .memory()?;
        let table = db.table("rows")?;
        load(&db, &table, rows, 1000)?;
        let (handle, mut rng) = (db.clone(), Rng::new(seed, 1));
        let work: Work = match self {
            Self::PointGetHot | Self::LeafSearch => {
                let txn = handle.begin_read()?;
                Box::new(move |_| {
                    let i = rng.below(rows.n);
                    txn.get_with(&table, rows.key(i), |value| rows.check(i, value))?
                })
            }
            Self::SnapshotOpenClose => Box::new(move |_| {
                std::hint::black_box(handle.begin_read()?);
                Ok(())
            }),
            Self::CommitMemory => Box::new(move |version| {
                let i = rng.below(rows.n);
                let mut batch = WriteBatch::new();
                batch.put(&table, rows.key(i), rows.value(i, version));
                handle.commit(batch)?;
                Ok(())
            }),
            Self::RecordEncode => {
                let eight: Vec<_> = (0..8).map(|i| (rows.key(i), rows.value(i, 0))).collect();
                Box::new(move |_| {
                    let mut batch = WriteBatch::new();
                    for (key, value) in &eight {
                        batch.put(&table, key, value);
                    }
                    std::hint::black_box(&batch);
                    Ok(())
                })
            }
        };
        Ok((db, work))
    }

    /// Instructions of one operation.
    ///
    /// # Errors
    /// [`BenchError::Absent`] without valgrind; what the child or callgrind's file says otherwise.
    pub(crate) fn instructions_per_op(self, scratch: &Path, seed: u64) -> Result<f64> {
        let there = Command::new("valgrind")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !there.is_ok_and(|status| status.success()) {
            return Err(BenchError::Absent(
                "valgrind is not installed, so no instructions are counted".to_owned(),
            ));
        }
        let file = scratch.join(format!("callgrind-{self:?}"));
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
            .arg("--toggle-collect=*nsbench_counted*")
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(std::env::current_exe().map_err(BenchError::file(Path::new("nsbench")))?);
        let done = Child::run_by(valgrind, &Task::Counted { what: self, seed })?;
        let text = std::fs::read_to_string(&file).map_err(BenchError::file(&file))?;
        let total = total(&text).filter(|total| *total >= done);
        let total = total.ok_or_else(|| {
            let bytes = text.len();
            BenchError::Child(format!("callgrind counted nothing (wrote {bytes} bytes)"))
        })?;
        Ok(total as f64 / done.max(1) as f64)
    }
}

/// The number on callgrind's line of totals.
fn total(text: &str) -> Option<u64> {
    let lines = text.lines();
    let mut totals = lines.filter_map(|line| line.strip_prefix("totals: "));
    totals.next()?.split_whitespace().next()?.parse().ok()
}

/// The child's side: prepares, and does the work where it is counted.
pub(crate) fn serve(what: Counted, seed: u64) -> Result<(Db, u64)> {
    let (db, mut work) = what.prepare(seed)?;
    (0..OPS_BEFORE).try_for_each(&mut work)?;
    nsbench_counted(OPS, &mut work)?;
    Ok((db, OPS))
}

/// Callgrind finds it by its name; two or three instructions an operation are its own.
#[inline(never)]
fn nsbench_counted(ops: u64, work: &mut Work) -> Result<()> {
    for index in 0..ops {
        work(index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_found_in_what_callgrind_writes() {
        let text = "version: 1\nevents: Ir\n\nfn=(1)\n12 400\n\ntotals: 123456\n";
        assert_eq!(total(text), Some(123_456));
        assert_eq!(total("events: Ir\n"), None);
    }
}
