//! What a merge supersedes, streamed into a run.
//!
//! The merge says which rows of the tree end; the versions that came and went within the delta are asked of the delta, by a
//! cursor that follows the merge. Both are pushed in the order of key and end. On the way the digest of the state is carried
//! along: rows that end are taken from it, rows that begin are added.

use std::cell::RefCell;

use northstar_io::planted::planted;

use super::build::{BuiltRun, RunBuilder};
use super::key;
use crate::delta::{DeltaCursor, Hit};
use crate::format::leaf::RowValue;
use crate::format::page::PageError;
use crate::ids::{TableId, TxnId};
use crate::pages::{Class, PageRead, PageWrite};
use crate::state::StateHash;
use crate::tree::merge::Supersede;
use crate::tree::overflow::read_extent;

/// Listens to the merges of one slice.
pub(crate) struct Keeper<'d, 's, P, W> {
    /// Where large values are read that end.
    pages: &'s P,
    sink: &'s RefCell<W>,
    /// The last transaction of the delta.
    last: TxnId,
    run: Option<RunBuilder<'s, W>>,
    /// The table that is merged, and the delta's changes of it.
    table: TableId,
    changes: Option<DeltaCursor<'d>>,
    /// All that happened to the key that `changes` stands on.
    events: Vec<Hit<'d>>,
    /// The key at hand, packed.
    packed: Vec<u8>,
    /// The last row that ended: its key, and who wrote it.
    ended_key: Vec<u8>,
    ended: Option<TxnId>,
    /// What the merges so far add to the digest of the state.
    state: StateHash,
}

impl<P, W> std::fmt::Debug for Keeper<'_, '_, P, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl<'d, 's, P: PageRead, W: PageWrite> Keeper<'d, 's, P, W> {
    /// Whose pages go to `sink`, of a delta that ends with `last`.
    pub(crate) fn new(pages: &'s P, sink: &'s RefCell<W>, last: TxnId) -> Self {
        Self {
            pages,
            sink,
            last,
            run: None,
            table: TableId::NAMES,
            changes: None,
            events: Vec::new(),
            packed: Vec::new(),
            ended_key: Vec::new(),
            ended: None,
            state: StateHash::default(),
        }
    }

    /// The next merge is that of `table`, a later one than before; `changes` stands on its first change.
    pub(crate) fn begin(&mut self, table: TableId, changes: DeltaCursor<'d>) {
        self.table = table;
        self.changes = Some(changes);
        self.events.clear();
        self.ended = None;
    }

    /// The run, none if nothing was superseded, and what is added to the digest of the state.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn finish(self) -> Result<(Option<BuiltRun>, StateHash), PageError> {
        Ok((self.run.map_or(Ok(None), RunBuilder::finish)?, self.state))
    }

    /// Whether versions of the table at hand are kept; the digest of the state has its rows in any case.
    fn keeps(&self) -> bool {
        self.table.keeps_history() || planted("history is kept of a table without it")
    }

    /// Takes a row that ends from the digest of the state. A large value that is damaged stays in it: that must not stop whoever
    /// writes another in its place, and the digest then says that something was lost. A device that does not deliver may do so
    /// the next time, and fails the merge as it does elsewhere.
    fn forget(&mut self, key: &[u8], value: RowValue<'_>) -> Result<(), PageError> {
        if planted("a row that ends stays in the digest of the state") {
            return Ok(());
        }
        match value {
            RowValue::Inline(value) => self.state.remove(self.table, key, value),
            RowValue::Extent(extent) => {
                let page_bytes = self.sink.borrow().page_bytes();
                match read_extent(self.pages, &extent, page_bytes, Class::Once) {
                    Ok(value) => self.state.remove(self.table, key, &value),
                    Err(error @ PageError::Io { .. }) => return Err(error),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Finds out what happened to `key`, if it has a change.
    fn follow(&mut self, key: &[u8]) {
        self.events.clear();
        let Some(changes) = &mut self.changes else {
            return;
        };
        while let Some((at, _)) = changes.current()
            && at < key
        {
            changes.next();
        }
        if changes.current().is_some_and(|(at, _)| at == key) {
            changes.events(&mut self.events);
        }
    }

    fn push(&mut self, from: TxnId, value: RowValue<'_>, to: TxnId) -> Result<(), PageError> {
        let len = self.packed.len();
        key::push_end(to, &mut self.packed);
        let run = self.run.get_or_insert_with(|| RunBuilder::new(self.sink));
        let pushed = run.push(&self.packed, from, value);
        self.packed.truncate(len);
        pushed
    }
}

impl<P: PageRead, W: PageWrite> Supersede for Keeper<'_, '_, P, W> {
    const LISTENS: bool = true;

    fn superseded(
        &mut self,
        key: &[u8],
        from: TxnId,
        value: RowValue<'_>,
        to: TxnId,
    ) -> Result<bool, PageError> {
        self.follow(key);
        // `to` is the end by the newest change or by a range delete; the first change may have come before.
        let first = self.events.iter().find(|event| event.txn > from);
        let late = planted("a row ends with the newest change, not with the first");
        let to = first
            .filter(|_| !late)
            .map_or(to, |event| event.txn.min(to));
        key::pack(self.table, key, &mut self.packed);
        self.ended_key.clear();
        self.ended_key.extend_from_slice(key);
        self.ended = Some(from);
        self.forget(key, value)?;
        if !self.keeps() {
            return Ok(false);
        }
        self.push(from, value, to)?;
        let lost = planted("a large value of history is given back with its row");
        Ok(!lost)
    }

    /// A slice before this one may have emptied the table's tree; rows of this slice may be older than those deletes.
    fn deletes_before(&self) -> TxnId {
        match planted("a tree begun anew knows of no deletes") {
            true => TxnId::ZERO,
            false => self.last,
        }
    }

    fn added(&mut self, key: &[u8], value: &[u8]) {
        self.state.add(self.table, key, value);
    }

    fn changed(&mut self, key: &[u8]) -> Result<(), PageError> {
        if !self.keeps() || planted("what came and went within a delta is not kept") {
            return Ok(());
        }
        let ended = self.ended.take().filter(|_| self.ended_key == key);
        if ended.is_none() {
            self.follow(key);
        }
        let events = std::mem::take(&mut self.events);
        let mut versions = events.iter().zip(events.iter().skip(1));
        let mut packed = ended.is_some();
        let pushed = versions.try_for_each(|(version, next)| {
            // What was written before the row that ended was kept when that row was merged; so was the row itself.
            let Some(value) = version
                .value
                .filter(|_| ended.is_none_or(|row| version.txn > row))
            else {
                return Ok(());
            };
            if !packed {
                key::pack(self.table, key, &mut self.packed);
                packed = true;
            }
            self.push(version.txn, RowValue::Inline(value), next.txn)
        });
        self.events = events;
        pushed
    }
}
