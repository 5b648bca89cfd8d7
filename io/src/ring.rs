//! One io_uring: many transfers on their way at once, gathered into few system calls.
//!
//! Invariants:
//! 1. Each entry the kernel may read belongs to a [`Flight`] in `Ring::slots`, which owns the buffer and the file.
//!    A flight leaves its slot only when its completion was taken from the ring, or, if that can never be, into a
//!    leak. So the kernel never touches memory that was freed.
//! 2. At most `depth` flights exist and each has one entry at most, so neither of the kernel's two queues overflows.
//! 3. A sync is one `fsync` of the data, run by the kernel's worker threads; it is never repeated.
//!
//! - Threads: one at a time, and for a deferred ring always the same; [`crate::ring_queue`] sees to both.
//! - Limit: a table of 16 buffers of at most 1 GiB and 16 files a ring.
//! - Cost: one system call for up to [`GATHER`] submissions and for each `poll` that waits.
//! - Failure: a ring that cannot be entered answers with [`IoKind::Ring`]; what is on its way stays owned.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use io_uring::{IoUring, Probe, opcode, types};

use crate::flight::{Flight, Task, native};
use crate::plain::errno;
use crate::{Completion, File, IoError, IoKind, Mapping};

/// Operations gathered before the kernel is told without being asked to: enough to share one system call's cost,
/// few enough that the device does not wait.
pub(crate) const GATHER: usize = 16;

/// Registered buffers, and registered files, in one ring.
const TABLE: u32 = 16;

/// Bytes in one registered buffer: the kernel's limit.
const REGION_MAX: usize = 1 << 30;

/// Most operations on their way in one ring: its memory counts against a user's locked memory.
pub(crate) const DEPTH_MAX: u32 = 4096;

/// Calls refused in a row for lack of memory before the ring counts as broken.
const REFUSALS_MAX: u32 = 10_000;

/// How a ring is made; tests make it fail.
pub(crate) type Setup = fn(entries: u32, movable: bool) -> io::Result<IoUring>;

/// A ring, of the fastest kind the kernel grants.
pub(crate) fn set_up(entries: u32, movable: bool) -> io::Result<IoUring> {
    if !movable {
        let mut fastest = IoUring::builder();
        fastest
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag();
        fastest.setup_submit_all().dontfork();
        if let Ok(ring) = fastest.build(entries) {
            return Ok(ring);
        }
    }
    let mut cooperative = IoUring::builder();
    cooperative
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .dontfork();
    match cooperative.build(entries) {
        // Kernels before 5.19 know none of these flags.
        Err(error) if errno(&error) == libc::EINVAL => IoUring::builder().dontfork().build(entries),
        made => made,
    }
}

/// Whether rings may be had and know the operations used here; the error number if not.
pub(crate) fn probe() -> Result<(), i32> {
    let ring = set_up(8, false).map_err(|error| errno(&error))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| errno(&error))?;
    let used = [
        opcode::Read::CODE,
        opcode::Readv::CODE,
        opcode::Write::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
        opcode::Fsync::CODE,
    ];
    if used.iter().all(|&code| probe.is_supported(code)) {
        Ok(())
    } else {
        Err(libc::EOPNOTSUPP)
    }
}

/// The calling thread's number, never used twice in a process.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static THIS: Cell<u64> = const { Cell::new(0) };
    }
    if THIS.get() == 0 {
        // Relaxed: only that no two threads get the same number matters.
        THIS.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    THIS.get()
}

/// An error of the ring itself.
pub(crate) fn broken(errno: i32) -> IoError {
    IoError::new(IoKind::Ring, "io_uring", 0, 0, errno)
}

/// The entry for a task on a descriptor, registered or not: two types, hence a macro.
macro_rules! entry {
    ($fd:expr, $task:expr, $regions:expr) => {
        match $task {
            Task::Sync(_) => opcode::Fsync::new($fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Task::Scatter { offset, parts, .. } => {
                // At most `TRY_MAX` bytes in parts of `Buf::ALIGN` at least: far below any limit.
                let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                opcode::Readv::new($fd, parts.as_ptr(), count)
                    .offset(*offset)
                    .build()
            }
            Task::Move {
                part, buf, read, ..
            } => {
                let (offset, len) = (part.offset, part.len);
                let start = buf.as_ptr().as_ptr().wrapping_add(part.start);
                match (*read, region_of($regions, start.addr(), len as usize)) {
                    (true, None) => opcode::Read::new($fd, start, len).offset(offset).build(),
                    (false, None) => opcode::Write::new($fd, start, len).offset(offset).build(),
                    (true, Some(region)) => opcode::ReadFixed::new($fd, start, len, region)
                        .offset(offset)
                        .build(),
                    (false, Some(region)) => opcode::WriteFixed::new($fd, start, len, region)
                        .offset(offset)
                        .build(),
                }
            }
        }
    };
}

/// The index of the registered region that holds all of a transfer's memory.
fn region_of(regions: &[Region], first: usize, len: usize) -> Option<u16> {
    let holds = |region: &&Region| region.start <= first && first + len <= region.end;
    regions.iter().find(holds).map(|region| region.index)
}

/// A part of a mapping the kernel has pinned.
struct Region {
    start: usize,
    end: usize,
    index: u16,
}

/// One io_uring and what is on its way in it.
pub(crate) struct Ring {
    uring: IoUring,
    slots: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// Occupied slots.
    pub(crate) flying: usize,
    /// Ended, not yet handed back.
    pub(crate) landed: Vec<Completion>,
    /// Completions being looked at; kept for its memory.
    batch: Vec<(u64, i32)>,
    /// Completions run only when the owner asks.
    pub(crate) deferred: bool,
    /// The thread a deferred ring belongs to.
    owner: u64,
    regions: Vec<Region>,
    /// Keeps what the regions lie in.
    mappings: Vec<Arc<Mapping>>,
    /// `NativeFile::id`s, by index in the kernel's table.
    files: Vec<u64>,
    /// The kernel made a table for buffers, and one for files.
    tables: (bool, bool),
}

impl Ring {
    /// A ring just made by this thread, for at most `depth` flights.
    pub(crate) fn new(uring: IoUring, depth: u32) -> Self {
        let depth = depth as usize;
        Self {
            deferred: uring.params().is_setup_single_issuer(),
            uring,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            flying: 0,
            landed: Vec::new(),
            batch: Vec::new(),
            owner: this_thread(),
            regions: Vec::new(),
            mappings: Vec::new(),
            files: Vec::new(),
            tables: (false, false),
        }
    }

    /// The calling thread may drive it.
    pub(crate) fn usable_here(&self) -> bool {
        !self.deferred || self.owner == this_thread()
    }

    /// Operations the kernel was not yet told of.
    pub(crate) fn waiting(&mut self) -> usize {
        self.uring.submission().len()
    }

    /// Waits until a slot is free.
    pub(crate) fn make_room(&mut self) -> Result<(), IoError> {
        while self.free.is_empty() {
            self.enter(1)?;
            self.reap();
        }
        Ok(())
    }

    /// Puts a flight into a free slot, which [`Ring::make_room`] made, and its first entry before the kernel.
    pub(crate) fn take_off(&mut self, flight: Flight) {
        let Some(index) = self.free.pop() else {
            debug_assert!(false, "no room was made");
            self.landed.push(flight.land(Err(broken(libc::EBUSY))));
            return;
        };
        self.slots[index] = Some(flight);
        self.flying += 1;
        self.push(index);
    }

    /// Frees a slot the kernel has no entry for.
    fn vacate(&mut self, index: usize, result: Result<(), IoError>) {
        if let Some(flight) = self.slots.get_mut(index).and_then(Option::take) {
            self.flying -= 1;
            self.free.push(index);
            self.landed.push(flight.land(result));
        }
    }

    /// Puts the next entry of the flight at `index` before the kernel; it has none there now.
    fn push(&mut self, index: usize) {
        let Some(task) = self
            .slots
            .get_mut(index)
            .and_then(Option::as_mut)
            .and_then(Flight::task)
        else {
            return self.vacate(index, Err(broken(libc::EBADF)));
        };
        let file = match &task {
            Task::Sync(file) | Task::Move { file, .. } | Task::Scatter { file, .. } => *file,
        };
        let known = self.files.iter().position(|&id| id == file.id());
        let entry = match known.and_then(|at| u32::try_from(at).ok()) {
            Some(at) => entry!(types::Fixed(at), &task, &self.regions),
            None => entry!(types::Fd(file.fd()), &task, &self.regions),
        };
        let entry = entry.user_data(index as u64);
        // SAFETY: the entry's memory is `len` bytes from `start` inside the flight's buffer or buffers
        // (`Transfer::next` stays below their length), and so is the list of them; its descriptor is the flight's
        // file's. The flight keeps all of it, unchanged, until its completion is taken (invariant 1). A region's pages
        // are kept by `self.mappings`.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        if pushed.is_err() {
            // Invariant 2 forbids it. The kernel has no entry, so the flight may land.
            debug_assert!(false, "the submission queue is full");
            self.vacate(index, Err(broken(libc::EBUSY)));
        }
    }

    /// Tells the kernel of waiting entries and lets it run completions, waiting until `want` are there.
    ///
    /// Returns early when interrupted: the caller looks at what there is and comes again.
    pub(crate) fn enter(&mut self, want: usize) -> Result<(), IoError> {
        for _ in 0..REFUSALS_MAX {
            match self.uring.submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(error) => match errno(&error) {
                    libc::EINTR => return Ok(()),
                    // Kernel memory is short, or completions wait to be taken.
                    libc::EAGAIN | libc::EBUSY if self.uring.completion().is_empty() => {
                        std::thread::yield_now();
                    }
                    libc::EAGAIN | libc::EBUSY => return Ok(()),
                    errno => return Err(broken(errno)),
                },
            }
        }
        Err(broken(libc::EAGAIN))
    }

    /// Takes all completions there are: their flights land, or go on with another entry.
    fn reap(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(
            self.uring
                .completion()
                .map(|entry| (entry.user_data(), entry.result())),
        );
        for (index, result) in batch.drain(..) {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let Some(Some(flight)) = self.slots.get_mut(index) else {
                debug_assert!(false, "a completion for slot {index}, which is empty");
                continue;
            };
            match flight.after(result) {
                Some(result) => self.vacate(index, result),
                None => self.push(index),
            }
        }
        self.batch = batch;
    }

    /// See `Queue::poll`.
    pub(crate) fn poll(
        &mut self,
        at_least: usize,
        ended: &mut Vec<Completion>,
    ) -> Result<(), IoError> {
        self.reap();
        let mut looked = false;
        loop {
            let missing = at_least.saturating_sub(self.landed.len()).min(self.flying);
            let submission = self.uring.submission();
            let (started, due) = (submission.is_empty(), submission.taskrun());
            drop(submission);
            if missing == 0 && started && (looked || !due) {
                break;
            }
            // One look is enough: kernels exist that leave the flag up when there is nothing more to run.
            looked |= missing == 0;
            self.enter(missing)?;
            self.reap();
        }
        ended.append(&mut self.landed);
        Ok(())
    }

    /// Registers a mapping; false if any of it was refused. What was taken is used.
    pub(crate) fn register(&mut self, mapping: &Arc<Mapping>) -> bool {
        if self
            .mappings
            .iter()
            .any(|known| Arc::ptr_eq(known, mapping))
        {
            return true;
        }
        if !self.tables.0 {
            self.tables.0 = self
                .uring
                .submitter()
                .register_buffers_sparse(TABLE)
                .is_ok();
        }
        if !self.tables.0 {
            return false;
        }
        let before = self.regions.len();
        let mut all = true;
        mapping.pin(|| {
            for start in (0..mapping.len()).step_by(REGION_MAX) {
                let part = mapping.as_ptr().as_ptr().wrapping_add(start);
                all &= self.register_region(part, REGION_MAX.min(mapping.len() - start));
            }
            self.regions.len() > before
        });
        if self.regions.len() > before {
            self.mappings.push(Arc::clone(mapping));
        }
        all
    }

    /// Registers a part of a mapping that the caller keeps alive as long as the ring.
    fn register_region(&mut self, start: *mut u8, len: usize) -> bool {
        let index = u16::try_from(self.regions.len()).unwrap_or(u16::MAX);
        if u32::from(index) >= TABLE {
            return false;
        }
        let region = [libc::iovec {
            iov_base: start.cast(),
            iov_len: len,
        }];
        let submitter = self.uring.submitter();
        // SAFETY: the part lies in a mapping, which `self.mappings` keeps until the ring is gone.
        let taken = unsafe { submitter.register_buffers_update(u32::from(index), &region, None) };
        if taken.is_ok() {
            self.regions.push(Region {
                start: start.addr(),
                end: start.addr() + len,
                index,
            });
        }
        taken.is_ok()
    }

    /// Registers a file; false if refused.
    pub(crate) fn register_file(&mut self, file: &Arc<dyn File>) -> bool {
        let Some(native) = native(file) else {
            return false;
        };
        if self.files.contains(&native.id()) {
            return true;
        }
        let submitter = self.uring.submitter();
        if !self.tables.1 {
            self.tables.1 = submitter.register_files_sparse(TABLE).is_ok();
        }
        let index = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let taken = self.tables.1
            && index < TABLE
            && matches!(
                submitter.register_files_update(index, &[native.fd()]),
                Ok(1)
            );
        if taken {
            self.files.push(native.id());
        }
        taken
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.flying > 0 {
            let drained = self.usable_here() && self.enter(1).is_ok();
            if !drained {
                // The kernel may still write into the buffers and nobody will know when it stops: they are given up.
                Box::leak(Box::new(std::mem::take(&mut self.slots)));
                return;
            }
            self.reap();
        }
    }
}

/// The ring for durable writes, one at a time, from any thread; made at the first one.
#[derive(Default)]
pub(crate) struct DurableRing(Option<IoUring>);

impl std::fmt::Debug for DurableRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableRing(made: {})", self.0.is_some())
    }
}

impl DurableRing {
    /// One write with `RWF_DSYNC`: returns bytes written, all of them durable.
    pub(crate) fn write(&mut self, fd: i32, offset: u64, bytes: &[u8]) -> Result<usize, i32> {
        let uring = match &mut self.0 {
            Some(uring) => uring,
            none => none.insert(set_up(1, true).map_err(|_| libc::ENOSYS)?),
        };
        let len = u32::try_from(bytes.len()).map_err(|_| libc::EINVAL)?;
        let write = opcode::Write::new(types::Fd(fd), bytes.as_ptr(), len);
        let entry = write.offset(offset).rw_flags(libc::RWF_DSYNC).build();
        // SAFETY: `bytes` and the file stay borrowed until this function returns, which it does only when the
        // completion was taken or the kernel has not seen the entry.
        let pushed = unsafe { uring.submission().push(&entry) };
        if pushed.is_err() {
            return Err(libc::EBUSY);
        }
        loop {
            if let Some(entry) = uring.completion().next() {
                let result = entry.result();
                return usize::try_from(result).map_err(|_| -result);
            }
            if let Err(error) = uring.submit_and_wait(1) {
                let errno = errno(&error);
                let passes = matches!(errno, libc::EINTR | libc::EAGAIN | libc::EBUSY);
                if !passes && !uring.submission().is_empty() {
                    // Not seen by the kernel, and never to be.
                    self.0 = None;
                    return Err(errno);
                }
                std::thread::yield_now();
            }
        }
    }
}
