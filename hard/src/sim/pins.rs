//! Values kept at once, of more pages than the cache has frames: each stays what it is.

use northstar_io::sim::{FaultPlan, Shadow};
use northstardb::WriteBatch;

use super::setup::SimSetup;
use crate::ops::{Fill, KeyStyle, key_bytes, value_bytes};
use crate::tally::Tally;
use crate::{During, Failure};

/// Counted: values kept at once.
pub const KEPT: &str = "values kept at once";

/// Rows: four to a page, and far more pages than frames.
const ROWS: u32 = 200;

/// Keeps a value of every page of a database.
///
/// # Errors
/// A value that is another.
pub fn run(seed: u64) -> Result<Tally, Failure> {
    let setup = SimSetup {
        page_bytes: 4096,
        frames: 16,
        delta_bytes: 64 << 10,
        ..SimSetup::of(seed)
    };
    let disk = setup.disk(Shadow::new(SimSetup::blank()), false, FaultPlan::default());
    let db = setup.open(&disk).during("open")?;
    let table = db.table("t").during("table")?;
    let key = |number| key_bytes(KeyStyle::Short, number);
    let value = |number| {
        value_bytes(Fill {
            len: 900,
            seed: number,
        })
    };
    for first in (0..ROWS).step_by(20) {
        let mut batch = WriteBatch::new();
        for number in first..first + 20 {
            batch.put(&table, key(number), value(number));
        }
        db.commit(batch).during("commit")?;
    }
    db.checkpoint().during("checkpoint")?;
    let read = db.begin_read().during("begin_read")?;
    let mut held = Vec::new();
    for number in 0..ROWS {
        held.push((number, read.get(&table, key(number)).during("get")?));
    }
    let wrong = |(number, found): &&(u32, Option<northstardb::Value<'_>>)| {
        found.as_deref() != Some(&value(*number)[..])
    };
    if let Some((number, _)) = held.iter().find(wrong) {
        return Err(Failure::Broken(format!(
            "the value of {number}, kept, is another"
        )));
    }
    let mut tally = Tally::default();
    tally.add(KEPT, held.len() as u64);
    Ok(tally)
}
