//! Where a database is made: nothing is made over something else, and what was begun in vain goes again.

use std::path::{Path, PathBuf};

use crate::Failure;

/// A directory that was missing or empty.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    /// It is somebody's: only what was made in it is ours.
    was_there: bool,
}

impl Place {
    /// Looks at `dir`. What a restore that failed leaves, a lock and a log without any file, counts as nothing.
    pub(crate) fn empty(dir: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::file(dir, error);
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let dir = dir.to_owned();
                let was_there = false;
                return Ok(Self { dir, was_there });
            }
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let is_ours = match entry.file_name().as_encoded_bytes() {
                b"LOCK" => true,
                // Of a link it says no.
                b"log" => {
                    let is_dir = entry.file_type().map_err(failed)?.is_dir();
                    is_dir
                        && std::fs::read_dir(entry.path())
                            .map_err(failed)?
                            .next()
                            .is_none()
                }
                _ => false,
            };
            if !is_ours {
                return Err(Failure::Use(format!("{} is not empty", dir.display())));
            }
        }
        // What a link names, not the link.
        let dir = dir.canonicalize().map_err(failed)?;
        let was_there = true;
        Ok(Self { dir, was_there })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes what was made here, and nothing else that somebody may have put there.
    pub(crate) fn discard(&self) {
        // What cannot be removed stays: the failure that led here is what is told. The log first: without a data file it would
        // be taken for what is left of a database.
        std::fs::remove_dir_all(self.dir.join("log")).ok();
        for name in ["data", "data.tmp", "LOCK"] {
            std::fs::remove_file(self.dir.join(name)).ok();
        }
        if !self.was_there {
            std::fs::remove_dir(&self.dir).ok();
        }
    }
}
