//! Two sets of results held against each other, by one rule for every number.
//!
//! A shift of medians counts only beyond the larger of a threshold and three times the spread of the repeats (the median
//! absolute deviation, of the side where it is larger). A shift beyond the threshold and within the spread is not judged:
//! the machine was too noisy to tell. Times and ratios need five repeats on both sides; with fewer the spread is not known,
//! so only what is worse by three thresholds is called worse, and what is worse by one is not decided. Counts need
//! one repeat. Some of them follow the clock (flushes of group commits, pages of checkpoints meanwhile), which shows in the
//! repeats of one build: where these differ by more than half of what is let pass, as much is let pass as of a ratio.
//! Spec: `benchmarks_v0`.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::results::Record;
use crate::row::is_critical;
use crate::stats::{median, range, spread};
use crate::units::{Unit, show};

/// Repeats without which the spread of a time or a ratio is not known.
pub(crate) const REPEATS_MIN: usize = 5;
/// Thresholds that a time or a ratio must exceed where there are fewer.
const FEW_REPEATS: f64 = 3.0;
/// Latencies without which the 99th percentile is the luck of a handful of them, and is not compared.
const P99_LATENCIES_MIN: u64 = 1000;
/// Spreads that a shift must exceed.
const SPREADS: f64 = 3.0;
/// Allocations and flushes an operation that are nothing beside larger numbers. Of smaller ones as much again is let pass,
/// since a fixed number of them divided by the operations of a time follows the machine.
const COUNTS_LEAST: f64 = 0.005;
/// Bytes read an operation that are nothing beside larger numbers.
const READ_LEAST: f64 = 64.0;
/// And that are nothing beside 0.
const COUNTS_NOTHING: f64 = 0.0001;

/// Relative shifts that are let pass.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
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

impl Thresholds {
    /// The first that no shift can be held against.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self {
            throughput,
            p99,
            floor,
            counts,
            instructions,
            fsyncs,
        } = *self;
        let all = [
            ("throughput", throughput),
            ("p99", p99),
            ("floor", floor),
            ("counts", counts),
            ("instructions", instructions),
            ("fsyncs", fsyncs),
        ];
        let wrong = all.iter().find(|(_, limit)| !(0.0..1.0).contains(limit))?;
        Some(format!(
            "{} is {}, not a share from 0 on and below 1",
            wrong.0, wrong.1
        ))
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
    least: Least,
    /// The most that is let pass if the repeats before show that it follows the clock.
    clocked: f64,
    /// There were too few operations for it to say anything.
    is_thin: bool,
    values: Vec<f64>,
}

/// Differences that are nothing, however large a share they are.
#[derive(Debug, Clone, Copy)]
struct Least {
    /// Beside a large number.
    most: f64,
    /// Beside 0. Between the two: as much as the number itself.
    nothing: f64,
}

impl Least {
    /// The same beside every number.
    const fn of(difference: f64) -> Self {
        Self {
            most: difference,
            nothing: difference,
        }
    }
}

const NONE: Least = Least::of(0.0);
const COUNTS: Least = Least {
    most: COUNTS_LEAST,
    nothing: COUNTS_NOTHING,
};

impl Series {
    /// The shift of a median that is let pass in quiet.
    fn threshold_of(&self, median: f64) -> f64 {
        let Least { most, nothing } = self.least;
        let least = most.min(median.abs().max(nothing));
        let threshold = (self.threshold * median.abs()).max(least);
        // Twice of what the repeats showed, but not beyond all reason.
        let shown = (2.0 * range(&self.values)).min(self.clocked * median.abs());
        threshold.max(shown)
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
    /// The shift is within the spread.
    Noisy,
    /// Perhaps worse: there are too few repeats to know the spread.
    TooFew,
}

impl Finding {
    /// As tables say it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Noisy => "too noisy to tell",
            Self::TooFew => "too few repeats to tell",
        }
    }
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
        clocked: match kind {
            Kind::Count => limits.floor,
            Kind::Time | Kind::Ratio => 0.0,
        },
        is_thin: false,
        values: Vec::new(),
    };
    let recorded = |record: &Record| {
        let results = &record.results;
        results.latencies.unwrap_or(results.ops_total)
    };
    let is_thin = records
        .iter()
        .any(|record| recorded(record) < P99_LATENCIES_MIN);
    for record in records {
        let results = &record.results;
        let per_op = |bytes: u64| bytes as f64 / results.ops_with_warmup() as f64;
        let instructions = results.extra.get("instructions_per_op").copied();
        // A row that counts instructions is there for what does not swing; another row has its times.
        let timed = instructions.is_none();
        add(
            "throughput".to_owned(),
            number(Kind::Time, Unit::PerSecond, true, limits.throughput, NONE),
            timed.then_some(results.ops_per_sec),
        );
        add(
            "p99".to_owned(),
            Series {
                is_thin,
                ..number(Kind::Time, Unit::Nanos, false, limits.p99, NONE)
            },
            timed.then_some(results.latency_ns.p99),
        );
        add(
            "instructions/op".to_owned(),
            number(
                Kind::Count,
                Unit::Count,
                false,
                limits.instructions,
                Least::of(1.0),
            ),
            instructions,
        );
        add(
            "allocations/op".to_owned(),
            number(Kind::Count, Unit::Count, false, limits.counts, COUNTS),
            results.allocs_per_op,
        );
        add(
            "fsyncs/txn".to_owned(),
            number(Kind::Count, Unit::Count, false, limits.fsyncs, COUNTS),
            results.fsyncs_per_txn,
        );
        add(
            "written/op".to_owned(),
            number(
                Kind::Count,
                Unit::Bytes,
                false,
                limits.counts,
                Least::of(1.0),
            ),
            results.io.map(|io| per_op(io.bytes_written)),
        );
        add(
            "read/op".to_owned(),
            number(
                Kind::Count,
                Unit::Bytes,
                false,
                limits.counts,
                Least::of(READ_LEAST),
            ),
            results.io.map(|io| per_op(io.bytes_read)),
        );
        for floor in &results.floors {
            // Rates, and ratios of hits: more of them is better.
            let rising = floor.unit.ends_with("per_second") || floor.unit == "ratio";
            // Room on a disk, memory, and shares of hits are counted, not timed.
            let (kind, threshold) = match floor.unit.as_str() {
                "bytes" | "ratio" => (Kind::Count, limits.counts),
                _ => (Kind::Ratio, limits.floor),
            };
            add(
                format!("times {}", floor.what),
                number(kind, Unit::Ratio, rising, threshold, NONE),
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
    let few =
        before.kind != Kind::Count && before.values.len().min(after.values.len()) < REPEATS_MIN;
    let least = if few {
        FEW_REPEATS * threshold
    } else {
        threshold
    };
    let allowed = least.max(spread);
    // A ratio that the repeats before had too is no news, however far from their middle.
    let seen = before.kind == Kind::Ratio
        && before.values.iter().any(|old| match before.rising {
            true => *old <= new,
            false => *old >= new,
        });
    let finding = if worse > allowed && seen {
        Finding::Noisy
    } else if worse > allowed {
        Finding::Worse
    } else if -worse > allowed {
        Finding::Better
    } else if worse <= threshold {
        Finding::Same
    } else if few {
        Finding::TooFew
    } else {
        Finding::Noisy
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
            if old.is_thin || new.is_thin {
                continue;
            }
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

/// Numbers of rows on both sides that some repeat now lacks: a row's name and a number's.
pub(crate) fn lacking(
    before: &BTreeMap<String, Vec<Record>>,
    after: &BTreeMap<String, Vec<Record>>,
) -> Vec<(String, String)> {
    let limits = Thresholds::default();
    let mut all = Vec::new();
    for (bench, old) in before {
        let Some(new) = after.get(bench) else {
            continue;
        };
        let found = series(new, &limits);
        for (metric, series) in series(old, &limits) {
            let now = found.get(&metric).map_or(0, |found| found.values.len());
            // A number that not every repeat had before need not be in every one now.
            let always = series.values.len() == old.len();
            if now == 0 || always && now < new.len() {
                all.push((bench.clone(), metric));
            }
        }
    }
    all
}

/// The numbers of a row whose medians became worse, by however little, and those that it lacks.
pub(crate) fn worsened(before: &[Record], after: &[Record]) -> Vec<String> {
    let limits = Thresholds::default();
    let found = series(after, &limits);
    let mut all = Vec::new();
    for (metric, old) in series(before, &limits) {
        let Some(new) = found.get(&metric) else {
            all.push(format!("{metric} is missing"));
            continue;
        };
        if old.is_thin || new.is_thin {
            continue;
        }
        let (was, is) = (median(&old.values), median(&new.values));
        let worse = if old.rising { is < was } else { is > was };
        if worse {
            let (was, is) = (show(was, old.unit), show(is, old.unit));
            all.push(format!("{metric} {was} to {is}"));
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
            match one.finding == Finding::Worse {
                true => "WORSE",
                false => one.finding.words(),
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
            least: NONE,
            clocked: 0.0,
            is_thin: false,
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
    }

    #[test]
    fn few_repeats_find_what_is_much_worse_and_doubt_only_what_may_be() {
        let one = |value| times(&[value]);
        let finding = |after: f64| judge(&one(100.0), &one(after)).3;
        assert_eq!(finding(1000.0), Finding::Worse, "ten times");
        assert_eq!(finding(131.0), Finding::Worse);
        assert_eq!(finding(112.0), Finding::TooFew);
        assert_eq!(finding(108.0), Finding::Same);
        assert_eq!(finding(88.0), Finding::Same);
        assert_eq!(finding(50.0), Finding::Better, "much better is no doubt");
        let swinging = times(&[100.0, 160.0, 60.0, 130.0, 70.0]);
        assert_eq!(judge(&swinging, &one(140.0)).3, Finding::TooFew);
    }

    #[test]
    fn counts_need_one_repeat_and_may_not_leave_zero() {
        let count = |value| Series {
            kind: Kind::Count,
            threshold: 0.05,
            least: COUNTS,
            ..times(&[value])
        };
        assert_eq!(judge(&count(0.0), &count(0.0)).3, Finding::Same);
        assert_eq!(judge(&count(0.0), &count(0.01)).3, Finding::Worse);
        assert_eq!(judge(&count(2.0), &count(2.09)).3, Finding::Same);
        assert_eq!(judge(&count(2.0), &count(2.2)).3, Finding::Worse);
        assert_eq!(judge(&count(2.0), &count(1.0)).3, Finding::Better);
    }

    #[test]
    fn small_counts_that_grow_manyfold_are_found_and_counts_may_vary_as_they_did() {
        let flushes = |values: &[f64]| Series {
            kind: Kind::Count,
            threshold: 0.0,
            least: COUNTS,
            clocked: 0.25,
            ..times(values)
        };
        let buffered = flushes(&[0.000_741, 0.000_747, 0.000_765, 0.000_75, 0.000_746]);
        let finding = |after: f64| judge(&buffered, &flushes(&[after])).3;
        assert_eq!(finding(0.005_25), Finding::Worse, "seven times");
        assert_eq!(finding(0.001), Finding::Same, "a slower machine");
        assert_eq!(
            judge(&flushes(&[0.0]), &flushes(&[0.001])).3,
            Finding::Worse
        );
        // Group commits: two builds that are one differ like this, so do two hours.
        let groups = flushes(&[0.30, 0.34, 0.36, 0.32, 0.38]);
        let finding = |after: f64| judge(&groups, &flushes(&[after])).3;
        assert_eq!(finding(0.39), Finding::Same);
        assert_eq!(finding(0.43), Finding::Worse);
        // One transaction, one flush: no repeat differs, and nothing more is let pass.
        let solo = flushes(&[1.0, 1.0, 1.001, 1.0, 1.0]);
        let finding = |after: f64| judge(&solo, &flushes(&[after])).3;
        assert_eq!(finding(1.004), Finding::Same);
        assert_eq!(finding(1.006), Finding::Worse);
        // A little is let pass of what varied a little.
        let merges = flushes(&[1.631, 1.635, 1.624, 1.630, 1.630]);
        let finding = |after: f64| judge(&merges, &flushes(&[after])).3;
        assert_eq!(finding(1.65), Finding::Same);
        assert_eq!(finding(1.7), Finding::Worse);
        // What swings only now was not let do so.
        let now = flushes(&[1.0, 1.2, 1.2, 1.2, 1.3]);
        assert_eq!(judge(&solo, &now).3, Finding::Worse);
    }

    #[test]
    fn a_ratio_that_was_met_before_is_no_news() {
        let ratio = |values: &[f64]| Series {
            kind: Kind::Ratio,
            threshold: 0.25,
            ..times(values)
        };
        let two_speeds = ratio(&[3.4, 2.6, 12.4, 2.9, 13.4]);
        let finding = |after: f64| judge(&two_speeds, &ratio(&[after; 5])).3;
        assert_eq!(finding(2.5), Finding::Same);
        assert_eq!(finding(12.9), Finding::Noisy);
        assert_eq!(finding(13.5), Finding::Worse);
        let one = ratio(&[2.6, 2.7, 2.8, 2.7, 2.9]);
        assert_eq!(judge(&one, &ratio(&[3.6; 5])).3, Finding::Worse);
        let hits = |values: &[f64]| Series {
            rising: true,
            ..ratio(values)
        };
        let steady = hits(&[0.99, 0.98, 0.99, 0.6, 0.99]);
        assert_eq!(judge(&steady, &hits(&[0.65; 5])).3, Finding::Noisy);
        assert_eq!(judge(&steady, &hits(&[0.5; 5])).3, Finding::Worse);
    }
}
