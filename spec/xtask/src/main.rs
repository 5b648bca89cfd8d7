//! The commands of the workspace: `cargo xtask check`, `test`, `tidy`, `bench`, `hard`.
//!
//! Needs cargo alone, and continuous integration says the same words. Each command prints what it runs, stops at the
//! first failure and ends with that command's exit code.

#![forbid(unsafe_code)]

mod repo;
mod tidy;

use std::env;
use std::io::{self, Write};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask <command>

  check            format, clippy, docs and the tidy checks: all that can fail without running a test of the engine
  test             every test of the workspace
  tidy             the tidy checks alone, and the largest source files
  bench [ARGS]     nsbench, with optimisation; ARGS go to it
  hard [ARGS]      nshard, with optimisation; ARGS go to it
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let outcome = match command.as_str() {
        "check" => check(),
        "test" => cargo(&["test", "--workspace"], &rest, &[]),
        "tidy" => run_tidy(),
        "bench" => cargo(&["run", "--release", "-p", "nsbench", "--"], &rest, &[]),
        "hard" => cargo(&["run", "--release", "-p", "nshard", "--"], &rest, &[]),
        _ => {
            say(USAGE.trim_end());
            Err(2)
        }
    };
    outcome.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}

fn check() -> Result<(), u8> {
    let (warnings, docs) = (["--", "-D", "warnings"], [("RUSTDOCFLAGS", "-D warnings")]);
    cargo(&["fmt", "--all", "--check"], &[], &[])?;
    // Workspaces of their own, built by `nshard fuzz` and `nsbench versus` alone.
    for apart in ["hard/fuzz/Cargo.toml", "bench/rivals/Cargo.toml"] {
        cargo(&["fmt", "--manifest-path", apart, "--check"], &[], &[])?;
    }
    // The engine twice: the workspace builds it with the seams for tests, its users without.
    for what in [
        &["--workspace", "--all-targets"][..],
        &["-p", "northstardb"],
    ] {
        cargo(&[&["clippy"], what, &warnings].concat(), &[], &[])?;
    }
    let rivals = ["clippy", "--manifest-path", "bench/rivals/Cargo.toml"];
    cargo(
        &[&rivals, &["--all-targets"][..], &warnings].concat(),
        &[],
        &[],
    )?;
    for what in [
        &["--workspace", "--document-private-items"][..],
        &["-p", "northstardb"],
    ] {
        cargo(&[&["doc", "--no-deps"], what].concat(), &[], &docs)?;
    }
    run_tidy()
}

/// Runs one cargo command in the workspace, with the terminal as its own.
fn cargo(words: &[&str], rest: &[String], variables: &[(&str, &str)]) -> Result<(), u8> {
    say(&format!(
        "> cargo {}",
        [words.join(" "), rest.join(" ")].join(" ").trim_end()
    ));
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(words)
        .args(rest)
        .envs(variables.iter().copied())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1)),
        Err(error) => {
            say(&format!("cargo cannot be started: {error}"));
            Err(1)
        }
    }
}

fn run_tidy() -> Result<(), u8> {
    let repo = match repo::Repo::read() {
        Ok(repo) => repo,
        Err(error) => {
            say(&format!("the workspace cannot be read: {error}"));
            return Err(1);
        }
    };
    let mut sound = true;
    for (name, check) in tidy::CHECKS {
        let faults = check(&repo);
        sound &= faults.is_empty();
        say(&format!(
            "tidy {name}: {}",
            if faults.is_empty() { "ok" } else { "FAILED" }
        ));
        for fault in faults {
            say(&format!("  {fault}"));
        }
    }
    say("largest source files, in lines without their tests:");
    for (lines, path) in tidy::size::largest(&repo, 5) {
        say(&format!("  {lines:5} {path}"));
    }
    for note in tidy::specs::notes(&repo) {
        say(&note);
    }
    if sound { Ok(()) } else { Err(1) }
}

fn say(line: &str) {
    // A closed pipe is no reason to stop checking.
    let _closed = writeln!(io::stdout(), "{line}").is_err();
}
