//! The i-th operation of the disk fails, or gives other bytes, for every i and in every way: once, and from then on.
//!
//! - Source: the I/O error loop of SQLite's tests ("How SQLite Is Tested", section 3.2).

use northstar_io::sim::{CrashPlan, Fault, FaultPlan, Kept, Names, Rule, Shadow, Survival, What};

use super::faults::ERRNOS;
use super::oracle::Oracle;
use super::script::Plan;
use super::setup::SimSetup;
use super::storm::CRASHES;
use super::story::{Beginning, Story, tell};
use super::verify::{Look, verify};
use crate::Failure;
use crate::rng::Rng;
use crate::tally::Tally;

/// Counted: operations that were made to fail.
pub const FAILED: &str = "operations made to fail";

/// Steps of work: enough for commits, a checkpoint and a reopening.
const STEPS: usize = 10;

/// Every way in which an operation is made to fail.
pub(super) fn ways() -> Vec<(What, Fault, bool)> {
    let mut ways = Vec::new();
    for sticky in [false, true] {
        ways.extend(ERRNOS.map(|errno| (What::Any, Fault::Error(errno), sticky)));
    }
    ways.push((What::Write, Fault::ErrorAfter(libc::EIO), false));
    ways.push((What::Write, Fault::Short(512), false));
    ways.push((What::Write, Fault::Short(4096), false));
    ways.push((What::Read, Fault::Short(512), false));
    // In each of the first blocks: the last group of a log is in one of them.
    let bits = (0..8).map(|block| block * 8 * 4096 + 100);
    ways.extend(bits.map(|bit| (What::Read, Fault::Flipped(bit), false)));
    ways.push((What::Read, Fault::MisdirectedRead(4096), false));
    for kept in [Kept::Nothing, Kept::All, Kept::Some] {
        ways.push((What::Sync, Fault::SyncFails(libc::EIO, kept), false));
    }
    ways
}

/// Fails every operation of the work of `seed` in every way.
///
/// # Errors
/// The first broken promise, with the operation.
pub fn run(seed: u64) -> Result<Tally, Failure> {
    let plan = Plan {
        steps: STEPS,
        lives: 1,
        ..Plan::of(seed)
    };
    let setup = SimSetup::of(seed);
    let work = plan.work(&setup);
    let steps = work.first().map_or(&[][..], Vec::as_slice);
    let blank = || Beginning {
        disk: Shadow::new(SimSetup::blank()),
        oracle: Oracle::default(),
    };
    let whole = tell(setup, blank(), steps, FaultPlan::default())?;
    let mut tally = Tally {
        hash: whole.hash,
        ..Tally::default()
    };
    for (what, fault, sticky) in ways() {
        for after in 0..whole.operations {
            let rule = Rule {
                what,
                file: None,
                after,
                sticky,
                fault,
            };
            let said = |failure: Failure| {
                Failure::Broken(format!(
                    "{}\n  seed {seed}, with {rule:?}",
                    crate::chain(&failure)
                ))
            };
            let faults = FaultPlan {
                rules: vec![rule.clone()],
                ..FaultPlan::default()
            };
            let story = tell(setup, blank(), steps, faults).map_err(said)?;
            if story.atlas.is_empty() {
                // There is no such operation.
                break;
            }
            tally.add(FAILED, 1);
            tally.add("refused operations", story.failed);
            ends(&setup, &story, &mut tally).map_err(said)?;
        }
    }
    Ok(tally)
}

/// Opens what is left on a sound disk: after a kill of the process, and after power cuts.
fn ends(setup: &SimSetup, story: &Story, tally: &mut Tally) -> Result<(), Failure> {
    let Beginning { disk, oracle } = story.ending();
    let mut rng = Rng::new(tally.get(FAILED));
    let look = Look {
        trace: false,
        again: true,
    };
    verify(setup, disk.clone().killed(), &oracle, &mut rng, look)?;
    for survival in [Survival::Nothing, Survival::Changes(128)] {
        let plan = CrashPlan {
            survival,
            names: Names::First,
            garbage: false,
        };
        let image = disk.crash(plan, &mut || rng.word());
        verify(setup, image, &oracle, &mut rng, look)?;
    }
    tally.add(CRASHES, 3);
    Ok(())
}
