//! Everything that can happen in a small scope: each short sequence of operations, crashed at each event of its last one,
//! with each subset of what is pending then.
//!
//! Crashes in earlier operations are those of shorter sequences, which are tried too.
//!
//! - Source: Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing" (OSDI 2018): most known
//!   bugs need three operations or fewer.

use std::collections::BTreeSet;
use std::ops::Bound;

use northstar_io::sim::{CrashPlan, FaultPlan, Image, Names, Shadow, Survival};

use super::oracle::Oracle;
use super::setup::SimSetup;
use super::storm::{CRASHES, listed};
use super::story::{Beginning, tell};
use super::verify::{Look, verify};
use crate::Failure;
use crate::ops::{Edit, End, Fill, Step, Txn, Way};
use crate::rng::Rng;
use crate::tally::Tally;

/// Counted: sequences crashed everywhere.
pub const SEQUENCES: &str = "sequences of operations";

/// Up to so many units all subsets are tried; of more, those that keep or lose a stretch or one unit.
const ALL_SUBSETS_MAX: usize = 12;

/// Of more units than that, every other one, or every third, and so on, stands for its neighbours.
const TOLD_APART_MAX: usize = 24;

/// Operations of the scope, over three keys of a table.
const LETTERS: [char; 10] = ['a', 'b', 'c', 'd', 'r', 'u', 'k', 'i', 'x', 'q'];

/// Sequences of up to so many operations come before the longer ones.
#[must_use]
pub fn sequences(longest: u32) -> u64 {
    (1..=longest)
        .map(|len| (LETTERS.len() as u64).pow(len))
        .sum()
}

/// The sequence of that number, as letters: shorter ones first.
fn word(mut number: u64) -> String {
    let letters = LETTERS.len() as u64;
    let mut len = 1;
    while number >= letters.pow(len) {
        number -= letters.pow(len);
        len += 1;
    }
    let letter = |place| {
        let digit = number / letters.pow(place) % letters;
        usize::try_from(digit)
            .ok()
            .and_then(|digit| LETTERS.get(digit))
    };
    (0..len).rev().filter_map(letter).collect()
}

/// What a letter does. Values tell the place where they were written.
fn step(letter: char, place: u32) -> Step {
    let put = |key, way, end| {
        let value = Fill {
            len: 12,
            seed: place + 1,
        };
        Step::Txn(Txn {
            edits: vec![Edit::Put {
                slot: 0,
                key,
                value,
            }],
            way,
            end,
        })
    };
    match letter {
        'a' => put(0, Way::Exclusive, End::Durable),
        'b' => put(1, Way::Batch, End::Durable),
        'c' => put(2, Way::Submit, End::Durable),
        'u' => put(1, Way::Exclusive, End::Buffered),
        'd' => Step::Txn(Txn {
            edits: vec![Edit::Delete { slot: 0, key: 0 }],
            way: Way::Batch,
            end: End::Durable,
        }),
        'r' => Step::Txn(Txn {
            edits: vec![Edit::DeleteRange {
                slot: 0,
                from: Bound::Included(0),
                to: Bound::Excluded(2),
            }],
            way: Way::Exclusive,
            end: End::Durable,
        }),
        'k' => Step::Checkpoint,
        'i' => Step::AsOf(0),
        'x' => Step::Reopen,
        _ => Step::DropAndReopen,
    }
}

/// Crashes the sequence of that number.
///
/// # Errors
/// The first broken promise, with the sequence and the crash.
pub fn run(number: u64) -> Result<Tally, Failure> {
    let word = word(number);
    let mut tally = Tally::default();
    // Reads that pass by the system's memory, and such that do not: recovery differs.
    for direct in [true, false] {
        let setup = SimSetup {
            direct,
            ..SimSetup::of(7)
        };
        let steps: Vec<Step> = word.chars().zip(0..).map(|(l, at)| step(l, at)).collect();
        let blank = Beginning {
            disk: Shadow::new(SimSetup::blank()),
            oracle: Oracle::default(),
        };
        let said = |failure: Failure| {
            Failure::Broken(format!(
                "{}\n  sequence {word:?}, number {number}, direct {direct}",
                crate::chain(&failure)
            ))
        };
        let made = tell(
            setup,
            blank,
            &[step('a', 90), Step::Reopen],
            FaultPlan::default(),
        );
        let beginning = made.map_err(said)?.ending();
        let story = tell(setup, beginning, &steps, FaultPlan::default()).map_err(said)?;
        let from = story.steps_at.last().copied().unwrap_or(0);
        let mut shadow = story.beginning.disk.clone();
        let mut oracle = story.beginning.oracle.clone();
        for (passed, event) in story.events.iter().enumerate() {
            story.pass(event, &mut shadow, &mut oracle);
            if passed < from {
                continue;
            }
            crash_everywhere(&setup, &shadow, &oracle, &mut tally).map_err(|failure| {
                let shown = &story.events[passed.saturating_sub(20)..=passed];
                said(Failure::Broken(format!(
                    "{}\n  behind event {passed}{}",
                    crate::chain(&failure),
                    listed(shown)
                )))
            })?;
        }
        tally.hash = tally.hash.wrapping_add(story.hash);
    }
    tally.add(SEQUENCES, 1);
    Ok(tally)
}

/// Recovers from everything a power cut can leave here.
fn crash_everywhere(
    setup: &SimSetup,
    shadow: &Shadow,
    oracle: &Oracle,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    let mut rng = Rng::new(1);
    for survival in survivals(&shadow.telling_units()) {
        for names in 0..=shadow.pending_names() {
            let plan = CrashPlan {
                survival,
                names: Names::First,
                garbage: false,
            };
            // The one throw says how many names are kept.
            let image: Image = shadow.crash(plan, &mut || names as u64);
            if !seen.insert(image.hash()) {
                tally.add("crashes that left the same", 1);
                continue;
            }
            let look = Look {
                trace: false,
                again: seen.len() % 8 == 1,
            };
            verify(setup, image, oracle, &mut rng, look).map_err(|failure| {
                Failure::Broken(format!(
                    "{}\n  power cut that keeps {survival:?} and {names} names",
                    crate::chain(&failure)
                ))
            })?;
            tally.add(CRASHES, 1);
        }
    }
    Ok(())
}

fn survivals(units: &[usize]) -> Vec<Survival> {
    let bit = |unit: &usize| {
        u32::try_from(*unit)
            .ok()
            .and_then(|unit| 1_u64.checked_shl(unit))
    };
    if let Some(bits) = units.iter().map(bit).collect::<Option<Vec<u64>>>()
        && bits.len() <= ALL_SUBSETS_MAX
    {
        let subset = |chosen: u64| {
            let kept = bits
                .iter()
                .enumerate()
                .filter(|(at, _)| chosen >> at & 1 == 1);
            Survival::Mask(kept.fold(0, |mask, (_, bit)| mask | bit))
        };
        return (0..1 << bits.len()).map(subset).collect();
    }
    // Zeros on their way into a new file are many and all the same.
    let units: Vec<usize> = units
        .iter()
        .copied()
        .step_by(units.len().div_ceil(TOLD_APART_MAX))
        .collect();
    let borders = units.iter().flat_map(|unit| [*unit, unit + 1]);
    let mut all: Vec<_> = borders.clone().map(Survival::First).collect();
    all.extend(borders.map(Survival::Last));
    let bits = units.iter().filter_map(bit);
    all.extend(bits.flat_map(|bit| [Survival::Mask(bit), Survival::Mask(!bit)]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_each_sequence_once() {
        assert_eq!(sequences(1), 10);
        assert_eq!(sequences(3), 1_110);
        assert_eq!(word(0), "a");
        assert_eq!(word(9), "q");
        assert_eq!(word(10), "aa");
        assert_eq!(word(1_109), "qqq");
        let words: BTreeSet<String> = (0..sequences(3)).map(word).collect();
        assert_eq!(words.len() as u64, sequences(3));
    }

    #[test]
    fn all_subsets_of_few_units_and_stretches_of_many() {
        assert_eq!(survivals(&[]), [Survival::Mask(0)]);
        let masks = [0, 1 << 3, 1 << 60, 1 << 3 | 1 << 60].map(Survival::Mask);
        assert_eq!(survivals(&[3, 60]), masks);
        assert_eq!(survivals(&(0..12).collect::<Vec<_>>()).len(), 4_096);
        assert_eq!(survivals(&(0..16).collect::<Vec<_>>()).len(), 32 + 32 + 32);
        assert_eq!(
            survivals(&[64]),
            [64, 65]
                .map(Survival::First)
                .into_iter()
                .chain([64, 65].map(Survival::Last))
                .collect::<Vec<_>>()
        );
    }
}
