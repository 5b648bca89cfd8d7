//! Reading ahead: pages that a scan or a checkpoint will ask for soon, read on the thread's own queue.
//!
//! Reads ahead are not announced to other threads: one that wants the page at once reads it itself, so nobody
//! waits for a thread that asked ahead and then did something else. The duplicate is dropped.
//!
//! Invariants:
//! 1. A frame being read into is leased; its lease lies in `pending` until the completion is seen.
//! 2. At most [`DEPTH`] reads are in flight per thread and cache, at most a quarter of the frames over all threads.
//!
//! - Threads: state is thread-local. When a thread ends, its reads are waited for and its frames go back.
//! - Failure: a failed read ahead is forgotten; the load that follows reads, and reports, by itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use northstar_io::{Buf, Completion, Op, Queue};

use super::arena::{FrameBuf, Lease};
use super::stats::count;
use super::{Cache, Class};
use crate::ids::PageRef;
use crate::limits::PAGES_MAX;

/// Reads in flight per thread: where NVMe bandwidth levels off, and well below a device queue's length.
pub(crate) const DEPTH: usize = 64;

thread_local! {
    /// One entry for each cache the thread reads ahead in.
    static AHEAD: RefCell<Vec<Ahead>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Ahead {
    /// [`Cache::key`] of the cache.
    key: u64,
    /// Fails once the cache is gone.
    cache: Weak<AtomicU32>,
    queue: Box<dyn Queue>,
    pending: Vec<Pending>,
    /// Pages read for [`Class::Once`], oldest first.
    stash: VecDeque<(PageRef, Buf)>,
    token_next: u64,
    ended: Vec<Completion>,
}

#[derive(Debug)]
struct Pending {
    token: u64,
    page: PageRef,
    class: Class,
    /// `None` for a page that will not enter the cache.
    lease: Option<(Lease, Share)>,
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
                // The arena is not registered with the ring: that would pin all of it, once per reading thread.
                let queue = cache.disk.queue(u32::try_from(DEPTH).ok()?).ok()?;
                list.push(Ahead {
                    key: cache.key,
                    cache: Arc::downgrade(&cache.ahead),
                    queue,
                    pending: Vec::new(),
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
    // Neither fails but in a thread's last moments; reading ahead is never a must.
    AHEAD
        .try_with(|list| run(&mut *list.try_borrow_mut().ok()?))
        .ok()?
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

/// Starts reading those of `pages` that are not resident, as far as the depth allows.
pub(super) fn prefetch(cache: &Cache, pages: &[PageRef], class: Class) {
    let missing = |page: &&PageRef| {
        page.id.get() < PAGES_MAX && cache.resident(**page, Class::Once).is_none()
    };
    let mut missing = pages.iter().filter(missing).peekable();
    if missing.peek().is_some() {
        with(cache, true, |ahead| {
            ahead.reap(cache, 0);
            for page in missing {
                if ahead.queue.in_flight() >= DEPTH || !ahead.start(cache, *page, class) {
                    break;
                }
            }
            ahead.reap(cache, 0);
        });
    }
}

/// Waits for the calling thread's own read of `page`, if there is one. Returns its bytes if it was read for
/// [`Class::Once`]; otherwise it is now resident, unless the read failed.
pub(super) fn take(cache: &Cache, page: PageRef) -> Option<Buf> {
    with(cache, false, |ahead| {
        while ahead.pending.iter().any(|pending| pending.page == page) {
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
    /// False if no more reads can be started now.
    fn start(&mut self, cache: &Cache, page: PageRef, class: Class) -> bool {
        let known = self.pending.iter().any(|pending| pending.page == page)
            || self.stash.iter().any(|(stashed, _)| *stashed == page);
        if known {
            return true;
        }
        let (lease, buf) = if class == Class::Once {
            (None, Buf::zeroed(cache.page_bytes))
        } else {
            let Some(share) = Share::take(&cache.ahead, cache.arena.count() / 4) else {
                return false;
            };
            let Some(FrameBuf { lease, buf }) = cache.take_spare_frame() else {
                return false;
            };
            (Some((lease, share)), buf)
        };
        let token = self.token_next;
        self.token_next += 1;
        let read = Op::Read {
            file: Arc::clone(&cache.file),
            offset: page.id.get() * cache.page_bytes as u64,
            buf,
        };
        if self.queue.submit(token, read).is_err() {
            return false;
        }
        count(&cache.counters.reads);
        self.pending.push(Pending {
            token,
            page,
            class,
            lease,
        });
        true
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
        let at = self
            .pending
            .iter()
            .position(|pending| pending.token == completion.token);
        let (Some(at), Some(buf), Ok(())) = (at, completion.buf, completion.result) else {
            if let Some(at) = at {
                self.pending.swap_remove(at);
            }
            return;
        };
        let pending = self.pending.swap_remove(at);
        let page = pending.page;
        if cache.verify(&buf, page).is_err() {
            return;
        }
        match pending.lease {
            // Another thread may have read it meanwhile.
            Some((lease, _)) if cache.resident(page, Class::Once).is_none() => {
                drop(cache.publish(&lease, buf, page, pending.class));
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
