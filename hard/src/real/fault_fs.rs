//! A volume that remembers what is durable: files and directories in memory, with faults on demand.
//!
//! Every file has what a reader sees, what would be left by a power cut, and the changes in between. A sync makes the
//! changes durable; one that fails forgets them, as Linux does: readers go on seeing what will not be there. Names change
//! in order, as journals do it.
//!
//! - Threads: one at a time; the holder keeps it in a lock.
//! - Source: Rebello et al., "Can Applications Recover from fsync Failures?" (USENIX ATC 2020)

use std::collections::BTreeMap;

use crate::rng::Rng;

/// The number of the outermost directory.
pub const ROOT: u64 = 1;

/// What goes wrong, from now on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// So many syncs go well before one fails.
    pub sync_fails_after: Option<u64>,
    /// All syncs after that one fail, too.
    pub sync_fails_on: bool,
    /// So many of 100 writes are cut short.
    pub writes_shortened: u64,
    /// So many reads go well before one fails.
    pub read_fails_after: Option<u64>,
}

/// How often faults were met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Syncs that failed.
    pub syncs: u64,
    /// Writes cut short.
    pub shortened: u64,
    /// Reads that failed.
    pub reads: u64,
}

/// What a power cut leaves of what is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All: only the process is gone.
    Nothing,
    /// None of it.
    Everything,
    /// Any part of it.
    Some,
}

#[derive(Debug, Clone)]
enum Change {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(offset, new) => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(new);
            }
            Self::Length(len) => bytes.resize(*len, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }
}

type Names = BTreeMap<String, u64>;

#[derive(Debug, Default)]
struct Directory {
    seen: Names,
    durable: Names,
    /// Every state since the durable one, in order.
    pending: Vec<Names>,
}

/// Why a request is refused: an error number.
pub type Refusal = i32;

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
}

/// The volume.
#[derive(Debug)]
pub struct Volume {
    files: BTreeMap<u64, Content>,
    directories: BTreeMap<u64, Directory>,
    next: u64,
    rng: Rng,
    /// What goes wrong.
    pub faults: Faults,
    /// What has gone wrong.
    pub met: Met,
}

impl Volume {
    /// An empty one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(ROOT, Directory::default())]),
            next: ROOT + 1,
            rng: Rng::new(seed),
            faults: Faults::default(),
            met: Met::default(),
        }
    }

    /// What a number stands for.
    #[must_use]
    pub fn kind(&self, number: u64) -> Option<Kind> {
        if self.directories.contains_key(&number) {
            return Some(Kind::Directory);
        }
        let file = self.files.get(&number)?;
        Some(Kind::File(file.seen.len() as u64))
    }

    /// The number under a name.
    #[must_use]
    pub fn find(&self, parent: u64, name: &str) -> Option<u64> {
        self.directories.get(&parent)?.seen.get(name).copied()
    }

    /// All names with their numbers.
    #[must_use]
    pub fn list(&self, directory: u64) -> Vec<(String, u64)> {
        let names = self.directories.get(&directory);
        let names = names.into_iter().flat_map(|found| &found.seen);
        names
            .map(|(name, number)| (name.clone(), *number))
            .collect()
    }

    fn rename_in(
        &mut self,
        parent: u64,
        act: impl FnOnce(&mut Names) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let directory = self.directories.get_mut(&parent).ok_or(libc::ENOENT)?;
        act(&mut directory.seen)?;
        directory.pending.push(directory.seen.clone());
        Ok(())
    }

    /// Makes a file or a directory.
    ///
    /// # Errors
    /// `EEXIST` if the name is in use.
    pub fn make(&mut self, parent: u64, name: &str, directory: bool) -> Result<u64, Refusal> {
        let number = self.next;
        self.rename_in(parent, |names| {
            if names.contains_key(name) {
                return Err(libc::EEXIST);
            }
            names.insert(name.to_owned(), number);
            Ok(())
        })?;
        self.next += 1;
        if directory {
            self.directories.insert(number, Directory::default());
        } else {
            self.files.insert(number, Content::default());
        }
        Ok(number)
    }

    /// Takes a name away. What it named stays until nothing can find it any more, that is for ever here.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn unlink(&mut self, parent: u64, name: &str) -> Result<(), Refusal> {
        self.rename_in(parent, |names| {
            names.remove(name).map(drop).ok_or(libc::ENOENT)
        })
    }

    /// Gives a file another name in the same directory.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn rename(&mut self, parent: u64, from: &str, to: &str) -> Result<(), Refusal> {
        self.rename_in(parent, |names| {
            let number = names.remove(from).ok_or(libc::ENOENT)?;
            names.insert(to.to_owned(), number);
            Ok(())
        })
    }

    fn file(&mut self, number: u64) -> Result<&mut Content, Refusal> {
        self.files.get_mut(&number).ok_or(libc::ENOENT)
    }

    /// Reads up to `len` bytes.
    ///
    /// # Errors
    /// `EIO` for the read that is to fail.
    pub fn read(&mut self, number: u64, offset: u64, len: usize) -> Result<Vec<u8>, Refusal> {
        match &mut self.faults.read_fails_after {
            Some(0) => {
                self.faults.read_fails_after = None;
                self.met.reads += 1;
                return Err(libc::EIO);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let bytes = &self.file(number)?.seen;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let to = from.saturating_add(len).min(bytes.len());
        Ok(bytes[from..to].to_vec())
    }

    /// Writes, or writes the first part; durably if the flags ask for that. Gives how much it was.
    ///
    /// # Errors
    /// As [`Volume::sync`].
    pub fn write(
        &mut self,
        number: u64,
        offset: u64,
        data: &[u8],
        flags: i32,
    ) -> Result<usize, Refusal> {
        let mut len = data.len();
        let blocks = len as u64 / 512;
        if blocks > 1 && self.rng.chance(self.faults.writes_shortened) {
            let part = self.rng.between(1, blocks - 1) * 512;
            len = usize::try_from(part).unwrap_or(len);
            self.met.shortened += 1;
        }
        let offset = usize::try_from(offset).map_err(|_| libc::EFBIG)?;
        let change = Change::Bytes(offset, data[..len].to_vec());
        self.file(number)?.change(change);
        if flags & (libc::O_DSYNC | libc::O_SYNC) != 0 {
            self.sync(number)?;
        }
        Ok(len)
    }

    /// Overwrites a part with zeros, as far as the file goes.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn punch(&mut self, number: u64, offset: u64, len: u64) -> Result<(), Refusal> {
        let file = self.file(number)?;
        let end = (file.seen.len() as u64).min(offset.saturating_add(len));
        if let Some(len) = end.checked_sub(offset) {
            let at = usize::try_from(offset).map_err(|_| libc::EFBIG)?;
            let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
            file.change(Change::Bytes(at, vec![0; len]));
        }
        Ok(())
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn resize(&mut self, number: u64, len: u64) -> Result<(), Refusal> {
        let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
        self.file(number)?.change(Change::Length(len));
        Ok(())
    }

    /// Makes a file's changes durable, or a directory's.
    ///
    /// # Errors
    /// `EIO` when it is to fail: then some of a file's changes, or all, are forgotten, and no later sync makes up for it.
    pub fn sync(&mut self, number: u64) -> Result<(), Refusal> {
        let fails = match &mut self.faults.sync_fails_after {
            Some(0) => {
                if !self.faults.sync_fails_on {
                    self.faults.sync_fails_after = None;
                }
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if let Some(directory) = self.directories.get_mut(&number) {
            if !fails {
                directory.durable.clone_from(&directory.seen);
            }
            directory.pending.clear();
        } else {
            let chosen = if fails {
                self.rng.pick(&[0, 0, 50])
            } else {
                100
            };
            let file = self.files.get_mut(&number).ok_or(libc::ENOENT)?;
            for change in file.pending.drain(..) {
                if chosen == 100 || self.rng.chance(chosen) {
                    change.apply(&mut file.durable);
                }
            }
        }
        if fails {
            self.met.syncs += 1;
            return Err(libc::EIO);
        }
        Ok(())
    }

    /// The power goes and comes back.
    pub fn cut(&mut self, cut: Cut) {
        if cut == Cut::Nothing {
            return;
        }
        let chance = match cut {
            Cut::Some => self.rng.pick(&[10, 50, 90]),
            Cut::Everything | Cut::Nothing => 0,
        };
        for directory in self.directories.values_mut() {
            let kept = self.rng.index(directory.pending.len() + 1);
            if cut == Cut::Some && kept > 0 {
                directory.durable = directory.pending.swap_remove(kept - 1);
            }
            directory.pending.clear();
            directory.seen.clone_from(&directory.durable);
        }
        for file in self.files.values_mut() {
            for change in file.pending.drain(..) {
                if self.rng.chance(chance) {
                    change.apply(&mut file.durable);
                }
            }
            file.seen.clone_from(&file.durable);
        }
        let named: Vec<u64> = self
            .directories
            .values()
            .flat_map(|directory| directory.seen.values().copied())
            .collect();
        self.files.retain(|number, _| named.contains(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume_with(bytes: &[u8]) -> (Volume, u64) {
        let mut volume = Volume::new(1);
        let file = volume.make(ROOT, "file", false).unwrap();
        volume.write(file, 0, bytes, 0).unwrap();
        volume.sync(file).unwrap();
        volume.sync(ROOT).unwrap();
        (volume, file)
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced() {
        let (mut volume, file) = volume_with(b"old");
        volume.write(file, 0, b"new", 0).unwrap();
        assert_eq!(volume.read(file, 0, 9).unwrap(), b"new");
        volume.make(ROOT, "other", false).unwrap();
        volume.cut(Cut::Everything);
        assert_eq!(volume.read(file, 0, 9).unwrap(), b"old");
        assert_eq!(volume.find(ROOT, "other"), None);
        volume.write(file, 0, b"new", libc::O_DSYNC).unwrap();
        volume.cut(Cut::Everything);
        assert_eq!(volume.read(file, 0, 9).unwrap(), b"new");
    }

    #[test]
    fn a_failed_sync_forgets_for_good() {
        let (mut volume, file) = volume_with(b"old");
        let mut lost = false;
        for _ in 0..20 {
            volume.write(file, 0, b"new", 0).unwrap();
            volume.faults.sync_fails_after = Some(0);
            assert_eq!(volume.sync(file), Err(libc::EIO));
            // The next one goes well, and readers see no difference.
            volume.sync(file).unwrap();
            assert_eq!(volume.read(file, 0, 9).unwrap(), b"new");
            volume.cut(Cut::Everything);
            lost |= volume.read(file, 0, 9).unwrap() == b"old";
            volume.write(file, 0, b"old", libc::O_DSYNC).unwrap();
        }
        assert!(lost);
    }

    #[test]
    fn writes_are_cut_short_and_reads_fail() {
        let (mut volume, file) = volume_with(&[7; 4096]);
        volume.faults = Faults {
            writes_shortened: 100,
            read_fails_after: Some(1),
            ..Faults::default()
        };
        let written = volume.write(file, 0, &[8; 4096], 0).unwrap();
        assert!((512..4096).contains(&written));
        assert_eq!(volume.read(file, 0, 1).unwrap(), [8]);
        assert_eq!(volume.read(file, 0, 1), Err(libc::EIO));
        assert_eq!(volume.read(file, 4095, 1).unwrap(), [7]);
        let met = Met {
            shortened: 1,
            reads: 1,
            syncs: 0,
        };
        assert_eq!(volume.met, met);
    }
}
