//! How long source files are, without their inline tests.

use crate::repo::{Repo, without_tests};

/// From here on a file holds a second concept, or says here why it does not.
const LINES_MAX: usize = 700;
/// Longer files, each with its reason.
const LONGER: &[(&str, usize, &str)] = &[];

fn sizes(repo: &Repo) -> Vec<(usize, &str)> {
    repo.sources()
        .map(|(path, text)| (without_tests(path, text).lines().count(), path))
        .collect()
}

/// Files beyond the limit.
pub(crate) fn faults(repo: &Repo) -> Vec<String> {
    let limit = |path: &str| {
        LONGER
            .iter()
            .find(|(longer, ..)| *longer == path)
            .map_or(LINES_MAX, |(_, lines, _)| *lines)
    };
    sizes(repo)
        .into_iter()
        .filter(|(lines, path)| *lines > limit(path))
        .map(|(lines, path)| format!("{path}: {lines} lines, the limit is {}", limit(path)))
        .collect()
}

/// The longest files.
pub(crate) fn largest(repo: &Repo, count: usize) -> Vec<(usize, &str)> {
    let mut sizes = sizes(repo);
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.truncate(count);
    sizes
}
