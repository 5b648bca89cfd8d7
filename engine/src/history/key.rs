//! Keys of history: table, key, and the transaction that ended the version, in that order.
//!
//! ```text
//! table u32 BE | key, its runs of zero bytes packed | 0x00, zeros at its end | ended by u64 BE
//! ```
//! A run of zero bytes before another byte is `0x00, 0xff - n` for its `n` bytes; what is longer than 126 begins with
//! parts of 127 bytes, each `0x00, 0x80`. Zeros at the end of the key are such parts and then `0x00, n`. So no packed key
//! is the beginning of another, packed keys are in the order of the keys, and at worst half as long again.
//!
//! Spec: FF-023.

#![deny(clippy::indexing_slicing)]

use crate::format::node::Suffix;
use crate::ids::{TableId, TxnId};

/// Zero bytes in one full part of a run.
const FULL_ZEROS: usize = 127;
/// Says "so many zeros, and then more of the run".
const FULL: u8 = 0x80;
/// Bytes of the table and of the transaction.
const TABLE_BYTES: usize = 4;
const TXN_BYTES: usize = 8;

/// Puts table and key, packed, into `into`: what all versions of the key begin with.
pub(crate) fn pack(table: TableId, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&table.get().to_be_bytes());
    // Zeros of the run at hand, and whether full parts of it were put.
    let (mut zeros, mut in_run) = (0_u8, false);
    for &byte in key {
        if byte == 0 {
            zeros += 1;
            in_run = true;
            if usize::from(zeros) == FULL_ZEROS {
                into.extend_from_slice(&[0, FULL]);
                zeros = 0;
            }
            continue;
        }
        if in_run {
            into.extend_from_slice(&[0, u8::MAX - zeros]);
            (zeros, in_run) = (0, false);
        }
        into.push(byte);
    }
    into.extend_from_slice(&[0, zeros]);
}

/// Adds the end of a version to its packed key.
pub(crate) fn push_end(to: TxnId, packed: &mut Vec<u8>) {
    packed.extend_from_slice(&to.get().to_be_bytes());
}

/// The packed key and the end of a version. `None` if `stored` is too short for both.
pub(crate) fn split(stored: &[u8]) -> Option<(&[u8], TxnId)> {
    let (packed, to) = stored.split_last_chunk::<TXN_BYTES>()?;
    (packed.len() >= TABLE_BYTES + 2).then(|| (packed, TxnId::new(u64::from_be_bytes(*to))))
}

/// The table of a packed key.
pub(crate) fn table_of(packed: &[u8]) -> Option<TableId> {
    let table = packed.first_chunk::<TABLE_BYTES>()?;
    Some(TableId::new(u32::from_be_bytes(*table)))
}

/// What all packed keys of a table begin with.
pub(crate) fn table_prefix(table: TableId) -> [u8; TABLE_BYTES] {
    table.get().to_be_bytes()
}

/// Whether one of the eight bytes of `word` is zero.
#[inline]
fn has_zero_byte(word: u64) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    word.wrapping_sub(ONES) & !word & HIGH != 0
}

/// Whether there is a zero byte. Eight at a time, since most keys have none and are short; the last eight once more where they are
/// no whole word.
#[inline]
fn has_zero(key: &[u8]) -> bool {
    let in_word = |word: &[u8; 8]| has_zero_byte(u64::from_le_bytes(*word));
    let Some(last) = key.last_chunk() else {
        return key.contains(&0);
    };
    let (words, _) = key.as_chunks();
    words.iter().any(in_word) || in_word(last)
}

/// Puts into `into` what the keys of a leaf begin with, whose stored keys begin with `prefix`. Says whether each of them is that and
/// what its row adds, where [`plain`] tells what that is; else they are unpacked one by one.
pub(crate) fn unpack_lead(prefix: &[u8], into: &mut Vec<u8>) -> bool {
    into.clear();
    let Some((_, mut rest)) = prefix.split_first_chunk::<TABLE_BYTES>() else {
        return false;
    };
    loop {
        match *rest {
            [] => return true,
            [0, zeros, ref end @ ..] if zeros > FULL && zeros < u8::MAX => {
                if end.first() == Some(&0) {
                    return false;
                }
                into.resize(into.len() + usize::from(u8::MAX - zeros), 0);
                rest = end;
            }
            [0, ..] => return false,
            [byte, ref end @ ..] => {
                into.push(byte);
                rest = end;
            }
        }
    }
}

/// What a row adds to the key that [`unpack_lead`] began, if that has no zeros: its first four bytes, which are the head of
/// `suffix`, then these.
#[inline]
pub(crate) fn plain<'k>(suffix: &Suffix<'k>) -> Option<&'k [u8]> {
    let (key, [0, 0, ..]) = suffix.rest.split_last_chunk::<{ 2 + TXN_BYTES }>()? else {
        return None;
    };
    let head = u64::from(suffix.head) | u64::MAX << 32;
    let has_zero = match suffix.rest.first_chunk() {
        // Behind so short a key there are more bytes of the row.
        Some(word) if key.len() < 8 => {
            let ours = (1 << (8 * key.len())) - 1;
            has_zero_byte(u64::from_le_bytes(*word) | !ours)
        }
        _ => has_zero(key),
    };
    (!has_zero && !has_zero_byte(head)).then_some(key)
}

/// Puts the key of `packed` into `into`. Says whether it is one.
pub(crate) fn unpack(packed: &[u8], into: &mut Vec<u8>) -> bool {
    into.clear();
    let Some((_, mut rest)) = packed.split_first_chunk::<TABLE_BYTES>() else {
        return false;
    };
    // Most keys have no zeros.
    if let Some((key, [0, 0])) = rest.split_last_chunk()
        && !has_zero(key)
    {
        into.extend_from_slice(key);
        return true;
    }
    let mut in_run = false;
    loop {
        match *rest {
            [0, zeros, ref end @ ..] => {
                let (many, ends) = match zeros {
                    FULL => (FULL_ZEROS, false),
                    ..FULL => (usize::from(zeros), true),
                    _ => (usize::from(u8::MAX - zeros), false),
                };
                if many == 0 && !ends && !in_run {
                    return false;
                }
                into.resize(into.len() + many, 0);
                if ends {
                    return end.is_empty() && many < FULL_ZEROS;
                }
                rest = end;
                // After a full part the run goes on or says that it does not; after any other part it is over.
                in_run = zeros == FULL;
                if !in_run && rest.first().is_none_or(|byte| *byte == 0) {
                    return false;
                }
            }
            [] | [0] => return false,
            _ if in_run => return false,
            _ => {
                // Up to the next zero, which ends every packed key.
                let Some(len) = rest.iter().position(|byte| *byte == 0) else {
                    return false;
                };
                let (some, after) = rest.split_at(len);
                into.extend_from_slice(some);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::format::leaf::{key_bytes_max, stored_key_bytes_max};

    fn packed(table: u32, key: &[u8]) -> Vec<u8> {
        let mut into = Vec::new();
        pack(TableId::new(table), key, &mut into);
        into
    }

    fn there_and_back(key: &[u8]) {
        let stored = packed(16, key);
        let mut back = vec![7];
        assert!(unpack(&stored, &mut back), "{key:?} as {stored:?}");
        assert_eq!(back, key);
        assert_eq!(table_of(&stored), Some(TableId::new(16)));
    }

    #[test]
    fn zeros_of_every_number_come_back() {
        for zeros in 0..600 {
            for (before, after) in [("", ""), ("a", ""), ("", "b"), ("a", "b")] {
                let key = [before.as_bytes(), &vec![0; zeros], after.as_bytes()].concat();
                there_and_back(&key);
            }
        }
    }

    #[test]
    fn the_longest_keys_fit() {
        for page_bytes in [4096, 16_384, 65_536] {
            let longest = key_bytes_max(page_bytes);
            let worst: Vec<u8> = (0..longest).map(|at| u8::from(at % 2 == 1)).collect();
            for key in [worst, vec![0; longest], vec![1; longest]] {
                there_and_back(&key);
                let mut stored = packed(u32::MAX, &key);
                push_end(TxnId::MAX, &mut stored);
                assert!(stored.len() <= stored_key_bytes_max(TableId::HISTORY, page_bytes));
            }
        }
    }

    /// Keys in which runs of zeros are common, some of them long.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            vec(0..3_u8, 0..6),
            vec(any::<u8>(), 0..4),
            (0..300_usize).prop_map(|zeros| vec![0; zeros]),
            (125..130_usize).prop_map(|zeros| vec![0; zeros]),
            vec(prop_oneof![Just(0x80_u8), Just(0xff), Just(0)], 0..4),
        ];
        vec(part, 0..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn packed_keys_are_in_the_order_of_keys(a in keys(), b in keys(), table in 0..20_u32) {
            there_and_back(&a);
            prop_assert_eq!(packed(table, &a).cmp(&packed(table, &b)), a.cmp(&b));
            let is_start = packed(table, &a).starts_with(&packed(table, &b));
            prop_assert_eq!(is_start, a == b);
        }

        #[test]
        fn a_key_in_two_parts_is_the_key(key in keys(), table in 0..20_u32, cut in 0..40_usize, to in any::<u64>()) {
            let mut stored = packed(table, &key);
            push_end(TxnId::new(to), &mut stored);
            let (front, rest) = stored.split_at(cut.min(stored.len()));
            let mut whole = Vec::new();
            if let (true, Some(end)) = (unpack_lead(front, &mut whole), plain(&Suffix::of(rest))) {
                whole.extend_from_slice(rest.first_chunk::<4>().unwrap());
                whole.extend_from_slice(end);
                prop_assert_eq!(whole, key);
            }
        }

        #[test]
        fn a_key_without_zeros_is_in_two_parts_wherever_it_is_cut(key in vec(1..255_u8, 4..30), zeros in 0..9_usize, cut in 0..26_usize) {
            // Zeros in front, as numbers have them, and a cut that leaves the row four bytes.
            let key = [vec![0; zeros], key].concat();
            let mut stored = packed(16, &key);
            push_end(TxnId::new(1), &mut stored);
            let lead = TABLE_BYTES + 2 * usize::from(zeros > 0);
            let (front, rest) = stored.split_at((lead + cut).min(stored.len() - 14));
            let mut whole = Vec::new();
            prop_assert!(unpack_lead(front, &mut whole));
            let end = plain(&Suffix::of(rest));
            prop_assert!(end.is_some());
            whole.extend_from_slice(rest.first_chunk::<4>().unwrap());
            whole.extend_from_slice(end.unwrap());
            prop_assert_eq!(whole, key);
        }

        #[test]
        fn what_is_no_packed_key_is_told(bytes in vec(prop_oneof![Just(0_u8), Just(0x80), Just(0xff), any::<u8>()], 0..12)) {
            let mut key = Vec::new();
            if unpack(&bytes, &mut key) {
                let table = table_of(&bytes).map_or(0, TableId::get);
                prop_assert_eq!(packed(table, &key), bytes);
            }
        }
    }
}
