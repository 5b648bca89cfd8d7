//! What is stored: keys and values of a row, made from its index, and how an answer is told from a wrong one.

use crate::error::{Error, Result};
use crate::generator::{Key, Rows, mix};

/// In which order keys follow their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Keys rise with the index.
    Rising,
    /// Keys are scattered: a later index may be anywhere, as the inserts of YCSB are.
    Scattered,
}

/// Rows by index. In order [`Order::Rising`] with 100-byte values they are those of every other bench.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    rows: Rows,
    order: Order,
    value_bytes: usize,
}

impl Content {
    /// `n` rows; more may follow only if they are scattered.
    pub(crate) fn new(n: u64, order: Order, value_bytes: usize) -> Self {
        Self {
            rows: Rows::new(n),
            order,
            value_bytes,
        }
    }

    /// Rows at the beginning.
    pub(crate) fn len(self) -> u64 {
        self.rows.n
    }

    /// Whether keys rise with the index.
    pub(crate) fn is_rising(self) -> bool {
        self.order == Order::Rising
    }

    /// Bytes of a row as its user counts them.
    pub(crate) fn row_bytes(self) -> u64 {
        size_of::<Key>() as u64 + self.value_bytes as u64
    }

    /// The key of row `i`.
    pub(crate) fn key(self, i: u64) -> Key {
        match self.order {
            Order::Rising => self.rows.key(i),
            Order::Scattered => {
                let mut key = Key::default();
                let (front, back) = key.split_at_mut(8);
                front.copy_from_slice(&mix(i).to_be_bytes());
                back.copy_from_slice(&i.to_be_bytes());
                key
            }
        }
    }

    /// A key beside that of row `i`, which no row has.
    pub(crate) fn absent_key(self, i: u64) -> Key {
        self.rows.key_between(i)
    }

    /// Puts the value of row `i` in its `version` into `value`.
    pub(crate) fn value_into(self, i: u64, version: u32, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&self.rows.value(i, version.into()));
        let mut word = mix(i ^ 0xa5a5);
        while value.len() < self.value_bytes {
            value.extend_from_slice(&word.to_le_bytes());
            word = mix(word);
        }
        value.truncate(self.value_bytes);
    }

    /// The value of row `i` in its `version`.
    pub(crate) fn value(self, i: u64, version: u32) -> Box<[u8]> {
        let mut value = Vec::with_capacity(self.value_bytes + 8);
        self.value_into(i, version, &mut value);
        value.into_boxed_slice()
    }

    /// The version in `found`, which must be a value of row `i`: told by its length, its head and its version's range.
    ///
    /// # Errors
    /// [`Error::Wrong`] if it is not.
    pub(crate) fn version(self, i: u64, found: Option<&[u8]>) -> Result<u32> {
        let head = found.map(|value| value.get(..100).unwrap_or(value));
        let version = found
            .and_then(|value| value.get(8..16)?.first_chunk::<8>())
            .and_then(|bytes| u32::try_from(u64::from_le_bytes(*bytes)).ok());
        match version {
            Some(version)
                if self.rows.is_value(i, head)
                    && found.map(<[u8]>::len) == Some(self.value_bytes) =>
            {
                Ok(version)
            }
            _ => Err(wrong(i, found)),
        }
    }
}

/// Kept out of the loops that call it.
#[cold]
fn wrong(i: u64, found: Option<&[u8]>) -> Error {
    Error::Wrong(match found {
        None => format!("row {i} is missing"),
        Some(value) => format!("row {i} has another value ({} bytes)", value.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_gives_its_version_back_and_another_rows_is_refused() {
        for bytes in [100, 1000] {
            let content = Content::new(10, Order::Scattered, bytes);
            let value = content.value(3, 7);
            assert_eq!(value.len(), bytes);
            assert_eq!(content.version(3, Some(&value)).unwrap(), 7);
            assert!(content.version(4, Some(&value)).is_err());
            assert!(content.version(3, Some(&value[..bytes - 1])).is_err());
            assert!(content.version(3, None).is_err());
        }
    }

    #[test]
    fn small_rising_rows_are_those_of_every_other_bench() {
        let (content, rows) = (Content::new(50, Order::Rising, 100), Rows::new(50));
        assert_eq!(content.key(7), rows.key(7));
        assert_eq!(*content.value(7, 2), rows.value(7, 2));
        assert!(content.absent_key(7) > content.key(7) && content.absent_key(7) < content.key(8));
    }
}
