//! The rows of [`crate::generator`] in an engine: checked when read, loaded when a row needs them.

use crate::error::{BenchError, Result};
use crate::target::{Db, Durability, Table, WriteBatch};

pub(crate) use crate::generator::*;

/// Numbers below `n` as people ask for things: a few often, most seldom. The frequent ones are spread over all.
///
/// - Source: Gray et al., Quickly Generating Billion-Record Synthetic Databases (1994), with YCSB's skew of 0.99.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zipfian {
    n: u64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    const SKEW: f64 = 0.99;

    /// Of the numbers below `n`; takes a moment for each million.
    pub(crate) fn new(n: u64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-Self::SKEW)).sum::<f64>();
        let zeta = zeta_of(n);
        let eta =
            (1.0 - (2.0 / n as f64).powf(1.0 - Self::SKEW)) / (1.0 - zeta_of(2.min(n)) / zeta);
        Self { n, zeta, eta }
    }

    /// The next of them.
    pub(crate) fn next(&self, rng: &mut Rng) -> u64 {
        let uniform = (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(Self::SKEW) {
            1
        } else {
            let power = 1.0 / (1.0 - Self::SKEW);
            let spread = (self.eta * uniform - self.eta + 1.0).powf(power);
            (self.n as f64 * spread) as u64
        };
        mix(rank.min(self.n - 1)) % self.n
    }

    /// So many of them, drawn before a timed loop: drawing costs as much as a get.
    pub(crate) fn draw(&self, count: usize, rng: &mut Rng) -> Vec<u64> {
        (0..count).map(|_| self.next(rng)).collect()
    }
}

impl Rows {
    /// Fails unless `found` is a value of row `i`, of whatever version.
    pub(crate) fn check(self, i: u64, found: Option<&[u8]>) -> Result<()> {
        if self.is_value(i, found) {
            return Ok(());
        }
        Err(wrong(i, found))
    }

    /// The version of `found`; fails unless that is a value of row `i`.
    pub(crate) fn version(self, i: u64, found: Option<&[u8]>) -> Result<u64> {
        self.check(i, found)?;
        let version = found.and_then(|value| value[8..].first_chunk::<8>());
        version.map_or_else(
            || Err(wrong(i, found)),
            |version| Ok(u64::from_le_bytes(*version)),
        )
    }
}

/// Rows of other lengths: key and value made from the index as those of [`Rows`] are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// How many rows.
    pub(crate) n: u64,
    /// Bytes of a key, 16 at least.
    pub(crate) key_bytes: usize,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
}

impl Shape {
    /// Bytes of a row as its user counts them.
    pub(crate) fn row_bytes(self) -> u64 {
        (self.key_bytes + self.value_bytes) as u64
    }

    /// Writes the key of row `i` into `key`. What is beyond 16 bytes comes last, so that neighbours differ early.
    pub(crate) fn key_into(self, i: u64, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(&Rows::new(self.n).key(i));
        let mut word = mix(i ^ 0x2727);
        while key.len() < self.key_bytes {
            let left = (self.key_bytes - key.len()).min(8);
            key.extend_from_slice(&word.to_le_bytes()[..left]);
            word = mix(word);
        }
    }

    /// Writes the value of row `i` into `value`.
    pub(crate) fn value_into(self, i: u64, value: &mut Vec<u8>) {
        value.clear();
        value.resize(self.value_bytes, mix(i).to_le_bytes()[0]);
        if let Some(head) = value.first_chunk_mut::<8>() {
            *head = mix(i ^ 0x5151).to_le_bytes();
        }
    }

    /// Fails unless `found` is the value of row `i`.
    pub(crate) fn check(self, i: u64, found: Option<&[u8]>) -> Result<()> {
        let head = found.and_then(|value| value.first_chunk::<8>());
        let head_is_right = head.is_none_or(|head| *head == mix(i ^ 0x5151).to_le_bytes());
        if head_is_right && found.map(<[u8]>::len) == Some(self.value_bytes) {
            return Ok(());
        }
        Err(wrong(i, found))
    }
}

/// Reads a byte of every cache line of `bytes`, so that a scan moves its rows and does not only find them.
pub(crate) fn touch(bytes: &[u8]) -> u64 {
    let lines: u64 = bytes.iter().step_by(64).copied().map(u64::from).sum();
    lines + bytes.last().copied().map_or(0, u64::from)
}

/// Kept out of the loop that calls it.
#[cold]
fn wrong(i: u64, found: Option<&[u8]>) -> BenchError {
    BenchError::Wrong {
        what: match found {
            None => format!("row {i} is missing"),
            Some(value) => format!("row {i} has another value ({} bytes)", value.len()),
        },
    }
}

/// Loads all rows in key order, `batch` a transaction, then merges them into pages. For setups: not timed.
pub(crate) fn load(db: &Db, table: &Table, rows: Rows, batch: u64) -> Result<()> {
    let mut next = 0;
    while next < rows.n {
        let end = rows.n.min(next + batch);
        let mut writes = WriteBatch::new();
        writes.durability(Durability::Buffered);
        for i in next..end {
            writes.put(table, rows.key(i), rows.value(i, 0));
        }
        db.commit(writes)?;
        next = end;
    }
    db.checkpoint()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipfian_numbers_stay_below_n_and_few_make_up_most() {
        let (zipfian, mut rng) = (Zipfian::new(10_000), Rng::new(1, 3));
        let mut counts = std::collections::BTreeMap::new();
        for i in zipfian.draw(100_000, &mut rng) {
            assert!(i < 10_000, "{i}");
            *counts.entry(i).or_insert(0u32) += 1;
        }
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = counts.iter().take(1000).sum();
        assert!((70_000..90_000).contains(&top), "{top} in the first tenth");
    }

    #[test]
    fn a_value_gives_its_version() {
        let rows = Rows::new(10);
        assert_eq!(rows.version(3, Some(&rows.value(3, 9))).ok(), Some(9));
        assert!(rows.version(3, Some(&rows.value(4, 9))).is_err());
        assert!(rows.version(3, None).is_err());
    }

    #[test]
    fn rows_of_any_shape_are_as_long_as_asked_and_known_by_their_index() {
        for (key_bytes, value_bytes) in [(16, 0), (32, 128), (128, 4096)] {
            let shape = Shape {
                n: 100,
                key_bytes,
                value_bytes,
            };
            let (mut low, mut high, mut value) = (Vec::new(), Vec::new(), Vec::new());
            shape.key_into(7, &mut low);
            shape.key_into(8, &mut high);
            shape.value_into(7, &mut value);
            assert_eq!((low.len(), value.len()), (key_bytes, value_bytes));
            assert!(low < high);
            assert!(shape.check(7, Some(&value)).is_ok());
            assert!(shape.check(7, None).is_err());
            assert_eq!(shape.check(8, Some(&value)).is_ok(), value_bytes == 0);
        }
    }
}
