//! The nouns that cross module borders: ids and positions, each its own type.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $vis:vis $name:ident($inner:ty), $debug:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        $vis struct $name($inner);

        impl $name {
            /// Wraps a raw number.
            #[must_use]
            $vis const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number.
            #[must_use]
            $vis const fn get(self) -> $inner {
                self.0
            }

            /// The id that follows this one.
            ///
            /// # Panics
            /// When the id space is used up, which would take centuries at a billion a second.
            #[must_use]
            $vis const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(next) => Self(next),
                    None => panic!("id space is used up"),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $debug, self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// Names one committed transaction. Ids rise by one; 0 is the empty database before the first commit.
    pub TxnId(u64), "t{}"
);
id!(
    /// A byte position in the endless commit log. Positions never repeat, also when files are recycled.
    pub Lsn(u64), "@{}"
);
id!(
    /// Names a page of the data file: its offset divided by the page size.
    pub(crate) PageId(u64), "p{}"
);
id!(
    /// Names a table for the life of the database. Ids are never reused.
    pub(crate) TableId(u32), "table{}"
);
id!(
    /// Counts checkpoints. A page carries the generation that wrote it.
    pub(crate) Generation(u32), "g{}"
);

impl TxnId {
    /// The state before the first commit.
    pub const ZERO: Self = Self::new(0);
    /// Above every real transaction: "all versions, committed or not".
    pub(crate) const MAX: Self = Self::new(u64::MAX);
}

impl TableId {
    /// System table: table name to [`TableId`] and description. Ordinary, logged, versioned data.
    pub(crate) const NAMES: Self = Self::new(0);
    /// System table: [`TableId`] to tree root. Written by checkpoints only, never through the log.
    pub(crate) const ROOTS: Self = Self::new(1);
    /// System table: superseded rows, by table, key and the transaction that ended them. Many trees, one a run.
    pub(crate) const HISTORY: Self = Self::new(2);
    /// System table: the runs of history. Written by checkpoints only.
    pub(crate) const RUNS: Self = Self::new(3);
    /// System table: transaction to the time it was committed. Noted while history is kept, like the next two.
    pub(crate) const TIMES: Self = Self::new(4);
    /// System table: transaction to its tag.
    pub(crate) const TAGS: Self = Self::new(5);
    /// System table: tag to the last transaction that carried it.
    pub(crate) const TAGGED: Self = Self::new(6);
    /// System table: transaction with which a checkpoint ended to the digest of the state after it. Written by checkpoints
    /// only, while history is kept.
    pub(crate) const STATES: Self = Self::new(7);
    /// System table: named readers of the commit log, and how far they are. Logged.
    pub(crate) const SUBSCRIBERS: Self = Self::new(8);
    /// The tables that tell of moments of the past.
    pub(crate) const MOMENTS: [Self; 4] = [Self::TIMES, Self::TAGS, Self::TAGGED, Self::STATES];
    /// System tables with a tree of their own among the roots.
    pub(crate) const ROOTED: [Self; 5] = [
        Self::TIMES,
        Self::TAGS,
        Self::TAGGED,
        Self::STATES,
        Self::SUBSCRIBERS,
    ];
    /// The first id given to a user's table.
    pub(crate) const FIRST_USER: Self = Self::new(16);
    /// Tables that a database can ever have had.
    pub(crate) const NUMBERS_MAX: u32 = 1 << 30;
    /// Set in the id of a table of which no history is kept. Spec: FF-020.
    const WITHOUT_HISTORY: u32 = Self::NUMBERS_MAX;

    /// Whether superseded versions of its rows are kept, if any are.
    #[inline]
    pub(crate) const fn keeps_history(self) -> bool {
        self.0 & Self::WITHOUT_HISTORY == 0
    }

    /// The same number, for a table of which no history is kept.
    #[must_use]
    pub(crate) const fn without_history(self) -> Self {
        Self(self.0 | Self::WITHOUT_HISTORY)
    }

    /// Its place in the order in which ids are given out.
    #[must_use]
    pub(crate) const fn number(self) -> Self {
        Self(self.0 & !Self::WITHOUT_HISTORY)
    }

    /// Whether it is a user's, of those given out before `next` was.
    pub(crate) fn was_given_out(self, next: Self) -> bool {
        Self::FIRST_USER <= self.number() && self.number() < next
    }
}

impl Lsn {
    /// The position `bytes` after this one.
    ///
    /// # Panics
    /// On overflow of 64 bits, which no log reaches.
    #[must_use]
    pub(crate) const fn plus(self, bytes: u64) -> Self {
        match self.0.checked_add(bytes) {
            Some(at) => Self(at),
            None => panic!("log position overflows"),
        }
    }
}

/// A border between two groups, with all that is needed to read or write on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogPosition {
    /// Where the next group begins.
    pub(crate) lsn: Lsn,
    /// The chain: header checksum of the group that ends here, or the seed of a new log.
    pub(crate) checksum: u32,
    /// The last transaction before the border.
    pub(crate) last_txn: TxnId,
}

/// How a parent names a child page: where it is, and what must be found there.
///
/// The checksum and generation catch lost, stale and misdirected reads and writes. Spec: FF-004.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct PageRef {
    /// Where the page is.
    pub(crate) id: PageId,
    /// Its CRC-32C, equal to the `checksum` field of its header.
    pub(crate) checksum: u32,
    /// The checkpoint that wrote it.
    pub(crate) generation: Generation,
}

impl fmt::Debug for PageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}/{:?}#{:08x}",
            self.id, self.generation, self.checksum
        )
    }
}
