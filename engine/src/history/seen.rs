//! The versions of a table in the runs that a transaction saw, by key.
//!
//! Every run stands on a version. One that was not seen is passed over only when its key is the foremost one: who walks needs
//! not know what lies behind the keys that it asks for. Of a key, at most one version was seen, though two runs may both hold it.
//!
//! Invariants:
//! 1. Between two seeks it moves one way only.
//! 2. Keys of versions that were seen rise or fall strictly, or the walk ends with an error.
//! 3. Of runs that stand on one key, those whose version was not seen come first: none of them has more of it ahead when it is shown.
//!
//! - Cost: a move passes over no more than [`STEPS_MAX`] versions, twice, of each run that stands on the foremost key, and seeks
//!   in it once. Versions that were seen are taken several at a time, more once a walk goes on.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow, Range};

use northstar_io::planted::planted;

use super::key;
use super::run::Run;
use crate::format::few;
use crate::format::leaf::{Leaf, LeafRow, RowValue};
use crate::format::node;
use crate::format::page::PageError;
use crate::ids::{PageId, TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Between, Cursor, CursorRow, Look, Taken};

/// Versions passed over before a run stands on one that was not seen.
const STEPS_MAX: u32 = 24;
/// Versions taken at a time, at first and later on.
const BATCH_MIN: usize = 4;
const BATCH_MAX: usize = 32;
/// Bytes that are set aside for a key.
const KEY_BYTES: usize = 32;

/// Which way a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Backward,
}

impl Way {
    /// How a key compares with one that a walk comes to later.
    pub(super) fn before(self) -> Ordering {
        match self {
            Self::Forward => Ordering::Less,
            Self::Backward => Ordering::Greater,
        }
    }
}

/// See the module.
pub(super) struct Seen<'p, P: PageRead> {
    runs: Vec<RunCursor<'p, P>>,
    /// Those of the runs that stand on a version, the foremost first.
    order: Vec<Stand>,
    way: Way,
}

/// A run that stands on a version.
#[derive(Debug, Clone, Copy)]
struct Stand {
    /// How its key begins: most comparisons need no more.
    head: u64,
    /// Which of the runs.
    run: usize,
}

impl<'p, P: PageRead> Seen<'p, P> {
    /// Over `runs`, as `at` saw them; before its first seek.
    pub(super) fn new(pages: &'p P, runs: &[Run], table: TableId, at: TxnId, class: Class) -> Self {
        let run = |run: &Run| RunCursor {
            cursor: Cursor::new(pages, Some(run.tree.page), class),
            table,
            at,
            keys: Vec::new(),
            versions: Vec::new(),
            now: 0,
            batch: BATCH_MIN,
            is_ahead: false,
            last: None,
            last_seen: None,
            packed: Vec::new(),
            lead: Vec::new(),
            left: Vec::new(),
        };
        Self {
            runs: runs.iter().map(run).collect(),
            order: Vec::with_capacity(runs.len()),
            way: Way::Forward,
        }
    }

    /// Moves to the first version at or above `key`.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        self.find(Way::Forward, |run| run.seek(key))
    }

    /// Moves to the last version below `key`, or to the very last.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(super) fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.find(Way::Backward, |run| run.seek_back(key))
    }

    fn find(
        &mut self,
        way: Way,
        mut go: impl FnMut(&mut RunCursor<'p, P>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        self.way = way;
        self.order.clear();
        self.runs.iter_mut().try_for_each(&mut go)?;
        let runs = self.runs.iter().enumerate();
        let on = runs.filter_map(|(run, cursor)| {
            let head = cursor.version()?.head;
            Some(Stand { head, run })
        });
        self.order.extend(on);
        for place in (0..self.order.len()).rev() {
            self.sink(place);
        }
        Ok(())
    }

    /// The key of the current version. Nothing that was seen lies before it.
    #[inline]
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.foremost().map(RunCursor::key)
    }

    /// The current version was seen.
    #[inline]
    pub(super) fn is_seen(&self) -> bool {
        self.foremost().is_some_and(RunCursor::is_seen)
    }

    /// The current version.
    pub(super) fn row(&self) -> Option<CursorRow<'_>> {
        self.foremost()?.row()
    }

    /// Ends the walk.
    pub(super) fn end(&mut self) {
        self.order.clear();
    }

    /// Moves on from the current version, the way of the last seek: from one that was seen to another key. A run that fails is
    /// not looked at any more: after an error, only a seek leads on.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), PageError> {
        let way = self.way;
        let is_before = |one: u64, other: Option<&Stand>| {
            other.is_none_or(|other| one.cmp(&other.head) == way.before())
        };
        // Nearly always no other run stands on a key that begins likewise, neither before the step nor after it.
        if let [first, others @ ..] = &mut *self.order
            && is_before(first.head, others.first())
            && let Some(run) = self.runs.get_mut(first.run)
            && let Some(head) = run.step_within()
        {
            first.head = head;
            if !is_before(head, others.first()) {
                self.sink(0);
            }
            return Ok(());
        }
        self.advance_copies()
    }

    /// The same, whoever stands on whatever.
    fn advance_copies(&mut self) -> Result<(), PageError> {
        let copies = match self.is_seen() {
            true => self.copies()?,
            false => 0,
        };
        // From the last one on, so that none of them moves before its turn.
        (0..=copies).rev().try_for_each(|place| self.step(place))
    }

    /// How many runs hold another copy of the current version: one that the same transaction wrote.
    fn copies(&mut self) -> Result<usize, PageError> {
        let mut runs = (self.order.iter()).map(|stand| self.runs.get(stand.run));
        let version = |run: Option<&RunCursor<'p, P>>| {
            let version = run?.version()?;
            Some(version.taken.txn())
        };
        let first = runs.next().flatten();
        let same = runs.take_while(|run| run.map(RunCursor::key) == first.map(RunCursor::key));
        let written_by = version(first);
        let mut copies = 0;
        for run in same {
            if version(run) != written_by {
                self.order.clear();
                return Err(seen_twice(None));
            }
            copies += 1;
        }
        Ok(copies)
    }

    #[inline]
    fn foremost(&self) -> Option<&RunCursor<'p, P>> {
        self.runs.get(self.order.first()?.run)
    }

    /// Steps the run at a place of the order, and puts it where it then belongs.
    fn step(&mut self, place: usize) -> Result<(), PageError> {
        let Some(stand) = self.order.get_mut(place) else {
            return Ok(());
        };
        let Some(run) = self.runs.get_mut(stand.run) else {
            return Ok(());
        };
        let stepped = run.step(self.way);
        match run.version() {
            Some(version) if stepped.is_ok() => {
                stand.head = version.head;
                self.sink(place);
            }
            _ => drop(self.order.remove(place)),
        }
        stepped
    }

    /// Moves the run at `place` behind those that stand before it.
    fn sink(&mut self, mut place: usize) {
        while let Some(&[moved, next]) = self.order.get(place..place + 2)
            && self.is_before(next, moved)
        {
            self.order.swap(place, place + 1);
            place += 1;
        }
    }

    /// Whether the turn of `one` is before that of `other`.
    #[inline]
    fn is_before(&self, one: Stand, other: Stand) -> bool {
        let order = match one.head.cmp(&other.head) {
            Ordering::Equal => return self.is_before_alike(one, other),
            order @ (Ordering::Less | Ordering::Greater) => order,
        };
        order == self.way.before()
    }

    /// The same where both keys begin alike.
    #[inline(never)]
    fn is_before_alike(&self, one: Stand, other: Stand) -> bool {
        let (Some(run), Some(other_run)) = (self.runs.get(one.run), self.runs.get(other.run))
        else {
            return false;
        };
        match run.key().cmp(other_run.key()) {
            Ordering::Equal => other_run.is_seen() && !run.is_seen(),
            order @ (Ordering::Less | Ordering::Greater) => order == self.way.before(),
        }
    }
}

impl<P: PageRead> Between for Seen<'_, P> {
    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.key()
    }

    #[inline]
    fn is_row(&self) -> bool {
        self.is_seen()
    }

    #[inline]
    fn visit(
        &mut self,
        to: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PageError> {
        if let Some(run) = self.foremost()
            && let Some(version) = run.version()
            && let Some(key) = run.keys.get(version.key.clone())
        {
            let ends = match version.is_seen {
                true => match run.cursor.taken(&version.taken, key) {
                    Some(row) => visit(key, row.value).is_break(),
                    None => false,
                },
                false => to.is_some_and(|to| key >= to),
            };
            if ends {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.advance()?;
        Ok(ControlFlow::Continue(()))
    }
}

/// A version that a run stands on, or will.
struct Version {
    /// Its key, in [`RunCursor::keys`], and how that begins: most comparisons need no more.
    key: Range<usize>,
    head: u64,
    /// Only the last one was not; and then neither was any between it and the one before.
    is_seen: bool,
    taken: Taken,
}

/// One run.
struct RunCursor<'p, P: PageRead> {
    cursor: Cursor<'p, P>,
    table: TableId,
    at: TxnId,
    /// Versions of the leaf that the cursor is in, and their keys.
    versions: Vec<Version>,
    keys: Vec<u8>,
    /// The one that it stands on.
    now: usize,
    /// How many are taken next.
    batch: usize,
    /// The cursor stands on a row that was not looked at yet.
    is_ahead: bool,
    /// The key of the last version of those before, and that of the last one that was seen.
    last: Option<Vec<u8>>,
    last_seen: Option<Vec<u8>>,
    /// A key, as it is stored or was.
    packed: Vec<u8>,
    /// What the keys of the leaf begin with.
    lead: Vec<u8>,
    /// The stored key from which it jumped.
    left: Vec<u8>,
}

impl<P: PageRead> RunCursor<'_, P> {
    #[inline]
    fn version(&self) -> Option<&Version> {
        self.versions.get(self.now)
    }

    #[inline]
    fn is_seen(&self) -> bool {
        self.version().is_some_and(|version| version.is_seen)
    }

    /// The key that it stands on.
    #[inline]
    fn key(&self) -> &[u8] {
        self.version()
            .and_then(|version| self.keys.get(version.key.clone()))
            .unwrap_or_default()
    }

    #[inline]
    fn row(&self) -> Option<CursorRow<'_>> {
        let version = self.version()?;
        let key = self.keys.get(version.key.clone())?;
        self.cursor.taken(&version.taken, key)
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        key::pack(self.table, key, &mut self.packed);
        self.cursor.seek(Bound::Included(&self.packed))?;
        self.begin(Way::Forward)
    }

    fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.packed.clear();
        match key {
            Some(key) => key::pack(self.table, key, &mut self.packed),
            None => self
                .packed
                .extend_from_slice(&key::table_prefix(self.table.next())),
        }
        self.cursor.seek_back(Bound::Excluded(&self.packed))?;
        self.begin(Way::Backward)
    }

    /// From where a seek led.
    fn begin(&mut self, way: Way) -> Result<(), PageError> {
        (self.last, self.last_seen) = (None, None);
        self.is_ahead = true;
        self.take_at_most(BATCH_MIN);
        self.fill(way)
    }

    /// On to the next one of the versions that were taken, if there is one: how its key begins.
    #[inline]
    fn step_within(&mut self) -> Option<u64> {
        let head = self.versions.get(self.now + 1)?.head;
        self.now += 1;
        Some(head)
    }

    /// On to the next version that was seen, or some way towards it.
    fn step(&mut self, way: Way) -> Result<(), PageError> {
        match self.step_within() {
            Some(_) => Ok(()),
            None => self.refill(way),
        }
    }

    fn refill(&mut self, way: Way) -> Result<(), PageError> {
        let seen = self.versions.iter().rfind(|version| version.is_seen);
        for (version, kept) in [
            (self.versions.last(), &mut self.last),
            (seen, &mut self.last_seen),
        ] {
            if let Some(key) = version.and_then(|version| self.keys.get(version.key.clone())) {
                let kept = kept.get_or_insert_default();
                kept.clear();
                kept.extend_from_slice(key);
            }
        }
        self.take_at_most(BATCH_MAX);
        self.fill(way)?;
        // Whole moves that come no further than one key: it has many versions.
        if !self.is_seen() && self.version().is_some() && self.last.as_deref() == Some(self.key()) {
            self.jump(way)?;
            self.is_ahead = true;
            self.fill(way)?;
        }
        Ok(())
    }

    /// Sets aside room for so many versions, none of which is needed any more.
    fn take_at_most(&mut self, batch: usize) {
        self.batch = batch;
        self.versions.clear();
        self.keys.clear();
        self.versions.reserve(batch);
        self.keys.reserve(batch * KEY_BYTES);
    }

    /// Takes the next versions that were seen, or one that was not where it has passed over many.
    fn fill(&mut self, way: Way) -> Result<(), PageError> {
        self.now = 0;
        self.versions.clear();
        self.keys.clear();
        let (at, own) = (self.at, key::table_prefix(self.table));
        let backward = way == Way::Backward;
        let mut passed = 0;
        loop {
            let goes_on = match (self.is_ahead, backward) {
                (true, _) => self.cursor.row().is_some(),
                (false, true) => self.cursor.prev()?,
                (false, false) => self.cursor.next()?,
            };
            if !goes_on {
                return Ok(());
            }
            let (mut wrong, mut ends) = (None, false);
            let (keys, versions, packed) = (&mut self.keys, &mut self.versions, &mut self.packed);
            let (last_seen, table, batch) = (&self.last_seen, self.table, self.batch);
            let (lead, mut leads) = (&mut self.lead, None);
            let look = |leaf: &Leaf<'_>, row: &LeafRow<'_>| {
                let (prefix, start) = (leaf.prefix(), keys.len());
                let mut plain = None;
                if let Some(to) = row.suffix.rest.last_chunk()
                    && prefix.first_chunk() == Some(&own)
                {
                    // Of most versions the row alone says whether they were seen, without its whole key.
                    let is_seen = is_seen(at, row.txn, TxnId::new(u64::from_be_bytes(*to)));
                    if !is_seen && passed + 1 < STEPS_MAX {
                        passed += 1;
                        return Look::On;
                    }
                    // And most keys are what all of the leaf begin with, and then bytes of the row as they are.
                    let mut unpack = || key::unpack_lead(prefix, lead).then(|| head_of(lead));
                    if is_seen && let Some(head) = *leads.get_or_insert_with(&mut unpack) {
                        plain = key::plain(&row.suffix).map(|rest| (head, rest));
                    }
                }
                let (key, head, is_seen) = match plain {
                    Some((head, rest)) => {
                        few::put(lead, keys);
                        keys.extend_from_slice(&row.suffix.head.to_be_bytes());
                        few::put(rest, keys);
                        let head = head | head_behind(lead.len(), row.suffix.head, rest);
                        (start..keys.len(), head, true)
                    }
                    None => {
                        keys.reserve(prefix.len() + row.suffix.len);
                        keys.extend_from_slice(prefix);
                        row.suffix.append_to(keys);
                        let stored = keys.get(start..).unwrap_or_default();
                        // The check of every page that is read says that keys are in order, not that they are packed.
                        let Some((own, to)) = key::split(stored) else {
                            wrong = Some(Wrong::Key);
                            return Look::Again;
                        };
                        if key::table_of(own) != Some(table) {
                            ends = true;
                            return Look::Again;
                        }
                        let is_seen = is_seen(at, row.txn, to);
                        if !is_seen && passed + 1 < STEPS_MAX {
                            passed += 1;
                            keys.truncate(start);
                            return Look::On;
                        }
                        if !key::unpack(own, packed) {
                            wrong = Some(Wrong::Key);
                            return Look::Again;
                        }
                        keys.truncate(start);
                        keys.extend_from_slice(packed);
                        (start..keys.len(), head_of(packed), is_seen)
                    }
                };
                let own = keys.get(key.clone()).unwrap_or_default();
                if is_seen {
                    let is_same = match versions.last() {
                        Some(version) => {
                            version.head == head && keys.get(version.key.clone()) == Some(own)
                        }
                        None => last_seen.as_deref() == Some(own),
                    };
                    if is_same {
                        wrong = Some(Wrong::Twice);
                        return Look::Again;
                    }
                    passed = 0;
                }
                versions.push(Version {
                    key,
                    head,
                    is_seen,
                    taken: Taken::of(leaf, row),
                });
                match !is_seen || versions.len() >= batch {
                    true => Look::Last,
                    false => Look::On,
                }
            };
            self.is_ahead = self.cursor.look_on(backward, look)?;
            if !self.versions.is_empty() {
                // What is wrong with a version that was seen is come to again.
                return Ok(());
            }
            match wrong {
                Some(Wrong::Key) => return Err(self.damaged()),
                Some(Wrong::Twice) => return Err(seen_twice(self.cursor.page_id())),
                None if ends => return Ok(()),
                None => {}
            }
        }
    }

    /// From a version that was not seen over others of its key: to the one that can have been seen, or to another key.
    #[cold]
    fn jump(&mut self, way: Way) -> Result<(), PageError> {
        let Some(row) = self.cursor.row() else {
            return Ok(());
        };
        let Some((packed, to)) = key::split(row.key) else {
            return Err(self.damaged());
        };
        self.packed.clear();
        self.packed.extend_from_slice(packed);
        self.left.clear();
        self.left.extend_from_slice(row.key);
        match (way, to <= self.at) {
            // The one version of this key that can have been seen is ahead: the first that ended later.
            (Way::Forward, true) => {
                key::push_end(self.at.next(), &mut self.packed);
                self.cursor.seek(Bound::Included(&self.packed))?;
            }
            (Way::Backward, false) => {
                key::push_end(self.at.next(), &mut self.packed);
                self.cursor.seek(Bound::Included(&self.packed))?;
                // That one came later too: nobody saw one of this key.
                if self.cursor.row().is_some_and(|row| row.txn > self.at) {
                    self.cursor.prev()?;
                }
            }
            // The others of this key are of no use.
            (Way::Forward, false) => {
                key::push_end(TxnId::MAX, &mut self.packed);
                self.cursor.seek(Bound::Included(&self.packed))?;
            }
            (Way::Backward, true) => {
                self.cursor.seek_back(Bound::Excluded(&self.packed))?;
            }
        }
        // On sound pages that leads on; on others it might lead round and round.
        let leads_on = |row: CursorRow<'_>| match way {
            Way::Forward => row.key > &*self.left,
            Way::Backward => row.key < &*self.left,
        };
        if !self.cursor.row().is_none_or(leads_on) {
            return Err(self.damaged());
        }
        Ok(())
    }

    fn damaged(&self) -> PageError {
        let row = self.cursor.row();
        PageError::Structure {
            page: self.cursor.page_id().unwrap_or_default(),
            what: "key of history, bytes",
            found: row.map_or(0, |row| row.key.len() as u64),
            expected: 0,
        }
    }
}

/// How a key begins: where these differ, keys compare as they do.
#[inline]
fn head_of(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(key) {
        *to = *from;
    }
    u64::from_be_bytes(padded)
}

/// What the four bytes of `head` and `rest` add to how a key begins behind `before` bytes: from what is at hand, before the key is put
/// together.
#[inline]
fn head_behind(before: usize, head: u32, rest: &[u8]) -> u64 {
    let added = u64::from(head) << 32 | u64::from(node::head_of(rest));
    match before {
        0..8 => added >> (8 * before),
        _ => 0,
    }
}

/// What is wrong with a row.
enum Wrong {
    /// Its key is none of history.
    Key,
    /// It is the second version of its key that was seen.
    Twice,
}

/// What damage is that shows two versions of a key in one state.
pub(super) fn seen_twice(page: Option<PageId>) -> PageError {
    PageError::Structure {
        page: page.unwrap_or_default(),
        what: "versions of a key in one state",
        found: 2,
        expected: 1,
    }
}

/// Whether `at` saw a version that is there `from` up to but not including `to`.
#[inline]
fn is_seen(at: TxnId, from: TxnId, to: TxnId) -> bool {
    // Both at once: nobody can foretell either, and one guess is cheaper than two.
    let ended = (to <= at) & !planted("a walk shows what had ended");
    (from <= at) & !ended
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_put_together_is_the_key_and_its_head_that_of_the_key(
            lead in vec(any::<u8>(), 0..30),
            head in any::<[u8; 4]>(),
            rest in vec(any::<u8>(), 0..30),
        ) {
            let mut keys = b"before".to_vec();
            few::put(&lead, &mut keys);
            keys.extend_from_slice(&head);
            few::put(&rest, &mut keys);
            let key = [&*lead, &head, &rest].concat();
            prop_assert_eq!(&keys[6..], &*key);
            let begins = head_of(&lead) | head_behind(lead.len(), u32::from_be_bytes(head), &rest);
            prop_assert_eq!(begins, head_of(&key));
        }
    }
}
