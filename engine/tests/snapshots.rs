//! Promise: a snapshot shows one state, whatever happens after it was opened.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{key, load, loaded, now, rows, small, value};
use northstardb::{Db, Error, ReadTxn, TxnId, WriteBatch, WriteTxn};

#[test]
fn a_snapshot_keeps_its_state_through_commits_checkpoints_and_drops() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let doomed = db.table("doomed").unwrap();
    load(&db, &table, 0..500, 300);
    load(&db, &doomed, 0..50, 5000);
    let read = db.begin_read().unwrap();
    let tables = read.tables().unwrap();
    for round in 0..6 {
        load(&db, &table, 100..700, 200 + round);
        let mut write = db.begin_write().unwrap();
        write.delete_range(&table, key(10)..key(300)).unwrap();
        write.commit().unwrap();
        if round == 2 {
            db.drop_table("doomed").unwrap();
            db.rename_table("t", "renamed").unwrap();
        }
        db.checkpoint().unwrap();
        assert_eq!(rows(&read, &table), loaded(0..500, 300), "round {round}");
        assert_eq!(rows(&read, &doomed), loaded(0..50, 5000), "round {round}");
        assert_eq!(read.tables().unwrap(), tables, "round {round}");
    }
}

#[test]
fn every_transaction_in_memory_can_be_read_as_of() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let mut states = Vec::new();
    for number in 0..50u64 {
        let mut write = db.begin_write().unwrap();
        write
            .put(&table, key(number % 7), value(number, 20))
            .unwrap();
        if number % 5 == 4 {
            write.delete(&table, key((number + 2) % 7)).unwrap();
        }
        if number == 30 {
            write.delete_range::<&[u8]>(&table, ..).unwrap();
        }
        let commit = write.commit().unwrap();
        states.push((commit.txn_id, now(&db, &table)));
    }
    for (txn, expected) in states {
        let read = db.begin_read_at(txn).unwrap();
        assert_eq!(read.txn_id(), txn);
        assert_eq!(rows(&read, &table), expected, "as of {txn:?}");
    }
}

#[test]
fn an_earlier_state_opens_tables_by_the_names_they_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::open(&path).unwrap();
    let first = db.table("name").unwrap();
    load(&db, &first, 0..5, 10);
    let named = db.begin_read().unwrap().txn_id();
    let renamed = db.rename_table("name", "old").unwrap().txn_id;
    let second = db.table("name").unwrap();
    load(&db, &second, 7..9, 10);
    let both = db.begin_read().unwrap().txn_id();
    let dropped = db.drop_table("old").unwrap().txn_id;
    load(&db, &second, 20..22, 10);
    let look = |db: &Db| {
        let open = |txn, name: &str| db.begin_read_at(txn).unwrap().open_table(name);
        let same = |txn, name, id, expected: std::ops::Range<u64>| {
            let table = open(txn, name).unwrap();
            assert_eq!(table.id(), id, "{name} as of {txn:?}");
            let read = db.begin_read_at(txn).unwrap();
            assert_eq!(
                rows(&read, &table),
                loaded(expected, 10),
                "{name} as of {txn:?}"
            );
        };
        same(named, "name", first.id(), 0..5);
        same(renamed, "old", first.id(), 0..5);
        same(both, "old", first.id(), 0..5);
        same(both, "name", second.id(), 7..9);
        for (txn, name) in [(named, "old"), (renamed, "name"), (dropped, "old")] {
            let found = open(txn, name);
            assert!(
                matches!(found, Err(Error::UnknownTable { .. })),
                "{found:?}"
            );
        }
        // What an earlier state calls a table is gone from the later ones, for reading and for writing.
        let gone = open(both, "old").unwrap();
        let read = db.begin_read_at(dropped).unwrap();
        let found = read.contains(&gone, key(0));
        assert!(
            matches!(found, Err(Error::UnknownTable { .. })),
            "{found:?}"
        );
        let mut batch = WriteBatch::new();
        batch.put(&gone, key(0), "lost");
        let found = db.commit(batch);
        assert!(
            matches!(found, Err(Error::UnknownTable { .. })),
            "{found:?}"
        );
    };
    look(&db);
    // Replayed, they are what they were.
    drop(db);
    let db = Db::open(&path).unwrap();
    assert!(db.stats().unwrap().replayed_records > 0);
    look(&db);
    assert!(db.check().unwrap().faults.is_empty());
}

#[test]
fn a_transaction_that_has_not_happened_is_an_error_that_says_how_far_it_goes() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..3, 3);
    let newest = db.begin_read().unwrap().txn_id();
    match db.begin_read_at(TxnId::new(newest.get() + 1)) {
        Err(Error::SnapshotGone {
            asked,
            newest: said,
            ..
        }) => {
            assert_eq!((asked.get(), said), (newest.get() + 1, newest));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn readers_see_whole_transactions_while_the_writer_commits() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let table = db.table("accounts").unwrap();
    let mut write = db.begin_write().unwrap();
    for account in 0..20 {
        write
            .put(&table, key(account), 1000u64.to_le_bytes())
            .unwrap();
    }
    write.commit().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (db, table, done) = (&db, &table, &done);
            scope.spawn(move || {
                let mut last = TxnId::ZERO;
                loop {
                    let stop = done.load(Ordering::Acquire);
                    let read = db.begin_read().unwrap();
                    assert!(read.txn_id() >= last, "a later snapshot is older");
                    last = read.txn_id();
                    let sum: u64 = if reader == 0 {
                        rows(&read, table).iter().map(|(_, v)| amount(v)).sum()
                    } else {
                        (0..20)
                            .map(|at| amount(&read.get(table, key(at)).unwrap().unwrap()))
                            .sum()
                    };
                    assert_eq!(sum, 20_000, "at {last:?}");
                    if stop {
                        break;
                    }
                }
            });
        }
        for number in 0..400u64 {
            let mut write = db.begin_write().unwrap();
            let (from, to) = (key(number % 20), key((number * 7 + 1) % 20));
            let take = amount(&write.get(&table, &from).unwrap().unwrap()).min(number);
            if from != to {
                let left = amount(&write.get(&table, &from).unwrap().unwrap()) - take;
                let more = amount(&write.get(&table, &to).unwrap().unwrap()) + take;
                write.put(&table, &from, left.to_le_bytes()).unwrap();
                write.put(&table, &to, more.to_le_bytes()).unwrap();
            }
            write.commit().unwrap();
            if number % 100 == 50 {
                db.checkpoint().unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
}

fn amount(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

#[test]
fn what_is_not_committed_is_seen_by_its_transaction_alone() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..3, 10);
    let mut write = db.begin_write().unwrap();
    write.put(&table, key(1), b"new").unwrap();
    write.delete(&table, key(2)).unwrap();
    assert_eq!(&*write.get(&table, key(1)).unwrap().unwrap(), b"new");
    assert!(write.get(&table, key(2)).unwrap().is_none());
    assert_eq!(now(&db, &table), loaded(0..3, 10));
    write.abort();
    assert_eq!(now(&db, &table), loaded(0..3, 10));
    // Dropping is aborting, and lets the next writer in.
    drop(db.begin_write().unwrap());
    db.try_begin_write().unwrap().abort();
}

#[test]
fn snapshots_travel_between_threads_and_outlive_the_handle_they_came_from() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send>() {}
    shared::<ReadTxn>();
    shared::<Db>();
    sent::<WriteTxn>();
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..10, 10);
    let read = db.begin_read().unwrap();
    drop(db);
    let found = std::thread::spawn(move || rows(&read, &table))
        .join()
        .unwrap();
    assert_eq!(found, loaded(0..10, 10));
}

#[test]
fn savepoints_nest_and_roll_back_tables_too() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    write.put(&table, b"a", b"1").unwrap();
    let first = write.savepoint();
    write.put(&table, b"a", b"2").unwrap();
    let made = write.table("made").unwrap();
    write.put(&made, b"x", b"y").unwrap();
    let second = write.savepoint();
    write.delete_range::<&[u8]>(&table, ..).unwrap();
    write.drop_table("made").unwrap();
    write.rollback_to(&second).unwrap();
    assert_eq!(&*write.get(&table, b"a").unwrap().unwrap(), b"2");
    assert_eq!(&*write.get(&made, b"x").unwrap().unwrap(), b"y");
    write.rollback_to(&first).unwrap();
    write.rollback_to(&first).unwrap();
    assert_eq!(&*write.get(&table, b"a").unwrap().unwrap(), b"1");
    assert_eq!(write.tables().unwrap(), ["t"]);
    write.commit().unwrap();
    assert_eq!(now(&db, &table), [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!(db.tables().unwrap(), ["t"]);
}

#[test]
fn snapshots_of_one_database_do_not_hide_those_of_another() {
    // A thread that holds many snapshots of one database, and then one of the next.
    let first = Db::memory().unwrap();
    let many: Vec<_> = (0..200).map(|_| first.begin_read().unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..300, 300);
    db.checkpoint().unwrap();
    let read = db.begin_read().unwrap();
    assert_eq!(db.stats().unwrap().snapshots_open, 1);
    for round in 0..6 {
        load(&db, &table, 0..300, 301 + round);
        db.checkpoint().unwrap();
    }
    assert_eq!(rows(&read, &table), loaded(0..300, 300));
    drop(many);
    assert_eq!(first.stats().unwrap().snapshots_open, 0);
}
