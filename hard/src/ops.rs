//! Random work: what a run does, decided by a seed and nothing else.
//!
//! Work never depends on the state of a database, so the same stream can be performed by a child process, skipped
//! over, and replayed into the model afterwards. Tables and keys are small numbers here; [`key_bytes`] and
//! [`value_bytes`] give them their bytes.

use std::ops::Bound;

use crate::rng::Rng;

/// Tables a stream works with.
pub const SLOTS: u8 = 4;

/// The bounds a stream keeps.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Different keys per table.
    pub keys: u32,
    /// Longest value in bytes.
    pub value_bytes_max: u32,
    /// Most edits in one transaction.
    pub edits_max: u64,
    /// How key numbers become bytes.
    pub key_style: KeyStyle,
}

/// Families of keys, each hard on another part of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStyle {
    /// A few bytes.
    Short,
    /// Forty equal bytes in front.
    LongPrefix,
    /// From 6 bytes to the engine's limit.
    Mixed,
}

impl Shape {
    /// A shape drawn at random.
    #[must_use]
    pub fn random(rng: &mut Rng) -> Self {
        Self {
            keys: rng.pick(&[2, 7, 30, 120, 500]),
            value_bytes_max: rng.pick(&[60, 600, 5_000, 50_000]),
            edits_max: rng.pick(&[1, 6, 30]),
            key_style: rng.pick(&[KeyStyle::Short, KeyStyle::LongPrefix, KeyStyle::Mixed]),
        }
    }

    /// The same, with keys that small pages allow: a key may take a quarter of a page.
    #[must_use]
    pub fn for_pages(mut self, page_bytes: u32) -> Self {
        if page_bytes < 16384 && self.key_style == KeyStyle::Mixed {
            self.key_style = KeyStyle::LongPrefix;
        }
        self
    }
}

/// One change inside a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Stores a value.
    Put {
        /// Table.
        slot: u8,
        /// Key number.
        key: u32,
        /// Value.
        value: Fill,
    },
    /// Removes a key, present or not.
    Delete {
        /// Table.
        slot: u8,
        /// Key number.
        key: u32,
    },
    /// Removes every key of a range, which may be empty or reversed.
    DeleteRange {
        /// Table.
        slot: u8,
        /// Lower edge.
        from: Bound<u32>,
        /// Upper edge.
        to: Bound<u32>,
    },
    /// Compares and swaps.
    Cas {
        /// Table.
        slot: u8,
        /// Key number.
        key: u32,
        /// What is expected there.
        expect: Expect,
        /// What to store; `None` deletes.
        new: Option<Fill>,
    },
    /// Creates a table, or finds it.
    Create {
        /// Table.
        slot: u8,
    },
    /// Drops a table, which may be unknown.
    Drop {
        /// Table.
        slot: u8,
    },
    /// Renames a table, which may be unknown or meet a name in use.
    Rename {
        /// Table.
        from: u8,
        /// The other table's name.
        to: u8,
    },
    /// Marks a point to come back to.
    Savepoint,
    /// Goes back to one of the points marked so far, if any.
    Rollback {
        /// Chooses among them.
        pick: u32,
    },
}

/// What a compare-and-swap expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The value that is there.
    Current,
    /// A value that never is there.
    Wrong,
    /// No value.
    Absent,
}

/// A value, named by its length and the seed of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes.
    pub len: u32,
    /// Seed of the bytes.
    pub seed: u32,
}

/// How a transaction reaches the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `begin_write`, edits, `commit_with`.
    Exclusive,
    /// `commit(WriteBatch)`.
    Batch,
    /// `submit(WriteBatch)`, waited for later.
    Submit,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Committed and flushed.
    Durable,
    /// Committed, flushed later.
    Buffered,
    /// Given up.
    Abort,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// What it changes, in this order.
    pub edits: Vec<Edit>,
    /// How it reaches the engine.
    pub way: Way,
    /// How it ends.
    pub end: End,
}

/// One step of a model run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A transaction.
    Txn(Txn),
    /// A checkpoint.
    Checkpoint,
    /// Closes and opens again.
    Reopen,
    /// Drops every handle without closing, and opens again.
    DropAndReopen,
    /// Opens a snapshot and keeps it.
    Hold,
    /// Reads a kept snapshot whole, then lets it go.
    Release(u32),
    /// Reads the state after some earlier transaction.
    AsOf(u32),
    /// Lets the engine check itself.
    Check,
    /// Subscribes to the log, reads on, acknowledges, or lets go. No stream has it: see `sim::script::Plan::work`.
    Follow(u32),
}

/// An endless stream of work.
#[derive(Debug, Clone)]
pub struct Stream {
    rng: Rng,
    shape: Shape,
}

impl Stream {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64, shape: Shape) -> Self {
        Self {
            rng: Rng::new(seed),
            shape,
        }
    }

    /// The next step of a model run.
    pub fn step(&mut self) -> Step {
        match self.rng.below(1000) {
            0..=24 => Step::Checkpoint,
            25..=34 => Step::Reopen,
            35..=42 => Step::DropAndReopen,
            43..=82 => Step::Hold,
            83..=118 => Step::Release(self.small()),
            119..=160 => Step::AsOf(self.small()),
            161..=170 => Step::Check,
            _ => Step::Txn(self.txn()),
        }
    }

    /// The next transaction.
    pub fn txn(&mut self) -> Txn {
        let way = match self.rng.below(10) {
            0..=5 => Way::Exclusive,
            6..=7 => Way::Batch,
            _ => Way::Submit,
        };
        let end = match self.rng.below(20) {
            0..=1 if way == Way::Exclusive => End::Abort,
            2..=6 => End::Buffered,
            _ => End::Durable,
        };
        let least = u64::from(self.rng.chance(95));
        let count = self.rng.between(least, self.shape.edits_max);
        let edits = (0..count)
            .map(|_| {
                if way == Way::Exclusive {
                    self.edit()
                } else {
                    self.plain_edit()
                }
            })
            .collect();
        Txn { edits, way, end }
    }

    fn edit(&mut self) -> Edit {
        let slot = self.slot();
        match self.rng.below(100) {
            0..=9 => Edit::Cas {
                slot,
                key: self.key(),
                expect: self
                    .rng
                    .pick(&[Expect::Current, Expect::Wrong, Expect::Absent]),
                new: self.rng.chance(70).then(|| self.fill()),
            },
            10 => Edit::Create { slot },
            11 if self.rng.chance(40) => Edit::Drop { slot },
            12 => {
                let to = (slot + 1 + self.rng.pick(&[0, 1, 2])) % SLOTS;
                Edit::Rename { from: slot, to }
            }
            13..=17 => Edit::Savepoint,
            18..=21 => Edit::Rollback { pick: self.small() },
            _ => self.plain_edit(),
        }
    }

    fn plain_edit(&mut self) -> Edit {
        let slot = self.slot();
        match self.rng.below(100) {
            0..=19 => Edit::Delete {
                slot,
                key: self.key(),
            },
            20..=25 => self.delete_range(slot),
            _ => Edit::Put {
                slot,
                key: self.key(),
                value: self.fill(),
            },
        }
    }

    /// Mostly a handful of keys, sometimes all, sometimes a reversed range.
    fn delete_range(&mut self, slot: u8) -> Edit {
        let from = self.key();
        let to = match self.rng.below(10) {
            0 => self.key(),
            _ => from + self.rng.pick(&[0, 1, 2, 5, 20]),
        };
        let (from, to) = (self.edge(from), self.edge(to));
        Edit::DeleteRange { slot, from, to }
    }

    fn edge(&mut self, key: u32) -> Bound<u32> {
        match self.rng.below(20) {
            0 => Bound::Unbounded,
            1..=10 => Bound::Included(key),
            _ => Bound::Excluded(key),
        }
    }

    /// The first table gets most of the work.
    fn slot(&mut self) -> u8 {
        self.rng.pick(&[0, 0, 0, 0, 1, 1, 2, 3])
    }

    fn key(&mut self) -> u32 {
        self.small() % self.shape.keys
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.rng.below(1 << 20)).unwrap_or(0)
    }

    fn fill(&mut self) -> Fill {
        let most = u64::from(self.shape.value_bytes_max);
        let len = match self.rng.below(20) {
            0 => 0,
            1..=12 => self.rng.below(100.min(most) + 1),
            13..=17 => self.rng.below(2_000.min(most) + 1),
            _ => self.rng.below(most + 1),
        };
        Fill {
            len: u32::try_from(len).unwrap_or(0),
            seed: self.small(),
        }
    }
}

/// The name of a table.
#[must_use]
pub fn table_name(slot: u8) -> String {
    format!("table/{slot}")
}

/// The bytes of a key number. Different numbers give different bytes; an odd number's key extends its neighbour's.
#[must_use]
pub fn key_bytes(style: KeyStyle, number: u32) -> Vec<u8> {
    let even = number & !1;
    let mut key = match style {
        KeyStyle::Short | KeyStyle::Mixed => Vec::new(),
        KeyStyle::LongPrefix => b"a/prefix/shared/by/all/of/the/keys/here/".to_vec(),
    };
    key.extend_from_slice(format!("{even:05}").as_bytes());
    if style == KeyStyle::Mixed {
        let tail = match even % 14 {
            0 => 300,
            2 => 1_200,
            4 if even % 56 == 4 => 4_000,
            6 => 40,
            _ => 1,
        };
        key.extend(
            (0..tail).map(|at: usize| [0x00, 0xff, b'x', 0x80][(at + number as usize / 2) % 4]),
        );
    }
    if number % 2 == 1 {
        key.push(0);
    }
    key
}

/// The bytes of a value.
#[must_use]
pub fn value_bytes(fill: Fill) -> Vec<u8> {
    let mut rng = Rng::new(u64::from(fill.seed));
    let len = fill.len as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.word().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_numbers_are_different_keys_within_the_limit() {
        for style in [KeyStyle::Short, KeyStyle::LongPrefix, KeyStyle::Mixed] {
            let keys: std::collections::BTreeSet<_> =
                (0..600).map(|number| key_bytes(style, number)).collect();
            assert_eq!(keys.len(), 600);
            assert!(keys.iter().all(|key| !key.is_empty() && key.len() <= 4096));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_work() {
        let shape = Shape::random(&mut Rng::new(5));
        let (mut one, mut two) = (Stream::new(9, shape), Stream::new(9, shape));
        for _ in 0..500 {
            assert_eq!(one.step(), two.step());
        }
    }
}
