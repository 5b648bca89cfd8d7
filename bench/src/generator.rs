//! The rows every bench stores: 16-byte keys, 100-byte values, all made from the row's index.
//!
//! Keys rise with the index and are spread evenly over the 64-bit range (8 bytes of position, 8 bytes of hash), so
//! they compress like random ids and not like a counter. A value starts with a hash of its index, then carries a version:
//! every row checks what it reads, so a fast wrong engine fails.
//!
//! Knows no engine: `bench/rivals` compiles this very file, so that others are measured with the same rows.

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 100;
/// Bytes of a row as its user counts them.
pub(crate) const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];
/// A value.
pub(crate) type Value = [u8; VALUE_BYTES];

/// One step of splitmix64: spreads `x` over 64 bits.
pub(crate) fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A small seeded generator; its cost in a loop is about a nanosecond.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator of `seed` for a stream of its own (a thread, a row).
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream)))
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(n.max(1));
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// The numbers below `n`, in random order.
    pub(crate) fn permutation(&mut self, n: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..n).collect();
        for at in (1..all.len()).rev() {
            let other = usize::try_from(self.below(at as u64 + 1)).unwrap_or(0);
            all.swap(at, other);
        }
        all
    }
}

/// What the value of row `i` begins with, in every version.
pub(crate) fn value_head(i: u64) -> u64 {
    mix(i ^ 0x5151)
}

/// `n` rows, by index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// How many.
    pub(crate) n: u64,
    spacing: u64,
}

impl Rows {
    /// Rows 0 to `n`.
    pub(crate) fn new(n: u64) -> Self {
        Self {
            n: n.max(1),
            spacing: u64::MAX / n.max(1),
        }
    }

    /// The key of row `i`.
    pub(crate) fn key(self, i: u64) -> Key {
        self.at(i * self.spacing, i)
    }

    /// A key between those of rows `i` and `i + 1`, which no row has.
    pub(crate) fn key_between(self, i: u64) -> Key {
        self.at(i * self.spacing + self.spacing / 2, i)
    }

    fn at(self, position: u64, i: u64) -> Key {
        let mut key = [0; KEY_BYTES];
        let (front, back) = key.split_at_mut(8);
        front.copy_from_slice(&position.to_be_bytes());
        back.copy_from_slice(&mix(i).to_be_bytes());
        key
    }

    /// The value of row `i` in its `version`.
    pub(crate) fn value(self, i: u64, version: u64) -> Value {
        let mut value = [0; VALUE_BYTES];
        let mut word = value_head(i);
        for (index, chunk) in value.chunks_mut(8).enumerate() {
            let bytes = if index == 1 {
                version.to_le_bytes()
            } else {
                word.to_le_bytes()
            };
            chunk.copy_from_slice(&bytes[..chunk.len()]);
            word = mix(word);
        }
        value
    }

    /// Whether `found` is a value of row `i`, of whatever version.
    pub(crate) fn is_value(self, i: u64, found: Option<&[u8]>) -> bool {
        let head = found.and_then(|value| value.first_chunk::<8>());
        head == Some(&value_head(i).to_le_bytes()) && found.map(<[u8]>::len) == Some(VALUE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_rise_with_the_index_and_the_key_between_lies_between() {
        let rows = Rows::new(1000);
        for i in 0..999 {
            assert!(rows.key(i) < rows.key_between(i));
            assert!(rows.key_between(i) < rows.key(i + 1));
        }
    }

    #[test]
    fn a_value_is_known_by_its_row_in_any_version() {
        let rows = Rows::new(10);
        assert!(rows.is_value(3, Some(&rows.value(3, 9))));
        assert!(!rows.is_value(3, Some(&rows.value(4, 9))));
        assert!(!rows.is_value(3, None));
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut all = Rng::new(1, 2).permutation(500);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..500));
    }
}
