//! A disk that counts calls and fails from a chosen one on, and whole-disk snapshots.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use northstar_io::{
    Buf, DiskStatus, File, FileLock, IoCounters, IoError, IoKind, LockError, OpenMode, Queue,
};

use super::*;

/// What the wrapped disk was asked to change, and when to refuse.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) directory: AtomicU64,
    /// Changing calls that still succeed; every later one fails.
    pub(super) fuse: AtomicU64,
}

impl Calls {
    fn burn(&self, counter: &AtomicU64, kind: IoKind) -> Result<(), IoError> {
        counter.fetch_add(1, Ordering::Relaxed);
        let left = self.fuse.load(Ordering::Relaxed);
        if left == 0 {
            return Err(IoError::new(kind, "fuse", 0, 0, 5));
        }
        self.fuse.store(left - 1, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.writes), get(&self.syncs), get(&self.directory))
    }
}

#[derive(Debug)]
pub(super) struct FusedDisk {
    inner: Arc<dyn Disk>,
    pub(super) calls: Arc<Calls>,
}

impl FusedDisk {
    pub(super) fn new(inner: &Arc<dyn Disk>, fuse: u64) -> Arc<Self> {
        let zero = AtomicU64::default;
        let calls = Calls {
            writes: zero(),
            syncs: zero(),
            directory: zero(),
            fuse: fuse.into(),
        };
        Arc::new(Self {
            inner: Arc::clone(inner),
            calls: Arc::new(calls),
        })
    }
}

#[derive(Debug)]
struct FusedFile {
    inner: Arc<dyn File>,
    calls: Arc<Calls>,
}

impl Disk for FusedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        if mode == OpenMode::CreateNew {
            self.calls.burn(&self.calls.directory, IoKind::Open)?;
        }
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FusedFile {
            inner,
            calls: Arc::clone(&self.calls),
        }))
    }
    fn create_dir(&self, path: &Path) -> Result<(), IoError> {
        self.inner.create_dir(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<String>, IoError> {
        self.inner.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.calls.burn(&self.calls.directory, IoKind::Directory)?;
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.calls.burn(&self.calls.directory, IoKind::Directory)?;
        self.inner.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<(), IoError> {
        self.calls.burn(&self.calls.directory, IoKind::Directory)?;
        self.inner.sync_dir(path)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.inner.lock(path)
    }
    fn queue(&self, depth: u32) -> Result<Box<dyn Queue>, IoError> {
        self.inner.queue(depth)
    }
    fn status(&self) -> DiskStatus {
        self.inner.status()
    }
    fn counters(&self) -> &IoCounters {
        self.inner.counters()
    }
}

impl File for FusedFile {
    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.calls.burn(&self.calls.writes, IoKind::Resize)?;
        self.inner.set_len(len)
    }
    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.calls.burn(&self.calls.writes, IoKind::Resize)?;
        self.inner.punch(offset, len)
    }
    fn allocated(&self) -> Result<u64, IoError> {
        self.inner.allocated()
    }
    fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<(), IoError> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &Buf, len: usize) -> Result<(), IoError> {
        self.calls.burn(&self.calls.writes, IoKind::Write)?;
        self.inner.write_at(offset, buf, len)
    }
    fn write_durable(
        &self,
        offset: u64,
        buf: &Buf,
        len: usize,
        method: SyncMethod,
    ) -> Result<(), IoError> {
        self.calls.burn(&self.calls.writes, IoKind::Write)?;
        self.inner.write_durable(offset, buf, len, method)
    }
    fn sync(&self) -> Result<(), IoError> {
        self.calls.burn(&self.calls.syncs, IoKind::Sync)?;
        self.inner.sync()
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self.inner.as_any()
    }
}

/// All files of the log directory by name.
pub(super) type Image = BTreeMap<String, Vec<u8>>;

pub(super) fn snapshot(disk: &Arc<dyn Disk>) -> Image {
    let read = |name: String| {
        let file = disk
            .open(&Path::new(DIR).join(&name), OpenMode::Read)
            .unwrap();
        let len = usize::try_from(file.len().unwrap()).unwrap();
        // Beyond the last whole block only the length is kept.
        let mut buf = Buf::zeroed(len / 4096 * 4096);
        file.read_at(0, &mut buf).unwrap();
        let mut bytes = buf.to_vec();
        bytes.resize(len, 0);
        (name, bytes)
    };
    disk.list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .map(read)
        .collect()
}

pub(super) fn restore(image: &Image) -> Arc<dyn Disk> {
    let disk = memory_disk();
    for (name, bytes) in image {
        let file = disk
            .open(&Path::new(DIR).join(name), OpenMode::CreateNew)
            .unwrap();
        let mut buf = Buf::zeroed(bytes.len().next_multiple_of(4096));
        buf[..bytes.len()].copy_from_slice(bytes);
        file.write_at(0, &buf, buf.len()).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    }
    disk
}

/// The bytes of the stream from `from` to `to`, wherever they lie, to be changed.
pub(super) fn edit(
    image: &mut Image,
    segment_bytes: u64,
    from: Lsn,
    to: Lsn,
    mut change: impl FnMut(&mut u8),
) {
    for at in from.get()..to.get() {
        let name = format!("{:020}.seg", at / segment_bytes);
        let offset = usize::try_from(at % segment_bytes).unwrap();
        if let Some(bytes) = image.get_mut(&name) {
            change(&mut bytes[offset]);
        }
    }
}
