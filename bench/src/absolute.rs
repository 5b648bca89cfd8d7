//! Absolute targets of rows, where a profile has them: what its kind of machine must reach, whatever its floors say.
//! Spec: `performance_targets_v0`.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::results::Record;
use crate::stats::median;
use crate::units::{Unit, show};

/// What one row must reach; what is not named is not judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Nanoseconds of the median operation, at most.
    pub(crate) p50_ns: Option<f64>,
    /// Of the 99th percentile, at most.
    pub(crate) p99_ns: Option<f64>,
    /// Operations a second, at least.
    pub(crate) ops_per_sec: Option<f64>,
    /// Flushes a transaction, at most; compared to two decimals.
    pub(crate) fsyncs_per_txn: Option<f64>,
}

/// Targets by the rows' names.
pub(crate) type Targets = BTreeMap<String, Target>;

/// One number of a row held against its target.
#[derive(Debug, PartialEq)]
pub(crate) struct Held {
    /// The row's name, without `bench/`.
    row: String,
    /// Which number, its unit, and whether large is good.
    number: (&'static str, Unit, bool),
    measured: f64,
    target: f64,
}

impl Held {
    /// On the wrong side.
    pub(crate) fn missed(&self) -> bool {
        match self.number {
            (_, _, true) => self.measured < self.target,
            // A count over a time has an odd transaction at its ends.
            (_, Unit::Ratio, false) => self.measured > self.target + 0.005,
            (_, _, false) => self.measured > self.target,
        }
    }
}

impl Target {
    /// The first of its numbers that nothing can be held against.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self {
            p50_ns,
            p99_ns,
            ops_per_sec,
            fsyncs_per_txn,
        } = *self;
        let all = [
            ("p50_ns", p50_ns),
            ("p99_ns", p99_ns),
            ("ops_per_sec", ops_per_sec),
            ("fsyncs_per_txn", fsyncs_per_txn),
        ];
        let wrong = |number: f64| !number.is_finite() || number < 0.0;
        let (name, number) = all
            .into_iter()
            .find_map(|(name, number)| Some((name, number.filter(|number| wrong(*number))?)))?;
        Some(format!("{name} is {number}, not from 0 on"))
    }
}

/// Holds the medians of a row's repeats against its targets.
pub(crate) fn hold(name: &str, records: &[Record], targets: &Targets) -> Vec<Held> {
    let Some(target) = targets.get(name) else {
        return Vec::new();
    };
    let of = |number: &dyn Fn(&Record) -> Option<f64>| {
        let values: Vec<f64> = records.iter().filter_map(number).collect();
        (!values.is_empty()).then(|| median(&values))
    };
    let results = [
        (
            ("p50", Unit::Nanos, false),
            target.p50_ns,
            of(&|record| Some(record.results.latency_ns.p50)),
        ),
        (
            ("p99", Unit::Nanos, false),
            target.p99_ns,
            of(&|record| Some(record.results.latency_ns.p99)),
        ),
        (
            ("throughput", Unit::PerSecond, true),
            target.ops_per_sec,
            of(&|record| Some(record.results.ops_per_sec)),
        ),
        (
            ("flushes per txn", Unit::Ratio, false),
            target.fsyncs_per_txn,
            of(&|record| record.results.fsyncs_per_txn),
        ),
    ];
    let held = results
        .into_iter()
        .filter_map(|(number, target, measured)| {
            Some(Held {
                row: name.trim_start_matches("bench/").to_owned(),
                number,
                measured: measured?,
                target: target?,
            })
        });
    held.collect()
}

/// The table of them.
pub(crate) fn table(all: &[Held]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(vec!["row", "number", "measured", "target", ""]);
    for column in 2..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for held in all {
        let (number, unit, rising) = held.number;
        let sign = if rising { "≥" } else { "≤" };
        table.add_row(vec![
            held.row.clone(),
            number.to_owned(),
            show(held.measured, unit),
            format!("{sign} {}", show(held.target, unit)),
            if held.missed() { "MISSED" } else { "met" }.to_owned(),
        ]);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    #[test]
    fn each_number_is_held_against_its_target_and_no_other() {
        let mut record = record();
        record.results.fsyncs_per_txn = Some(1.004);
        let (name, latency) = (record.bench_name.clone(), record.results.latency_ns);
        let held = |target: Target| {
            let targets = Targets::from([(name.clone(), target)]);
            let all = hold(&name, std::slice::from_ref(&record), &targets);
            all.iter().map(Held::missed).collect::<Vec<_>>()
        };
        let exact = Target {
            p50_ns: Some(latency.p50),
            p99_ns: Some(latency.p99),
            ops_per_sec: Some(record.results.ops_per_sec),
            fsyncs_per_txn: Some(1.0),
        };
        assert_eq!(held(exact), [false; 4]);
        let beyond = Target {
            p50_ns: Some(latency.p50 * 0.99),
            p99_ns: Some(latency.p99 * 0.99),
            ops_per_sec: Some(record.results.ops_per_sec * 1.01),
            fsyncs_per_txn: Some(0.99),
        };
        assert_eq!(held(beyond), [true; 4]);
        assert_eq!(held(Target::default()), [false; 0]);
        let other = Targets::from([("bench/other".to_owned(), exact)]);
        assert_eq!(hold(&name, &[record.clone()], &other), []);
        let shown = table(&hold(
            &name,
            &[record.clone()],
            &Targets::from([(name.clone(), beyond)]),
        ));
        assert_eq!(shown.matches("MISSED").count(), 4, "{shown}");
        let odd = Target {
            p99_ns: Some(f64::NAN),
            ..exact
        };
        assert!(odd.fault().unwrap().contains("p99_ns"));
        assert_eq!(exact.fault(), None);
    }
}
