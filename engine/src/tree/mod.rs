//! The immutable B+tree: search, cursor, merge, check. Knows pages and keys, not who commits or when.
//!
//! A tree is named by the [`crate::ids::PageRef`] of its root; an empty tree has none. Its pages never change:
//! [`merge`] reads one tree and writes another that shares the untouched part.

mod build;
pub(crate) mod bulk;
mod change;
pub(crate) mod check;
pub(crate) mod cursor;
pub(crate) mod merge;
pub(crate) mod overflow;
pub(crate) mod reach;
mod run;
pub(crate) mod search;
mod simd;
pub(crate) mod since;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test numbers are small")]
mod tests;
