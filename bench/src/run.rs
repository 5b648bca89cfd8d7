//! Running rows: what is shown while they run, what is kept, and how a run ends.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::absolute::{self, Held};
use crate::cli::{self, Ended, RunArgs, complain, say};
use crate::csv;
use crate::error::{BenchError, Result};
use crate::figures::Verdict;
use crate::gate;
use crate::machine::{Git, Machine, free_bytes};
use crate::profile::{Profile, Scale};
use crate::report::{self, Run};
use crate::row::{Ctx, Row, room_of};
use crate::sample::Warmup;
use crate::scratch::Scratch;
use crate::summary::{self, RowEnd, Summary};
use crate::units::{Unit, show};

/// Runs rows, shows them and keeps their results.
pub(crate) fn run(args: &RunArgs) -> Result<Ended> {
    // Before anything is removed: what cannot be meant.
    args.select.rows_to_run()?;
    let dir = args.dir.clone().unwrap_or_else(cli::default_dir);
    let scratch = Scratch::create(&dir).map_err(BenchError::file(&dir))?;
    let machine = Machine::read(scratch.path());
    let (profile, why) = Profile::find(&args.profile, &machine)?;
    let run = with_profile(args, machine, profile);
    run_by(args, &run, &why, scratch.path())
}

/// What all results of a run have in common that has this profile, wherever it came from.
pub(crate) fn with_profile(args: &RunArgs, machine: Machine, profile: Profile) -> Run {
    let (scale, size) = match (args.tiny, args.quick) {
        (true, _) => (Scale::tiny(), "tiny"),
        (_, true) => (profile.quick, "quick"),
        _ => (profile.scale, "full"),
    };
    let warmup = Warmup {
        ops: args.warmup_ops,
        time: Duration::from_nanos(args.warmup_ns),
    };
    Run {
        machine,
        scale,
        size,
        seed: args.seed,
        git: Git::of_this_program(),
        repeats: args.repeats,
        threads_asked: args.threads,
        warmup,
        profile,
    }
}

/// Runs rows with what was found of machine and profile, and `why` it is that profile.
pub(crate) fn run_by(args: &RunArgs, run: &Run, why: &str, scratch: &Path) -> Result<Ended> {
    let rows = args.select.rows_to_run()?;
    let json = args
        .json
        .clone()
        .unwrap_or_else(|| gate::latest(&cli::default_dir()));
    if args.json.is_none() && json.exists() {
        // Only one run is the last.
        std::fs::remove_dir_all(&json).map_err(BenchError::file(&json))?;
    }
    Summary::prepare(&json, &rows, &args.select)?;
    run.warmup.set();
    tell(args, &heading(run, why));
    measure_all(&rows, args, run, scratch, &json)
}

fn heading(run: &Run, why: &str) -> String {
    let Machine {
        cpu_model,
        core_count,
        ram_gb,
        os,
        fs,
        device,
        load_average,
        direct_io,
        ..
    } = &run.machine;
    let unknown = || "unknown".to_owned();
    let mut text = format!(
        "profile {} ({why}), {} size, seed {}\n{}, {core_count} cores, {} GiB, {os}, {} on {}, load {}\n",
        run.profile.name,
        run.size,
        run.seed,
        cpu_model.clone().unwrap_or_else(unknown),
        ram_gb.map_or_else(unknown, |gb| gb.to_string()),
        fs.clone().unwrap_or_else(unknown),
        device.clone().unwrap_or_else(unknown),
        load_average.map_or_else(unknown, |load| load.to_string()),
    );
    if cfg!(debug_assertions) {
        text.push_str("built without --release: these figures say nothing about the engine\n");
    }
    if northstardb::INSTRUMENTED && !cfg!(debug_assertions) {
        text.push_str(
            "built together with nshard, whose instruments slow the engine down: build with `cargo build --release -p nsbench` alone\n",
        );
    }
    if load_average.is_some_and(|load| load > *core_count as f64 / 2.0) {
        text.push_str(
            "the machine is busy: times are of a busy machine, read the ratios and the counts\n",
        );
    }
    if *direct_io == Some(false) {
        text.push_str(
            "files of the scratch directory are read through the kernel's page cache: cold rows are not cold\n",
        );
    }
    text.push('\n');
    text
}

/// What is for people: standard output, unless that is for a program.
fn tell(args: &RunArgs, text: &str) {
    match args.csv {
        true => complain(text.trim_end_matches('\n')),
        false => say(text),
    }
}

fn measure_all(
    rows: &[Row],
    args: &RunArgs,
    run: &Run,
    scratch: &Path,
    json: &Path,
) -> Result<Ended> {
    let started = crate::clock::now();
    let ctx = Ctx::new(scratch.to_owned(), run.scale, run.seed);
    let mut ctx = ctx.threads_asked(args.threads);
    if run.size == "full" {
        ctx.hour = Duration::from_hours(1);
    }
    if let Some(minutes) = args.minutes {
        ctx.soak = Duration::from_mins(u64::from(minutes));
        ctx.hour = ctx.soak;
    }
    let bar = progress(rows.len() as u64 * u64::from(args.repeats));
    let (mut verdicts, mut summary): (Vec<Verdict>, _) = (Vec::new(), Summary::new());
    let mut held: Vec<Held> = Vec::new();
    let mut suite = "";
    if args.csv {
        say(csv::HEADER);
    }
    for row in rows {
        if row.suite() != suite {
            suite = row.suite();
            ctx.end_suite()?;
        }
        let (mut records, mut end, mut why) = (Vec::new(), RowEnd::Passed, None);
        let mut figures: Vec<Verdict> = Vec::new();
        for repeat in 0..args.repeats {
            bar.set_message(row.short());
            let measured = room(row.name, &run.scale, scratch).and_then(|()| (row.run)(&mut ctx));
            let replaced = ctx.threads_were_replaced();
            let kept = measured.and_then(|mut outcome| {
                if replaced {
                    outcome.figures.clear();
                    outcome.notes.push(format!(
                        "with {} threads, not the row's own number",
                        outcome.sample.threads
                    ));
                }
                let record = report::record(run, row, &outcome, repeat);
                record.write(json)?;
                Ok((outcome, record))
            });
            match kept {
                Ok((outcome, record)) => {
                    bar.suspend(|| tell(args, &report::lines(row, &outcome)));
                    if args.csv {
                        say(&csv::line(&record));
                    }
                    figures.extend(report::verdicts(run, &outcome));
                    records.push(record);
                }
                Err(BenchError::Absent(reason)) => {
                    bar.suspend(|| complain(&format!("{}: skipped: {reason}", row.name)));
                    if end == RowEnd::Passed {
                        (end, why) = (RowEnd::Skipped, Some(reason));
                    }
                    // It will lack the same in every repeat.
                    bar.inc(u64::from(args.repeats - repeat));
                    break;
                }
                Err(error) => {
                    bar.suspend(|| complain(&format!("{}: {error}", row.name)));
                    (end, why) = (RowEnd::Failed, Some(error.to_string()));
                }
            }
            bar.inc(1);
        }
        if let Some(line) = summary::repeats_line(&records) {
            bar.suspend(|| tell(args, &line));
        }
        if args.threads.is_none() {
            held.extend(absolute::hold(row.name, &records, &run.profile.targets));
        }
        summary.add(row.name, &records, end, why);
        verdicts.extend(judged(figures));
    }
    bar.finish_and_clear();
    ctx.end_suite()?;
    summary.write(json)?;
    let took = show(started.elapsed().as_nanos() as f64, Unit::Nanos);
    tell(args, &ending(run, &verdicts, &held, &summary, &took));
    let missed = verdicts.iter().any(Verdict::missed) || held.iter().any(Held::missed);
    Ok((summary.total().failed == 0 && !(args.check && missed)).into())
}

/// A row's figures over its repeats: each as in the repeat in the middle.
fn judged(mut figures: Vec<Verdict>) -> Vec<Verdict> {
    let mut all = Vec::new();
    while let Some(first) = figures.first() {
        let id = first.figure.id;
        let (of_id, others) = figures.into_iter().partition(|one| one.figure.id == id);
        all.extend(summary::middle(id, of_id, |one: &Verdict| {
            (one.measured.value, one.limit)
        }));
        figures = others;
    }
    all
}

/// Fails unless the scratch directory has room for the files of a row.
fn room(row: &str, scale: &Scale, scratch: &Path) -> Result<()> {
    let needed = room_of(row, scale);
    match free_bytes(scratch) {
        Some(free) if free < needed => Err(BenchError::Absent(format!(
            "{} has {} free, {} are needed",
            scratch.display(),
            show(free as f64, Unit::Bytes),
            show(needed as f64, Unit::Bytes)
        ))),
        _ => Ok(()),
    }
}

/// The tables that end a run.
fn ending(run: &Run, verdicts: &[Verdict], held: &[Held], summary: &Summary, took: &str) -> String {
    let mut text = String::new();
    if !verdicts.is_empty() {
        let figures = report::coloured(&report::figures_table(verdicts));
        text.push_str(&format!("\n{figures}"));
    }
    if !held.is_empty() {
        let targets = report::coloured(&absolute::table(held));
        text.push_str(&format!("\n{targets}"));
    }
    text.push_str(&format!("\n{}", report::coloured(&summary.table())));
    let missed = verdicts.iter().filter(|verdict| verdict.missed()).count();
    let met = verdicts
        .iter()
        .filter(|verdict| verdict.met == Some(true))
        .count();
    let targets = match (held.len(), held.iter().filter(|held| held.missed()).count()) {
        (0, _) => String::new(),
        (all, missed) => format!("; {} targets met, {missed} missed", all - missed),
    };
    let total = summary.total();
    let also = |count: u32, word: &str| match count {
        0 => String::new(),
        _ => format!(", {count} {word}"),
    };
    text.push_str(&format!(
        "\n{} rows in {took}: {} passed{}{}; {met} figures met, {missed} missed{targets}{}\n",
        summary.rows.len(),
        total.passed,
        also(total.failed, "FAILED"),
        also(total.skipped, "skipped"),
        if run.size == "full" {
            ""
        } else {
            " (not full size: indications only)"
        },
    ));
    text
}

/// A bar on standard error; invisible unless that is a terminal.
fn progress(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::SelectArgs;
    use crate::results::Record;
    use crate::row::Outcome;
    use crate::sample::Sample;

    fn sound(_: &mut Ctx) -> Result<Outcome> {
        let mut sample = Sample::new();
        sample.record(Duration::from_micros(10), 10);
        sample.elapsed = Duration::from_micros(10);
        Ok(Outcome::of(sample))
    }

    /// No operations: no result that can be kept.
    fn empty(_: &mut Ctx) -> Result<Outcome> {
        Ok(Outcome::of(Sample::new()))
    }

    fn row(name: &'static str, run: fn(&mut Ctx) -> Result<Outcome>) -> Row {
        Row {
            name,
            question: "?",
            unit: "operation",
            run,
        }
    }

    fn tiny(profile: Profile, json: &Path, repeats: u32) -> (RunArgs, Run) {
        let mut args = RunArgs::full(&SelectArgs::default(), repeats, json, None);
        (args.tiny, args.csv) = (true, false);
        let run = with_profile(&args, Machine::read(json), profile);
        (args, run)
    }

    fn profile() -> Profile {
        let machine = Machine::read(Path::new("."));
        Profile::find("ci", &machine).unwrap().0
    }

    #[test]
    fn a_result_that_cannot_be_fails_its_row_and_the_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (args, run) = tiny(profile(), dir.path(), 2);
        let rows = [row("bench/log/empty", empty), row("bench/log/sound", sound)];
        let ended = measure_all(&rows, &args, &run, dir.path(), dir.path()).unwrap();
        assert_eq!(ended, Ended::Regressed);
        let summary = Summary::read(dir.path()).unwrap();
        let failed = &summary.rows["bench/log/empty"];
        assert_eq!(failed.end, RowEnd::Failed);
        assert!(
            failed.why.as_ref().unwrap().contains("ops_total"),
            "{failed:?}"
        );
        assert_eq!(summary.rows["bench/log/sound"].end, RowEnd::Passed);
        assert_eq!(
            Record::read_all(dir.path()).unwrap()["bench/log/sound"].len(),
            2
        );
    }

    #[test]
    fn a_run_has_the_profile_that_it_was_given_and_finds_none_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mine = Profile {
            name: "mine".to_owned(),
            ..profile()
        };
        let (mut args, run) = tiny(mine, dir.path(), 1);
        args.select.filter = Some("bench/floor/append_4k_flush".to_owned());
        assert_eq!(
            run_by(&args, &run, "given", dir.path()).unwrap(),
            Ended::Met
        );
        let all = Record::read_all(dir.path()).unwrap();
        assert_eq!(all["bench/floor/append_4k_flush"][0].profile.name, "mine");
    }

    #[test]
    fn check_judges_all_repeats_and_not_the_last() {
        let verdict = |value| {
            let measured = crate::figures::Measured {
                id: "begin_read_p50",
                value,
                floor: None,
            };
            crate::figures::judge(measured, &profile(), 1).unwrap()
        };
        let missed = |values: [f64; 3]| {
            let all = judged(values.map(verdict).into());
            assert_eq!(all.len(), 1);
            all[0].missed()
        };
        assert!(missed([90.0, 80.0, 10.0]), "the last is good by chance");
        assert!(!missed([10.0, 20.0, 90.0]), "the last is bad by chance");
    }

    #[test]
    fn rows_without_room_are_skipped_and_say_how_much_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(room("bench/log/x", &Scale::tiny(), dir.path()).is_ok());
        let vast = Scale {
            pages: 1 << 40,
            ..Scale::tiny()
        };
        let error = room("bench/log/x", &vast, dir.path()).unwrap_err();
        assert!(matches!(error, BenchError::Absent(_)), "{error}");
        assert!(error.to_string().contains("are needed"), "{error}");
    }
}
