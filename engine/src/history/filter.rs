//! Filters of runs: that a run has no version of a key is said at the cost of one small leaf, which stays in the cache where
//! the run's leaves do not.
//!
//! A tree of its own, a row for every few hundred keys that follow each other: its key is the last of them, packed, its value a
//! blocked Bloom filter of all of them, of the same shape as a delta's. So it is written while the run is, and filters of runs
//! whose keys follow each other are put together like the runs. A run of few keys has none.
//!
//! - Cost: ten bits a key. About one absent key in a hundred passes, beside those in the gaps between two leaves.
//! - Failure: what cannot be a filter lets everything pass; `check` says so.
//! - Spec: FF-026.

use xxhash_rust::xxh3::xxh3_64;

use super::key;
use crate::delta::filter::{bits_of, block_of};
use crate::format::leaf::RowValue;
use crate::format::page::PageError;
use crate::ids::{PageRef, TableId, TxnId};
use crate::pages::{PageRead, PageWrite};
use crate::tree::bulk::{Built, Bulk};
use crate::tree::search::ceiling;

/// Bytes of a block: one cache line.
const BLOCK_BYTES: usize = 64;
/// Words of a block, each of which has one bit of a key.
const BLOCK_WORDS: usize = 8;
/// Bits for each key.
const BITS_PER_KEY: usize = 10;

/// Most keys of a row: a leaf has 15 of the largest or so, and few keys lie between two leaves.
const fn keys_max(page_bytes: usize) -> usize {
    page_bytes / 16 * 8 / BITS_PER_KEY
}

/// What stands for a packed key in a filter. Stored: never another.
pub(crate) fn hash(packed: &[u8]) -> u64 {
    xxh3_64(packed)
}

/// The filter of a run in the making.
#[derive(Debug)]
pub(crate) struct FilterBuilder<W> {
    rows: Bulk<W>,
    /// Those of the keys since the last row.
    hashes: Vec<u64>,
    keys_max: usize,
    /// The row in the making, and as it is stored.
    words: Vec<u64>,
    row: Vec<u8>,
    /// The last key.
    last: Vec<u8>,
    is_needed: bool,
}

impl<W: PageWrite> FilterBuilder<W> {
    /// Whose pages go to `sink`.
    pub(crate) fn new(sink: W) -> Self {
        Self {
            keys_max: keys_max(sink.page_bytes()),
            rows: Bulk::new(sink, TableId::HISTORY),
            hashes: Vec::new(),
            words: Vec::new(),
            row: Vec::new(),
            last: Vec::new(),
            is_needed: false,
        }
    }

    /// Adds a packed key that is not below the one before.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn add(&mut self, packed: &[u8]) -> Result<(), PageError> {
        let hash = hash(packed);
        // Another version of the key; or another key that stands for the same bits.
        if self.hashes.last() == Some(&hash) {
            self.last.clear();
            self.last.extend_from_slice(packed);
            return Ok(());
        }
        if self.hashes.len() == self.keys_max {
            self.is_needed = true;
            self.put()?;
        }
        self.hashes.push(hash);
        self.last.clear();
        self.last.extend_from_slice(packed);
        Ok(())
    }

    /// Adds a row of another filter, of keys that are not below those before. Nothing else is added to such a builder.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn add_row(&mut self, last: &[u8], row: RowValue<'_>) -> Result<(), PageError> {
        // A key that ends what was before is in that row.
        if *self.last < *last {
            self.rows.push(last, TxnId::ZERO, row)?;
            self.last.clear();
            self.last.extend_from_slice(last);
        }
        self.is_needed = true;
        Ok(())
    }

    /// The same for keys up to `last` that are not known.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn add_any(&mut self, last: &[u8]) -> Result<(), PageError> {
        self.add_row(last, RowValue::Inline(&[u8::MAX; BLOCK_BYTES]))
    }

    fn put(&mut self) -> Result<(), PageError> {
        let blocks = (self.hashes.len() * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8);
        let blocks = blocks.max(1);
        self.words.clear();
        self.words.resize(blocks * BLOCK_WORDS, 0);
        for hash in self.hashes.drain(..) {
            let first = block_of(hash, blocks) * BLOCK_WORDS;
            let block = self.words.iter_mut().skip(first);
            for (word, bit) in block.zip(bits(hash)) {
                *word |= bit;
            }
        }
        self.row.clear();
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        self.row.extend(bytes);
        self.rows
            .push(&self.last, TxnId::ZERO, RowValue::Inline(&self.row))
    }

    /// The filter; none if there are few keys.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn finish(mut self) -> Result<Option<Built>, PageError> {
        if !self.is_needed {
            return Ok(None);
        }
        if !self.hashes.is_empty() {
            self.put()?;
        }
        self.rows.finish()
    }
}

/// Whether the run of the filter at `root` may have versions of the packed key of this hash; `scratch` is for its use.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn may_have<P: PageRead>(
    pages: &P,
    root: PageRef,
    (packed, hash): (&[u8], u64),
    scratch: &mut Vec<u8>,
) -> Result<bool, PageError> {
    // Where the leaf has no row at or above it, that of the next leaf is the one; it is not looked for.
    let row = ceiling(pages, root, packed, scratch)?;
    Ok(row.is_none_or(|(_, row)| row.inline().is_none_or(|bits| has(bits, hash))))
}

fn has(row: &[u8], hash: u64) -> bool {
    if !is_filter(row) {
        return true;
    }
    let first = block_of(hash, row.len() / BLOCK_BYTES) * BLOCK_WORDS;
    let (words, _) = row.as_chunks();
    let mut block = words.iter().skip(first).zip(bits(hash));
    block.all(|(word, bit)| u64::from_le_bytes(*word) & bit != 0)
}

/// The bit of each word of a block that stands for a hash.
fn bits(hash: u64) -> impl Iterator<Item = u64> {
    let bits = bits_of(hash);
    (0..BLOCK_WORDS).map(move |word| 1 << (bits >> (6 * word) & 63))
}

fn is_filter(row: &[u8]) -> bool {
    !row.is_empty() && row.len().is_multiple_of(BLOCK_BYTES)
}

/// What is wrong with a row of a filter, if anything.
pub(crate) fn check_row(key: &[u8], value: RowValue<'_>, scratch: &mut Vec<u8>) -> Option<String> {
    match value {
        RowValue::Inline(row) if is_filter(row) && key::unpack(key, scratch) => None,
        RowValue::Inline(row) => Some(format!(
            "a row of a filter has a key of {} and a value of {} bytes",
            key.len(),
            row.len()
        )),
        RowValue::Extent(_) => Some("a row of a filter in pages of its own".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_keys_it_was_made_of_and_few_others() {
        let keys = (0..keys_max(16_384)).map(|n| hash(&n.to_be_bytes()));
        let keys: Vec<u64> = keys.collect();
        let mut words = [0; 16 * BLOCK_WORDS];
        for key in &keys {
            let first = block_of(*key, 16) * BLOCK_WORDS;
            for (word, bit) in words[first..].iter_mut().zip(bits(*key)) {
                *word |= bit;
            }
        }
        let row: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(keys.iter().all(|key| has(&row, *key)));
        let others = (1_000_000..1_040_000_usize).filter(|n| has(&row, hash(&n.to_be_bytes())));
        assert!((1..1_000).contains(&others.count()));
        // The places never change: they are stored.
        let key = hash(b"key");
        assert_eq!(block_of(key, 16), 11);
        assert_eq!(bits(key).take(2).collect::<Vec<_>>(), [1 << 37, 1 << 18]);
    }

    #[test]
    fn what_is_no_filter_lets_everything_pass_and_is_told() {
        for bad in [&[][..], &[0; 63], &[0; 65]] {
            assert!(has(bad, 7));
            assert!(
                check_row(
                    &[0, 0, 0, 16, b'k', 0, 0],
                    RowValue::Inline(bad),
                    &mut Vec::new()
                )
                .is_some()
            );
        }
        assert!(!has(&[0; 64], 7));
        assert!(
            check_row(
                &[0, 0, 0, 16, b'k', 0, 0],
                RowValue::Inline(&[0; 64]),
                &mut Vec::new()
            )
            .is_none()
        );
        assert!(check_row(b"k", RowValue::Inline(&[0; 64]), &mut Vec::new()).is_some());
    }
}
