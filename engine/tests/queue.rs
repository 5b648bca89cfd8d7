//! Promise: a commit that was handed over is seen to, whoever else is busy, and nobody waits for ever.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::key;
use northstardb::{CommitHandle, Db, Options, Table, WriteBatch};

/// More than one holder of the writer role serves before it goes its own way.
const MANY: u64 = 400;

/// Runs `body` and fails if it hangs: a bound on patience, not on speed.
fn ends(body: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        body();
        done.send(()).ok();
    });
    match ended.recv_timeout(Duration::from_secs(120)) {
        Ok(()) => thread.join().unwrap(),
        Err(_) if thread.is_finished() => thread.join().unwrap(),
        Err(_) => panic!("hangs"),
    }
}

/// Nothing but the commits themselves wakes anybody.
fn memory() -> Db {
    Options::new()
        .idle_after(Duration::from_secs(3600))
        .memory()
        .unwrap()
}

fn batch(table: &Table, number: u64, bytes: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(table, key(number), vec![7; bytes]);
    batch
}

fn submit_many(db: &Db, table: &Table, bytes: usize) -> Vec<CommitHandle> {
    (0..MANY)
        .map(|number| db.submit(batch(table, number, bytes)).unwrap())
        .collect()
}

#[test]
fn many_batches_behind_a_write_transaction_are_served_when_it_ends() {
    // Large ones fill the open group over and over while they are applied.
    for bytes in [10, 16 << 10] {
        ends(move || {
            let db = memory();
            let table = db.table("t").unwrap();
            let mut first = db.begin_write().unwrap();
            first.put(&table, "first", "x").unwrap();
            let handles = submit_many(&db, &table, bytes);
            first.commit().unwrap();
            for handle in handles {
                handle.wait().unwrap();
            }
        });
    }
}

#[test]
fn blocking_commits_behind_a_write_transaction_end() {
    ends(|| {
        let db = memory();
        let table = db.table("t").unwrap();
        let mut first = db.begin_write().unwrap();
        first.put(&table, "first", "x").unwrap();
        std::thread::scope(|scope| {
            for number in 0..MANY {
                let (db, table) = (&db, &table);
                scope.spawn(move || db.commit(batch(table, number, 16 << 10)).unwrap());
            }
            std::thread::sleep(Duration::from_millis(200));
            first.commit().unwrap();
        });
    });
}

#[test]
fn hundreds_of_committers_with_large_batches_all_end() {
    ends(|| {
        let db = memory();
        let table = db.table("t").unwrap();
        let threads = 600;
        let barrier = Barrier::new(threads);
        std::thread::scope(|scope| {
            for who in 0..threads as u64 {
                let (db, table, barrier) = (&db, &table, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..3 {
                        let commit = db.commit(batch(table, 3 * who + number, 16 << 10));
                        commit.unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn a_write_transaction_that_outlives_its_database_serves_all_who_wait() {
    ends(|| {
        let db = memory();
        let table = db.table("t").unwrap();
        let mut last = db.begin_write().unwrap();
        last.put(&table, "first", "x").unwrap();
        let handles = submit_many(&db, &table, 10);
        drop(db);
        last.commit().unwrap();
        for handle in handles {
            handle.wait().unwrap();
        }
    });
}

#[test]
fn batches_served_by_one_who_then_keeps_the_writer_become_durable_meanwhile() {
    ends(|| {
        let db = memory();
        let table = db.table("t").unwrap();
        for _ in 0..30 {
            let mut first = db.begin_write().unwrap();
            first.put(&table, "first", "x").unwrap();
            let handles = submit_many(&db, &table, 10);
            std::thread::scope(|scope| {
                let (taken, keeps) = channel();
                let (release, released) = channel::<()>();
                let other = db.clone();
                scope.spawn(move || {
                    let second = other.begin_write().unwrap();
                    taken.send(()).unwrap();
                    released.recv().unwrap();
                    // Given up without a commit of its own.
                    drop(second);
                });
                std::thread::sleep(Duration::from_millis(1));
                drop(first);
                keeps.recv().unwrap();
                for handle in handles {
                    handle.wait().unwrap();
                }
                release.send(()).unwrap();
            });
        }
    });
}

#[test]
fn who_waits_for_the_writer_gets_it_though_others_keep_committing() {
    ends(|| {
        let db = memory();
        let table = db.table("t").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for who in 0..8 {
                let (db, table, stop) = (&db, &table, &stop);
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        db.commit(batch(table, who, 10)).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let mut txn = db.begin_write().unwrap();
                txn.put(&table, "mine", "x").unwrap();
                txn.commit().unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}
