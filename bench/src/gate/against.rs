//! Another build of this program and this one, run in turn, so that what the machine does meets both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::decision::{Decision, Ends, Judged, decide};
use super::{Results, comparable};
use crate::cli::{Ended, SelectArgs, say};
use crate::compare::Thresholds;
use crate::error::{BenchError, Result};
use crate::results::Record;
use crate::row::{Row, is_critical};
use crate::suites;
use crate::summary::{RowEnd, Summary};

/// What is asked of both builds.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Which rows.
    pub(crate) select: &'a SelectArgs,
    /// Further words for their command lines.
    pub(crate) words: &'a [String],
    /// Runs of each build and row.
    pub(crate) repeats: u32,
    /// Where results and databases go.
    pub(crate) scratch: &'a Path,
}

/// One of the two.
struct Side {
    word: &'static str,
    program: PathBuf,
}

/// Runs rows of another build and of this one in turn, and holds them against each other.
pub(crate) fn against_build(other: &Path, asked: &Asked<'_>, limits: &Thresholds) -> Result<Ended> {
    let other = (other.canonicalize())
        .map_err(|error| BenchError::BadUse(format!("{}: {error}", other.display())))?;
    let here = std::env::current_exe().map_err(BenchError::file(Path::new("nsbench")))?;
    let sides = [
        Side {
            word: "before",
            program: other.clone(),
        },
        Side {
            word: "after",
            program: here,
        },
    ];
    let (rows, mut faults) = rows_of_both(asked.select, &names(&other)?)?;
    let mut ends = Ends::new();
    for row in &rows {
        for repeat in 0..asked.repeats {
            let mut turn = sides.each_ref();
            if in_other_order(repeat) {
                turn.reverse();
            }
            for side in turn {
                one_run(side, row, asked, repeat)?;
            }
        }
        let mut said = format!("{} runs of each build", asked.repeats);
        for side in &sides {
            if let Some((end, why)) = ended(asked, side, row) {
                let word = if end == RowEnd::Failed {
                    "failed"
                } else {
                    "skipped"
                };
                said = format!("{word} {}: {why}", side.word);
                match (side.word, end) {
                    ("before", RowEnd::Failed) => faults.push(format!("{} {said}", row.name)),
                    _ => drop(ends.insert(row.name.to_owned(), (end, why))),
                }
            }
        }
        say(&format!("{}: {said}\n", row.short()));
    }
    let [before, after] = sides.each_ref().map(|side| read(asked, side));
    let (before, after) = (before?, after?);
    if let Some(other) = comparable::check(&before, &after)? {
        say(&format!("{other}\n"));
    }
    let (old, new) = (comparable::commits(&before), comparable::commits(&after));
    say(&format!("\nbefore is of {old}; after is of {new}\n\n"));
    let decision: Decision = decide(&before, &after, &ends, faults, Judged::All, limits);
    Ok(decision.tell())
}

/// Whether the second of two sides goes first: every other time, so that what drifts meets both alike.
pub(crate) const fn in_other_order(repeat: u32) -> bool {
    repeat % 2 == 1
}

/// The rows that both builds have, of those that are meant; says which only one has, and what of that is a fault.
fn rows_of_both(select: &SelectArgs, other: &[String]) -> Result<(Vec<Row>, Vec<String>)> {
    let mine = suites::all();
    let union: BTreeSet<&str> = (mine.iter().map(|row| row.name))
        .chain(other.iter().map(String::as_str))
        .collect();
    let meant = select.choose(&union);
    let mut faults = Vec::new();
    for name in meant
        .iter()
        .filter(|name| mine.iter().all(|row| row.name != **name))
    {
        let text = format!("{name}: this build has no such row");
        match is_critical(name) {
            true => faults.push(text),
            false => say(&format!("{text}\n")),
        }
    }
    let known = |row: &Row| other.iter().any(|name| name == row.name);
    let run = match meant
        .iter()
        .any(|name| mine.iter().any(|row| row.name == *name))
    {
        true => select.rows_to_run()?,
        false if faults.is_empty() => return Err(select.no_row()),
        false => Vec::new(),
    };
    let (both, new): (Vec<Row>, Vec<Row>) = run.into_iter().partition(known);
    for row in &new {
        say(&format!(
            "{}: the other build has no such row\n",
            row.short()
        ));
    }
    Ok((both, faults))
}

/// Names of another build's rows.
fn names(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program)
        .arg("list")
        .env_remove("NSBENCH_FILTER")
        .env_remove("NSBENCH_SUITE")
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::file(program))?;
    if !output.status.success() {
        let why = format!("`list` ended with {}", output.status);
        return Err(BenchError::file(program)(std::io::Error::other(why)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text
        .split_whitespace()
        .filter(|word| word.starts_with("bench/"));
    Ok(names.map(str::to_owned).collect())
}

/// Where one run of one row leaves its results.
fn place(asked: &Asked<'_>, side: &Side, row: &str, repeat: u32) -> PathBuf {
    let row = row.replace('/', "-");
    asked
        .scratch
        .join(side.word)
        .join(row)
        .join(repeat.to_string())
}

fn one_run(side: &Side, row: &Row, asked: &Asked<'_>, repeat: u32) -> Result<()> {
    let program = &side.program;
    let mut command = Command::new(program);
    command
        .arg("run")
        .args(["--filter", row.name, "--repeats", "1", "--json"])
        .arg(place(asked, side, row.name, repeat))
        .args(asked.words)
        // They would narrow what runs, or change how often.
        .env_remove("NSBENCH_SUITE")
        .env_remove("NSBENCH_REPEATS")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if std::env::var_os("NSBENCH_DIR").is_none() {
        command.arg("--dir").arg(asked.scratch.join("databases"));
    }
    let run = command.status().map_err(BenchError::file(program))?;
    match run.code() {
        // 1 says that a row failed; its summary says why.
        Some(0 | 1) => Ok(()),
        _ => Err(BenchError::Child(format!(
            "{} run --filter {}: {run}",
            program.display(),
            row.name
        ))),
    }
}

/// How a row ended that has not passed in every run.
fn ended(asked: &Asked<'_>, side: &Side, row: &Row) -> Option<(RowEnd, String)> {
    let mut found = None;
    for repeat in 0..asked.repeats {
        let summary = Summary::read(&place(asked, side, row.name, repeat));
        let unknown = || Some((RowEnd::Failed, "it left no summary".to_owned()));
        let one = match summary.as_ref().map(|summary| summary.rows.get(row.name)) {
            None | Some(None) => unknown(),
            Some(Some(one)) if one.end == RowEnd::Passed => None,
            Some(Some(one)) => Some((one.end, one.why.clone().unwrap_or_default())),
        };
        match one {
            Some((RowEnd::Failed, why)) => return Some((RowEnd::Failed, why)),
            other => found = found.or(other),
        }
    }
    found
}

/// The results of all runs of a side, as repeats of one.
fn read(asked: &Asked<'_>, side: &Side) -> Result<Results> {
    let mut all: Results = BTreeMap::new();
    let places = std::fs::read_dir(asked.scratch.join(side.word));
    for row in places.into_iter().flatten().flatten() {
        for repeat in 0..asked.repeats {
            let found = Record::read_any(&row.path().join(repeat.to_string()))?;
            for (name, records) in found {
                let one = records.into_iter().map(|record| Record {
                    repeat,
                    repeats: asked.repeats,
                    ..record
                });
                all.entry(name).or_default().extend(one);
            }
        }
    }
    Ok(all)
}
