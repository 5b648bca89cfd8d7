//! Performs random work on the engine, knowing nothing of the model.
//!
//! Table handles are tracked here by name, so that what a transaction does never depends on what a reader would see:
//! a buffered commit may create a table that readers do not see yet.

use std::collections::BTreeMap;
use std::ops::Bound;

use northstardb::{
    Commit, CommitHandle, Db, Durability, Error, ReadTxn, Table, TableOptions, WriteBatch, WriteTxn,
};

use crate::model::{NEVER_STORED, Outcome, edge_bytes};
use crate::ops::{Edit, End, Expect, KeyStyle, Txn, Way, key_bytes, table_name, value_bytes};
use crate::{During, Failure};

/// Table handles by name.
pub type Handles = BTreeMap<String, Table>;

/// The tables of a state, by the names they have in it.
///
/// # Errors
/// The engine's; a table that is listed and cannot be opened is one.
pub fn tables_of(read: &ReadTxn) -> Result<Handles, Failure> {
    let names = read.tables().during("list tables")?;
    let open = |name: String| {
        let table = read.open_table(&name).during("open a listed table")?;
        Ok((name, table))
    };
    names.into_iter().map(open).collect()
}

/// What a transaction came to.
#[derive(Debug)]
pub enum Ended {
    /// Committed.
    Committed(Commit),
    /// Handed over; the outcome is still to come.
    Pending(CommitHandle),
    /// Given up.
    Aborted,
}

/// A database and the tables known in it.
#[derive(Debug)]
pub struct Executor {
    /// The database.
    pub db: Db,
    /// Its tables.
    pub handles: Handles,
    style: KeyStyle,
    /// Of some tables no history is kept.
    pub unkept: bool,
}

/// Looks on while a transaction runs: called after each edit with what it came to.
pub type Watch<'w> =
    &'w mut dyn FnMut(&WriteTxn, &Handles, usize, &Edit, Outcome) -> Result<(), Failure>;

impl Executor {
    /// Takes over an open database.
    ///
    /// # Errors
    /// When the engine cannot list its tables.
    pub fn new(db: Db, style: KeyStyle) -> Result<Self, Failure> {
        let handles = tables_of(&db.begin_read().during("begin_read")?)?;
        Ok(Self {
            db,
            handles,
            style,
            unkept: false,
        })
    }

    /// Makes a table, or opens it if it was made before, under another name perhaps.
    fn make(&self, write: &mut WriteTxn, slot: u8) -> Result<Table, Failure> {
        let options = TableOptions::new().history(!self.unkept || slot % 3 != 2);
        match write.table_with(&table_name(slot), options) {
            Err(Error::InvalidOption { .. }) => write.table(&table_name(slot)),
            made => made,
        }
        .during("make a table")
    }

    /// Performs one transaction. `watch` sees exclusive transactions after each edit; `finish` adds to any
    /// transaction just before it commits.
    ///
    /// # Errors
    /// When the engine fails, or when `watch` does.
    pub fn run(
        &mut self,
        txn: &Txn,
        watch: Watch<'_>,
        counter: Option<(&Table, &[u8])>,
    ) -> Result<Ended, Failure> {
        match txn.way {
            Way::Exclusive => self.exclusive(txn, watch, counter),
            Way::Batch => {
                let batch = self.batch(txn, counter);
                self.db
                    .commit(batch)
                    .map(Ended::Committed)
                    .during("commit a batch")
            }
            Way::Submit => {
                let batch = self.batch(txn, counter);
                self.db
                    .submit(batch)
                    .map(Ended::Pending)
                    .during("submit a batch")
            }
        }
    }

    fn exclusive(
        &mut self,
        txn: &Txn,
        watch: Watch<'_>,
        counter: Option<(&Table, &[u8])>,
    ) -> Result<Ended, Failure> {
        let mut write = self.db.begin_write().during("begin_write")?;
        let mut handles = self.handles.clone();
        let mut marks = Vec::new();
        for (at, edit) in txn.edits.iter().enumerate() {
            let outcome = match edit {
                Edit::Savepoint => {
                    marks.push((write.savepoint(), handles.clone()));
                    Outcome::Done
                }
                Edit::Rollback { pick } if !marks.is_empty() => {
                    marks.truncate(*pick as usize % marks.len() + 1);
                    if let Some((mark, then)) = marks.last() {
                        write.rollback_to(mark).during("rollback_to")?;
                        handles = then.clone();
                    }
                    Outcome::Done
                }
                Edit::Rollback { .. } => Outcome::Done,
                Edit::Put { .. }
                | Edit::Delete { .. }
                | Edit::DeleteRange { .. }
                | Edit::Cas { .. }
                | Edit::Create { .. }
                | Edit::Drop { .. }
                | Edit::Rename { .. } => self.edit(&mut write, &mut handles, edit)?,
            };
            watch(&write, &handles, at, edit, outcome)?;
        }
        if let Some((table, value)) = counter {
            write
                .put(table, COUNTER_KEY, value)
                .during("put the counter")?;
        }
        let durability = match txn.end {
            End::Durable => Durability::Durable,
            End::Buffered => Durability::Buffered,
            End::Abort => {
                write.abort();
                return Ok(Ended::Aborted);
            }
        };
        let commit = write.commit_with(durability).during("commit")?;
        self.handles = handles;
        Ok(Ended::Committed(commit))
    }

    fn edit(
        &self,
        write: &mut WriteTxn,
        handles: &mut Handles,
        edit: &Edit,
    ) -> Result<Outcome, Failure> {
        let style = self.style;
        let mut table = |write: &mut WriteTxn, slot: u8| -> Result<Table, Failure> {
            let name = table_name(slot);
            if let Some(known) = handles.get(&name) {
                return Ok(known.clone());
            }
            let made = self.make(write, slot)?;
            handles.insert(name, made.clone());
            Ok(made)
        };
        match *edit {
            Edit::Put { slot, key, value } => {
                let table = table(write, slot)?;
                write
                    .put(&table, key_bytes(style, key), value_bytes(value))
                    .during("put")?;
            }
            Edit::Delete { slot, key } => {
                let table = table(write, slot)?;
                write
                    .delete(&table, key_bytes(style, key))
                    .during("delete")?;
            }
            Edit::DeleteRange { slot, from, to } => {
                let table = table(write, slot)?;
                write
                    .delete_range(&table, bounds(style, from, to))
                    .during("delete_range")?;
            }
            Edit::Cas {
                slot,
                key,
                expect,
                new,
            } => {
                let table = table(write, slot)?;
                let key = key_bytes(style, key);
                let current = write
                    .get(&table, &key)
                    .during("get before cas")?
                    .map(|v| v.to_vec());
                let expected = match expect {
                    Expect::Current => current.as_deref(),
                    Expect::Wrong => Some(NEVER_STORED),
                    Expect::Absent => None,
                };
                let new = new.map(value_bytes);
                let swapped = write
                    .compare_and_swap(&table, &key, expected, new.as_deref())
                    .during("compare_and_swap")?;
                return Ok(Outcome::Swapped(swapped));
            }
            Edit::Create { slot } => {
                let made = self.make(write, slot)?;
                handles.insert(table_name(slot), made);
            }
            Edit::Drop { slot } => match write.drop_table(&table_name(slot)) {
                Ok(()) => drop(handles.remove(&table_name(slot))),
                Err(Error::UnknownTable { .. }) => return Ok(Outcome::Refused),
                Err(other) => return Err(other).during("drop_table"),
            },
            Edit::Rename { from, to } => {
                match write.rename_table(&table_name(from), &table_name(to)) {
                    Ok(()) => {
                        handles.remove(&table_name(from));
                        let moved = write
                            .table(&table_name(to))
                            .during("find a renamed table")?;
                        handles.insert(table_name(to), moved);
                    }
                    Err(Error::UnknownTable { .. } | Error::TableExists { .. }) => {
                        return Ok(Outcome::Refused);
                    }
                    Err(other) => return Err(other).during("rename_table"),
                }
            }
            Edit::Savepoint | Edit::Rollback { .. } => {}
        }
        Ok(Outcome::Done)
    }

    fn batch(&self, txn: &Txn, counter: Option<(&Table, &[u8])>) -> WriteBatch {
        let style = self.style;
        let mut batch = WriteBatch::new();
        for edit in &txn.edits {
            let (Edit::Put { slot, .. }
            | Edit::Delete { slot, .. }
            | Edit::DeleteRange { slot, .. }) = edit
            else {
                continue;
            };
            let Some(table) = self.handles.get(&table_name(*slot)) else {
                continue;
            };
            if let Edit::Put { key, value, .. } = edit {
                batch.put(table, key_bytes(style, *key), value_bytes(*value));
            } else if let Edit::Delete { key, .. } = edit {
                batch.delete(table, key_bytes(style, *key));
            } else if let Edit::DeleteRange { from, to, .. } = edit {
                batch.delete_range(table, bounds(style, *from, *to));
            }
        }
        if let Some((table, value)) = counter {
            batch.put(table, COUNTER_KEY, value);
        }
        batch.durability(match txn.end {
            End::Buffered => Durability::Buffered,
            End::Durable | End::Abort => Durability::Durable,
        });
        batch
    }
}

/// Under this key a counted transaction says which one it is.
pub const COUNTER_KEY: &[u8] = b"last";

fn bounds(style: KeyStyle, from: Bound<u32>, to: Bound<u32>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (edge_bytes(style, from), edge_bytes(style, to))
}

/// The reads that snapshots and write transactions have in common.
pub trait View {
    /// One value.
    ///
    /// # Errors
    /// The engine's.
    fn value(&self, table: &Table, key: &[u8]) -> northstardb::Result<Option<Vec<u8>>>;
    /// The same by `get_with` and `contains`; the flag is what `contains` said.
    ///
    /// # Errors
    /// The engine's.
    fn value_with(&self, table: &Table, key: &[u8])
    -> northstardb::Result<(Option<Vec<u8>>, bool)>;
    /// Many values.
    ///
    /// # Errors
    /// The engine's.
    fn values(&self, table: &Table, keys: &[Vec<u8>]) -> northstardb::Result<Vec<Option<Vec<u8>>>>;
    /// Rows of a range. `turns` says from which end each next row is taken, `true` from the front; it is repeated.
    ///
    /// # Errors
    /// The engine's.
    fn rows(
        &self,
        table: &Table,
        from: &Bound<Vec<u8>>,
        to: &Bound<Vec<u8>>,
        turns: &[bool],
    ) -> northstardb::Result<(Pairs, Pairs)>;
    /// Rows of a range by `scan`, up to `most`.
    ///
    /// # Errors
    /// The engine's.
    fn scanned(
        &self,
        table: &Table,
        from: &Bound<Vec<u8>>,
        to: &Bound<Vec<u8>>,
        most: usize,
    ) -> northstardb::Result<Pairs>;
    /// Rows that start with a prefix.
    ///
    /// # Errors
    /// The engine's.
    fn prefixed(&self, table: &Table, prefix: &[u8]) -> northstardb::Result<Pairs>;
    /// Up to `most` rows from the first at or after `key`, by cursor, forward or backward.
    ///
    /// # Errors
    /// The engine's.
    fn walked(
        &self,
        table: &Table,
        key: &[u8],
        forward: bool,
        most: usize,
    ) -> northstardb::Result<Pairs>;
    /// First and last row.
    ///
    /// # Errors
    /// The engine's.
    fn ends(&self, table: &Table) -> northstardb::Result<(Option<Pair>, Option<Pair>)>;
    /// Names of all tables, sorted.
    ///
    /// # Errors
    /// The engine's.
    fn names(&self) -> northstardb::Result<Vec<String>>;
}

/// A row.
pub type Pair = (Vec<u8>, Vec<u8>);
/// Rows.
pub type Pairs = Vec<Pair>;

macro_rules! view {
    ($txn:ty) => {
        impl View for $txn {
            fn value(&self, table: &Table, key: &[u8]) -> northstardb::Result<Option<Vec<u8>>> {
                Ok(self.get(table, key)?.map(|value| value.to_vec()))
            }

            fn value_with(
                &self,
                table: &Table,
                key: &[u8],
            ) -> northstardb::Result<(Option<Vec<u8>>, bool)> {
                let value = self.get_with(table, key, |value| value.map(<[u8]>::to_vec))?;
                Ok((value, self.contains(table, key)?))
            }

            fn values(
                &self,
                table: &Table,
                keys: &[Vec<u8>],
            ) -> northstardb::Result<Vec<Option<Vec<u8>>>> {
                let values = self.multi_get(table, keys)?;
                Ok(values
                    .iter()
                    .map(|value| value.as_ref().map(|value| value.to_vec()))
                    .collect())
            }

            fn rows(
                &self,
                table: &Table,
                from: &Bound<Vec<u8>>,
                to: &Bound<Vec<u8>>,
                turns: &[bool],
            ) -> northstardb::Result<(Pairs, Pairs)> {
                let mut range = self.range(table, (from.clone(), to.clone()))?;
                let (mut front, mut back) = (Pairs::new(), Pairs::new());
                for &forward in turns.iter().cycle() {
                    let row = if forward {
                        range.next()
                    } else {
                        range.next_back()
                    };
                    let Some(row) = row else { break };
                    if forward {
                        front.push(row?)
                    } else {
                        back.push(row?)
                    }
                }
                if let Some(row) = range.next().or_else(|| range.next_back()) {
                    front.push(row?);
                    front.push((b"a finished range went on".to_vec(), Vec::new()));
                }
                Ok((front, back))
            }

            fn scanned(
                &self,
                table: &Table,
                from: &Bound<Vec<u8>>,
                to: &Bound<Vec<u8>>,
                most: usize,
            ) -> northstardb::Result<Pairs> {
                let mut rows = Pairs::new();
                self.scan(table, (from.clone(), to.clone()), |key, value| {
                    rows.push((key.to_vec(), value.to_vec()));
                    if rows.len() == most {
                        std::ops::ControlFlow::Break(())
                    } else {
                        std::ops::ControlFlow::Continue(())
                    }
                })?;
                Ok(rows)
            }

            fn prefixed(&self, table: &Table, prefix: &[u8]) -> northstardb::Result<Pairs> {
                self.prefix(table, prefix)?.collect()
            }

            fn walked(
                &self,
                table: &Table,
                key: &[u8],
                forward: bool,
                most: usize,
            ) -> northstardb::Result<Pairs> {
                let mut cursor = self.cursor(table)?;
                let mut rows = Pairs::new();
                let mut row = cursor
                    .seek(key)?
                    .map(|(key, value)| (key.to_vec(), value.to_vec()));
                while let Some(found) = row
                    && rows.len() < most
                {
                    rows.push(found);
                    let next = if forward {
                        cursor.next()?
                    } else {
                        cursor.prev()?
                    };
                    row = next.map(|(key, value)| (key.to_vec(), value.to_vec()));
                }
                Ok(rows)
            }

            fn ends(&self, table: &Table) -> northstardb::Result<(Option<Pair>, Option<Pair>)> {
                Ok((self.first(table)?, self.last(table)?))
            }

            fn names(&self) -> northstardb::Result<Vec<String>> {
                let mut names: Vec<String> = self.tables()?;
                names.sort();
                Ok(names)
            }
        }
    };
}

view!(ReadTxn);
view!(WriteTxn);
