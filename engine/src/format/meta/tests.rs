//! Meta pages written, read back, damaged and refused.

#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::format::page::seal;

/// A meta record with something in every field.
pub(crate) fn sample(generation: u32) -> Meta {
    let root = TreeRoot {
        page: PageRef {
            id: PageId::new(9),
            checksum: 8,
            generation: Generation::new(7),
        },
        level: 2,
        rows: 1 << 40,
    };
    let mut meta = Meta {
        database: 0x1234_5678_9abc_def0_1122_3344_5566_7788,
        page_bytes: 4096,
        segment_bytes: 1 << 20,
        generation: Generation::new(generation),
        tree_txn: TxnId::new(4),
        log_start: crate::ids::LogPosition {
            lsn: Lsn::new(8192),
            checksum: 5,
            last_txn: TxnId::new(3),
        },
        durable_through: Lsn::new(12288),
        next_table: TableId::new(17),
        names: Some(root),
        roots: None,
        history: Some(HistoryMeta {
            runs: Some(root),
            horizon: TxnId::new(2),
            policy: Retention::Txns(9),
            state: StateHash::from_bytes([7; 16]),
        }),
        free_directory: Some(root.page),
        pages: 40,
        created_ns: 1,
        checkpoint_ns: 2,
        clean: true,
        restoring: true,
        machine: 0,
        sync_method: 0,
    };
    meta.remember_sync_method(SyncMethod::RingDsync, 77);
    meta
}

fn write(meta: &Meta, copy: u64, page: &mut [u8]) {
    meta.encode(page);
    seal(
        page,
        PageId::new(copy),
        meta.generation,
        meta.database_low(),
    );
}

#[test]
fn a_meta_page_comes_back_as_it_was() {
    let (meta, mut page) = (sample(6), vec![0; 4096]);
    write(&meta, 2, &mut page);
    assert_eq!(Meta::claimed_page_bytes(&page), Some(4096));
    assert_eq!(meta.database_low(), 0x1122_3344_5566_7788);
    let back = Meta::decode(&page, PageId::new(2)).unwrap();
    assert_eq!(back, meta);
    assert_eq!(back.sync_method(77), Some(SyncMethod::RingDsync));
    assert_eq!(back.sync_method(78), None);
    assert!(
        Meta::decode(&page, PageId::new(0)).is_err(),
        "another place"
    );
    let mut odd = vec![0; 4096];
    write(&meta, 1, &mut odd);
    assert!(
        Meta::decode(&odd, PageId::new(1)).is_err(),
        "the other slot"
    );
}

#[test]
fn a_tree_root_comes_back_as_it_was_and_wild_ones_do_not() {
    let root = sample(0).names.unwrap();
    assert_eq!(TreeRoot::decode(&root.encode()), Some(root));
    assert_eq!(TreeRoot::decode(&[0; 32]), None);
    assert_eq!(TreeRoot::decode(&[0xff; 32]), None);
    assert_eq!(TreeRoot::decode(&[1; 31]), None);
    for (id, sound) in [(COPIES - 1, false), (COPIES, true), (PAGES_MAX - 1, true)] {
        let page = PageRef {
            id: PageId::new(id),
            ..root.page
        };
        let root = TreeRoot { page, ..root };
        assert_eq!(TreeRoot::decode(&root.encode()).is_some(), sound, "{id}");
    }
}

#[test]
fn an_unknown_feature_and_a_newer_format_are_named() {
    let mut page = vec![0; 4096];
    write(&sample(6), 0, &mut page);
    let mut feature = page.clone();
    feature[HEADER_BYTES + 24 + 5] = 2;
    let generation = Generation::new(6);
    seal(
        &mut feature,
        PageId::new(0),
        generation,
        sample(6).database_low(),
    );
    assert_eq!(
        Meta::decode(&feature, PageId::new(0)),
        Err(MetaError::Feature { bit: 41 })
    );
    page[HEADER_BYTES + 16] = 9;
    let checksum = crate::format::checksum::crc32c(&page[4..]);
    page[..4].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(
        Meta::decode(&page, PageId::new(0)),
        Err(MetaError::Format { found: 9 })
    );
}

/// Also behind a right checksum: what a program, not a disk, has damaged.
#[test]
fn hostile_bytes_never_panic() {
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..20_000 {
        let mut page = vec![0; 4096];
        write(&sample(6), 0, &mut page);
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(4..USED_BYTES);
            page[at] = random.random();
        }
        if round % 2 == 0 {
            let checksum = crate::format::checksum::crc32c(&page[4..]);
            page[..4].copy_from_slice(&checksum.to_le_bytes());
        }
        let cut = random.random_range(0..=page.len());
        for bytes in [&page[..], &page[..cut]] {
            let _any = Meta::claimed_page_bytes(bytes);
            if let Ok(meta) = Meta::decode(bytes, PageId::new(0)) {
                assert_eq!(meta.page_bytes, 4096);
            }
        }
    }
}

#[test]
fn ids_with_no_room_to_go_on_and_positions_inside_a_block_are_refused() {
    let decoded = |change: fn(&mut Meta)| {
        let (mut meta, mut page) = (sample(4), vec![0; 4096]);
        change(&mut meta);
        let copy = u64::from(meta.generation.get() % 2);
        write(&meta, copy, &mut page);
        Meta::decode(&page, PageId::new(copy))
    };
    assert!(decoded(|_| ()).is_ok());
    let changes: [fn(&mut Meta); 7] = [
        |meta| meta.log_start.lsn = Lsn::new(8192 + 512),
        |meta| meta.generation = Generation::new(NARROW_IDS_MAX),
        |meta| meta.next_table = TableId::new(TableId::NUMBERS_MAX + 1),
        |meta| meta.tree_txn = TxnId::new(IDS_MAX),
        |meta| meta.log_start.lsn = Lsn::new(IDS_MAX),
        |meta| meta.log_start.last_txn = TxnId::new(u64::MAX),
        |meta| meta.durable_through = Lsn::new(u64::MAX),
    ];
    for change in changes {
        assert!(matches!(decoded(change), Err(MetaError::Damaged { .. })));
    }
}

/// What a meta page is told after `change` was done to its bytes, under a sound checksum.
fn told(change: impl FnOnce(&mut [u8])) -> Result<Meta, MetaError> {
    let mut page = vec![0; 4096];
    write(&sample(6), 2, &mut page);
    change(&mut page);
    let checksum = crate::format::checksum::crc32c(&page[4..]);
    page[..4].copy_from_slice(&checksum.to_le_bytes());
    Meta::decode(&page, PageId::new(2))
}

fn fault(change: impl FnOnce(&mut [u8])) -> Option<&'static str> {
    told(change).err().map(|error| {
        let MetaError::Damaged { what, .. } = error else {
            panic!("{error}");
        };
        what
    })
}

#[test]
fn every_contradiction_of_a_meta_page_is_named() {
    let at = |field: usize| HEADER_BYTES + field;
    let put = |at: usize, value: u64| {
        move |page: &mut [u8]| page[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    assert_eq!(fault(|_| ()), None);
    assert_eq!(fault(|page| page[6] = PageKind::Leaf as u8), Some("kind"));
    assert_eq!(fault(|page| page[8] = 0), Some("page id"));
    assert_eq!(fault(|page| page[at(20) + 1] = 0x20), Some("page size"));
    assert_eq!(fault(|page| page[at(48)] = 7), Some("generation"));
    assert_eq!(fault(|page| page[56] ^= 1), Some("database"));
    let slot = |page: &mut [u8]| (page[16], page[at(48)]) = (7, 7);
    assert_eq!(fault(slot), Some("slot"));
    assert_eq!(
        told(slot).unwrap_err().to_string(),
        "meta page 2: slot is 0x0, expected 0x1"
    );

    let (tree_txn, log_lsn, last_txn, durable) = (at(56), at(64), at(72), at(88));
    let (names, roots, free, pages) = (at(96), at(128), at(160), at(176));
    let ids = [(tree_txn, "tree txn"), (durable, "durable through")];
    for (field, what) in ids {
        assert_eq!(fault(put(field, IDS_MAX - 1)), None, "{what}");
        assert_eq!(fault(put(field, IDS_MAX)), Some(what));
    }
    // What is before the log's start is in the trees.
    assert_eq!(fault(put(last_txn, 4)), None);
    assert_eq!(fault(put(last_txn, 5)), Some("last txn"));
    assert_eq!(fault(put(log_lsn, IDS_MAX - 4096)), None);
    assert_eq!(fault(put(log_lsn, IDS_MAX)), Some("log start"));
    for inside in [1, 512, 4095, 8193] {
        assert_eq!(fault(put(log_lsn, inside)), Some("log start"));
    }
    assert_eq!(fault(put(pages, PAGES_MAX)), None);
    assert_eq!(fault(put(pages, PAGES_MAX + 1)), Some("pages"));
    assert_eq!(fault(put(free, 39)), None);
    assert_eq!(fault(put(free, 40)), Some("free directory"));
    assert_eq!(fault(|page| put(free, 3)(&mut *page)), None);
    assert_eq!(fault(put(pages, COPIES - 1)), Some("pages"));
    for root in [names, roots] {
        assert_eq!(fault(put(root, PAGES_MAX - 1)), None);
        assert_eq!(fault(put(root, PAGES_MAX)), Some("root page"));
    }
    assert_eq!(told(put(names, 0)).unwrap().names, None);
    assert_eq!(
        told(|page| page[at(160)..at(176)].fill(0))
            .unwrap()
            .free_directory,
        None
    );
    assert!(!told(|page| page[at(52)] = 0).unwrap().clean);
    assert!(told(|page| page[at(52)] = 0xff).unwrap().clean);

    let table =
        |id: u32| move |page: &mut [u8]| page[at(84)..at(88)].copy_from_slice(&id.to_le_bytes());
    assert_eq!(fault(table(TableId::NUMBERS_MAX)), None);
    assert_eq!(fault(table(TableId::NUMBERS_MAX + 1)), Some("next table"));
}

#[test]
fn segments_are_powers_of_two_between_their_bounds_or_unsaid() {
    let at = HEADER_BYTES + 212;
    let sized = |bytes: u32| {
        told(|page| page[at..at + 4].copy_from_slice(&bytes.to_le_bytes()))
            .map(|meta| meta.segment_bytes)
    };
    for bytes in [SEGMENT_BYTES_MIN, 1 << 20, SEGMENT_BYTES_MAX] {
        assert_eq!(sized(bytes), Ok(bytes));
    }
    for bytes in [0, SEGMENT_BYTES_MIN / 2, SEGMENT_BYTES_MAX * 2, 3 << 20] {
        let error = sized(bytes).unwrap_err();
        assert!(error.to_string().contains("segment size"), "{error}");
    }
    let unsaid = told(|page| {
        page[HEADER_BYTES + 24] &= !1;
        page[at..at + 4].fill(0xff);
    });
    assert_eq!(unsaid.unwrap().segment_bytes, SEGMENT_BYTES_UNSAID);
    // A file that never said so does not begin to.
    let (mut meta, mut page) = (sample(6), vec![0; 4096]);
    meta.segment_bytes = SEGMENT_BYTES_UNSAID;
    write(&meta, 2, &mut page);
    assert_eq!(
        (page[HEADER_BYTES + 24] & 1, &page[at..at + 4]),
        (0, &[0; 4][..])
    );
    assert_eq!(Meta::decode(&page, PageId::new(2)), Ok(meta));
}

#[test]
fn a_meta_page_is_known_by_its_text_whatever_else_is_damaged() {
    let mut page = vec![0; 4096];
    write(&sample(6), 2, &mut page);
    page[0] ^= 1;
    assert!(Meta::is_meta(&page));
    assert_eq!(Meta::claimed_page_bytes(&page), Some(4096));
    let torn = Meta::decode(&page, PageId::new(2)).unwrap_err();
    assert!(torn.to_string().contains("checksum"), "{torn}");
    page[HEADER_BYTES + 3] ^= 1;
    assert!(!Meta::is_meta(&page));
    assert_eq!(Meta::claimed_page_bytes(&page), None);
    assert_eq!(Meta::decode(&page, PageId::new(2)), Err(MetaError::Foreign));
    assert!(!Meta::is_meta(&page[..HEADER_BYTES]));
}

#[test]
fn every_way_to_a_durable_write_is_remembered_for_its_machine() {
    let mut meta = sample(6);
    let methods = [
        (SyncMethod::None, None),
        (SyncMethod::WriteThenSync, Some(SyncMethod::WriteThenSync)),
        (SyncMethod::WriteDsync, Some(SyncMethod::WriteDsync)),
        (SyncMethod::RingDsync, Some(SyncMethod::RingDsync)),
    ];
    for (method, known) in methods {
        meta.remember_sync_method(method, 5);
        assert_eq!((meta.sync_method(5), meta.sync_method(6)), (known, None));
    }
    meta.sync_method = 4;
    assert_eq!(meta.sync_method(5), None, "one of a later version");
}

#[test]
fn a_meta_page_of_no_pages_is_refused() {
    let mut meta = sample(4);
    meta.pages = 0;
    let mut page = vec![0; 4096];
    meta.encode(&mut page);
    let database = meta.database_low();
    seal(&mut page, PageId::new(0), meta.generation, database);
    assert!(Meta::decode(&page, PageId::new(0)).is_err());
}
