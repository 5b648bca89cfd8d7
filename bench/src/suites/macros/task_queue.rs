//! A queue of tasks as swarms of agents share it: inserted in batches, claimed by priority, completed or put back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::now;
use crate::data::{Rows, mix};
use crate::error::{BenchError, Result};
use crate::floor::AppendFloor;
use crate::row::{Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, in_threads};
use crate::target::{Db, ReadTxn, Table, WriteBatch};
use crate::units::{Unit, show};

/// The row about the queue.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "bench/macro/task_queue_claims",
    question: "How many tasks a second does a swarm of 100 agents claim from one queue, the most urgent first and each task exactly once?",
    unit: "claim",
    run: task_queue_claims,
}];

/// Threads that claim.
const AGENTS: usize = 100;
/// Threads that insert.
const PRODUCERS: usize = 2;
/// Tasks inserted in one transaction.
const BATCH: u64 = 100;
/// Priorities, the most urgent 0.
const PRIORITIES: u64 = 4;
/// How often a task that failed is put back.
const RETRY_LIMIT: u64 = 2;
/// One attempt in so many fails.
const FAILING: u64 = 8;
/// How long an agent that finds no task ready waits.
const IDLE: Duration = Duration::from_millis(1);

/// Whether an attempt at a task fails.
fn fails(id: u64, attempt: u64) -> bool {
    mix(mix(id) ^ attempt).is_multiple_of(FAILING)
}

/// How a task must end: by which attempt, and whether well.
fn end_of(id: u64) -> (u64, bool) {
    let done = (1..=RETRY_LIMIT + 1).find(|attempt| !fails(id, *attempt));
    (done.unwrap_or(RETRY_LIMIT + 1), done.is_some())
}

fn wrong(what: String) -> BenchError {
    BenchError::Wrong { what }
}

/// Two numbers as the bytes of a key or value; keys of rising numbers rise.
fn pair(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn unpair(bytes: &[u8]) -> Result<(u64, u64)> {
    let Some((Some(first), Some(second))) = bytes
        .split_at_checked(8)
        .map(|(first, second)| (first.first_chunk(), second.first_chunk()))
    else {
        return Err(wrong(format!("{bytes:?} are not two numbers")));
    };
    Ok((u64::from_be_bytes(*first), u64::from_be_bytes(*second)))
}

fn ready_key(id: u64) -> [u8; 16] {
    pair(mix(id ^ 0x7171) % PRIORITIES, id)
}

/// A task that an agent has claimed.
#[derive(Debug, Clone, Copy)]
struct Claim {
    id: u64,
    attempt: u64,
    agent: u64,
}

/// The tables of the queue.
struct Queue {
    db: Db,
    /// Tasks by their numbers, each with the attempts that were made.
    tasks: Table,
    /// The index of those that can be claimed: priority, task.
    ready: Table,
    /// Who claimed: task, attempt to agent.
    claims: Table,
    /// How tasks ended: task to attempts, 1 for well.
    completed: Table,
    rows: Rows,
}

impl Queue {
    fn of(db: Db, rows: Rows) -> Result<Self> {
        Ok(Self {
            tasks: db.table("tasks")?,
            ready: db.table("ready")?,
            claims: db.table("claims")?,
            completed: db.table("completed")?,
            db,
            rows,
        })
    }

    /// A durable transaction of new tasks.
    fn insert(&self, ids: std::ops::Range<u64>) -> Result<()> {
        let mut batch = WriteBatch::new();
        for id in ids {
            batch.put(&self.tasks, self.rows.key(id), self.rows.value(id, 0));
            batch.put(&self.ready, ready_key(id), []);
        }
        self.db.commit(batch)?;
        Ok(())
    }

    fn attempts(&self, txn: &ReadTxn, id: u64) -> Result<u64> {
        let version = |value: Option<&[u8]>| self.rows.version(id, value);
        txn.get_with(&self.tasks, self.rows.key(id), version)?
    }

    /// Claims the most urgent task, durably; `None` if none is ready.
    fn claim(&self, agent: u64) -> Result<Option<Claim>> {
        let mut txn = self.db.begin_write()?;
        let found = match txn.cursor(&self.ready)?.seek_first()? {
            None => None,
            Some((key, _)) => Some(unpair(key)?),
        };
        let Some((_, id)) = found else {
            return Ok(None);
        };
        let attempt = self.attempts(&txn, id)? + 1;
        txn.delete(&self.ready, ready_key(id))?;
        let key = pair(id, attempt);
        let mine = agent.to_be_bytes();
        if !txn.compare_and_swap(&self.claims, key, None, Some(&mine))? {
            return Err(wrong(format!(
                "attempt {attempt} at task {id} is claimed twice"
            )));
        }
        txn.commit()?;
        Ok(Some(Claim { id, attempt, agent }))
    }

    /// Ends an attempt, durably; whether the task is over with it, or was put back.
    fn complete(&self, claim: Claim) -> Result<bool> {
        let Claim { id, attempt, agent } = claim;
        let mut txn = self.db.begin_write()?;
        let mine = |found: Option<&[u8]>| found == Some(&agent.to_be_bytes());
        if !txn.get_with(&self.claims, pair(id, attempt), mine)? {
            return Err(wrong(format!("agent {agent} lost its claim of task {id}")));
        }
        txn.put(&self.tasks, self.rows.key(id), self.rows.value(id, attempt))?;
        let failed = fails(id, attempt);
        let over = !failed || attempt > RETRY_LIMIT;
        if over {
            let end = pair(attempt, u64::from(!failed));
            if !txn.compare_and_swap(&self.completed, id.to_be_bytes(), None, Some(&end))? {
                return Err(wrong(format!("task {id} was completed twice")));
            }
        } else {
            txn.put(&self.ready, ready_key(id), [])?;
        }
        txn.commit()?;
        Ok(over)
    }

    /// Claims and completes until no task is left; records the claims.
    fn work(&self, agent: u64, left: &AtomicI64) -> Result<Sample> {
        let (mut claims, begun) = (Sample::new(), now());
        // Alone: a late value is one more look at an empty queue.
        while left.load(Ordering::Relaxed) > 0 {
            let started = now();
            let Some(claim) = self.claim(agent)? else {
                thread::sleep(IDLE);
                continue;
            };
            claims.record(now() - started, 1);
            if self.complete(claim)? {
                left.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if claims.ops > 0 {
            claims.ran_since(begun);
        }
        Ok(claims)
    }

    /// Fails unless every task is over as it must be, by claims of all its attempts and no others, `acknowledged` of them.
    fn check(&self, acknowledged: u64) -> Result<()> {
        let txn = self.db.begin_read()?;
        let (mut ended, mut claimed) = (txn.iter(&self.completed)?, txn.iter(&self.claims)?);
        let mut claims = 0;
        for id in 0..self.rows.n {
            let (attempts, well) = end_of(id);
            let end = ended.next().transpose()?;
            let must = (
                id.to_be_bytes().to_vec(),
                pair(attempts, u64::from(well)).to_vec(),
            );
            if end != Some(must) || self.attempts(&txn, id)? != attempts {
                return Err(wrong(format!("task {id} did not end as it must: {end:?}")));
            }
            for attempt in 1..=attempts {
                let key = claimed.next().transpose()?.map(|(key, _)| key);
                if key.as_deref() != Some(&pair(id, attempt)) {
                    return Err(wrong(format!(
                        "of attempt {attempt} at task {id} there is no claim"
                    )));
                }
                claims += 1;
            }
        }
        let more = [ended.next(), claimed.next(), txn.iter(&self.ready)?.next()];
        if claims != acknowledged || more.iter().any(Option::is_some) {
            return Err(wrong(format!(
                "{acknowledged} claims were acknowledged, {claims} are there; beyond them: {more:?}"
            )));
        }
        Ok(())
    }
}

/// Ends the work of all, unless it is told that all went well.
struct Ends<'a>(&'a AtomicI64, bool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// Question: two threads insert tasks in durable transactions of 100, one for each hundred rows of a table; 100 threads claim the first
/// ready one by priority in a durable write transaction (found by the index, taken out of it, claim put), end it in another
/// one, and go on until all are over. One attempt in eight fails and its task is put back, twice at most. Not timed: what
/// the tasks would do. Unit: one claim, from `begin_write` until it is durable; a second has as many of them as were made beside all
/// the rest. Whoever looks for the first steps over what others took since the last checkpoint. Bound: raw appends and flushes a
/// second, of which a group shares one. Checked, after a close and a reopening: every task ended exactly once and as it must,
/// each attempt has one claim, as many as were acknowledged, and nothing is ready.
fn task_queue_claims(ctx: &mut Ctx) -> Result<Outcome> {
    let agents = ctx.threads(AGENTS);
    let rows = Rows::new(ctx.scale.rows / 100);
    let dir = ctx.dir("queue")?;
    let queue = Queue::of(plain().open(&dir)?, rows)?;
    let mut floor = AppendFloor::open(&ctx.scratch)?;
    let mut raw = floor.run(ctx.until(0.2))?;
    let left = AtomicI64::new(rows.n.cast_signed());
    let before = queue.db.stats()?;
    let work = |thread: usize| match thread.checked_sub(PRODUCERS) {
        Some(agent) => queue.work(agent as u64, &left),
        None => {
            for first in (thread as u64 * BATCH..rows.n).step_by(PRODUCERS * BATCH as usize) {
                queue.insert(first..rows.n.min(first + BATCH))?;
            }
            Ok(Sample::new())
        }
    };
    let mut sample = in_threads(PRODUCERS + agents, Ok, |thread, _| {
        // Who waits for tasks of one that failed or panicked would wait forever.
        let mut ends = Ends(&left, true);
        let done = work(thread)?;
        ends.1 = false;
        Ok(done)
    })?;
    let after = queue.db.stats()?;
    raw.then(&floor.run(ctx.until(0.2))?);
    sample.threads = agents;
    queue.db.close()?;

    let started = now();
    let db = plain().open(&dir)?;
    let opened = started.elapsed().as_nanos() as f64;
    let queue = Queue::of(db, rows)?;
    queue.check(sample.ops)?;
    queue.db.close()?;
    remove(&dir)?;

    let ends = (0..rows.n).map(end_of);
    let failed = ends.filter(|(_, well)| !well).count();
    let (rate, raw_rate) = (sample.per_second(), raw.per_second());
    let retried = sample.ops - rows.n;
    let completed = rate * rows.n as f64 / sample.ops.max(1) as f64;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate("raw append + flush", raw_rate, Unit::PerSecond, rate)
        .extra("completions_per_second", completed)
        .extra("tasks", rows.n as f64)
        .extra("reopen_ns", opened)
        .note(format!(
            "no claim twice, each of {} tasks over exactly once, {retried} put back, {failed} failed for good; completed at {}",
            rows.n,
            show(completed, Unit::PerSecond),
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_end_by_their_first_attempt_that_does_not_fail() {
        let ends: Vec<_> = (0..10_000).map(end_of).collect();
        for (id, (attempts, well)) in ends.iter().enumerate() {
            assert_eq!(*well, !fails(id as u64, *attempts));
            assert!((1..*attempts).all(|attempt| fails(id as u64, attempt)));
        }
        let by = |attempt, well| ends.iter().filter(|end| **end == (attempt, well)).count();
        assert!(by(1, true) > 8500 && by(2, true) > 900 && by(3, true) > 80);
        assert!((5..50).contains(&by(3, false)));
    }

    #[test]
    fn two_numbers_are_read_back_and_rise_as_bytes() {
        assert_eq!(unpair(&pair(3, u64::MAX)).ok(), Some((3, u64::MAX)));
        assert!(pair(3, u64::MAX) < pair(4, 0));
        assert!(unpair(&[0; 12]).is_err());
    }

    /// What the row finds where something went wrong.
    #[test]
    fn a_task_left_over_or_claimed_too_often_is_found() {
        let queue = || Queue::of(plain().memory().unwrap(), Rows::new(200)).unwrap();
        let run = |queue: &Queue| {
            queue.insert(0..200).unwrap();
            queue.work(1, &AtomicI64::new(200)).unwrap().ops
        };
        let whole = queue();
        let claims = run(&whole);
        assert!(claims > 200);
        whole.check(claims).unwrap();
        assert!(whole.check(claims + 1).is_err(), "a claim is lost");

        let put = |table: fn(&Queue) -> &Table, key: &[u8]| {
            let queue = queue();
            let claims = run(&queue);
            let mut batch = WriteBatch::new();
            batch.put(table(&queue), key, [0]);
            queue.db.commit(batch).unwrap();
            queue.check(claims)
        };
        assert!(put(|queue| &queue.ready, &ready_key(7)).is_err());
        assert!(put(|queue| &queue.claims, &pair(7, 9)).is_err());
        assert!(put(|queue| &queue.completed, &7_u64.to_be_bytes()).is_err());
        assert!(queue().check(0).is_err(), "nothing is done");
    }
}
