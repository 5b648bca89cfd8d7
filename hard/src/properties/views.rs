//! What readers see, and go on seeing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use northstardb::{Db, ReadTxn, Table, WriteBatch};

use super::{Change, Rows, add, apply, changes, key, memory, perform, rows_in, same, small};
use crate::ops::value_bytes;
use crate::rng::Rng;
use crate::{During, Failure};

pub(super) fn snapshot_immutable(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let db = small().memory().during("open in memory")?;
    perform(&db, &changes(rng), 5, rng.chance(50))?;
    let table = db.table("t").during("table")?;
    let held = db.begin_read().during("begin_read")?;
    let before = rows_in(&held, &table)?;
    let mut compared = 0;
    for _ in 0..3 {
        perform(&db, &changes(rng), 5, rng.chance(50))?;
        compared += same("a held snapshot", &rows_in(&held, &table)?, &before)?;
    }
    db.drop_table("t").during("drop_table")?;
    db.checkpoint().during("checkpoint")?;
    Ok(compared + same("a held snapshot", &rows_in(&held, &table)?, &before)?)
}

pub(super) fn time_travel(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let db = memory()?;
    let table = db.table("t").during("table")?;
    let mut then = Vec::new();
    let mut now = Rows::new();
    let mut commit = |change: Change| {
        let mut batch = WriteBatch::new();
        add(&mut batch, &table, change);
        apply(&mut now, change);
        let commit = db.commit(batch).during("commit")?;
        then.push((commit.txn_id, now.clone()));
        Ok::<(), Failure>(())
    };
    changes(rng).into_iter().try_for_each(&mut commit)?;
    let horizon = db.stats().during("stats")?.horizon_txn;
    let mut compared = 0;
    for (txn, expected) in then.iter().filter(|(txn, _)| *txn >= horizon) {
        let read = db.begin_read_at(*txn).during("begin_read_at")?;
        compared += same("an earlier transaction", &rows_in(&read, &table)?, expected)?;
    }
    Ok(compared)
}

pub(super) fn read_your_writes(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let db = memory()?;
    perform(&db, &changes(rng), 5, rng.chance(50))?;
    let table = db.table("t").during("table")?;
    let mut expected = rows_in(&db.begin_read().during("begin_read")?, &table)?;
    let mut write = db.begin_write().during("begin_write")?;
    let mut mark = (write.savepoint(), expected.clone());
    let mut compared = 0;
    for change in changes(rng) {
        match change {
            Change::Put(number, fill) => write.put(&table, key(number), value_bytes(fill)),
            Change::Delete(number) => write.delete(&table, key(number)),
            Change::DeleteRange(from, to) => write.delete_range(&table, key(from)..key(to)),
        }
        .during("change")?;
        apply(&mut expected, change);
        match rng.below(8) {
            0 => mark = (write.savepoint(), expected.clone()),
            1 => {
                write.rollback_to(&mark.0).during("rollback_to")?;
                expected = mark.1.clone();
            }
            _ => {}
        }
        let seen = write.range::<&[u8]>(&table, ..).during("range")?;
        let seen = seen
            .collect::<northstardb::Result<Rows>>()
            .during("range")?;
        compared += same("inside the transaction", &seen, &expected)?;
    }
    write.commit().during("commit")?;
    let after = rows_in(&db.begin_read().during("begin_read")?, &table)?;
    Ok(compared + same("after the commit", &after, &expected)?)
}

pub(super) fn scan_consistent(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let db = small().memory().during("open in memory")?;
    perform(&db, &changes(rng), 5, true)?;
    perform(&db, &changes(rng), 5, false)?;
    let table = db.table("t").during("table")?;
    let read = db.begin_read().during("begin_read")?;
    let forward = rows_in(&read, &table)?;
    let mut compared = by_keys(&read, &table, &forward)?;
    for _ in 0..8 {
        let number = |rng: &mut Rng| u32::try_from(rng.below(310)).unwrap_or(0);
        let (from, to) = (key(number(rng)), key(number(rng)));
        let range = read.range(&table, &from[..]..&to[..]).during("range")?;
        let found = range
            .collect::<northstardb::Result<Rows>>()
            .during("range")?;
        let inside = forward.iter().filter(|(k, _)| **k >= from && **k < to);
        let expected: Rows = inside.map(|(k, v)| (k.clone(), v.clone())).collect();
        compared += same("a range", &found, &expected)?;
        let range = read.range(&table, &from[..]..&to[..]).during("range")?;
        let back = range.rev().collect::<northstardb::Result<Vec<_>>>();
        let back = back.during("range, backward")?;
        if !back.is_sorted_by(|a, b| a.0 > b.0) {
            return Err(Failure::Broken("a reverse range does not fall".to_owned()));
        }
        compared += same("a reverse range", &back.into_iter().collect(), &expected)?;
    }
    Ok(compared)
}

/// Rows by their keys, one by one and together, and those at the ends.
fn by_keys(read: &ReadTxn, table: &Table, rows: &Rows) -> Result<u64, Failure> {
    let broken = |what: &str| Err(Failure::Broken(format!("{what} and a scan do not agree")));
    for (key, value) in rows {
        let got = read.get(table, key).during("get")?;
        if got.as_deref() != Some(&value[..]) {
            return broken("get");
        }
    }
    let absent = b"no such key".to_vec();
    let keys: Vec<&Vec<u8>> = rows.keys().chain([&absent]).collect();
    let many = read.multi_get(table, &keys).during("multi_get")?;
    let expected: Vec<Option<&Vec<u8>>> = keys.iter().map(|key| rows.get(*key)).collect();
    let agree = many.len() == expected.len()
        && many
            .iter()
            .zip(&expected)
            .all(|(found, expected)| found.as_deref() == expected.map(|value| &value[..]));
    if !agree {
        return broken("multi_get");
    }
    let first = read.first(table).during("first")?;
    let last = read.last(table).during("last")?;
    let same_end = |row: Option<(Vec<u8>, Vec<u8>)>, expected: Option<(&Vec<u8>, &Vec<u8>)>| {
        row.as_ref().map(|(k, v)| (k, v)) == expected
    };
    if !same_end(first, rows.first_key_value()) || !same_end(last, rows.last_key_value()) {
        return broken("first or last");
    }
    Ok(2 * rows.len() as u64)
}

/// Accounts, and what they hold together.
const ACCOUNTS: u32 = 12;
const AMOUNT: u64 = 100;

pub(super) fn isolation(rng: &mut Rng, _: &Path) -> Result<u64, Failure> {
    let db = small().memory().during("open in memory")?;
    let table = db.table("t").during("table")?;
    let mut batch = WriteBatch::new();
    for account in 0..ACCOUNTS {
        batch.put(&table, key(account), AMOUNT.to_le_bytes());
    }
    db.commit(batch).during("commit")?;
    let over = AtomicBool::new(false);
    let seeds = [rng.word(), rng.word()];
    let (db, table, over) = (&db, &table, &over);
    std::thread::scope(|scope| {
        let movers: Vec<_> = seeds
            .into_iter()
            .map(|seed| scope.spawn(move || (0..60).try_for_each(|_| transfer(db, table, seed))))
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut compared = 0;
                    while !over.load(Ordering::Relaxed) || compared == 0 {
                        compared += sum_is_the_same(db, table)?;
                    }
                    Ok::<u64, Failure>(compared)
                })
            })
            .collect();
        let broken = || Failure::Broken("a thread panicked".to_owned());
        let moved: Vec<_> = movers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        let mut compared = 0;
        for reader in readers {
            compared += reader.join().map_err(|_| broken())??;
        }
        for moved in moved {
            moved.map_err(|_| broken())??;
        }
        Ok(compared)
    })
}

/// Moves an amount between two accounts.
fn transfer(db: &Db, table: &Table, seed: u64) -> Result<(), Failure> {
    let mut write = db.begin_write().during("begin_write")?;
    let mut rng = Rng::new(seed ^ write_seed(&write, table)?);
    let account = |rng: &mut Rng| key(u32::try_from(rng.below(ACCOUNTS.into())).unwrap_or(0));
    let (from, to) = (account(&mut rng), account(&mut rng));
    let held = |value: Option<northstardb::Value<'_>>| {
        let bytes = value.as_deref().and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let amount = held(write.get(table, &from).during("get")?).min(rng.below(30));
    if from != to {
        let (less, more) = (
            held(write.get(table, &from).during("get")?) - amount,
            held(write.get(table, &to).during("get")?) + amount,
        );
        write.put(table, &from, less.to_le_bytes()).during("put")?;
        write.put(table, &to, more.to_le_bytes()).during("put")?;
    }
    write.commit().during("commit").map(drop)
}

/// Different at each transaction: what the accounts hold.
fn write_seed(write: &northstardb::WriteTxn, table: &Table) -> Result<u64, Failure> {
    let mut seed = 0_u64;
    for account in 0..ACCOUNTS {
        let value = write.get(table, key(account)).during("get")?;
        let first = value.as_deref().and_then(|bytes| bytes.first().copied());
        seed = seed
            .wrapping_mul(31)
            .wrapping_add(first.unwrap_or(0).into());
    }
    Ok(seed)
}

fn sum_is_the_same(db: &Db, table: &Table) -> Result<u64, Failure> {
    let read = db.begin_read().during("begin_read")?;
    let rows = rows_in(&read, table)?;
    let amounts = rows
        .values()
        .map(|value| value[..].try_into().map_or(0, u64::from_le_bytes));
    let sum: u64 = amounts.sum();
    if rows.len() != ACCOUNTS as usize || sum != AMOUNT * u64::from(ACCOUNTS) {
        return Err(Failure::Broken(format!(
            "{} accounts hold {sum} at {:?}",
            rows.len(),
            read.txn_id()
        )));
    }
    Ok(rows.len() as u64)
}
