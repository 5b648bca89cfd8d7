//! Locks by key, for engines whose read-modify-write is not atomic by itself.
//!
//! A lock of this program is cheaper than the transactions that such engines have for it: what this gives away, it gives to
//! them.
#![cfg_attr(
    not(any(feature = "rocksdb", feature = "fjall")),
    expect(dead_code, reason = "only some engines need it")
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::generator::Key;

/// More than threads by far, so that two rarely meet.
const STRIPES: usize = 1024;

/// The locks.
#[derive(Debug)]
pub(super) struct Stripes(Vec<Mutex<()>>);

impl Stripes {
    /// All of them, free.
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Holds the lock of `key`.
    pub(super) fn hold(&self, key: &Key) -> MutexGuard<'_, ()> {
        let at = key.iter().fold(0_usize, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(usize::from(*byte))
        });
        // Nothing is behind the lock that a panic could have left half done.
        self.0[at % STRIPES]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
