//! Transfers in flight through a ring of the kernel's own, with nothing of northstar-io between: what the device does, also
//! when our queue does less.
//!
//! Invariants:
//! 1. While the kernel has a buffer, it is in `bufs`, nothing else touches it, and [`InFlight::many`] does not return:
//!    after an error nothing new is begun, and what is in flight is waited for.
//! 2. If even waiting fails, the buffers are leaked.
#![expect(unsafe_code, reason = "lending buffers to the kernel")]

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use northstar_io::Buf;

use super::Way;
use crate::alloc::Allocs;
use crate::clock::now;
use crate::sample::Sample;

/// A ring, and the buffers that may be in flight.
pub(super) struct InFlight {
    ring: IoUring,
    bufs: Vec<Buf>,
    /// Those of `bufs` that the kernel does not have.
    idle: Vec<usize>,
}

impl InFlight {
    /// `None` where the kernel gives no ring.
    pub(super) fn new(depth: u32) -> Option<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(depth)
            .or_else(|_| IoUring::new(depth))
            .ok()?;
        Some(Self {
            ring,
            bufs: Vec::new(),
            idle: Vec::new(),
        })
    }

    /// Keeps all of `bufs`, no more than the ring was made for, in flight at the offsets that `next(elapsed, index)` gives until it stops; the latency recorded is
    /// the time from one completion to the next.
    pub(super) fn many(
        mut self,
        file: &File,
        way: Way,
        bufs: Vec<Buf>,
        mut next: impl FnMut(Duration, u64) -> Option<u64>,
    ) -> Result<Sample> {
        let depth = bufs.len();
        self.idle = (0..depth).collect();
        self.bufs = bufs;
        let mut sample = Sample::new();
        let allocs = Allocs::of_this_thread();
        let (started, mut index, mut failed) = (now(), 0, None);
        let mut last = started;
        loop {
            while failed.is_none()
                && let Some(slot) = self.idle.pop()
            {
                let Some(offset) = next(last - started, index) else {
                    self.idle.push(slot);
                    break;
                };
                index += 1;
                failed = self.begin(file, way, slot, offset).err();
            }
            if self.idle.len() == depth {
                break;
            }
            if let Err(error) = self.ring.submit_and_wait(1)
                && error.kind() != ErrorKind::Interrupted
            {
                self.bufs.leak();
                return Err(error);
            }
            let before = self.idle.len();
            failed = failed.or(self.ended());
            let at = now();
            sample.record(at - last, (self.idle.len() - before) as u64);
            last = at;
        }
        sample.elapsed = started.elapsed();
        sample.allocs = Some(allocs.since());
        failed.map_or(Ok(sample), Err)
    }

    /// Queues the transfer of one idle buffer.
    fn begin(&mut self, file: &File, way: Way, slot: usize, offset: u64) -> Result<()> {
        let fd = types::Fd(file.as_raw_fd());
        let buf = &mut self.bufs[slot];
        let (at, len) = (buf.as_mut_ptr(), buf.len() as u32);
        let entry = match way {
            Way::Read => opcode::Read::new(fd, at, len).offset(offset).build(),
            Way::Write => opcode::Write::new(fd, at, len).offset(offset).build(),
        };
        // SAFETY: the buffer stays where it is and is not touched until the kernel has given it back (invariants 1 and 2),
        // and the file is borrowed for as long.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) };
        pushed.map_err(|_| {
            self.idle.push(slot);
            Error::other("the ring takes fewer entries than it was made for")
        })
    }

    /// Takes back what has ended; the first that did not end whole.
    fn ended(&mut self) -> Option<Error> {
        let mut failed = None;
        for entry in self.ring.completion() {
            let slot = entry.user_data() as usize;
            self.idle.push(slot);
            let (done, wanted) = (entry.result(), self.bufs[slot].len());
            let error = match usize::try_from(done) {
                Err(_) => Error::from_raw_os_error(-done),
                Ok(done) if done != wanted => {
                    Error::other(format!("{done} bytes of {wanted} transferred"))
                }
                Ok(_) => continue,
            };
            failed.get_or_insert(error);
        }
        failed
    }
}
