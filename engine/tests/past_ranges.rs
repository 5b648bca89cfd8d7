//! Promise: a range of an earlier state reads what lies in the range, however much else was changed since.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ops::{ControlFlow, Range};

use common::{State, change, compare, kept, odd_key};
use northstardb::{Db, Options, ReadTxn, Table, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const ROWS: u32 = 20_000;
const WANTED: u32 = 10;

/// All that is written here is one checkpoint's, and fits in memory.
fn options() -> Options {
    kept().delta_bytes(32 << 20).memory_budget(128 << 20)
}

fn key(number: u32) -> String {
    format!("{number:08}")
}

fn put(db: &Db, table: &Table, numbers: Range<u32>, value: u8) {
    let mut txn = db.begin_write().unwrap();
    for number in numbers {
        txn.put(table, key(number), [value; 100]).unwrap();
    }
    txn.commit().unwrap();
}

/// The keys of a range, its values being `value`, in every way there is to read it.
fn read_all_ways(read: &ReadTxn, table: &Table, numbers: Range<u32>, value: u8) {
    let expected: Vec<_> = numbers
        .clone()
        .map(|number| key(number).into_bytes())
        .collect();
    let span = || key(numbers.start)..key(numbers.end);
    let mut scanned = Vec::new();
    read.scan(table, span(), |key, found| {
        assert_eq!(found, [value; 100]);
        scanned.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(scanned, expected);
    let keys = |rows: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<_> {
        assert!(rows.iter().all(|(_, found)| *found == [value; 100]));
        rows.into_iter().map(|(key, _)| key).collect()
    };
    let forward = read.range(table, span()).unwrap();
    assert_eq!(keys(forward.map(Result::unwrap).collect()), expected);
    let backward = read.range(table, span()).unwrap().rev();
    let mut backward = keys(backward.map(Result::unwrap).collect());
    backward.reverse();
    assert_eq!(backward, expected);
    // Ten numbers that begin alike.
    let start = key(numbers.start);
    let prefix = read.prefix(table, &start[..start.len() - 1]).unwrap();
    assert_eq!(keys(prefix.map(Result::unwrap).collect()), expected);
    // Without bounds, and no further than asked for.
    let mut cursor = read.cursor(table).unwrap();
    let first = cursor.seek(key(numbers.start)).unwrap();
    assert_eq!(first.map(|(key, _)| key), Some(&*expected[0]));
    let second = cursor.next().unwrap();
    assert_eq!(second.map(|(key, _)| key), Some(&*expected[1]));
    let back = cursor.prev().unwrap();
    assert_eq!(back.map(|(key, _)| key), Some(&*expected[0]));
}

/// Bytes that `look` had read at `at`, nothing being in memory before.
fn bytes_read(path: &std::path::Path, at: TxnId, look: impl FnOnce(&ReadTxn, &Table)) -> u64 {
    let db = options().open(path).unwrap();
    let table = db.table("t").unwrap();
    let read = db.begin_read_at(at).unwrap();
    let before = db.stats().unwrap().bytes_read;
    look(&read, &table);
    db.stats().unwrap().bytes_read - before
}

#[test]
fn a_range_of_the_past_reads_what_lies_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = options().open(dir.path()).unwrap();
    let table = db.table("t").unwrap();
    put(&db, &table, 0..ROWS, 1);
    // Nothing of the first state is in the tree.
    let first = db.begin_read().unwrap().txn_id();
    put(&db, &table, 0..ROWS, 2);
    // The run has but one version that the second state saw; behind its end the tree has as much again that came later.
    let second = db.begin_read().unwrap().txn_id();
    put(&db, &table, 0..1, 3);
    put(&db, &table, ROWS..2 * ROWS, 3);
    db.checkpoint().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(stats.history_runs, 1);
    let run = stats.history_pages * u64::from(stats.page_bytes);
    db.close().unwrap();
    for from in [0, ROWS / 2, ROWS - WANTED] {
        let numbers = from..from + WANTED;
        for (at, value) in [(first, 1), (second, 2)] {
            let reads = bytes_read(dir.path(), at, |read, table| {
                read_all_ways(read, table, numbers.clone(), value);
            });
            assert!(
                reads < run / 8,
                "{reads} bytes were read for rows from {from} at {at}, the run has {run}"
            );
        }
    }
    // Nothing is there yet: no more is looked through than the range.
    for at in [first, second] {
        let reads = bytes_read(dir.path(), at, |read, table| {
            let span = key(ROWS)..key(ROWS + WANTED);
            assert_eq!(read.range(table, span.clone()).unwrap().count(), 0);
            assert_eq!(read.range(table, span.clone()).unwrap().rev().count(), 0);
            read.scan(table, span, |_, _| panic!("a row that came later"))
                .unwrap();
        });
        assert!(reads < run / 8, "{reads} bytes were read at {at}");
    }
}

/// Keys of hundreds of versions, more than a walk passes over one by one, among keys of few, in several runs.
#[test]
fn states_of_keys_with_many_versions_are_exact_both_ways() {
    const KEYS: u64 = 13;
    for seed in 0..4 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let db = options().memory().unwrap();
        let table = db.table("t").unwrap();
        let (mut state, mut states) = (State::new(), Vec::new());
        for _ in 0..3 {
            for _ in 0..250 {
                let any_key = |rng: &mut SmallRng| match rng.random_range(0..10) {
                    0..7 => odd_key(2 + seed),
                    7..9 => odd_key(7 + seed),
                    _ => odd_key(rng.random_range(0..KEYS)),
                };
                let txn = change(&db, &table, &mut state, &mut rng, (2, any_key));
                states.push((txn, state.clone()));
            }
            db.checkpoint().unwrap();
        }
        assert_eq!(db.stats().unwrap().history_runs, 3);
        for (at, state) in &states {
            let read = db.begin_read_at(*at).unwrap();
            compare(&read, &table, state, KEYS, &format!("{at} of seed {seed}"));
        }
    }
}
