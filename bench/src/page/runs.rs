//! Earlier runs: directories of results, told apart by where they lie and ordered by when they were measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::plots::Point;
use crate::cli::say;
use crate::error::{BenchError, Result};
use crate::results::Record;

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    label: String,
    title: String,
    at: u64,
    rows: BTreeMap<String, Vec<Record>>,
}

/// The runs below each directory, or the directory itself where results lie right in it; `but` is left out.
pub(super) fn older(dirs: &[PathBuf], but: &Path) -> Result<Vec<Run>> {
    let same = |dir: &Path| dir.canonicalize().ok() == but.canonicalize().ok();
    let mut runs = Vec::new();
    for dir in dirs {
        let mut below = Vec::new();
        let entries = std::fs::read_dir(dir).map_err(BenchError::file(dir))?;
        for entry in entries {
            let path = entry.map_err(BenchError::file(dir))?.path();
            if path.is_dir() && !same(&path) {
                below.push(path);
            }
        }
        // A run's own directory holds suites, and those hold results.
        let is_run = |path: &PathBuf| holds_results(path);
        let whole = below.iter().any(is_run);
        let found = if whole { vec![dir.clone()] } else { below };
        for path in found.iter().filter(|path| whole || has_suites(path)) {
            // One that was cut off says nothing of the others.
            match Record::read_all(path) {
                Ok(rows) => runs.extend(Run::of(rows)),
                Err(why) => say(&format!("left out: {}: {why}\n", path.display())),
            }
        }
    }
    runs.sort_by_key(|run| run.at);
    Ok(runs)
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

/// Results of repeats lie in it.
fn holds_results(dir: &Path) -> bool {
    entries(dir).any(|path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        stem.is_some_and(|stem| {
            stem.rsplit_once("_r")
                .is_some_and(|(_, n)| n.parse::<u32>().is_ok())
        }) && path.extension().is_some_and(|end| end == "json")
    })
}

fn has_suites(dir: &Path) -> bool {
    entries(dir).any(|path| path.is_dir() && holds_results(&path))
}

impl Run {
    fn of(rows: BTreeMap<String, Vec<Record>>) -> Option<Self> {
        let first = rows
            .values()
            .flatten()
            .min_by_key(|record| record.timestamp_unix_s)?;
        let (label, title) = names(first);
        Some(Self {
            label,
            title,
            at: first.timestamp_unix_s,
            rows,
        })
    }
}

/// A record's commit, or its day where that is not known; and both.
fn names(record: &Record) -> (String, String) {
    let at = i64::try_from(record.timestamp_unix_s).unwrap_or(0);
    let at = Timestamp::from_second(at).unwrap_or(Timestamp::UNIX_EPOCH);
    let day = at.strftime("%m-%d").to_string();
    let whole = at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    match &record.git {
        Some(git) => {
            let short = git.sha.get(..7).unwrap_or(&git.sha).to_owned();
            let title = format!("{short}, {whole}");
            (short, title)
        }
        None => (day, whole),
    }
}

fn throughput(records: &[Record]) -> Vec<f64> {
    records
        .iter()
        .map(|record| record.results.ops_per_sec)
        .collect()
}

/// A row's points: those of the older runs that have it, then this one's.
pub(super) fn points(older: &[Run], records: &[Record]) -> Vec<Point> {
    let Some(newest) = records.first() else {
        return Vec::new();
    };
    let mut points: Vec<Point> = older
        .iter()
        .filter_map(|run| {
            Some(Point {
                label: run.label.clone(),
                title: run.title.clone(),
                values: throughput(run.rows.get(&newest.bench_name)?),
            })
        })
        .collect();
    let (label, title) = names(newest);
    points.push(Point {
        label,
        title,
        values: throughput(records),
    });
    points
}

/// A row's repeats as points of their own.
pub(super) fn repeats(records: &[Record]) -> Vec<Point> {
    let point = |record: &Record| Point {
        label: format!("#{}", record.repeat + 1),
        title: format!("repeat {}", record.repeat + 1),
        values: vec![record.results.ops_per_sec],
    };
    records.iter().map(point).collect()
}
