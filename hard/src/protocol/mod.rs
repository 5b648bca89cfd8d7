//! A model of what keeps data: commit, checkpoint, page reuse, log recycling, recovery, and every way to be interrupted.
//!
//! Small enough to be searched whole, and close enough to the engine that its rules are the engine's: CC-001, CC-006,
//! CC-010 to CC-013, CC-020 to CC-024, CR-004, FF-010. A power cut keeps any part of what is pending and tears blocks;
//! a process can be killed alone, and what it wrote is then seen and not kept; a sync can fail and lose what it
//! covered, though memory goes on showing it; one meta slot can rot. Each may come in recovery too.
//!
//! - [`disk`]: blocks, what becomes of them, and what opening reads in them.
//! - [`model`]: what a process does, and what befalls it. With `disk` this is the model: under 400 lines.
//! - [`claims`]: what must hold, and what must have been come by.
//! - [`twins`]: rules broken one at a time. The search refutes each: so each rule is needed, and the model can tell.
//!
//! `sim::paths` takes walks through the model to the real engine.
//!
//! Left out: names of files, the map of free space, snapshots, several groups in flight, full disks, and two faults in one
//! history. Spec: HD-016.

mod claims;
pub(crate) mod disk;
pub(crate) mod model;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod twins;

use twins::Twin;

/// The protocol, and how far it is searched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    /// The rule that is broken; none is the engine's protocol.
    pub(crate) twin: Option<Twin>,
    /// Reads pass by the system's memory.
    pub(crate) direct: bool,
    /// Commits go on while a checkpoint runs.
    pub(crate) threads: bool,
    /// Transactions in a history.
    pub(crate) txns: u8,
    /// Generations of the meta page.
    pub(crate) generations: u8,
    /// Lives of a process.
    pub(crate) lives: u8,
    /// Syncs that fail.
    pub(crate) failures: u8,
    /// Meta slots that rot.
    pub(crate) rots: u8,
}

impl Protocol {
    /// Whether this is that twin.
    fn is(&self, twin: Twin) -> bool {
        self.twin == Some(twin)
    }
}
