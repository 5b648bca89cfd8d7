//! The log of everything that was written to a block device, in the kernel's `dm-log-writes` format.
//!
//! Recorded by `qemu-storage-daemon`: a driver between the device and its image writes each request to a log as it is
//! made. A flush is an entry too. So the image at any flush, and with any part of what followed, can be made again.
//!
//! - Failure: a log that ends inside an entry ends before it; anything else that is odd is an error.
//! - Source: Linux, Documentation/admin-guide/device-mapper/log-writes.rst

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{During, Failure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Bytes of a sector, of the log and of the device.
pub const SECTOR_BYTES: usize = 512;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where on the device, in bytes.
    pub offset: u64,
    /// What was written, as a range of the log's bytes; empty for a flush.
    data: Range<usize>,
    /// So many bytes lost their content instead.
    discarded: u64,
    /// All that was complete before is durable.
    pub flush: bool,
    /// Where the entry ends in the log, in bytes.
    pub end: u64,
}

/// A whole log.
#[derive(Debug)]
pub struct BlockLog {
    bytes: Vec<u8>,
    /// Its requests, in order.
    pub entries: Vec<Entry>,
}

impl BlockLog {
    /// Reads one.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Self::parse(std::fs::read(path).during("read a block log")?)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, Failure> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        if word(0) != Some(MAGIC) {
            return Err(Failure::Broken("a block log has no head".to_owned()));
        }
        let mut entries = Vec::new();
        // The count in the head is brought up to date now and then only.
        let mut at = SECTOR_BYTES;
        while let (Some(sector), Some(sectors), Some(flags)) =
            (word(at), word(at + 8), word(at + 16))
        {
            let odd = || Failure::Broken(format!("a block log is odd at byte {at}"));
            let len = usize::try_from(sectors)
                .ok()
                .and_then(|sectors| sectors.checked_mul(SECTOR_BYTES))
                .ok_or_else(odd)?;
            let start = at + SECTOR_BYTES;
            let carried = if flags & DISCARD == 0 { len } else { 0 };
            let end = start.checked_add(carried).ok_or_else(odd)?;
            if end > bytes.len() || (flags == 0 && sectors == 0) {
                break;
            }
            entries.push(Entry {
                offset: sector.checked_mul(SECTOR_BYTES as u64).ok_or_else(odd)?,
                data: start..end,
                discarded: if flags & DISCARD == 0 { 0 } else { len as u64 },
                flush: flags & FLUSH != 0,
                end: end as u64,
            });
            at = end;
        }
        Ok(Self { bytes, entries })
    }

    /// Does a request again, to an image.
    ///
    /// # Errors
    /// The system's.
    pub fn apply(&self, entry: &Entry, image: &File) -> Result<(), Failure> {
        let data = &self.bytes[entry.data.clone()];
        image
            .write_all_at(data, entry.offset)
            .during("write to an image")?;
        let zeros = vec![0; usize::try_from(entry.discarded).unwrap_or(0)];
        image
            .write_all_at(&zeros, entry.offset)
            .during("write to an image")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(words: [u64; 4]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(SECTOR_BYTES, 0);
        bytes
    }

    #[test]
    fn a_block_log_is_read_and_done_again() {
        let mut bytes = sector([MAGIC, 1, 3, 512]);
        bytes.extend(sector([2, 1, 0, 0]));
        bytes.extend([7; SECTOR_BYTES]);
        bytes.extend(sector([0, 0, FLUSH, 0]));
        bytes.extend(sector([2, 1, DISCARD, 0]));
        // Cut short: not part of it.
        bytes.extend(sector([9, 2, 0, 0]));
        let log = BlockLog::parse(bytes).unwrap();
        assert_eq!(log.entries.len(), 3);
        assert!(log.entries[1].flush && !log.entries[0].flush);
        assert_eq!(log.entries[1].end, 4 * 512);
        let image = tempfile::tempfile().unwrap();
        log.apply(&log.entries[0], &image).unwrap();
        let mut there = [0; SECTOR_BYTES];
        image.read_exact_at(&mut there, 1024).unwrap();
        assert_eq!(there, [7; SECTOR_BYTES]);
        log.apply(&log.entries[2], &image).unwrap();
        image.read_exact_at(&mut there, 1024).unwrap();
        assert_eq!(there, [0; SECTOR_BYTES]);
        assert!(BlockLog::parse(vec![0; 512]).is_err());
    }
}
