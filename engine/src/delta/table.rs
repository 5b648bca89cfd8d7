//! Tables by id: a radix tree of three levels in the arena, each made when first needed.

use zerocopy::FromZeros;

use super::arena::{Arena, ArenaFull, Link};
use super::tree::Table;
use crate::ids::TableId;

const TOP_BITS: u32 = 11;
const MIDDLE_BITS: u32 = 11;
const LOW_BITS: u32 = 10;
const _: () = assert!(TOP_BITS + MIDDLE_BITS + LOW_BITS == u32::BITS);

#[derive(FromZeros)]
#[repr(C)]
struct Top([Link<Middle>; 1 << TOP_BITS]);

#[derive(FromZeros)]
#[repr(C)]
struct Middle([Link<Low>; 1 << MIDDLE_BITS]);

#[derive(FromZeros)]
#[repr(C)]
struct Low([Link<Table>; 1 << LOW_BITS]);

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
        let top = arena.get(self.0.load()?).0.get(top)?;
        let middle = arena.get(top.load()?).0.get(middle)?;
        let low = arena.get(middle.load()?).0.get(low)?;
        Some(arena.get(low.load()?))
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
        let top = &follow(arena, &self.0)?.0[top];
        let middle = &follow(arena, top)?.0[middle];
        follow(arena, &follow(arena, middle)?.0[low])
    }

    /// All tables in id order.
    pub(super) fn iter<'d>(
        &self,
        arena: &'d Arena,
    ) -> impl Iterator<Item = (TableId, &'d Table)> + use<'d> {
        let top = self.0.load().map(|top| (0, arena.get(top)));
        let middles = top
            .into_iter()
            .flat_map(move |(id, top)| below(arena, id, &top.0));
        let lows = middles.flat_map(move |(id, middle)| below(arena, id, &middle.0));
        let tables = lows.flat_map(move |(id, low)| below(arena, id, &low.0));
        tables.filter_map(|(id, table)| Some((TableId::new(u32::try_from(id).ok()?), table)))
    }
}

/// What the links of a node of number `id` point at, each with its number on the next level.
fn below<'d, T: FromZeros + Sync>(
    arena: &'d Arena,
    id: usize,
    links: &'d [Link<T>],
) -> impl Iterator<Item = (usize, &'d T)> + use<'d, T> {
    let numbered = links.iter().zip(id * links.len()..);
    numbered.filter_map(|(link, id)| Some((id, arena.get(link.load()?))))
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
