//! The 64 bytes that begin every group of the commit log: what one durable write carried.
//!
//! A group starts at a 4 KiB boundary of the log and is padded with zeros to the next one. Recycled files hold
//! groups of earlier positions; they never parse, because a header carries its own position, its database and the
//! checksum of the header before it.
//!
//! Invariants:
//! 1. The header checksum covers the payload checksum: it is the next group's chain. It tells groups apart by all but
//!    the payloads of their records, which cancel out against the records' own checksums.
//! 2. `durable_through` is at or below the group's own position: a group can only prove what came before it.
//!
//! - Units: positions and lengths in bytes of the log stream.
//! - Failure: every contradiction is a [`GroupError`] with what was expected and found. Spec: CR-001, CR-002.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use northstar_io::planted::planted;

use super::checksum::crc32c;
use super::record::FRAME_BYTES;
use crate::ids::{Lsn, TxnId};
use crate::limits::{GROUP_BYTES_MAX, LOG_BLOCK_BYTES, RECORD_BYTES_MAX};

/// "NSLG" as little-endian bytes.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"NSLG");
/// Version of the group format.
pub(crate) const FORMAT: u16 = 0;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = size_of::<GroupHeader>();
/// Longest group: one record of the largest size, alone in its group, padded.
pub(crate) const LEN_BYTES_MAX: u64 =
    (HEADER_BYTES + FRAME_BYTES + RECORD_BYTES_MAX).next_multiple_of(LOG_BLOCK_BYTES) as u64;

const _: () = assert!(LEN_BYTES_MAX >= GROUP_BYTES_MAX as u64);

/// Bytes 0..64 of every group. Torn by a crash: yes, as is all that follows; the two checksums tell.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GroupHeader {
    /// [`MAGIC`].
    magic: U32,
    /// CRC-32C of bytes 8..64.
    header_checksum: U32,
    /// CRC-32C of everything after the header, the zero padding included.
    payload_checksum: U32,
    /// `header_checksum` of the group before; the seed kept in meta for the first.
    previous: U32,
    /// The group's own position: stale and misdirected blocks are told by it.
    lsn: U64,
    /// Length of the group with header and padding, a multiple of 4 KiB.
    len_bytes: U64,
    /// Low 64 bits of the database's id.
    database: U64,
    /// Everything before this position was known durable when the group was sealed.
    durable_through: U64,
    /// Id of the first record's transaction; the others follow without a gap.
    first_txn: U64,
    /// Records in the group, at least one.
    record_count: U32,
    /// [`FORMAT`]; another number is a newer log.
    format: U16,
    /// Zero.
    reserved: U16,
}

const _: () = assert!(size_of::<GroupHeader>() == 64);

/// The field of a group that contradicts what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupField {
    /// Fewer bytes at hand than the group needs.
    Available,
    /// Not the beginning of a group.
    Magic,
    /// The header is torn or rotten.
    HeaderChecksum,
    /// The payload is torn or rotten.
    PayloadChecksum,
    /// A newer format.
    Format,
    /// A group of another position: stale or misdirected.
    Position,
    /// A group of another database.
    Database,
    /// The length is no multiple of 4 KiB or beyond the limit.
    Length,
    /// The group does not follow the one before it.
    Previous,
    /// The group claims durability beyond its own position.
    DurableThrough,
    /// No record, or more than the length can hold.
    RecordCount,
    /// Transaction ids leave a gap or repeat.
    FirstTxn,
    /// Bytes beyond the last record are not zero, or reserved bits are set.
    Padding,
}

/// What reading one group can report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("group at {at}: {field:?} is {found:#x}, expected {expected:#x}")]
pub(crate) struct GroupError {
    /// The position that was read.
    pub(crate) at: Lsn,
    /// What contradicts.
    pub(crate) field: GroupField,
    /// The value or bound that would have passed.
    pub(crate) expected: u64,
    /// The value met.
    pub(crate) found: u64,
}

impl GroupError {
    /// Whether a crash can leave this. What can't be its doing is a sound header, at its own position, that contradicts itself:
    /// it was written whole.
    pub(crate) const fn may_be_torn(&self) -> bool {
        match self.field {
            GroupField::Available
            | GroupField::Magic
            | GroupField::Position
            | GroupField::HeaderChecksum
            | GroupField::PayloadChecksum
            | GroupField::Previous => true,
            GroupField::Format
            | GroupField::Database
            | GroupField::Length
            | GroupField::DurableThrough
            | GroupField::RecordCount
            | GroupField::FirstTxn
            | GroupField::Padding => false,
        }
    }
}

/// The meaning of a sound group header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Where the group begins.
    pub(crate) lsn: Lsn,
    /// Length with header and padding, a multiple of 4 KiB and at most [`LEN_BYTES_MAX`].
    pub(crate) len_bytes: u64,
    /// Low 64 bits of the database's id.
    pub(crate) database: u64,
    /// The chain value of the group before.
    pub(crate) previous: u32,
    /// CRC-32C of everything after the header.
    pub(crate) payload_checksum: u32,
    /// Known durable when sealed.
    pub(crate) durable_through: Lsn,
    /// The first record's transaction.
    pub(crate) first_txn: TxnId,
    /// Records in the group.
    pub(crate) record_count: u32,
}

impl Group {
    /// Where the next group begins.
    pub(crate) fn end(&self) -> Lsn {
        self.lsn.plus(self.len_bytes)
    }

    /// The header's bytes and its checksum, which is the chain value for the group that follows.
    pub(crate) fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut header = GroupHeader {
            magic: MAGIC.into(),
            header_checksum: 0.into(),
            payload_checksum: self.payload_checksum.into(),
            previous: self.previous.into(),
            lsn: self.lsn.get().into(),
            len_bytes: self.len_bytes.into(),
            database: self.database.into(),
            durable_through: self.durable_through.get().into(),
            first_txn: self.first_txn.get().into(),
            record_count: self.record_count.into(),
            format: FORMAT.into(),
            reserved: 0.into(),
        };
        let checksum = header_checksum(&header);
        header.header_checksum = checksum.into();
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(header.as_bytes());
        (bytes, checksum)
    }

    /// Checks the header that `bytes` begin with, read from position `at`. Gives it with its chain value.
    ///
    /// # Errors
    /// Whatever in it contradicts itself, `at` or `database`. The payload is not looked at.
    pub(crate) fn decode(bytes: &[u8], at: Lsn, database: u64) -> Result<(Self, u32), GroupError> {
        let expect = |field, found: u64, expected: u64| {
            if found == expected {
                return Ok(());
            }
            Err(GroupError {
                at,
                field,
                expected,
                found,
            })
        };
        let Ok((header, _)) = GroupHeader::ref_from_prefix(bytes) else {
            return Err(GroupError {
                at,
                field: GroupField::Available,
                expected: HEADER_BYTES as u64,
                found: bytes.len() as u64,
            });
        };
        expect(GroupField::Magic, header.magic.get().into(), MAGIC.into())?;
        // Before the checksum: nearly all that recycled files hold is told by this one comparison.
        if !planted("a group may be of another place and time") {
            expect(GroupField::Position, header.lsn.get(), at.get())?;
        }
        let checksum = header_checksum(header);
        expect(
            GroupField::HeaderChecksum,
            checksum.into(),
            header.header_checksum.get().into(),
        )?;
        expect(
            GroupField::Format,
            header.format.get().into(),
            FORMAT.into(),
        )?;
        expect(GroupField::Padding, header.reserved.get().into(), 0)?;
        expect(GroupField::Database, header.database.get(), database)?;
        let len_bytes = header.len_bytes.get();
        let block = LOG_BLOCK_BYTES as u64;
        if len_bytes == 0 || len_bytes > LEN_BYTES_MAX || !len_bytes.is_multiple_of(block) {
            expect(GroupField::Length, len_bytes, LEN_BYTES_MAX)?;
        }
        if at.get().checked_add(len_bytes).is_none() {
            expect(GroupField::Length, len_bytes, u64::MAX - at.get())?;
        }
        if header.durable_through.get() > at.get() {
            expect(
                GroupField::DurableThrough,
                header.durable_through.get(),
                at.get(),
            )?;
        }
        let records_max = len_bytes / FRAME_BYTES as u64;
        let record_count = header.record_count.get();
        if record_count == 0 || u64::from(record_count) > records_max {
            expect(GroupField::RecordCount, record_count.into(), records_max)?;
        }
        let first_txn = header.first_txn.get();
        if first_txn == 0 || first_txn.checked_add(record_count.into()).is_none() {
            expect(GroupField::FirstTxn, first_txn, 1)?;
        }
        let group = Self {
            lsn: at,
            len_bytes,
            database,
            previous: header.previous.get(),
            payload_checksum: header.payload_checksum.get(),
            durable_through: Lsn::new(header.durable_through.get()),
            first_txn: TxnId::new(first_txn),
            record_count,
        };
        Ok((group, checksum))
    }

    /// Checks the whole group's bytes against the payload checksum and gives the payload: records, then zeros.
    ///
    /// # Errors
    /// [`GroupField::Available`] or [`GroupField::PayloadChecksum`].
    pub(crate) fn payload<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], GroupError> {
        let error = |field, expected, found| GroupError {
            at: self.lsn,
            field,
            expected,
            found,
        };
        let payload = usize::try_from(self.len_bytes)
            .ok()
            .and_then(|len| bytes.get(HEADER_BYTES..len))
            .ok_or_else(|| error(GroupField::Available, self.len_bytes, bytes.len() as u64))?;
        let found = crc32c(payload);
        if found != self.payload_checksum {
            let stored = self.payload_checksum.into();
            return Err(error(GroupField::PayloadChecksum, stored, found.into()));
        }
        Ok(payload)
    }

    /// Fails unless `rest`, what follows the last record, is less than a block of zeros.
    ///
    /// # Errors
    /// [`GroupField::Padding`] with the number of bytes from the first offending one on.
    pub(crate) fn check_padding(&self, rest: &[u8]) -> Result<(), GroupError> {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        if zeros == rest.len() && zeros < LOG_BLOCK_BYTES {
            return Ok(());
        }
        Err(GroupError {
            at: self.lsn,
            field: GroupField::Padding,
            expected: 0,
            found: (rest.len() - zeros).max(1) as u64,
        })
    }
}

/// True if `block` claims to be a group of this position: worth decoding when looking ahead.
pub(crate) fn claims_position(block: &[u8], at: Lsn) -> bool {
    GroupHeader::ref_from_prefix(block)
        .is_ok_and(|(header, _)| header.magic.get() == MAGIC && header.lsn.get() == at.get())
}

/// The database whose group `block` claims to be, true or not.
pub(crate) fn claimed_database(block: &[u8]) -> Option<u64> {
    let (header, _) = GroupHeader::ref_from_prefix(block).ok()?;
    Some(header.database.get())
}

fn header_checksum(header: &GroupHeader) -> u32 {
    crc32c(header.as_bytes().get(8..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(lsn: u64, blocks: u64, records: u32) -> Group {
        Group {
            lsn: Lsn::new(lsn * 4096),
            len_bytes: blocks * 4096,
            database: 77,
            previous: 5,
            payload_checksum: 6,
            durable_through: Lsn::new(lsn * 4096),
            first_txn: TxnId::new(9),
            record_count: records,
        }
    }

    #[test]
    fn group_headers_come_back_as_written_and_only_at_their_own_position() {
        for lsn in [0, 1, 4095, 1 << 40] {
            let group = group(lsn, 3, 2);
            let (bytes, checksum) = group.encode();
            assert_eq!(Group::decode(&bytes, group.lsn, 77), Ok((group, checksum)));
            let moved = Group::decode(&bytes, group.lsn.plus(4096), 77).unwrap_err();
            assert_eq!(moved.field, GroupField::Position);
            let foreign = Group::decode(&bytes, group.lsn, 78).unwrap_err();
            assert_eq!(foreign.field, GroupField::Database);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_group_header_is_noticed() {
        let (bytes, _) = group(3, 1, 1).encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Group::decode(&damaged, Lsn::new(3 * 4096), 77).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn impossible_fields_under_a_sound_checksum_are_errors() {
        let sound = group(3, 1, 1);
        let cases = [
            (
                Group {
                    len_bytes: 0,
                    ..sound
                },
                GroupField::Length,
            ),
            (
                Group {
                    len_bytes: 4097,
                    ..sound
                },
                GroupField::Length,
            ),
            (
                Group {
                    len_bytes: LEN_BYTES_MAX + 4096,
                    ..sound
                },
                GroupField::Length,
            ),
            (
                Group {
                    durable_through: Lsn::new(3 * 4096 + 1),
                    ..sound
                },
                GroupField::DurableThrough,
            ),
            (
                Group {
                    record_count: 0,
                    ..sound
                },
                GroupField::RecordCount,
            ),
            (
                Group {
                    record_count: 4096,
                    ..sound
                },
                GroupField::RecordCount,
            ),
            (
                Group {
                    first_txn: TxnId::ZERO,
                    ..sound
                },
                GroupField::FirstTxn,
            ),
            (
                Group {
                    first_txn: TxnId::MAX,
                    ..sound
                },
                GroupField::FirstTxn,
            ),
        ];
        for (group, field) in cases {
            let (bytes, _) = group.encode();
            assert_eq!(
                Group::decode(&bytes, sound.lsn, 77).unwrap_err().field,
                field
            );
        }
    }

    #[test]
    fn the_largest_that_is_allowed_passes() {
        let sound = group(3, 1, 1);
        assert_eq!(LEN_BYTES_MAX, (256 << 20) + 4096);
        // A record takes at least its frame.
        let records_max = 4096 / 56;
        let cases = [
            Group {
                len_bytes: LEN_BYTES_MAX,
                ..sound
            },
            Group {
                record_count: records_max,
                ..sound
            },
            Group {
                durable_through: Lsn::new(0),
                ..sound
            },
            Group {
                first_txn: TxnId::new(1),
                ..sound
            },
            Group {
                first_txn: TxnId::new(u64::MAX - 1),
                ..sound
            },
        ];
        for group in cases {
            let (bytes, checksum) = group.encode();
            assert_eq!(Group::decode(&bytes, sound.lsn, 77), Ok((group, checksum)));
        }
        let more = Group {
            record_count: records_max + 1,
            ..sound
        };
        let error = Group::decode(&more.encode().0, sound.lsn, 77).unwrap_err();
        assert_eq!(
            (error.field, error.expected),
            (GroupField::RecordCount, records_max.into())
        );
        let odd = Group {
            len_bytes: 3 * 4096 + 5,
            ..sound
        };
        let error = Group::decode(&odd.encode().0, sound.lsn, 77).unwrap_err();
        assert_eq!(
            (error.field, error.expected),
            (GroupField::Length, LEN_BYTES_MAX)
        );
        let last = Lsn::new(u64::MAX - 4095);
        let (bytes, _) = Group { lsn: last, ..sound }.encode();
        let error = Group::decode(&bytes, last, 77).unwrap_err();
        assert_eq!((error.field, error.expected), (GroupField::Length, 4095));
        let before = Lsn::new(u64::MAX - 8191);
        let (bytes, _) = Group {
            lsn: before,
            ..sound
        }
        .encode();
        let (group, _) = Group::decode(&bytes, before, 77).unwrap();
        assert_eq!(group.end(), last);
    }

    #[test]
    fn newer_formats_and_reserved_bits_are_named() {
        let sound = group(3, 1, 1);
        for (at, field) in [(60, GroupField::Format), (62, GroupField::Padding)] {
            let (mut bytes, _) = sound.encode();
            bytes[at] = 1;
            let checksum = crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
            let error = Group::decode(&bytes, sound.lsn, 77).unwrap_err();
            assert_eq!((error.field, error.found, error.expected), (field, 1, 0));
        }
        let short = Group::decode(&[0; 63], sound.lsn, 77).unwrap_err();
        assert_eq!((short.field, short.found), (GroupField::Available, 63));
        let zeros = Group::decode(&[0; 64], sound.lsn, 77).unwrap_err();
        assert_eq!(zeros.field, GroupField::Magic);
    }

    #[test]
    fn a_block_claims_a_position_by_its_text_and_its_own_word() {
        let (mut bytes, _) = group(3, 1, 1).encode();
        let at = Lsn::new(3 * 4096);
        assert!(claims_position(&bytes, at));
        assert!(!claims_position(&bytes, at.plus(4096)));
        assert!(!claims_position(&bytes[..63], at));
        bytes[0] ^= 1;
        assert!(!claims_position(&bytes, at));
    }

    #[test]
    fn a_payload_is_whole_and_what_follows_the_last_record_is_less_than_a_block_of_zeros() {
        let bytes = [7; 8192];
        let group = Group {
            payload_checksum: crc32c(&bytes[64..4096]),
            ..group(3, 1, 1)
        };
        assert_eq!(group.payload(&bytes), Ok(&bytes[64..4096]));
        let cut = group.payload(&bytes[..4095]).unwrap_err();
        assert_eq!((cut.field, cut.found), (GroupField::Available, 4095));
        let other = Group {
            payload_checksum: 6,
            ..group
        };
        let torn = other.payload(&bytes).unwrap_err();
        assert_eq!(torn.field, GroupField::PayloadChecksum);

        let padding = |rest: &[u8]| group.check_padding(rest).map_err(|error| error.found);
        assert_eq!(padding(&[]), Ok(()));
        assert_eq!(padding(&[0; 4095]), Ok(()));
        assert_eq!(padding(&[0; 4096]), Err(1));
        assert_eq!(padding(&[0, 0, 5, 0]), Err(2));
        assert_eq!(padding(&[5]), Err(1));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_group_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Group::decode(&bytes, Lsn::new(4096), 77).is_err());
        }
    }
}
