//! Handles to tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{TableId, TxnId};
use crate::limits;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A named ordered map from bytes to bytes. Cheap to clone; belongs to the open database that made it.
///
/// A handle stays with its table when the table is renamed. Once the table is dropped, transactions that see the
/// drop answer [`Error::UnknownTable`]; older snapshots still read it.
#[derive(Debug, Clone)]
pub struct Table {
    id: TableId,
    name: Arc<str>,
    /// Which open database the handle belongs to.
    instance: u64,
    /// The transaction that dropped the table, `u64::MAX` while it lives. Shared by all handles of the table.
    dropped: Arc<AtomicU64>,
}

impl Table {
    /// The name under which the handle was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table's number: never reused, also after a drop.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id.get()
    }

    /// Whether superseded versions of its rows are kept, in a database that keeps history: see
    /// [`TableOptions::history`].
    #[must_use]
    pub fn keeps_history(&self) -> bool {
        self.id.keeps_history()
    }

    /// Whether both are handles of one table of one open database.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.instance == other.instance
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    pub(crate) fn table_id(&self) -> TableId {
        self.id
    }

    /// The table's id for a transaction of `instance` that sees everything up to `at`.
    pub(crate) fn resolve(&self, instance: u64, at: TxnId) -> Result<TableId> {
        // Relaxed is enough: whoever sees the dropping transaction visible sees this too.
        if self.instance == instance && at.get() < self.dropped.load(Ordering::Relaxed) {
            return Ok(self.id);
        }
        Err(Error::UnknownTable {
            name: self.name().to_owned(),
        })
    }

    /// Whether the table is known to be dropped.
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) != u64::MAX
    }

    /// Marks the table dropped from `txn` on.
    pub(crate) fn drop_from(&self, txn: TxnId) {
        self.dropped.store(txn.get(), Ordering::Relaxed);
    }

    /// Takes a drop back whose transaction did not commit.
    pub(crate) fn revive(&self) {
        self.dropped.store(u64::MAX, Ordering::Relaxed);
    }
}

/// How a table is made: [`Db::table_with`](crate::Db::table_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableOptions {
    pub(crate) history: bool,
}

impl TableOptions {
    /// As tables are made otherwise.
    #[must_use]
    pub const fn new() -> Self {
        Self { history: true }
    }

    /// Whether superseded versions of the table's rows are kept, in a database that keeps any
    /// ([`Options::history`](crate::Options::history)). For good: it cannot be changed later. Without them, what is
    /// superseded takes no room, and reading the table's past is [`Error::NoHistory`]. While such a table exists, snapshots
    /// cannot be moved to history and keep their pages
    /// ([`Options::snapshot_held_bytes`](crate::Options::snapshot_held_bytes)): so do not hold them for long.
    #[must_use]
    pub const fn history(mut self, kept: bool) -> Self {
        self.history = kept;
        self
    }
}

impl Default for TableOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Tables from which on those are looked for that have no handles any more.
const HANDLES_LOOKED_AT: usize = 1024;

/// The handles given out by one open database.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Tells this database's handles from another's.
    pub(crate) instance: u64,
    /// The id the next new table gets. Ids are never given twice, also when the creating transaction aborts.
    next_id: AtomicU32,
    handles: Mutex<Handles>,
}

/// What the handles of each table share.
#[derive(Debug)]
struct Handles {
    dropped: BTreeMap<TableId, Arc<AtomicU64>>,
    /// At so many, those that have no handles any more are looked for.
    look_at: usize,
}

impl Handles {
    /// Forgets tables that live and have no handles.
    fn forget_unused(&mut self) {
        self.dropped
            .retain(|_, at| Arc::strong_count(at) > 1 || at.load(Ordering::Relaxed) != u64::MAX);
        self.look_at = HANDLES_LOOKED_AT.max(2 * self.dropped.len());
    }
}

impl Tables {
    pub(crate) fn new(next: TableId) -> Self {
        static INSTANCES: AtomicU64 = AtomicU64::new(1);
        let next = next.max(TableId::FIRST_USER);
        Self {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            next_id: AtomicU32::new(next.get()),
            handles: Mutex::new(Handles {
                dropped: BTreeMap::new(),
                look_at: HANDLES_LOOKED_AT,
            }),
        }
    }

    /// An id for a new table. Writer only.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when all were given out.
    pub(crate) fn new_id(&self, options: TableOptions) -> Result<TableId> {
        let id = self.next_id.load(Ordering::Relaxed);
        check_len(
            "number of tables ever made",
            id as usize + 1,
            TableId::NUMBERS_MAX as usize,
        )?;
        self.next_id.store(id + 1, Ordering::Relaxed);
        let id = TableId::new(id);
        Ok(match options.history {
            true => id,
            false => id.without_history(),
        })
    }

    /// The id the next new table will get.
    pub(crate) fn next_id(&self) -> TableId {
        TableId::new(self.next_id.load(Ordering::Relaxed))
    }

    /// Ids below `next` were given out elsewhere. Writer only.
    pub(crate) fn raise_next(&self, next: TableId) {
        self.next_id.fetch_max(next.get(), Ordering::Relaxed);
    }

    /// Whether somebody has a handle of a table without history that is not dropped.
    pub(crate) fn any_without_history(&self) -> bool {
        let handles = self.handles.lock();
        // Their ids are above all others.
        let without = TableId::FIRST_USER.without_history()..;
        let mut tables = handles.dropped.range(without);
        tables.any(|(_, at)| at.load(Ordering::Relaxed) == u64::MAX && Arc::strong_count(at) > 1)
    }

    /// A handle to a table that exists.
    pub(crate) fn handle(&self, id: TableId, name: &str) -> Table {
        let mut handles = self.handles.lock();
        if handles.dropped.len() >= handles.look_at {
            handles.forget_unused();
        }
        let dropped = handles
            .dropped
            .entry(id)
            .or_insert_with(|| Arc::new(AtomicU64::new(u64::MAX)));
        Table {
            id,
            name: name.into(),
            instance: self.instance,
            dropped: Arc::clone(dropped),
        }
    }
}

/// Fails if a table that exists was made otherwise than `options` say.
pub(crate) fn made_so(table: Table, options: TableOptions) -> Result<Table> {
    if table.keeps_history() == options.history {
        return Ok(table);
    }
    Err(Error::InvalidOption {
        option: "history of the table",
        found: options.history.to_string(),
        expected: format!("{}, as the table was made", table.keeps_history()),
    })
}

/// Fails on a table name that is empty or too long.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::InvalidOption {
            option: "table name",
            found: "empty".to_owned(),
            expected: "at least one byte".to_owned(),
        });
    }
    check_len("table name", name.len(), limits::TABLE_NAME_BYTES_MAX)
}

/// Fails with [`Error::TooLarge`] beyond a limit.
pub(crate) fn check_len(what: &'static str, len: usize, limit: usize) -> Result<()> {
    if len <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        what,
        len: len as u64,
        limit: limit as u64,
    })
}

/// The row of table `NAMES` that describes a table. Spec: FF-020.
pub(crate) fn encode_entry(id: TableId) -> [u8; 8] {
    let [a, b, c, d] = id.get().to_le_bytes();
    // Four reserved bytes: flags of a later version; 0 means bytes to bytes.
    [a, b, c, d, 0, 0, 0, 0]
}

/// The id in a row of table `NAMES`.
pub(crate) fn decode_entry(name: &str, row: &[u8]) -> Result<TableId> {
    let id = match *row {
        [a, b, c, d, 0, 0, 0, 0] => Some(u32::from_le_bytes([a, b, c, d])),
        _ => None,
    };
    match id {
        Some(id)
            if id < limits::NARROW_IDS_MAX && TableId::new(id).number() >= TableId::FIRST_USER =>
        {
            Ok(TableId::new(id))
        }
        _ => Err(Error::Corrupt(crate::error::Corruption {
            file: "data",
            offset: None,
            detail: format!(
                "the row of table {name:?} has {} bytes, unknown flags or an impossible id, expected 8 bytes with flags 0",
                row.len()
            ),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_without_handles_are_forgotten_and_dropped_ones_are_not() {
        let tables = Tables::new(TableId::FIRST_USER);
        let id = |nth: usize| TableId::new(u32::try_from(nth).unwrap() + 16);
        let kept = tables.handle(id(0), "kept");
        tables.handle(id(1), "dropped").drop_from(TxnId::new(7));
        for nth in 2..3 * HANDLES_LOOKED_AT {
            tables.handle(id(nth), "t");
        }
        let known = tables.handles.lock().dropped.len();
        assert!(known <= HANDLES_LOOKED_AT, "{known}");
        // Both are what they were, whoever asks again.
        kept.drop_from(TxnId::new(9));
        let again = |nth, at| {
            tables
                .handle(id(nth), "t")
                .resolve(tables.instance, TxnId::new(at))
                .is_ok()
        };
        assert_eq!((again(0, 8), again(0, 9)), (true, false));
        assert_eq!((again(1, 6), again(1, 7)), (true, false));
    }

    #[test]
    fn a_name_of_a_system_table_or_of_an_impossible_id_is_damage() {
        let row = |id: u32| [id.to_le_bytes(), [0; 4]].concat();
        assert_eq!(decode_entry("t", &row(16)).unwrap(), TableId::FIRST_USER);
        let without = TableId::FIRST_USER.without_history();
        assert_eq!(decode_entry("t", &encode_entry(without)).unwrap(), without);
        assert!(!without.keeps_history() && without.was_given_out(TableId::new(17)));
        for bad in [
            row(0),
            row(1),
            row(15),
            row(1 << 30 | 15),
            row(1 << 31),
            row(u32::MAX),
            vec![16],
        ] {
            assert!(
                matches!(decode_entry("t", &bad), Err(Error::Corrupt(_))),
                "{bad:?}"
            );
        }
    }
}
