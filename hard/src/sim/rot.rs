//! Bits that flip at rest: whatever is read afterwards is right, or an error.
//!
//! A flip in the last group of the log cannot be told from a write that a crash tore, so that group may be missing then,
//! and one more for each further flip in the log; nothing else may. A meta slot that is lost whole costs nothing, while
//! there is another. Spec: CR-004, CC-011, CC-013, CC-030.

use std::path::Path;

use northstar_io::sim::{Event, FaultPlan, Image, NameOp, Shadow};
use northstardb::{Db, Error, TxnId};

use super::oracle::{Note, Oracle};
use super::script::Plan;
use super::setup::{DIR, SimSetup};
use super::story::{Beginning, Story, tell};
use crate::compare::compare_names;
use crate::exec::{Executor, View};
use crate::model::State;
use crate::rng::Rng;
use crate::tally::Tally;
use crate::{During, Failure};

/// Counted: databases damaged and read.
pub const FLIPS: &str = "bit flips at rest";

/// Steps of the work whose end is damaged by flips.
const STEPS: usize = 30;
/// Counted: databases that lost a meta slot whole.
pub const SLOTS: &str = "databases without a meta slot read whole";

/// Flips for each story.
const FLIPS_PER_SEED: u64 = 200;
/// Steps of the work in which a meta slot is lost: enough for segments of the log to be recycled.
const LONGER: usize = 300;
/// Moments of that work at which one is.
const MOMENTS: usize = 20;

/// Damages what the work of `seed` left.
///
/// # Errors
/// Wrong bytes, or lost ones.
pub fn run(seed: u64) -> Result<Tally, Failure> {
    let setup = SimSetup::of(seed);
    let story = story(seed, &setup, STEPS)?;
    let Beginning { mut disk, oracle } = story.ending();
    let image = disk.killed();
    let mut tally = Tally::default();
    let mut rng = Rng::new(seed).fork(50);
    for _ in 0..FLIPS_PER_SEED {
        let mut damaged = image.clone();
        let flips = rng.pick(&[1, 1, 1, 1, 2, 5]);
        let places: Vec<Place> = (0..flips)
            .filter_map(|_| Place::draw(&mut rng, &setup, &mut damaged))
            .collect();
        if places.is_empty() {
            continue;
        }
        let log = places
            .iter()
            .filter(|place| place.structure.starts_with("log"));
        let least = before_last(&story, log.count());
        let seen = read(&setup, damaged, &oracle, least);
        let seen = seen.map_err(|failure| {
            Failure::Broken(format!(
                "{}\n  seed {seed}, with bits flipped at {places:?}",
                crate::chain(&failure)
            ))
        })?;
        tally.add(FLIPS, 1);
        for place in &places {
            tally.add(&format!("flips in {}", place.structure), 1);
        }
        tally.add(seen.what(), 1);
        tally.add("rows read right", seen.rows);
    }
    tally.hash = story.hash;
    lose_slots(seed, &mut rng, &mut tally)?;
    Ok(tally)
}

/// The work of a seed, done once.
fn story(seed: u64, setup: &SimSetup, steps: usize) -> Result<Story, Failure> {
    let plan = Plan {
        lives: 1,
        steps,
        ..Plan::of(seed)
    };
    let work = plan.work(setup);
    let steps = work.first().map_or(&[][..], Vec::as_slice);
    let blank = Beginning {
        disk: Shadow::new(SimSetup::blank()),
        oracle: Oracle::default(),
    };
    tell(*setup, blank, steps, FaultPlan::default())
}

/// Kills the process at random moments of longer work, and damages one meta slot whole.
fn lose_slots(seed: u64, rng: &mut Rng, tally: &mut Tally) -> Result<(), Failure> {
    let setup = SimSetup::of(seed);
    let story = story(seed, &setup, LONGER)?;
    let moment = |_| rng.index(story.events.len() + 1);
    let mut moments: Vec<usize> = (0..MOMENTS).map(moment).collect();
    moments.sort_unstable();
    let Beginning {
        mut disk,
        mut oracle,
    } = story.beginning.clone();
    let mut passed = 0;
    for moment in moments {
        for event in &story.events[passed..moment] {
            story.pass(event, &mut disk, &mut oracle);
        }
        passed = moment;
        let image = disk.clone().killed();
        for slot in [0, 1] {
            let Some(damaged) = without_slot(slot, rng, &setup, &image) else {
                continue;
            };
            let seen = read(&setup, damaged, &oracle, oracle.acked());
            let whole = seen.and_then(|seen| match seen.what() {
                "of these read whole" => Ok(seen),
                other => Err(Failure::Broken(format!("a database {other}"))),
            });
            let seen = whole.map_err(|failure| {
                let why = crate::chain(&failure);
                Failure::Broken(format!(
                    "{why}\n  seed {seed}, killed behind event {moment}, without meta slot {slot}"
                ))
            })?;
            tally.add(SLOTS, 1);
            tally.add("rows read right", seen.rows);
        }
    }
    Ok(())
}

/// Damages both copies of a meta slot, if the other one was ever written. Slots: FF-010.
fn without_slot(slot: u64, rng: &mut Rng, setup: &SimSetup, image: &Image) -> Option<Image> {
    let page = u64::from(setup.page_bytes);
    let data = Path::new(DIR).join("data");
    let kind = usize::try_from((1 - slot) * page + KIND_OFFSET).ok()?;
    if image.bytes(&data)?.get(kind) != Some(&META_KIND) {
        return None;
    }
    let mut damaged = image.clone();
    let mut flip = |copy| damaged.flip(&data, copy * page + rng.below(512), 1 << rng.below(8));
    let flipped = flip(slot) && flip(slot + 2);
    flipped.then_some(damaged)
}

/// The last transaction that must be there if so many groups at the end of the log are damaged: only a sound group proves
/// that those before it were durable. What was acknowledged with no sync of the log in between shared one group.
fn before_last(story: &Story, groups: usize) -> TxnId {
    let mut ends = vec![TxnId::ZERO];
    let mut data = None;
    let mut synced = false;
    for event in &story.events {
        if let Event::Names(NameOp::Create(path, id) | NameOp::Rename(_, path, id)) = event
            && path.ends_with("data")
        {
            data = Some(*id);
        }
        if let Event::SyncBegun { file, .. } = event {
            synced |= data != Some(*file);
        }
        if let Event::Mark(mark) = event
            && let Some(Note::Acked(txn)) = usize::try_from(*mark)
                .ok()
                .and_then(|at| story.notes.get(at))
            && ends.last().is_some_and(|last| txn > last)
        {
            if !std::mem::take(&mut synced) {
                ends.pop();
            }
            ends.push(*txn);
        }
    }
    ends.iter()
        .rev()
        .nth(groups)
        .copied()
        .unwrap_or(TxnId::ZERO)
}

/// A bit that was flipped.
#[derive(Debug)]
struct Place {
    structure: &'static str,
    #[expect(dead_code, reason = "shown by a failure")]
    at: String,
}

impl Place {
    /// Flips a bit somewhere that was ever written.
    fn draw(rng: &mut Rng, setup: &SimSetup, image: &mut Image) -> Option<Self> {
        let files: Vec<_> = image
            .files()
            .map(|(path, len)| (path.to_owned(), len))
            .filter(|(path, len)| *len > 0 && path.file_name().is_some_and(|name| name != "LOCK"))
            .collect();
        for _ in 0..50 {
            let (path, len) = &files[rng.index(files.len())];
            let page = u64::from(setup.page_bytes);
            // Headers and the pages of the beginning hold the most in the fewest bytes.
            let offset = match rng.below(3) {
                0 => rng.below(*len),
                1 => rng.below(len.div_ceil(4096)) * 4096 + rng.below(96),
                _ => rng.below((8 * page).min(*len)),
            };
            let bit = 1 << rng.below(8);
            if offset < *len && image.flip(path, offset, bit) {
                return Some(Self {
                    structure: structure(image, path, offset, page),
                    at: format!("{}:{offset}, bits {bit:#x}", path.display()),
                });
            }
        }
        None
    }
}

/// What lies there, by the kind in a page's header and the place in a block of the log.
fn structure(image: &Image, path: &Path, offset: u64, page: u64) -> &'static str {
    if path.file_name().is_none_or(|name| name != "data") {
        return match offset % 4096 {
            0..=63 => "log headers",
            _ => "log records",
        };
    }
    if offset % page < 64 {
        return "page headers";
    }
    let bytes = image.bytes(path).unwrap_or_default();
    let kind = usize::try_from(offset / page * page + KIND_OFFSET);
    match kind.ok().and_then(|at| bytes.get(at)) {
        Some(&META_KIND) => "meta pages",
        Some(2) => "leaf pages",
        Some(3) => "branch pages",
        Some(4) => "value pages",
        Some(5 | 6) => "pages of the free space",
        Some(_) => "pages not in use",
        None => "no page",
    }
}

/// Where a page says its kind: FF-003.
const KIND_OFFSET: u64 = 6;
const META_KIND: u8 = 1;

/// What reading came to.
struct Seen {
    opened: bool,
    errors: u64,
    shorter: bool,
    rows: u64,
}

impl Seen {
    const fn what(&self) -> &'static str {
        match self {
            Self { opened: false, .. } => "of these refused at opening",
            Self { shorter: true, .. } => "of these without the last group",
            Self { errors: 0, .. } => "of these read whole",
            Self { .. } => "of these met as errors of reads",
        }
    }
}

/// Reads everything: no row may be wrong.
fn read(setup: &SimSetup, image: Image, oracle: &Oracle, least: TxnId) -> Result<Seen, Failure> {
    let disk = setup.disk(Shadow::new(image), false, FaultPlan::default());
    let mut seen = Seen {
        opened: false,
        errors: 0,
        shorter: false,
        rows: 0,
    };
    let db = match setup.open(&disk) {
        Ok(db) => db,
        Err(error) if names_damage(&error) => return Ok(seen),
        Err(other) => return Err(other).during("open damaged files"),
    };
    seen.opened = true;
    let read = db.begin_read().during("begin_read")?;
    let at = read.txn_id();
    seen.shorter = at < oracle.acked();
    if at < least {
        return Err(Failure::Broken(format!(
            "{at:?} is the last transaction found, {:?} was acknowledged",
            oracle.acked()
        )));
    }
    let state = oracle.state(at);
    let state = state.ok_or_else(|| Failure::Broken(format!("nobody began {at:?}")))?;
    let exec = match Executor::new(db.clone(), setup.shape.key_style) {
        Ok(exec) => exec,
        Err(Failure::Engine { source, .. }) if names_damage(&source) => {
            seen.errors += 1;
            return Ok(seen);
        }
        Err(other) => return Err(other),
    };
    match compare_names(&read, &state, "damaged files") {
        Err(Failure::Engine { source, .. }) if names_damage(&source) => seen.errors += 1,
        other => other?,
    }
    for (name, table) in &exec.handles {
        rows(&read, &state, name, table, &mut seen)?;
    }
    check(&db, &mut seen)?;
    Ok(seen)
}

/// Every row by itself, then all of them in order.
fn rows(
    read: &dyn View,
    state: &State,
    name: &str,
    table: &northstardb::Table,
    seen: &mut Seen,
) -> Result<(), Failure> {
    let Some(expected) = state.rows(name) else {
        return Err(Failure::Broken(format!(
            "a table {name:?} that was never made"
        )));
    };
    for (key, value) in expected {
        match read.value(table, key) {
            Ok(Some(found)) if found[..] == value[..] => seen.rows += 1,
            Err(error) if names_damage(&error) => seen.errors += 1,
            other => {
                return Err(Failure::Broken(format!(
                    "{name} {key:?} is {other:?}, expected {value:?}"
                )));
            }
        }
    }
    let all = std::ops::Bound::Unbounded;
    for front in [true, false] {
        match read.rows(table, &all, &all, &[front]) {
            Ok((forward, mut backward)) => {
                backward.reverse();
                let found = if front { forward } else { backward };
                let same = found.len() == expected.len()
                    && found
                        .iter()
                        .zip(expected)
                        .all(|((fk, fv), (k, v))| fk[..] == k[..] && fv[..] == v[..]);
                if !same {
                    return Err(Failure::Broken(format!(
                        "a scan of {name} gives other rows: {} for {}",
                        found.len(),
                        expected.len()
                    )));
                }
            }
            Err(error) if names_damage(&error) => seen.errors += 1,
            Err(other) => return Err(other).during("scan damaged files"),
        }
    }
    Ok(())
}

fn check(db: &Db, seen: &mut Seen) -> Result<(), Failure> {
    match db.check() {
        Ok(report) => seen.errors += report.faults.len() as u64,
        Err(error) if names_damage(&error) => seen.errors += 1,
        Err(other) => return Err(other).during("check damaged files"),
    }
    Ok(())
}

const fn names_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt(_) | Error::NotADatabase { .. } | Error::NewerFormat { .. }
    )
}
