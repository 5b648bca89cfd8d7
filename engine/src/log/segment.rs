//! Segment files: the log stream cut into equal pieces, made once and recycled by renaming.
//!
//! A segment is filled with zeros and synced before it gets its name, so later writes to it change neither its
//! length nor its extents and a sync has no metadata to commit. Recycled segments keep their stale groups: these
//! carry other positions and never parse.
//!
//! Invariants:
//! 1. A file named `<number>.seg` was once whole and durable under that name before anything was appended to it.
//! 2. Segment `n` holds the stream's bytes from `n * segment_bytes` on and nothing else; it has no header.
//! 3. Spares are only made from segments below the recycling position, which the caller's meta has passed durably.
//!
//! - Threads: any. Files are made, renamed and removed under one lock; a writer that goes on to a segment that is ready
//!   takes another, which nobody holds over a call to the disk. Appending to the present segment takes none.
//! - Failure: half-made files carry other names and are removed at the next start.
//! - Spec: CR-002.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use northstar_io::planted::planted;
use northstar_io::{Buf, Disk, File, IoError, IoKind, OpenMode};

use super::LogError;
use super::begins::Known;
use crate::ids::Lsn;
use crate::limits::LOG_BLOCK_BYTES;
use crate::marks::{Mark, reached};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Bytes read or written at once when a segment is filled, checked or scanned: where bandwidth has levelled off.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;

/// Readings of bytes that are never the same twice, before they are given up.
const READINGS_MAX: usize = 4;

/// Bytes made ready ahead of the writer where spares are at hand, so that one sync of the directory serves several.
const AHEAD_BYTES: u64 = 16 * 1024 * 1024;

/// The segment files of one database.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// The segment that is written now. Set by the writer, read by who prepares the next one; a late value only
    /// makes that one come late.
    head: AtomicU64,
    /// The highest segment that is whole under its name, as far as this process knows.
    prepared: AtomicU64,
    /// The end of the last durable group. Set by the writer; a late value is a lower one.
    end: AtomicU64,
    /// See [`super::claim`].
    pub(super) claimed: AtomicU64,
    /// Numbers of the segments in the directory. Changed by the holder of `workshop`, after the disk was.
    segments: Mutex<BTreeSet<u64>>,
    pub(super) known: Mutex<Known>,
    workshop: Mutex<Workshop>,
    /// Taken while it is found out what nobody wants any more, and that is let go.
    recycling: Mutex<()>,
}

/// What files are made from.
#[derive(Debug, Default)]
struct Workshop {
    /// Numbers in the names of spare files.
    spares: BTreeSet<u64>,
    /// Names of half-made files.
    leftovers: BTreeSet<String>,
    /// The log was cut: `head`, `end` and `prepared` mean something.
    started: bool,
    /// The database was closed: another process may have it, and nothing is made or removed any more.
    shut: bool,
}

fn segment_name(number: u64) -> String {
    format!("{number:020}.seg")
}

fn spare_name(number: u64) -> String {
    format!("spare-{number:020}")
}

fn parse_number(digits: &str) -> Option<u64> {
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl Segments {
    /// Looks at what is in `dir`, which must exist. Writes nothing.
    ///
    /// # Errors
    /// The directory cannot be listed.
    ///
    /// # Panics
    /// If `segment_bytes` is not a multiple of the block size, or above 1 MiB not one of 1 MiB.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        segment_bytes: u64,
    ) -> Result<Arc<Self>, IoError> {
        let chunk = segment_bytes.min(CHUNK_BYTES as u64);
        assert!(
            segment_bytes > 0
                && segment_bytes.is_multiple_of(chunk)
                && chunk.is_multiple_of(LOG_BLOCK_BYTES as u64),
            "segments of {segment_bytes} bytes"
        );
        let dir = dir.into();
        let mut segments = BTreeSet::new();
        let mut workshop = Workshop::default();
        // A number beyond the last position of the stream is not one of ours.
        let in_stream = |number: &u64| *number < u64::MAX / segment_bytes;
        for name in disk.list(&dir)? {
            if let Some(number) = name
                .strip_suffix(".seg")
                .and_then(parse_number)
                .filter(in_stream)
            {
                segments.insert(number);
            } else if let Some(number) = name.strip_prefix("spare-").and_then(parse_number) {
                workshop.spares.insert(number);
            } else if name.ends_with(".tmp") {
                workshop.leftovers.insert(name);
            }
        }
        let head = AtomicU64::new(0);
        Ok(Arc::new(Self {
            disk,
            dir,
            segment_bytes,
            head,
            prepared: AtomicU64::new(0),
            end: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            segments: Mutex::new(segments),
            known: Mutex::default(),
            recycling: Mutex::new(()),
            workshop: Mutex::new(workshop),
        }))
    }

    /// The disk the segments lie on.
    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Bytes of one segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes read at once: a chunk never crosses segments.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.segment_bytes.min(CHUNK_BYTES as u64)
    }

    /// The segment that holds `lsn` and the offset in it.
    pub(super) fn locate(&self, lsn: Lsn) -> (u64, u64) {
        (
            lsn.get() / self.segment_bytes,
            lsn.get() % self.segment_bytes,
        )
    }

    /// Numbers of all segments from `number` on, rising.
    pub(super) fn numbers_from(&self, number: u64) -> Vec<u64> {
        self.segments.lock().range(number..).copied().collect()
    }

    /// Segments and spares in the directory.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let segments = self.segments.lock().len();
        (segments, self.workshop.lock().spares.len())
    }

    /// Opens a segment, if there is one of that number.
    pub(super) fn open_file(
        &self,
        number: u64,
        mode: OpenMode,
    ) -> Result<Option<Arc<dyn File>>, IoError> {
        if !self.has(number) {
            return Ok(None);
        }
        self.disk
            .open(&self.dir.join(segment_name(number)), mode)
            .map(Some)
    }

    /// Opens the segment that is written from now on, making it if nobody prepared it.
    pub(super) fn open_head(&self, number: u64) -> Result<Arc<dyn File>, IoError> {
        // Before the look at what is there: see `drop_prepared`.
        self.head.store(number, Ordering::SeqCst);
        self.ensure(number)
    }

    /// Opens the segment after the present one, making it if need be.
    pub(super) fn open_next(&self) -> Result<Arc<dyn File>, IoError> {
        self.ensure(self.head.load(Ordering::Relaxed) + 1)
    }

    /// Bytes left for groups in segments that are ready.
    pub(crate) fn room(&self) -> u64 {
        let ready = self
            .prepared
            .load(Ordering::SeqCst)
            .max(self.head.load(Ordering::Relaxed));
        ((ready + 1) * self.segment_bytes).saturating_sub(self.end.load(Ordering::Relaxed))
    }

    /// Where the log ended last.
    pub(crate) fn end(&self) -> Lsn {
        Lsn::new(self.end.load(Ordering::Relaxed))
    }

    /// Keeps segments from being let go while it is held. Whoever passes it sees the end of what was decided before.
    pub(crate) fn hold_recycling(&self) -> MutexGuard<'_, ()> {
        self.recycling.lock()
    }

    /// Where the first segment that is there begins.
    pub(crate) fn start(&self) -> Lsn {
        let first = self.numbers_from(0).first().copied();
        Lsn::new(first.unwrap_or(0) * self.segment_bytes)
    }

    /// Where the segments that are there end.
    pub(crate) fn files_end(&self) -> Lsn {
        let last = self.segments.lock().last().copied();
        Lsn::new(last.map_or(0, |last| (last + 1) * self.segment_bytes))
    }

    /// The first segment that is not there, of those that hold bytes of `from..to`.
    pub(crate) fn first_missing(&self, from: Lsn, to: Lsn) -> Option<u64> {
        let first = self.locate(from).0;
        let held = self.numbers_from(first);
        let there = held
            .iter()
            .zip(first..)
            .take_while(|(number, next)| *number == next);
        let missing = first + there.count() as u64;
        (missing * self.segment_bytes < to.get()).then_some(missing)
    }

    /// Whether the segment that holds `at`, which is durable, was lost: groups lie before `at` in it, so it was there, and by a name that
    /// was durable before them.
    pub(crate) fn lost(&self, at: Lsn) -> Option<LogError> {
        let (number, offset) = self.locate(at);
        let is_lost = offset > 0 && !self.has(number);
        is_lost.then_some(LogError::Lost { number, at })
    }

    /// The first segment from the one that holds `at` on, before the first that is not there, without its whole length.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn cut_short(&self, at: Lsn) -> Result<Option<LogError>, IoError> {
        let first = self.locate(at).0;
        for (number, next) in self.numbers_from(first).into_iter().zip(first..) {
            let Some(file) = (match number == next {
                true => self.open_file(number, OpenMode::Read)?,
                false => None,
            }) else {
                break;
            };
            let (expected, found) = (self.segment_bytes, file.len()?);
            if found < expected {
                return Ok(Some(LogError::Short {
                    number,
                    at,
                    expected,
                    found,
                }));
            }
        }
        Ok(None)
    }

    /// Notes where the log ends now.
    pub(super) fn note_end(&self, end: Lsn) {
        self.end.store(end.get(), Ordering::Relaxed);
    }

    /// Makes segments ready, from spares or by filling new files, until [`Segments::room`] is at least `bytes`;
    /// spares beyond that too, since they cost next to nothing here.
    ///
    /// # Errors
    /// The disk's; nothing is lost, what was made is used later, and the writer tries again itself when it gets
    /// there.
    pub(crate) fn prepare(&self, bytes: u64) -> Result<(), IoError> {
        let mut workshop = self.workshop.lock();
        if workshop.shut {
            return Ok(());
        }
        let wanted = self.last_for(bytes);
        let mut made = Vec::new();
        let mut outcome = Ok(());
        for number in self.head.load(Ordering::Relaxed)..=self.last_for(bytes.max(AHEAD_BYTES)) {
            if number > wanted && workshop.spares.is_empty() {
                break;
            }
            if !self.has(number) {
                outcome = self.make(&mut workshop, number);
                if outcome.is_err() {
                    break;
                }
                made.push(number);
            }
        }
        if !made.is_empty() {
            if !planted("the name of a new segment is not made durable") {
                self.disk.sync_dir(&self.dir)?;
            }
            self.made(&made);
        }
        outcome
    }

    /// The last segment needed for `bytes` more.
    fn last_for(&self, bytes: u64) -> u64 {
        let end = self.end.load(Ordering::Relaxed).saturating_add(bytes);
        let head = self.head.load(Ordering::Relaxed);
        (end.saturating_sub(1) / self.segment_bytes).max(head)
    }

    /// Nothing is made ready or removed from now on.
    pub(crate) fn shut(&self) {
        self.workshop.lock().shut = true;
    }

    /// Removes segments that are ready and will not be needed soon: those beyond the one after the present one, and
    /// beyond `keep` bytes more than is claimed.
    ///
    /// # Errors
    /// The disk's. What was not removed is used later.
    pub(crate) fn drop_prepared(&self, keep: u64) -> Result<(), IoError> {
        let workshop = self.workshop.lock();
        if !workshop.started || workshop.shut {
            // Where the log ends, and so what is needed of it, is not known here yet, or no longer.
            return Ok(());
        }
        let needed = || {
            let claimed = self.claimed.load(Ordering::SeqCst);
            let next = self.head.load(Ordering::SeqCst) + 1;
            self.last_for(claimed + keep).max(next)
        };
        // Lowered before the claims are looked at, while a claim is made before it looks at what is ready: one of the
        // two sees the other.
        let last = needed();
        let ready = self.prepared.fetch_min(last, Ordering::SeqCst);
        // A writer that comes to a segment has raised `head` before it looks for it under this lock: either that is
        // seen here, or the segment is not found there, and made anew.
        let mut segments = self.segments.lock();
        let last = needed().max(last);
        self.prepared.fetch_max(last.min(ready), Ordering::SeqCst);
        let mut surplus = segments.split_off(&(last + 1));
        drop(segments);
        if surplus.is_empty() {
            return Ok(());
        }
        while let Some(number) = surplus.first().copied() {
            if let Err(error) = self.disk.remove(&self.dir.join(segment_name(number))) {
                self.segments.lock().append(&mut surplus);
                return Err(error);
            }
            surplus.remove(&number);
            reached(Mark::SegmentDropped);
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Turns segments that lie wholly before `lsn` into spares, `spare_bytes` in all at most; removes the others.
    ///
    /// To be called once a durable meta starts the log at or after `lsn`.
    ///
    /// # Errors
    /// The disk's. What was not recycled will be at the next call.
    pub(crate) fn recycle_before(&self, lsn: Lsn, spare_bytes: u64) -> Result<(), IoError> {
        let keep_spares = usize::try_from(spare_bytes / self.segment_bytes).unwrap_or(usize::MAX);
        let first_kept = self.locate(lsn).0;
        let mut workshop = self.workshop.lock();
        if workshop.shut {
            return Ok(());
        }
        let old: Vec<u64> = self.segments.lock().range(..first_kept).copied().collect();
        let surplus = workshop.spares.len().saturating_sub(keep_spares);
        let surplus: Vec<u64> = workshop.spares.iter().copied().take(surplus).collect();
        if old.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        for number in surplus {
            self.disk.remove(&self.dir.join(spare_name(number)))?;
            workshop.spares.remove(&number);
        }
        for number in old {
            let from = self.dir.join(segment_name(number));
            if workshop.spares.len() < keep_spares {
                self.disk
                    .rename(&from, &self.dir.join(spare_name(number)))?;
                workshop.spares.insert(number);
                reached(Mark::SegmentRecycled);
            } else {
                self.disk.remove(&from)?;
            }
            self.segments.lock().remove(&number);
        }
        self.forget_begins(first_kept);
        self.disk.sync_dir(&self.dir)
    }

    /// Makes `lsn` the end of the stream, durably: nothing but zeros follows it in its segment, and no segment
    /// that ever held later bytes is left. Interrupted, it can be repeated.
    pub(super) fn cut_at(&self, lsn: Lsn) -> Result<(), IoError> {
        let (last, offset) = self.locate(lsn);
        let mut workshop = self.workshop.lock();

        for number in self.numbers_from(last) {
            let path = self.dir.join(segment_name(number));
            let from = if number == last { offset } else { 0 };
            let file = self.disk.open(&path, OpenMode::Write)?;
            let len = file.len()?;
            if len >= self.segment_bytes && is_zero(&*file, from, self.segment_bytes)? {
                if number == last && !self.disk.status().direct {
                    // These zeros may be the system's memory of a cut whose sync failed: where the next group would
                    // begin, at least, they are written anew.
                    fill_with_zeros(&*file, from, from + LOG_BLOCK_BYTES as u64)?;
                }
                if number <= last + 1 {
                    continue;
                }
            } else if number == last {
                let block = LOG_BLOCK_BYTES as u64;
                let from = from.min(len / block * block);
                fill_with_zeros(&*file, from, self.segment_bytes)?;
                reached(Mark::OtherBytesCut);
                continue;
            }
            self.disk.remove(&path)?;
            self.segments.lock().remove(&number);
            reached(Mark::SegmentsCut);
        }
        if !self.has(last) {
            // Not from a spare, whose old bytes the next cut would have to take for something else.
            let path = self.dir.join(segment_name(last));
            self.fill(&mut workshop, last, &path)?;
            self.segments.lock().insert(last);
        }
        let segments = self.numbers_from(0);
        // The cut, and what was found before it: a process that was killed may have written it and not come to a sync.
        for number in segments.iter().take_while(|number| **number <= last) {
            if planted("the log and its cut are not made durable") {
                break;
            }
            let path = self.dir.join(segment_name(*number));
            self.disk.open(&path, OpenMode::Write)?.sync()?;
        }
        while let Some(name) = workshop.leftovers.first().cloned() {
            self.disk.remove(&self.dir.join(&name))?;
            workshop.leftovers.remove(&name);
            reached(Mark::LeftoversCleared);
        }
        self.head.store(last, Ordering::SeqCst);
        self.note_end(lsn);
        let prepared = segments.last().copied().unwrap_or_default();
        self.prepared.store(prepared, Ordering::SeqCst);
        workshop.started = true;
        // Also when nothing changed here: a process that was killed may have renamed a segment and not come to this.
        self.disk.sync_dir(&self.dir)
    }

    fn has(&self, number: u64) -> bool {
        self.segments.lock().contains(&number)
    }

    /// Opens a segment to write to, making it if need be.
    fn ensure(&self, number: u64) -> Result<Arc<dyn File>, IoError> {
        if !self.has(number) {
            let mut workshop = self.workshop.lock();
            // Somebody may have made it meanwhile.
            if !self.has(number) {
                self.make(&mut workshop, number)?;
                if !planted("the name of a new segment is not made durable") {
                    self.disk.sync_dir(&self.dir)?;
                }
                self.made(&[number]);
            }
        }
        self.prepared.fetch_max(number, Ordering::SeqCst);
        self.disk
            .open(&self.dir.join(segment_name(number)), OpenMode::Write)
    }

    /// Notes segments that are durable under their names, rising.
    fn made(&self, numbers: &[u64]) {
        self.segments.lock().extend(numbers);
        if let Some(last) = numbers.last() {
            self.prepared.fetch_max(*last, Ordering::SeqCst);
        }
    }

    /// Makes a segment, from a spare if there is one. Its name is not durable yet.
    fn make(&self, workshop: &mut Workshop, number: u64) -> Result<(), IoError> {
        let path = self.dir.join(segment_name(number));
        if !self.rename_spare(workshop, &path)? {
            self.fill(workshop, number, &path)?;
        }
        Ok(())
    }

    /// Gives a spare the name `path`. False if none of the right length is left.
    fn rename_spare(&self, workshop: &mut Workshop, path: &Path) -> Result<bool, IoError> {
        while let Some(spare) = workshop.spares.pop_first() {
            let from = self.dir.join(spare_name(spare));
            let opened = self.disk.open(&from, OpenMode::Write);
            let len = opened.and_then(|file| file.len()).inspect_err(|_| {
                workshop.spares.insert(spare);
            })?;
            if len == self.segment_bytes {
                self.disk.rename(&from, path)?;
                reached(Mark::SegmentFromSpare);
                return Ok(true);
            }
            self.disk.remove(&from)?;
        }
        Ok(false)
    }

    /// Makes a new file of zeros and then gives it the name `path`.
    fn fill(&self, workshop: &mut Workshop, number: u64, path: &Path) -> Result<(), IoError> {
        let zeros = |file: &dyn File| fill_with_zeros(file, 0, self.segment_bytes);
        self.write_new(workshop, number, path, zeros)?;
        reached(Mark::SegmentFilled);
        Ok(())
    }

    /// Makes a new file, durably, and then gives it the name `path`.
    fn write_new(
        &self,
        workshop: &mut Workshop,
        number: u64,
        path: &Path,
        content: impl FnOnce(&dyn File) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let name = format!("{number:020}.tmp");
        let temporary = self.dir.join(&name);
        if !workshop.leftovers.insert(name.clone()) {
            self.disk.remove(&temporary)?;
        }
        let file = self
            .disk
            .open(&temporary, OpenMode::CreateNew)
            .inspect_err(|_| {
                workshop.leftovers.remove(&name);
            })?;
        let made = content(&*file).and_then(|()| file.sync());
        drop(file);
        if made.is_err() {
            // What it took of a disk that is full others need.
            if self.disk.remove(&temporary).is_ok() {
                workshop.leftovers.remove(&name);
            }
            return made;
        }
        self.disk.rename(&temporary, path)?;
        workshop.leftovers.remove(&name);
        Ok(())
    }

    /// Replaces the segments from that of `from` to that before `end` by copies: durable ones, in place of what may be
    /// the system's memory alone. Nothing is ever lost on the way, whatever interrupts it.
    pub(super) fn renew(&self, from: Lsn, end: Lsn) -> Result<(), IoError> {
        if from >= end {
            return Ok(());
        }
        let mut workshop = self.workshop.lock();
        let last = self.locate(Lsn::new(end.get() - 1)).0;
        for number in self.locate(from).0..=last {
            let path = self.dir.join(segment_name(number));
            let old = self.disk.open(&path, OpenMode::Write)?;
            self.write_new(&mut workshop, number, &path, |new| {
                pieces(0, self.segment_bytes)
                    .try_for_each(|(at, len)| new.write_at(at, &read_twice(&*old, at, len)?, len))
            })?;
            reached(Mark::TailRenewed);
        }
        self.disk.sync_dir(&self.dir)
    }
}

/// Offsets and lengths of the pieces of `from..to`, none longer than a chunk.
fn pieces(from: u64, to: u64) -> impl Iterator<Item = (u64, usize)> {
    (from..to).step_by(CHUNK_BYTES).map(move |at| {
        (
            at,
            usize::try_from(to - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES)),
        )
    })
}

fn fill_with_zeros(file: &dyn File, from: u64, to: u64) -> Result<(), IoError> {
    let zeros = Buf::zeroed(pieces(from, to).next().map_or(0, |(_, len)| len));
    pieces(from, to).try_for_each(|(at, len)| file.write_at(at, &zeros, len))
}

/// Bytes that are to replace those they were read from: the same at two readings.
fn read_twice(file: &dyn File, at: u64, len: usize) -> Result<Buf, IoError> {
    let (mut once, mut again) = (Buf::zeroed(len), Buf::zeroed(len));
    file.read_at(at, &mut again)?;
    for _ in 1..READINGS_MAX {
        std::mem::swap(&mut once, &mut again);
        file.read_at(at, &mut again)?;
        if once[..] == again[..] {
            return Ok(again);
        }
    }
    Err(IoError::new(
        IoKind::Read,
        "a log segment",
        at,
        len,
        IoError::DEVICE,
    ))
}

fn is_zero(file: &dyn File, from: u64, to: u64) -> Result<bool, IoError> {
    let mut buf = Buf::zeroed(0);
    for (at, len) in pieces(from, to) {
        if buf.len() != len {
            buf = Buf::zeroed(len);
        }
        file.read_at(at, &mut buf)?;
        if !all_zero(&buf) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Folding whole blocks keeps the loop free of branches, so that it becomes vector code.
fn all_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(LOG_BLOCK_BYTES)
        .all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0)
}

#[cfg(test)]
mod tests;
