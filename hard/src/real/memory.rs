//! Processes that run out of memory: the n-th allocation fails, or address space ends.
//!
//! An allocation that fails ends a process, unless the engine asked in a way that lets it say no: so this is a kill at a
//! moment that no other run chooses, in the middle of whatever needed memory. The work and the oracle are those of
//! [`crash`]. The first seeds take the allocations of a database's first opening one after the other.
//!
//! - Spec: HD-024.

use std::ops::Range;

use super::limits::Limit;
use crate::crash::{self, Heard, Life, Stand, Totals};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::{During, Failure};

/// What is counted.
pub const FAILED: &str = "allocations that failed";
/// Processes of one seed.
const ROUNDS: u64 = 10;
/// Bytes of address space between too few to start and enough for anything.
const SPACE: Range<u64> = 16 << 20..2 << 30;

/// Does some seeds.
///
/// # Errors
/// The first broken promise.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        one(seed, &mut tally).map_err(|failure| {
            let why = crate::chain(&failure);
            Failure::Broken(format!(
                "seed {seed}: {why}\n  replay: nshard work memory --seed {seed} --seeds 1"
            ))
        })?;
    }
    Ok(tally)
}

/// A new database, and one process after the other that works on it and runs out of memory.
fn one(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let dir = tempfile::tempdir().during("make a directory")?;
    let mut rng = Rng::new(seed).fork(4);
    let mut totals = Totals::default();
    let mut stand = Stand::default();
    let plan = crash::Plan {
        program: std::env::current_exe().during("find this program")?,
        dir: dir.path().to_owned(),
        seed,
        kills: 0,
        backend: None,
        jobs: 1,
        under: None,
    };
    let mut life = Life::new(&plan, seed);
    life.may_fail = true;
    for round in 1..=ROUNDS {
        let limit = if round == 1 {
            Limit::Allocation {
                nth: seed,
                for_good: false,
            }
        } else if rng.chance(10) {
            Limit::AddressSpace(rng.between(SPACE.start, SPACE.end))
        } else {
            // As many in an opening as in each of the larger steps of the work that follows.
            let most = 1 << rng.between(4, 16);
            Limit::Allocation {
                nth: rng.between(1, most),
                for_good: rng.chance(30),
            }
        };
        life.under = Some(limit.word());
        let heard = life.finish(round, rng.between(1, 100), &mut totals)?;
        count(limit, &heard, tally)?;
        if heard.opened || rng.chance(50) {
            life.verify(round, &heard, &mut stand, &mut totals)?;
        }
    }
    tally.add("transactions", totals.acknowledged);
    tally.add("rows compared", totals.rows);
    Ok(())
}

/// What a process came to.
fn count(limit: Limit, heard: &Heard, tally: &mut Tally) -> Result<(), Failure> {
    let told = match heard.failed.as_deref() {
        None => false,
        Some("Io" | "Halted") => true,
        Some(other) => {
            return Err(Failure::Broken(format!(
                "under {} it failed with {other}",
                limit.word()
            )));
        }
    };
    if told {
        tally.add("processes told so by an error", 1);
    }
    if !told && !heard.killed {
        tally.add("processes that had enough", 1);
    } else if matches!(limit, Limit::AddressSpace(_)) {
        tally.add("processes without address space", 1);
    } else {
        tally.add(FAILED, 1);
        let when = match (heard.opened, heard.closing) {
            (false, _) => "of these while opening",
            (true, false) => "of these at work",
            (true, true) => "of these while closing",
        };
        tally.add(when, 1);
    }
    Ok(())
}
