//! An operation in a ring, from its submission until its completion was taken.

use std::sync::Arc;

use crate::plain::NativeFile;
use crate::transfer::{Part, Step, Transfer};
use crate::{Buf, Completion, File, IoError, IoKind, Op, ring};

/// An operation on its way, and all it needs.
pub(crate) struct Flight {
    /// As given to [`crate::Queue::submit`].
    token: u64,
    file: Arc<dyn File>,
    /// `None` for a sync.
    transfer: Option<(Transfer, Buf)>,
}

impl Flight {
    /// Gives the operation back if it is not one for a ring: misaligned, or on another disk's file.
    pub(crate) fn new(token: u64, op: Op) -> Result<Self, Op> {
        let (kind, file, offset, buf) = match op {
            Op::Read { file, offset, buf } => (IoKind::Read, file, offset, buf),
            Op::Write { file, offset, buf } => (IoKind::Write, file, offset, buf),
            Op::Sync { file } if native(&file).is_some() => {
                return Ok(Self {
                    token,
                    file,
                    transfer: None,
                });
            }
            Op::Sync { .. } => return Err(op),
        };
        match Transfer::new(kind, offset, buf.len(), buf.len()) {
            Ok(transfer) if native(&file).is_some() && !buf.is_empty() => Ok(Self {
                token,
                file,
                transfer: Some((transfer, buf)),
            }),
            _ if kind == IoKind::Read => Err(Op::Read { file, offset, buf }),
            _ => Err(Op::Write { file, offset, buf }),
        }
    }

    /// What the kernel is to do next; `None` if the file is not for rings, which [`Flight::new`] refused.
    pub(crate) fn task(&mut self) -> Option<Task<'_>> {
        let file = native(&self.file)?;
        let Some((transfer, buf)) = &mut self.transfer else {
            return Some(Task::Sync(file));
        };
        let part = transfer.next(file);
        Some(Task::Move {
            file,
            part,
            buf,
            read: transfer.is_read(),
        })
    }

    /// The end of it.
    pub(crate) fn land(self, result: Result<(), IoError>) -> Completion {
        Completion {
            token: self.token,
            buf: self.transfer.map(|(_, buf)| buf),
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
}
