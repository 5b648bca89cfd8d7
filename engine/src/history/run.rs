//! The runs there are, and the table that names them.
//!
//! Spec: FF-022.

use std::ops::Bound;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::key;
use crate::format::leaf::RowValue;
use crate::format::meta::{ROOT_BYTES, TreeRoot};
use crate::format::page::PageError;
use crate::ids::{TableId, TxnId};
use crate::limits::{IDS_MAX, PAGES_MAX};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Cursor, CursorRow};

/// One run: superseded versions, in one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its tree.
    pub(crate) tree: TreeRoot,
    /// That of its filter, if it has one.
    pub(crate) filter: Option<TreeRoot>,
    /// Its versions ended at or before this transaction.
    pub(crate) to: TxnId,
    /// Tells runs of one checkpoint apart.
    pub(crate) number: u64,
    /// Its pages, those of its filter and of large values written for it included.
    pub(crate) pages: u64,
    /// Wall clock when it was written.
    pub(crate) made_ns: u64,
}

/// [`Run`] as stored, but for its key. Torn by a crash: no, the leaf's checksum covers it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredRun {
    tree: [u8; ROOT_BYTES],
    pages: U64,
    made_ns: U64,
}

/// Bytes of a run's row without a filter; the root of that follows if there is one.
const ROW_BYTES: usize = size_of::<StoredRun>();
/// Bytes of a run's key in the table of runs.
const KEY_BYTES: usize = 16;

impl Run {
    /// The key of its row in the table of runs: what it ends with, then its number.
    pub(crate) fn key(&self) -> [u8; KEY_BYTES] {
        (u128::from(self.to.get()) << 64 | u128::from(self.number)).to_be_bytes()
    }

    /// Its row in the table of runs.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = StoredRun {
            tree: self.tree.encode(),
            pages: self.pages.into(),
            made_ns: self.made_ns.into(),
        };
        let filter = self.filter.map(|filter| filter.encode());
        [
            stored.as_bytes(),
            filter.as_ref().map_or(&[], |filter| &filter[..]),
        ]
        .concat()
    }

    fn decode(row: &CursorRow<'_>) -> Option<Self> {
        let key = u128::from_be_bytes(row.key.try_into().ok()?);
        let RowValue::Inline(value) = row.value else {
            return None;
        };
        let (stored, filter) = value.split_at_checked(ROW_BYTES)?;
        let stored = StoredRun::ref_from_bytes(stored).ok()?;
        let filter = match filter {
            [] => None,
            root => Some(TreeRoot::decode(root)?),
        };
        let number = u64::try_from(key & u128::from(u64::MAX)).ok()?;
        if stored.pages.get() >= PAGES_MAX || number >= IDS_MAX {
            return None;
        }
        Some(Self {
            tree: TreeRoot::decode(&stored.tree)?,
            filter,
            to: TxnId::new(u64::try_from(key >> 64).ok()?),
            number,
            pages: stored.pages.get(),
            made_ns: stored.made_ns.get(),
        })
    }
}

/// What is known of the past.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// In the order of what they end with.
    pub(crate) runs: Vec<Run>,
    /// The oldest transaction whose state can be read.
    pub(crate) horizon: TxnId,
}

impl History {
    /// The runs that may hold versions seen at `at`, oldest first.
    pub(crate) fn seen_at(&self, at: TxnId) -> &[Run] {
        let first = self.runs.partition_point(|run| run.to <= at);
        self.runs.get(first..).unwrap_or_default()
    }

    /// Adds a run in its place.
    pub(crate) fn add(&mut self, run: Run) {
        let place = self.runs.partition_point(|other| other.key() < run.key());
        self.runs.insert(place, run);
    }

    /// A number no run has.
    pub(crate) fn next_number(&self) -> u64 {
        let numbers = self.runs.iter().map(|run| run.number);
        numbers.max().map_or(0, |highest| highest.saturating_add(1))
    }
}

/// Reads the table of runs. The error of a row that is none is its key.
///
/// # Errors
/// A page that cannot be read.
pub(crate) fn load<P: PageRead>(
    pages: &P,
    table: Option<&TreeRoot>,
) -> Result<Result<Vec<Run>, Vec<u8>>, PageError> {
    let mut runs = Vec::new();
    let mut cursor = Cursor::new(pages, table.map(|root| root.page), Class::Point);
    cursor.seek(Bound::Unbounded)?;
    while let Some(row) = cursor.row() {
        match Run::decode(&row) {
            Some(run) => runs.push(run),
            None => return Ok(Err(row.key.to_vec())),
        }
        cursor.next()?;
    }
    Ok(Ok(runs))
}

/// What is wrong with a row of `run`, if anything.
pub(crate) fn check_row(run: &Run, row: &CursorRow<'_>, scratch: &mut Vec<u8>) -> Option<String> {
    let Some((packed, to)) = key::split(row.key) else {
        return Some(format!("a key of {} bytes", row.key.len()));
    };
    if !key::unpack(packed, scratch) {
        return Some(format!("a key that is not packed: {packed:02x?}"));
    }
    let table = key::table_of(packed).unwrap_or_default();
    let is_users = table >= TableId::FIRST_USER && table.keeps_history();
    if table != TableId::NAMES && !is_users {
        return Some(format!("a version of {table:?}"));
    }
    if row.txn >= to || to > run.to {
        return Some(format!(
            "a version from {} to {to} in a run that ends with {}",
            row.txn, run.to
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(to: u64, number: u64) -> Run {
        let tree = TreeRoot {
            page: crate::ids::PageRef {
                id: crate::ids::PageId::new(9),
                checksum: 1,
                generation: crate::ids::Generation::new(2),
            },
            level: 1,
            rows: 3,
        };
        Run {
            tree,
            filter: None,
            to: TxnId::new(to),
            number,
            pages: 4,
            made_ns: 5,
        }
    }

    #[test]
    fn a_run_comes_back_from_its_row() {
        let run = run(77, 1 << 40);
        let (key, value) = (run.key(), run.encode());
        let row = |key, value| CursorRow {
            key,
            txn: TxnId::new(1),
            value: RowValue::Inline(value),
        };
        assert_eq!(Run::decode(&row(&key, &value)), Some(run));
        let filter = Some(TreeRoot {
            rows: 2,
            ..run.tree
        });
        let filtered = Run { filter, ..run };
        let longer = filtered.encode();
        assert_eq!(Run::decode(&row(&key, &longer)), Some(filtered));
        assert_eq!(Run::decode(&row(&key, &longer[..longer.len() - 1])), None);
        assert_eq!(Run::decode(&row(&key[1..], &value)), None);
        assert_eq!(Run::decode(&row(&key, &value[1..])), None);
        let mut endless = value.clone();
        endless[ROOT_BYTES..][..8].fill(0xff);
        assert_eq!(Run::decode(&row(&key, &endless)), None);
    }

    #[test]
    fn runs_stay_in_order_and_only_later_ones_are_looked_at() {
        let mut history = History::default();
        for (to, number) in [(20, 4), (10, 1), (20, 2), (15, 3)] {
            history.add(run(to, number));
        }
        let seen = |at| -> Vec<u64> {
            let runs = history.seen_at(TxnId::new(at)).iter();
            runs.map(|run| run.number).collect()
        };
        assert_eq!(seen(0), [1, 3, 2, 4]);
        assert_eq!(seen(9), [1, 3, 2, 4]);
        assert_eq!(seen(10), [3, 2, 4]);
        assert_eq!(seen(20), [0; 0]);
        assert_eq!(history.next_number(), 5);
    }
}
