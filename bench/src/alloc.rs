//! The counting allocator: how many heap allocations the calling thread made, and of how many bytes.
//!
//! Invariants:
//! 1. Counting allocates nothing and takes no lock, so a row that reports 0 allocations made none.
//! 2. A thread's counts only rise; a row reads them before and after its loop.
//!
//! - Threads: each thread counts its own. What the engine's own threads allocate is not in a row's figure.
//! - Cost: two thread-local additions an allocation.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
#[derive(Debug)]
pub(crate) struct Counting;

/// What one thread has allocated so far, or between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allocs {
    /// Calls of the allocator that gave out memory.
    pub(crate) count: u64,
    /// Bytes given out; a grown allocation counts whole.
    pub(crate) bytes: u64,
}

impl Allocs {
    /// The calling thread's counts since it started.
    pub(crate) fn of_this_thread() -> Self {
        Self {
            count: COUNT.get(),
            bytes: BYTES.get(),
        }
    }

    /// What the calling thread allocated since `self` was read.
    pub(crate) fn since(self) -> Self {
        let now = Self::of_this_thread();
        Self {
            count: now.count - self.count,
            bytes: now.bytes - self.bytes,
        }
    }
}

impl std::ops::AddAssign for Allocs {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

fn count(bytes: usize) {
    // A thread that is ending has no counters left; its last allocations are not counted.
    if COUNT.try_with(|c| c.set(c.get() + 1)).is_ok() {
        BYTES.with(|b| b.set(b.get() + bytes as u64));
    }
}

// SAFETY: every call is handed to `System` unchanged and its answer is handed back unchanged; the counters are
// constant-initialised thread-locals without a destructor, so reaching them never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: `at` came from this allocator, which is `System`, with this layout.
        unsafe { System.realloc(at, layout, new_size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from this allocator, which is `System`, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_counted_and_its_absence_too() {
        let before = Allocs::of_this_thread();
        let boxed = std::hint::black_box(Box::new([0u8; 100]));
        let made = before.since();
        assert_eq!((made.count, made.bytes), (1, 100));
        drop(boxed);
        assert_eq!(before.since().count, 1);
    }
}
