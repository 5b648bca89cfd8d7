//! txn.
