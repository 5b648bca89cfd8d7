//! The delta against a model that keeps every version in a map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

type Key = Vec<u8>;
/// What a snapshot must show of a key: transaction and value.
type Shown = (u64, Option<Vec<u8>>);

/// Every write in order, by key; roll-back drops the newest.
#[derive(Default)]
struct Model {
    writes: u64,
    versions: BTreeMap<(u32, Key), Vec<(u64, Shown)>>,
    ranges: Vec<(u64, u32, Key, Option<Key>, u64)>,
}

impl Model {
    fn write(&mut self, table: u32, key: &[u8], txn: u64, value: Option<&[u8]>) {
        let versions = self.versions.entry((table, key.to_vec())).or_default();
        versions.push((self.writes, (txn, value.map(<[u8]>::to_vec))));
        self.writes += 1;
    }

    fn delete_range(&mut self, table: u32, from: &[u8], to: Option<&[u8]>, txn: u64) {
        self.ranges.push((
            self.writes,
            table,
            from.to_vec(),
            to.map(<[u8]>::to_vec),
            txn,
        ));
        self.writes += 1;
    }

    fn rollback(&mut self, writes: u64) {
        self.versions.retain(|_, versions| {
            versions.retain(|(write, _)| *write < writes);
            !versions.is_empty()
        });
        self.ranges.retain(|(write, ..)| *write < writes);
        self.writes = writes;
    }

    fn version(&self, table: u32, key: &[u8], at: u64) -> Option<(u64, Shown)> {
        let versions = self.versions.get(&(table, key.to_vec()))?;
        versions
            .iter()
            .rev()
            .find(|(_, (txn, _))| *txn <= at)
            .cloned()
    }

    fn covered(&self, table: u32, key: &[u8], at: u64) -> Option<(u64, Shown)> {
        let covers = |range: &&(u64, u32, Key, Option<Key>, u64)| {
            let (_, of, from, to, txn) = range;
            let above = to.as_ref().is_none_or(|to| key < to.as_slice());
            *of == table && *txn <= at && from.as_slice() <= key && above
        };
        self.ranges
            .iter()
            .rev()
            .find(covers)
            .map(|(write, .., txn)| (*write, (*txn, None)))
    }

    fn get(&self, table: u32, key: &[u8], at: u64) -> Option<Shown> {
        let newest = self
            .version(table, key, at)
            .max(self.covered(table, key, at));
        newest.map(|(_, shown)| shown)
    }

    fn scan(&self, table: u32, at: u64) -> Vec<(Key, Shown)> {
        let keys = self
            .versions
            .range((table, Vec::new())..(table + 1, Vec::new()));
        let keys = keys.filter(|((_, key), _)| self.version(table, key, at).is_some());
        keys.filter_map(|((_, key), _)| Some((key.clone(), self.get(table, key, at)?)))
            .collect()
    }
}

fn config(arena_bytes: usize) -> DeltaConfig {
    DeltaConfig {
        arena_bytes,
        filter_keys: 1_000,
    }
}

fn delta(arena_bytes: usize) -> (Arc<Delta>, DeltaWriter) {
    Delta::new(config(arena_bytes)).unwrap()
}

fn shown(hit: Hit<'_>) -> Shown {
    (hit.txn.get(), hit.value.map(<[u8]>::to_vec))
}

fn owned((key, hit): (&[u8], Hit<'_>)) -> (Key, Shown) {
    (key.to_vec(), shown(hit))
}

fn forward(mut cursor: DeltaCursor<'_>) -> Vec<(Key, Shown)> {
    let first = cursor.seek(b"").map(owned);
    first
        .into_iter()
        .chain(std::iter::from_fn(|| cursor.next().map(owned)))
        .collect()
}

fn backward(mut cursor: DeltaCursor<'_>) -> Vec<(Key, Shown)> {
    let last = cursor.last().map(owned);
    let mut items: Vec<_> = last
        .into_iter()
        .chain(std::iter::from_fn(|| cursor.prev().map(owned)))
        .collect();
    items.reverse();
    items
}

/// Keys made to hurt: empty, prefixes of each other, equal heads, long shared prefixes, rising runs.
fn key(rng: &mut SmallRng, shape: u32) -> Key {
    let small = |rng: &mut SmallRng| {
        (0..rng.random_range(0..4))
            .map(|_| rng.random_range(0..3))
            .collect()
    };
    match shape % 6 {
        0 => small(rng),
        1 => [b"same-head".to_vec(), small(rng), small(rng)].concat(),
        2 => format!("{:016}", rng.random_range(0..4000)).into_bytes(),
        3 => rng
            .random_range(0..3000u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_be_bytes()
            .to_vec(),
        4 => {
            let (prefix, len) = (rng.random_range(0..4u8), rng.random_range(0..5) * 500);
            [
                vec![prefix; len],
                format!("{:06}", rng.random_range(0..300)).into_bytes(),
            ]
            .concat()
        }
        _ => (0..rng.random_range(0..=4096))
            .map(|_| rng.random())
            .collect(),
    }
}

fn check_table(
    delta: &Delta,
    model: &Model,
    table: u32,
    at: u64,
    rng: &mut SmallRng,
    probes: &[Key],
) {
    let (id, txn) = (TableId::new(table), TxnId::new(at));
    let expected = model.scan(table, at);
    assert_eq!(forward(delta.cursor(id, txn)), expected, "forward at t{at}");
    assert_eq!(
        backward(delta.cursor(id, txn)),
        expected,
        "backward at t{at}"
    );
    let mut cursor = delta.cursor(id, txn);
    for probe in probes {
        assert_eq!(
            delta.get(&Probe::new(id, probe), txn).map(shown),
            model.get(table, probe, at),
            "{probe:?} at t{at}"
        );
        let covered = model.covered(table, probe, at).map(|(_, (txn, _))| txn);
        assert_eq!(delta.covered(id, probe, txn).map(TxnId::get), covered);
        let above = expected.partition_point(|(key, _)| key < probe);
        assert_eq!(
            cursor.seek(probe).map(owned).as_ref(),
            expected.get(above),
            "seek {probe:?}"
        );
        let at_or_below = expected.partition_point(|(key, _)| key <= probe);
        let wanted = at_or_below.checked_sub(1).map(|index| &expected[index]);
        assert_eq!(
            cursor.seek_for_prev(probe).map(owned).as_ref(),
            wanted,
            "seek back {probe:?}"
        );
        // A walk to and fro from here.
        let mut index = at_or_below;
        for _ in 0..4 {
            if cursor.current().is_none() {
                break;
            }
            let up = rng.random();
            let item = if up { cursor.next() } else { cursor.prev() };
            index = if up { index + 1 } else { index - 1 };
            let wanted = index.checked_sub(1).and_then(|index| expected.get(index));
            assert_eq!(item.map(owned).as_ref(), wanted);
        }
    }
}

fn check_model(deltas: &Deltas, seed: u64, steps: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (delta, mut writer) = deltas.make().unwrap();
    let mut model = Model::default();
    let tables = [0, 16, 17, 1 << 20, u32::MAX - 1];
    let mut txn = 1;
    let mut marks = vec![(writer.mark(), 0)];
    for step in 0..steps {
        // A table keeps to one shape of key mostly, so that its tree has that shape.
        let index = rng.random_range(0..tables.len());
        let table = tables[index];
        let shape = if rng.random_bool(0.05) {
            rng.random()
        } else {
            u32::try_from(index).unwrap() + 1
        };
        let key = key(&mut rng, shape);
        let (id, at) = (TableId::new(table), TxnId::new(txn));
        match rng.random_range(0..200) {
            0..150 => {
                let value = vec![rng.random(); rng.random_range(0..20)];
                writer.put(id, &key, &value, at).unwrap();
                model.write(table, &key, txn, Some(&value));
            }
            150..180 => {
                writer.delete(id, &key, at).unwrap();
                model.write(table, &key, txn, None);
            }
            180 => {
                let to = self::key(&mut rng, shape);
                let to = rng.random_bool(0.9).then_some(to.as_slice());
                writer.delete_range(id, &key, to, at).unwrap();
                model.delete_range(table, &key, to, txn);
            }
            181..186 => marks.push((writer.mark(), model.writes)),
            186..189 => {
                let (mark, writes) = marks[rng.random_range(0..marks.len())];
                marks.retain(|(_, other)| *other <= writes);
                writer.rollback(mark);
                model.rollback(writes);
            }
            _ => {
                txn += 1;
                writer.forget_marks();
                marks = vec![(writer.mark(), model.writes)];
            }
        }
        if step % 997 == 0 || step + 1 == steps {
            let probes: Vec<Key> = (0..40).map(|_| self::key(&mut rng, shape)).collect();
            for at in [rng.random_range(0..=txn), txn] {
                check_table(&delta, &model, table, at, &mut rng, &probes);
            }
        }
    }
    for table in tables {
        let probes: Vec<Key> = (0..60).map(|shape| key(&mut rng, shape)).collect();
        for at in [0, txn / 2, txn] {
            check_table(&delta, &model, table, at, &mut rng, &probes);
        }
    }
    assert_eq!(delta.len(), model.writes);
    assert!(delta.tables().map(TableId::get).eq(tables));
}

#[test]
fn every_snapshot_reads_like_the_model() {
    // Each after the first in the memory of the one before, of which the first 4 MiB stay as they were left.
    let deltas = Deltas::new(config(64 << 20), 4 << 20, Patience::USUAL);
    for seed in 0..12 {
        check_model(&deltas, seed, 6_000);
    }
}

#[test]
fn the_next_delta_has_the_memory_of_one_that_ended() {
    let deltas = Deltas::new(config(1 << 20), 1 << 20, Patience::USUAL);
    let (first, writer) = deltas.make().unwrap();
    let memory = first.arena.start();
    let (second, _) = deltas.make().unwrap();
    assert_ne!(second.arena.start(), memory, "the first one is in use");
    drop(writer);
    let (third, _) = deltas.make().unwrap();
    assert_ne!(third.arena.start(), memory, "a reader has the first one");
    drop(first);
    let (next, _) = deltas.make().unwrap();
    assert_eq!(next.arena.start(), memory);
    // One is kept, and none once it is given back.
    drop((second, next));
    deltas.release_spare();
    let (fresh, mut writer) = deltas.make().unwrap();
    assert_eq!(fresh.arena.touched(), 0);
    writer
        .put(TableId::new(16), b"key", b"value", TxnId::new(1))
        .unwrap();
    drop((fresh, writer));
    let (worn, _) = deltas.make().unwrap();
    assert!(worn.arena.touched() > 0 && worn.is_empty());
}

#[test]
fn keys_in_order_and_against_it_are_all_found() {
    for (reverse, text) in [(false, false), (true, false), (false, true), (true, true)] {
        let (delta, mut writer) = delta(64 << 20);
        let mut model = Model::default();
        for i in 0..5_000u64 {
            let i = if reverse { 5_000 - i } else { i };
            let key = if text {
                format!("user/{i:020}").into_bytes()
            } else {
                i.to_be_bytes().to_vec()
            };
            writer
                .put(TableId::new(16), &key, &i.to_le_bytes(), TxnId::new(1))
                .unwrap();
            model.write(16, &key, 1, Some(&i.to_le_bytes()));
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let probes: Vec<Key> = model.versions.keys().map(|(_, key)| key.clone()).collect();
        check_table(&delta, &model, 16, 1, &mut rng, &probes);
    }
}

#[test]
fn runs_with_changing_prefixes_are_all_found() {
    let (delta, mut writer) = delta(64 << 20);
    let mut model = Model::default();
    let mut rng = SmallRng::seed_from_u64(7);
    for i in 0..20_000u32 {
        // Long shared prefixes that break off at any length, rising most of the time.
        let mut key = vec![b'p'; 40];
        let at = rng.random_range(0..40);
        key[at] = if rng.random_bool(0.8) { b'q' } else { b'o' };
        key.extend_from_slice(&(i / 30).to_be_bytes());
        key.push(rng.random());
        writer
            .put(TableId::new(16), &key, b"v", TxnId::new(1))
            .unwrap();
        model.write(16, &key, 1, Some(b"v"));
    }
    let probes: Vec<Key> = model.versions.keys().map(|(_, key)| key.clone()).collect();
    check_table(&delta, &model, 16, 1, &mut rng, &probes);
}

#[test]
fn an_empty_delta_knows_nothing() {
    let (delta, _writer) = delta(1 << 20);
    assert!(delta.is_empty() && delta.tables().next().is_none() && delta.last_txn().is_none());
    assert_eq!(
        delta.get(&Probe::new(TableId::NAMES, b""), TxnId::MAX),
        None
    );
    assert_eq!(delta.cursor(TableId::NAMES, TxnId::MAX).seek(b""), None);
    assert_eq!(delta.cursor(TableId::NAMES, TxnId::MAX).last(), None);
}

#[test]
fn each_snapshot_sees_the_last_write_of_the_newest_transaction_it_knows() {
    let (delta, mut writer) = delta(1 << 20);
    let table = TableId::new(16);
    for (txn, value) in [(1, "a"), (2, "b"), (2, "c"), (5, "d")] {
        writer
            .put(table, b"k", value.as_bytes(), TxnId::new(txn))
            .unwrap();
    }
    writer.delete(table, b"k", TxnId::new(7)).unwrap();
    for (at, value) in [(1, "a"), (2, "c"), (4, "c"), (5, "d"), (6, "d")] {
        let mut cursor = delta.cursor(table, TxnId::new(at));
        let (key, hit) = cursor.seek(b"").unwrap();
        assert_eq!((key, hit.value), (&b"k"[..], Some(value.as_bytes())));
        assert_eq!(
            delta.get(&Probe::new(table, b"k"), TxnId::new(at)),
            Some(hit)
        );
    }
    let deleted = Hit {
        txn: TxnId::new(7),
        value: None,
    };
    assert_eq!(
        delta.get(&Probe::new(table, b"k"), TxnId::MAX),
        Some(deleted)
    );
    assert_eq!(delta.last_txn(), Some(TxnId::new(7)));
}

#[test]
fn a_rolled_back_transaction_leaves_no_trace_and_its_id_can_be_used_again() {
    let (delta, mut writer) = delta(1 << 20);
    let table = TableId::new(16);
    writer.put(table, b"k", b"old", TxnId::new(1)).unwrap();
    writer.forget_marks();
    let mark = writer.mark();
    writer.put(table, b"k", b"lost", TxnId::new(2)).unwrap();
    writer.put(table, b"new", b"lost", TxnId::new(2)).unwrap();
    writer
        .delete_range(table, b"a", None, TxnId::new(2))
        .unwrap();
    assert_eq!(delta.covered(table, b"b", TxnId::MAX), Some(TxnId::new(2)));
    writer.rollback(mark);
    assert_eq!(
        delta
            .get(&Probe::new(table, b"k"), TxnId::MAX)
            .unwrap()
            .value,
        Some(&b"old"[..])
    );
    assert_eq!(delta.get(&Probe::new(table, b"new"), TxnId::MAX), None);
    assert_eq!(
        delta.get(&Probe::new(table, b"k"), TxnId::MAX).unwrap().txn,
        TxnId::new(1)
    );
    assert_eq!(delta.covered(table, b"k", TxnId::MAX), None);
    assert_eq!((delta.len(), delta.last_txn()), (1, Some(TxnId::new(1))));
    writer.put(table, b"k", b"again", TxnId::new(2)).unwrap();
    assert_eq!(
        delta
            .get(&Probe::new(table, b"k"), TxnId::new(1))
            .unwrap()
            .value,
        Some(&b"old"[..])
    );
    assert_eq!(
        delta
            .get(&Probe::new(table, b"k"), TxnId::new(2))
            .unwrap()
            .value,
        Some(&b"again"[..])
    );
}

#[test]
fn a_put_after_a_range_delete_of_the_same_transaction_stands() {
    let (delta, mut writer) = delta(1 << 20);
    let (table, txn) = (TableId::new(16), TxnId::new(1));
    writer.put(table, b"a", b"1", txn).unwrap();
    writer.put(table, b"b", b"1", txn).unwrap();
    writer.delete_range(table, b"a", Some(b"c"), txn).unwrap();
    writer.put(table, b"b", b"2", txn).unwrap();
    assert_eq!(
        delta.get(&Probe::new(table, b"a"), txn).unwrap().value,
        None
    );
    assert_eq!(
        delta.get(&Probe::new(table, b"b"), txn).unwrap().value,
        Some(&b"2"[..])
    );
    assert_eq!(
        delta.get(&Probe::new(table, b"bb"), txn).unwrap().value,
        None
    );
    assert_eq!(delta.get(&Probe::new(table, b"c"), txn), None);
    assert_eq!(delta.range_deletes(table, txn).count(), 1);
    assert_eq!(
        delta.range_deletes(table, txn).next().unwrap().to,
        Some(&b"c"[..])
    );
    assert_eq!(delta.range_deletes(table, TxnId::ZERO).next(), None);
}

#[test]
fn a_full_delta_says_so_and_keeps_what_it_has() {
    let (delta, mut writer) = delta(256 << 10);
    let table = TableId::new(16);
    let mut model = Model::default();
    let mut rng = SmallRng::seed_from_u64(3);
    let full = loop {
        let key = rng.random::<u64>().to_be_bytes();
        match writer.put(table, &key, &key, TxnId::new(1)) {
            Ok(()) => model.write(16, &key, 1, Some(&key)),
            Err(full) => break full,
        }
    };
    assert!(
        full.wanted > full.free && model.writes > 2_000,
        "{full} after {}",
        model.writes
    );
    assert!(
        writer
            .put(TableId::new(17), b"k", &[0; 1 << 20], TxnId::new(1))
            .is_err()
    );
    assert!(
        writer
            .delete_range(table, b"", Some(&[1; 65_000]), TxnId::new(1))
            .is_err()
    );
    check_table(&delta, &model, 16, 1, &mut rng, &[]);
}

#[test]
fn a_value_of_sixteen_mebibytes_comes_back() {
    let (delta, mut writer) = delta(64 << 20);
    let value = vec![7; 16 << 20];
    writer
        .put(TableId::new(16), &[1; 4096], &value, TxnId::new(1))
        .unwrap();
    let hit = delta
        .get(&Probe::new(TableId::new(16), &[1; 4096]), TxnId::new(1))
        .unwrap();
    assert!(hit.value == Some(&value[..]));
}

/// Writes of one transaction of the concurrent test.
fn commit(seed: u64, txn: u64) -> Vec<(u32, Key, Option<Vec<u8>>)> {
    let mut rng = SmallRng::seed_from_u64(seed ^ txn << 20);
    let mut write = || {
        let table = rng.random_range(16..18);
        let n: u64 = rng.random_range(0..30_000);
        let key = match (table, txn % 3) {
            (16, _) => n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec(),
            (_, 0) => format!("row/{txn:016}/{n}").into_bytes(),
            _ => format!("row/{n:016}").into_bytes(),
        };
        (
            table,
            key,
            rng.random_bool(0.9).then(|| txn.to_le_bytes().to_vec()),
        )
    };
    (0..24).map(|_| write()).collect()
}

#[test]
fn readers_see_exactly_their_snapshot_while_the_writer_splits() {
    const TXNS: u64 = if cfg!(miri) { 12 } else { 1_500 };
    let (delta, mut writer) = delta(256 << 20);
    let mut model = Model::default();
    for txn in 1..=TXNS {
        for (table, key, value) in commit(0, txn) {
            model.write(table, &key, txn, value.as_deref());
        }
    }
    let visible = AtomicU64::new(0);
    // The writer goes on as readers begin to walk, so that the two meet.
    let allowed = AtomicU64::new(0);
    let read = |seed: u64| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut rounds = 0;
        loop {
            let at = visible.load(Ordering::Acquire);
            for table in [16, 17] {
                let expected = model.scan(table, at);
                let cursor = delta.cursor(TableId::new(table), TxnId::new(at));
                allowed.fetch_add(TXNS / 60 + 1, Ordering::Relaxed);
                assert!(
                    forward(cursor.clone()) == expected,
                    "forward at t{at} in table {table}"
                );
                assert!(
                    backward(cursor.clone()) == expected,
                    "backward at t{at} in table {table}"
                );
                for _ in 0..expected.len().min(200) {
                    let (key, value) = &expected[rng.random_range(0..expected.len())];
                    let hit = delta.get(&Probe::new(TableId::new(table), key), TxnId::new(at));
                    assert_eq!(hit.map(shown).as_ref(), Some(value), "get at t{at}");
                }
            }
            rounds += 1;
            if at == TXNS {
                return rounds;
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(|| read(1)), scope.spawn(|| read(2))];
        for txn in 1..=TXNS {
            while allowed.load(Ordering::Relaxed) < txn {
                std::thread::yield_now();
            }
            let id = TxnId::new(txn);
            let mark = writer.mark();
            if txn % 5 == 0 {
                for (table, key, _) in commit(99, txn) {
                    writer
                        .put(TableId::new(table), &key, b"rolled back", id)
                        .unwrap();
                }
                writer.rollback(mark);
            }
            for (table, key, value) in commit(0, txn) {
                let table = TableId::new(table);
                match value {
                    Some(value) => writer.put(table, &key, &value, id).unwrap(),
                    None => writer.delete(table, &key, id).unwrap(),
                }
            }
            writer.forget_marks();
            // Release: readers at `txn` see all its writes.
            visible.store(txn, Ordering::Release);
        }
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}
