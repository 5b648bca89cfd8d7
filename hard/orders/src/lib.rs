//! The engine's lock-free parts in small models, tried in every interleaving and with every value that the memory model
//! lets a load return. Spec: HD-022.
//!
//! The sources are the engine's own, compiled here once more: with atomics, locks and threads of the crate `loom` in the
//! place of the standard library's, and with smaller nodes and chunks (`cfg(loom)`). What cannot come along, memory
//! behind raw pointers, is replaced by something with the same outside.
//!
//! `loom` takes a `SeqCst` load or store for one that only acquires or releases. So here each stands between two `SeqCst`
//! fences, which is what such an access needs at least to be worth its name; [`models::Model::check_weakened`] leaves the
//! fences out, or all order, to show that the models then fail.
#![forbid(unsafe_code)]
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the sources speak of neighbours that are not here"
)]
// The sources have more than the models use.
#![allow(dead_code, unreachable_pub, reason = "taken from the engine whole")]

mod cache;
mod delta;
#[path = "../../../engine/src/ids.rs"]
mod ids;
pub mod models;
mod prefetch;
mod sync;
mod txn;
mod writer;

/// Errors, as far as the sources name them.
mod error {
    /// Why a commit failed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Error {
        /// The database was closed.
        Closed,
    }

    pub type Result<T> = std::result::Result<T, Error>;
}
