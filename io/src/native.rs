//! The disk of the operating system: files of real directories, through io_uring where it may be used.
//!
//! What the disk wants and is refused (a ring, direct I/O, a way to write durably) it does without, and says so once
//! in [`DiskStatus::warnings`]; the bytes are the same either way.
//!
//! - Threads: any; one lock for the warnings, one for the ring of durable writes, none on other transfers.
//! - Failure: the kernel's errors, with the path.

use std::collections::BTreeMap;
use std::fs::{Metadata, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::inline::InlineQueue;
use crate::plain::{NativeFile, errno};
use crate::{
    Disk, DiskStatus, File, FileLock, IoCounters, IoError, IoKind, LockError, OpenMode, Queue,
};
#[cfg(target_os = "linux")]
use crate::{ring, ring_queue::RingQueue};

/// Whether to use something that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Where the system allows it.
    #[default]
    Auto,
    /// Not even there.
    Never,
}

/// What a [`NativeDisk`] is to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeOptions {
    /// Queues run on io_uring.
    pub uring: Choice,
    /// Transfers bypass the kernel's page cache, where the file system allows it.
    pub direct: bool,
}

impl Default for NativeOptions {
    fn default() -> Self {
        Self {
            uring: Choice::Auto,
            direct: true,
        }
    }
}

/// The operating system's files.
#[derive(Debug)]
pub struct NativeDisk {
    shared: Arc<Shared>,
}

/// What the disk, its files and its queues have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    options: NativeOptions,
    /// A ring could be had when the disk was made.
    ring: bool,
    /// One per thing refused, by its name.
    warnings: Mutex<BTreeMap<&'static str, String>>,
    pub(crate) counters: IoCounters,
    #[cfg(target_os = "linux")]
    durable: Mutex<ring::DurableRing>,
}

impl NativeDisk {
    /// The disk, after a look at what the kernel allows.
    #[must_use]
    pub fn new(options: NativeOptions) -> Arc<Self> {
        let probed = match options.uring {
            Choice::Never => None,
            #[cfg(target_os = "linux")]
            Choice::Auto => Some(ring::probe()),
            #[cfg(not(target_os = "linux"))]
            Choice::Auto => Some(Err(libc::ENOSYS)),
        };
        Self::with_probe(options, probed)
    }

    /// The disk, given how setting up a ring went; `None` if it was not tried.
    pub(crate) fn with_probe(options: NativeOptions, probed: Option<Result<(), i32>>) -> Arc<Self> {
        let shared = Shared {
            options,
            ring: probed == Some(Ok(())),
            warnings: Mutex::default(),
            counters: IoCounters::default(),
            #[cfg(target_os = "linux")]
            durable: Mutex::default(),
        };
        if let Some(Err(errno)) = probed {
            shared.warn_ring(errno);
        }
        Arc::new(Self {
            shared: Arc::new(shared),
        })
    }

    /// What its queues share; for tests that build one by hand.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    /// Files should be direct.
    pub(crate) fn wants_direct(&self) -> bool {
        self.options.direct
    }

    /// A ring could be had when the disk was made.
    pub(crate) fn has_ring(&self) -> bool {
        self.ring
    }

    fn warn(&self, about: &'static str, text: impl FnOnce() -> String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.entry(about).or_insert_with(text);
    }

    /// A file is not direct though it should be.
    pub(crate) fn warn_direct(&self, path: &str, reason: &str) {
        self.warn("direct", || {
            format!("{path}: no direct I/O ({reason}); transfers pass through the page cache")
        });
    }

    /// A way to write durably was refused.
    pub(crate) fn warn_dsync(&self, path: &str) {
        self.warn("dsync", || {
            format!("{path}: durable writes in one call are refused; each is a write and a sync")
        });
    }

    /// A ring was refused.
    pub(crate) fn warn_ring(&self, errno: i32) {
        let reason = std::io::Error::from_raw_os_error(errno);
        self.warn("ring", || {
            format!("io_uring is refused ({reason}); transfers are made one at a time")
        });
    }

    /// A ring could be had, but not for this file.
    pub(crate) fn without_ring(&self, path: &str) {
        if self.ring {
            self.warn("ring", || {
                format!("{path}: no io_uring through FUSE; transfers are made one at a time")
            });
        }
    }

    /// One write with `RWF_DSYNC` through the disk's own ring: returns bytes written, all of them durable.
    #[cfg(target_os = "linux")]
    pub(crate) fn ring_write_dsync(
        &self,
        file: &NativeFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, i32> {
        if !self.ring {
            return Err(libc::ENOSYS);
        }
        let mut ring = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        ring.write(file.fd(), offset, bytes)
    }

    /// There is no ring.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn ring_write_dsync(
        &self,
        _file: &NativeFile,
        _offset: u64,
        _bytes: &[u8],
    ) -> Result<usize, i32> {
        Err(libc::ENOSYS)
    }
}

/// Lifts an error of the standard library about a directory entry.
fn directory(path: &Path) -> impl FnOnce(std::io::Error) -> IoError {
    move |error| IoError::at(IoKind::Directory, path, errno(&error))
}

impl Disk for NativeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        Ok(Arc::new(NativeFile::open(&self.shared, path, mode)?))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        std::fs::create_dir_all(path).map_err(directory(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(directory(path))? {
            let entry = entry.map_err(directory(path))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        std::fs::rename(from, to).map_err(directory(from))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        std::fs::remove_file(path).map_err(directory(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        let opened = OpenOptions::new()
            .read(true)
            .open(path)
            .map_err(directory(path))?;
        match opened.sync_all() {
            // Said by file systems whose entries need no sync of their own.
            Err(error) if errno(&error) == libc::EINVAL => Ok(()),
            synced => synced.map_err(directory(path)),
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        for _ in 1..LOCKS_MAX {
            let lock = try_lock(path)?;
            // Else it was removed before the lock was had: others do not find it any more.
            if lock.is_at(path) {
                return Ok(Box::new(lock));
            }
        }
        Ok(Box::new(try_lock(path)?))
    }

    fn queue(&self, depth: u32) -> Result<Box<dyn Queue>, IoError> {
        #[cfg(target_os = "linux")]
        if self.shared.ring {
            return Ok(Box::new(RingQueue::new(&self.shared, depth)));
        }
        let _rings_only = depth;
        Ok(Box::new(InlineQueue::default()))
    }

    fn status(&self) -> DiskStatus {
        let warnings = self
            .shared
            .warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        DiskStatus {
            backend: if self.shared.ring {
                "io_uring"
            } else {
                "pread"
            },
            direct: self.shared.options.direct && !warnings.contains_key("direct"),
            warnings: warnings.values().cloned().collect(),
        }
    }

    fn counters(&self) -> &IoCounters {
        &self.shared.counters
    }
}

/// Locks tried of files that lose their name at once; file systems that give a file another number each time are believed then.
const LOCKS_MAX: u32 = 8;

/// Locks the file at `path` and writes this process's number in it.
fn try_lock(path: &Path) -> Result<NativeLock, LockError> {
    let failed = |error: &std::io::Error| IoError::at(IoKind::Open, path, errno(error));
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    // Who may only read it can lock it all the same: a lock is no matter of rights.
    let (mut file, writable) = match opened {
        Ok(file) => (file, true),
        Err(error) => {
            let file = OpenOptions::new().read(true).open(path);
            (file.map_err(|_| failed(&error))?, false)
        }
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.take(20).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(LockError::Held {
                path: path.to_string_lossy().into(),
                pid,
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error).into()),
    }
    if !writable {
        return Ok(NativeLock { file });
    }
    // For whoever is refused: the lock itself is the kernel's and ends with this process.
    file.set_len(0).map_err(|error| failed(&error))?;
    let pid = std::process::id();
    file.write_all(format!("{pid}\n").as_bytes())
        .map_err(|error| failed(&error))?;
    Ok(NativeLock { file })
}

/// `flock` on an open file: two opens conflict even inside one process, and the kernel unlocks when this closes.
#[derive(Debug)]
struct NativeLock {
    file: std::fs::File,
}

impl NativeLock {
    /// Whether it is the file that has this name.
    fn is_at(&self, path: &Path) -> bool {
        let same =
            |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        let there = std::fs::metadata(path);
        there.is_ok_and(|there| self.file.metadata().is_ok_and(|own| same(&own, &there)))
    }
}

impl FileLock for NativeLock {}
