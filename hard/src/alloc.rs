//! An allocator that fails when it is told to.
//!
//! A program makes it its own with `#[global_allocator]`. Until [`fail_at`] is called it is mimalloc, with which a
//! schedule needs a fifth less time than with the system's, and one read of a variable that never changes.
//!
//! - Threads: allocations of all threads are counted together, from the call on.
//! - Spec: HD-024.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mimalloc::MiMalloc;

/// Allocations left until one fails; none does while this is [`NEVER`].
static LEFT: AtomicU64 = AtomicU64::new(NEVER);
/// Those after it fail as well.
static FOR_GOOD: AtomicBool = AtomicBool::new(false);
const NEVER: u64 = u64::MAX;

/// An allocator that can fail.
#[derive(Debug)]
pub struct Failing;

/// Lets the `nth` allocation from now on fail, the next being the first, and perhaps all after it.
///
/// # Panics
/// If `nth` is 0.
pub fn fail_at(nth: u64, for_good: bool) {
    assert!(nth > 0, "there is no allocation 0");
    FOR_GOOD.store(for_good, Ordering::SeqCst);
    LEFT.store(nth, Ordering::SeqCst);
}

fn fails() -> bool {
    if LEFT.load(Ordering::Relaxed) == NEVER {
        return false;
    }
    let took = LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    match took {
        Ok(left) => left == 1,
        // It is behind us.
        Err(_) => FOR_GOOD.load(Ordering::Relaxed),
    }
}

// SAFETY: every call is handed to `MiMalloc` unchanged and its answer is handed back unchanged, or nothing is done and null
// is given, which the trait allows; nothing here allocates.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `MiMalloc`'s.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return ptr::null_mut();
        }
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if fails() {
            return ptr::null_mut();
        }
        // SAFETY: `at` came from this allocator, which is `MiMalloc`, with this layout.
        unsafe { MiMalloc.realloc(at, layout, new_size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from this allocator, which is `MiMalloc`, with this layout.
        unsafe { MiMalloc.dealloc(at, layout) }
    }
}
