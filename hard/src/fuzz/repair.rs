//! Checksums made right again after bytes were changed, without asking the engine what is right.
//!
//! Offsets are those of `spec/file_format_v0.md`, `spec/commit_record_v0.md` and `spec/backup_format_v0.md`. Whatever the bytes are, a repair ends and
//! stays inside them.

use northstardb::internals::crc32c;

/// Bytes of a block of the log.
const BLOCK: usize = 4096;
const GROUP_HEADER: usize = 64;
const RECORD_HEADER: usize = 48;
const RECORD_TRAILER: usize = 8;
const BACKUP_HEADER: usize = 72;
/// Where what the checksum of a backup's header covers begins.
const BACKUP_COVERED: usize = 12;
const BACKUP_BLOCK: usize = 16;

/// Puts `bytes` at `at`, if they fit.
pub(super) fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The four bytes at `at` as a number.
pub(super) fn word(from: &[u8], at: usize) -> u32 {
    let bytes = from.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn length(from: &[u8], at: usize) -> usize {
    usize::try_from(super::number(from, at)).unwrap_or(usize::MAX)
}

fn sum(bytes: &[u8], from: usize, to: usize) -> u32 {
    bytes.get(from..to).map_or(0, crc32c)
}

/// The checksum of a page.
pub fn page(page: &mut [u8]) {
    let sum = sum(page, 4, page.len());
    put(page, 0, &sum.to_le_bytes());
}

/// A record's header and trailer, if all of it is there. Gives its length.
pub fn record(bytes: &mut [u8]) -> Option<usize> {
    let header = sum(bytes, 8, RECORD_HEADER);
    put(bytes, 4, &header.to_le_bytes());
    let end = length(bytes, 24).checked_add(RECORD_HEADER)?;
    if end.checked_add(RECORD_TRAILER)? > bytes.len() {
        return None;
    }
    let payload = sum(bytes, RECORD_HEADER, end);
    put(bytes, end, &payload.to_le_bytes());
    let check = word(bytes, 8) ^ u32::from_le_bytes(*b"NSCR");
    put(bytes, end + 4, &check.to_le_bytes());
    Some(end + RECORD_TRAILER)
}

/// Records one after the other, at most `count`.
pub fn records(mut bytes: &mut [u8], count: u32) {
    for _ in 0..count {
        match record(bytes) {
            Some(len) => bytes = bytes.split_at_mut(len).1,
            None => return,
        }
    }
}

/// A group with its records, as far as it is there. Gives its length and its chain value.
pub fn group(bytes: &mut [u8], previous: u32) -> Option<(usize, u32)> {
    let len = length(bytes, 24);
    let whole = (GROUP_HEADER..=bytes.len()).contains(&len) && len.is_multiple_of(BLOCK);
    if whole {
        let count = word(bytes, 56);
        if let Some(payload) = bytes.get_mut(GROUP_HEADER..len) {
            records(payload, count);
        }
        let payload = sum(bytes, GROUP_HEADER, len);
        put(bytes, 8, &payload.to_le_bytes());
    }
    put(bytes, 12, &previous.to_le_bytes());
    let header = sum(bytes, 8, GROUP_HEADER);
    put(bytes, 4, &header.to_le_bytes());
    whole.then_some((len, header))
}

/// Groups one after the other, each with the chain value of the one before, until what follows is none.
pub fn groups(mut bytes: &mut [u8], mut previous: u32) {
    while bytes.len() >= BLOCK && bytes.starts_with(b"NSLG") {
        match group(bytes, previous) {
            Some((len, sum)) => {
                previous = sum;
                bytes = bytes.split_at_mut(len).1;
            }
            None => return,
        }
    }
}

/// A backup: its header, every block and the chain of them, and the count at its end. The digest of rows stays as it is.
pub fn backup(bytes: &mut [u8]) {
    let is_increment = word(bytes, 16) == 2;
    let mut chain = sum(bytes, BACKUP_COVERED, BACKUP_HEADER);
    put(bytes, 8, &chain.to_le_bytes());
    let (mut at, mut count) = (BACKUP_HEADER, 0_u64);
    while at + BACKUP_BLOCK <= bytes.len() {
        let (kind, len) = (word(bytes, at + 8), word(bytes, at + 12) as usize);
        let Some(end) = len.checked_add(at + BACKUP_BLOCK) else {
            return;
        };
        let Some(payload) = bytes.get_mut(at + BACKUP_BLOCK..end) else {
            return;
        };
        if kind == 2 {
            put(payload, 0, &count.to_le_bytes());
        } else if is_increment {
            let mut rest = &mut payload[..];
            while let Some(len) = record(rest) {
                count += 1;
                rest = rest.split_at_mut(len).1;
            }
        } else {
            count += rows(payload);
        }
        let payload = crc32c(payload);
        put(bytes, at + 4, &chain.to_le_bytes());
        let mut covered = [0; 16];
        covered[..12].copy_from_slice(&bytes[at + 4..at + BACKUP_BLOCK]);
        covered[12..].copy_from_slice(&payload.to_le_bytes());
        chain = crc32c(&covered);
        put(bytes, at, &chain.to_le_bytes());
        if kind == 2 {
            return;
        }
        at = end;
    }
}

/// Rows of a block of a full backup.
fn rows(payload: &[u8]) -> u64 {
    let (mut at, mut count) = (0_usize, 0);
    while at.saturating_add(12) <= payload.len() {
        let (key, value) = (
            word(payload, at + 4) as usize,
            word(payload, at + 8) as usize,
        );
        at = at.saturating_add(12 + key).saturating_add(value);
        count += 1;
    }
    count
}
