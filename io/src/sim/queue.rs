//! Queues of a simulated disk: operations end in an order that the hook chooses.

use std::sync::Arc;

use super::disk::Shared;
use super::fault::{Fault, What};
use super::file::SimFile;
use crate::transfer::{STALLS_MAX, check};
use crate::{Buf, Completion, File, IoError, IoKind, Op, Queue};

/// See the module.
#[derive(Debug)]
pub(super) struct SimQueue {
    shared: Arc<Shared>,
    depth: usize,
    flying: Vec<Flying>,
    ended: Vec<Completion>,
}

/// An operation on its way.
#[derive(Debug)]
struct Flying {
    token: u64,
    op: Op,
    /// A write: the trace knows of it already. Its id and bytes.
    write: Option<(u64, Arc<[u8]>)>,
}

impl SimQueue {
    pub(super) fn new(shared: &Arc<Shared>, depth: u32) -> Self {
        Self {
            shared: Arc::clone(shared),
            depth: depth.max(1) as usize,
            flying: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Ends one of the operations on their way.
    fn end_one(&mut self) {
        let at = self.shared.hook.choose(self.flying.len()) % self.flying.len();
        let Flying { token, op, write } = self.flying.remove(at);
        let completion = match (op, write) {
            (Op::Write { file, offset, buf }, Some((id, data))) => {
                let sim = file.as_any().downcast_ref::<SimFile>();
                let result = sim.map_or(Ok(()), |sim| self.end_write(sim, offset, id, &data));
                Completion {
                    token,
                    buf: Some(buf),
                    run: Vec::new(),
                    result,
                }
            }
            (op, _) => crate::inline::run(token, queued(op)),
        };
        self.ended.push(completion);
    }

    fn end_write(
        &self,
        sim: &SimFile,
        offset: u64,
        id: u64,
        data: &Arc<[u8]>,
    ) -> Result<(), IoError> {
        let refused = |errno| sim.refused(IoKind::Write, offset, data.len(), errno);
        let mut stalls = 0;
        let (mut state, fault) = loop {
            let entered = self
                .shared
                .enter(What::Write, &sim.path, offset, data.len());
            match entered {
                Err(libc::EINTR | libc::EAGAIN) if stalls < STALLS_MAX => stalls += 1,
                Err(errno) => {
                    let mut state = self.shared.state();
                    state.fail_write(Some(id), (sim.file, offset, data));
                    return Err(refused(errno));
                }
                Ok(entered) => break entered,
            }
        };
        if let Err(errno) = state.room(sim.file, offset, data.len()) {
            state.fail_write(Some(id), (sim.file, offset, data));
            return Err(refused(errno));
        }
        if let Some(Fault::Short(most)) = fault {
            let moved = most.min(data.len()) / Buf::ALIGN * Buf::ALIGN;
            state.cut_write(id, (sim.file, offset, data), moved);
            drop(state);
            // The rest follows as writes of their own, as a ring's user has to see to.
            let mut rest = Buf::zeroed(data.len() - moved);
            rest.copy_from_slice(&data[moved..]);
            return sim.write_at(offset + moved as u64, &rest, rest.len());
        }
        let ended = state.end_write(id, (sim.file, offset, data), fault);
        ended.map_err(refused)?;
        self.shared.counters.add_write(data.len());
        Ok(())
    }
}

/// A read through a handle that says where it comes from.
fn queued(op: Op) -> Op {
    let handle = |file: &Arc<dyn File>| -> Option<Arc<dyn File>> {
        let sim = file.as_any().downcast_ref::<SimFile>()?;
        Some(Arc::new(sim.queued()))
    };
    match op {
        Op::Read { file, offset, buf } => Op::Read {
            file: handle(&file).unwrap_or(file),
            offset,
            buf,
        },
        Op::ReadRun { file, offset, bufs } => Op::ReadRun {
            file: handle(&file).unwrap_or(file),
            offset,
            bufs,
        },
        Op::Write { .. } | Op::Sync { .. } => op,
    }
}

impl Queue for SimQueue {
    fn submit(&mut self, token: u64, op: Op) -> Result<(), IoError> {
        while self.flying.len() >= self.depth {
            self.end_one();
        }
        let mut write = None;
        if let Op::Write { file, offset, buf } = &op
            && let Some(sim) = file.as_any().downcast_ref::<SimFile>()
            && sim.writable
            && !buf.is_empty()
            && check(*offset, buf.len(), buf.len()).is_ok()
        {
            let mut state = self.shared.state();
            if !state.faults.is_off() {
                let data: Arc<[u8]> = buf[..].into();
                write = Some((state.begin_write(sim.file, *offset, &data), data));
            }
        }
        self.flying.push(Flying { token, op, write });
        Ok(())
    }

    fn poll(&mut self, at_least: usize, ended: &mut Vec<Completion>) -> Result<(), IoError> {
        while self.ended.len() < at_least && !self.flying.is_empty() {
            self.end_one();
        }
        // Some more may have ended meanwhile.
        while !self.flying.is_empty() && self.shared.hook.choose(2) == 1 {
            self.end_one();
        }
        ended.append(&mut self.ended);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.flying.len() + self.ended.len()
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        // As a ring: what is on its way ends first.
        while !self.flying.is_empty() {
            self.end_one();
        }
    }
}
