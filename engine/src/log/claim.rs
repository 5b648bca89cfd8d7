//! Room in the log that commits have been let in for: so that a full disk is met before anything is applied.
//!
//! Whoever commits claims what its record can need at most, and then looks whether the segments that are ready hold all
//! that is claimed. The claim ends when the group that holds the record is durable, or the record is refused.
//!
//! - Cost: two additions to one atomic for a commit.
//! - Spec: CC-017.

use std::sync::Arc;

use super::Segments;
use crate::format::group::HEADER_BYTES;
use crate::format::record::FRAME_BYTES;
use crate::limits::LOG_BLOCK_BYTES;
use crate::sync::atomic::Ordering;

/// See the module. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Claim {
    segments: Arc<Segments>,
    bytes: u64,
}

impl Claim {
    /// Passes the claim on to whoever answers for the record from now on, and [`Segments::release`]s so many bytes.
    pub(crate) fn hand_over(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.segments.release(self.bytes);
    }
}

impl Segments {
    /// Claims room for a record of `payload` bytes. Whether there is any is seen by comparing [`Segments::claimed`]
    /// with [`Segments::room`] afterwards.
    pub(crate) fn claim(self: &Arc<Self>, payload: usize) -> Claim {
        // In a group of its own, the record takes whole blocks.
        let bytes = HEADER_BYTES + FRAME_BYTES + payload;
        let bytes = bytes.next_multiple_of(LOG_BLOCK_BYTES) as u64;
        // SeqCst: see `Segments::drop_prepared`.
        self.claimed.fetch_add(bytes, Ordering::SeqCst);
        Claim {
            segments: Arc::clone(self),
            bytes,
        }
    }

    /// Bytes claimed at the moment.
    pub(crate) fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::SeqCst)
    }

    /// Ends claims of so many bytes.
    pub(crate) fn release(&self, bytes: u64) {
        self.claimed.fetch_sub(bytes, Ordering::SeqCst);
    }
}
