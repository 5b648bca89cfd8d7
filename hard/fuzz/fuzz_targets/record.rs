//! See `nshard::fuzz::Target::Record`.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use nshard::fuzz::Target;
use nshard::fuzz::mutate::mutate;

fuzz_target!(|data: &[u8]| Target::Record.run(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max: usize, seed: u32| {
    mutate(
        Target::Record,
        &mut data[..max],
        size.min(max),
        seed,
        |data, size| {
            let max = data.len();
            fuzzer_mutate(data, size, max)
        },
    )
});
