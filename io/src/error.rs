//! What I/O can report: which operation, on which file, where, and the kernel's reason.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoKind {
    /// Opening or creating a file.
    Open,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Making written bytes durable.
    Sync,
    /// Changing a file's length, allocating or punching.
    Resize,
    /// Listing, creating, renaming or removing directory entries, or syncing a directory.
    Directory,
    /// Setting up or driving a ring.
    Ring,
    /// Reserving memory.
    Memory,
}

/// One failed operation.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?} of {path} at offset {offset}, {len} bytes: {}", Errno(*errno))]
pub struct IoError {
    /// What was tried.
    pub kind: IoKind,
    /// The file or directory.
    pub path: Arc<str>,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes were asked for.
    pub len: usize,
    /// The kernel's error number; [`IoError::END_OF_FILE`] when the file ended early.
    pub errno: i32,
}

impl IoError {
    /// `errno` of a read that met the end of the file: not a number the kernel uses.
    pub const END_OF_FILE: i32 = -1;
    /// `errno` of a device that does not give back what was stored.
    pub const DEVICE: i32 = libc::EIO;
    /// The error number for a name that is not there.
    pub const NOT_FOUND: i32 = libc::ENOENT;

    /// An error with all it can say.
    #[must_use]
    pub fn new(kind: IoKind, path: &str, offset: u64, len: usize, errno: i32) -> Self {
        Self {
            kind,
            path: path.into(),
            offset,
            len,
            errno,
        }
    }

    /// An error of a path as a whole.
    pub(crate) fn at(kind: IoKind, path: &Path, errno: i32) -> Self {
        Self::new(kind, &path.to_string_lossy(), 0, 0, errno)
    }

    /// What the kernel last said on this thread.
    pub(crate) fn last_errno() -> i32 {
        std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO)
    }

    /// The standard library's word for [`IoError::errno`].
    #[must_use]
    pub fn cause(&self) -> ErrorKind {
        std::io::Error::from_raw_os_error(self.errno).kind()
    }

    /// True when the device or quota is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.errno, libc::ENOSPC | libc::EDQUOT | libc::EFBIG)
    }
}

impl fmt::Debug for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Errno(i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == IoError::END_OF_FILE {
            return f.write_str("the file ends before");
        }
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}
