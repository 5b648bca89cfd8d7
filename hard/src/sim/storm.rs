//! Crashes at the events of a story: power cuts, again while recovering from them, and kills of the process alone.

use northstar_io::sim::{CrashPlan, Event, FaultPlan, Image, Names, Shadow, Survival};

use super::faults;
use super::oracle::Oracle;
use super::script::Plan;
use super::setup::SimSetup;
use super::story::{Beginning, Story, tell};
use super::stream;
use super::verify::{Found, Look, verify};
use crate::Failure;
use crate::rng::Rng;
use crate::tally::Tally;

/// Counted: crashes recovered from and compared.
pub const CRASHES: &str = "crashes recovered and compared";
/// Counted: of these, during a recovery.
pub const IN_RECOVERY: &str = "of these in recovery";

/// Counted: transactions that moved a subscriber.
pub const MOVED: &str = "places of subscribers moved";

/// Events that a failure shows.
const SHOWN: usize = 40;

/// Deepest recovery that is cut.
const DEPTH_MAX: u32 = 3;

/// Tells the stories of a seed and crashes at their events.
///
/// # Errors
/// The first broken promise, with where it broke.
pub fn run(plan: &Plan) -> Result<Tally, Failure> {
    let setup = SimSetup::of(plan.seed);
    let mut beginning = Beginning {
        disk: Shadow::new(SimSetup::blank()),
        oracle: Oracle::default(),
    };
    let mut tally = Tally::default();
    for (life, steps) in plan.work(&setup).iter().enumerate() {
        let mut rng = Rng::new(plan.seed).fork(100 + life as u64);
        let in_life = |failure: Failure| {
            Failure::Broken(format!("{}\n  in life {life}", crate::chain(&failure)))
        };
        let faults = match plan.faults {
            true => faults::draw(&mut rng, &setup),
            false => FaultPlan::default(),
        };
        let planned = faults.clone();
        let story = tell(setup, beginning, steps, faults)
            .map_err(|failure| {
                let why = crate::chain(&failure);
                match plan.faults {
                    true => Failure::Broken(format!("{why}\n  with {planned:?}")),
                    false => Failure::Broken(why),
                }
            })
            .map_err(in_life)?;
        tally.add("lives", 1);
        tally.add("transactions", story.commits);
        tally.add(MOVED, story.moved);
        tally.add("disk operations", story.operations);
        tally.add("refused operations", story.failed);
        for injected in &story.atlas {
            tally.add(&faults::name(injected.fault), 1);
        }
        tally.hash = mix(tally.hash, story.hash);
        let mut storm = Storm {
            story: &story,
            rng,
            plan,
            tally,
        };
        beginning = storm
            .rage()
            .map_err(|failure| match story.atlas.is_empty() {
                true => failure,
                false => Failure::Broken(format!(
                    "{}\n  {} faults, the first {:?}",
                    crate::chain(&failure),
                    story.atlas.len(),
                    &story.atlas[..story.atlas.len().min(3)]
                )),
            })
            .map_err(in_life)?;
        tally = storm.tally;
    }
    Ok(tally)
}

pub(super) fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

struct Storm<'s> {
    story: &'s Story,
    rng: Rng,
    plan: &'s Plan,
    tally: Tally,
}

impl Storm<'_> {
    /// Crashes behind events, and gives what one of the crashes left.
    fn rage(&mut self) -> Result<Beginning, Failure> {
        let events = &self.story.events;
        let mut shadow = self.story.beginning.disk.clone();
        let mut oracle = self.story.beginning.oracle.clone();
        let mut at: Vec<usize> = (0..self.plan.cuts)
            .map(|_| self.rng.index(events.len() + 1))
            .collect();
        at.sort_unstable();
        // The last crash of all may come anywhere, and may be one of the process alone.
        let last = self.rng.index(events.len() + 1);
        let killed = self.rng.chance(40);
        let mut next = None;
        let mut cuts = at.into_iter().peekable();
        for passed in 0..=events.len() {
            let somewhere = |failure: &Failure, what: &str| {
                let (why, all) = (crate::chain(failure), events.len());
                let list = listed(&events[passed.saturating_sub(SHOWN)..passed]);
                Failure::Broken(format!(
                    "{why}\n  {what} behind event {passed} of {all}{list}"
                ))
            };
            while cuts.next_if_eq(&passed).is_some() {
                let plan = draw(&mut self.rng, shadow.units());
                let image = shadow.crash(plan, &mut || self.rng.word());
                let deeper = self.plan.deeper > 0 && self.rng.below(self.plan.deeper) == 0;
                self.crash(image, &oracle, if deeper { DEPTH_MAX } else { 0 })
                    .map_err(|failure| somewhere(&failure, &format!("power cut, {plan:?},")))?;
            }
            if passed == last {
                let disk = if killed {
                    let mut disk = shadow.clone();
                    self.crash(disk.killed(), &oracle, 0)
                        .map_err(|failure| somewhere(&failure, "killed"))?;
                    disk
                } else {
                    let plan = draw(&mut self.rng, shadow.units());
                    let image = shadow.crash(plan, &mut || self.rng.word());
                    self.crash(image.clone(), &oracle, 0)
                        .map_err(|failure| somewhere(&failure, &format!("power cut, {plan:?},")))?;
                    Shadow::new(image)
                };
                next = Some(Beginning {
                    disk,
                    oracle: oracle.clone(),
                });
            }
            if let Some(event) = events.get(passed) {
                self.story.pass(event, &mut shadow, &mut oracle);
            }
        }
        Ok(next.expect("the last crash comes behind one of the events"))
    }

    /// Recovers from a crash, and from crashes during that recovery, `depth` deep.
    fn crash(&mut self, image: Image, oracle: &Oracle, depth: u32) -> Result<Found, Failure> {
        let look = Look {
            trace: depth > 0,
            again: self.rng.below(8) == 0,
        };
        let base = (depth > 0).then(|| image.clone());
        let found = verify(&self.story.setup, image, oracle, &mut self.rng, look)?;
        self.tally.add(CRASHES, 1);
        self.tally.add("rows compared", found.rows);
        self.tally.add(stream::STREAMED, found.streamed);
        self.tally
            .add("of these refused as damaged", u64::from(found.at.is_none()));
        let at = found.at.map_or(u64::MAX, northstardb::TxnId::get);
        self.tally.hash = mix(mix(self.tally.hash, at), found.rows);
        if let Some(base) = base {
            // Two cuts somewhere in what opening did.
            for _ in 0..2 {
                let until = self.rng.index(found.events.len() + 1);
                let mut shadow = Shadow::new(base.clone());
                for event in &found.events[..until] {
                    shadow.apply(event);
                }
                let plan = draw(&mut self.rng, shadow.units());
                let image = shadow.crash(plan, &mut || self.rng.word());
                self.crash(image, oracle, depth - 1).map_err(|failure| {
                    Failure::Broken(format!(
                        "{}\n  power cut in recovery, {plan:?}, behind event {until} of {}{}",
                        crate::chain(&failure),
                        found.events.len(),
                        listed(&found.events[..until])
                    ))
                })?;
                self.tally.add(IN_RECOVERY, 1);
            }
        }
        Ok(found)
    }
}

/// Events, a line each.
pub(super) fn listed(events: &[Event]) -> String {
    let lines = events.iter().map(|event| format!("\n    {event}"));
    lines.collect()
}

/// What survives.
pub(crate) fn draw(rng: &mut Rng, units: usize) -> CrashPlan {
    let survival = match rng.below(16) {
        0..=1 => Survival::All,
        2..=3 => Survival::Nothing,
        4..=5 => Survival::Units(rng.pick(&[16, 128, 240])),
        6..=8 => Survival::Changes(rng.pick(&[32, 128, 224])),
        9..=10 => Survival::First(rng.index(units + 1)),
        11..=12 => Survival::Last(rng.index(units + 1)),
        _ => Survival::Mask(rng.word()),
    };
    CrashPlan {
        survival,
        names: rng.pick(&[
            Names::All,
            Names::Nothing,
            Names::First,
            Names::First,
            Names::Any,
        ]),
        garbage: rng.chance(30),
    }
}
