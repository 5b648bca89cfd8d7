//! States of the past: which one is meant, what happened to a path, what differs.

use std::cmp::Ordering;
use std::io::Write;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::SystemTime;

use jiff::Timestamp;
use northstardb::{Db, ReadTxn, Row, TxnId, Version};
use serde_json::json;

use crate::path::{content, shown, with};
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
    path: &[u8],
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let handle = db
        .open_table(table)
        .during(|| format!("cannot open the table {table:?}"))?;
    let versions = db
        .history(&handle, path, ..)
        .during(|| format!("cannot list the versions of \"{}\"", shown(path)))?;
    if versions.is_empty() {
        return Err(Failure::Found(format!(
            "\"{}\" was never in the table {table:?}, as far as history goes back",
            shown(path)
        )));
    }
    for version in &versions {
        let Version {
            txn, value, tag, ..
        } = version;
        let bytes = value.as_ref().map(Vec::len);
        let time = version.time.and_then(to_the_millisecond);
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

/// History tells times to the millisecond; what is below that says nothing, and is not shown.
fn to_the_millisecond(time: SystemTime) -> Option<Timestamp> {
    let time = Timestamp::try_from(time).ok()?;
    Timestamp::from_millisecond(time.as_millisecond()).ok()
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
    if before.txn_id() > after.txn_id() {
        let (before, after) = (before.txn_id(), after.txn_id());
        return Err(Failure::Use(format!(
            "the first of two states is the earlier one: {before} is later than {after}"
        )));
    }
    let failed = || format!("cannot compare {} and {}", before.txn_id(), after.txn_id());
    let mut show = |path: &[u8], before: Option<usize>, after: Option<usize>| {
        if json {
            let row = json!({ "bytes_before": before, "bytes_after": after });
            return writeln!(out, "{}", with("path", path, row));
        }
        let path = shown(path);
        match (before, after) {
            (None, Some(after)) => writeln!(out, "+ {path} ({after} bytes)"),
            (Some(before), None) => writeln!(out, "- {path} ({before} bytes)"),
            (before, after) => {
                let (before, after) = (before.unwrap_or(0), after.unwrap_or(0));
                writeln!(out, "~ {path} ({before} to {after} bytes)")
            }
        }
    };
    let handle = |read: &ReadTxn| match read.open_table(table) {
        Err(northstardb::Error::UnknownTable { .. }) => Ok(None),
        other => other
            .map(Some)
            .during(|| format!("cannot open the table {table:?}")),
    };
    let handle = match (handle(&before)?, handle(&after)?) {
        (None, None) => {
            return Err(Failure::Found(format!(
                "there is no table {table:?} in {} and none in {}",
                before.txn_id(),
                after.txn_id()
            )));
        }
        (Some(one), Some(other)) if one.id() == other.id() => other,
        // Made or dropped in between, or both: other tables, of one name.
        (one, other) => {
            let one = one.map(|table| before.iter(&table)).transpose();
            let other = other.map(|table| after.iter(&table)).transpose();
            let rows = (one.during(failed)?, other.during(failed)?);
            let (one, other) = (rows.0.into_iter().flatten(), rows.1.into_iter().flatten());
            return compare(one, other, failed, show);
        }
    };
    let mut written = Ok(());
    db.diff(&handle, before.txn_id(), after.txn_id(), |difference| {
        let len = |value: &Option<northstardb::Value<'_>>| value.as_ref().map(|value| value.len());
        written = show(
            difference.key,
            len(&difference.before),
            len(&difference.after),
        );
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
    .during(failed)?;
    Ok(written?)
}

/// Shows the paths whose content differs between two lists in the order of their paths.
fn compare(
    before: impl Iterator<Item = northstardb::Result<Row>>,
    after: impl Iterator<Item = northstardb::Result<Row>>,
    failed: impl Fn() -> String,
    mut show: impl FnMut(&[u8], Option<usize>, Option<usize>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let (mut before, mut after) = (before.peekable(), after.peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return Ok(()),
            (Some(Ok((one, _))), Some(Ok((other, _)))) => one.cmp(other),
            (_, None) | (Some(Err(_)), _) => Ordering::Less,
            (None, _) | (_, Some(Err(_))) => Ordering::Greater,
        };
        let one = match order {
            Ordering::Less | Ordering::Equal => before.next().transpose().during(&failed)?,
            Ordering::Greater => None,
        };
        let other = match order {
            Ordering::Greater | Ordering::Equal => after.next().transpose().during(&failed)?,
            Ordering::Less => None,
        };
        let len = |row: &Option<Row>| row.as_ref().map(|(_, content)| content.len());
        let path = one.as_ref().or(other.as_ref()).map(|(path, _)| path);
        if let Some(path) = path
            && one != other
        {
            show(path, len(&one), len(&other))?;
        }
    }
}
