//! `nsbench doctor`: what on this machine costs speed or durability, why, and how to change it.
//!
//! What is looked at is read once, into [`Facts`]; a finding is a function of them, so that tests can show what is said of
//! machines that are not at hand. Nothing is changed and nothing needs privileges.

mod device;
mod facts;
mod system;

use std::path::Path;

use serde::Serialize;

use crate::cli::{Ended, say};
use crate::error::{BenchError, Result};

use facts::Facts;

/// What a finding costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Costs {
    /// What was acknowledged may be lost.
    Durability,
    /// It is slower than the machine could be.
    Speed,
    /// Figures vary from run to run.
    Noise,
    /// Worth knowing, costs nothing by itself.
    Note,
}

impl Costs {
    const ALL: [Self; 4] = [Self::Durability, Self::Speed, Self::Noise, Self::Note];

    const fn word(self) -> &'static str {
        match self {
            Self::Durability => "durability",
            Self::Speed => "speed",
            Self::Noise => "noise",
            Self::Note => "note",
        }
    }

    /// The word as a terminal shows it; elsewhere the stream drops the colour.
    fn coloured(self) -> String {
        let colour = match self {
            Self::Durability => "1;31",
            Self::Speed => "1;33",
            Self::Noise => "36",
            Self::Note => "2",
        };
        format!("\u{1b}[{colour}m{}\u{1b}[0m", self.word())
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// A short name for programs.
    id: &'static str,
    costs: Costs,
    what: String,
    why: &'static str,
    how: String,
    /// Where it was read, and where it is explained.
    source: String,
}

impl Finding {
    fn new(
        id: &'static str,
        costs: Costs,
        what: impl Into<String>,
        why: &'static str,
        how: impl Into<String>,
        source: impl Into<String>,
    ) -> Self {
        Self {
            id,
            costs,
            what: what.into(),
            why,
            how: how.into(),
            source: source.into(),
        }
    }
}

/// Everything that the facts give, the dearest first.
fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut found = device::findings(facts);
    found.extend(system::findings(facts));
    found.sort_by_key(|finding| finding.costs);
    found
}

/// Looks at the machine with the eyes of a database in `dir`. With `check`, what costs durability or speed ends in 1.
pub(crate) fn run(dir: &Path, json: bool, check: bool) -> Result<Ended> {
    if !dir.is_dir() {
        let why = format!("{} is no directory", dir.display());
        return Err(BenchError::BadUse(why));
    }
    let facts = Facts::read(dir);
    let found = diagnose(&facts);
    if json {
        let text = serde_json::json!({ "machine": facts.machine, "findings": found });
        say(&format!("{text:#}\n"));
    } else {
        say(&text(&facts, &found));
    }
    let dear = |finding: &Finding| finding.costs <= Costs::Speed;
    Ok(Ended::from(!(check && found.iter().any(dear))))
}

fn text(facts: &Facts, found: &[Finding]) -> String {
    let machine = &facts.machine;
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".to_owned());
    let ring = machine.io_uring.as_ref();
    let queue = machine.queue.clone().unwrap_or_default();
    let flag = |flag: Option<bool>, yes: &str, no: &str| match flag {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => format!("{yes}: unknown"),
    };
    let mut text = format!(
        "{}\n{}, {} cores, {}\n{} on {}, scheduler {}, write cache {}, {}, {}\nio_uring {}{}\n\n",
        facts.dir.display(),
        known(&machine.cpu_model),
        machine.core_count,
        machine.os,
        known(&machine.fs),
        known(&machine.device),
        known(&queue.scheduler),
        known(&queue.write_cache),
        flag(queue.fua, "FUA", "no FUA"),
        flag(machine.direct_io, "O_DIRECT", "no O_DIRECT"),
        ring.map_or("unknown", |ring| ring.mode.as_str()),
        ring.map_or_else(String::new, |ring| format!(
            " ({})",
            ring.setup_flags.join(", ")
        )),
    );
    for finding in found {
        text.push_str(&format!(
            "{} {}: {}\n  why     {}\n  change  {}\n  source  {}\n",
            finding.costs.coloured(),
            finding.id,
            finding.what,
            finding.why,
            finding.how,
            finding.source
        ));
    }
    let counts: Vec<String> = Costs::ALL
        .into_iter()
        .filter_map(|costs| {
            let count = found.iter().filter(|one| one.costs == costs).count();
            (count > 0).then(|| format!("{count} {}", costs.word()))
        })
        .collect();
    text.push_str(&match counts.is_empty() {
        true => "nothing found\n".to_owned(),
        false => format!("\nfindings: {}\n", counts.join(", ")),
    });
    text
}

#[cfg(test)]
mod tests;
