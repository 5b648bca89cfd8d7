//! Engine against model: the same steps on both, compared after each one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use northstardb::{Backend, CommitHandle, Db, Error, Options, ReadTxn, Retention, TxnId};

use crate::compare::{Compare, compare_names, compare_whole};
use crate::exec::{Ended, Executor, Handles, View, tables_of};
use crate::model::{Draft, Model, State};
use crate::ops::{End, Shape, Step, Stream, Txn, Way};
use crate::rng::Rng;
use crate::{During, Failure};

mod copied;
mod differences;
mod followed;

use copied::{Copy, Saved};
use followed::Followed;

/// Where a model run keeps its database, and how it opens it. Drawn from the seed.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The work's bounds.
    pub shape: Shape,
    /// In memory, or in a directory.
    pub memory: bool,
    /// The disk backend.
    pub backend: Backend,
    /// Bytes of the delta that start a checkpoint.
    pub delta_bytes: usize,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// The whole memory budget.
    pub memory_budget: usize,
    /// What is kept of superseded versions, if it is said.
    pub history: Retention,
    /// Bytes of pages that open snapshots keep before they are moved.
    pub pages_held_bytes: u64,
    /// Some tables are made without history.
    pub unkept: bool,
    /// What is kept of the log.
    pub log_retention: Retention,
    /// Bytes of a log segment.
    pub segment_bytes: u32,
    /// Bytes of the log that are kept for subscribers.
    pub held_bytes: u64,
}

impl Setup {
    /// The setup of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(1);
        let page_bytes = rng.pick(&[4096, 16384, 16384, 65536]);
        // Drawn apart: the rest of a seed's setup stays what it was.
        let mut log = Rng::new(seed).fork(6);
        Self {
            shape: Shape::random(&mut rng).for_pages(page_bytes),
            memory: rng.chance(20),
            backend: rng.pick(&[Backend::Plain, Backend::Buffered, Backend::Auto]),
            delta_bytes: rng.pick(&[DELTA_BYTES_LEAST, 512 << 10, 4 << 20]),
            page_bytes,
            memory_budget: rng.pick(&[BUDGET_LEAST, 64 << 20]),
            history: rng.pick(&[
                Retention::None,
                Retention::All,
                Retention::All,
                Retention::Txns(40),
                Retention::Within {
                    age: Duration::from_secs(3600),
                    bytes: 1 << 20,
                },
            ]),
            pages_held_bytes: rng.pick(&[0, 0, 256 << 10, 32 << 20]),
            unkept: Rng::new(seed).fork(7).chance(30),
            log_retention: log.pick(&[
                Retention::None,
                Retention::None,
                Retention::All,
                Retention::Txns(40),
            ]),
            segment_bytes: log.pick(&[64 << 10, 64 << 10, 4 << 20]),
            held_bytes: log.pick(&[HELD_BYTES_ALL, HELD_BYTES_ALL, 200_000]),
        }
    }

    /// Whether a subscriber may lose its place.
    #[must_use]
    pub const fn may_lose(&self) -> bool {
        self.held_bytes < HELD_BYTES_ALL
    }

    fn executor(&self, db: Db) -> Result<Executor, Failure> {
        let mut exec = Executor::new(db, self.shape.key_style)?;
        exec.unkept = self.unkept;
        Ok(exec)
    }

    /// The options to open with.
    pub fn options(&self) -> Options {
        Options::new()
            .backend(self.backend)
            .delta_bytes(self.delta_bytes)
            .page_bytes(self.page_bytes)
            .memory_budget(self.memory_budget)
            .snapshot_held_bytes(self.pages_held_bytes)
            .log_retention(self.log_retention)
            .log_segment_bytes(self.segment_bytes)
            .subscriber_log_bytes(self.held_bytes)
            .history(self.history)
    }
}

/// A small delta, so that checkpoints are frequent.
pub const DELTA_BYTES_LEAST: usize = 64 << 10;
/// More than a run writes.
const HELD_BYTES_ALL: u64 = 1 << 30;
/// A small budget, so that pages are evicted.
pub const BUDGET_LEAST: usize = 16 << 20;

/// What a run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Transactions committed.
    pub commits: u64,
    /// Rows compared.
    pub rows: u64,
    /// Times opened again.
    pub reopened: u64,
    /// Snapshots of earlier transactions read.
    pub as_of: u64,
    /// Of these, gone.
    pub gone: u64,
    /// Tables without history whose past was asked for.
    pub unkept: u64,
    /// Rows that differed between one of them and the newest.
    pub differences: u64,
    /// Checkpoints asked for.
    pub checkpoints: u64,
    /// Transactions given to subscribers.
    pub followed: u64,
    /// Acknowledgements.
    pub acknowledged: u64,
    /// Subscribers that lost their place, as they may.
    pub lost: u64,
    /// Backups taken, full ones and increments.
    pub backups: u64,
    /// Of these, increments that the log did not reach back to.
    pub out_of_reach: u64,
    /// Databases restored.
    pub restored: u64,
    /// Transactions applied to copies.
    pub applied: u64,
    /// Digests of states compared.
    pub digests: u64,
}

impl Totals {
    /// Adds another run's.
    pub const fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.rows += other.rows;
        self.reopened += other.reopened;
        self.as_of += other.as_of;
        self.gone += other.gone;
        self.differences += other.differences;
        self.unkept += other.unkept;
        self.checkpoints += other.checkpoints;
        self.followed += other.followed;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.backups += other.backups;
        self.out_of_reach += other.out_of_reach;
        self.restored += other.restored;
        self.applied += other.applied;
        self.digests += other.digests;
    }
}

/// Runs `steps` steps of `seed`, keeping the database below `dir`.
///
/// # Errors
/// The first difference, with the line that replays it.
pub fn run_seed(seed: u64, steps: u64, dir: &Path) -> Result<Totals, Failure> {
    let setup = Setup::of(seed);
    let replay = |failure: Failure, step: u64| {
        Failure::Broken(format!(
            "{}\n  at step {step} of {setup:?}\n  replay: nshard model --seed {seed} --steps {}",
            crate::chain(&failure),
            step + 1
        ))
    };
    let mut runner = Runner::open(seed, dir.join("db")).map_err(|failure| replay(failure, 0))?;
    let mut stream = Stream::new(seed, runner.setup.shape);
    for step in 0..steps {
        runner
            .step(&stream.step())
            .map_err(|failure| replay(failure, step))?;
    }
    runner.finish().map_err(|failure| replay(failure, steps))?;
    Ok(runner.totals)
}

/// States of earlier transactions that a run remembers.
const KEPT: usize = 400;

/// A snapshot kept open, and what it must show.
#[derive(Debug)]
struct Held {
    read: ReadTxn,
    state: Arc<State>,
    handles: Handles,
}

/// A submitted batch.
#[derive(Debug)]
struct Pending {
    handle: CommitHandle,
    state: State,
    durable: bool,
}

#[derive(Debug)]
struct Runner {
    setup: Setup,
    dir: PathBuf,
    rng: Rng,
    exec: Option<Executor>,
    model: Model,
    /// The state after the last hand-over, which the model may not hold yet.
    latest: State,
    durable: TxnId,
    pending: Vec<Pending>,
    held: Vec<Held>,
    /// Chooses what is done beside the stream's steps.
    beside: Rng,
    followed: Vec<Followed>,
    /// Transactions that did nothing but move subscribers.
    quiet: BTreeSet<TxnId>,
    saved: Option<Saved>,
    copy: Option<Copy>,
    totals: Totals,
}

impl Runner {
    fn open(seed: u64, dir: PathBuf) -> Result<Self, Failure> {
        let setup = Setup::of(seed);
        let db = if setup.memory {
            setup.options().memory().during("open in memory")?
        } else {
            setup.options().open(&dir).during("create")?
        };
        let at = db.begin_read().during("begin_read")?.txn_id();
        let exec = setup.executor(db)?;
        Ok(Self {
            rng: Rng::new(seed).fork(2),
            setup,
            dir,
            exec: Some(exec),
            model: Model::new(at),
            latest: State::default(),
            durable: at,
            pending: Vec::new(),
            held: Vec::new(),
            beside: Rng::new(seed).fork(7),
            followed: Followed::all(),
            quiet: BTreeSet::new(),
            saved: None,
            copy: None,
            totals: Totals::default(),
        })
    }

    fn db(&self) -> Db {
        self.exec.as_ref().expect("open between steps").db.clone()
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Txn(txn) => self.txn(txn)?,
            Step::Checkpoint => {
                self.db().checkpoint().during("checkpoint")?;
                self.totals.checkpoints += 1;
            }
            Step::Reopen => self.reopen(true)?,
            Step::DropAndReopen => self.reopen(false)?,
            Step::Hold => {
                if self.held.len() < 8 {
                    let held = self.snapshot()?;
                    self.held.push(held);
                }
            }
            Step::Release(pick) => {
                if !self.held.is_empty() {
                    let held = self.held.swap_remove(*pick as usize % self.held.len());
                    self.whole(&held.read, &held.state, &held.handles, "a held snapshot")?;
                }
            }
            Step::AsOf(pick) => self.as_of(*pick)?,
            Step::Check => {
                let report = self.db().check().during("check")?;
                if !report.faults.is_empty() {
                    return Err(Failure::Broken(format!("check found {:?}", report.faults)));
                }
            }
            Step::Follow(pick) => self.follow(&mut Rng::new(u64::from(*pick)))?,
        }
        self.beside()?;
        let now = self.snapshot()?;
        self.sample(&now.read, &now.state, &now.handles, 3)?;
        if !self.held.is_empty() && self.rng.chance(10) {
            let held = self.held.remove(0);
            self.sample(&held.read, &held.state, &held.handles, 3)?;
            self.held.push(held);
        }
        self.model.trim(KEPT);
        Ok(())
    }

    /// Reads what was committed once more, in one of the ways that are not a snapshot of this database.
    fn beside(&mut self) -> Result<(), Failure> {
        let mut rng = self.beside.fork(1);
        let kind = self.beside.below(100);
        match kind {
            0..=14 => self.follow(&mut rng),
            15..=16 => self.save(&mut rng),
            17 => self.restore(&mut rng),
            18..=20 => self.replay(&mut rng),
            21..=22 => self.digests(&mut rng),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.settle()?;
        while let Some(held) = self.held.pop() {
            self.whole(&held.read, &held.state, &held.handles, "a held snapshot")?;
        }
        if !self.setup.memory {
            self.reopen(true)?;
        }
        let now = self.snapshot()?;
        self.whole(&now.read, &now.state, &now.handles, "the last state")?;
        self.followed.iter_mut().for_each(Followed::stop);
        let report = self.db().check().during("check")?;
        if !report.faults.is_empty() {
            return Err(Failure::Broken(format!("check found {:?}", report.faults)));
        }
        self.db().close().during("close")
    }

    fn txn(&mut self, txn: &Txn) -> Result<(), Failure> {
        let style = self.setup.shape.key_style;
        let mut draft = Draft::new(self.latest.clone(), style, txn.way != Way::Exclusive);
        let mut rng = self.rng.fork(txn.edits.len() as u64);
        let keys = self.setup.shape.keys;
        let mut exec = self.exec.take().expect("open between steps");
        let mut rows = 0;
        let ended = exec.run(
            txn,
            &mut |write, handles, at, edit, outcome| {
                let expected = draft.apply(edit);
                if outcome != expected {
                    return Err(Failure::Broken(format!(
                        "edit {at} {edit:?} came to {outcome:?}, expected {expected:?}"
                    )));
                }
                if rng.chance(25) {
                    let mut compare = Compare {
                        rng: &mut rng,
                        keys,
                        style,
                        rows: &mut rows,
                    };
                    compare.sample(write, &draft.state, handles, 1, "inside a transaction")?;
                }
                Ok(())
            },
            None,
        );
        if txn.way != Way::Exclusive {
            for edit in &txn.edits {
                draft.apply(edit);
            }
        }
        self.exec = Some(exec);
        self.totals.rows += rows;
        match ended? {
            Ended::Aborted => {}
            Ended::Pending(handle) => {
                self.latest = draft.state.clone();
                let durable = txn.end == End::Durable;
                self.pending.push(Pending {
                    handle,
                    state: draft.state,
                    durable,
                });
                if self.pending.len() > 3 {
                    self.settle()?;
                }
            }
            Ended::Committed(commit) => {
                self.settle()?;
                self.committed(commit.txn_id, draft.state, txn.end == End::Durable)?;
            }
        }
        Ok(())
    }

    /// Waits for what was submitted, in order.
    fn settle(&mut self) -> Result<(), Failure> {
        for pending in std::mem::take(&mut self.pending) {
            let commit = pending.handle.wait().during("wait for a submitted batch")?;
            self.committed(commit.txn_id, pending.state, pending.durable)?;
        }
        Ok(())
    }

    fn committed(&mut self, txn: TxnId, state: State, durable: bool) -> Result<(), Failure> {
        self.totals.commits += 1;
        self.latest = state.clone();
        let newest = self.model.newest().0;
        if !self.model.commit(txn, state) {
            return Err(Failure::Broken(format!(
                "commit is {txn:?}, the one before was {newest:?}"
            )));
        }
        if durable {
            self.durable = self.durable.max(txn);
        }
        Ok(())
    }

    /// The newest snapshot, and what it must show. Every durable commit is in it.
    fn snapshot(&mut self) -> Result<Held, Failure> {
        // A submitted batch becomes visible at any moment, so the model has to know it first.
        self.settle()?;
        let read = self.db().begin_read().during("begin_read")?;
        let at = read.txn_id();
        let newest = self.model.newest().0;
        if at < self.durable || at > newest {
            return Err(Failure::Broken(format!(
                "a new snapshot is at {at:?}, durable is {:?}, newest is {newest:?}",
                self.durable
            )));
        }
        let state = self.model.at(at).unwrap_or_default();
        Ok(Held {
            handles: tables_of(&read)?,
            read,
            state,
        })
    }

    fn reopen(&mut self, close: bool) -> Result<(), Failure> {
        if self.setup.memory {
            return Ok(());
        }
        self.settle()?;
        self.held.clear();
        self.followed.iter_mut().for_each(Followed::stop);
        let exec = self.exec.take().expect("open between steps");
        let newest = self.model.newest();
        if close {
            exec.db.clone().close().during("close")?;
            if !matches!(exec.db.begin_read(), Err(Error::Closed)) {
                return Err(Failure::Broken("begin_read works after close".to_owned()));
            }
        }
        drop(exec);
        let db = self.setup.options().open(&self.dir).during("open again")?;
        let at = db.begin_read().during("begin_read")?.txn_id();
        // A clean close flushes buffered commits too.
        let least = if close { newest.0 } else { self.durable };
        if at < least || at > newest.0 {
            return Err(Failure::Broken(format!(
                "opened at {at:?}, expected {least:?} to {:?}",
                newest.0
            )));
        }
        self.latest = (*self.model.at(at).unwrap_or_default()).clone();
        self.model.cut(at);
        self.quiet.retain(|txn| *txn <= at);
        self.followed
            .iter_mut()
            .for_each(|followed| followed.cut(at));
        self.durable = at;
        self.exec = Some(self.setup.executor(db)?);
        self.totals.reopened += 1;
        let now = self.snapshot()?;
        self.whole(&now.read, &now.state, &now.handles, "the reopened database")
    }

    fn as_of(&mut self, pick: u32) -> Result<(), Failure> {
        self.settle()?;
        let txns = self.model.txns();
        let mut txn = txns[pick as usize % txns.len()];
        if pick.is_multiple_of(4) {
            // The oldest state there is.
            let horizon = self.db().stats().during("stats")?.horizon_txn;
            txn = txns
                .iter()
                .copied()
                .find(|txn| *txn >= horizon)
                .unwrap_or(txn);
        }
        self.totals.as_of += 1;
        let now = self.snapshot()?;
        match self.db().begin_read_at(txn) {
            Ok(read) => {
                if read.txn_id() != txn {
                    return Err(Failure::Broken(format!(
                        "asked for {txn:?}, got {:?}",
                        read.txn_id()
                    )));
                }
                let mut then = Held {
                    handles: tables_of(&read)?,
                    read,
                    state: self.model.at(txn).unwrap_or_default(),
                };
                self.without_past(&mut then)?;
                let what = format!("as of {txn:?}");
                self.whole(&then.read, &then.state, &then.handles, &what)?;
                self.sample(&then.read, &then.state, &then.handles, 3)?;
                self.differences(&then, &now)
            }
            Err(Error::SnapshotGone { horizon, .. }) => {
                self.totals.gone += 1;
                if txn < horizon || txn > now.read.txn_id() {
                    return Ok(());
                }
                Err(Failure::Broken(format!(
                    "{txn:?} is gone although the horizon is {horizon:?}"
                )))
            }
            Err(other) => Err(other).during("begin_read_at"),
        }
    }

    fn sample(
        &mut self,
        view: &dyn View,
        state: &State,
        handles: &Handles,
        times: u64,
    ) -> Result<(), Failure> {
        let mut rng = self.rng.fork(3);
        self.rng.word();
        Compare {
            rng: &mut rng,
            keys: self.setup.shape.keys,
            style: self.setup.shape.key_style,
            rows: &mut self.totals.rows,
        }
        .sample(view, state, handles, times, "a snapshot")
    }

    fn whole(
        &mut self,
        view: &dyn View,
        state: &State,
        handles: &Handles,
        what: &str,
    ) -> Result<(), Failure> {
        compare_names(view, state, what)?;
        self.totals.rows += compare_whole(view, state, handles, what)?;
        Ok(())
    }
}
