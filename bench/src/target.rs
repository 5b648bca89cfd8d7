//! The engine as the bench sees it: its public API and nothing else.

pub(crate) use northstardb::{
    Db, Durability, Error, Options, ReadTxn, Retention, Stats, Table, TxnId, WriteBatch,
};
