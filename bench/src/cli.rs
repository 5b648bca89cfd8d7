//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::compare::Thresholds;
use crate::error::{BenchError, Result};
use crate::figures::Verdict;
use crate::gate;
use crate::machine::{Git, Machine};
use crate::profile::{Profile, Scale};
use crate::report::{self, Run};
use crate::results::Record;
use crate::row::{Ctx, Row};
use crate::scratch::Scratch;
use crate::suites;
use crate::units::{Unit, show};
use crate::versus::{self, VersusArgs};

/// Measures NorthstarDB beside the floors of the machine it runs on.
///
/// Exit codes: 0 done, or the gate passed; 1 a row failed, a figure was missed with --check, or a critical row regressed;
/// 2 bad use; 3 the machine was too noisy to judge.
#[derive(Debug, Parser)]
#[command(name = "nsbench", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run rows (the default).
    Run(RunArgs),
    /// Name every row and the question it answers.
    List(SelectArgs),
    /// Hold two sets of results against each other.
    #[command(visible_alias = "compare-dirs")]
    Compare {
        /// Results before: a directory or one file.
        before: PathBuf,
        /// Results after.
        after: PathBuf,
        /// Show also what did not shift.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Decide whether a change may pass: hold the last run, or two builds run in turn, against each other.
    Gate(GateArgs),
    /// Measure and keep what later runs are held against.
    CaptureBaseline(BaselineArgs),
    /// Measure anew and replace a kept baseline, unless it would become worse.
    RefreshBaselines {
        #[command(flatten)]
        baseline: BaselineArgs,
        /// Replace it even where it becomes worse.
        #[arg(long)]
        accept: bool,
    },
    /// Say whether files are results of this version.
    Validate {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Print results as comma-separated values, one line for each row and repeat.
    Dump {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Print the JSON schema of a result.
    Schema,
    /// Measure NorthstarDB beside other engines, which are built from source the first time.
    Versus(VersusArgs),
    /// Try what must hold whatever the work is, with work from many seeds.
    PropertyTest {
        /// Seeds for each property.
        #[arg(long, default_value_t = 100, value_name = "N")]
        count: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Only properties whose name contains this.
        #[arg(long, env = "NSBENCH_FILTER", value_name = "SUBSTR")]
        filter: Option<String>,
    },
    /// Do a part of a row in a process of its own.
    #[command(hide = true)]
    Child {
        /// The task, as JSON.
        task: String,
    },
}

#[derive(Debug, Clone, Args)]
struct SelectArgs {
    /// Only rows whose name contains this.
    #[arg(long, env = "NSBENCH_FILTER", value_name = "SUBSTR")]
    filter: Option<String>,
    /// Only rows of this suite: floor, pager, btree, mvcc, log or store.
    #[arg(long, env = "NSBENCH_SUITE", value_name = "SUITE")]
    suite: Option<String>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Sizes and limits: auto, ci, dev_nvme, or the path of a .toml file.
    #[arg(
        long,
        env = "NSBENCH_PROFILE",
        default_value = "auto",
        value_name = "PROFILE"
    )]
    profile: String,
    /// Write the results, one JSON file for each row and repeat, below this directory (default: `nsbench-results` in
    /// the build's target directory, where those of the run before are removed).
    #[arg(long, env = "NSBENCH_JSON", value_name = "DIR")]
    json: Option<PathBuf>,
    /// Put the databases below this directory (default: the build's target directory); removed afterwards.
    #[arg(long, env = "NSBENCH_DIR", value_name = "SCRATCH")]
    dir: Option<PathBuf>,
    /// Smaller and shorter: about a minute. Figures are then indications.
    #[arg(long, env = "NSBENCH_QUICK")]
    quick: bool,
    /// Where everything random starts.
    #[arg(long, env = "NSBENCH_SEED", default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Run each row so many times.
    #[arg(long, env = "NSBENCH_REPEATS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Exit with 1 if a figure is missed.
    #[arg(long)]
    check: bool,
    /// So small that it only shows that every row works.
    #[arg(long, hide = true)]
    tiny: bool,
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Percent of operations a second that may be lost.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    threshold_throughput: f64,
    /// Percent by which the 99th percentile may rise.
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    threshold_p99: f64,
    /// Percent by which a ratio to a floor may become worse.
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    threshold_floor: f64,
    /// Percent by which allocations and bytes an operation may rise.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    threshold_alloc: f64,
    /// Percent by which flushes a transaction may rise.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    threshold_fsync: f64,
}

impl LimitArgs {
    fn thresholds(&self) -> Thresholds {
        Thresholds {
            throughput: self.threshold_throughput / 100.0,
            p99: self.threshold_p99 / 100.0,
            floor: self.threshold_floor / 100.0,
            counts: self.threshold_alloc / 100.0,
            fsyncs: self.threshold_fsync / 100.0,
        }
    }
}

#[derive(Debug, Args)]
struct GateArgs {
    /// The kept results (default: those of the profile below `baselines`).
    baseline: Option<PathBuf>,
    /// The results to judge (default: those of the last run).
    #[arg(long, env = "NSBENCH_JSON", value_name = "DIR")]
    results: Option<PathBuf>,
    /// Judge this build against another build of nsbench instead, both run in turn.
    #[arg(long, value_name = "NSBENCH", conflicts_with_all = ["baseline", "results"])]
    against: Option<PathBuf>,
    /// Runs of each build and row.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), requires = "against")]
    repeats: u32,
    /// Profile of these runs.
    #[arg(
        long,
        default_value = "auto",
        value_name = "PROFILE",
        requires = "against"
    )]
    profile: String,
    /// Smaller and shorter runs.
    #[arg(long, requires = "against")]
    quick: bool,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
struct BaselineArgs {
    /// Which profile.
    #[arg(long, default_value = "auto", value_name = "PROFILE")]
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

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is well.
    Met,
    /// Something failed, or became worse.
    Regressed,
    /// It cannot be told.
    Noisy,
}

impl From<bool> for Ended {
    fn from(met: bool) -> Self {
        match met {
            true => Self::Met,
            false => Self::Regressed,
        }
    }
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => run(&cli.run),
        Some(Command::Run(args)) => run(&args),
        Some(Command::List(select)) => list(&select),
        Some(Command::Compare {
            before,
            after,
            all,
            limits,
        }) => gate::show(&before, &after, &limits.thresholds(), all),
        Some(Command::Gate(args)) => judge(&args),
        Some(Command::CaptureBaseline(args)) => capture(&args, None),
        Some(Command::RefreshBaselines { baseline, accept }) => capture(&baseline, Some(accept)),
        Some(Command::Validate { paths }) => validate(&paths),
        Some(Command::Dump { paths }) => dump(&paths),
        Some(Command::Schema) => {
            say(&Record::schema());
            Ok(Ended::Met)
        }
        Some(Command::Versus(args)) => versus::run(&args, &default_dir()),
        Some(Command::PropertyTest {
            count,
            seed,
            filter,
        }) => crate::properties::run(seed..seed.saturating_add(count), filter.as_deref())
            .map(Ended::from),
        Some(Command::Child { task }) => crate::child::serve(&task).map(|()| Ended::Met),
    };
    match done {
        Ok(Ended::Met) => ExitCode::SUCCESS,
        Ok(Ended::Regressed) => ExitCode::from(1),
        Ok(Ended::Noisy) => ExitCode::from(3),
        Err(error) => {
            complain(&format!("nsbench: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// A line on standard error; nobody is left to tell if that fails.
fn complain(text: &str) {
    drop(writeln!(anstream::stderr(), "{text}"));
}

/// Text on standard output. A reader that has gone away ends the process quietly, as `| head` expects.
pub(crate) fn say(text: &str) {
    let mut out = anstream::stdout();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

impl SelectArgs {
    fn rows(&self) -> Result<Vec<Row>> {
        let mut rows = suites::all();
        if let Some(suite) = &self.suite {
            rows.retain(|row| row.suite() == suite);
        }
        if let Some(filter) = &self.filter {
            rows.retain(|row| row.name.contains(filter.as_str()));
        }
        if rows.is_empty() {
            let asked = [self.suite.as_deref(), self.filter.as_deref()];
            return Err(BenchError::NoRow(
                asked
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" and "),
            ));
        }
        Ok(rows)
    }
}

fn list(select: &SelectArgs) -> Result<Ended> {
    let mut suite = "";
    for row in select.rows()? {
        if row.suite() != suite {
            suite = row.suite();
            say(&format!("{suite}\n"));
        }
        say(&format!("  {:<44} {}\n", row.name, row.question));
    }
    Ok(Ended::Met)
}

/// The target directory the program was built into, or a hidden folder where it was started.
fn default_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.map_or_else(
        || PathBuf::from(".nsbench-scratch"),
        |target| target.join("nsbench-scratch"),
    )
}

fn judge(args: &GateArgs) -> Result<Ended> {
    let limits = args.limits.thresholds();
    let Some(other) = &args.against else {
        let results = args.results.clone();
        let results = results.unwrap_or_else(|| gate::latest(&default_dir()));
        return gate::against_baseline(args.baseline.as_deref(), &results, &limits);
    };
    let scratch = Scratch::create(&default_dir())?;
    let mut arguments = vec!["--profile".to_owned(), args.profile.clone()];
    if args.quick {
        arguments.push("--quick".to_owned());
    }
    let rows = args.select.rows()?;
    gate::against_build(
        other,
        &rows,
        &arguments,
        args.repeats,
        scratch.path(),
        &limits,
    )
}

/// Measures what is kept: `refresh` replaces what is there, if it did not become worse or that is accepted.
fn capture(args: &BaselineArgs, refresh: Option<bool>) -> Result<Ended> {
    let scratch = Scratch::create(&args.dir.clone().unwrap_or_else(default_dir))?;
    let machine = Machine::read(scratch.path());
    let (profile, _) = Profile::find(&args.profile, &machine)?;
    if let Some(why) = profile.unfit(&machine) {
        return Err(BenchError::Profile {
            name: profile.name,
            why: format!("no baseline from this machine: {why}"),
        });
    }
    let kept = args.baselines.join(&profile.name);
    if cfg!(debug_assertions) || Git::read().is_some_and(|git| git.dirty) {
        return Err(BenchError::Incomparable(
            "a baseline is measured by a release build of a clean commit".to_owned(),
        ));
    }
    if refresh.is_none() && kept.exists() {
        return Err(BenchError::Incomparable(format!(
            "{} exists; refresh-baselines replaces it",
            kept.display()
        )));
    }
    let measured = scratch.path().join("baseline");
    let run_args = RunArgs {
        select: args.select.clone(),
        profile: profile.name,
        json: Some(measured.clone()),
        dir: args.dir.clone(),
        quick: false,
        seed: 1,
        repeats: args.repeats,
        check: false,
        tiny: false,
    };
    if run(&run_args)? != Ended::Met {
        return Ok(Ended::Regressed);
    }
    if let Some(accept) = refresh {
        let limits = Thresholds::default();
        let compared = gate::against_baseline(Some(&kept), &measured, &limits)?;
        if compared != Ended::Met && !accept {
            say("the baseline stays as it is; --accept replaces it all the same\n");
            return Ok(compared);
        }
    }
    let measured = Record::read_all(&measured)?;
    if kept.exists() {
        // Of a row that was measured anew no older repeat stays.
        for (name, records) in Record::read_all(&kept)? {
            for old in records.iter().filter(|_| measured.contains_key(&name)) {
                let path = old.path(&kept);
                std::fs::remove_file(&path).map_err(BenchError::file(&path))?;
            }
        }
    }
    for record in measured.into_values().flatten() {
        record.write(&kept)?;
    }
    say(&format!("kept in {}\n", kept.display()));
    Ok(Ended::Met)
}

fn validate(paths: &[PathBuf]) -> Result<Ended> {
    for path in paths {
        let all = Record::read_all(path)?;
        let count: usize = all.values().map(Vec::len).sum();
        let rows = all.len();
        say(&format!(
            "{}: {count} results of {rows} rows\n",
            path.display()
        ));
    }
    Ok(Ended::Met)
}

fn dump(paths: &[PathBuf]) -> Result<Ended> {
    say(
        "row,repeat,ops_per_sec,p50_ns,p95_ns,p99_ns,p99_9_ns,max_ns,allocs_per_op,fsyncs_per_txn,bytes_written,bytes_read\n",
    );
    for path in paths {
        for record in Record::read_all(path)?.into_values().flatten() {
            let results = &record.results;
            let latency = results.latency_ns;
            let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let bytes = |of: fn(&crate::results::Io) -> u64| {
                results
                    .io
                    .as_ref()
                    .map_or(String::new(), |io| of(io).to_string())
            };
            say(&format!(
                "{},{},{},{},{},{},{},{},{},{},{},{}\n",
                record.short(),
                record.repeat,
                results.ops_per_sec,
                latency.p50,
                latency.p95,
                latency.p99,
                latency.p99_9,
                latency.max,
                results.allocs_per_op,
                optional(results.fsyncs_per_txn),
                bytes(|io| io.bytes_written),
                bytes(|io| io.bytes_read),
            ));
        }
    }
    Ok(Ended::Met)
}

fn run(args: &RunArgs) -> Result<Ended> {
    let rows = args.select.rows()?;
    let dir = args.dir.clone().unwrap_or_else(default_dir);
    let json = args
        .json
        .clone()
        .unwrap_or_else(|| gate::latest(&default_dir()));
    if args.json.is_none() && json.exists() {
        // Only one run is the last.
        std::fs::remove_dir_all(&json).map_err(BenchError::file(&json))?;
    }
    let scratch = Scratch::create(&dir)?;
    let machine = Machine::read(scratch.path());
    let (profile, why) = Profile::find(&args.profile, &machine)?;
    let (scale, size) = match (args.tiny, args.quick) {
        (true, _) => (Scale::tiny(), "tiny"),
        (_, true) => (profile.quick, "quick"),
        _ => (profile.scale, "full"),
    };
    let run = Run {
        machine,
        scale,
        size,
        seed: args.seed,
        git: Git::read(),
        repeats: args.repeats,
        profile,
    };
    say(&heading(&run, &why));
    measure_all(&rows, args, &run, scratch.path(), &json)
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
    if load_average.is_some_and(|load| load > *core_count as f64 / 2.0) {
        text.push_str(
            "the machine is busy: times are of a busy machine, read the ratios and the counts\n",
        );
    }
    text.push('\n');
    text
}

fn measure_all(
    rows: &[Row],
    args: &RunArgs,
    run: &Run,
    scratch: &Path,
    json: &Path,
) -> Result<Ended> {
    let started = crate::clock::now();
    let mut ctx = Ctx::new(scratch.to_owned(), run.scale, run.seed);
    let bar = progress(rows.len() as u64 * u64::from(args.repeats));
    let (mut verdicts, mut failed): (Vec<Verdict>, u32) = (Vec::new(), 0);
    let mut suite = "";
    for row in rows {
        if row.suite() != suite {
            suite = row.suite();
            ctx.end_suite()?;
        }
        for repeat in 0..args.repeats {
            bar.set_message(row.short());
            match (row.run)(&mut ctx) {
                Ok(outcome) => {
                    bar.suspend(|| say(&report::lines(row, &outcome)));
                    verdicts
                        .retain(|old| !outcome.figures.iter().any(|new| new.id == old.figure.id));
                    verdicts.extend(report::verdicts(run, &outcome));
                    report::record(run, row, &outcome, repeat).write(json)?;
                }
                Err(error) => {
                    failed += 1;
                    bar.suspend(|| complain(&format!("{}: {error}", row.name)));
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    ctx.end_suite()?;
    if !verdicts.is_empty() {
        say(&format!(
            "\n{}",
            report::coloured(&report::figures_table(&verdicts))
        ));
    }
    let missed = verdicts.iter().filter(|verdict| verdict.missed()).count();
    let met = verdicts
        .iter()
        .filter(|verdict| verdict.met == Some(true))
        .count();
    say(&format!(
        "\n{} rows in {}; {met} figures met, {missed} missed{}{}\n",
        rows.len(),
        show(started.elapsed().as_nanos() as f64, Unit::Nanos),
        if failed > 0 {
            format!(", {failed} rows FAILED")
        } else {
            String::new()
        },
        if run.size == "full" {
            ""
        } else {
            " (not full size: indications only)"
        },
    ));
    Ok((failed == 0 && !(args.check && missed > 0)).into())
}

/// A bar on standard error; invisible unless that is a terminal.
fn progress(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}
