//! One test a promise: space, joins, range deletes, idempotence, hostile pages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Edit, Sink, TABLE, Tree, Trust, changes_of, keys_of, random_edits};
use crate::format::page::PageError;
use crate::ids::Generation;
use crate::tree::check::{CheckOptions, TreeReport, check};
use crate::tree::merge::{Forget, merge};
use crate::tree::search::get_then;

/// `count` rows of 16 + 100 bytes with rising keys, all of one transaction.
fn rising(from: u64, count: u64, txn: u64) -> Vec<Edit> {
    let key = |number: u64| [[0; 8], number.to_be_bytes()].concat();
    (from..from + count)
        .map(|number| (key(number), txn, Some(vec![1; 100])))
        .collect()
}

fn report(tree: &Tree) -> TreeReport {
    let options = CheckOptions {
        table: TABLE,
        page_bytes: tree.page_bytes,
        read_extents: true,
        digest: true,
    };
    check(&tree.store, tree.root, options, &mut |_, _| true)
}

#[test]
fn a_row_of_116_bytes_takes_at_most_125_bytes_of_page() {
    let mut random = SmallRng::seed_from_u64(1);
    let mut tree = Tree::new(16_384);
    let rows: BTreeMap<[u8; 16], ()> = (0..100_000).map(|_| (random.random(), ())).collect();
    let edits: Vec<_> = rows
        .keys()
        .map(|key| (key.to_vec(), 9, Some(vec![1; 100])))
        .collect();
    tree.merge(&edits, &[]);
    let report = report(&tree);
    let pages = report.leaves + report.branches;
    assert!(
        pages * 16_384 <= report.rows * 125,
        "{pages} pages for {} rows",
        report.rows
    );
}

#[test]
fn rising_inserts_in_small_merges_fill_their_leaves() {
    let mut tree = Tree::new(4096);
    for batch in 0..300 {
        tree.merge(&rising(batch * 10, 10, batch), &[]);
    }
    let report = report(&tree);
    assert_eq!(report.faults, []);
    assert!(
        report.leaf_bytes >= report.leaves * 4096 * 9 / 10,
        "{report:?}"
    );
}

#[test]
fn deleting_most_rows_joins_what_is_left() {
    let mut tree = Tree::new(4096);
    tree.merge(&rising(0, 20_000, 1), &[]);
    let full = report(&tree);
    let deletes = rising(0, 20_000, 2)
        .into_iter()
        .enumerate()
        .filter(|(at, _)| at % 20 != 0);
    tree.merge(
        &deletes
            .map(|(_, (key, txn, _))| (key, txn, None))
            .collect::<Vec<_>>(),
        &[],
    );
    let joined = report(&tree);
    assert_eq!(joined.rows, 1000);
    assert!(joined.leaves <= full.leaves / 18, "{joined:?}");
    for number in (0..20_000).step_by(20).filter(|number| number % 400 != 0) {
        let (key, ..) = rising(number, 1, 3).remove(0);
        tree.merge(&[(key, 3, None)], &[]);
        tree.check();
    }
    let few = report(&tree);
    assert_eq!((few.rows, few.level), (50, 1));
    assert!(few.leaves <= 6, "one by one they join too: {few:?}");
}

#[test]
fn a_range_delete_drops_subtrees_without_reading_their_leaves() {
    let mut tree = Tree::new(4096);
    tree.merge(&rising(0, 50_000, 1), &[]);
    let before = tree.check();
    let (from, ..) = rising(5000, 1, 1).remove(0);
    let (to, ..) = rising(45_000, 1, 1).remove(0);
    assert_eq!(report(&tree).level, 2);
    let (_, retired) = tree.merge(&[], &[(from, Some(to), 2)]);
    assert!(
        retired.len() > 1000 && tree.store.loads.get() < 40,
        "{:?}",
        tree.store.loads
    );
    let after = tree.check();
    assert_eq!(before.difference(&after).count(), retired.len());
    tree.merge(&[], &[(Vec::new(), None, 2)]);
    assert_eq!(tree.root, None);
}

#[test]
fn a_merge_done_twice_changes_nothing_and_older_changes_are_ignored() {
    let mut random = SmallRng::seed_from_u64(5);
    let mut tree = Tree::new(4096);
    let mut txn = 1;
    for _ in 0..20 {
        let (edits, ranges) = random_edits(&mut random, 4096, &mut txn);
        tree.merge(&edits, &ranges);
        let model = tree.model.clone();
        let (again, _) = tree.merge(&edits, &ranges);
        assert_eq!(again.rows_delta, 0);
        assert_eq!(tree.model, model);
        let older: Vec<_> = model
            .iter()
            .map(|(key, (txn, _))| (key.clone(), *txn, Some(vec![0xee])))
            .collect();
        tree.merge(&older, &[(Vec::new(), None, 0)]);
        tree.check();
        tree.check_lookups(&mut random);
    }
}

#[test]
fn the_leaf_that_would_hold_a_deleted_key_knows_of_the_delete() {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut tree = Tree::new(4096);
        tree.merge(&rising(0, 3000, 1), &[]);
        let mut deleted = BTreeMap::new();
        for txn in 2..12 {
            let from = random.random_range(0..3000);
            let count = [1, 5, 40, 400, 3000][random.random_range(0..5_usize)];
            let rows = rising(from, count.min(3000 - from), txn);
            let keys: Vec<_> = rows.into_iter().map(|(key, ..)| key).collect();
            deleted.extend(keys.iter().map(|key| (key.clone(), txn)));
            if random.random_bool(0.5) {
                let edits: Vec<_> = keys.into_iter().map(|key| (key, txn, None)).collect();
                tree.merge(&edits, &[]);
            } else {
                let end = [keys.last().unwrap().as_slice(), b"\0"].concat();
                tree.merge(&[], &[(keys[0].clone(), Some(end), txn)]);
            }
            let Some(root) = tree.root else { break };
            for (key, txn) in &deleted {
                let known = get_then(&tree.store, root, key, |_, leaf| {
                    leaf.header().delete_txn_max.get()
                });
                assert!(
                    known.unwrap() >= *txn,
                    "seed {seed}: {key:?} deleted by {txn}"
                );
            }
        }
    }
}

#[test]
fn an_error_is_repeated_until_the_next_seek() {
    let mut tree = Tree::new(4096);
    tree.merge(&rising(0, 1000, 1), &[]);
    let third = *tree.store.pages.keys().nth(2).unwrap();
    tree.store.pages.get_mut(&third).unwrap()[500] ^= 1;
    let mut cursor = tree.cursor();
    assert!(cursor.seek(Bound::Unbounded).unwrap());
    let mut rows = 1;
    let error = loop {
        match cursor.next() {
            Ok(is_on) => assert!(is_on),
            Err(error) => break error,
        }
        rows += 1;
    };
    assert!(rows < 100 && matches!(error, PageError::Checksum { .. }));
    assert_eq!(cursor.next(), Err(error.clone()));
    assert_eq!(cursor.prev(), Err(error.clone()));
    assert_eq!(cursor.scan(|_, _, _| ControlFlow::Continue(())), Err(error));
    assert!(cursor.row().is_none());
    assert!(cursor.seek_back(Bound::Unbounded).unwrap());
    assert_eq!(report(&tree).fault_count, 1);
}

/// Branches that share children would make a walk as long as there are ways through them.
#[test]
fn a_leaf_reached_twice_ends_a_walk_with_an_error() {
    let mut tree = Tree::new(4096);
    tree.merge(&rising(0, 1000, 1), &[]);
    let root = tree.root.unwrap();
    let branch = tree.store.pages.get_mut(&root.id.get()).unwrap();
    let count = usize::from(branch[24]);
    let refs = 64 + (4 * count).next_multiple_of(16);
    let first = branch[refs..refs + 16].to_vec();
    branch[refs + 16..refs + 32].copy_from_slice(&first);
    tree.store.trust = Trust::Everything;
    let is_structure = |error: &PageError| matches!(error, PageError::Structure { .. });

    let (mut cursor, mut rows) = (tree.cursor(), 0);
    cursor.seek(Bound::Unbounded).unwrap();
    let error = cursor.scan(|_, _, _| {
        rows += 1;
        ControlFlow::Continue(())
    });
    assert!(error.is_err_and(|error| is_structure(&error)) && rows < 100);

    let (mut cursor, mut rows) = (tree.cursor(), 0);
    cursor.seek_back(Bound::Unbounded).unwrap();
    let error = loop {
        match cursor.prev() {
            Ok(is_on) => assert!(is_on),
            Err(error) => break error,
        }
        rows += 1;
    };
    assert!(is_structure(&error) && rows < 1000, "{error} after {rows}");
}

#[test]
#[expect(
    clippy::let_underscore_must_use,
    reason = "any outcome but a panic will do"
)]
fn hostile_pages_give_errors_and_never_a_panic() {
    for seed in 0..400 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut tree = Tree::new(4096);
        let mut txn = 1;
        for _ in 0..3 {
            let (edits, ranges) = random_edits(&mut random, 4096, &mut txn);
            tree.merge(&edits, &ranges);
        }
        let Some(root) = tree.root else { continue };
        let ids: Vec<u64> = tree.store.pages.keys().copied().collect();
        for _ in 0..random.random_range(1..12) {
            let id = ids[random.random_range(0..ids.len())];
            let page = tree.store.pages.get_mut(&id).unwrap();
            let end = if random.random_bool(0.5) {
                400
            } else {
                page.len()
            };
            let at = random.random_range(0..end);
            page[at] = if random.random_bool(0.5) {
                random.random()
            } else {
                page[at] ^ 1
            };
        }
        for trust in [Trust::Checksums, Trust::Everything] {
            tree.store.trust = trust;
            for shape in 0..60 {
                let key = keys_of(&mut random, shape % 6);
                let _ = get_then(&tree.store, root, &key, |row, _| row.map(|row| row.txn));
                let mut cursor = tree.cursor();
                let _ = cursor.seek(Bound::Excluded(&key));
                let _ = (cursor.next(), cursor.prev(), cursor.row().is_some());
                let _ = cursor.seek_back(Bound::Included(&key));
                let mut left = 5000;
                let _ = cursor.scan_back(|_, _, _| {
                    left -= 1;
                    if left > 0 {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                });
            }
            let mut seen = BTreeSet::new();
            let options = CheckOptions {
                table: TABLE,
                page_bytes: 4096,
                read_extents: true,
                digest: true,
            };
            check(&tree.store, tree.root, options, &mut |page, _| {
                seen.insert(page.get())
            });
        }
        tree.store.trust = Trust::Checksums;
        let (edits, _) = random_edits(&mut random, 4096, &mut txn);
        let mut sink = Sink {
            page_bytes: 4096,
            next: 1 << 40,
            generation: Generation::new(99),
            written: BTreeMap::new(),
            retired: Vec::new(),
        };
        let changes = changes_of(&edits);
        let _ = merge(
            &tree.store,
            &mut sink,
            TABLE,
            tree.root,
            changes,
            &[],
            &mut Forget,
        );
    }
}
