//! What a run shows and keeps: a line or two for each row, the table of figures, one JSON file a row and repeat.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::error::{BenchError, Result};
use crate::figures::{self, Side, Verdict, judge};
use crate::machine::{Git, Machine};
use crate::profile::{Profile, Scale};
use crate::row::{Outcome, Row};
use crate::units::{Unit, show};

/// Schema of the JSON files; raised when a field changes its meaning.
const SCHEMA: u32 = 1;

/// What all results of a run have in common.
#[derive(Debug)]
pub(crate) struct Run {
    /// The machine.
    pub(crate) machine: Machine,
    /// The profile.
    pub(crate) profile: Profile,
    /// Sizes in use: the profile's, quick or tiny.
    pub(crate) scale: Scale,
    /// `full`, `quick` or `tiny`.
    pub(crate) size: &'static str,
    /// Where everything random started.
    pub(crate) seed: u64,
    /// The source's commit.
    pub(crate) git: Option<Git>,
    /// Runs of each row.
    pub(crate) repeats: u32,
}

/// A row's lines for people.
pub(crate) fn lines(row: &Row, outcome: &Outcome) -> String {
    let sample = &outcome.sample;
    let nanos = |percentile| show(sample.nanos(percentile), Unit::Nanos);
    let mut text = format!(
        "{:<36} {:>10}  p50 {:>8}  p95 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}\n",
        row.short(),
        show(sample.per_second(), Unit::PerSecond),
        nanos(50.0),
        nanos(95.0),
        nanos(99.0),
        nanos(99.9),
        nanos(100.0),
    );
    let mut facts = Vec::new();
    for floor in &outcome.floors {
        let value = show(floor.value, floor.unit);
        facts.push(format!("{:.2}x of {} ({value})", floor.ratio, floor.what));
    }
    if let Some(cost) = outcome.cost {
        if let Some(flushes) = cost.flushes_per_txn() {
            facts.push(format!("{flushes:.3} fsyncs/txn"));
        }
        let per_op = |bytes: u64| bytes as f64 / sample.ops.max(1) as f64;
        if cost.bytes_written > 0 {
            facts.push(format!(
                "written {}/op",
                show(per_op(cost.bytes_written), Unit::Bytes)
            ));
        }
        if cost.bytes_read > 0 {
            facts.push(format!(
                "read {}/op",
                show(per_op(cost.bytes_read), Unit::Bytes)
            ));
        }
    }
    facts.push(format!(
        "allocs {}/op",
        show(sample.allocs_per_op(), Unit::Count)
    ));
    for (name, value) in &outcome.extra {
        facts.push(extra(name, *value));
    }
    facts.extend(outcome.notes.iter().cloned());
    let mut line = String::from("   ");
    for (index, fact) in facts.iter().enumerate() {
        if line.chars().count() + fact.chars().count() > 116 && index > 0 {
            text.push_str(&line);
            text.push('\n');
            line = String::from("   ");
        }
        line.push(' ');
        line.push_str(fact);
        line.push_str(if index + 1 < facts.len() { ";" } else { "" });
    }
    text.push_str(&line);
    text.push('\n');
    text
}

/// A further number in the unit that its name ends with.
fn extra(name: &str, value: f64) -> String {
    let words = |suffix: &str| name.trim_end_matches(suffix).replace('_', " ");
    if name.ends_with("bytes_per_second") {
        return show(value, Unit::BytesPerSecond);
    }
    if let Some(what) = name.strip_suffix("_per_second") {
        return format!(
            "{} {}",
            what.replace('_', " "),
            show(value, Unit::PerSecond)
        );
    }
    if name.ends_with("_ns") {
        return format!("{} {}", words("_ns"), show(value, Unit::Nanos));
    }
    if name.starts_with("disk_") || name.contains("bytes") && !name.contains("_per_") {
        return format!("{} {}", words(""), show(value, Unit::Bytes));
    }
    format!("{} {}", words(""), show(value, Unit::Count))
}

/// The table of figures; the rows whose figures this run did not measure are named below it.
pub(crate) fn figures_table(verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(vec!["figure", "measured", "limit", "floor", ""]);
    for column in 1..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut missing = Vec::new();
    for figure in figures::ALL {
        let Some(verdict) = verdicts
            .iter()
            .find(|verdict| verdict.figure.id == figure.id)
        else {
            missing.push(figure.row);
            continue;
        };
        let sign = match figure.side {
            Side::AtMost => "≤",
            Side::AtLeast => "≥",
            Side::Exactly => "=",
        };
        let floor = verdict
            .measured
            .floor
            .map_or(String::new(), |floor| show(floor, figure.unit));
        // Markdown drops leading blanks.
        let what = figure.what.replace("  ", "· ");
        table.add_row(vec![
            what,
            show(verdict.measured.value, figure.unit),
            format!("{sign} {}", show(verdict.limit, figure.unit)),
            floor,
            match verdict.met {
                Some(true) => "met".into(),
                Some(false) => "MISSED".into(),
                None => "too small".into(),
            },
        ]);
    }
    let mut text = format!("{table}\n");
    if !missing.is_empty() {
        missing.dedup();
        text.push_str("not measured in this run: ");
        text.push_str(&missing.join(", "));
        text.push('\n');
    }
    text
}

/// `text` with its verdicts coloured; the stream drops the colours where they are not wanted.
pub(crate) fn coloured(text: &str) -> String {
    text.replace("| MISSED", "| \u{1b}[1;31mMISSED\u{1b}[0m")
        .replace("| met ", "| \u{1b}[32mmet\u{1b}[0m ")
}

/// The verdicts on an outcome's figures.
pub(crate) fn verdicts(run: &Run, outcome: &Outcome) -> Vec<Verdict> {
    outcome
        .figures
        .iter()
        .filter_map(|measured| judge(*measured, &run.profile, run.scale.rows))
        .collect()
}

#[derive(Debug, Serialize)]
struct Json<'a> {
    schema: u32,
    bench_name: &'a str,
    question: &'a str,
    unit: &'a str,
    profile: JsonProfile<'a>,
    build: JsonBuild,
    git: &'a Option<Git>,
    config: JsonConfig<'a>,
    results: JsonResults<'a>,
    repeat: u32,
    repeats: u32,
    timestamp_unix_s: u64,
}

#[derive(Debug, Serialize)]
struct JsonProfile<'a> {
    name: &'a str,
    #[serde(flatten)]
    machine: &'a Machine,
}

#[derive(Debug, Serialize)]
struct JsonBuild {
    version: &'static str,
    mode: &'static str,
    target: &'static str,
}

#[derive(Debug, Serialize)]
struct JsonConfig<'a> {
    seed: u64,
    size: &'static str,
    scale: &'a Scale,
    threads: usize,
    db: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
struct JsonResults<'a> {
    ops_total: u64,
    duration_ns: u64,
    ops_per_sec: f64,
    latency_ns: BTreeMap<&'static str, f64>,
    bytes: BTreeMap<&'static str, Option<u64>>,
    io: BTreeMap<&'static str, Option<u64>>,
    fsyncs_per_txn: Option<f64>,
    alloc: BTreeMap<&'static str, u64>,
    allocs_per_op: f64,
    floors: Vec<JsonFloor>,
    figures: Vec<JsonFigure>,
    extra: &'a BTreeMap<&'static str, f64>,
    errors_total: u64,
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct JsonFloor {
    what: &'static str,
    value: f64,
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct JsonFigure {
    id: &'static str,
    value: f64,
    limit: f64,
    floor: Option<f64>,
    met: Option<bool>,
}

fn results<'a>(run: &Run, outcome: &'a Outcome) -> JsonResults<'a> {
    let (sample, cost) = (&outcome.sample, outcome.cost);
    JsonResults {
        ops_total: sample.ops,
        duration_ns: u64::try_from(sample.elapsed.as_nanos()).unwrap_or(u64::MAX),
        ops_per_sec: sample.per_second(),
        latency_ns: [
            ("p50", 50.0),
            ("p95", 95.0),
            ("p99", 99.0),
            ("p99_9", 99.9),
            ("max", 100.0),
        ]
        .map(|(name, percentile)| (name, sample.nanos(percentile)))
        .into(),
        bytes: [
            ("read", cost.map(|cost| cost.bytes_read)),
            ("write", cost.map(|cost| cost.bytes_written)),
        ]
        .into(),
        io: [
            ("txns", cost.map(|cost| cost.txns)),
            (
                "fsync",
                cost.map(|cost| cost.log_flushes + cost.data_flushes),
            ),
            ("fsync_log", cost.map(|cost| cost.log_flushes)),
            ("fsync_data", cost.map(|cost| cost.data_flushes)),
            ("page_reads", cost.map(|cost| cost.page_reads)),
        ]
        .into(),
        fsyncs_per_txn: cost.and_then(|cost| cost.flushes_per_txn()),
        alloc: [
            ("count", sample.allocs.count),
            ("bytes", sample.allocs.bytes),
        ]
        .into(),
        allocs_per_op: sample.allocs_per_op(),
        floors: outcome
            .floors
            .iter()
            .map(|floor| JsonFloor {
                what: floor.what,
                value: floor.value,
                ratio: floor.ratio,
            })
            .collect(),
        figures: verdicts(run, outcome)
            .iter()
            .map(|verdict| JsonFigure {
                id: verdict.figure.id,
                value: verdict.measured.value,
                limit: verdict.limit,
                floor: verdict.measured.floor,
                met: verdict.met,
            })
            .collect(),
        extra: &outcome.extra,
        errors_total: 0,
        notes: &outcome.notes,
    }
}

/// Writes one result to `dir/<suite>/<words>_r000.json`.
pub(crate) fn write_json(
    dir: &Path,
    run: &Run,
    row: &Row,
    outcome: &Outcome,
    repeat: u32,
) -> Result<()> {
    let json = Json {
        schema: SCHEMA,
        bench_name: row.name,
        question: row.question,
        unit: row.unit,
        profile: JsonProfile {
            name: &run.profile.name,
            machine: &run.machine,
        },
        build: JsonBuild {
            version: env!("CARGO_PKG_VERSION"),
            mode: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            target: std::env::consts::ARCH,
        },
        git: &run.git,
        config: JsonConfig {
            seed: run.seed,
            size: run.size,
            scale: &run.scale,
            threads: outcome.sample.threads,
            db: [("checksum", "crc32c"), ("sync_mode", "group_commit")].into(),
        },
        results: results(run, outcome),
        repeat,
        repeats: run.repeats,
        timestamp_unix_s: SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs()),
    };
    let path = dir.join(format!("{}_r{repeat:03}.json", row.short()));
    let folder = path.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder).map_err(BenchError::file(folder))?;
    let mut text = serde_json::to_string_pretty(&json)
        .map_err(|error| BenchError::file(&path)(std::io::Error::other(error)))?;
    text.push('\n');
    std::fs::write(&path, text).map_err(BenchError::file(&path))
}
