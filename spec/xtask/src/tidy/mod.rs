//! Checks that no compiler makes: layers, spec links, marks in the sources, README. Each gives its faults in words.

pub(crate) mod layers;
pub(crate) mod marks;
pub(crate) mod readme;
pub(crate) mod size;
pub(crate) mod specs;
#[cfg(test)]
mod tests;

use crate::repo::Repo;

/// One check: the faults it finds.
pub(crate) type Check = fn(&Repo) -> Vec<String>;

/// Every check, by name.
pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("layers", layers::faults),
    ("spec links", specs::faults),
    ("bench rows and figures", specs::bench_faults),
    ("unsafe code", marks::unsafe_faults),
    ("ignored tests", marks::ignored_tests),
    ("todos without an issue", marks::todos),
    ("machine paths", marks::machine_paths),
    ("file size", size::faults),
    ("README commands", readme::faults),
];
