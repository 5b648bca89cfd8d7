//! The modelled disk: what is kept, seen and pending of each block, and what opening reads in them.

use std::ops::Range;

use super::Protocol;
use super::twins::Twin;

/// Copies of the meta page: slot A is 0 and 2, slot B 1 and 3.
pub(crate) const METAS: Range<usize> = 0..4;
/// The data file: those, and four pages for trees, as many as two generations and one being built can need.
pub(crate) const DATA: Range<usize> = 0..8;
/// The log: a ring, as recycled segments are. A group fills one of its blocks.
pub(crate) const LOG: Range<usize> = 8..10;
/// Blocks of the log.
pub(crate) const SLOTS: u8 = 2;

/// A transaction, counted from 1, and the life of the process that made it: the two say which history it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Txn {
    pub(crate) number: u8,
    pub(crate) life: u8,
}

/// A tree page: one of two stretches of keys, as it was right after a transaction, and who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Page {
    pub(crate) generation: u8,
    pub(crate) life: u8,
    pub(crate) holds: Txn,
}

/// A meta page. A root names its page by place and content, as checksum and generation do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Meta {
    pub(crate) generation: u8,
    pub(crate) roots: [Option<(usize, Page)>; 2],
    pub(crate) start: Txn,
    pub(crate) through: u8,
    pub(crate) clean: bool,
}

/// What the first sector of a block says. A group says its transaction, and the life of the one before: its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Head {
    #[default]
    Zeros,
    Meta(Meta),
    Page(Page),
    Group(Txn, u8),
}

/// A block: its first sector, and whether the others are torn. Untorn they are alike everywhere, as padding is.
pub(crate) type Block = (Head, bool);

/// Nothing but zeros.
pub(crate) const BLANK: Block = (Head::Zeros, false);

/// One place of the disk: what a power cut cannot take, what reads give, and what was written since, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Cell {
    pub(crate) kept: Block,
    pub(crate) seen: Block,
    pub(crate) pending: Vec<Block>,
}

impl Cell {
    pub(crate) fn write(&mut self, head: Head) {
        self.seen = (head, false);
        self.pending.push(self.seen);
    }

    /// A sync ends; if it failed and lost the writes, `memory` may go on showing them.
    pub(crate) fn sync(&mut self, lost: bool, memory: bool) {
        if let Some(last) = self.pending.pop() {
            self.kept = if lost { self.kept } else { last };
            self.seen = if memory { self.seen } else { self.kept };
            self.pending.clear();
        }
    }

    /// What a power cut can leave: of each pending write all, nothing, a torn head, or a tail that mends what was.
    pub(crate) fn outcomes(&self) -> Vec<Block> {
        let mut all = vec![self.kept];
        for (head, torn) in &self.pending {
            for (old, _) in all.clone() {
                for fate in [(*head, *torn), (*head, true), (old, false)] {
                    all.extend((!all.contains(&fate)).then_some(fate));
                }
            }
        }
        all
    }
}

/// What opening finds: the newest sound meta page, that of the other slot, and the last transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Found {
    pub(crate) newest: Meta,
    pub(crate) older: Option<Meta>,
    pub(crate) end: Txn,
}

/// The place in the ring of a transaction's group.
pub(crate) const fn slot(number: u8) -> usize {
    LOG.start + (number % SLOTS) as usize
}

impl Protocol {
    /// The meta page in a block, if it verifies.
    pub(crate) fn meta(&self, block: Block) -> Option<Meta> {
        match block {
            (Head::Meta(meta), false) => Some(meta),
            // Half of it is not what was written.
            (Head::Meta(meta), true) if self.is(Twin::ChecksumIgnored) => {
                let roots = [None; 2];
                Some(Meta { roots, ..meta })
            }
            _ => None,
        }
    }

    /// Which meta page is believed, and which of the other slot stands in for it. Spec: FF-010.
    pub(crate) fn metas(&self, view: impl Fn(usize) -> Block) -> Option<(Meta, Option<Meta>)> {
        let sound = || METAS.filter_map(|copy| self.meta(view(copy)));
        let newest = sound().max_by_key(|meta| meta.generation)?;
        let of_other_slot = |meta: &Meta| {
            let other = meta.generation % 2 != newest.generation % 2;
            meta.generation < newest.generation && (other || self.is(Twin::OlderAnywhere))
        };
        let older = sound()
            .filter(of_other_slot)
            .max_by_key(|meta| meta.generation);
        Some((newest, older))
    }

    /// Opens what `view` shows, or says why not. Spec: CR-004, CC-020, CC-021.
    pub(crate) fn read(&self, view: impl Fn(usize) -> Block) -> Result<Found, &'static str> {
        let (newest, older) = self.metas(&view).ok_or("no meta page is sound")?;
        let group = |number: u8| match view(slot(number)) {
            (Head::Group(txn, previous), false) if txn.number == number => Some((txn, previous)),
            _ => None,
        };
        let mut end = newest.start;
        if !newest.clean || (older.is_none() && !self.is(Twin::CleanAlone)) {
            while let Some((txn, previous)) = group(end.number + 1)
                && previous == end.life
            {
                end = txn;
            }
            // A group says that the log was durable up to it.
            if newest.through > end.number || (2..=SLOTS).any(|at| group(end.number + at).is_some())
            {
                return Err("the log ends before what is proven");
            }
        }
        for root in newest.roots {
            let holds = root.map_or(0, |(_, page)| page.holds.number);
            if root.is_some_and(|(cell, page)| view(cell) != (Head::Page(page), false)) {
                return Err("a page is not what its parent says");
            } else if !(newest.start.number..=end.number).contains(&holds) {
                return Err("the stretches are of different states");
            }
        }
        Ok(Found { newest, older, end })
    }
}
