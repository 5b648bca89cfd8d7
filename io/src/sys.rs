//! The system calls the standard library does not offer, each behind a safe function that returns the kernel's
//! error number. Opening, `pread`, `pwrite`, `fdatasync`, `ftruncate` and `flock` are the standard library's.
//!
//! On systems other than Linux these answer "not supported", which every caller treats as a slower way, not an error.
#![expect(unsafe_code, reason = "system calls")]

#[cfg(target_os = "linux")]
pub(crate) use linux::{direct_alignment, punch, set_direct, through_fuse, write_dsync};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{direct_alignment, punch, set_direct, through_fuse, write_dsync};

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use crate::IoError;

    /// Turns `O_DIRECT` of an open file on or off.
    ///
    /// Done after the open, because an open that creates a file may create it and then refuse `O_DIRECT`.
    pub(crate) fn set_direct(file: BorrowedFd<'_>, on: bool) -> Result<(), i32> {
        // SAFETY: reads the flags of a descriptor that is open as long as `file` is borrowed.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(IoError::last_errno());
        }
        let flags = if on {
            flags | libc::O_DIRECT
        } else {
            flags & !libc::O_DIRECT
        };
        // SAFETY: as above; sets flags the kernel checks, touches no memory.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } {
            0 => Ok(()),
            _ => Err(IoError::last_errno()),
        }
    }

    /// What direct transfers of a file must be aligned to, in memory and in the file, in bytes; zeros if the file
    /// system says that it cannot. `None` if it does not say.
    pub(crate) fn direct_alignment(file: BorrowedFd<'_>) -> Option<(u32, u32)> {
        let mut answer = MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the path is an empty C string, `AT_EMPTY_PATH` means the descriptor itself, which is open, and
        // `answer` has room for the structure.
        let failed = unsafe {
            libc::statx(
                file.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                libc::STATX_DIOALIGN,
                answer.as_mut_ptr(),
            )
        };
        // SAFETY: all zeros is a valid value of this plain structure, and the kernel only writes valid ones.
        let answer = unsafe { answer.assume_init() };
        let said = failed == 0 && answer.stx_mask & libc::STATX_DIOALIGN != 0;
        said.then_some((answer.stx_dio_mem_align, answer.stx_dio_offset_align))
    }

    /// A file's transfers are made by a process, through FUSE. False where the kernel does not say.
    pub(crate) fn through_fuse(file: BorrowedFd<'_>) -> bool {
        let mut answer = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the descriptor is open as long as `file` is borrowed, and `answer` has room for the structure.
        let failed = unsafe { libc::fstatfs(file.as_raw_fd(), answer.as_mut_ptr()) };
        // SAFETY: all zeros is a valid value of this plain structure, and the kernel only writes valid ones.
        let answer = unsafe { answer.assume_init() };
        failed == 0 && answer.f_type == libc::FUSE_SUPER_MAGIC
    }

    /// One `pwritev2` with `RWF_DSYNC`: returns bytes written, all of them durable.
    pub(crate) fn write_dsync(
        file: BorrowedFd<'_>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, i32> {
        let offset = libc::off_t::try_from(offset).map_err(|_| libc::EFBIG)?;
        let parts = [libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        }];
        // SAFETY: one part, readable for its length while `bytes` is borrowed; a write does not change it.
        let written =
            unsafe { libc::pwritev2(file.as_raw_fd(), parts.as_ptr(), 1, offset, libc::RWF_DSYNC) };
        usize::try_from(written).map_err(|_| IoError::last_errno())
    }

    /// Gives the space of a range back, keeping the file's length.
    pub(crate) fn punch(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), i32> {
        let offset = libc::off_t::try_from(offset).map_err(|_| libc::EFBIG)?;
        let len = libc::off_t::try_from(len).map_err(|_| libc::EFBIG)?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: an open descriptor and plain numbers, which the kernel checks.
        match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) } {
            0 => Ok(()),
            _ => Err(IoError::last_errno()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::os::fd::BorrowedFd;

    /// Not supported.
    pub(crate) fn set_direct(_file: BorrowedFd<'_>, on: bool) -> Result<(), i32> {
        if on { Err(libc::EINVAL) } else { Ok(()) }
    }

    /// Not told.
    pub(crate) fn direct_alignment(_file: BorrowedFd<'_>) -> Option<(u32, u32)> {
        None
    }

    /// Not known.
    pub(crate) fn through_fuse(_file: BorrowedFd<'_>) -> bool {
        false
    }

    /// Not supported.
    pub(crate) fn write_dsync(
        _file: BorrowedFd<'_>,
        _offset: u64,
        _bytes: &[u8],
    ) -> Result<usize, i32> {
        Err(libc::EOPNOTSUPP)
    }

    /// Not supported.
    pub(crate) fn punch(_file: BorrowedFd<'_>, _offset: u64, _len: u64) -> Result<(), i32> {
        Err(libc::EOPNOTSUPP)
    }
}
