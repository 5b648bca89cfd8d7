//! The page cache: verified, immutable pages in the frames of one arena.
//!
//! A hit goes from a frame hint, or the map, to the frame, compares page id, checksum and generation with what
//! the parent says, and reads the bytes under an epoch guard: no lock, no allocation, no write to a shared line
//! but for a pin or a heat bit not yet set. A page never changes, so there is nothing to write back and eviction
//! is dropping.
//!
//! Invariants:
//! 1. A frame that can be found holds a page that verified: checksum, address, database, structure.
//! 2. A page's place on disk is written anew only after [`Cache::forget`]. Should a late read ahead bring the old
//!    bytes back, they do not match what the new parent expects, and count as absent.
//!
//! - Threads: any, without exceptions.
//! - Failure: with every frame pinned, pages are held outside the arena; see [`CacheStats::fallbacks`].

mod ahead;
mod arena;
mod epoch;
mod evict;
mod frame;
mod hint;
mod load;
mod map;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use northstar_io::{Buf, BufPool, Disk, File, IoError};

pub(crate) use ahead::DEPTH as PREFETCH_MAX;
#[cfg(feature = "internals")]
pub(crate) use ahead::Turn as AheadTurn;
#[cfg(feature = "internals")]
pub(crate) use epoch::Turn;
pub(crate) use stats::CacheStats;

use arena::{Arena, FrameBuf, FramePin, Lease};
use frame::{FrameMeta, HEAT_MAX, Rank};

use crate::format::page::{Page, PageError, PageKind};
use crate::ids::{PageId, PageRef};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of buffers kept for pages that are read once.
const ONCE_BYTES: usize = 4 << 20;

/// Why a page is read: decides how long the cache keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A point read: worth keeping.
    Point,
    /// Part of a scan: gone first, so that a full scan leaves the hot set alone.
    Scan,
    /// Read once by a checkpoint or a check: never enters the cache on a miss.
    Once,
}

/// A resident page seen under an epoch guard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'g> {
    /// The cache frame that holds it.
    pub(crate) frame: u32,
    /// The page; its bytes do not change while the guard lives.
    pub(crate) page: Page<'g>,
}

/// Where a child pointer was found: lets the cache keep a frame hint beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// Frame of the parent branch.
    pub(crate) parent: u32,
    /// Index of the child in the parent.
    pub(crate) index: u32,
}

/// Checks the inside of a page whose checksum holds, so that reading it can neither panic nor go astray.
pub(crate) type PageCheck = fn(Page<'_>) -> Result<(), PageError>;

/// What a cache is made for.
#[derive(Debug)]
pub(crate) struct CacheOptions {
    /// Makes the queues for reading ahead.
    pub(crate) disk: Arc<dyn Disk>,
    /// The file that holds the pages.
    pub(crate) file: Arc<dyn File>,
    /// Low 64 bits of the database's id.
    pub(crate) database: u64,
    /// Bytes of a page.
    pub(crate) page_bytes: usize,
    /// Memory for frames, in bytes.
    pub(crate) bytes: u64,
    /// See [`PageCheck`].
    pub(crate) check: PageCheck,
}

/// The cache of one data file.
#[derive(Debug)]
pub(crate) struct Cache {
    arena: Arc<Arena>,
    map: map::FrameMap,
    hints: hint::HintPool,
    clock: Mutex<evict::Clock>,
    ghost: evict::Ghost,
    loads: load::Loads,
    /// Frames that hold branches, about.
    branches: AtomicU32,
    /// Frames being read ahead by all threads.
    ahead: Arc<AtomicU32>,
    counters: stats::Counters,
    /// Names this cache in thread-local state; never used twice in a process.
    key: u64,
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    database: u64,
    page_bytes: usize,
    /// Memory for pages that are read once and enter no frame.
    once: Arc<BufPool>,
    check: PageCheck,
}

/// While it lives, frames seen through it keep their bytes.
#[derive(Debug)]
pub(crate) struct CacheGuard<'a> {
    cache: &'a Cache,
    epoch: epoch::Guard,
}

/// A page held for as long as its owner likes.
#[derive(Debug)]
pub(crate) enum Pin<'a> {
    /// A frame, by count.
    Frame(FramePin<'a>),
    /// Memory outside the arena.
    Owned(Arc<Buf>),
}

impl Pin<'_> {
    /// The page's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Frame(pin) => pin.bytes(),
            Self::Owned(buf) => buf,
        }
    }

    /// The frame, if the page is in one.
    pub(crate) fn frame(&self) -> Option<u32> {
        match self {
            Self::Frame(pin) => Some(pin.frame()),
            Self::Owned(_) => None,
        }
    }
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// The kernel's, if it grants no address space for the frames.
    pub(crate) fn new(options: CacheOptions) -> Result<Self, IoError> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let frames = options.bytes / options.page_bytes.max(1) as u64;
        let frames = u32::try_from(frames).unwrap_or(u32::MAX / 2).max(8);
        Ok(Self {
            arena: Arena::new(frames, options.page_bytes)?,
            map: map::FrameMap::new(),
            hints: hint::HintPool::new(frames),
            clock: Mutex::default(),
            ghost: evict::Ghost::new(frames),
            loads: load::Loads::default(),
            branches: AtomicU32::new(0),
            ahead: Arc::default(),
            counters: stats::Counters::default(),
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            disk: options.disk,
            file: options.file,
            database: options.database,
            page_bytes: options.page_bytes,
            once: BufPool::new(options.page_bytes, ONCE_BYTES / options.page_bytes),
            check: options.check,
        })
    }

    /// Enters an epoch.
    #[inline]
    pub(crate) fn enter(&self) -> CacheGuard<'_> {
        CacheGuard {
            cache: self,
            epoch: epoch::enter(),
        }
    }

    /// Turns a view into a counted pin.
    pub(crate) fn pin(&self, view: View<'_>) -> Pin<'_> {
        let bytes = view.page.bytes();
        match self.arena.pin(bytes) {
            Some(pin) => Pin::Frame(pin),
            // Not from this cache, which no caller does; a copy is as good.
            None => {
                let mut copy = Buf::zeroed(bytes.len().next_multiple_of(Buf::ALIGN));
                copy[..bytes.len()].copy_from_slice(bytes);
                Pin::Owned(Arc::new(copy))
            }
        }
    }

    /// A pin on the page if it is resident.
    pub(crate) fn resident(&self, page: PageRef, class: Class) -> Option<Pin<'_>> {
        let guard = epoch::enter();
        let frame = self.map.get(page.id)?;
        let found = self.look(&guard, frame, page)?;
        if class == Class::Point {
            self.touch(frame);
        }
        self.arena.pin(found.bytes()).map(Pin::Frame)
    }

    /// Starts reading pages that will be asked for soon; at most [`PREFETCH_MAX`] at a time.
    pub(crate) fn prefetch(&self, pages: &[PageRef], class: Class) {
        ahead::prefetch(self, pages, class);
    }

    /// Keeps a page that was just written: in place of a resident one that it supersedes, or else only if there
    /// is room.
    pub(crate) fn insert(&self, page: PageRef, bytes: &[u8], supersedes_resident: bool) {
        if supersedes_resident {
            self.keep(page, bytes, Rank::Point, 1, true);
        } else {
            self.keep(page, bytes, Rank::Scan, 0, false);
        }
    }

    /// The page is being superseded: from now on only older snapshots read it, so its frame is among the first to go. Says
    /// whether it is resident.
    pub(crate) fn supersede(&self, id: PageId) -> bool {
        // While the guard lives, the frame is not published as another page between looking and cooling.
        let _guard = epoch::enter();
        let Some(frame) = self.map.get(id) else {
            return false;
        };
        let meta = self.arena.meta(frame).filter(|meta| meta.holds(id));
        if meta.is_some_and(FrameMeta::demote) {
            self.note_scanned(frame, id);
        }
        meta.is_some()
    }

    /// Drops the page: its place on disk is about to be given to another.
    pub(crate) fn forget(&self, id: PageId) {
        if let Some(frame) = self.map.take(id) {
            self.arena.retire(frame, id);
        }
    }

    /// Lets go of what the calling thread still has under way here: a closed cache keeps nothing alive.
    pub(crate) fn leave(&self) {
        ahead::leave(self);
    }

    /// What the cache did and holds.
    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            frames: u64::from(self.arena.count()),
            frames_free: self.arena.free_count() as u64,
            frames_branch: u64::from(self.branches.load(Ordering::Relaxed)),
            ..self.counters.read()
        }
    }

    #[inline]
    fn touch(&self, frame: u32) {
        if let Some(meta) = self.arena.meta(frame) {
            meta.touch();
        }
    }

    /// The page in `frame`, if it is the one wanted in every respect.
    #[inline]
    fn look<'g>(&'g self, guard: &'g epoch::Guard, frame: u32, page: PageRef) -> Option<Page<'g>> {
        let found = Page::trusted(self.arena.view(guard, frame, page.id)?);
        let header = found.header();
        let same = header.checksum.get() == page.checksum
            && header.generation.get() == page.generation.get();
        same.then_some(found)
    }

    fn keep(&self, page: PageRef, bytes: &[u8], rank: Rank, heat: u8, evict: bool) {
        debug_assert_eq!(bytes.len(), self.page_bytes, "a page's bytes");
        let frame = if evict {
            self.take_frame()
        } else if self.arena.free_count() > self.arena.count() as usize / 32 {
            self.arena.lease()
        } else {
            None
        };
        if let Some(FrameBuf { lease, mut buf }) = frame {
            buf.copy_from_slice(bytes);
            drop(self.link(&lease, buf, page, rank, heat));
        }
    }

    /// Makes a page that was read and verified findable.
    fn publish(&self, lease: &Lease, buf: Buf, page: PageRef, class: Class) -> FramePin<'_> {
        let (rank, heat) = match class {
            Class::Point if self.ghost.remembers(page.id) => (Rank::Point, 2),
            Class::Point => (Rank::Point, 1),
            Class::Scan | Class::Once => (Rank::Scan, 0),
        };
        self.link(lease, buf, page, rank, heat)
    }

    fn link(&self, lease: &Lease, buf: Buf, page: PageRef, rank: Rank, heat: u8) -> FramePin<'_> {
        let branch = Page::trusted(&buf).header().kind == PageKind::Branch as u8;
        let (rank, heat) = if branch {
            (Rank::Branch, HEAT_MAX)
        } else {
            (rank, heat)
        };
        let frame = lease.frame();
        if branch && let Some(meta) = self.arena.meta(frame) {
            // Relaxed: published with the page id; and hints are guesses.
            meta.hints.store(self.hints.lend(), Ordering::Relaxed);
            self.branches.fetch_add(1, Ordering::Relaxed);
        }
        let pin = self.arena.publish(lease, buf, page.id, rank, heat);
        if let Some(before) = self.map.set(page.id, frame)
            && before != frame
        {
            self.arena.retire(before, page.id);
        }
        if rank == Rank::Scan {
            self.note_scanned(frame, page.id);
        }
        pin
    }
}

impl<'a> CacheGuard<'a> {
    /// The page, if resident. No I/O, no lock, no allocation.
    #[inline]
    pub(crate) fn view<'g>(&'g self, page: PageRef, link: Option<Link>) -> Option<View<'g>>
    where
        'a: 'g,
    {
        let cache = self.cache;
        if let Some(link) = link
            && let Some(parent) = cache.arena.meta(link.parent)
            && let block = parent.hints.load(Ordering::Relaxed)
            && let Some(frame) = cache.hints.get(block, link.index)
            && let Some(found) = cache.look(&self.epoch, frame, page)
        {
            cache.touch(frame);
            return Some(View { frame, page: found });
        }
        self.find(page, link)
    }

    /// The way through the map; leaves a hint for the next time.
    fn find<'g>(&'g self, page: PageRef, link: Option<Link>) -> Option<View<'g>> {
        let cache = self.cache;
        let frame = cache.map.get(page.id)?;
        let found = cache.look(&self.epoch, frame, page)?;
        cache.touch(frame);
        if let Some(link) = link
            && let Some(parent) = cache.arena.meta(link.parent)
        {
            let block = parent.hints.load(Ordering::Relaxed);
            cache.hints.set(block, link.index, frame);
        }
        Some(View { frame, page: found })
    }
}
