//! Promise: what happened between two states is told whole: the versions of a key, the keys that differ, and how to go back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{State, kept, odd_key, put, rows};
use northstardb::{Db, Error, Table, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const KEYS: u64 = 60;

/// A long random past, and all its states.
fn long_past(db: &Db, seed: u64) -> (Table, Vec<(TxnId, State)>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let table = db.table("t").unwrap();
    let mut state = State::new();
    let mut states = vec![(db.begin_read().unwrap().txn_id(), State::new())];
    for _ in 0..120 {
        let any_key = |rng: &mut SmallRng| odd_key(rng.random_range(0..KEYS));
        let txn = common::change(db, &table, &mut state, &mut rng, (6, any_key));
        states.push((txn, state.clone()));
        if rng.random_bool(0.05) {
            db.checkpoint().unwrap();
        }
    }
    (table, states)
}

#[test]
fn the_history_of_a_key_has_every_version_of_it() {
    let db = kept().memory().unwrap();
    let (table, states) = long_past(&db, 7);
    for number in 0..KEYS {
        let key = odd_key(number);
        let mut expected = Vec::new();
        for pair in states.windows(2) {
            let (before, after) = (pair[0].1.get(&key), pair[1].1.get(&key));
            if before != after {
                expected.push((pair[1].0, after.cloned()));
            }
        }
        let found = db.history(&table, &key, ..).unwrap();
        let listed: Vec<_> = found
            .iter()
            .map(|version| (version.txn, version.value.clone()))
            .collect();
        assert_eq!(listed, expected, "{key:02x?}");
        assert!(found.iter().all(|version| version.time.is_some()));
        let (from, to) = (states[40].0, states[90].0);
        let part: Vec<_> = db.history(&table, &key, from..to).unwrap();
        let part: Vec<_> = part.iter().map(|version| version.txn).collect();
        let within = |(txn, _): &(TxnId, _)| (from..to).contains(txn).then_some(*txn);
        assert_eq!(part, expected.iter().filter_map(within).collect::<Vec<_>>());
    }
}

#[test]
fn a_diff_has_the_keys_that_differ_and_a_revert_takes_them_back() {
    let db = kept().memory().unwrap();
    let (table, states) = long_past(&db, 8);
    let mut rng = SmallRng::seed_from_u64(9);
    for _ in 0..200 {
        let mut pick = || rng.random_range(0..states.len());
        let (a, b) = (pick(), pick());
        let ((before, old), (after, new)) = (&states[a.min(b)], &states[a.max(b)]);
        let mut found = Vec::new();
        db.diff(&table, *before, *after, |difference| {
            let value =
                |value: &Option<northstardb::Value<'_>>| value.as_deref().map(<[u8]>::to_vec);
            let (before, after) = (value(&difference.before), value(&difference.after));
            found.push((difference.key.to_vec(), before, after));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let expected: Vec<_> = keys
            .into_iter()
            .filter(|key| old.get(*key) != new.get(*key))
            .map(|key| (key.clone(), old.get(key).cloned(), new.get(key).cloned()))
            .collect();
        assert_eq!(found, expected, "{before:?} to {after:?}");
    }
    let (last, newest) = (states[states.len() - 1].0, &states[states.len() - 1].1);
    let (then, old) = &states[60];
    let batch = db.revert(&table, *then, last).unwrap();
    db.commit(batch).unwrap();
    assert_eq!(
        common::now(&db, &table),
        old.clone().into_iter().collect::<Vec<_>>()
    );
    let again = db.begin_read_at(last).unwrap();
    assert_eq!(
        rows(&again, &table),
        newest.clone().into_iter().collect::<Vec<_>>()
    );
    let wrong = db.diff(&table, last, *then, |_| std::ops::ControlFlow::Continue(()));
    assert!(
        matches!(wrong, Err(Error::InvalidOption { .. })),
        "{wrong:?}"
    );
}

#[test]
fn a_diff_reads_the_pages_that_were_written_since_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let key = |number: u32| format!("{number:08}");
    let options = || kept().memory_budget(16 << 20);
    let db = options().open(dir.path()).unwrap();
    let table = db.table("t").unwrap();
    for first in (0..200_000).step_by(1000) {
        let mut txn = db.begin_write().unwrap();
        for number in first..first + 1000 {
            txn.put(&table, key(2 * number), [7; 100]).unwrap();
        }
        txn.commit().unwrap();
    }
    db.checkpoint().unwrap();
    let before = db.begin_read().unwrap().txn_id();
    let mut changed = Vec::new();
    for number in [5, 70_000, 70_001, 250_000, 399_998, 399_999] {
        let mut txn = db.begin_write().unwrap();
        txn.put(&table, key(number), "new").unwrap();
        txn.commit().unwrap();
        changed.push(key(number).into_bytes());
    }
    let after = db.begin_read().unwrap().txn_id();
    db.close().unwrap();
    // All leaves together are more than the cache has frames.
    let db = options().open(dir.path()).unwrap();
    let table = db.table("t").unwrap();
    let read = db.stats().unwrap().page_reads;
    let mut found = Vec::new();
    db.diff(&table, before, after, |difference| {
        assert_eq!(difference.after.as_deref(), Some(&b"new"[..]));
        found.push(difference.key.to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(found, changed);
    let reads = db.stats().unwrap().page_reads - read;
    // A few leaves of a few trees, of 1,500 and more.
    assert!(reads < 60, "{reads} pages were read");
}

#[test]
fn a_diff_sees_what_a_newer_delta_deletes_of_an_older_one() {
    let db = kept()
        .memory_budget(512 << 20)
        .delta_bytes(60 << 20)
        .memory()
        .unwrap();
    let (large, table) = (db.table("large").unwrap(), db.table("t").unwrap());
    put(&db, &table, "A", b"old");
    for number in 0..7 {
        put(&db, &large, &format!("big {number}"), &vec![7; 9 << 20]);
    }
    let before = db.begin_read().unwrap().txn_id();
    let mut write = db.begin_write().unwrap();
    write.delete_range(&table, "A".."C").unwrap();
    let after = write.commit().unwrap().txn_id;
    // Whether it is frozen, being merged, or in pages.
    for _ in 0..2 {
        let mut many = 0;
        db.diff(&table, before, after, |_| {
            many += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(many, 1);
        db.checkpoint().unwrap();
    }
}

/// The keys that differ, and how many bytes were read to say so.
fn differing(db: &Db, table: &Table, pair: (TxnId, TxnId)) -> (Vec<Vec<u8>>, u64) {
    let read = || db.stats().unwrap().bytes_read;
    let (before, mut keys) = (read(), Vec::new());
    db.diff(table, pair.0, pair.1, |difference| {
        keys.push(difference.key.to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    (keys, read() - before)
}

#[test]
fn a_diff_of_old_states_reads_the_log_between_them_where_it_is_kept() {
    const ROWS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        let options = kept().memory_budget(16 << 20).log_segment_bytes(64 << 10);
        options.log_retention(northstardb::Retention::All)
    };
    let db = options().open(dir.path()).unwrap();
    let (table, other) = (db.table("t").unwrap(), db.table("other").unwrap());
    common::load(&db, &table, 0..ROWS, 20);
    let mut rng = SmallRng::seed_from_u64(11);
    let mut state: State = common::loaded(0..ROWS, 20).into_iter().collect();
    let mut states = Vec::new();
    for round in 0..600 {
        let mut write = db.begin_write().unwrap();
        write.put(&other, common::key(round), [7; 300]).unwrap();
        for _ in 0..100 {
            let (at, new) = (common::key(rng.random_range(0..ROWS + 50)), rng.random());
            let new = common::value(new, 20);
            write.put(&table, &at, &new).unwrap();
            state.insert(at, new);
        }
        if round % 10 == 3 {
            let from = rng.random_range(0..ROWS);
            let (from, to) = (common::key(from), common::key(from + 20));
            write.delete_range(&table, &from[..]..&to[..]).unwrap();
            state.retain(|key, _| *key < from || *key >= to);
        }
        let txn = write.commit().unwrap().txn_id;
        if (20..25).contains(&round) {
            states.push((txn, state.clone()));
        }
        if round % 100 == 99 {
            db.checkpoint().unwrap();
        }
    }
    db.close().unwrap();
    let all = |db: &Db| -> u64 {
        let table = db.open_table("t").unwrap();
        let mut most = 0;
        for (before, after) in [(0, 1), (1, 4), (0, 4), (2, 2), (3, 4)] {
            let ((then, old), (now, new)) = (&states[before], &states[after]);
            let (found, read) = differing(db, &table, (*then, *now));
            let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let differs = |key: &&Vec<u8>| old.get(*key) != new.get(*key);
            let expected: Vec<_> = keys.into_iter().filter(differs).cloned().collect();
            assert_eq!(found, expected, "{then} to {now}");
            most = most.max(read);
        }
        most
    };
    // What differs has to be read in both states: at most a leaf of each of a few trees for a key.
    let db = options().open(dir.path()).unwrap();
    let with_log = all(&db);
    db.close().unwrap();
    // Where the log is of no use, history tells.
    let segments = common::files(&dir.path().join("log"));
    for file in &segments[..segments.len() - 8] {
        for offset in (0..64 << 10).step_by(4096) {
            common::flip(file, offset + 100);
        }
    }
    let db = options().open(dir.path()).unwrap();
    let without = all(&db);
    assert!(
        with_log < without,
        "{with_log} bytes with the log, {without} without"
    );
    db.close().unwrap();
}
