//! `nsbench versus`: builds the comparison with other engines and runs it.
//!
//! The comparison, `bench/rivals`, is a package of its own with a lock file of its own: nobody who builds this workspace
//! compiles other people's engines. Each engine is one cargo feature there. If they do not build together, each is tried
//! alone; one that cannot be built is left out, loudly, and the others run.
//!
//! - Failure: without cargo, or if not even our own engine builds, an error says what cargo said.
//! - Spec: BV-005.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::cli::{Ended, say};
use crate::error::{BenchError, Result};

/// The engines beside ours, each a feature of the package, and the programs its build needs beside cargo.
const RIVALS: &[(&str, &[Tool])] = &[
    ("lmdb", &[C]),
    ("redb", &[]),
    ("rocksdb", &[C, CPP]),
    ("fjall", &[]),
    ("sqlite", &[C]),
    ("canopydb", &[]),
];

const MANIFEST: &str = "bench/rivals/Cargo.toml";
const PROGRAM: &str = "nsrivals";

/// A compiler: the variable that names it, what it is called otherwise, and what it is.
type Tool = (&'static str, &'static str, &'static str);
const C: Tool = ("CC", "cc", "C compiler");
const CPP: Tool = ("CXX", "c++", "C++ compiler");

/// Measure NorthstarDB beside other engines.
///
/// The first run builds them from source, which takes minutes, RocksDB's C++ most of it; `--rivals` leaves some out. What is
/// measured and how: spec/benchmarks_v0.md.
#[derive(Debug, Args)]
pub(crate) struct VersusArgs {
    /// Smaller and shorter: ten minutes on two cores, once everything is built. Figures are then indications.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "SUBSTR")]
    filter: Option<String>,
    /// Only these engines beside ours: lmdb, redb, rocksdb, fjall, sqlite, canopydb.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    rivals: Option<Vec<String>>,
    /// Run each row so many times, in turn over the engines.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Where everything random starts.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Put the databases below this directory (default: the build's target directory); removed afterwards.
    #[arg(long, value_name = "SCRATCH")]
    dir: Option<PathBuf>,
    /// Write the results to this file (default: `nsbench-versus.json` in the build's target directory).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Bound memory where the data is four times as large, by control groups made below this one.
    #[arg(long, value_name = "CGROUP")]
    memory_group: Option<PathBuf>,
    /// Name every row and what it answers, and run none.
    #[arg(long)]
    list: bool,
    /// So small that it only shows that every row works.
    #[arg(long, hide = true)]
    tiny: bool,
}

/// Builds and runs the comparison; `target` is the directory for what is not told a place.
pub(crate) fn run(args: &VersusArgs, target: &Path) -> Result<Ended> {
    let wanted = wanted(args.rivals.as_deref())?;
    if let Some(filter) = &args.filter
        && !rows().any(|row| row.contains(filter))
    {
        return Err(BenchError::BadUse(format!(
            "no row matches {filter}; `nsbench versus --list` names them all"
        )));
    }
    let manifest = manifest()?;
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let build = Build {
        cargo: named("CARGO").unwrap_or_else(|| "cargo".into()),
        target: named("CARGO_TARGET_DIR").unwrap_or_else(|| manifest.with_file_name("target")),
        manifest,
    };
    if args.list {
        build.with(&[])?.map_err(BenchError::Rivals)?;
        return started(Command::new(build.program()).arg("list"));
    }
    let (built, skipped) = build.what_can_be(&wanted)?;
    let mut command = Command::new(build.program());
    let mut engines = vec!["northstar".to_owned()];
    engines.extend(built);
    engines.extend(skipped.iter().map(|(name, _)| (*name).to_owned()));
    command.args(["--rivals", &engines.join(",")]);
    command.args(["--repeats", &args.repeats.to_string()]);
    command.args(["--seed", &args.seed.to_string()]);
    for (name, why) in &skipped {
        command.args(["--skipped", &format!("{name}={why}")]);
    }
    for (flag, is_set) in [("--quick", args.quick), ("--tiny", args.tiny)] {
        command.args(is_set.then_some(flag));
    }
    if let Some(filter) = &args.filter {
        command.args(["--filter", filter]);
    }
    if let Some(group) = &args.memory_group {
        command.arg("--memory-group").arg(group);
    }
    let beside = |name: &str| target.with_file_name(name);
    let json = args.json.clone();
    let json = json.unwrap_or_else(|| beside("nsbench-versus.json"));
    let dir = args.dir.clone();
    let dir = dir.unwrap_or_else(|| beside("nsbench-versus"));
    command.arg("--json").arg(&json).arg("--dir").arg(dir);
    let ended = started(&mut command)?;
    say(&format!("results: {}\n", json.display()));
    Ok(ended)
}

/// Runs the program with the terminal as its own.
fn started(command: &mut Command) -> Result<Ended> {
    let status = command
        .status()
        .map_err(BenchError::file(Path::new(PROGRAM)))?;
    match status.code() {
        Some(0) => Ok(Ended::Met),
        Some(1) => Ok(Ended::Regressed),
        // It has said what was wrong with its use.
        Some(2) => Err(BenchError::RivalsUse),
        _ => Err(BenchError::Rivals(format!("{PROGRAM}: {status}"))),
    }
}

/// The names of all rows, as they are described: known before anything is built.
fn rows() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("../../spec/benchmarks_v0.md").lines();
    lines.filter_map(|line| Some(line.strip_prefix("| `versus/")?.split_once('`')?.0))
}

/// The engines asked for.
fn wanted(names: Option<&[String]>) -> Result<Vec<&'static str>> {
    let known = || RIVALS.iter().map(|(name, _)| *name);
    let Some(names) = names else {
        return Ok(known().collect());
    };
    let is_known = |name: &String| name == "northstar" || known().any(|known| known == name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = known().collect();
        return Err(BenchError::NoRival {
            name: name.clone(),
            known: known.join(", "),
        });
    }
    Ok(known()
        .filter(|known| names.iter().any(|name| name == known))
        .collect())
}

/// The package: below the directory this is started in or one above, else where this program's sources were.
fn manifest() -> Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let found = here
        .ancestors()
        .map(|dir| dir.join(MANIFEST))
        .find(|path| path.exists());
    let there = || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals/Cargo.toml");
        path.exists().then_some(path)
    };
    found.or_else(there).ok_or_else(|| {
        BenchError::Rivals(format!(
            "{MANIFEST} is not here: start this in a checkout of the sources"
        ))
    })
}

/// How the package is built.
#[derive(Debug)]
struct Build {
    cargo: PathBuf,
    manifest: PathBuf,
    target: PathBuf,
}

/// An engine that was left out, and why.
type Skipped = (&'static str, String);

impl Build {
    fn program(&self) -> PathBuf {
        self.target.join("release").join(PROGRAM)
    }

    /// Builds as many of `wanted` as can be.
    fn what_can_be(&self, wanted: &[&'static str]) -> Result<(Vec<String>, Vec<Skipped>)> {
        let (mut there, mut skipped) = (Vec::new(), Vec::new());
        for name in wanted {
            let tools = RIVALS.iter().find(|(known, _)| known == name);
            let missing = tools.and_then(|(_, tools)| tools.iter().find(|tool| !answers(tool)));
            match missing {
                Some((variable, program, what)) => skipped.push((
                    *name,
                    format!(
                        "no {what}: {program} cannot be started, and {variable} names no other"
                    ),
                )),
                None => there.push(*name),
            }
        }
        if self.with(&there)?.is_err() {
            say("not all of them build: each is tried alone\n");
            let mut sound = Vec::new();
            for name in there {
                match self.with(&[name])? {
                    Ok(()) => sound.push(name),
                    Err(why) => skipped.push((name, why)),
                }
            }
            there = sound;
            self.with(&there)?.map_err(BenchError::Rivals)?;
        }
        for (name, why) in &skipped {
            say(&format!("{name} is SKIPPED: {why}\n"));
        }
        Ok((there.into_iter().map(str::to_owned).collect(), skipped))
    }

    /// Builds the program with these engines; what the compiler says is passed on, and handed back if it fails.
    fn with(&self, engines: &[&str]) -> Result<Result<(), String>> {
        let failed = |error: std::io::Error| {
            BenchError::Rivals(format!(
                "{} cannot be started ({error}): the other engines are built from source",
                self.cargo.display()
            ))
        };
        let mut cargo = Command::new(&self.cargo)
            .args(["build", "--release", "--no-default-features", "--config"])
            .arg(self.manifest.with_file_name(".cargo/config.toml"))
            .arg("--manifest-path")
            .arg(&self.manifest)
            .arg("--target-dir")
            .arg(&self.target)
            .args(["--features", &engines.join(",")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut said = Vec::new();
        if let Some(stderr) = cargo.stderr.take() {
            for line in BufReader::new(stderr)
                .lines()
                .map_while(std::io::Result::ok)
            {
                // Nobody is left to tell if that fails.
                drop(writeln!(std::io::stderr(), "{line}"));
                said.push(line);
            }
        }
        let status = cargo.wait().map_err(failed)?;
        Ok(match status.success() {
            true => Ok(()),
            false => Err(reason(&said)),
        })
    }
}

/// Whether a compiler can be started.
fn answers((variable, program, _): &Tool) -> bool {
    let named = std::env::var_os(variable);
    let mut command = Command::new(named.unwrap_or_else(|| (*program).into()));
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// What a line says that tells more than the error above it.
const TELLING: [&str; 5] = [
    "Unable to find libclang",
    "error occurred in cc-rs",
    "is not installed",
    "not found",
    "No such file",
];
/// A reason stands in a line of the output: commands of compilers are longer.
const REASON_CHARS: usize = 160;

/// The line of a failed build that says the most: what a build script missed, else the first error.
fn reason(said: &[String]) -> String {
    let tells = |line: &&String| TELLING.iter().any(|words| line.contains(words));
    let missed = said.iter().find(tells);
    let error = said.iter().find(|line| line.starts_with("error"));
    let line = missed.or(error).or(said.last());
    let line = line.map_or("cargo gave no reason", |line| line.trim());
    line.chars().take(REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_engine_is_a_feature_of_the_package_and_none_is_built_unasked() {
        let manifest: toml::Table = include_str!("../rivals/Cargo.toml").parse().unwrap();
        let features = manifest["features"].as_table().unwrap();
        let mut names: Vec<&str> = features.keys().map(String::as_str).collect();
        names.retain(|name| *name != "default");
        let mut known: Vec<&str> = RIVALS.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(names, known);
        assert!(features["default"].as_array().unwrap().is_empty());
        let workspace: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
        let members = workspace["workspace"]["members"].as_array().unwrap();
        assert!(
            members
                .iter()
                .all(|member| member.as_str() != Some("bench/rivals"))
        );
    }

    #[test]
    fn a_failed_build_says_what_it_missed() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let libclang = "   Compiling x\nerror: failed to run custom build command for `x`\n\nCaused by:\n  \
                        thread 'main' panicked: Unable to find libclang: \"couldn't find any\"\n";
        assert!(reason(&lines(libclang)).contains("libclang"));
        let other = "   Compiling x\nerror[E0308]: mismatched types\n  --> src/x.rs\nerror: could not compile";
        assert_eq!(reason(&lines(other)), "error[E0308]: mismatched types");
        let compiler = format!(
            "error: failed to run\n  error occurred in cc-rs: {}",
            "x".repeat(500)
        );
        let compiler = reason(&lines(&compiler));
        assert!(compiler.starts_with("error occurred in cc-rs: x") && compiler.len() == 160);
        assert_eq!(reason(&[]), "cargo gave no reason");
    }

    #[test]
    fn unknown_engines_are_refused_with_the_known_ones() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            wanted(Some(&names(&["redb", "lmdb"]))).unwrap(),
            ["lmdb", "redb"]
        );
        let error = wanted(Some(&names(&["leveldb"]))).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("canopydb"), "{error}");
    }

    #[test]
    fn a_filter_that_matches_no_row_is_told_before_anything_is_built() {
        let all: Vec<_> = rows().collect();
        assert!(all.len() > 20 && all.contains(&"commit/solo"), "{all:?}");
        let args = Command::try_parse_from(["", "--filter", "nosuch"]).unwrap();
        let error = run(&args.versus, Path::new("target")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("nosuch"), "{error}");
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        versus: VersusArgs,
    }

    #[test]
    fn a_compiler_that_is_not_there_is_noticed() {
        assert!(!answers(&(
            "NSBENCH_NO_SUCH_VARIABLE",
            "nsbench-no-such-compiler",
            ""
        )));
    }
}
