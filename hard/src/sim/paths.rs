//! The engine led where the model of the protocol went: the same work, cut off at the same places, with the same blocks
//! surviving.
//!
//! A walk through the model is cut into lives. Each becomes steps of work on the simulated disk; where the model's life
//! ends, the trace of the engine has the same place, told by the syncs around it: between the pages and the meta page of
//! the last slice, say. There the process is killed, the power is cut and each block comes to what it came to in the
//! model, or the sync fails that failed there. What is left is held against the oracle, as after any crash.
//!
//! The model's blocks are kinds of blocks here: all pages of a slice fare as its one page does. The engine writes more
//! generations than the model, so slots are matched by their part: the one that is written, or the newest. Where the
//! engine has nothing to write at a place, the crash comes at the end of the step. Spec: HD-016.

use std::ops::Range;
use std::path::Path;

use northstar_io::SyncMethod;
use northstar_io::sim::{Fate, Fault, FaultPlan, Image, Kept, Rule, Shadow, What};
use stateright::Model;

use super::oracle::Oracle;
use super::places::{Op, Syncs};
use super::setup::{DIR, SimSetup};
use super::story::{Beginning, Story, tell};
use super::verify::{Look, verify};
use crate::Failure;
use crate::checksum::is_sound_page;
use crate::ops::{Edit, End, Fill, Step, Txn, Way};
use crate::protocol::Protocol;
use crate::protocol::disk::{Block, Cell, DATA, LOG, METAS};
use crate::protocol::model::{Act, Process, World};
use crate::rng::Rng;
use crate::tally::Tally;

/// Counted: walks done.
pub const PATHS: &str = "model paths replayed";

/// Counted: ends of lives at the place where the model's ended.
const PLACES_MET: &str = "places met";
/// Counted: ends of lives at a place that the engine does not have.
const PLACES_MISSED: &str = "places the engine does not have";

/// Walks of one seed.
const WALKS: u64 = 50;
/// Acts of a walk at most.
const ACTS_MAX: usize = 90;

/// The walks of some seeds.
///
/// # Errors
/// The first broken promise, with the walk that led there.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        for walk in 0..WALKS {
            let mut rng = Rng::new(seed).fork(walk);
            let protocol = draw(&mut rng);
            let path = wander(&protocol, &mut rng);
            follow(&protocol, &path, rng.word(), &mut tally).map_err(|failure| {
                let acts: Vec<_> = path.iter().map(|(_, act)| format!("{act:?}")).collect();
                let (why, acts) = (crate::chain(&failure), acts.join(" "));
                Failure::Broken(format!(
                    "{why}\n  walk {walk} of seed {seed}: {acts}\n  {protocol:?}"
                ))
            })?;
        }
    }
    Ok(tally)
}

/// A protocol without bounds that matter, and at most one fault.
fn draw(rng: &mut Rng) -> Protocol {
    let fault = rng.below(3);
    Protocol {
        twin: None,
        direct: rng.chance(50),
        threads: false,
        txns: 12,
        generations: 40,
        lives: 5,
        failures: u8::from(fault == 1),
        rots: u8::from(fault == 2),
    }
}

/// A walk by dice: each act with the world before it.
fn wander(protocol: &Protocol, rng: &mut Rng) -> Vec<(World, Act)> {
    let mut path = Vec::new();
    let mut world = protocol.init_states().swap_remove(0);
    while path.len() < ACTS_MAX {
        let mut acts = Vec::new();
        protocol.actions(&world, &mut acts);
        // Kinds of acts first: of power cuts there are hundreds.
        let weight = |act: &Act| match act {
            Act::PowerCut(_) if world.process.is_none() => 6,
            Act::PowerCut(_) => 3,
            Act::Kill => 2,
            Act::Rot(_) | Act::Close | Act::SyncFails(_) => 6,
            Act::Checkpoint => 25,
            Act::Open | Act::Advance | Act::Commit | Act::LogSynced => 40,
        };
        let kind = std::mem::discriminant::<Act>;
        let mut kinds: Vec<Act> = Vec::new();
        for act in &acts {
            if kinds.iter().all(|known| kind(known) != kind(act)) {
                kinds.push(*act);
            }
        }
        let all: u64 = kinds.iter().map(weight).sum();
        let mut dice = rng.below(all);
        let chosen = kinds.iter().find(|act| {
            let hit = dice < weight(act);
            dice = dice.saturating_sub(weight(act));
            hit
        });
        let Some(chosen) = chosen else { break };
        let same: Vec<Act> = acts
            .into_iter()
            .filter(|act| kind(act) == kind(chosen))
            .collect();
        let act = rng.pick(&same);
        let next = protocol.next_state(&world, act);
        if let Some(next) = next {
            path.push((std::mem::replace(&mut world, next), act));
        } else if world.process.is_none() {
            break;
        }
    }
    path
}

/// Leads the engine along a path.
///
/// # Errors
/// The first broken promise.
pub(crate) fn follow(
    protocol: &Protocol,
    path: &[(World, Act)],
    seed: u64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut setup = SimSetup::of(seed);
    setup.direct = protocol.direct;
    setup.sync_method = SyncMethod::WriteThenSync;
    setup.delta_bytes = 256 << 10;
    setup.slice_bytes = 1;
    setup.patient = true;
    let mut guide = Guide {
        setup,
        protocol,
        rng: Rng::new(seed).fork(7),
        now: Beginning {
            disk: Shadow::new(SimSetup::blank()),
            oracle: Oracle::default(),
        },
        ops: vec![Op::Open],
        steps: Vec::new(),
        faults: FaultPlan::default(),
        tally,
    };
    // The model begins with a database that was made.
    guide.end(None, Ending::Killed)?;
    for (world, act) in path {
        let next = protocol.next_state(world, *act);
        let next = next.as_ref().unwrap_or(world);
        match act {
            Act::Open => guide.open(),
            Act::Commit => guide.commit(),
            Act::Checkpoint => guide.checkpoint(),
            Act::Close => guide.close(),
            Act::Advance if next.process.is_none() => guide.end(None, Ending::Killed)?,
            Act::Advance | Act::LogSynced => {}
            Act::Kill => guide.end(world.process, Ending::Killed)?,
            Act::SyncFails(lost) => guide.fail_sync(world, *lost)?,
            Act::PowerCut(_) => {
                let parts = Parts::of(protocol, world, next);
                guide.end(world.process, Ending::Cut(parts))?;
            }
            Act::Rot(slot) => guide.rot(world, *slot)?,
        }
    }
    guide.tally.add(PATHS, 1);
    Ok(())
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Alone.
    Killed,
    /// With the machine.
    Cut(Parts),
}

/// What a power cut made of the writes to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    All,
    /// The first sector arrived, the last is neither old nor new.
    Head,
    /// All but the first sector arrived.
    Tail,
}

/// What became of each kind of block.
#[derive(Debug, Clone, Copy)]
struct Parts {
    /// Copies of the newest durable slot, and of the other.
    metas: [[Part; 2]; 2],
    pages: Part,
    log: Part,
}

impl Parts {
    fn of(protocol: &Protocol, before: &World, after: &World) -> Self {
        let part = |cell: usize| part(&before.cells[cell], after.cells[cell].kept);
        // Where several are written, the one that changes most: a group, or what is written over one.
        let changes = |cell: &usize| {
            let Cell { kept, pending, .. } = &before.cells[*cell];
            pending.last().map(|last| u8::from(last.0 != kept.0))
        };
        let most = |cells: Range<usize>| cells.max_by_key(changes).map_or(Part::Nothing, part);
        let newest = usize::from(newest_slot(protocol, before));
        let slot = |slot: usize| [part(slot), part(slot + 2)];
        Self {
            metas: [slot(newest), slot(1 - newest)],
            pages: most(METAS.end..DATA.end),
            log: most(LOG),
        }
    }

    /// The fate of a sector of a write that began in that page of the data file, or in the log.
    fn fate(&self, page: Option<u64>, newest: u64, (sector, sectors): (usize, usize)) -> Fate {
        let part = match page {
            None => self.log,
            Some(copy @ 0..4) => self.metas[usize::from(copy % 2 != newest)][usize::from(copy > 1)],
            Some(_) => self.pages,
        };
        match part {
            Part::Nothing => Fate::Old,
            Part::All => Fate::New,
            Part::Head if sector + 1 == sectors => Fate::Garbage(sector as u64),
            Part::Tail if sector == 0 => Fate::Old,
            Part::Head | Part::Tail => Fate::New,
        }
    }
}

fn part(cell: &Cell, left: Block) -> Part {
    match cell.pending.last() {
        Some(last) if left == *last => Part::All,
        _ if left == cell.kept => Part::Nothing,
        Some(last) if left.0 == last.0 => Part::Head,
        Some(_) if left.0 == cell.kept.0 => Part::Tail,
        _ => Part::Nothing,
    }
}

/// The model's slot whose durable meta page is the newest.
fn newest_slot(protocol: &Protocol, world: &World) -> u8 {
    let newest = protocol.metas(|cell| world.cells[cell].kept);
    newest.map_or(1, |(newest, _)| newest.generation % 2)
}

/// The engine on its way.
struct Guide<'g> {
    setup: SimSetup,
    protocol: &'g Protocol,
    rng: Rng,
    /// How the present life began.
    now: Beginning,
    /// What it does.
    ops: Vec<Op>,
    steps: Vec<Step>,
    faults: FaultPlan,
    tally: &'g mut Tally,
}

impl Guide<'_> {
    fn open(&mut self) {
        if self.ops.is_empty() {
            self.faults = FaultPlan::default();
        } else {
            // A failure went before, and memory remembers.
            self.steps.push(Step::DropAndReopen);
        }
        self.ops.push(Op::Open);
    }

    fn commit(&mut self) {
        let mut edits = vec![Edit::Create { slot: 0 }, Edit::Create { slot: 1 }];
        let (rows, len) = self.rng.pick(&[(1, 9), (1, 0), (2, 300), (12, 2_000)]);
        for _ in 0..rows {
            let keys = u64::from(self.setup.shape.keys);
            let key = u32::try_from(self.rng.below(keys)).unwrap_or(0);
            for slot in [0, 1] {
                let seed = u32::try_from(self.rng.below(1 << 20)).unwrap_or(0);
                let value = Fill { len, seed };
                edits.push(Edit::Put { slot, key, value });
            }
        }
        self.ops.push(Op::Commit);
        self.steps.push(Step::Txn(Txn {
            edits,
            way: Way::Exclusive,
            end: End::Durable,
        }));
    }

    fn checkpoint(&mut self) {
        self.ops.push(Op::Checkpoint);
        self.steps.push(Step::Checkpoint);
    }

    fn close(&mut self) {
        self.open_whole();
        self.ops.push(Op::Close);
        self.steps.push(Step::Reopen);
    }

    /// After a clean close the engine opens fully with its first commit.
    fn open_whole(&mut self) {
        if self.ops.last() == Some(&Op::Open) {
            self.commit();
        }
    }

    /// Does what the life is to do so far.
    fn tell(&mut self) -> Result<Story, Failure> {
        self.tally.add("lives told", 1);
        let (beginning, faults) = (self.now.clone(), self.faults.clone());
        let story = tell(self.setup, beginning, &self.steps, faults)?;
        self.tally.hash = self.tally.hash.wrapping_mul(31).wrapping_add(story.hash);
        Ok(story)
    }

    /// The place in a story at which the model's process is; the end if the engine has none.
    fn place(&mut self, story: &Story, process: Option<Process>) -> (Syncs, usize) {
        let syncs = Syncs::of(story);
        let end = syncs.spans(&self.ops).last().map_or(0, |span| span.end);
        let met = process.map_or(Some(end), |process| syncs.place(&self.ops, process));
        let what = met.map_or(PLACES_MISSED, |_| PLACES_MET);
        self.tally.add(what, 1);
        (syncs, met.unwrap_or(end))
    }

    /// The life ends where the process is, or after all it was to do.
    fn end(&mut self, process: Option<Process>, ending: Ending) -> Result<(), Failure> {
        if !self.ops.is_empty() {
            if process.is_some() {
                self.open_whole();
            }
            let story = self.tell()?;
            let (_, place) = self.place(&story, process);
            let Beginning { disk, oracle } = &mut self.now;
            for event in &story.events[..place] {
                story.pass(event, disk, oracle);
            }
            self.ops.clear();
            self.steps.clear();
        }
        let image = match ending {
            Ending::Killed => {
                self.tally.add("processes killed", 1);
                self.now.disk.killed()
            }
            Ending::Cut(parts) => {
                self.tally.add("power cuts", 1);
                let (disk, bytes) = (&self.now.disk, u64::from(self.setup.page_bytes));
                let newest = self.newest_slot(disk.durable());
                let image = disk.crash_by(&mut |file, offset, sector, sectors| {
                    let name = disk.name(file).unwrap_or_default();
                    let page = name.ends_with("data").then_some(offset / bytes);
                    parts.fate(page, newest, (sector, sectors))
                });
                self.now.disk = Shadow::new(image.clone());
                image
            }
        };
        self.check(image)
    }

    /// The sync that is due fails. The process goes, the memory of the machine stays.
    fn fail_sync(&mut self, world: &World, lost: u16) -> Result<(), Failure> {
        self.open_whole();
        let story = self.tell()?;
        let (syncs, place) = self.place(&story, world.process);
        let data = lost >> LOG.start == 0;
        let pending = |cell: usize| !world.cells[cell].pending.is_empty();
        let mut cells = if data { DATA } else { LOG };
        let all = cells.all(|cell| !pending(cell) || lost >> cell & 1 == 1);
        let kept = if all { Kept::Nothing } else { Kept::Some };
        self.faults.rules.push(Rule {
            what: What::Sync,
            file: Some(if data { "data" } else { "log" }),
            after: syncs.before(place, data),
            sticky: false,
            fault: Fault::SyncFails(libc::EIO, kept),
        });
        self.tally.add("syncs that failed", 1);
        if let Some(last) = self.ops.last_mut() {
            *last = Op::Failed(match last {
                Op::Commit => 1,
                Op::Open | Op::Checkpoint | Op::Failed(_) => 0,
                // Who fails to close opens again at once.
                Op::Close => 2,
            });
        }
        Ok(())
    }

    /// The slot of the newest sound meta page, and whether the other has one.
    fn slots(&self, image: &Image) -> [Option<u32>; 2] {
        let bytes = self.setup.page_bytes as usize;
        let content = image
            .bytes(&Path::new(DIR).join("data"))
            .unwrap_or_default();
        let generation = |copy: usize| {
            let page = content.get(copy * bytes..(copy + 1) * bytes)?;
            let stored = <[u8; 4]>::try_from(&page[16..20]).ok()?;
            is_sound_page(page).then(|| u32::from_le_bytes(stored))
        };
        [0, 1].map(|slot| generation(slot).max(generation(slot + 2)))
    }

    fn newest_slot(&self, image: &Image) -> u64 {
        let [a, b] = self.slots(image);
        u64::from(b > a)
    }

    /// A slot rots: the newest if it is the newest in the model; unless the other is not sound here.
    fn rot(&mut self, world: &World, slot: u8) -> Result<(), Failure> {
        // Whatever is still on its way arrives first.
        let mut image = self.now.disk.crash_by(&mut |_, _, _, _| Fate::New);
        let newest = self.newest_slot(&image);
        let is_newest = newest_slot(self.protocol, world) == slot;
        let rotten = if is_newest { newest } else { 1 - newest };
        let other = usize::from(rotten == 0);
        if self.slots(&image)[other].is_none() {
            return Ok(());
        }
        let bytes = u64::from(self.setup.page_bytes);
        for copy in [rotten, rotten + 2] {
            image.flip(&Path::new(DIR).join("data"), copy * bytes + 100, 0x10);
        }
        self.now.disk = Shadow::new(image.clone());
        self.tally.add("meta slots that rotted", 1);
        self.check(image)
    }

    fn check(&mut self, image: Image) -> Result<(), Failure> {
        let look = Look {
            trace: false,
            again: self.rng.chance(15),
        };
        let found = verify(&self.setup, image, &self.now.oracle, &mut self.rng, look)?;
        self.tally.add(super::storm::CRASHES, 1);
        self.tally.add("rows compared", found.rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::counterexample;
    use crate::protocol::twins::TWINS;

    #[test]
    fn walks_through_the_model_lead_the_engine_nowhere_wrong() {
        let tally = run(1..9).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(tally.get(PATHS), 8 * WALKS);
        for (what, least) in [
            (PLACES_MET, 1_500),
            ("power cuts", 500),
            ("processes killed", 500),
            ("syncs that failed", 50),
            ("meta slots that rotted", 50),
            ("rows compared", 5_000),
        ] {
            assert!(tally.get(what) > least, "{what}: {tally}");
        }
        // What the engine does not do as the model does is the exception.
        assert!(
            tally.get(PLACES_MISSED) * 10 < tally.get(PLACES_MET),
            "{tally}"
        );
    }

    #[test]
    fn what_breaks_a_twin_of_the_protocol_does_not_break_the_engine() {
        let mut broken = Vec::new();
        for twin in TWINS {
            let (protocol, path) = counterexample(*twin);
            for seed in 1..9 {
                let mut tally = Tally::default();
                if let Err(failure) = follow(&protocol, &path, seed, &mut tally) {
                    let acts: Vec<_> = path.iter().map(|(_, act)| act).collect();
                    broken.push(format!("{twin:?}, seed {seed}: {failure}\n{acts:?}"));
                    break;
                }
                assert!(tally.get(super::super::storm::CRASHES) > 0, "{tally}");
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
