//! Reading back what was imported.

use std::io::Write;

use northstardb::{ReadTxn, Table};
use serde_json::{Value, json};

use crate::{During, Failure};

/// What a scan shows.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Paths start with this.
    pub(crate) prefix: &'a str,
    /// Last path first.
    pub(crate) reverse: bool,
    /// At most so many.
    pub(crate) limit: usize,
}

/// Prints the content of one path: its bytes, or one JSON object.
pub(crate) fn get(
    read: &ReadTxn,
    table: &Table,
    path: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let value = read
        .get(table, path)
        .during(|| format!("cannot read {path:?}"))?
        .ok_or_else(|| {
            Failure::Found(format!(
                "{path:?} is not in the table {:?} as of {:?}",
                table.name(),
                read.txn_id()
            ))
        })?;
    if json {
        let content = content(&value);
        let row = json!({ "path": path, "bytes": value.len(), "txn": read.txn_id().get(), "content": content });
        writeln!(out, "{row}")?;
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
            let row = with_path(&path, json!({ "bytes": value.len() }));
            writeln!(out, "{row}")?;
        } else {
            let path = String::from_utf8_lossy(&path);
            writeln!(out, "{:>10}  {path}", value.len())?;
        }
    }
    Ok(())
}

/// Adds the path to a JSON object: as text, or as `path_hex` where it is none.
pub(crate) fn with_path(path: &[u8], mut row: Value) -> Value {
    if let Some(fields) = row.as_object_mut() {
        match std::str::from_utf8(path) {
            Ok(text) => fields.insert("path".to_owned(), text.into()),
            Err(_) => fields.insert("path_hex".to_owned(), hex(path).into()),
        };
    }
    row
}

/// Bytes in JSON: text where they are text.
pub(crate) fn content(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
