//! The disk itself: performs operations on the volatile image, tells them to the trace, and meets faults.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::{Fault, FaultPlan, Faults, Injected, Kept, What};
use super::file::SimFile;
use super::image::Image;
use super::queue::SimQueue;
use super::shadow::Shadow;
use super::trace::{Event, FileId, NameOp, Trace};
use crate::{
    Buf, Disk, DiskStatus, File, FileLock, IoCounters, IoError, IoKind, LockError, OpenMode, Queue,
};

/// What happens around operations, decided by whoever runs the simulation.
pub trait Hook: Debug + Send + Sync {
    /// Before each operation, with no lock held: others may run, and time may pass.
    fn before(&self, what: What, slow_ns: u64);
    /// Which of `count` operations of a queue ends next.
    fn choose(&self, count: usize) -> usize;
}

/// Operations follow each other at once, in order.
#[derive(Debug)]
struct NoHook;

impl Hook for NoHook {
    fn before(&self, _: What, _: u64) {}
    fn choose(&self, _: usize) -> usize {
        0
    }
}

/// How a simulated disk is made.
#[derive(Debug)]
pub struct SimOptions {
    /// What it holds at first: all that is seen is pending or durable as the shadow says.
    pub begin: Shadow,
    /// Reads give what the device has, not what the system remembers: what a failed sync lost is not seen any more.
    pub direct: bool,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// Keep a trace.
    pub trace: bool,
    /// What happens around operations.
    pub hook: Option<Arc<dyn Hook>>,
}

impl SimOptions {
    /// A disk that holds `image`, without faults, trace or hook.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            begin: Shadow::new(image),
            direct: true,
            faults: FaultPlan::default(),
            trace: false,
            hook: None,
        }
    }
}

/// A disk that keeps nothing but an account of itself.
#[derive(Debug)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

/// What the disk, its files and its queues have in common.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) counters: IoCounters,
    pub(super) hook: Arc<dyn Hook>,
}

#[derive(Debug)]
pub(super) struct State {
    /// What reads see.
    pub(super) image: Image,
    /// What is kept of what is seen, if a fault is planned that depends on it.
    shadow: Option<Shadow>,
    pub(super) direct: bool,
    trace: Option<Trace>,
    pub(super) faults: Faults,
    locked: BTreeSet<PathBuf>,
    next_file: u32,
    next_id: u64,
    /// Writes on their way: no two may overlap, and nobody reads there.
    flying: Vec<(FileId, u64, u64)>,
    broken: Vec<String>,
    was_full: bool,
    pub(super) zeros: Zeros,
}

/// What was last written that is all zero: segments of a log are filled with the same again and again.
#[derive(Debug, Default)]
pub(super) struct Zeros(Option<Arc<[u8]>>);

impl Zeros {
    /// A copy of `bytes`, or what is equal to it.
    pub(super) fn shared(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        let is_zero = |block: &[u8]| block.iter().fold(0, |seen, byte| seen | byte) == 0;
        if !bytes.chunks(Buf::ALIGN).all(is_zero) {
            return bytes.into();
        }
        match &self.0 {
            Some(zeros) if zeros.len() == bytes.len() => Arc::clone(zeros),
            _ => Arc::clone(self.0.insert(bytes.into())),
        }
    }
}

impl SimDisk {
    /// The disk.
    #[must_use]
    pub fn new(options: SimOptions) -> Arc<Self> {
        let depends =
            |rule: &super::Rule| matches!(rule.fault, Fault::Stale | Fault::SyncFails(..));
        let shadow = options.faults.rules.iter().any(depends);
        let image = options.begin.seen();
        let state = State {
            shadow: shadow.then_some(options.begin),
            direct: options.direct,
            next_file: image.next_file().0,
            image,
            trace: options.trace.then(Trace::default),
            faults: Faults::new(options.faults),
            locked: BTreeSet::new(),
            next_id: 0,
            flying: Vec::new(),
            broken: Vec::new(),
            was_full: false,
            zeros: Zeros::default(),
        };
        Arc::new(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                counters: IoCounters::default(),
                hook: options.hook.unwrap_or_else(|| Arc::new(NoHook)),
            }),
        })
    }

    /// What reads see now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.shared.state().image.clone()
    }

    /// Notes something of the caller's in the trace.
    pub fn mark(&self, mark: u64) {
        self.shared.state().tell(|| Event::Mark(mark));
    }

    /// Events in the trace so far.
    #[must_use]
    pub fn traced(&self) -> usize {
        let state = self.shared.state();
        state.trace.as_ref().map_or(0, |trace| trace.events.len())
    }

    /// The trace so far; it goes on empty.
    #[must_use]
    pub fn take_trace(&self) -> Trace {
        let mut state = self.shared.state();
        state.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Faults that happened so far.
    #[must_use]
    pub fn atlas(&self) -> Vec<Injected> {
        self.shared.state().faults.atlas.clone()
    }

    /// Whether a write was refused for want of room.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.shared.state().was_full
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.state().faults.operations
    }

    /// What the caller of the disk did that no caller may: overlapping writes under way, reads of what is being written.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.state().broken.clone()
    }
}

impl State {
    pub(super) fn tell(&mut self, event: impl FnOnce() -> Event) {
        if self.trace.is_none() && self.shadow.is_none() {
            return;
        }
        let event = event();
        if let Some(shadow) = &mut self.shadow {
            shadow.apply(&event);
        }
        if let Some(trace) = &mut self.trace {
            trace.events.push(event);
        }
    }

    /// What a sync had kept last.
    pub(super) fn kept(&self) -> Option<&Image> {
        self.shadow.as_ref().map(Shadow::durable)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A write is on its way.
    pub(super) fn begin_write(&mut self, file: FileId, offset: u64, data: &Arc<[u8]>) -> u64 {
        let end = offset + data.len() as u64;
        self.watch((file, offset, end), "a write");
        self.flying.push((file, offset, end));
        let (id, data) = (self.id(), Arc::clone(data));
        self.tell(|| Event::Write {
            id,
            file,
            offset,
            data,
        });
        id
    }

    /// A write has failed: some of its first blocks are there, the rest is not.
    pub(super) fn fail_write(
        &mut self,
        id: Option<u64>,
        (file, offset, data): (FileId, u64, &[u8]),
    ) {
        if let Some(id) = id {
            self.vanished(id, (file, offset, data));
        }
        let blocks = (data.len() / Buf::ALIGN) as u64;
        let landed =
            usize::try_from(self.faults.operations % (blocks + 1)).unwrap_or(0) * Buf::ALIGN;
        if self.room(file, offset, landed).is_ok() && !self.faults.is_off() {
            self.land(file, offset, &data[..landed]);
        }
    }

    /// A write has ended early: its first `moved` bytes are there, the rest is not.
    pub(super) fn cut_write(
        &mut self,
        id: u64,
        (file, offset, data): (FileId, u64, &[u8]),
        moved: usize,
    ) {
        self.vanished(id, (file, offset, data));
        self.land(file, offset, &data[..moved]);
    }

    fn vanished(&mut self, id: u64, (file, offset, data): (FileId, u64, &[u8])) {
        self.ended(file, offset, data.len());
        self.tell(|| Event::Gone { id });
    }

    /// A write of its own, from beginning to end.
    fn land(&mut self, file: FileId, offset: u64, data: &[u8]) {
        if !data.is_empty() {
            let data: Arc<[u8]> = data.into();
            let id = self.begin_write(file, offset, &data);
            let _landed = self.end_write(id, (file, offset, &data), None);
        }
    }

    /// A write is no longer on its way.
    fn ended(&mut self, file: FileId, offset: u64, len: usize) {
        let place = (file, offset, offset + len as u64);
        if let Some(at) = self.flying.iter().position(|flying| *flying == place) {
            self.flying.swap_remove(at);
        }
    }

    /// The write has ended, as `fault` says. Gives its id, if what it wrote is to be found in its place.
    pub(super) fn end_write(
        &mut self,
        id: u64,
        (file, offset, data): (FileId, u64, &Arc<[u8]>),
        fault: Option<Fault>,
    ) -> Result<Option<u64>, i32> {
        self.ended(file, offset, data.len());
        match fault {
            Some(Fault::Lost) => {
                self.tell(|| Event::Gone { id });
                return Ok(None);
            }
            Some(Fault::Misdirected(by)) => {
                self.tell(|| Event::Gone { id });
                let at = offset.saturating_add_signed(by);
                // Where it meets others is not the caller's doing.
                let broken = self.broken.len();
                let id = self.begin_write(file, at, data);
                self.broken.truncate(broken);
                return self.end_write(id, (file, at, data), None).map(|_| None);
            }
            _ => {}
        }
        let content = self.image.content_mut(file);
        content.put(offset, data, 0, data.len());
        content.len = content.len.max(offset + data.len() as u64);
        self.tell(|| Event::Done { id });
        match fault {
            Some(Fault::ErrorAfter(errno)) => Err(errno),
            _ => Ok(Some(id)),
        }
    }

    /// Notes it if something on its way overlaps.
    pub(super) fn watch(&mut self, place: (FileId, u64, u64), what: &str) {
        if self.is_flying(place) {
            let (file, from, to) = place;
            self.broken.push(format!(
                "{what} of {file:?} {from}..{to} meets a write on its way"
            ));
        }
    }

    /// Whether a write on its way overlaps.
    pub(super) fn is_flying(&self, (file, from, to): (FileId, u64, u64)) -> bool {
        let overlaps =
            |(other, start, end): &(FileId, u64, u64)| *other == file && *start < to && from < *end;
        self.flying.iter().any(overlaps)
    }

    pub(super) fn sync(
        &mut self,
        file: FileId,
        only: Option<u64>,
        fault: Option<Fault>,
    ) -> Result<(), i32> {
        let id = self.id();
        self.tell(|| Event::SyncBegun { id, file, only });
        match fault {
            Some(Fault::SyncFails(errno, kept)) => {
                let covered = self.shadow.as_ref().map_or(0, |shadow| shadow.covered(id));
                let lost = |place: &usize| match kept {
                    Kept::Nothing => true,
                    Kept::All => false,
                    Kept::Some => (*place as u64 + self.faults.operations).is_multiple_of(2),
                };
                let lost: Vec<usize> = (0..covered).filter(lost).collect();
                self.tell(|| Event::SyncFailed { id, lost });
                if self.direct
                    && let Some(shadow) = &self.shadow
                {
                    self.image = shadow.seen();
                }
                return Err(errno);
            }
            Some(Fault::SyncLies) => return Ok(()),
            _ => {}
        }
        self.tell(|| Event::Synced { id });
        Ok(())
    }

    /// Fails if `wanted` bytes more do not fit.
    pub(super) fn room(&mut self, file: FileId, offset: u64, len: usize) -> Result<(), i32> {
        let Some(room) = self.faults.room_bytes() else {
            return Ok(());
        };
        let wanted = self
            .image
            .content(file)
            .map_or(len as u64, |content| content.wanted(offset, len));
        if wanted > 0 && self.image.allocated() + wanted > room {
            self.was_full = true;
            return Err(libc::ENOSPC);
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One operation: others may run before it, then it is alone.
    pub(super) fn enter(
        &self,
        what: What,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<(MutexGuard<'_, State>, Option<Fault>), i32> {
        self.hook.before(what, 0);
        let mut state = self.state();
        let before = state.faults.atlas.len();
        let met = state.faults.next(what, path, offset, len);
        if state.faults.atlas.len() > before {
            state.tell(|| Event::Fault(before));
        }
        match met? {
            Some(Fault::Slow(nanos)) => {
                drop(state);
                self.hook.before(what, nanos);
                Ok((self.state(), None))
            }
            Some(Fault::Error(errno)) => Err(errno),
            fault => Ok((state, fault)),
        }
    }

    fn name_op(&self, path: &Path, what: What) -> Result<MutexGuard<'_, State>, IoError> {
        let refused = |errno| IoError::at(IoKind::Directory, path, errno);
        let (state, fault) = self.enter(what, path, 0, 0).map_err(refused)?;
        match fault {
            Some(Fault::ErrorAfter(errno)) => Err(refused(errno)),
            _ => Ok(state),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        let refused = |errno| IoError::at(IoKind::Open, path, errno);
        let (mut state, _) = self.shared.enter(What::Open, path, 0, 0).map_err(refused)?;
        let file = match (state.image.file_of(path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(refused(libc::EEXIST)),
            (Some(file), OpenMode::Read | OpenMode::Write) => file,
            (None, OpenMode::Read | OpenMode::Write) => return Err(refused(libc::ENOENT)),
            (None, OpenMode::CreateNew) => {
                if !path
                    .parent()
                    .is_some_and(|parent| state.image.has_dir(parent))
                {
                    return Err(refused(libc::ENOENT));
                }
                let file = FileId(state.next_file);
                state.next_file += 1;
                let op = NameOp::Create(path.to_owned(), file);
                state.image.rename_in(&op);
                state.tell(|| Event::Names(op));
                file
            }
        };
        Ok(Arc::new(SimFile {
            shared: Arc::clone(&self.shared),
            path: path.into(),
            text: path.to_string_lossy().into(),
            file,
            writable: mode != OpenMode::Read,
            queued: false,
        }))
    }

    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        let mut state = self.shared.name_op(path, What::Name)?;
        if !state.image.has_dir(path) {
            let op = NameOp::MakeDir(path.to_owned());
            state.image.rename_in(&op);
            state.tell(|| Event::Names(op));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        let state = self.shared.name_op(path, What::Name)?;
        if !state.image.has_dir(path) {
            return Err(IoError::at(IoKind::Directory, path, libc::ENOENT));
        }
        Ok(state.image.list(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let mut state = self.shared.name_op(from, What::Name)?;
        let Some(file) = state.image.file_of(from) else {
            return Err(IoError::at(IoKind::Directory, from, libc::ENOENT));
        };
        let op = NameOp::Rename(from.to_owned(), to.to_owned(), file);
        state.image.rename_in(&op);
        state.tell(|| Event::Names(op));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        let mut state = self.shared.name_op(path, What::Name)?;
        if state.image.file_of(path).is_none() {
            return Err(IoError::at(IoKind::Directory, path, libc::ENOENT));
        }
        let op = NameOp::Remove(path.to_owned());
        state.image.rename_in(&op);
        state.tell(|| Event::Names(op));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        let mut state = self.shared.name_op(path, What::SyncDir)?;
        if !state.image.has_dir(path) {
            return Err(IoError::at(IoKind::Directory, path, libc::ENOENT));
        }
        state.tell(|| Event::DirSynced(path.to_owned()));
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let mut state = self.shared.state();
        if state.faults.is_off() {
            return Err(IoError::at(IoKind::Open, path, libc::EIO).into());
        }
        if !path
            .parent()
            .is_some_and(|parent| state.image.has_dir(parent))
        {
            return Err(IoError::at(IoKind::Open, path, libc::ENOENT).into());
        }
        // The lock file itself is nobody's business: it is not part of the image.
        if !state.locked.insert(path.to_owned()) {
            let path = path.to_string_lossy().into();
            let pid = Some(std::process::id());
            return Err(LockError::Held { path, pid });
        }
        Ok(Box::new(SimLock {
            path: path.to_owned(),
            shared: Arc::clone(&self.shared),
        }))
    }

    fn queue(&self, depth: u32) -> Result<Box<dyn Queue>, IoError> {
        Ok(Box::new(SimQueue::new(&self.shared, depth)))
    }

    fn status(&self) -> DiskStatus {
        DiskStatus {
            backend: "simulated",
            direct: self.shared.state().direct,
            warnings: Vec::new(),
        }
    }

    fn counters(&self) -> &IoCounters {
        &self.shared.counters
    }
}

#[derive(Debug)]
struct SimLock {
    path: PathBuf,
    shared: Arc<Shared>,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.state().locked.remove(&self.path);
    }
}
