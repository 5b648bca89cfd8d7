//! Restoring a backup onto a disk that loses power in the middle, or that fails: what is left is refused, or is what was
//! saved.

use std::path::Path;
use std::sync::Arc;

use northstar_io::sim::{Event, FaultPlan, Image, Rule, Shadow, SimDisk};
use northstardb::{Db, Error, Retention, TxnId, internals};

use super::allow::Allowed;
use super::nth::ways;
use super::oracle::{Begun, Note, Oracle};
use super::setup::{DIR, SimSetup};
use super::storm::{draw, listed, mix};
use super::verify::{Look, verify};
use crate::exec::{Ended, Executor};
use crate::model::{Draft, State};
use crate::ops::{Stream, Way};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::{During, Failure};

/// Counted: ends of restores, by a power cut or after a fault, that were looked at.
pub const CUT: &str = "restores cut off";

/// Power cuts of one restore.
const CUTS: usize = 60;
/// Faults, each in a restore of its own.
const FAULTS: usize = 20;
/// Transactions before the full backup, and between it and the increment.
const TXNS: (usize, usize) = (14, 8);
/// Events that a failure shows.
const SHOWN: usize = 40;

/// What is restored, and what must come of it.
struct Saved {
    full: Vec<u8>,
    /// The state it leads to.
    to: TxnId,
    increment: Vec<u8>,
    /// The transaction up to which the increment is applied.
    last: TxnId,
    /// Knows every state up to `last`.
    oracle: Oracle,
}

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Begun,
    Restored,
    LedOn,
}

impl Stage {
    const fn mark(self) -> u64 {
        self as u64
    }

    fn of(mark: u64) -> Self {
        match mark {
            0 => Self::Begun,
            1 => Self::Restored,
            _ => Self::LedOn,
        }
    }
}

/// Restores what the work of `seed` has saved, with power cuts and faults.
///
/// # Errors
/// The first broken promise, with where it broke.
pub fn run(seed: u64) -> Result<Tally, Failure> {
    let mut rng = Rng::new(seed).fork(9);
    let saved = save(seed, &mut rng)?;
    let setup = SimSetup {
        page_bytes: rng.pick(&[4096, 8192]),
        delta_bytes: rng.pick(&[1 << 10, 64 << 10]),
        // No log comes with a backup.
        retention: Retention::None,
        followed: false,
        database: u128::from(rng.word()),
        ..SimSetup::of(seed)
    };
    let mut tally = Tally::default();
    let said = |failure: Failure| {
        let why = crate::chain(&failure);
        Failure::Broken(format!("{why}\n  restores, seed {seed}"))
    };
    cut(&setup, &saved, &mut rng, &mut tally).map_err(said)?;
    for _ in 0..FAULTS {
        fail(&setup, &saved, &mut rng, &mut tally).map_err(said)?;
    }
    Ok(tally)
}

/// Does the work of `seed`, and takes a backup and an increment of it.
fn save(seed: u64, rng: &mut Rng) -> Result<Saved, Failure> {
    let setup = SimSetup {
        retention: Retention::All,
        followed: false,
        ..SimSetup::of(seed)
    };
    let disk = setup.disk(Shadow::new(SimSetup::blank()), false, FaultPlan::default());
    let db = setup.open(&disk).during("open")?;
    let mut exec = Executor::new(db.clone(), setup.shape.key_style)?;
    let mut work = Stream::new(seed, setup.shape);
    let mut oracle = Oracle::default();
    let mut state = State::default();
    let mut commit = |oracle: &mut Oracle| -> Result<(), Failure> {
        let txn = work.txn();
        let style = setup.shape.key_style;
        let mut draft = Draft::new(state.clone(), style, txn.way != Way::Exclusive);
        for edit in &txn.edits {
            draft.apply(edit);
        }
        let at = match exec.run(&txn, &mut |_, _, _, _, _| Ok(()), None)? {
            Ended::Aborted => return Ok(()),
            Ended::Committed(commit) => commit.txn_id,
            Ended::Pending(handle) => handle.wait().during("commit")?.txn_id,
        };
        state = draft.state;
        oracle.note(&Note::Begun(Some(Begun {
            txn: at,
            state: Arc::new(state.clone()),
            place: None,
        })));
        Ok(())
    };
    let (mut full, mut increment) = (Vec::new(), Vec::new());
    for _ in 0..=rng.index(TXNS.0) {
        commit(&mut oracle)?;
    }
    let to = db.backup(&mut full).during("backup")?.to;
    for _ in 0..=rng.index(TXNS.1) {
        commit(&mut oracle)?;
    }
    internals::flush(&db).during("flush")?;
    let made = db.backup_since(to, &mut increment);
    let end = made.during("backup_since")?.to;
    let last = TxnId::new(rng.between(to.get(), end.get()));
    oracle.note(&Note::Cut(last));
    // No state before the backup's may be found.
    oracle.note(&Note::Acked(to));
    Ok(Saved {
        full,
        to,
        increment,
        last,
        oracle,
    })
}

/// Restores and leads on. Each stage is marked in the trace once it is reached.
fn restore(setup: &SimSetup, saved: &Saved, disk: &Arc<SimDisk>) -> northstardb::Result<Db> {
    let (options, world) = (setup.options(), setup.world(disk));
    let mut restore = internals::restore(options, Path::new(DIR), world, &*saved.full)?;
    disk.mark(Stage::Restored.mark());
    restore.increment(&*saved.increment, Some(saved.last))?;
    disk.mark(Stage::LedOn.mark());
    Ok(restore.finish())
}

/// Cuts the power at random events of a restore.
fn cut(setup: &SimSetup, saved: &Saved, rng: &mut Rng, tally: &mut Tally) -> Result<(), Failure> {
    let disk = setup.disk(Shadow::new(SimSetup::blank()), true, FaultPlan::default());
    let db = restore(setup, saved, &disk).during("restore")?;
    match rng.chance(50) {
        true => db.close().during("close")?,
        false => drop(db),
    }
    let broken = disk.violations();
    if !broken.is_empty() {
        return Err(Failure::Broken(format!("misuse of the disk: {broken:?}")));
    }
    let trace = disk.take_trace();
    tally.hash = mix(tally.hash, trace.hash());
    let events = trace.events;
    let mut at: Vec<usize> = (0..CUTS).map(|_| rng.index(events.len() + 1)).collect();
    at.sort_unstable();
    let mut cuts = at.into_iter().peekable();
    let mut shadow = Shadow::new(SimSetup::blank());
    let mut stage = Stage::Begun;
    for passed in 0..=events.len() {
        while cuts.next_if_eq(&passed).is_some() {
            let plan = draw(rng, shadow.units());
            let image = shadow.crash(plan, &mut || rng.word());
            look(setup, saved, (image, stage), rng, tally).map_err(|failure| {
                let list = listed(&events[passed.saturating_sub(SHOWN)..passed]);
                Failure::Broken(format!(
                    "{}\n  power cut, {plan:?}, behind event {passed} of {}, {stage:?}{list}",
                    crate::chain(&failure),
                    events.len()
                ))
            })?;
        }
        if let Some(event) = events.get(passed) {
            shadow.apply(event);
            if let Event::Mark(mark) = event {
                stage = Stage::of(*mark);
            }
        }
    }
    Ok(())
}

/// Restores on a disk of which an operation fails, and looks at what is left once it is sound.
fn fail(setup: &SimSetup, saved: &Saved, rng: &mut Rng, tally: &mut Tally) -> Result<(), Failure> {
    let (what, fault, sticky) = rng.pick(&ways());
    let rule = Rule {
        what,
        file: None,
        after: rng.below(200),
        sticky,
        fault,
    };
    let faults = FaultPlan {
        rules: vec![rule.clone()],
        ..FaultPlan::default()
    };
    let disk = setup.disk(Shadow::new(SimSetup::blank()), true, faults);
    let done = restore(setup, saved, &disk).map(drop);
    let mut allowed = Allowed::default();
    for injected in &disk.atlas() {
        allowed.after(injected);
    }
    if let Err(error) = done
        && !allowed.error(&error)
    {
        return Err(error).during(&format!("restore, with {rule:?}"));
    }
    tally.add("restores refused", u64::from(allowed.errors));
    let trace = disk.take_trace();
    tally.hash = mix(tally.hash, trace.hash());
    let (mut shadow, mut stage) = (Shadow::new(SimSetup::blank()), Stage::Begun);
    for event in &trace.events {
        shadow.apply(event);
        if let Event::Mark(mark) = event {
            stage = Stage::of(*mark);
        }
    }
    let plan = draw(rng, shadow.units());
    let image = shadow.crash(plan, &mut || rng.word());
    for (how, image) in [("a power cut", image), ("a kill", shadow.killed())] {
        look(setup, saved, (image, stage), rng, tally).map_err(|failure| {
            let why = crate::chain(&failure);
            Failure::Broken(format!("{why}\n  after {how}, with {rule:?}, {stage:?}"))
        })?;
    }
    Ok(())
}

/// Opens what an end of a restore has left.
fn look(
    setup: &SimSetup,
    saved: &Saved,
    (image, stage): (Image, Stage),
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), Failure> {
    tally.add(CUT, 1);
    let data = Path::new(DIR).join("data");
    if stage == Stage::Begun && image.bytes(&data).is_none() {
        // Not even begun, as far as anybody can tell.
        tally.add("of these before there was a file", 1);
        return Ok(());
    }
    let begin = Shadow::new(image.clone());
    let disk = setup.disk(begin, false, FaultPlan::default());
    let opened = setup.open(&disk);
    if let (Stage::Begun, Err(Error::NotADatabase { .. })) = (stage, &opened) {
        tally.add("of these refused", 1);
        return match disk.image().difference(&image) {
            Some(path) if !path.ends_with("LOCK") => Err(Failure::Broken(format!(
                "refusing it changed {}",
                path.display()
            ))),
            _ => Ok(()),
        };
    }
    drop(opened);
    let mut oracle = saved.oracle.clone();
    match stage {
        Stage::Begun => oracle.note(&Note::Cut(saved.to)),
        Stage::Restored => {}
        Stage::LedOn => oracle.note(&Note::Acked(saved.last)),
    }
    let look = Look {
        trace: false,
        again: rng.below(4) == 0,
    };
    let found = verify(setup, image, &oracle, rng, look)?;
    tally.add("rows compared", found.rows);
    let at = found.at.map_or(u64::MAX, TxnId::get);
    tally.hash = mix(mix(tally.hash, at), found.rows);
    Ok(())
}
