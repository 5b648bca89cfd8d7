//! Every engine that was built, against a sorted map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bench::Bench;
use crate::content::{Content, Order};
use crate::error::Error;
use crate::generator::{Key, Rng, VALUE_BYTES};
use crate::ledger::Ledger;
use crate::rival::{Engine, Op, Rival, Session, Setup};
use crate::rivals::ENGINES;
use crate::scale::Scale;

const SETUP: Setup = Setup {
    cache_bytes: 64 << 20,
    memory_bytes: None,
    history: false,
};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str, engine: &Engine) -> Self {
        let name = format!("nsrivals-{test}-{}-{}", engine.name, std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Runs `test` on every engine, in both ways to open one.
fn on_every_engine(name: &str, test: impl Fn(&dyn Fn() -> Box<dyn Rival>, &str)) {
    for engine in ENGINES {
        let Some(open) = engine.open else { continue };
        let small = Setup {
            cache_bytes: 36 << 20,
            memory_bytes: Some(72 << 20),
            history: true,
        };
        for setup in [SETUP, small] {
            let dir = Dir::new(name, engine);
            let path: &Path = &dir.0;
            test(&|| open(path, &setup).unwrap(), engine.name);
        }
    }
}

type Model = BTreeMap<Key, Vec<u8>>;

/// Everything that is stored, read in every way there is.
fn compare(session: &mut dyn Session, model: &Model, content: Content, name: &str) {
    let keys: Vec<Key> = (0..content.len()).map(|i| content.key(i)).collect();
    session
        .read(&mut |snapshot| {
            let mut rows = Vec::new();
            snapshot.scan(&[0; 16], &mut |key, value| {
                rows.push((Key::try_from(key).unwrap(), value.to_vec()));
                true
            })?;
            assert!(
                rows.iter().map(|(key, value)| (key, value)).eq(model),
                "{name}: all rows"
            );
            for key in &keys {
                let mut found = None;
                snapshot.get(key, &mut |value| found = value.map(<[u8]>::to_vec))?;
                assert_eq!(found.as_ref(), model.get(key), "{name}: get");
            }
            let mut found = vec![None; keys.len()];
            snapshot.multi_get(&keys, &mut |index, value| {
                found[index] = value.map(<[u8]>::to_vec);
            })?;
            let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
            assert_eq!(found, expected, "{name}: multi_get");
            for (i, limit) in [(0, 1), (7, 5), (content.len() - 2, 9)] {
                let (from, mut rows) = (content.absent_key(i), Vec::new());
                snapshot.scan(&from, &mut |key, _| {
                    rows.push(Key::try_from(key).unwrap());
                    rows.len() < limit
                })?;
                let expected = model.range(from..).map(|(key, _)| *key).take(limit);
                assert!(
                    rows.into_iter().eq(expected),
                    "{name}: {limit} rows from {i}"
                );
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_engine_agrees_with_a_sorted_map() {
    on_every_engine("model", |open, name| {
        let content = Content::new(60, Order::Rising, VALUE_BYTES);
        let (mut model, mut rng) = (Model::new(), Rng::new(9, 9));
        let mut db = open();
        let mut next = 0;
        let mut source = |value: &mut Vec<u8>| {
            let i = next;
            next += 2;
            (i < 60).then(|| {
                content.value_into(i, 0, value);
                model.insert(content.key(i), value.clone());
                content.key(i)
            })
        };
        db.session().unwrap().load(&mut source).unwrap();
        for round in 1..40 {
            let mut session = db.session().unwrap();
            let mut ops: BTreeMap<Key, Op> = BTreeMap::new();
            for _ in 0..rng.below(6) {
                let i = rng.below(60);
                let value = (rng.below(3) > 0).then(|| content.value(i, round));
                let key = content.key(i);
                ops.insert(key, Op { key, value });
            }
            let ops: Vec<Op> = ops.into_values().collect();
            session.commit(&ops).unwrap();
            for op in ops {
                match op.value {
                    Some(value) => drop(model.insert(op.key, value.into_vec())),
                    None => drop(model.remove(&op.key)),
                }
            }
            let i = rng.below(60);
            let key = content.key(i);
            session
                .modify(&key, &mut |old| {
                    assert_eq!(old, model.get(&key).map(Vec::as_slice), "{name}: modify");
                    Ok(content.value(i, round + 1000))
                })
                .unwrap();
            model.insert(key, content.value(i, round + 1000).into_vec());
            compare(&mut *session, &model, content, name);
            drop(session);
            if round % 13 == 0 {
                db.settle().unwrap();
                db.close().unwrap();
                db = open();
            }
        }
        compare(&mut *db.session().unwrap(), &model, content, name);
        db.close().unwrap();
    });
}

#[test]
fn concurrent_increments_are_not_lost() {
    on_every_engine("increments", |open, name| {
        let content = Content::new(4, Order::Scattered, 1000);
        let db = open();
        let put = |i| Op {
            key: content.key(i),
            value: Some(content.value(i, 0)),
        };
        let ops: Vec<Op> = (0..4).map(put).collect();
        db.session().unwrap().commit(&ops).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let db = &db;
                scope.spawn(move || {
                    let mut session = db.session().unwrap();
                    for turn in 0..8 {
                        let i = (thread + turn) % 4;
                        let change = &mut |old: Option<&[u8]>| {
                            Ok(content.value(i, content.version(i, old)? + 1))
                        };
                        session.modify(&content.key(i), change).unwrap();
                    }
                });
            }
        });
        let mut ledger = Ledger::loaded(content, 4);
        ledger.raise([(0..4).map(|i| (i, 8)).collect()]);
        let rows = ledger.check(&mut *db.session().unwrap());
        assert_eq!(rows.unwrap(), 4, "{name}");
        db.close().unwrap();
    });
}

#[test]
fn a_snapshot_stays_what_it_was_while_others_commit() {
    on_every_engine("snapshot", |open, name| {
        let content = Content::new(10, Order::Rising, VALUE_BYTES);
        let put = |i, version| Op {
            key: content.key(i),
            value: Some(content.value(i, version)),
        };
        let db = open();
        db.session()
            .unwrap()
            .commit(&[put(1, 1), put(2, 1)])
            .unwrap();
        let mut reader = db.session().unwrap();
        reader
            .read(&mut |snapshot| {
                let mut versions = Vec::new();
                for _ in 0..2 {
                    for i in [1, 2] {
                        snapshot.get(&content.key(i), &mut |value| {
                            versions.push(content.version(i, value).unwrap());
                        })?;
                    }
                    let ops = [put(1, 2), put(2, 2)];
                    let written = std::thread::scope(|scope| {
                        let commit = || db.session().unwrap().commit(&ops);
                        scope.spawn(commit).join().unwrap()
                    });
                    written.unwrap();
                }
                assert_eq!(versions, [1, 1, 1, 1], "{name}");
                Ok(())
            })
            .unwrap();
        drop(reader);
        db.close().unwrap();
    });
}

#[test]
fn a_lost_or_foreign_or_damaged_row_is_found() {
    let engine = ENGINES
        .iter()
        .find(|engine| engine.name == "northstar")
        .unwrap();
    let dir = Dir::new("ledger", engine);
    let table = (Content::new(20, Order::Rising, VALUE_BYTES), SETUP);
    let mut bench = Bench::open(*engine, &dir.0, Scale::tiny(1), table, 1, false).unwrap();
    bench.load_all().unwrap();
    assert_eq!(bench.check().unwrap(), 20);
    let content = bench.content;
    let mut damaged = content.value(5, 0);
    damaged[99] ^= 1;
    let foreign = Op {
        key: content.absent_key(7),
        value: Some(content.value(7, 0)),
    };
    let faults = [
        (content.key(5), Some(damaged), "damaged"),
        (content.key(5), Some(content.value(5, 3)), "version 3"),
        (content.key(5), Some(content.value(6, 0)), "another value"),
        (content.key(19), None, "19 rows"),
        (foreign.key, foreign.value, "another key"),
    ];
    for (key, value, what) in faults {
        let before = bench.ledger.len();
        bench
            .session()
            .unwrap()
            .commit(&[Op { key, value }])
            .unwrap();
        let error = bench.check().unwrap_err();
        assert!(
            matches!(&error, Error::Wrong(why) if why.contains(what)),
            "{what}: {error}"
        );
        let all = (0..before).map(|i| bench.put(i, 0));
        let repair = all.chain([Op {
            key: content.absent_key(7),
            value: None,
        }]);
        let repair: Vec<Op> = repair.collect();
        bench.session().unwrap().commit(&repair).unwrap();
        assert_eq!(bench.check().unwrap(), 20);
    }
    bench.close().unwrap();
}
