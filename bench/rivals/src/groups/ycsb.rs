//! The core workloads of YCSB: 1,000-byte rows, eight threads, every write a durable transaction, every read a snapshot.
//!
//! - Source: Cooper et al., Benchmarking Cloud Serving Systems with YCSB (2010), section 4.1.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::read::get;
use super::{Metric, P50, P99, Row, Run};
use crate::bench::{Bench, Measured};
use crate::content::Content;
use crate::error::{Error, Result};
use crate::generator::Rng;
use crate::ledger::Writes;
use crate::rival::Session;
use crate::sample::{in_threads, measure};
use crate::units::Unit;
use crate::zipf::Zipf;

/// Threads of every workload.
const THREADS: usize = 8;
/// Longest scan; lengths are uniform.
const SCAN_ROWS_MAX: u64 = 100;

const OPS: &[Metric] = &[
    Metric::more("per_second", "operations", Unit::PerSecond),
    P50,
    P99,
];

/// One workload, in percent of its operations.
#[derive(Debug, Clone, Copy, Default)]
struct Workload {
    update: u64,
    insert: u64,
    scan: u64,
    modify: u64,
    /// The latest rows are popular, instead of scattered ones.
    latest: bool,
}

/// In YCSB's order: the workloads that insert come last.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "ycsb/a",
        question: "update heavy: half reads, half updates, zipfian",
        metrics: OPS,
        run: Run::Shared(|bench| {
            run(
                bench,
                Workload {
                    update: 50,
                    ..Workload::default()
                },
            )
        }),
        once: false,
    },
    Row {
        name: "ycsb/b",
        question: "read mostly: 95 reads to 5 updates, zipfian",
        metrics: OPS,
        run: Run::Shared(|bench| {
            run(
                bench,
                Workload {
                    update: 5,
                    ..Workload::default()
                },
            )
        }),
        once: false,
    },
    Row {
        name: "ycsb/c",
        question: "reads only, zipfian",
        metrics: OPS,
        run: Run::Shared(|bench| run(bench, Workload::default())),
        once: false,
    },
    Row {
        name: "ycsb/f",
        question: "read-modify-write: half reads, half modifications, zipfian",
        metrics: OPS,
        run: Run::Shared(|bench| {
            run(
                bench,
                Workload {
                    modify: 50,
                    ..Workload::default()
                },
            )
        }),
        once: false,
    },
    Row {
        name: "ycsb/d",
        question: "read latest: 95 reads to 5 inserts, the last inserted are popular",
        metrics: OPS,
        run: Run::Shared(|bench| {
            run(
                bench,
                Workload {
                    insert: 5,
                    latest: true,
                    ..Workload::default()
                },
            )
        }),
        once: false,
    },
    Row {
        name: "ycsb/e",
        question: "short ranges: 95 scans of 1 to 100 rows to 5 inserts, zipfian",
        metrics: OPS,
        run: Run::Shared(|bench| {
            run(
                bench,
                Workload {
                    scan: 95,
                    insert: 5,
                    ..Workload::default()
                },
            )
        }),
        once: false,
    },
];

/// Which rows are there while threads insert: all below `limit`.
#[derive(Debug)]
struct Inserted {
    next: AtomicU64,
    /// Pairs with itself: a thread that reads the limit asks only for rows whose commit had returned.
    limit: AtomicU64,
    waiting: Mutex<BTreeSet<u64>>,
}

impl Inserted {
    fn new(n: u64) -> Self {
        Self {
            next: AtomicU64::new(n),
            limit: AtomicU64::new(n),
            waiting: Mutex::new(BTreeSet::new()),
        }
    }

    /// The index of a new row.
    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Row `i` was acknowledged.
    fn done(&self, i: u64) {
        // The set is whole between its two changes, whatever panicked.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(i);
        let mut limit = self.limit.load(Ordering::Relaxed);
        while waiting.remove(&limit) {
            limit += 1;
        }
        self.limit.store(limit, Ordering::Release);
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }
}

/// What one thread has done.
#[derive(Debug, Default)]
struct Done {
    writes: Writes,
    raised: Writes,
}

/// One thread at work.
struct Client<'a> {
    content: Content,
    workload: Workload,
    inserted: &'a Inserted,
    session: Box<dyn Session + 'a>,
    zipf: Zipf,
    rng: Rng,
    version: u32,
    done: Done,
}

impl Client<'_> {
    fn choose(&mut self) -> u64 {
        if !self.workload.latest {
            return self.zipf.scattered(&mut self.rng);
        }
        self.zipf.grow(self.inserted.limit());
        self.zipf.latest(&mut self.rng)
    }

    fn op(&mut self, bench: &Bench) -> Result<()> {
        let Workload {
            update,
            insert,
            scan,
            modify,
            ..
        } = self.workload;
        let dice = self.rng.below(100);
        if dice < insert {
            let i = self.inserted.begin();
            self.put(bench, i)?;
            self.inserted.done(i);
            return Ok(());
        }
        let i = self.choose();
        let content = self.content;
        match dice - insert {
            dice if dice < update => self.put(bench, i),
            dice if dice < update + modify => self.modify(i),
            dice if dice < update + modify + scan => {
                let rows = 1 + self.rng.below(SCAN_ROWS_MAX);
                scan_some(&mut *self.session, content, i, rows)
            }
            _ => self.session.read(&mut |snapshot| get(snapshot, content, i)),
        }
    }

    fn put(&mut self, bench: &Bench, i: u64) -> Result<()> {
        let version = self.version;
        self.version += THREADS as u32;
        self.done.writes.insert(i, version);
        self.session.commit(&[bench.put(i, version)])
    }

    /// Raises the version by one: an increment that is lost is found afterwards.
    fn modify(&mut self, i: u64) -> Result<()> {
        let content = self.content;
        self.session.modify(&content.key(i), &mut |old| {
            Ok(content.value(i, content.version(i, old)? + 1))
        })?;
        *self.done.raised.entry(i).or_default() += 1;
        Ok(())
    }
}

fn scan_some(session: &mut dyn Session, content: Content, i: u64, rows: u64) -> Result<()> {
    let (from, mut seen, mut fault) = (content.key(i), 0_u64, None);
    let mut last = Vec::new();
    session.read(&mut |snapshot| {
        snapshot.scan(&from, &mut |key, value| {
            // A scattered key ends in its row's index.
            let row = key
                .last_chunk::<8>()
                .map_or(u64::MAX, |end| u64::from_be_bytes(*end));
            let rises = if seen == 0 {
                key == from
            } else {
                key > last.as_slice()
            };
            if !rises || content.version(row, Some(value)).is_err() {
                fault = Some(Error::Wrong(format!(
                    "a scan from row {i} on gave a wrong row"
                )));
            }
            last.clear();
            last.extend_from_slice(key);
            seen += 1;
            fault.is_none() && seen < rows
        })
    })?;
    match fault {
        Some(fault) => Err(fault),
        None if seen == 0 => Err(Error::Wrong(format!("a scan from row {i} on gave nothing"))),
        None => Ok(()),
    }
}

fn run(bench: &mut Bench, workload: Workload) -> Result<Measured> {
    let (n, first, until) = (bench.ledger.len(), bench.ledger.fresh(), bench.until(1.0));
    let (inserted, zipf) = (Inserted::new(n), Zipf::new(n));
    let shared = &*bench;
    let start = |thread| {
        Ok((
            Client {
                content: shared.content,
                workload,
                inserted: &inserted,
                session: shared.session()?,
                zipf: zipf.clone(),
                rng: shared.rng(thread),
                version: first + thread as u32,
                done: Done::default(),
            },
            (),
        ))
    };
    let one = |_: usize, (mut client, ()): (Client<'_>, ())| {
        let sample = measure(until, 1, |_| client.op(shared))?;
        Ok((sample, client.done))
    };
    let (sample, done) = in_threads(THREADS, start, one)?;
    for Done { writes, raised } in done {
        bench.ledger.merge([writes]);
        bench.ledger.raise([raised]);
    }
    Ok(Measured::of(&sample))
}
