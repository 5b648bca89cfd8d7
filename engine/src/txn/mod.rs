//! Snapshots: what a reader sees, and how long what it sees must stay.
//!
//! A snapshot is a transaction id and a [`shape::Shape`]: the deltas and tree roots that together hold every
//! version from the tree's transaction on. Opening one is a store and a re-check (see [`snapshot`]).
//! Spec: `spec/semantics_v0.md`.

pub(crate) mod backups;
pub(crate) mod bell;
pub(crate) mod cursor;
pub(crate) mod holder;
pub(crate) mod moved;
pub(crate) mod positions;
pub(crate) mod registry;
pub(crate) mod shape;
pub(crate) mod snapshot;
pub(crate) mod table;
