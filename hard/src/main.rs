//! `nshard`: hardening runs of NorthstarDB.
//!
//! Exit codes: 0 every promise held, 1 one was broken, 2 bad use.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use nshard::campaign::{self, Amount, Campaign};
use nshard::fuzz::{Target, drive};
use nshard::jobs::{self, Drive, Goal};
use nshard::ledger::Ledger;
use nshard::sim::script::{Plan, Said};
use nshard::{Failure, chain, clock, crash, golden, planting, run};

#[global_allocator]
static ALLOCATOR: nshard::alloc::Failing = nshard::alloc::Failing;

#[derive(Debug, Parser)]
#[command(
    name = "nshard",
    version,
    about = "Hardening runs of NorthstarDB",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Backend {
    Auto,
    Plain,
    Buffered,
}

impl From<Backend> for northstardb::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::Plain => Self::Plain,
            Backend::Buffered => Self::Buffered,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Random work on the engine and on the model, compared after every step
    Model {
        /// First seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds, one after the other
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// Steps per seed
        #[arg(long, default_value_t = 500)]
        steps: u64,
        /// Keep databases here instead of in a temporary directory
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// What there is to run, and how much of it every change and every night needs
    List,
    /// One seed on the simulated disk, or less than that: what a failure says to replay
    Sim(Said),
    /// One interleaving of the engine's threads: what a failure says to replay
    Schedule {
        /// Decides everything
        #[arg(long)]
        seed: u64,
    },
    /// One job, until its goal is reached
    Run {
        /// Which, of `nshard list`
        job: String,
        /// How much to do; as every change needs when absent
        #[arg(long)]
        goal: Option<u64>,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Worker processes; as many as there are cores when absent
        #[arg(long)]
        workers: Option<usize>,
    },
    /// The process that does some seeds of a job
    #[command(hide = true)]
    Work {
        job: String,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        seeds: u64,
    },
    /// Kill a working child at random moments and check what it left
    Crash {
        /// Children to kill
        #[arg(long, default_value_t = 500)]
        kills: u64,
        /// Decides everything but the timing
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Keep databases here instead of in a temporary directory
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Drawn per database when absent
        #[arg(long)]
        backend: Option<Backend>,
        /// Databases under test at the same time
        #[arg(long, default_value_t = 2)]
        jobs: u64,
        /// Live one database again, named by a failure; `--kills` is then its number of rounds
        #[arg(long)]
        life: Option<u64>,
    },
    /// Every job, as far as every change needs; fails on a broken promise and on a place that was never reached
    Ci(Jobs),
    /// Every job, as far as a night adds; goes on where the ledger says
    Nightly(Jobs),
    /// Turns on the faults that the sources carry, one after the other: each must be found
    Planted {
        /// Only those whose names contain one of these
        only: Vec<String>,
    },
    /// The process that looks for a planted fault
    #[command(hide = true)]
    WorkPlanted { what: String },
    /// The ledger: says what was done about the violations that are open
    Fixed {
        /// What was done: a commit and a few words
        fix: String,
        /// The ledger's table
        #[arg(long, default_value = "hard/LEDGER.md")]
        ledger: PathBuf,
    },
    /// Fuzzing guided by coverage, under AddressSanitizer: every kept input again, then new ones
    Fuzz {
        /// Which targets; all when absent
        targets: Vec<String>,
        /// A minute each
        #[arg(long)]
        quick: bool,
        /// Seconds each
        #[arg(long, default_value_t = 600, conflicts_with = "quick")]
        seconds: u64,
        /// Do this input alone, without the fuzzer
        #[arg(long)]
        input: Option<PathBuf>,
        /// Take what was found into the kept corpora, as few inputs as reach the same
        #[arg(long, conflicts_with = "input")]
        keep: bool,
    },
    /// Add to the golden files: sets and tables of damage that are not there yet
    Golden {
        /// Where they are
        #[arg(long, default_value = "hard/golden")]
        add: PathBuf,
    },
    /// The process that a crash run kills
    #[command(hide = true)]
    Child {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        round: u64,
        #[arg(long)]
        txns: u64,
        #[arg(long)]
        backend: Backend,
        /// What it is denied, see `nshard::real::limits`
        #[arg(long)]
        under: Option<String>,
    },
    /// The process that races others to open a database
    #[command(hide = true)]
    #[cfg(target_os = "linux")]
    Opener {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        backend: Backend,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Jobs {
    /// Only these, of `nshard list`
    only: Vec<String>,
    /// Adds what was done to this table, and goes on where it ends
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Begin nothing new after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Worker processes; as many as there are cores when absent
    #[arg(long)]
    workers: Option<usize>,
}

fn campaign(jobs: &Jobs, amount: Amount) -> Result<(), Failure> {
    let Jobs {
        only,
        ledger,
        minutes,
        workers,
    } = jobs;
    let campaign = Campaign {
        program: &program()?,
        workers: workers.unwrap_or_else(cores),
        amount,
        only,
        limit: minutes.map(Duration::from_mins),
        ledger: ledger.as_deref(),
        say: &say,
    };
    campaign.run().map(drop)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            writeln!(std::io::stderr(), "nshard: {}", chain(&failure)).ok();
            ExitCode::from(1)
        }
    }
}

fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Model {
            seed,
            seeds,
            steps,
            dir,
        } => model(seed, seeds, steps, dir.as_deref()),
        Command::List => {
            for job in jobs::JOBS {
                say(&format!("{:<12} {}", job.name, job.question));
                for Goal { what, ci, nightly } in job.goals {
                    say(&format!(
                        "{:13}{what}: {ci} for a change, {nightly} a night",
                        ""
                    ));
                }
            }
            Ok(())
        }
        Command::Sim(said) => {
            let done = jobs::simulate(&Plan::from(said))?;
            say(&format!("{done}, hash {:x}", done.hash));
            Ok(())
        }
        Command::Schedule { seed } => {
            let done = nshard::sched::run::Runner::default().run(seed)?;
            say(&format!("{done}, hash {:x}", done.hash));
            Ok(())
        }
        Command::Run {
            job,
            goal,
            seed,
            workers,
        } => {
            let job = jobs::find(&job)?;
            let started = clock::now();
            let mut goals: Vec<u64> = job.goals.iter().map(|goal| goal.ci).collect();
            if let (Some(first), Some(goal)) = (goals.first_mut(), goal) {
                *first = goal;
                goals.truncate(1);
            }
            let drive = Drive {
                program: &program()?,
                workers: workers.unwrap_or_else(cores),
                first: seed,
                goals: &goals,
                until: None,
            };
            let (tally, next) = jobs::drive(job, &drive)?;
            let seconds = started.elapsed().as_secs_f64();
            say(&campaign::line(job, &tally, seconds, next));
            for (what, why) in &tally.skipped {
                say(&format!("SKIPPED: {what}: {why}"));
            }
            for (mark, count) in &tally.marks {
                say(&format!("{count:>24} times {mark}"));
            }
            Ok(())
        }
        Command::Work { job, seed, seeds } => {
            let mut tally = (jobs::find(&job)?.run)(seed..seed + seeds)?;
            tally.take_marks();
            let line = serde_json::to_string(&tally).map_err(std::io::Error::from);
            say(&line.map_err(|source| Failure::Harness {
                during: "say what was done".to_owned(),
                source,
            })?);
            Ok(())
        }
        Command::Crash {
            kills,
            seed,
            dir,
            backend,
            jobs,
            life,
        } => {
            let temporary = temporary()?;
            let dir = dir.unwrap_or_else(|| temporary.path().to_owned());
            let plan = crash::Plan {
                program: program()?,
                dir,
                seed,
                kills,
                backend: backend.map(Into::into),
                jobs: jobs.max(1),
                under: None,
            };
            let done = life.map_or_else(|| crash::run(&plan), |life| crash::replay(&plan, life));
            if done.is_err() {
                // What broke is worth more than a tidy directory.
                drop(temporary.keep());
            }
            say(&format!("{:?}", done?));
            Ok(())
        }
        Command::Ci(jobs) => campaign(&jobs, Amount::Change),
        Command::Nightly(jobs) => campaign(&jobs, Amount::Night),
        Command::Planted { only } => {
            let looked = planting::look(&only, cores(), &say)?;
            say(&looked.to_string());
            looked.verdict()
        }
        Command::WorkPlanted { what } => {
            say(&planting::work(&what)?);
            Ok(())
        }
        Command::Fixed { fix, ledger } => Ledger::change(&ledger, |ledger| ledger.fixed(&fix)),
        Command::Fuzz {
            targets,
            quick,
            seconds,
            input,
            keep,
        } => fuzz_targets(
            &targets,
            if quick { 60 } else { seconds },
            input.as_deref(),
            keep,
        ),
        Command::Golden { add } => add_golden(&add),
        Command::Child {
            dir,
            seed,
            round,
            txns,
            backend,
            under,
        } => {
            #[cfg(target_os = "linux")]
            if let Some(word) = under {
                nshard::real::limits::Limit::of(&word)?.accept()?;
            }
            #[cfg(not(target_os = "linux"))]
            drop(under);
            crash::child(&crash::ChildPlan {
                dir,
                seed,
                round,
                txns,
                backend: backend.into(),
            })
        }
        #[cfg(target_os = "linux")]
        Command::Opener { dir, backend } => nshard::real::openers::opener(&dir, backend.into()),
    }
}

fn model(seed: u64, seeds: u64, steps: u64, dir: Option<&Path>) -> Result<(), Failure> {
    let mut totals = run::Totals::default();
    for seed in seed..seed + seeds {
        let temporary = temporary()?;
        let dir = dir.map_or_else(
            || temporary.path().to_owned(),
            |dir| dir.join(seed.to_string()),
        );
        totals.add(&run::run_seed(seed, steps, &dir)?);
    }
    say(&format!("{seeds} seeds: {totals:?}"));
    Ok(())
}

fn add_golden(golden: &Path) -> Result<(), Failure> {
    for set in golden::SETS {
        let (files, table) = (golden.join(set.name), golden::damage::path(golden, set));
        if !files.exists() {
            set.content.write(&temporary()?.path().join("db"), &files)?;
            say(&format!("made {}", files.display()));
        }
        if !table.exists() {
            let text = golden::damage::table(golden, set)?;
            let written = table.parent().map_or(Ok(()), std::fs::create_dir_all);
            let written = written.and_then(|()| std::fs::write(&table, text));
            written.map_err(|source| Failure::Harness {
                during: "write a table".to_owned(),
                source,
            })?;
            say(&format!("made {}", table.display()));
        }
    }
    Ok(())
}

fn fuzz_targets(
    names: &[String],
    seconds: u64,
    input: Option<&Path>,
    keep: bool,
) -> Result<(), Failure> {
    let named: Result<Vec<_>, _> = names.iter().map(|name| Target::named(name)).collect();
    let targets = match named? {
        none if none.is_empty() => Target::ALL.to_vec(),
        named => named,
    };
    if let Some(path) = input {
        let bytes = std::fs::read(path).map_err(|source| Failure::Harness {
            during: format!("read {}", path.display()),
            source,
        })?;
        targets.iter().for_each(|target| target.run(&bytes));
        say("held");
        return Ok(());
    }
    let tally = match keep {
        true => drive::keep(&targets)?,
        false => drive::fuzz(&targets, drive::Length::Seconds(seconds))?,
    };
    for (what, why) in &tally.skipped {
        say(&format!("SKIPPED: {what}: {why}"));
    }
    for (what, count) in &tally.counts {
        say(&format!("{count:>12} {what}"));
    }
    Ok(())
}

fn temporary() -> Result<tempfile::TempDir, Failure> {
    tempfile::tempdir().map_err(|source| Failure::Harness {
        during: "make a directory".to_owned(),
        source,
    })
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|source| Failure::Harness {
        during: "find this program".to_owned(),
        source,
    })
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}
