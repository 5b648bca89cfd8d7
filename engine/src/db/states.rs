//! Digests of states: of any, by reading it, and of those that checkpoints noted.
//!
//! Spec: SE-020.

use std::ops::ControlFlow;

use super::Db;
use super::read::ReadTxn;
use crate::error::{Corruption, Error, Result};
use crate::ids::{Generation, TableId, TxnId};
use crate::state::{Noted, StateHash};
use crate::txn::cursor::Cursor;
use crate::txn::snapshot::Snapshot;
use crate::txn::table::decode_entry;

impl ReadTxn {
    /// The digest of this state: of the names and ids of all tables, and of every key and value. It is the same wherever the
    /// same rows are, however they came there: in a copy, on another machine, after any number of checkpoints.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # let db = northstardb::Db::memory()?;
    /// # let table = db.table("t")?;
    /// let before = db.begin_read()?.state_hash()?;
    /// let mut txn = db.begin_write()?;
    /// txn.put(&table, "a", "1")?;
    /// assert_ne!(txn.state_hash()?, before);
    /// txn.delete(&table, "a")?;
    /// assert_eq!(txn.state_hash()?, before);
    /// # drop(txn); db.close() }
    /// ```
    ///
    /// Reads every row, about as fast as a scan does. It tells faults and damage, not forgery.
    ///
    /// # Errors
    /// [`Error::NoHistory`] in a state of the past with a table that has none, [`Error::Corrupt`], [`Error::Io`].
    pub fn state_hash(&self) -> Result<StateHash> {
        let mut state = StateHash::default();
        self.each_row(&[], |table, key, value| {
            state.add(table, key, value);
            ControlFlow::Continue(())
        })?;
        Ok(state)
    }

    /// Visits every row of this state in the order of tables and keys, until `visit` breaks: the names of tables, and the rows of
    /// users' tables and of `own` ones.
    pub(super) fn each_row(
        &self,
        own: &[TableId],
        mut visit: impl FnMut(TableId, &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut tables = own.to_vec();
        let mut names = Cursor::new(&self.snapshot, TableId::NAMES);
        let mut row = names.seek(&[])?;
        while let Some((name, entry)) = row {
            tables.push(decode_entry(&String::from_utf8_lossy(name), entry)?);
            if visit(TableId::NAMES, name, entry).is_break() {
                return Ok(());
            }
            row = names.next()?;
        }
        tables.sort_unstable();
        let mut goes_on = ControlFlow::Continue(());
        for table in tables {
            Cursor::new(&self.snapshot, table).scan(&[], None, |key, value| {
                goes_on = visit(table, key, value);
                goes_on
            })?;
            if goes_on.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Db {
    /// The digests that checkpoints noted, each with the transaction after which it was the state's, rising. They are noted
    /// while history is kept, and kept as long as it is; each follows from the one before by what was changed, so that
    /// together they say what the pages held at any time since.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    pub fn state_hashes(&self) -> Result<Vec<(TxnId, StateHash)>> {
        let newest = self.begin_read()?;
        let mut states = Vec::new();
        let mut cursor = Cursor::new(&newest.snapshot, TableId::STATES);
        let mut row = cursor.seek(&[])?;
        while let Some((key, value)) = row {
            let (txn, noted) = decode(key, value)?;
            states.push((txn, noted.state));
            row = cursor.next()?;
        }
        Ok(states)
    }
}

/// A generation whose pages, and those of all before it, hold nothing that came after `txn`. Zero, which no page has, if none is
/// known.
pub(super) fn generation_at(snapshot: &Snapshot, txn: TxnId) -> Result<Generation> {
    let mut cursor = Cursor::new(snapshot, TableId::STATES);
    match cursor.seek_before(Some(&txn.next().get().to_be_bytes()))? {
        Some((key, value)) => {
            let (_, noted) = decode(key, value)?;
            Ok(noted.generation)
        }
        None => Ok(Generation::new(0)),
    }
}

fn decode(key: &[u8], value: &[u8]) -> Result<(TxnId, Noted)> {
    let txn = key.try_into().map(u64::from_be_bytes).map(TxnId::new);
    match (txn, Noted::decode(value)) {
        (Ok(txn), Some(noted)) => Ok((txn, noted)),
        (_, _) => Err(Error::Corrupt(Corruption {
            file: "data",
            offset: None,
            detail: format!(
                "the table of states has a row of {} and {} bytes, expected 8 and 16 or 20",
                key.len(),
                value.len()
            ),
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use northstar_io::sim::{Fault, FaultPlan, Image, Rule, SimDisk, SimOptions, What};

    use crate::db::batch::WriteBatch;
    use crate::db::open::open_in;
    use crate::db::options::Options;
    use crate::db::world::World;
    use crate::retention::Retention;

    #[test]
    fn a_device_that_does_not_read_for_a_while_leaves_the_digest_right() {
        let dir = Path::new("disk/db");
        let options = Options::new().history(Retention::All).checked().unwrap();
        let open = |disk: &Arc<SimDisk>| {
            open_in(&options, dir, World::of(Arc::<SimDisk>::clone(disk))).unwrap()
        };
        let put = |db: &crate::Db, byte: u8| {
            let mut batch = WriteBatch::new();
            batch.put(&db.table("t")?, "k", vec![byte; 100_000]);
            db.commit(batch)
        };
        let disk = SimDisk::new(SimOptions::new(Image::with_dir(dir)));
        let db = open(&disk);
        put(&db, 1).unwrap();
        db.close().unwrap();
        let image = disk.image();
        let mut refused = 0;
        for after in 0..60 {
            // One reading more is tried where one fails.
            let rule = |after| Rule {
                what: What::Read,
                file: Some("data"),
                after,
                sticky: false,
                fault: Fault::Error(5),
            };
            let disk = SimDisk::new(SimOptions {
                faults: FaultPlan {
                    rules: vec![rule(after), rule(after + 1)],
                    ..FaultPlan::default()
                },
                ..SimOptions::new(image.clone())
            });
            let opened = open_in(&options, dir, World::of(Arc::<SimDisk>::clone(&disk)));
            if let Ok(db) = opened {
                let done = put(&db, 2).and_then(|_| db.checkpoint());
                refused += u32::from(done.is_err());
            }
            let db = open(&SimDisk::new(SimOptions::new(disk.image())));
            db.checkpoint().unwrap();
            assert_eq!(db.check().unwrap().faults, [""; 0], "after {after} reads");
        }
        assert!(refused > 0);
    }
}
