//! `nsbench gate-test`: a gate that has never closed proves nothing.
//!
//! The engine's sources carry ways to be slower (`northstar_io::regressions`) that only a build with the feature
//! `planted-regressions` has, and of which the environment variable [`VARIABLE`] turns on one. Such a build runs some rows with
//! and without each in turn, and the gate's verdict must be red for exactly what was made worse: the number in [`PLANTED`],
//! and none that has nothing to do with it. Without any it must find nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::{Ended, say};
use crate::compare::{Finding, Kind, Thresholds};
use crate::error::{BenchError, Result};
use crate::gate::{Decision, Ends, Judged as Kinds, decide, in_other_order};
use crate::results::Record;

/// Names the one that is on.
const VARIABLE: &str = "NSBENCH_PLANTED";

/// One way to be slower, and what must find it.
#[derive(Debug)]
struct Planted {
    /// Its name.
    name: &'static str,
    /// The row that runs.
    row: &'static str,
    /// The number that must be worse.
    must: &'static str,
    /// Numbers that may be worse as well, since time follows from work.
    may: &'static [&'static str],
}

const fn planted(
    name: &'static str,
    row: &'static str,
    must: &'static str,
    may: &'static [&'static str],
) -> Planted {
    Planted {
        name,
        row,
        must,
        may,
    }
}

/// Those of time alone.
const TIMES: &[&str] = &["throughput", "p99"];
/// And of a floor in the same memory, or on the same device.
const OF_GETS: &str = "times three dependent cache misses";
const TIMES_OF_GETS: &[&str] = &["throughput", "p99", OF_GETS];
const TIMES_OF_COMMITS: &[&str] = &["throughput", "p99", "times raw append + flush"];
const GET: &str = "bench/btree/point_get_hot_1m";
const COMMIT: &str = "bench/log/commit_solo_durable";
const ENCODE: &str = "bench/log/encode_commit_record";
const COUNTED: &str = "bench/instructions/leaf_search";

/// All of them: for each kind of number that is compared, one that makes it worse.
const PLANTED: &[Planted] = &[
    planted("allocation_per_get", GET, "allocations/op", TIMES_OF_GETS),
    planted("instructions_per_get", COUNTED, "instructions/op", &[]),
    planted("slow_gets", GET, "throughput", &["p99", OF_GETS]),
    planted("slow_gets_sometimes", GET, "p99", TIMES_OF_GETS),
    planted("slow_puts", ENCODE, "times a copy of as many bytes", TIMES),
    planted("flush_per_group", COMMIT, "fsyncs/txn", TIMES_OF_COMMITS),
    planted("bytes_per_group", COMMIT, "written/op", TIMES_OF_COMMITS),
];

/// Rows that run without any.
const NOTHING: &[&str] = &[GET, COMMIT, ENCODE, COUNTED];

impl Planted {
    /// Whether what finds it is counted and not timed.
    fn is_counted(&self) -> bool {
        !TIMES.contains(&self.must) && !self.must.starts_with("times ")
    }
}

/// Turns on what the environment names, in a build that has it.
#[cfg(feature = "planted-regressions")]
pub(crate) fn plant() {
    use northstar_io::regressions::{Regression, regress};
    let Ok(name) = std::env::var(VARIABLE) else {
        return;
    };
    regress(match name.as_str() {
        "allocation_per_get" => Regression::AllocationPerGet,
        "instructions_per_get" => Regression::InstructionsPerGet,
        "slow_gets" => Regression::SlowGets,
        "slow_gets_sometimes" => Regression::SlowGetsSometimes,
        "slow_puts" => Regression::SlowPuts,
        "flush_per_group" => Regression::FlushPerGroup,
        "bytes_per_group" => Regression::BytesPerGroup,
        other => panic!("{VARIABLE} is {other:?}, which is none"),
    });
}

/// Nothing: this build has none.
#[cfg(not(feature = "planted-regressions"))]
pub(crate) fn plant() {}

/// Which of them, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Only those whose name contains this.
    #[arg(long, value_name = "SUBSTR")]
    filter: Option<String>,
    /// Only counts, which no noise can hide: of those that a count finds, and without a look at times.
    #[arg(long)]
    counts: bool,
    /// A build with the feature `planted-regressions` (default: one is made).
    #[arg(long, value_name = "NSBENCH")]
    program: Option<PathBuf>,
    /// Runs with and without each.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
}

/// Runs what is asked for, with and without each.
pub(crate) fn test(args: &TestArgs, scratch: &Path) -> Result<Ended> {
    let TestArgs {
        filter,
        counts,
        program,
        repeats,
    } = args;
    let (filter, repeats) = (filter.as_deref(), *repeats);
    let program = program.clone().map_or_else(build, Ok)?;
    let chosen = |name: &str| filter.is_none_or(|part| name.contains(part));
    let kinds = if *counts { Kinds::Counts } else { Kinds::All };
    let mut ended = Vec::new();
    if chosen("nothing") {
        for row in NOTHING {
            let dir = scratch.join("nothing");
            let decision = both(&program, row, None, repeats, kinds, &dir)?;
            ended.push(tell("nothing", row, &judge(decision.as_ref(), None)));
        }
    }
    let chosen = |planted: &&Planted| chosen(planted.name) && (planted.is_counted() || !*counts);
    for planted in PLANTED.iter().filter(chosen) {
        let dir = scratch.join(planted.name);
        let decision = both(
            &program,
            planted.row,
            Some(planted.name),
            repeats,
            kinds,
            &dir,
        )?;
        let judged = judge(decision.as_ref(), Some(planted));
        ended.push(tell(planted.name, planted.row, &judged));
    }
    if ended.is_empty() {
        return Err(BenchError::NoRow(filter.unwrap_or_default().to_owned()));
    }
    let (text, ended) = total(&ended);
    say(&text);
    Ok(ended)
}

/// What all of them come to; `None` is one that was skipped.
fn total(all: &[Option<Ended>]) -> (String, Ended) {
    let count = |wanted| all.iter().filter(|one| **one == wanted).count();
    let (right, wrong) = (count(Some(Ended::Met)), count(Some(Ended::Regressed)));
    let (noisy, skipped) = (count(Some(Ended::Noisy)), count(None));
    let text = format!(
        "{right} as they must be, {wrong} not, {noisy} too noisy to tell, {skipped} SKIPPED\n"
    );
    let ended = match (right, wrong, noisy) {
        // Where all were skipped nothing was shown.
        (0, 0, 0) => Ended::Noisy,
        (_, 0, 0) => Ended::Met,
        (_, 0, _) => Ended::Noisy,
        _ => Ended::Regressed,
    };
    (text, ended)
}

/// A build that has them.
fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = root.join("target/planted-regressions");
    let status = Command::new("cargo")
        .args(["build", "--release", "--quiet", "-p", "nsbench"])
        .args(["--features", "planted-regressions", "--target-dir"])
        .arg(&target)
        .current_dir(&root)
        .status()
        .map_err(BenchError::file(Path::new("cargo")))?;
    match status.success() {
        true => Ok(target.join("release/nsbench")),
        false => Err(BenchError::Child(format!("cargo build: {status}"))),
    }
}

/// Runs a row without and with one of them in turn, and has the gate decide; `None` where this machine cannot run it.
fn both(
    program: &Path,
    row: &str,
    name: Option<&str>,
    repeats: u32,
    kinds: Kinds,
    dir: &Path,
) -> Result<Option<Decision>> {
    let dir = dir.join(row.replace('/', "-"));
    let (before, after) = (dir.join("before"), dir.join("after"));
    for repeat in 0..repeats {
        let mut turn = [(&before, None), (&after, name)];
        if in_other_order(repeat) {
            turn.reverse();
        }
        for (side, variable) in turn {
            let mut command = Command::new(program);
            command
                .args(["run", "--quick", "--profile", "ci", "--filter", row])
                .args(["--repeats", "1", "--json"])
                .arg(side.join(repeat.to_string()))
                .env_remove(VARIABLE)
                .env_remove("NSBENCH_SUITE")
                .envs(variable.map(|name| (VARIABLE, name)))
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            let status = command.status().map_err(BenchError::file(program))?;
            if !status.success() {
                let program = program.display();
                return Err(BenchError::Child(format!("{program} run {row}: {status}")));
            }
        }
    }
    let (before, after) = (Record::read_any(&before)?, Record::read_any(&after)?);
    if before.is_empty() && after.is_empty() {
        return Ok(None);
    }
    let limits = Thresholds::default();
    let decision = decide(&before, &after, &Ends::new(), Vec::new(), kinds, &limits);
    Ok(Some(decision))
}

/// What came of one.
#[derive(Debug, PartialEq)]
enum Judged {
    /// The row did not run here.
    Skipped,
    /// As it must be; the numbers that were found worse.
    Right(Vec<String>),
    /// The number was to be worse and is not, or others are.
    Wrong(String),
    /// A time that was to be worse swings too much.
    Noisy(String),
}

/// Whether the gate decided what it must, for the reason for which it must.
fn judge(decision: Option<&Decision>, planted: Option<&Planted>) -> Judged {
    let Some(decision) = decision else {
        return Judged::Skipped;
    };
    if let Some(fault) = decision.faults.first() {
        return Judged::Wrong(fault.clone());
    }
    let all = || {
        decision
            .compared
            .iter()
            .filter(|one| decision.judged.takes(one.kind))
    };
    let named = |finding| -> Vec<String> {
        let found = all().filter(|one| one.finding == finding);
        found.map(|one| one.metric.clone()).collect()
    };
    let (worse, noisy) = (named(Finding::Worse), named(Finding::Noisy));
    let (must, may) = planted.map_or(("", &[][..]), |planted| (planted.must, planted.may));
    let beyond: Vec<&String> = worse
        .iter()
        .filter(|metric| *metric != must && !may.contains(&metric.as_str()))
        .collect();
    if !beyond.is_empty() {
        // Of times a busy machine may have made what it likes, five times over.
        let times_only = all()
            .filter(|one| beyond.contains(&&one.metric))
            .all(|one| one.kind != Kind::Count);
        let why = format!("{beyond:?} became worse, which has nothing to do with it");
        return match times_only {
            true => Judged::Noisy(why),
            false => Judged::Wrong(why),
        };
    }
    if planted.is_none() || worse.iter().any(|metric| metric == must) {
        let closed = decision.ended == Ended::Regressed;
        return match closed == planted.is_some() {
            true => Judged::Right(worse),
            false => Judged::Wrong(format!("{worse:?}, and the gate says {:?}", decision.ended)),
        };
    }
    let swings = all().any(|one| one.metric == must && one.swings);
    match swings || noisy.iter().any(|metric| metric == must) {
        true => Judged::Noisy(format!("{must} swings by more than its threshold")),
        false => Judged::Wrong(format!("{must} was not found worse")),
    }
}

fn tell(name: &str, row: &str, judged: &Judged) -> Option<Ended> {
    let row = row.strip_prefix("bench/").unwrap_or(row);
    let (word, ended) = match judged {
        Judged::Skipped => ("SKIPPED: this machine cannot run the row".to_owned(), None),
        Judged::Right(worse) if worse.is_empty() => ("green".to_owned(), Some(Ended::Met)),
        Judged::Right(worse) => (format!("red: {}", worse.join(", ")), Some(Ended::Met)),
        Judged::Wrong(why) => (format!("WRONG: {why}"), Some(Ended::Regressed)),
        Judged::Noisy(why) => (format!("too noisy to tell: {why}"), Some(Ended::Noisy)),
    };
    say(&format!("{name:<22} {row:<32} {word}\n"));
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;
    use crate::row::is_critical;
    use std::collections::BTreeMap;

    #[test]
    fn exactly_the_planted_number_must_be_found() {
        let judged = |change: &dyn Fn(&mut Record), planted: Option<&Planted>| {
            let results = |change: &dyn Fn(&mut Record)| {
                let repeats = (0..5).map(|repeat| {
                    let mut record = record();
                    record.repeat = repeat;
                    change(&mut record);
                    record
                });
                BTreeMap::from([(record().bench_name, repeats.collect())])
            };
            let (limits, ends) = (Thresholds::default(), Ends::new());
            let (before, after) = (results(&|_| {}), results(change));
            let decision = decide(&before, &after, &ends, Vec::new(), Kinds::All, &limits);
            judge(Some(&decision), planted)
        };
        let flush = PLANTED.iter().find(|one| one.must == "fsyncs/txn");
        let flushes = |now: &mut Record| now.results.fsyncs_per_txn = Some(2.0);
        assert_eq!(
            judged(&flushes, flush),
            Judged::Right(vec!["fsyncs/txn".to_owned()])
        );
        let slower = |now: &mut Record| {
            flushes(now);
            now.results.ops_per_sec /= 2.0;
        };
        assert!(matches!(judged(&slower, flush), Judged::Right(_)));
        let allocating = |now: &mut Record| {
            flushes(now);
            now.results.allocs_per_op = Some(9.0);
        };
        assert!(matches!(judged(&allocating, flush), Judged::Wrong(_)));
        assert!(matches!(judged(&|_| {}, flush), Judged::Wrong(_)));
        assert_eq!(judged(&|_| {}, None), Judged::Right(Vec::new()));
        assert!(matches!(judged(&flushes, None), Judged::Wrong(_)));
        let swinging = |now: &mut Record| now.results.ops_per_sec /= 2.0;
        assert!(matches!(judged(&swinging, None), Judged::Noisy(_)));
        let lost = |now: &mut Record| now.results.floors.clear();
        assert!(matches!(judged(&lost, None), Judged::Wrong(_)));
    }

    #[test]
    fn a_number_that_is_found_while_the_gate_stays_open_is_wrong() {
        let flush = PLANTED.iter().find(|one| one.must == "fsyncs/txn");
        let results = |flushes: f64| {
            let mut record = record();
            record.repeats = 1;
            record.results.fsyncs_per_txn = Some(flushes);
            BTreeMap::from([(record.bench_name.clone(), vec![record])])
        };
        let (before, after, limits) = (results(1.0), results(2.0), Thresholds::default());
        let decide = || {
            decide(
                &before,
                &after,
                &Ends::new(),
                Vec::new(),
                Kinds::Counts,
                &limits,
            )
        };
        assert!(matches!(judge(Some(&decide()), flush), Judged::Right(_)));
        let mut open = decide();
        open.ended = Ended::Met;
        assert!(matches!(judge(Some(&open), flush), Judged::Wrong(_)));
        assert_eq!(judge(None, flush), Judged::Skipped);
    }

    #[test]
    fn skipped_ones_are_counted_apart_and_prove_nothing_alone() {
        let (text, ended) = total(&[Some(Ended::Met), None, Some(Ended::Met)]);
        assert!(
            text.contains("2 as they must be") && text.contains("1 SKIPPED"),
            "{text}"
        );
        assert_eq!(ended, Ended::Met);
        assert_eq!(total(&[None, None]).1, Ended::Noisy);
        assert_eq!(
            total(&[Some(Ended::Noisy), Some(Ended::Regressed)]).1,
            Ended::Regressed
        );
    }

    #[test]
    fn every_planted_one_is_in_the_sources_and_every_kind_of_number_has_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let carried = std::fs::read_to_string(root.join("io/src/regressions.rs")).unwrap();
        let carried = carried.split_once("pub enum Regression {").unwrap().1;
        let carried = carried.split_once("\n}").unwrap().0;
        assert_eq!(carried.matches("///").count(), PLANTED.len());
        let names: Vec<&str> = crate::suites::all().iter().map(|row| row.name).collect();
        for planted in PLANTED {
            assert!(names.contains(&planted.row), "{planted:?}");
            assert!(
                is_critical(planted.row),
                "the gate would not close: {planted:?}"
            );
        }
        let must: Vec<&str> = PLANTED.iter().map(|planted| planted.must).collect();
        for number in [
            "throughput",
            "p99",
            "allocations/op",
            "instructions/op",
            "fsyncs/txn",
            "written/op",
        ] {
            assert!(must.contains(&number), "{number}");
        }
        assert!(must.iter().any(|number| number.starts_with("times ")));
    }
}
