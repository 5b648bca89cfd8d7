//! Bursts of commits, and the calm after each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::now;
use crate::data::Rng;
use crate::error::Result;
use crate::row::{Ctx, Loaded, Outcome, Row, plain};
use crate::sample::{Sample, Until, beside, in_threads, measure, measure_until};
use crate::stats::median;
use crate::suites::log::commit_one;
use crate::suites::store::check_some;
use crate::target::WriteBatch;
use crate::units::{Unit, show};

/// The row about bursts.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "bench/load/burst_traffic_pattern",
    question: "Does the latency of durable commits come back at once after a burst of them?",
    unit: "durable commit of one row",
    run: burst_traffic_pattern,
}];

/// Bursts, each followed by a calm phase.
const BURSTS: u64 = 5;
/// Threads that commit in a burst.
const THREADS: usize = 64;
/// Rows of each of their transactions.
const BURST_ROWS: u64 = 10;
/// Between two commits of a calm phase, at least.
const TICK: Duration = Duration::from_millis(2);
/// And at least so many times the median of commits that are alone, so that any device is calm.
const TICK_COMMITS: f64 = 4.0;
/// Gets after each commit of a calm phase.
const GETS: u64 = 8;
/// A sleep ends up to so much late; the rest of a wait is spun away.
const SLEEP_LATE: Duration = Duration::from_micros(300);

/// A commit of a calm phase.
#[derive(Debug, Clone, Copy)]
struct Paced {
    /// From when it was due.
    took: Duration,
    /// From the phase's begin.
    ended: Duration,
}

/// What commits and gets at a low rate.
struct Client {
    at: Loaded,
    rng: Rng,
    tick: Duration,
    version: u64,
    gets: Sample,
}

impl Client {
    fn commit(&mut self) -> Result<()> {
        let Loaded { db, table, rows } = &self.at;
        self.version += 1;
        commit_one(db, table, *rows, &mut self.rng, self.version)
    }

    fn get(&mut self) -> Result<()> {
        let Loaded { db, table, rows } = &self.at;
        let i = self.rng.below(rows.n);
        let txn = db.begin_read()?;
        txn.get_with(table, rows.key(i), |value| rows.check(i, value))?
    }

    /// A commit each tick from `begin` on for `time`, and gets after it. One that is late is not left out: the next
    /// follows at once, and its latency counts from when it was due.
    fn calm(&mut self, begin: Instant, time: Duration) -> Result<Vec<Paced>> {
        let mut commits = Vec::new();
        let mut due = begin;
        while due < begin + time {
            wait_until(due);
            self.commit()?;
            let ended = now();
            commits.push(Paced {
                took: ended - due,
                ended: ended - begin,
            });
            for _ in 0..GETS {
                self.get()?;
            }
            self.gets.record(now() - ended, GETS);
            due += self.tick;
        }
        Ok(commits)
    }
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(now());
    thread::sleep(left.saturating_sub(SLEEP_LATE));
    while now() < due {
        std::hint::spin_loop();
    }
}

/// The commits of a phase as a sample.
fn sample_of(commits: &[Paced]) -> Sample {
    let mut sample = Sample::new();
    commits
        .iter()
        .for_each(|commit| sample.record(commit.took, 1));
    sample.elapsed = commits.last().map_or(Duration::ZERO, |last| last.ended);
    sample
}

/// When the first commit ended that took no more than `usual`; the end of the last where none did.
fn back_after(commits: &[Paced], usual: Duration) -> f64 {
    let back = commits.iter().find(|commit| commit.took <= usual);
    let ended = back.or(commits.last()).map(|commit| commit.ended);
    ended.unwrap_or_default().as_nanos() as f64
}

/// Threads that commit as fast as they can, until they are stopped.
fn burst(
    ctx: &Ctx,
    at: &Loaded,
    (threads, round): (usize, u64),
    stop: &AtomicBool,
) -> Result<Sample> {
    let Loaded { db, table, rows } = at;
    let prepare = |thread| Ok(ctx.rng(round * 4096 + 10_000 + thread as u64));
    in_threads(threads, prepare, |_, mut rng| {
        measure_until(stop, |version| {
            let mut batch = WriteBatch::new();
            for _ in 0..BURST_ROWS {
                let i = rng.below(rows.n);
                batch.put(table, rows.key(i), rows.value(i, version));
            }
            db.commit(batch)?;
            Ok(())
        })
    })
}

/// Question: one client commits a random row durably every 2 ms (or four commits' time, if that is more) and gets eight; five times 64
/// threads commit ten random rows each as fast as they can, for two parts of seven of the time, and are told to stop; at that
/// moment the client goes on. Recorded: its commits after the bursts, each from the moment it was due by the schedule and not from
/// when it was begun, so that one slow commit is also in the latency of those that it delayed (no coordinated omission). The client
/// rests during a burst, so that no backlog of its own is told as the engine's; the last commits of the burst, and a checkpoint
/// where the bursts filled the delta, are in its way. Not timed: loading. Unit: one commit. Bound: the same client before the first burst.
/// `back_after_ns` is when, after the worst burst, the first commit was done that took no longer than 99 of 100 did before. Checked:
/// every value that is read, and a thousandth of all rows in the end.
fn burst_traffic_pattern(ctx: &mut Ctx) -> Result<Outcome> {
    let threads = ctx.threads(THREADS);
    let at = ctx.loaded("burst", plain())?;
    let mut client = Client {
        at: at.clone(),
        rng: ctx.rng(795),
        tick: TICK,
        version: 0,
        gets: Sample::new(),
    };
    let alone = measure(Until::Ops(50), 1, |_| client.commit())?;
    let alone = Duration::from_nanos((alone.p50() * TICK_COMMITS) as u64);
    client.tick = client.tick.max(alone);
    let before_all = at.db.stats()?;
    let calm = sample_of(&client.calm(now(), ctx.time(0.75))?);
    let usual = Duration::from_nanos(calm.p99() as u64);
    let calm_gets = std::mem::replace(&mut client.gets, Sample::new());

    let (mut after, mut bursts) = (Sample::new(), Sample::new());
    let (mut first, mut back) = (Vec::new(), 0.0_f64);
    for round in 0..BURSTS {
        let (of_burst, commits) = beside(
            |stop| burst(ctx, &at, (threads, round), stop),
            |stop| {
                thread::sleep(ctx.time(0.1));
                // Alone: they see it a moment later, which is a part of what is measured.
                stop.store(true, Ordering::Relaxed);
                client.calm(now(), ctx.time(0.25))
            },
        )?;
        bursts.then(&of_burst);
        after.then(&sample_of(&commits));
        first.extend(commits.first().map(|commit| commit.took.as_nanos() as f64));
        back = back.max(back_after(&commits, usual));
    }
    let after_all = at.db.stats()?;
    check_some(&at.db, &at.table, at.rows)?;
    let Client { gets, tick, .. } = client;
    at.db.close()?;
    let p99 = after.p99();
    let checkpoints = after_all.checkpoints - before_all.checkpoints;
    let written = after_all.data_bytes_written - before_all.data_bytes_written;
    let throttled = after_all.throttled_ns - before_all.throttled_ns;
    Ok(Outcome::of(after)
        .floor_p50("a commit before the bursts", &calm)
        .floor_rate("p99 before the bursts", calm.p99(), Unit::Nanos, p99)
        .extra("back_after_ns", back)
        .extra("first_after_burst_ns", median(&first))
        .extra("burst_commits_per_second", bursts.per_second())
        .extra("burst_commit_p99_ns", bursts.p99())
        .extra("get_p99_ns", gets.p99())
        .extra("calm_get_p99_ns", calm_gets.p99())
        .extra("checkpoints", checkpoints as f64)
        .extra("data_bytes_written", written as f64)
        .extra("throttled_ns", throttled as f64)
        .note(format!(
            "a commit every {}, by the schedule",
            show(tick.as_nanos() as f64, Unit::Nanos)
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_back_with_the_first_commit_that_is_as_before() {
        let millis = Duration::from_millis;
        let commits: Vec<Paced> = [(9, 9), (3, 11), (1, 13), (5, 19)]
            .map(|(took, ended)| Paced {
                took: millis(took),
                ended: millis(ended),
            })
            .into();
        let back = |usual| back_after(&commits, millis(usual)) / 1e6;
        assert!((back(2) - 13.0).abs() < 1e-9);
        assert!((back(9) - 9.0).abs() < 1e-9);
        assert!((back(0) - 19.0).abs() < 1e-9, "never");
        assert_eq!(sample_of(&commits).elapsed, millis(19));
    }
}
