//! What a run came to: its rows by suite, passed, failed or skipped, and each row's numbers over its repeats.
//!
//! `summary.json` beside the results says it for programs. `gate` takes from it which rows were asked for, and which of them
//! failed or were skipped; numbers it takes from the results themselves.
//! Spec: `benchmarks_v0`.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::cli::SelectArgs;
use crate::error::{BenchError, Result};
use crate::figures::{self, Side};
use crate::results::Record;
use crate::row::Row;
use crate::stats::{mean, median, variation};
use crate::units::{Unit, show};

/// The file's name in a directory of results.
pub(crate) const FILE: &str = "summary.json";
/// Raised when a field changes its meaning.
const VERSION: u32 = 1;
/// Coefficient of variation of the throughput from which on a row is called unstable.
pub(crate) const UNSTABLE: f64 = 0.10;

/// A run, or what several into one directory add up to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Version of this file.
    pub(crate) summary: u32,
    /// Counts by suite.
    pub(crate) suites: BTreeMap<String, Counts>,
    /// Every row that was asked for.
    pub(crate) rows: BTreeMap<String, RowSummary>,
    /// What each run into the directory was asked for; empty in files from before it was kept, which may be of anything.
    #[serde(default)]
    pub(crate) asked: Vec<SelectArgs>,
}

/// How rows ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// With a result in every repeat.
    pub(crate) passed: u32,
    /// With an error.
    pub(crate) failed: u32,
    /// Not run, as the machine lacks what they need.
    pub(crate) skipped: u32,
}

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RowEnd {
    /// With a result in every repeat.
    Passed,
    /// With an error.
    Failed,
    /// It was not run.
    Skipped,
}

/// One row over its repeats.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RowSummary {
    /// How it ended.
    pub(crate) end: RowEnd,
    /// Why it failed or was skipped.
    pub(crate) why: Option<String>,
    /// Repeats with a result.
    pub(crate) repeats: u32,
    /// Numbers over the repeats, by name.
    pub(crate) numbers: BTreeMap<String, Aggregate>,
}

/// A number over repeats.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Aggregate {
    /// The middle one.
    pub(crate) median: f64,
    /// Their mean.
    pub(crate) mean: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
    /// Standard deviation divided by the mean; absent with one repeat.
    pub(crate) variation: Option<f64>,
}

impl Aggregate {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        Self {
            median: median(values),
            mean: mean(values),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            variation: variation(values),
        }
    }
}

/// The numbers of a row that are worth following over repeats.
pub(crate) fn aggregates(records: &[Record]) -> BTreeMap<String, Aggregate> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for record in records {
        let results = &record.results;
        let latency = results.latency_ns;
        let mut add = |name: &str, value: f64| {
            values.entry(name.to_owned()).or_default().push(value);
        };
        add("ops_per_sec", results.ops_per_sec);
        add("p50_ns", latency.p50);
        add("p95_ns", latency.p95);
        add("p99_ns", latency.p99);
        add("p99_9_ns", latency.p99_9);
        add("max_ns", latency.max);
        if let Some(allocs) = results.allocs_per_op {
            add("allocs_per_op", allocs);
        }
        if let Some(flushes) = results.fsyncs_per_txn {
            add("fsyncs_per_txn", flushes);
        }
        for floor in &results.floors {
            add(&format!("times {}", floor.what), floor.ratio);
        }
        for (name, value) in &results.counters_per_op {
            add(&format!("{name}_per_op"), *value);
        }
    }
    values
        .into_iter()
        .map(|(name, values)| (name, Aggregate::of(&values)))
        .collect()
}

impl Summary {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            summary: VERSION,
            suites: BTreeMap::new(),
            rows: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    /// Makes `dir` ready for a run of `rows`: what older runs left of them is removed, what they left of others stays, and what
    /// is asked for now is kept, so that a run that ends early is seen to lack rows.
    pub(crate) fn prepare(dir: &Path, rows: &[Row], select: &SelectArgs) -> Result<()> {
        let mut whole = Self::read(dir).unwrap_or_else(Self::new);
        if !whole.rows.is_empty() && whole.asked.is_empty() {
            whole.asked.push(SelectArgs::default());
        }
        for row in rows {
            Record::remove(dir, row.name)?;
            whole.rows.remove(row.name);
        }
        if !whole.asked.contains(select) {
            whole.asked.push(select.clone());
        }
        whole.count();
        whole.put(dir)
    }

    /// Reads the one beside results, if there is one of this version.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join(FILE)).ok()?;
        let summary: Self = serde_json::from_str(&text).ok()?;
        (summary.summary == VERSION).then_some(summary)
    }

    /// Adds a row by its results, and by why there are not as many as there should be.
    pub(crate) fn add(&mut self, name: &str, records: &[Record], end: RowEnd, why: Option<String>) {
        let row = RowSummary {
            end,
            why,
            repeats: records.len() as u32,
            numbers: aggregates(records),
        };
        self.rows.insert(name.to_owned(), row);
        self.count();
    }

    fn count(&mut self) {
        self.suites.clear();
        for (name, row) in &self.rows {
            let suite = name.split('/').nth(1).unwrap_or_default();
            let counts = self.suites.entry(suite.to_owned()).or_default();
            *match row.end {
                RowEnd::Passed => &mut counts.passed,
                RowEnd::Failed => &mut counts.failed,
                RowEnd::Skipped => &mut counts.skipped,
            } += 1;
        }
    }

    /// Counts of all suites together.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.suites.values() {
            total.passed += counts.passed;
            total.failed += counts.failed;
            total.skipped += counts.skipped;
        }
        total
    }

    /// Writes it beside the results; rows of earlier runs into the same directory stay.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let mut whole = Self::read(dir).unwrap_or_else(Self::new);
        whole.rows.extend(self.rows.clone());
        whole.count();
        whole.put(dir)
    }

    fn put(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| BenchError::file(&path)(std::io::Error::other(error)))?;
        std::fs::create_dir_all(dir).map_err(BenchError::file(dir))?;
        std::fs::write(&path, text + "\n").map_err(BenchError::file(&path))
    }

    /// A line for each suite, and the rows that failed or were skipped with why.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(vec![
            "suite",
            "passed",
            "failed",
            "skipped",
            "largest variation of throughput",
        ]);
        for column in 1..=3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for (suite, counts) in &self.suites {
            let of_suite = self.rows.iter().filter(|(name, _)| {
                let mut parts = name.split('/').skip(1);
                parts.next() == Some(suite)
            });
            let variations = of_suite.filter_map(|(name, row)| {
                let variation = row.numbers.get("ops_per_sec")?.variation?;
                Some((variation, name.rsplit('/').next().unwrap_or_default()))
            });
            let largest = variations.max_by(|(a, _), (b, _)| a.total_cmp(b));
            table.add_row(vec![
                suite.clone(),
                counts.passed.to_string(),
                counts.failed.to_string(),
                counts.skipped.to_string(),
                largest.map_or_else(
                    || "one repeat".to_owned(),
                    |(variation, row)| format!("{:.1} % ({row})", 100.0 * variation),
                ),
            ]);
        }
        let mut text = format!("{table}\n");
        for (name, row) in &self.rows {
            let word = match row.end {
                RowEnd::Passed => continue,
                RowEnd::Failed => "FAILED",
                RowEnd::Skipped => "skipped",
            };
            let why = row.why.as_deref().unwrap_or_default();
            text.push_str(&format!("{word} {name}: {why}\n"));
        }
        text
    }
}

/// The repeat in the middle, by how good the figure called `id` is in it; the worse one of two. A figure is judged by it,
/// with the floor that was measured beside it. `parts` are its value and its limit.
pub(crate) fn middle<T>(
    id: &str,
    mut repeats: Vec<T>,
    parts: impl Fn(&T) -> (f64, f64),
) -> Option<T> {
    let figure = figures::ALL.iter().find(|figure| figure.id == id);
    let side = figure.map_or(Side::AtMost, |figure| figure.side);
    let badness = |one: &T| {
        let (value, limit) = parts(one);
        // The limit may be a factor of a floor, which differs between repeats.
        let share = if limit == 0.0 { value } else { value / limit };
        match side {
            Side::AtMost => share,
            Side::AtLeast => -share,
            Side::Exactly => (value - limit).abs(),
        }
    };
    repeats.sort_by(|a, b| badness(a).total_cmp(&badness(b)));
    let middle = repeats.len() / 2;
    (middle < repeats.len()).then(|| repeats.swap_remove(middle))
}

/// A row's repeats in one line; nothing of one repeat.
pub(crate) fn repeats_line(records: &[Record]) -> Option<String> {
    if records.len() < 2 {
        return None;
    }
    let all = aggregates(records);
    let part = |words: &str, name: &str, unit| {
        let one = all.get(name)?;
        let variation = one
            .variation
            .map_or_else(|| "none".to_owned(), |v| format!("{:.1} %", 100.0 * v));
        Some(format!(
            "{words} {} (CV {variation})",
            show(one.median, unit)
        ))
    };
    let parts = [
        part("throughput", "ops_per_sec", Unit::PerSecond),
        part("p50", "p50_ns", Unit::Nanos),
        part("p99", "p99_ns", Unit::Nanos),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let unstable = all
        .get("ops_per_sec")
        .and_then(|one| one.variation)
        .is_some_and(|variation| variation > UNSTABLE);
    Some(format!(
        "    medians of {} repeats: {}{}\n",
        records.len(),
        parts.join(", "),
        if unstable { "; UNSTABLE" } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    fn repeats(swing: &[f64]) -> Vec<Record> {
        let one = |(repeat, factor): (usize, &f64)| {
            let mut record = record();
            record.repeat = repeat as u32;
            record.results.ops_per_sec *= factor;
            record
        };
        swing.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_summary_counts_rows_and_says_why_some_have_no_result() {
        let mut summary = Summary::new();
        summary.add("bench/log/a", &repeats(&[1.0, 1.1]), RowEnd::Passed, None);
        summary.add("bench/log/b", &[], RowEnd::Failed, Some("disk full".into()));
        summary.add("bench/io/c", &[], RowEnd::Skipped, Some("no ring".into()));
        let total = summary.total();
        assert_eq!((total.passed, total.failed, total.skipped), (1, 1, 1));
        assert_eq!(summary.suites["log"].failed, 1);
        let text = summary.table();
        assert!(text.contains("FAILED bench/log/b: disk full"), "{text}");
        assert!(text.contains("skipped bench/io/c: no ring"), "{text}");
        assert!(text.contains("6.7 % (a)"), "{text}");
    }

    #[test]
    fn a_summary_beside_results_is_no_result_and_keeps_rows_of_earlier_runs() {
        let dir = tempfile::tempdir().unwrap();
        let one = record();
        one.write(dir.path()).unwrap();
        for name in ["bench/log/a", "bench/log/b"] {
            let mut summary = Summary::new();
            summary.add(name, &repeats(&[1.0]), RowEnd::Passed, None);
            summary.write(dir.path()).unwrap();
        }
        assert_eq!(Summary::read(dir.path()).unwrap().total().passed, 2);
        assert_eq!(Record::read_all(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_figure_is_judged_by_the_repeat_in_the_middle() {
        let of = |id: &str, repeats: &[(f64, f64)]| {
            middle(id, repeats.to_vec(), |one| *one).map(|(value, _)| value)
        };
        let low = "solo_commit_p50";
        // The last is good, most are not; then the last is bad, most are good.
        assert_eq!(
            of(low, &[(130.0, 125.0), (128.0, 125.0), (90.0, 125.0)]),
            Some(128.0)
        );
        assert_eq!(
            of(low, &[(110.0, 125.0), (90.0, 125.0), (300.0, 125.0)]),
            Some(110.0)
        );
        // By the floor beside it: 240 of 250 is met, 260 of 125 is not.
        assert_eq!(
            of(low, &[(120.0, 125.0), (240.0, 250.0), (260.0, 125.0)]),
            Some(240.0)
        );
        assert_eq!(
            of("scan_warm", &[(40e6, 45e6), (50e6, 45e6)]),
            Some(40e6),
            "the worse of two"
        );
        assert_eq!(
            of("get_warm_allocs", &[(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)]),
            Some(1.0)
        );
        assert_eq!(of(low, &[]), None);
    }

    #[test]
    fn a_run_into_a_used_directory_replaces_its_own_rows_and_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let rows = crate::suites::all();
        let (one, other) = (rows[0], rows[1]);
        for row in [one, other] {
            let mut records = repeats(&[1.0, 1.1]);
            for record in &mut records {
                record.bench_name = row.name.to_owned();
                record.write(dir.path()).unwrap();
            }
            let mut summary = Summary::new();
            summary.add(row.name, &records, RowEnd::Failed, None);
            summary.write(dir.path()).unwrap();
        }
        let select = SelectArgs {
            filter: Some(one.name.to_owned()),
            suite: None,
        };
        for _ in 0..2 {
            Summary::prepare(dir.path(), &[one], &select).unwrap();
        }
        let left = Record::read_all(dir.path()).unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), [other.name]);
        let summary = Summary::read(dir.path()).unwrap();
        assert_eq!(summary.rows.keys().collect::<Vec<_>>(), [other.name]);
        assert_eq!(summary.asked, [SelectArgs::default(), select]);
    }

    #[test]
    fn repeats_are_told_with_their_variation_and_unstable_ones_are_marked() {
        assert_eq!(repeats_line(&repeats(&[1.0])), None);
        let calm = repeats_line(&repeats(&[1.0, 1.01, 0.99])).unwrap();
        assert!(calm.contains("throughput 10.0 K/s (CV 1.0 %)"), "{calm}");
        let wild = repeats_line(&repeats(&[1.0, 1.5, 0.5])).unwrap();
        assert!(
            wild.contains("UNSTABLE") && !calm.contains("UNSTABLE"),
            "{wild}"
        );
    }
}
