//! A control group that bounds the memory of one process, the kernel's cache of its files included. Spec: BV-003.
//!
//! - Failure: where groups cannot be made, an error says which file refused.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Memory for the program itself and what it notes about the rows.
const PROGRAM_BYTES: u64 = 32 << 20;

/// A group below one that the user named; removed when dropped.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    /// Makes `parent/<name>` for `bytes` of data and cache.
    ///
    /// # Errors
    /// If it cannot be made, or holds neither version's file for the limit.
    pub(crate) fn create(parent: &Path, name: &str, bytes: u64) -> Result<Self> {
        if !parent.is_dir() {
            let why = format!("{}: there is no such control group", parent.display());
            return Err(Error::Usage(why));
        }
        let path = parent.join(format!("nsrivals-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).map_err(Error::file(&path))?;
        let group = Self { path };
        let limit = (bytes + PROGRAM_BYTES).to_string();
        // Version 2, then version 1.
        let files = ["memory.max", "memory.limit_in_bytes"];
        let found = files
            .iter()
            .map(|file| group.path.join(file))
            .find(|path| path.exists());
        let Some(file) = found else {
            return Err(Error::Usage(format!(
                "{}: no memory.max and no memory.limit_in_bytes: not a group with the memory controller",
                group.path.display()
            )));
        };
        std::fs::write(&file, limit).map_err(Error::file(&file))?;
        Ok(group)
    }

    /// The file that a process writes its id to.
    pub(crate) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.path));
    }
}

/// Puts this process into a group.
pub(crate) fn enter(procs: &Path) -> Result<()> {
    std::fs::write(procs, std::process::id().to_string()).map_err(Error::file(procs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_group_is_refused_and_removed() {
        let parent = std::env::temp_dir().join(format!("nsrivals-group-{}", std::process::id()));
        std::fs::create_dir_all(&parent).unwrap();
        let error = MemoryGroup::create(&parent, "x", 1 << 20).unwrap_err();
        assert!(error.to_string().contains("memory.max"), "{error}");
        assert_eq!(error.exit_code(), 2);
        std::fs::remove_dir(&parent).unwrap();
    }
}
