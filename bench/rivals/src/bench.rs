//! What a row is given: one engine, its table, what must be in it; and what a row hands back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::error::{Error, Result};
use crate::files;
use crate::generator::{Rng, mix};
use crate::ledger::Ledger;
use crate::rival::{Engine, Op, Rival, Session, Setup};
use crate::sample::{Sample, Until};
use crate::scale::Scale;

/// Rows of one transaction when a table is made for other rows to work on: not timed.
const LOAD_TXN_ROWS: u64 = 20_000;

/// What a row measured on one engine in one repeat.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Values by the name of the row's metric; what could not be told is left out.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Rows that were compared with what must be there, in the loop or after it.
    pub(crate) rows_checked: u64,
}

impl Measured {
    /// Adds a value.
    pub(crate) fn with(mut self, metric: &str, value: f64) -> Self {
        self.metrics.insert(metric.to_owned(), value);
        self
    }

    /// Operations a second, the median and the 99th percentile of their latency.
    pub(crate) fn of(sample: &Sample) -> Self {
        let measured = Self {
            rows_checked: sample.ops,
            ..Self::default()
        };
        measured
            .with("per_second", sample.per_second())
            .with("p50_ns", sample.nanos(50.0))
            .with("p99_ns", sample.nanos(99.0))
    }
}

/// One engine at work.
pub(crate) struct Bench {
    engine: Engine,
    rival: Option<Box<dyn Rival>>,
    setup: Setup,
    /// Where its files are.
    pub(crate) dir: PathBuf,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// The rows.
    pub(crate) content: Content,
    /// What must be stored.
    pub(crate) ledger: Ledger,
    seed: u64,
    stream: u64,
}

impl Bench {
    /// Opens `engine` in `dir`; `loaded` says that an earlier process has put all rows there.
    pub(crate) fn open(
        engine: Engine,
        dir: &Path,
        scale: Scale,
        (content, setup): (Content, Setup),
        seed: u64,
        loaded: bool,
    ) -> Result<Self> {
        let ledger = match loaded {
            true => Ledger::loaded(content, content.len()),
            false => Ledger::empty(content),
        };
        let mut bench = Self {
            engine,
            rival: None,
            setup,
            dir: dir.to_owned(),
            scale,
            content,
            ledger,
            seed,
            stream: 0,
        };
        bench.reopen()?;
        Ok(bench)
    }

    /// The engine.
    pub(crate) fn rival(&self) -> Result<&dyn Rival> {
        let rival = self.rival.as_deref();
        rival.ok_or_else(|| Error::Child("the database is not open".to_owned()))
    }

    /// A handle for this thread.
    pub(crate) fn session(&self) -> Result<Box<dyn Session + '_>> {
        self.rival()?.session()
    }

    /// Closes, if it is open.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.rival.take().map_or(Ok(()), Rival::close)
    }

    /// Opens what is closed.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.close()?;
        let open = self.engine.open.ok_or_else(|| {
            Error::Usage(format!(
                "{} is not built into this program",
                self.engine.name
            ))
        })?;
        self.rival = Some(open(&self.dir, &self.setup)?);
        Ok(())
    }

    /// Opens anew with empty caches, the engine's and the kernel's.
    pub(crate) fn cool(&mut self) -> Result<()> {
        self.close()?;
        files::forget(&self.dir)?;
        self.reopen()
    }

    /// Random numbers and rows of the row and repeat that come next: the same for every engine.
    pub(crate) fn begin(&mut self, row: &str, repeat: u32) {
        let name = row
            .bytes()
            .fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        self.stream = mix(name ^ u64::from(repeat));
    }

    /// The generator of one thread.
    pub(crate) fn rng(&self, thread: usize) -> Rng {
        Rng::new(self.seed, self.stream ^ mix(thread as u64))
    }

    /// How long a loop runs, a given part of the usual.
    pub(crate) fn until(&self, part: f64) -> Until {
        let until = Until::seconds(self.scale.seconds * part);
        Until {
            ops_max: self.scale.ops_max,
            ..until
        }
    }

    /// Puts rows `from` to `to` in version 0 in one durable transaction.
    pub(crate) fn load(&mut self, from: u64, to: u64) -> Result<()> {
        let (content, mut next) = (self.content, from);
        self.session()?.load(&mut |value| {
            let i = next;
            next += 1;
            (i < to).then(|| {
                content.value_into(i, 0, value);
                content.key(i)
            })
        })?;
        for i in from..to {
            self.ledger.set(i, Some(0));
        }
        Ok(())
    }

    /// Puts all rows, as other rows need them to be there: not timed.
    pub(crate) fn load_all(&mut self) -> Result<()> {
        let n = self.content.len();
        if self.content.is_rising() {
            for from in (0..n).step_by(LOAD_TXN_ROWS as usize) {
                self.load(from, n.min(from + LOAD_TXN_ROWS))?;
            }
            return Ok(());
        }
        for from in (0..n).step_by(1000) {
            let op = |i| Op {
                key: self.content.key(i),
                value: Some(self.content.value(i, 0)),
            };
            let ops: Vec<Op> = (from..n.min(from + 1000)).map(op).collect();
            self.session()?.commit(&ops)?;
        }
        for i in 0..n {
            self.ledger.set(i, Some(0));
        }
        Ok(())
    }

    /// Waits for what commits have left to do, the engine's part and the kernel's.
    pub(crate) fn settle(&self) -> Result<()> {
        self.rival()?.settle()?;
        files::write_back(&self.dir)
    }

    /// Compares all that is stored with what must be.
    pub(crate) fn check(&mut self) -> Result<u64> {
        let Self { rival, ledger, .. } = self;
        let rival = rival.as_deref();
        let rival = rival.ok_or_else(|| Error::Child("the database is not open".to_owned()))?;
        ledger.check(&mut *rival.session()?)
    }

    /// `count` different rows, at random, in random order.
    pub(crate) fn choose(&self, rng: &mut Rng, count: u64) -> Vec<u64> {
        let n = self.content.len();
        let count = count.min(n.div_ceil(2)) as usize;
        let (mut chosen, mut seen) = (Vec::with_capacity(count), BTreeSet::new());
        while chosen.len() < count {
            let i = rng.below(n);
            if seen.insert(i) {
                chosen.push(i);
            }
        }
        chosen
    }

    /// A put of row `i`.
    pub(crate) fn put(&self, i: u64, version: u32) -> Op {
        Op {
            key: self.content.key(i),
            value: Some(self.content.value(i, version)),
        }
    }
}
