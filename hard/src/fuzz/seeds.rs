//! The first inputs of every target, cut from what the engine writes.

use std::path::Path;

use super::base::{PAGE_BYTES, PAST_FROM, bases};
use super::{DATABASE, Target, repair};
use crate::rng::Rng;
use crate::{During, Failure};

/// Inputs of a target.
#[must_use]
pub fn of(target: Target) -> Vec<Vec<u8>> {
    let pages = || {
        let all = bases().iter().flat_map(|base| base.data.chunks(PAGE_BYTES));
        all.filter(|page| repair::word(page, 0) != 0)
    };
    // One page of each kind, level and size.
    let kinds = |wanted: &[u8]| {
        let mut seen = std::collections::BTreeSet::new();
        let wanted = pages().filter(|page| wanted.contains(&page[6]));
        let few = wanted.filter(|page| seen.insert((page[6], page[7], page[24] / 16)));
        few.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    match target {
        Target::Meta => kinds(&[1]),
        Target::Page => kinds(&[1, 2, 3, 4, 5, 6]),
        Target::Node => kinds(&[2, 3]),
        Target::Record => {
            let groups = groups();
            let records = groups.iter().map(|group| group[64..].to_vec());
            records
                .map(trimmed)
                .filter(|record| record.len() <= target.max_len())
                .collect()
        }
        Target::Group => {
            let mut groups = groups();
            groups.retain(|group| group.len() <= target.max_len());
            groups
        }
        Target::Log => {
            let base = &bases()[1];
            let (mut log, mut at) = (base.log.clone(), 0);
            log.truncate(target.max_len());
            while log.get(at..at + 4) == Some(&b"NSLG"[..]) {
                repair::put(&mut log, at + 32, &DATABASE.to_le_bytes());
                at += usize::try_from(super::number(&log, at + 24)).unwrap_or(0);
            }
            log.truncate(at.min(log.len()));
            repair::groups(&mut log, 0);
            let cut = log[..log.len() / 4096 / 2 * 4096].to_vec();
            let mut torn = log.clone();
            torn.iter_mut().rev().take(1000).for_each(|byte| *byte = 0);
            vec![log, cut, torn]
        }
        Target::Backup => super::backup::saved().map(<[u8]>::to_vec).to_vec(),
        Target::History => {
            let mut rng = Rng::new(8);
            let rows = |rng: &mut Rng, leaf| {
                let mut input = vec![leaf];
                for _ in 0..=rng.below(12) {
                    let [kind, from, span] = [rng.below(256), 1 + rng.below(40), 1 + rng.below(9)];
                    let row = [kind, from, from + span, rng.below(4), rng.below(256)];
                    input.extend(row.map(|part| u8::try_from(part).unwrap_or(0)));
                }
                input
            };
            let mut inputs: Vec<Vec<u8>> = (0..40).map(|leaf| rows(&mut rng, leaf)).collect();
            inputs.push(Vec::new());
            inputs
        }
        Target::Database => {
            let mut rng = Rng::new(7);
            let mut inputs: Vec<Vec<u8>> = [0, 1, 2, 3, PAST_FROM].map(|base| vec![base, 0]).into();
            for number in 0..60_u8 {
                let mut input = vec![0; target.max_len()];
                input[0] = number;
                let mut size = 2;
                for _ in 0..=rng.below(3) {
                    size = super::edit::mutate(&mut input, size, &mut rng);
                }
                inputs.push(input[..size].to_vec());
            }
            inputs
        }
    }
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    bytes.truncate(used);
    bytes
}

/// All groups of all logs.
fn groups() -> Vec<Vec<u8>> {
    let mut groups = Vec::new();
    for base in bases() {
        let mut at = base.start.0;
        while base.log.get(at..at + 4) == Some(&b"NSLG"[..]) {
            let len = usize::try_from(super::number(&base.log, at + 24)).unwrap_or(4096);
            groups.extend(base.log.get(at..at + len).map(<[u8]>::to_vec));
            at += len;
        }
    }
    groups
}

/// Writes the first inputs of a target into `dir`. Gives how many.
///
/// # Errors
/// The file system's.
pub fn write(target: Target, dir: &Path) -> Result<usize, Failure> {
    std::fs::create_dir_all(dir).during("make a directory for a corpus")?;
    let seeds = of(target);
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{number:03}")), seed).during("write an input")?;
    }
    Ok(seeds.len())
}
