//! The floors: what the device and the memory do with no database in between.
//!
//! One operation at a time goes through plain system calls of the standard library, several through a plain ring of the
//! kernel's, so that a slow I/O layer of our own cannot flatter the engine. Where the kernel gives no ring, depth is
//! northstar-io's queue.
//!
//! Invariants:
//! 1. The append floor writes blocks of a file whose every block was written before, as the engine's recycled log
//!    segments are: no allocation, no metadata, one write and one flush.
//! 2. The read floors bypass the page cache where the file system lets them; [`RawFile::direct`] says if it did not.

mod memory;
mod ring;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use northstar_io::{Buf, Disk, NativeDisk, NativeOptions, Op, OpenMode};

use crate::alloc::Allocs;
use crate::clock::{now, seconds};
use crate::data::{Rng, mix};
use crate::error::{BenchError, Result};
use crate::sample::{Sample, Until, Warmup, measure};

pub(crate) use memory::*;
use ring::InFlight;

/// Bytes of a raw append: one log block.
pub(crate) const APPEND_BYTES: usize = 4096;
/// Bytes of a raw random read: one page.
pub(crate) const PAGE_BYTES: usize = 16 * 1024;
/// Bytes the append floor cycles through: one log segment.
const APPEND_FILE_BYTES: u64 = 16 << 20;
/// Bytes of one sequential read; device bandwidth levels off here.
const RUN_BYTES: usize = 256 * 1024;
/// Sequential reads in flight.
const RUN_DEPTH: u32 = 8;

/// A file of the floor's own, opened past the page cache.
#[derive(Debug)]
struct RawFile {
    file: File,
    path: PathBuf,
    direct: bool,
}

impl RawFile {
    fn open(path: &Path, flags: i32) -> Result<Self> {
        let open = |flags| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(flags)
                .open(path)
        };
        let (file, direct) = match open(flags | libc::O_DIRECT) {
            // Not every file system takes O_DIRECT.
            Err(error) if error.kind() == ErrorKind::InvalidInput => (open(flags), false),
            other => (other, true),
        };
        let file = file.map_err(BenchError::file(path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            direct,
        })
    }

    /// Fills the file's first `bytes` with words made from `seed` (zeros for `None`), durably.
    fn fill(&self, bytes: u64, seed: Option<u64>) -> Result<()> {
        let mut buf = Buf::zeroed(1 << 20);
        let mut at = 0;
        while at < bytes {
            if let Some(seed) = seed {
                randomize(&mut buf, seed ^ at);
            }
            let len = buf
                .len()
                .min(usize::try_from(bytes - at).unwrap_or(buf.len()));
            self.file
                .write_all_at(&buf[..len], at)
                .map_err(BenchError::file(&self.path))?;
            at += len as u64;
        }
        self.file.sync_all().map_err(BenchError::file(&self.path))
    }
}

/// Fills `buf` with words made from `seed`.
fn randomize(buf: &mut Buf, seed: u64) {
    for (index, chunk) in buf.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(seed ^ index as u64).to_le_bytes());
    }
}

/// Raw append and flush, by whichever way is faster on this device.
#[derive(Debug)]
pub(crate) struct AppendFloor {
    plain: RawFile,
    dsync: RawFile,
    use_dsync: bool,
    buf: Buf,
    at: u64,
}

impl AppendFloor {
    /// Prepares the file in `dir` and probes both ways.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        Self::of_blocks(dir, APPEND_BYTES)
    }

    /// As [`AppendFloor::open`] with appends of `len` bytes, which divides the file's length.
    pub(crate) fn of_blocks(dir: &Path, len: usize) -> Result<Self> {
        let path = dir.join("floor-append");
        let plain = RawFile::open(&path, 0)?;
        plain.fill(APPEND_FILE_BYTES, None)?;
        let dsync = RawFile::open(&path, libc::O_DSYNC)?;
        let mut buf = Buf::zeroed(len);
        buf.fill(0x5a);
        let mut floor = Self {
            plain,
            dsync,
            use_dsync: false,
            buf,
            at: 0,
        };
        let mut medians = [0.0; 2];
        for (way, median) in medians.iter_mut().enumerate() {
            floor.use_dsync = way == 1;
            *median = floor.run(Until::Ops(60))?.p50();
        }
        floor.use_dsync = medians[1] < medians[0];
        Ok(floor)
    }

    /// How it makes a block durable.
    pub(crate) fn method(&self) -> &'static str {
        match (self.use_dsync, self.plain.direct) {
            (true, true) => "O_DIRECT write with O_DSYNC",
            (false, true) => "O_DIRECT write, fdatasync",
            (true, false) => "cached write with O_DSYNC",
            (false, false) => "cached write, fdatasync",
        }
    }

    fn append(&mut self) -> Result<()> {
        let file = if self.use_dsync {
            &self.dsync
        } else {
            &self.plain
        };
        let write = file.file.write_all_at(&self.buf, self.at);
        write.map_err(BenchError::file(&file.path))?;
        if !self.use_dsync {
            file.file
                .sync_data()
                .map_err(BenchError::file(&file.path))?;
        }
        self.at = (self.at + self.buf.len() as u64) % APPEND_FILE_BYTES;
        Ok(())
    }

    /// Appends one block after another.
    pub(crate) fn run(&mut self, until: Until) -> Result<Sample> {
        measure(until, 1, |_| self.append())
    }
}

/// Which way a transfer goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Read,
    /// Into the device and not past its cache.
    Write,
}

/// What transfers in flight go through.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Through {
    /// A ring of the kernel's, where it gives one: the floor.
    Ring,
    /// northstar-io's queue: what is measured.
    Queue,
}

/// Raw transfers of a file of random bytes.
#[derive(Debug)]
pub(crate) struct ReadFloor {
    raw: RawFile,
    bytes: u64,
}

impl ReadFloor {
    /// Whether the kernel gives a ring: where it does not, [`Through::Ring`] is northstar-io's queue.
    pub(crate) fn has_ring() -> bool {
        InFlight::new(1).is_some()
    }

    /// Writes a file of `bytes` (rounded up to a run) in `dir`.
    pub(crate) fn open(dir: &Path, bytes: u64) -> Result<Self> {
        let path = dir.join(format!("floor-read-{bytes}"));
        let bytes = bytes.max(1).next_multiple_of(RUN_BYTES as u64);
        let raw = RawFile::open(&path, 0)?;
        if raw.file.metadata().map_err(BenchError::file(&path))?.len() != bytes {
            raw.fill(bytes, Some(bytes))?;
        }
        Ok(Self { raw, bytes })
    }

    /// Random pages, one at a time.
    pub(crate) fn random(&self, until: Until, rng: &mut Rng) -> Result<Sample> {
        let mut buf = Buf::zeroed(PAGE_BYTES);
        let pages = self.bytes / PAGE_BYTES as u64;
        measure(until, 1, |_| {
            let at = rng.below(pages) * PAGE_BYTES as u64;
            let read = self.raw.file.read_exact_at(&mut buf, at);
            read.map_err(BenchError::file(&self.raw.path))
        })
    }

    /// What every open and close of a file of pages needs: it is opened, its first four pages are read, it is closed; two
    /// threads begin and end.
    pub(crate) fn opens(&self, until: Until) -> Result<Sample> {
        let mut buf = Buf::zeroed(PAGE_BYTES);
        measure(until, 1, |_| {
            let raw = RawFile::open(&self.raw.path, 0)?;
            for page in 0..4 {
                let read = raw.file.read_exact_at(&mut buf, page * PAGE_BYTES as u64);
                read.map_err(BenchError::file(&raw.path))?;
            }
            std::thread::scope(|scope| {
                scope.spawn(|| ());
                scope.spawn(|| ());
            });
            Ok(())
        })
    }

    /// Random pages written one at a time, into the device and not past its cache.
    pub(crate) fn random_writes(&self, until: Until, rng: &mut Rng) -> Result<Sample> {
        let mut buf = Buf::zeroed(PAGE_BYTES);
        buf.fill(0x5a);
        let pages = self.bytes / PAGE_BYTES as u64;
        measure(until, 1, |_| {
            let at = rng.below(pages) * PAGE_BYTES as u64;
            let written = self.raw.file.write_all_at(&buf, at);
            written.map_err(BenchError::file(&self.raw.path))
        })
    }

    /// The whole file written from the front, in bytes a second; not flushed.
    pub(crate) fn sequential_writes(&self) -> Result<f64> {
        let runs = self.bytes / RUN_BYTES as u64;
        let sample = self.many(Through::Ring, Way::Write, RUN_DEPTH, RUN_BYTES, |_, run| {
            (run < runs).then_some(run * RUN_BYTES as u64)
        })?;
        Ok(sample.ops as f64 * RUN_BYTES as f64 / seconds(sample.elapsed))
    }

    /// As [`ReadFloor::sequential_writes`], and flushed.
    pub(crate) fn durable_writes(&self) -> Result<f64> {
        let started = now();
        self.sequential_writes()?;
        let synced = self.raw.file.sync_data();
        synced.map_err(BenchError::file(&self.raw.path))?;
        Ok(self.bytes as f64 / seconds(started.elapsed()))
    }

    /// Random pages with `depth` in flight for so long, after what was asked for to warm up: the latency recorded is the
    /// time from one completion to the next.
    pub(crate) fn random_at_depth(
        &self,
        through: Through,
        way: Way,
        depth: u32,
        time: Duration,
        rng: &mut Rng,
    ) -> Result<Sample> {
        let pages = self.bytes / PAGE_BYTES as u64;
        let mut offset = || rng.below(pages) * PAGE_BYTES as u64;
        let asked = Warmup::get();
        let warmed = self.many(through, way, depth, PAGE_BYTES, |elapsed, index| {
            (index < asked.ops || elapsed < asked.time).then(&mut offset)
        })?;
        let mut sample = self.many(through, way, depth, PAGE_BYTES, |elapsed, _| {
            (elapsed < time).then(&mut offset)
        })?;
        sample.warmup_ops = warmed.ops;
        Ok(sample)
    }

    /// The whole file from the front, in bytes a second.
    pub(crate) fn sequential(&self) -> Result<f64> {
        let runs = self.bytes / RUN_BYTES as u64;
        let sample = self.many(Through::Ring, Way::Read, RUN_DEPTH, RUN_BYTES, |_, run| {
            (run < runs).then_some(run * RUN_BYTES as u64)
        })?;
        Ok(sample.ops as f64 * RUN_BYTES as f64 / seconds(sample.elapsed))
    }

    /// Keeps `depth` transfers of `len` bytes in flight at the offsets that `next(elapsed, index)` gives until it stops.
    fn many(
        &self,
        through: Through,
        way: Way,
        depth: u32,
        len: usize,
        next: impl FnMut(Duration, u64) -> Option<u64>,
    ) -> Result<Sample> {
        let mut bufs: Vec<Buf> = (0..depth).map(|_| Buf::zeroed(len)).collect();
        if let Way::Write = way {
            // What is read from the file later is random still.
            bufs.iter_mut().for_each(|buf| randomize(buf, self.bytes));
        }
        match through {
            // `has_ring` says whether there is one.
            Through::Ring if let Some(ring) = InFlight::new(depth) => ring
                .many(&self.raw.file, way, bufs, next)
                .map_err(BenchError::file(&self.raw.path)),
            Through::Ring | Through::Queue => self.queued(way, bufs, next),
        }
    }

    /// As [`ReadFloor::many`], through northstar-io.
    fn queued(
        &self,
        way: Way,
        mut spare: Vec<Buf>,
        mut next: impl FnMut(Duration, u64) -> Option<u64>,
    ) -> Result<Sample> {
        let depth = u32::try_from(spare.len()).unwrap_or(u32::MAX);
        let disk = NativeDisk::new(NativeOptions::default());
        let mode = match way {
            Way::Read => OpenMode::Read,
            Way::Write => OpenMode::Write,
        };
        let file = disk.open(&self.raw.path, mode)?;
        let mut queue = disk.queue(depth)?;
        let mut ended = Vec::with_capacity(spare.len());
        let mut sample = Sample::new();
        let allocs = Allocs::of_this_thread();
        let (started, mut index) = (now(), 0);
        let mut last = started;
        loop {
            while let Some(buf) = spare.pop() {
                let Some(offset) = next(last - started, index) else {
                    break;
                };
                let file = std::sync::Arc::clone(&file);
                let op = match way {
                    Way::Read => Op::Read { file, offset, buf },
                    Way::Write => Op::Write { file, offset, buf },
                };
                queue.submit(index, op)?;
                index += 1;
            }
            if queue.in_flight() == 0 {
                break;
            }
            queue.poll(1, &mut ended)?;
            let at = now();
            sample.record(at - last, ended.len() as u64);
            last = at;
            for completion in ended.drain(..) {
                completion.result?;
                spare.extend(completion.buf);
            }
        }
        sample.elapsed = started.elapsed();
        sample.allocs = Some(allocs.since());
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floors_run_on_a_small_file() {
        let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
        let mut append = AppendFloor::open(dir.path()).unwrap();
        assert_eq!(append.run(Until::Ops(5)).unwrap().ops, 5);
        assert!(!append.method().is_empty());
        let read = ReadFloor::open(dir.path(), 1 << 20).unwrap();
        let mut rng = Rng::new(1, 1);
        assert_eq!(read.random(Until::Ops(5), &mut rng).unwrap().ops, 5);
        let time = Duration::from_millis(1);
        for through in [Through::Ring, Through::Queue] {
            for way in [Way::Read, Way::Write] {
                let sample = read.random_at_depth(through, way, 4, time, &mut rng);
                assert!(sample.unwrap().ops >= 4, "{through:?} {way:?}");
            }
        }
        assert!(read.sequential().unwrap() > 0.0);
        assert!(read.random_writes(Until::Ops(5), &mut rng).unwrap().ops == 5);
        assert!(read.sequential_writes().unwrap() > 0.0);
        assert_eq!(read.opens(Until::Ops(3)).unwrap().ops, 3);
        assert!(read.durable_writes().unwrap() > 0.0);
    }
}
