//! NorthstarDB: an embedded, transactional key-value engine.

mod ids;
mod limits;

mod cache;
mod checkpoint;
mod delta;
mod format;
mod log;
mod pages;
mod recovery;
mod tree;
mod txn;
mod writer;

pub use ids::{Lsn, TxnId};
