//! What a crash may and may not have taken.
//!
//! The story notes what it begins, what is acknowledged, and what is lost for good. At any event the oracle knows which
//! states may be found: one at or after the last acknowledged transaction, and not beyond the last that was begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use northstardb::TxnId;

use super::allow::Allowed;
use crate::Failure;
use crate::model::State;

/// Something the oracle must know, at its place in the trace.
#[derive(Debug, Clone)]
pub enum Note {
    /// A transaction may be found from now on; none if it came to nothing.
    Begun(Option<Begun>),
    /// A transaction was acknowledged as durable, or somebody saw it.
    Acked(TxnId),
    /// What came after this transaction was lost, and may not come back.
    Cut(TxnId),
}

/// A transaction that may be found, and what it leaves.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Its id.
    pub txn: TxnId,
    /// The state after it.
    pub state: Arc<State>,
    /// The first transaction that the subscriber has not acknowledged after it, if there is one.
    pub place: Option<TxnId>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Oracle {
    states: BTreeMap<TxnId, (Arc<State>, Option<TxnId>)>,
    /// What a disk that lied about the log's end has hidden: it may come back until something is durable in its place.
    hidden: BTreeMap<TxnId, (Arc<State>, Option<TxnId>)>,
    acked: TxnId,
    /// What faults so far allow.
    pub allowed: Allowed,
}

impl Default for Oracle {
    fn default() -> Self {
        Self {
            states: BTreeMap::from([(TxnId::ZERO, (Arc::default(), None))]),
            hidden: BTreeMap::new(),
            acked: TxnId::ZERO,
            allowed: Allowed::default(),
        }
    }
}

impl Oracle {
    /// Takes note.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Begun(Some(Begun { txn, state, place })) => {
                self.states.insert(*txn, (Arc::clone(state), *place));
            }
            Note::Begun(None) => {}
            Note::Acked(txn) => {
                self.acked = self.acked.max(*txn);
                if self.hidden.keys().next().is_some_and(|first| first <= txn) {
                    self.hidden.clear();
                }
            }
            Note::Cut(txn) => {
                let mut beyond = self.states.split_off(&txn.next());
                if self.allowed.shorter {
                    self.hidden.append(&mut beyond);
                }
                self.acked = self.acked.min(*txn);
            }
        }
    }

    /// The same, should what was hidden have come back in the place of what was begun since. `None` if nothing was.
    #[must_use]
    pub fn with_hidden(&self) -> Option<Self> {
        let (first, _) = self.hidden.first_key_value()?;
        let mut back = self.clone();
        back.states.split_off(first);
        back.states.append(&mut back.hidden);
        Some(back)
    }

    /// The last transaction that must be there.
    #[must_use]
    pub const fn acked(&self) -> TxnId {
        self.acked
    }

    /// The last transaction that may be there.
    #[must_use]
    pub fn newest(&self) -> TxnId {
        let newest = self.states.last_key_value();
        newest.map_or(TxnId::ZERO, |(txn, _)| *txn)
    }

    /// The state that must be found by whoever finds transaction `at`.
    ///
    /// # Errors
    /// If that transaction may not be the last one found.
    pub fn expect(&self, at: TxnId) -> Result<Arc<State>, Failure> {
        if at < self.acked && !self.allowed.shorter {
            return Err(Failure::Broken(format!(
                "{at:?} is the last transaction found, {:?} was acknowledged",
                self.acked
            )));
        }
        self.state(at).ok_or_else(|| {
            Failure::Broken(format!(
                "{at:?} is the last transaction found, which nobody began; the newest is {:?}",
                self.newest()
            ))
        })
    }

    /// The state right after `at`, if it is remembered.
    #[must_use]
    pub fn state(&self, at: TxnId) -> Option<Arc<State>> {
        self.states.get(&at).map(|(state, _)| Arc::clone(state))
    }

    /// Where the subscriber is after `at`.
    #[must_use]
    pub fn place(&self, at: TxnId) -> Option<TxnId> {
        self.states.get(&at).and_then(|(_, place)| *place)
    }
}
