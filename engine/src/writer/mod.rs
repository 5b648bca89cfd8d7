//! The writer: from a batch of changes to a durable, visible transaction.
//!
//! Two roles, each held by one thread at a time and by any thread that has a reason to:
//! - the *writer role* ([`core::Core`]) numbers a transaction, applies it to the active delta and appends its record
//!   to the open group. Whoever gives it back first serves the batches that queued up meanwhile.
//! - the *log role* swaps the open group out, writes it durably, makes its transactions visible and wakes whoever
//!   waits. A lone committer holds both and pays no hand-over; under load the log thread keeps the second.
//!
//! There are no timers: a group is sealed when the device is free. One group is in flight, one is filling.
//! The first failed write halts the writer for the life of the handle. Spec: CC-003 to CC-007.

pub(crate) mod core;
pub(crate) mod group;
pub(crate) mod handover;
pub(crate) mod moments;
pub(crate) mod pipeline;
pub(crate) mod throttle;
pub(crate) mod wait;
