//! Files of a simulated disk.

use std::path::Path;
use std::sync::Arc;

use super::disk::Shared;
use super::fault::{Fault, What};
use super::trace::{Event, FileId};
use crate::transfer::{Step, Target, Transfer};
use crate::{Buf, File, IoError, IoKind, SyncMethod};

/// Of what is read while it is written, every other sector is this.
const TORN: u8 = 0xa7;
const SECTOR: usize = 512;
/// How a violation begins that a read of a queue commits: one that was asked for ahead may come late, and is then
/// checked and thrown away.
pub const QUEUED_READ: &str = "a queued read";

/// A handle of a file.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) path: Arc<Path>,
    pub(super) text: Arc<str>,
    pub(super) file: FileId,
    pub(super) writable: bool,
    /// Stands for the file in an operation of a queue.
    pub(super) queued: bool,
}

impl Target for SimFile {
    fn is_direct(&self) -> bool {
        self.shared.state().direct
    }

    fn give_up_direct(&self) {}

    fn end(&self) -> Result<u64, i32> {
        let state = self.shared.state();
        Ok(state
            .image
            .content(self.file)
            .map_or(0, |content| content.len))
    }
}

impl SimFile {
    /// The same for an operation of a queue.
    pub(super) fn queued(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            path: Arc::clone(&self.path),
            text: Arc::clone(&self.text),
            file: self.file,
            writable: self.writable,
            queued: true,
        }
    }

    pub(super) fn refused(&self, kind: IoKind, offset: u64, len: usize, errno: i32) -> IoError {
        IoError {
            kind,
            path: Arc::clone(&self.text),
            offset,
            len,
            errno,
        }
    }

    /// Moves all bytes of a transfer through `attempt`, by the rules of every disk.
    fn run(
        &self,
        kind: IoKind,
        offset: u64,
        (len, buf_len): (usize, usize),
        mut attempt: impl FnMut(u64, usize, usize) -> Result<usize, i32>,
    ) -> Result<(), IoError> {
        let refused = |errno| self.refused(kind, offset, len, errno);
        let mut transfer = Transfer::new(kind, offset, len, buf_len).map_err(refused)?;
        loop {
            let part = transfer.next(self);
            let outcome = attempt(part.offset, part.start, part.len as usize);
            match transfer.after(outcome, self) {
                Step::Done => break,
                Step::Again => {}
                Step::Failed(errno) => return Err(transfer.error(&self.text, errno)),
            }
        }
        if kind == IoKind::Read {
            self.shared.counters.add_read(len);
        } else {
            self.shared.counters.add_write(len);
        }
        Ok(())
    }

    /// One try of a read: bytes moved.
    fn try_read(&self, offset: u64, out: &mut [u8]) -> Result<usize, i32> {
        let (mut state, fault) = self
            .shared
            .enter(What::Read, &self.path, offset, out.len())?;
        let end = state
            .image
            .content(self.file)
            .map_or(0, |content| content.len);
        let place = (self.file, offset, offset + out.len() as u64);
        // Whoever reads what is being written must find out by what it reads.
        let torn = state.is_flying(place);
        if self.queued {
            state.watch(place, QUEUED_READ);
        }
        let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut len = out.len().min(there);
        let (mut from, mut image) = (offset, &state.image);
        match fault {
            Some(Fault::Short(most)) => len = len.min(most),
            Some(Fault::MisdirectedRead(by)) => from = offset.saturating_add_signed(by),
            Some(Fault::Stale) => image = state.kept().unwrap_or(image),
            Some(Fault::ErrorAfter(errno)) => return Err(errno),
            _ => {}
        }
        match image.content(self.file) {
            Some(content) => content.read(from, &mut out[..len]),
            None => out[..len].fill(0),
        }
        if torn {
            let sectors = out[..len].chunks_mut(SECTOR).skip(1).step_by(2);
            sectors.for_each(|sector| sector.fill(TORN));
        }
        if let Some(Fault::Flipped(bit)) = fault {
            let at = usize::try_from(bit / 8).unwrap_or(0) % len.max(1);
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Ok(len)
    }

    /// One try of a write: bytes moved, and the write's id, if it is to be found anywhere.
    fn try_write(&self, offset: u64, bytes: &[u8]) -> Result<(usize, Option<u64>), i32> {
        let mut len = bytes.len();
        let entered = self.shared.enter(What::Write, &self.path, offset, len);
        let (mut state, fault) = match entered {
            Err(errno) if !matches!(errno, libc::EINTR | libc::EAGAIN) => {
                let mut state = self.shared.state();
                state.fail_write(None, (self.file, offset, bytes));
                return Err(errno);
            }
            entered => entered?,
        };
        if let Some(Fault::Short(most)) = fault {
            len = len.min(most) / Buf::ALIGN * Buf::ALIGN;
        }
        if len == 0 {
            return Ok((0, None));
        }
        state.room(self.file, offset, len)?;
        let data = state.zeros.shared(&bytes[..len]);
        let id = state.begin_write(self.file, offset, &data);
        let landed = state.end_write(id, (self.file, offset, &data), fault)?;
        Ok((len, landed))
    }

    fn check_writable(&self, kind: IoKind, offset: u64, len: usize) -> Result<(), IoError> {
        match self.writable {
            true => Ok(()),
            false => Err(self.refused(kind, offset, len, libc::EBADF)),
        }
    }

    /// Writes all; gives the ids of the writes it took.
    fn write(&self, offset: u64, buf: &[u8], len: usize) -> Result<Vec<u64>, IoError> {
        self.check_writable(IoKind::Write, offset, len)?;
        let mut ids = Vec::new();
        self.run(IoKind::Write, offset, (len, buf.len()), |at, start, len| {
            let (moved, id) = self.try_write(at, &buf[start..start + len])?;
            ids.extend(id);
            Ok(moved)
        })?;
        Ok(ids)
    }

    fn sync_some(&self, only: Option<u64>) -> Result<(), IoError> {
        let refused = |errno| self.refused(IoKind::Sync, 0, 0, errno);
        let (mut state, fault) = self
            .shared
            .enter(What::Sync, &self.path, 0, 0)
            .map_err(refused)?;
        state.sync(self.file, only, fault).map_err(refused)?;
        if let Some(Fault::ErrorAfter(errno)) = fault {
            return Err(refused(errno));
        }
        self.shared.counters.add_sync();
        Ok(())
    }
}

impl File for SimFile {
    fn len(&self) -> Result<u64, IoError> {
        self.end()
            .map_err(|errno| self.refused(IoKind::Resize, 0, 0, errno))
    }

    fn set_len(&self, len: u64) -> Result<(), IoError> {
        let refused = |errno| self.refused(IoKind::Resize, len, 0, errno);
        self.check_writable(IoKind::Resize, len, 0)?;
        let entered = self.shared.enter(What::Resize, &self.path, len, 0);
        let (mut state, fault) = entered.map_err(refused)?;
        state.image.content_mut(self.file).set_len(len);
        let file = self.file;
        state.tell(|| Event::Resized { file, len });
        match fault {
            Some(Fault::ErrorAfter(errno)) => Err(refused(errno)),
            _ => Ok(()),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let refused = |errno| self.refused(IoKind::Resize, offset, 0, errno);
        self.check_writable(IoKind::Resize, offset, 0)?;
        let entered = self.shared.enter(What::Resize, &self.path, offset, 0);
        let (mut state, fault) = entered.map_err(refused)?;
        let end = offset.saturating_add(len);
        state.image.content_mut(self.file).forget(offset, end);
        let file = self.file;
        state.tell(|| Event::Punched { file, offset, len });
        match fault {
            Some(Fault::ErrorAfter(errno)) => Err(refused(errno)),
            _ => Ok(()),
        }
    }

    fn allocated(&self) -> Result<u64, IoError> {
        let state = self.shared.state();
        Ok(state
            .image
            .content(self.file)
            .map_or(0, super::content::Content::allocated))
    }

    fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<(), IoError> {
        let len = buf.len();
        self.run(IoKind::Read, offset, (len, len), |at, start, len| {
            self.try_read(at, &mut buf[start..start + len])
        })
    }

    fn write_at(&self, offset: u64, buf: &Buf, len: usize) -> Result<(), IoError> {
        self.write(offset, buf, len).map(drop)
    }

    fn write_durable(
        &self,
        offset: u64,
        buf: &Buf,
        len: usize,
        method: SyncMethod,
    ) -> Result<(), IoError> {
        let ids = self.write(offset, buf, len)?;
        match method {
            SyncMethod::WriteThenSync | SyncMethod::None => self.sync(),
            // Such a write is durable by itself, and makes nothing else so.
            SyncMethod::WriteDsync | SyncMethod::RingDsync => {
                ids.iter().try_for_each(|id| self.sync_some(Some(*id)))
            }
        }
    }

    fn sync(&self) -> Result<(), IoError> {
        self.sync_some(None)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
