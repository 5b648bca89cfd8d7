//! The engines, one file each. A file says how its engine is set up, and nothing else.

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
mod northstar;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stripes;

use crate::rival::{Engine, Open};

/// The way to open an engine, if it was built.
macro_rules! built {
    ($feature:literal, $open:expr) => {{
        #[cfg(feature = $feature)]
        let open: Option<Open> = Some($open);
        #[cfg(not(feature = $feature))]
        let open: Option<Open> = None;
        open
    }};
}

/// Every engine, ours first.
pub(crate) const ENGINES: &[Engine] = &[
    Engine {
        name: "northstar",
        package: "northstardb",
        durable: "Durability::Durable (the default)",
        notes: "retention: none, but in the rows of history/ the default; the budget counts all of its memory, changes that wait included",
        open: Some(northstar::open),
    },
    Engine {
        name: "lmdb",
        package: "heed",
        durable: "the default: neither MDB_NOSYNC nor MDB_NOMETASYNC",
        notes: "has no cache but the kernel's, which no setting bounds; MDB_NORDAHEAD where the data is four times the \
                memory, which helps gets and hinders scans",
        open: built!("lmdb", lmdb::open),
    },
    Engine {
        name: "redb",
        package: "redb",
        durable: "Durability::Immediate (the default)",
        notes: "one-phase commit, the default",
        open: built!("redb", redb::open),
    },
    Engine {
        name: "rocksdb",
        package: "librocksdb-sys",
        durable: "WriteOptions.sync = true",
        notes: "options of \"Setup Options and Basic Tuning\": block cache, 10-bit Bloom filters, 16 KiB blocks, dynamic level \
                sizes; no compression; memtables come on top of the cache; read-modify-write under a lock of this program",
        open: built!("rocksdb", rocksdb::open),
    },
    Engine {
        name: "fjall",
        package: "fjall",
        durable: "PersistMode::SyncData on each batch: fdatasync, as NorthstarDB",
        notes: "no compression; memtables come on top of the cache; read-modify-write under a lock of this program",
        open: built!("fjall", fjall::open),
    },
    Engine {
        name: "sqlite",
        package: "rusqlite",
        durable: "journal_mode = WAL, synchronous = FULL; built with HAVE_FDATASYNC",
        notes: "a table WITHOUT ROWID; one writing connection under a lock, one reading for each thread, kept; each has half \
                of the cache, since none is shared",
        open: built!("sqlite", sqlite::open),
    },
    Engine {
        name: "canopydb",
        package: "canopydb",
        durable: "use_wal, default_commit_sync = true",
        notes: "exclusive write transactions; changes that wait for a checkpoint come on top of the cache",
        open: built!("canopydb", canopydb::open),
    },
];
