//! Branches written and read back, and every contradiction that a branch can hold under a sound checksum.

#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]

use super::*;
use crate::format::page::seal;

const PAGE: usize = 4096;
const PREFIX: &[u8] = b"pre/";

type Child = (Vec<u8>, PageRef, Below);

fn child(suffix: &[u8], id: u64, rows: u64) -> Child {
    let page = PageRef {
        id: PageId::new(id),
        checksum: 7,
        generation: Generation::new(2),
    };
    let below = Below {
        rows,
        has_extents: id % 2 == 1,
    };
    ([PREFIX, suffix].concat(), page, below)
}

fn build(children: &[Child], prefix: &[u8], page_bytes: usize) -> Vec<u8> {
    let facts = BranchFacts {
        table: TableId::new(17),
        level: 1,
        count: children.len(),
        txn_max: 30,
        delete_txn_max: 20,
    };
    let mut page = vec![0xaa; page_bytes];
    let mut writer = BranchWriter::new(&mut page, facts, prefix);
    for (separator, page, below) in children {
        writer.push(separator, *page, *below);
    }
    writer.finish();
    page
}

fn sealed(page: &mut [u8]) -> Page<'_> {
    let id = PageId::new(9);
    seal(page, id, Generation::new(1), 77);
    Page::verify_unreferenced(page, id, 77).unwrap()
}

fn fault(page: &mut [u8]) -> Option<&'static str> {
    let checked = Branch::view(sealed(page)).and_then(|branch| branch.check());
    checked.err().map(|error| {
        let PageError::Structure { what, .. } = error else {
            panic!("{error}");
        };
        what
    })
}

#[test]
fn children_come_back_as_written_and_take_the_bytes_computed() {
    // Counts around those at which the child pointers begin right behind the heads.
    for count in 1..=9 {
        let children: Vec<Child> = (0..count)
            .map(|index| {
                let suffix = vec![b'a' + u8::try_from(index).unwrap(); 1 + 3 * index];
                child(&suffix, 100 + index as u64, [0, 63, 64, 1 << 40][index % 4])
            })
            .collect();
        let mut page = build(&children, PREFIX, PAGE);
        let bytes = |(index, (separator, _, below)): (usize, &Child)| match index {
            0 => child_bytes(0, *below),
            _ => child_bytes(separator.len() - PREFIX.len(), *below),
        };
        let bytes = children.iter().enumerate().map(bytes).sum::<usize>();
        assert!(padding(count) <= PADDING_BYTES_MAX);
        let used = HEADER_BYTES + padding(count) + PREFIX.len() + bytes;
        assert!(page[used..].iter().all(|byte| *byte == 0), "old bytes stay");
        let page = sealed(&mut page);
        let header = page.header();
        assert_eq!(header.used_bytes.get() as usize, used);
        assert_eq!((header.level, header.txn_max.get()), (1, 30));
        assert_eq!(header.delete_txn_max.get(), 20);
        assert_eq!(
            (page.kind(), page.table()),
            (PageKind::Branch, TableId::new(17))
        );
        let branch = Branch::view(page).unwrap();
        branch.check().unwrap();
        assert_eq!((branch.count(), branch.prefix()), (count, PREFIX));
        let mut key = b"other".to_vec();
        for (index, (separator, page, below)) in children.iter().enumerate() {
            assert_eq!(branch.child(index).unwrap(), *page);
            assert_eq!(branch.below(index).unwrap(), *below);
            if index > 0 {
                branch.separator_into(index, &mut key).unwrap();
                assert_eq!(key, *separator);
            }
        }
        assert_eq!(branch.separator(0).unwrap().len, 0);
        assert!(branch.child(count).is_err() && branch.below(count).is_err());
        assert!(branch.separator(count).is_err());
    }
}

#[test]
fn padding_brings_the_child_pointers_to_a_multiple_of_their_size() {
    let counts = [1, 2, 3, 4, 5, 8, 767, 768];
    assert_eq!(counts.map(padding), [12, 8, 4, 0, 12, 0, 4, 0]);
    assert_eq!(PADDING_BYTES_MAX, 12);
    let below = |rows, has_extents| Below { rows, has_extents };
    assert_eq!(child_bytes(0, below(63, true)), 6 + 16 + 1 + 1);
    assert_eq!(child_bytes(4, below(64, false)), 6 + 16 + 1 + 2);
    assert_eq!(child_bytes(127, below(0, false)), 6 + 16 + 1 + 123 + 1);
    assert_eq!(child_bytes(128, below(0, false)), 6 + 16 + 2 + 124 + 1);
}

#[test]
fn every_contradiction_of_a_branch_is_named() {
    let children = [
        child(b"", 10, 1),
        child(b"ab", 11, 2),
        child(b"cdefgh", 12, 3),
    ];
    let sound = build(&children, PREFIX, PAGE);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut page = sound.clone();
        change(&mut page);
        fault(&mut page)
    };
    let slots = HEADER_BYTES + 16 + 3 * REF_BYTES;
    let heap = slots + 3 * size_of::<U16>() + PREFIX.len();
    assert_eq!(damaged(&|_| ()), None);
    assert_eq!(damaged(&|page| page[7] = 0), Some("level"));
    assert_eq!(damaged(&|page| page[7] = LEVEL_MAX), None);
    assert_eq!(damaged(&|page| page[7] = LEVEL_MAX + 1), Some("level"));
    assert_eq!(
        damaged(&|page| page[24..26].fill(0xff)),
        Some("entry count")
    );
    assert_eq!(damaged(&|page| page[24..26].fill(0)), Some("child count"));
    assert_eq!(usize::from(sound[slots]), heap);
    assert_eq!(
        damaged(&|page| page[slots] = u8::try_from(heap).unwrap() - 1),
        Some("slot")
    );
    assert_eq!(
        damaged(&|page| page[heap] = 4),
        Some("first separator's length")
    );
    let head = HEADER_BYTES + HEAD_BYTES;
    assert_eq!(damaged(&|page| page[head] = 1), Some("head"));
    assert_eq!(
        damaged(&|page| page[head + 3] = b'c'),
        None,
        "still below the next"
    );
    assert_eq!(
        damaged(&|page| page[head + 3] = b'd'),
        Some("separator order")
    );
    let twins = [child(b"", 10, 1), child(b"ab", 11, 2), child(b"ab", 12, 3)];
    assert_eq!(
        fault(&mut build(&twins, PREFIX, PAGE)),
        Some("separator order")
    );
}

#[test]
fn separators_are_neither_empty_nor_longer_than_the_longest_key() {
    let first = || (Vec::new(), child(b"", 10, 1).1, child(b"", 10, 1).2);
    let second = |len: usize| (vec![b'k'; len], child(b"", 11, 1).1, child(b"", 11, 1).2);
    for prefix in [0, 1, 500] {
        let prefix = vec![b'k'; prefix];
        let checked = |len| fault(&mut build(&[first(), second(len)], &prefix, PAGE));
        assert_eq!(checked(1024), None);
        assert_eq!(checked(1025), Some("separator length"));
        if prefix.is_empty() {
            assert_eq!(checked(0), Some("separator length"));
        } else {
            assert_eq!(checked(prefix.len()), None);
        }
    }
}

#[test]
fn a_branch_has_at_most_as_many_children_as_the_cache_keeps_hints_for() {
    let many = |count: u64| {
        let children = (0..count).map(|index| {
            let (_, page, below) = child(b"", 10, 1);
            (
                u32::try_from(index).unwrap().to_be_bytes().to_vec(),
                page,
                below,
            )
        });
        fault(&mut build(&children.collect::<Vec<_>>(), b"", 65536))
    };
    assert_eq!(many(CHILDREN_MAX as u64), None);
    assert_eq!(many(CHILDREN_MAX as u64 + 1), Some("child count"));
}

#[test]
#[should_panic(expected = "as many children as announced")]
fn a_branch_with_fewer_children_than_announced_is_not_finished() {
    let facts = BranchFacts {
        table: TableId::new(17),
        level: 1,
        count: 2,
        txn_max: 1,
        delete_txn_max: 0,
    };
    let mut page = vec![0; PAGE];
    let mut writer = BranchWriter::new(&mut page, facts, b"");
    let (separator, reference, below) = child(b"", 10, 1);
    writer.push(&separator, reference, below);
    writer.finish();
}
