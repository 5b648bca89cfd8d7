//! Reading back what was imported.

use std::io::Write;

use northstardb::{ReadTxn, Table};
use serde_json::json;

use crate::path::{content, shown, with};
use crate::{During, Failure};

/// What a scan shows.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Paths start with this.
    pub(crate) prefix: &'a [u8],
    /// Last path first.
    pub(crate) reverse: bool,
    /// At most so many.
    pub(crate) limit: usize,
}

/// Prints the content of one path: its bytes, or one JSON object.
pub(crate) fn get(
    read: &ReadTxn,
    table: &Table,
    path: &[u8],
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let value = read
        .get(table, path)
        .during(|| format!("cannot read \"{}\"", shown(path)))?
        .ok_or_else(|| {
            Failure::Found(format!(
                "\"{}\" is not in the table {:?} as of {:?}",
                shown(path),
                table.name(),
                read.txn_id()
            ))
        })?;
    if json {
        let content = content(&value);
        let row = json!({ "bytes": value.len(), "txn": read.txn_id().get(), "content": content });
        writeln!(out, "{}", with("path", path, row))?;
    } else {
        out.write_all(&value)?;
    }
    Ok(())
}

/// Prints one line a path: its length and its name.
pub(crate) fn scan(
    read: &ReadTxn,
    table: &Table,
    wanted: &Wanted<'_>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let range = read
        .prefix(table, wanted.prefix)
        .during(|| "cannot scan".to_owned())?;
    let mut rows: Box<dyn Iterator<Item = _>> = if wanted.reverse {
        Box::new(range.rev())
    } else {
        Box::new(range)
    };
    for row in rows.by_ref().take(wanted.limit) {
        let (path, value) = row.during(|| "cannot go on scanning".to_owned())?;
        if json {
            let row = with("path", &path, json!({ "bytes": value.len() }));
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{:>10}  {}", value.len(), shown(&path))?;
        }
    }
    Ok(())
}
