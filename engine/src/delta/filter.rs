//! The filter in front of the delta: says at the cost of one cache line that a key is not here.
//!
//! A blocked Bloom filter: a key picks one 64-byte block and one bit in each of its eight words. At ten bits a key about
//! one absent key in a hundred passes.
//!
//! Invariant: a key's bits are set before the key is published, and no bit is ever cleared. So a reader that should
//! see a key finds all its bits; publication of the key orders them.
//!
//! - Threads: one writer sets bits by load and store; any thread asks.
//! - Failure: beyond the number of keys it was made for the filter lets more absent keys pass; it never misses.
//! - Source: Putze, Sanders, Singler, Cache-, hash- and space-efficient Bloom filters (2007).

use crate::sync::atomic::{AtomicU64, Ordering};

use crate::ids::TableId;
use crate::prefetch::prefetch_line;

/// Bits of filter for each key it is sized for.
const BITS_PER_KEY: usize = 10;

/// One cache line of the filter.
#[derive(Default)]
#[repr(align(64))]
struct Block([AtomicU64; 8]);

/// A set of keys that may also claim keys it does not hold.
pub(crate) struct Filter {
    blocks: Box<[Block]>,
}

impl Filter {
    /// A filter for about `keys` keys.
    pub(crate) fn for_keys(keys: usize) -> Self {
        let count = (keys.saturating_mul(BITS_PER_KEY) / 512).clamp(1, 1 << 26);
        Self {
            blocks: (0..count).map(|_| Block::default()).collect(),
        }
    }

    /// Adds a key by its hash. Called by the writer only.
    pub(crate) fn insert(&self, hash: u64) {
        let mut bits = bits_of(hash);
        for word in &self.block(hash).0 {
            // A plain load and store: there is one writer. Relaxed: publication of the key orders it.
            let set = word.load(Ordering::Relaxed) | 1 << (bits & 63);
            word.store(set, Ordering::Relaxed);
            bits >>= 6;
        }
    }

    /// Whether the key may be here; "no" is certain for what the caller can see.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let mut bits = bits_of(hash);
        let mut all = 1;
        for word in &self.block(hash).0 {
            all &= word.load(Ordering::Relaxed) >> (bits & 63);
            bits >>= 6;
        }
        all & 1 != 0
    }

    /// Asks for what [`Filter::may_contain`] will look at.
    #[inline]
    pub(crate) fn warm(&self, hash: u64) {
        prefetch_line(std::ptr::from_ref(self.block(hash)).cast());
    }

    /// The block a hash picks: its high bits scaled to the number of blocks.
    #[inline]
    fn block(&self, hash: u64) -> &Block {
        &self.blocks[block_of(hash, self.blocks.len())]
    }
}

/// The number of the block that a hash picks of so many. Filters of runs are stored so: it never changes.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "below the number of blocks"
)]
pub(crate) fn block_of(hash: u64, blocks: usize) -> usize {
    ((u128::from(hash) * blocks as u128) >> 64) as usize
}

/// Eight bit numbers of six bits each, independent of the high bits that pick the block. It never changes, either.
#[inline]
pub(crate) fn bits_of(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// Hash of a key in its table. Each step folds the 128-bit product of eight key bytes and a constant, as wyhash does.
/// Never stored: it may differ between versions.
#[inline]
pub(crate) fn hash(table: TableId, key: &[u8]) -> u64 {
    let mut state = fold(
        u64::from(table.get()) ^ 0xa076_1d64_78bd_642f,
        key.len() as u64 ^ 0xe703_7ed1_a0b4_28db,
    );
    let (chunks, rest) = key.as_chunks::<8>();
    for chunk in chunks {
        state = fold(state ^ u64::from_le_bytes(*chunk), 0x8ebc_6af0_9c88_c6e3);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(last), 0x8ebc_6af0_9c88_c6e3);
    }
    fold(state, 0x5899_65cc_7537_4cc3)
}

/// The two halves of the product, mixed.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of a 128-bit number"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_inserted_key_is_denied_and_few_others_pass() {
        let filter = Filter::for_keys(20_000);
        let key = |i: u32| format!("key{i:07}").into_bytes();
        for i in 0..20_000 {
            filter.insert(hash(TableId::new(16), &key(i)));
        }
        assert!((0..20_000).all(|i| filter.may_contain(hash(TableId::new(16), &key(i)))));
        let passed = |table| {
            (20_000..60_000)
                .filter(|&i| filter.may_contain(hash(TableId::new(table), &key(i))))
                .count()
        };
        assert!(passed(16) < 1_000, "{} of 40000 pass", passed(16));
        assert!(passed(17) < 1_000, "{} of 40000 pass", passed(17));
    }
}
