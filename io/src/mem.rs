//! A disk in memory: the same promises as a real one, none of the durability.
//!
//! Files are sparse: 64 KiB chunks, present once written. A file lives as long as its name or a handle does, so a
//! removed or replaced file stays readable through handles, as on a real disk. Directories must exist before
//! files are made in them; the root and the empty path always do.
//!
//! - Threads: any; a lock per file, and one for the names, never both at once.
//! - Failure: only what callers provoke (`ENOENT`, `EEXIST`, `EBADF`, [`IoError::END_OF_FILE`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::inline::InlineQueue;
use crate::transfer::check;
use crate::{
    Buf, Disk, DiskStatus, File, FileLock, IoCounters, IoError, IoKind, LockError, OpenMode, Queue,
    SyncMethod,
};

/// Bytes in one chunk: small enough for small databases, large enough that a page copies in one piece.
const CHUNK: usize = 64 << 10;

/// Bytes a file may have, as on a real disk: the largest signed offset.
const FILE_MAX: u64 = i64::MAX as u64;

/// Files in memory, shared by all who hold the disk.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    names: Mutex<Names>,
    counters: Arc<IoCounters>,
    locked: Arc<Mutex<BTreeSet<PathBuf>>>,
}

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<RwLock<Content>>>,
    dirs: BTreeSet<PathBuf>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // No code that can panic runs under the lock; a poisoned one is as good as any.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn has_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || path.as_os_str().is_empty() || self.dirs.contains(path)
    }

    /// The error if no file may be made at `path`.
    fn check_parent(&self, path: &Path) -> Result<(), i32> {
        match path.parent() {
            Some(parent) if self.has_dir(parent) && !self.dirs.contains(path) => Ok(()),
            Some(parent) if self.has_dir(parent) => Err(libc::EISDIR),
            _ => Err(libc::ENOENT),
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        let refused = |errno| IoError::at(IoKind::Open, path, errno);
        let mut names = self.names();
        let content = match (names.files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(refused(libc::EEXIST)),
            (Some(content), OpenMode::Read | OpenMode::Write) => Arc::clone(content),
            (None, OpenMode::Read | OpenMode::Write) => return Err(refused(libc::ENOENT)),
            (None, OpenMode::CreateNew) => {
                names.check_parent(path).map_err(refused)?;
                let content = Arc::<RwLock<Content>>::default();
                names.files.insert(path.to_owned(), Arc::clone(&content));
                content
            }
        };
        Ok(Arc::new(MemoryFile {
            path: path.to_string_lossy().into(),
            writable: mode != OpenMode::Read,
            content,
            counters: Arc::clone(&self.counters),
        }))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        let mut names = self.names();
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            if names.files.contains_key(dir) {
                return Err(IoError::at(IoKind::Directory, path, libc::ENOTDIR));
            }
        }
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            names.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        let names = self.names();
        if !names.has_dir(path) {
            return Err(IoError::at(IoKind::Directory, path, libc::ENOENT));
        }
        let mut entries = names
            .files
            .keys()
            .chain(&names.dirs)
            .filter(|entry| entry.parent() == Some(path))
            .filter_map(|entry| entry.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>();
        entries.sort_unstable();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let mut names = self.names();
        names
            .check_parent(to)
            .map_err(|errno| IoError::at(IoKind::Directory, to, errno))?;
        let Some(content) = names.files.remove(from) else {
            return Err(IoError::at(IoKind::Directory, from, libc::ENOENT));
        };
        names.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        match self.names().files.remove(path) {
            Some(_) => Ok(()),
            None => Err(IoError::at(IoKind::Directory, path, libc::ENOENT)),
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        if self.names().has_dir(path) {
            return Ok(());
        }
        Err(IoError::at(IoKind::Directory, path, libc::ENOENT))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let mut names = self.names();
        if !names.files.contains_key(path) {
            names
                .check_parent(path)
                .map_err(|errno| IoError::at(IoKind::Open, path, errno))?;
            names.files.insert(path.to_owned(), Arc::default());
        }
        drop(names);
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        if !locked.insert(path.to_owned()) {
            let path = path.to_string_lossy().into();
            return Err(LockError::Held {
                path,
                pid: Some(std::process::id()),
            });
        }
        Ok(Box::new(MemoryLock {
            path: path.to_owned(),
            locked: Arc::clone(&self.locked),
        }))
    }

    fn queue(&self, _depth: u32) -> Result<Box<dyn Queue>, IoError> {
        Ok(Box::new(InlineQueue::default()))
    }

    fn status(&self) -> DiskStatus {
        DiskStatus {
            backend: "memory",
            direct: false,
            warnings: Vec::new(),
        }
    }

    fn counters(&self) -> &IoCounters {
        &self.counters
    }
}

/// Holds a path in the disk's set of locked ones.
#[derive(Debug)]
struct MemoryLock {
    path: PathBuf,
    locked: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.locked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.path);
    }
}

/// A handle to one file.
#[derive(Debug)]
struct MemoryFile {
    path: Arc<str>,
    writable: bool,
    content: Arc<RwLock<Content>>,
    counters: Arc<IoCounters>,
}

impl MemoryFile {
    fn refused(&self, kind: IoKind, offset: u64, len: usize, errno: i32) -> IoError {
        IoError {
            kind,
            path: Arc::clone(&self.path),
            offset,
            len,
            errno,
        }
    }

    /// Runs `change` on the content, if this handle may.
    fn change(
        &self,
        kind: IoKind,
        offset: u64,
        len: usize,
        change: impl FnOnce(&mut Content) -> Result<(), i32>,
    ) -> Result<(), IoError> {
        let result = if self.writable {
            change(&mut self.content.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Err(libc::EBADF)
        };
        result.map_err(|errno| self.refused(kind, offset, len, errno))
    }
}

impl File for MemoryFile {
    fn len(&self) -> Result<u64, IoError> {
        Ok(self
            .content
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len)
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.change(IoKind::Resize, len, 0, |content| {
            if len > FILE_MAX {
                return Err(libc::EFBIG);
            }
            if len < content.len {
                content.zero(len, u64::MAX);
            }
            content.len = len;
            Ok(())
        })
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.change(
            IoKind::Resize,
            offset,
            usize::try_from(len).unwrap_or(usize::MAX),
            |content| {
                let end = offset.saturating_add(len);
                content.zero(offset, if end < content.len { end } else { u64::MAX });
                Ok(())
            },
        )
    }

    fn allocated(&self) -> Result<u64, IoError> {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        Ok((content.chunks.len() * CHUNK) as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<(), IoError> {
        let refusal = |errno| self.refused(IoKind::Read, offset, buf.len(), errno);
        check(offset, buf.len(), buf.len()).map_err(refusal)?;
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        if !content.read(offset, buf) {
            return Err(self.refused(IoKind::Read, offset, buf.len(), IoError::END_OF_FILE));
        }
        self.counters.add_read(buf.len());
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &Buf, len: usize) -> Result<(), IoError> {
        self.change(IoKind::Write, offset, len, |content| {
            check(offset, len, buf.len())?;
            content.write(offset, &buf[..len]);
            Ok(())
        })?;
        self.counters.add_write(len);
        Ok(())
    }

    fn write_durable(
        &self,
        offset: u64,
        buf: &Buf,
        len: usize,
        _method: SyncMethod,
    ) -> Result<(), IoError> {
        self.write_at(offset, buf, len)?;
        self.sync()
    }

    fn sync(&self) -> Result<(), IoError> {
        self.counters.add_sync();
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A file's bytes: absent chunks and all beyond the last written byte are zeros.
#[derive(Debug, Default)]
struct Content {
    len: u64,
    /// By number; each is [`CHUNK`] long. Bytes at and beyond `len` are zero.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

/// The chunk of `at`, where in it `at` lies, and how much of `left` bytes fits behind.
fn place(at: u64, left: usize) -> (u64, usize, usize) {
    let within = usize::try_from(at % CHUNK as u64).unwrap_or(0);
    (at / CHUNK as u64, within, left.min(CHUNK - within))
}

impl Content {
    /// False if the file ends before `into` is full.
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        if offset
            .checked_add(into.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return false;
        }
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let (chunk, within, step) = place(at, rest.len());
            let (now, later) = rest.split_at_mut(step);
            match self.chunks.get(&chunk) {
                Some(bytes) => now.copy_from_slice(&bytes[within..within + step]),
                None => now.fill(0),
            }
            (at, rest) = (at + step as u64, later);
        }
        true
    }

    /// The caller checked that the end is at most [`FILE_MAX`].
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (chunk, within, step) = place(at, rest.len());
            let (now, later) = rest.split_at(step);
            let stored = self
                .chunks
                .entry(chunk)
                .or_insert_with(|| vec![0; CHUNK].into());
            stored[within..within + step].copy_from_slice(now);
            (at, rest) = (at + step as u64, later);
        }
        self.len = self.len.max(at);
    }

    /// Zeros `from..to`: whole chunks are dropped, parts overwritten.
    fn zero(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let last = (to - 1) / CHUNK as u64;
        let touched = self
            .chunks
            .range(from / CHUNK as u64..=last)
            .map(|(&chunk, _)| chunk);
        for chunk in touched.collect::<Vec<_>>() {
            let start = chunk * CHUNK as u64;
            let within = |at: u64| {
                usize::try_from(at.saturating_sub(start)).map_or(CHUNK, |at| at.min(CHUNK))
            };
            match within(from)..within(to) {
                whole if whole == (0..CHUNK) => drop(self.chunks.remove(&chunk)),
                part => {
                    if let Some(bytes) = self.chunks.get_mut(&chunk) {
                        bytes[part].fill(0);
                    }
                }
            }
        }
    }
}
