//! Promise: whatever bytes the files hold, opening and reading end in an answer, never in a panic or a hang.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{copy, files, load, small};
use northstardb::Error;

/// Numbers that follow from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Opens, reads and checks; only typed errors may come.
fn survive(path: &Path, what: &str) {
    let db = match small().open(path) {
        Ok(db) => db,
        Err(
            Error::Corrupt(_)
            | Error::NotADatabase { .. }
            | Error::NewerFormat { .. }
            | Error::InvalidOption { .. },
        ) => {
            return;
        }
        Err(other) => panic!("{what}: {other:?}"),
    };
    if let Ok(names) = db.tables() {
        let read = db.begin_read().unwrap();
        for name in names {
            let Ok(table) = db.open_table(&name) else {
                continue;
            };
            let Ok(range) = read.range::<&[u8]>(&table, ..) else {
                continue;
            };
            // A tree with a cycle in it would go on for ever.
            assert!(
                range.take(1_000_000).count() < 1_000_000,
                "{what}: a scan does not end"
            );
            let Ok(range) = read.range::<&[u8]>(&table, ..) else {
                continue;
            };
            assert!(
                range.rev().take(1_000_000).count() < 1_000_000,
                "{what}: a scan does not end"
            );
        }
    }
    drop(db.check());
    // A write may fail, but in order.
    if let Ok(table) = db.table("new") {
        let mut batch = northstardb::WriteBatch::new();
        batch.put(&table, b"k", b"v");
        drop(db.commit(batch));
    }
    drop(db.checkpoint());
    drop(db.close());
}

fn database(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("db");
    let db = small().open(&path).unwrap();
    for name in ["a", "b"] {
        let table = db.table(name).unwrap();
        load(&db, &table, 0..800, 120);
        load(&db, &table, 2000..2002, 30_000);
    }
    db.checkpoint().unwrap();
    let table = db.table("tail").unwrap();
    load(&db, &table, 0..50, 500);
    let copied = dir.join("copy");
    copy(&path, &copied);
    // Most of a segment is empty: keep the files small so that many can be tried.
    copied
}

#[test]
fn random_bytes_in_place_of_a_database_are_answered() {
    let mut numbers = Numbers(1);
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::create_dir_all(path.join("log")).unwrap();
        let mut noise =
            |len: u64| -> Vec<u8> { (0..len).map(|_| numbers.below(256) as u8).collect() };
        std::fs::write(path.join("data"), noise(1 + seed * 9_999)).unwrap();
        std::fs::write(
            path.join("log").join(format!("{:020}.seg", seed % 3)),
            noise(40_000),
        )
        .unwrap();
        survive(&path, &format!("noise {seed}"));
    }
}

#[test]
fn random_damage_to_a_database_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let sound = database(dir.path());
    let mut numbers = Numbers(2);
    for seed in 0..60 {
        let broken = dir.path().join("broken");
        copy(&sound, &broken);
        let files = files(&broken);
        let mut what = format!("damage {seed}:");
        for _ in 0..=numbers.below(4) {
            let path = &files[numbers.below(files.len() as u64) as usize];
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .open(path)
                .unwrap();
            let bytes = std::fs::read(path).unwrap();
            // Where there is something to damage.
            let used = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(1, |at| at as u64 + 1);
            let (at, len) = (numbers.below(used), 1 + numbers.below(64));
            let noise: Vec<_> = (0..len).map(|_| numbers.below(256) as u8).collect();
            what += &format!(" {} @{at} {len},", path.file_name().unwrap().display());
            file.write_all_at(&noise, at).unwrap();
        }
        survive(&broken, &what);
        std::fs::remove_dir_all(&broken).unwrap();
    }
}

#[test]
fn pages_written_to_the_wrong_place_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let sound = database(dir.path());
    let pages = std::fs::metadata(sound.join("data")).unwrap().len() / 16384;
    let mut numbers = Numbers(3);
    for seed in 0..30 {
        let broken = dir.path().join("broken");
        copy(&sound, &broken);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(broken.join("data"))
            .unwrap();
        let (from, to) = (numbers.below(pages), numbers.below(pages));
        let mut page = vec![0; 16384];
        file.read_exact_at(&mut page, from * 16384).unwrap();
        file.write_all_at(&page, to * 16384).unwrap();
        survive(&broken, &format!("{seed}: page {from} over page {to}"));
        std::fs::remove_dir_all(&broken).unwrap();
    }
}
