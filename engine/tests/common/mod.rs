//! What the tests of promises share: small databases, their whole content, and copies of their files.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses its own part of this"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use northstardb::{Backend, Db, Options, ReadTxn, Retention, Table, TxnId, WriteBatch};
use rand::Rng;
use rand::rngs::SmallRng;

/// What a table must hold.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Rows of a table.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A small delta and a small cache, so that checkpoints and evictions happen in small tests.
pub fn small() -> Options {
    Options::new()
        .backend(Backend::Plain)
        .memory_budget(16 << 20)
        .delta_bytes(256 << 10)
        .idle_after(std::time::Duration::from_secs(3600))
}

/// As [`small`], with every version kept, and small pages.
pub fn kept() -> Options {
    small().history(Retention::All).page_bytes(4096)
}

/// Everything in a table.
pub fn rows(read: &ReadTxn, table: &Table) -> Rows {
    read.range::<&[u8]>(table, ..)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// Everything in a table now.
pub fn now(db: &Db, table: &Table) -> Rows {
    rows(&db.begin_read().unwrap(), table)
}

/// A key that sorts by its number.
pub fn key(number: u64) -> Vec<u8> {
    format!("key/{number:08}").into_bytes()
}

/// Keys with zeros and shared beginnings, some of them as long as keys can be.
pub fn odd_key(number: u64) -> Vec<u8> {
    let many = usize::try_from(number).unwrap();
    match number % 5 {
        0 => number.to_be_bytes().to_vec(),
        1 => vec![0; many % 200],
        2 => [vec![1, 0], vec![0xff; many % 3], vec![0; many % 130]].concat(),
        3 => (0..1024 - many % 7)
            .map(|at| u8::from(at % 2 == 1))
            .collect(),
        _ => key(number),
    }
}

/// A value that follows from two numbers: `len` bytes that differ from those of any other `number`.
pub fn value(number: u64, len: usize) -> Vec<u8> {
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()[3]
        })
        .collect()
}

/// Commits keys `range`, each with a value of `len` bytes, in one durable batch.
pub fn load(db: &Db, table: &Table, range: std::ops::Range<u64>, len: usize) {
    let mut batch = WriteBatch::new();
    for number in range {
        batch.put(table, key(number), value(number, len));
    }
    db.commit(batch).unwrap();
}

/// Commits one row and says by which transaction.
pub fn put(db: &Db, table: &Table, key: &str, value: &[u8]) -> TxnId {
    let mut write = db.begin_write().unwrap();
    write.put(table, key, value).unwrap();
    write.commit().unwrap().txn_id
}

/// Commits a row of 200 bytes with that number and says by which transaction.
pub fn put_row(db: &Db, table: &Table, number: u64) -> TxnId {
    let mut write = db.begin_write().unwrap();
    write.put(table, key(number), value(number, 200)).unwrap();
    write.commit().unwrap().txn_id
}

/// The rows that [`load`] leaves.
pub fn loaded(range: std::ops::Range<u64>, len: usize) -> Rows {
    range
        .map(|number| (key(number), value(number, len)))
        .collect()
}

/// Copies a database's files, as a crash would leave them when nothing is in flight: no commit, and no checkpoint,
/// which a small delta or a long wait would start.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                // A log segment that is being made ready changes its name.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// Every file below a directory.
pub fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Changes one byte of a file.
pub fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x41], offset).unwrap();
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// One random transaction of fewer than `edits` edits, on the table and on its model; `any_key` gives the keys.
pub fn change(
    db: &Db,
    table: &Table,
    state: &mut State,
    rng: &mut SmallRng,
    (edits, any_key): (u32, impl Fn(&mut SmallRng) -> Vec<u8>),
) -> TxnId {
    let mut write = db.begin_write().unwrap();
    for _ in 0..rng.random_range(1..edits) {
        let at = any_key(rng);
        match rng.random_range(0..20) {
            0..12 => {
                // The longest takes pages of its own.
                let len = [3, 90, 700, 5000][rng.random_range(0..4)];
                let value = value(rng.random(), len);
                write.put(table, &at, &value).unwrap();
                state.insert(at, value);
            }
            12..18 => {
                write.delete(table, &at).unwrap();
                state.remove(&at);
            }
            _ => {
                let to = any_key(rng);
                let (from, to) = (at.clone().min(to.clone()), at.max(to));
                write.delete_range(table, &from[..]..&to[..]).unwrap();
                state.retain(|key, _| *key < from || *key >= to);
            }
        }
    }
    write.commit().unwrap().txn_id
}

/// Everything in a table, read from its end.
pub fn rows_backward(read: &ReadTxn, table: &Table) -> Rows {
    let backward = read.iter(table).unwrap().rev();
    let mut rows: Rows = backward.map(Result::unwrap).collect();
    rows.reverse();
    rows
}

/// Everything about a state: in both directions, by single keys and by many.
pub fn compare(read: &ReadTxn, table: &Table, state: &State, keys: u64, what: &str) {
    let expected: Vec<_> = state.clone().into_iter().collect();
    assert_eq!(rows(read, table), expected, "{what}");
    assert_eq!(rows_backward(read, table), expected, "{what}, backward");
    let mut seen = Vec::new();
    read.scan::<&[u8]>(table, .., |key, value| {
        seen.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, expected, "{what}, scanned");
    let all: Vec<_> = (0..keys).map(odd_key).collect();
    let many = read.multi_get(table, &all).unwrap();
    for (key, found) in all.iter().zip(many) {
        let expected = state.get(key).map(Vec::as_slice);
        assert_eq!(found.as_deref(), expected, "{what}, {key:02x?} of many");
        let one = read.get(table, key).unwrap();
        assert_eq!(one.as_deref(), expected, "{what}, {key:02x?}");
        // From the middle, both ways.
        let mut cursor = read.cursor(table).unwrap();
        let ahead = state.range(key.clone()..).next();
        let ahead = ahead.map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(cursor.seek(key).unwrap(), ahead, "{what}, from {key:02x?}");
        let before = state.range(..key.clone()).next_back();
        let before = before.map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(cursor.prev().unwrap(), before, "{what}, before {key:02x?}");
    }
}
