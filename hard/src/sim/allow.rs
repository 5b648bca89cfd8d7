//! What the faults that happened allow an engine that keeps its promises to do.
//!
//! Without a fault: nothing but success. A fault that the disk reported allows errors while it runs, and nothing once the
//! disk is sound again: all that was acknowledged must be there. Only a disk that said "done" and lied allows more, and one
//! that lied twice about the same place of the log: what is twice the same is believed to be its end, or its beginning.

use std::collections::BTreeSet;
use std::path::PathBuf;

use northstar_io::sim::{Fault, Injected};
use northstardb::Error;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Operations may fail with an error that says so.
    pub errors: bool,
    /// Later, on a sound disk: pages or log may be found damaged, and said to be.
    pub damage: bool,
    /// Later, on a sound disk: what was acknowledged last may be missing.
    pub shorter: bool,
    /// Files of the log, and offsets there, of which a read gave other bytes than were written.
    lied_about: BTreeSet<(PathBuf, u64)>,
}

impl Allowed {
    /// One more fault has happened.
    pub fn after(&mut self, injected: &Injected) {
        let log = injected
            .path
            .components()
            .any(|part| part.as_os_str() == "log");
        match injected.fault {
            // Time alone breaks nothing.
            Fault::Slow(_) => {}
            // The rest of a short transfer follows, unless nothing moves at all.
            Fault::Short(_) | Fault::Error(_) | Fault::ErrorAfter(_) | Fault::SyncFails(..) => {
                self.errors = true;
            }
            Fault::MisdirectedRead(_) | Fault::Stale | Fault::Flipped(_) => {
                self.errors = true;
                let first = |allowed: &mut Self| {
                    let place = (injected.path.clone(), injected.offset);
                    allowed.lied_about.insert(place)
                };
                self.shorter |= log && !first(self);
            }
            Fault::SyncLies => {
                self.errors = true;
                self.damage = true;
                self.shorter = true;
            }
            // Of a data file, the page is refused, and its meta page has a second copy and an elder.
            Fault::Misdirected(_) | Fault::Lost => {
                self.errors = true;
                self.damage = true;
                self.shorter |= log;
            }
        }
    }

    /// Whether an operation may end with `error` while faults happen.
    #[must_use]
    pub const fn error(&self, error: &Error) -> bool {
        (self.errors || self.damage) && speaks_of_the_disk(error)
    }

    /// Whether `error` may say that the log does not hold what is still wanted.
    #[must_use]
    pub const fn log_lost(&self, error: &Error) -> bool {
        (self.damage || self.shorter) && matches!(error, Error::NotInLog { .. })
    }

    /// Whether a sound disk may be answered with `error`.
    #[must_use]
    pub const fn refusal(&self, error: &Error) -> bool {
        self.damage && speaks_of_the_disk(error)
    }
}

/// Errors that a caller gets for what a disk did, not for what it asked.
const fn speaks_of_the_disk(error: &Error) -> bool {
    matches!(
        error,
        Error::Io(_)
            | Error::Corrupt(_)
            | Error::Halted { .. }
            | Error::Full { .. }
            | Error::NotADatabase { .. }
    )
}
