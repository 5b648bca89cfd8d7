//! The writing end of the log: one durable write per group.
//!
//! Invariants:
//! 1. Groups are written in order, each exactly where the one before it ended.
//! 2. After any error the writer refuses everything: whether the failed group is durable is unknown, and a sync
//!    that failed is never repeated.
//!
//! - Threads: owned by whoever holds the writer role.
//! - Cost: a group in one buffer and one segment is one `write_durable` and no other system call. What is larger is
//!   streamed, a few writes in flight, and each segment synced once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use northstar_io::planted::planted;
use northstar_io::regressions::{Regression, regressed};
use northstar_io::{Buf, Completion, File, IoError, Op, Queue, SyncMethod};

use super::begins::{Begins, First};
use super::group::{CHUNK, SealedGroup};
use super::segment::Segments;
use super::{LogError, LogPosition};
use crate::ids::Lsn;
use crate::marks::{Mark, reached};

/// Bytes of one write of a large group: larger ones gain nothing, and kernel threads make them.
const STREAM_BYTES: usize = 512 * 1024;
/// Such writes in flight.
const STREAM_DEPTH: u32 = 4;

/// What the log has done since it was opened. Plain tallies: a late value harms nobody.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    groups: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    bytes: AtomicU64,
}

impl LogCounters {
    /// Groups made durable.
    pub(crate) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// Writes issued.
    #[cfg(test)]
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Durable writes and syncs issued.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Bytes written, padding included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, counter: impl FnOnce(&Self) -> &AtomicU64, amount: u64) {
        counter(self).fetch_add(amount, Ordering::Relaxed);
    }
}

/// Appends groups to the log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    segments: Arc<Segments>,
    position: LogPosition,
    method: SyncMethod,
    /// The segment in which the last group begins.
    began: u64,
    /// The segment being written.
    current: Option<(u64, Arc<dyn File>)>,
    /// Holds what of a group goes into a second segment, since a write begins with a buffer's first byte.
    scratch: Option<Buf>,
    /// For large groups; made with the first.
    queue: Option<Box<dyn Queue>>,
    halted: bool,
    counters: Arc<LogCounters>,
}

impl LogWriter {
    /// Cuts the log at `end` durably, so that nothing after it can ever parse, and writes on from there.
    ///
    /// What lies from `proven` on may be no more than the system's memory of a write whose sync failed: another sync
    /// would then make up for nothing. Unless reads pass by that memory, it is written anew.
    ///
    /// # Errors
    /// The disk's. Nothing before `end` is touched, and the cut can be repeated.
    pub(crate) fn start_at(
        segments: Arc<Segments>,
        (proven, end): (Lsn, LogPosition),
        method: SyncMethod,
    ) -> Result<Self, LogError> {
        let believed = planted("after a failed sync the system's memory is believed");
        if !segments.disk().status().direct && !believed {
            segments.renew(proven, end.lsn)?;
        }
        segments.cut_at(end.lsn)?;
        let number = segments.locate(end.lsn).0;
        let file = segments.open_head(number)?;
        Ok(Self {
            segments,
            position: end,
            method,
            began: number,
            current: Some((number, file)),
            scratch: None,
            queue: None,
            halted: false,
            counters: Arc::default(),
        })
    }

    /// A log that ends at `end` and is never written: every append is refused.
    pub(crate) fn read_only(segments: Arc<Segments>, end: LogPosition) -> Self {
        Self {
            segments,
            position: end,
            method: SyncMethod::None,
            began: 0,
            current: None,
            scratch: None,
            queue: None,
            halted: true,
            counters: Arc::default(),
        }
    }

    /// The end of the last durable group.
    pub(crate) fn position(&self) -> LogPosition {
        self.position
    }

    /// How writes are made durable.
    pub(crate) fn method(&self) -> SyncMethod {
        self.method
    }

    /// Changes how writes are made durable, after a [`super::probe()`].
    pub(crate) fn set_method(&mut self, method: SyncMethod) {
        self.method = method;
    }

    /// The tallies, shared.
    pub(crate) fn counters(&self) -> Arc<LogCounters> {
        Arc::clone(&self.counters)
    }

    /// The segments written to.
    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Writes the group and returns once it is durable, with the new end of the log.
    ///
    /// # Errors
    /// [`LogError::Io`]: the outcome is unknown. [`LogError::Halted`] ever after.
    ///
    /// # Panics
    /// If the group does not begin where the last one ended.
    pub(crate) fn append(&mut self, group: &SealedGroup) -> Result<LogPosition, LogError> {
        if self.halted {
            return Err(LogError::Halted);
        }
        assert!(
            group.start == self.position,
            "group after {:?}, log ends at {:?}",
            group.start,
            self.position
        );
        // Until proven otherwise, so that a panic halts too.
        self.halted = true;
        let written = match self.write(group) {
            Err(_) if planted("a failed flush is tried again") => {
                self.file(self.segments.locate(group.start.lsn).0)?.sync()
            }
            written => written,
        };
        written.inspect_err(|_| self.halted = !planted("the log goes on after a failed write"))?;
        self.halted = false;
        self.position = group.end;
        self.note_begin(&group.start);
        self.segments.note_end(group.end.lsn);
        self.counters.add(|counters| &counters.groups, 1);
        self.counters
            .add(|counters| &counters.bytes, group.len_bytes() as u64);
        Ok(self.position)
    }

    /// Notes what a group is the first to begin in, and in which segments before it nothing does.
    fn note_begin(&mut self, start: &LogPosition) {
        let number = self.segments.locate(start.lsn).0;
        if number == self.began {
            return;
        }
        for passed in self.began + 1..number {
            self.segments.note_begin(passed, Begins::Nothing);
        }
        let (lsn, txn) = (start.lsn, start.last_txn.next());
        self.segments
            .note_begin(number, Begins::First(First { lsn, txn }));
        self.began = number;
    }

    fn write(&mut self, group: &SealedGroup) -> Result<(), IoError> {
        let segment_bytes = self.segments.segment_bytes();
        let (mut from, len) = (0, group.len_bytes());
        while from < len {
            let (number, offset) = self.segments.locate(group.start.lsn.plus(from as u64));
            let room = usize::try_from(segment_bytes - offset).unwrap_or(usize::MAX);
            let to = len.min(from.saturating_add(room));
            let file = self.file(number)?;
            if from > 0 {
                reached(Mark::GroupCrossed);
            }
            self.write_part(&file, offset, group, from, to)?;
            from = to;
        }
        Ok(())
    }

    /// Writes bytes `from..to` of the group into one segment and makes them durable.
    fn write_part(
        &mut self,
        file: &Arc<dyn File>,
        offset: u64,
        group: &SealedGroup,
        from: usize,
        to: usize,
    ) -> Result<(), IoError> {
        let len = to - from;
        self.counters.add(|counters| &counters.flushes, 1);
        let method = self.method;
        let write = |buf: &Buf| match planted("a commit is acknowledged before it is flushed") {
            true => file.write_at(offset, buf, len),
            false => file.write_durable(offset, buf, len, method),
        };
        if let Some(buf) = group.whole().filter(|_| from == 0) {
            if regressed(Regression::BytesPerGroup) {
                file.write_at(offset, buf, len)?;
            }
            if regressed(Regression::FlushPerGroup) {
                file.sync()?;
            }
            self.counters.add(|counters| &counters.writes, 1);
            return write(buf);
        }
        if len <= CHUNK {
            let scratch = self.scratch.get_or_insert_with(|| Buf::zeroed(CHUNK));
            group.read(from, &mut scratch[..len]);
            self.counters.add(|counters| &counters.writes, 1);
            return write(scratch);
        }
        reached(Mark::GroupStreamed);
        self.stream(file, offset, group, from, to)?;
        file.sync()
    }

    /// Writes bytes `from..to` of the group into one segment, not yet durable.
    fn stream(
        &mut self,
        file: &Arc<dyn File>,
        offset: u64,
        group: &SealedGroup,
        from: usize,
        to: usize,
    ) -> Result<(), IoError> {
        let queue = match &mut self.queue {
            Some(queue) => queue,
            none => none.insert(self.segments.disk().queue(STREAM_DEPTH)?),
        };
        let mut ended: Vec<Completion> = Vec::new();
        let mut outcome = Ok(());
        for at in (from..to).step_by(STREAM_BYTES) {
            let len = STREAM_BYTES.min(to - at);
            if queue.in_flight() >= STREAM_DEPTH as usize {
                queue.poll(1, &mut ended)?;
            }
            let buf = reuse(&mut ended, &mut outcome).filter(|buf| buf.len() == len);
            let mut buf = buf.unwrap_or_else(|| Buf::zeroed(len));
            if outcome.is_err() {
                break;
            }
            group.read(at, &mut buf);
            let write = Op::Write {
                file: Arc::clone(file),
                offset: offset + (at - from) as u64,
                buf,
            };
            self.counters.add(|counters| &counters.writes, 1);
            queue.submit(at as u64, write)?;
            queue.poll(0, &mut ended)?;
        }
        // Also after a failure: nothing may arrive later.
        queue.poll(queue.in_flight(), &mut ended)?;
        while reuse(&mut ended, &mut outcome).is_some() {}
        outcome
    }

    fn file(&mut self, number: u64) -> Result<Arc<dyn File>, IoError> {
        match &self.current {
            Some((current, file)) if *current == number => Ok(Arc::clone(file)),
            _ => {
                let file = self.segments.open_head(number)?;
                self.current = Some((number, Arc::clone(&file)));
                Ok(file)
            }
        }
    }

    /// A file, and offsets from and to which nothing of the stream was written yet, at least `room` apart.
    pub(super) fn unused(&self, room: u64) -> Result<(Arc<dyn File>, u64, u64), IoError> {
        let end = self.segments.segment_bytes();
        let (number, used) = self.segments.locate(self.position.lsn);
        if let Some((current, file)) = &self.current
            && number == *current
            && used + room <= end
        {
            return Ok((Arc::clone(file), used, end));
        }
        Ok((self.segments.open_next()?, 0, end))
    }
}

/// The buffer of an operation that ended; the first failure among all of them goes into `outcome`.
fn reuse(ended: &mut Vec<Completion>, outcome: &mut Result<(), IoError>) -> Option<Buf> {
    let Completion { buf, result, .. } = ended.pop()?;
    if outcome.is_ok() {
        *outcome = result;
    }
    buf
}
