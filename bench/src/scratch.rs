//! The run's directory: made at the start, removed at the end, also of runs that did not come to their end.
//!
//! Nothing else in the place that it is made in is touched: that may be anybody's.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "nsbench-run-";

/// A directory that is removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// The place it was made in, if that was not there before.
    made: Option<PathBuf>,
}

impl Scratch {
    /// Makes a directory `parent/nsbench-run-<pid>-<number>` that no other run has, not even one within this process, and removes what
    /// runs of processes that are no more have left in `parent`.
    pub(crate) fn create(parent: &Path) -> std::io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let made = (!parent.exists()).then(|| parent.to_owned());
        std::fs::create_dir_all(parent)?;
        for entry in std::fs::read_dir(parent)?.flatten() {
            let pid = entry.file_name().to_str().and_then(process_of);
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, made })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
        // Only if nothing else is in it.
        if let Some(made) = &self.made {
            drop(std::fs::remove_dir(made));
        }
    }
}

/// The process whose run a directory is of, by its name.
fn process_of(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_goes_with_its_run_and_takes_dead_runs_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let dead = ["0", "7"].map(|number| {
            let name = format!("nsbench-run-4294967295-{number}");
            parent.path().join(name)
        });
        // Somebody else's, though they may look like a run's.
        let kept = [
            "mine",
            "run-4294967295",
            "run-4294967295-7",
            "nsbench-run-4294967295",
        ];
        let kept = kept.map(|name| parent.path().join(name));
        for dir in dead.iter().chain(&kept) {
            std::fs::create_dir_all(dir.join("db")).unwrap();
        }
        let scratch = Scratch::create(parent.path()).unwrap();
        let path = scratch.path().to_owned();
        assert!(path.exists() && !dead.iter().any(|dead| dead.exists()));
        // A run within a run ends without taking the other along.
        drop(Scratch::create(parent.path()).unwrap());
        assert!(path.exists());
        drop(scratch);
        assert!(!path.exists() && kept.iter().all(|kept| kept.join("db").exists()));
    }

    #[test]
    fn the_place_goes_with_the_run_that_made_it_and_no_other() {
        let there = tempfile::tempdir().unwrap();
        drop(Scratch::create(there.path()).unwrap());
        assert!(there.path().exists(), "empty, and somebody's");
        let made = there.path().join("made");
        let scratch = Scratch::create(&made).unwrap();
        drop(Scratch::create(&made).unwrap());
        assert!(made.exists());
        drop(scratch);
        assert!(!made.exists());
    }
}
