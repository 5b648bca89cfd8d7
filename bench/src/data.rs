//! The rows of [`crate::generator`] in an engine: checked when read, loaded when a row needs them.

use crate::error::{BenchError, Result};
use crate::target::{Db, Durability, Table, WriteBatch};

pub(crate) use crate::generator::*;

impl Rows {
    /// Fails unless `found` is a value of row `i`, of whatever version.
    pub(crate) fn check(self, i: u64, found: Option<&[u8]>) -> Result<()> {
        if self.is_value(i, found) {
            return Ok(());
        }
        Err(wrong(i, found))
    }
}

/// Kept out of the loop that calls it.
#[cold]
fn wrong(i: u64, found: Option<&[u8]>) -> BenchError {
    BenchError::Wrong {
        what: match found {
            None => format!("row {i} is missing"),
            Some(value) => format!("row {i} has another value ({} bytes)", value.len()),
        },
    }
}

/// Loads all rows in key order, `batch` a transaction, then merges them into pages. For setups: not timed.
pub(crate) fn load(db: &Db, table: &Table, rows: Rows, batch: u64) -> Result<()> {
    let mut next = 0;
    while next < rows.n {
        let end = rows.n.min(next + batch);
        let mut writes = WriteBatch::new();
        writes.durability(Durability::Buffered);
        for i in next..end {
            writes.put(table, rows.key(i), rows.value(i, 0));
        }
        db.commit(writes)?;
        next = end;
    }
    db.checkpoint()?;
    Ok(())
}
