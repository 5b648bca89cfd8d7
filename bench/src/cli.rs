//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{BenchError, Result};
use crate::figures::Verdict;
use crate::machine::{Git, Machine};
use crate::profile::{Profile, Scale};
use crate::report::{self, Run};
use crate::row::{Ctx, Row};
use crate::scratch::Scratch;
use crate::suites;
use crate::units::{Unit, show};

/// Measures NorthstarDB beside the floors of the machine it runs on.
///
/// Exit codes: 0 all rows ran; 1 a row failed, or with --check a figure was missed; 2 bad use.
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

#[derive(Debug, Args)]
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
    /// Write one JSON file for each row and repeat below this directory.
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

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => run(&cli.run),
        Some(Command::Run(args)) => run(&args),
        Some(Command::List(select)) => list(&select),
        Some(Command::PropertyTest {
            count,
            seed,
            filter,
        }) => crate::properties::run(seed..seed.saturating_add(count), filter.as_deref()),
        Some(Command::Child { task }) => crate::child::serve(&task).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
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

fn list(select: &SelectArgs) -> Result<bool> {
    let mut suite = "";
    for row in select.rows()? {
        if row.suite() != suite {
            suite = row.suite();
            say(&format!("{suite}\n"));
        }
        say(&format!("  {:<44} {}\n", row.name, row.question));
    }
    Ok(true)
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

fn run(args: &RunArgs) -> Result<bool> {
    let rows = args.select.rows()?;
    let dir = args.dir.clone().unwrap_or_else(default_dir);
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
    measure_all(&rows, args, &run, scratch.path())
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

fn measure_all(rows: &[Row], args: &RunArgs, run: &Run, scratch: &Path) -> Result<bool> {
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
                    if let Some(dir) = &args.json {
                        report::write_json(dir, run, row, &outcome, repeat)?;
                    }
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
    Ok(failed == 0 && !(args.check && missed > 0))
}

/// A bar on standard error; invisible unless that is a terminal.
fn progress(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}
