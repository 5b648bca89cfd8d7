//! Processes killed on every kind of file system, through every backend.
//!
//! The work and the oracle are those of [`crash`]; only the ground differs. A seed is one file system and
//! one backend.
//!
//! - Limit: the kernel survives, so this shows process crashes; for power cuts see `super::fuse`.
//! - Spec: HD-011.

use std::ops::Range;

use northstardb::Backend;

use super::place::{self, Kind, Place};
use crate::tally::Tally;
use crate::{During, Failure, crash};

/// What is counted.
pub const KILLS: &str = "kills on file systems";
/// Kills of one seed.
pub const KILLS_PER_SEED: u64 = 50;
/// Seeds until every file system has met every backend.
pub const SEEDS: u64 = 12;

const BACKENDS: [(Backend, &str); 3] = [
    (Backend::Auto, "auto"),
    (Backend::Plain, "plain"),
    (Backend::Buffered, "buffered"),
];

/// Does some seeds.
///
/// # Errors
/// The first broken promise; the files are copied from the file system before it is gone.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if place::or_skip(place::own_mounts(), &mut tally, KILLS)?.is_none() {
        return Ok(tally);
    }
    for seed in seeds {
        let kind = Kind::ALL[usize::try_from(seed % 4).unwrap_or(0)];
        let (backend, word) = BACKENDS[usize::try_from(seed / 4 % 3).unwrap_or(0)];
        let made = Place::make(kind, 512);
        let Some(place) = place::or_skip(made, &mut tally, &format!("kills on {kind}"))? else {
            continue;
        };
        let plan = crash::Plan {
            program: std::env::current_exe().during("find this program")?,
            dir: place.path(),
            seed,
            kills: KILLS_PER_SEED,
            backend: Some(backend),
            jobs: 2,
            under: None,
        };
        let done = crash::run(&plan).map_err(|failure| place.keep(&failure))?;
        place.close()?;
        tally.add(KILLS, done.kills);
        tally.add(&format!("of these on {kind} by {word}"), done.kills);
        tally.add("transactions", done.acknowledged);
        tally.add("rows compared", done.rows);
    }
    Ok(tally)
}
