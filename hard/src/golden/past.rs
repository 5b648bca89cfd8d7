//! The golden database with history: runs, filters, large old values, tables that are gone, and states that are read as of a tag.

use std::path::Path;

use northstardb::{Db, Retention, WriteBatch};

use super::{Rows, copy};
use crate::ops::{Fill, value_bytes};
use crate::{During, Failure};

/// Rounds of changes, a checkpoint after each but the last.
const ROUNDS: u32 = 6;
/// Rows, but for what is deleted: enough for filters.
const ROWS: u32 = 300;

fn key(number: u32) -> Vec<u8> {
    match number % 3 {
        // Zeros of keys are packed in history.
        0 => [&number.to_be_bytes()[..], &[0; 3]].concat(),
        1 => format!("key {number:04}").into_bytes(),
        _ => [&[0x80, 0], &number.to_be_bytes()[..]].concat(),
    }
}

fn tag(round: u32) -> Vec<u8> {
    format!("round {round}").into_bytes()
}

/// What round `round` writes to row `number`, if it does.
fn change(round: u32, number: u32) -> Option<Option<Vec<u8>>> {
    let fill = |len, seed| Some(value_bytes(Fill { len, seed }));
    match (round, (number + round) % 7) {
        (0, _) => Some(fill(number % 30, number)),
        (_, 0 | 3) => Some(fill((number * 7 + round * 13) % 40, number + round)),
        (_, 5) => Some(None),
        // An old value in pages of its own.
        (1 | 4, 1) if number.is_multiple_of(50) => Some(fill(5_000 + round, number)),
        _ => None,
    }
}

/// The rows once a round is done.
fn rows(until: u32) -> Rows {
    let now = |number| {
        let changes = (0..=until).rev().find_map(|round| change(round, number));
        Some((key(number), changes??))
    };
    let mut rows: Rows = (0..ROWS).filter_map(now).collect();
    rows.sort();
    rows
}

/// What is in it in the end.
pub(super) fn tables() -> Vec<(String, Rows)> {
    let tail = vec![(b"in the log".to_vec(), b"only".to_vec())];
    vec![
        ("rows".to_owned(), rows(ROUNDS - 1)),
        ("tail".to_owned(), tail),
    ]
}

/// Makes it, as [`super::Content::write`] says.
pub(super) fn write(dir: &Path, to: &Path) -> Result<(), Failure> {
    let options = super::options()
        .page_bytes(4096)
        .log_segment_bytes(64 << 10)
        .history(Retention::All);
    let db = options.open(dir).during("create")?;
    let table = db.table("old name").during("create a table")?;
    let gone = db.table("gone").during("create a table")?;
    for round in 0..ROUNDS {
        let mut batch = WriteBatch::new();
        for number in 0..ROWS {
            match change(round, number) {
                Some(Some(value)) => drop(batch.put(&table, key(number), value)),
                Some(None) => drop(batch.delete(&table, key(number))),
                None => {}
            }
        }
        match round {
            2 => drop(batch.put(&gone, b"was here", b"once")),
            3 => drop(batch.delete_range::<&[u8]>(&gone, ..)),
            _ => {}
        }
        batch.tag(&tag(round));
        db.commit(batch).during("commit")?;
        if round == 3 {
            db.rename_table("old name", "rows")
                .during("rename a table")?;
            db.drop_table("gone").during("drop a table")?;
        }
        if round + 1 < ROUNDS {
            db.checkpoint().during("checkpoint")?;
        }
    }
    let tail = db.table("tail").during("create a table")?;
    let mut batch = WriteBatch::new();
    batch.put(&tail, b"in the log", b"only");
    db.commit(batch).during("commit")?;
    copy(dir, to, None)?;
    db.close().during("close")
}

/// States that are not what they were.
pub(super) fn differences(db: &Db) -> northstardb::Result<Vec<String>> {
    let mut found = Vec::new();
    for round in 0..ROUNDS {
        let Some(read) = db.begin_read_at_tag(tag(round))? else {
            found.push(format!("round {round} is not there"));
            continue;
        };
        let table = read.open_table(if round > 3 { "rows" } else { "old name" })?;
        let seen: Vec<_> = read.range::<&[u8]>(&table, ..)?.collect::<Result<_, _>>()?;
        let expected = rows(round);
        if seen != expected {
            let (seen, expected) = (seen.len(), expected.len());
            found.push(format!(
                "round {round} has {seen} rows, expected {expected}, or they differ"
            ));
        }
        for number in 0..ROWS {
            let (key, value) = (key(number), read.get(&table, key(number))?);
            let place = expected.binary_search_by(|(other, _)| other.cmp(&key));
            let expected = place.ok().and_then(|place| expected.get(place));
            if value.as_deref() != expected.map(|(_, value)| &value[..]) {
                found.push(format!("round {round} has another value of {key:02x?}"));
            }
        }
        let was_there = read.open_table("gone").is_ok();
        if was_there != (round <= 3) {
            found.push(format!(
                "round {round} has the table that is gone: {was_there}"
            ));
        }
    }
    if db.stats()?.history_runs < 2 {
        found.push("there are no runs".to_owned());
    }
    Ok(found)
}
