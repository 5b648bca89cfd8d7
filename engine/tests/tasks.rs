//! Promise: whoever is woken by a commit may do anything, and what was taken back or came to nothing leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::small;
use futures_core::Stream;
use northstardb::{Db, Durability, Error, LogFilter, Options, Table, WriteBatch};

/// Commits another batch as soon as it is woken, by the thread that wakes it, and lets go of the database.
struct Inline {
    db: Mutex<Option<(Db, Table)>>,
    done: mpsc::SyncSender<bool>,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let taken = self.db.lock().unwrap().take();
        if let Some((db, table)) = taken {
            let committed = db.commit(put(&table, b"second")).is_ok();
            drop((db, table));
            self.done.send(committed).unwrap();
        }
    }
}

fn put(table: &Table, key: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(table, key, b"value");
    batch
}

#[test]
fn a_task_may_commit_and_drop_the_last_handle_while_it_is_woken() {
    for durability in [Durability::Durable, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let db = small().open(dir.path().join("db")).unwrap();
        let table = db.table("t").unwrap();
        // Until this ends the batch waits, so that the task is asleep when its commit is settled.
        let write = db.begin_write().unwrap();
        let mut first = put(&table, b"first");
        first.durability(durability);
        let mut handle = pin!(db.submit(first).unwrap());
        let (done, finished) = mpsc::sync_channel(1);
        let waker = Waker::from(Arc::new(Inline {
            db: Mutex::new(Some((db, table))),
            done,
        }));
        let mut context = Context::from_waker(&waker);
        assert!(handle.as_mut().poll(&mut context).is_pending());
        write.abort();
        let committed = finished.recv_timeout(Duration::from_secs(60));
        assert!(committed.unwrap(), "{durability:?}");
        assert!(matches!(
            handle.as_mut().poll(&mut context),
            Poll::Ready(Ok(_))
        ));
    }
}

#[test]
fn a_reader_of_the_log_that_is_dropped_is_not_waited_for() {
    struct Counted;
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let next = db.log().unwrap().next();
    let task = Arc::new(Counted);
    let poll = |tail: &mut northstardb::Tail| {
        let waker = Waker::from(Arc::clone(&task));
        let mut context = Context::from_waker(&waker);
        std::pin::Pin::new(tail).poll_next(&mut context).is_ready()
    };
    let tail = || {
        let log = db.log().unwrap();
        log.tail(next, LogFilter::every_transaction()).unwrap()
    };
    let mut kept = tail();
    assert!(!poll(&mut kept) && !poll(&mut kept));
    for _ in 0..100 {
        let mut dropped = tail();
        assert!(!poll(&mut dropped));
    }
    // The task itself, and the one reader of it that is left.
    assert_eq!(Arc::strong_count(&task), 2);
    db.commit(put(&table, b"k")).unwrap();
    assert_eq!(Arc::strong_count(&task), 1);
    assert!(poll(&mut kept));
}

/// A task that owns a reader of the log.
struct Owner(#[expect(dead_code, reason = "dropped with it")] Mutex<northstardb::Tail>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_task_that_is_given_up_may_be_the_owner_of_another_reader() {
    let (done, finished) = mpsc::sync_channel(1);
    let work = move || {
        let db = Db::memory().unwrap();
        let log = db.log().unwrap();
        let tail = || {
            let filter = LogFilter::every_transaction();
            log.tail(log.next(), filter).unwrap()
        };
        let poll = |tail: &mut northstardb::Tail, waker: &Waker| {
            let mut context = Context::from_waker(waker);
            assert!(
                std::pin::Pin::new(tail)
                    .poll_next(&mut context)
                    .is_pending()
            );
        };
        let (mut reader, mut owned) = (tail(), tail());
        poll(&mut owned, Waker::noop());
        poll(
            &mut reader,
            &Waker::from(Arc::new(Owner(Mutex::new(owned)))),
        );
        // Now nobody but the reader knows of that task, and here it takes another one.
        poll(&mut reader, Waker::noop());
        done.send(()).unwrap();
    };
    std::thread::spawn(work);
    finished.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn writes_that_were_taken_back_give_their_memory_back() {
    let options = Options::new().memory_budget(64 << 20).delta_bytes(1 << 20);
    let db = options.memory().unwrap();
    let table = db.table("t").unwrap();
    for round in 0..300_u32 {
        let mut write = db.begin_write().unwrap();
        write
            .put(&table, round.to_le_bytes(), vec![7; 64 << 10])
            .unwrap();
        write.abort();
        let used = db.stats().unwrap().delta_bytes;
        assert!(used < 2 << 20, "{used} bytes after {round} roll-backs");
    }
    db.commit(put(&table, b"k")).unwrap();
    assert_eq!(db.begin_read().unwrap().iter(&table).unwrap().count(), 1);
}

#[test]
fn an_empty_batch_takes_no_transaction() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let last = db.commit(put(&table, b"k")).unwrap();
    let mut empty = WriteBatch::new();
    empty.tag(b"a note");
    assert_eq!(
        db.submit(empty).unwrap().wait().unwrap().txn_id,
        last.txn_id
    );
    let next = db.commit(put(&table, b"l")).unwrap();
    assert_eq!(next.txn_id.get(), last.txn_id.get() + 1);
}

#[test]
fn a_budget_that_no_machine_has_is_refused() {
    match Options::new().memory_budget(usize::MAX).memory() {
        Err(Error::InvalidOption { option, .. }) => assert_eq!(option, "memory_budget"),
        other => panic!("{other:?}"),
    }
}
