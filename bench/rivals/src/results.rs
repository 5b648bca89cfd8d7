//! The results of a comparison as one JSON file. Spec: BV-006.
//!
//! The published schema, `spec/nsbench_versus.schema.json`, is made from these types.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::machine::{Git, Machine};
use crate::scale::Scale;

/// Raised when a field changes its meaning.
pub(crate) const SCHEMA: u32 = 1;

/// One run of the comparison.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// The source's commit, where it is known.
    pub(crate) git: Option<Git>,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// Where everything random started.
    pub(crate) seed: u64,
    /// Repeats of each row, in turn over the engines.
    pub(crate) repeats: u32,
    /// Whether memory was bounded where the data is four times as large.
    pub(crate) memory_bounded: bool,
    /// When it began.
    pub(crate) timestamp_unix_s: u64,
    /// The engines, in the order in which they took turns, those that were left out among them.
    pub(crate) engines: Vec<EngineFacts>,
    /// The rows, in the order in which they ran.
    pub(crate) rows: Vec<RowResult>,
}

/// An engine.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineFacts {
    /// Its name.
    pub(crate) name: String,
    /// Its package and version, from the lock file.
    pub(crate) version: String,
    /// What makes its commits durable, in the words of its documentation.
    pub(crate) durable: String,
    /// What else its figures depend on.
    pub(crate) notes: String,
    /// Why it took no part; absent if it did.
    pub(crate) skipped: Option<String>,
}

/// A row.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowResult {
    /// `<group>/<words>`.
    pub(crate) name: String,
    /// What it answers.
    pub(crate) question: String,
    /// What its columns are; the first decides who is best.
    pub(crate) metrics: Vec<MetricFacts>,
    /// One for each engine that took part.
    pub(crate) engines: Vec<EngineResult>,
}

/// A column.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricFacts {
    /// Its name in `repeats` and `values`.
    pub(crate) id: String,
    /// For people.
    pub(crate) title: String,
    /// `ns`, `per_second`, `bytes`, `bytes_per_second`, `ratio` or `count`.
    pub(crate) unit: String,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

/// An engine's part of a row.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineResult {
    /// The engine's name.
    pub(crate) engine: String,
    /// How it went.
    pub(crate) status: Status,
    /// What was wrong or failed.
    pub(crate) why: Option<String>,
    /// What each repeat measured, by the metric's name.
    pub(crate) repeats: Vec<BTreeMap<String, f64>>,
    /// Over the repeats, by the metric's name.
    pub(crate) values: BTreeMap<String, Value>,
    /// Rows that were compared with what must be there, in the loops and after them.
    pub(crate) rows_checked: u64,
}

/// How a row went on an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Measured, and every answer was right.
    Ok,
    /// An answer was wrong.
    Wrong,
    /// It reported an error, or its process ended.
    Failed,
}

/// A metric over the repeats.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Value {
    /// The median.
    pub(crate) median: f64,
    /// Half of the distance between the least and the greatest, as a part of the median.
    pub(crate) spread: f64,
    /// How it compares with the best engine's, which has 1: below 1 is worse, whichever way the metric runs.
    pub(crate) of_best: f64,
}

impl Results {
    /// Writes the file, unless it would say what no run can give.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let took_part = self.engines.iter().filter(|one| one.skipped.is_none());
        let took_part: Vec<&str> = took_part.map(|one| one.name.as_str()).collect();
        let faults = |row: &RowResult| row.fault(&took_part, self.repeats);
        if let Some(fault) = self.rows.iter().find_map(faults) {
            return Err(Error::file(path)(std::io::Error::other(fault)));
        }
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::file(path)(std::io::Error::other(error)))?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(Error::file(dir))?;
        }
        std::fs::write(path, text + "\n").map_err(Error::file(path))
    }

    /// The published schema.
    pub(crate) fn schema() -> String {
        let schema = schemars::schema_for!(Self);
        serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
    }

    /// Whether every engine gave right answers in every row.
    pub(crate) fn is_sound(&self) -> bool {
        let all = self.rows.iter().flat_map(|row| &row.engines);
        all.into_iter().all(|result| result.status == Status::Ok)
    }
}

impl EngineResult {
    /// What no run can give, where a row has the columns `ids` and its sound engines took `repeats` turns each.
    fn fault(&self, ids: &[&str], repeats: usize) -> Option<String> {
        if self.status != Status::Ok {
            return self.why.is_none().then(|| "no reason is given".to_owned());
        }
        if self.repeats.len() != repeats {
            let found = self.repeats.len();
            return Some(format!("{found} repeats, expected {repeats}"));
        }
        // Repeats may hold more numbers than the row has columns.
        let measured = self
            .repeats
            .iter()
            .flatten()
            .map(|(id, number)| (id, *number));
        let of_all = self.values.iter().flat_map(|(id, value)| {
            [value.median, value.spread, value.of_best].map(|number| (id, number))
        });
        let wrong = measured
            .chain(of_all)
            .find(|(_, number)| !(0.0..=f64::MAX).contains(number));
        if let Some((id, number)) = wrong {
            return Some(format!("{id} is {number}, expected a number from 0 on"));
        }
        if let Some(other) = self.values.keys().find(|id| !ids.contains(&id.as_str())) {
            return Some(format!("{other} is no column of the row"));
        }
        let first = ids.first()?;
        (!self.values.contains_key(*first)).then(|| format!("{first} is missing"))
    }
}

impl RowResult {
    /// The first contradiction: a number that cannot be measured, an answer of nobody, a sound result that lacks a column,
    /// engines that did not take as many turns as each other. A row may end after fewer turns than `at_most`, those asked for.
    fn fault(&self, took_part: &[&str], at_most: u32) -> Option<String> {
        let ids: Vec<&str> = self.metrics.iter().map(|metric| &*metric.id).collect();
        let turns = self.engines.iter().map(|result| result.repeats.len()).max();
        let repeats = turns.unwrap_or(0).clamp(1, at_most.max(1) as usize);
        self.engines.iter().find_map(|result| {
            let fault = match took_part.contains(&&*result.engine) {
                true => result.fault(&ids, repeats),
                false => Some("took no part".to_owned()),
            };
            fault.map(|fault| format!("{} of {}: {fault}", self.name, result.engine))
        })
    }

    /// Fills in medians, spreads and how everyone compares with the best.
    pub(crate) fn finish(&mut self) {
        for metric in &self.metrics {
            let mut best: Option<f64> = None;
            for result in &mut self.engines {
                let values = result
                    .repeats
                    .iter()
                    .filter_map(|repeat| repeat.get(&metric.id));
                let Some((median, spread)) = median_and_spread(values.copied().collect()) else {
                    continue;
                };
                let value = Value {
                    median,
                    spread,
                    of_best: 1.0,
                };
                result.values.insert(metric.id.clone(), value);
                if result.status == Status::Ok {
                    let better = |old: f64| match metric.more_is_better {
                        true => old.max(median),
                        false => old.min(median),
                    };
                    best = Some(best.map_or(median, better));
                }
            }
            for result in &mut self.engines {
                if let (Some(value), Some(best)) = (result.values.get_mut(&metric.id), best) {
                    value.of_best = match metric.more_is_better {
                        true => value.median / best.max(f64::MIN_POSITIVE),
                        false => best / value.median.max(f64::MIN_POSITIVE),
                    };
                }
            }
        }
    }
}

/// The median, and half of the range as a part of it.
fn median_and_spread(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values.first()?, values.last()?);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        1 => *values.get(middle)?,
        _ => f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?),
    };
    let spread = match median {
        0.0 => 0.0,
        _ => (last - first) / 2.0 / median,
    };
    Some((median, spread))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An engine, how it went, and what each repeat gave.
    type Given<'a> = (&'a str, Status, &'a [(f64, f64)]);

    /// A row with one metric of each direction.
    pub(crate) fn row(engines: &[Given<'_>]) -> RowResult {
        let metric = |id: &str, unit: &str, more_is_better| MetricFacts {
            id: id.to_owned(),
            title: id.to_owned(),
            unit: unit.to_owned(),
            more_is_better,
        };
        let result = |(name, status, repeats): &Given<'_>| EngineResult {
            engine: (*name).to_owned(),
            status: *status,
            why: (*status != Status::Ok).then(|| "row 3 is missing".to_owned()),
            repeats: repeats
                .iter()
                .map(|(rate, p50)| {
                    BTreeMap::from([("rate".to_owned(), *rate), ("p50".to_owned(), *p50)])
                })
                .collect(),
            values: BTreeMap::new(),
            rows_checked: 1,
        };
        let mut row = RowResult {
            name: "read/get".to_owned(),
            question: "how fast".to_owned(),
            metrics: vec![
                metric("rate", "per_second", true),
                metric("p50", "ns", false),
            ],
            engines: engines.iter().map(result).collect(),
        };
        row.finish();
        row
    }

    #[test]
    fn medians_spreads_and_ratios_are_those_of_the_repeats() {
        let row = row(&[
            (
                "a",
                Status::Ok,
                &[(90.0, 10.0), (100.0, 11.0), (120.0, 12.0)],
            ),
            ("b", Status::Ok, &[(200.0, 22.0), (190.0, 22.0)]),
        ]);
        let value = |engine: usize, metric: &str| row.engines[engine].values[metric];
        assert_eq!(value(0, "rate").median, 100.0);
        assert!((value(0, "rate").spread - 0.15).abs() < 1e-9);
        assert!((value(0, "rate").of_best - 100.0 / 195.0).abs() < 1e-9);
        assert_eq!(
            (value(1, "rate").of_best, value(0, "p50").of_best),
            (1.0, 1.0)
        );
        assert_eq!(value(1, "p50").of_best, 0.5);
    }

    #[test]
    fn a_wrong_engine_is_never_the_best() {
        let row = row(&[
            ("fast", Status::Wrong, &[(900.0, 1.0)]),
            ("right", Status::Ok, &[(100.0, 10.0)]),
        ]);
        assert_eq!(row.engines[1].values["rate"].of_best, 1.0);
        assert!(
            row.engines[0].values["rate"].of_best > 1.0,
            "shown, not counted"
        );
    }

    #[test]
    fn what_no_run_can_give_is_not_written() {
        let of_three = |change: fn(&mut EngineResult)| {
            let turns: &[_] = &[(90.0, 10.0), (100.0, 11.0)];
            let beside = ("beside", Status::Ok, turns);
            let failed = ("failed", Status::Failed, &turns[..1]);
            let mut row = row(&[("a", Status::Ok, turns), beside, failed]);
            change(&mut row.engines[0]);
            row.engines[2].why = Some("it ended".to_owned());
            row
        };
        let fault = |change: fn(&mut EngineResult)| {
            let row = of_three(change);
            let fault = row.fault(&["a", "beside", "failed"], 3).unwrap_or_default();
            fault.replace("read/get of a: ", "")
        };
        assert_eq!(fault(|_| {}), "", "a row may end after fewer turns");
        let too_many = of_three(|_| {}).fault(&["a", "beside", "failed"], 1);
        assert!(too_many.unwrap().ends_with("2 repeats, expected 1"));
        let more = |result: &mut EngineResult| {
            result.repeats[0].insert("beside".to_owned(), 1.0);
        };
        assert_eq!(fault(more), "");
        let nan = |result: &mut EngineResult| {
            result.repeats[1].insert("p50".to_owned(), f64::NAN);
        };
        assert!(fault(nan).starts_with("p50 is NaN"));
        assert_eq!(
            fault(|result| drop(result.repeats.pop())),
            "1 repeats, expected 2"
        );
        assert_eq!(fault(|result| result.values.clear()), "rate is missing");
        assert!(fault(|result| result.status = Status::Failed).contains("no reason"));
        let other = fault(|result| result.engine = "b".to_owned());
        assert_eq!(other, "read/get of b: took no part");
    }

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../../spec/nsbench_versus.schema.json");
        let published = std::fs::read_to_string(path).unwrap();
        assert_eq!(published, Results::schema(), "run `nsrivals schema`");
    }
}
