//! What one row measures: latencies, throughput, allocations.
//!
//! - Units: the histogram counts tenths of a nanosecond, so that a batch of fast operations keeps its digits; what
//!   leaves this file is nanoseconds.
//! - Cost: two clock readings (about 40 ns) a batch, outside of what a batch's latency counts by half.

use std::sync::Barrier;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::alloc::Allocs;
use crate::clock::{now, seconds};
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

/// Measurements of one loop, or of several merged.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    histogram: Histogram<u32>,
    /// Operations done.
    pub(crate) ops: u64,
    /// Wall time they took.
    pub(crate) elapsed: Duration,
    /// What the measuring threads allocated.
    pub(crate) allocs: Allocs,
    /// Threads that measured.
    pub(crate) threads: usize,
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
            allocs: Allocs::default(),
            threads: 1,
        }
    }

    /// One operation, or a batch of `ops` whose latency is divided evenly.
    pub(crate) fn record(&mut self, took: Duration, ops: u64) {
        let tenths = took.as_nanos() as f64 * TENTHS_PER_NANO / ops.max(1) as f64;
        self.histogram
            .saturating_record((tenths.round() as u64).clamp(1, TENTHS_MAX));
        self.ops += ops;
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

    /// Allocations an operation.
    pub(crate) fn allocs_per_op(&self) -> f64 {
        self.allocs.count as f64 / self.ops.max(1) as f64
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
        self.ops += whole.ops * parts;
        self.elapsed += whole.elapsed;
        self.allocs += whole.allocs;
    }

    fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "all histograms have the same bounds");
        self.ops += other.ops;
        self.allocs += other.allocs;
    }
}

/// Runs `op(index)` in batches of `batch` and records each batch's latency divided by `batch`.
pub(crate) fn measure(
    until: Until,
    batch: u64,
    mut op: impl FnMut(u64) -> Result<()>,
) -> Result<Sample> {
    let mut sample = Sample::new();
    let (ops_max, time_max) = match until {
        Until::Elapsed(time) => (u64::MAX, time),
        Until::Ops(ops) => (ops, Duration::MAX),
    };
    let allocs = Allocs::of_this_thread();
    let started = now();
    let mut index = 0;
    while index < ops_max {
        let batch_started = now();
        for _ in 0..batch {
            op(index)?;
            index += 1;
        }
        let ended = now();
        sample.record(ended - batch_started, batch);
        if ended - started >= time_max {
            break;
        }
    }
    sample.elapsed = started.elapsed();
    sample.allocs = allocs.since();
    Ok(sample)
}

/// Runs `run` on `threads` threads, started together once `prepare` is done on all of them. Throughput counts from
/// the first thread's start to the last one's end, read by the threads themselves: with more threads than cores
/// the one that waits for them may be the last to run.
pub(crate) fn in_threads<P>(
    threads: usize,
    prepare: impl Fn(usize) -> Result<P> + Sync,
    run: impl Fn(usize, P) -> Result<Sample> + Sync,
) -> Result<Sample> {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (prepare, run, barrier) = (&prepare, &run, &barrier);
                scope.spawn(move || {
                    let prepared = prepare(thread);
                    barrier.wait();
                    let started = now();
                    let sample = run(thread, prepared?)?;
                    Ok::<_, BenchError>((sample, started, now()))
                })
            })
            .collect();
        let mut all = Sample::new();
        all.threads = threads;
        let mut span = None;
        for handle in handles {
            let (one, started, ended) = handle
                .join()
                .map_err(|_| BenchError::Child("a measuring thread panicked".into()))??;
            all.merge(&one);
            let (first, last) = span.unwrap_or((started, ended));
            span = Some((started.min(first), ended.max(last)));
        }
        if let Some((first, last)) = span {
            all.elapsed = last - first;
        }
        Ok(all)
    })
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
        assert_eq!((sample.ops, sample.allocs.count), (100, 0));
    }

    #[test]
    fn threads_add_up() {
        let sample = in_threads(3, Ok, |_, _| measure(Until::Ops(10), 1, |_| Ok(()))).unwrap();
        assert_eq!((sample.ops, sample.threads), (30, 3));
    }
}
