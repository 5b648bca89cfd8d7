//! A row: one named measurement, and what it hands to the report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::data::{Rng, Rows, load};
use crate::error::{BenchError, Result};
use crate::figures::Measured;
use crate::floor::PAGE_BYTES;
use crate::profile::Scale;
use crate::sample::{Sample, Until};
use crate::target::{Db, Options, Retention, Stats, Table};
use crate::units::Unit;

/// One benchmark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// `bench/<suite>/<words>`.
    pub(crate) name: &'static str,
    /// The question it answers, in one line.
    pub(crate) question: &'static str,
    /// What one operation is: the unit of throughput and latency.
    pub(crate) unit: &'static str,
    /// Measures it.
    pub(crate) run: fn(&mut Ctx) -> Result<Outcome>,
}

impl Row {
    /// The name without `bench/`.
    pub(crate) fn short(&self) -> &'static str {
        self.name.strip_prefix("bench/").unwrap_or(self.name)
    }

    /// The suite: the middle part of the name.
    pub(crate) fn suite(&self) -> &'static str {
        self.short().split('/').next().unwrap_or_default()
    }

    /// The word that must be asked for by `--filter`, or as its suite, for it to run, since it takes so long.
    pub(crate) fn only_if_asked(&self) -> Option<&'static str> {
        match self.suite() {
            "soak" => Some("soak"),
            "load" if self.name.ends_with("/sustained_1hour") => Some("sustained_1hour"),
            _ => None,
        }
    }
}

/// The options of a database that keeps no history, which rows measure unless they say otherwise: what history costs has rows of
/// its own, and other engines keep none.
pub(crate) fn plain() -> Options {
    Options::new().history(Retention::None)
}

/// Rows whose regression does not block a change, by the beginning of their names: what the machine does alone, what
/// explains other rows, and what takes so long that no gate waits for it.
const EXPLAINING: &[&str] = &[
    "bench/floor/",
    "bench/btree/get_k",
    "bench/btree/put_k",
    "bench/btree/mixed_80_20_1m",
    "bench/hardening/",
    "bench/io/read_16k_depth_",
    "bench/io/write_16k_depth_",
    "bench/load/",
    "bench/macro/",
    "bench/soak/",
];

/// Whether a regression of a row blocks a change. Spec: `benchmarks_v0`, last column.
pub(crate) fn is_critical(name: &str) -> bool {
    !EXPLAINING.iter().any(|start| name.starts_with(start))
}

/// Bytes that a row may need on the disk, by its name: twice the data that must not fit into memory, and the files of the floors.
/// What keeps every version for two sustained loops needs more where these are long: 6.2 GiB at 2,600 commits a second, and half
/// as much again for a faster disk.
pub(crate) fn room_of(name: &str, scale: &Scale) -> u64 {
    const FILES_OF_FLOORS: u64 = 4;
    const KEPT_A_SECOND: f64 = 160e6;
    let data = (scale.small_budget_mib * 4) << 20;
    let pages = scale.pages * PAGE_BYTES as u64;
    let kept = match name {
        "bench/timetravel/held_snapshot" => scale.sustained_seconds * KEPT_A_SECOND,
        _ => 0.0,
    };
    (2 * data).max(kept as u64) + FILES_OF_FLOORS * pages
}

/// What a row is read against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// What the raw loop did.
    pub(crate) what: &'static str,
    /// Its figure.
    pub(crate) value: f64,
    /// In this unit.
    pub(crate) unit: Unit,
    /// The row's figure divided by the floor's.
    pub(crate) ratio: f64,
}

/// What the engine did to files during the timed part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Transactions committed.
    pub(crate) txns: u64,
    /// Flushes of the log for groups.
    pub(crate) log_flushes: u64,
    /// All others: of the data file, and of segments of the log that are made ready.
    pub(crate) other_flushes: u64,
    /// Bytes read from all files.
    pub(crate) bytes_read: u64,
    /// Bytes written to all files.
    pub(crate) bytes_written: u64,
    /// Pages read because they were not in memory.
    pub(crate) page_reads: u64,
}

impl Cost {
    /// What happened between two readings.
    pub(crate) fn between(before: &Stats, after: &Stats) -> Self {
        let flushes = after.flushes - before.flushes;
        let log_flushes = after.log_flushes - before.log_flushes;
        Self {
            txns: after.commits - before.commits,
            log_flushes,
            other_flushes: flushes.saturating_sub(log_flushes),
            bytes_read: after.bytes_read - before.bytes_read,
            bytes_written: after.bytes_written - before.bytes_written,
            page_reads: after.page_reads - before.page_reads,
        }
    }

    /// Adds what happened in another part of the same row.
    pub(crate) fn add(&mut self, other: Self) {
        self.txns += other.txns;
        self.log_flushes += other.log_flushes;
        self.other_flushes += other.other_flushes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.page_reads += other.page_reads;
    }

    /// Flushes of whatever file per transaction; `None` where nothing was committed.
    pub(crate) fn flushes_per_txn(&self) -> Option<f64> {
        (self.txns > 0).then(|| (self.log_flushes + self.other_flushes) as f64 / self.txns as f64)
    }
}

/// What a row measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Latency, throughput, allocations.
    pub(crate) sample: Sample,
    /// What it cost in files; `None` where no database took part.
    pub(crate) cost: Option<Cost>,
    /// What to read it against.
    pub(crate) floors: Vec<Floor>,
    /// Values for the table of figures.
    pub(crate) figures: Vec<Measured>,
    /// Further numbers worth keeping, by name.
    pub(crate) extra: BTreeMap<&'static str, f64>,
    /// Sentences a reader of the figure needs.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// Of a sample alone.
    pub(crate) fn of(sample: Sample) -> Self {
        Self {
            sample,
            cost: None,
            floors: Vec::new(),
            figures: Vec::new(),
            extra: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// With the engine's counters before and after.
    pub(crate) fn cost(mut self, before: &Stats, after: &Stats) -> Self {
        self.cost = Some(Cost::between(before, after));
        self
    }

    /// With a floor for the median latency, in nanoseconds.
    pub(crate) fn floor_p50(mut self, what: &'static str, floor: &Sample) -> Self {
        let value = floor.p50();
        let ratio = self.sample.p50() / value;
        self.floors.push(Floor {
            what,
            value,
            unit: Unit::Nanos,
            ratio,
        });
        self
    }

    /// With the cost of parts that were added up.
    pub(crate) fn total_cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// With a floor for throughput: `rate` is the row's in the same unit.
    pub(crate) fn floor_rate(
        mut self,
        what: &'static str,
        value: f64,
        unit: Unit,
        rate: f64,
    ) -> Self {
        self.floors.push(Floor {
            what,
            value,
            unit,
            ratio: rate / value,
        });
        self
    }

    /// With a value for the table of figures.
    pub(crate) fn figure(mut self, id: &'static str, value: f64) -> Self {
        self.figures.push(Measured {
            id,
            value,
            floor: None,
        });
        self
    }

    /// The same, if there is one.
    pub(crate) fn figure_if(self, id: &'static str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.figure(id, value),
            None => self,
        }
    }

    /// With a value for the table whose limit is a factor of `floor`.
    pub(crate) fn figure_beside(mut self, id: &'static str, value: f64, floor: f64) -> Self {
        self.figures.push(Measured {
            id,
            value,
            floor: Some(floor),
        });
        self
    }

    /// With another number.
    pub(crate) fn extra(mut self, name: &'static str, value: f64) -> Self {
        self.extra.insert(name, value);
        self
    }

    /// With a sentence.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }
}

/// A loaded database that rows share.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// Its handle.
    pub(crate) db: Db,
    /// The table with the rows.
    pub(crate) table: Table,
    /// Which rows.
    pub(crate) rows: Rows,
}

/// What rows are given: sizes, a seed, a place for files.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// The run's directory; removed when the run ends.
    pub(crate) scratch: PathBuf,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// Where everything random starts.
    pub(crate) seed: u64,
    /// How long a soak runs.
    pub(crate) soak: Duration,
    /// How long what is called an hour runs.
    pub(crate) hour: Duration,
    /// Threads that were asked for instead of the rows' own numbers.
    threads_asked: Option<usize>,
    /// The current row has another number of threads than its own.
    threads_replaced: bool,
    warm: Option<Loaded>,
    /// What the rows of `timetravel` share.
    pub(crate) past: Option<crate::suites::timetravel::Past>,
    /// What it took to make that was told.
    pub(crate) past_is_told: bool,
}

impl Ctx {
    /// For one run in `scratch`.
    pub(crate) fn new(scratch: PathBuf, scale: Scale, seed: u64) -> Self {
        Self {
            scratch,
            scale,
            seed,
            soak: Duration::from_secs_f64(scale.sustained_seconds),
            hour: Duration::from_secs_f64(scale.sustained_seconds),
            threads_asked: None,
            threads_replaced: false,
            warm: None,
            past: None,
            past_is_told: false,
        }
    }

    /// With another number of threads in rows that have several.
    pub(crate) fn threads_asked(mut self, threads: Option<usize>) -> Self {
        self.threads_asked = threads;
        self
    }

    /// Whether a row was given another number of threads since this was last asked.
    pub(crate) fn threads_were_replaced(&mut self) -> bool {
        std::mem::take(&mut self.threads_replaced)
    }

    /// How many threads a row runs that has `named` of them: those of its name, fewer in a test, or what was asked for.
    pub(crate) fn threads(&mut self, named: usize) -> usize {
        if let Some(asked) = self.threads_asked {
            self.threads_replaced = asked != named;
            return asked;
        }
        let few = self.scale.rows < 100_000;
        if few { named.min(8) } else { named }
    }

    /// A generator for the stream `stream` of this run.
    pub(crate) fn rng(&self, stream: u64) -> Rng {
        Rng::new(self.seed, stream)
    }

    /// The rows of the `_1m` tables.
    pub(crate) fn rows(&self) -> Rows {
        Rows::new(self.scale.rows)
    }

    /// An ordinary loop's length, times `share`.
    pub(crate) fn time(&self, share: f64) -> Duration {
        Duration::from_secs_f64(self.scale.seconds * share)
    }

    /// [`Ctx::time`] as a loop's end.
    pub(crate) fn until(&self, share: f64) -> Until {
        Until::Elapsed(self.time(share))
    }

    /// A sustained loop's length.
    pub(crate) fn sustained(&self) -> Duration {
        Duration::from_secs_f64(self.scale.sustained_seconds)
    }

    /// An empty directory called `name`; what an earlier row left there is gone.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(BenchError::file(&dir))?;
        }
        std::fs::create_dir_all(&dir).map_err(BenchError::file(&dir))?;
        Ok(dir)
    }

    /// A new database of [`plain`] options, and a table in it.
    pub(crate) fn fresh(&self, name: &str) -> Result<(Db, Table)> {
        self.fresh_with(name, plain())
    }

    /// A new database, and a table in it.
    pub(crate) fn fresh_with(&self, name: &str, options: Options) -> Result<(Db, Table)> {
        let db = options.open(self.dir(name)?)?;
        let table = db.table("rows")?;
        Ok((db, table))
    }

    /// A new database with all rows in pages.
    pub(crate) fn loaded(&self, name: &str, options: Options) -> Result<Loaded> {
        let (db, table) = self.fresh_with(name, options)?;
        let rows = self.rows();
        load(&db, &table, rows, 1000)?;
        Ok(Loaded { db, table, rows })
    }

    /// The shared database with all rows in pages and in memory; nobody writes to it.
    pub(crate) fn warm(&mut self) -> Result<Loaded> {
        if let Some(warm) = &self.warm {
            return Ok(warm.clone());
        }
        let warm = self.loaded("warm", plain())?;
        let txn = warm.db.begin_read()?;
        for i in 0..warm.rows.n {
            let found = txn.get_with(&warm.table, warm.rows.key(i), |value| {
                warm.rows.check(i, value)
            })?;
            found?;
        }
        drop(txn);
        self.warm = Some(warm.clone());
        Ok(warm)
    }

    /// Closes what rows shared, so that the next suite starts with the memory free.
    pub(crate) fn end_suite(&mut self) -> Result<()> {
        if let Some(warm) = self.warm.take() {
            warm.db.close()?;
        }
        self.end_past()
    }
}

/// Removes a directory that may be large; a row calls it when done with its files.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).map_err(BenchError::file(dir))
}
