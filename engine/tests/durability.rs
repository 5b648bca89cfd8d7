//! Promise: what a durable commit returned for is there after any stop of the process.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod common;

use common::{copy, key, load, loaded, now, small, value};
use northstardb::{Db, Durability, Retention, WriteBatch};

#[test]
fn a_clean_close_keeps_everything_and_leaves_nothing_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..3000, 200);
    load(&db, &table, 5000..5010, 60_000);
    db.close().unwrap();
    let db = small().open(&path).unwrap();
    assert_eq!(db.stats().unwrap().replayed_records, 0);
    let table = db.open_table("t").unwrap();
    let mut expected = loaded(0..3000, 200);
    expected.extend(loaded(5000..5010, 60_000));
    assert_eq!(now(&db, &table), expected);
    assert_eq!(db.check().unwrap().faults, Vec::<String>::new());
}

#[test]
fn files_copied_between_commits_open_with_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().delta_bytes(4 << 20).open(&path).unwrap();
    let table = db.table("t").unwrap();
    for round in 0..8u64 {
        // Rounds differ in whether a checkpoint lies between the log's start and its end.
        load(
            &db,
            &table,
            round * 100..(round + 1) * 100,
            40 + 200 * round as usize,
        );
        if round % 3 == 1 {
            db.checkpoint().unwrap();
            load(
                &db,
                &table,
                round * 100..round * 100 + 1,
                40 + 200 * round as usize,
            );
        }
        let expected = now(&db, &table);
        let copied = dir.path().join(format!("copy {round}"));
        copy(&path, &copied);
        // Opening twice: the first opening must not take anything from the second.
        for opening in 0..2 {
            let other = small().open(&copied).unwrap();
            let table = other.open_table("t").unwrap();
            assert_eq!(
                now(&other, &table),
                expected,
                "round {round}, opening {opening}"
            );
            assert_eq!(other.check().unwrap().faults, Vec::<String>::new());
        }
    }
}

#[test]
fn dropping_every_handle_without_closing_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    for round in 0..10u64 {
        let db = small().open(&path).unwrap();
        let table = db.table("t").unwrap();
        assert_eq!(
            now(&db, &table),
            loaded(0..round * 50, 500),
            "round {round}"
        );
        load(&db, &table, round * 50..(round + 1) * 50, 500);
    }
}

#[test]
fn a_durable_commit_makes_the_buffered_ones_before_it_durable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    for number in 0..20 {
        let mut batch = WriteBatch::new();
        batch.put(&table, key(number), value(number, 30));
        batch.durability(if number == 19 {
            Durability::Durable
        } else {
            Durability::Buffered
        });
        db.commit(batch).unwrap();
    }
    let copied = dir.path().join("copy");
    copy(&path, &copied);
    let other = small().open(&copied).unwrap();
    assert_eq!(
        now(&other, &other.open_table("t").unwrap()),
        loaded(0..20, 30)
    );
}

#[test]
fn buffered_commits_survive_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    write.put(&table, key(1), value(1, 10)).unwrap();
    write.commit_with(Durability::Buffered).unwrap();
    db.close().unwrap();
    let db = small().open(&path).unwrap();
    assert_eq!(now(&db, &db.open_table("t").unwrap()), loaded(1..2, 10));
}

#[test]
fn overwriting_for_long_does_not_grow_the_directory_without_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().history(Retention::None).open(&path).unwrap();
    let table = db.table("t").unwrap();
    // 60 MiB of overwrites of 200 KiB of data.
    for round in 0..300 {
        load(&db, &table, 0..200, 1000 + round % 7);
    }
    db.close().unwrap();
    let db = small().open(&path).unwrap();
    assert_eq!(
        now(&db, &db.open_table("t").unwrap()),
        loaded(0..200, 1000 + 299 % 7)
    );
    let data = std::fs::metadata(path.join("data")).unwrap().len();
    assert!(data < 16 << 20, "the data file has {data} bytes");
    let log: u64 = common::files(&path.join("log"))
        .iter()
        .map(|file| std::fs::metadata(file).unwrap().len())
        .sum();
    assert!(log <= 80 << 20, "the log has {log} bytes");
}

#[test]
fn table_names_and_drops_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = || -> Db { small().open(&path).unwrap() };
    let db = open();
    for name in ["a", "b", "c", ""] {
        if let Ok(table) = db.table(name) {
            load(&db, &table, 0..100, 100);
        }
    }
    db.rename_table("a", "z").unwrap();
    db.drop_table("b").unwrap();
    let mut expected = db.tables().unwrap();
    expected.sort();
    drop(db);
    let db = open();
    let mut names = db.tables().unwrap();
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(now(&db, &db.open_table("z").unwrap()), loaded(0..100, 100));
    // A new table under a dropped name starts empty.
    assert_eq!(now(&db, &db.table("b").unwrap()), []);
    db.close().unwrap();
    let db = open();
    assert_eq!(now(&db, &db.open_table("b").unwrap()), []);
}
