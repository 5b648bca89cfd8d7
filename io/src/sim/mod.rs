//! A disk that exists only as a story: what was asked of it, in order, and what of that a power cut would leave.
//!
//! The same interface as every disk, and every fault a real one can have. Nothing here is random by itself: a
//! [`FaultPlan`] says what goes wrong at which operation, a [`CrashPlan`] what survives, and a [`Hook`] may let other
//! threads run before each operation. So a run is a function of what its caller decides, and can be had again.
//!
//! ```text
//! engine ──► SimDisk ──► volatile image     what reads see
//!               │
//!               └──► trace of events ──► Shadow: durable image + what is pending ──crash──► Image ──► SimDisk ...
//! ```
//!
//! One run gives a trace; at each of its events a power cut is one [`Shadow::crash`] away, without running again.
//!
//! What is modelled:
//! - Sectors of 512 bytes. A write that no sync covered survives whole, in part, or not at all; a sector that was on its
//!   way may hold old bytes, new bytes, or neither.
//! - Lengths and names of files have the same two levels: what is seen, and what a sync of file or directory has kept.
//! - A sync covers the writes whose completion was seen before it was submitted, and no others.
//! - Order: completions of a queue come in any order; what is pending survives in any combination.
//!
//! - Source: what the seam promises is in the crate's documentation; fault classes in `spec/hardening_v0.md`.

mod content;
mod disk;
mod fault;
mod file;
mod image;
mod queue;
mod shadow;
#[cfg(test)]
mod tests;
mod trace;

pub use content::Fate;
pub use disk::{Hook, SimDisk, SimOptions};
pub use fault::{Fault, FaultPlan, Injected, Kept, Rule, What};
pub use file::QUEUED_READ;
pub use image::Image;
pub use shadow::{CrashPlan, Names, Shadow, Survival};
pub use trace::{Event, FileId, NameOp, Trace};

/// Bytes of a sector: what a device writes whole or not.
pub const SECTOR_BYTES: usize = 512;

/// Where random decisions come from: the next 64 bits.
pub type Dice<'d> = dyn FnMut() -> u64 + 'd;

/// A hash that is the same everywhere: FNV-1a over words of eight bytes. It need not be strong.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    fn words(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
}
