//! Golden databases: bytes that every later version must still open, with what is in them.
//!
//! They are copied while open, after a checkpoint and a few more commits, so that both the data file and a log tail
//! count. Zero bytes at the end of a file are left out of the copy and put back by [`restore`].
//!
//! - [`damage`]: what each kind of damage to them must be answered with.
//! - `kinds`: the one that holds every kind of structure; `past`: the one with history.

pub mod damage;
mod kinds;
mod past;

use std::path::Path;

use northstardb::{Backend, Db, Options, WriteBatch};

use crate::ops::{Fill, KeyStyle, key_bytes, value_bytes};
use crate::{During, Failure};

/// A set of golden files.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Its directory below `golden`.
    pub name: &'static str,
    /// Bytes of its log segments; a restored one is filled up to them.
    pub segment_bytes: u64,
    /// What is in it.
    pub content: Content,
}

/// Keys and values of a table, in order of keys.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// What is in a golden database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A few tables with rows of many lengths.
    Rows,
    /// Small pages and segments, and every kind of structure: trees of three levels, many tables, extents, free pages, a
    /// log of several segments with every operation in it.
    Kinds,
    /// Small pages, and history: runs with filters, and states of the past.
    Past,
}

/// Every set, oldest first. Sets are added, never rewritten.
pub const SETS: [Set; 4] = [
    // Meta pages say nothing of segments.
    Set {
        name: "v0",
        segment_bytes: 16 << 20,
        content: Content::Rows,
    },
    // They say how large segments are, under feature bit 0.
    Set {
        name: "v0_segments",
        segment_bytes: 4 << 20,
        content: Content::Rows,
    },
    Set {
        name: "v0_kinds",
        segment_bytes: 64 << 10,
        content: Content::Kinds,
    },
    Set {
        name: "v0_past",
        segment_bytes: 64 << 10,
        content: Content::Past,
    },
];

/// The options of the golden database.
pub fn options() -> Options {
    Options::new()
        .backend(Backend::Plain)
        .memory_budget(16 << 20)
        .delta_bytes(2 << 20)
        .idle_after(std::time::Duration::from_secs(3600))
}

/// The rows of a table of [`Content::Rows`], in key order.
fn rows(name: &str) -> Rows {
    let fill = |len, seed| value_bytes(Fill { len, seed });
    let mut rows: Rows = match name {
        "small" => (0..200)
            .map(|n| (key_bytes(KeyStyle::LongPrefix, n), fill(n % 90, n)))
            .collect(),
        "mixed" => (0..60)
            .map(|n| (key_bytes(KeyStyle::Mixed, n), fill(n * 11, n)))
            .collect(),
        "large" => [0, 1, 4096, 20_000, 100_000]
            .iter()
            .map(|&len| (format!("len {len:06}").into_bytes(), fill(len, len)))
            .collect(),
        // Written after the checkpoint: in the log only.
        "tail" => (0..10)
            .map(|n| (format!("{n}").into_bytes(), fill(30, n)))
            .collect(),
        _ => Vec::new(),
    };
    rows.sort();
    rows
}

/// The tables of [`Content::Rows`].
const TABLES: [&str; 4] = ["large", "mixed", "small", "tail"];

impl Content {
    /// Every table and its rows, in order of names and keys.
    #[must_use]
    pub fn tables(self) -> Vec<(String, Rows)> {
        match self {
            Self::Rows => TABLES.map(|name| (name.to_owned(), rows(name))).into(),
            Self::Kinds => kinds::tables(),
            Self::Past => past::tables(),
        }
    }

    /// Makes the golden database in `dir` and copies it to `to` while it is open.
    ///
    /// # Errors
    /// When the engine or the file system fails.
    pub fn write(self, dir: &Path, to: &Path) -> Result<(), Failure> {
        match self {
            Self::Rows => write_rows(dir, to),
            Self::Kinds => kinds::write(dir, to),
            Self::Past => past::write(dir, to),
        }
    }
}

fn write_rows(dir: &Path, to: &Path) -> Result<(), Failure> {
    let db = options().open(dir).during("create")?;
    for name in ["small", "mixed", "large", "dropped", "old name"] {
        let table = db.table(name).during("create a table")?;
        let mut batch = WriteBatch::new();
        for (key, value) in rows(if name == "dropped" { "small" } else { name }) {
            batch.put(&table, key, value);
        }
        batch.put(&table, b"gone", b"deleted below");
        batch.tag(b"golden");
        db.commit(batch).during("commit")?;
    }
    db.checkpoint().during("checkpoint")?;
    db.drop_table("dropped").during("drop a table")?;
    db.rename_table("old name", "tail")
        .during("rename a table")?;
    for name in TABLES {
        let table = db.open_table(name).during("open a table")?;
        let mut batch = WriteBatch::new();
        batch.delete_range(&table, b"gone".to_vec()..=b"gone".to_vec());
        if name == "tail" {
            for (key, value) in rows(name) {
                batch.put(&table, key, value);
            }
        }
        db.commit(batch).during("commit")?;
    }
    copy(dir, to, None)?;
    db.close().during("close")
}

/// Copies the golden files of `set` from `from` to `dir`, at their full size.
///
/// # Errors
/// When the file system fails.
pub fn restore(from: &Path, set: Set, dir: &Path) -> Result<(), Failure> {
    copy(from, dir, Some(set.segment_bytes))
}

/// Without a size, leaves the zeros at the end of segments out; else fills segments up to it.
fn copy(from: &Path, to: &Path, fill: Option<u64>) -> Result<(), Failure> {
    std::fs::create_dir_all(to).during("make a directory")?;
    let mut entries: Vec<_> = std::fs::read_dir(from)
        .during("list a directory")?
        .collect::<Result<_, _>>()
        .during("list")?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target, fill)?;
            continue;
        }
        if entry.file_name() == "LOCK" {
            continue;
        }
        let mut bytes = match std::fs::read(&path) {
            // A log segment that is being made ready changes its name.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes.during("read a file")?,
        };
        let segment = path.extension().is_some_and(|extension| extension == "seg");
        if fill.is_none() && segment {
            let used = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1);
            bytes.truncate(used.next_multiple_of(4096));
        }
        std::fs::write(&target, bytes).during("write a file")?;
        if let Some(segment_bytes) = fill.filter(|_| segment) {
            let file = std::fs::File::options()
                .write(true)
                .open(&target)
                .during("open a file")?;
            file.set_len(segment_bytes).during("set a length")?;
        }
    }
    Ok(())
}

/// Compares an open database with what the golden one holds. Returns the differences, none when it is whole.
///
/// # Errors
/// When the engine fails: that is for the caller to expect or not.
pub fn differences(db: &Db, content: Content) -> northstardb::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut names = db.tables()?;
    names.sort();
    let expected = content.tables();
    if !names.iter().eq(expected.iter().map(|(name, _)| name)) {
        found.push(format!("tables are {names:?}"));
    }
    let read = db.begin_read()?;
    for (name, rows) in expected {
        let table = db.open_table(&name)?;
        let rows_found: Vec<_> = read.range::<&[u8]>(&table, ..)?.collect::<Result<_, _>>()?;
        if rows_found != rows {
            let (found_len, len) = (rows_found.len(), rows.len());
            found.push(format!(
                "table {name} has {found_len} rows, expected {len}, or they differ"
            ));
        }
    }
    if content == Content::Past {
        found.extend(past::differences(db)?);
    }
    Ok(found)
}
