//! Lives on a file system that fails: processes killed, power cut, syncs failed, writes cut short, reads failed.
//!
//! The work and the oracle are those of [`crash`]. In each round the server of a FUSE file system is told
//! what to do wrong; then a child works until it is killed, is done, or is told of an error; then the power goes. What was
//! acknowledged has to be there all the same.
//!
//! - Spec: HD-015.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use northstardb::Backend;

use super::fault_fs::{Cut, Faults, Volume};
use super::fuse_mount::{Mounted, Shared, lock};
use super::place::{self, NoPlace};
use crate::crash::{self, Life, Stand, Totals};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::{During, Failure};

/// What is counted.
pub const ROUNDS: &str = "rounds on a failing file system";
/// Rounds of one seed, on one database.
pub const ROUNDS_PER_SEED: u64 = 12;

/// Does some seeds.
///
/// # Errors
/// The first broken promise.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if place::or_skip(place::own_mounts(), &mut tally, ROUNDS)?.is_none() {
        return Ok(tally);
    }
    for seed in seeds {
        let dir = tempfile::tempdir().during("make a directory")?;
        let lived = live(seed, dir.path(), &mut tally);
        if place::or_skip(lived, &mut tally, ROUNDS)?.is_none() {
            break;
        }
    }
    Ok(tally)
}

fn live(seed: u64, dir: &Path, tally: &mut Tally) -> Result<(), NoPlace> {
    let mut rng = Rng::new(seed).fork(4);
    let volume: Shared = Arc::new(Mutex::new(Volume::new(rng.word())));
    let backend = rng.pick(&[Backend::Auto, Backend::Plain, Backend::Buffered]);
    let plan = crash::Plan {
        program: std::env::current_exe().during("find this program")?,
        dir: dir.to_owned(),
        seed,
        kills: 0,
        backend: Some(backend),
        jobs: 1,
        under: None,
    };
    let mut life = Life::new(&plan, seed);
    let mut stand = Stand::default();
    let mut totals = Totals::default();
    for round in 1..=ROUNDS_PER_SEED {
        let faults = draw(&mut rng);
        life.may_fail = true;
        let mounted = Mounted::new(&volume, dir)?;
        lock(&volume).faults = faults;
        let heard = if rng.chance(70) {
            life.work(round, &mut rng, &mut totals)?
        } else {
            life.finish(round, rng.between(20, 200), &mut totals)?
        };
        lock(&volume).faults = Faults::default();
        mounted.close()?;
        let cut = rng.pick(&[Cut::Nothing, Cut::Everything, Cut::Everything, Cut::Some]);
        lock(&volume).cut(cut);
        let met = std::mem::take(&mut lock(&volume).met);
        let told = |failure: Failure| {
            Failure::Broken(format!(
                "{}\n  in round {round} of seed {seed}, {backend:?}, with {faults:?} of which {met:?} were met, then {cut:?} was lost\n  replay: nshard work fuse --seed {seed} --seeds 1",
                crate::chain(&failure)
            ))
        };
        if let Some(failed) = &heard.failed {
            let any = met.syncs + met.shortened + met.reads > 0;
            if !any || !matches!(failed.as_str(), "Io" | "Halted") {
                let why = Failure::Broken(format!("a child failed with {failed}"));
                return Err(told(why).into());
            }
            tally.add("processes told of an error", 1);
        }
        let mounted = Mounted::new(&volume, dir)?;
        let verified = life.verify(round, &heard, &mut stand, &mut totals);
        verified.map_err(told)?;
        mounted.close()?;
        tally.add(ROUNDS, 1);
        tally.add("syncs failed", met.syncs);
        tally.add("writes cut short", met.shortened);
        tally.add("reads failed", met.reads);
        tally.add("power cuts", u64::from(cut != Cut::Nothing));
        tally.add("processes killed", u64::from(heard.killed));
    }
    tally.add("transactions", totals.acknowledged);
    tally.add("rows compared", totals.rows);
    Ok(())
}

/// What goes wrong in a round.
fn draw(rng: &mut Rng) -> Faults {
    let mut faults = Faults::default();
    match rng.below(5) {
        0 => {}
        1 | 2 => {
            faults.sync_fails_after = Some(rng.below(120));
            faults.sync_fails_on = rng.chance(50);
        }
        3 => faults.writes_shortened = rng.pick(&[5, 50, 100]),
        _ => faults.read_fails_after = Some(rng.below(60)),
    }
    faults
}
