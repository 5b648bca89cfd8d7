//! The golden database of format v0 opens, holds what it held, and its damage is named.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

use std::path::{Path, PathBuf};

use northstardb::{Db, Error};
use nshard::golden::{NEWEST, SETS, differences, options, restore};

/// Runs `test` on a fresh copy of every set of golden files.
fn each(test: impl Fn(&Path)) {
    for set in SETS {
        println!("{}", set.name);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        restore(&golden.join(set.name), set, &path).unwrap();
        test(&path);
    }
}

fn change(path: &Path, offset: usize, with: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset..offset + with.len()].copy_from_slice(with);
    std::fs::write(path, bytes).unwrap();
}

fn segment(path: &Path) -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir(path.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found.remove(0)
}

fn whole(db: &Db) {
    assert_eq!(differences(db).unwrap(), Vec::<String>::new());
    assert_eq!(db.check().unwrap().faults, Vec::<String>::new());
}

#[test]
fn golden_files_open_and_hold_what_they_held() {
    each(|path| {
        let db = options().open(path).unwrap();
        whole(&db);
        db.close().unwrap();
        // And again after what this version made of them.
        let db = options().open(path).unwrap();
        whole(&db);
    });
}

#[test]
fn golden_files_can_be_read_without_writing() {
    each(|path| whole(&options().read_only(true).open(path).unwrap()));
}

#[test]
fn a_writer_of_this_version_makes_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (made, copied, path) = (
        dir.path().join("made"),
        dir.path().join("copy"),
        dir.path().join("db"),
    );
    nshard::golden::write(&made, &copied).unwrap();
    restore(&copied, NEWEST, &path).unwrap();
    whole(&options().open(&path).unwrap());
    // Closed, the original holds them too.
    whole(&options().open(&made).unwrap());
}

#[test]
fn damage_in_the_middle_of_the_golden_log_is_refused() {
    each(|path| {
        let log = segment(path);
        let used = std::fs::read(&log)
            .unwrap()
            .iter()
            .rposition(|&byte| byte != 0)
            .unwrap();
        // The block before the last one: a later group proves that it was durable.
        change(&log, used / 4096 * 4096 - 4096 + 120, &[0x55; 8]);
        let error = options().open(path).map(drop).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    });
}

#[test]
fn golden_files_without_one_meta_page_are_whole() {
    for page in 0..4 {
        each(|path| {
            change(&path.join("data"), page * 16384, &[0; 16384]);
            whole(&options().open(path).unwrap());
        });
    }
}

#[test]
fn golden_files_without_any_meta_page_are_refused() {
    each(|path| {
        change(&path.join("data"), 0, &[0; 4 * 16384]);
        let error = options().open(path).map(drop).unwrap_err();
        assert!(
            matches!(error, Error::Corrupt(_) | Error::NotADatabase { .. }),
            "{error:?}"
        );
    });
}
