//! Stacks and how often each was met.

use std::collections::BTreeMap;

/// Samples by stack, the outermost function first; the thread's name is the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stacks(BTreeMap<Vec<String>, u64>);

impl Stacks {
    /// Adds a stack, outermost function first.
    pub(super) fn add(&mut self, thread: &str, frames: impl Iterator<Item = String>, count: u64) {
        // A blank or a semicolon would end a name in the folded form.
        let clean = |name: String| name.replace([';', '\n'], ":");
        let thread = std::iter::once(thread.trim().to_owned());
        let stack: Vec<String> = thread.chain(frames).map(clean).collect();
        *self.0.entry(stack).or_default() += count;
    }

    /// What `perf script -F comm,ip,sym` prints: a line with the thread, a line a frame, innermost first, an empty line.
    pub(super) fn of_perf(text: &str) -> Self {
        let mut all = Self::default();
        let mut thread = "";
        let mut frames: Vec<String> = Vec::new();
        for line in text.lines().chain([""]) {
            if line.trim().is_empty() {
                if !thread.is_empty() {
                    all.add(thread, frames.drain(..).rev(), 1);
                }
                thread = "";
                frames.clear();
            } else if thread.is_empty() {
                thread = line.trim().trim_end_matches(':');
            } else if let Some((_address, symbol)) = line.trim().split_once(' ') {
                let symbol = symbol.trim();
                let symbol = symbol.rsplit_once("+0x").map_or(symbol, |(name, _)| name);
                frames.push(format!("{:#}", rustc_demangle::demangle(symbol)));
            }
        }
        all
    }

    /// Samples in all.
    pub(super) fn samples(&self) -> u64 {
        self.0.values().sum()
    }

    /// Only what was measured: what lies within `around`, from there on, and everything of threads whose names begin with
    /// `engine`.
    pub(super) fn timed(&self, around: &str, engine: &str) -> Self {
        let mut all = Self::default();
        for (stack, count) in &self.0 {
            let Some((thread, frames)) = stack.split_first() else {
                continue;
            };
            let within = frames.iter().position(|frame| frame.starts_with(around));
            let kept = match within {
                Some(at) => frames.get(at..).unwrap_or_default(),
                None if thread.starts_with(engine) => frames,
                None => continue,
            };
            all.add(thread, kept.iter().cloned(), *count);
        }
        all
    }

    /// Without the stacks that went through a function of this path.
    pub(super) fn without(mut self, path: &str) -> Self {
        self.0
            .retain(|stack, _| !stack.iter().any(|frame| frame.contains(path)));
        self
    }

    /// One stack a line, its functions separated by semicolons, then a blank and the samples.
    pub(super) fn folded(&self) -> String {
        let lines = self.0.iter();
        lines
            .map(|(stack, count)| format!("{} {count}\n", stack.join(";")))
            .collect()
    }
}

/// A function's name with the path that line tables leave out of it, made from its source file:
/// `.../bench/src/sample.rs` is `nsbench::sample`.
pub(super) fn qualified(name: &str, file: &str) -> String {
    const OURS: [(&str, &str); 4] = [
        ("engine", "northstardb"),
        ("io", "northstar_io"),
        ("bench", "nsbench"),
        ("hard", "nshard"),
    ];
    let plain = name.split('<').next().unwrap_or(name);
    let Some((dir, path)) = file.rsplit_once("/src/") else {
        return name.to_owned();
    };
    if plain.contains("::") || plain.is_empty() {
        return name.to_owned();
    }
    let folder = dir.rsplit('/').next().unwrap_or(dir);
    let ours = OURS.iter().find(|(ours, _)| *ours == folder);
    // A folder of the registry ends with the version: `hashbrown-0.15.2`.
    let other = folder
        .rsplit_once('-')
        .filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()))
        .map_or(folder, |(name, _)| name);
    let package = ours.map_or(other, |(_, package)| package);
    let modules = path.trim_end_matches(".rs").split('/');
    let modules = modules.filter(|module| !matches!(*module, "mod" | "lib" | "main"));
    let parts: Vec<&str> = std::iter::once(package)
        .chain(modules)
        .chain([name])
        .collect();
    parts.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
nsbench 
\t    55e0 northstardb::tree::search+0x10 (inside)
\t    55e1 nsbench::sample::timed_loop+0x2a
\t    55e2 nsbench::main

nsbench 
\t    55e0 northstardb::tree::search+0x14 (inside)
\t    55e1 nsbench::sample::timed_loop+0x2a
\t    55e2 nsbench::main

git 
\t    7f00 mmap64

nsbench 
\t    55e9 nsbench::data::load
\t    55e2 nsbench::main

northstar-log 
\t    55f0 [unknown]
\t    55f1 _ZN11northstardb3log6append17h0123456789abcdefE
";

    #[test]
    fn stacks_of_perf_are_folded_from_the_outermost_function_on() {
        let all = Stacks::of_perf(SCRIPT);
        assert_eq!(all.samples(), 5);
        let folded = all.folded();
        let wanted =
            "nsbench;nsbench::main;nsbench::sample::timed_loop;northstardb::tree::search 2\n";
        assert!(folded.contains(wanted), "{folded}");
        assert!(
            folded.contains("northstar-log;northstardb::log::append;[unknown] 1"),
            "{folded}"
        );
    }

    #[test]
    fn floors_that_run_beside_a_row_are_left_out() {
        let mut all = Stacks::default();
        for name in ["<nsbench::floor::AppendFloor>::run", "northstardb::get"] {
            all.add("nsbench", [name.to_owned()].into_iter(), 1);
        }
        let kept = all.without("nsbench::floor::");
        assert_eq!(kept.folded(), "nsbench;northstardb::get 1\n");
    }

    #[test]
    fn names_without_a_path_get_that_of_their_source() {
        let cases = [
            (
                "timed_loop<x::Y>",
                "/a/bench/src/sample.rs",
                "nsbench::sample::timed_loop<x::Y>",
            ),
            ("get", "/a/engine/src/tree/mod.rs", "northstardb::tree::get"),
            (
                "get",
                "/r/library/core/src/slice/index.rs",
                "core::slice::index::get",
            ),
            (
                "get",
                "/c/hashbrown-0.15.2/src/map.rs",
                "hashbrown::map::get",
            ),
            (
                "std::rt::start",
                "/r/library/std/src/rt.rs",
                "std::rt::start",
            ),
            ("main", "Unknown", "main"),
        ];
        for (name, file, wanted) in cases {
            assert_eq!(qualified(name, file), wanted);
        }
    }

    #[test]
    fn only_what_was_timed_is_kept_and_the_engines_own_threads() {
        let timed = Stacks::of_perf(SCRIPT).timed("nsbench::sample::timed_loop", "northstar-");
        assert_eq!(
            timed.folded(),
            "northstar-log;northstardb::log::append;[unknown] 1\n\
             nsbench;nsbench::sample::timed_loop;northstardb::tree::search 2\n"
        );
    }
}
