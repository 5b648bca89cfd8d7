use super::*;
use crate::ids::TableId;
use proptest::collection::vec;
use proptest::prelude::*;

/// An operation that owns its bytes, so that strategies can make it.
#[derive(Debug, Clone)]
enum OwnedOp {
    Put(u32, Vec<u8>, Vec<u8>),
    Delete(u32, Vec<u8>),
    DeleteRange(u32, Vec<u8>, Option<Vec<u8>>),
    DropTable(u32),
}

impl OwnedOp {
    fn view(&self) -> Op<'_> {
        let id = TableId::new;
        match self {
            Self::Put(table, key, value) => Op::Put {
                table: id(*table),
                key,
                value,
            },
            Self::Delete(table, key) => Op::Delete {
                table: id(*table),
                key,
            },
            Self::DeleteRange(table, from, to) => Op::DeleteRange {
                table: id(*table),
                from,
                to: to.as_deref(),
            },
            Self::DropTable(table) => Op::DropTable { table: id(*table) },
        }
    }
}

fn any_op() -> impl Strategy<Value = OwnedOp> {
    let key = || vec(any::<u8>(), 0..200);
    prop_oneof![
        (any::<u32>(), key(), vec(any::<u8>(), 0..2000))
            .prop_map(|(t, k, v)| OwnedOp::Put(t, k, v)),
        (any::<u32>(), key()).prop_map(|(t, k)| OwnedOp::Delete(t, k)),
        (any::<u32>(), key(), proptest::option::of(key()))
            .prop_map(|(t, from, to)| OwnedOp::DeleteRange(t, from, to)),
        any::<u32>().prop_map(OwnedOp::DropTable),
    ]
}

fn encode(txn: u64, tag: &[u8], ops: &OpWriter) -> Vec<u8> {
    let payload = [tag, ops.bytes()].concat();
    let sum = (payload.len(), crc32c(&payload));
    let (head, tail) = encode_frame(TxnId::new(txn), txn * 10, tag.len(), sum, ops.count());
    [&head, tag, ops.bytes(), &tail].concat()
}

fn writer(ops: &[OwnedOp]) -> OpWriter {
    let mut writer = OpWriter::new();
    ops.iter().for_each(|op| writer.push(op.view()));
    writer
}

proptest! {
    #[test]
    fn records_come_back_as_written(
        txn in 1..u64::MAX / 16, tag in vec(any::<u8>(), 0..100), ops in vec(any_op(), 0..20)
    ) {
        let mut bytes = encode(txn, &tag, &writer(&ops));
        bytes.extend_from_slice(b"next");
        let (record, rest) = Record::decode(&bytes).unwrap();
        prop_assert_eq!(rest, b"next");
        prop_assert_eq!((record.txn.get(), record.timestamp_ns, record.tag()), (txn, txn * 10, &tag[..]));
        let read: Vec<_> = record.ops().map(Result::unwrap).collect();
        prop_assert_eq!(read, ops.iter().map(OwnedOp::view).collect::<Vec<_>>());
    }

    #[test]
    fn a_truncated_writer_is_as_if_later_ops_never_were(
        ops in vec(any_op(), 0..10), later in vec(any_op(), 0..10)
    ) {
        let before = writer(&ops);
        let mut after = writer(&ops);
        let mark = after.mark();
        later.iter().for_each(|op| after.push(op.view()));
        after.truncate(mark);
        prop_assert_eq!((before.bytes(), before.count()), (after.bytes(), after.count()));
    }

    #[test]
    fn a_flipped_or_cut_record_is_noticed(
        ops in vec(any_op(), 1..4), at in any::<prop::sample::Index>(), bit in 0..8_u8
    ) {
        let bytes = encode(7, b"tag", &writer(&ops));
        let at = at.index(bytes.len());
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        prop_assert!(Record::decode(&damaged).is_err());
        prop_assert!(Record::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn random_bytes_never_panic_the_decoders(bytes in vec(any::<u8>(), 0..300), count in any::<u32>()) {
        prop_assert!(Record::decode(&bytes).is_err());
        prop_assert!(Ops::new(&bytes, count).count() <= bytes.len() + 1);
    }
}

#[test]
fn an_op_count_that_does_not_match_the_payload_is_an_error() {
    let ops = writer(&[
        OwnedOp::Delete(1, b"a".into()),
        OwnedOp::Delete(1, b"b".into()),
    ]);
    let fields: Vec<_> = [1, 2, 3]
        .map(|count| {
            Ops::new(ops.bytes(), count)
                .find_map(Result::err)
                .map(|error| error.field)
        })
        .into();
    assert_eq!(
        fields,
        [
            Some(RecordField::OpCount),
            None,
            Some(RecordField::Available)
        ]
    );
}

#[test]
fn hostile_numbers_in_ops_are_errors() {
    let cases: [(&[u8], RecordField); 7] = [
        (&[9, 0], RecordField::OpKind),
        (&[0, 0], RecordField::OpKind),
        (&[2, 0xff, 0xff, 0xff, 0xff, 0x1f, 0], RecordField::Table),
        (
            &[
                2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
            ],
            RecordField::Varint,
        ),
        (
            &[
                2, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
            ],
            RecordField::Varint,
        ),
        (&[2, 1, 0x81, 0x20, 0], RecordField::KeyLength),
        (
            &[
                1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            RecordField::Available,
        ),
    ];
    for (bytes, field) in cases {
        let mut ops = Ops::new(bytes, 1);
        assert_eq!(ops.next().unwrap().unwrap_err().field, field, "{bytes:x?}");
        assert!(ops.next().is_none());
    }
}

#[test]
fn unknown_flags_under_a_sound_checksum_are_an_error() {
    let bytes = encode(7, b"", &OpWriter::new());
    for at in [38, 39, 40, 47] {
        let mut newer = bytes.clone();
        newer[at] = 1;
        let checksum = crc32c(&newer[8..48]).to_le_bytes();
        newer[4..8].copy_from_slice(&checksum);
        assert_eq!(
            Record::decode(&newer).unwrap_err().field,
            RecordField::Flags
        );
    }
}

/// A record whose header says other things, under sound checksums.
fn retold(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Result<(), RecordField> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    let checksum = crc32c(&bytes[8..48]).to_le_bytes();
    bytes[4..8].copy_from_slice(&checksum);
    let decoded = Record::decode(&bytes);
    decoded.map(|_| ()).map_err(|error| error.field)
}

#[test]
fn lengths_beyond_their_limits_under_a_sound_checksum_are_named() {
    let put = |at: usize, value: u64, width: usize| {
        move |bytes: &mut [u8]| bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width])
    };
    let ops = writer(&[OwnedOp::Put(1, b"key".into(), vec![7; 2000])]);
    let bytes = encode(7, &[b't'; 1024], &ops);
    let (longest, longer) = (RECORD_BYTES_MAX as u64, RECORD_BYTES_MAX as u64 + 1);
    assert_eq!(retold(&bytes, |_| ()), Ok(()));
    assert_eq!(
        retold(&bytes, put(24, longest, 8)),
        Err(RecordField::Available)
    );
    assert_eq!(
        retold(&bytes, put(24, longer, 8)),
        Err(RecordField::PayloadLength)
    );
    assert_eq!(retold(&bytes, put(36, 1024, 2)), Ok(()));
    assert_eq!(
        retold(&bytes, put(36, 1025, 2)),
        Err(RecordField::TagLength)
    );
    let short = encode(7, b"tag", &OpWriter::new());
    assert_eq!(retold(&short, put(36, 3, 2)), Ok(()));
    assert_eq!(retold(&short, put(36, 4, 2)), Err(RecordField::TagLength));
    assert_eq!(retold(&short, put(8, 8, 8)), Err(RecordField::Trailer));
    // Only the low half of the id is in the trailer.
    assert_eq!(retold(&short, put(8, 7 + (1 << 32), 8)), Ok(()));
    let (record, _) = Record::decode(&short).unwrap();
    assert!(record.expect_txn(TxnId::new(7)).is_ok());
    let other = record.expect_txn(TxnId::new(8)).unwrap_err();
    assert_eq!(
        (other.field, other.found, other.expected),
        (RecordField::Txn, 7, 8)
    );
}

#[test]
fn the_longest_tag_keys_and_bounds_come_back() {
    let (key, bound) = (vec![7; 4096], vec![8; 4097]);
    let put = OwnedOp::Put(u32::MAX, key.clone(), Vec::new());
    let ops = writer(&[
        put,
        OwnedOp::Delete(1, key),
        OwnedOp::DeleteRange(1, bound.clone(), Some(bound)),
    ]);
    let bytes = encode(7, &[b't'; 1024], &ops);
    let (record, rest) = Record::decode(&bytes).unwrap();
    assert_eq!(
        (record.ops().filter_map(Result::ok).count(), rest.len()),
        (3, 0)
    );
    let (key, bound) = (vec![7; 4097], vec![8; 4098]);
    let longer = [
        OwnedOp::Put(1, key.clone(), Vec::new()),
        OwnedOp::Delete(1, key),
        OwnedOp::DeleteRange(1, bound.clone(), None),
        OwnedOp::DeleteRange(1, Vec::new(), Some(bound)),
    ];
    for op in longer {
        let ops = writer(&[op]);
        let error = ops.ops().find_map(Result::err).unwrap();
        assert_eq!(error.field, RecordField::KeyLength);
    }
}

#[test]
fn a_writer_knows_whether_and_what_it_holds() {
    let mut ops = OpWriter::new();
    assert!(ops.is_empty());
    ops.drop_table(TableId::new(300));
    assert!(!ops.is_empty());
    let walked: Vec<_> = ops.ops().map(Result::unwrap).collect();
    assert_eq!(
        walked,
        [Op::DropTable {
            table: TableId::new(300)
        }]
    );
    assert_eq!(walked[0].table(), TableId::new(300));
    assert_eq!(ops.into_bytes()[..], [4, 0xac, 2]);
}

#[test]
#[should_panic(expected = "bytes of tag")]
fn a_tag_beyond_the_limit_is_refused_before_it_is_written() {
    let _frame = encode_frame(TxnId::new(1), 0, TAG_BYTES_MAX + 1, (2000, 0), 0);
}

#[test]
#[should_panic(expected = "bytes in one record")]
fn a_record_beyond_the_limit_is_refused_before_it_is_written() {
    let _frame = encode_frame(TxnId::new(1), 0, 0, (RECORD_BYTES_MAX + 1, 0), 0);
}

#[test]
fn a_trailer_belongs_to_its_transaction() {
    for (txn, check) in [
        (0, 0x5243_534e_u32),
        (7, 0x5243_5349),
        ((1 << 32) + 1, 0x5243_534f),
    ] {
        let (_, tail) = encode_frame(TxnId::new(txn), 0, 0, (0, 9), 0);
        let expected = [9_u32.to_le_bytes(), check.to_le_bytes()].concat();
        assert_eq!(tail[..], expected);
    }
}
