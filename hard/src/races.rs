//! The concurrency tests under ThreadSanitizer, on real threads and real files.
//!
//! It must see every access, so the standard library is built along (`-Zbuild-std`), from its sources: without them it
//! reports hundreds of races in sound locks, and nothing can be learned from it. Spec: HD-023.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tally::Tally;
use crate::{During, Failure};

/// Counted: tests that ran without a report.
pub const TESTS: &str = "tests without a data race";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs them, if the toolchain can.
///
/// # Errors
/// A report, or a test that failed.
pub fn run() -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if let Some(why) = missing()? {
        tally.skip("ThreadSanitizer", &why);
        return Ok(tally);
    }
    let output = Command::new("cargo")
        .args([
            "test",
            "--quiet",
            "-p",
            "northstardb",
            "--test",
            "concurrency",
        ])
        .args(["--test", "snapshots", "-Zbuild-std", "--target", TARGET])
        .args(["--target-dir", "target/races"])
        .current_dir(root())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=thread")
        .env("TSAN_OPTIONS", "halt_on_error=1")
        .output()
        .during("start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Broken(format!(
            "{}\n{said}\n{errors}",
            output.status
        )));
    }
    tally.add(TESTS, passed(&said));
    Ok(tally)
}

/// Why it cannot run here.
fn missing() -> Result<Option<String>, Failure> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Ok(Some(format!("it is run for {TARGET} alone")));
    }
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(root())
        .output()
        .during("start rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let sources = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    Ok((!sources.exists()).then(|| {
        "the toolchain has no rust-src, and with a standard library that is not built along it reports races in sound \
         locks"
            .to_owned()
    }))
}

/// The workspace these sources are from.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Tests that passed, by the lines in which test programs say so.
fn passed(said: &str) -> u64 {
    said.lines()
        .filter_map(|line| {
            let counts = line.strip_prefix("test result: ok. ")?;
            counts.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_the_means_is_skipped_and_never_passes_silently() {
        // What is found here decides: with the means, the run itself is the job's.
        if missing().unwrap().is_some() {
            let tally = run().unwrap();
            assert!(tally.counts.is_empty() && !tally.skipped.is_empty());
        }
        assert_eq!(
            passed("test result: ok. 6 passed; 0 failed\nx\ntest result: ok. 2 passed;"),
            8
        );
        assert_eq!(passed("test result: FAILED. 6 passed; 1 failed"), 0);
    }
}
