//! Marks in the sources: unsafe code outside its list, ignored tests, todos without an issue, machine paths.

use crate::repo::{Repo, code_of, has_word};

/// The files that may hold unsafe code, and why each must.
pub(crate) const UNSAFE_FILES: &[(&str, &str)] = &[
    ("io/src/sys.rs", "system calls"),
    ("io/src/ring.rs", "ring memory shared with the kernel"),
    (
        "io/src/buf.rs",
        "aligned memory that the kernel owns during a transfer",
    ),
    ("io/src/tape.rs", "long bytes in a mapping"),
    (
        "engine/src/cache/arena.rs",
        "page frames shared between readers and I/O",
    ),
    (
        "engine/src/delta/arena.rs",
        "memory that readers see while one writer adds to it",
    ),
    (
        "engine/src/tree/simd.rs",
        "vector instructions chosen at run time",
    ),
    (
        "engine/src/prefetch.rs",
        "asking the processor for cache lines",
    ),
    ("bench/src/alloc.rs", "the counting allocator"),
    (
        "bench/src/floor/ring.rs",
        "transfers of the floor through a ring of the kernel's",
    ),
    (
        "bench/rivals/src/rivals/lmdb.rs",
        "opening LMDB, whose binding asks who else has the directory",
    ),
    ("hard/src/alloc.rs", "the failing allocator"),
];

/// Unsafe code in a file that is not on the list. `#![forbid(unsafe_code)]` and the like are not unsafe code.
pub(crate) fn unsafe_faults(repo: &Repo) -> Vec<String> {
    let listed = |path: &str| UNSAFE_FILES.iter().any(|(listed, _)| *listed == path);
    repo.checked_sources()
        .filter(|(path, _)| !listed(path))
        .flat_map(|(path, text)| {
            let guilty = |line: &str| {
                let code = code_of(line);
                has_word(code, "unsafe")
                    || (has_word(code, "unsafe_code") && !has_word(code, "forbid"))
            };
            lines(
                path,
                text,
                guilty,
                "unsafe code in a file that is not listed for it",
            )
        })
        .collect()
}

/// Tests that do not run.
pub(crate) fn ignored_tests(repo: &Repo) -> Vec<String> {
    repo.checked_sources()
        .flat_map(|(path, text)| {
            lines(
                path,
                text,
                |line| line.trim_start().starts_with("#[ignore"),
                "a test that does not run",
            )
        })
        .collect()
}

/// Todos that name no issue: `TODO(#12)` is the form that passes.
pub(crate) fn todos(repo: &Repo) -> Vec<String> {
    let guilty = |line: &str| {
        ["TODO", "FIXME", "XXX"]
            .into_iter()
            .any(|mark| has_word(line, mark) && !line.contains("TODO(#"))
    };
    repo.checked_sources()
        .flat_map(|(path, text)| lines(path, text, guilty, "a todo without an issue"))
        .collect()
}

/// Paths that exist on one machine only.
pub(crate) fn machine_paths(repo: &Repo) -> Vec<String> {
    let guilty = |line: &str| {
        ["/home/", "/root/", "/Users/", "/work/"]
            .into_iter()
            .any(|path| {
                line.match_indices(path).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| {
                        before.is_alphanumeric() || "._-*}~".contains(before)
                    })
                })
            })
    };
    repo.files()
        .filter(|(path, _)| !path.starts_with("spec/xtask/") && !path.ends_with(".lock"))
        .flat_map(|(path, text)| lines(path, text, guilty, "a path of one machine"))
        .collect()
}

fn lines(path: &str, text: &str, guilty: impl Fn(&str) -> bool, what: &str) -> Vec<String> {
    text.lines()
        .zip(1..)
        .filter(|(line, _)| guilty(line))
        .map(|(line, number)| format!("{path}:{number}: {what}: {}", line.trim()))
        .collect()
}
