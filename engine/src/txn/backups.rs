//! The backups that are being made: by whom, and what each still needs.
//!
//! A full one reads a snapshot. An increment reads the log, which is kept for it from where it has come to.
//!
//! Spec: SE-024.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Count;
use std::time::Duration;

use super::holder::Holder;
use super::registry::SlotId;
use super::snapshot::Opener;
use crate::ids::TxnId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Those of a database.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    running: Mutex<BTreeMap<u64, Arc<Running>>>,
    begun: Count,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it was asked for.
    place: Opener,
    /// When, by the monotonic clock.
    began_ns: u64,
    /// The state that it leads to.
    to: TxnId,
    reads: Reads,
    written: Count,
}

/// What a backup reads.
#[derive(Debug)]
pub(crate) enum Reads {
    /// All rows of a snapshot.
    Snapshot(SlotId),
    /// The log, from this transaction on.
    Log(AtomicU64),
}

impl Running {
    /// What is said of it, by the monotonic clock's time.
    pub(crate) fn holder(&self, now_ns: u64, held_bytes: u64) -> Holder {
        Holder::Backup {
            is_full: matches!(self.reads, Reads::Snapshot(_)),
            to: self.to,
            place: self.place,
            open_for: Duration::from_nanos(now_ns.saturating_sub(self.began_ns)),
            written_bytes: self.written.load(Ordering::Relaxed),
            held_bytes,
        }
    }

    /// From which transaction on it needs the log.
    pub(crate) fn log_from(&self) -> Option<TxnId> {
        match &self.reads {
            Reads::Snapshot(_) => None,
            Reads::Log(from) => Some(TxnId::new(from.load(Ordering::Acquire))),
        }
    }
}

impl Backups {
    /// Notes one that begins; it is forgotten when what is returned is dropped.
    pub(crate) fn begin(
        &self,
        (place, began_ns): (Opener, u64),
        to: TxnId,
        reads: Reads,
    ) -> Underway<'_> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let running = Arc::new(Running {
            place,
            began_ns,
            to,
            reads,
            written: Count::new(0),
        });
        self.running.lock().insert(number, Arc::clone(&running));
        Underway {
            all: self,
            number,
            running,
        }
    }

    /// The one that reads the snapshot of a slot, if that is a backup's.
    pub(crate) fn of_snapshot(&self, slot: SlotId) -> Option<Arc<Running>> {
        let running = self.running.lock();
        let mut all = running.values();
        all.find(|one| matches!(one.reads, Reads::Snapshot(read) if read == slot))
            .map(Arc::clone)
    }

    /// Those that run, the oldest first.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        self.running.lock().values().map(Arc::clone).collect()
    }

    /// From which transaction on any of them needs the log.
    pub(crate) fn log_from(&self) -> Option<TxnId> {
        let running = self.running.lock();
        running.values().filter_map(|one| one.log_from()).min()
    }
}

/// A backup that is being made, for whoever makes it.
#[derive(Debug)]
pub(crate) struct Underway<'b> {
    all: &'b Backups,
    number: u64,
    running: Arc<Running>,
}

impl Underway<'_> {
    /// So many bytes were written, and of the log all before `next` was read.
    pub(crate) fn has_come_to(&self, next: TxnId, written_bytes: u64) {
        if let Reads::Log(from) = &self.running.reads {
            from.store(next.get(), Ordering::Release);
        }
        let written = &self.running.written;
        written.store(written_bytes, Ordering::Relaxed);
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.all.running.lock().remove(&self.number);
    }
}
