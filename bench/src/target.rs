//! The engine as the bench sees it: its public API and nothing else.

pub(crate) use northstardb::{
    Db, Durability, Error, LogFilter, Options, ReadTxn, Retention, Stats, Table, TxnId, WriteBatch,
};
