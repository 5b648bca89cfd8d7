//! `nshard`: hardening runs of NorthstarDB.
//!
//! Exit codes: 0 every promise held, 1 one was broken, 2 bad use.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use nshard::{Failure, chain, crash, golden, run};

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
    /// Model seeds and 500 kills: what every change has to pass
    Ci {
        /// Model seeds
        #[arg(long, default_value_t = 60)]
        seeds: u64,
        /// Steps per seed
        #[arg(long, default_value_t = 300)]
        steps: u64,
        /// Children to kill
        #[arg(long, default_value_t = 500)]
        kills: u64,
    },
    /// Write the golden database of this format
    Golden {
        /// Where to
        #[arg(long)]
        write: PathBuf,
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
    },
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
            };
            let done = life.map_or_else(|| crash::run(&plan), |life| crash::replay(&plan, life));
            if done.is_err() {
                // What broke is worth more than a tidy directory.
                drop(temporary.keep());
            }
            say(&format!("{:?}", done?));
            Ok(())
        }
        Command::Ci {
            seeds,
            steps,
            kills,
        } => {
            model(1, seeds, steps, None)?;
            let command = Command::Crash {
                kills,
                seed: 1,
                dir: None,
                backend: None,
                jobs: 2,
                life: None,
            };
            perform(command)
        }
        Command::Golden { write } => golden::write(&temporary()?.path().join("db"), &write),
        Command::Child {
            dir,
            seed,
            round,
            txns,
            backend,
        } => crash::child(&crash::ChildPlan {
            dir,
            seed,
            round,
            txns,
            backend: backend.into(),
        }),
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
