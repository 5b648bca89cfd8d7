//! Asking the processor for memory that will be needed in a moment.
//!
//! Dependent cache misses are the cost of a lookup. Where an address is known before its bytes are needed, asking early
//! lets several misses pass at the same time.
#![expect(unsafe_code, reason = "the instruction is an intrinsic")]

/// Asks for the cache line that holds `at`. Reads nothing, so any address will do; does nothing where it cannot.
#[inline]
pub(crate) fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address; it needs SSE, which is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
