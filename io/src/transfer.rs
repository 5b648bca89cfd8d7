//! How a transfer goes on after the kernel did a part of it, or none: one rule for blocking calls and rings.
//!
//! Invariants:
//! 1. Each try starts at a multiple of [`Buf::ALIGN`] from the transfer's start, so that a direct file accepts it:
//!    after a ragged part the last partial block is done again.
//! 2. A transfer that makes no progress for [`STALLS_MAX`] tries in a row fails; none goes on for ever.
//! 3. `EINVAL` for a try that was direct means that the file system refuses direct I/O, since offset and length were
//!    checked: the file goes on without. `EINVAL` for any other try is an error.

use crate::planted::planted;
use crate::{Buf, IoError, IoKind};

/// Bytes of one try. Larger direct reads are split by the kernel into several requests, which is where spurious
/// `EAGAIN` and short reads come from; a megabyte already reaches a device's bandwidth.
const TRY_MAX: usize = 1 << 20;

/// Tries without progress before giving up. Interrupts and lack of kernel memory pass; this many in a row do not.
pub(crate) const STALLS_MAX: u32 = 1000;

/// What a transfer asks of its file.
pub(crate) trait Target {
    /// Tries go past the page cache.
    fn is_direct(&self) -> bool;
    /// From now on they do not.
    fn give_up_direct(&self);
    /// Length of the file in bytes, or the kernel's error number.
    fn end(&self) -> Result<u64, i32>;
}

/// The part of a transfer to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// In the file, in bytes.
    pub(crate) offset: u64,
    /// In the buffer, in bytes.
    pub(crate) start: usize,
    /// At most [`TRY_MAX`], so it fits any kernel interface.
    pub(crate) len: u32,
}

/// What to do after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: all bytes were moved.
    Done,
    /// Try [`Transfer::next`].
    Again,
    /// Report this error number.
    Failed(i32),
}

/// A read or write on its way.
#[derive(Debug)]
pub(crate) struct Transfer {
    kind: IoKind,
    offset: u64,
    len: usize,
    done: usize,
    stalls: u32,
    /// The latest try was direct.
    direct: bool,
}

/// The error number every disk answers to a transfer no direct file could take: one not made of whole blocks, or
/// longer than its buffer, or beyond the largest file offset.
pub(crate) fn check(offset: u64, len: usize, buf_len: usize) -> Result<(), i32> {
    let aligned = offset.is_multiple_of(Buf::ALIGN as u64) && len.is_multiple_of(Buf::ALIGN);
    let end = offset.checked_add(len as u64);
    match end {
        _ if !aligned || len > buf_len => Err(libc::EINVAL),
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(libc::EFBIG),
    }
}

impl Transfer {
    /// A transfer of the first `len` bytes of a buffer of `buf_len`, or why it cannot be.
    pub(crate) fn new(kind: IoKind, offset: u64, len: usize, buf_len: usize) -> Result<Self, i32> {
        check(offset, len, buf_len)?;
        Ok(Self {
            kind,
            offset,
            len,
            done: 0,
            stalls: 0,
            direct: false,
        })
    }

    /// The part to try now. Of a transfer of no bytes it is empty.
    pub(crate) fn next(&mut self, target: &impl Target) -> Part {
        self.direct = target.is_direct();
        let len = (self.len - self.done).min(TRY_MAX);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Part {
            offset: self.offset + self.done as u64,
            start: self.done,
            len,
        }
    }

    /// Takes note of how the latest try went: bytes moved, or an error number.
    pub(crate) fn after(&mut self, outcome: Result<usize, i32>, target: &impl Target) -> Step {
        match outcome {
            Ok(moved) if moved > self.len - self.done => Step::Failed(libc::EIO),
            Ok(moved) if moved == self.len - self.done => Step::Done,
            Ok(moved) if moved > 0 && planted("a short transfer is taken for whole") => Step::Done,
            Ok(moved) => {
                let reached = self.done + moved;
                let ragged = !reached.is_multiple_of(Buf::ALIGN);
                if self.kind == IoKind::Read && (moved == 0 || ragged) {
                    match target.end() {
                        Ok(end) if end <= self.offset + reached as u64 => {
                            return Step::Failed(IoError::END_OF_FILE);
                        }
                        Ok(_) => {}
                        Err(errno) => return Step::Failed(errno),
                    }
                }
                let whole = reached - reached % Buf::ALIGN;
                if whole == self.done {
                    return self.stall(libc::EIO);
                }
                (self.done, self.stalls) = (whole, 0);
                Step::Again
            }
            Err(errno @ (libc::EINTR | libc::EAGAIN)) => self.stall(errno),
            Err(libc::EINVAL) if self.direct => {
                target.give_up_direct();
                self.stall(libc::EINVAL)
            }
            Err(errno) => Step::Failed(errno),
        }
    }

    fn stall(&mut self, errno: i32) -> Step {
        self.stalls += 1;
        if self.stalls > STALLS_MAX {
            Step::Failed(errno)
        } else {
            Step::Again
        }
    }

    /// All bytes, for counting.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is reported when it fails.
    pub(crate) fn error(&self, path: &str, errno: i32) -> IoError {
        IoError::new(self.kind, path, self.offset, self.len, errno)
    }

    /// True for a read.
    pub(crate) fn is_read(&self) -> bool {
        self.kind == IoKind::Read
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Fake {
        direct: Cell<bool>,
        end: u64,
    }

    impl Target for Fake {
        fn is_direct(&self) -> bool {
            self.direct.get()
        }
        fn give_up_direct(&self) {
            self.direct.set(false);
        }
        fn end(&self) -> Result<u64, i32> {
            Ok(self.end)
        }
    }

    fn start(kind: IoKind, len: usize, end: u64) -> (Transfer, Fake) {
        let transfer = Transfer::new(kind, 4096, len, len).unwrap();
        (
            transfer,
            Fake {
                direct: Cell::new(true),
                end,
            },
        )
    }

    #[test]
    fn a_short_transfer_goes_on_from_the_last_whole_block() {
        for (moved, next) in [(4096, 4096), (4608, 4096), (8191, 4096), (8192, 8192)] {
            let (mut write, file) = start(IoKind::Write, 16384, 0);
            assert_eq!(
                write.next(&file),
                Part {
                    offset: 4096,
                    start: 0,
                    len: 16384
                }
            );
            assert_eq!(write.after(Ok(moved), &file), Step::Again);
            let part = write.next(&file);
            assert_eq!(
                (part.offset, part.start),
                (4096 + next as u64, next),
                "after {moved}"
            );
            assert_eq!(write.after(Ok(16384 - next), &file), Step::Done);
        }
    }

    #[test]
    fn a_large_transfer_is_split() {
        let (mut read, file) = start(IoKind::Read, 5 << 20, u64::MAX);
        let mut starts = Vec::new();
        loop {
            let part = read.next(&file);
            starts.push(part.start >> 20);
            match read.after(Ok(part.len as usize), &file) {
                Step::Again => {}
                Step::Done => break,
                Step::Failed(errno) => panic!("errno {errno}"),
            }
        }
        assert_eq!(starts, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_read_that_meets_the_end_says_so_and_one_that_races_growth_goes_on() {
        let (mut read, file) = start(IoKind::Read, 8192, 4096 + 5000);
        assert_eq!(
            read.after(Ok(5000), &file),
            Step::Failed(IoError::END_OF_FILE)
        );
        let (mut read, file) = start(IoKind::Read, 8192, 100_000);
        assert_eq!(read.after(Ok(5000), &file), Step::Again);
        assert_eq!(read.next(&file).start, 4096);
    }

    #[test]
    fn interrupts_are_retried_but_not_for_ever() {
        let (mut write, file) = start(IoKind::Write, 4096, 0);
        for _ in 0..STALLS_MAX {
            assert_eq!(write.after(Err(libc::EINTR), &file), Step::Again);
        }
        assert_eq!(
            write.after(Err(libc::EAGAIN), &file),
            Step::Failed(libc::EAGAIN)
        );
        let (mut write, file) = start(IoKind::Write, 4096, 0);
        let steps = (0..=STALLS_MAX)
            .map(|_| write.after(Ok(0), &file))
            .collect::<Vec<_>>();
        assert_eq!(steps.last(), Some(&Step::Failed(libc::EIO)));
    }

    #[test]
    fn einval_gives_up_direct_once_even_when_two_tries_meet_it() {
        let (mut one, file) = start(IoKind::Read, 4096, 8192);
        let mut two = Transfer::new(IoKind::Read, 0, 4096, 4096).unwrap();
        one.next(&file);
        two.next(&file);
        assert_eq!(one.after(Err(libc::EINVAL), &file), Step::Again);
        assert!(!file.is_direct());
        assert_eq!(two.after(Err(libc::EINVAL), &file), Step::Again);
        two.next(&file);
        assert_eq!(
            two.after(Err(libc::EINVAL), &file),
            Step::Failed(libc::EINVAL)
        );
    }

    #[test]
    fn what_is_not_whole_blocks_is_refused() {
        assert_eq!(check(4096, 8192, 8192), Ok(()));
        assert_eq!(check(512, 4096, 4096), Err(libc::EINVAL));
        assert_eq!(check(0, 100, 4096), Err(libc::EINVAL));
        assert_eq!(check(0, 8192, 4096), Err(libc::EINVAL));
        assert_eq!(check(1 << 63, 4096, 4096), Err(libc::EFBIG));
        assert_eq!(check(u64::MAX - 4095, 4096, 4096), Err(libc::EFBIG));
    }
}
