//! The queue without a ring: each operation runs to its end inside `submit`; `poll` only hands results back.
//!
//! Right everywhere and the same bytes as a ring, without its depth: what files in memory use, and any disk whose
//! kernel refuses io_uring. Syncs run inline too, after every earlier operation, which is more than rule 3 asks.

use crate::{Completion, IoError, Op, Queue};

/// Operations that have ended and wait to be handed back.
#[derive(Debug, Default)]
pub(crate) struct InlineQueue {
    ended: Vec<Completion>,
}

impl Queue for InlineQueue {
    fn submit(&mut self, token: u64, op: Op) -> Result<(), IoError> {
        self.ended.push(run(token, op));
        Ok(())
    }

    fn poll(&mut self, _at_least: usize, ended: &mut Vec<Completion>) -> Result<(), IoError> {
        ended.append(&mut self.ended);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.ended.len()
    }
}

/// Runs one operation through its file's blocking calls.
pub(crate) fn run(token: u64, op: Op) -> Completion {
    let (mut one, mut run) = (None, Vec::new());
    let result = match op {
        Op::Read {
            file,
            offset,
            mut buf,
        } => {
            let result = file.read_at(offset, &mut buf);
            one = Some(buf);
            result
        }
        Op::ReadRun {
            file,
            mut offset,
            bufs,
        } => {
            run = bufs;
            run.iter_mut().try_for_each(|buf| {
                file.read_at(offset, buf)?;
                offset += buf.len() as u64;
                Ok(())
            })
        }
        Op::Write { file, offset, buf } => {
            let result = file.write_at(offset, &buf, buf.len());
            one = Some(buf);
            result
        }
        Op::Sync { file } => file.sync(),
    };
    Completion {
        token,
        buf: one,
        run,
        result,
    }
}
