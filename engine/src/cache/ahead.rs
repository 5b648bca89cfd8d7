//! Reading ahead: pages that a scan or a checkpoint will ask for soon, read on the thread's own queue.
//!
//! Pages that are neighbours in the file are read in one transfer, each into its own frame.
//!
//! Reads ahead are not announced to other threads: one that wants the page at once reads it itself, so nobody
//! waits for a thread that asked ahead and then did something else. The duplicate is dropped.
//!
//! Invariants:
//! 1. A frame being read into is leased; its lease lies in `pending` until the completion is seen.
//! 2. At most [`DEPTH`] pages are in flight per thread and cache, at most a quarter of the frames over all threads.
//!
//! - Threads: state is thread-local. When a thread ends, its reads are waited for and its frames go back.
//! - Failure: a failed read ahead is forgotten, with the neighbours it had; the load that follows reads, and reports, by
//!   itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use northstar_io::{Buf, Completion, Op, Queue};

use super::arena::{FrameBuf, Lease};
use super::stats::count_many;
use super::{Cache, Class};
use crate::ids::PageRef;
use crate::limits::{PAGES_MAX, RUN_PAGES};
use crate::marks::{Mark, reached};
use crate::sync::atomic::{AtomicU32, Ordering};

/// Pages in flight per thread: as many reads of single pages, where NVMe bandwidth levels off and well below a device
/// queue's length, or 2 MiB of neighbours.
pub(crate) const DEPTH: usize = 128;

thread_local! {
    /// One entry for each cache the thread reads ahead in.
    static AHEAD: RefCell<Vec<Ahead>> = const { RefCell::new(Vec::new()) };
}

/// What a thread reads ahead, for threads that share one of the system's by turns.
#[cfg(feature = "internals")]
#[derive(Debug, Default)]
pub(crate) struct Turn(Vec<Ahead>);

#[cfg(feature = "internals")]
impl Turn {
    /// Exchanges it with what the calling thread has.
    pub(crate) fn swap(&mut self) {
        AHEAD.with(|list| std::mem::swap(&mut *list.borrow_mut(), &mut self.0));
    }
}

#[derive(Debug)]
struct Ahead {
    /// [`Cache::key`] of the cache.
    key: u64,
    /// Fails once the cache is gone.
    cache: Weak<AtomicU32>,
    queue: Box<dyn Queue>,
    pending: Vec<Pending>,
    /// Pages of all of `pending`.
    in_flight: usize,
    /// Pages read for [`Class::Once`], oldest first.
    stash: VecDeque<(PageRef, Buf)>,
    token_next: u64,
    ended: Vec<Completion>,
}

/// One read on its way.
#[derive(Debug)]
struct Pending {
    token: u64,
    class: Class,
    /// Neighbours, rising.
    pages: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    page: PageRef,
    /// `None` for a page that will not enter the cache.
    lease: Option<(Lease, Share)>,
}

impl Pending {
    fn has(&self, page: PageRef) -> bool {
        self.pages.iter().any(|asked| asked.page == page)
    }
}

/// One of the frames that all threads together may have in flight.
#[derive(Debug)]
struct Share(Arc<AtomicU32>);

impl Share {
    fn take(of: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        // Relaxed: a bound on memory, which orders nothing.
        let share = Self(Arc::clone(of));
        if of.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(share);
        }
        drop(share);
        None
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on the thread's state for the cache, if it has one or `make` allows to make one.
fn with<R>(cache: &Cache, make: bool, work: impl FnOnce(&mut Ahead) -> R) -> Option<R> {
    let run = |list: &mut Vec<Ahead>| {
        let at = match list.iter().position(|ahead| ahead.key == cache.key) {
            Some(at) => at,
            None if make => {
                list.retain(|ahead| ahead.cache.strong_count() > 0);
                // Neither arena nor file is registered with the ring: see ARCHITECTURE.md, "Chosen by measuring".
                let queue = cache.disk.queue(u32::try_from(DEPTH).ok()?).ok()?;
                list.push(Ahead {
                    key: cache.key,
                    cache: Arc::downgrade(&cache.ahead),
                    queue,
                    pending: Vec::new(),
                    in_flight: 0,
                    stash: VecDeque::new(),
                    token_next: 0,
                    ended: Vec::new(),
                });
                list.len() - 1
            }
            None => return None,
        };
        list.get_mut(at).map(work)
    };
    // Neither fails but in a thread's last moments; reading ahead is never a must. The list is not borrowed meanwhile:
    // the work may have to wait.
    let mut list = AHEAD
        .try_with(|list| Some(std::mem::take(&mut *list.try_borrow_mut().ok()?)))
        .ok()??;
    let done = run(&mut list);
    let _dropped_in_last_moments = AHEAD.try_with(|place| {
        let mut place = place.try_borrow_mut().ok()?;
        list.append(&mut place);
        *place = std::mem::take(&mut list);
        Some(())
    });
    done
}

/// Drops the calling thread's queue and read-ahead for the cache.
pub(super) fn leave(cache: &Cache) {
    let gone = AHEAD.try_with(|list| {
        let mut list = list.try_borrow_mut().ok()?;
        let at = list.iter().position(|ahead| ahead.key == cache.key)?;
        Some(list.swap_remove(at))
    });
    // Dropped outside the borrow: ending reads may take a moment, and runs other destructors.
    drop(gone);
}

/// Starts reading those of `pages` that the map does not know, as far as the depth allows: in the order of the file, from
/// the end that the first of them is nearer to.
pub(super) fn prefetch(cache: &Cache, pages: &[PageRef], class: Class) {
    // Nearly always all of them are resident, in scans of what is hot: frames are not looked at, whose lines are not needed yet.
    // An entry that is out of date costs a read that is not ahead.
    let missing = |page: &PageRef| page.id.get() < PAGES_MAX && cache.map.get(page.id).is_none();
    let mut missing: Vec<PageRef> = pages.iter().copied().filter(missing).collect();
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
        return;
    };
    let falling = first.id > last.id;
    missing.sort_unstable_by_key(|page| page.id);
    with(cache, true, |ahead| {
        ahead.reap(cache, 0);
        missing.retain(|page| !ahead.knows(*page));
        let neighbours = |a: &PageRef, b: &PageRef| a.id.get() + 1 == b.id.get();
        let mut runs: Vec<&[PageRef]> = missing
            .chunk_by(neighbours)
            .flat_map(|run| run.chunks(RUN_PAGES))
            .collect();
        if falling {
            runs.reverse();
        }
        for run in runs {
            if !ahead.start(cache, run, class) {
                break;
            }
        }
        ahead.reap(cache, 0);
    });
}

/// Waits for the calling thread's own read of `page`, if there is one. Returns its bytes if it was read for
/// [`Class::Once`]; otherwise it is now resident, unless the read failed.
pub(super) fn take(cache: &Cache, page: PageRef) -> Option<Buf> {
    with(cache, false, |ahead| {
        while ahead.pending.iter().any(|pending| pending.has(page)) {
            if !ahead.reap(cache, 1) {
                break;
            }
        }
        let at = ahead
            .stash
            .iter()
            .position(|(stashed, _)| *stashed == page)?;
        ahead.stash.remove(at).map(|(_, buf)| buf)
    })?
}

impl Ahead {
    fn knows(&self, page: PageRef) -> bool {
        self.pending.iter().any(|pending| pending.has(page))
            || self.stash.iter().any(|(stashed, _)| *stashed == page)
    }

    /// Starts reading neighbours. False if no more reads can be started now.
    fn start(&mut self, cache: &Cache, run: &[PageRef], class: Class) -> bool {
        let room = DEPTH.saturating_sub(self.in_flight);
        let (mut pages, mut bufs) = (Vec::new(), Vec::new());
        for page in run.iter().take(room) {
            let Some((lease, buf)) = Self::place(cache, class) else {
                break;
            };
            pages.push(Asked { page: *page, lease });
            bufs.push(buf);
        }
        let (Some(first), started) = (pages.first(), pages.len()) else {
            return false;
        };
        let (file, offset) = (
            Arc::clone(&cache.file),
            first.page.id.get() * cache.page_bytes as u64,
        );
        let read = match bufs.pop_if(|_| started == 1) {
            Some(buf) => Op::Read { file, offset, buf },
            None => Op::ReadRun { file, offset, bufs },
        };
        let token = self.token_next;
        self.token_next += 1;
        if self.queue.submit(token, read).is_err() {
            return false;
        }
        count_many(&cache.counters.reads, started);
        reached(Mark::ReadAhead);
        self.in_flight += started;
        self.pending.push(Pending {
            token,
            class,
            pages,
        });
        started == run.len()
    }

    /// Memory for one page; `None` if there is none now.
    fn place(cache: &Cache, class: Class) -> Option<(Option<(Lease, Share)>, Buf)> {
        if class == Class::Once {
            return Some((None, cache.once.take()));
        }
        let share = Share::take(&cache.ahead, cache.arena.count() / 4)?;
        let FrameBuf { lease, buf } = cache.take_spare_frame()?;
        Some((Some((lease, share)), buf))
    }

    /// Takes in what has ended, waiting for `at_least` reads. False if nothing had.
    fn reap(&mut self, cache: &Cache, at_least: usize) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let polled = self.queue.poll(at_least, &mut self.ended);
        let mut ended = std::mem::take(&mut self.ended);
        let some = !ended.is_empty();
        for completion in ended.drain(..) {
            self.settle(cache, completion);
        }
        self.ended = ended;
        polled.is_ok() && some
    }

    fn settle(&mut self, cache: &Cache, completion: Completion) {
        let read = |pending: &Pending| pending.token == completion.token;
        let Some(at) = self.pending.iter().position(read) else {
            return;
        };
        let Pending { class, pages, .. } = self.pending.swap_remove(at);
        self.in_flight -= pages.len();
        if completion.result.is_err() {
            return;
        }
        let bufs = completion.buf.into_iter().chain(completion.run);
        for (Asked { page, lease }, buf) in pages.into_iter().zip(bufs) {
            if cache.verify(&buf, page).is_err() {
                continue;
            }
            match lease {
                // Another thread may have read it meanwhile.
                Some((lease, _)) if cache.resident(page, Class::Once).is_none() => {
                    drop(cache.publish(&lease, buf, page, class));
                }
                Some(_) => {}
                None => {
                    if self.stash.len() >= DEPTH {
                        self.stash.pop_front();
                    }
                    self.stash.push_back((page, buf));
                }
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // The kernel owns the buffers until then. The queue itself sees to the rest should the ring fail.
        while self.queue.in_flight() > 0 {
            if self.queue.poll(1, &mut self.ended).is_err() || self.ended.is_empty() {
                break;
            }
            self.ended.clear();
        }
    }
}
