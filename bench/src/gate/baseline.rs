//! What later runs are held against: measured, kept, and replaced row by row where that makes it no worse.
//!
//! A baseline that gave way to every refresh within the noise would follow a slow loss down, refresh by refresh. So without
//! `--accept` a row's results are replaced only if the median of none of its numbers became worse, by however little and whether or
//! not the number is judged or the row critical: what is kept only ever becomes better.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Results, comparable};
use crate::cli::{Ended, LimitArgs, RunArgs, SelectArgs, default_dir, say};
use crate::compare::worsened;
use crate::error::{BenchError, Result};
use crate::machine::{Git, Machine};
use crate::profile::Profile;
use crate::report::Run;
use crate::results::{Record, Staged};
use crate::run::{run_by, with_profile};
use crate::scratch::Scratch;
use crate::suites;

/// What is measured, and where it is kept.
#[derive(Debug, Args)]
pub(crate) struct BaselineArgs {
    /// Which profile.
    #[arg(
        long,
        env = "NSBENCH_PROFILE",
        default_value = "auto",
        value_name = "PROFILE"
    )]
    profile: String,
    /// Where baselines are kept, each in a directory named as its profile.
    #[arg(long, default_value = "baselines", value_name = "DIR")]
    baselines: PathBuf,
    /// Runs of each row.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Put the databases below this directory.
    #[arg(long, env = "NSBENCH_DIR", value_name = "SCRATCH")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    select: SelectArgs,
}

/// What is done with a baseline that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// There must be none.
    New,
    /// A row is replaced if that makes it no worse.
    Better,
    /// A row is replaced.
    Accepted,
}

/// Measures what is kept.
pub(crate) fn capture(args: &BaselineArgs, keep: Keep) -> Result<Ended> {
    let dir = args.dir.clone().unwrap_or_else(default_dir);
    let scratch = Scratch::create(&dir).map_err(BenchError::file(&dir))?;
    let machine = Machine::read(scratch.path());
    let (profile, why) = Profile::find(&args.profile, &machine)?;
    if let Some(why) = profile.unfit_for_baseline(&machine)? {
        return Err(BenchError::Profile {
            name: profile.name,
            why: format!("no baseline from this machine: {why}"),
        });
    }
    let kept_in = args.baselines.join(&profile.name);
    let (kept, mixed) = there(&kept_in, keep)?;
    let instrumented = cfg!(debug_assertions) || northstardb::INSTRUMENTED;
    if instrumented || Git::of_this_program().is_none_or(|git| git.dirty) {
        return Err(BenchError::Incomparable(
            "a baseline is measured by a release build of a clean commit, of nsbench alone"
                .to_owned(),
        ));
    }
    let measured_in = scratch.path().join("baseline");
    let run_args = RunArgs::full(
        &args.select,
        args.repeats,
        &measured_in,
        args.dir.as_deref(),
    );
    let run = with_profile(&run_args, machine, profile);
    let foreign = mixed.or_else(|| foreign(&kept, &run));
    if let Some(other) = &foreign {
        say(&format!("{other}\n"));
        if keep != Keep::Accepted || !args.select.is_all() {
            say(
                "the baseline stays as it is; refresh-baselines --accept of all rows replaces it\n",
            );
            return Ok(Ended::Noisy);
        }
    }
    if run_by(&run_args, &run, &why, scratch.path())? != Ended::Met {
        say("a row failed: nothing is kept\n");
        return Ok(Ended::Regressed);
    }
    let ended = match keep {
        Keep::Better => super::against_baseline(
            Some(&kept_in),
            &measured_in,
            &args.select,
            &LimitArgs::default(),
            Some(run.profile.gate),
        )?,
        Keep::New | Keep::Accepted => Ended::Met,
    };
    let measured = Record::read_all(&measured_in)?;
    match foreign.is_some() {
        true => {
            let written = replace(&kept_in, Results::new(), measured, keep, &args.select)?;
            // Not even what this machine cannot measure stays beside it.
            for old in kept.values() {
                remove(&kept_in, old, &written)?;
            }
        }
        false => drop(replace(&kept_in, kept, measured, keep, &args.select)?),
    }
    say(&format!("kept in {}\n", kept_in.display()));
    Ok(ended)
}

/// What is kept now, looked at before anything is measured; and, if all of it may be replaced, why its results do not belong together.
fn there(dir: &Path, keep: Keep) -> Result<(Results, Option<String>)> {
    let shown = dir.display();
    match (keep, dir.exists()) {
        (Keep::New, true) => Err(BenchError::Incomparable(format!(
            "{shown} exists; refresh-baselines replaces it"
        ))),
        (Keep::New, false) => Ok((Results::new(), None)),
        (Keep::Better | Keep::Accepted, false) => Err(BenchError::Incomparable(format!(
            "{shown} does not exist; capture-baseline makes it"
        ))),
        (Keep::Better | Keep::Accepted, true) => {
            let kept = Record::read_all(dir)?;
            let mixed = match (comparable::check(&kept, &Results::new()), keep) {
                (Ok(_), _) => None,
                (Err(why), Keep::Accepted) => Some(why.to_string()),
                (Err(why), _) => return Err(why),
            };
            Ok((kept, mixed))
        }
    }
}

/// Says if the kept results are of another kind of machine, or of other sizes.
fn foreign(kept: &Results, run: &Run) -> Option<String> {
    let kept = kept.values().flatten().next()?;
    let old = comparable::class(&kept.profile.machine);
    let new = comparable::class(&run.machine);
    if old != new {
        return Some(format!(
            "OTHER MACHINE: the baseline is of {old}; this is {new}"
        ));
    }
    let (old, new) = (&kept.config, run);
    let same = old.scale == new.scale && old.size == new.size && old.seed == new.seed;
    (!same).then(|| {
        format!(
            "OTHER SIZES: the baseline is of {} size, seed {}, {:?}; this would be {}, {}, {:?}",
            old.size, old.seed, old.scale, new.size, new.seed, new.scale
        )
    })
}

/// Writes what was measured over what is kept, row by row, and says which rows stay and why. Gives what it wrote.
///
/// All new results of a row are written before the first old one gives way to one: a refresh that is cut short, or finds no room, leaves
/// each row as it was or as it was measured.
fn replace(
    dir: &Path,
    mut kept: Results,
    measured: Results,
    keep: Keep,
    select: &SelectArgs,
) -> Result<BTreeSet<PathBuf>> {
    let mut written = BTreeSet::new();
    let known: BTreeSet<&str> = suites::all().iter().map(|row| row.name).collect();
    for (name, records) in measured {
        let old = kept.remove(&name).unwrap_or_default();
        let repeats = records.first().map_or(0, |record| record.repeats) as usize;
        let mut worse = worsened(&old, &records);
        if records.len() < repeats {
            let what = match old.is_empty() {
                true => "is left out",
                false => "stays as it was",
            };
            say(&format!("{name} {what}: not measured in every repeat\n"));
            continue;
        }
        if records.len() < old.len() {
            // The best of few is easily better than the median of many.
            worse.push(format!("{repeats} repeats instead of {}", old.len()));
        }
        if keep == Keep::Better && !worse.is_empty() {
            say(&format!("{name} stays as it was: {}\n", worse.join(", ")));
            continue;
        }
        let staged = records.iter().map(|record| record.stage(dir));
        let staged: Vec<_> = staged.collect::<Result<_>>()?;
        staged.into_iter().try_for_each(Staged::place)?;
        written.extend(records.iter().map(|record| record.path(dir)));
        remove(dir, &old, &written)?;
    }
    let names: BTreeSet<&str> = kept.keys().map(String::as_str).collect();
    let meant = select.choose(&names);
    for (name, old) in kept
        .iter()
        .filter(|(name, _)| meant.contains(name.as_str()))
    {
        let gone = !known.contains(name.as_str());
        let text = match (gone, keep) {
            (true, Keep::Accepted) => {
                remove(dir, old, &written)?;
                "is removed: there is no such row"
            }
            (true, _) => "stays: there is no such row; --accept removes it",
            (false, _) => "stays as it was: it was not measured",
        };
        say(&format!("{name} {text}\n"));
    }
    Ok(written)
}

/// Removes the files of `records` but for those that were just written.
fn remove(dir: &Path, records: &[Record], written: &BTreeSet<PathBuf>) -> Result<()> {
    let old = records.iter().map(|record| record.path(dir));
    for path in old.filter(|path| !written.contains(path)) {
        std::fs::remove_file(&path).map_err(BenchError::file(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::tests::results;

    fn written(dir: &Path, results: &Results) {
        for record in results.values().flatten() {
            record.write(dir).unwrap();
        }
    }

    /// Throughput of what is kept after a refresh of `factor` times the throughput and `p99` times the percentile.
    fn refreshed(dir: &Path, factor: f64, p99: f64, keep: Keep) -> f64 {
        let measured = results(|record| {
            record.results.ops_per_sec *= factor;
            record.results.latency_ns.p99 *= p99;
        });
        let (kept, _) = there(dir, keep).unwrap();
        replace(dir, kept, measured, keep, &SelectArgs::default()).unwrap();
        let kept = Record::read_all(dir).unwrap();
        assert_eq!(kept["bench/log/commit_solo_durable"].len(), 5);
        kept["bench/log/commit_solo_durable"][2].results.ops_per_sec
    }

    #[test]
    fn what_is_kept_never_becomes_worse_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let first = results(|_| {});
        written(dir.path(), &first);
        let was = first["bench/log/commit_solo_durable"][2]
            .results
            .ops_per_sec;
        for _ in 0..20 {
            // Within every threshold, and not even a number that this profile judges.
            let kept = refreshed(dir.path(), 0.99, 1.0, Keep::Better);
            assert!((kept - was).abs() < 1e-9, "{kept}");
        }
        let kept = refreshed(dir.path(), 1.2, 1.001, Keep::Better);
        assert!(
            (kept - was).abs() < 1e-9,
            "better, but for one number: {kept}"
        );
        let kept = refreshed(dir.path(), 1.2, 1.0, Keep::Better);
        assert!(kept > was * 1.19, "{kept}");
        let kept = refreshed(dir.path(), 0.5, 1.0, Keep::Accepted);
        assert!(kept < was, "accepted: {kept}");
    }

    #[test]
    fn fewer_repeats_replace_nothing_by_themselves_and_unfinished_ones_never() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &results(|_| {}));
        let rate = |repeats: usize, of: u32, keep| {
            let mut few = results(|record| {
                record.results.ops_per_sec *= 2.0;
                record.repeats = of;
            });
            for records in few.values_mut() {
                records.truncate(repeats);
            }
            let (kept, _) = there(dir.path(), keep).unwrap();
            replace(dir.path(), kept, few, keep, &SelectArgs::default()).unwrap();
            Record::read_all(dir.path()).unwrap()["bench/log/commit_solo_durable"].len()
        };
        assert_eq!(rate(1, 1, Keep::Better), 5);
        assert_eq!(rate(3, 5, Keep::Accepted), 5);
        assert_eq!(rate(3, 3, Keep::Accepted), 3);
    }

    #[test]
    fn a_refresh_that_is_cut_short_loses_no_result() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &results(|_| {}));
        // The third of five cannot be written.
        let third = results(|_| {})["bench/log/commit_solo_durable"][2].path(dir.path());
        std::fs::create_dir(third.with_extension("part")).unwrap();
        let (kept, _) = there(dir.path(), Keep::Accepted).unwrap();
        let new = |record: &mut Record| {
            record.git = Some(Git {
                sha: "0123456789abcdef".to_owned(),
                branch: "main".to_owned(),
                dirty: false,
            });
        };
        let select = SelectArgs::default();
        replace(dir.path(), kept, results(new), Keep::Accepted, &select).unwrap_err();
        let (kept, mixed) = there(dir.path(), Keep::Better).unwrap();
        let kept = &kept["bench/log/commit_solo_durable"];
        assert!(kept.len() == 5 && mixed.is_none());
        assert!(kept.iter().all(|record| record.git.is_none()), "as it was");
        // One that was cut short while results took their places is replaced as a whole.
        let mut third = results(new);
        third.values_mut().for_each(|all| all.truncate(2));
        written(dir.path(), &third);
        assert_eq!(there(dir.path(), Keep::Better).unwrap_err().exit_code(), 2);
        let (_, mixed) = there(dir.path(), Keep::Accepted).unwrap();
        assert!(mixed.unwrap().contains("commit of"));
    }

    #[test]
    fn a_number_that_is_lost_and_a_row_that_is_gone_stay_until_that_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &results(|_| {}));
        let mut gone = results(|record| record.bench_name = "bench/log/no_more".into());
        gone = gone
            .into_values()
            .map(|all| ("bench/log/no_more".to_owned(), all))
            .collect();
        written(dir.path(), &gone);
        let without = results(|record| record.results.floors.clear());
        for (keep, rows, floors) in [(Keep::Better, 2, 1), (Keep::Accepted, 1, 0)] {
            let (kept, _) = there(dir.path(), keep).unwrap();
            let select = SelectArgs::default();
            replace(dir.path(), kept, without.clone(), keep, &select).unwrap();
            let kept = Record::read_all(dir.path()).unwrap();
            assert_eq!(kept.len(), rows);
            let now = &kept["bench/log/commit_solo_durable"][0].results.floors;
            assert_eq!(now.len(), floors);
        }
    }

    #[test]
    fn whether_there_is_a_baseline_and_of_which_machine_is_known_before_anything_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("ci");
        assert!(there(&kept, Keep::New).is_ok());
        assert_eq!(there(&kept, Keep::Better).unwrap_err().exit_code(), 2);
        written(&kept, &results(|_| {}));
        assert_eq!(there(&kept, Keep::New).unwrap_err().exit_code(), 2);
        let (kept, _) = there(&kept, Keep::Better).unwrap();
        let machine = Machine::read(Path::new("."));
        let (profile, _) = Profile::find("ci", &machine).unwrap();
        let select = SelectArgs::default();
        let args = RunArgs::full(&select, 5, dir.path(), None);
        let mut run = with_profile(&args, machine, profile);
        assert!(foreign(&kept, &run).unwrap().contains("OTHER SIZES"));
        run.scale = crate::profile::Scale::tiny();
        assert_eq!(foreign(&kept, &run), None);
        run.machine.core_count += 2;
        assert!(foreign(&kept, &run).unwrap().contains("OTHER MACHINE"));
    }
}
