//! Promise: with history kept, every state from the horizon on can be read, whatever was merged, closed or killed since.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{State, compare, copy, kept, key, load, loaded, odd_key, put, rows, small, value};
use northstardb::{Db, Error, Retention, Table, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const KEYS: u64 = 60;

/// One random transaction, on the table and on its model.
fn change(db: &Db, table: &Table, state: &mut State, rng: &mut SmallRng) -> TxnId {
    let any_key = |rng: &mut SmallRng| odd_key(rng.random_range(0..KEYS));
    common::change(db, table, state, rng, (6, any_key))
}

fn compare_all(db: &Db, states: &[(TxnId, State)], what: &str) {
    for (txn, state) in states {
        let read = db.begin_read_at(*txn).unwrap();
        let table = read.open_table("t").unwrap();
        compare(
            &read,
            &table,
            state,
            KEYS,
            &format!("{what}, as of {txn:?}"),
        );
    }
}

#[test]
fn every_state_can_be_read_after_checkpoints_and_reopening() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut db = kept().open(&path).unwrap();
        let (mut states, mut state) = (Vec::new(), State::new());
        let table = db.table("t").unwrap();
        states.push((db.begin_read().unwrap().txn_id(), State::new()));
        let mut table = table;
        for round in 0..12 {
            for _ in 0..rng.random_range(1..12) {
                let txn = change(&db, &table, &mut state, &mut rng);
                states.push((txn, state.clone()));
            }
            if rng.random_bool(0.7) {
                db.checkpoint().unwrap();
            }
            if rng.random_bool(0.3) {
                // Closed, or left as a crash would leave it.
                let crashed = dir.path().join(format!("crashed {round}"));
                if rng.random() {
                    copy(&path, &crashed);
                    compare_all(&kept().open(&crashed).unwrap(), &states, "after a crash");
                }
                db.close().unwrap();
                // What it keeps it remembers.
                db = small().open(&path).unwrap();
                table = db.open_table("t").unwrap();
            }
        }
        compare_all(&db, &states, "in the end");
        db.checkpoint().unwrap();
        compare_all(&db, &states, "after the last checkpoint");
        let report = db.check().unwrap();
        assert_eq!(report.faults, [""; 0]);
        assert!(report.versions > 20, "{report:?}");
        let stats = db.stats().unwrap();
        assert!((1..20).contains(&stats.history_runs), "{stats:?}");
        assert_eq!(stats.horizon_txn, TxnId::ZERO);
    }
}

#[test]
fn versions_that_came_and_went_between_two_checkpoints_are_kept() {
    let db = kept().memory().unwrap();
    let table = db.table("t").unwrap();
    let mut states = Vec::new();
    for round in 0..3_u64 {
        for step in 0..40 {
            let mut write = db.begin_write().unwrap();
            match step % 4 {
                3 => write.delete(&table, "k").unwrap(),
                // Twice in one transaction: the first is seen by nobody.
                2 => {
                    write.put(&table, "k", "never seen").unwrap();
                    write.put(&table, "k", format!("{round}/{step}")).unwrap();
                }
                _ => write.put(&table, "k", format!("{round}/{step}")).unwrap(),
            }
            let txn = write.commit().unwrap().txn_id;
            states.push((txn, (step % 4 != 3).then(|| format!("{round}/{step}"))));
        }
        db.checkpoint().unwrap();
    }
    for (txn, value) in &states {
        let read = db.begin_read_at(*txn).unwrap();
        let found = read.get(&table, "k").unwrap();
        assert_eq!(
            found.as_deref(),
            value.as_ref().map(String::as_bytes),
            "{txn:?}"
        );
    }
    // Each value was one version, and the last of each but one still is a row or was deleted.
    assert_eq!(db.check().unwrap().versions, 3 * 30);
}

#[test]
fn tables_are_found_by_the_names_they_had_and_dropped_ones_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = kept().open(&path).unwrap();
    let old = db.table("old").unwrap();
    load(&db, &old, 0..50, 100);
    db.checkpoint().unwrap();
    let named = db.begin_read().unwrap().txn_id();
    let renamed = db.rename_table("old", "new").unwrap().txn_id;
    db.checkpoint().unwrap();
    let dropped = db.drop_table("new").unwrap().txn_id;
    let again = db.table("new").unwrap();
    load(&db, &again, 7..9, 10);
    db.close().unwrap();

    let db = kept().open(&path).unwrap();
    for (txn, name) in [(named, "old"), (renamed, "new")] {
        let read = db.begin_read_at(txn).unwrap();
        assert_eq!(read.tables().unwrap(), [name]);
        let table = read.open_table(name).unwrap();
        assert_eq!(table.id(), old.id());
        assert_eq!(rows(&read, &table), loaded(0..50, 100), "as of {txn:?}");
        let newest = db.begin_read().unwrap();
        let found = newest.get(&table, key(1));
        assert!(
            matches!(found, Err(Error::UnknownTable { .. })),
            "{found:?}"
        );
        for (at, is_there) in [(dropped.get() - 1, true), (dropped.get(), false)] {
            let read = db.begin_read_at(TxnId::new(at)).unwrap();
            assert_eq!(read.get(&table, key(1)).is_ok(), is_there, "at {at}");
        }
    }
    let newest = db.begin_read().unwrap();
    let table = newest.open_table("new").unwrap();
    assert_eq!(rows(&newest, &table), loaded(7..9, 10));
}

#[test]
fn policy_lets_go_of_what_is_older_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = kept().history(Retention::Txns(20)).open(&path).unwrap();
    let table = db.table("t").unwrap();
    for round in 0..60 {
        load(&db, &table, 0..40, 100 + round);
        db.checkpoint().unwrap();
    }
    let stats = db.stats().unwrap();
    let newest = db.begin_read().unwrap().txn_id().get();
    let horizon = stats.horizon_txn.get();
    assert!(
        (newest - 40..=newest - 20).contains(&horizon),
        "{horizon} of {newest}"
    );
    for at in horizon..=newest {
        let read = db.begin_read_at(TxnId::new(at)).unwrap();
        // The first transaction made the table.
        assert_eq!(
            rows(&read, &table),
            loaded(0..40, 98 + usize::try_from(at).unwrap()),
            "at {at}"
        );
    }
    match db.begin_read_at(TxnId::new(horizon - 1)) {
        Err(Error::SnapshotGone { horizon: said, .. }) => assert_eq!(said.get(), horizon),
        other => panic!("{other:?}"),
    }
    let noted = db.state_hashes().unwrap();
    assert_eq!(noted[0].0.get(), horizon, "and of no state before");
    assert_eq!(db.check().unwrap().faults, [""; 0]);
    db.close().unwrap();

    // None at all gives the room back.
    let db = kept().history(Retention::None).open(&path).unwrap();
    let before = db.stats().unwrap();
    assert!(before.history_pages > 0);
    assert_eq!(
        before.horizon_txn.get(),
        horizon,
        "still there while nothing was written"
    );
    load(&db, &db.open_table("t").unwrap(), 0..1, 10);
    db.checkpoint().unwrap();
    let after = db.stats().unwrap();
    assert_eq!((after.history_pages, after.history_runs), (0, 0));
    assert_eq!(after.horizon_txn, db.begin_read().unwrap().txn_id());
    assert_eq!(db.check().unwrap().faults, [""; 0]);
}

#[test]
fn a_new_database_keeps_the_last_hour() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    // Nothing was committed that could have said so.
    small().open(&path).unwrap().close().unwrap();
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..100, 10);
    let then = db.begin_read().unwrap().txn_id();
    load(&db, &table, 50..150, 20);
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = small().open(&path).unwrap();
    let read = db.begin_read_at(then).unwrap();
    let table = read.open_table("t").unwrap();
    assert_eq!(rows(&read, &table), loaded(0..100, 10));
    assert!(db.stats().unwrap().history_pages > 0);
}

#[test]
fn history_begins_where_it_is_first_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().history(Retention::None).open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..100, 10);
    load(&db, &table, 0..100, 20);
    db.close().unwrap();
    let db = kept().open(&path).unwrap();
    let began = db.begin_read().unwrap().txn_id();
    assert_eq!(db.stats().unwrap().horizon_txn, began);
    let table = db.open_table("t").unwrap();
    load(&db, &table, 50..150, 30);
    db.checkpoint().unwrap();
    let read = db.begin_read_at(began).unwrap();
    assert_eq!(rows(&read, &table), loaded(0..100, 20));
}

#[test]
fn what_an_open_snapshot_reads_is_kept_beyond_what_policy_keeps() {
    let db = kept().history(Retention::Txns(1)).memory().unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..300, 100);
    let then = db.begin_read().unwrap().txn_id();
    load(&db, &table, 0..300, 200);
    db.checkpoint().unwrap();
    let read = db.begin_read_at(then).unwrap();
    let rounds = || {
        for round in 0..10 {
            load(&db, &table, 0..300, 300 + round);
            db.checkpoint().unwrap();
        }
    };
    rounds();
    assert!(db.stats().unwrap().horizon_txn <= then);
    let again = db.begin_read_at(then).unwrap();
    for read in [&read, &again] {
        assert_eq!(rows(read, &table), loaded(0..300, 100));
    }
    drop((read, again));
    rounds();
    let gone = db.begin_read_at(then);
    assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
}

#[test]
fn the_horizon_moves_where_nothing_is_superseded() {
    let tag = |number: u64| format!("tag {number}");
    for (policy, kept_txns) in [
        (Retention::Txns(50), Some(50)),
        (Retention::Age(Duration::ZERO), Some(0)),
        (Retention::All, None),
    ] {
        let db = kept().history(policy).memory().unwrap();
        let table = db.table("t").unwrap();
        let begin = db.begin_read().unwrap().txn_id().get();
        for number in 1..=400_u64 {
            let mut txn = db.begin_write().unwrap();
            txn.put(&table, number.to_be_bytes(), "row").unwrap();
            txn.set_tag(tag(number).as_bytes()).unwrap();
            txn.commit().unwrap();
            if number % 100 == 0 {
                // So that these were committed in another millisecond than what follows.
                std::thread::sleep(Duration::from_millis(3));
                db.checkpoint().unwrap();
            }
        }
        db.checkpoint().unwrap();
        let last = begin + 400;
        let stats = db.stats().unwrap();
        assert_eq!(stats.history_runs, 0);
        let horizon = stats.horizon_txn.get();
        match kept_txns {
            Some(many) => assert!(
                (last - many - 100..=last - many).contains(&horizon),
                "{policy:?}: {horizon} of {last}"
            ),
            None => assert_eq!(horizon, 0),
        }
        let found = |number| db.begin_read_at_tag(tag(number)).unwrap();
        assert_eq!(found(7).is_none(), kept_txns.is_some(), "{policy:?}");
        if kept_txns == Some(50) {
            let read = found(380).unwrap();
            assert_eq!(rows(&read, &table).len(), 380);
        }
        assert_eq!(db.check().unwrap().faults, [""; 0]);
    }
}

#[test]
fn what_is_only_inserted_costs_nothing() {
    let db = kept().memory().unwrap();
    let table = db.table("t").unwrap();
    for round in 0..20 {
        load(&db, &table, round * 500..round * 500 + 500, 100);
    }
    db.checkpoint().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.history_pages, stats.history_runs), (0, 0));
    assert_eq!(stats.horizon_txn, TxnId::ZERO);
}

#[test]
fn a_great_many_versions_of_one_key_are_each_found() {
    let db = kept().memory().unwrap();
    let table = db.table("t").unwrap();
    let mut last = TxnId::ZERO;
    for number in 0..3000_u64 {
        let mut batch = northstardb::WriteBatch::new();
        batch
            .put(&table, "hot", number.to_be_bytes())
            .put(&table, "i", number.to_be_bytes());
        last = db.commit(batch).unwrap().txn_id;
        if number % 700 == 0 {
            db.checkpoint().unwrap();
        }
    }
    db.checkpoint().unwrap();
    let first = last.get() - 2999;
    for number in (0..3000_u64).step_by(7) {
        let read = db.begin_read_at(TxnId::new(first + number)).unwrap();
        let expected: Vec<_> = ["hot", "i"]
            .map(|key| (key.as_bytes().to_vec(), number.to_be_bytes().to_vec()))
            .into();
        assert_eq!(rows(&read, &table), expected);
        let mut backward: Vec<_> = read
            .iter(&table)
            .unwrap()
            .rev()
            .map(Result::unwrap)
            .collect();
        backward.reverse();
        assert_eq!(backward, expected);
        assert_eq!(
            &*read.get(&table, "hot").unwrap().unwrap(),
            number.to_be_bytes()
        );
    }
}

#[test]
fn damage_in_history_is_an_error_and_hurts_no_other_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = kept().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..200, 300);
    let then = db.begin_read().unwrap().txn_id();
    load(&db, &table, 0..200, 310);
    db.close().unwrap();
    let file = std::fs::read(path.join("data")).unwrap();
    let old = value(7, 300);
    let at = find(&file, &old);
    let broken = dir.path().join("broken");
    copy(&path, &broken);
    common::flip(&Path::new(&broken).join("data"), at as u64);
    let db = kept()
        .idle_after(Duration::from_secs(900))
        .open(&broken)
        .unwrap();
    let table = db.open_table("t").unwrap();
    let read = db.begin_read_at(then).unwrap();
    let found = read.get(&table, key(7));
    assert!(matches!(found, Err(Error::Corrupt(_))), "{found:?}");
    let newest = db.begin_read().unwrap();
    assert_eq!(rows(&newest, &table), loaded(0..200, 310));
    assert!(!db.check().unwrap().faults.is_empty());
    drop(found);
    drop((newest, read));
    // Nor does it stop who writes, although runs can be merged no more.
    for round in 0..20 {
        load(&db, &table, 0..200, 320 + round);
        db.checkpoint().unwrap();
    }
    assert_eq!(common::now(&db, &table), loaded(0..200, 339));
    assert!(db.stats().unwrap().history_runs > 8);
    assert!(db.begin_read_at(then).unwrap().get(&table, key(7)).is_err());
    db.close().unwrap();
}

#[test]
fn a_damaged_large_value_stops_nobody_who_overwrites_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = kept().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..20, 9000);
    db.close().unwrap();
    let file = std::fs::read(path.join("data")).unwrap();
    // A part of it that lies in one page.
    let at = find(&file, &value(7, 9000)[1000..1100]);
    common::flip(&path.join("data"), at as u64);
    let db = kept().open(&path).unwrap();
    let table = db.open_table("t").unwrap();
    let found = db.begin_read().unwrap();
    assert!(matches!(found.get(&table, key(7)), Err(Error::Corrupt(_))));
    drop(found);
    for round in 0..3 {
        load(&db, &table, 0..20, 9100 + round);
        db.checkpoint().unwrap();
    }
    assert_eq!(common::now(&db, &table), loaded(0..20, 9102));
    // What was lost is known for as long as history goes on.
    let faults = db.check().unwrap().faults;
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("digest") || fault.contains("checksum")),
        "{faults:?}"
    );
    db.close().unwrap();
}

fn find(file: &[u8], bytes: &[u8]) -> usize {
    file.windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap()
}

#[test]
fn moments_and_tags_lead_to_states() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = kept().history(Retention::Txns(16)).open(&path).unwrap();
    let start = std::time::UNIX_EPOCH;
    let table = db.table("t").unwrap();
    let mut moments: Vec<(TxnId, u64, std::time::SystemTime)> = Vec::new();
    for number in 0..40_u64 {
        let mut write = db.begin_write().unwrap();
        write.put(&table, "k", number.to_be_bytes()).unwrap();
        write
            .set_tag(format!("tag {}", number % 30).as_bytes())
            .unwrap();
        let txn = write.commit().unwrap().txn_id;
        let version = db.history(&table, "k", txn..=txn).unwrap().remove(0);
        moments.push((txn, number, version.time.unwrap()));
        if number % 4 == 3 {
            db.checkpoint().unwrap();
        }
    }
    let look = |db: &Db| {
        let table = db.open_table("t").unwrap();
        let horizon = db.stats().unwrap().horizon_txn;
        let millis = |moment: &std::time::SystemTime| {
            let since = moment.duration_since(std::time::UNIX_EPOCH).unwrap();
            since.as_millis()
        };
        for (txn, number, moment) in &moments {
            let together = |other: &&(TxnId, u64, _)| millis(&other.2) == millis(moment);
            let expected = moments.iter().rev().find(together).unwrap().0;
            let read = db.begin_read_at_time(*moment);
            if expected < horizon {
                let gone = matches!(read, Err(Error::SnapshotGone { .. }));
                assert!(gone, "{txn:?}: {read:?}");
            } else {
                assert_eq!(read.unwrap().txn_id(), expected);
            }
            if *txn < horizon {
                continue;
            }
            let tag = format!("tag {}", number % 30);
            let read = db.begin_read_at_tag(&tag).unwrap().unwrap();
            assert_eq!(read.txn_id(), *txn);
            let found = read.get(&table, "k").unwrap().unwrap();
            assert_eq!(&*found, number.to_be_bytes());
            let versions = db.history(&table, "k", *txn..=*txn).unwrap();
            assert_eq!(versions.len(), 1, "{versions:?}");
            assert_eq!(versions[0].tag.as_deref(), Some(tag.as_bytes()));
            assert_eq!(millis(&versions[0].time.unwrap()), millis(moment));
        }
        assert!(horizon > moments[5].0, "{horizon:?}");
        // Of the tags that only older transactions carried, nothing is left.
        assert!(db.begin_read_at_tag("tag 10").unwrap().is_none());
        assert!(db.begin_read_at_tag("never").unwrap().is_none());
        let far = std::time::SystemTime::now() + Duration::from_secs(3600);
        assert_eq!(db.begin_read_at_time(far).unwrap().txn_id(), moments[39].0);
        assert!(matches!(
            db.begin_read_at_time(start),
            Err(Error::SnapshotGone { .. })
        ));
        assert_eq!(db.check().unwrap().faults, [""; 0]);
    };
    look(&db);
    drop(db);
    // Replayed, they are what they were.
    let db = small().open(&path).unwrap();
    look(&db);
    db.close().unwrap();
    let db = small().open(&path).unwrap();
    look(&db);
    db.close().unwrap();
    // Without history there is nothing to tell.
    let db = kept().history(Retention::None).open(&path).unwrap();
    load(&db, &db.open_table("t").unwrap(), 0..1, 1);
    db.checkpoint().unwrap();
    assert!(db.begin_read_at_tag("tag 9").unwrap().is_none());
    assert!(matches!(
        db.begin_read_at_time(start),
        Err(Error::SnapshotGone { .. })
    ));
    assert_eq!(db.check().unwrap().faults, [""; 0]);
}

#[test]
fn a_tree_emptied_and_begun_anew_by_slices_of_one_checkpoint_knows_what_it_held() {
    let db = kept()
        .memory_budget(256 << 20)
        .delta_bytes(60 << 20)
        .memory()
        .unwrap();
    let (large, table) = (db.table("large").unwrap(), db.table("t").unwrap());
    put(&db, &table, "A", b"old");
    db.checkpoint().unwrap();
    let then = put(&db, &table, "B", b"new");
    // More than a slice, and merged before the rest of the other table.
    put(&db, &large, "big", &vec![7; 9 << 20]);
    let mut write = db.begin_write().unwrap();
    write.delete(&table, "A").unwrap();
    write.commit().unwrap();
    db.checkpoint().unwrap();
    let read = db.begin_read_at(then).unwrap();
    assert_eq!(read.get(&table, "A").unwrap().as_deref(), Some(&b"old"[..]));
    let many = read.multi_get(&table, &["A", "B"]).unwrap();
    assert!(many.iter().all(Option::is_some), "{many:?}");
    assert_eq!(rows(&read, &table).len(), 2);
}

#[test]
fn bytes_that_were_asked_for_are_kept() {
    let asked = 256 << 10;
    let db = kept().history(Retention::Bytes(asked)).memory().unwrap();
    let table = db.table("t").unwrap();
    for round in 0..20 {
        load(&db, &table, 0..300, 300 + round);
        db.checkpoint().unwrap();
        let stats = db.stats().unwrap();
        let bytes = stats.history_pages * u64::from(stats.page_bytes);
        let horizon = stats.horizon_txn.get();
        assert!(horizon == 0 || bytes >= asked, "{bytes}");
        // One checkpoint leaves a tenth of a megabyte.
        assert!(bytes < asked + (200 << 10), "{bytes}");
    }
    assert!(db.stats().unwrap().horizon_txn > TxnId::ZERO);
}

#[test]
fn what_was_asked_for_is_remembered_from_the_first_commit_on() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
    let db = small().open(&paths[0]).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..10, 10);
    copy(&paths[0], &paths[1]);
    drop(db);
    // Opened after a crash, and crashed again before any checkpoint.
    let db = kept().open(&paths[1]).unwrap();
    let far = std::time::SystemTime::now() + Duration::from_secs(3600);
    let newest = db.begin_read().unwrap().txn_id();
    assert_eq!(db.begin_read_at_time(far).unwrap().txn_id(), newest);
    let table = db.open_table("t").unwrap();
    load(&db, &table, 0..10, 20);
    let then = db.begin_read().unwrap().txn_id();
    load(&db, &table, 0..10, 30);
    copy(&paths[1], &paths[2]);
    drop(db);
    let db = small().open(&paths[2]).unwrap();
    db.checkpoint().unwrap();
    let read = db.begin_read_at(then).unwrap();
    let table = read.open_table("t").unwrap();
    assert_eq!(rows(&read, &table), loaded(0..10, 20));
}

#[test]
fn of_runs_that_do_not_have_a_key_only_the_filter_is_read() {
    const RUNS: u32 = 7;
    const KEYS: u32 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let options = || kept().page_bytes(16_384).memory_budget(64 << 20);
    let db = options().open(dir.path()).unwrap();
    let put = |db: &Db, run: u32, value: u8| {
        let table = db.open_table("t").unwrap();
        let mut txn = db.begin_write().unwrap();
        for number in (run..RUNS * KEYS).step_by(RUNS as usize) {
            txn.put(&table, format!("{number:08}"), [value; 100])
                .unwrap();
        }
        txn.commit().unwrap();
    };
    db.table("t").unwrap();
    (0..RUNS).for_each(|run| put(&db, run, 1));
    db.checkpoint().unwrap();
    let before = db.begin_read().unwrap().txn_id();
    // Each run has every seventh key.
    for run in 0..RUNS {
        put(&db, run, 2);
        db.checkpoint().unwrap();
    }
    let stats = db.stats().unwrap();
    assert_eq!(stats.history_runs, u64::from(RUNS));
    assert_eq!(db.check().unwrap().faults, [""; 0]);
    let a_run = stats.history_pages / stats.history_runs;
    db.close().unwrap();

    let db = options().open(dir.path()).unwrap();
    let table = db.table("t").unwrap();
    let then = db.begin_read_at(before).unwrap();
    let tree = db.begin_read().unwrap();
    // All that the tree has is in memory before it is counted.
    tree.scan::<&[u8]>(&table, .., |_, _| std::ops::ControlFlow::Continue(()))
        .unwrap();
    let read = db.stats().unwrap().page_reads;
    // One absent key in a hundred passes a filter.
    for number in (RUNS - 1..RUNS * KEYS).step_by(30 * RUNS as usize) {
        let value = then.get(&table, format!("{number:08}")).unwrap();
        assert_eq!(value.as_deref(), Some(&[1; 100][..]));
    }
    let reads = db.stats().unwrap().page_reads - read;
    assert!(
        reads < 3 * a_run,
        "{reads} pages were read, a run has {a_run}"
    );
    for number in 0..RUNS * KEYS {
        assert!(
            then.contains(&table, format!("{number:08}")).unwrap(),
            "{number}"
        );
        assert!(!then.contains(&table, format!("{number:08}0")).unwrap());
    }
    // The eighth makes one run of all of them, which has a filter as well.
    put(&db, 0, 3);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert_eq!(db.stats().unwrap().history_runs, 1);
    assert_eq!(db.check().unwrap().faults, [""; 0]);
    assert_eq!(rows(&then, &table).len(), (RUNS * KEYS) as usize);
}
