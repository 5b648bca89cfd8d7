//! What a run shows and keeps: a line or two for each row, the table of figures, a record for each repeat.

use std::time::SystemTime;

use comfy_table::{CellAlignment, Table, presets};

use crate::figures::{self, Side, Verdict, judge};
use crate::machine::{Git, Machine};
use crate::profile::{Profile, Scale};
use crate::results::{
    Alloc, Build, Config, FigureResult, FloorResult, Io, Latency, ProfileFacts, Record, Results,
    SCHEMA,
};
use crate::row::{Outcome, Row};
use crate::sample::Warmup;
use crate::units::{Unit, show};

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
    /// Threads that were asked for instead of the rows' own numbers.
    pub(crate) threads_asked: Option<usize>,
    /// What precedes each loop of a time.
    pub(crate) warmup: Warmup,
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
        let per_op = |bytes: u64| sample.per_op(bytes);
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
    if let Some(allocs) = sample.allocs_per_op() {
        facts.push(format!("allocs {}/op", show(allocs, Unit::Count)));
    }
    for (name, count) in sample.counts_per_op() {
        facts.push(format!(
            "{} {}/op",
            name.replace('_', " "),
            show(count, Unit::Count)
        ));
    }
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
    text.replace("FAILED ", "\u{1b}[1;31mFAILED\u{1b}[0m ")
        .replace("| MISSED", "| \u{1b}[1;31mMISSED\u{1b}[0m")
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

/// The result of one repeat.
pub(crate) fn record(run: &Run, row: &Row, outcome: &Outcome, repeat: u32) -> Record {
    let mode = match cfg!(debug_assertions) {
        true => "debug",
        false => "release",
    };
    Record {
        schema: SCHEMA,
        bench_name: row.name.to_owned(),
        question: row.question.to_owned(),
        unit: row.unit.to_owned(),
        profile: ProfileFacts {
            name: run.profile.name.clone(),
            machine: run.machine.clone(),
        },
        build: Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: mode.to_owned(),
            target: std::env::consts::ARCH.to_owned(),
        },
        git: run.git.clone(),
        config: Config {
            seed: run.seed,
            size: run.size.to_owned(),
            scale: run.scale,
            threads: outcome.sample.threads,
            db: [("checksum", "crc32c"), ("sync_mode", "group_commit")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            threads_asked: run.threads_asked,
            warmup_ops: run.warmup.ops,
            warmup_ns: u64::try_from(run.warmup.time.as_nanos()).unwrap_or(u64::MAX),
        },
        results: results(run, outcome),
        repeat,
        repeats: run.repeats,
        timestamp_unix_s: SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs()),
    }
}

fn results(run: &Run, outcome: &Outcome) -> Results {
    let (sample, cost) = (&outcome.sample, outcome.cost);
    let floors = outcome.floors.iter().map(|floor| FloorResult {
        what: floor.what.to_owned(),
        value: floor.value,
        unit: floor.unit.name().to_owned(),
        ratio: floor.ratio,
    });
    let verdicts = verdicts(run, outcome);
    let figures = verdicts.iter().map(|verdict| FigureResult {
        id: verdict.figure.id.to_owned(),
        value: verdict.measured.value,
        limit: verdict.limit,
        floor: verdict.measured.floor,
        met: verdict.met,
    });
    let extra = outcome.extra.iter();
    Results {
        ops_total: sample.ops,
        warmup_ops: sample.warmup_ops,
        duration_ns: u64::try_from(sample.elapsed.as_nanos()).unwrap_or(u64::MAX),
        ops_per_sec: sample.per_second(),
        latency_ns: Latency {
            p50: sample.nanos(50.0),
            p95: sample.nanos(95.0),
            p99: sample.nanos(99.0),
            p99_9: sample.nanos(99.9),
            max: sample.nanos(100.0),
        },
        latencies: Some(sample.latencies()),
        io: cost.map(|cost| Io {
            txns: cost.txns,
            fsync_log: cost.log_flushes,
            fsync_data: cost.other_flushes,
            bytes_read: cost.bytes_read,
            bytes_written: cost.bytes_written,
            page_reads: cost.page_reads,
        }),
        fsyncs_per_txn: cost.and_then(|cost| cost.flushes_per_txn()),
        alloc: sample.allocs.map(|allocs| Alloc {
            count: allocs.count,
            bytes: allocs.bytes,
        }),
        allocs_per_op: sample.allocs_per_op(),
        counters_per_op: sample
            .counts_per_op()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
        floors: floors.collect(),
        figures: figures.collect(),
        extra: extra
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect(),
        errors_total: 0,
        notes: outcome.notes.clone(),
    }
}
