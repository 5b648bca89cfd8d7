//! The frames: one mapping, and the only code that turns a frame number into bytes.
//!
//! Invariants:
//! 1. A frame's bytes are written only through its [`FrameBuf`], of which there is at most one, made when the
//!    frame leaves the free list, or is used for the first time. Dropping it, wherever that happens, puts the frame back.
//! 2. [`Arena::publish`] takes the `FrameBuf` apart and makes the bytes readable; they do not change from then
//!    until the frame is free again.
//! 3. A published frame becomes free only after it was unlinked, every guard that could have seen it has ended
//!    (`epoch`), and its pin count is 0. A pin is made only from a live borrow of the frame's bytes, so under a
//!    guard or another pin: once the epoch has passed, a count of 0 stays 0.
//! 4. The mapping lives until the arena, every `FrameBuf` and every buffer in flight are dropped.
//!
//! - Threads: any. Nothing here blocks but the short lock on the list of retired frames.
#![expect(
    unsafe_code,
    reason = "page frames in one allocation, shared between readers and I/O"
)]

use std::any::Any;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use northstar_io::planted::planted;
use northstar_io::{Buf, IoError, Mapping};

use super::epoch::{DOMAIN, Guard};
use super::frame::{FrameMeta, Rank, State};
use crate::ids::PageId;
use crate::prefetch::prefetch_line;
use crate::sync::{Mutex, pause};

/// `count` frames of `page_bytes`.
#[derive(Debug)]
pub(crate) struct Arena {
    mapping: Mapping,
    page_bytes: usize,
    frames: Box<[FrameMeta]>,
    /// Frames that were used and are free. They are used again before any that never was, which would take more memory.
    free: ArrayQueue<u32>,
    /// The first frame that was never used.
    fresh: AtomicU32,
    retired: Mutex<Retired>,
}

/// Frames on their way from shared to free.
#[derive(Debug, Default)]
struct Retired {
    /// With the stamp of each, oldest first.
    waiting: VecDeque<(u64, u32)>,
    /// No guard sees them, but pins do.
    pinned: Vec<u32>,
}

/// A frame that the holder alone may read and write.
#[derive(Debug)]
pub(crate) struct FrameBuf {
    pub(super) lease: Lease,
    pub(super) buf: Buf,
}

/// The claim on a leased frame, kept while its buffer is with the kernel. The frame is free again when the lease
/// and its buffer are both dropped.
#[derive(Debug)]
pub(super) struct Lease(Arc<Leased>);

#[derive(Debug)]
struct Leased {
    arena: Arc<Arena>,
    frame: u32,
    published: AtomicBool,
}

impl Drop for Leased {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Relaxed) {
            self.arena.make_free(self.frame);
        }
    }
}

impl Lease {
    /// The frame claimed.
    pub(super) fn frame(&self) -> u32 {
        self.0.frame
    }
}

impl Arena {
    /// Reserves the frames; memory is taken as they are first used.
    ///
    /// # Errors
    /// The kernel's, if it grants no address space.
    pub(crate) fn new(count: u32, page_bytes: usize) -> Result<Arc<Self>, IoError> {
        let count = count.max(1);
        let mapping = Mapping::reserve(page_bytes.saturating_mul(count as usize))?;
        assert!(
            mapping.len() >= page_bytes * count as usize,
            "{} bytes",
            mapping.len()
        );
        Ok(Arc::new(Self {
            mapping,
            page_bytes,
            frames: (0..count).map(|_| FrameMeta::new()).collect(),
            free: ArrayQueue::new(count as usize),
            fresh: AtomicU32::new(0),
            retired: Mutex::default(),
        }))
    }

    /// Frames in all.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Frames that can be leased.
    pub(crate) fn free_count(&self) -> usize {
        let fresh = self.frames.len() - self.fresh.load(Ordering::Relaxed) as usize;
        fresh + self.free.len()
    }

    /// The next frame that was never used.
    fn take_fresh(&self) -> Option<u32> {
        let mut fresh = self.fresh.load(Ordering::Relaxed);
        while fresh < self.count() {
            let next = fresh + 1;
            // Relaxed: the counter gives out each frame once and orders nothing.
            let taken =
                self.fresh
                    .compare_exchange_weak(fresh, next, Ordering::Relaxed, Ordering::Relaxed);
            match taken {
                Ok(_) => return Some(fresh),
                Err(now) => fresh = now,
            }
        }
        None
    }

    /// What is known of a frame; `None` beyond the last. Hints may hold any number.
    #[inline]
    pub(super) fn meta(&self, frame: u32) -> Option<&FrameMeta> {
        self.frames.get(frame as usize)
    }

    fn start(&self, frame: u32) -> NonNull<u8> {
        assert!(
            (frame as usize) < self.frames.len(),
            "frame {frame} of {}",
            self.frames.len()
        );
        // SAFETY: the mapping has `frames.len() * page_bytes` bytes, asserted in `new`, and `frame` is one of
        // them, asserted above.
        unsafe { self.mapping.as_ptr().add(frame as usize * self.page_bytes) }
    }

    /// A free frame to fill, if there is one.
    pub(crate) fn lease(self: &Arc<Self>) -> Option<FrameBuf> {
        let frame = self.free.pop().or_else(|| self.take_fresh())?;
        self.frames.get(frame as usize)?.set_state(State::Leased);
        let leased = Arc::new(Leased {
            arena: Arc::clone(self),
            frame,
            published: AtomicBool::new(false),
        });
        let keep: Arc<dyn Any + Send + Sync> = Arc::<Leased>::clone(&leased);
        // SAFETY: the bytes are inside the mapping, which `keep` holds through the arena, and were zeroed by the
        // kernel or written since; the frame was free, so by invariants 1 and 3 nobody else has
        // access, and nobody gets any before `publish` or the end of `keep`.
        let buf = unsafe { Buf::from_raw(self.start(frame), self.page_bytes, keep) };
        Some(FrameBuf {
            lease: Lease(leased),
            buf,
        })
    }

    /// Makes a filled frame readable as page `id`, with one pin on it.
    ///
    /// # Panics
    /// If `buf` is not the frame of `lease`: two loads were mixed up.
    pub(super) fn publish(
        &self,
        lease: &Lease,
        buf: Buf,
        id: PageId,
        rank: Rank,
        heat: u8,
    ) -> FramePin<'_> {
        let frame = lease.0.frame;
        assert!(
            std::ptr::eq(self, &raw const *lease.0.arena),
            "a frame of another arena"
        );
        assert_eq!(
            buf.as_ptr(),
            self.start(frame),
            "the buffer is not frame {frame}"
        );
        drop(buf);
        let already = lease.0.published.swap(true, Ordering::Relaxed);
        assert!(!already, "frame {frame} is published twice");
        let meta = &self.frames[frame as usize];
        meta.set_clock(rank, heat);
        meta.set_state(State::Shared);
        meta.pins.fetch_add(1, Ordering::Relaxed);
        meta.link(id);
        FramePin { arena: self, frame }
    }

    /// The bytes of a frame if it holds `id`.
    #[inline]
    pub(super) fn view<'g>(
        &'g self,
        _guard: &'g Guard,
        frame: u32,
        id: PageId,
    ) -> Option<&'g [u8]> {
        let meta = self.meta(frame)?;
        let start = self.start(frame);
        prefetch_node(start);
        if !meta.holds(id) {
            return None;
        }
        pause();
        // SAFETY: the frame holds a page (checked after the guard was entered), so its bytes are initialised and
        // by invariants 2 and 3 do not change while the guard lives; `start` is in bounds.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), self.page_bytes) })
    }

    /// The frame whose shared bytes these are.
    fn frame_of(&self, bytes: &[u8]) -> Option<u32> {
        let offset = bytes
            .as_ptr()
            .addr()
            .checked_sub(self.mapping.as_ptr().addr().get())?;
        let frame = u32::try_from(offset / self.page_bytes).ok()?;
        let meta = self.meta(frame)?;
        (offset.is_multiple_of(self.page_bytes) && meta.state() == State::Shared as u8)
            .then_some(frame)
    }

    /// Holds by count the frame whose bytes these are; `None` if they are not a published frame's.
    ///
    /// That the caller has a borrow of the bytes proves that a guard or a pin keeps them (invariant 3).
    pub(super) fn pin(&self, bytes: &[u8]) -> Option<FramePin<'_>> {
        let frame = self.frame_of(bytes)?;
        // Relaxed: the guard or pin behind `bytes` ends after this, with Release; reclaiming acquires that.
        let before = self.frames[frame as usize]
            .pins
            .fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "frame {frame} has {before} pins");
        Some(FramePin { arena: self, frame })
    }

    /// Hides page `id` in `frame` from new readers; the frame will be free when the present ones have left.
    pub(super) fn retire(&self, frame: u32, id: PageId) -> bool {
        let unlinked = self.meta(frame).is_some_and(|meta| meta.unlink(id));
        if unlinked {
            let mut retired = self.retired.lock();
            retired.waiting.push_back((DOMAIN.stamp(), frame));
        }
        unlinked
    }

    /// Frees retired frames that nobody sees any more; `freed` hears of each before it can be leased again.
    /// Returns how many are still waiting for guards or pins.
    pub(super) fn reclaim(&self, mut freed: impl FnMut(&FrameMeta)) -> usize {
        let mut retired = self.retired.lock();
        let retired = &mut *retired;
        let mut free = |frame: u32| {
            let meta = &self.frames[frame as usize];
            // Acquire: pairs with the Release in the drop of a pin. Its reads come before the frame's next bytes.
            if meta.pins.load(Ordering::Acquire) > 0 && !planted("a pinned frame is reused") {
                return false;
            }
            freed(meta);
            self.poison(frame);
            self.make_free(frame);
            true
        };
        retired.pinned.retain(|&frame| !free(frame));
        if let Some(&(newest, _)) = retired.waiting.back() {
            DOMAIN.advance(newest);
            let passed = match planted("a frame is reused under its readers") {
                true => u64::MAX,
                false => DOMAIN.min_active(),
            };
            while let Some((_, frame)) = retired.waiting.pop_front_if(|(stamp, _)| *stamp < passed)
            {
                if !free(frame) {
                    retired.pinned.push(frame);
                }
            }
        }
        retired.waiting.len() + retired.pinned.len()
    }

    fn make_free(&self, frame: u32) {
        self.frames[frame as usize].set_state(State::Free);
        let pushed = self.free.push(frame);
        assert!(
            pushed.is_ok(),
            "frame {frame} is freed twice, or another was"
        );
    }

    #[cfg(not(feature = "verify"))]
    fn poison(&self, _frame: u32) {}

    /// Overwrites a frame nobody may be reading: a reader that still does sees it.
    #[cfg(feature = "verify")]
    fn poison(&self, frame: u32) {
        // SAFETY: in bounds; called between the last reader's end and the frame's return to the free list, when
        // by invariant 3 nobody else has access.
        unsafe { std::ptr::write_bytes(self.start(frame).as_ptr(), 0xa5, self.page_bytes) }
    }
}

/// Lines of a node that a lookup reads whatever the key: header, heads and slots of a leaf of ordinary rows.
const NODE_LINES: usize = 13;

/// Asks for the start of a node while its frame's metadata is still on the way: one miss instead of three in a row.
#[inline]
fn prefetch_node(start: NonNull<u8>) {
    for line in 0..NODE_LINES {
        prefetch_line(start.as_ptr().wrapping_add(line * 64));
    }
}

/// A published frame held by count.
#[derive(Debug)]
pub(crate) struct FramePin<'a> {
    arena: &'a Arena,
    frame: u32,
}

impl FramePin<'_> {
    /// The page's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let start = self.arena.start(self.frame);
        pause();
        // SAFETY: the frame was shared when the pin was made and by invariant 3 stays so, unchanged, while the
        // pin is counted, which is until `self` is dropped.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.arena.page_bytes) }
    }

    /// The frame's number.
    pub(super) fn frame(&self) -> u32 {
        self.frame
    }
}

impl Drop for FramePin<'_> {
    fn drop(&mut self) {
        // Release pairs with the load in `reclaim`.
        self.arena.frames[self.frame as usize]
            .pins
            .fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch;
    use super::*;

    fn filled(arena: &Arc<Arena>, id: u64, byte: u8) -> Option<u32> {
        let FrameBuf { lease, mut buf } = arena.lease()?;
        buf.fill(byte);
        Some(
            arena
                .publish(&lease, buf, PageId::new(id), Rank::Point, 0)
                .frame(),
        )
    }

    #[test]
    fn a_guard_protects_bytes_until_it_is_dropped() {
        let arena = Arena::new(1, 4096).unwrap();
        let frame = filled(&arena, 7, 1).unwrap();
        let guard = epoch::enter();
        let bytes = arena.view(&guard, frame, PageId::new(7)).unwrap();
        assert!(arena.retire(frame, PageId::new(7)));
        assert!(!arena.retire(frame, PageId::new(7)));
        assert_eq!(arena.reclaim(|_| ()), 1);
        assert!(arena.lease().is_none());
        assert!(arena.view(&guard, frame, PageId::new(7)).is_none());
        assert!(bytes.iter().all(|&byte| byte == 1));
        drop(guard);
        while arena.reclaim(|_| ()) > 0 {
            // Guards of tests on other threads end soon.
            std::thread::yield_now();
        }
        assert!(arena.lease().is_some());
    }

    #[test]
    fn a_pin_protects_bytes_after_its_guard_and_passes_on_its_protection() {
        let arena = Arena::new(1, 4096).unwrap();
        let frame = filled(&arena, 7, 1).unwrap();
        let guard = epoch::enter();
        let pin = arena
            .pin(arena.view(&guard, frame, PageId::new(7)).unwrap())
            .unwrap();
        drop(guard);
        arena.retire(frame, PageId::new(7));
        assert_eq!(arena.reclaim(|_| ()), 1);
        let second = arena.pin(pin.bytes()).unwrap();
        drop(pin);
        assert_eq!(arena.reclaim(|_| ()), 1);
        assert!(second.bytes().iter().all(|&byte| byte == 1));
        drop(second);
        while arena.reclaim(|_| ()) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(arena.free_count(), 1);
    }

    #[test]
    fn a_frame_that_was_used_is_used_again_before_one_that_never_was() {
        let arena = Arena::new(3, 4096).unwrap();
        let first = filled(&arena, 1, 1).unwrap();
        assert_ne!(filled(&arena, 2, 2).unwrap(), first);
        assert!(arena.retire(first, PageId::new(1)));
        while arena.reclaim(|_| ()) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(arena.free_count(), 2);
        assert_eq!(filled(&arena, 3, 3).unwrap(), first);
        assert!(filled(&arena, 4, 4).is_some());
        assert_eq!((arena.free_count(), filled(&arena, 5, 5)), (0, None));
    }

    #[test]
    fn an_abandoned_buffer_gives_its_frame_back_when_the_last_part_goes() {
        let arena = Arena::new(2, 4096).unwrap();
        let FrameBuf { lease, buf } = arena.lease().unwrap();
        assert!(
            arena.pin(&buf).is_none(),
            "an exclusive frame is not shared"
        );
        drop(lease);
        assert_eq!(arena.free_count(), 1);
        drop(buf);
        assert_eq!(arena.free_count(), 2);
    }

    #[test]
    #[should_panic(expected = "the buffer is not frame")]
    fn buffers_of_two_loads_are_not_mixed_up() {
        let arena = Arena::new(2, 4096).unwrap();
        let (one, other) = (arena.lease().unwrap(), arena.lease().unwrap());
        drop(arena.publish(&one.lease, other.buf, PageId::new(1), Rank::Point, 0));
    }
}
