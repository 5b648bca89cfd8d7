//! A child process killed at random moments: what it leaves must be a prefix of what it did, no shorter than what it
//! acknowledged.
//!
//! One database lives through many rounds. In each, a child opens it, tells the parent, and performs the random
//! transactions of that round; each puts its round and number under one key. The parent reads acknowledgements from
//! a pipe, kills the child at a random moment (while it opens, soon after, in the middle, while it closes), opens
//! the database itself, replays the same transactions into the model up to the number found, and compares everything:
//! the newest state, earlier ones, what the commit stream comes to, and backups (`beside`).
//!
//! - Limit: `SIGKILL` leaves what the kernel was given, so this shows process crashes. Power loss needs the
//!   simulated disk.
//! - Spec: HD-001.

mod beside;
mod child;
mod life;

use std::path::PathBuf;

use northstardb::Backend;

pub use child::{ChildPlan, Say, child, live};
pub use life::{Heard, Life, Stand};

use crate::rng::Rng;
use crate::{During, Failure};

/// The table that holds the counter.
pub(crate) const COUNTER_TABLE: &str = "counter";
/// A child stops by itself after so many transactions, and closes.
const TXNS_MAX: u64 = 4_000;

/// What a crash run is asked to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `nshard` program, started as the child.
    pub program: PathBuf,
    /// Databases are made below this directory.
    pub dir: PathBuf,
    /// Decides everything but the timing.
    pub seed: u64,
    /// Children to kill.
    pub kills: u64,
    /// Backend; each database draws its own when absent.
    pub backend: Option<Backend>,
    /// Databases under test at the same time.
    pub jobs: u64,
    /// What children are denied, in the words of `nshard child --under`.
    pub under: Option<String>,
}

/// What a crash run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Children killed.
    pub kills: u64,
    /// Of these, before they had opened the database.
    pub while_opening: u64,
    /// Of these, while they closed it.
    pub while_closing: u64,
    /// Children that were done before the kill reached them.
    pub finished: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Transactions found beyond the acknowledged ones.
    pub beyond: u64,
    /// Rows compared.
    pub rows: u64,
    /// Earlier states compared.
    pub past: u64,
    /// Transactions read from the commit stream.
    pub followed: u64,
    /// Backups, whole ones and increments.
    pub backups: u64,
    /// Logs read before their databases were opened.
    pub logs: u64,
    /// Databases used.
    pub databases: u64,
}

impl Totals {
    const fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.while_opening += other.while_opening;
        self.while_closing += other.while_closing;
        self.finished += other.finished;
        self.acknowledged += other.acknowledged;
        self.beyond += other.beyond;
        self.rows += other.rows;
        self.past += other.past;
        self.followed += other.followed;
        self.backups += other.backups;
        self.logs += other.logs;
        self.databases += other.databases;
    }
}

/// Kills `plan.kills` children and checks what each left.
///
/// # Errors
/// The first broken promise, with what is needed to look into it: the database is left where it is.
pub fn run(plan: &Plan) -> Result<Totals, Failure> {
    let share = |job: u64| plan.kills / plan.jobs + u64::from(job < plan.kills % plan.jobs);
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..plan.jobs)
            .map(|job| {
                let mut plan = plan.clone();
                plan.kills = share(job);
                plan.seed = Rng::new(plan.seed).fork(job).word();
                scope.spawn(move || run_job(&plan))
            })
            .collect();
        let mut totals = Totals::default();
        for job in jobs {
            match job.join() {
                Ok(done) => totals.add(&done?),
                Err(_) => return Err(Failure::Broken("a crash job panicked".to_owned())),
            }
        }
        Ok(totals)
    })
}

fn run_job(plan: &Plan) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    let mut rng = Rng::new(plan.seed);
    while totals.kills < plan.kills {
        let seed = rng.word();
        let rounds = rng.between(5, 25);
        let life = Life::new(plan, seed);
        life.live(rounds, plan.kills - totals.kills, &mut totals)?;
        totals.databases += 1;
        std::fs::remove_dir_all(&life.dir).during("remove a database that passed")?;
    }
    Ok(totals)
}

/// Lives one database again, for a failure's replay line.
///
/// # Errors
/// As [`run`].
pub fn replay(plan: &Plan, life: u64) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    Life::new(plan, life).live(plan.kills, u64::MAX, &mut totals)?;
    Ok(totals)
}
