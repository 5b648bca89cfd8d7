//! One change of an input: the fuzzer's own, and then for a part of the executions checksums made right again.

use super::{DATABASE, Target, edit, repair};
use crate::rng::Rng;

/// Changes the first `size` bytes of `data`, whose length is the most they may become, and gives their new number.
/// `fuzzer` is the change that the fuzzer would make.
pub fn mutate(
    target: Target,
    data: &mut [u8],
    size: usize,
    seed: u32,
    fuzzer: impl FnOnce(&mut [u8], usize) -> usize,
) -> usize {
    let mut rng = Rng::new(seed.into());
    if target == Target::Database && rng.chance(40) {
        return edit::mutate(data, size, &mut rng);
    }
    let size = fuzzer(data, size).min(data.len());
    // The rest comes as the fuzzer made it: what a disk does.
    if rng.chance(80) {
        fix(target, &mut data[..size], &mut rng);
    }
    size
}

/// Makes checksums right, and now and then what is looked at before anything else.
fn fix(target: Target, data: &mut [u8], rng: &mut Rng) {
    let usually = |rng: &mut Rng| rng.chance(90);
    match target {
        Target::Meta => {
            if usually(rng) {
                repair::put(data, 4, &[0, 0, 1]);
                repair::put(data, 64, b"NorthstarDB\0\0\0\0\0");
                let bytes = u32::try_from(data.len()).unwrap_or(0).to_le_bytes();
                repair::put(data, 84, &bytes);
            }
            if usually(rng) {
                // The same generation twice, in the slot it belongs to; the same database twice.
                let generation = repair::word(data, 16).to_le_bytes();
                repair::put(data, 112, &generation);
                repair::put(
                    data,
                    8,
                    &[
                        (generation[0] & 1) | (generation[1] & 2),
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                    ],
                );
                let database = super::number(data, 96).to_le_bytes();
                repair::put(data, 56, &database);
            }
            repair::page(data);
        }
        Target::Page => {
            if usually(rng) {
                repair::put(data, 4, &[0, 0]);
            }
            repair::page(data);
        }
        Target::Node => {
            if usually(rng) && data.len() > 64 {
                let branch = data[6] == 3;
                repair::put(data, 4, &[0, 0, if branch { 3 } else { 2 }]);
                data[7] = if branch { 1 + data[7] % 16 } else { 0 };
                if repair::word(data, 28) as usize > data.len() {
                    let used = u32::try_from(data.len()).unwrap_or(0).to_le_bytes();
                    repair::put(data, 28, &used);
                }
            }
            repair::page(data);
        }
        Target::Record => {
            if usually(rng) {
                repair::put(data, 0, b"NSCR");
            }
            repair::records(data, 8);
        }
        Target::Group => {
            if usually(rng) {
                repair::put(data, 0, b"NSLG");
            }
            repair::group(data, 5);
        }
        Target::Log => {
            if usually(rng) {
                place(data);
            }
            repair::groups(data, 0);
        }
        Target::Backup => {
            if usually(rng) {
                repair::put(data, 0, b"NSBACKUP");
            }
            repair::backup(data);
        }
        // Its inputs say themselves what is to be repaired.
        Target::History | Target::Database => {}
    }
}

/// Gives the groups of a log their own places.
fn place(mut data: &mut [u8]) {
    let mut at = 0_u64;
    while data.starts_with(b"NSLG") {
        repair::put(data, 16, &at.to_le_bytes());
        repair::put(data, 32, &DATABASE.to_le_bytes());
        let Ok(len) = usize::try_from(super::number(data, 24)) else {
            return;
        };
        if len == 0 || len > data.len() {
            return;
        }
        at += len as u64;
        data = data.split_at_mut(len).1;
    }
}
