//! Reading what is in memory.

use super::{Metric, P50, P99, Row, Run};
use crate::bench::{Bench, Measured};
use crate::content::Content;
use crate::error::{Error, Result};
use crate::generator::{Key, Rng, value_head};
use crate::rival::Snapshot;
use crate::sample::{Sample, Until, in_threads, measure};
use crate::units::Unit;

/// Fast operations are timed so many at a time: a clock reading costs as much as a tenth of one.
const BATCH: u64 = 16;
/// Keys of one multi-get.
pub(super) const KEYS: usize = 64;

const GETS: &[Metric] = &[
    Metric::more("per_second", "gets", Unit::PerSecond),
    P50,
    P99,
];
const MULTI_GETS: &[Metric] = &[
    Metric::more("per_second", "keys", Unit::PerSecond),
    Metric::less("p50_ns", "64 keys, p50", Unit::Nanos),
    Metric::less("p99_ns", "p99", Unit::Nanos),
];
const SCANS: &[Metric] = &[
    Metric::more("per_second", "rows", Unit::PerSecond),
    P50,
    P99,
];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "read/get",
        question: "gets of random keys in one snapshot, one thread",
        metrics: GETS,
        run: Run::Shared(|bench| gets(bench, 1, false)),
        once: false,
    },
    Row {
        name: "read/get_all_cores",
        question: "the same, a thread for each core, each in a snapshot of its own",
        metrics: GETS,
        run: Run::Shared(|bench| gets(bench, bench.scale.readers, false)),
        once: false,
    },
    Row {
        name: "read/get_absent",
        question: "gets of keys that are not there, one thread",
        metrics: GETS,
        run: Run::Shared(|bench| gets(bench, 1, true)),
        once: false,
    },
    Row {
        name: "read/snapshot_and_get",
        question: "open a snapshot, get one key, close it; a thread for each core",
        metrics: GETS,
        run: Run::Shared(snapshot_and_get),
        once: false,
    },
    Row {
        name: "read/multi_get_64",
        question: "64 random keys asked for at once, or one after the other where that is all there is",
        metrics: MULTI_GETS,
        run: Run::Shared(|bench| multi_gets(bench, 1.0)),
        once: false,
    },
    Row {
        name: "read/scan_100",
        question: "scans of 100 rows from a random key",
        metrics: SCANS,
        run: Run::Shared(|bench| scans(bench, 100)),
        once: false,
    },
    Row {
        name: "read/scan_1000",
        question: "scans of 1,000 rows from a random key",
        metrics: SCANS,
        run: Run::Shared(|bench| scans(bench, 1000)),
        once: false,
    },
    Row {
        name: "read/scan_all",
        question: "scans of all rows",
        metrics: &[Metric::more("per_second", "rows", Unit::PerSecond)],
        run: Run::Shared(|bench| scans(bench, u64::MAX)),
        once: false,
    },
];

/// Gets row `i` and looks at what came.
pub(super) fn get(snapshot: &mut dyn Snapshot, content: Content, i: u64) -> Result<()> {
    let mut answer = None;
    snapshot.get(&content.key(i), &mut |value| {
        answer = Some(content.version(i, value).map(drop));
    })?;
    answer.unwrap_or_else(|| Err(unanswered()))
}

#[cold]
fn unanswered() -> Error {
    Error::Wrong("a get showed nothing, not even that there is no value".to_owned())
}

fn get_absent(snapshot: &mut dyn Snapshot, content: Content, i: u64) -> Result<()> {
    let mut answer = None;
    snapshot.get(&content.absent_key(i), &mut |value| {
        answer = Some(value.is_none());
    })?;
    match answer {
        Some(true) => Ok(()),
        Some(false) => Err(Error::Wrong(format!("a key beside row {i} has a value"))),
        None => Err(unanswered()),
    }
}

/// Runs `op` in a snapshot and gives its sample.
pub(super) fn in_snapshot(
    bench: &Bench,
    until: Until,
    batch: u64,
    mut op: impl FnMut(&mut dyn Snapshot) -> Result<()>,
) -> Result<Sample> {
    let mut sample = Sample::new();
    bench.session()?.read(&mut |snapshot| {
        sample = measure(until, batch, |_| op(snapshot))?;
        Ok(())
    })?;
    Ok(sample)
}

fn gets(bench: &mut Bench, threads: usize, absent: bool) -> Result<Measured> {
    let (content, until, n) = (bench.content, bench.until(1.0), bench.content.len());
    let bench = &*bench;
    let one = |thread, mut rng: Rng| {
        let _: usize = thread;
        let sample = in_snapshot(bench, until, BATCH, |snapshot| {
            let i = rng.below(n);
            match absent {
                true => get_absent(snapshot, content, i),
                false => get(snapshot, content, i),
            }
        })?;
        Ok((sample, ()))
    };
    let (sample, _) = in_threads(threads, |thread| Ok(bench.rng(thread)), one)?;
    Ok(Measured::of(&sample))
}

fn snapshot_and_get(bench: &mut Bench) -> Result<Measured> {
    let (content, until, n) = (bench.content, bench.until(1.0), bench.content.len());
    let bench = &*bench;
    let one = |thread, mut rng: Rng| {
        let _: usize = thread;
        let mut session = bench.session()?;
        let sample = measure(until, BATCH, |_| {
            let i = rng.below(n);
            session.read(&mut |snapshot| get(snapshot, content, i))
        })?;
        Ok((sample, ()))
    };
    let threads = bench.scale.readers;
    let (sample, _) = in_threads(threads, |thread| Ok(bench.rng(thread)), one)?;
    Ok(Measured::of(&sample))
}

/// Multi-gets for a part of the usual time.
pub(super) fn multi_gets(bench: &Bench, part: f64) -> Result<Measured> {
    let (content, n, mut rng) = (bench.content, bench.content.len(), bench.rng(0));
    let (mut rows, mut keys) = ([0; KEYS], [Key::default(); KEYS]);
    let sample = in_snapshot(bench, bench.until(part), 1, |snapshot| {
        for (row, key) in rows.iter_mut().zip(&mut keys) {
            *row = rng.below(n);
            *key = content.key(*row);
        }
        let (mut answers, mut fault) = (0, None);
        snapshot.multi_get(&keys, &mut |index, value| {
            answers += 1;
            let i = rows.get(index).copied().unwrap_or(u64::MAX);
            if let Err(error) = content.version(i, value) {
                fault = Some(error);
            }
        })?;
        match fault {
            Some(fault) => Err(fault),
            None if answers != KEYS => Err(unanswered()),
            None => Ok(()),
        }
    })?;
    let mut measured = Measured::of(&sample);
    measured.rows_checked *= KEYS as u64;
    let per_second = sample.per_second() * KEYS as f64;
    Ok(measured.with("per_second", per_second))
}

/// Folds the first bytes of a value: it is really read, and wrong rows give another sum.
fn head(value: &[u8]) -> u64 {
    value
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Scans of `len` rows, or of all. What came is summed up while it is timed and compared afterwards.
pub(super) fn scans(bench: &mut Bench, len: u64) -> Result<Measured> {
    let (content, n, mut rng) = (bench.content, bench.content.len(), bench.rng(0));
    let len = len.min(n);
    let mut seen: Vec<(u64, u64, u64)> = Vec::new();
    let sample = in_snapshot(bench, bench.until(1.0), 1, |snapshot| {
        let i = rng.below(n - len + 1);
        let (mut rows, mut sum) = (0, 0_u64);
        snapshot.scan(&content.key(i), &mut |_, value| {
            rows += 1;
            sum = sum.wrapping_add(head(value));
            rows < len
        })?;
        seen.push((i, rows, sum));
        Ok(())
    })?;
    for (i, rows, sum) in seen.iter().copied() {
        let expected = (i..i + len).map(value_head).fold(0, u64::wrapping_add);
        if (rows, sum) != (len, expected) {
            return Err(Error::Wrong(format!(
                "a scan of {len} rows from row {i} on gave {rows} rows, or others than these"
            )));
        }
    }
    let mut measured = Measured::of(&sample);
    measured.rows_checked *= len;
    let per_second = sample.per_second() * len as f64;
    Ok(measured.with("per_second", per_second))
}
