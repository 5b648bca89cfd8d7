//! Two sets of results held against each other, by one rule for every number.
//!
//! A shift of medians counts only beyond the larger of a threshold and three times the spread of the repeats (the median
//! absolute deviation, of the side where it is larger). A shift beyond the threshold and within the spread is not judged:
//! the machine was too noisy to tell. Times need five repeats on both sides; counts do not depend on the machine and
//! need one. Spec: `benchmarks_v0`.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use crate::results::Record;
use crate::row::is_critical;
use crate::stats::{median, spread};
use crate::units::{Unit, show};

/// Repeats without which a time is not judged.
pub(crate) const REPEATS_MIN: usize = 5;
/// Spreads that a shift must exceed.
const SPREADS: f64 = 3.0;

/// Relative shifts that are let pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    /// Of operations a second, downwards.
    pub(crate) throughput: f64,
    /// Of the 99th percentile, upwards.
    pub(crate) p99: f64,
    /// Of a ratio to a floor of the same run, to the worse.
    pub(crate) floor: f64,
    /// Of allocations and of bytes an operation, upwards.
    pub(crate) counts: f64,
    /// Of instructions an operation, upwards.
    pub(crate) instructions: f64,
    /// Of flushes a transaction, upwards.
    pub(crate) fsyncs: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            throughput: 0.05,
            p99: 0.10,
            floor: 0.10,
            counts: 0.05,
            instructions: 0.02,
            fsyncs: 0.0,
        }
    }
}

/// What kind of number it is: how it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A time of this machine at that moment: comparable with interleaved runs only.
    Time,
    /// A time divided by that of a floor of the same run.
    Ratio,
    /// A count, which is the same on every machine.
    Count,
}

/// A number of a row, in all repeats.
#[derive(Debug, Clone)]
struct Series {
    kind: Kind,
    unit: Unit,
    /// More is better.
    rising: bool,
    threshold: f64,
    /// Differences below this are nothing.
    least: f64,
    values: Vec<f64>,
}

impl Series {
    /// The shift of a median that is let pass in quiet.
    fn threshold_of(&self, median: f64) -> f64 {
        (self.threshold * median.abs()).max(self.least)
    }
}

/// What came of comparing one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// No shift that counts.
    Same,
    /// Better, beyond doubt.
    Better,
    /// Worse, beyond doubt.
    Worse,
    /// The shift is within the spread, or there are too few repeats.
    Noisy,
}

/// One number of one row, before and after.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    /// The row's name.
    pub(crate) bench: String,
    /// The number's name.
    pub(crate) metric: String,
    /// How it is judged.
    pub(crate) kind: Kind,
    /// A regression of it blocks.
    pub(crate) critical: bool,
    /// What came of it.
    pub(crate) finding: Finding,
    /// The spread of the repeats is more than the threshold: shifts that would count in quiet may not be seen.
    pub(crate) swings: bool,
    /// How it is printed.
    pub(crate) unit: Unit,
    /// Median before.
    pub(crate) before: f64,
    /// Median after.
    pub(crate) after: f64,
    /// Shift that would not count.
    pub(crate) allowed: f64,
}

impl Compared {
    /// How much larger, as a share of what it was.
    pub(crate) fn shift(&self) -> f64 {
        if self.before == 0.0 {
            return if self.after == 0.0 {
                0.0
            } else {
                f64::INFINITY
            };
        }
        (self.after - self.before) / self.before
    }
}

/// The numbers of a row that are compared.
fn series(records: &[Record], limits: &Thresholds) -> BTreeMap<String, Series> {
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    let mut add = |name: String, empty: Series, value: Option<f64>| {
        if let Some(value) = value {
            all.entry(name).or_insert(empty).values.push(value);
        }
    };
    let number = |kind, unit, rising, threshold, least| Series {
        kind,
        unit,
        rising,
        threshold,
        least,
        values: Vec::new(),
    };
    for record in records {
        let results = &record.results;
        let per_op = |bytes: u64| bytes as f64 / results.ops_with_warmup() as f64;
        let instructions = results.extra.get("instructions_per_op").copied();
        // A row that counts instructions is there for what does not swing; another row has its times.
        let timed = instructions.is_none();
        add(
            "throughput".to_owned(),
            number(Kind::Time, Unit::PerSecond, true, limits.throughput, 0.0),
            timed.then_some(results.ops_per_sec),
        );
        add(
            "p99".to_owned(),
            number(Kind::Time, Unit::Nanos, false, limits.p99, 0.0),
            timed.then_some(results.latency_ns.p99),
        );
        add(
            "instructions/op".to_owned(),
            number(Kind::Count, Unit::Count, false, limits.instructions, 1.0),
            instructions,
        );
        add(
            "allocations/op".to_owned(),
            number(Kind::Count, Unit::Count, false, limits.counts, 0.005),
            Some(results.allocs_per_op),
        );
        add(
            "fsyncs/txn".to_owned(),
            number(Kind::Count, Unit::Count, false, limits.fsyncs, 0.005),
            results.fsyncs_per_txn,
        );
        add(
            "written/op".to_owned(),
            number(Kind::Count, Unit::Bytes, false, limits.counts, 1.0),
            results.io.map(|io| per_op(io.bytes_written)),
        );
        for floor in &results.floors {
            // Rates, and ratios of hits: more of them is better.
            let rising = floor.unit.ends_with("per_second") || floor.unit == "ratio";
            add(
                format!("times {}", floor.what),
                number(Kind::Ratio, Unit::Ratio, rising, limits.floor, 0.0),
                Some(floor.ratio),
            );
        }
    }
    all
}

/// Judges one number.
fn judge(before: &Series, after: &Series) -> (f64, f64, f64, Finding) {
    let (old, new) = (median(&before.values), median(&after.values));
    let worse = if before.rising { old - new } else { new - old };
    let spread = SPREADS * spread(&before.values).max(spread(&after.values));
    let threshold = before.threshold_of(old);
    let allowed = threshold.max(spread);
    let few = before.values.len().min(after.values.len()) < REPEATS_MIN;
    let finding = match before.kind {
        Kind::Time | Kind::Ratio if few && worse.abs() > threshold => Finding::Noisy,
        _ if worse > allowed => Finding::Worse,
        _ if -worse > allowed => Finding::Better,
        _ if worse > threshold => Finding::Noisy,
        Kind::Time | Kind::Ratio | Kind::Count => Finding::Same,
    };
    (old, new, allowed, finding)
}

/// Everything that both sides measured.
pub(crate) fn compare(
    before: &BTreeMap<String, Vec<Record>>,
    after: &BTreeMap<String, Vec<Record>>,
    limits: &Thresholds,
) -> Vec<Compared> {
    let mut all = Vec::new();
    for (bench, old) in before {
        let Some(new) = after.get(bench) else {
            continue;
        };
        let new = series(new, limits);
        for (metric, old) in series(old, limits) {
            let Some(new) = new.get(&metric) else {
                continue;
            };
            let (before, after, allowed, finding) = judge(&old, new);
            all.push(Compared {
                bench: bench.clone(),
                metric,
                kind: old.kind,
                critical: is_critical(bench),
                finding,
                swings: allowed > old.threshold_of(before),
                unit: old.unit,
                before,
                after,
                allowed,
            });
        }
    }
    all
}

/// Rows that only one side measured: `(only before, only after)`.
pub(crate) fn unmatched<'a>(
    before: &'a BTreeMap<String, Vec<Record>>,
    after: &'a BTreeMap<String, Vec<Record>>,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let lacking = |these: &'a BTreeMap<String, Vec<Record>>, those: &BTreeMap<_, Vec<Record>>| {
        these
            .keys()
            .filter(|name| !those.contains_key(*name))
            .map(String::as_str)
            .collect()
    };
    (lacking(before, after), lacking(after, before))
}

/// A table of what is worth a look; of everything with `whole`.
pub(crate) fn table(all: &[Compared], whole: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(vec![
        "row", "number", "before", "after", "shift", "allowed", "",
    ]);
    for column in 2..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut rows = 0;
    for one in all {
        if one.finding == Finding::Same && !whole {
            continue;
        }
        rows += 1;
        table.add_row(vec![
            one.bench
                .strip_prefix("bench/")
                .unwrap_or(&one.bench)
                .to_owned(),
            one.metric.clone(),
            show(one.before, one.unit),
            show(one.after, one.unit),
            format!("{:+.1} %", 100.0 * one.shift()),
            format!("± {}", show(one.allowed, one.unit)),
            match one.finding {
                Finding::Same => "same",
                Finding::Better => "better",
                Finding::Worse => "WORSE",
                Finding::Noisy => "too noisy to tell",
            }
            .to_owned(),
        ]);
    }
    match rows {
        0 => "no number shifted by more than is allowed\n".to_owned(),
        _ => format!("{table}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: &[f64]) -> Series {
        Series {
            kind: Kind::Time,
            unit: Unit::Nanos,
            rising: false,
            threshold: 0.10,
            least: 0.0,
            values: values.to_vec(),
        }
    }

    #[test]
    fn a_shift_counts_beyond_threshold_and_spread_only() {
        let quiet = times(&[100.0, 101.0, 99.0, 100.0, 100.0]);
        let finding = |after: &[f64]| judge(&quiet, &times(after)).3;
        assert_eq!(finding(&[108.0, 109.0, 108.0, 107.0, 108.0]), Finding::Same);
        assert_eq!(
            finding(&[112.0, 111.0, 113.0, 112.0, 112.0]),
            Finding::Worse
        );
        assert_eq!(finding(&[85.0, 84.0, 86.0, 85.0, 85.0]), Finding::Better);
        // The same shift as above, and a spread that could have made it.
        assert_eq!(finding(&[90.0, 112.0, 130.0, 101.0, 120.0]), Finding::Noisy);
        assert_eq!(finding(&[112.0]), Finding::Noisy);
    }

    #[test]
    fn counts_need_one_repeat_and_may_not_leave_zero() {
        let count = |value| Series {
            kind: Kind::Count,
            threshold: 0.05,
            least: 0.005,
            ..times(&[value])
        };
        assert_eq!(judge(&count(0.0), &count(0.0)).3, Finding::Same);
        assert_eq!(judge(&count(0.0), &count(0.01)).3, Finding::Worse);
        assert_eq!(judge(&count(2.0), &count(2.09)).3, Finding::Same);
        assert_eq!(judge(&count(2.0), &count(2.2)).3, Finding::Worse);
        assert_eq!(judge(&count(2.0), &count(1.0)).3, Finding::Better);
    }
}
