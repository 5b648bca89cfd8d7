//! When to checkpoint: the thread that merges what is frozen, and cleans up when nobody commits.

use std::sync::Arc;
use std::time::Duration;

use northstar_io::planted::planted;

use super::run::Checkpointer;
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::txn::shape::Shapes;
use crate::writer::pipeline::Pipeline;

/// Between two tries of a checkpoint that found the disk full.
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Wanted {
    stop: bool,
    merge: bool,
    /// The log wants its next segment.
    segment: bool,
    /// Why the last checkpoint failed, until one succeeds.
    failed: Option<Error>,
    /// There will be none any more.
    ended: bool,
}

/// Asks for checkpoints and waits for them.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock()
    }

    /// Something is frozen, or shall be tried again.
    pub(crate) fn merge(&self) {
        let mut wanted = self.lock();
        wanted.merge = true;
        if !wanted.ended || planted("a checkpoint is waited for that will never come") {
            wanted.failed = None;
        }
        drop(wanted);
        self.changed.notify_all();
    }

    /// The log will need another segment.
    pub(crate) fn segment(&self) {
        let mut wanted = self.lock();
        if !wanted.segment {
            wanted.segment = true;
            drop(wanted);
            self.changed.notify_all();
        }
    }

    /// Ends the thread after the checkpoint it is at.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Why checkpoints fail at present.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// Tells who waits how it went.
    pub(crate) fn done(&self, outcome: &Result<()>) {
        self.lock().failed = outcome.as_ref().err().cloned();
        self.changed.notify_all();
    }

    /// Tells who waits, now or later, that there will be no checkpoint any more.
    pub(crate) fn end(&self, error: Error) {
        let mut wanted = self.lock();
        wanted.ended = true;
        wanted.failed = Some(error);
        drop(wanted);
        self.changed.notify_all();
    }

    /// Blocks until nothing is frozen, or a checkpoint failed.
    pub(crate) fn wait_merged(&self, shapes: &Shapes) -> Result<()> {
        let mut wanted = self.lock();
        loop {
            if shapes.load().frozen.is_empty() {
                return Ok(());
            }
            if let Some(error) = &wanted.failed {
                return Err(error.clone());
            }
            if wanted.stop {
                return Err(Error::Closed);
            }
            wanted = self.changed.wait(wanted);
        }
    }
}

/// The thread's loop.
pub(crate) fn run(
    signal: &Signal,
    checkpointer: &Mutex<Checkpointer>,
    pipeline: &Arc<Pipeline>,
    shapes: &Shapes,
    idle_after: Duration,
) {
    let mut commits_seen = 0;
    loop {
        let mut wanted = signal.lock();
        while !wanted.stop && !wanted.merge && !wanted.segment {
            let retry = wanted.failed.is_some();
            let pause = if retry { RETRY_AFTER } else { idle_after };
            let timed_out;
            (wanted, timed_out) = signal.changed.wait_timeout(wanted, pause);
            if timed_out {
                break;
            }
        }
        if wanted.stop {
            return;
        }
        let asked = std::mem::take(&mut wanted.merge);
        let segment = std::mem::take(&mut wanted.segment);
        drop(wanted);
        if segment {
            // A failure is for the commit to report that finds no room.
            let _tried = pipeline.prepare_segment();
            if !asked {
                continue;
            }
        }

        let commits = pipeline.commits();
        let idle = commits == commits_seen;
        commits_seen = commits;
        if !asked && idle && shapes.load().frozen.is_empty() {
            // Nobody committed for a while: merge the rest, if the writer is free.
            if let Some(mut core) = pipeline.try_take_core() {
                let _frozen = pipeline.freeze(&mut core);
                pipeline.return_core(core);
            }
        }
        let mut checkpointer = checkpointer.lock();
        let outcome = checkpointer.merge_frozen();
        let outcome = match outcome {
            Ok(false) if idle && !asked => checkpointer.tidy(),
            other => other.map(drop),
        };
        drop(checkpointer);
        match outcome {
            Ok(()) | Err(Error::Full { .. }) => signal.done(&outcome),
            Err(error) => {
                // Never to be tried again: see `Checkpointer::fatal`.
                pipeline.halt(&format!("checkpoint: {error}"));
                return signal.end(error);
            }
        }
    }
}
