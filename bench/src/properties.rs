//! `nsbench property-test`: what must hold whatever the work is. The properties are nshard's; see HD-006.

use std::ops::Range;

use nshard::properties::{PROPERTIES, hold};

use crate::cli::say;
use crate::clock;
use crate::error::{BenchError, Result};

/// Tries every property with every seed, and says how each ended. Whether all held.
pub(crate) fn run(seeds: Range<u64>, filter: Option<&str>) -> Result<bool> {
    let chosen = |name: &str| filter.is_none_or(|part| name.contains(part));
    let mut tried = 0;
    let mut broken = 0;
    for property in PROPERTIES.iter().filter(|property| chosen(property.name)) {
        tried += 1;
        let started = clock::now();
        let (mut held, mut rows, mut failure) = (0_u64, 0, None);
        for seed in seeds.clone() {
            match hold(property, seed) {
                Ok(compared) => (held, rows) = (held + 1, rows + compared),
                Err(why) => {
                    failure = Some(why);
                    break;
                }
            }
        }
        let seconds = clock::seconds(started.elapsed());
        let word = if failure.is_none() { "held" } else { "BROKEN" };
        say(&format!(
            "{:<22} {word:<7} {held:>6} seeds {rows:>9} rows {seconds:>6.1} s  {}\n",
            property.name, property.promise
        ));
        if let Some(failure) = failure {
            broken += 1;
            say(&format!("    {failure}\n"));
        }
    }
    if tried == 0 {
        return Err(BenchError::NoProperty(
            filter.unwrap_or_default().to_owned(),
        ));
    }
    say(&format!("{tried} properties, {broken} broken\n"));
    Ok(broken == 0)
}
