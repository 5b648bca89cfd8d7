//! The processor's and the kernel's counters of the calling thread: cycles, instructions, misses, faults, switches.
//!
//! Invariants:
//! 1. What cannot be counted is absent, never 0: refused by the kernel, not there in a virtual machine, or never given a
//!    turn on the processor's few counters.
//! 2. Counters are opened once a thread and closed with it; at most [`THREADS_MAX`] threads have them at a time, as each
//!    takes [`NAMES`] many file descriptors. With one thread uncounted, the sum over threads is absent.
//!
//! - Units: events of user code (`cycles` to `dtlb_misses`), so that the figure does not depend on what a machine lets be
//!   counted of its kernel; `page_faults` and `context_switches` count the kernel's own events.
//! - Cost: two system calls a counter and loop, outside of the time that is measured.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

use perf_event::events::{Cache, CacheId, CacheOp, CacheResult, Hardware, Software};
use perf_event::{Builder, Counter};

/// Threads that count at a time.
pub(crate) const THREADS_MAX: usize = 16;

/// What is counted, in this order.
pub(crate) const NAMES: [&str; 7] = [
    "cycles",
    "instructions",
    "cache_misses",
    "branch_misses",
    "dtlb_misses",
    "page_faults",
    "context_switches",
];

/// Counts of a loop, by [`NAMES`]; absent where there is no counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts([Option<u64>; NAMES.len()]);

impl Counts {
    /// What was counted, by name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES
            .into_iter()
            .zip(self.0)
            .filter_map(|(name, count)| Some((name, count?)))
    }

    /// The sum; absent where either is.
    pub(crate) fn plus(self, other: Self) -> Self {
        let mut sum = self.0;
        for (mine, theirs) in sum.iter_mut().zip(other.0) {
            *mine = mine.and_then(|mine| Some(mine + theirs?));
        }
        Self(sum)
    }
}

/// A thread's counters. Each stands alone: a group too large for the processor would never run.
struct Open([Option<Counter>; NAMES.len()]);

/// Threads that have counters now. Only a bound on file descriptors: a late value lets one thread more or less count.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Leaves the calling thread out: one of so many that not all could be counted, so that none need pay for it.
pub(crate) fn leave_out_this_thread() {
    LEFT_OUT.set(true);
}

/// A counter of user code.
fn user(builder: &Builder<'_>) -> Option<Counter> {
    // ENOENT and EOPNOTSUPP: the processor has none. EACCES and EPERM: the kernel does not let us. All the same here.
    builder.build().ok()
}

/// A counter of the kernel's own events, which are not there without the kernel.
fn kernel(event: Software) -> Option<Counter> {
    let mut builder = Builder::new(event);
    builder.include_kernel().build().ok()
}

impl Open {
    fn new() -> Self {
        let translation_misses = Cache {
            which: CacheId::DTLB,
            operation: CacheOp::READ,
            result: CacheResult::MISS,
        };
        Self([
            user(&Builder::new(Hardware::CPU_CYCLES)),
            user(&Builder::new(Hardware::INSTRUCTIONS)),
            user(&Builder::new(Hardware::CACHE_MISSES)),
            user(&Builder::new(Hardware::BRANCH_MISSES)),
            user(&Builder::new(translation_misses)),
            kernel(Software::PAGE_FAULTS),
            kernel(Software::CONTEXT_SWITCHES),
        ])
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A counter's state: the kernel never takes times back to 0, so differences are taken.
#[derive(Debug, Clone, Copy)]
struct Reading {
    count: u64,
    enabled_ns: u128,
    running_ns: u128,
}

impl Reading {
    fn of(counter: &mut Counter) -> Option<Self> {
        let data = counter.read_full().ok()?;
        Some(Self {
            count: data.count(),
            enabled_ns: data.time_enabled()?.as_nanos(),
            running_ns: data.time_running()?.as_nanos(),
        })
    }

    /// Events since `self`, made up for the time in which others had the processor's counters; `None` if all of it.
    fn until(self, later: Self) -> Option<u64> {
        let count = u128::from(later.count - self.count);
        let running = later.running_ns - self.running_ns;
        let enabled = later.enabled_ns - self.enabled_ns;
        let estimate = (count * enabled.max(running)).checked_div(running)?;
        u64::try_from(estimate).ok()
    }
}

/// What the calling thread does until [`Counting::stop`] is counted.
pub(crate) struct Counting([Option<Reading>; NAMES.len()]);

impl Counting {
    /// Starts the calling thread's counters, those that there are.
    pub(crate) fn start() -> Self {
        let start = |counter: &mut Option<Counter>| {
            let counter = counter.as_mut()?;
            let reading = Reading::of(counter)?;
            counter.enable().ok().map(|()| reading)
        };
        Self(OPEN.with_borrow_mut(|open| {
            if LEFT_OUT.get() {
                return [None; NAMES.len()];
            }
            if open.is_none() && THREADS.fetch_add(1, Ordering::Relaxed) >= THREADS_MAX {
                THREADS.fetch_sub(1, Ordering::Relaxed);
                return [None; NAMES.len()];
            }
            open.get_or_insert_with(Open::new).0.each_mut().map(start)
        }))
    }

    /// What was counted since.
    pub(crate) fn stop(self) -> Counts {
        OPEN.with_borrow_mut(|open| {
            let mut counts = Counts::default();
            let counters = open.iter_mut().flat_map(|open| &mut open.0);
            for ((count, started), counter) in counts.0.iter_mut().zip(self.0).zip(counters) {
                *count = started
                    .zip(counter.as_mut())
                    .and_then(|(started, counter)| {
                        counter.disable().ok()?;
                        started.until(Reading::of(counter)?)
                    });
            }
            counts
        })
    }
}

/// Whether cycles can be counted here.
pub(crate) fn hardware_can_be_read() -> bool {
    let counter = user(&Builder::new(Hardware::CPU_CYCLES));
    counter.is_some_and(|mut counter| {
        let before = Reading::of(&mut counter);
        let enabled = counter.enable().is_ok();
        std::hint::black_box((0..1000_u64).sum::<u64>());
        let after = Reading::of(&mut counter);
        let cycles = before
            .zip(after)
            .and_then(|(before, after)| before.until(after));
        enabled && cycles.is_some_and(|cycles| cycles > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(count: u64, enabled_ns: u128, running_ns: u128) -> Reading {
        Reading {
            count,
            enabled_ns,
            running_ns,
        }
    }

    #[test]
    fn a_counter_that_had_to_share_is_made_up_for_and_one_that_never_ran_is_absent() {
        let start = reading(1000, 50, 50);
        assert_eq!(start.until(reading(1600, 150, 150)), Some(600));
        assert_eq!(start.until(reading(1300, 150, 100)), Some(600));
        assert_eq!(start.until(reading(1000, 150, 50)), None);
    }

    #[test]
    fn a_sum_over_threads_is_absent_where_one_was_not_counted() {
        let one = Counts([Some(1), None, Some(3), None, None, None, Some(0)]);
        let two = Counts([Some(10), Some(20), None, None, None, None, Some(5)]);
        let sum: Vec<_> = one.plus(two).named().collect();
        assert_eq!(sum, [("cycles", 11), ("context_switches", 5)]);
    }

    /// The path of a counter that is there, shown with one that the kernel has everywhere: if it lets us count at all.
    #[test]
    fn page_faults_are_counted_and_what_the_machine_lacks_is_absent() {
        let counting = Counting::start();
        let pages: Vec<u8> = vec![1; 4 << 20];
        std::hint::black_box(&pages);
        let counts = counting.stop();
        drop(pages);
        let found = |name| {
            counts
                .named()
                .find(|(known, _)| *known == name)
                .map(|(_, n)| n)
        };
        if let Some(faults) = found("page_faults") {
            assert!(faults >= 2, "4 MiB, at most 2 MiB a fault: {faults}");
        }
        // Hardware counters are there together or not at all; never as zeros.
        assert_eq!(found("cycles").is_some(), hardware_can_be_read());
        assert_eq!(found("cycles").is_some(), found("instructions").is_some());
        assert_ne!(found("cycles"), Some(0));
        assert_ne!(found("instructions"), Some(0));
    }

    #[test]
    fn more_threads_than_are_counted_run_uncounted() {
        let barrier = std::sync::Barrier::new(THREADS_MAX + 4);
        let counted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS_MAX + 4)
                .map(|_| {
                    scope.spawn(|| {
                        let counting = Counting::start();
                        barrier.wait();
                        let counted = usize::from(counting.0.iter().any(Option::is_some));
                        let counts = counting.stop();
                        assert_eq!(counted == 0, counts == Counts::default());
                        counted
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert!(counted <= THREADS_MAX, "{counted}");
    }
}
