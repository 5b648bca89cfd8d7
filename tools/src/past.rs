//! States of the past: which one is meant, what happened to a path, what differs.

use std::io::Write;
use std::ops::ControlFlow;
use std::str::FromStr;

use jiff::Timestamp;
use northstardb::{Db, ReadTxn, TxnId, Version};
use serde_json::json;

use crate::read::content;
use crate::{During, Failure};

/// A state, as the command line names it.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// After a transaction.
    Txn(u64),
    /// At a moment.
    Time(Timestamp),
    /// After the last transaction with a tag.
    Tag(String),
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(tag) = text.strip_prefix("tag:") {
            return Ok(Self::Tag(tag.to_owned()));
        }
        if let Ok(txn) = text.parse() {
            return Ok(Self::Txn(txn));
        }
        text.parse().map(Self::Time).map_err(|_| {
            format!(
                "{text:?} is no transaction, no moment as in 2026-01-31T12:00:00Z, and no tag:NAME"
            )
        })
    }
}

impl State {
    /// Begins reading it.
    pub(crate) fn open(&self, db: &Db) -> Result<ReadTxn, Failure> {
        match self {
            Self::Txn(txn) => db
                .begin_read_at(TxnId::new(*txn))
                .during(|| format!("cannot read as of transaction {txn}")),
            Self::Time(moment) => db
                .begin_read_at_time((*moment).into())
                .during(|| format!("cannot read as of {moment}")),
            Self::Tag(tag) => db
                .begin_read_at_tag(tag)
                .during(|| format!("cannot read as of the tag {tag:?}"))?
                .ok_or_else(|| {
                    Failure::Found(format!(
                        "no transaction that can be read has the tag {tag:?}"
                    ))
                }),
        }
    }
}

/// Prints every version of a path, oldest first.
pub(crate) fn history(
    db: &Db,
    table: &str,
    path: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let handle = db
        .open_table(table)
        .during(|| format!("cannot open the table {table:?}"))?;
    let versions = db
        .history(&handle, path, ..)
        .during(|| format!("cannot list the versions of {path:?}"))?;
    if versions.is_empty() {
        return Err(Failure::Found(format!(
            "{path:?} was never in the table {table:?}, as far as history goes back"
        )));
    }
    for version in &versions {
        let Version {
            txn, value, tag, ..
        } = version;
        let bytes = value.as_ref().map(Vec::len);
        let time = version.time.and_then(|time| Timestamp::try_from(time).ok());
        let time = time.map(|time| time.to_string());
        if json {
            let tag = tag.as_deref().map(content);
            let line = json!({
                "txn": txn.get(), "time": time, "tag": tag, "bytes": bytes, "deleted": value.is_none(),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let what = bytes.map_or_else(|| "deleted".to_owned(), |bytes| format!("{bytes} bytes"));
        let time = time.unwrap_or_else(|| "at an unknown time".to_owned());
        let tag = tag.as_ref().map_or_else(String::new, |tag| {
            format!("  tag \"{}\"", tag.escape_ascii())
        });
        writeln!(out, "{txn}  {time}  {what}{tag}")?;
    }
    Ok(())
}

/// Prints the paths whose content differs between two states.
pub(crate) fn diff(
    db: &Db,
    table: &str,
    (before, after): (&State, &State),
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (before, after) = (before.open(db)?, after.open(db)?);
    let handle = after
        .open_table(table)
        .during(|| format!("cannot open the table {table:?}"))?;
    let mut written = Ok(());
    db.diff(&handle, before.txn_id(), after.txn_id(), |difference| {
        let len = |value: &Option<northstardb::Value<'_>>| value.as_ref().map(|value| value.len());
        let (before, after) = (len(&difference.before), len(&difference.after));
        let path = String::from_utf8_lossy(difference.key);
        written = if json {
            let line = json!({ "path": path, "bytes_before": before, "bytes_after": after });
            writeln!(out, "{line}")
        } else {
            match (before, after) {
                (None, Some(after)) => writeln!(out, "+ {path} ({after} bytes)"),
                (Some(before), None) => writeln!(out, "- {path} ({before} bytes)"),
                (before, after) => {
                    let (before, after) = (before.unwrap_or(0), after.unwrap_or(0));
                    writeln!(out, "~ {path} ({before} to {after} bytes)")
                }
            }
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
    .during(|| format!("cannot compare {} and {}", before.txn_id(), after.txn_id()))?;
    Ok(written?)
}
