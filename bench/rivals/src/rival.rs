//! What is asked of an engine: the smallest surface that every row can be measured through.
//!
//! Equal promises are the condition of every figure: a commit returns once it is on stable storage, a transaction happens
//! whole or not at all, reading happens in a snapshot. Spec: BV-001.

use std::path::Path;

use crate::error::Result;
use crate::generator::Key;

/// How an engine is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Bytes for the engine's cache.
    pub(crate) cache_bytes: u64,
    /// The data is four times this many bytes of memory, all uses together. Spec: BV-003.
    pub(crate) memory_bytes: Option<u64>,
    /// NorthstarDB keeps what it keeps of the past by default, rather than nothing.
    pub(crate) history: bool,
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    /// Of which row.
    pub(crate) key: Key,
    /// The new value, or none to delete.
    pub(crate) value: Option<Box<[u8]>>,
}

/// An engine, open on a directory of its own with one table.
pub(crate) trait Rival: Send + Sync {
    /// A handle for one thread.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Waits for background work that commits have caused, and merges what waits to be merged.
    fn settle(&self) -> Result<()>;

    /// Closes as its documentation says.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What one thread does with an engine.
pub(crate) trait Session {
    /// One durable transaction of rows in key order, in the way the engine has for that. `next` gives the key and puts the
    /// value into the buffer.
    fn load(&mut self, next: &mut Source<'_>) -> Result<()>;

    /// One durable transaction.
    fn commit(&mut self, ops: &[Op]) -> Result<()>;

    /// One durable transaction that replaces the value of `key` by what `change` makes of it; nobody writes that key in
    /// between.
    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()>;

    /// Calls `work` with a snapshot.
    fn read(&mut self, work: &mut Work<'_>) -> Result<()>;
}

/// Gives row after row: the key, and the value into the buffer.
pub(crate) type Source<'a> = dyn FnMut(&mut Vec<u8>) -> Option<Key> + 'a;
/// Makes a new value of the old one.
pub(crate) type Change<'a> = dyn FnMut(Option<&[u8]>) -> Result<Box<[u8]>> + 'a;
/// Reads in a snapshot.
pub(crate) type Work<'a> = dyn FnMut(&mut dyn Snapshot) -> Result<()> + 'a;
/// Sees the value of the key with this index.
pub(crate) type Seen<'a> = dyn FnMut(usize, Option<&[u8]>) + 'a;
/// Sees a row and says whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// One consistent state.
pub(crate) trait Snapshot {
    /// Shows the value of `key`.
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()>;

    /// Shows the values of all keys, in whatever order. An engine without a way of its own gets one after the other.
    fn multi_get(&mut self, keys: &[Key], seen: &mut Seen<'_>) -> Result<()> {
        for (index, key) in keys.iter().enumerate() {
            self.get(key, &mut |value| seen(index, value))?;
        }
        Ok(())
    }

    /// Shows rows in key order, from the first at or behind `from`, until `visit` says no.
    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()>;
}

/// Opens or creates a database in a directory.
pub(crate) type Open = fn(&Path, &Setup) -> Result<Box<dyn Rival>>;

/// An engine as the comparison knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine {
    /// Its name on the command line and in results; also the cargo feature that builds it.
    pub(crate) name: &'static str,
    /// The package it comes from, whose version is printed.
    pub(crate) package: &'static str,
    /// What makes its commits durable, in the words of its documentation.
    pub(crate) durable: &'static str,
    /// What else a reader of its figures must know.
    pub(crate) notes: &'static str,
    /// How it is opened; `None` if it was not built.
    pub(crate) open: Option<Open>,
}

impl Engine {
    /// The package and its version, from the lock file.
    pub(crate) fn version(&self) -> String {
        let name = format!("name = \"{}\"", self.package);
        let lock = include_str!("../Cargo.lock");
        let version = lock
            .split("[[package]]")
            .find(|package| package.lines().any(|line| line == name))
            .and_then(|package| package.split("version = \"").nth(1)?.split('"').next());
        format!("{} {}", self.package, version.unwrap_or("unknown"))
    }
}
