//! The command line.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::compare::Thresholds;
use crate::csv;
use crate::error::{BenchError, Result};
use crate::gate::{self, BaselineArgs, Keep};
use crate::list;
use crate::machine::Machine;
use crate::planting;
use crate::profile::Profile;
use crate::results::Record;
use crate::row::Row;
use crate::run::run;
use crate::scratch::Scratch;
use crate::suites;
use crate::tools::Tool;
use crate::versus::{self, VersusArgs};

/// What ends every help text: scripts decide by it.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; the gate passed, nothing became worse
  1  a row failed, a figure was missed with --check, something else went wrong, or the output could not be written;
     compare: a row became worse; gate: a critical row became worse, or it or one of its numbers is missing
  2  bad use: an unknown row, option, profile or file, or results that cannot be compared
  3  the machine was too noisy to tell, or there are too few repeats; gate: also if a critical row of the baseline was
     skipped, or the baseline is of another kind of machine

A reader of the output that goes away (| head) changes no exit code.

Colours are shown on a terminal only; NO_COLOR turns them off, CLICOLOR_FORCE on.";

/// Measures NorthstarDB beside the floors of the machine it runs on.
///
/// Each row answers one question, beside the floor that bounds its answer. Without a command, rows are run.
#[derive(Debug, Parser)]
#[command(
    name = "nsbench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run rows (the default).
    Run(RunArgs),
    /// Name every row, the question it answers, and whether it is critical.
    List {
        #[command(flatten)]
        select: SelectArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
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
    /// Measure anew, and replace each row of a kept baseline of which no number became worse; exits as the gate does.
    RefreshBaselines {
        #[command(flatten)]
        baseline: BaselineArgs,
        /// Replace every row, also by what is worse or of another machine, and remove rows that are no more.
        #[arg(long)]
        accept: bool,
    },
    /// Prove that the gate finds what it must: ways to be slower, put into the engine on purpose, one after the other.
    GateTest(planting::TestArgs),
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
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Only properties whose name contains this.
        #[arg(long, value_name = "SUBSTR")]
        filter: Option<String>,
    },
    #[command(flatten)]
    Tool(Tool),
    /// Do a part of a row in a process of its own.
    #[command(hide = true)]
    Child {
        /// The task, as JSON.
        task: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct SelectArgs {
    /// Only rows whose name contains this; a whole name, from `bench/` on, is that row alone.
    #[arg(long, env = "NSBENCH_FILTER", value_name = "SUBSTR")]
    pub(crate) filter: Option<String>,
    /// Only rows of this suite, of those that `list` names.
    #[arg(long, env = "NSBENCH_SUITE", value_name = "SUITE")]
    pub(crate) suite: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Sizes and limits: auto, ci, dev_nvme, or the path of a .toml file.
    #[arg(
        long,
        env = "NSBENCH_PROFILE",
        default_value = "auto",
        value_name = "PROFILE"
    )]
    pub(crate) profile: String,
    /// Write the results, one JSON file for each row and repeat, below this directory, where older ones of the same rows are
    /// removed (default: `nsbench-results` in the build's target directory, where all of the run before are removed).
    #[arg(long, env = "NSBENCH_JSON", value_name = "DIR")]
    pub(crate) json: Option<PathBuf>,
    /// Put the databases below this directory (default: the build's target directory); removed afterwards.
    #[arg(long, env = "NSBENCH_DIR", value_name = "SCRATCH")]
    pub(crate) dir: Option<PathBuf>,
    /// Smaller and shorter: about a minute. Figures are then indications.
    #[arg(long, env = "NSBENCH_QUICK", value_parser = FalseyValueParser::new())]
    pub(crate) quick: bool,
    /// Where everything random starts.
    #[arg(long, env = "NSBENCH_SEED", default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Run each row so many times.
    #[arg(long, env = "NSBENCH_REPEATS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeats: u32,
    /// How long the soak runs (default: the profile's sustained seconds), and `load/sustained_1hour` (default: 60 at full size).
    #[arg(long, env = "NSBENCH_MINUTES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) minutes: Option<u32>,
    /// Threads of rows that have several, instead of the number in their names; their figures are not judged then.
    #[arg(long, env = "NSBENCH_THREADS", value_name = "N", value_parser = threads_parser())]
    pub(crate) threads: Option<usize>,
    /// Operations that each loop of a time does unrecorded before it (each of its threads).
    #[arg(
        long,
        env = "NSBENCH_WARMUP_OPS",
        default_value_t = 0,
        value_name = "N"
    )]
    pub(crate) warmup_ops: u64,
    /// Nanoseconds for which each such loop runs unrecorded before it.
    #[arg(
        long,
        env = "NSBENCH_WARMUP_NS",
        default_value_t = 0,
        value_name = "NS"
    )]
    pub(crate) warmup_ns: u64,
    /// Print the results as comma-separated values and nothing else; what is for people goes to standard error.
    #[arg(long)]
    pub(crate) csv: bool,
    /// Exit with 1 if a figure is missed.
    #[arg(long)]
    pub(crate) check: bool,
    /// So small that it only shows that every row works.
    #[arg(long, hide = true)]
    pub(crate) tiny: bool,
}

impl RunArgs {
    /// Of a whole run at full size, as a baseline is of.
    pub(crate) fn full(select: &SelectArgs, repeats: u32, json: &Path, dir: Option<&Path>) -> Self {
        Self {
            select: select.clone(),
            profile: "auto".to_owned(),
            json: Some(json.to_owned()),
            dir: dir.map(Path::to_path_buf),
            quick: false,
            seed: 1,
            repeats,
            minutes: None,
            threads: None,
            warmup_ops: 0,
            warmup_ns: 0,
            csv: false,
            check: false,
            tiny: false,
        }
    }

    /// The words that say the same to another process.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        add("--profile", self.profile.clone());
        add("--seed", self.seed.to_string());
        add("--repeats", self.repeats.to_string());
        add("--warmup-ops", self.warmup_ops.to_string());
        add("--warmup-ns", self.warmup_ns.to_string());
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let optional = [
            ("--json", path(&self.json)),
            ("--filter", self.select.filter.clone()),
            ("--suite", self.select.suite.clone()),
            ("--dir", path(&self.dir)),
            ("--threads", self.threads.map(|threads| threads.to_string())),
            ("--minutes", self.minutes.map(|minutes| minutes.to_string())),
        ];
        for (flag, value) in optional {
            if let Some(value) = value {
                add(flag, value);
            }
        }
        for (flag, set) in [("--quick", self.quick), ("--tiny", self.tiny)] {
            if set {
                words.push(flag.to_owned());
            }
        }
        words
    }
}

/// Threads that a row may be told to have.
fn threads_parser() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u32)
        .range(1..=4096)
        .map(|threads| threads as usize)
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "no number".to_owned())?;
    match (0.0..100.0).contains(&value) {
        true => Ok(value),
        false => Err("not from 0 on and below 100".to_owned()),
    }
}

/// Shifts that are let pass. Those that are not given are the profile's against a kept baseline, else those named here.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LimitArgs {
    /// Percent of operations a second that may be lost (default: 5).
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold_throughput: Option<f64>,
    /// Percent by which the 99th percentile may rise (default: 10).
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold_p99: Option<f64>,
    /// Percent by which a ratio to a floor may become worse (default: 10; of this and all others: against a kept baseline the profile's).
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold_floor: Option<f64>,
    /// Percent by which allocations and bytes an operation may rise (default: 5).
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold_alloc: Option<f64>,
    /// Percent by which instructions an operation may rise (default: 2).
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold_instructions: Option<f64>,
    /// Percent by which flushes a transaction may rise (default: 0).
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold_fsync: Option<f64>,
}

impl LimitArgs {
    /// `limits`, but for what was given.
    pub(crate) fn over(&self, limits: Thresholds) -> Thresholds {
        let share = |percent: Option<f64>, limit| percent.map_or(limit, |given| given / 100.0);
        Thresholds {
            throughput: share(self.threshold_throughput, limits.throughput),
            p99: share(self.threshold_p99, limits.p99),
            floor: share(self.threshold_floor, limits.floor),
            counts: share(self.threshold_alloc, limits.counts),
            instructions: share(self.threshold_instructions, limits.instructions),
            fsyncs: share(self.threshold_fsync, limits.fsyncs),
        }
    }

    /// As shares instead of percents.
    pub(crate) fn thresholds(&self) -> Thresholds {
        self.over(Thresholds::default())
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
    /// Profile of these runs (default: auto); without `--against` the one that judges (default: as the results say).
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Smaller and shorter runs.
    #[arg(long, requires = "against")]
    quick: bool,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    limits: LimitArgs,
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
        Some(Command::List { select, json }) => select.rows().map(|rows| list::show(&rows, json)),
        Some(Command::Compare {
            before,
            after,
            all,
            limits,
        }) => gate::show(&before, &after, &limits.thresholds(), all),
        Some(Command::Gate(args)) => judge(&args),
        Some(Command::CaptureBaseline(args)) => gate::capture(&args, Keep::New),
        Some(Command::RefreshBaselines { baseline, accept }) => {
            let keep = if accept { Keep::Accepted } else { Keep::Better };
            gate::capture(&baseline, keep)
        }
        Some(Command::GateTest(args)) => {
            scratch_in(&default_dir()).and_then(|scratch| planting::test(&args, scratch.path()))
        }
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
        Some(Command::Tool(tool)) => tool.run(),
        Some(Command::Child { task }) => crate::child::serve(&task).map(|()| Ended::Met),
    };
    let code = match done {
        // Whoever waits for the output has not got it, whatever it says.
        Ok(_) if OUTPUT.load(Ordering::Relaxed) == FAILED => 1,
        Ok(Ended::Met) => 0,
        Ok(Ended::Regressed) => 1,
        Ok(Ended::Noisy) => 3,
        Err(error) => {
            complain(&format!("nsbench: {error}"));
            error.exit_code()
        }
    };
    ExitCode::from(code)
}

/// What became of standard output: it is written to, its reader has gone away, or it could not be written.
static OUTPUT: AtomicU8 = AtomicU8::new(OPEN);
const OPEN: u8 = 0;
const GONE: u8 = 1;
const FAILED: u8 = 2;

/// A line on standard error; nobody is left to tell if that fails.
pub(crate) fn complain(text: &str) {
    drop(writeln!(anstream::stderr(), "{text}"));
}

/// Text on standard output. Once its reader has gone away nothing more is printed, and the exit code stays what it would be; an
/// output that cannot be written makes it 1.
pub(crate) fn say(text: &str) {
    // Alone: a late value prints into a closed pipe once more.
    if OUTPUT.load(Ordering::Relaxed) != OPEN {
        return;
    }
    let mut out = anstream::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        let gone = error.kind() == ErrorKind::BrokenPipe;
        OUTPUT.store(if gone { GONE } else { FAILED }, Ordering::Relaxed);
        if !gone {
            complain(&format!("nsbench: standard output: {error}"));
        }
    }
}

impl SelectArgs {
    /// The rows that run: those that take very long only if they are meant.
    pub(crate) fn rows_to_run(&self) -> Result<Vec<Row>> {
        let asked = |word| {
            let named = self.filter.as_ref().is_some_and(|f| f.contains(word));
            named || self.suite.as_deref() == Some(word)
        };
        let mut rows = self.rows()?;
        let all = rows.clone();
        rows.retain(|row| row.only_if_asked().is_none_or(asked));
        // Nothing else matched, so it was meant.
        Ok(if rows.is_empty() { all } else { rows })
    }

    /// The rows that are meant.
    pub(crate) fn rows(&self) -> Result<Vec<Row>> {
        let mut rows = suites::all();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        let chosen = self.choose(&names);
        rows.retain(|row| chosen.contains(row.name));
        match rows.is_empty() {
            true => Err(self.no_row()),
            false => Ok(rows),
        }
    }

    /// The names that are meant, of rows of whatever build.
    pub(crate) fn choose<'a>(&self, names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let mut chosen = names.clone();
        if let Some(suite) = &self.suite {
            chosen.retain(|name| name.split('/').nth(1) == Some(suite));
        }
        if let Some(filter) = &self.filter {
            // A whole name means that row, though others begin with it.
            let exact = chosen.contains(filter.as_str());
            chosen.retain(|name| name == filter || (!exact && name.contains(filter.as_str())));
        }
        chosen
    }

    /// Every row is meant.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// What several selections ask for, in words; `None` where one of them is for everything.
    pub(crate) fn words_of_all(all: &[Self]) -> Option<String> {
        let words = |one: &Self| {
            let parts = [("--suite", &one.suite), ("--filter", &one.filter)];
            let parts = parts.into_iter();
            let given =
                parts.filter_map(|(flag, value)| Some(format!("{flag} {}", value.as_ref()?)));
            given.collect::<Vec<_>>().join(" ")
        };
        let narrow = !all.iter().any(Self::is_all);
        narrow.then(|| all.iter().map(words).collect::<Vec<_>>().join(", "))
    }

    /// Nothing is called as was asked.
    pub(crate) fn no_row(&self) -> BenchError {
        let asked = [self.suite.as_deref(), self.filter.as_deref()];
        let asked: Vec<&str> = asked.into_iter().flatten().collect();
        BenchError::NoRow(asked.join(" and "))
    }
}

/// The target directory the program was built into, or a hidden folder where it was started.
pub(crate) fn default_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.map_or_else(
        || PathBuf::from(".nsbench-scratch"),
        |target| target.join("nsbench-scratch"),
    )
}

/// A scratch directory below `dir`.
fn scratch_in(dir: &Path) -> Result<Scratch> {
    Scratch::create(dir).map_err(BenchError::file(dir))
}

fn judge(args: &GateArgs) -> Result<Ended> {
    let Some(other) = &args.against else {
        let results = args.results.clone();
        let results = results.unwrap_or_else(|| gate::latest(&default_dir()));
        let baseline = args.baseline.as_deref();
        let by = args.profile.as_deref().map(|name| {
            let machine = Machine::read(&default_dir());
            Profile::find(name, &machine).map(|(profile, _)| profile.gate)
        });
        let by = by.transpose()?;
        return gate::against_baseline(baseline, &results, &args.select, &args.limits, by);
    };
    let scratch = scratch_in(&default_dir())?;
    // The other build is started elsewhere.
    let whole = |path: &Path| path.canonicalize().map_err(BenchError::file(path));
    let profile = args.profile.as_deref().unwrap_or("auto");
    let profile = match profile.ends_with(".toml") {
        true => whole(Path::new(profile))?.display().to_string(),
        false => profile.to_owned(),
    };
    let mut words = vec!["--profile".to_owned(), profile];
    if args.quick {
        words.push("--quick".to_owned());
    }
    let asked = gate::Asked {
        select: &args.select,
        words: &words,
        repeats: args.repeats,
        scratch: &whole(scratch.path())?,
    };
    gate::against_build(other, &asked, &args.limits.thresholds())
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
    say(csv::HEADER);
    for path in paths {
        for record in Record::read_all(path)?.into_values().flatten() {
            say(&csv::line(&record));
        }
    }
    Ok(Ended::Met)
}
