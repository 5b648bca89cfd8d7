//! `nshard planted`: makes a build in which faults can be turned on, and looks for each in a process of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::planted::{PLANTED, Planted};
use crate::{During, Failure};

/// What a worker says about one fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    seed: Option<u64>,
    how: String,
    reached: bool,
}

/// What came of all of them.
#[derive(Debug)]
pub struct Looked(Vec<(Planted, Found)>);

impl Looked {
    /// # Errors
    /// Names the faults that were not found, or are in the table and not in the sources.
    pub fn verdict(&self) -> Result<(), Failure> {
        let found = |found: &Found| found.reached && found.seed.is_some();
        let missed = self.0.iter().filter(|(_, one)| !found(one));
        let missed: Vec<_> = missed
            .map(|(fault, found)| match found.reached {
                true => format!("{:?}", fault.what),
                false => format!("{:?} (which no seed came by)", fault.what),
            })
            .collect();
        match missed.is_empty() {
            true => Ok(()),
            false => Err(Failure::Broken(format!("not found: {}", missed.join(", ")))),
        }
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.0.iter().filter(|(_, found)| found.seed.is_some());
        write!(f, "{} of {} found", found.count(), self.0.len())
    }
}

/// A fault in a table: what it is, what found it, at which seed of how many, and how.
fn line(fault: &Planted, found: &Found) -> String {
    let Planted {
        what,
        finder,
        budget,
    } = fault;
    let seed = found
        .seed
        .map_or_else(|| "NO".to_owned(), |seed| seed.to_string());
    let by = format!("{finder:?}").to_lowercase();
    let how: String = found.how.chars().take(90).collect();
    format!("{what:<64} {by:<7} {seed:>5} of {budget:>4}  {how}")
}

/// Looks for every fault whose name contains one of `only`; for all if there are none.
///
/// # Errors
/// The build, or a worker.
pub fn look(
    only: &[String],
    workers: usize,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Looked, Failure> {
    let program = build()?;
    let wanted = |fault: &&Planted| {
        only.is_empty() || only.iter().any(|part| fault.what.contains(part.as_str()))
    };
    let faults: Vec<&Planted> = PLANTED.iter().filter(wanted).collect();
    let (next, looked) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = ask(&program, fault);
                    say(&match &found {
                        Ok(found) => line(fault, found),
                        Err(failure) => crate::chain(failure),
                    });
                    let mut looked = looked
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    looked.push((**fault, found));
                }
            });
        }
    });
    let looked = looked
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut all = Vec::new();
    for (fault, found) in looked {
        all.push((fault, found?));
    }
    let place = |fault: &Planted| PLANTED.iter().position(|other| other.what == fault.what);
    all.sort_by_key(|(fault, _)| place(fault));
    Ok(Looked(all))
}

/// The repository, of which this is a part.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

fn build() -> Result<PathBuf, Failure> {
    let target = root().join("target").join("planted");
    let status = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--quiet",
            "-p",
            "nshard",
            "--features",
            "planted",
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(root())
        .status()
        .during("run cargo")?;
    match status.success() {
        true => Ok(target.join("release").join("nshard")),
        false => Err(Failure::Broken(format!("cargo build: {status}"))),
    }
}

fn ask(program: &Path, fault: &Planted) -> Result<Found, Failure> {
    let output = Command::new(program)
        .args(["work-planted", fault.what])
        .output()
        .during("start a worker")?;
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).map_err(|_| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.chars().take(400).collect();
        Failure::Broken(format!("{:?}: {}: {complaint}", fault.what, output.status))
    })
}

/// The worker: looks for one fault, and says what it found.
///
/// # Errors
/// In a build without faults, or if there is none of that name.
#[cfg(feature = "planted")]
pub fn work(what: &str) -> Result<String, Failure> {
    let fault = PLANTED.iter().find(|fault| fault.what == what);
    let fault = fault.ok_or_else(|| Failure::Broken(format!("there is no fault {what:?}")))?;
    std::panic::set_hook(Box::new(|_| {}));
    let crate::planted::Found { seed, how, reached } = crate::planted::find(fault)?;
    let line = serde_json::to_string(&Found { seed, how, reached });
    line.map_err(std::io::Error::from)
        .during("say what was found")
}

/// The worker, in a build without faults.
///
/// # Errors
/// Always.
#[cfg(not(feature = "planted"))]
pub fn work(what: &str) -> Result<String, Failure> {
    Err(Failure::Broken(format!(
        "this build cannot turn on {what:?}"
    )))
}
