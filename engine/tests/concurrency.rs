//! Promise: any number of threads read and commit at once, and nobody waits for ever.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::{key, now, rows, small, value};
use northstardb::{Db, Error, WriteBatch};

#[test]
fn committers_and_readers_share_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let tables = [db.table("zero").unwrap(), db.table("one").unwrap()];
    let committed = [AtomicU64::new(0), AtomicU64::new(0)];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let committers: Vec<_> = (0..2usize)
            .map(|who| {
                let (db, table, committed) = (&db, &tables[who], &committed[who]);
                scope.spawn(move || {
                    let mut last = None;
                    for number in 0..300u64 {
                        let commit = if who == 0 {
                            let mut batch = WriteBatch::new();
                            batch.put(table, key(number), value(number, 300));
                            db.commit(batch).unwrap()
                        } else {
                            let mut write = db.begin_write().unwrap();
                            write.put(table, key(number), value(number, 300)).unwrap();
                            write.commit().unwrap()
                        };
                        assert!(Some(commit.txn_id) > last, "transaction ids rise");
                        last = Some(commit.txn_id);
                        committed.store(number + 1, Ordering::Release);
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            let (db, tables, committed, done) = (&db, &tables, &committed, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let least = committed
                        .each_ref()
                        .map(|count| count.load(Ordering::Acquire));
                    let read = db.begin_read().unwrap();
                    for who in 0..2 {
                        let found = rows(&read, &tables[who]);
                        assert!(
                            found.len() as u64 >= least[who],
                            "an acknowledged commit is not seen"
                        );
                        for (number, row) in (0..).zip(found) {
                            assert_eq!(row, (key(number), value(number, 300)));
                        }
                    }
                }
            });
        }
        for committer in committers {
            committer.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    drop(db);
    let db = small().open(&path).unwrap();
    for name in ["zero", "one"] {
        assert_eq!(
            now(&db, &db.open_table(name).unwrap()),
            common::loaded(0..300, 300)
        );
    }
}

#[test]
fn a_second_writer_is_told_that_the_first_is_busy() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    assert!(matches!(db.try_begin_write(), Err(Error::WriteBusy)));
    write.put(&table, key(1), b"one").unwrap();
    // Readers do not care.
    assert!(
        db.begin_read()
            .unwrap()
            .get(&table, key(1))
            .unwrap()
            .is_none()
    );
    write.commit().unwrap();
    db.try_begin_write().unwrap().abort();
}

#[test]
fn a_waiting_writer_gets_its_turn() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let mut first = db.begin_write().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut second = db.begin_write().unwrap();
            assert_eq!(&*second.get(&table, b"who").unwrap().unwrap(), b"first");
            second.put(&table, b"who", b"second").unwrap();
            second.commit().unwrap();
        });
        first.put(&table, b"who", b"first").unwrap();
        first.commit().unwrap();
        waiting.join().unwrap();
    });
    assert_eq!(now(&db, &table), [(b"who".to_vec(), b"second".to_vec())]);
}

#[test]
fn submitted_batches_commit_in_order_and_their_handles_can_be_waited_for_polled_and_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let mut handles: Vec<_> = (0..90u64)
        .map(|number| {
            let mut batch = WriteBatch::new();
            batch.put(&table, key(number), value(number, 100));
            batch.put(&table, b"last", number.to_le_bytes());
            db.submit(batch).unwrap()
        })
        .collect();
    let last = handles.split_off(60);
    let middle = handles.split_off(30);
    let mut ids: Vec<_> = handles
        .into_iter()
        .map(|handle| handle.wait().unwrap().txn_id)
        .collect();
    ids.extend(
        middle
            .into_iter()
            .map(|handle| block_on(handle).unwrap().txn_id),
    );
    for handle in last {
        ids.push(loop {
            if let Some(done) = handle.try_wait() {
                break done.unwrap().txn_id;
            }
            std::thread::yield_now();
        });
    }
    assert!(ids.is_sorted_by(|one, two| one < two), "{ids:?}");
    let read = db.begin_read().unwrap();
    assert_eq!(
        &*read.get(&table, b"last").unwrap().unwrap(),
        89u64.to_le_bytes()
    );
    assert_eq!(rows(&read, &table).len(), 91);
}

#[test]
fn a_handle_that_is_dropped_does_not_undo_its_commit() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&table, key(1), b"kept");
    drop(db.submit(batch).unwrap());
    let mut batch = WriteBatch::new();
    batch.put(&table, key(2), b"later");
    db.commit(batch).unwrap();
    assert_eq!(now(&db, &table).len(), 2);
}

/// The smallest executor: parks until woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn checkpoints_from_several_threads_lose_no_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().delta_bytes(64 << 10).open(&path).unwrap();
    let tables: Vec<_> = (0..2)
        .map(|who| db.table(&format!("{who}")).unwrap())
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checkpointers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        db.checkpoint().unwrap();
                    }
                })
            })
            .collect();
        let committers: Vec<_> = tables
            .iter()
            .map(|table| {
                let db = &db;
                scope.spawn(move || {
                    for number in 0..150 {
                        common::load(db, table, number..number + 1, 1500);
                    }
                })
            })
            .collect();
        for committer in committers {
            committer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        for checkpointer in checkpointers {
            checkpointer.join().unwrap();
        }
    });
    let expected = common::loaded(0..150, 1500);
    assert!(tables.iter().all(|table| now(&db, table) == expected));
    drop(db);
    let db = small().open(&path).unwrap();
    for who in 0..2 {
        assert!(
            now(&db, &db.open_table(&format!("{who}")).unwrap()) == expected,
            "table {who}"
        );
    }
    assert_eq!(db.check().unwrap().faults, Vec::<String>::new());
}
