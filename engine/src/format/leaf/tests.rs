//! Leaves written and read back, and every contradiction that a leaf can hold under a sound checksum.

#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]

use super::*;
use crate::format::page::seal;
use crate::ids::{Generation, PageId};

const PAGE: usize = 4096;
const PREFIX: &[u8] = b"pre/";

/// Key, transaction, tail, and whether the tail is an extent's name.
type Entry = (Vec<u8>, u64, Vec<u8>, bool);

fn row(suffix: &[u8], txn: u64, value: &[u8]) -> Entry {
    ([PREFIX, suffix].concat(), txn, value.to_vec(), false)
}

fn build(rows: &[Entry], prefix: &[u8]) -> Vec<u8> {
    let txns = rows.iter().map(|(_, txn, _, _)| *txn);
    let facts = LeafFacts {
        table: TableId::new(17),
        count: rows.len(),
        txn_min: txns.clone().min().unwrap_or_default(),
        txn_max: txns.max().unwrap_or_default(),
        delete_txn_max: 5,
    };
    let mut page = vec![0xaa; PAGE];
    let mut writer = LeafWriter::new(&mut page, facts, prefix);
    for (key, txn, tail, is_extent) in rows {
        writer.push(key, *txn, tail, *is_extent);
    }
    writer.finish();
    page
}

/// The page under a sound checksum.
fn sealed(page: &mut [u8]) -> Page<'_> {
    let id = PageId::new(9);
    seal(page, id, Generation::new(1), 77);
    Page::verify_unreferenced(page, id, 77).unwrap()
}

fn fault(page: &mut [u8]) -> Option<&'static str> {
    let checked = Leaf::view(sealed(page)).and_then(|leaf| leaf.check());
    checked.err().map(|error| {
        let PageError::Structure { what, .. } = error else {
            panic!("{error}");
        };
        what
    })
}

fn put_u16(page: &mut [u8], at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn get_u16(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

#[test]
fn rows_come_back_as_written_and_take_the_bytes_computed() {
    let extent = ExtentRef {
        first: PageId::new(1 << 33),
        value_len: 70_000,
        generation: Generation::new(3),
        checksum: 4,
    };
    for span in [
        0,
        1,
        0xff_ffff,
        0x100_0000,
        u64::from(u32::MAX),
        u64::MAX >> 8,
    ] {
        let rows = [
            row(b"", 40, b""),
            row(b"a", 40 + span, &[7; 127]),
            row(b"abc", 40, &[8; 128]),
            (
                [PREFIX, b"abcd"].concat(),
                41.min(40 + span),
                extent.encode().to_vec(),
                true,
            ),
            row(&[b'b'; 70], 40 + span / 2, &[9; 1024]),
            // The last row ends with its transaction, and the bytes in use with it.
            row(b"c", 40 + span, b""),
        ];
        let mut page = build(&rows, PREFIX);
        let bytes = |(key, _, tail, is_extent): &Entry| {
            let width = txn_bytes(span);
            row_bytes(key.len() - PREFIX.len(), tail.len(), *is_extent, width)
        };
        let used = HEADER_BYTES + PREFIX.len() + rows.iter().map(bytes).sum::<usize>();
        assert!(page[used..].iter().all(|byte| *byte == 0), "old bytes stay");
        let page = sealed(&mut page);
        assert_eq!(page.header().used_bytes.get() as usize, used);
        assert_eq!(page.header().delete_txn_max.get(), 5);
        assert_eq!(
            (page.kind(), page.table()),
            (PageKind::Leaf, TableId::new(17))
        );
        let leaf = Leaf::view(page).unwrap();
        leaf.check().unwrap();
        assert_eq!((leaf.count(), leaf.prefix()), (rows.len(), PREFIX));
        for (index, (key, txn, tail, is_extent)) in rows.iter().enumerate() {
            let row = leaf.row(index).unwrap();
            let mut whole = PREFIX.to_vec();
            row.suffix.append_to(&mut whole);
            assert_eq!((&whole, row.txn.get()), (key, *txn), "{span:#x}");
            assert_eq!(leaf.suffix(index).unwrap().len, key.len() - PREFIX.len());
            let value = match is_extent {
                true => RowValue::Extent(extent),
                false => RowValue::Inline(tail),
            };
            assert_eq!(row.value, value);
        }
        assert!(leaf.row(rows.len()).is_err());
    }
}

#[test]
fn limits_and_widths_are_what_the_format_says() {
    assert_eq!([4096, 16384, 65536].map(key_bytes_max), [1024, 4096, 4096]);
    assert_eq!(
        [4096, 16384, 65536].map(inline_bytes_max),
        [1024, 4096, 16384]
    );
    let spans = [0, 0xff_ffff, 0x100_0000, 0xffff_ffff, 1 << 32, u64::MAX];
    assert_eq!(spans.map(txn_bytes), [3, 3, 4, 4, 5, 8]);
    assert_eq!(row_bytes(116, 0, false, 3), 6 + 2 + 3 + 112 + 1);
    assert_eq!(row_bytes(3, 200, false, 3), 6 + 1 + 3 + 2 + 200);
    assert_eq!(row_bytes(63, 200, true, 4), 6 + 1 + 4 + 59 + 20);
    assert_eq!(row_bytes(64, 200, true, 4), 6 + 2 + 4 + 60 + 20);
}

#[test]
fn every_contradiction_of_a_leaf_is_named() {
    let rows = [
        row(b"ab", 40, b"one"),
        row(b"cdefgh", 41, b"two"),
        row(b"x", 90, b""),
    ];
    let sound = build(&rows, PREFIX);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut page = sound.clone();
        change(&mut page);
        fault(&mut page)
    };
    let slots = HEADER_BYTES + rows.len() * HEAD_BYTES;
    let heap = slots + rows.len() * size_of::<U16>() + PREFIX.len();
    assert_eq!(damaged(&|_| ()), None);
    assert_eq!(damaged(&|page| page[7] = 1), Some("level"));
    assert_eq!(
        damaged(&|page| page[24..26].fill(0xff)),
        Some("entry count")
    );
    // The first row is where the heap begins; a byte earlier is the prefix.
    assert_eq!(usize::from(get_u16(&sound, slots)), heap);
    assert_eq!(
        damaged(&|page| put_u16(page, slots, u16::try_from(heap).unwrap() - 1)),
        Some("slot")
    );
    assert_eq!(damaged(&|page| put_u16(page, slots + 4, 4095)), Some("row"));
    assert_eq!(damaged(&|page| page[HEADER_BYTES] = 1), Some("head"));
    assert_eq!(damaged(&|page| page[40] = 89), Some("row txn"));
    assert_eq!(damaged(&|page| page[40] = 91), None);
    let head = HEADER_BYTES + HEAD_BYTES;
    assert_eq!(damaged(&|page| page[head + 3] = b'x'), Some("row order"));
    assert_eq!(damaged(&|page| page[head + 3] = b'A'), Some("row order"));
    assert_eq!(fault(&mut build(&[], b"")), Some("row count"));
    let twins = [row(b"ab", 40, b"one"), row(b"ab", 41, b"two")];
    assert_eq!(fault(&mut build(&twins, PREFIX)), Some("row order"));
}

#[test]
fn the_longest_key_and_inline_value_pass_and_longer_ones_do_not() {
    for prefix in [0, 1, 500] {
        let key = |len: usize| (vec![b'k'; len], 1, b"value".to_vec(), false);
        let (longest, longer) = (key(1024), key(1025));
        assert_eq!(fault(&mut build(&[longest], &vec![b'k'; prefix])), None);
        assert_eq!(
            fault(&mut build(&[longer], &vec![b'k'; prefix])),
            Some("key length")
        );
    }
    assert_eq!(fault(&mut build(&[row(b"k", 1, &[7; 1024])], PREFIX)), None);
    assert_eq!(
        fault(&mut build(&[row(b"k", 1, &[7; 1025])], PREFIX)),
        Some("inline value length")
    );
}

#[test]
#[should_panic(expected = "as many rows as announced")]
fn a_leaf_with_fewer_rows_than_announced_is_not_finished() {
    let facts = LeafFacts {
        table: TableId::new(17),
        count: 2,
        txn_min: 1,
        txn_max: 1,
        delete_txn_max: 0,
    };
    let mut page = vec![0; PAGE];
    let mut writer = LeafWriter::new(&mut page, facts, b"");
    writer.push(b"only", 1, b"", false);
    writer.finish();
}
