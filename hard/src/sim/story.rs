//! Random work on the engine over a simulated disk, kept as a trace and notes for the oracle.

use std::sync::Arc;

use northstar_io::sim::{Event, FaultPlan, Injected, Shadow, SimDisk};
use northstardb::internals;
use northstardb::{Db, Error, ReadTxn, TxnId};

use super::allow::Allowed;
use super::oracle::{Begun, Note, Oracle};
use super::setup::SimSetup;
use crate::compare::{compare_names, compare_present, compare_whole};
use crate::exec::{Ended, Executor, Handles, tables_of};
use crate::model::{Draft, State};
use crate::ops::{End, Step, Txn, Way};
use crate::{During, Failure};

pub(super) mod followed;

/// Where a life begins: a disk, and what the oracle knows.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The disk, with what the life before left unsynced.
    pub disk: Shadow,
    /// What must and may be found.
    pub oracle: Oracle,
}

/// What happened in one life of a process.
#[derive(Debug)]
pub struct Story {
    /// How the database is opened.
    pub setup: SimSetup,
    /// How it began.
    pub beginning: Beginning,
    /// What happened to the disk. A mark is a place in `notes`, a fault one in `atlas`.
    pub events: Vec<Event>,
    /// See [`Note`].
    pub notes: Vec<Note>,
    /// Faults that happened.
    pub atlas: Vec<Injected>,
    /// Events before each step.
    pub steps_at: Vec<usize>,
    /// Operations of the disk.
    pub operations: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions that moved a subscriber.
    pub moved: u64,
    /// Operations of the database that failed, as faults allowed.
    pub failed: u64,
    /// See [`northstar_io::sim::Trace::hash`].
    pub hash: u64,
}

impl Story {
    /// Brings shadow and oracle to behind `event`.
    ///
    /// # Panics
    /// If the event is not one of this story.
    pub fn pass(&self, event: &Event, shadow: &mut Shadow, oracle: &mut Oracle) {
        shadow.apply(event);
        if let Event::Mark(mark) = event {
            let note = usize::try_from(*mark).ok();
            let note = note.and_then(|mark| self.notes.get(mark));
            oracle.note(note.expect("every mark has its note"));
        }
        if let Event::Fault(place) = event {
            let injected = self.atlas.get(*place).expect("every fault is in the atlas");
            oracle.allowed.after(injected);
        }
    }
}

impl Story {
    /// Where a life can begin that comes after all of this one: what is pending stays pending.
    ///
    /// # Panics
    /// Never, for a story that was told.
    #[must_use]
    pub fn ending(&self) -> Beginning {
        let Beginning {
            mut disk,
            mut oracle,
        } = self.beginning.clone();
        for event in &self.events {
            self.pass(event, &mut disk, &mut oracle);
        }
        Beginning { disk, oracle }
    }
}

/// Performs `steps` on a database that is opened from `beginning`.
///
/// # Errors
/// A broken promise: the engine and the model disagree, or the engine fails without a fault that allows it.
pub fn tell(
    setup: SimSetup,
    mut beginning: Beginning,
    steps: &[Step],
    faults: FaultPlan,
) -> Result<Story, Failure> {
    beginning.disk.killed();
    // Its own faults are to come; what was damaged before stays so.
    beginning.oracle.allowed.errors = false;
    let disk = setup.disk(beginning.disk.clone(), true, faults);
    let mut teller = Teller {
        setup,
        disk,
        exec: None,
        over: false,
        halted: false,
        notes: Vec::new(),
        oracle: beginning.oracle.clone(),
        atlas_seen: 0,
        latest: State::default(),
        place: None,
        reading: None,
        held: Vec::new(),
        commits: 0,
        moved: 0,
        failed: 0,
    };
    teller.attempt(Teller::open)?;
    let mut steps_at = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        if teller.over && !(setup.patient && *step == Step::DropAndReopen) {
            continue;
        }
        steps_at.push(teller.disk.traced());
        teller.over = false;
        teller
            .attempt(|teller| teller.step(step))
            .map_err(|failure| {
                let why = crate::chain(&failure);
                Failure::Broken(format!("{why}\n  at step {at}, {step:?}"))
            })?;
    }
    teller.release_all()?;
    if teller.exec.is_some() {
        teller.attempt(Teller::look)?;
    }
    teller.reading = None;
    teller.exec = None;
    let broken = teller.disk.violations();
    if !broken.is_empty() {
        return Err(Failure::Broken(format!("misuse of the disk: {broken:?}")));
    }
    let (operations, atlas) = (teller.disk.operations(), teller.disk.atlas());
    let trace = teller.disk.take_trace();
    Ok(Story {
        setup,
        beginning,
        steps_at,
        operations,
        atlas,
        hash: trace.hash(),
        events: trace.events,
        notes: teller.notes,
        commits: teller.commits,
        moved: teller.moved,
        failed: teller.failed,
    })
}

struct Teller {
    setup: SimSetup,
    disk: Arc<SimDisk>,
    exec: Option<Executor>,
    /// The database cannot be opened any more, because of faults.
    over: bool,
    /// The writer has halted, because of faults.
    halted: bool,
    notes: Vec<Note>,
    oracle: Oracle,
    atlas_seen: usize,
    /// After everything committed, durable or not.
    latest: State,
    /// The first transaction that the subscriber has not acknowledged then, if there is one.
    place: Option<TxnId>,
    reading: Option<followed::Reading>,
    held: Vec<Held>,
    commits: u64,
    moved: u64,
    failed: u64,
}

/// A snapshot kept open, and what it must show.
struct Held {
    read: ReadTxn,
    state: Arc<State>,
    handles: Handles,
}

impl Teller {
    fn note(&mut self, note: Note) -> usize {
        self.disk.mark(self.notes.len() as u64);
        self.oracle.note(&note);
        self.notes.push(note);
        self.notes.len() - 1
    }

    /// Does something that faults may make fail.
    fn attempt(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match what(self) {
            Err(Failure::Engine { source, .. }) if self.may_fail_with(&source) => {
                self.failed += 1;
                self.over |= self.exec.is_none();
                Ok(())
            }
            other => other,
        }
    }

    /// What the faults so far allow.
    fn allowed(&mut self) -> Allowed {
        let atlas = self.disk.atlas();
        for injected in &atlas[self.atlas_seen..] {
            self.oracle.allowed.after(injected);
        }
        self.atlas_seen = atlas.len();
        self.oracle.allowed.clone()
    }

    fn may_fail_with(&mut self, error: &Error) -> bool {
        let allowed = self.allowed();
        if matches!(error, Error::Full { .. }) && self.disk.was_full() {
            return true;
        }
        self.halted |= matches!(error, Error::Halted { .. });
        allowed.error(error)
    }

    fn db(&self) -> Db {
        self.exec.as_ref().expect("open between steps").db.clone()
    }

    fn open(&mut self) -> Result<(), Failure> {
        self.reading = None;
        self.exec = None;
        self.halted = false;
        let db = self.setup.open(&self.disk).during("open")?;
        let at = db.begin_read().during("begin_read")?.txn_id();
        self.allowed();
        if let Some(back) = self.oracle.with_hidden()
            && self.oracle.state(at).is_none()
        {
            self.oracle = back;
        }
        self.latest = (*self.oracle.expect(at)?).clone();
        self.place = self.oracle.place(at);
        // Whatever was found is durable before anybody is shown it.
        self.note(Note::Cut(at));
        self.note(Note::Acked(at));
        let exec = Executor::new(db, self.setup.shape.key_style)?;
        self.exec = Some(exec);
        self.look()
    }

    /// Everything is as it was committed last.
    fn look(&mut self) -> Result<(), Failure> {
        let exec = self.exec.as_ref().expect("open");
        let read = exec.db.begin_read().during("begin_read")?;
        // Buffered commits are shown once they are durable.
        let at = read.txn_id();
        let Some(state) = self.oracle.state(at) else {
            return Err(Failure::Broken(format!(
                "a reader is at {at:?}, which nobody began"
            )));
        };
        compare_names(&read, &state, "now")?;
        compare_present(&read, &state, &tables_of(&read)?, "now")?;
        followed::is_at(&exec.db, self.oracle.place(at))
    }

    /// Reads what was held.
    fn release_all(&mut self) -> Result<(), Failure> {
        for held in std::mem::take(&mut self.held) {
            let what = "a held snapshot, at last";
            self.attempt(|_| {
                compare_whole(&held.read, &held.state, &held.handles, what).map(drop)
            })?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Txn(txn) if self.halted => self.refused(txn),
            Step::Txn(txn) => self.txn(txn),
            Step::Checkpoint => {
                self.db().checkpoint().during("checkpoint")?;
                self.flushed()
            }
            Step::Follow(pick) => self.follow(*pick),
            Step::Reopen => {
                self.release_all()?;
                self.reading = None;
                let closed = self.exec.take().expect("open").db.close();
                if let Err(error) = closed {
                    if !self.may_fail_with(&error) {
                        return Err(error).during("close");
                    }
                    self.failed += 1;
                } else {
                    // A clean close keeps everything.
                    let newest = self.oracle.newest();
                    self.note(Note::Acked(newest));
                }
                self.open()
            }
            Step::DropAndReopen => {
                self.release_all()?;
                self.reading = None;
                self.exec = None;
                self.open()
            }
            Step::Hold => {
                let read = self.db().begin_read().during("begin_read")?;
                let state = self.oracle.expect(read.txn_id())?;
                // Who has seen a transaction may tell others.
                self.note(Note::Acked(read.txn_id()));
                let handles = tables_of(&read)?;
                self.held.push(Held {
                    read,
                    state,
                    handles,
                });
                Ok(())
            }
            Step::Release(pick) => {
                if self.held.is_empty() {
                    return Ok(());
                }
                let held = self.held.swap_remove(*pick as usize % self.held.len());
                compare_whole(&held.read, &held.state, &held.handles, "a held snapshot").map(drop)
            }
            Step::AsOf(_) => {
                internals::idle(&self.db()).during("idle work")?;
                self.flushed()
            }
            Step::Check => {
                let report = self.db().check().during("check")?;
                // What a disk lied about in an earlier life is still damaged.
                let allowed = self.allowed();
                if report.faults.is_empty() || allowed.errors || allowed.damage {
                    return Ok(());
                }
                Err(Failure::Broken(format!("check found {:?}", report.faults)))
            }
        }
    }

    /// Whatever was committed is durable now.
    fn flushed(&mut self) -> Result<(), Failure> {
        let at = self.db().begin_read().during("begin_read")?.txn_id();
        self.oracle.expect(at)?;
        self.note(Note::Acked(at));
        Ok(())
    }

    /// After a halt nobody commits any more.
    fn refused(&mut self, txn: &Txn) -> Result<(), Failure> {
        let style = self.setup.shape.key_style;
        let mut draft = Draft::new(self.latest.clone(), style, txn.way != Way::Exclusive);
        for edit in &txn.edits {
            draft.apply(edit);
        }
        let nothing = draft.state == self.latest;
        let mut exec = self.exec.take().expect("open between steps");
        let ended = exec.run(txn, &mut |_, _, _, _, _| Ok(()), None);
        self.exec = Some(exec);
        match ended {
            Err(Failure::Engine {
                source: Error::Halted { .. },
                ..
            }) => Ok(()),
            Ok(Ended::Committed(commit)) if nothing && commit.txn_id <= self.oracle.newest() => {
                Ok(())
            }
            other => Err(Failure::Broken(format!(
                "after a halt a transaction came to {other:?}"
            ))),
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<(), Failure> {
        let style = self.setup.shape.key_style;
        let mut draft = Draft::new(self.latest.clone(), style, txn.way != Way::Exclusive);
        if txn.way != Way::Exclusive {
            for edit in &txn.edits {
                draft.apply(edit);
            }
        }
        let begun = self.note(Note::Begun(None));
        let mut exec = self.exec.take().expect("open between steps");
        let ended = exec.run(
            txn,
            &mut |_, _, at, edit, outcome| {
                let expected = draft.apply(edit);
                if outcome == expected {
                    return Ok(());
                }
                Err(Failure::Broken(format!(
                    "edit {at} {edit:?} came to {outcome:?}, expected {expected:?}"
                )))
            },
            None,
        );
        self.exec = Some(exec);
        let commit = match ended {
            Ok(Ended::Aborted) => return Ok(()),
            Ok(Ended::Committed(commit)) => Ok(commit),
            // Without threads a submitted batch is written before `submit` returns; a buffered one is only applied.
            Ok(Ended::Pending(handle)) => handle.wait().during("commit"),
            Err(failure) => Err(failure),
        };
        let commit = match commit {
            Ok(commit) => commit,
            Err(failure) => {
                if let Failure::Engine {
                    source: Error::Halted { .. },
                    during,
                } = &failure
                    && during.contains("commit")
                {
                    // Nobody knows whether it will be found.
                    let next = TxnId::new(self.oracle.newest().get() + 1);
                    self.becomes(begun, next, draft.state);
                }
                return Err(failure);
            }
        };
        let at = commit.txn_id;
        if at > self.oracle.newest() {
            self.commits += 1;
            self.latest = draft.state.clone();
            self.becomes(begun, at, draft.state);
        } else if draft.state != self.latest {
            return Err(Failure::Broken(format!(
                "a transaction that changes something came to {at:?}, the newest is {:?}",
                self.oracle.newest()
            )));
        }
        if txn.end == End::Durable {
            self.note(Note::Acked(at));
        }
        Ok(())
    }

    /// What was begun may be found as transaction `at`, with this state.
    fn becomes(&mut self, begun: usize, at: TxnId, state: State) {
        let note = Note::Begun(Some(Begun {
            txn: at,
            state: Arc::new(state),
            place: self.place,
        }));
        self.oracle.note(&note);
        self.notes[begun] = note;
    }
}
