//! What was: superseded versions of rows, in sorted runs, so that states before the newest checkpoint can be read.
//!
//! A checkpoint meets every version that it supersedes, in key order, and streams them into a run: an immutable tree of
//! its own in the data file, whose keys are table, key and the transaction that ended the version (`to`), and whose rows'
//! transactions are those that wrote it (`from`). A version is seen from `from` up to but not including `to`.
//!
//! ```text
//! as of T:  deltas at or below T  >  the tree's row, if from <= T  >  the one version with from <= T < to
//! ```
//!
//! Invariants:
//! 1. For every key, the versions of the deltas, the tree and the runs together have intervals that do not overlap, and
//!    that cover every transaction from the horizon on at which the key was there. Two runs may hold the same version:
//!    what was merged right before a crash is merged once more.
//! 2. A version whose `to` is at or below the horizon is wanted by nobody; a run is dropped when all of its versions are.
//! 3. Of one key, a run holds all versions that ended within its span of transactions, or none.
//!
//! - Cost: a version costs its key once more, 8 bytes and a row. Reading at T looks at the runs that end after T, oldest
//!   first, until one has the key; of most that have not, only the filter.
//! - Spec: FF-022, FF-023, FF-026, SE-017.

mod all;
mod build;
mod cursor;
pub(crate) mod filter;
mod find;
mod keeper;
mod key;
mod run;
mod seen;

pub(crate) use all::{rows, versions};
pub(crate) use build::{BuiltRun, RunBuilder};
pub(crate) use cursor::PastCursor;
pub(crate) use find::{Past, find};
pub(crate) use keeper::Keeper;
pub(crate) use key::{split as split_key, table_of, unpack};
pub(crate) use run::{History, Run, check_row, load};
