//! What a loop measures: operations, wall time, latencies; on one thread or on many that start together.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::{now, seconds};
use crate::error::{Error, Result};

/// 1,000 s: an operation that takes longer is recorded as this.
const NANOS_MAX: u64 = 1_000_000_000_000;
/// Latencies are counted in tenths of a nanosecond, so that a batch of fast operations keeps its digits.
const TENTHS: f64 = 10.0;

/// Measurements of one loop, or of several threads.
#[derive(Debug)]
pub(crate) struct Sample {
    histogram: Histogram<u32>,
    /// Operations done.
    pub(crate) ops: u64,
    /// Of one thread, the time of its loop without what was prepared in between; of many, from the first one's start to the last
    /// one's end.
    pub(crate) elapsed: Duration,
}

impl Sample {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "constant bounds, documented as valid")]
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX * 10, 3).expect("valid bounds");
        Self {
            histogram,
            ops: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// A batch of `ops` operations, whose latency is divided evenly.
    pub(crate) fn record(&mut self, took: Duration, ops: u64) {
        let tenths = took.as_nanos() as f64 * TENTHS / ops.max(1) as f64;
        self.histogram
            .saturating_record((tenths.round() as u64).max(1));
        self.ops += ops;
    }

    /// A latency in nanoseconds; `percentile` runs from 0 to 100.
    pub(crate) fn nanos(&self, percentile: f64) -> f64 {
        self.histogram.value_at_quantile(percentile / 100.0) as f64 / TENTHS
    }

    /// Operations a second of wall time.
    pub(crate) fn per_second(&self) -> f64 {
        self.ops as f64 / seconds(self.elapsed)
    }
}

/// How long a loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    /// At least this long,
    pub(crate) time: Duration,
    /// but not more operations than this.
    pub(crate) ops_max: u64,
}

impl Until {
    /// So many seconds.
    pub(crate) fn seconds(seconds: f64) -> Self {
        Self {
            time: Duration::from_secs_f64(seconds),
            ops_max: u64::MAX,
        }
    }
}

/// Runs `op(index)` in batches of `batch` operations.
pub(crate) fn measure(
    until: Until,
    batch: u64,
    mut op: impl FnMut(u64) -> Result<()>,
) -> Result<Sample> {
    measure_prepared(until, batch, |_| (), |index, ()| op(index))
}

/// The same, with something prepared for each operation before its batch begins, which takes no time that counts.
pub(crate) fn measure_prepared<P>(
    until: Until,
    batch: u64,
    mut prepare: impl FnMut(u64) -> P,
    mut op: impl FnMut(u64, P) -> Result<()>,
) -> Result<Sample> {
    let mut prepared = Vec::with_capacity(batch as usize);
    let mut sample = Sample::new();
    let started = now();
    let (mut index, mut aside) = (0, Duration::ZERO);
    while index < until.ops_max {
        let preparing = now();
        prepared.extend((index..index + batch).map(&mut prepare));
        let batch_started = now();
        aside += batch_started - preparing;
        for one in prepared.drain(..) {
            op(index, one)?;
            index += 1;
        }
        let ended = now();
        sample.record(ended - batch_started, batch);
        if ended - started >= until.time {
            break;
        }
    }
    sample.elapsed = started.elapsed().saturating_sub(aside);
    Ok(sample)
}

/// Runs `run` on `threads` threads, started together once `prepare` is done on all of them, and gives what each handed
/// back beside the sample of all.
pub(crate) fn in_threads<P, T: Send>(
    threads: usize,
    prepare: impl Fn(usize) -> Result<P> + Sync,
    run: impl Fn(usize, P) -> Result<(Sample, T)> + Sync,
) -> Result<(Sample, Vec<T>)> {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (prepare, run, barrier) = (&prepare, &run, &barrier);
                scope.spawn(move || {
                    let prepared = prepare(thread);
                    barrier.wait();
                    let started = now();
                    let (sample, rest) = run(thread, prepared?)?;
                    Ok::<_, Error>((sample, rest, started, now()))
                })
            })
            .collect();
        let (mut all, mut rests) = (Sample::new(), Vec::new());
        let (mut span, mut alone): (Option<(Instant, Instant)>, _) = (None, None);
        for handle in handles {
            let (one, rest, started, ended) = handle
                .join()
                .map_err(|_| Error::Child("a measuring thread panicked".into()))??;
            let added = all.histogram.add(&one.histogram);
            debug_assert!(added.is_ok(), "all histograms have the same bounds");
            all.ops += one.ops;
            rests.push(rest);
            if one.ops == 0 {
                // It did something else.
                continue;
            }
            alone = span.is_none().then_some(one.elapsed);
            let (first, last) = span.unwrap_or((started, ended));
            span = Some((started.min(first), ended.max(last)));
        }
        let together = span.map_or(Duration::ZERO, |(first, last)| last - first);
        all.elapsed = alone.unwrap_or(together);
        Ok((all, rests))
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
        assert!((sample.nanos(50.0) - 10.0).abs() < 0.1);
    }

    #[test]
    fn what_is_prepared_takes_no_time_that_counts() {
        let until = Until {
            time: Duration::MAX,
            ops_max: 4,
        };
        let pause = Duration::from_millis(30);
        let prepare = |index| {
            std::thread::sleep(pause);
            index
        };
        let op = |index, prepared| {
            assert_eq!(index, prepared);
            Ok(())
        };
        let one = || measure_prepared(until, 2, prepare, op);
        let started = now();
        let sample = one().unwrap();
        assert_eq!(sample.ops, 4);
        assert!(sample.elapsed + 4 * pause <= started.elapsed());
        // One of two does something else.
        let run = |thread, ()| {
            let sample = match thread {
                0 => Sample::new(),
                _ => one()?,
            };
            Ok((sample, ()))
        };
        let started = now();
        let (sample, _) = in_threads(2, |_| Ok(()), run).unwrap();
        assert!(sample.elapsed + 4 * pause <= started.elapsed());
    }

    #[test]
    fn threads_add_up_and_hand_their_rest_back() {
        let until = Until {
            time: Duration::MAX,
            ops_max: 10,
        };
        let run = |thread, ()| Ok((measure(until, 1, |_| Ok(()))?, thread));
        let (sample, rests) = in_threads(3, |_| Ok(()), run).unwrap();
        assert_eq!((sample.ops, rests), (30, vec![0, 1, 2]));
    }
}
