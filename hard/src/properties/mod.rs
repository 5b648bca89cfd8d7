//! Promises that hold whatever the work is, on the public interface alone. Spec: HD-006.
//!
//! Each property draws its own work from a seed, and compares two ways of coming to the same content, or one way with a
//! sorted map.

mod load;
mod views;
mod ways;

use std::collections::BTreeMap;
use std::path::Path;

use northstardb::{Backend, Db, Options, ReadTxn, Table, WriteBatch};

use crate::ops::{Fill, KeyStyle, key_bytes, value_bytes};
use crate::rng::Rng;
use crate::{During, Failure};

/// Something that always holds.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub promise: &'static str,
    /// Tries it once, in an empty directory. Says how many rows were compared.
    pub hold: fn(&mut Rng, &Path) -> Result<u64, Failure>,
}

/// All of them.
pub const PROPERTIES: &[Property] = &[
    Property {
        name: "batch_is_singles",
        promise: "one batch comes to the same as its changes one by one",
        hold: ways::batch_is_singles,
    },
    Property {
        name: "transaction_is_batch",
        promise: "one write transaction comes to the same as one batch",
        hold: ways::transaction_is_batch,
    },
    Property {
        name: "commute",
        promise: "transactions on different keys come to the same in either order",
        hold: ways::commute,
    },
    Property {
        name: "idempotent",
        promise: "puts, deletes and range deletes done twice are done once",
        hold: ways::idempotent,
    },
    Property {
        name: "checkpoint_invisible",
        promise: "a checkpoint cannot be seen",
        hold: ways::checkpoint_invisible,
    },
    Property {
        name: "crash_is_prefix",
        promise: "files copied after any commit open to the state after it",
        hold: ways::crash_is_prefix,
    },
    Property {
        name: "export_import",
        promise: "rows read out and stored in another database are the same rows",
        hold: ways::export_import,
    },
    Property {
        name: "backends_agree",
        promise: "memory and every disk backend hold the same, and each reads what another wrote",
        hold: ways::backends_agree,
    },
    Property {
        name: "snapshot_immutable",
        promise: "a snapshot shows its state until it is dropped, whatever is committed, merged or dropped",
        hold: views::snapshot_immutable,
    },
    Property {
        name: "time_travel",
        promise: "an earlier transaction that is still held reads as it was",
        hold: views::time_travel,
    },
    Property {
        name: "read_your_writes",
        promise: "a write transaction sees its own changes, also after going back to a savepoint",
        hold: views::read_your_writes,
    },
    Property {
        name: "scan_consistent",
        promise: "scans in both directions, ranges, gets, multi_get and first and last say the same",
        hold: views::scan_consistent,
    },
    Property {
        name: "isolation",
        promise: "threads that read while others move amounts always see the same sum",
        hold: views::isolation,
    },
    Property {
        name: "committers",
        promise: "commits of many threads are all there, each seen once acknowledged, and read alike by many from a cold cache",
        hold: load::committers,
    },
    Property {
        name: "large_batches",
        promise: "a batch larger than any buffer of the log is there, also after opening again",
        hold: load::large_batches,
    },
];

/// Tries a property with the work of one seed.
///
/// # Errors
/// If it does not hold, with the seed.
pub fn hold(property: &Property, seed: u64) -> Result<u64, Failure> {
    let dir = tempfile::tempdir().during("make a directory")?;
    (property.hold)(&mut Rng::new(seed).fork(60), dir.path()).map_err(|failure| {
        Failure::Broken(format!(
            "{}: {}\n  seed {seed}",
            property.name,
            crate::chain(&failure)
        ))
    })
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// One change.
#[derive(Debug, Clone, Copy)]
enum Change {
    Put(u32, Fill),
    Delete(u32),
    DeleteRange(u32, u32),
}

fn key(number: u32) -> Vec<u8> {
    key_bytes(KeyStyle::Short, number)
}

fn changes(rng: &mut Rng) -> Vec<Change> {
    let keys = rng.pick(&[5, 40, 300]);
    let longest = rng.pick(&[20, 100, 9_000]);
    let mut number = || u32::try_from(rng.below(keys)).unwrap_or(0);
    let mut all = Vec::new();
    let mut kinds = Rng::new(u64::from(number()) << 20 | u64::from(number()));
    for _ in 0..kinds.between(1, 60) {
        all.push(match kinds.below(10) {
            0..=6 => Change::Put(
                number(),
                Fill {
                    len: u32::try_from(kinds.below(longest)).unwrap_or(0),
                    seed: u32::try_from(kinds.below(1 << 30)).unwrap_or(0),
                },
            ),
            7..=8 => Change::Delete(number()),
            _ => {
                let from = number();
                Change::DeleteRange(from, from + u32::try_from(kinds.below(8)).unwrap_or(0))
            }
        });
    }
    all
}

fn add(batch: &mut WriteBatch, table: &Table, change: Change) {
    match change {
        Change::Put(number, fill) => batch.put(table, key(number), value_bytes(fill)),
        Change::Delete(number) => batch.delete(table, key(number)),
        Change::DeleteRange(from, to) => batch.delete_range(table, key(from)..key(to)),
    };
}

/// What a sorted map says.
fn apply(rows: &mut Rows, change: Change) {
    match change {
        Change::Put(number, fill) => drop(rows.insert(key(number), value_bytes(fill))),
        Change::Delete(number) => drop(rows.remove(&key(number))),
        Change::DeleteRange(from, to) => rows.retain(|k, _| *k < key(from) || *k >= key(to)),
    }
}

/// A small delta and a small cache, so that checkpoints and evictions happen in small databases.
fn small() -> Options {
    Options::new()
        .backend(Backend::Plain)
        .memory_budget(16 << 20)
        .delta_bytes(256 << 10)
}

/// Commits the changes in batches of `size`.
fn perform(db: &Db, all: &[Change], size: usize, checkpoints: bool) -> Result<(), Failure> {
    let table = db.table("t").during("table")?;
    for some in all.chunks(size) {
        let mut batch = WriteBatch::new();
        for change in some {
            add(&mut batch, &table, *change);
        }
        db.commit(batch).during("commit")?;
        if checkpoints {
            db.checkpoint().during("checkpoint")?;
        }
    }
    Ok(())
}

fn memory() -> Result<Db, Failure> {
    Db::memory().during("open in memory")
}

/// Everything in the table.
fn rows(db: &Db) -> Result<Rows, Failure> {
    let table = db.table("t").during("table")?;
    rows_in(&db.begin_read().during("begin_read")?, &table)
}

fn rows_in(read: &ReadTxn, table: &Table) -> Result<Rows, Failure> {
    let range = read.range::<&[u8]>(table, ..).during("range")?;
    range.collect::<northstardb::Result<Rows>>().during("range")
}

/// Rows of one way, against those of another.
fn same(what: &str, found: &Rows, expected: &Rows) -> Result<u64, Failure> {
    if found == expected {
        return Ok(expected.len() as u64);
    }
    let different = expected.iter().find(|(k, v)| found.get(*k) != Some(*v));
    let extra = found.keys().find(|k| !expected.contains_key(*k));
    Err(Failure::Broken(format!(
        "{what}: {} rows, expected {}; first missing or different {:?}, first extra {extra:?}",
        found.len(),
        expected.len(),
        different.map(|(k, _)| k)
    )))
}
