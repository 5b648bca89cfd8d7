//! The gate: whether a change may pass, decided by results and nothing else.
//!
//! Two ways to ask. Against a kept baseline, the profile says which numbers decide and by how much they may shift: of noisy machines
//! not the times, but the ratios to floors of the same run, and what is counted. Against another build of this program, both are run
//! in turn, row by row, so that what the machine does meets both: then times are judged too. Either way what is not there
//! does not pass: a critical row or number that was measured before must be measured again.
//! Spec: `benchmarks_v0`.

mod against;
mod baseline;
mod comparable;
mod decision;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cli::{Ended, LimitArgs, SelectArgs, say};
use crate::compare::{Finding, Thresholds, compare, lacking, table, unmatched};
use crate::error::Result;
use crate::profile::{Gate, Profile};
use crate::results::Record;
use crate::summary::Summary;

pub(crate) use against::{Asked, against_build, in_other_order};
pub(crate) use baseline::{BaselineArgs, Keep, capture};
pub(crate) use comparable::check as comparable;
pub(crate) use decision::{Decision, Ends, Judged, decide};

/// Records of rows, by the rows' names.
pub(crate) type Results = BTreeMap<String, Vec<Record>>;

/// Holds two directories of results against each other, and shows what shifted. Any row decides, critical or not.
pub(crate) fn show(before: &Path, after: &Path, limits: &Thresholds, whole: bool) -> Result<Ended> {
    let (before, after) = (Record::read_all(before)?, Record::read_all(after)?);
    if let Some(other) = comparable(&before, &after)? {
        say(&format!("{other}: times and ratios say little\n\n"));
    }
    let all = compare(&before, &after, limits);
    say(&table(&all, whole));
    let (gone, new) = unmatched(&before, &after);
    for (what, rows) in [("only before", gone), ("only after", new)] {
        if !rows.is_empty() {
            say(&format!("{what}: {}\n", rows.join(", ")));
        }
    }
    for (row, metric) in lacking(&before, &after) {
        say(&format!("only before: {metric} of {row}\n"));
    }
    let found = |wanted: &[Finding]| all.iter().any(|one| wanted.contains(&one.finding));
    if all.is_empty() {
        say("no number is on both sides\n");
        return Ok(Ended::Noisy);
    }
    Ok(if found(&[Finding::Worse]) {
        Ended::Regressed
    } else if found(&[Finding::Noisy, Finding::TooFew]) {
        Ended::Noisy
    } else {
        Ended::Met
    })
}

/// Holds results against a baseline: those of the rows that the run was asked for and that are selected here. Judged `by` what
/// is given, or as the built-in profile says that the results name.
pub(crate) fn against_baseline(
    baseline: Option<&Path>,
    results: &Path,
    select: &SelectArgs,
    limits: &LimitArgs,
    by: Option<Gate>,
) -> Result<Ended> {
    let summary = Summary::read(results);
    let mut after = match &summary {
        // Rows may all have failed.
        Some(_) => Record::read_any(results)?,
        None => Record::read_all(results)?,
    };
    let first = after.values().flatten().next();
    let profile = first.map(|record| record.profile.name.clone());
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs());
    let mut before = match (baseline, &profile) {
        (Some(baseline), _) => Record::read_all(baseline)?,
        (None, Some(profile)) => Record::read_all(&Path::new("baselines").join(profile))?,
        (None, None) => Results::new(),
    };
    let expected = decision::expected(select, summary.as_ref(), &before, &after);
    if expected.is_empty() {
        return Err(select.no_row());
    }
    before.retain(|name, _| expected.contains(name));
    after.retain(|name, _| expected.contains(name));
    comparable::one_commit(&after)?;
    for (what, results) in [("judged", &after), ("against", &before)] {
        if let Some(origin) = origin(results, now) {
            say(&format!("{what}: {origin}\n"));
        }
    }
    let ends = decision::ends(summary.as_ref(), &expected);
    if let Some(other) = comparable(&before, &after)? {
        say(&format!(
            "{other}: a baseline holds for its own kind of machine\n"
        ));
        // Nothing is judged but what failed: that does so on any machine.
        (before, after) = (Results::new(), Results::new());
    }
    let asked = summary.as_ref().map_or(&[][..], |summary| &summary.asked);
    if let (false, Some(words)) = (asked.is_empty(), SelectArgs::words_of_all(asked)) {
        say(&format!(
            "the run was asked for {words}: no other row is judged\n"
        ));
    }
    let name = profile.unwrap_or_default();
    let gate = by.map_or_else(|| Profile::gate_of(&name), Ok)?;
    match gate.judged {
        Judged::All => {}
        Judged::NoTimes => say(&format!(
            "profile {name}: times are shown and not judged; ratios to floors and counts are\n\n"
        )),
        Judged::Counts => say(&format!("profile {name}: counts alone are judged\n\n")),
    }
    let limits = limits.over(gate.limits);
    Ok(decide(&before, &after, &ends, Vec::new(), gate.judged, &limits).tell())
}

/// Which sources results are of, and how old the oldest is.
fn origin(results: &Results, now: u64) -> Option<String> {
    let times = results.values().flatten().map(|one| one.timestamp_unix_s);
    let seconds = now.saturating_sub(times.min()?);
    let age = match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h"),
        (days, ..) => format!("{days} days"),
    };
    let commits = comparable::commits(results);
    Some(format!("{commits}; measured {age} ago"))
}

/// Where a run leaves its results if it is not told another place.
pub(crate) fn latest(scratch: &Path) -> PathBuf {
    scratch.with_file_name("nsbench-results")
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::results::tests::record;
    use crate::summary::RowEnd;

    /// Five repeats of one critical row.
    pub(crate) fn results(change: impl Fn(&mut Record)) -> Results {
        let repeats = (0..5).map(|repeat| {
            let mut record = record();
            record.repeat = repeat;
            record.results.ops_per_sec += f64::from(repeat);
            change(&mut record);
            record
        });
        BTreeMap::from([(record().bench_name, repeats.collect())])
    }

    fn decided(before: &Results, after: &Results, ends: &Ends, judged: Judged) -> Ended {
        let limits = Thresholds::default();
        decide(before, after, ends, Vec::new(), judged, &limits).ended
    }

    fn gate(change: impl Fn(&mut Record)) -> Ended {
        let (before, after) = (results(|_| {}), results(change));
        decided(&before, &after, &Ends::new(), Judged::All)
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
            gate(|now| now.results.allocs_per_op = Some(0.01)),
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
    fn what_is_judged_says_of_which_sources_and_when_it_is() {
        let mut all = results(|record| record.timestamp_unix_s = 1000);
        let told = |all: &Results, now| origin(all, now).unwrap();
        assert_eq!(told(&all, 1059), "an unknown commit; measured 0 min ago");
        let mut other = results(|record| {
            record.timestamp_unix_s = 900;
            record.git = Some(crate::machine::Git {
                sha: "0123456789abcdef".to_owned(),
                branch: "main".to_owned(),
                dirty: true,
            });
        });
        let one = other.pop_first().unwrap().1;
        all.insert("bench/log/other".to_owned(), one);
        let both = "0123456789 with changes, an unknown commit";
        for (now, age) in [(8200, "2 h"), (1000 + 3 * 86_400, "3 days"), (0, "0 min")] {
            assert_eq!(told(&all, now), format!("{both}; measured {age} ago"));
        }
        assert_eq!(origin(&Results::new(), 0), None);
    }

    #[test]
    fn the_99th_percentile_of_a_handful_is_not_judged() {
        let slower = |ops| {
            let few = move |record: &mut Record| record.results.latencies = Some(ops);
            let slow = |record: &mut Record| record.results.latency_ns.p99 *= 2.0;
            let after = results(|record| {
                few(record);
                slow(record);
            });
            decided(&results(few), &after, &Ends::new(), Judged::All)
        };
        assert_eq!(slower(999), Ended::Met);
        assert_eq!(slower(1000), Ended::Regressed);
    }

    #[test]
    fn a_profile_says_what_is_judged_and_by_how_much_it_may_shift() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["before", "after"].map(|name| dir.path().join(name));
        let ended = |profile: &str, ratio: f64, limits: &LimitArgs| {
            for (place, times) in places.iter().zip([1.0, ratio]) {
                drop(std::fs::remove_dir_all(place));
                let all = results(|record| {
                    record.profile.name = profile.to_owned();
                    record.results.floors[0].ratio *= times;
                    record.results.ops_per_sec /= times;
                });
                for record in all.values().flatten() {
                    record.write(place).unwrap();
                }
            }
            let [before, after] = &places;
            against_baseline(Some(before), after, &SelectArgs::default(), limits, None).unwrap()
        };
        let none = LimitArgs::default();
        assert_eq!(
            ended("ci", 1.2, &none),
            Ended::Met,
            "neither time nor ratio"
        );
        assert_eq!(ended("ci", 1.3, &none), Ended::Regressed);
        for strict in ["dev_nvme", "mine"] {
            assert_eq!(ended(strict, 1.2, &none), Ended::Regressed, "{strict}");
            assert_eq!(ended(strict, 1.04, &none), Ended::Met, "{strict}");
        }
        let given = Command::try_parse_from(["", "--threshold-floor", "15"]).unwrap();
        assert_eq!(ended("ci", 1.2, &given.limits), Ended::Regressed);
        assert_eq!(ended("ci", 1.1, &given.limits), Ended::Met);
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        limits: LimitArgs,
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
        let sides = || (floor(results(|_| {})), floor(slower.clone()));
        let ended = |(before, after): (Results, Results)| {
            decided(&before, &after, &Ends::new(), Judged::All)
        };
        assert_eq!(ended(sides()), Ended::Noisy, "nothing decides");
        let (mut before, mut after) = sides();
        for side in [&mut before, &mut after] {
            side.extend(results(|_| {}));
        }
        assert_eq!(ended((before, after)), Ended::Met);
    }

    #[test]
    fn only_what_is_judged_decides() {
        let slower = results(|now| now.results.ops_per_sec *= 0.5);
        let farther = results(|now| now.results.floors[0].ratio *= 2.0);
        for (after, judged, wanted) in [
            (&slower, Judged::All, Ended::Regressed),
            (&slower, Judged::NoTimes, Ended::Met),
            (&farther, Judged::NoTimes, Ended::Regressed),
            (&farther, Judged::Counts, Ended::Met),
        ] {
            let ended = decided(&results(|_| {}), after, &Ends::new(), judged);
            assert_eq!(ended, wanted, "{judged:?}");
        }
    }

    #[test]
    fn what_is_missing_does_not_pass() {
        let name = "bench/log/commit_solo_durable";
        assert_eq!(gate(|now| now.results.floors.clear()), Ended::Regressed);
        assert_eq!(
            gate(|now| now.results.fsyncs_per_txn = None),
            Ended::Regressed
        );
        let once = |now: &mut Record| {
            if now.repeat == 3 {
                now.results.io = None;
            }
        };
        assert_eq!(gate(once), Ended::Regressed, "in one repeat");
        let whole = results(|_| {});
        let ended = |after: &Results, ends: &Ends| decided(&whole, after, ends, Judged::All);
        assert_eq!(ended(&Results::new(), &Ends::new()), Ended::Regressed);
        let mut fewer = whole.clone();
        fewer.get_mut(name).unwrap().pop();
        assert_eq!(ended(&fewer, &Ends::new()), Ended::Regressed);
        let end = |end| Ends::from([(name.to_owned(), (end, "why".to_owned()))]);
        assert_eq!(ended(&whole, &end(RowEnd::Failed)), Ended::Regressed);
        assert_eq!(ended(&Results::new(), &end(RowEnd::Skipped)), Ended::Noisy);
        let other = Ends::from([("bench/floor/x".to_owned(), (RowEnd::Skipped, String::new()))]);
        assert_eq!(ended(&whole, &other), Ended::Met, "it was never measured");
        let decision = decide(
            &whole,
            &Results::new(),
            &Ends::new(),
            Vec::new(),
            Judged::All,
            &Thresholds::default(),
        );
        assert!(decision.faults[0].contains(name), "{:?}", decision.faults);
    }

    #[test]
    fn only_rows_that_the_run_and_the_gate_were_asked_for_are_expected() {
        let named = |name: &str| {
            let all = results(|_| {}).into_values();
            all.map(|all| (name.to_owned(), all)).collect::<Results>()
        };
        let mut before = named("bench/log/a");
        before.extend(named("bench/btree/b"));
        let after = named("bench/log/a");
        let of = |filter: Option<&str>, suite: Option<&str>| SelectArgs {
            filter: filter.map(str::to_owned),
            suite: suite.map(str::to_owned),
        };
        let all = SelectArgs::default();
        let expected = |select: &SelectArgs, summary: Option<&Summary>| {
            let names = decision::expected(select, summary, &before, &after);
            names.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(expected(&all, None), "bench/btree/b bench/log/a");
        assert_eq!(expected(&of(None, Some("log")), None), "bench/log/a");
        assert_eq!(expected(&of(Some("btree/"), None), None), "bench/btree/b");
        let mut summary = Summary::new();
        summary.asked = vec![of(Some("log/"), None)];
        assert_eq!(expected(&all, Some(&summary)), "bench/log/a");
        summary.asked.push(SelectArgs::default());
        assert_eq!(expected(&all, Some(&summary)), "bench/btree/b bench/log/a");
    }
}
