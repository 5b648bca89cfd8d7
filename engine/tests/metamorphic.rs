//! Promise: two ways to say the same thing come to the same content.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Rows, copy, key, now, small, value};
use northstardb::{Backend, Db, Table, WriteBatch};
use proptest::prelude::*;

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Put(u64, usize),
    Delete(u64),
    DeleteRange(u64, u64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (0u64..40, prop_oneof![0usize..100, 0usize..9000]).prop_map(|(k, len)| Change::Put(k, len)),
        2 => (0u64..40).prop_map(Change::Delete),
        1 => (0u64..40, 0u64..8).prop_map(|(k, more)| Change::DeleteRange(k, k + more)),
    ];
    proptest::collection::vec(change, 1..40)
}

fn add(batch: &mut WriteBatch, table: &Table, change: &Change) {
    match *change {
        Change::Put(number, len) => batch.put(table, key(number), value(number, len)),
        Change::Delete(number) => batch.delete(table, key(number)),
        Change::DeleteRange(from, to) => batch.delete_range(table, key(from)..key(to)),
    };
}

/// Commits the changes in batches of `size` and returns what is there then.
fn perform(db: &Db, changes: &[Change], size: usize, checkpoints: bool) -> Rows {
    let table = db.table("t").unwrap();
    for some in changes.chunks(size) {
        let mut batch = WriteBatch::new();
        for change in some {
            add(&mut batch, &table, change);
        }
        db.commit(batch).unwrap();
        if checkpoints {
            db.checkpoint().unwrap();
        }
    }
    now(db, &table)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_batch_is_the_same_as_its_changes_one_by_one(changes in changes()) {
        let whole = perform(&Db::memory().unwrap(), &changes, usize::MAX, false);
        prop_assert_eq!(&perform(&Db::memory().unwrap(), &changes, 1, false), &whole);
        prop_assert_eq!(&perform(&Db::memory().unwrap(), &changes, 7, false), &whole);
    }

    #[test]
    fn one_transaction_is_the_same_as_one_batch(changes in changes()) {
        let whole = perform(&Db::memory().unwrap(), &changes, usize::MAX, false);
        let db = Db::memory().unwrap();
        let table = db.table("t").unwrap();
        let mut write = db.begin_write().unwrap();
        for change in &changes {
            match *change {
                Change::Put(number, len) => write.put(&table, key(number), value(number, len)).unwrap(),
                Change::Delete(number) => write.delete(&table, key(number)).unwrap(),
                Change::DeleteRange(from, to) => write.delete_range(&table, key(from)..key(to)).unwrap(),
            }
        }
        let inside: Rows = write.range::<&[u8]>(&table, ..).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&inside, &whole);
        write.commit().unwrap();
        prop_assert_eq!(&now(&db, &table), &whole);
    }

    #[test]
    fn a_checkpoint_cannot_be_seen(changes in changes()) {
        let without = perform(&Db::memory().unwrap(), &changes, 3, false);
        prop_assert_eq!(perform(&Db::memory().unwrap(), &changes, 3, true), without);
    }

    #[test]
    fn puts_and_deletes_done_twice_are_done_once(changes in changes()) {
        let doubled: Vec<_> = changes.iter().flat_map(|change| [change.clone(), change.clone()]).collect();
        let once = perform(&Db::memory().unwrap(), &changes, 5, false);
        prop_assert_eq!(perform(&Db::memory().unwrap(), &doubled, 5, true), once);
    }

    #[test]
    fn transactions_on_different_keys_commute(one in changes(), two in changes()) {
        // Even keys and odd keys. A range of one key stays within its side.
        let side = |changes: &[Change], odd: u64| -> Vec<Change> {
            changes
                .iter()
                .map(|change| match *change {
                    Change::Put(k, len) => Change::Put(k * 2 + odd, len),
                    Change::Delete(k) => Change::Delete(k * 2 + odd),
                    Change::DeleteRange(k, _) => Change::DeleteRange(k * 2 + odd, k * 2 + odd + 1),
                })
                .collect()
        };
        let (one, two) = (side(&one, 0), side(&two, 1));
        let forth: Vec<_> = one.iter().chain(&two).cloned().collect();
        let back: Vec<_> = two.iter().chain(&one).cloned().collect();
        let forth = perform(&Db::memory().unwrap(), &forth, 4, true);
        prop_assert_eq!(perform(&Db::memory().unwrap(), &back, 4, false), forth);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_every_disk_backend_hold_the_same(changes in changes()) {
        let memory = perform(&Db::memory().unwrap(), &changes, 4, false);
        for backend in [Backend::Plain, Backend::Buffered, Backend::Auto] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            let db = small().backend(backend).open(&path).unwrap();
            prop_assert_eq!(&perform(&db, &changes, 4, false), &memory);
            let copied = dir.path().join("copy");
            copy(&path, &copied);
            drop(db);
            // What one backend wrote, another reads: after a stop, and after a copy.
            let other = if backend == Backend::Plain { Backend::Auto } else { Backend::Plain };
            for path in [path, copied] {
                let db = small().backend(other).open(path).unwrap();
                prop_assert_eq!(&now(&db, &db.open_table("t").unwrap()), &memory);
            }
        }
    }
}
