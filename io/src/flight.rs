//! An operation in a ring, from its submission until its completion was taken.

use std::sync::Arc;

use crate::buf::Scatter;
use crate::plain::NativeFile;
use crate::transfer::{Part, Step, Transfer};
use crate::{Buf, Completion, File, IoError, IoKind, Op, ring};

/// An operation on its way, and all it needs.
pub(crate) struct Flight {
    /// As given to [`crate::Queue::submit`].
    token: u64,
    file: Arc<dyn File>,
    /// `None` for a sync.
    transfer: Option<(Transfer, Memory)>,
}

/// What a transfer moves.
enum Memory {
    One(Buf),
    Run(Scatter),
}

impl Flight {
    /// Gives the operation back if it is not one for a ring: misaligned, or on another disk's file.
    pub(crate) fn new(token: u64, op: Op) -> Result<Self, Op> {
        let file = match &op {
            Op::Read { file, .. }
            | Op::ReadRun { file, .. }
            | Op::Write { file, .. }
            | Op::Sync { file } => Arc::clone(file),
        };
        let (kind, offset, len) = match &op {
            Op::Read { offset, buf, .. } => (IoKind::Read, *offset, buf.len()),
            Op::ReadRun { offset, bufs, .. } => (
                IoKind::Read,
                *offset,
                bufs.iter().map(|buf| buf.len()).sum(),
            ),
            Op::Write { offset, buf, .. } => (IoKind::Write, *offset, buf.len()),
            Op::Sync { .. } => (IoKind::Sync, 0, 0),
        };
        if !native(&file).is_some_and(NativeFile::takes_rings) {
            return Err(op);
        }
        let transfer = match (kind, Transfer::new(kind, offset, len, len)) {
            (IoKind::Sync, _) => None,
            (_, Ok(transfer)) if len > 0 => Some(transfer),
            _ => return Err(op),
        };
        let memory = match op {
            Op::Read { buf, .. } | Op::Write { buf, .. } => Some(Memory::One(buf)),
            Op::ReadRun { bufs, .. } => Some(Memory::Run(Scatter::new(bufs))),
            Op::Sync { .. } => None,
        };
        Ok(Self {
            token,
            file,
            transfer: transfer.zip(memory),
        })
    }

    /// What the kernel is to do next; `None` if the file is not for rings, which [`Flight::new`] refused.
    pub(crate) fn task(&mut self) -> Option<Task<'_>> {
        let file = native(&self.file)?;
        let Some((transfer, memory)) = &mut self.transfer else {
            return Some(Task::Sync(file));
        };
        let part = transfer.next(file);
        let read = transfer.is_read();
        Some(match memory {
            Memory::One(buf) => Task::Move {
                file,
                part,
                buf,
                read,
            },
            Memory::Run(run) => Task::Scatter {
                file,
                offset: part.offset,
                parts: run.parts(part.start, part.len as usize),
            },
        })
    }

    /// The end of it.
    pub(crate) fn land(self, result: Result<(), IoError>) -> Completion {
        let (buf, run) = match self.transfer.map(|(_, memory)| memory) {
            None => (None, Vec::new()),
            Some(Memory::One(buf)) => (Some(buf), Vec::new()),
            Some(Memory::Run(run)) => (None, run.into_bufs()),
        };
        Completion {
            token: self.token,
            buf,
            run,
            result,
        }
    }

    /// Takes note of what the kernel did; `None` if there is more to do.
    pub(crate) fn after(&mut self, result: i32) -> Option<Result<(), IoError>> {
        let outcome = usize::try_from(result).map_err(|_| -result);
        let Some(native) = native(&self.file) else {
            return Some(Err(ring::broken(libc::EBADF)));
        };
        match &mut self.transfer {
            Some((transfer, _)) => match transfer.after(outcome, native) {
                Step::Again => None,
                Step::Failed(errno) => Some(Err(transfer.error(native.path(), errno))),
                Step::Done => {
                    native.count(transfer);
                    Some(Ok(()))
                }
            },
            None => match outcome {
                Ok(_) => {
                    native.count_sync();
                    Some(Ok(()))
                }
                Err(errno) => Some(Err(IoError::new(IoKind::Sync, native.path(), 0, 0, errno))),
            },
        }
    }
}

/// The file, if it is one of a [`crate::NativeDisk`].
pub(crate) fn native(file: &Arc<dyn File>) -> Option<&NativeFile> {
    file.as_any().downcast_ref()
}

/// What a ring is to tell the kernel.
pub(crate) enum Task<'a> {
    /// Sync the file's data.
    Sync(&'a NativeFile),
    /// Read or write a part.
    Move {
        /// Of which file.
        file: &'a NativeFile,
        /// Inside `buf`.
        part: Part,
        /// The flight's.
        buf: &'a Buf,
        /// Into `buf`, not out of it.
        read: bool,
    },
    /// Read into memory in pieces.
    Scatter {
        /// From which file.
        file: &'a NativeFile,
        /// From where in it.
        offset: u64,
        /// The flight's.
        parts: &'a [libc::iovec],
    },
}
