//! Backups as bytes: a header, blocks that follow each other by their checksums, and an end that says what there was.
//!
//! Spec: BK-001 to BK-004.

#![deny(clippy::indexing_slicing)]

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::crc32c;
use crate::ids::{TableId, TxnId};
use crate::limits::{IDS_MAX, KEY_BYTES_MAX, RECORD_BYTES_MAX};
use crate::state::StateHash;

const MAGIC: [u8; 8] = *b"NSBACKUP";
/// Version of the format.
const FORMAT: u32 = 0;

/// Bytes of payload at which a block ends.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;
/// Longest payload that is accepted: a largest record, or row, in a block that was nearly full.
const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX + 2 * BLOCK_BYTES;
/// Bytes before the key of a row.
pub(crate) const ROW_BYTES: usize = 12;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All rows of a state.
    Full,
    /// The records that lead from one state to a later one.
    Increment,
}

/// The first bytes of a backup. Torn by a crash: yes; its checksum covers it.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredHeader {
    magic: [u8; 8],
    checksum: U32,
    format: U32,
    kind: U32,
    next_table: U32,
    database: [u8; 16],
    from: U64,
    to: U64,
    time_ns: U64,
    committed_ns: U64,
}

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = size_of::<StoredHeader>();
const _: () = assert!(HEADER_BYTES == 72);
/// Where what the checksum covers begins.
const COVERED_FROM: usize = 12;

/// What a backup is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Rows or records.
    pub(crate) kind: Kind,
    /// The database it was made of.
    pub(crate) database: u128,
    /// Above every table id given in the state at `to`.
    pub(crate) next_table: TableId,
    /// The state it follows; zero for a full one.
    pub(crate) from: TxnId,
    /// The state it leads to.
    pub(crate) to: TxnId,
    /// When `to` was committed, in nanoseconds since 1970; no earlier than that, where it is not known any more.
    pub(crate) time_ns: u64,
    /// When the log says that `to` was committed, of a full one; that `from` was, of an increment. Zero where it does not say.
    pub(crate) committed_ns: u64,
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Rows or records, as the header says.
    Content,
    /// The [`End`]: the last block.
    End,
}

/// Before the payload of a block. Torn by a crash: yes; its checksum covers it.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredBlock {
    checksum: U32,
    previous: U32,
    kind: U32,
    len: U32,
}

/// Bytes before the payload of a block.
pub(crate) const BLOCK_HEADER_BYTES: usize = size_of::<StoredBlock>();

/// What precedes the payload of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    checksum: u32,
    previous: u32,
    /// What it holds.
    pub(crate) kind: BlockKind,
    /// Bytes of its payload.
    pub(crate) len: usize,
}

/// What a backup held, said at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct End {
    /// Rows or records.
    pub(crate) count: u64,
    /// The digest of the state at `to`, of a full backup; of nothing, of an increment.
    pub(crate) state: StateHash,
}

/// Why bytes are no backup of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BackupError {
    /// The magic text is missing.
    #[error("it does not begin like a backup of NorthstarDB")]
    Foreign,
    /// A newer format.
    #[error("backup format {found}, this version knows {FORMAT}")]
    Format { found: u32 },
    /// The bytes are damaged.
    #[error("{what} is {found:#x}, expected {expected:#x}")]
    Damaged {
        what: &'static str,
        found: u64,
        expected: u64,
    },
}

fn damaged(what: &'static str, found: u64, expected: u64) -> BackupError {
    BackupError::Damaged {
        what,
        found,
        expected,
    }
}

impl Header {
    /// As stored.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut stored = StoredHeader {
            magic: MAGIC,
            checksum: 0.into(),
            format: FORMAT.into(),
            kind: match self.kind {
                Kind::Full => 1,
                Kind::Increment => 2,
            }
            .into(),
            next_table: self.next_table.get().into(),
            database: self.database.to_le_bytes(),
            from: self.from.get().into(),
            to: self.to.get().into(),
            time_ns: self.time_ns.into(),
            committed_ns: self.committed_ns.into(),
        };
        let covered = stored.as_bytes().get(COVERED_FROM..).unwrap_or_default();
        stored.checksum = crc32c(covered).into();
        zerocopy::transmute!(stored)
    }

    /// Reads a header, and gives what the first block must name as the one before it.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, u32), BackupError> {
        let stored: &StoredHeader = zerocopy::transmute_ref!(bytes);
        if stored.magic != MAGIC {
            return Err(BackupError::Foreign);
        }
        let checksum = crc32c(bytes.get(COVERED_FROM..).unwrap_or_default());
        if stored.checksum.get() != checksum {
            let (found, expected) = (checksum.into(), stored.checksum.get().into());
            return Err(damaged("the header's checksum", found, expected));
        }
        if stored.format.get() != FORMAT {
            return Err(BackupError::Format {
                found: stored.format.get(),
            });
        }
        let (from, to) = (stored.from.get(), stored.to.get());
        let kind = match stored.kind.get() {
            1 => Kind::Full,
            2 => Kind::Increment,
            other => return Err(damaged("its kind", other.into(), 2)),
        };
        let first = match kind {
            Kind::Full => 0,
            Kind::Increment => to,
        };
        // What goes on counting from there must not come to where numbers end.
        if to >= IDS_MAX / 2 || from > first {
            return Err(damaged("the state it leads to", to, from));
        }
        let next_table = stored.next_table.get();
        if !(TableId::FIRST_USER.get()..=TableId::NUMBERS_MAX).contains(&next_table) {
            let least = TableId::FIRST_USER.get();
            return Err(damaged("the next table", next_table.into(), least.into()));
        }
        let header = Self {
            kind,
            database: u128::from_le_bytes(stored.database),
            next_table: TableId::new(next_table),
            from: TxnId::new(from),
            to: TxnId::new(to),
            time_ns: stored.time_ns.get(),
            committed_ns: stored.committed_ns.get(),
        };
        Ok((header, checksum))
    }

    /// What the first block names as the one before it.
    pub(crate) fn chain(encoded: &[u8; HEADER_BYTES]) -> u32 {
        crc32c(encoded.get(COVERED_FROM..).unwrap_or_default())
    }
}

impl BlockHeader {
    /// Of a block with this payload, behind the block or header whose checksum is `previous`.
    pub(crate) fn of(kind: BlockKind, payload: &[u8], previous: u32) -> Self {
        let mut header = Self {
            checksum: 0,
            previous,
            kind,
            len: payload.len(),
        };
        header.checksum = header.checksum_with(payload);
        header
    }

    fn stored(&self) -> StoredBlock {
        StoredBlock {
            checksum: self.checksum.into(),
            previous: self.previous.into(),
            kind: match self.kind {
                BlockKind::Content => 1,
                BlockKind::End => 2,
            }
            .into(),
            len: u32::try_from(self.len).unwrap_or(u32::MAX).into(),
        }
    }

    /// Of the rest of the header and of the checksum of the payload.
    fn checksum_with(&self, payload: &[u8]) -> u32 {
        let stored = self.stored();
        let rest = stored.as_bytes().get(4..).unwrap_or_default();
        let mut covered = rest.to_vec();
        covered.extend_from_slice(&crc32c(payload).to_le_bytes());
        crc32c(&covered)
    }

    /// As stored.
    pub(crate) fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        zerocopy::transmute!(self.stored())
    }

    /// What the next block must name as the one before it.
    pub(crate) const fn chain(&self) -> u32 {
        self.checksum
    }

    /// Reads what precedes a payload, behind the block or header whose checksum is `previous`.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn decode(
        bytes: &[u8; BLOCK_HEADER_BYTES],
        previous: u32,
    ) -> Result<Self, BackupError> {
        let stored: &StoredBlock = zerocopy::transmute_ref!(bytes);
        if stored.previous.get() != previous {
            let (found, expected) = (stored.previous.get().into(), previous.into());
            return Err(damaged("the block before", found, expected));
        }
        let kind = match stored.kind.get() {
            1 => BlockKind::Content,
            2 => BlockKind::End,
            other => return Err(damaged("the kind of a block", other.into(), 2)),
        };
        let len = stored.len.get() as usize;
        if len > PAYLOAD_BYTES_MAX {
            let most = PAYLOAD_BYTES_MAX as u64;
            return Err(damaged("the length of a block", len as u64, most));
        }
        Ok(Self {
            checksum: stored.checksum.get(),
            previous,
            kind,
            len,
        })
    }

    /// Compares header and payload with the checksum.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn verify(&self, payload: &[u8]) -> Result<(), BackupError> {
        let found = self.checksum_with(payload);
        if found == self.checksum {
            return Ok(());
        }
        let expected = self.checksum.into();
        Err(damaged("the checksum of a block", found.into(), expected))
    }
}

impl End {
    /// As stored.
    pub(crate) fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let (count, state) = bytes.split_at_mut(8);
        count.copy_from_slice(&self.count.to_le_bytes());
        state.copy_from_slice(&self.state.to_bytes());
        bytes
    }

    /// From its stored form.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        if let Some((count, rest)) = bytes.split_first_chunk()
            && let Ok(state) = rest.try_into()
        {
            return Ok(Self {
                count: u64::from_le_bytes(*count),
                state: StateHash::from_bytes(state),
            });
        }
        Err(damaged("the length of the end", bytes.len() as u64, 24))
    }
}

/// Adds a row to a payload.
pub(crate) fn push_row(payload: &mut Vec<u8>, table: TableId, key: &[u8], value: &[u8]) {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    payload.extend_from_slice(&table.get().to_le_bytes());
    payload.extend_from_slice(&len(key));
    payload.extend_from_slice(&len(value));
    payload.extend_from_slice(key);
    payload.extend_from_slice(value);
}

/// A row of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'b> {
    /// Its table.
    pub(crate) table: TableId,
    /// Its key.
    pub(crate) key: &'b [u8],
    /// Its value.
    pub(crate) value: &'b [u8],
}

/// Takes the first row of `payload`; `None` at its end.
///
/// # Errors
/// [`BackupError`].
pub(crate) fn take_row<'b>(payload: &mut &'b [u8]) -> Result<Option<Row<'b>>, BackupError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let available = payload.len() as u64;
    let short = |wanted: u64| damaged("the length of a row", available, wanted);
    let Some((head, rest)) = payload.split_first_chunk::<ROW_BYTES>() else {
        return Err(short(ROW_BYTES as u64));
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    let table = TableId::new(u32::from_le_bytes([a, b, c, d]));
    let key_len = u32::from_le_bytes([e, f, g, h]) as usize;
    let value_len = u32::from_le_bytes([i, j, k, l]) as usize;
    if key_len > KEY_BYTES_MAX {
        let most = KEY_BYTES_MAX as u64;
        return Err(damaged("the length of a key", key_len as u64, most));
    }
    let both = key_len as u64 + value_len as u64;
    let taken = rest
        .split_at_checked(key_len)
        .and_then(|(key, rest)| Some((key, rest.split_at_checked(value_len)?)));
    let Some((key, (value, rest))) = taken else {
        return Err(short(ROW_BYTES as u64 + both));
    };
    *payload = rest;
    Ok(Some(Row { table, key, value }))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Increment,
            database: 7 << 80 | 5,
            next_table: TableId::new(19),
            from: TxnId::new(3),
            to: TxnId::new(9),
            time_ns: 77,
            committed_ns: 78,
        }
    }

    #[test]
    fn headers_blocks_and_ends_come_back_as_written() {
        let encoded = header().encode();
        let (decoded, chain) = Header::decode(&encoded).unwrap();
        assert_eq!((decoded, chain), (header(), Header::chain(&encoded)));

        let mut payload = Vec::new();
        push_row(&mut payload, TableId::NAMES, b"t", b"");
        push_row(&mut payload, TableId::new(16), b"", b"value");
        let block = BlockHeader::of(BlockKind::Content, &payload, chain);
        let read = BlockHeader::decode(&block.encode(), chain).unwrap();
        assert_eq!(read, block);
        read.verify(&payload).unwrap();
        let mut rest = payload.as_slice();
        let mut rows = Vec::new();
        while let Some(row) = take_row(&mut rest).unwrap() {
            rows.push((row.table.get(), row.key, row.value));
        }
        assert_eq!(rows, [(0, &b"t"[..], &b""[..]), (16, b"", b"value")]);

        let end = End {
            count: 2,
            state: StateHash::from_bytes([9; 16]),
        };
        assert_eq!(End::decode(&end.encode()).unwrap(), end);
    }

    #[test]
    fn a_state_from_which_numbers_could_come_to_their_end_is_damage() {
        let decoded = |to: u64| {
            let to = TxnId::new(to);
            Header::decode(&Header { to, ..header() }.encode())
        };
        assert!(decoded(IDS_MAX / 2 - 1).is_ok());
        for to in [IDS_MAX / 2, IDS_MAX - 1, u64::MAX] {
            assert!(decoded(to).is_err(), "{to}");
        }
    }

    #[test]
    fn a_block_out_of_its_place_or_with_a_flipped_bit_is_damage() {
        let block = BlockHeader::of(BlockKind::Content, b"payload", 5);
        assert!(BlockHeader::decode(&block.encode(), 6).is_err());
        for bit in 0..8 * BLOCK_HEADER_BYTES {
            let mut bytes = block.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = BlockHeader::decode(&bytes, 5);
            let sound = read.and_then(|read| read.verify(b"payload"));
            assert!(sound.is_err(), "bit {bit}");
        }
        assert!(block.verify(b"Payload").is_err());
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_row_decoder(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while let Ok(Some(_)) = take_row(&mut rest) {}
        }
    }
}
