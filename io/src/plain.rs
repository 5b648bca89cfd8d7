//! Files of a real file system, through blocking calls: `pread`, `pwrite`, `fdatasync` and their kin.
//!
//! A file starts direct (`O_DIRECT`) if its disk wants that and the file system takes it, and becomes buffered for
//! good when a transfer is refused. Both ways give the same bytes; only the speed and the page cache differ.
//!
//! - Threads: all calls from any thread; the kernel orders what overlaps.
//! - Failure: errors name the path, the offset and the length asked for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::native::Shared;
use crate::transfer::{Part, Step, Target, Transfer};
use crate::{Buf, File, IoError, IoKind, OpenMode, SyncMethod, sys};

/// An open file of a [`crate::NativeDisk`].
#[derive(Debug)]
pub(crate) struct NativeFile {
    file: std::fs::File,
    path: Arc<str>,
    /// Never used twice in a process, unlike descriptors and addresses: what rings know a registered file by.
    id: u64,
    /// Relaxed everywhere: a try that still is direct after another gave up is refused, and goes on like it.
    direct: AtomicBool,
    /// False where another process serves the file, through FUSE. A direct write that it cuts short is continued by a
    /// ring with the right bytes at the wrong offset, and reported as whole (seen with Linux 6.18).
    rings: bool,
    disk: Arc<Shared>,
}

/// The error number in an error of the standard library.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl NativeFile {
    /// Opens a file, direct if `disk` wants it so and the file system agrees.
    pub(crate) fn open(disk: &Arc<Shared>, path: &Path, mode: OpenMode) -> Result<Self, IoError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        // Opening a pipe would wait for somebody at its other end.
        if let Ok(found) = std::fs::metadata(path)
            && !found.is_file()
            && !found.is_dir()
            && !found.file_type().is_block_device()
        {
            return Err(IoError::at(IoKind::Open, path, libc::EINVAL));
        }
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create_new(mode == OpenMode::CreateNew)
            .open(path);
        let file = opened.map_err(|error| IoError::at(IoKind::Open, path, errno(&error)))?;
        let path: Arc<str> = path.to_string_lossy().into();
        let served = sys::through_fuse(file.as_fd());
        if served {
            disk.without_ring(&path);
        }
        // A server has a memory of its own that no transfer passes by: what reads show need not be durable.
        let accepted = if served {
            Err("FUSE may keep what it has not written".to_owned())
        } else {
            Ok(())
        };
        let direct = disk.wants_direct()
            && match accepted.and_then(|()| accepts_direct(&file)) {
                Ok(()) => true,
                Err(reason) => {
                    disk.warn_direct(&path, &reason);
                    false
                }
            };
        Ok(Self {
            file,
            path,
            rings: !served,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            direct: AtomicBool::new(direct),
            disk: Arc::clone(disk),
        })
    }

    /// The descriptor, open as long as `self` lives.
    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Its transfers may be made by a ring.
    pub(crate) fn takes_rings(&self) -> bool {
        self.rings
    }

    /// See the field.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// As given to open.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn refused(&self, kind: IoKind, offset: u64, len: u64, errno: i32) -> IoError {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        IoError {
            kind,
            path: Arc::clone(&self.path),
            offset,
            len,
            errno,
        }
    }

    /// Moves all bytes of a transfer through `attempt`, and counts it.
    fn run(
        &self,
        transfer: Result<Transfer, i32>,
        refusal: impl FnOnce(i32) -> IoError,
        mut attempt: impl FnMut(Part) -> Result<usize, i32>,
    ) -> Result<(), IoError> {
        let mut transfer = transfer.map_err(refusal)?;
        loop {
            let part = transfer.next(self);
            let outcome = attempt(part);
            match transfer.after(outcome, self) {
                Step::Done => break,
                Step::Again if outcome == Err(libc::EAGAIN) => std::thread::yield_now(),
                Step::Again => {}
                Step::Failed(errno) => return Err(transfer.error(&self.path, errno)),
            }
        }
        self.count(&transfer);
        Ok(())
    }

    /// Counts a transfer that ended well.
    pub(crate) fn count(&self, transfer: &Transfer) {
        let counters = &self.disk.counters;
        if transfer.is_read() {
            counters.add_read(transfer.len());
        } else {
            counters.add_write(transfer.len());
        }
    }

    /// Counts a sync that ended well.
    pub(crate) fn count_sync(&self) {
        self.disk.counters.add_sync();
    }

    /// Writes through `attempt`, or through [`File::write_at`] and [`File::sync`] if the kernel knows no such way.
    fn write_synced(
        &self,
        offset: u64,
        buf: &Buf,
        len: usize,
        mut attempt: impl FnMut(u64, &[u8]) -> Result<usize, i32>,
    ) -> Result<(), IoError> {
        let transfer = Transfer::new(IoKind::Write, offset, len, buf.len());
        let refusal = |errno| self.refused(IoKind::Write, offset, len as u64, errno);
        let written = self.run(transfer, refusal, |part| {
            attempt(part.offset, slice(buf, part))
        });
        match written {
            Err(error) if matches!(error.errno, libc::EOPNOTSUPP | libc::ENOSYS) => {
                self.disk.warn_dsync(&self.path);
                self.write_at(offset, buf, len)?;
                self.sync()
            }
            Ok(()) => {
                self.count_sync();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The bytes of `buf` that `part` names; [`Transfer::new`] checked that they exist.
fn slice(buf: &[u8], part: Part) -> &[u8] {
    &buf[part.start..part.start + part.len as usize]
}

/// Makes a file direct, or says why not.
fn accepts_direct(file: &std::fs::File) -> Result<(), String> {
    match sys::direct_alignment(file.as_fd()) {
        Some((0, _) | (_, 0)) => return Err("the file system offers none".to_owned()),
        Some((memory, offset)) if memory.max(offset) as usize > Buf::ALIGN => {
            return Err(format!(
                "it would need an alignment of {} bytes",
                memory.max(offset)
            ));
        }
        Some(_) | None => {}
    }
    sys::set_direct(file.as_fd(), true)
        .map_err(|errno| io::Error::from_raw_os_error(errno).to_string())
}

impl Target for NativeFile {
    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    fn give_up_direct(&self) {
        let done = sys::set_direct(self.file.as_fd(), false);
        self.direct.store(false, Ordering::Relaxed);
        let reason = if done.is_ok() {
            "a transfer was refused"
        } else {
            "it cannot be turned off"
        };
        self.disk.warn_direct(&self.path, reason);
    }

    fn end(&self) -> Result<u64, i32> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| errno(&error))
    }
}

impl File for NativeFile {
    fn hold(&self) {
        // The hold ends with the open file, hence after this handle's own last transfer.
        for _ in 0..250 {
            match self.file.try_lock() {
                Err(std::fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Ok(()) | Err(std::fs::TryLockError::Error(_)) => return,
            }
        }
    }

    fn len(&self) -> Result<u64, IoError> {
        self.end()
            .map_err(|errno| self.refused(IoKind::Resize, 0, 0, errno))
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        let resized = self.file.set_len(len);
        resized.map_err(|error| self.refused(IoKind::Resize, len, 0, errno(&error)))
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        if len == 0 {
            return Ok(());
        }
        loop {
            match sys::punch(self.file.as_fd(), offset, len) {
                Ok(()) | Err(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
                Err(libc::EINTR) => {}
                Err(errno) => return Err(self.refused(IoKind::Resize, offset, len, errno)),
            }
        }
    }

    fn allocated(&self) -> Result<u64, IoError> {
        let metadata = self.file.metadata();
        let metadata =
            metadata.map_err(|error| self.refused(IoKind::Resize, 0, 0, errno(&error)))?;
        // `st_blocks` counts 512 bytes each, whatever the file system's block size.
        Ok(metadata.blocks().saturating_mul(512))
    }

    fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<(), IoError> {
        let len = buf.len();
        let transfer = Transfer::new(IoKind::Read, offset, len, len);
        let refusal = |errno| self.refused(IoKind::Read, offset, len as u64, errno);
        self.run(transfer, refusal, |part| {
            let into = &mut buf[part.start..part.start + part.len as usize];
            self.file
                .read_at(into, part.offset)
                .map_err(|error| errno(&error))
        })
    }

    fn write_at(&self, offset: u64, buf: &Buf, len: usize) -> Result<(), IoError> {
        let transfer = Transfer::new(IoKind::Write, offset, len, buf.len());
        let refusal = |errno| self.refused(IoKind::Write, offset, len as u64, errno);
        self.run(transfer, refusal, |part| {
            self.file
                .write_at(slice(buf, part), part.offset)
                .map_err(|error| errno(&error))
        })
    }

    fn write_durable(
        &self,
        offset: u64,
        buf: &Buf,
        len: usize,
        method: SyncMethod,
    ) -> Result<(), IoError> {
        match method {
            SyncMethod::WriteThenSync | SyncMethod::None => {
                self.write_at(offset, buf, len)?;
                self.sync()
            }
            // Without a ring, which was said once, the same write is made by a plain call.
            SyncMethod::RingDsync if self.disk.has_ring() && self.rings => {
                self.write_synced(offset, buf, len, |offset, bytes| {
                    self.disk.ring_write_dsync(self, offset, bytes)
                })
            }
            SyncMethod::WriteDsync | SyncMethod::RingDsync => {
                self.write_synced(offset, buf, len, |offset, bytes| {
                    sys::write_dsync(self.file.as_fd(), offset, bytes)
                })
            }
        }
    }

    fn sync(&self) -> Result<(), IoError> {
        // Never repeated after an error: the kernel may have dropped what it could not write.
        let synced = self.file.sync_data();
        synced.map_err(|error| self.refused(IoKind::Sync, 0, 0, errno(&error)))?;
        self.count_sync();
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
