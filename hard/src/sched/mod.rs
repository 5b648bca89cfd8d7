//! The whole engine under a scheduler of our own: one seed decides which thread runs when.
//!
//! Clients commit, read, hold snapshots and ask for checkpoints while the log thread and the checkpoint thread run, on a
//! simulated disk and a clock that only moves when looked at or when everybody waits. All of them are fibers on one
//! thread of the system: a switch costs nanoseconds, and happens only where the engine touches something shared, at a
//! lock, a condition variable, an atomic, a queue or the disk (`northstardb::internals::pause`).
//!
//! - [`explorer`]: runs the fibers, and finds those that wait for ever.
//! - [`policy`]: who is next, and whose time is up: random walks, priorities that change at a few points, stalls.
//! - [`setting`]: databases to begin with, made once.
//! - [`clients`]: what the threads do, and what they saw.
//! - [`judge`]: holds what was seen, and what a power cut in the middle leaves, against the reference model.
//! - [`run`]: one seed.
//!
//! A mistake found says the line that replays it. Mistakes that must be found are in [`crate::planted`]. Spec: HD-021.

pub mod clients;
pub mod explorer;
pub mod judge;
pub mod policy;
pub mod run;
pub mod setting;
