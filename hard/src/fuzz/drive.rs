//! Builds the fuzz targets with AddressSanitizer and libFuzzer, and runs them: `nshard fuzz` and the job of that name.
//!
//! Needs `cargo`, `rustc` and a C++ compiler for libFuzzer, and nothing else: the sanitizer's library comes with rustc.
//! Where one of them is not to be had, that is said through [`Tally::skip`].
//!
//! What is new goes to `target/fuzz/corpus`; an input that breaks a promise to `target/fuzz/found`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use super::Target;
use crate::tally::Tally;
use crate::{During, Failure};

/// Executions of all targets: what the job counts.
pub const EXECUTIONS: &str = "fuzz executions";
/// Kept inputs that were tried again.
pub const REPLAYED: &str = "corpus inputs replayed";
/// An input that takes longer hangs: thousands of times what the slowest one takes.
const HANG_SECONDS: u32 = 60;
/// In the names of inputs that once broke a promise: they are kept for ever.
const FOUND: &str = "found-";
/// Memory of a process under the sanitizer.
const MEMORY_MB: u32 = 3072;

/// How the targets are compiled: counters at every edge, comparisons told to the fuzzer, every access of memory checked.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address";

/// How long each target is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many seconds.
    Seconds(u64),
    /// As many executions as one seed of the job has, from this seed.
    Seed(u64),
}

/// The package of the targets.
#[must_use]
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Where it is built, and where what is found goes.
fn build_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    target.join("fuzz")
}

fn run(command: &mut Command) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{name}: {}: {}", output.status, tail(&said, 12)))
        }
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The last lines of what was said.
fn tail(said: &str, lines: usize) -> String {
    let all: Vec<&str> = said.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn program(variable: &str, name: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()))
}

/// What this machine lacks for fuzzing, if anything; else the name of its platform.
fn platform(dir: &Path) -> Result<String, String> {
    let rustc = || program("RUSTC", "rustc");
    let version = run(rustc().arg("-vV"))?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc does not say what it runs on")?.to_owned();
    run(program("CXX", "c++").arg("--version")).map_err(|why| format!("no C++ compiler: {why}"))?;
    let (source, probe) = (dir.join("probe.rs"), dir.join("probe"));
    let written =
        std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&source, "fn main() {}"));
    written.map_err(|error| format!("{}: {error}", dir.display()))?;
    let lacks = |why| format!("AddressSanitizer cannot be used: {why}");
    let mut compile = rustc();
    compile
        .env("RUSTC_BOOTSTRAP", "1")
        .arg("-Zsanitizer=address");
    run(compile.arg(&source).arg("-o").arg(&probe)).map_err(lacks)?;
    run(&mut Command::new(&probe)).map_err(lacks)?;
    Ok(host)
}

fn cargo(word: &str) -> Command {
    let mut cargo = program("CARGO", "cargo");
    cargo
        .arg(word)
        .arg("--manifest-path")
        .arg(home().join("Cargo.toml"));
    cargo
}

/// Builds every target, or what is not built yet. `None` if it cannot be done here, as `tally` then says.
///
/// # Errors
/// If it could be done and does not build.
fn build(tally: &mut Tally) -> Result<Option<PathBuf>, Failure> {
    let dir = build_dir();
    let host = match platform(&dir) {
        Ok(host) => host,
        Err(why) => {
            tally.skip("fuzz", &why);
            return Ok(None);
        }
    };
    if let Err(why) = run(cargo("fetch").arg("--locked")) {
        // Not the machine's fault: somebody changed what is depended on.
        if why.contains("lock file") {
            let remedy = "cargo fetch --manifest-path hard/fuzz/Cargo.toml";
            let text = format!("hard/fuzz/Cargo.lock is out of date, see `{remedy}`: {why}");
            return Err(Failure::Broken(text));
        }
        tally.skip("fuzz", &format!("libFuzzer cannot be fetched: {why}"));
        return Ok(None);
    }
    let mut build = cargo("build");
    build
        .args(["--release", "--locked", "--target", &host, "--target-dir"])
        .arg(&dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut build).map_err(Failure::Broken)?;
    Ok(Some(dir.join(host).join("release")))
}

/// Builds the targets, tries every kept input again, and runs each of `targets`, two at a time.
///
/// # Errors
/// The first input that breaks a promise, in the fuzzer's words and with the line that replays it.
pub fn fuzz(targets: &[Target], length: Length) -> Result<Tally, Failure> {
    const TOGETHER: usize = 2;
    let mut tally = Tally::default();
    let Some(programs) = build(&mut tally)? else {
        return Ok(tally);
    };
    let left = Mutex::new(targets.iter());
    let done = Mutex::new(Ok(tally));
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(&target) = next else { return };
                    let outcome = one(&programs, target, length);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *done, outcome) {
                        (Ok(all), Ok(tally)) => all.merge(&tally),
                        (Ok(_), Err(failure)) => *done = Err(failure),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one(programs: &Path, target: Target, length: Length) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let name = target.name();
    let (new, found) = (
        build_dir().join("corpus").join(name),
        build_dir().join("found"),
    );
    for dir in [&new, &found] {
        std::fs::create_dir_all(dir).during("make a directory for fuzzing")?;
    }
    let start = || {
        let mut command = Command::new(programs.join(name));
        command
            .arg(format!("-artifact_prefix={}/{name}-", found.display()))
            .arg(format!("-max_len={}", target.max_len()))
            .arg(format!("-malloc_limit_mb={}", target.malloc_limit_mb()))
            .arg(format!("-rss_limit_mb={MEMORY_MB}"))
            .arg(format!("-timeout={HANG_SECONDS}"))
            .args(["-print_final_stats=1", "-detect_leaks=0"]);
        if matches!(target, Target::Log | Target::History | Target::Database) {
            // They have so many edges that weighing rare ones costs more than it finds.
            command.arg("-entropic=0");
        }
        command
    };
    // What was kept, each input once, and nothing else.
    let kept = super::corpus(target)?.len() as u64;
    let said = finish(target, start().arg("-runs=0").arg(target.corpus()))?;
    let executed = number(&said, "stat::number_of_executed_units:").unwrap_or(0);
    if executed < kept {
        return Err(Failure::Broken(format!(
            "{name}: {executed} of {kept} inputs were tried again\n{}",
            tail(&said, 12)
        )));
    }
    tally.add(REPLAYED, kept);
    let mut command = start();
    match length {
        Length::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
        Length::Seed(seed) => command
            .arg(format!("-runs={}", target.runs()))
            .arg(format!("-seed={}", seed % u64::from(u32::MAX) + 1)),
    };
    let said = finish(target, command.arg(&new).arg(target.corpus()))?;
    let executed = number(&said, "stat::number_of_executed_units:");
    let executed = executed.ok_or_else(|| {
        Failure::Broken(format!(
            "{name} does not say what it did\n{}",
            tail(&said, 12)
        ))
    })?;
    tally.add(EXECUTIONS, executed);
    tally.add(&format!("of {name}"), executed);
    if let (Length::Seconds(_), Some(edges)) = (length, last(&said, "cov:")) {
        tally.add(&format!("edges covered in {name}"), edges);
    }
    Ok(tally)
}

/// What a target said, if it came to its end.
fn finish(target: Target, command: &mut Command) -> Result<String, Failure> {
    let output = command.output().during("start a fuzz target")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    // What broke, and where the input is: the fuzzer says it in these lines, among many others.
    let telling = [
        "panicked at",
        "SUMMARY: ",
        "==ERROR: ",
        "Test unit written to ",
    ];
    let mut lines = said.lines().peekable();
    let begin = format!("{}: {}", target.name(), output.status);
    let mut text = begin.clone();
    while let Some(line) = lines.next() {
        if telling.iter().any(|telling| line.contains(telling)) {
            text = format!("{text}\n{line}");
            if line.contains("panicked at") {
                text = format!("{text}\n{}", lines.peek().unwrap_or(&""));
            }
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            text = format!(
                "{text}\n  replay: nshard fuzz {} --input {path}",
                target.name()
            );
        }
    }
    if text == begin {
        text = format!("{begin}\n{}", tail(&said, 12));
    }
    Err(Failure::Broken(text))
}

/// The number that follows `name`, the first time.
fn number(said: &str, name: &str) -> Option<u64> {
    let (_, rest) = said.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The number that follows `name`, the last time.
fn last(said: &str, name: &str) -> Option<u64> {
    let (_, rest) = said.rsplit_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Runs all inputs of `targets`, and leaves in the kept corpora as few as reach what all do, and those that broke a
/// promise once.
///
/// # Errors
/// As [`fuzz`].
pub fn keep(targets: &[Target]) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let Some(programs) = build(&mut tally)? else {
        return Ok(tally);
    };
    for &target in targets {
        let (all, kept) = (
            build_dir().join("merged").join(target.name()),
            target.corpus(),
        );
        if all.exists() {
            std::fs::remove_dir_all(&all).during("empty a directory")?;
        }
        std::fs::create_dir_all(&all).during("make a directory for fuzzing")?;
        super::seeds::write(target, &kept)?;
        let mut merge = Command::new(programs.join(target.name()));
        merge
            // The fewest that reach the same edges, however often.
            .args(["-set_cover_merge=1", "-use_counters=0", "-detect_leaks=0"])
            .arg(format!("-max_len={}", target.max_len()))
            .args([&all, &kept, &build_dir().join("corpus").join(target.name())]);
        finish(target, &mut merge)?;
        for (path, _) in super::corpus(target)? {
            if !path.contains(FOUND) {
                std::fs::remove_file(path).during("empty a corpus")?;
            }
        }
        for entry in std::fs::read_dir(&all).during("list what was merged")? {
            let path = entry.during("list what was merged")?.path();
            let name = path.file_name().unwrap_or_default();
            std::fs::copy(&path, kept.join(name)).during("keep an input")?;
            tally.add(&format!("inputs kept for {}", target.name()), 1);
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_what_the_fuzzer_says() {
        let said = "#2 INITED cov: 5 ft: 5\n#100 DONE   cov: 23 ft: 21\n\
                    stat::number_of_executed_units: 100123\n";
        assert_eq!(
            number(said, "stat::number_of_executed_units:"),
            Some(100_123)
        );
        assert_eq!(
            (number(said, "cov:"), last(said, "cov:")),
            (Some(5), Some(23))
        );
        assert_eq!(number(said, "stat::peak_rss_mb:"), None);
    }

    #[test]
    fn a_program_that_is_not_there_or_fails_says_why() {
        let why = run(&mut Command::new("no such program")).unwrap_err();
        assert!(why.starts_with("no such program: "), "{why}");
        let mut fails = Command::new("sh");
        let why = run(fails.args(["-c", "echo one; echo two >&2; exit 3"])).unwrap_err();
        assert!(
            why.contains("exit status: 3") && why.ends_with("two"),
            "{why}"
        );
    }
}
