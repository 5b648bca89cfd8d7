//! Tables by id: a radix tree of three levels in the arena, each made when first needed.

use zerocopy::FromZeros;

use super::arena::{Arena, ArenaFull, Link};
use super::tree::Table;
use crate::ids::TableId;
use crate::sync::atomic::{AtomicU64, Ordering};

const TOP_BITS: u32 = 11;
const MIDDLE_BITS: u32 = 11;
const LOW_BITS: u32 = 10;
const WORD_BITS: u32 = u64::BITS.ilog2();
const _: () = assert!(TOP_BITS + MIDDLE_BITS + LOW_BITS == u32::BITS);

/// Links of one level, and which of them point somewhere: whoever wants all passes the others over by words.
#[derive(FromZeros)]
#[repr(C)]
struct Node<T, const LINKS: usize, const WORDS: usize> {
    used: [AtomicU64; WORDS],
    links: [Link<T>; LINKS],
}

type Top = Node<Middle, { 1 << TOP_BITS }, { 1 << (TOP_BITS - WORD_BITS) }>;
type Middle = Node<Low, { 1 << MIDDLE_BITS }, { 1 << (MIDDLE_BITS - WORD_BITS) }>;
type Low = Node<Table, { 1 << LOW_BITS }, { 1 << (LOW_BITS - WORD_BITS) }>;

impl<T: FromZeros + Sync, const LINKS: usize, const WORDS: usize> Node<T, LINKS, WORDS> {
    #[inline]
    fn get<'d>(&self, arena: &'d Arena, at: usize) -> Option<&'d T> {
        Some(arena.get(self.links.get(at)?.load()?))
    }

    /// What the link points at, made if it points nowhere. Writer only.
    fn get_or_make<'d>(&self, arena: &'d Arena, at: usize) -> Result<&'d T, ArenaFull> {
        let made = follow(arena, &self.links[at])?;
        let used = &self.used[at / 64];
        let bits = used.load(Ordering::Relaxed);
        // Whoever sees the bit sees the link.
        used.store(bits | 1 << (at % 64), Ordering::Release);
        Ok(made)
    }

    /// All there are below this node of number `id`, each with its number on the next level.
    fn iter<'d>(
        &'d self,
        arena: &'d Arena,
        id: usize,
    ) -> impl Iterator<Item = (usize, &'d T)> + use<'d, T, LINKS, WORDS> {
        let bits = self.used.iter().enumerate().flat_map(|(word, used)| {
            let bits = used.load(Ordering::Acquire);
            let rest = std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)));
            rest.take_while(|bits| *bits != 0)
                .map(move |bits| word * 64 + bits.trailing_zeros() as usize)
        });
        bits.filter_map(move |at| Some((id * LINKS + at, self.get(arena, at)?)))
    }
}

/// Most bytes of the arena that making one table can take.
pub(super) const TABLE_BYTES_MAX: usize =
    size_of::<Top>() + size_of::<Middle>() + size_of::<Low>() + size_of::<Table>() + 64;

/// All tables of a delta.
#[derive(FromZeros)]
pub(super) struct Tables(Link<Top>);

/// The three indexes an id stands for.
#[inline]
fn split(id: TableId) -> (usize, usize, usize) {
    let id = id.get() as usize;
    let low = id & ((1 << LOW_BITS) - 1);
    let middle = id >> LOW_BITS & ((1 << MIDDLE_BITS) - 1);
    (id >> (LOW_BITS + MIDDLE_BITS), middle, low)
}

impl Tables {
    /// None so far.
    pub(super) fn new() -> Self {
        Self::new_zeroed()
    }

    /// Whether a table was ever made.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.0.load().is_some()
    }

    /// The table, if it was ever written to.
    #[inline]
    pub(super) fn get<'d>(&self, arena: &'d Arena, id: TableId) -> Option<&'d Table> {
        let (top, middle, low) = split(id);
        let top = arena.get(self.0.load()?).get(arena, top)?;
        top.get(arena, middle)?.get(arena, low)
    }

    /// The table, made if need be. Writer only.
    pub(super) fn get_or_make<'d>(
        &self,
        arena: &'d Arena,
        id: TableId,
    ) -> Result<&'d Table, ArenaFull> {
        if let Some(table) = self.get(arena, id) {
            return Ok(table);
        }
        let (top, middle, low) = split(id);
        let top = follow(arena, &self.0)?.get_or_make(arena, top)?;
        top.get_or_make(arena, middle)?.get_or_make(arena, low)
    }

    /// All tables in id order.
    pub(super) fn iter<'d>(
        &self,
        arena: &'d Arena,
    ) -> impl Iterator<Item = (TableId, &'d Table)> + use<'d> {
        let top = self.0.load().map(|top| arena.get(top));
        let middles = top.into_iter().flat_map(|top| top.iter(arena, 0));
        let lows = middles.flat_map(|(id, middle)| middle.iter(arena, id));
        let tables = lows.flat_map(|(id, low)| low.iter(arena, id));
        tables.filter_map(|(id, table)| Some((TableId::new(u32::try_from(id).ok()?), table)))
    }
}

/// What `link` points at, made if it points nowhere.
fn follow<'d, T: FromZeros + Sync>(arena: &'d Arena, link: &Link<T>) -> Result<&'d T, ArenaFull> {
    if let Some(at) = link.load() {
        return Ok(arena.get(at));
    }
    let made = arena.alloc::<T>()?;
    link.store(made);
    Ok(arena.get(made))
}
