//! Hardening of NorthstarDB: the same random work done by the engine and by a model too simple to be wrong.
//!
//! - [`model`]: one `BTreeMap` of whole states per transaction.
//! - [`ops`]: seeded random work: transactions, checkpoints, reopenings, snapshots.
//! - [`exec`]: performs that work on the engine.
//! - [`properties`]: what holds whatever the work is.
//! - `compare`: reads of the engine held against a state.
//! - `replica`: what a commit stream comes to.
//! - [`run`]: engine against model, after every step.
//! - [`crash`]: a child process killed at random moments; what is left must be a prefix of what it did.
//! - [`sim`]: the engine on a simulated disk: power cuts, cuts during recovery, disks with faults.
//! - [`alloc`]: an allocator that fails when it is told to.
//! - [`fuzz`]: hostile bytes, found by following coverage.
//! - `real`: real file systems, full disks, races to open, processes that are denied things, failing file systems.
//! - [`sched`]: the whole engine under a scheduler that a seed decides.
//! - [`races`]: tests under ThreadSanitizer.
//! - [`jobs`], [`campaign`], [`tally`], [`ledger`]: what there is to run, how it is spread over processes, what was done,
//!   and all that was ever done.
//! - [`planted`]: faults in the engine's sources, put there to show that all this can fail.
//! - `protocol`: a model of what keeps data, searched whole; [`sim::paths`] leads the engine the same ways.
//! - [`checksum`]: for damage that is to be believed.
//! - [`golden`]: the database whose bytes later versions must still open.
//!
//! Everything random comes from one seed; a failure prints the one line that replays it.

#[cfg(feature = "internals")]
pub mod alloc;
#[cfg(feature = "internals")]
pub mod campaign;
pub mod checksum;
pub mod clock;
mod compare;
pub mod crash;
pub mod exec;
#[cfg(feature = "internals")]
pub mod fuzz;
#[cfg(feature = "internals")]
pub mod golden;
#[cfg(feature = "internals")]
pub mod jobs;
#[cfg(feature = "internals")]
pub mod ledger;
pub mod model;
pub mod ops;
#[cfg(feature = "internals")]
pub mod planted;
#[cfg(feature = "internals")]
pub mod planting;
pub mod properties;
#[cfg(feature = "internals")]
mod protocol;
#[cfg(feature = "internals")]
pub mod races;
#[cfg(all(target_os = "linux", feature = "internals"))]
pub mod real;
mod replica;
pub mod rng;
pub mod run;
#[cfg(feature = "internals")]
pub mod sched;
#[cfg(feature = "internals")]
pub mod sim;
pub mod tally;

/// What a run can end with: a broken promise, or an error of the engine where none was due.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine and the model disagree.
    #[error("{0}")]
    Broken(String),
    /// The engine failed where it had to succeed.
    #[error("{during}: {source}")]
    Engine {
        /// What was being done.
        during: String,
        /// The engine's error.
        source: northstardb::Error,
    },
    /// The harness itself could not work: no directory, no child process.
    #[error("{during}: {source}")]
    Harness {
        /// What was being done.
        during: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Adds to an error what was being done.
pub(crate) trait During<T> {
    /// Turns the error into a [`Failure`] that says `what` was being done.
    fn during(self, what: &str) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, northstardb::Error> {
    fn during(self, what: &str) -> Result<T, Failure> {
        self.map_err(|source| Failure::Engine {
            during: what.to_owned(),
            source,
        })
    }
}

impl<T> During<T> for Result<T, std::io::Error> {
    fn during(self, what: &str) -> Result<T, Failure> {
        self.map_err(|source| Failure::Harness {
            during: what.to_owned(),
            source,
        })
    }
}

/// An error with all its causes, as one sentence.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
