//! Promise: of a table that is made without history nothing is kept, and whoever asks for its past is told so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{kept, rows};
use northstardb::{Error, TableOptions};

#[test]
fn a_table_without_history_costs_none_and_says_that_it_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let without = TableOptions::new().history(false);
    let db = kept().snapshot_held_bytes(0).open(dir.path()).unwrap();
    let table = db.table_with("scratch", without).unwrap();
    assert!(!table.keeps_history());
    assert!(db.table("other").unwrap().keeps_history());
    for (name, options) in [("scratch", TableOptions::new()), ("other", without)] {
        let refused = db.table_with(name, options);
        assert!(
            matches!(refused, Err(Error::InvalidOption { .. })),
            "{refused:?}"
        );
    }
    let put = |number: u32, value: &[u8]| {
        let mut txn = db.begin_write().unwrap();
        txn.put(&table, number.to_be_bytes(), value).unwrap();
        txn.commit().unwrap();
    };
    for number in 0..500 {
        put(number, &[1; 200]);
    }
    put(500, &[1; 100_000]);
    db.checkpoint().unwrap();
    let held = db.begin_read().unwrap();
    let before = held.txn_id();
    let versions = db.stats().unwrap().history_pages;
    for round in 2..6 {
        for number in 0..501 {
            put(number, &[round; 200]);
        }
        db.checkpoint().unwrap();
    }
    assert_eq!(db.stats().unwrap().history_pages, versions);
    let gone = |what: &str, answer: Result<(), Error>| {
        assert!(
            matches!(answer, Err(Error::NoHistory { .. })),
            "{what}: {answer:?}"
        );
    };
    let then = db.begin_read_at(before).unwrap();
    let key = 7_u32.to_be_bytes();
    gone("get", then.get(&table, key).map(drop));
    gone("multi_get", then.multi_get(&table, &[&key[..]]).map(drop));
    gone(
        "range",
        then.range::<&[u8]>(&table, ..)
            .unwrap()
            .next()
            .unwrap()
            .map(drop),
    );
    gone(
        "scan",
        then.scan::<&[u8]>(&table, .., |_, _| std::ops::ControlFlow::Continue(())),
    );
    gone("cursor", then.cursor(&table).unwrap().seek("").map(drop));
    gone("history", db.history(&table, key, ..).map(drop));
    gone(
        "diff",
        db.diff(&table, before, before, |_| {
            std::ops::ControlFlow::Continue(())
        }),
    );
    gone("digest", then.state_hash().map(drop));
    // Who has the state open reads it on, however much it keeps.
    assert_eq!(
        held.get(&table, key).unwrap().as_deref(),
        Some(&[1; 200][..])
    );
    assert_eq!(
        held.get(&table, 500_u32.to_be_bytes())
            .unwrap()
            .map(|value| value.len()),
        Some(100_000)
    );
    assert_eq!(rows(&held, &table).len(), 501);
    drop((held, then));
    assert_eq!(db.check().unwrap().faults, Vec::<String>::new());
    let digest = db.begin_read().unwrap().state_hash().unwrap();
    db.close().unwrap();
    let db = kept().open(dir.path()).unwrap();
    let table = db.open_table("scratch").unwrap();
    assert!(!table.keeps_history());
    assert_eq!(db.begin_read().unwrap().state_hash().unwrap(), digest);
    assert_eq!(db.state_hashes().unwrap().last().unwrap().1, digest);
    db.drop_table("scratch").unwrap();
    db.checkpoint().unwrap();
    assert_eq!(db.check().unwrap().faults, Vec::<String>::new());
}
