//! Promise: what cannot be done is refused with an error that says what, where, expected and found, and nothing changes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{chain, copy, files, flip, key, load, loaded, now, rows, small};
use northstardb::{Db, Error, WriteBatch};

const KEY_MAX: usize = 4096;
const VALUE_MAX: usize = 16 << 20;

#[test]
fn a_key_or_value_beyond_its_limit_is_refused_and_one_at_the_limit_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().memory_budget(128 << 20).open(&path).unwrap();
    let table = db.table("t").unwrap();
    let (longest, largest) = (vec![b'k'; KEY_MAX], vec![7; VALUE_MAX]);
    let mut write = db.begin_write().unwrap();
    write.put(&table, b"before", b"kept").unwrap();
    match write.put(&table, [b'k'; KEY_MAX + 1], b"v") {
        Err(Error::TooLarge { len, limit, .. }) => {
            assert_eq!((len, limit), (KEY_MAX as u64 + 1, KEY_MAX as u64));
        }
        other => panic!("{other:?}"),
    }
    match write.put(&table, b"k", vec![0; VALUE_MAX + 1]) {
        Err(Error::TooLarge { len, limit, .. }) => {
            assert_eq!((len, limit), (VALUE_MAX as u64 + 1, VALUE_MAX as u64));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        write.set_tag(&vec![0; 1025]),
        Err(Error::TooLarge { .. })
    ));
    // The refusals left the transaction as it was.
    write.put(&table, &longest, &largest).unwrap();
    write.commit().unwrap();
    let expected = [
        (b"before".to_vec(), b"kept".to_vec()),
        (longest.clone(), largest.clone()),
    ];
    assert!(now(&db, &table) == expected);
    db.checkpoint().unwrap();
    assert!(now(&db, &table) == expected, "after a checkpoint");
    db.close().unwrap();
    let db = small().memory_budget(128 << 20).open(&path).unwrap();
    let table = db.open_table("t").unwrap();
    assert!(now(&db, &table) == expected, "after reopening");
    // A key that cannot exist is refused when reading too.
    let read = db.begin_read().unwrap();
    assert!(matches!(
        read.get(&table, vec![b'k'; KEY_MAX * 3]),
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn a_batch_with_something_too_large_in_it_changes_nothing() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&table, key(1), b"fine");
    batch.put(&table, vec![0; KEY_MAX + 1], b"too long");
    assert!(matches!(db.commit(batch), Err(Error::TooLarge { .. })));
    assert_eq!(now(&db, &table), []);
    load(&db, &table, 0..3, 3);
    assert_eq!(now(&db, &table), loaded(0..3, 3));
}

#[test]
fn unknown_and_taken_table_names_are_told_apart() {
    let db = Db::memory().unwrap();
    let table = db.table("here").unwrap();
    db.table("other").unwrap();
    match db.open_table("nowhere") {
        Err(Error::UnknownTable { name }) => assert_eq!(name, "nowhere"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        db.drop_table("nowhere"),
        Err(Error::UnknownTable { .. })
    ));
    assert!(matches!(
        db.rename_table("nowhere", "x"),
        Err(Error::UnknownTable { .. })
    ));
    assert!(matches!(
        db.rename_table("here", "other"),
        Err(Error::TableExists { .. })
    ));
    assert!(db.table(&"n".repeat(1025)).is_err());
    db.drop_table("here").unwrap();
    // The handle of a dropped table refuses; it does not bring the table back.
    let mut write = db.begin_write().unwrap();
    assert!(matches!(
        write.put(&table, b"k", b"v"),
        Err(Error::UnknownTable { .. })
    ));
    write.abort();
    let mut batch = WriteBatch::new();
    batch.put(&table, b"k", b"v");
    assert!(matches!(db.commit(batch), Err(Error::UnknownTable { .. })));
    assert!(matches!(
        db.begin_read().unwrap().get(&table, b"k"),
        Err(Error::UnknownTable { .. })
    ));
    assert_eq!(db.tables().unwrap(), ["other"]);
}

#[test]
fn after_close_every_handle_answers_closed() {
    let dir = tempfile::tempdir().unwrap();
    let db = small().open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..3, 3);
    let other = db.clone();
    db.close().unwrap();
    assert!(matches!(other.begin_read(), Err(Error::Closed)));
    assert!(matches!(other.begin_write(), Err(Error::Closed)));
    assert!(matches!(other.table("t"), Err(Error::Closed)));
    assert!(matches!(other.checkpoint(), Err(Error::Closed)));
    assert!(matches!(
        other.commit(WriteBatch::new()),
        Err(Error::Closed)
    ));
    assert!(matches!(other.clone().close(), Ok(()) | Err(Error::Closed)));
    // The directory is free although a handle still lives.
    let again = small().open(dir.path().join("db")).unwrap();
    assert_eq!(
        now(&again, &again.open_table("t").unwrap()),
        loaded(0..3, 3)
    );
}

#[test]
fn a_savepoint_that_was_rolled_back_over_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    write.put(&table, b"a", b"1").unwrap();
    let first = write.savepoint();
    write.put(&table, b"b", b"2").unwrap();
    let stale = write.savepoint();
    write.rollback_to(&first).unwrap();
    // As many changes as there were, but others.
    write.put(&table, b"another key", b"another value").unwrap();
    write.put(&table, b"c", b"3").unwrap();
    assert!(write.rollback_to(&stale).is_err());
    // The refusal changed nothing.
    let expected: Vec<(Vec<u8>, Vec<u8>)> =
        [("a", "1"), ("another key", "another value"), ("c", "3")]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
    write.commit().unwrap();
    assert_eq!(now(&db, &table), expected);
    // One of another transaction is refused too.
    let mut write = db.begin_write().unwrap();
    assert!(write.rollback_to(&first).is_err());
    write.abort();
    drop(db);
    let db = small().open(&path).unwrap();
    assert_eq!(now(&db, &db.open_table("t").unwrap()), expected);
}

#[test]
fn a_second_opener_is_told_who_holds_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    match small().open(&path) {
        Err(error @ Error::Locked { .. }) => {
            let pid = std::process::id();
            assert!(
                matches!(error, Error::Locked { pid: Some(holder), .. } if holder == pid),
                "{error:?}"
            );
            assert!(error.to_string().contains(&pid.to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // The refused opening did no harm.
    let table = db.table("t").unwrap();
    load(&db, &table, 0..3, 3);
    drop(db);
    let db = small().open(&path).unwrap();
    assert_eq!(now(&db, &db.open_table("t").unwrap()), loaded(0..3, 3));
}

#[test]
fn a_database_opened_to_read_only_refuses_every_write_and_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..100, 100);
    db.checkpoint().unwrap();
    load(&db, &table, 100..120, 100);
    let copied = dir.path().join("copy");
    copy(&path, &copied);
    let before: Vec<_> = files(&copied)
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    let read_only = small().read_only(true).open(&copied).unwrap();
    let table = read_only.open_table("t").unwrap();
    assert_eq!(now(&read_only, &table), loaded(0..120, 100));
    assert!(matches!(read_only.begin_write(), Err(Error::ReadOnly)));
    assert!(matches!(read_only.table("new"), Err(Error::ReadOnly)));
    assert!(matches!(read_only.drop_table("t"), Err(Error::ReadOnly)));
    let mut batch = WriteBatch::new();
    batch.put(&table, b"k", b"v");
    assert!(matches!(read_only.commit(batch), Err(Error::ReadOnly)));
    read_only.close().unwrap();
    let after: Vec<_> = files(&copied)
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    assert!(before == after, "a read-only database changed its files");
}

#[test]
fn a_directory_without_write_permission_opens_to_read_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..10, 10);
    db.close().unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for file in files(&path) {
        mode(&file, 0o444);
    }
    mode(&path, 0o555);
    // The superuser may write anywhere; then there is nothing to refuse.
    let privileged = std::fs::write(path.join("probe"), b"").is_ok();
    let read_only = small().read_only(true).open(&path);
    let writing = (!privileged).then(|| small().open(&path).map(drop));
    mode(&path, 0o755);
    for file in files(&path) {
        mode(&file, 0o644);
    }
    let read_only = read_only.unwrap();
    assert_eq!(
        now(&read_only, &read_only.open_table("t").unwrap()),
        loaded(0..10, 10)
    );
    if let Some(writing) = writing {
        assert!(
            matches!(writing, Err(Error::Io(_) | Error::ReadOnly)),
            "{writing:?}"
        );
    }
}

#[test]
fn what_is_not_a_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    // A file.
    let file = dir.path().join("file");
    std::fs::write(&file, b"a file").unwrap();
    let error = small().open(&file).map(drop).unwrap_err();
    assert!(
        matches!(error, Error::NotADatabase { .. } | Error::Io(_)),
        "{error:?}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"a file");
    // A directory full of other things.
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("letter.txt"), b"dear").unwrap();
    match small().open(&home) {
        Err(Error::NotADatabase { path, .. }) => assert_eq!(path, home),
        other => panic!("{other:?}"),
    }
    assert_eq!(files(&home), [home.join("letter.txt")]);
    // Nothing there, and not to be made.
    let nothing = dir.path().join("nothing");
    assert!(small().create(false).open(&nothing).is_err());
    assert!(small().read_only(true).open(&nothing).is_err());
    assert!(!nothing.exists());
    // A data file of somebody else.
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("data"), b"SQLite format 3\0".repeat(8192)).unwrap();
    let error = small().open(&foreign).map(drop).unwrap_err();
    assert!(
        matches!(error, Error::NotADatabase { .. } | Error::Corrupt(_)),
        "{error:?}"
    );
    assert_eq!(
        std::fs::read(foreign.join("data")).unwrap().len(),
        16 * 8192
    );
}

/// A closed database with three tables, and its files.
fn closed(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("db");
    let db = small().open(&path).unwrap();
    for name in ["a", "b", "c"] {
        let table = db.table(name).unwrap();
        load(&db, &table, 0..400, 100);
        load(&db, &table, 1000..1003, 40_000);
    }
    db.close().unwrap();
    path
}

fn expected() -> common::Rows {
    let mut rows = loaded(0..400, 100);
    rows.extend(loaded(1000..1003, 40_000));
    rows
}

#[test]
fn a_flipped_byte_in_any_page_is_found_and_the_rest_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path());
    let pages = std::fs::metadata(path.join("data")).unwrap().len() / 16384;
    assert!(pages > 10, "{pages}");
    let (mut found, mut unopened) = (0, 0);
    for page in 4..pages {
        let broken = dir.path().join("broken");
        copy(&path, &broken);
        flip(
            &broken.join("data"),
            page * 16384 + 100 + page * 37 % 16_000,
        );
        match small().open(&broken) {
            Err(error) => {
                assert!(matches!(error, Error::Corrupt(_)), "page {page}: {error:?}");
                unopened += 1;
            }
            Ok(db) => {
                found += u64::from(read_what_is_sound(&db, page));
            }
        }
        std::fs::remove_dir_all(&broken).unwrap();
    }
    println!("{pages} pages: {found} flips found by reading or checking, {unopened} by opening");
    // At least every leaf and overflow page is in use after a fresh load.
    assert!(
        (found + unopened) * 2 > pages,
        "{found} and {unopened} of {pages}"
    );
}

/// Reads every key alone. Returns whether anything noticed the damage; nothing may be wrong.
fn read_what_is_sound(db: &Db, page: u64) -> bool {
    let report = db.check();
    let checked = match &report {
        Ok(report) => !report.faults.is_empty(),
        Err(error) => panic!("page {page}: a check ends in {error:?} instead of a list of faults"),
    };
    let (mut sound, mut lost) = (0, 0);
    let read = db.begin_read().unwrap();
    for name in ["a", "b", "c"] {
        let table = match db.open_table(name) {
            Ok(table) => table,
            Err(error) => {
                assert!(matches!(error, Error::Corrupt(_)), "page {page}: {error:?}");
                lost += 403;
                continue;
            }
        };
        for (key, value) in expected() {
            match read.get(&table, &key) {
                Ok(Some(found)) => {
                    assert!(*found == *value, "page {page}: a wrong value");
                    sound += 1;
                }
                Ok(None) => panic!("page {page}: a key is gone without an error"),
                Err(error) => {
                    assert!(matches!(error, Error::Corrupt(_)), "page {page}: {error:?}");
                    lost += 1;
                }
            }
        }
        // A range over the damage ends in the error and stays ended.
        let mut range = read.range::<&[u8]>(&table, ..).unwrap();
        let until = range.by_ref().take_while(Result::is_ok).count();
        assert!(
            until <= 403 && range.next().is_none_or(|row| row.is_err()),
            "page {page}"
        );
    }
    assert!(
        lost == 0 || checked,
        "page {page}: reading found damage that a check did not"
    );
    assert!(sound > 0 || lost == 3 * 403, "page {page}");
    checked || lost > 0
}

#[test]
fn one_damaged_meta_page_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path());
    for page in 0..4u64 {
        for offset in [0, 9, 40, 200] {
            let broken = dir.path().join("broken");
            copy(&path, &broken);
            flip(&broken.join("data"), page * 16384 + offset);
            let db = small()
                .open(&broken)
                .unwrap_or_else(|error| panic!("meta {page}+{offset}: {}", chain(&error)));
            for name in ["a", "b", "c"] {
                assert!(
                    now(&db, &db.open_table(name).unwrap()) == expected(),
                    "meta {page}+{offset}"
                );
            }
            drop(db);
            std::fs::remove_dir_all(&broken).unwrap();
        }
    }
}

/// A newer version has written one meta slot, its checksums right: another format, or a feature this one cannot know.
#[test]
fn files_of_a_newer_version_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path());
    let data = path.join("data");
    let sound = std::fs::read(&data).unwrap();
    for (offset, byte, named) in [(80, 1, "file format 1"), (95, 0x80, "feature bit 63")] {
        for slot in [0, 1] {
            let mut newer = sound.clone();
            for page in newer.chunks_mut(16384).skip(slot).step_by(2).take(2) {
                page[offset] = byte;
                let sum = crc_fast::crc32_iscsi(&page[4..]);
                page[..4].copy_from_slice(&sum.to_le_bytes());
            }
            std::fs::write(&data, &newer).unwrap();
            for read_only in [false, true] {
                let opened = small().read_only(read_only).open(&path);
                let error = opened.map(drop).unwrap_err();
                assert!(matches!(error, Error::NewerFormat { .. }), "{error:?}");
                assert!(error.to_string().contains(named), "{error}");
            }
            assert!(std::fs::read(&data).unwrap() == newer, "the refusal wrote");
        }
    }
    std::fs::write(&data, &sound).unwrap();
    small().open(&path).unwrap();
}

#[test]
fn all_meta_pages_damaged_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path());
    for page in 0..4u64 {
        flip(&path.join("data"), page * 16384 + 40);
    }
    let before = std::fs::read(path.join("data")).unwrap();
    let error = small().open(&path).map(drop).unwrap_err();
    assert!(
        matches!(error, Error::Corrupt(_) | Error::NotADatabase { .. }),
        "{error:?}"
    );
    assert!(
        before == std::fs::read(path.join("data")).unwrap(),
        "the refusal wrote"
    );
}

#[test]
fn a_truncated_data_file_is_an_error_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = closed(dir.path());
    let len = std::fs::metadata(path.join("data")).unwrap().len();
    for cut in [
        0,
        1,
        4096,
        16384,
        16384 * 3,
        16384 * 4,
        len / 2,
        len - 16384,
        len - 1,
    ] {
        let broken = dir.path().join("broken");
        copy(&path, &broken);
        let file = std::fs::File::options()
            .write(true)
            .open(broken.join("data"))
            .unwrap();
        file.set_len(cut).unwrap();
        match small().create(false).open(&broken) {
            Err(Error::Corrupt(_) | Error::NotADatabase { .. }) => {}
            Err(other) => panic!("cut at {cut}: {other:?}"),
            Ok(db) => {
                for name in ["a", "b", "c"] {
                    let read = db.begin_read().unwrap();
                    match db.open_table(name).and_then(|table| {
                        read.range::<&[u8]>(&table, ..)?
                            .collect::<Result<Vec<_>, _>>()
                    }) {
                        Ok(found) => assert!(found == expected(), "cut at {cut}"),
                        Err(error) => assert!(
                            matches!(error, Error::Corrupt(_)),
                            "cut at {cut}: {error:?}"
                        ),
                    }
                }
            }
        }
        std::fs::remove_dir_all(&broken).unwrap();
    }
}

#[test]
fn a_flipped_byte_in_the_middle_of_the_log_is_not_taken_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small()
        .delta_bytes(8 << 20)
        .memory_budget(64 << 20)
        .open(&path)
        .unwrap();
    let table = db.table("t").unwrap();
    let groups = 40;
    for number in 0..groups {
        load(&db, &table, number..number + 1, 3000);
    }
    // Each commit is a group of one block; the middle one is certainly before the last.
    let log = files(&path.join("log"));
    let bytes = std::fs::read(&log[0]).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64;
    for at in [used / 2, used / 3, used / 4] {
        let broken = dir.path().join("broken");
        copy(&path, &broken);
        // Somewhere in the value's bytes.
        let offset = at / 4096 * 4096 + 1500;
        flip(
            &broken.join("log").join(log[0].file_name().unwrap()),
            offset,
        );
        let before: Vec<_> = files(&broken)
            .iter()
            .map(|file| std::fs::read(file).unwrap())
            .collect();
        match small().open(&broken) {
            Err(error) => assert!(matches!(error, Error::Corrupt(_)), "{offset}: {error:?}"),
            Ok(db) => panic!(
                "flip at {offset} of {used}: opened with {} of {groups} acknowledged rows",
                now(&db, &db.open_table("t").unwrap()).len()
            ),
        }
        let after: Vec<_> = files(&broken)
            .iter()
            .map(|file| std::fs::read(file).unwrap())
            .collect();
        assert!(before == after, "the refusal wrote");
        std::fs::remove_dir_all(&broken).unwrap();
    }
}

#[test]
fn a_missing_log_is_an_error_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..10, 10);
    let copied = dir.path().join("copy");
    copy(&path, &copied);
    for segment in files(&copied.join("log")) {
        std::fs::remove_file(segment).unwrap();
    }
    match small().open(&copied) {
        Err(Error::Corrupt(_) | Error::NotADatabase { .. }) => {}
        Err(other) => panic!("{other:?}"),
        // Without any segment nothing proves that there was a commit; but then nothing may be half there.
        Ok(db) => assert_eq!(db.tables().unwrap(), Vec::<String>::new()),
    }
}

#[test]
fn options_that_cannot_work_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        small().page_bytes(1000),
        small().page_bytes(1 << 20),
        small().memory_budget(1),
    ] {
        let error = options.open(dir.path().join("db")).map(drop).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error:?}");
    }
}

#[test]
fn a_reversed_range_is_empty_and_an_empty_key_is_a_key() {
    let db = Db::memory().unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..10, 10);
    let read = db.begin_read().unwrap();
    assert_eq!(read.range(&table, key(7)..key(3)).unwrap().count(), 0);
    assert_eq!(read.range(&table, key(7)..key(7)).unwrap().count(), 0);
    let mut write = db.begin_write().unwrap();
    write.delete_range(&table, key(7)..key(3)).unwrap();
    write.put(&table, b"", b"empty").unwrap();
    write.commit().unwrap();
    let read = db.begin_read().unwrap();
    assert_eq!(rows(&read, &table).len(), 11);
    assert_eq!(&*read.get(&table, b"").unwrap().unwrap(), b"empty");
    assert_eq!(read.first(&table).unwrap().unwrap().0, b"");
    db.checkpoint().unwrap();
    assert_eq!(now(&db, &table), rows(&read, &table));
}

#[test]
fn a_write_transaction_that_outlives_its_database_cannot_meet_the_next_opener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = small().open(&path).unwrap();
    let table = db.table("t").unwrap();
    load(&db, &table, 0..3, 3);
    let mut write = db.begin_write().unwrap();
    write.put(&table, key(7), b"late").unwrap();
    drop(db);
    match small().open(&path) {
        // Either the transaction still holds the database,
        Err(Error::Locked { .. }) => {
            write.commit().unwrap();
            let db = small().open(&path).unwrap();
            assert_eq!(now(&db, &db.open_table("t").unwrap()).len(), 4);
        }
        // or it has lost it.
        Ok(next) => {
            assert!(write.commit().is_err(), "two writers in one log");
            let table = next.open_table("t").unwrap();
            load(&next, &table, 0..5, 5);
            drop(next);
            let db = small().open(&path).unwrap();
            assert_eq!(now(&db, &db.open_table("t").unwrap()), loaded(0..5, 5));
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn small_pages_refuse_keys_that_would_not_fit_twice() {
    let db = small().page_bytes(4096).memory().unwrap();
    let table = db.table("t").unwrap();
    let mut write = db.begin_write().unwrap();
    match write.put(&table, [b'k'; 1025], b"v") {
        Err(Error::TooLarge { len, limit, .. }) => assert_eq!((len, limit), (1025, 1024)),
        other => panic!("{other:?}"),
    }
    write.put(&table, [b'k'; 1024], b"v").unwrap();
    write.put(&table, [b'l'; 1024], b"v").unwrap();
    write.commit().unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&table, [b'k'; 1025], b"v");
    assert!(matches!(db.commit(batch), Err(Error::TooLarge { .. })));
    db.checkpoint().unwrap();
    assert_eq!(now(&db, &table).len(), 2);
}
