//! Promise: a snapshot that is held reads the same for as long as it is held, and keeps no more pages than it may.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{State, kept, key, rows, rows_backward, small, value};
use northstardb::{
    Backup, Db, Error, Holder, LogFilter, Options, ReadTxn, Retention, Table, TableOptions,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const KEYS: u64 = 300;

/// Snapshots are moved whenever they keep a page.
fn restless() -> Options {
    kept().snapshot_held_bytes(0)
}

fn change(db: &Db, table: &Table, state: &mut State, rng: &mut SmallRng) {
    let any_key = |rng: &mut SmallRng| key(rng.random_range(0..KEYS));
    common::change(db, table, state, rng, (20, any_key));
}

/// One way of reading after the other.
fn compare(read: &ReadTxn, table: &Table, state: &State, rng: &mut SmallRng) {
    let expected: Vec<_> = state.clone().into_iter().collect();
    match rng.random_range(0..6) {
        0 => assert_eq!(rows(read, table), expected),
        1 => assert_eq!(rows_backward(read, table), expected),
        2 => {
            let mut seen = Vec::new();
            let from = key(rng.random_range(0..KEYS));
            read.scan(table, &from[..].., |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
            let expected: Vec<_> = state
                .range(from..)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(seen, expected);
        }
        3 => {
            let all: Vec<_> = (0..KEYS).map(key).collect();
            let found = read.multi_get(table, &all).unwrap();
            for (key, found) in all.iter().zip(found) {
                assert_eq!(found.as_deref(), state.get(key).map(Vec::as_slice));
            }
        }
        _ => {
            for _ in 0..30 {
                let key = key(rng.random_range(0..KEYS));
                let found = read.get(table, &key).unwrap();
                assert_eq!(found.as_deref(), state.get(&key).map(Vec::as_slice));
            }
        }
    }
}

#[test]
fn snapshots_read_the_same_however_often_they_are_moved() {
    for seed in 0..6 {
        let db = restless().memory().unwrap();
        let table = db.table("t").unwrap();
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut state, mut held) = (State::new(), Vec::new());
        for round in 0..300 {
            change(&db, &table, &mut state, &mut rng);
            if rng.random_ratio(1, 4) {
                db.checkpoint().unwrap();
            }
            if rng.random_ratio(1, 8) {
                held.push((db.begin_read().unwrap(), state.clone()));
            }
            if rng.random_ratio(1, 12) && !held.is_empty() {
                held.swap_remove(rng.random_range(0..held.len()));
            }
            for (read, state) in &held {
                if rng.random_ratio(1, 6) {
                    compare(read, &table, state, &mut rng);
                }
            }
            if round == 150 {
                assert!(db.stats().unwrap().snapshots_moved > 20);
            }
        }
        for (read, state) in &held {
            assert_eq!(
                rows(read, &table),
                state.clone().into_iter().collect::<Vec<_>>()
            );
        }
        assert_eq!(db.check().unwrap().faults, [""; 0], "seed {seed}");
        drop(held);
        db.close().unwrap();
    }
}

#[test]
fn walks_go_on_where_they_were_when_their_snapshot_is_moved() {
    for seed in 0..6 {
        let db = restless().memory().unwrap();
        let table = db.table("t").unwrap();
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut state = State::new();
        for _ in 0..40 {
            change(&db, &table, &mut state, &mut rng);
        }
        db.checkpoint().unwrap();
        let (read, then) = (db.begin_read().unwrap(), state.clone());
        let mut expected: Vec<_> = then.clone().into_iter().collect();
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut range = read.iter(&table).unwrap();
        let mut cursor = read.cursor(&table).unwrap();
        let (mut at, mut moves) = (None::<Vec<u8>>, 0);
        let value_held = read.get(&table, &expected[0].0).unwrap().unwrap();
        loop {
            if rng.random_ratio(1, 3) {
                change(&db, &table, &mut state, &mut rng);
                db.checkpoint().unwrap();
            }
            // The cursor goes to and fro.
            let (found, wanted) = match rng.random_range(0..3) {
                0 => {
                    let to = key(rng.random_range(0..KEYS));
                    let wanted = then.range(to.clone()..).next();
                    (cursor.seek(&to).unwrap(), wanted)
                }
                1 => {
                    let wanted = match &at {
                        Some(at) => then
                            .range::<Vec<u8>, _>((
                                std::ops::Bound::Excluded(at),
                                std::ops::Bound::Unbounded,
                            ))
                            .next(),
                        None => continue,
                    };
                    (cursor.next().unwrap(), wanted)
                }
                _ => {
                    let wanted = match &at {
                        Some(at) => then.range(..at.clone()).next_back(),
                        None => continue,
                    };
                    (cursor.prev().unwrap(), wanted)
                }
            };
            let found = found.map(|(key, value)| (key.to_vec(), value.to_vec()));
            assert_eq!(
                found,
                wanted.map(|(k, v)| (k.clone(), v.clone())),
                "seed {seed}"
            );
            at = found.map(|(key, _)| key);
            moves += 1;
            let row = match rng.random_bool(0.5) {
                true => range.next().map(|row| front.push(row.unwrap())),
                false => range.next_back().map(|row| back.push(row.unwrap())),
            };
            if row.is_none() && moves > 200 {
                break;
            }
        }
        assert_eq!(&*value_held, &*expected[0].1);
        back.reverse();
        front.append(&mut back);
        assert_eq!(front, std::mem::take(&mut expected), "seed {seed}");
        assert!(db.stats().unwrap().snapshots_moved > 5);
    }
}

#[test]
fn scans_that_are_under_way_go_on_when_their_snapshot_is_moved() {
    let db = restless().memory().unwrap();
    let table = db.table("t").unwrap();
    let mut rng = SmallRng::seed_from_u64(9);
    let mut state = State::new();
    for _ in 0..60 {
        change(&db, &table, &mut state, &mut rng);
    }
    db.checkpoint().unwrap();
    for _ in 0..20 {
        let (read, then) = (db.begin_read().unwrap(), state.clone());
        let mut seen = Vec::new();
        // What is visited changes what is read: pages are reused under the scan.
        read.scan::<&[u8]>(&table, .., |key, value| {
            if seen.len() % 8 == 7 {
                change(&db, &table, &mut state, &mut rng);
                db.checkpoint().unwrap();
            }
            seen.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, then.into_iter().collect::<Vec<_>>());
    }
    let moved = db.stats().unwrap().snapshots_moved;
    assert!(moved > 20, "{moved}");
}

#[test]
fn readers_race_with_the_moving_of_their_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let db = restless().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let mut rng = SmallRng::seed_from_u64(3);
    let mut state = State::new();
    for _ in 0..60 {
        change(&db, &table, &mut state, &mut rng);
    }
    db.checkpoint().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (db, table, stop) = (&db, &table, &stop);
            let (read, then) = (db.begin_read().unwrap(), state.clone());
            scope.spawn(move || {
                let mut rng = SmallRng::seed_from_u64(100 + reader);
                while !stop.load(Ordering::Relaxed) {
                    compare(&read, table, &then, &mut rng);
                }
            });
        }
        for _ in 0..400 {
            change(&db, &table, &mut state, &mut rng);
            db.checkpoint().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(db.stats().unwrap().snapshots_moved >= 400);
    assert_eq!(db.check().unwrap().faults, [""; 0]);
    db.close().unwrap();
}

/// Overwrites everything many times over; gives the length of the data file.
fn overwritten(options: Options, holds: bool) -> (u64, Db, Option<ReadTxn>) {
    let db = options.delta_bytes(64 << 10).memory().unwrap();
    let table = db.table("t").unwrap();
    let round = |number: u64| {
        let mut batch = northstardb::WriteBatch::new();
        for at in 0..400 {
            batch.put(&table, key(at), value(number * 1000 + at, 300));
        }
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
    };
    round(0);
    let held = holds.then(|| db.begin_read().unwrap());
    (1..60).for_each(round);
    (db.stats().unwrap().data_file_bytes, db, held)
}

#[test]
fn a_snapshot_that_is_held_makes_the_file_grow_by_little() {
    let options = || {
        small()
            .history(Retention::Txns(1000))
            .snapshot_held_bytes(256 << 10)
    };
    let (without, ..) = overwritten(options(), false);
    let (with, db, held) = overwritten(options(), true);
    assert!(
        with < without * 13 / 10,
        "{with} bytes with a snapshot, {without} without"
    );
    let table = db.open_table("t").unwrap();
    let read = held.unwrap();
    for at in 0..400 {
        let found = read.get(&table, key(at)).unwrap();
        assert_eq!(found.as_deref(), Some(&*value(at, 300)));
    }
}

#[test]
fn a_snapshot_that_cannot_be_moved_is_kept_or_ended_as_it_was_asked_for() {
    let plain = || small().history(Retention::None);
    let (_, db, held) = overwritten(plain(), true);
    let table = db.open_table("t").unwrap();
    let read = held.unwrap();
    assert_eq!(
        read.get(&table, key(7)).unwrap().as_deref(),
        Some(&*value(7, 300))
    );
    let stats = db.stats().unwrap();
    assert_eq!((stats.snapshots_moved, stats.snapshots_ended), (0, 0));

    let limited = plain()
        .snapshot_held_bytes(0)
        .snapshot_limit_bytes(Some(1 << 20));
    let (_, db, held) = overwritten(limited, true);
    let table = db.open_table("t").unwrap();
    let read = held.unwrap();
    assert_eq!(db.stats().unwrap().snapshots_ended, 1);
    let gone = |result: Result<(), Error>| matches!(result, Err(Error::SnapshotGone { .. }));
    assert!(gone(read.get(&table, key(7)).map(drop)));
    assert!(gone(read.multi_get(&table, &[key(7)]).map(drop)));
    assert!(gone(
        read.iter(&table).unwrap().try_for_each(|row| row.map(drop))
    ));
    assert!(gone(
        read.scan::<&[u8]>(&table, .., |_, _| ControlFlow::Continue(()))
    ));
    // Whoever begins anew reads on, and is left alone for as long as it holds little.
    let young = db.begin_read().unwrap();
    let before = young.get(&table, key(7)).unwrap().unwrap().to_vec();
    for number in 0..4 {
        let mut write = db.begin_write().unwrap();
        write.put(&table, key(7), value(number, 300)).unwrap();
        write.commit().unwrap();
        db.checkpoint().unwrap();
    }
    assert_eq!(
        young.get(&table, key(7)).unwrap().as_deref(),
        Some(&*before)
    );
    assert_eq!(db.stats().unwrap().snapshots_ended, 1);
}

#[test]
fn who_asked_for_it_is_told_once_of_a_snapshot_that_holds_much() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let watched = |from| {
        let tells = Arc::clone(&tells);
        restless().on_snapshot_holding(from, move |holder| {
            let Holder::Snapshot {
                place, held_bytes, ..
            } = holder
            else {
                panic!("{holder:?}");
            };
            tells
                .lock()
                .unwrap()
                .push((place.unwrap().file(), *held_bytes));
            panic!("in the callback of a test");
        })
    };
    let (_, db, held) = overwritten(watched(100_000), true);
    let told = || std::mem::take(&mut *told.lock().unwrap());
    let one = told();
    assert_eq!(one.len(), 1, "{one:?}");
    assert!(
        one[0].0.ends_with("held.rs") && one[0].1 > 100_000,
        "{one:?}"
    );
    // What it did there does not hurt the database, nor the snapshot, which was moved.
    let table = db.open_table("t").unwrap();
    assert_eq!(
        held.unwrap().get(&table, key(7)).unwrap().as_deref(),
        Some(&*value(7, 300))
    );
    let (_, _, _held) = overwritten(watched(1 << 40), true);
    assert_eq!(told(), []);
}

#[test]
fn whoever_holds_space_is_named() {
    let (_, db, held) = overwritten(restless(), true);
    let line = line!() + 1;
    let another = db.begin_read().unwrap();
    let log = db.log().unwrap();
    let subscriber = log
        .subscribe("behind", log.next(), LogFilter::all())
        .unwrap();
    let holders = db.holders().unwrap();
    assert_eq!(holders.len(), 3, "{holders:?}");
    let snapshot = |txn| {
        let told = |holder: &Holder| match holder {
            Holder::Snapshot {
                txn: at,
                place,
                open_for,
                moves,
                ..
            } if *at == txn => Some((place.unwrap(), *open_for, *moves)),
            Holder::Snapshot { .. } | Holder::Subscriber { .. } | _ => None,
        };
        holders.iter().find_map(told).unwrap()
    };
    let old = held.unwrap();
    let (place, open_for, moves) = snapshot(old.txn_id());
    assert!(
        place.file().ends_with("held.rs") && moves > 10 && !open_for.is_zero(),
        "{place} {moves}"
    );
    let (place, _, moves) = snapshot(another.txn_id());
    assert_eq!((place.line(), moves), (line, 0));
    assert!(
        matches!(&holders[2], Holder::Subscriber { name, .. } if name == "behind"),
        "{holders:?}"
    );
    // Whichever way it was opened.
    let far = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    let by_time = db.begin_read_at_time(far).unwrap();
    for holder in db.holders().unwrap() {
        if let Holder::Snapshot { place, .. } = holder {
            assert!(place.unwrap().file().ends_with("held.rs"), "{place:?}");
        }
    }
    drop((old, another, by_time, subscriber));
    assert!(log.unsubscribe("behind").unwrap());
    assert_eq!(db.holders().unwrap(), []);
}

#[test]
fn a_snapshot_of_a_database_with_a_table_without_history_stays_whole_or_is_ended() {
    let without = TableOptions::new().history(false);
    let dir = tempfile::tempdir().unwrap();
    let open = |options: Options| options.open(dir.path()).unwrap();
    let db = open(restless());
    let scratch = db.table_with("scratch", without).unwrap();
    let kept = db.table("kept").unwrap();
    let put = |db: &Db, table: &Table, number: u64| {
        let mut write = db.begin_write().unwrap();
        write
            .put(table, key(number % KEYS), value(number, 300))
            .unwrap();
        write.commit().unwrap();
    };
    let overwrite = |db: &Db, table: &Table| {
        for round in 1..4 {
            (0..KEYS).for_each(|number| put(db, table, round * KEYS + number));
            db.checkpoint().unwrap();
        }
    };
    for number in 0..KEYS {
        put(&db, &scratch, number);
        put(&db, &kept, number);
    }
    db.close().unwrap();

    // Nobody has a handle of that table, and others are overwritten.
    let db = open(restless());
    let held = db.begin_read().unwrap();
    overwrite(&db, &db.open_table("kept").unwrap());
    assert_eq!(db.stats().unwrap().snapshots_moved, 0);
    let scratch = held.open_table("scratch").unwrap();
    assert_eq!(
        held.get(&scratch, key(7)).unwrap().as_deref(),
        Some(&*value(7, 300))
    );
    held.state_hash().unwrap();
    drop((held, scratch));
    db.close().unwrap();

    // Who is ended is told that, of every table and again and again.
    let db = open(restless().snapshot_limit_bytes(Some(100_000)));
    let held = db.begin_read().unwrap();
    let scratch = db.open_table("scratch").unwrap();
    overwrite(&db, &scratch);
    overwrite(&db, &db.open_table("kept").unwrap());
    assert_eq!(db.stats().unwrap().snapshots_ended, 1);
    for _ in 0..3 {
        let gone = held.get(&scratch, key(7));
        assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
        let gone = held.scan::<&[u8]>(&scratch, .., |_, _| ControlFlow::Continue(()));
        assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
    }
    drop(held);

    // Once it is dropped and merged, snapshots are moved again.
    db.drop_table("scratch").unwrap();
    drop(scratch);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    put(&db, &db.open_table("kept").unwrap(), 1);
    let held = db.begin_read().unwrap();
    let kept = db.open_table("kept").unwrap();
    let before = rows(&held, &kept);
    overwrite(&db, &kept);
    assert!(db.stats().unwrap().snapshots_moved > 0);
    assert_eq!(rows(&held, &kept), before);
}

/// A backup's destination that has something done in the middle.
struct Busy<F: FnMut()> {
    bytes: Vec<u8>,
    at: usize,
    then: Option<F>,
}

impl<F: FnMut()> std::io::Write for Busy<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.at
            && let Some(mut then) = self.then.take()
        {
            then();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_backup_that_is_being_made_is_named_and_keeps_what_it_reads() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let db = small()
        .on_snapshot_holding(100_000, move |holder| {
            tells.lock().unwrap().push(holder.clone());
        })
        .log_segment_bytes(64 << 10)
        .log_retention(Retention::None)
        .delta_bytes(4 << 20)
        .idle_after(std::time::Duration::from_secs(3600))
        .memory()
        .unwrap();
    let table = db.table("t").unwrap();
    let work = |rounds: std::ops::Range<u64>| {
        for round in rounds {
            let mut batch = northstardb::WriteBatch::new();
            for at in 0..400 {
                batch.put(&table, key(at), value(round * 1000 + at, 300));
            }
            db.commit(batch).unwrap();
        }
    };
    work(0..1);
    let since = db.begin_read().unwrap().txn_id();
    work(1..8);
    let last = db.begin_read().unwrap().txn_id();
    // All that was merged would be let go.
    let merge = |rounds| {
        work(rounds);
        (0..3).for_each(|_| db.checkpoint().unwrap());
    };
    for is_full_wanted in [false, true] {
        let named = std::cell::RefCell::new(Vec::new());
        let line = line!() + 11;
        let mut to = Busy {
            bytes: Vec::new(),
            at: 450_000 * usize::from(!is_full_wanted),
            then: Some(|| {
                merge(8..9);
                merge(9..10);
                named.replace(db.holders().unwrap());
            }),
        };
        let made = match is_full_wanted {
            false => db.backup_since(since, &mut to),
            true => db.backup(&mut to),
        };
        let made = made.unwrap();
        assert_eq!(Backup::verify(&*to.bytes).unwrap(), made);
        assert!(is_full_wanted || (made.from, made.to) == (since, last));
        let named = named.into_inner();
        let [
            Holder::Backup {
                is_full,
                to: leads_to,
                place,
                open_for,
                written_bytes,
                held_bytes,
            },
        ] = &named[..]
        else {
            panic!("{named:?}");
        };
        assert_eq!((*is_full, *leads_to), (is_full_wanted, made.to));
        assert!(place.file().ends_with("held.rs"), "{place}");
        assert_eq!(place.line(), line + u32::from(is_full_wanted));
        assert!(!open_for.is_zero() && *held_bytes > 100_000, "{named:?}");
        assert!(is_full_wanted || *written_bytes > 200_000, "{named:?}");
        // Who asked is told of its snapshot as a backup, once.
        let told = std::mem::take(&mut *told.lock().unwrap());
        assert_eq!(told.len(), usize::from(is_full_wanted), "{told:?}");
        let is_it = |told: &Holder| matches!(told, Holder::Backup { place: at, .. } if at == place);
        assert!(told.iter().all(is_it), "{told:?}");
        assert_eq!(db.holders().unwrap(), []);
    }
    // Nobody keeps it any more.
    merge(10..11);
    let gone = db.backup_since(since, Vec::new());
    assert!(matches!(gone, Err(Error::NotInLog { .. })), "{gone:?}");
}
