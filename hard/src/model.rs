//! The reference: one whole state per transaction, in `BTreeMap`s.
//!
//! Shares nothing with the engine: no deltas, no tombstones, no ranges of versions. A state is the tables by name,
//! each an ordered map; a transaction's state is the one before it, copied and edited.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use northstardb::TxnId;

use crate::ops::{Edit, Expect, KeyStyle, key_bytes, table_name, value_bytes};

/// Shared bytes.
pub type Bytes = Arc<[u8]>;
/// The rows of one table.
pub type Rows = BTreeMap<Bytes, Bytes>;
/// An edge of a range, in bytes.
pub type Edge = Bound<Vec<u8>>;

/// A value that no stream ever stores: longer than any of them.
pub const NEVER_STORED: &[u8] = &[0xee; 70_000];

/// Everything a snapshot sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Rows by table name.
    pub tables: BTreeMap<String, Arc<Rows>>,
}

/// What an edit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// A compare-and-swap found what it expected, or did not.
    Swapped(bool),
    /// Refused: the name is unknown or in use. Nothing changed.
    Refused,
    /// Not tried: a batch cannot make the table it needs.
    Skipped,
}

impl State {
    /// The rows of a table; none when it does not exist.
    #[must_use]
    pub fn rows(&self, name: &str) -> Option<&Rows> {
        self.tables.get(name).map(Arc::as_ref)
    }

    fn rows_mut(&mut self, slot: u8) -> &mut Rows {
        Arc::make_mut(self.tables.entry(table_name(slot)).or_default())
    }

    /// The rows within two edges, in key order. Reversed edges hold nothing.
    #[must_use]
    pub fn range(&self, name: &str, from: &Edge, to: &Edge) -> Vec<(Bytes, Bytes)> {
        let inside = |key: &[u8]| {
            let above = match from {
                Bound::Included(edge) => key >= edge.as_slice(),
                Bound::Excluded(edge) => key > edge.as_slice(),
                Bound::Unbounded => true,
            };
            let below = match to {
                Bound::Included(edge) => key <= edge.as_slice(),
                Bound::Excluded(edge) => key < edge.as_slice(),
                Bound::Unbounded => true,
            };
            above && below
        };
        let rows = self.rows(name).into_iter().flatten();
        rows.filter(|(key, _)| inside(key))
            .map(|(k, v)| (Arc::clone(k), Arc::clone(v)))
            .collect()
    }
}

/// A transaction in progress: its state, and the points it can go back to.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What the transaction sees.
    pub state: State,
    marks: Vec<State>,
    style: KeyStyle,
    /// True for a batch, which can only edit tables that exist.
    batch: bool,
}

impl Draft {
    /// A transaction on top of `state`.
    #[must_use]
    pub const fn new(state: State, style: KeyStyle, batch: bool) -> Self {
        Self {
            state,
            marks: Vec::new(),
            style,
            batch,
        }
    }

    /// Points marked so far.
    #[must_use]
    pub const fn marks(&self) -> usize {
        self.marks.len()
    }

    /// Performs one edit.
    pub fn apply(&mut self, edit: &Edit) -> Outcome {
        if let Edit::Put { slot, .. }
        | Edit::Delete { slot, .. }
        | Edit::DeleteRange { slot, .. }
        | Edit::Cas { slot, .. } = edit
            && self.batch
            && !self.state.tables.contains_key(&table_name(*slot))
        {
            return Outcome::Skipped;
        }
        match *edit {
            Edit::Put { slot, key, value } => {
                let (key, value) = (key_bytes(self.style, key), value_bytes(value));
                self.state.rows_mut(slot).insert(key.into(), value.into());
            }
            Edit::Delete { slot, key } => {
                let key = key_bytes(self.style, key);
                self.state.rows_mut(slot).remove(key.as_slice());
            }
            Edit::DeleteRange { slot, from, to } => {
                let (from, to) = (edge_bytes(self.style, from), edge_bytes(self.style, to));
                self.state.rows_mut(slot);
                for (key, _) in self.state.range(&table_name(slot), &from, &to) {
                    self.state.rows_mut(slot).remove(&key);
                }
            }
            Edit::Cas {
                slot,
                key,
                expect,
                new,
            } => {
                let key: Bytes = key_bytes(self.style, key).into();
                let rows = self.state.rows_mut(slot);
                let matches = match expect {
                    Expect::Current => true,
                    Expect::Wrong => false,
                    Expect::Absent => !rows.contains_key(&key),
                };
                if matches {
                    match new {
                        Some(fill) => drop(rows.insert(key, value_bytes(fill).into())),
                        None => drop(rows.remove(&key)),
                    }
                }
                return Outcome::Swapped(matches);
            }
            Edit::Create { slot } => drop(self.state.rows_mut(slot)),
            Edit::Drop { slot } => {
                if self.state.tables.remove(&table_name(slot)).is_none() {
                    return Outcome::Refused;
                }
            }
            Edit::Rename { from, to } => {
                if self.state.tables.contains_key(&table_name(to)) {
                    return Outcome::Refused;
                }
                let Some(rows) = self.state.tables.remove(&table_name(from)) else {
                    return Outcome::Refused;
                };
                self.state.tables.insert(table_name(to), rows);
            }
            Edit::Savepoint => self.marks.push(self.state.clone()),
            Edit::Rollback { pick } => {
                if !self.marks.is_empty() {
                    let at = pick as usize % self.marks.len();
                    self.marks.truncate(at + 1);
                    self.state = self.marks[at].clone();
                }
            }
        }
        Outcome::Done
    }
}

/// The bytes of an edge.
#[must_use]
pub fn edge_bytes(style: KeyStyle, edge: Bound<u32>) -> Edge {
    edge.map(|number| key_bytes(style, number))
}

/// Every state of a database since it was made, or since it was last trimmed.
#[derive(Debug, Default)]
pub struct Model {
    states: BTreeMap<TxnId, Arc<State>>,
}

impl Model {
    /// An empty database at transaction `at`.
    #[must_use]
    pub fn new(at: TxnId) -> Self {
        Self {
            states: BTreeMap::from([(at, Arc::default())]),
        }
    }

    /// The newest transaction and its state.
    ///
    /// # Panics
    /// Never: a model always holds a state.
    #[must_use]
    pub fn newest(&self) -> (TxnId, Arc<State>) {
        let (&txn, state) = self
            .states
            .last_key_value()
            .expect("a model always holds a state");
        (txn, Arc::clone(state))
    }

    /// The state after `txn`: its own, or that of the last transaction before it.
    #[must_use]
    pub fn at(&self, txn: TxnId) -> Option<Arc<State>> {
        self.states
            .range(..=txn)
            .next_back()
            .map(|(_, state)| Arc::clone(state))
    }

    /// Records what `txn` committed. False when the id does not rise although something changed.
    pub fn commit(&mut self, txn: TxnId, state: State) -> bool {
        let (newest, before) = self.newest();
        if txn <= newest {
            return txn == newest && *before == state;
        }
        self.states.insert(txn, Arc::new(state));
        true
    }

    /// Every transaction that has a state.
    #[must_use]
    pub fn txns(&self) -> Vec<TxnId> {
        self.states.keys().copied().collect()
    }

    /// Forgets what came after `txn`: an unclean stop lost it.
    pub fn cut(&mut self, txn: TxnId) {
        self.states.retain(|&at, _| at <= txn);
    }

    /// Forgets all but the newest `keep` states.
    pub fn trim(&mut self, keep: usize) {
        while self.states.len() > keep.max(1) {
            self.states.pop_first();
        }
    }
}
