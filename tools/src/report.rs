//! What a database says about itself.

use std::io::Write;

use northstardb::Db;
use serde_json::{Value, json};

use crate::path::shown;
use crate::{During, Failure};

/// Prints the figures of `Db::stats`.
pub(crate) fn stat(db: &Db, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let stats = db.stats().during(|| "cannot count".to_owned())?;
    let tables = db.tables().during(|| "cannot list the tables".to_owned())?;
    let read = db.begin_read().during(|| "cannot read".to_owned())?;
    let mut sizes = serde_json::Map::new();
    for name in tables {
        let table = db
            .open_table(&name)
            .during(|| format!("cannot open the table {name:?}"))?;
        let rows = read
            .len_estimate(&table)
            .during(|| format!("cannot size the table {name:?}"))?;
        sizes.insert(name, rows.into());
    }
    let figures = json!({
        "txn": read.txn_id().get(),
        "horizon_txn": stats.horizon_txn.get(),
        "generation": stats.generation,
        "rows_estimated": sizes,
        "data_file_bytes": stats.data_file_bytes,
        "page_bytes": stats.page_bytes,
        "free_pages": stats.free_pages,
        "log_tail_bytes": stats.log_tail_bytes,
        "delta_bytes": stats.delta_bytes,
        "memory_budget": stats.memory_budget,
        "replayed_records": stats.replayed_records,
        "page_reads": stats.page_reads,
        "bytes_read": stats.bytes_read,
        "backend": stats.backend,
        "direct": stats.direct,
        "sync_method": stats.sync_method,
        "warnings": stats.warnings,
    });
    print(&figures, json, out)
}

/// Checks the whole database and prints what was found.
pub(crate) fn check(db: &Db, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let report = db.check().during(|| "cannot check".to_owned())?;
    let figures = json!({
        "branches": report.branches,
        "leaves": report.leaves,
        "overflow_pages": report.overflow_pages,
        "free_pages": report.free_pages,
        "meta_copies": report.meta_copies,
        "tables": report.tables,
        "rows": report.rows,
        "versions": report.versions,
        "faults": report.faults,
    });
    let printed = print(&figures, json, out);
    // Also where nobody reads to the end.
    match report.faults.len() {
        0 => printed,
        count => Err(Failure::Found(format!("{count} faults were found"))),
    }
}

/// One object as JSON, or as lines of name and value.
pub(crate) fn print(figures: &Value, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        writeln!(out, "{figures}")?;
        return Ok(());
    }
    for (name, value) in figures.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) if list.is_empty() => writeln!(out, "{name:<24}none")?,
            Value::Array(list) => {
                for item in list {
                    writeln!(out, "{name:<24}{}", plain(item))?;
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    writeln!(out, "{name:<24}{}: {}", shown(key.as_bytes()), plain(item))?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                writeln!(out, "{name:<24}{}", plain(value))?;
            }
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    let text = value.as_str();
    text.map_or_else(|| value.to_string(), |text| shown(text.as_bytes()))
}
