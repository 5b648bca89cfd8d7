//! The meta page: the root of everything a database is. Four copies of it exist, in two slots.
//!
//! Spec: FF-010, FF-011.

#![deny(clippy::indexing_slicing)]

use northstar_io::SyncMethod;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use northstar_io::planted::planted;

use super::page::{HEADER_BYTES, PageHeader, PageKind};
use crate::ids::{Generation, Lsn, PageId, PageRef, TableId, TxnId};
use crate::limits::{
    IDS_MAX, LOG_BLOCK_BYTES, NARROW_IDS_MAX, PAGES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SEGMENT_BYTES_UNSAID,
};
use crate::retention::Retention;
use crate::state::StateHash;

/// Bytes 64..80 of every meta page: tells a database from any other file, whatever its version.
pub(crate) const MAGIC: [u8; 16] = *b"NorthstarDB\0\0\0\0\0";
/// Version of the whole file format.
pub(crate) const FORMAT: u32 = 0;
/// The meta page says how large log segments are.
const FEATURE_SEGMENT_BYTES: u64 = 1;
/// The meta page says where history is.
const FEATURE_HISTORY: u64 = 2;
/// Features this version knows. A set bit beyond them is an error that names it.
const FEATURES_KNOWN: u64 = FEATURE_SEGMENT_BYTES | FEATURE_HISTORY;

const CLEAN: u32 = 1;
const RESTORING: u32 = 2;

/// Copies of the meta page: the first pages of the file, never used for anything else.
pub(crate) const COPIES: u64 = 4;

/// A page reference as stored. Spec: FF-004.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct StoredRef {
    id: U64,
    checksum: U32,
    generation: U32,
}

impl From<PageRef> for StoredRef {
    fn from(page: PageRef) -> Self {
        Self {
            id: page.id.get().into(),
            checksum: page.checksum.into(),
            generation: page.generation.get().into(),
        }
    }
}

impl From<StoredRef> for PageRef {
    fn from(stored: StoredRef) -> Self {
        Self {
            id: PageId::new(stored.id.get()),
            checksum: stored.checksum.get(),
            generation: Generation::new(stored.generation.get()),
        }
    }
}

/// Where a tree is, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeRoot {
    /// The root page.
    pub(crate) page: PageRef,
    /// Its height above the leaves.
    pub(crate) level: u8,
    /// Rows in the tree.
    pub(crate) rows: u64,
}

/// [`TreeRoot`] as stored. A page id of 0, which is a meta page, says "empty tree".
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredRoot {
    page_id: U64,
    checksum: U32,
    generation: U32,
    rows: U64,
    level: u8,
    reserved: [u8; 7],
}

/// Bytes of a stored [`TreeRoot`].
pub(crate) const ROOT_BYTES: usize = size_of::<StoredRoot>();
const _: () = assert!(ROOT_BYTES == 32);

impl StoredRoot {
    fn of(root: Option<&TreeRoot>) -> Self {
        root.map_or_else(Self::default, |root| Self {
            page_id: root.page.id.get().into(),
            checksum: root.page.checksum.into(),
            generation: root.page.generation.get().into(),
            rows: root.rows.into(),
            level: root.level,
            reserved: [0; 7],
        })
    }

    fn root(&self) -> Option<TreeRoot> {
        (self.page_id.get() != 0).then(|| TreeRoot {
            page: PageRef {
                id: PageId::new(self.page_id.get()),
                checksum: self.checksum.get(),
                generation: Generation::new(self.generation.get()),
            },
            level: self.level,
            rows: self.rows.get(),
        })
    }
}

impl TreeRoot {
    /// The row of the table of roots.
    pub(crate) fn encode(&self) -> [u8; ROOT_BYTES] {
        let mut bytes = [0; ROOT_BYTES];
        bytes.copy_from_slice(StoredRoot::of(Some(self)).as_bytes());
        bytes
    }

    /// Reads a row of the table of roots. `None` if it is not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let root = StoredRoot::ref_from_bytes(bytes).ok()?.root()?;
        let in_range = (COPIES..PAGES_MAX).contains(&root.page.id.get());
        in_range.then_some(root)
    }
}

/// Bytes 64.. of a meta page. Torn by a crash: yes; the page's checksum covers it.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredMeta {
    magic: [u8; 16],
    format: U32,
    page_bytes: U32,
    features: U64,
    database: [u8; 16],
    generation: U32,
    flags: U32,
    tree_txn: U64,
    log_lsn: U64,
    log_last_txn: U64,
    log_checksum: U32,
    next_table: U32,
    durable_through: U64,
    names: StoredRoot,
    roots: StoredRoot,
    free: StoredRef,
    pages: U64,
    created_ns: U64,
    checkpoint_ns: U64,
    machine: U64,
    sync_method: U32,
    segment_bytes: U32,
    runs: StoredRoot,
    horizon: U64,
    history_amount: U64,
    history_kind: U32,
    reserved: U32,
    state: [u8; 16],
}

/// Bytes of a meta page that are in use.
pub(crate) const USED_BYTES: usize = HEADER_BYTES + size_of::<StoredMeta>();
const _: () = assert!(USED_BYTES <= 4096);

/// What a meta page says of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryMeta {
    /// The tree of runs.
    pub(crate) runs: Option<TreeRoot>,
    /// The oldest transaction whose state can be read.
    pub(crate) horizon: TxnId,
    /// How much is kept.
    pub(crate) policy: Retention,
    /// The digest of the rows in the trees.
    pub(crate) state: StateHash,
}

/// The root of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Names the database; random.
    pub(crate) database: u128,
    /// Bytes of a page.
    pub(crate) page_bytes: u32,
    /// Bytes of a log segment.
    pub(crate) segment_bytes: u32,
    /// Rises with every meta page written.
    pub(crate) generation: Generation,
    /// Every transaction up to here is in the trees.
    pub(crate) tree_txn: TxnId,
    /// Where the log must be read from to catch the trees up.
    pub(crate) log_start: crate::ids::LogPosition,
    /// The log was durable up to here when this was written.
    pub(crate) durable_through: Lsn,
    /// Above every table id given.
    pub(crate) next_table: TableId,
    /// The tree of table names.
    pub(crate) names: Option<TreeRoot>,
    /// The tree of table roots.
    pub(crate) roots: Option<TreeRoot>,
    /// What is kept of the past; `None` if nothing is.
    pub(crate) history: Option<HistoryMeta>,
    /// The list of pages in use; `None` in a database that never had a checkpoint.
    pub(crate) free_directory: Option<PageRef>,
    /// Pages of the data file that may be in use.
    pub(crate) pages: u64,
    /// Closed with everything merged, and nothing was appended to the log since.
    pub(crate) clean: bool,
    /// A backup is being restored into it, and not all of it is there yet.
    pub(crate) restoring: bool,
    /// Wall clock when the database was made, in nanoseconds since 1970.
    pub(crate) created_ns: u64,
    /// Wall clock when this was written.
    pub(crate) checkpoint_ns: u64,
    /// The machine on which `sync_method` was measured.
    pub(crate) machine: u64,
    /// Fastest way to a durable write there; 0 when not measured.
    pub(crate) sync_method: u32,
}

/// Why bytes are no meta page of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetaError {
    /// The magic text is missing.
    #[error("the first pages do not say NorthstarDB")]
    Foreign,
    /// A newer format.
    #[error("file format {found}, this version knows {FORMAT}")]
    Format { found: u32 },
    /// A feature this version does not know.
    #[error("feature bit {bit}")]
    Feature { bit: u32 },
    /// The bytes are damaged.
    #[error("meta page {page}: {what} is {found:#x}, expected {expected:#x}")]
    Damaged {
        page: PageId,
        what: &'static str,
        found: u64,
        expected: u64,
    },
}

impl Meta {
    /// Low half of the database's id, which every page and group carries.
    pub(crate) fn database_low(&self) -> u64 {
        let [low @ .., _, _, _, _, _, _, _, _] = self.database.to_le_bytes();
        u64::from_le_bytes(low)
    }

    /// The way to durable writes that was measured on `machine`.
    pub(crate) fn sync_method(&self, machine: u64) -> Option<SyncMethod> {
        if self.machine != machine {
            return None;
        }
        match self.sync_method {
            1 => Some(SyncMethod::WriteThenSync),
            2 => Some(SyncMethod::WriteDsync),
            3 => Some(SyncMethod::RingDsync),
            _ => None,
        }
    }

    /// Keeps what was measured.
    pub(crate) fn remember_sync_method(&mut self, method: SyncMethod, machine: u64) {
        self.machine = machine;
        self.sync_method = match method {
            SyncMethod::None => 0,
            SyncMethod::WriteThenSync => 1,
            SyncMethod::WriteDsync => 2,
            SyncMethod::RingDsync => 3,
        };
    }

    /// Writes the meta page into `page`, zeroed, all but what [`super::page::seal`] adds.
    pub(crate) fn encode(&self, page: &mut [u8]) {
        let free = self.free_directory.unwrap_or_default();
        let (mut features, segment_bytes) = match self.segment_bytes {
            SEGMENT_BYTES_UNSAID => (0, 0),
            said => (FEATURE_SEGMENT_BYTES, said),
        };
        let (mut runs, mut horizon, mut kept) = (None, TxnId::ZERO, (0, 0));
        let mut state = StateHash::default();
        if let Some(history) = &self.history {
            features |= FEATURE_HISTORY;
            (runs, horizon) = (history.runs.as_ref(), history.horizon);
            kept = history.policy.encode();
            state = history.state;
        }
        let stored = StoredMeta {
            magic: MAGIC,
            format: FORMAT.into(),
            page_bytes: self.page_bytes.into(),
            features: features.into(),
            database: self.database.to_le_bytes(),
            generation: self.generation.get().into(),
            flags: (u32::from(self.clean) * CLEAN + u32::from(self.restoring) * RESTORING).into(),
            tree_txn: self.tree_txn.get().into(),
            log_lsn: self.log_start.lsn.get().into(),
            log_last_txn: self.log_start.last_txn.get().into(),
            log_checksum: self.log_start.checksum.into(),
            next_table: self.next_table.get().into(),
            durable_through: self.durable_through.get().into(),
            names: StoredRoot::of(self.names.as_ref()),
            roots: StoredRoot::of(self.roots.as_ref()),
            free: free.into(),
            pages: self.pages.into(),
            created_ns: self.created_ns.into(),
            checkpoint_ns: self.checkpoint_ns.into(),
            machine: self.machine.into(),
            sync_method: self.sync_method.into(),
            segment_bytes: segment_bytes.into(),
            runs: StoredRoot::of(runs),
            horizon: horizon.get().into(),
            history_amount: kept.1.into(),
            history_kind: kept.0.into(),
            reserved: 0.into(),
            state: state.to_bytes(),
        };
        if let Ok((header, body)) = PageHeader::mut_from_prefix(page) {
            header.kind = PageKind::Meta as u8;
            header.used_bytes = u32::try_from(USED_BYTES).unwrap_or_default().into();
            if let Some(place) = body.get_mut(..size_of::<StoredMeta>()) {
                place.copy_from_slice(stored.as_bytes());
            }
        }
    }

    /// Whether the bytes begin like a meta page of any version.
    pub(crate) fn is_meta(page: &[u8]) -> bool {
        page.get(HEADER_BYTES..HEADER_BYTES + MAGIC.len()) == Some(&MAGIC[..])
    }

    /// The page size that a meta page claims, checksum or not.
    pub(crate) fn claimed_page_bytes(page: &[u8]) -> Option<u32> {
        let (stored, _) = StoredMeta::ref_from_prefix(page.get(HEADER_BYTES..)?).ok()?;
        (stored.magic == MAGIC).then(|| stored.page_bytes.get())
    }

    /// Reads the copy at `page`, whose checksum covers all of `bytes`.
    ///
    /// # Errors
    /// [`MetaError`].
    pub(crate) fn decode(bytes: &[u8], page: PageId) -> Result<Self, MetaError> {
        let damaged = |what, found, expected| MetaError::Damaged {
            page,
            what,
            found,
            expected,
        };
        let Ok((header, body)) = PageHeader::ref_from_prefix(bytes) else {
            return Err(damaged("length", bytes.len() as u64, USED_BYTES as u64));
        };
        let Ok((stored, _)) = StoredMeta::ref_from_prefix(body) else {
            return Err(damaged("length", bytes.len() as u64, USED_BYTES as u64));
        };
        if stored.magic != MAGIC {
            return Err(MetaError::Foreign);
        }
        let found = super::checksum::crc32c(bytes.get(4..).unwrap_or_default());
        if header.checksum.get() != found && !planted("a meta page's checksum is not checked") {
            let stored = header.checksum.get();
            return Err(damaged("checksum", found.into(), stored.into()));
        }
        if stored.format.get() != FORMAT {
            return Err(MetaError::Format {
                found: stored.format.get(),
            });
        }
        let unknown = stored.features.get() & !FEATURES_KNOWN;
        if unknown != 0 {
            return Err(MetaError::Feature {
                bit: unknown.trailing_zeros(),
            });
        }
        if header.kind != PageKind::Meta as u8 {
            return Err(damaged("kind", header.kind.into(), PageKind::Meta as u64));
        }
        if header.page_id.get() != page.get() {
            return Err(damaged("page id", header.page_id.get(), page.get()));
        }
        if stored.page_bytes.get() as usize != bytes.len() {
            return Err(damaged(
                "page size",
                stored.page_bytes.get().into(),
                bytes.len() as u64,
            ));
        }
        let generation = header.generation.get();
        if stored.generation.get() != generation {
            let found = stored.generation.get().into();
            return Err(damaged("generation", found, generation.into()));
        }
        if u64::from(generation) % 2 != page.get() % 2 {
            return Err(damaged("slot", page.get() % 2, u64::from(generation) % 2));
        }
        let segment_bytes = match stored.features.get() & FEATURE_SEGMENT_BYTES {
            0 => SEGMENT_BYTES_UNSAID,
            _ => stored.segment_bytes.get(),
        };
        let (least, most) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        if !segment_bytes.is_power_of_two() || !(least..=most).contains(&segment_bytes) {
            let expected = segment_bytes.clamp(least, most).next_power_of_two();
            return Err(damaged(
                "segment size",
                segment_bytes.into(),
                expected.into(),
            ));
        }
        let (ids, narrow) = (IDS_MAX - 1, u64::from(NARROW_IDS_MAX) - 1);
        let tables = u64::from(TableId::NUMBERS_MAX);
        let bounds = [
            ("generation", u64::from(generation), 0, narrow),
            ("next table", stored.next_table.get().into(), 0, tables),
            ("tree txn", stored.tree_txn.get(), 0, ids),
            ("log start", stored.log_lsn.get(), 0, ids),
            ("horizon", stored.horizon.get(), 0, stored.tree_txn.get()),
            (
                "last txn",
                stored.log_last_txn.get(),
                0,
                stored.tree_txn.get(),
            ),
            ("durable through", stored.durable_through.get(), 0, ids),
            // Groups begin at whole blocks.
            (
                "log start",
                stored.log_lsn.get() % LOG_BLOCK_BYTES as u64,
                0,
                0,
            ),
            ("page size", u64::from(stored.page_bytes.get()), 4096, 65536),
            ("pages", stored.pages.get(), COPIES, PAGES_MAX),
            (
                "free directory",
                stored.free.id.get(),
                0,
                stored.pages.get().saturating_sub(1),
            ),
        ];
        for (what, found, least, most) in bounds {
            if found < least || found > most {
                return Err(damaged(what, found, found.clamp(least, most.max(least))));
            }
        }
        let roots = [&stored.names, &stored.roots, &stored.runs];
        if let Some(root) = roots.iter().find(|root| root.page_id.get() >= PAGES_MAX) {
            return Err(damaged("root page", root.page_id.get(), PAGES_MAX));
        }
        let history = if stored.features.get() & FEATURE_HISTORY == 0 {
            None
        } else {
            let kind = stored.history_kind.get();
            let policy = Retention::decode(kind, stored.history_amount.get());
            // What keeps nothing and has nothing is not said.
            let runs = stored.runs.root();
            let Some(policy) = policy.filter(|kept| *kept != Retention::None || runs.is_some())
            else {
                return Err(damaged("kind of retention", kind.into(), 5));
            };
            Some(HistoryMeta {
                runs,
                horizon: TxnId::new(stored.horizon.get()),
                policy,
                state: StateHash::from_bytes(stored.state),
            })
        };
        let free = PageRef::from(stored.free);
        let meta = Self {
            database: u128::from_le_bytes(stored.database),
            page_bytes: stored.page_bytes.get(),
            segment_bytes,
            generation: Generation::new(stored.generation.get()),
            tree_txn: TxnId::new(stored.tree_txn.get()),
            log_start: crate::ids::LogPosition {
                lsn: Lsn::new(stored.log_lsn.get()),
                checksum: stored.log_checksum.get(),
                last_txn: TxnId::new(stored.log_last_txn.get()),
            },
            durable_through: Lsn::new(stored.durable_through.get()),
            next_table: TableId::new(stored.next_table.get()),
            names: stored.names.root(),
            roots: stored.roots.root(),
            history,
            free_directory: (free.id != PageId::default()).then_some(free),
            pages: stored.pages.get(),
            clean: stored.flags.get() & CLEAN != 0,
            restoring: stored.flags.get() & RESTORING != 0,
            created_ns: stored.created_ns.get(),
            checkpoint_ns: stored.checkpoint_ns.get(),
            machine: stored.machine.get(),
            sync_method: stored.sync_method.get(),
        };
        let database = header.database.get();
        if database != meta.database_low() {
            return Err(damaged("database", database, meta.database_low()));
        }
        Ok(meta)
    }
}

#[cfg(test)]
pub(crate) mod tests;
