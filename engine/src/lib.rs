//! NorthstarDB: an embedded, transactional key-value engine tuned for NVMe.
//!
//! ```
//! # fn main() -> northstardb::Result<()> {
//! use northstardb::{Db, WriteBatch};
//!
//! # let dir = tempfile::tempdir().expect("a directory");
//! # let path = dir.path().join("db");
//! let db = Db::open(&path)?;
//! let fruit = db.table("fruit")?;
//!
//! let mut batch = WriteBatch::new();
//! batch.put(&fruit, "apple", "red").put(&fruit, "banana", "yellow");
//! let commit = db.commit(batch)?; // on stable storage when this returns
//!
//! let snapshot = db.begin_read()?; // one consistent state, never waits
//! assert_eq!(snapshot.txn_id(), commit.txn_id);
//! for row in snapshot.range(&fruit, "a".."b")? {
//!     let (key, value) = row?;
//!     assert_eq!((&key[..], &value[..]), (&b"apple"[..], &b"red"[..]));
//! }
//! # drop(snapshot);
//! db.close()?;
//! # Ok(()) }
//! ```
//!
//! What is promised, and what is not: `spec/semantics_v0.md`, `spec/correctness_contracts_v0.md`.
//! How it works: `ARCHITECTURE.md`.

mod clock;
mod error;
mod ids;
mod limits;
mod marks;
mod prefetch;
mod retention;
mod state;
mod stats;
mod sync;

mod cache;
mod checkpoint;
mod db;
mod delta;
mod format;
mod history;
mod log;
mod pages;
mod recovery;
mod tree;
mod txn;
mod writer;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;

/// Whether this engine was built to be looked into by its hardening runs, which makes it slower.
#[doc(hidden)]
pub const INSTRUMENTED: bool = cfg!(feature = "internals");

pub use db::Db;
pub use db::apply::Apply;
pub use db::backup::Backup;
pub use db::batch::WriteBatch;
pub use db::changes::{Difference, Version};
pub use db::log::{Change, Log, LogFilter, Tail, Transaction};
pub use db::log_reader::LogReader;
pub use db::options::{Backend, Options};
pub use db::range::{Range, Row};
pub use db::read::{Cursor, ReadTxn, Value};
pub use db::restore::Restore;
pub use db::subscribers::{Subscriber, SubscriberState};
pub use db::verify::{LogHole, LogReport, LogTail};
pub use db::write::{Savepoint, WriteTxn};
pub use error::{Corruption, Error, Result};
pub use ids::{Lsn, TxnId};
pub use northstar_io::IoError;
pub use retention::Retention;
pub use state::StateHash;
pub use stats::{CheckReport, Stats};
pub use txn::holder::Holder;
pub use txn::table::{Table, TableOptions};
pub use writer::pipeline::Durability;
pub use writer::wait::{Commit, CommitHandle};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
