//! The process that is killed: opens, works, acknowledges, closes.

use std::io::Write;
use std::path::PathBuf;

use northstardb::{Backend, CommitHandle, Db, Error, LogFilter, Subscriber, Table};

use super::beside::CHILD;
use super::{COUNTER_TABLE, Life};
use crate::exec::{Ended, Executor};
use crate::ops::{End, Stream};
use crate::rng::Rng;
use crate::{During, Failure};

pub(super) fn counter_bytes(round: u64, number: u64) -> Vec<u8> {
    format!("{round} {number}").into_bytes()
}

pub(super) fn parse_counter(bytes: &[u8]) -> Option<(u64, u64)> {
    let (round, number) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Some((round.parse().ok()?, number.parse().ok()?))
}

/// What a child is told.
#[derive(Debug, Clone)]
pub struct ChildPlan {
    /// The database.
    pub dir: PathBuf,
    /// Its seed.
    pub seed: u64,
    /// The round to perform.
    pub round: u64,
    /// Transactions to perform before closing.
    pub txns: u64,
    /// The backend.
    pub backend: Backend,
}

/// The child's part: open, work, acknowledge, close, until killed.
///
/// # Errors
/// When the engine fails.
pub fn child(plan: &ChildPlan) -> Result<(), Failure> {
    let mut life = Life::of(&plan.dir, plan.seed);
    life.backend = plan.backend;
    let done = live(&life, plan.round, plan.txns, &mut say);
    if let Err(Failure::Engine { source, .. }) = &done {
        say(&format!("failed {}", kind(source)))?;
    }
    done
}

/// The error's name.
fn kind(error: &Error) -> &'static str {
    // Chosen one by one: a parent asks only for these.
    if matches!(error, Error::Full { .. }) {
        "Full"
    } else if matches!(error, Error::Io(_)) {
        "Io"
    } else if matches!(error, Error::Halted { .. }) {
        "Halted"
    } else {
        "Other"
    }
}

/// What an open database says about its disk, in one line.
fn status(db: &Db) -> Result<String, Failure> {
    let stats = db.stats().during("stats")?;
    let direct = if stats.direct { "direct" } else { "buffered" };
    Ok(format!(
        "{} {direct} {}",
        stats.backend,
        stats.warnings.join("|")
    ))
}

/// Where lines for the parent go.
pub type Say<'s> = &'s mut dyn FnMut(&str) -> Result<(), Failure>;

/// One round of a life: opens, does transactions, acknowledges, closes.
///
/// # Errors
/// When the engine fails.
pub fn live(life: &Life, round: u64, txns: u64, say: Say<'_>) -> Result<(), Failure> {
    say("opening")?;
    let db = life.options().open(&life.dir).during("open")?;
    say(&format!("opened {}", status(&db)?))?;
    let counter = db.table(COUNTER_TABLE).during("open the counter's table")?;
    let mut exec = Executor::new(db, life.shape.key_style)?;
    exec.handles.remove(COUNTER_TABLE);
    let mut stream = life.stream(round);
    let mut aside = Rng::new(life.seed).fork(round);
    let mut pending = Vec::new();
    let log = exec.db.log().during("log")?;
    let subscribed = log.subscribe(CHILD, log.next(), LogFilter::all());
    let mut follower = subscribed.during("subscribe")?;
    for number in 1..=txns {
        perform(
            &mut exec,
            &mut stream,
            &counter,
            (round, number),
            &mut pending,
            say,
        )?;
        if aside.chance(1) {
            let db: Db = exec.db.clone();
            db.checkpoint().during("checkpoint")?;
        }
        if aside.chance(3) {
            follow(&mut follower, say)?;
        }
    }
    wait(&mut pending, say)?;
    say(&format!("closing {}", status(&exec.db)?))?;
    exec.db.close().during("close")
}

/// Reads what was committed, and acknowledges it.
fn follow(follower: &mut Subscriber, say: Say<'_>) -> Result<(), Failure> {
    let mut last = None;
    while let Some(found) = follower.try_next().during("read the log")? {
        last = Some(found.txn_id());
    }
    let Some(last) = last else {
        return Ok(());
    };
    follower.acknowledge(last).during("acknowledge")?;
    say(&format!("followed {} .", last.next().get()))
}

fn perform(
    exec: &mut Executor,
    stream: &mut Stream,
    counter: &Table,
    (round, number): (u64, u64),
    pending: &mut Vec<(u64, CommitHandle, bool)>,
    say: Say<'_>,
) -> Result<(), Failure> {
    let txn = stream.txn();
    let bytes = counter_bytes(round, number);
    let durable = txn.end == End::Durable;
    match exec.run(&txn, &mut |_, _, _, _, _| Ok(()), Some((counter, &bytes)))? {
        Ended::Aborted => {}
        Ended::Pending(handle) => {
            pending.push((number, handle, durable));
            if pending.len() > 4 {
                wait(pending, say)?;
            }
        }
        Ended::Committed(commit) => {
            wait(pending, say)?;
            if durable {
                say(&format!("ack {number} {} .", commit.txn_id.get()))?;
            }
        }
    }
    Ok(())
}

fn wait(pending: &mut Vec<(u64, CommitHandle, bool)>, say: Say<'_>) -> Result<(), Failure> {
    for (number, handle, durable) in pending.drain(..) {
        let commit = handle.wait().during("wait for a submitted batch")?;
        if durable {
            say(&format!("ack {number} {} .", commit.txn_id.get()))?;
        }
    }
    Ok(())
}

/// One line to the parent, in one write.
fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
        .during("tell the parent")
}
