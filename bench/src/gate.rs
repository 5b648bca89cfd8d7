//! The gate: whether a change may pass, decided by results and nothing else.
//!
//! Two ways to ask. Against a kept baseline, times are not judged where the profile says that its machines are noisy: there
//! the ratios to floors of the same run decide, and what is counted. Against another build of this program, both are run
//! in turn, row by row, so that what the machine does meets both: then times are judged too.
//! Spec: `benchmarks_v0`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::{Ended, say};
use crate::compare::{Compared, Finding, Kind, Thresholds, compare, table, unmatched};
use crate::error::{BenchError, Result};
use crate::results::Record;
use crate::row::Row;

type Results = BTreeMap<String, Vec<Record>>;

/// Holds two directories of results against each other, and shows what shifted.
pub(crate) fn show(before: &Path, after: &Path, limits: &Thresholds, whole: bool) -> Result<Ended> {
    let (before, after) = (Record::read_all(before)?, Record::read_all(after)?);
    let all = compare(&before, &after, limits);
    say(&table(&all, whole));
    say(&missing(&before, &after));
    Ok(ended(&all, &|_| true, false))
}

/// Holds results against a baseline.
pub(crate) fn against_baseline(
    baseline: Option<&Path>,
    results: &Path,
    limits: &Thresholds,
) -> Result<Ended> {
    let after = Record::read_all(results)?;
    let profile = after
        .values()
        .flatten()
        .map(|record| record.profile.name.clone())
        .next();
    let profile = profile.unwrap_or_default();
    let baseline =
        baseline.map_or_else(|| Path::new("baselines").join(&profile), Path::to_path_buf);
    let before = Record::read_all(&baseline)?;
    comparable(&before, &after)?;
    let times = profile != "ci";
    let judged = |one: &Compared| times || one.kind != Kind::Time;
    if !times {
        say("profile ci: times are shown and not judged; ratios to floors and counts are\n\n");
    }
    let all = compare(&before, &after, limits);
    say(&table(&all, false));
    say(&missing(&before, &after));
    Ok(tell(ended(&all, &judged, true)))
}

/// Runs rows of another build and of this one in turn, and holds them against each other.
pub(crate) fn against_build(
    other: &Path,
    rows: &[Row],
    arguments: &[String],
    repeats: u32,
    scratch: &Path,
    limits: &Thresholds,
) -> Result<Ended> {
    let here = std::env::current_exe().map_err(BenchError::file(Path::new("nsbench")))?;
    let sides = [("before", other), ("after", here.as_path())];
    let known = names(other)?;
    let (rows, new): (Vec<Row>, Vec<Row>) = rows
        .iter()
        .copied()
        .partition(|row| known.iter().any(|name| name == row.name));
    for row in &new {
        say(&format!(
            "{}: the other build has no such row\n",
            row.short()
        ));
    }
    for row in &rows {
        for repeat in 0..repeats {
            for (side, program) in sides {
                let dir = scratch.join(side).join(repeat.to_string());
                one_run(program, row, arguments, &dir)?;
            }
        }
        say(&format!("{}: {repeats} runs of each build\n", row.short()));
    }
    let read = |side: &str| Record::read_all(&scratch.join(side));
    let wanted = |results: Results| -> Results {
        let is_asked = |name: &str| rows.iter().any(|row| row.name == name);
        results
            .into_iter()
            .filter(|(name, _)| is_asked(name))
            .collect()
    };
    let (before, after) = (wanted(read("before")?), wanted(read("after")?));
    let all = compare(&before, &after, limits);
    say(&format!("\n{}", table(&all, false)));
    say(&missing(&before, &after));
    Ok(tell(ended(&all, &|_| true, true)))
}

/// Names of another build's rows.
fn names(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program)
        .arg("list")
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::file(program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text
        .split_whitespace()
        .filter(|word| word.starts_with("bench/"));
    Ok(names.map(str::to_owned).collect())
}

fn one_run(program: &Path, row: &Row, arguments: &[String], dir: &Path) -> Result<()> {
    let run = Command::new(program)
        .arg("run")
        .args(["--filter", row.name, "--json"])
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(BenchError::file(program))?;
    if run.success() {
        return Ok(());
    }
    Err(BenchError::Child(format!(
        "{} run --filter {}: {run}",
        program.display(),
        row.name
    )))
}

/// Fails unless both sides ran the same sizes of the same profile in the same kind of build, and were asked the same.
fn comparable(before: &Results, after: &Results) -> Result<()> {
    let kind = |results: &Results| {
        let first = results.values().flatten().next();
        first.map(|record| {
            (
                record.profile.name.clone(),
                record.config.size.clone(),
                record.build.mode.clone(),
                record.config.threads_asked,
                (record.config.warmup_ops, record.config.warmup_ns),
            )
        })
    };
    let (old, new) = (kind(before), kind(after));
    if old == new {
        return Ok(());
    }
    Err(BenchError::Incomparable(format!(
        "{old:?} and {new:?} (profile, size, build, threads, warm-up)"
    )))
}

fn missing(before: &Results, after: &Results) -> String {
    let (gone, new) = unmatched(before, after);
    let mut text = String::new();
    for (what, rows) in [("only before", gone), ("only after", new)] {
        if !rows.is_empty() {
            text.push_str(&format!("{what}: {}\n", rows.join(", ")));
        }
    }
    text
}

/// What findings come to; `critical` leaves out the rows that do not block.
fn ended(all: &[Compared], judged: &dyn Fn(&Compared) -> bool, critical: bool) -> Ended {
    let found = |finding| {
        all.iter()
            .any(|one| one.finding == finding && judged(one) && (one.critical || !critical))
    };
    if found(Finding::Worse) {
        Ended::Regressed
    } else if found(Finding::Noisy) {
        Ended::Noisy
    } else {
        Ended::Met
    }
}

fn tell(ended: Ended) -> Ended {
    say(match ended {
        Ended::Met => "gate: passed\n",
        Ended::Regressed => "gate: FAILED, a critical row is worse\n",
        Ended::Noisy => "gate: not decided, the machine is too noisy to tell\n",
    });
    ended
}

/// Where a run leaves its results if it is not told another place.
pub(crate) fn latest(scratch: &Path) -> PathBuf {
    scratch.with_file_name("nsbench-results")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    fn results(change: impl Fn(&mut Record)) -> Results {
        let repeats = (0..5).map(|repeat| {
            let mut record = record();
            record.repeat = repeat;
            record.results.ops_per_sec += f64::from(repeat);
            change(&mut record);
            record
        });
        BTreeMap::from([(record().bench_name, repeats.collect())])
    }

    fn gate(change: impl Fn(&mut Record)) -> Ended {
        let all = compare(&results(|_| {}), &results(change), &Thresholds::default());
        ended(&all, &|_| true, true)
    }

    #[test]
    fn each_number_alone_turns_the_gate_red() {
        assert_eq!(gate(|_| {}), Ended::Met);
        assert_eq!(
            gate(|now| now.results.ops_per_sec *= 0.94),
            Ended::Regressed
        );
        assert_eq!(
            gate(|now| now.results.latency_ns.p99 *= 1.11),
            Ended::Regressed
        );
        assert_eq!(
            gate(|now| now.results.allocs_per_op += 0.01),
            Ended::Regressed
        );
        assert_eq!(
            gate(|now| now.results.fsyncs_per_txn = Some(1.01)),
            Ended::Regressed
        );
        assert_eq!(
            gate(|now| now.results.floors[0].ratio *= 1.11),
            Ended::Regressed
        );
        let more = |now: &mut Record| {
            if let Some(io) = &mut now.results.io {
                io.bytes_written = io.bytes_written * 11 / 10;
            }
        };
        assert_eq!(gate(more), Ended::Regressed);
    }

    #[test]
    fn what_is_better_passes_and_what_is_uncertain_is_said() {
        assert_eq!(gate(|now| now.results.ops_per_sec *= 1.5), Ended::Met);
        let wild = |now: &mut Record| {
            let swing = [0.5, 0.93, 1.4, 0.7, 1.2];
            now.results.ops_per_sec *= swing[now.repeat as usize];
        };
        assert_eq!(gate(wild), Ended::Noisy);
    }

    #[test]
    fn rows_that_do_not_block_do_not() {
        let floor = |mut results: Results| -> Results {
            let mut records = results.pop_first().map(|(_, all)| all).unwrap_or_default();
            for record in &mut records {
                record.bench_name = "bench/floor/append_4k_flush".to_owned();
            }
            BTreeMap::from([("bench/floor/append_4k_flush".to_owned(), records)])
        };
        let slower = results(|now| now.results.ops_per_sec *= 0.5);
        let all = compare(
            &floor(results(|_| {})),
            &floor(slower),
            &Thresholds::default(),
        );
        assert_eq!(ended(&all, &|_| true, true), Ended::Met);
        assert_eq!(ended(&all, &|_| true, false), Ended::Regressed);
    }
}
