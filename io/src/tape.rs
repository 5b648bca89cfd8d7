//! Bytes that are only ever added at the end, few or very many.
//!
//! A vector that grows to many megabytes is moved again and again and takes a page fault for each 4 KiB. A tape leaves
//! the heap once it is long, for an address range so large that it need not move, backed by 2 MiB pages where the
//! kernel grants them.
//!
//! Invariant: the first `len` bytes of `place` are initialised and the tape's alone.
#![expect(unsafe_code, reason = "writes into a mapping")]

use std::fmt;

use crate::Mapping;

/// What a tape takes of the heap at first: a few small changes fit, so that it grows once or twice and not at each.
const FIRST: usize = 1024;
/// From this many bytes on a tape has a mapping.
const LONG: usize = 1 << 20;
/// Address space of a mapping at first: memory is taken as it is used.
const REACH: usize = 512 << 20;

/// Bytes that grow at their end.
#[derive(Default)]
pub struct Tape {
    place: Place,
}

enum Place {
    Heap(Vec<u8>),
    Mapped(Mapping, usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Tape {
    /// No bytes yet, and no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for `more` bytes, so that adding them in small pieces grows the tape once. Long tapes have room.
    #[inline]
    pub fn reserve(&mut self, more: usize) {
        if let Place::Heap(bytes) = &mut self.place
            && bytes.capacity() - bytes.len() < more
            && bytes.len() + more <= LONG
        {
            bytes.reserve(more.max(FIRST));
        }
    }

    /// Adds one byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        match &mut self.place {
            // A place that is full looks for another one below.
            Place::Heap(bytes) if bytes.len() < LONG => bytes.push(byte),
            Place::Heap(_) | Place::Mapped(..) => self.extend_from_slice(&[byte]),
        }
    }

    /// Adds bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        match &mut self.place {
            // Beyond the capacity of one that had to stay on the heap, the next try is made.
            Place::Heap(before) if before.len() + bytes.len() <= LONG.max(before.capacity()) => {
                before.extend_from_slice(bytes);
            }
            Place::Mapped(mapping, len) if mapping.len() - *len >= bytes.len() => {
                // SAFETY: the mapping has `bytes.len()` more bytes behind its first `len`, checked above; they are the
                // tape's alone, so `bytes` does not overlap them.
                unsafe { write(mapping, *len, bytes) };
                *len += bytes.len();
            }
            Place::Heap(_) | Place::Mapped(..) => self.extend_elsewhere(bytes),
        }
    }

    /// Adds bytes after moving to a larger place.
    #[cold]
    fn extend_elsewhere(&mut self, bytes: &[u8]) {
        let len = self.len() + bytes.len();
        let reach = REACH.max(len.saturating_mul(2));
        self.place = match Mapping::reserve(reach) {
            Ok(mapping) => {
                // SAFETY: the mapping has `len` bytes and is new, so nothing overlaps it.
                unsafe { write(&mapping, 0, self) };
                // SAFETY: as above.
                unsafe { write(&mapping, self.len(), bytes) };
                Place::Mapped(mapping, len)
            }
            // No address space: a vector does as well.
            Err(_) => {
                let mut all = match std::mem::take(&mut self.place) {
                    Place::Heap(before) => before,
                    Place::Mapped(..) => self.to_vec(),
                };
                all.extend_from_slice(bytes);
                Place::Heap(all)
            }
        };
    }

    /// Forgets all bytes after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.place {
            Place::Heap(bytes) => bytes.truncate(len),
            Place::Mapped(_, used) => *used = len.min(*used),
        }
    }
}

/// Copies `bytes` into `mapping` at `at`.
///
/// # Safety
/// The mapping has so many bytes there, nobody else reads or writes them, and they do not overlap `bytes`.
unsafe fn write(mapping: &Mapping, at: usize, bytes: &[u8]) {
    // SAFETY: inside the mapping, as the caller promises.
    let to = unsafe { mapping.as_ptr().add(at) };
    let from = std::ptr::NonNull::from(bytes).cast();
    // SAFETY: as the caller promises.
    unsafe { to.copy_from_nonoverlapping(from, bytes.len()) };
}

impl From<Vec<u8>> for Tape {
    fn from(bytes: Vec<u8>) -> Self {
        let place = Place::Heap(bytes);
        Self { place }
    }
}

impl std::ops::Deref for Tape {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Heap(bytes) => bytes,
            Place::Mapped(mapping, len) => {
                // SAFETY: the mapping's first `len` bytes were written, and change only through `&mut self`.
                unsafe { std::slice::from_raw_parts(mapping.as_ptr().as_ptr(), *len) }
            }
        }
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = matches!(self.place, Place::Mapped(..));
        write!(f, "Tape({} bytes, mapped: {mapped})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_is_the_bytes_that_were_added() {
        let (mut tape, mut model) = (Tape::new(), Vec::new());
        let mut number = 1_u64;
        while model.len() < 3 * LONG {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let [choice, byte, back, ..] = number.to_be_bytes();
            let len = [0, 1, 7, 4096, 100_000][usize::from(choice) % 5];
            let bytes = vec![byte; len];
            if back > 128 {
                tape.reserve(len);
            }
            if len == 1 {
                tape.push(bytes[0]);
            } else {
                tape.extend_from_slice(&bytes);
            }
            model.extend_from_slice(&bytes);
            if back < 16 {
                let keep = model.len() - model.len().min(5000);
                tape.truncate(keep);
                model.truncate(keep);
            }
        }
        assert!(*tape == *model);
        tape.truncate(10);
        assert_eq!(*tape, model[..10]);
        tape.truncate(11);
        tape.push(1);
        assert_eq!((tape.len(), tape[10]), (11, 1));
    }

    #[test]
    fn a_tape_becomes_long_by_any_step() {
        for step in [1, 3, LONG - 1, LONG, LONG + 1, 3 * LONG] {
            let mut tape = Tape::from(vec![5; step / 2]);
            while tape.len() <= LONG {
                tape.extend_from_slice(&vec![5; step]);
            }
            tape.push(6);
            assert!(
                tape[..tape.len() - 1].iter().all(|&byte| byte == 5),
                "{step}"
            );
            assert_eq!(tape.last(), Some(&6));
        }
    }
}
