//! What the targets of libFuzzer share: each runs one target of `nshard::fuzz`, with its mutator.

pub use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
pub use nshard::fuzz::mutate::mutate;

/// The entry points that libFuzzer looks for, for one target.
#[macro_export]
macro_rules! fuzz {
    ($target:expr) => {
        $crate::fuzz_target!(|data: &[u8]| $target.run(data));

        $crate::fuzz_mutator!(|data: &mut [u8], size: usize, max: usize, seed: u32| {
            let data = &mut data[..max];
            $crate::mutate($target, data, size.min(max), seed, |data, size| {
                let max = data.len();
                $crate::fuzzer_mutate(data, size, max)
            })
        });
    };
}
