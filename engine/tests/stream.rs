//! Promise: the commit log shows every committed transaction once, in order and whole, to whoever reads it and whenever.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use common::{Rows, key, load, now, small, value};
use futures_core::Stream;
use northstardb::{
    Change, Db, Error, LogFilter, Options, Retention, Table, Tail, Transaction, TxnId, WriteBatch,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Segments of the smallest size, so that groups cross them and many come and go.
fn short() -> Options {
    small()
        .log_segment_bytes(64 << 10)
        .log_retention(Retention::All)
}

/// What the stream says the database holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Replica {
    names: BTreeMap<String, u32>,
    rows: BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Replica {
    fn apply(&mut self, transaction: &Transaction) {
        for change in transaction.changes() {
            match change {
                Change::Put { table, key, value } => {
                    let rows = self.rows.get_mut(&table).unwrap();
                    rows.insert(key.to_vec(), value.to_vec());
                }
                Change::Delete { table, key } => {
                    self.rows.get_mut(&table).unwrap().remove(key);
                }
                Change::DeleteRange { table, from, to } => {
                    let gone = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
                    let rows = self.rows.get_mut(&table).unwrap();
                    rows.retain(|key, _| !gone(key));
                }
                Change::CreateTable { table, name } => {
                    assert_eq!(self.names.insert(name.to_owned(), table), None);
                    assert_eq!(self.rows.insert(table, BTreeMap::new()), None);
                }
                Change::RenameTable { table, from, to } => {
                    assert_eq!(self.names.remove(from), Some(table));
                    assert_eq!(self.names.insert(to.to_owned(), table), None);
                }
                Change::DropTable { table, name } => {
                    assert_eq!(self.names.remove(name), Some(table));
                    assert!(self.rows.remove(&table).is_some());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn compare(&self, db: &Db) {
        let names: Vec<_> = self.names.keys().cloned().collect();
        assert_eq!(names, db.tables().unwrap());
        for (name, id) in &self.names {
            let table = db.open_table(name).unwrap();
            assert_eq!(table.id(), *id, "{name}");
            let rows: Rows = self.rows[id].clone().into_iter().collect();
            assert_eq!(now(db, &table), rows, "{name}");
        }
    }
}

/// All that is durable from `from` on; ids follow each other without a gap.
fn drain(db: &Db, from: TxnId) -> Vec<Transaction> {
    let mut tail = db.log().unwrap().tail(from, LogFilter::all()).unwrap();
    let (mut found, mut expected) = (Vec::new(), from);
    while let Some(transaction) = tail.try_next().unwrap() {
        assert_eq!(transaction.txn_id(), expected);
        expected = expected.next();
        assert_eq!(tail.position(), expected);
        found.push(transaction);
    }
    assert_eq!(expected, db.log().unwrap().next());
    found
}

fn random_work(db: &Db, rng: &mut SmallRng, round: u64) {
    let name = |rng: &mut SmallRng| format!("table {}", rng.random_range(0..3));
    if rng.random_bool(0.5) {
        let table = db.table(&name(rng)).unwrap();
        let mut batch = WriteBatch::new();
        for _ in 0..rng.random_range(1..40) {
            let number = rng.random_range(0..200);
            match rng.random_range(0..10) {
                0 => batch.delete(&table, key(number)),
                1 => batch.delete_range(&table, key(number)..key(number + 20)),
                // Now and then one that is longer than a segment.
                2 if number < 8 => batch.put(&table, key(number), value(round, 150_000)),
                _ => batch.put(&table, key(number), value(round, 300)),
            };
        }
        db.commit(batch).unwrap();
        return;
    }
    let mut write = db.begin_write().unwrap();
    for _ in 0..rng.random_range(1..12) {
        let table = write.table(&name(rng)).unwrap();
        let point = write.savepoint();
        match rng.random_range(0..8) {
            0 => write.drop_table(table.name()).unwrap(),
            1 => drop(write.rename_table(table.name(), &name(rng))),
            2 => write.delete_range::<&[u8]>(&table, ..).unwrap(),
            _ => write
                .put(&table, key(rng.random_range(0..200)), value(round, 80))
                .unwrap(),
        }
        if rng.random_bool(0.2) {
            write.rollback_to(&point).unwrap();
        }
    }
    write.set_tag(&round.to_le_bytes()).unwrap();
    if rng.random_bool(0.1) {
        write.abort();
    } else {
        write.commit().unwrap();
    }
}

#[test]
fn the_stream_rebuilds_the_database_at_any_time() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut db = short().open(&path).unwrap();
        let (mut replica, mut next) = (Replica::default(), TxnId::new(1));
        for round in 0..120 {
            random_work(&db, &mut rng, round);
            match rng.random_range(0..30) {
                0 => db.checkpoint().unwrap(),
                1 => {
                    db.close().unwrap();
                    db = short().open(&path).unwrap();
                }
                2 => {
                    drop(db);
                    db = short().open(&path).unwrap();
                }
                _ => {}
            }
            if rng.random_bool(0.3) {
                for transaction in drain(&db, next) {
                    replica.apply(&transaction);
                    next = transaction.txn_id().next();
                }
                replica.compare(&db);
            }
        }
        // From the first one on it comes to the same, and so does every part of it.
        let mut again = Replica::default();
        let all = drain(&db, TxnId::new(1));
        all.iter().for_each(|transaction| again.apply(transaction));
        again.compare(&db);
        assert!(all.is_sorted_by_key(Transaction::time));
        assert!(all.iter().all(|one| one.time() <= SystemTime::now()));
        for from in (1..all.len()).step_by(17) {
            let part = drain(&db, all[from].txn_id());
            assert_eq!(part.len(), all.len() - from);
            assert!(part[0].changes().eq(all[from].changes()));
            assert_eq!(part[0].tag(), all[from].tag());
        }
        assert!(db.check().unwrap().faults.is_empty());
    }
}

/// Changes as text, with the ids of the transactions.
fn text(tail: &mut Tail) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(found) = tail.try_next().unwrap() {
        let changes = found.changes().map(|change| match change {
            Change::Put { key, .. } => format!("put {}", key.escape_ascii()),
            Change::Delete { key, .. } => format!("delete {}", key.escape_ascii()),
            Change::DeleteRange { from, to, .. } => {
                let to = to.map_or("end".to_owned(), |to| to.escape_ascii().to_string());
                format!("delete {} to {to}", from.escape_ascii())
            }
            Change::CreateTable { name, .. } => format!("create {name}"),
            Change::RenameTable { from, to, .. } => format!("rename {from} to {to}"),
            Change::DropTable { name, .. } => format!("drop {name}"),
            other => panic!("{other:?}"),
        });
        let changes: Vec<_> = changes.collect();
        lines.push(format!("{}: {}", found.txn_id(), changes.join(", ")));
    }
    lines
}

#[test]
fn a_filter_shows_what_it_asks_for_and_no_more() {
    let db = Db::memory().unwrap();
    let (one, two) = (db.table("one").unwrap(), db.table("two").unwrap());
    let mut batch = WriteBatch::new();
    batch
        .put(&one, "ab", "1")
        .put(&one, "b", "2")
        .put(&two, "ab", "3");
    db.commit(batch).unwrap();
    let mut batch = WriteBatch::new();
    batch.delete(&two, "ab").delete_range::<&str>(&one, "c"..);
    db.commit(batch).unwrap();
    let mut batch = WriteBatch::new();
    batch
        .delete_range(&one, "a".."aa")
        .delete_range(&one, "aa".."b")
        .delete_range(&one, "az".."c");
    db.commit(batch).unwrap();
    db.rename_table("two", "three").unwrap();
    db.drop_table("one").unwrap();
    let tail = |filter| text(&mut db.log().unwrap().tail(TxnId::new(1), filter).unwrap());
    assert_eq!(
        tail(LogFilter::all()),
        [
            "1: create one",
            "2: create two",
            "3: put ab, put b, put ab",
            "4: delete ab, delete c to end",
            "5: delete a to aa, delete aa to b, delete az to c",
            "6: rename two to three",
            "7: drop one",
        ]
    );
    assert_eq!(
        tail(LogFilter::all().table(&two)),
        [
            "2: create two",
            "3: put ab",
            "4: delete ab",
            "6: rename two to three"
        ]
    );
    assert_eq!(
        tail(LogFilter::all().prefix(&one, "ab").unwrap()),
        [
            "1: create one",
            "3: put ab",
            "5: delete aa to b",
            "7: drop one"
        ]
    );
    assert_eq!(
        tail(LogFilter::all().prefix(&one, "c").unwrap().table(&two)),
        [
            "1: create one",
            "2: create two",
            "3: put ab",
            "4: delete ab, delete c to end",
            "6: rename two to three",
            "7: drop one",
        ]
    );
    let other = Db::memory().unwrap();
    let foreign = LogFilter::all().table(&other.table("one").unwrap());
    let found = db.log().unwrap().tail(TxnId::new(1), foreign);
    assert!(
        matches!(found, Err(Error::UnknownTable { .. })),
        "{found:?}"
    );
}

fn put(table: &Table, number: u64, len: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(table, key(number), value(number, len));
    batch
}

#[test]
fn a_tail_goes_on_waiting_while_what_comes_is_not_what_it_wants() {
    let db = short().memory().unwrap();
    let (wanted, other) = (db.table("wanted").unwrap(), db.table("other").unwrap());
    let from = db.log().unwrap().next();
    let filter = LogFilter::all().table(&wanted);
    let mut tail = db.log().unwrap().tail(from, filter).unwrap();
    let writer = {
        let db = db.clone();
        std::thread::spawn(move || {
            for _ in 0..100 {
                common::put(&db, &other, "k", b"x");
            }
            common::put(&db, &wanted, "k", b"x")
        })
    };
    let found = tail.next_timeout(Duration::from_secs(600)).unwrap();
    assert_eq!(found.unwrap().txn_id(), writer.join().unwrap());
}

#[test]
fn a_waiting_tail_sees_commits_as_they_become_durable_and_ends_with_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let db = short().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let from = db.log().unwrap().next();
    let mut tail = db.log().unwrap().tail(from, LogFilter::all()).unwrap();
    assert!(
        tail.next_timeout(Duration::from_millis(1))
            .unwrap()
            .is_none()
    );
    let many = Arc::new(AtomicUsize::new(0));
    let reader = {
        let (db, many) = (db.clone(), Arc::clone(&many));
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            for found in tail {
                let found = found.unwrap();
                // Whoever was told of a transaction finds it.
                assert!(
                    db.begin_read()
                        .map_or(true, |read| read.txn_id() >= found.txn_id())
                );
                seen.push(found.txn_id());
                many.store(seen.len(), Ordering::Release);
            }
            seen
        })
    };
    let committed: Vec<_> = std::thread::scope(|scope| {
        let commit = |lane: u64| {
            let (db, table) = (&db, &table);
            move || -> Vec<TxnId> {
                let commit = |at| db.commit(put(table, lane * 1000 + at, 200)).unwrap().txn_id;
                (0..150).map(commit).collect()
            }
        };
        let lanes: Vec<_> = (0..3).map(|lane| scope.spawn(commit(lane))).collect();
        lanes
            .into_iter()
            .flat_map(|lane| lane.join().unwrap())
            .collect()
    });
    while many.load(Ordering::Acquire) < 450 {
        std::thread::yield_now();
    }
    db.close().unwrap();
    let seen = reader.join().unwrap();
    assert!(
        seen.iter()
            .map(|txn| txn.get())
            .eq(from.get()..from.get() + 450)
    );
    let mut committed = committed;
    committed.sort();
    assert_eq!(seen, committed);
}

#[test]
fn a_tail_that_begins_at_the_end_while_others_commit_misses_nothing() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for lane in 0..2 {
            let (db, table, stop) = (&db, &table, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    db.commit(put(table, lane, 10)).unwrap();
                }
            });
        }
        for _ in 0..3000 {
            let log = db.log().unwrap();
            let from = log.next();
            let mut tail = log.tail(from, LogFilter::all()).unwrap();
            assert_eq!(tail.next().unwrap().unwrap().txn_id(), from);
            assert_eq!(tail.next().unwrap().unwrap().txn_id(), from.next());
        }
        stop.store(true, Ordering::Release);
    });
}

#[derive(Default)]
struct Count {
    woken: AtomicU32,
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn what_is_to_be_committed_next_is_never_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    let db = short().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3000 {
                drop(db.submit(put(&table, number, 10)).unwrap());
            }
            done.store(true, Ordering::Relaxed);
        });
        let log = db.log().unwrap();
        while !done.load(Ordering::Relaxed) {
            let beyond = TxnId::new(log.next().get() + 1);
            let found = log.tail(beyond, LogFilter::all()).map(drop);
            assert!(
                matches!(found, Ok(()) | Err(Error::NotInLog { .. })),
                "{found:?}"
            );
        }
    });
}

#[test]
fn a_task_that_follows_is_woken_once_there_is_more() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let from = db.log().unwrap().next();
    let mut tail = db.log().unwrap().tail(from, LogFilter::all()).unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    for round in 0..20 {
        for _ in 0..3 {
            assert!(Pin::new(&mut tail).poll_next(&mut context).is_pending());
        }
        assert_eq!(count.woken.load(Ordering::SeqCst), round);
        let commit = db.commit(put(&table, 1, 10)).unwrap();
        while count.woken.load(Ordering::SeqCst) == round {
            std::thread::yield_now();
        }
        let polled = Pin::new(&mut tail).poll_next(&mut context);
        let Poll::Ready(Some(Ok(found))) = polled else {
            panic!("{polled:?}");
        };
        assert_eq!(found.txn_id(), commit.txn_id);
    }
    assert!(Pin::new(&mut tail).poll_next(&mut context).is_pending());
    db.close().unwrap();
    assert_eq!(count.woken.load(Ordering::SeqCst), 21);
    assert!(matches!(
        Pin::new(&mut tail).poll_next(&mut context),
        Poll::Ready(None)
    ));
}

#[test]
fn what_was_trimmed_is_an_error_that_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let options = || short().log_retention(Retention::Bytes(200 << 10));
    let db = options().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let log = db.log().unwrap();
    let mut slow = log.tail(TxnId::new(1), LogFilter::all()).unwrap();
    assert_eq!(slow.try_next().unwrap().unwrap().txn_id().get(), 1);
    for round in 0..40 {
        load(&db, &table, round * 50..round * 50 + 50, 500);
        db.checkpoint().unwrap();
    }
    let (first, next) = (log.first().unwrap(), log.next());
    assert!(first.get() > 5 && first < next, "{first} {next}");
    let gone = |found: Error, what: TxnId| {
        let Error::NotInLog {
            asked,
            first: said,
            next: after,
        } = found
        else {
            panic!("{found}");
        };
        assert_eq!((asked, said, after), (what, first, next));
    };
    // The slow one may still hold a segment that is gone by now, but never anything else than what was committed.
    let failed = loop {
        match slow.try_next() {
            Ok(Some(found)) => assert!(found.txn_id() < first),
            other => break other.unwrap_err(),
        }
    };
    gone(failed, slow.position());
    assert!(matches!(slow.try_next(), Err(Error::Closed)));
    for asked in [TxnId::new(1), TxnId::new(first.get() - 1), next.next()] {
        gone(log.tail(asked, LogFilter::all()).unwrap_err(), asked);
    }
    let kept = drain(&db, first);
    let bytes: usize = kept.iter().map(|one| one.changes().count() * 500).sum();
    assert!((180 << 10..500 << 10).contains(&bytes), "{bytes}");
    // Reopened, what is left is the same.
    drop((slow, log));
    db.close().unwrap();
    let db = options().open(dir.path().join("db")).unwrap();
    assert_eq!(db.log().unwrap().first().unwrap(), first);
    assert_eq!(drain(&db, first).len(), kept.len());
}

#[test]
fn retention_keeps_what_it_says_and_little_more() {
    let run = |retention| {
        let dir = tempfile::tempdir().unwrap();
        let db = short()
            .log_retention(retention)
            .open(dir.path().join("db"))
            .unwrap();
        let table = db.table("t").unwrap();
        for round in 0..100 {
            load(&db, &table, round..round + 10, 1000);
            if round % 5 == 4 {
                db.checkpoint().unwrap();
            }
        }
        let log = db.log().unwrap();
        let left = log.next().get() - log.first().unwrap().get();
        assert_eq!(drain(&db, log.first().unwrap()).len() as u64, left);
        left
    };
    // A group is 12 KiB here, a segment five of them.
    assert!(run(Retention::None) < 12);
    let some = run(Retention::Txns(30));
    assert!((30..45).contains(&some), "{some}");
    assert_eq!(run(Retention::Txns(u64::MAX)), 101);
    assert_eq!(run(Retention::All), 101);
    assert_eq!(run(Retention::Age(Duration::from_secs(3600))), 101);
    assert!(run(Retention::Age(Duration::ZERO)) < 12);
    assert!(run(Retention::Bytes(0)) < 12);
    let within = |secs, bytes| {
        let age = Duration::from_secs(secs);
        run(Retention::Within { age, bytes })
    };
    assert!(within(3600, 0) < 12);
    assert!(within(0, 1 << 30) < 12);
    assert_eq!(within(3600, 1 << 30), 101);
}

#[test]
fn damage_in_what_is_only_retained_stops_no_checkpoint_and_is_trimmed_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = short()
        .log_retention(Retention::Txns(20))
        .open(&path)
        .unwrap();
    let table = db.table("t").unwrap();
    let work = |rounds: std::ops::Range<u64>| {
        for round in rounds {
            load(&db, &table, round..round + 10, 1000);
            db.checkpoint().unwrap();
        }
    };
    work(0..40);
    let mut segments: Vec<_> = std::fs::read_dir(path.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    segments.sort();
    // Behind the header of each group, in what recovery does not need.
    let damaged = &segments[1];
    let mut bytes = std::fs::read(damaged).unwrap();
    for block in bytes.chunks_mut(4096) {
        if block.starts_with(b"NSLG") {
            block[200] ^= 1;
        }
    }
    std::fs::write(damaged, bytes).unwrap();
    work(40..80);
    assert!(!damaged.exists(), "it is kept though nobody wants it");
    let log = db.log().unwrap();
    let left = log.next().get() - log.first().unwrap().get();
    assert!((20..35).contains(&left), "{left}");
    assert_eq!(drain(&db, log.first().unwrap()).len() as u64, left);
}

#[test]
fn a_damaged_segment_is_an_error_and_never_another_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = short().open(&path).unwrap();
    let table = db.table("t").unwrap();
    for round in 0..60 {
        load(&db, &table, round..round + 10, 1000);
    }
    db.checkpoint().unwrap();
    let all = drain(&db, TxnId::new(1));
    let segment = path.join("log").join(format!("{:020}.seg", 3));
    let whole = std::fs::read(&segment).unwrap();
    let mut rng = SmallRng::seed_from_u64(5);
    let mut refused = 0;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(&segment, &bytes).unwrap();
        // One group, which is one transaction here, is named; all others are found.
        let report = db.log().unwrap().check().unwrap();
        let [hole] = &report.holes[..] else {
            panic!("{report:?}");
        };
        assert_eq!(hole.next, hole.first.map(TxnId::next), "{report:?}");
        assert_eq!(report.transactions, all.len() as u64 - 1, "{report:?}");
        let (begins, ends) = hole.place.unwrap();
        let place = 3 * (64 << 10) + at as u64;
        assert!((begins.get()..ends.get()).contains(&place), "{report:?}");
        let from = rng.random_range(0..all.len());
        let tail = db.log().unwrap().tail(all[from].txn_id(), LogFilter::all());
        let mut at = from;
        let mut tail = match tail {
            Ok(tail) => tail,
            Err(Error::Corrupt(_)) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        loop {
            match tail.try_next() {
                Ok(Some(found)) => {
                    assert_eq!(found.txn_id(), all[at].txn_id());
                    assert!(found.changes().eq(all[at].changes()));
                    at += 1;
                }
                Ok(None) => break assert_eq!(at, all.len()),
                Err(Error::Corrupt(_)) => break refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(refused > 10, "{refused}");
    std::fs::write(&segment, &whole).unwrap();
    let report = db.log().unwrap().check().unwrap();
    assert_eq!(
        (report.transactions, report.holes.len()),
        (all.len() as u64, 0)
    );
    // A segment that is gone takes what it holds, and no more; with the last one nothing comes behind.
    for number in [3, 5] {
        let segment = path.join("log").join(format!("{number:020}.seg"));
        let whole = std::fs::read(&segment).unwrap();
        std::fs::remove_file(&segment).unwrap();
        let report = db.log().unwrap().check().unwrap();
        let [hole] = &report.holes[..] else {
            panic!("{report:?}");
        };
        let missing = hole.next.unwrap().get() - hole.first.unwrap().get();
        assert!((4..8).contains(&missing), "{report:?}");
        assert_eq!(
            report.transactions + missing,
            all.len() as u64,
            "{report:?}"
        );
        std::fs::write(&segment, &whole).unwrap();
    }
}

#[test]
fn readers_of_the_log_race_with_its_recycling_and_read_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let options = short().log_retention(Retention::Bytes(100 << 10));
    let db = options.open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let (mut gaps, mut seen) = (0, 0);
                while !stop.load(Ordering::Acquire) {
                    let log = db.log().unwrap();
                    let from = log.first().unwrap();
                    let mut tail = match log.tail(from, LogFilter::all()) {
                        Ok(tail) => tail,
                        Err(Error::NotInLog { .. }) => continue,
                        Err(other) => panic!("{other}"),
                    };
                    let mut expected = from;
                    loop {
                        match tail.try_next() {
                            Ok(Some(found)) => {
                                assert_eq!(found.txn_id(), expected);
                                for change in found.changes() {
                                    if let Change::Put {
                                        key: put,
                                        value: is,
                                        ..
                                    } = change
                                    {
                                        let number = expected.get();
                                        assert_eq!(
                                            (put, is),
                                            (&key(number)[..], &value(number, 900)[..])
                                        );
                                    }
                                }
                                expected = expected.next();
                                seen += 1;
                            }
                            Ok(None) => break,
                            Err(Error::NotInLog { .. }) => break gaps += 1,
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                assert!(seen > 0, "{gaps}");
            });
        }
        for number in 2..1500 {
            assert_eq!(
                db.commit(put(&table, number, 900)).unwrap().txn_id.get(),
                number
            );
            if number % 40 == 0 {
                db.checkpoint().unwrap();
            }
        }
        stop.store(true, Ordering::Release);
    });
}
