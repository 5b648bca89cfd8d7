//! The run's directory: made at the start, removed at the end, also of runs that did not come to their end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "run-";

/// A directory that is removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    parent: PathBuf,
}

impl Scratch {
    /// Makes a directory `parent/run-<pid>-<number>` that no other run has, not even one within this process, and removes what
    /// runs of processes that are no more have left in `parent`.
    pub(crate) fn create(parent: &Path) -> std::io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(parent)?;
        for entry in std::fs::read_dir(parent)?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| {
                name.strip_prefix(PREFIX)?
                    .split('-')
                    .next()?
                    .parse::<u32>()
                    .ok()
            });
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self {
            path,
            parent: parent.to_owned(),
        })
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
        drop(std::fs::remove_dir(&self.parent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_goes_with_its_run_and_takes_dead_runs_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let dead = [
            parent.path().join("run-4294967295"),
            parent.path().join("run-4294967295-7"),
        ];
        for dead in &dead {
            std::fs::create_dir_all(dead.join("db")).unwrap();
        }
        let kept = parent.path().join("mine");
        std::fs::create_dir_all(&kept).unwrap();
        let scratch = Scratch::create(parent.path()).unwrap();
        let path = scratch.path().to_owned();
        assert!(path.exists() && !dead.iter().any(|dead| dead.exists()));
        // A run within a run ends without taking the other along.
        drop(Scratch::create(parent.path()).unwrap());
        assert!(path.exists());
        drop(scratch);
        assert!(!path.exists() && kept.exists());
    }
}
