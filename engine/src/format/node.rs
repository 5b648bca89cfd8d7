//! What leaves and branches share: heads, prefixes, varints, and the arrays at the start of a node.
//!
//! A node stores its keys three times cut: the prefix common to all of them once, the next four bytes as a *head*
//! (a big-endian number, so that integer order is byte order, zero padded), and the rest in the heap. Searching
//! compares heads first; the rest is looked at only where heads are equal.
//!
//! Invariants:
//! 1. Keys of a node are strictly ascending, hence their heads ascend (not strictly).
//! 2. A key shorter than prefix + 4 has zero bytes in place of what its head lacks; its stored length tells.

#![deny(clippy::indexing_slicing)]

use std::cmp::Ordering;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use super::page::{HEADER_BYTES, Page, PageError, PageKind};

/// Bytes of a key held by its head.
pub(crate) const HEAD_BYTES: usize = 4;
/// Bytes of a node that every entry costs besides its heap part: a head and a slot.
pub(crate) const ENTRY_BYTES: usize = HEAD_BYTES + size_of::<U16>();
/// Highest level of a node. Even with three children a branch, 16 levels hold more than the format can address.
pub(crate) const LEVEL_MAX: u8 = 16;

/// A page whose inside contradicts itself.
#[cold]
pub(crate) fn structure(
    page: Page<'_>,
    what: &'static str,
    found: u64,
    expected: u64,
) -> PageError {
    PageError::Structure {
        page: page.id(),
        what,
        found,
        expected,
    }
}

/// The head of a key whose common prefix was cut off.
#[inline]
pub(crate) fn head_of(suffix: &[u8]) -> u32 {
    if let Some(first) = suffix.first_chunk::<HEAD_BYTES>() {
        return u32::from_be_bytes(*first);
    }
    let mut padded = [0; HEAD_BYTES];
    for (to, from) in padded.iter_mut().zip(suffix) {
        *to = *from;
    }
    u32::from_be_bytes(padded)
}

/// Number of bytes `a` and `b` have in common at their start.
#[inline]
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// `key` without `prefix`, or on which side of all keys with that prefix it lies.
#[inline]
pub(crate) fn strip<'k>(key: &'k [u8], prefix: &[u8]) -> Result<&'k [u8], Ordering> {
    if prefix.is_empty() {
        return Ok(key);
    }
    match key.split_at_checked(prefix.len()) {
        Some((start, suffix)) if start == prefix => Ok(suffix),
        _ => Err(key.cmp(prefix)),
    }
}

/// Bytes of `value` as a varint: seven bits a byte, low bits first.
#[inline]
pub(crate) const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes a varint off the front of `bytes`; `None` where it is cut off or longer than 64 bits.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Splits `count` bytes off the front of `bytes`.
#[inline]
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// A key of a node without the node's prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suffix<'a> {
    /// The first four bytes as a number.
    pub(crate) head: u32,
    /// Length in bytes, head included.
    pub(crate) len: usize,
    /// What follows the head.
    pub(crate) rest: &'a [u8],
}

impl<'a> Suffix<'a> {
    /// The same parts of a whole suffix.
    #[inline]
    pub(crate) fn of(suffix: &'a [u8]) -> Self {
        Self {
            head: head_of(suffix),
            len: suffix.len(),
            rest: suffix.get(HEAD_BYTES..).unwrap_or_default(),
        }
    }

    /// Compares by bytes.
    #[inline]
    pub(crate) fn compare(&self, other: &Suffix<'_>) -> Ordering {
        if self.head != other.head {
            return self.head.cmp(&other.head);
        }
        if self.len < HEAD_BYTES || other.len < HEAD_BYTES {
            // With equal heads the shorter one is the start of the longer one.
            return self.len.cmp(&other.len);
        }
        self.rest.cmp(other.rest)
    }

    /// Appends the bytes to `key`.
    #[inline]
    pub(crate) fn append_to(&self, key: &mut Vec<u8>) {
        let head = self.head.to_be_bytes();
        if self.len >= HEAD_BYTES {
            key.extend_from_slice(&head);
            key.extend_from_slice(self.rest);
        } else if let Some(head) = head.get(..self.len) {
            key.extend_from_slice(head);
        }
    }

    /// Whether the head is padded with zeros where the suffix is shorter than it.
    pub(crate) fn is_padded(&self) -> bool {
        self.len >= HEAD_BYTES || self.head & (u32::MAX >> (8 * self.len)) == 0
    }
}

/// The arrays every node begins with.
#[derive(Clone, Copy)]
pub(crate) struct Arrays<'a> {
    /// The node.
    pub(crate) page: Page<'a>,
    /// One head an entry.
    pub(crate) heads: &'a [U32],
    /// Offset in the page of each entry's heap part.
    pub(crate) slots: &'a [U16],
    /// What all keys begin with.
    pub(crate) prefix: &'a [u8],
    /// The page up to its bytes in use.
    used: &'a [u8],
    /// First offset that a heap entry may have.
    pub(crate) heap_start: usize,
}

impl<'a> Arrays<'a> {
    /// Finds the arrays of a node of `kind`; also returns the bytes from `gap.start` to `gap.end` after the heads,
    /// where `gap` follows from the entry count.
    #[inline]
    pub(crate) fn view(
        page: Page<'a>,
        kind: PageKind,
        gap: impl FnOnce(usize) -> (usize, usize),
    ) -> Result<(Self, &'a [u8]), PageError> {
        let page = page.expect(kind)?;
        let header = page.header();
        let count = usize::from(header.count.get());
        let (padding, gap_bytes) = gap(count);
        let split = || {
            let used = page.bytes().get(..header.used_bytes.get() as usize)?;
            let mut rest = used.get(HEADER_BYTES..)?;
            let heads = take(&mut rest, count * HEAD_BYTES)?;
            take(&mut rest, padding)?;
            let gap = take(&mut rest, gap_bytes)?;
            let slots = take(&mut rest, count * size_of::<U16>())?;
            let prefix = take(&mut rest, usize::from(header.prefix_bytes.get()))?;
            let arrays = Self {
                page,
                heads: <[U32]>::ref_from_bytes(heads).ok()?,
                slots: <[U16]>::ref_from_bytes(slots).ok()?,
                prefix,
                used,
                heap_start: used.len() - rest.len(),
            };
            Some((arrays, gap))
        };
        split().ok_or_else(|| structure(page, "entry count", count as u64, 0))
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> usize {
        self.heads.len()
    }

    /// The head of entry `index` and the page from the entry's heap part on.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Option<(u32, &'a [u8])> {
        let head = self.heads.get(index)?.get();
        let slot = usize::from(self.slots.get(index)?.get());
        Some((head, self.used.get(slot..)?))
    }
}

/// Writes `bytes` at `at`. Nodes are laid out only after their size was computed, so a miss is a bug.
pub(super) fn put(page: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    match page.get_mut(at..end) {
        Some(to) => to.copy_from_slice(bytes),
        None => unreachable!("a node overflows its page at byte {end}"),
    }
    end
}

/// Writes a varint at `at` and returns the offset behind it.
pub(super) fn put_varint(page: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        at = put(page, at, &[(value & 0x7f) as u8 | 0x80]);
        value >>= 7;
    }
    put(page, at, &[(value & 0x7f) as u8])
}

/// An offset or count that fits 16 bits because a page has at most 64 KiB.
pub(super) fn stored_u16(value: usize) -> U16 {
    match u16::try_from(value) {
        Ok(value) => value.into(),
        Err(_) => unreachable!("{value} does not fit a page offset"),
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_cut_ones_are_refused() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut page = [0; 16];
            let end = put_varint(&mut page, 0, value);
            assert_eq!(end, varint_bytes(value));
            let mut bytes = &page[..end];
            assert_eq!(take_varint(&mut bytes), Some(value));
            assert!(bytes.is_empty());
            assert_eq!(take_varint(&mut &page[..end - 1]), None);
        }
        assert_eq!(take_varint(&mut &[0xff; 11][..]), None);
        // Ten bytes, of which the last has one bit too many.
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(take_varint(&mut &most[..]), Some(u64::MAX));
        most[9] = 2;
        assert_eq!(take_varint(&mut &most[..]), None);
    }

    #[test]
    fn suffixes_compare_like_bytes() {
        let keys: [&[u8]; 9] = [
            b"",
            b"\0",
            b"\0\0\0\0",
            b"\0\0\0\0\0",
            b"a",
            b"ab",
            b"ab\0\0x",
            b"abcd",
            b"abcde",
        ];
        for a in keys {
            for b in keys {
                assert_eq!(
                    Suffix::of(a).compare(&Suffix::of(b)),
                    a.cmp(b),
                    "{a:?} {b:?}"
                );
                assert!(Suffix::of(a).is_padded());
            }
            let mut whole = Vec::new();
            Suffix::of(a).append_to(&mut whole);
            assert_eq!(whole, a);
        }
    }

    #[test]
    fn heads_of_short_suffixes_are_padded_and_said_to_be() {
        assert_eq!(head_of(b""), 0);
        assert_eq!(head_of(b"a"), 0x6100_0000);
        assert_eq!(head_of(b"abcdef"), 0x6162_6364);
        for len in 0..=5 {
            for damaged in 0..4 {
                let suffix = Suffix {
                    head: 0x80 << (24 - 8 * damaged),
                    len,
                    rest: &[],
                };
                assert_eq!(suffix.is_padded(), damaged < len, "{len} {damaged}");
            }
        }
    }

    #[test]
    fn keys_are_stripped_of_a_prefix_or_lie_beside_it() {
        assert_eq!(strip(b"abc", b""), Ok(&b"abc"[..]));
        assert_eq!(strip(b"abc", b"ab"), Ok(&b"c"[..]));
        assert_eq!(strip(b"ab", b"ab"), Ok(&b""[..]));
        assert_eq!(strip(b"a", b"ab"), Err(Ordering::Less));
        assert_eq!(strip(b"aa", b"ab"), Err(Ordering::Less));
        assert_eq!(strip(b"ac", b"ab"), Err(Ordering::Greater));
        let shared = [
            (&b"abc"[..], &b"abd"[..], 2),
            (b"", b"a", 0),
            (b"ab", b"ab", 2),
        ];
        for (a, b, count) in shared {
            assert_eq!(common_prefix(a, b), count);
        }
    }
}
