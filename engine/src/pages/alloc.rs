//! Free space: which pages are in use, which wait for their last reader, which can be given out.
//!
//! Every page is *live* (the generation being built, or the newest one, reaches it), *held* (it was retired, but a
//! meta slot or a snapshot may still reach it) or free. All changes between [`Space::begin`] and
//! [`Space::commit`] can be undone.
//!
//! Invariants:
//! 1. `live` and `held` are disjoint; a held page is in exactly one entry of `retired`.
//! 2. Pages retired by generation `n` are given out only when `n + 1` is durable, so that no meta slot names
//!    them, and no snapshot is older than `n`.
//! 3. Below a hint no group of its kind is free; hints only fall where pages become free.
//!
//! - Units: a group is [`RUN_PAGES`] pages at a multiple of it, written as one run.
//! - Cost: giving out is amortised one pass over the bitmap per checkpoint; reclaiming follows what was retired.

use std::collections::BTreeMap;

use northstar_io::planted::planted;

use crate::format::meta::COPIES;
use crate::ids::Generation;
use crate::limits::{PAGES_MAX, RUN_PAGES};
use crate::marks::{Mark, reached};

/// Pages of a group.
const GROUP: u64 = RUN_PAGES as u64;
const GROUPS_PER_WORD: u64 = 64 / GROUP;
const FULL: u64 = (1 << GROUP) - 1;
const _: () = assert!(64 % RUN_PAGES == 0 && RUN_PAGES < 64);
/// With more than one free page in so many, holes are filled before the file grows.
const HOLES_FROM: u64 = 5;

/// Neighbouring pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// The first.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
}

impl Span {
    fn ids(self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// What can be undone.
#[derive(Debug)]
struct Change {
    generation: Generation,
    given: Vec<Span>,
    retired: Vec<Span>,
    end: u64,
}

/// The pages of a file.
#[derive(Debug)]
pub(crate) struct Space {
    live: Vec<u64>,
    held: Vec<u64>,
    /// Groups given back to the file system, a bit each. Forgotten at closing: punching twice is harmless.
    punched: Vec<u64>,
    /// Pages of the file. Bits from here on are zero.
    end: u64,
    free: u64,
    retired: BTreeMap<Generation, Vec<Span>>,
    change: Option<Change>,
    /// No wholly free group below this one.
    whole_hint: u64,
    /// No partly free group below this one.
    part_hint: u64,
    /// One bit of the stored map changed, per `pages_per_map` pages.
    dirty: Vec<bool>,
    pages_per_map: u64,
}

fn bit(words: &[u64], page: u64) -> bool {
    words
        .get(index(page / 64))
        .is_some_and(|word| word >> (page % 64) & 1 == 1)
}

/// One more than the last page marked.
pub(super) fn used(words: &[u64]) -> Option<u64> {
    let last = words.iter().rposition(|&word| word != 0)?;
    Some(last as u64 * 64 + 64 - u64::from(words.get(last)?.leading_zeros()))
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Space {
    /// The space of a file of `end` pages, those of `live` in use.
    pub(crate) fn new(mut live: Vec<u64>, end: u64, pages_per_map: u64) -> Self {
        let words = index(end.div_ceil(64));
        live.resize(words, 0);
        let used = live
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum::<u64>();
        let mut space = Self {
            live,
            held: vec![0; words],
            punched: Vec::new(),
            end,
            free: end.saturating_sub(used),
            retired: BTreeMap::new(),
            change: None,
            whole_hint: 0,
            part_hint: 0,
            dirty: Vec::new(),
            pages_per_map,
        };
        space.dirty.resize(space.maps(), false);
        space
    }

    /// The space of a new file: the meta pages and nothing else.
    pub(crate) fn empty(pages_per_map: u64) -> Self {
        Self::new(vec![(1 << COPIES) - 1], COPIES, pages_per_map)
    }

    /// Pages of the file.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Pages that can be given out.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    /// Pages that wait for the older meta slot or a snapshot.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.retired.values().flatten().map(|span| span.count).sum()
    }

    /// Pages that are held for snapshots alone: `durable` is the generation of the newest meta page.
    pub(crate) fn held_before(&self, durable: Generation) -> u64 {
        let held = self.retired.range(..durable);
        held.flat_map(|(_, spans)| spans)
            .map(|span| span.count)
            .sum()
    }

    /// Pages that a snapshot of `generation` may still read and that are not in the newest state.
    pub(crate) fn held_since(&self, generation: Generation) -> u64 {
        let held = self.retired.range(generation.next()..);
        held.flat_map(|(_, spans)| spans)
            .map(|span| span.count)
            .sum()
    }

    /// True if the newest generation, or the one being built, uses the page.
    pub(crate) fn is_live(&self, page: u64) -> bool {
        bit(&self.live, page)
    }

    /// Bitmap pages that the stored map needs.
    pub(crate) fn maps(&self) -> usize {
        index(self.end.div_ceil(self.pages_per_map))
    }

    /// The words of bitmap page `map`.
    pub(crate) fn map_words(&self, map: usize) -> &[u64] {
        let words = index(self.pages_per_map / 64);
        let from = (map * words).min(self.live.len());
        let to = (from + words).min(self.live.len());
        self.live.get(from..to).unwrap_or_default()
    }

    /// Bitmap pages whose content changed since the last commit.
    pub(crate) fn dirty_maps(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.maps()).filter(|&map| self.dirty.get(map).copied().unwrap_or(true))
    }

    /// Has bitmap page `map` written anew although nothing in it changed.
    pub(crate) fn dirty(&mut self, map: usize) {
        if let Some(dirty) = self.dirty.get_mut(map) {
            *dirty = true;
        }
    }

    /// The highest live page below `end`.
    pub(crate) fn last_live(&self, end: u64) -> Option<u64> {
        let word = index(end / 64);
        let rest = self
            .live
            .get(word)
            .map_or(0, |word| word & ((1 << (end % 64)) - 1));
        if rest != 0 {
            return Some(end / 64 * 64 + 63 - u64::from(rest.leading_zeros()));
        }
        let below = self.live.get(..word.min(self.live.len()))?;
        used(below).map(|end| end - 1)
    }

    /// The page that [`Space::take_one`] would give, unless the file would have to grow.
    pub(crate) fn peek_one(&mut self) -> Option<u64> {
        let hole = self.find_part().or_else(|| self.find_whole());
        hole.map(|hole| hole.first)
    }

    /// Starts building a generation.
    pub(crate) fn begin(&mut self, generation: Generation) {
        assert!(self.change.is_none(), "a change is open: {:?}", self.change);
        self.change = Some(Change {
            generation,
            given: Vec::new(),
            retired: Vec::new(),
            end: self.end,
        });
    }

    /// The generation being built is durable.
    pub(crate) fn commit(&mut self) {
        if self.change.take().is_some() {
            self.dirty.clear();
            self.dirty.resize(self.maps(), false);
        }
    }

    /// The generation being built will never be: nothing written for it can be reached.
    pub(crate) fn abort(&mut self) {
        let Some(change) = self.change.take() else {
            return;
        };
        self.retired.remove(&change.generation);
        for span in change.retired {
            for page in span.ids() {
                self.clear_held(page);
                self.set_live(page);
            }
        }
        for span in change.given {
            for page in span.ids() {
                self.clear_live(page);
                self.freed(page);
            }
        }
        self.shrink_to(change.end);
    }

    /// One page, in a hole if there is one.
    pub(crate) fn take_one(&mut self) -> Option<Span> {
        let hole = self.find_part().or_else(|| self.find_whole());
        let span = match hole {
            Some(hole) => Span { count: 1, ..hole },
            None => self.grow(1)?,
        };
        self.give(span)
    }

    /// One page in a hole, if there is one.
    pub(crate) fn take_hole(&mut self) -> Option<Span> {
        let hole = self.find_part()?;
        self.give(Span { count: 1, ..hole })
    }

    /// Some pages, at most a group, best written as one run. `None` when the format's limit is reached.
    pub(crate) fn take_run(&mut self) -> Option<Span> {
        let whole = self.find_whole();
        let span = match whole {
            Some(whole) => {
                reached(Mark::PagesReused);
                whole
            }
            None => match self.find_part() {
                Some(hole) if self.free.saturating_mul(HOLES_FROM) > self.end => hole,
                _ => self.grow(GROUP - self.end % GROUP)?,
            },
        };
        self.give(span)
    }

    /// Exactly `count` neighbours.
    pub(crate) fn take_extent(&mut self, count: u64) -> Option<Span> {
        let groups = count.div_ceil(GROUP).max(1);
        let mut at = match self.find_whole() {
            Some(whole) => whole.first / GROUP,
            None => return self.grow(count).and_then(|span| self.give(span)),
        };
        let (mut run, last) = (0, self.end / GROUP);
        while run < groups && at < last {
            run = if self.group(at) == FULL { run + 1 } else { 0 };
            at += 1;
        }
        let span = if run == groups {
            Span {
                first: (at - groups) * GROUP,
                count,
            }
        } else {
            self.grow(count)?
        };
        self.give(span)
    }

    /// Takes back the last pages of a span that were not used. False, and nothing done, if one of them was retired:
    /// then a tree that is damaged named it.
    pub(crate) fn untake(&mut self, unused: Span) -> bool {
        if !unused.ids().all(|page| self.is_live(page)) {
            return false;
        }
        let given = self
            .change
            .iter_mut()
            .flat_map(|change| change.given.iter_mut());
        let end = unused.first + unused.count;
        if let Some(span) = given.rev().find(|span| span.first + span.count == end) {
            span.count -= unused.count;
        }
        for page in unused.ids() {
            self.clear_live(page);
            self.freed(page);
        }
        true
    }

    /// The generation being built no longer uses these pages. False, and nothing done, if one of them is not live:
    /// then the tree that named them is damaged.
    pub(crate) fn retire(&mut self, span: Span) -> bool {
        let in_file = span.first >= COPIES
            && span
                .first
                .checked_add(span.count)
                .is_some_and(|end| end <= self.end);
        if !in_file || !span.ids().all(|page| self.is_live(page)) {
            return false;
        }
        let Some(change) = &mut self.change else {
            return false;
        };
        change.retired.push(span);
        let generation = change.generation;
        for page in span.ids() {
            self.clear_live(page);
            self.set_held(page);
        }
        self.retired.entry(generation).or_default().push(span);
        true
    }

    /// Holds what only the older meta slot reaches, as if `generation` had retired it.
    pub(crate) fn hold_all(&mut self, older: &[u64], generation: Generation) {
        let needed = used(older).unwrap_or(0);
        if needed > self.end {
            self.grow(needed - self.end);
        }
        let mut spans: Vec<Span> = Vec::new();
        let mut page = 0;
        while page < self.end {
            let word = index(page / 64);
            let only_older = |older: &u64| older & !self.live.get(word).copied().unwrap_or(0);
            let rest = older.get(word).map_or(0, only_older) >> (page % 64);
            if rest & 1 == 0 {
                // To the next page of interest in this word, or to the next word.
                page += u64::from(rest.trailing_zeros()).min(64 - page % 64);
                continue;
            }
            self.set_held(page);
            self.free -= 1;
            match spans.last_mut() {
                Some(last) if last.first + last.count == page => last.count += 1,
                _ => spans.push(Span {
                    first: page,
                    count: 1,
                }),
            }
            page += 1;
        }
        self.retired.entry(generation).or_default().extend(spans);
    }

    /// Frees what neither a meta slot nor a snapshot reaches: `durable` is the generation of the newest meta page,
    /// `oldest` the oldest one a snapshot reads. Returns the spans freed.
    pub(crate) fn reclaim(&mut self, durable: Generation, oldest: Option<Generation>) -> Vec<Span> {
        let mut freed = Vec::new();
        while let Some(entry) = self.retired.first_entry() {
            let generation = *entry.key();
            let early = planted("pages are used again one generation early");
            let needed = generation >= durable && !(early && generation == durable);
            if needed || oldest.is_some_and(|oldest| oldest < generation) {
                break;
            }
            freed.append(&mut entry.remove());
        }
        for page in freed.iter().flat_map(|span| span.ids()) {
            self.clear_held(page);
            self.freed(page);
        }
        freed
    }

    /// Forgets the free pages at the end of the file. Returns its new length if that is shorter.
    pub(crate) fn trim_end(&mut self) -> Option<u64> {
        assert!(self.change.is_none(), "a change is open: {:?}", self.change);
        let end = used(&self.live)
            .max(used(&self.held))
            .unwrap_or(0)
            .max(COPIES);
        (end < self.end).then(|| {
            self.shrink_to(end);
            end
        })
    }

    /// At most `limit` spans of whole free groups not yet given back to the file system; counts them as given back.
    pub(crate) fn punch(&mut self, limit: usize) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for group in 0..self.end / GROUP {
            if self.group(group) != FULL || bit(&self.punched, group) {
                continue;
            }
            let first = group * GROUP;
            match spans.last_mut() {
                Some(last) if last.first + last.count == first => last.count += GROUP,
                _ => spans.push(Span {
                    first,
                    count: GROUP,
                }),
            }
            if spans.len() > limit {
                spans.pop();
                break;
            }
            let word = index(group / 64);
            if self.punched.len() <= word {
                self.punched.resize(word + 1, 0);
            }
            if let Some(word) = self.punched.get_mut(word) {
                *word |= 1 << (group % 64);
            }
        }
        spans
    }

    /// A bit for each free page of a group.
    fn group(&self, group: u64) -> u64 {
        let word = index(group / GROUPS_PER_WORD);
        let (Some(live), Some(held)) = (self.live.get(word), self.held.get(word)) else {
            return 0;
        };
        let used = (live | held) >> (group % GROUPS_PER_WORD * GROUP);
        let inside = self.end.saturating_sub(group * GROUP).min(GROUP);
        !used & FULL & ((1 << inside) - 1)
    }

    fn find_whole(&mut self) -> Option<Span> {
        let groups = self.end / GROUP;
        let at = (self.whole_hint..groups).find(|&group| self.group(group) == FULL);
        self.whole_hint = at.unwrap_or(groups);
        Some(Span {
            first: at? * GROUP,
            count: GROUP,
        })
    }

    /// The first hole in the first partly free group.
    fn find_part(&mut self) -> Option<Span> {
        let groups = self.end.div_ceil(GROUP);
        let at = (self.part_hint..groups).find(|&group| !matches!(self.group(group), 0 | FULL));
        self.part_hint = at.unwrap_or(groups);
        let (group, free) = (at?, self.group(at?));
        let skip = free.trailing_zeros();
        Some(Span {
            first: group * GROUP + u64::from(skip),
            count: u64::from((free >> skip).trailing_ones()),
        })
    }

    fn grow(&mut self, count: u64) -> Option<Span> {
        let first = self.end;
        let end = first.checked_add(count).filter(|&end| end <= PAGES_MAX)?;
        self.end = end;
        self.free += count;
        let words = index(end.div_ceil(64));
        self.live.resize(words, 0);
        self.held.resize(words, 0);
        self.dirty.resize(self.maps(), true);
        Some(Span { first, count })
    }

    fn shrink_to(&mut self, end: u64) {
        self.free -= self.end.saturating_sub(end);
        self.end = self.end.min(end);
        let words = index(self.end.div_ceil(64));
        self.live.truncate(words);
        self.held.truncate(words);
        let maps = self.maps();
        if maps < self.dirty.len() {
            self.dirty.truncate(maps);
            // The stored list is longer than it should be.
            if let Some(last) = self.dirty.last_mut() {
                *last = true;
            }
        }
        let groups = self.end / GROUP;
        for group in groups..self.punched.len() as u64 * 64 {
            if let Some(word) = self.punched.get_mut(index(group / 64)) {
                *word &= !(1 << (group % 64));
            }
        }
        self.whole_hint = self.whole_hint.min(groups);
        self.part_hint = self.part_hint.min(groups);
    }

    fn give(&mut self, span: Span) -> Option<Span> {
        for page in span.ids() {
            self.set_live(page);
            let group = page / GROUP;
            if let Some(word) = self.punched.get_mut(index(group / 64)) {
                *word &= !(1 << (group % 64));
            }
        }
        self.free -= span.count;
        // What is left of a whole group is a hole.
        for group in [span.first / GROUP, (span.first + span.count - 1) / GROUP] {
            if !matches!(self.group(group), 0 | FULL) {
                self.part_hint = self.part_hint.min(group);
            }
        }
        if let Some(change) = &mut self.change {
            change.given.push(span);
        }
        Some(span)
    }

    /// Counts a page as free that has just lost its live or held bit.
    fn freed(&mut self, page: u64) {
        self.free += 1;
        self.whole_hint = self.whole_hint.min(page / GROUP);
        self.part_hint = self.part_hint.min(page / GROUP);
    }

    fn set_live(&mut self, page: u64) {
        self.change_live(page, true);
    }

    fn clear_live(&mut self, page: u64) {
        self.change_live(page, false);
    }

    fn change_live(&mut self, page: u64, on: bool) {
        let mask = 1 << (page % 64);
        if let Some(word) = self.live.get_mut(index(page / 64)) {
            assert!((*word & mask == 0) == on, "page {page} is live: {}", !on);
            *word ^= mask;
        }
        if let Some(dirty) = self.dirty.get_mut(index(page / self.pages_per_map)) {
            *dirty = true;
        }
    }

    fn set_held(&mut self, page: u64) {
        let mask = 1 << (page % 64);
        if let Some(word) = self.held.get_mut(index(page / 64)) {
            assert!(*word & mask == 0, "page {page} is retired twice");
            *word |= mask;
        }
    }

    fn clear_held(&mut self, page: u64) {
        let mask = 1 << (page % 64);
        if let Some(word) = self.held.get_mut(index(page / 64)) {
            assert!(*word & mask != 0, "page {page} is not held");
            *word &= !mask;
        }
    }
}

#[cfg(test)]
mod tests;
