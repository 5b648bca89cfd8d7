//! The golden database that holds every kind of structure.

use std::path::Path;

use northstardb::{Db, Table, WriteBatch};

use super::{Rows, copy};
use crate::ops::{Fill, value_bytes};
use crate::{During, Failure};

/// Tables with one row each: the trees of names and of roots have branches.
const MANY: u32 = 130;

fn many(number: u32) -> String {
    format!("one of many tables with a rather long name, number {number:03}")
}

/// Keys that share much with their neighbours and little with the rest: separators are long, and the tree is high.
fn deep_key(number: u32) -> Vec<u8> {
    let (family, member) = (number / 8, number % 8);
    let letter = b'a' + u8::try_from(family).unwrap_or(0);
    let mut key = vec![letter; 500];
    key.extend_from_slice(format!("{member}").as_bytes());
    key
}

fn fill(len: u32, seed: u32) -> Vec<u8> {
    value_bytes(Fill { len, seed })
}

fn deep(numbers: std::ops::Range<u32>) -> Rows {
    let row = |number| (deep_key(number), fill(700, number));
    numbers.map(row).collect()
}

fn large() -> Rows {
    let row = |len| (format!("{len:06}").into_bytes(), fill(len, len));
    [0, 1_024, 1_025, 4_032, 4_033, 30_000].map(row).into()
}

fn small(numbers: std::ops::Range<u32>) -> Rows {
    let row = |number: u32| {
        (
            format!("{number:04}").into_bytes(),
            fill(number % 40, number),
        )
    };
    numbers.map(row).collect()
}

/// What is in it in the end.
pub(super) fn tables() -> Vec<(String, Rows)> {
    let mut tables = vec![
        ("deep".to_owned(), deep(8..88)),
        ("large".to_owned(), large()),
        (
            "small".to_owned(),
            [small(0..100), small(150..400), small(900..901)].concat(),
        ),
        ("tail".to_owned(), tail()),
    ];
    tables.extend((1..MANY).map(|number| (many(number), small(number..number + 1))));
    tables.sort();
    tables
}

fn put(db: &Db, table: &Table, rows: Rows) -> Result<(), Failure> {
    let mut batch = WriteBatch::new();
    for (key, value) in rows {
        batch.put(table, key, value);
    }
    batch.tag(b"golden");
    db.commit(batch).during("commit").map(drop)
}

/// Makes it, as [`super::Content::write`] says.
pub(super) fn write(dir: &Path, to: &Path) -> Result<(), Failure> {
    let options = super::options()
        .page_bytes(4096)
        .log_segment_bytes(64 << 10);
    let db = options.open(dir).during("create")?;
    let table = |name: &str| db.table(name).during("create a table");
    for number in 0..MANY {
        put(&db, &table(&many(number))?, small(number..number + 1))?;
    }
    let (deep_table, small_table) = (table("deep")?, table("small")?);
    put(&db, &deep_table, deep(0..96))?;
    put(&db, &small_table, small(0..500))?;
    put(&db, &table("large")?, large())?;
    db.checkpoint().during("checkpoint")?;
    // Again, so that pages are free.
    put(&db, &deep_table, deep(0..96))?;
    db.checkpoint().during("checkpoint")?;
    // From here on in the log only: every operation, and a record over several segments.
    db.drop_table(&many(0)).during("drop a table")?;
    let mut batch = WriteBatch::new();
    batch.delete_range(&deep_table, ..deep_key(8));
    batch.delete_range(&deep_table, deep_key(88)..);
    batch.delete_range(&small_table, b"0100".to_vec()..b"0150".to_vec());
    batch.delete_range(&small_table, b"0400".to_vec()..);
    batch.put(&small_table, b"gone", b"deleted below");
    batch.delete(&small_table, b"gone");
    db.commit(batch).during("commit")?;
    put(&db, &table("tail")?, tail())?;
    put(&db, &small_table, small(900..901))?;
    copy(dir, to, None)?;
    db.close().during("close")
}

fn tail() -> Rows {
    vec![(b"crosses segments".to_vec(), fill(90_000, 7))]
}
