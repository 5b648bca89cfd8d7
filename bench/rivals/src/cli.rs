//! The command line. `nsbench versus` builds this program and calls it with the same words.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};

use crate::child;
use crate::error::{Error, Result};
use crate::groups::{GROUPS, Row};
use crate::machine::{Git, Machine};
use crate::report;
use crate::results::{EngineFacts, Results, SCHEMA};
use crate::rival::Engine;
use crate::rivals::ENGINES;
use crate::run::{Plan, run};
use crate::scale::Scale;
use crate::scratch::Scratch;

/// What `--quick` promises.
const QUICK: Duration = Duration::from_secs(600);

/// NorthstarDB beside other engines: same data, same threads, same guarantees, in turn.
///
/// Exit codes: 0 done; 1 an engine gave a wrong answer or failed; 2 bad use.
#[derive(Debug, Parser)]
#[command(name = "nsrivals", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name every row and what it answers.
    List,
    /// Print the JSON schema of the results.
    Schema,
    /// Have one engine open, for another process.
    #[command(hide = true)]
    Child {
        /// The task, as JSON.
        task: String,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Smaller and shorter: ten minutes on two cores. Figures are then indications.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "SUBSTR")]
    filter: Option<String>,
    /// Only these engines beside ours, separated by commas.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    rivals: Option<Vec<String>>,
    /// Run each row so many times, in turn over the engines.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Where everything random starts.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Put the databases below this directory; removed afterwards.
    #[arg(long, default_value = ".nsbench-versus", value_name = "SCRATCH")]
    dir: PathBuf,
    /// Write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Bound memory where the data is four times as large: make a control group for each engine below this one, which must
    /// have the memory controller and be writable.
    #[arg(long, value_name = "CGROUP")]
    memory_group: Option<PathBuf>,
    /// An engine that could not be built, and why.
    #[arg(long, hide = true, value_name = "NAME=WHY")]
    skipped: Vec<String>,
    /// So small that it only shows that every row works.
    #[arg(long, hide = true)]
    tiny: bool,
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => compare(&cli.run),
        Some(Command::List) => {
            list();
            Ok(true)
        }
        Some(Command::Schema) => {
            say(&Results::schema());
            Ok(true)
        }
        Some(Command::Child { task }) => child::serve(&task).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nobody is left to tell if that fails.
            drop(writeln!(std::io::stderr(), "nsrivals: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Text on standard output. A reader that has gone away ends the process quietly, as `| head` expects.
fn say(text: &str) {
    let mut out = std::io::stdout();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

fn list() {
    for row in GROUPS.iter().flat_map(|group| group.rows) {
        say(&format!("{:<28} {}\n", row.name, row.question));
    }
}

impl RunArgs {
    /// The engines that take part, and all that were asked for.
    fn engines(&self) -> Result<(Vec<Engine>, Vec<EngineFacts>)> {
        if let Some(names) = &self.rivals {
            let unknown = |name: &&String| !ENGINES.iter().any(|engine| engine.name == **name);
            if let Some(name) = names.iter().find(unknown) {
                let known: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
                let known = known.join(", ");
                return Err(Error::Usage(format!(
                    "no engine is called {name}; there are {known}"
                )));
            }
        }
        let asked = |engine: &Engine| {
            let names = self.rivals.as_ref();
            engine.package == "northstardb"
                || names.is_none_or(|names| names.iter().any(|name| name == engine.name))
        };
        let (mut there, mut facts) = (Vec::new(), Vec::new());
        for engine in ENGINES.iter().filter(|engine| asked(engine)) {
            let reason = |skipped: &String| {
                let (name, why) = skipped.split_once('=')?;
                (name == engine.name).then(|| why.to_owned())
            };
            let skipped = self.skipped.iter().find_map(reason);
            let absent = engine
                .open
                .is_none()
                .then(|| "not built into this program".to_owned());
            let skipped = skipped.or(absent);
            if skipped.is_none() {
                there.push(*engine);
            }
            facts.push(EngineFacts {
                name: engine.name.to_owned(),
                version: engine.version(),
                durable: engine.durable.to_owned(),
                notes: engine.notes.to_owned(),
                skipped,
            });
        }
        Ok((there, facts))
    }

    fn scale(&self) -> Scale {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match (self.tiny, self.quick) {
            (true, _) => Scale::tiny(cores),
            (_, true) => Scale::quick(cores),
            _ => Scale::full(cores),
        }
    }
}

fn compare(args: &RunArgs) -> Result<bool> {
    let wanted = |row: &&'static Row| {
        let filter = args.filter.as_deref();
        filter.is_none_or(|filter| row.name.contains(filter))
    };
    let groups = GROUPS
        .iter()
        .map(|group| (group, group.rows.iter().filter(wanted).collect()));
    let mut groups: Vec<(_, Vec<&'static Row>)> = groups.collect();
    groups.retain(|(_, rows)| !rows.is_empty());
    if groups.is_empty() {
        let filter = args.filter.as_deref().unwrap_or_default();
        return Err(Error::Usage(format!(
            "no row matches {filter}; `nsbench versus --list` names them all"
        )));
    }
    let (engines, facts) = args.engines()?;
    let scratch = Scratch::create(&args.dir).map_err(Error::file(&args.dir))?;
    let plan = Plan {
        engines,
        groups,
        scale: args.scale(),
        seed: args.seed,
        repeats: args.repeats,
        time: args.quick.then_some(QUICK),
        scratch: scratch.path().to_owned(),
        memory_group: args.memory_group.clone(),
    };
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut results = Results {
        schema: SCHEMA,
        machine: Machine::read(scratch.path()),
        git: Git::of_this_program(),
        scale: plan.scale.clone(),
        seed: plan.seed,
        repeats: plan.repeats,
        memory_bounded: plan.memory_group.is_some(),
        timestamp_unix_s: time.map_or(0, |time| time.as_secs()),
        engines: facts,
        rows: Vec::new(),
    };
    say(&report::heading(&results));
    let started = crate::clock::now();
    run(&plan, &mut results, &say)?;
    if let Some(path) = &args.json {
        results.write(path)?;
    }
    say(&report::ending(&results, started.elapsed()));
    Ok(results.is_sound())
}
