//! What one row measures: latencies, throughput, allocations.
//!
//! - Units: the histogram counts tenths of a nanosecond, so that a batch of fast operations keeps its digits; what
//!   leaves this file is nanoseconds.
//! - Warm-up: what a run is asked to warm up ([`Warmup`]) precedes each loop that runs for a time and is neither recorded
//!   nor counted here. Loops of a fixed number of operations use up what they measure (cold pages, a log's tail, an empty
//!   database), so there is nothing to warm.
//! - Cost: two clock readings (about 40 ns) a batch, outside of what a batch's latency counts by half.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::alloc::Allocs;
use crate::clock::{now, seconds};
use crate::counters::{self, Counting, Counts};
use crate::error::{BenchError, Result};

const TENTHS_PER_NANO: f64 = 10.0;
/// 100 s: a single operation that takes longer is recorded as this.
const TENTHS_MAX: u64 = 1_000_000_000_000;

/// How long a loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// At least this long.
    Elapsed(Duration),
    /// This many operations, rounded up to whole batches.
    Ops(u64),
}

/// What precedes each loop that runs for a time: it ends when both are reached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Warmup {
    /// At least so many operations of each thread.
    pub(crate) ops: u64,
    /// At least so long.
    pub(crate) time: Duration,
}

/// One for the whole process: loops are in every suite, on threads of their own, and none of them decides this.
static WARMUP: OnceLock<Warmup> = OnceLock::new();

impl Warmup {
    /// For all loops from now on; the first that is asked for stays.
    pub(crate) fn set(self) {
        WARMUP.get_or_init(|| self);
    }

    pub(crate) fn get() -> Self {
        WARMUP.get().copied().unwrap_or_default()
    }
}

/// Does what was asked for, and at least `ops` operations, unrecorded; gives how many.
pub(crate) fn warm_up(ops: u64, op: impl FnMut(u64) -> Result<()>) -> Result<u64> {
    let asked = Warmup::get();
    let asked = Warmup {
        ops: asked.ops.max(ops),
        ..asked
    };
    warm(asked, 1, op)
}

fn warm(asked: Warmup, batch: u64, mut op: impl FnMut(u64) -> Result<()>) -> Result<u64> {
    let mut index = 0;
    if asked.ops == 0 && asked.time.is_zero() {
        return Ok(index);
    }
    let started = now();
    while index < asked.ops || started.elapsed() < asked.time {
        for _ in 0..batch {
            op(index)?;
            index += 1;
        }
    }
    Ok(index)
}

/// Measurements of one loop, or of several merged.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    histogram: Histogram<u32>,
    /// Operations done.
    pub(crate) ops: u64,
    /// Wall time they took.
    pub(crate) elapsed: Duration,
    /// From the start of the first loop to the end of the last one, warm-up left out; absent if no loop was run.
    span: Option<(Instant, Instant)>,
    /// What the measuring threads allocated; absent where it was not counted for each of them.
    pub(crate) allocs: Option<Allocs>,
    /// Threads that measured.
    pub(crate) threads: usize,
    /// Operations that were done to warm up: the engine's own counters hold them too.
    pub(crate) warmup_ops: u64,
    /// Events of the measuring threads.
    pub(crate) counts: Counts,
}

impl Sample {
    /// Nothing measured yet.
    pub(crate) fn new() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "constant bounds the histogram documents as valid"
        )]
        let histogram = Histogram::new_with_bounds(1, TENTHS_MAX, 3)
            .expect("bounds 1..10^12 with 3 digits are valid");
        Self {
            histogram,
            ops: 0,
            elapsed: Duration::ZERO,
            span: None,
            allocs: None,
            threads: 1,
            warmup_ops: 0,
            counts: Counts::default(),
        }
    }

    /// One operation, or a batch of `ops` whose latency is divided evenly.
    pub(crate) fn record(&mut self, took: Duration, ops: u64) {
        let tenths = took.as_nanos() as f64 * TENTHS_PER_NANO / ops.max(1) as f64;
        self.histogram
            .saturating_record((tenths.round() as u64).clamp(1, TENTHS_MAX));
        self.ops += ops;
    }

    /// Latencies recorded: of operations, or of batches of them.
    pub(crate) fn latencies(&self) -> u64 {
        self.histogram.len()
    }

    /// What was recorded took from `started` until now.
    pub(crate) fn ran_since(&mut self, started: Instant) {
        let ended = now();
        self.elapsed = ended - started;
        self.span = Some((started, ended));
    }

    /// A latency in nanoseconds; `percentile` runs from 0 to 100.
    pub(crate) fn nanos(&self, percentile: f64) -> f64 {
        self.histogram.value_at_quantile(percentile / 100.0) as f64 / TENTHS_PER_NANO
    }

    /// The median in nanoseconds.
    pub(crate) fn p50(&self) -> f64 {
        self.nanos(50.0)
    }

    /// The 99th percentile in nanoseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.nanos(99.0)
    }

    /// Operations a second of wall time.
    pub(crate) fn per_second(&self) -> f64 {
        self.ops as f64 / seconds(self.elapsed)
    }

    /// Allocations an operation, where they were counted.
    pub(crate) fn allocs_per_op(&self) -> Option<f64> {
        let allocs = self.allocs?;
        Some(allocs.count as f64 / self.ops.max(1) as f64)
    }

    /// Each operation was `parts` of them: a transaction told as its rows. Latencies stay those of the whole.
    pub(crate) fn count_parts(&mut self, parts: u64) {
        self.ops *= parts;
        self.warmup_ops *= parts;
    }

    /// Adds a loop that ran after this one.
    pub(crate) fn then(&mut self, later: &Self) {
        self.elapsed += later.elapsed;
        self.merge(later);
    }

    /// Adds another sample's operations as `parts` operations each: a scan as its rows.
    pub(crate) fn record_split(&mut self, whole: &Self, parts: u64) {
        for value in whole.histogram.iter_recorded() {
            let tenths = (value.value_iterated_to() as f64 / parts.max(1) as f64).round() as u64;
            let count = value.count_at_value();
            self.histogram
                .saturating_record_n(tenths.clamp(1, TENTHS_MAX), count);
        }
        self.add_counts(whole);
        self.add_span(whole.span);
        self.ops += whole.ops * parts;
        self.warmup_ops += whole.warmup_ops * parts;
        self.elapsed += whole.elapsed;
    }

    fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "all histograms have the same bounds");
        self.add_counts(other);
        self.add_span(other.span);
        self.ops += other.ops;
        self.warmup_ops += other.warmup_ops;
    }

    fn add_span(&mut self, other: Option<(Instant, Instant)>) {
        self.span = match (self.span, other) {
            (Some((first, last)), Some((started, ended))) => {
                Some((first.min(started), last.max(ended)))
            }
            (span, other) => span.or(other),
        };
    }

    /// Before operations are added: nothing measured yet takes the other's counts, absent ones too.
    fn add_counts(&mut self, other: &Self) {
        self.counts = match (self.ops, other.ops) {
            (0, _) => other.counts,
            (_, 0) => self.counts,
            _ => self.counts.plus(other.counts),
        };
        self.allocs = match (self.ops, other.ops) {
            (0, _) => other.allocs,
            (_, 0) => self.allocs,
            _ => self.allocs.zip(other.allocs).map(|(mut sum, other)| {
                sum += other;
                sum
            }),
        };
    }

    /// Events an operation, by name; those that could be counted.
    pub(crate) fn counts_per_op(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let ops = self.ops.max(1) as f64;
        self.counts
            .named()
            .map(move |(name, count)| (name, count as f64 / ops))
    }

    /// `whole`, of all operations that the engine saw, for each of them.
    pub(crate) fn per_op(&self, whole: u64) -> f64 {
        whole as f64 / (self.ops + self.warmup_ops).max(1) as f64
    }
}

/// Runs `op(index)` in batches of `batch` and records each batch's latency divided by `batch`. A loop that runs for a time
/// is warmed up first, with the indices before those that are timed.
pub(crate) fn measure(
    until: Until,
    batch: u64,
    mut op: impl FnMut(u64) -> Result<()>,
) -> Result<Sample> {
    let warmed = match until {
        Until::Elapsed(_) => warm(Warmup::get(), batch, &mut op)?,
        Until::Ops(_) => 0,
    };
    timed_loop((until, None), batch, warmed, op)
}

/// As [`measure`], one operation at a time, until `stop` is set; at least one.
pub(crate) fn measure_until(
    stop: &AtomicBool,
    op: impl FnMut(u64) -> Result<()>,
) -> Result<Sample> {
    timed_loop((Until::Ops(u64::MAX), Some(stop)), 1, 0, op)
}

/// The part of [`measure`] that is timed. Not inlined, so that a profile tells it from what is set up around it:
/// `flamegraph` looks for this name.
#[inline(never)]
fn timed_loop(
    (until, stop): (Until, Option<&AtomicBool>),
    batch: u64,
    warmed: u64,
    mut op: impl FnMut(u64) -> Result<()>,
) -> Result<Sample> {
    let mut sample = Sample::new();
    let (ops_max, time_max) = match until {
        Until::Elapsed(time) => (u64::MAX, time),
        Until::Ops(ops) => (ops, Duration::MAX),
    };
    sample.warmup_ops = warmed;
    let counting = Counting::start();
    let allocs = Allocs::of_this_thread();
    let started = now();
    let mut index = warmed;
    while index < ops_max {
        let batch_started = now();
        for _ in 0..batch {
            op(index)?;
            index += 1;
        }
        let ended = now();
        sample.record(ended - batch_started, batch);
        // Alone: a late value is one more batch.
        let stopped = stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        if stopped || ended - started >= time_max {
            break;
        }
    }
    let ended = now();
    sample.elapsed = ended - started;
    sample.span = Some((started, ended));
    sample.allocs = Some(allocs.since());
    sample.counts = counting.stop();
    Ok(sample)
}

/// Runs `run` on `threads` threads, started together once `prepare` is done on all of them. Throughput counts from the start
/// of the first timed loop to the end of the last one, read by the threads themselves: with more threads than cores the one
/// that waits for them may be the last to run. What a thread does to warm up is not in it, and neither is a thread that
/// recorded nothing. Where the system does not let so many threads be, none of them runs.
pub(crate) fn in_threads<P>(
    threads: usize,
    prepare: impl Fn(usize) -> Result<P> + Sync,
    run: impl Fn(usize, P) -> Result<Sample> + Sync,
) -> Result<Sample> {
    // Whether they may start, told by the last that is prepared.
    let (waited_for, start) = (AtomicUsize::new(threads), OnceLock::new());
    thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for thread in 0..threads {
            let (prepare, run, waited_for, start) = (&prepare, &run, &waited_for, &start);
            let spawned = thread::Builder::new().spawn_scoped(scope, move || {
                if threads > counters::THREADS_MAX {
                    counters::leave_out_this_thread();
                }
                let prepared = prepare(thread);
                // Only who is the last matters; `start` orders what they did before.
                if waited_for.fetch_sub(1, Ordering::Relaxed) == 1 {
                    start.get_or_init(|| true);
                }
                match start.wait() {
                    true => run(thread, prepared?),
                    false => Ok(Sample::new()),
                }
            });
            let Ok(handle) = spawned else {
                start.get_or_init(|| false);
                let what = format!("the system lets {thread} of {threads} threads be started");
                return Err(BenchError::Absent(what));
            };
            handles.push(handle);
        }
        let mut all = Sample::new();
        all.threads = threads;
        for handle in handles {
            all.merge(&joined(handle)?);
        }
        if let Some((first, last)) = all.span {
            all.elapsed = last - first;
        }
        Ok(all)
    })
}

/// Runs `run` while `others` go on, on threads of their own, until the flag that both are given is set: by `run`, or when it is done.
pub(crate) fn beside<T>(
    others: impl FnOnce(&AtomicBool) -> Result<Sample> + Send,
    run: impl FnOnce(&AtomicBool) -> Result<T>,
) -> Result<(Sample, T)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = scope.spawn(|| others(&stop));
        let done = {
            let _stops = Stops(&stop);
            run(&stop)
        };
        Ok((joined(others)?, done?))
    })
}

/// Sets the flag in the end, also where that is a panic.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        // Alone: they see it a moment later.
        self.0.store(true, Ordering::Relaxed);
    }
}

fn joined(handle: thread::ScopedJoinHandle<'_, Result<Sample>>) -> Result<Sample> {
    let panicked = |_| BenchError::Child("a measuring thread panicked".into());
    handle.join().map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_recorded_as_the_latency_of_one_operation() {
        let mut sample = Sample::new();
        sample.record(Duration::from_nanos(160), 16);
        assert_eq!(sample.ops, 16);
        assert!((sample.p50() - 10.0).abs() < 0.1, "{}", sample.p50());
    }

    #[test]
    fn a_loop_stops_at_its_count_and_allocates_nothing_itself() {
        let sample = measure(Until::Ops(100), 10, |_| Ok(())).unwrap();
        assert_eq!((sample.ops, sample.allocs.unwrap().count), (100, 0));
    }

    #[test]
    fn what_warms_up_is_done_and_not_recorded() {
        let asked = Warmup {
            ops: 25,
            time: Duration::ZERO,
        };
        let mut seen = Vec::new();
        let warmed = warm(asked, 10, |index| {
            seen.push(index);
            Ok(())
        });
        assert_eq!(warmed.unwrap(), 30, "whole batches");
        assert!(seen.into_iter().eq(0..30));
        assert_eq!(
            warm(Warmup::default(), 10, |_| panic!("nothing asked")).unwrap(),
            0
        );
        let mut first = None;
        let until = Until::Elapsed(Duration::from_micros(10));
        let sample = timed_loop((until, None), 1, 30, |index| {
            first.get_or_insert(index);
            Ok(())
        });
        let sample = sample.unwrap();
        assert_eq!((first, sample.warmup_ops), (Some(30), 30));
        assert!((sample.per_op(30 + sample.ops) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn threads_add_up() {
        let sample = in_threads(3, Ok, |_, _| measure(Until::Ops(10), 1, |_| Ok(()))).unwrap();
        assert_eq!((sample.ops, sample.threads), (30, 3));
    }

    #[test]
    fn others_go_on_until_they_are_stopped() {
        let others = |stop: &AtomicBool| in_threads(2, Ok, |_, _| measure_until(stop, |_| Ok(())));
        let (others, done) = beside(others, |_| measure(Until::Ops(3), 1, |_| Ok(()))).unwrap();
        assert!(others.ops >= 2, "at least one each: {}", others.ops);
        assert_eq!((others.threads, done.ops), (2, 3));
        // Also when what they go on beside fails.
        let failed = |_: &AtomicBool| Err::<(), _>(BenchError::Absent("x".into()));
        assert!(beside(|stop| measure_until(stop, |_| Ok(())), failed).is_err());
    }

    #[test]
    fn what_warms_threads_up_takes_none_of_the_time_that_is_counted() {
        let (warming, begun) = (Duration::from_millis(30), now());
        let sample = in_threads(3, Ok, |_, _| {
            thread::sleep(warming);
            timed_loop((Until::Ops(15), None), 1, 5, |_| Ok(()))
        });
        let (sample, whole) = (sample.unwrap(), begun.elapsed());
        assert_eq!((sample.ops, sample.warmup_ops), (30, 15));
        let elapsed = sample.elapsed;
        assert!(elapsed + warming <= whole, "{elapsed:?} of {whole:?}");
    }

    #[test]
    fn parts_of_what_warmed_up_are_counted_as_those_of_what_was_timed() {
        let mut sample = timed_loop((Until::Ops(10), None), 1, 4, |_| Ok(())).unwrap();
        sample.count_parts(100);
        // `Until::Ops` counts what warmed up.
        assert_eq!((sample.ops, sample.warmup_ops), (600, 400));
        assert!((sample.per_op(1000) - 1.0).abs() < 1e-9);
    }
}
