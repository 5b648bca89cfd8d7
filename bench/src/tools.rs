//! Commands beside running and judging: what the machine costs, pages of results, profiles, fuzzing, the shell's helpers.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Subcommand};

use crate::cli::{Cli, Ended, LimitArgs, RunArgs, default_dir, say};
use crate::error::{BenchError, Result};
use crate::flame::{self, Sampler};
use crate::{gate, page};

/// Such a command.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Say what on this machine costs speed or durability, why, and how to change it.
    ///
    /// It changes nothing and needs no privileges.
    Doctor {
        /// Where a database would be (default: the build's target directory).
        #[arg(long, env = "NSBENCH_DIR", value_name = "DIR")]
        dir: Option<PathBuf>,
        /// As JSON, with all facts of the machine.
        #[arg(long)]
        json: bool,
        /// Exit with 1 if something costs durability or speed.
        #[arg(long)]
        check: bool,
    },
    /// Write one self-contained page of plots and tables from kept results.
    Report {
        /// The results (default: those of the last run).
        #[arg(env = "NSBENCH_JSON")]
        results: Option<PathBuf>,
        /// Results before, to be compared with.
        #[arg(long, value_name = "DIR")]
        before: Option<PathBuf>,
        /// A directory whose subdirectories are results of earlier runs; may be given again.
        #[arg(long, value_name = "DIR")]
        history: Vec<PathBuf>,
        /// A comparison with other engines; `versus*.json` beside the results is found without.
        #[arg(long, value_name = "FILE")]
        versus: Vec<PathBuf>,
        /// Where the page goes (default: `report.html` beside the results).
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Draw where one row's time goes, as an SVG; its stacks are kept beside it.
    Flamegraph {
        /// The row, or a part of its name that no other has.
        bench: String,
        /// Who takes the samples (default: perf where it works, else this program).
        #[arg(long, value_name = "WHO")]
        sampler: Option<Sampler>,
        /// Keep what is set up around the timed loops too.
        #[arg(long)]
        whole: bool,
        /// Where the picture goes (default: `nsbench-flamegraphs` in the build's target directory).
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Look for inputs that break a decoder or a database: `nshard fuzz`, which is built if need be.
    Fuzz {
        /// Which targets; all when absent.
        targets: Vec<String>,
        /// A minute each.
        #[arg(long)]
        quick: bool,
        /// Seconds each.
        #[arg(long, conflicts_with = "quick", value_name = "N")]
        seconds: Option<u64>,
        /// Do this input alone, without the fuzzer.
        #[arg(long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Take what was found into the kept corpora.
        #[arg(long, conflicts_with = "input")]
        keep: bool,
    },
    /// Print the completions of a shell, to be sourced or put where it looks for them.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command.
    Man {
        /// Write all pages into this directory.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

impl Tool {
    /// Does it.
    pub(crate) fn run(self) -> Result<Ended> {
        match self {
            Self::Doctor { dir, json, check } => {
                let dir = dir.unwrap_or_else(|| {
                    let scratch = default_dir();
                    let existing = scratch.ancestors().find(|dir| dir.is_dir());
                    existing.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
                });
                crate::doctor::run(&dir, json, check)
            }
            Self::Report {
                results,
                before,
                history,
                versus,
                output,
                limits,
            } => {
                let results = results.unwrap_or_else(|| gate::latest(&default_dir()));
                let to = output.unwrap_or_else(|| results.join("report.html"));
                let inputs = page::Inputs {
                    results,
                    before,
                    history,
                    versus,
                    limits: limits.thresholds(),
                };
                page::write(&inputs, &to)
            }
            Self::Flamegraph {
                bench,
                sampler,
                whole,
                output,
                mut run,
            } => {
                run.select.filter = Some(bench);
                flame::draw(&run, sampler, whole, output)
            }
            Self::Fuzz {
                targets,
                quick,
                seconds,
                input,
                keep,
            } => {
                let mut words = targets;
                if quick {
                    words.push("--quick".to_owned());
                }
                if let Some(seconds) = seconds {
                    words.extend(["--seconds".to_owned(), seconds.to_string()]);
                }
                if let Some(input) = input {
                    words.extend(["--input".to_owned(), input.display().to_string()]);
                }
                if keep {
                    words.push("--keep".to_owned());
                }
                fuzz(&words)
            }
            Self::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "nsbench", &mut text);
                say(&String::from_utf8_lossy(&text));
                Ok(Ended::Met)
            }
            Self::Man { dir } => man(dir.as_deref()),
        }
    }
}

/// Runs `nshard fuzz`: from the sources where they are, so that it is not older than they; else the one beside this program.
///
/// It is not a part of this program: it needs the engine's seams, and what is measured is built without them.
fn fuzz(words: &[String]) -> Result<Ended> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = if sources.exists() {
        let mut command = Command::new(cargo);
        command
            .args(["run", "--quiet", "--release", "--package", "nshard"])
            .arg("--manifest-path")
            .arg(&sources)
            .arg("--");
        command
    } else {
        let beside = std::env::current_exe().unwrap_or_default();
        Command::new(beside.with_file_name("nshard"))
    };
    let status = command.arg("fuzz").args(words).status().map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        BenchError::Child(format!("{program}: {error}"))
    })?;
    match status.code() {
        Some(0) => Ok(Ended::Met),
        Some(2) => Err(BenchError::BadUse("nshard fuzz knows no such thing".into())),
        _ => Ok(Ended::Regressed),
    }
}

fn man(dir: Option<&Path>) -> Result<Ended> {
    let command = Cli::command();
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut text)
            .map_err(BenchError::file(Path::new("nsbench.1")))?;
        say(&String::from_utf8_lossy(&text));
        return Ok(Ended::Met);
    };
    std::fs::create_dir_all(dir).map_err(BenchError::file(dir))?;
    clap_mangen::generate_to(command, dir).map_err(BenchError::file(dir))?;
    say(&format!("{}\n", dir.join("nsbench.1").display()));
    Ok(Ended::Met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
