//! Checkpoints: the frozen delta merged into the trees, slice by slice.
//!
//! A slice merges a stretch of keys, writes the new pages in contiguous runs, syncs them, and flips the meta page.
//! So at most two slices of superseded pages exist beside the live ones, however large the delta and the trees.
//! Between slices the trees hold part of the delta and the log still holds all of it: replaying a change that is
//! merged already gives the same rows, since rows carry the transaction that wrote them.
//!
//! What a crash does: before the flip, nothing reaches the new pages and the space is free again; after it, the
//! older meta slot and the pages and log it needs are intact until the next flip. Spec: CC-010 to CC-014.

pub(crate) mod check;
pub(crate) mod feed;
pub(crate) mod govern;
mod moments;
mod overlaps;
mod past;
mod ranges;
mod room;
pub(crate) mod roots;
pub(crate) mod run;
mod state;
pub(crate) mod thread;
