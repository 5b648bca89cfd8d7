//! Reads of the engine held against a state of the model.

use std::ops::Bound;
use std::sync::Arc;

use crate::exec::{Handles, Pair, Pairs, View};
use crate::model::{Bytes, Edge, State};
use crate::ops::{KeyStyle, key_bytes};
use crate::rng::Rng;
use crate::{During, Failure};

/// Compares the list of tables.
pub(crate) fn compare_names(view: &dyn View, state: &State, what: &str) -> Result<(), Failure> {
    let names = view.names().during("tables")?;
    let expected: Vec<_> = state.tables.keys().cloned().collect();
    if names == expected {
        return Ok(());
    }
    Err(Failure::Broken(format!(
        "{what}: tables are {names:?}, expected {expected:?}"
    )))
}

/// As [`compare_whole`], and every table of the state has a handle: of a present state.
///
/// # Errors
/// The first difference.
#[cfg(feature = "internals")]
pub(crate) fn compare_present(
    view: &dyn View,
    state: &State,
    handles: &Handles,
    what: &str,
) -> Result<u64, Failure> {
    let mut names = state.tables.keys();
    match names.find(|name| !handles.contains_key(*name)) {
        Some(name) => Err(Failure::Broken(format!(
            "{what}: there is no handle of table {name:?}"
        ))),
        None => compare_whole(view, state, handles, what),
    }
}

/// Compares every row of every table that has a handle, forward and backward. Returns how many rows that was.
///
/// # Errors
/// The first difference.
pub(crate) fn compare_whole(
    view: &dyn View,
    state: &State,
    handles: &Handles,
    what: &str,
) -> Result<u64, Failure> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut count = 0;
    for (name, table) in handles {
        let Some(rows) = state.rows(name) else {
            continue;
        };
        let expected: Vec<_> = rows
            .iter()
            .map(|(k, v)| (Arc::clone(k), Arc::clone(v)))
            .collect();
        let (front, _) = view.rows(table, &all.0, &all.1, &[true]).during("range")?;
        same(&front, &expected, || format!("{what}: {name} forward"))?;
        let (_, mut back) = view
            .rows(table, &all.0, &all.1, &[false])
            .during("reverse range")?;
        back.reverse();
        same(&back, &expected, || format!("{what}: {name} backward"))?;
        count += 2 * expected.len() as u64;
    }
    Ok(count)
}

/// Random reads, compared with a state.
pub(crate) struct Compare<'r> {
    /// Chooses the reads.
    pub(crate) rng: &'r mut Rng,
    /// Keys in use.
    pub(crate) keys: u32,
    /// Their bytes.
    pub(crate) style: KeyStyle,
    /// Counts the rows compared.
    pub(crate) rows: &'r mut u64,
}

impl Compare<'_> {
    /// Compares `times` random reads.
    pub(crate) fn sample(
        &mut self,
        view: &dyn View,
        state: &State,
        handles: &Handles,
        times: u64,
        what: &str,
    ) -> Result<(), Failure> {
        if self.rng.chance(20) {
            compare_names(view, state, what)?;
        }
        for _ in 0..times {
            let known: Vec<_> = handles
                .iter()
                .filter(|(name, _)| state.rows(name).is_some())
                .collect();
            if known.is_empty() {
                return Ok(());
            }
            let (name, table) = known[self.rng.index(known.len())];
            let rows = state.rows(name).into_iter().flatten().count();
            let what = || format!("{what}: {name} ({rows} rows)");
            let key = self.key();
            let expected = |key: &[u8]| state.rows(name).and_then(|rows| rows.get(key)).cloned();
            match self.rng.below(8) {
                0 => {
                    let found = view.value(table, &key).during("get")?;
                    same_value(&key, found.as_deref(), expected(&key).as_ref(), || {
                        format!("{} get", what())
                    })?;
                    let (found, contains) = view.value_with(table, &key).during("get_with")?;
                    let there = found.is_some();
                    same_value(&key, found.as_deref(), expected(&key).as_ref(), || {
                        format!("{} get_with", what())
                    })?;
                    if contains != there {
                        return Err(Failure::Broken(format!("{}: contains {contains}", what())));
                    }
                }
                1 => {
                    let keys: Vec<_> = (0..self.rng.below(40)).map(|_| self.key()).collect();
                    let found = view.values(table, &keys).during("multi_get")?;
                    if found.len() != keys.len() {
                        return Err(Failure::Broken(format!("{}: multi_get length", what())));
                    }
                    for (key, found) in keys.iter().zip(found) {
                        same_value(key, found.as_deref(), expected(key).as_ref(), || {
                            format!("{} multi_get", what())
                        })?;
                    }
                }
                2..=4 => {
                    let (from, to) = (self.edge(), self.edge());
                    let expected = state.range(name, &from, &to);
                    let turns = match self.rng.below(3) {
                        0 => vec![true],
                        1 => vec![false],
                        _ => vec![true, false, false, true, true],
                    };
                    let (mut front, back) = view.rows(table, &from, &to, &turns).during("range")?;
                    front.extend(back.into_iter().rev());
                    let range = || format!("{} range {} turns {turns:?}", what(), show(&from, &to));
                    same(&front, &expected, range)?;
                    *self.rows += expected.len() as u64;
                }
                5 => {
                    let (from, to) = (self.edge(), self.edge());
                    let mut expected = state.range(name, &from, &to);
                    let most = 1 + self.rng.index(50);
                    expected.truncate(most);
                    let found = view.scanned(table, &from, &to, most).during("scan")?;
                    same(&found, &expected, || {
                        format!("{} scan {}", what(), show(&from, &to))
                    })?;
                }
                6 => {
                    let prefix = &key[..self.rng.index(key.len() + 1)];
                    let found = view.prefixed(table, prefix).during("prefix")?;
                    let all = state.rows(name).into_iter().flatten();
                    let expected: Vec<_> = all
                        .filter(|(key, _)| key.starts_with(prefix))
                        .map(|(key, value)| (Arc::clone(key), Arc::clone(value)))
                        .collect();
                    same(&found, &expected, || {
                        format!("{} prefix {}", what(), text(prefix))
                    })?;
                }
                _ => {
                    let forward = self.rng.chance(50);
                    let most = 1 + self.rng.index(30);
                    let found = view.walked(table, &key, forward, most).during("cursor")?;
                    let all = || {
                        state
                            .range(name, &Bound::Unbounded, &Bound::Unbounded)
                            .into_iter()
                    };
                    let mut expected: Vec<_> = if forward {
                        all().filter(|(at, _)| **at >= *key).collect()
                    } else {
                        let first = all().find(|(at, _)| **at >= *key);
                        let rest = all().rev().filter(|(at, _)| **at < *key);
                        if first.is_none() {
                            vec![]
                        } else {
                            first.into_iter().chain(rest).collect()
                        }
                    };
                    expected.truncate(most);
                    same(&found, &expected, || {
                        format!("{} cursor {} forward {forward}", what(), text(&key))
                    })?;
                    let (first, last) = view.ends(table).during("first and last")?;
                    let rows = |row: Option<Pair>| row.into_iter().collect::<Pairs>();
                    let want: Vec<_> = all().take(1).collect();
                    same(&rows(first), &want, || format!("{} first", what()))?;
                    let want: Vec<_> = all().rev().take(1).collect();
                    same(&rows(last), &want, || format!("{} last", what()))?;
                }
            }
        }
        Ok(())
    }

    /// Mostly a key that may exist, sometimes a little off.
    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.below(u64::from(self.keys) + 2);
        let mut key = key_bytes(self.style, u32::try_from(number).unwrap_or(0));
        match self.rng.below(10) {
            0 => key.truncate(self.rng.index(key.len())),
            1 if key.len() < 4000 => key.push(0x7f),
            _ => {}
        }
        key
    }

    fn edge(&mut self) -> Edge {
        match self.rng.below(8) {
            0 => Bound::Unbounded,
            1..=4 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }
}

fn same_value(
    key: &[u8],
    found: Option<&[u8]>,
    expected: Option<&Bytes>,
    what: impl Fn() -> String,
) -> Result<(), Failure> {
    let expected = expected.map(AsRef::as_ref);
    if found == expected {
        return Ok(());
    }
    let show = |value: Option<&[u8]>| value.map_or("nothing".to_owned(), text);
    Err(Failure::Broken(format!(
        "{}: key {} has {}, expected {}",
        what(),
        text(key),
        show(found),
        show(expected)
    )))
}

fn same(
    found: &[Pair],
    expected: &[(Bytes, Bytes)],
    what: impl Fn() -> String,
) -> Result<(), Failure> {
    let mut pairs = found.iter().zip(expected).enumerate();
    if let Some((at, (found, expected))) =
        pairs.find(|(_, (found, expected))| found.0 != *expected.0 || found.1 != *expected.1)
    {
        return Err(Failure::Broken(format!(
            "{}: row {at} is {} = {}, expected {} = {}",
            what(),
            text(&found.0),
            text(&found.1),
            text(&expected.0),
            text(&expected.1)
        )));
    }
    if found.len() == expected.len() {
        return Ok(());
    }
    let least = found.len().min(expected.len());
    let next = match (found.get(least), expected.get(least)) {
        (Some((key, _)), _) => format!("unexpected {}", text(key)),
        (_, Some((key, _))) => format!("missing {}", text(key)),
        _ => String::new(),
    };
    Err(Failure::Broken(format!(
        "{}: {} rows, expected {}; {next}",
        what(),
        found.len(),
        expected.len()
    )))
}

fn show(from: &Edge, to: &Edge) -> String {
    let edge = |edge: &Edge| match edge {
        Bound::Included(key) => format!("[{}]", text(key)),
        Bound::Excluded(key) => format!("({})", text(key)),
        Bound::Unbounded => "..".to_owned(),
    };
    format!("{} to {}", edge(from), edge(to))
}

/// Bytes for people: text where it is text, cut after a while.
#[must_use]
pub(crate) fn text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(48)];
    let more = if bytes.len() > 48 {
        format!("..({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("\"{}\"{more}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use northstardb::{Db, WriteBatch};

    /// The comparison itself, shown to see each kind of wrong answer.
    #[test]
    fn a_row_that_is_missing_extra_or_different_is_found() {
        let db = Db::memory().unwrap();
        let table = db.table("t").unwrap();
        let mut batch = WriteBatch::new();
        let mut state = State::default();
        let rows = Arc::make_mut(state.tables.entry("t".to_owned()).or_default());
        for number in 0..20 {
            let key = key_bytes(KeyStyle::Short, number);
            batch.put(&table, &key, b"value");
            rows.insert(key.into(), b"value".as_slice().into());
        }
        db.commit(batch).unwrap();
        let handles = Handles::from([("t".to_owned(), table)]);
        let read = db.begin_read().unwrap();
        let agree = |state: &State| {
            let whole = compare_whole(&read, state, &handles, "whole").is_ok();
            let (mut rng, mut rows) = (Rng::new(1), 0);
            let (rng, rows) = (&mut rng, &mut rows);
            let mut compare = Compare {
                rng,
                keys: 20,
                style: KeyStyle::Short,
                rows,
            };
            let sampled = compare
                .sample(&read, state, &handles, 500, "sample")
                .is_ok();
            (whole, sampled, compare_names(&read, state, "names").is_ok())
        };
        assert_eq!(agree(&state), (true, true, true));
        let key: Bytes = key_bytes(KeyStyle::Short, 11).into();
        let changed = |change: &dyn Fn(&mut crate::model::Rows)| {
            let mut wrong = state.clone();
            wrong
                .tables
                .values_mut()
                .for_each(|rows| change(Arc::make_mut(rows)));
            wrong
        };
        assert_eq!(
            agree(&changed(&|rows| drop(rows.remove(&key)))),
            (false, false, true)
        );
        assert_eq!(
            agree(&changed(&|rows| drop(
                rows.insert(Arc::clone(&key), b"other".as_slice().into())
            ))),
            (false, false, true)
        );
        assert_eq!(
            agree(&changed(&|rows| drop(
                rows.insert(b"zz".as_slice().into(), Arc::clone(&key))
            ))),
            (false, false, true)
        );
        let mut wrong = state.clone();
        wrong.tables.insert("another".to_owned(), Arc::default());
        assert!(!agree(&wrong).2);
    }
}
