//! Promise: where the log was kept, it rebuilds a database whose data file is lost, to the last commit that was acknowledged, and
//! what is damaged or missing is never passed over unsaid.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{copy, flip, key, load, small};
use northstardb::{
    Db, Durability, Error, LogReader, Options, Retention, StateHash, TxnId, WriteBatch,
};

const SEGMENT: u32 = 64 << 10;

fn keeping(log: Retention) -> Options {
    small()
        .page_bytes(4096)
        .log_segment_bytes(SEGMENT)
        .log_retention(log)
}

/// Everything that a log can hold, over more than a few segments, and the state after each transaction.
fn work(db: &Db) -> Vec<StateHash> {
    let mut states = Vec::new();
    let note = |db: &Db, states: &mut Vec<StateHash>| {
        let read = db.begin_read().unwrap();
        assert_eq!(read.txn_id().get(), states.len() as u64 + 1);
        states.push(read.state_hash().unwrap());
    };
    let table = db.table("rows").unwrap();
    note(db, &mut states);
    for round in 0..20 {
        load(db, &table, round * 7..round * 7 + 20, 300);
        note(db, &mut states);
        let mut write = db.begin_write().unwrap();
        let other = write.table(&format!("table {}", round % 3)).unwrap();
        write.put(&other, key(round), vec![7; 20_000]).unwrap();
        write
            .delete_range(&table, key(round * 5)..key(round * 5 + 4))
            .unwrap();
        write.set_tag(format!("round {round}").as_bytes()).unwrap();
        write.commit().unwrap();
        note(db, &mut states);
        if round % 5 == 4 {
            let mut write = db.begin_write().unwrap();
            write.rename_table("table 0", "renamed").unwrap();
            write.drop_table("table 1").unwrap();
            write.drop_table("renamed").unwrap();
            write.commit().unwrap();
            note(db, &mut states);
            db.checkpoint().unwrap();
        }
    }
    states
}

fn without_data(path: &Path) {
    std::fs::remove_file(path.join("data")).unwrap();
}

fn segment(path: &Path, number: u64) -> PathBuf {
    path.join("log").join(format!("{number:020}.seg"))
}

fn read(path: &Path, from: TxnId) -> northstardb::Result<LogReader> {
    Options::new().read_log(path, from)
}

/// Applies what the log of `lost` has from where `copy` is. Says what ended it.
fn lead(copy: &Db, lost: &Path) -> Result<(), Error> {
    let mut apply = copy.begin_apply()?;
    let mut ended = Ok(());
    for transaction in read(lost, apply.next())? {
        match transaction {
            Ok(transaction) => apply.push(transaction)?,
            Err(error) => ended = Err(error),
        }
    }
    apply.finish()?;
    ended
}

fn state(db: &Db) -> (TxnId, StateHash) {
    let read = db.begin_read().unwrap();
    (read.txn_id(), read.state_hash().unwrap())
}

#[test]
fn a_lost_data_file_is_rebuilt_from_the_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let db = keeping(Retention::All).open(place("open")).unwrap();
    let states = work(&db);
    let last = TxnId::new(states.len() as u64);
    copy(&place("open"), &place("killed"));
    let refused = read(&place("open"), TxnId::new(1)).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    let id = db.id().unwrap();
    db.close().unwrap();
    std::fs::rename(place("open"), place("closed")).unwrap();
    for lost in ["closed", "killed"] {
        // Also where only what it says is wrong.
        for nothing in [true, false] {
            let lost = place(lost);
            let before = common::files(&lost);
            if nothing {
                copy(&lost, &place("spare"));
                without_data(&lost);
            }
            let reader = read(&lost, TxnId::new(1)).unwrap();
            assert!(reader.is_of(id) && !reader.is_of(id ^ 1));
            assert!(reader.report().holes.is_empty(), "{:?}", reader.report());
            // It is held meanwhile, and written by nobody.
            let refused = read(&lost, TxnId::new(1)).unwrap_err();
            assert!(matches!(refused, Error::Locked { .. }), "{refused}");
            drop(reader);
            let copied = Db::memory().unwrap();
            lead(&copied, &lost).unwrap();
            assert_eq!(state(&copied), (last, states[states.len() - 1]));
            copied.close().unwrap();
            if nothing {
                std::fs::remove_dir_all(&lost).unwrap();
                std::fs::rename(place("spare"), &lost).unwrap();
            }
            assert_eq!(common::files(&lost), before);
        }
    }
}

#[test]
fn a_backup_is_led_on_by_the_log_of_a_database_that_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let lost = dir.path().join("lost");
    let db = keeping(Retention::All).open(&lost).unwrap();
    let mut backup = Vec::new();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..50, 100);
    let at = db.backup(&mut backup).unwrap().to;
    load(&db, &table, 50..500, 100);
    let expected = state(&db);
    // What is buffered may be there or not, and is never half there.
    let mut batch = WriteBatch::new();
    batch.put(&table, "late", "x").put(&table, "later", "y");
    batch.durability(Durability::Buffered);
    db.commit(batch).unwrap();
    copy(&lost, &dir.path().join("killed"));
    db.close().unwrap();
    let lost = dir.path().join("killed");
    without_data(&lost);
    let restored = Options::new()
        .restore(dir.path().join("restored"), &backup[..])
        .unwrap()
        .finish();
    assert_eq!(restored.begin_read().unwrap().txn_id(), at);
    lead(&restored, &lost).unwrap();
    let (txn, digest) = state(&restored);
    let table = restored.open_table("t").unwrap();
    let read = restored.begin_read().unwrap();
    let late = ["late", "later"].map(|key| read.contains(&table, key).unwrap());
    assert_eq!(late[0], late[1]);
    assert_eq!((txn, digest) == expected, !late[0]);
    assert_eq!(txn.get(), expected.0.get() + u64::from(late[0]));
    drop(read);
    restored.close().unwrap();
}

#[test]
fn what_is_missing_ends_it_and_what_comes_behind_is_read_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = keeping(Retention::All).open(&path).unwrap();
    let states = work(&db);
    db.close().unwrap();
    for data in [true, false] {
        for remove in [true, false] {
            let lost = dir.path().join(format!("{data} {remove}"));
            copy(&path, &lost);
            if !data {
                without_data(&lost);
            }
            match remove {
                true => std::fs::remove_file(segment(&lost, 3)).unwrap(),
                false => flip(&segment(&lost, 3), 20_000),
            }
            let report = Options::new().verify_log(&lost).unwrap();
            let [hole] = &report.holes[..] else {
                panic!("{report:?}");
            };
            let (first, next) = (hole.first.unwrap(), hole.next.unwrap());
            assert!(first < next);
            let copied = Db::memory().unwrap();
            let ended = lead(&copied, &lost).unwrap_err();
            assert!(
                matches!(&ended, Error::Corrupt(at) if at.file == "log"),
                "{ended}"
            );
            // A state that was, and the last before what is missing.
            let (txn, digest) = state(&copied);
            assert_eq!(txn.next(), first);
            assert_eq!(digest, states[usize::try_from(txn.get()).unwrap() - 1]);
            copied.close().unwrap();
            // From within it on there is nothing, from behind it on all.
            let mut within = read(&lost, first).unwrap();
            assert!(within.next().unwrap().is_err());
            assert!(within.next().is_none());
            drop(within);
            let behind: Vec<_> = read(&lost, next)
                .unwrap()
                .map(|found| found.unwrap().txn_id().get())
                .collect();
            assert_eq!(
                behind,
                (next.get()..=states.len() as u64).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn what_was_let_go_or_never_was_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = keeping(Retention::None).open(&path).unwrap();
    let last = TxnId::new(work(&db).len() as u64);
    db.checkpoint().unwrap();
    db.close().unwrap();
    for _ in 0..2 {
        for (from, is_there) in [(1, false), (last.get() + 2, false), (last.get() + 1, true)] {
            match read(&path, TxnId::new(from)) {
                Err(Error::NotInLog { asked, first, next }) if !is_there => {
                    assert_eq!(asked.get(), from);
                    assert!(first <= next && next == last.next(), "{first} {next}");
                }
                Ok(mut reader) if is_there => {
                    assert_eq!(reader.next_txn(), last.next());
                    assert!(reader.next().is_none());
                }
                other => panic!("{from}: {other:?}"),
            }
        }
        if path.join("data").exists() {
            without_data(&path);
        }
    }
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let refused = read(&empty, TxnId::new(1)).unwrap_err();
    assert!(matches!(refused, Error::NotADatabase { .. }), "{refused}");
}

#[test]
fn the_log_of_a_copy_that_went_its_own_way_is_not_taken_for_the_own() {
    let dir = tempfile::tempdir().unwrap();
    let (path, fork) = (dir.path().join("db"), dir.path().join("fork"));
    let commit = |path: &Path, rows: std::ops::Range<u64>| {
        let db = keeping(Retention::All).open(path).unwrap();
        let table = db.table("t").unwrap();
        for row in rows {
            load(&db, &table, row..row + 1, 50);
        }
        db.close().unwrap();
    };
    commit(&path, 0..40);
    copy(&path, &fork);
    commit(&path, 100..140);
    commit(&fork, 200..240);
    // The data file knows how its log ends.
    std::fs::copy(fork.join("data"), path.join("data")).unwrap();
    let reader = read(&path, TxnId::new(1)).unwrap();
    assert_eq!(reader.report().holes.len(), 1);
    let ended = reader.last().unwrap().unwrap_err();
    assert!(
        matches!(&ended, Error::Corrupt(at) if at.file == "log"),
        "{ended}"
    );
}
