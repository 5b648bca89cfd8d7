//! What comes with the newest state, across kills: states of the past, readers of the commit stream, and backups.
//!
//! Whenever the parent has compared a database with the model, it also reads states that it compared in earlier rounds; reads on,
//! as a named subscriber, what was committed since its last acknowledgement, which must come to the same rows; asks how far the
//! child's own subscriber had come; and adds an increment to a backup, which now and then is restored.

use std::sync::PoisonError;

use northstardb::{Db, Error, LogFilter, Retention, Tail, TxnId};

use super::life::SPAWNING;
use super::{COUNTER_TABLE, Life, Totals};
use crate::compare::compare_whole;
use crate::exec::{Handles, tables_of};
use crate::model::State;
use crate::replica::Replica;
use crate::rng::Rng;
use crate::{During, Failure};

/// The subscriber of the parent, and that of the children.
const PARENT: &str = "parent";
pub(super) const CHILD: &str = "child";
/// States that are remembered.
const PAST_MAX: usize = 12;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    /// States that were found, each with the transaction that it was found at.
    past: Vec<(TxnId, State)>,
    /// What the parent's subscriber has not acknowledged, and what all before comes to.
    followed: Option<(TxnId, Replica)>,
    /// The child's subscriber wants nothing before.
    child: TxnId,
    saved: Option<Saved>,
}

/// A full backup and what leads on from it.
#[derive(Debug, Clone)]
struct Saved {
    full: Vec<u8>,
    increments: Vec<Vec<u8>>,
    to: TxnId,
}

/// A database that was compared with the model.
pub(super) struct Found<'f> {
    pub(super) db: &'f Db,
    pub(super) life: &'f Life,
    /// Its newest transaction, and what it holds but for the counter.
    pub(super) at: TxnId,
    pub(super) state: &'f State,
}

fn broken<T>(what: String) -> Result<T, Failure> {
    Err(Failure::Broken(what))
}

/// The tables but for the counter's.
fn without_counter(mut state: State) -> State {
    state.tables.remove(COUNTER_TABLE);
    state
}

impl Beside {
    /// The child has said that all before `position` was acknowledged by its subscriber.
    pub(super) fn heard(&mut self, position: TxnId) {
        self.child = self.child.max(position);
    }

    /// Looks at all of it.
    pub(super) fn check(
        &mut self,
        found: &Found<'_>,
        rng: &mut Rng,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        self.look_back(found, rng, totals)?;
        self.child(found)?;
        self.follow(found, rng, totals)?;
        if rng.chance(30) {
            self.save(found, totals)?;
            if rng.chance(20) {
                self.restore(found, totals)?;
            }
        }
        Ok(())
    }

    fn look_back(
        &mut self,
        found: &Found<'_>,
        rng: &mut Rng,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let kept = found.life.history;
        if kept == Retention::None {
            return Ok(());
        }
        for _ in 0..self.past.len().min(2) {
            let (at, state) = &self.past[rng.index(self.past.len())];
            let read = match found.db.begin_read_at(*at) {
                Ok(read) => read,
                Err(Error::SnapshotGone { .. }) if kept != Retention::All => continue,
                Err(error) => return Err(error).during("begin_read_at"),
            };
            let mut handles = tables_of(&read)?;
            handles.remove(COUNTER_TABLE);
            if !handles.keys().eq(state.tables.keys()) {
                return broken(format!(
                    "at {at} there were {:?}, now {:?}",
                    state.tables.keys(),
                    handles.keys()
                ));
            }
            let what = format!("the state of {at}, looked at from {}", found.at);
            totals.rows += compare_whole(&read, state, &handles, &what)?;
            totals.past += 1;
        }
        if self.past.len() == PAST_MAX {
            self.past.swap_remove(rng.index(PAST_MAX));
        }
        self.past.push((found.at, found.state.clone()));
        Ok(())
    }

    /// Where the child's subscriber is: no earlier than where it said, and with the log to go on.
    fn child(&self, found: &Found<'_>) -> Result<(), Failure> {
        let log = found.db.log().during("log")?;
        let states = log.subscribers().during("subscribers")?;
        let Some(state) = states.into_iter().find(|state| state.name == CHILD) else {
            return match self.child > TxnId::ZERO {
                true => broken("the child's subscriber is gone".to_owned()),
                false => Ok(()),
            };
        };
        if state.is_lost || state.position < self.child || state.position > log.next() {
            return broken(format!(
                "the child's subscriber is {state:?}, it said {}, and {} comes next",
                self.child,
                log.next()
            ));
        }
        let mut tail = log
            .tail(state.position, LogFilter::every_transaction())
            .during("follow the log for the child")?;
        let (mut next, end) = (state.position, found.at);
        while next <= end {
            match tail.try_next().during("read the log for the child")? {
                Some(given) if given.txn_id() == next => next = next.next(),
                given => return broken(format!("{given:?} was given, {next} comes next")),
            }
        }
        Ok(())
    }

    /// Reads what was committed since the last time.
    fn follow(
        &mut self,
        found: &Found<'_>,
        rng: &mut Rng,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let log = found.db.log().during("log")?;
        let (next, replica) = match &self.followed {
            Some((next, replica)) => (*next, replica.clone()),
            None => {
                let read = found.db.begin_read().during("begin_read")?;
                let handles: Handles = tables_of(&read)?;
                (found.at.next(), Replica::of(found.state, &handles))
            }
        };
        let every = LogFilter::every_transaction();
        let subscribed = log.subscribe(PARENT, next, every);
        let mut subscriber = subscribed.during("subscribe")?;
        if subscriber.acknowledged() != next {
            return broken(format!(
                "the parent's subscriber is at {}, it has acknowledged all before {next}",
                subscriber.acknowledged()
            ));
        }
        self.followed = Some((next, replica.clone()));
        let mut replica = replica;
        while Tail::position(&subscriber) <= found.at {
            let position = Tail::position(&subscriber);
            let given = subscriber.try_next().during("read the log")?;
            let Some(given) = given.filter(|given| given.txn_id() == position) else {
                return broken(format!("{position} was not given"));
            };
            for change in given.changes() {
                replica.apply(&change);
            }
            totals.followed += 1;
        }
        if without_counter(replica.state()) != without_counter(found.state.clone()) {
            return broken(format!(
                "what was committed up to {} comes to another state",
                found.at
            ));
        }
        if found.at >= next && rng.chance(50) {
            subscriber.acknowledge(found.at).during("acknowledge")?;
            self.followed = Some((found.at.next(), replica));
        }
        Ok(())
    }

    /// Begins a backup, or adds to it.
    fn save(&mut self, found: &Found<'_>, totals: &mut Totals) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        totals.backups += 1;
        let Some(mut saved) = self.saved.take() else {
            let made = found.db.backup(&mut bytes).during("backup")?;
            self.saved = Some(Saved {
                full: bytes,
                increments: Vec::new(),
                to: made.to,
            });
            return Ok(());
        };
        match found.db.backup_since(saved.to, &mut bytes) {
            Ok(made) => {
                saved.increments.push(bytes);
                saved.to = made.to;
                self.saved = Some(saved);
                Ok(())
            }
            // Nobody had asked for it to be kept.
            Err(Error::NotInLog { .. }) if found.life.log_retention != Retention::All => Ok(()),
            Err(error) => Err(error).during("backup_since"),
        }
    }

    /// Makes a database of what was saved, and compares it with this one.
    fn restore(&self, found: &Found<'_>, totals: &mut Totals) -> Result<(), Failure> {
        let Some(saved) = &self.saved else {
            return Ok(());
        };
        // Not beside the database: what a test's own file system cannot do is of no interest here.
        let elsewhere = tempfile::tempdir().during("make a directory to restore to")?;
        let dir = elsewhere.path().join("restored");
        // A restore opens what it has made and locked: no child may hold a copy of that meanwhile.
        let _spawning = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        let restore = found.life.options().restore(&dir, &*saved.full);
        let mut restore = restore.during("restore")?;
        for bytes in &saved.increments {
            restore.increment(&**bytes, None).during("increment")?;
        }
        let copy = restore.finish();
        let read = copy
            .begin_read()
            .during("begin_read of what was restored")?;
        let mut handles = tables_of(&read)?;
        handles.remove(COUNTER_TABLE);
        // What has come since are subscriptions and acknowledgements.
        if !handles.keys().eq(found.state.tables.keys()) {
            return broken(format!("restored are {:?}", handles.keys()));
        }
        totals.rows += compare_whole(&read, found.state, &handles, "what was restored")?;
        drop(read);
        drop(handles);
        copy.close().during("close what was restored")
    }
}
