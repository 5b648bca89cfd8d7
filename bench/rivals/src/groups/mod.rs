//! The rows, a file for each group of them.

mod beyond;
mod churn;
mod commit;
mod history;
mod load;
mod mixed;
mod read;
mod reopen;
mod ycsb;

pub(crate) use reopen::{check_filled, fill};

use crate::bench::{Bench, Measured};
use crate::content::Content;
use crate::error::Result;
use crate::rival::Setup;
use crate::scale::Scale;
use crate::units::Unit;

/// One number of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    /// Its name in results.
    pub(crate) id: &'static str,
    /// Over its column.
    pub(crate) title: &'static str,
    /// What it counts.
    pub(crate) unit: Unit,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

impl Metric {
    const fn more(id: &'static str, title: &'static str, unit: Unit) -> Self {
        Self {
            id,
            title,
            unit,
            more_is_better: true,
        }
    }

    const fn less(id: &'static str, title: &'static str, unit: Unit) -> Self {
        Self {
            id,
            title,
            unit,
            more_is_better: false,
        }
    }
}

const P50: Metric = Metric::less("p50_ns", "p50", Unit::Nanos);
const P99: Metric = Metric::less("p99_ns", "p99", Unit::Nanos);

/// A measurement in the process that has the engine open.
pub(crate) type RunRow = fn(&mut Bench) -> Result<Measured>;

/// How a row is run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    /// On the table that the group's rows share.
    Shared(RunRow),
    /// On an empty database of its own in every repeat.
    Empty(RunRow),
    /// On a loaded database of its own in every repeat.
    Loaded(RunRow),
    /// Opening, by a new process, what another has filled and left: killed, or closed.
    Reopen {
        /// Whether it was killed.
        killed: bool,
    },
}

/// One line of questions and answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// `<group>/<words>`.
    pub(crate) name: &'static str,
    /// What it answers.
    pub(crate) question: &'static str,
    /// The first decides who is best.
    pub(crate) metrics: &'static [Metric],
    /// How it is run.
    pub(crate) run: Run,
    /// One repeat is enough: it is long.
    pub(crate) once: bool,
}

/// Rows that are set up alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// The first part of its rows' names.
    pub(crate) name: &'static str,
    /// Its rows.
    pub(crate) rows: &'static [Row],
    /// The table and how engines are opened.
    pub(crate) setup: fn(&Scale) -> (Content, Setup),
}

/// Every group.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "load",
        rows: load::ROWS,
        setup: ordinary,
    },
    Group {
        name: "read",
        rows: read::ROWS,
        setup: ordinary,
    },
    Group {
        name: "commit",
        rows: commit::ROWS,
        setup: ordinary,
    },
    Group {
        name: "mixed",
        rows: mixed::ROWS,
        setup: ordinary,
    },
    Group {
        name: "beyond",
        rows: beyond::ROWS,
        setup: |scale| (scale.large_content(), scale.small_setup()),
    },
    Group {
        name: "churn",
        rows: churn::ROWS,
        setup: ordinary,
    },
    Group {
        name: "history",
        rows: history::ROWS,
        setup: |scale| {
            let setup = Setup {
                history: true,
                ..scale.setup()
            };
            (scale.content(), setup)
        },
    },
    Group {
        name: "reopen",
        rows: reopen::ROWS,
        setup: ordinary,
    },
    Group {
        name: "ycsb",
        rows: ycsb::ROWS,
        setup: |scale| (scale.ycsb_content(), scale.setup()),
    },
];

fn ordinary(scale: &Scale) -> (Content, Setup) {
    (scale.content(), scale.setup())
}

/// The row and its group, by name.
pub(crate) fn find(name: &str) -> Option<(&'static Group, &'static Row)> {
    let rows = |group: &'static Group| group.rows.iter().map(move |row| (group, row));
    GROUPS
        .iter()
        .flat_map(rows)
        .find(|(_, row)| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_say_their_group_and_every_row_is_described() {
        let spec = include_str!("../../../../spec/benchmarks_v0.md");
        let mut names = BTreeSet::new();
        for group in GROUPS {
            for row in group.rows {
                assert!(names.insert(row.name), "{} stands twice", row.name);
                assert!(
                    row.name.starts_with(&format!("{}/", group.name)),
                    "{}",
                    row.name
                );
                assert!(!row.metrics.is_empty(), "{}", row.name);
                let described = format!("| `versus/{}` |", row.name);
                assert!(spec.contains(&described), "{} is not described", row.name);
            }
        }
    }
}
