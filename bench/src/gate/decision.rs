//! What two sets of results come to: the one verdict that every command of the gate gives.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Results;
use crate::cli::{Ended, SelectArgs, say};
use crate::compare::{Compared, Finding, Kind, Thresholds, compare, lacking, table};
use crate::row::is_critical;
use crate::summary::{RowEnd, Summary};

/// Which kinds of numbers decide; the others are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judged {
    /// All: both sides met the same.
    All,
    /// Ratios and counts: the machine's times are not to be trusted.
    NoTimes,
    /// Counts alone.
    Counts,
}

impl Judged {
    /// Whether such numbers decide.
    pub(crate) fn takes(self, kind: Kind) -> bool {
        match self {
            Self::All => true,
            Self::NoTimes => kind != Kind::Time,
            Self::Counts => kind == Kind::Count,
        }
    }
}

/// How rows of the new results ended that have no result in every repeat, with why.
pub(crate) type Ends = BTreeMap<String, (RowEnd, String)>;

/// What was found.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Every number that both sides measured.
    pub(crate) compared: Vec<Compared>,
    /// What keeps a change out, beside numbers that are worse.
    pub(crate) faults: Vec<String>,
    /// What cannot be told, beside numbers that swing.
    pub(crate) doubts: Vec<String>,
    /// What is worth knowing.
    pub(crate) notes: Vec<String>,
    /// Which numbers decided.
    pub(crate) judged: Judged,
    /// What it comes to.
    pub(crate) ended: Ended,
}

/// Holds `after` against `before`. Critical rows and numbers that `before` has must be there again, and no row may have
/// failed; `faults` are those that were found already.
pub(crate) fn decide(
    before: &Results,
    after: &Results,
    ends: &Ends,
    mut faults: Vec<String>,
    judged: Judged,
    limits: &Thresholds,
) -> Decision {
    let compared = compare(before, after, limits);
    let (mut doubts, mut notes) = (Vec::new(), Vec::new());
    for (name, (end, why)) in ends {
        match end {
            RowEnd::Failed => faults.push(format!("{name} failed: {why}")),
            RowEnd::Skipped if before.contains_key(name) && is_critical(name) => doubts.push(
                format!("{name} was measured before and is skipped now: {why}"),
            ),
            RowEnd::Skipped => notes.push(format!("{name} is skipped: {why}")),
            RowEnd::Passed => {}
        }
    }
    for (name, records) in after.iter().filter(|(name, _)| !ends.contains_key(*name)) {
        let repeats = records.first().map_or(0, |record| record.repeats as usize);
        if records.len() < repeats {
            let there = records.len();
            faults.push(format!(
                "{name} has results of {there} of {repeats} repeats"
            ));
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    for name in gone.filter(|name| !ends.contains_key(*name)) {
        match is_critical(name) {
            true => faults.push(format!("{name} was measured before and has no result now")),
            false => notes.push(format!("{name} has no result now")),
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        notes.push(format!("{name} is new"));
    }
    for (name, metric) in lacking(before, after) {
        let text = format!("{name} lacks {metric}, which it had before");
        match is_critical(&name) {
            true => faults.push(text),
            false => notes.push(text),
        }
    }
    let decides = |one: &Compared| one.critical && judged.takes(one.kind);
    let found = |wanted: &[Finding]| {
        let mut decisive = compared.iter().filter(|one| decides(one));
        decisive.any(|one| wanted.contains(&one.finding))
    };
    if !compared.iter().any(decides) && faults.is_empty() {
        doubts.push("no number that decides is on both sides".to_owned());
    }
    let ended = if !faults.is_empty() || found(&[Finding::Worse]) {
        Ended::Regressed
    } else if !doubts.is_empty() || found(&[Finding::Noisy, Finding::TooFew]) {
        Ended::Noisy
    } else {
        Ended::Met
    };
    Decision {
        compared,
        faults,
        doubts,
        notes,
        judged,
        ended,
    }
}

impl Decision {
    /// Shows it and gives the verdict.
    pub(crate) fn tell(&self) -> Ended {
        say(&table(&self.compared, false));
        let parts = [
            ("", &self.notes),
            ("NOT TOLD: ", &self.doubts),
            ("FAILED: ", &self.faults),
        ];
        for (word, lines) in parts {
            for line in lines {
                say(&format!("{word}{line}\n"));
            }
        }
        say(match self.ended {
            Ended::Met => "gate: passed\n",
            Ended::Regressed => {
                "gate: FAILED, a critical row is worse or missing, or a row failed\n"
            }
            Ended::Noisy => {
                "gate: not decided: the machine is too noisy, there are too few repeats, a row is skipped, or nothing that decides was measured\n"
            }
        });
        self.ended
    }
}

/// Rows of the new results that are to be judged: those that the run was asked for and the gate is.
pub(crate) fn expected(
    select: &SelectArgs,
    summary: Option<&Summary>,
    before: &Results,
    after: &Results,
) -> BTreeSet<String> {
    let ends = summary.into_iter().flat_map(|summary| summary.rows.keys());
    let all: BTreeSet<&str> = (before.keys().chain(after.keys()).chain(ends))
        .map(String::as_str)
        .collect();
    let runs = summary.map_or(&[][..], |summary| &summary.asked);
    let mut wanted: BTreeSet<&str> = select.choose(&all);
    if !runs.is_empty() {
        let run: BTreeSet<&str> = runs.iter().flat_map(|run| run.choose(&all)).collect();
        wanted.retain(|name| run.contains(name));
    }
    wanted.into_iter().map(str::to_owned).collect()
}

/// How those rows ended that a summary says have not passed.
pub(crate) fn ends(summary: Option<&Summary>, expected: &BTreeSet<String>) -> Ends {
    let rows = summary.into_iter().flat_map(|summary| &summary.rows);
    rows.filter(|(name, row)| row.end != RowEnd::Passed && expected.contains(*name))
        .map(|(name, row)| {
            let why = row.why.clone().unwrap_or_default();
            (name.clone(), (row.end, why))
        })
        .collect()
}
