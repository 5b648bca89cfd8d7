//! Many at once, and much at once.

use std::path::Path;
use std::sync::Barrier;

use northstardb::{Db, Options, Table, WriteBatch};

use super::{Rows, key, rows_in, same, small};
use crate::ops::{Fill, value_bytes};
use crate::rng::Rng;
use crate::{During, Failure};

const COMMITTERS: u32 = 6;
const COMMITS: u32 = 30;

fn value(number: u32, len: u32) -> Vec<u8> {
    value_bytes(Fill { len, seed: number })
}

/// Each thread has keys of its own, so the outcome does not depend on their order.
pub(super) fn committers(rng: &mut Rng, dir: &Path) -> Result<u64, Failure> {
    let path = dir.join("db");
    let db = small().open(&path).during("open")?;
    let table = db.table("t").during("table")?;
    let len = u32::try_from(rng.between(10, 3_000)).unwrap_or(10);
    let begin = Barrier::new(COMMITTERS as usize);
    let commit = |thread: u32| {
        begin.wait();
        (0..COMMITS).try_for_each(|at| {
            let number = at * COMMITTERS + thread;
            let mut batch = WriteBatch::new();
            batch.put(&table, key(number), value(number, len));
            let done = db.commit(batch).during("commit")?;
            let read = db.begin_read().during("begin_read")?;
            if read.txn_id() < done.txn_id {
                return Err(Failure::Broken(format!(
                    "{done:?} was acknowledged and is not seen"
                )));
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let commit = &commit;
        let threads: Vec<_> = (0..COMMITTERS)
            .map(|thread| scope.spawn(move || commit(thread)))
            .collect();
        threads.into_iter().try_for_each(joined)
    })?;
    let expected: Rows = (0..COMMITTERS * COMMITS)
        .map(|n| (key(n), value(n, len)))
        .collect();
    let mut compared = same("many committers", &super::rows(&db)?, &expected)?;
    db.checkpoint().during("checkpoint")?;
    drop((table, db));
    // Nothing is in the cache now, and all readers begin at the same page.
    let db = small().open(&path).during("open again")?;
    let table = db.table("t").during("table")?;
    let begin = Barrier::new(4);
    let read = || {
        begin.wait();
        let read = db.begin_read().during("begin_read")?;
        same("read by many", &rows_in(&read, &table)?, &expected).map(drop)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        threads.into_iter().try_for_each(joined)
    })?;
    compared += 4 * expected.len() as u64;
    Ok(compared)
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<(), Failure>>) -> Result<(), Failure> {
    let panicked = |_| Failure::Broken("a thread panicked".to_owned());
    thread.join().map_err(panicked)?
}

/// A batch that is larger than any buffer of the log.
pub(super) fn large_batches(rng: &mut Rng, dir: &Path) -> Result<u64, Failure> {
    let path = dir.join("db");
    let open = || {
        let options = Options::new().memory_budget(64 << 20).delta_bytes(8 << 20);
        options.open(&path).during("open")
    };
    let db = open()?;
    let table: Table = db.table("t").during("table")?;
    let mut expected = Rows::new();
    for _ in 0..2 {
        let mut batch = WriteBatch::new();
        for _ in 0..rng.between(1, 4) {
            let number = u32::try_from(rng.below(5)).unwrap_or(0);
            let len = u32::try_from(rng.between(900_000, 2_200_000)).unwrap_or(0);
            batch.put(&table, key(number), value(number + len, len));
            expected.insert(key(number), value(number + len, len));
        }
        db.commit(batch).during("commit")?;
    }
    let compared = same("large batches", &super::rows(&db)?, &expected)?;
    drop((table, db));
    let db: Db = open()?;
    Ok(compared + same("large batches, opened again", &super::rows(&db)?, &expected)?)
}
