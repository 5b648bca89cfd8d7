//! Promise: state is a function of the log. What was committed can be backed up, restored and replayed, and gives the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{key, put_row, small, value};
use northstardb::{
    Backup, Db, Durability, Error, LogFilter, Options, Retention, TxnId, WriteBatch,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn logged() -> Options {
    small().log_retention(Retention::All).page_bytes(4096)
}

fn with_history() -> Options {
    logged().history(Retention::All)
}

/// A transaction of any kind.
fn change(db: &Db, rng: &mut SmallRng) -> TxnId {
    let names = db.tables().unwrap();
    let mut write = db.begin_write().unwrap();
    write.set_tag(&rng.random::<u32>().to_le_bytes()).unwrap();
    for _ in 0..rng.random_range(1..8) {
        let name = format!("t{}", rng.random_range(0..4));
        let table = write.table(&name).unwrap();
        let at = key(rng.random_range(0..80));
        match rng.random_range(0..40) {
            0..28 => {
                // From nothing to what takes pages of its own.
                let len = [0, 3, 90, 700, 9000][rng.random_range(0..5)];
                let value = value(rng.random(), len);
                write.put(&table, &at, &value).unwrap();
            }
            28..35 => write.delete(&table, &at).unwrap(),
            35..38 => {
                let to = key(rng.random_range(0..80));
                let (from, to) = (at.clone().min(to.clone()), at.max(to));
                write.delete_range(&table, &from[..]..&to[..]).unwrap();
            }
            38 => write.drop_table(&name).unwrap(),
            _ => {
                if !names.contains(&"moved".to_owned()) && write.open_table("moved").is_err() {
                    write.rename_table(&name, "moved").unwrap();
                }
            }
        }
    }
    write.commit().unwrap().txn_id
}

/// Brings `copy` up to where the log of `db` ends.
fn follow(db: &Db, copy: &Db) -> TxnId {
    let mut apply = copy.begin_apply().unwrap();
    let log = db.log().unwrap();
    let mut tail = log
        .tail(apply.next(), LogFilter::every_transaction())
        .unwrap();
    while let Some(found) = tail.try_next().unwrap() {
        apply.push(found).unwrap();
    }
    apply.finish().unwrap()
}

fn hash(db: &Db) -> String {
    db.begin_read().unwrap().state_hash().unwrap().to_string()
}

#[test]
fn a_copy_made_of_the_stream_has_the_same_digest_at_every_transaction() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let (path, copied) = (dir.path().join("db"), dir.path().join("copy"));
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut db = with_history().open(&path).unwrap();
        // Another page size, other checkpoints: the same rows.
        let other = || small().page_bytes(16384).history(Retention::All);
        let mut copy = other().open(&copied).unwrap();
        for round in 0..250 {
            change(&db, &mut rng);
            match rng.random_range(0..30) {
                0 => db.checkpoint().unwrap(),
                1 => copy.checkpoint().unwrap(),
                2 => {
                    db.close().unwrap();
                    db = with_history().open(&path).unwrap();
                }
                3 => {
                    drop(copy);
                    copy = other().open(&copied).unwrap();
                }
                4 => {
                    let last = follow(&db, &copy);
                    assert_eq!(hash(&copy), hash(&db), "seed {seed}, round {round}, {last}");
                }
                _ => {}
            }
        }
        let last = follow(&db, &copy);
        for txn in 0..=last.get() {
            let state = |db: &Db| {
                let read = db.begin_read_at(TxnId::new(txn)).unwrap();
                read.state_hash().unwrap()
            };
            assert_eq!(state(&copy), state(&db), "seed {seed}, {txn}");
        }
        // Tags and times came along.
        let middle = TxnId::new(last.get() / 2);
        let of = |db: &Db| {
            let log = db.log().unwrap();
            let mut tail = log.tail(middle, LogFilter::all()).ok()?;
            let found = tail.try_next().unwrap().unwrap();
            Some((found.time(), found.tag().to_vec()))
        };
        assert!(of(&db).is_some());
        assert!(of(&copy).is_none_or(|found| Some(found) == of(&db)));
        let checked = copy.check().unwrap();
        assert_eq!(checked.faults, [""; 0], "seed {seed}");
        copy.close().unwrap();
        db.close().unwrap();
    }
}

#[test]
fn the_digests_that_checkpoints_note_are_those_of_the_states_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut rng = SmallRng::seed_from_u64(5);
    // History begins where rows are there already.
    let db = logged().open(&path).unwrap();
    for _ in 0..40 {
        change(&db, &mut rng);
    }
    assert_eq!(db.state_hashes().unwrap(), []);
    db.close().unwrap();
    let mut db = with_history().open(&path).unwrap();
    for round in 0..200 {
        change(&db, &mut rng);
        match round % 10 {
            3 => db.checkpoint().unwrap(),
            7 => {
                drop(db);
                db = with_history().open(&path).unwrap();
            }
            _ => {}
        }
    }
    db.checkpoint().unwrap();
    let noted = db.state_hashes().unwrap();
    assert!(noted.len() >= 20, "{}", noted.len());
    assert!(noted.is_sorted_by_key(|(txn, _)| *txn));
    for (txn, expected) in noted {
        let read = db.begin_read_at(txn).unwrap();
        assert_eq!(read.state_hash().unwrap(), expected, "{txn}");
    }
    assert_eq!(db.check().unwrap().faults, [""; 0]);
    db.close().unwrap();
    // Given up, and begun again.
    let db = logged().history(Retention::None).open(&path).unwrap();
    change(&db, &mut rng);
    db.close().unwrap();
    let db = with_history().open(&path).unwrap();
    assert_eq!(db.state_hashes().unwrap(), []);
    change(&db, &mut rng);
    db.checkpoint().unwrap();
    let noted = db.state_hashes().unwrap();
    assert_eq!(noted.last().unwrap().1.to_string(), hash(&db));
    assert_eq!(db.check().unwrap().faults, [""; 0]);
    db.close().unwrap();
}

#[test]
fn what_does_not_come_next_is_refused_by_a_copy() {
    let db = Options::new().memory().unwrap();
    let table = db.table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    write.put(&table, "a", "1").unwrap();
    write.commit().unwrap();
    let log = db.log().unwrap();
    let all: Vec<_> = {
        let mut tail = log.tail(TxnId::new(1), LogFilter::all()).unwrap();
        std::iter::from_fn(|| tail.try_next().unwrap()).collect()
    };
    let copy = Options::new().memory().unwrap();
    let mut apply = copy.begin_apply().unwrap();
    let refused = |result| matches!(result, Err(Error::InvalidOption { .. }));
    assert!(refused(apply.push(all[1].clone())), "the second first");
    apply.push(all[0].clone()).unwrap();
    assert!(refused(apply.push(all[0].clone())), "the first again");
    apply.push(all[1].clone()).unwrap();
    assert_eq!(apply.finish().unwrap(), TxnId::new(2));
    assert_eq!(hash(&copy), hash(&db));
    assert!(matches!(copy.open_table("t"), Ok(found) if found.id() == table.id()));
    // Ids that a copy has seen are not given again.
    assert!(copy.table("other").unwrap().id() > table.id());
}

/// A database with all there is to a backup.
fn worked(path: &Path, rounds: u64) -> Db {
    let db = logged().open(path).unwrap();
    let mut rng = SmallRng::seed_from_u64(rounds);
    for _ in 0..rounds {
        change(&db, &mut rng);
    }
    db
}

#[test]
fn a_backup_and_its_increments_restore_every_state_that_they_lead_to() {
    let dir = tempfile::tempdir().unwrap();
    let db = worked(&dir.path().join("db"), 60);
    db.log()
        .unwrap()
        .subscribe("reader", TxnId::new(1), LogFilter::all())
        .unwrap();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut full = Vec::new();
    let backup = db.backup(&mut full).unwrap();
    assert!(backup.is_full && backup.bytes == full.len() as u64 && backup.count > 20);
    assert_eq!(backup.state.unwrap().to_string(), hash(&db));
    assert_eq!(Backup::verify(&*full).unwrap(), backup);
    let mut increments = Vec::new();
    let mut states = vec![(backup.to, hash(&db))];
    let mut since = backup.to;
    for _ in 0..3 {
        for _ in 0..20 {
            let txn = change(&db, &mut rng);
            states.push((txn, hash(&db)));
            if rng.random_ratio(1, 10) {
                db.checkpoint().unwrap();
            }
        }
        let mut increment = Vec::new();
        let made = db.backup_since(since, &mut increment).unwrap();
        assert_eq!(
            (made.from, made.count),
            (since, made.to.get() - since.get())
        );
        assert_eq!(Backup::verify(&*increment).unwrap(), made);
        // The next one overlaps.
        since = TxnId::new(made.to.get() - 5);
        increments.push(increment);
    }
    for (number, (txn, expected)) in states.iter().enumerate() {
        if number % 7 != 0 && number + 1 != states.len() {
            continue;
        }
        let path = dir.path().join(format!("restored{number}"));
        let mut restore = with_history().restore(&path, &*full).unwrap();
        for increment in &increments {
            restore.increment(&**increment, Some(*txn)).unwrap();
        }
        assert_eq!(restore.state().unwrap(), *txn);
        let restored = restore.finish();
        assert_eq!(&hash(&restored), expected, "{txn}");
        assert_eq!(restored.begin_read().unwrap().txn_id(), *txn);
        let gone = restored.begin_read_at(TxnId::new(backup.to.get() - 1));
        assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
        let subscribers = restored.log().unwrap().subscribers().unwrap();
        assert!(subscribers[0].is_lost && subscribers[0].name == "reader");
        assert_eq!(restored.check().unwrap().faults, [""; 0]);
        // It goes on like any database.
        let next = change(&restored, &mut rng);
        assert_eq!(next, txn.next());
        let after = hash(&restored);
        restored.close().unwrap();
        let again = with_history().open(&path).unwrap();
        assert_eq!(hash(&again), after);
        assert_eq!(again.check().unwrap().faults, [""; 0]);
        again.close().unwrap();
    }
    db.close().unwrap();
}

#[test]
fn increments_that_do_not_lead_on_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = worked(&dir.path().join("db"), 10);
    let (mut full, mut late, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    let backup = db.backup(&mut full).unwrap();
    let mut rng = SmallRng::seed_from_u64(2);
    for _ in 0..5 {
        change(&db, &mut rng);
    }
    db.backup_since(backup.to.next(), &mut late).unwrap();
    let other = worked(&dir.path().join("other"), 14);
    other.backup_since(backup.to, &mut foreign).unwrap();
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::InvalidOption { .. }));
    let restored = dir.path().join("restored");
    let mut restore = small().restore(&restored, &*full).unwrap();
    for (what, bytes) in [("late", &late), ("foreign", &foreign), ("full", &full)] {
        assert!(
            refused(restore.increment(&**bytes, None).map(drop)),
            "{what}"
        );
    }
    assert_eq!(restore.state().unwrap(), backup.to);
    restore.finish().close().unwrap();
    let again = small().restore(&restored, &*full);
    assert!(refused(again.map(drop)), "there is a database");
    let increment = small().restore(dir.path().join("none"), &*late);
    assert!(refused(increment.map(drop)), "an increment alone");
}

#[test]
fn a_damaged_or_cut_backup_is_never_restored() {
    let dir = tempfile::tempdir().unwrap();
    let db = worked(&dir.path().join("db"), 12);
    let (mut full, mut increment) = (Vec::new(), Vec::new());
    db.backup(&mut full).unwrap();
    db.backup_since(TxnId::new(3), &mut increment).unwrap();
    for backup in [&full, &increment] {
        let len = backup.len();
        for at in (0..len).step_by(1 + len / 700) {
            let mut bad = backup.clone();
            bad[at] ^= 1 << (at % 8);
            let found = Backup::verify(&*bad);
            assert!(
                matches!(found, Err(Error::Corrupt(_))),
                "byte {at}: {found:?}"
            );
            let found = Backup::verify(&backup[..at]);
            assert!(
                matches!(found, Err(Error::Corrupt(_))),
                "cut at {at}: {found:?}"
            );
        }
        let longer = [&backup[..], &[0]].concat();
        assert!(matches!(Backup::verify(&*longer), Err(Error::Corrupt(_))));
    }
    // Half of one leaves nothing that could be opened, and nothing in the way of another.
    let path = dir.path().join("restored");
    for cut in [30, full.len() / 2, 0] {
        let half = small().restore(&path, &full[..full.len() - cut]);
        if cut == 0 {
            let copy = half.unwrap().finish();
            let hash = |db: &Db| db.begin_read().unwrap().state_hash().unwrap();
            assert_eq!(hash(&copy), hash(&db));
            continue;
        }
        assert!(matches!(half, Err(Error::Corrupt(_))), "{half:?}");
        let opened = small().read_only(true).open(&path);
        assert!(
            matches!(opened, Err(Error::NotADatabase { .. })),
            "{opened:?}"
        );
    }
}

#[test]
fn an_increment_to_what_was_buffered_leads_there() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let mut full = Vec::new();
    let full_backup = db.backup(&mut full).unwrap();
    for number in 0..200 {
        let mut last = TxnId::new(0);
        for more in 0..3 {
            let mut batch = WriteBatch::new();
            batch.put(&table, key(number), [more]);
            batch.durability(Durability::Buffered);
            last = db.commit(batch).unwrap().txn_id;
        }
        let mut since = Vec::new();
        let backup = db.backup_since(last, &mut since).unwrap();
        assert_eq!((backup.from, backup.to), (last, last));
        Backup::verify(&since[..]).unwrap();
    }
    let mut since = Vec::new();
    let backup = db.backup_since(full_backup.to, &mut since).unwrap();
    let mut restore = small().restore(dir.path().join("copy"), &full[..]).unwrap();
    assert_eq!(restore.increment(&since[..], None).unwrap(), backup.to);
    let copy = restore.finish();
    assert_eq!(hash(&copy), hash(&db));
}

#[test]
fn an_increment_from_a_state_that_is_not_there_is_refused() {
    let db = small().memory().unwrap();
    let table = db.table("t").unwrap();
    let last = put_row(&db, &table, 1);
    for since in [last.get() + 1, u64::MAX - 1, u64::MAX] {
        let refused = db.backup_since(TxnId::new(since), Vec::new());
        assert!(
            matches!(refused, Err(Error::NotInLog { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn an_increment_of_a_copy_that_went_its_own_way_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let db = logged().open(&one).unwrap();
    let table = db.table("t").unwrap();
    put_row(&db, &table, 1);
    db.close().unwrap();
    common::copy(&one, &other);
    let [mut full, mut own, mut early, mut foreign, mut longer] = [const { Vec::new() }; 5];

    let db = logged().open(&one).unwrap();
    let table = db.open_table("t").unwrap();
    let met = put_row(&db, &table, 2);
    db.backup(&mut full).unwrap();
    let last = put_row(&db, &table, 3);
    db.backup_since(met, &mut own).unwrap();
    db.close().unwrap();

    let db = logged().open(&other).unwrap();
    let table = db.open_table("t").unwrap();
    assert_eq!(put_row(&db, &table, 7), met);
    put_row(&db, &table, 8);
    db.backup_since(met, &mut foreign).unwrap();
    db.backup_since(TxnId::new(met.get() - 1), &mut early)
        .unwrap();
    db.backup_since(last, &mut longer).unwrap();
    db.close().unwrap();

    let restored = dir.path().join("restored");
    let mut restore = logged().restore(&restored, &full[..]).unwrap();
    for bytes in [&foreign, &early] {
        match restore.increment(&bytes[..], None) {
            Err(Error::InvalidOption { option, .. }) => assert_eq!(option, "backup"),
            other => panic!("{other:?}"),
        }
        assert_eq!(restore.state().unwrap(), met);
    }
    assert_eq!(restore.increment(&own[..], None).unwrap(), last);
    // What was led to by an increment is known as well.
    assert!(restore.increment(&longer[..], None).is_err());
    let db = restore.finish();
    let table = db.open_table("t").unwrap();
    assert_eq!(db.begin_read().unwrap().iter(&table).unwrap().count(), 3);
    db.close().unwrap();
}

#[test]
fn a_copy_with_smaller_pages_refuses_a_key_that_is_too_long_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().log_retention(Retention::All).page_bytes(16_384);
    let db = db.open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let mut full = Vec::new();
    let met = put_row(&db, &table, 1);
    db.backup(&mut full).unwrap();
    let sound = put_row(&db, &table, 2);
    let mut write = db.begin_write().unwrap();
    write.put(&table, vec![7; 2000], b"value").unwrap();
    write.commit().unwrap();
    let mut since = Vec::new();
    db.backup_since(met, &mut since).unwrap();

    let restored = dir.path().join("restored");
    let mut restore = logged().restore(&restored, &full[..]).unwrap();
    match restore.increment(&since[..], None) {
        Err(Error::TooLarge { what, len, limit }) => {
            assert_eq!((what, len, limit), ("key", 2000, 1024));
        }
        other => panic!("{other:?}"),
    }
    // What came before it is there, and can be used.
    assert_eq!(restore.state().unwrap(), sound);
    let copy = restore.finish();
    copy.checkpoint().unwrap();
    copy.close().unwrap();
    db.close().unwrap();
}

#[test]
fn the_state_of_a_backup_is_found_by_its_time_once_it_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    // Times are told to the millisecond: each of these is another one.
    let pause = || std::thread::sleep(std::time::Duration::from_millis(3));
    let db = with_history().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    pause();
    let before = std::time::SystemTime::now();
    pause();
    let at = put_row(&db, &table, 1);
    pause();
    let moment = std::time::SystemTime::now();
    pause();
    let known = db.history(&table, key(1), ..).unwrap()[0].time.unwrap();
    db.close().unwrap();
    // Opened again, it no longer has that in memory; and the time of closing is not that of the commit.
    let db = with_history().open(dir.path().join("db")).unwrap();
    let mut full = Vec::new();
    let backup = db.backup(&mut full).unwrap();
    db.close().unwrap();

    let restored = dir.path().join("restored");
    let copy = with_history().restore(&restored, &full[..]).unwrap();
    let millis = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_millis()
    };
    if let Some(time) = backup.to_time {
        assert_eq!(millis(time), millis(known));
        assert_eq!(copy.committed(), backup.to_time);
    }
    let copy = copy.finish();
    let table_of_copy = copy.open_table("t").unwrap();
    let found = &copy.history(&table_of_copy, key(1), ..).unwrap()[0];
    assert_eq!(
        (found.txn, found.time.map(millis)),
        (at, Some(millis(known)))
    );
    for _ in 0..2 {
        assert_eq!(copy.begin_read_at_time(moment).unwrap().txn_id(), at);
        match copy.begin_read_at_time(before) {
            Err(Error::SnapshotGone { horizon, .. }) => assert_eq!(horizon, at),
            other => panic!("{other:?}"),
        }
        let table = copy.open_table("t").unwrap();
        put_row(&copy, &table, 2);
        copy.checkpoint().unwrap();
    }
    assert!(copy.check().unwrap().faults.is_empty());
    copy.close().unwrap();
}

#[test]
fn a_backup_waits_for_no_writer() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let at = put_row(&db, &table, 1);
    let mut write = db.begin_write().unwrap();
    write.put(&table, "not yet", "x").unwrap();
    let (say, heard) = std::sync::mpsc::channel();
    let other = db.clone();
    // Not joined: should it wait, it would wait for ever.
    std::thread::spawn(move || {
        let mut full = Vec::new();
        let backup = other.backup(&mut full).map(|backup| backup.to);
        drop(other);
        drop(say.send(backup));
    });
    let backup = heard.recv_timeout(std::time::Duration::from_secs(60));
    assert_eq!(backup.unwrap().unwrap(), at);
    write.commit().unwrap();
    db.close().unwrap();
}
