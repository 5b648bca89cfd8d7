//! Several jobs, one after the other: what every change needs, or what a night can do.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::jobs::{self, Drive, Job};
use crate::ledger::Ledger;
use crate::tally::Tally;
use crate::{Failure, clock};

/// How much is to be done of each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// What every change needs.
    Change,
    /// What a night adds.
    Night,
}

/// What a campaign is.
#[expect(missing_debug_implementations, reason = "holds a closure")]
pub struct Campaign<'c> {
    /// This program, started as a worker.
    pub program: &'c Path,
    /// Workers at a time.
    pub workers: usize,
    /// How much.
    pub amount: Amount,
    /// Only these jobs; all if there are none.
    pub only: &'c [String],
    /// No seeds are begun after so long.
    pub limit: Option<Duration>,
    /// Where what was done is added up; new seeds begin where it says that the old ones ended.
    pub ledger: Option<&'c Path>,
    /// Told what was done.
    pub say: &'c dyn Fn(&str),
}

/// How long a job is driven before the ledger is written.
const TURN: Duration = Duration::from_mins(5);

impl Campaign<'_> {
    /// Does it.
    ///
    /// # Errors
    /// The first broken promise; a rare place of the engine that nothing came by, if all was done that a change needs; and
    /// that less was done than a change needs.
    pub fn run(&self) -> Result<Tally, Failure> {
        let until = self.limit.map(|limit| clock::now() + limit);
        let mut all = Tally::default();
        let mut whole = self.only.is_empty();
        let mut short = Vec::new();
        for name in self.only {
            jobs::find(name)?;
        }
        for job in jobs::JOBS {
            if !self.only.is_empty() && !self.only.iter().any(|name| name == job.name) {
                continue;
            }
            let (tally, complete) = self.job(job, until)?;
            if !complete {
                short.push(job.name);
            }
            all.merge(&tally);
        }
        whole &= short.is_empty();
        for (what, why) in &all.skipped {
            (self.say)(&format!("SKIPPED: {what}: {why}"));
        }
        (self.say)(&marks(&all));
        let never = all.marks.iter().filter(|(_, count)| **count == 0);
        let never: Vec<_> = never.map(|(mark, _)| format!("{mark:?}")).collect();
        if whole && !never.is_empty() {
            return Err(Failure::Broken(format!(
                "nothing came by these places: {}",
                never.join(", ")
            )));
        }
        if !short.is_empty() {
            let what = format!("less was done than was wanted of {}", short.join(", "));
            if self.amount == Amount::Change {
                return Err(Failure::Broken(what));
            }
            (self.say)(&format!("INCOMPLETE: {what}"));
        }
        Ok(all)
    }

    /// One job; whether all of it was done.
    fn job(&self, job: &Job, until: Option<Instant>) -> Result<(Tally, bool), Failure> {
        let started = clock::now();
        let wanted = |goal: &jobs::Goal| match self.amount {
            Amount::Change => goal.ci,
            Amount::Night => goal.nightly,
        };
        let goals: Vec<u64> = job.goals.iter().map(wanted).collect();
        let mut tally = Tally::default();
        let mut first = match self.ledger {
            Some(ledger) => Ledger::load(ledger)?.next_seed(job.name),
            None => 1,
        };
        let complete = loop {
            // Turns, so that what is interrupted has been added up.
            let turn = self.ledger.is_some().then(|| clock::now() + TURN);
            let drive = Drive {
                program: self.program,
                workers: self.workers,
                first,
                goals: &remaining(job, &goals, &tally),
                until: until.into_iter().chain(turn).min(),
            };
            let outcome = jobs::drive(job, &drive);
            if let Some(ledger) = self.ledger {
                Ledger::change(ledger, |ledger| {
                    match &outcome {
                        Ok((done, next)) => ledger.add(job.name, done, *next),
                        Err(failure) => ledger.violation(job.name, &crate::chain(failure)),
                    }
                    Ok(())
                })?;
            }
            let (done, next) = outcome?;
            let idle = done.counts.is_empty();
            // What cannot be tried here is said, and is no reason to expect less of the rest.
            let skipped = idle && !done.skipped.is_empty();
            tally.merge(&done);
            first = next;
            let left = remaining(job, &goals, &tally);
            let reached = left.iter().all(|left| *left == 0);
            if reached || idle {
                break reached || skipped;
            }
            if until.is_some_and(|until| clock::now() >= until) {
                break false;
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        (self.say)(&line(job, &tally, seconds, first));
        Ok((tally, complete))
    }
}

fn remaining(job: &Job, goals: &[u64], tally: &Tally) -> Vec<u64> {
    let left = |(goal, wanted): (&jobs::Goal, &u64)| wanted.saturating_sub(tally.get(goal.what));
    job.goals.iter().zip(goals).map(left).collect()
}

/// What a job has done, in a line or a few.
#[must_use]
pub fn line(job: &Job, tally: &Tally, seconds: f64, next: u64) -> String {
    let measure = job.goals.first().map_or("", |goal| goal.what);
    #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = tally.get(measure) as f64 / seconds.max(1e-3);
    let mut text = format!(
        "{:<12} {} {measure} in {seconds:.1} s, {rate:.0} a second; next seed {next}, hash {:x}",
        job.name,
        tally.get(measure),
        tally.hash
    );
    for (what, count) in &tally.counts {
        if what != measure {
            write!(text, "\n{count:>24} {what}").ok();
        }
    }
    text
}

/// Which rare places were come by, and how often.
fn marks(tally: &Tally) -> String {
    let reached = tally.marks.values().filter(|count| **count > 0).count();
    let mut text = format!("rare places reached: {reached} of {}", tally.marks.len());
    for (mark, count) in &tally.marks {
        write!(text, "\n{count:>24} {mark}").ok();
    }
    text
}
