//! Where a database is made: nothing is made over something else, and what was begun in vain goes again.

use std::fs::{OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Failure;

/// What is said of something that whoever was killed leaves.
pub(crate) const IN_THAT_CASE: &str = "or was interrupted; remove it in that case";

/// The path with `ending` after its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Failure> {
    let dir = parent(path);
    let opened = OpenOptions::new().read(true).open(dir);
    match opened.and_then(|opened| opened.sync_all()) {
        // The first is said by file systems whose entries need no sync of their own. Who may not read a directory cannot sync it.
        Err(error)
            if [ErrorKind::InvalidInput, ErrorKind::PermissionDenied].contains(&error.kind()) =>
        {
            Ok(())
        }
        synced => synced.map_err(|error| Failure::file(dir, error)),
    }
}

/// A directory that was missing or empty.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    /// It is somebody's: only what was made in it is ours.
    was_there: bool,
}

impl Place {
    /// Looks at `dir`. What a restore that failed leaves, a lock and a log without any file, counts as nothing. `hint` says of
    /// anything else whose it may be.
    pub(crate) fn empty(dir: &Path, hint: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::file(dir, error);
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => {
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
                let dir = dir.display();
                return Err(Failure::Use(format!("{dir} is not empty{hint}")));
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
        // Somebody else may have opened it since it was closed: then it is theirs. Else nobody can until it is gone.
        let lock = OpenOptions::new().read(true).open(self.dir.join("LOCK"));
        if lock
            .as_ref()
            .is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
        {
            return;
        }
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

/// A database in the making, in a directory beside the one that it is for: that has all of it, or nothing. In that one itself where it is
/// there and cannot give way to another.
#[derive(Debug)]
pub(crate) struct Part {
    place: Place,
    target: PathBuf,
}

impl Part {
    /// Begins one for `target`, which must be missing or an empty directory.
    pub(crate) fn of(target: &Path) -> Result<Self, Failure> {
        let refused = |why: &str| Err(Failure::Use(format!("{} {why}", target.display())));
        let failed = |error| Failure::file(target, error);
        // Who may enter the directory that gives way to the new one.
        let mut permissions = None;
        let mut is_mounted = false;
        let is_full = std::fs::read_dir(target).map(|mut entries| entries.next().is_some());
        let target = match is_full {
            Ok(true) => return refused("is not empty"),
            Ok(false) => {
                // What a link names, not the link.
                let named = target.canonicalize().map_err(failed)?;
                let own = named.metadata().map_err(failed)?;
                let above = parent(&named).metadata().map_err(failed)?;
                permissions = Some(own.permissions());
                is_mounted = own.dev() != above.dev();
                named
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if target.is_symlink() {
                    return refused("is a link that names nothing");
                }
                if target.file_name().is_none() {
                    return Err(failed(error));
                }
                target.to_owned()
            }
            Err(error) => return Err(failed(error)),
        };
        let in_place = |target: PathBuf| Self {
            place: Place {
                dir: target.clone(),
                was_there: true,
            },
            target,
        };
        // It cannot give way.
        if is_mounted {
            return Ok(in_place(target));
        }
        make_parents(&target)?;
        let dir = beside(&target, ".part");
        match std::fs::create_dir(&dir) {
            // Nor where only the directory itself is the user's.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && permissions.is_some() => {
                return Ok(in_place(target));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Failure::Use(format!(
                    "{} exists: somebody is rebuilding a database there, {IN_THAT_CASE}",
                    dir.display()
                )));
            }
            made => made.map_err(|error| Failure::file(&dir, error))?,
        }
        let was_there = false;
        let place = Place { dir, was_there };
        let part = Self { place, target };
        if let Some(permissions) = permissions {
            let set = std::fs::set_permissions(part.dir(), permissions);
            set.map_err(|error| Failure::file(part.dir(), error))
                .inspect_err(|_| part.discard())?;
        }
        Ok(part)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Gives what was made, and closed, its name. An empty directory of that name gives way, nothing else does.
    pub(crate) fn name(&self) -> Result<(), Failure> {
        let target = &self.target;
        if self.dir() == target {
            return Ok(());
        }
        let renamed = std::fs::rename(self.dir(), target);
        renamed
            .map_err(|error| Failure::file(target, error))
            .inspect_err(|_| self.discard())?;
        sync_parent(target)
    }

    /// Removes what was made.
    pub(crate) fn discard(&self) {
        self.place.discard();
    }
}

/// Makes the missing parents of `path`, each durable before the next is made in it.
fn make_parents(path: &Path) -> Result<(), Failure> {
    let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(missing).collect();
    for dir in missing.into_iter().rev() {
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made.map_err(|error| Failure::file(dir, error))?,
        }
        sync_parent(dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_opened_meanwhile_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::empty(&dir.path().join("db"), "").unwrap();
        let open = || northstardb::Db::open(place.dir()).unwrap();
        let db = open();
        let table = db.table("t").unwrap();
        place.discard();
        let mut write = db.begin_write().unwrap();
        write.put(&table, "a", "1").unwrap();
        write.commit().unwrap();
        db.close().unwrap();
        let db = open();
        let table = db.open_table("t").unwrap();
        assert!(db.begin_read().unwrap().contains(&table, "a").unwrap());
        drop(db);
        place.discard();
        assert!(!place.dir().exists());
    }
}
