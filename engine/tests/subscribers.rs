//! Promise: a named reader of the log goes on where it has acknowledged, exactly, and holds what it has not read, as far as it may.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{put_row, small};
use northstardb::{Db, Error, Holder, LogFilter, TxnId};

fn numbers(subscriber: &mut northstardb::Subscriber, most: usize) -> Vec<u64> {
    let found = std::iter::from_fn(|| subscriber.try_next().unwrap());
    found.take(most).map(|found| found.txn_id().get()).collect()
}

#[test]
fn a_subscriber_is_acknowledged_in_the_database_that_it_follows_and_in_no_other() {
    let [one, other] = [(); 2].map(|()| {
        let db = small().memory().unwrap();
        let table = db.table("t").unwrap();
        (0..20).for_each(|number| _ = put_row(&db, &table, number));
        db
    });
    let subscribe = |db: &Db| {
        let log = db.log().unwrap();
        log.subscribe("s", TxnId::new(1), LogFilter::all()).unwrap()
    };
    let (mut own, foreign) = (subscribe(&one), subscribe(&other));
    assert_eq!(numbers(&mut own, 10).len(), 10);
    let through = TxnId::new(own.position().get() - 1);
    let mut txn = other.begin_write().unwrap();
    let refused = txn.acknowledge(&mut own, through);
    assert!(
        matches!(refused, Err(Error::UnknownTable { .. })),
        "{refused:?}"
    );
    txn.commit().unwrap();
    let position = |db: &Db| db.log().unwrap().subscribers().unwrap()[0].position;
    assert_eq!(position(&other), foreign.acknowledged());
    own.acknowledge(through).unwrap();
    assert_eq!(position(&one), through.next());
    // Nor is one that was forgotten, where another has its name.
    let log = one.log().unwrap();
    assert!(log.unsubscribe("s").unwrap());
    let again = log.subscribe("s", TxnId::new(3), LogFilter::all()).unwrap();
    assert!(numbers(&mut own, 1).len() == 1);
    let refused = own.acknowledge(TxnId::new(own.position().get() - 1));
    assert!(
        matches!(refused, Err(Error::UnknownTable { .. })),
        "{refused:?}"
    );
    assert_eq!(position(&one), again.acknowledged());
}

#[test]
fn a_subscriber_goes_on_where_it_acknowledged_across_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = || small().log_segment_bytes(1 << 16).open(&path).unwrap();
    let db = open();
    let table = db.table("t").unwrap();
    let from = db.log().unwrap().next();
    let subscribe = |db: &Db| {
        let log = db.log().unwrap();
        log.subscribe("s", from, LogFilter::all()).unwrap()
    };
    let mut subscriber = subscribe(&db);
    let mut put_txns = Vec::new();
    // More than a few segments, and nothing else keeps the log.
    for number in 0..2000 {
        put_txns.push(put_row(&db, &table, number).get());
        if number % 500 == 0 {
            db.checkpoint().unwrap();
        }
    }
    assert_eq!(numbers(&mut subscriber, 10), put_txns[..10]);
    subscriber.acknowledge(TxnId::new(put_txns[4])).unwrap();
    // Not what was not given, not backwards.
    let ahead = subscriber.acknowledge(TxnId::new(put_txns[10]));
    assert!(
        matches!(ahead, Err(Error::InvalidOption { .. })),
        "{ahead:?}"
    );
    subscriber.acknowledge(TxnId::new(put_txns[2])).unwrap();
    assert_eq!(subscriber.acknowledged().get(), put_txns[5]);
    drop(subscriber);
    db.checkpoint().unwrap();
    db.close().unwrap();

    let db = open();
    let mut subscriber = subscribe(&db);
    let rest = numbers(&mut subscriber, usize::MAX);
    assert_eq!(
        rest,
        put_txns[5..],
        "no transaction that only acknowledges is among them"
    );
    // With what was made of it, or not at all.
    let table = db.open_table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    write.put(&table, "made", "of it").unwrap();
    write
        .acknowledge(&mut subscriber, TxnId::new(put_txns[900]))
        .unwrap();
    write.abort();
    let position = |db: &Db| db.log().unwrap().subscribers().unwrap()[0].position.get();
    assert_eq!(position(&db), put_txns[5]);
    let mut write = db.begin_write().unwrap();
    write
        .acknowledge(&mut subscriber, TxnId::new(put_txns[1900]))
        .unwrap();
    write.commit().unwrap();
    assert_eq!(position(&db), put_txns[1901]);
    drop(subscriber);
    let before = db.log().unwrap().first().unwrap();
    for number in 0..600 {
        put_row(&db, &table, number);
    }
    db.checkpoint().unwrap();
    let first = db.log().unwrap().first().unwrap();
    assert!(
        before < first && first.get() <= put_txns[1901],
        "{before} {first}"
    );
    assert!(db.log().unwrap().unsubscribe("s").unwrap());
    assert!(!db.log().unwrap().unsubscribe("s").unwrap());
    for number in 0..600 {
        put_row(&db, &table, number);
    }
    db.checkpoint().unwrap();
    assert!(db.log().unwrap().first().unwrap().get() > put_txns[1901]);
    db.close().unwrap();
}

#[test]
fn a_subscriber_too_far_behind_loses_its_place_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let options = small().log_segment_bytes(1 << 16);
    let db = options.subscriber_log_bytes(200_000).open(&path).unwrap();
    let table = db.table("t").unwrap();
    let log = db.log().unwrap();
    let mut slow = log.subscribe("slow", log.next(), LogFilter::all()).unwrap();
    for number in 0..3000 {
        put_row(&db, &table, number);
        if number % 300 == 0 {
            db.checkpoint().unwrap();
        }
    }
    db.checkpoint().unwrap();
    let states = log.subscribers().unwrap();
    assert!(states[0].is_lost, "{states:?}");
    // It may still have hold of a segment that has gone, but of no more.
    let gap =
        std::iter::from_fn(|| Some(slow.try_next())).find(|found| !matches!(found, Ok(Some(_))));
    let gap = gap.unwrap();
    let first = log.first();
    assert!(
        matches!(gap, Err(Error::NotInLog { .. })),
        "{first:?} {states:?}"
    );
    drop(slow);
    let again = log.subscribe("slow", log.next(), LogFilter::all());
    assert!(matches!(again, Err(Error::NotInLog { .. })), "{again:?}");
    // Nothing is kept any more for one that cannot go on, but for another behind it.
    let mut other = log
        .subscribe("other", log.next(), LogFilter::all())
        .unwrap();
    for number in 0..20 {
        put_row(&db, &table, number);
    }
    // Twice, since the older slot needs its own.
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let held = |name: &str| {
        let holders = db.holders().unwrap();
        let found = holders.into_iter().find_map(|holder| {
            let Holder::Subscriber {
                name: found,
                held_bytes,
                ..
            } = holder
            else {
                return None;
            };
            (found == name).then_some(held_bytes)
        });
        found.unwrap()
    };
    assert_eq!(held("slow"), 0);
    assert!((20 * 4096..=20 * 4096 + (1 << 16)).contains(&held("other")));
    assert_eq!(numbers(&mut other, 20).len(), 20);
    let start = other.acknowledged();
    assert!(log.first().unwrap() > TxnId::new(start.get() - 20));
    drop(other);
    assert!(log.unsubscribe("other").unwrap());
    assert!(log.unsubscribe("slow").unwrap());
    let mut anew = log.subscribe("slow", log.next(), LogFilter::all()).unwrap();
    let txn = put_row(&db, &table, 1);
    assert_eq!(anew.try_next().unwrap().unwrap().txn_id(), txn);
    // A place that is not there leaves no subscriber behind.
    let never = log.subscribe("never", TxnId::new(1), LogFilter::all());
    assert!(matches!(never, Err(Error::NotInLog { .. })), "{never:?}");
    assert_eq!(log.subscribers().unwrap().len(), 1);
    drop(anew);
    db.close().unwrap();
}
