//! Opens what a crash left, on a sound disk, and holds everything in it against the oracle.

use northstar_io::sim::{Event, FaultPlan, Image, Shadow};
use northstardb::{Error, TxnId};

use super::oracle::Oracle;
use super::setup::SimSetup;
use super::storm::listed;
use super::{story, stream};
use crate::compare::{Compare, compare_names, compare_present};
use crate::exec::{Executor, tables_of};
use crate::rng::Rng;
use crate::{During, Failure};

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Keep a trace of what opening did.
    pub trace: bool,
    /// Open once more and compare the bytes.
    pub again: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The last transaction; none if the database was refused, and might be.
    pub at: Option<TxnId>,
    /// Rows compared.
    pub rows: u64,
    /// Records that recovery replayed.
    pub replayed: u64,
    /// Transactions read from the log.
    pub streamed: u64,
    /// What opening did to the disk, if asked for.
    pub events: Vec<Event>,
    /// The disk afterwards.
    pub image: Image,
}

/// Opens `image` and compares everything.
///
/// # Errors
/// A broken promise: also an error of the engine, unless the faults that came before allow it.
pub fn verify(
    setup: &SimSetup,
    image: Image,
    oracle: &Oracle,
    rng: &mut Rng,
    look: Look,
) -> Result<Found, Failure> {
    let Some(back) = oracle.with_hidden() else {
        return verify_one(setup, image, oracle, rng, look);
    };
    let found = verify_one(setup, image.clone(), oracle, rng, look);
    // Of two explanations that do not hold, the plain one is told.
    found.or_else(|plain| verify_one(setup, image, &back, rng, look).map_err(|_| plain))
}

/// The same, of what was not hidden.
fn verify_one(
    setup: &SimSetup,
    image: Image,
    oracle: &Oracle,
    rng: &mut Rng,
    look: Look,
) -> Result<Found, Failure> {
    let disk = setup.disk(
        Shadow::new(image),
        look.trace || look.again,
        FaultPlan::default(),
    );
    let mut found = Found {
        at: None,
        rows: 0,
        replayed: 0,
        streamed: 0,
        events: Vec::new(),
        image: Image::default(),
    };
    let outcome = look_at(setup, &disk, oracle, rng, look, &mut found);
    found.image = disk.image();
    match outcome {
        Err(Failure::Engine { source, .. }) if oracle.allowed.refusal(&source) => Ok(found),
        Err(failure) => Err(failure),
        Ok(()) => Ok(found),
    }
}

fn look_at(
    setup: &SimSetup,
    disk: &std::sync::Arc<northstar_io::sim::SimDisk>,
    oracle: &Oracle,
    rng: &mut Rng,
    look: Look,
    found: &mut Found,
) -> Result<(), Failure> {
    let db = setup.open(disk).during("open after a crash")?;
    found.events = disk.take_trace().events;
    let read = db.begin_read().during("begin_read")?;
    let at = read.txn_id();
    let state = oracle.expect(at)?;
    found.at = Some(at);
    let what = "what a crash left";
    compare_names(&read, &state, what)?;
    let exec = Executor::new(db.clone(), setup.shape.key_style)?;
    found.rows += compare_present(&read, &state, &exec.handles, what)?;
    let sample = |rng: &mut Rng, rows: &mut u64, read, state, handles, what| {
        let mut compare = Compare {
            rng,
            keys: setup.shape.keys,
            style: setup.shape.key_style,
            rows,
        };
        compare.sample(read, state, handles, 1, what)
    };
    sample(rng, &mut found.rows, &read, &state, &exec.handles, what)?;
    let stats = db.stats().during("stats")?;
    found.replayed = stats.replayed_records;
    if stats.horizon_txn < at {
        let span = at.get() - stats.horizon_txn.get();
        let earlier = TxnId::new(stats.horizon_txn.get() + rng.below(span));
        // Only states that were not taken back are remembered; ids between have none of their own.
        if let Some(state) = oracle.state(earlier) {
            match db.begin_read_at(earlier) {
                Ok(read) => {
                    let what = "an earlier transaction";
                    compare_names(&read, &state, what)?;
                    let handles = tables_of(&read)?;
                    found.rows += compare_present(&read, &state, &handles, what)?;
                    sample(rng, &mut found.rows, &read, &state, &handles, what)?;
                }
                Err(Error::SnapshotGone { .. }) => {
                    return Err(Failure::Broken(format!(
                        "{earlier:?} is gone, the horizon is {:?}",
                        stats.horizon_txn
                    )));
                }
                Err(other) => return Err(other).during("begin_read_at"),
            }
        }
    }
    story::followed::is_at(&db, oracle.place(at))?;
    if let Some(place) = oracle.place(at).filter(|_| !oracle.allowed.damage)
        && rng.chance(25)
    {
        story::followed::is_held(&db, place, at)?;
    }
    if rng.chance(10) {
        found.streamed = stream::compare(&db, setup, oracle, at)?;
    }
    let report = db.check().during("check")?;
    if !report.faults.is_empty() && !oracle.allowed.damage {
        return Err(Failure::Broken(format!("check found {:?}", report.faults)));
    }
    drop((read, exec, db));
    if look.again {
        let image = disk.image();
        let db = setup.open(disk).during("open again")?;
        let seen = db.begin_read().during("begin_read")?.txn_id();
        if seen != at {
            return Err(Failure::Broken(format!(
                "opened again it is at {seen:?}, before at {at:?}"
            )));
        }
        drop(db);
        if let Some(path) = disk.image().difference(&image) {
            let events = [std::mem::take(&mut found.events), disk.take_trace().events].concat();
            return Err(Failure::Broken(format!(
                "opening again changed {}, by{}",
                path.display(),
                listed(&events)
            )));
        }
    }
    Ok(())
}
