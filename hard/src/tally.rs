//! What runs have done, by name: added up over seeds, processes and days.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts by name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What was done.
    pub counts: BTreeMap<String, u64>,
    /// Rare places of the engine, and how often they were reached.
    pub marks: BTreeMap<String, u64>,
    /// What could not be tried here, and why.
    #[serde(default)]
    pub skipped: BTreeMap<String, String>,
    /// The same whenever the same was done, in whatever order.
    #[serde(default)]
    pub hash: u64,
}

impl Tally {
    /// Counts `more` of `what`.
    pub fn add(&mut self, what: &str, more: u64) {
        match self.counts.get_mut(what) {
            Some(count) => *count += more,
            None => drop(self.counts.insert(what.to_owned(), more)),
        }
    }

    /// Says that `what` could not be tried here.
    pub fn skip(&mut self, what: &str, why: &str) {
        self.skipped.insert(what.to_owned(), why.to_owned());
    }

    /// How much of `what` was done.
    #[must_use]
    pub fn get(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds all that another has done.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            self.add(what, *count);
        }
        for (mark, count) in &other.marks {
            *self.marks.entry(mark.clone()).or_default() += count;
        }
        let skipped = other.skipped.iter();
        self.skipped
            .extend(skipped.map(|(what, why)| (what.clone(), why.clone())));
        self.hash = self.hash.wrapping_add(other.hash);
    }

    /// Takes the marks of this process in.
    #[cfg(feature = "internals")]
    pub fn take_marks(&mut self) {
        for (mark, count) in northstardb::internals::marks() {
            *self.marks.entry(mark.to_owned()).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (what, count) in &self.counts {
            write!(f, "{}{count} {what}", if first { "" } else { ", " })?;
            first = false;
        }
        Ok(())
    }
}
