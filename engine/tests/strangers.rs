//! Promise: a data file and a log of different times or copies never pass for one database whose commits are lost unseen.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{copy, key, load, small};
use northstardb::{Db, Error, LogFilter, Options, Retention, TxnId};

const SEGMENT: u32 = 64 << 10;

fn short(log: Retention) -> Options {
    small()
        .page_bytes(4096)
        .log_segment_bytes(SEGMENT)
        .log_retention(log)
}

/// One transaction a row, of values so long.
fn commit(db: &Db, rows: std::ops::Range<u64>, len: usize) -> TxnId {
    let table = db.table("t").unwrap();
    for row in rows {
        load(db, &table, row..row + 1, len);
    }
    db.begin_read().unwrap().txn_id()
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = common::files(&path.join("log"));
    found.retain(|file| file.extension().is_some_and(|ending| ending == "seg"));
    found.sort();
    found
}

/// The segment in which the log ends: the last that is not all zeros.
fn last_used(path: &Path) -> usize {
    let is_used = |file: &PathBuf| std::fs::read(file).unwrap().iter().any(|byte| *byte != 0);
    segments(path).iter().rposition(is_used).unwrap()
}

#[test]
fn an_older_data_file_that_was_closed_does_not_hide_the_log() {
    // Groups of one block, and such of two, which begin with no segment.
    for (log, len) in [
        (Retention::None, 50),
        (Retention::None, 5000),
        (Retention::All, 50),
        (Retention::All, 5000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = short(log).open(&path).unwrap();
        commit(&db, 0..40, len);
        db.close().unwrap();
        let older = std::fs::read(path.join("data")).unwrap();
        // Few, and then more than segments, which are let go where none are kept.
        for rows in [40..45, 40..200] {
            let there = dir.path().join(format!("{rows:?}"));
            copy(&path, &there);
            let db = short(log).open(&there).unwrap();
            let last = commit(&db, rows.clone(), len);
            let digest = db.begin_read().unwrap().state_hash().unwrap();
            if rows.end > 100 {
                db.checkpoint().unwrap();
            }
            drop(db);
            std::fs::write(there.join("data"), &older).unwrap();
            let verified = short(log).verify_log(&there).unwrap();
            match short(log).open(&there) {
                Ok(db) => {
                    let read = db.begin_read().unwrap();
                    assert_eq!((read.txn_id(), read.state_hash().unwrap()), (last, digest));
                    drop(read);
                    db.close().unwrap();
                }
                Err(Error::Corrupt(_)) => {
                    assert!(log == Retention::None && rows.end > 100);
                    assert_eq!(verified.holes.len(), 1, "{verified:?}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn the_log_of_a_copy_that_went_its_own_way_is_not_followed_as_the_own() {
    let dir = tempfile::tempdir().unwrap();
    let (path, fork) = (dir.path().join("db"), dir.path().join("fork"));
    let db = short(Retention::All).open(&path).unwrap();
    let met = commit(&db, 0..40, 50);
    db.close().unwrap();
    copy(&path, &fork);
    for (path, rows) in [(&path, 100..140), (&fork, 200..240)] {
        let db = short(Retention::All).open(path).unwrap();
        commit(&db, rows, 50);
        db.close().unwrap();
    }
    // All of the other's log, and its last segment alone.
    let others = segments(&fork);
    assert!(last_used(&path) > 0 && last_used(&path) < others.len());
    for from in [0, last_used(&path)] {
        let mixed = dir.path().join(format!("mixed {from}"));
        copy(&path, &mixed);
        for (place, other) in segments(&mixed).iter().zip(&others).skip(from) {
            std::fs::copy(other, place).unwrap();
        }
        let db = short(Retention::All).open(&mixed).unwrap();
        let refused = |outcome: northstardb::Result<()>| match outcome {
            Err(Error::Corrupt(at)) => assert_eq!(at.file, "log"),
            other => panic!("from segment {from}: {other:?}"),
        };
        refused(db.backup_since(met, &mut Vec::new()).map(drop));
        let log = db.log().unwrap();
        for first in [met.next(), TxnId::new(log.next().get() - 1)] {
            let follow = || -> northstardb::Result<()> {
                let mut tail = log.tail(first, LogFilter::every_transaction())?;
                while tail.try_next()?.is_some() {}
                Ok(())
            };
            refused(follow());
        }
        assert_eq!(log.check().unwrap().holes.len(), 1);
        // What it holds itself is untouched.
        let table = db.open_table("t").unwrap();
        assert!(db.begin_read().unwrap().contains(&table, key(139)).unwrap());
        db.close().unwrap();
    }
}

#[test]
fn a_segment_that_was_cut_short_is_damage_and_not_the_end_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = short(Retention::All).open(&path).unwrap();
    commit(&db, 0..100, 50);
    drop(db);
    let report = short(Retention::All).verify_log(&path).unwrap();
    assert!(report.holes.is_empty(), "{report:?}");
    let last = segments(&path)[last_used(&path)].clone();
    let bytes = std::fs::read(&last).unwrap();
    for len in [0, 300, 4096, 8192 + 77] {
        std::fs::write(&last, &bytes[..len]).unwrap();
        match short(Retention::All).open(&path) {
            Err(Error::Corrupt(at)) => assert!(at.detail.contains("cut short"), "{at:?}"),
            other => panic!("{len} bytes: {other:?}"),
        }
        let report = short(Retention::All).verify_log(&path).unwrap();
        let [hole] = &report.holes[..] else {
            panic!("{len} bytes: {report:?}");
        };
        assert!(hole.why.contains("cut short"), "{report:?}");
        assert!(report.tail.is_none(), "{report:?}");
    }
    std::fs::write(&last, &bytes).unwrap();
    let db = short(Retention::All).open(&path).unwrap();
    let table = db.open_table("t").unwrap();
    assert!(db.begin_read().unwrap().contains(&table, key(99)).unwrap());
    db.close().unwrap();
}

/// Opens `path` and says that it was refused as damaged, as `verify_log` says too.
fn refused(path: &Path, log: Retention) {
    let verified = short(log).verify_log(path).unwrap();
    assert!(!verified.holes.is_empty(), "{verified:?}");
    match short(log).open(path) {
        Err(Error::Corrupt(at)) => assert_eq!(at.file, "log", "{at:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_older_data_file_that_ends_with_a_segment_does_not_hide_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    // One that ends where a segment does, and that of a restored database, which has no log at first.
    let db = short(Retention::None).open(&path).unwrap();
    let table = db.table("t").unwrap();
    for row in 0.. {
        let mut write = db.begin_write().unwrap();
        write.put(&table, key(row), vec![1; 100]).unwrap();
        let lsn = write.commit().unwrap().lsn.get();
        if lsn > 2 * u64::from(SEGMENT) && lsn.is_multiple_of(SEGMENT.into()) {
            break;
        }
    }
    let mut backup = Vec::new();
    db.backup(&mut backup).unwrap();
    db.close().unwrap();
    let restored = dir.path().join("restored");
    let restore = short(Retention::None).restore(&restored, &backup[..]);
    restore.unwrap().finish().close().unwrap();
    for path in [path, restored] {
        let older = std::fs::read(path.join("data")).unwrap();
        for (more, closed) in [(40, true), (43, true), (40, false), (46, false)] {
            let there = dir.path().join("there");
            copy(&path, &there);
            let db = short(Retention::None).open(&there).unwrap();
            commit(&db, 1000..1000 + more, 50);
            db.checkpoint().unwrap();
            match closed {
                true => db.close().unwrap(),
                false => {
                    commit(&db, 2000..2003, 50);
                    drop(db);
                }
            }
            std::fs::write(there.join("data"), &older).unwrap();
            refused(&there, Retention::None);
            std::fs::remove_dir_all(&there).unwrap();
        }
    }
}

#[test]
fn a_log_without_the_segment_in_which_it_goes_on_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, log) in [("kept", Retention::All), ("none", Retention::None)] {
        let path = dir.path().join(name);
        let db = short(log).open(&path).unwrap();
        commit(&db, 0..40, 50);
        db.checkpoint().unwrap();
        let last = commit(&db, 40..60, 50);
        drop(db);
        // From the one on in which recovery begins, and all of them.
        let begins = short(log).verify_log(&path).unwrap().recovery.unwrap();
        let number = begins.get() / u64::from(SEGMENT);
        assert!(begins.get() > number * u64::from(SEGMENT));
        let name_of = format!("{number:020}.seg");
        let begins = segments(&path)
            .iter()
            .position(|file| file.ends_with(&name_of));
        for from in [begins.unwrap(), 0] {
            let there = dir.path().join(format!("{name} {from}"));
            copy(&path, &there);
            for segment in &segments(&there)[from..] {
                std::fs::remove_file(segment).unwrap();
            }
            refused(&there, log);
        }
        let db = short(log).open(&path).unwrap();
        assert_eq!(db.begin_read().unwrap().txn_id(), last);
        db.close().unwrap();
    }
}

#[test]
fn the_data_file_of_another_database_does_not_hide_the_log() {
    let dir = tempfile::tempdir().unwrap();
    for (name, log) in [("kept", Retention::All), ("none", Retention::None)] {
        let (path, restored) = (dir.path().join(name), dir.path().join(format!("{name} r")));
        let db = short(log).open(&path).unwrap();
        commit(&db, 0..20, 50);
        let mut backup = Vec::new();
        db.backup(&mut backup).unwrap();
        let last = commit(&db, 20..60, 50);
        db.checkpoint().unwrap();
        db.close().unwrap();
        let restore = short(log).restore(&restored, &backup[..]).unwrap();
        restore.finish().close().unwrap();
        // That of what was restored elsewhere, and of a database that was just made, closed and not.
        let [closed, left] = ["closed", "left"].map(|end| {
            let path = dir.path().join(format!("{name} {end}"));
            let db = short(log).open(&path).unwrap();
            match end {
                "closed" => db.close().unwrap(),
                _ => drop(db),
            }
            path
        });
        let own = std::fs::read(path.join("data")).unwrap();
        for other in [&restored, &closed, &left] {
            std::fs::copy(other.join("data"), path.join("data")).unwrap();
            refused(&path, log);
        }
        std::fs::remove_file(path.join("data")).unwrap();
        if log == Retention::All {
            let all = short(log).read_log(&path, TxnId::new(1)).unwrap();
            assert_eq!(all.map(Result::unwrap).count() as u64, last.get());
        }
        std::fs::write(path.join("data"), own).unwrap();
        short(log).open(&path).unwrap().close().unwrap();
    }
}

#[test]
fn the_data_file_of_a_copy_that_ends_within_a_group_does_not_hide_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (path, fork) = (dir.path().join("db"), dir.path().join("fork"));
    let db = short(Retention::All).open(&path).unwrap();
    commit(&db, 0..20, 50);
    db.close().unwrap();
    copy(&path, &fork);
    // Groups of three blocks, and one of one.
    let db = short(Retention::All).open(&path).unwrap();
    commit(&db, 20..24, 9000);
    db.close().unwrap();
    let db = short(Retention::All).open(&fork).unwrap();
    commit(&db, 20..21, 50);
    db.close().unwrap();
    std::fs::copy(fork.join("data"), path.join("data")).unwrap();
    refused(&path, Retention::All);
}

#[test]
fn what_looks_like_a_group_of_another_database_behind_the_own_ones_is_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    commit_and(&other, 9, true);
    let theirs = std::fs::read(&segments(&other)[0]).unwrap();
    let end = 6 * 4096;
    // As a recycled segment may hold it, right at the end of the log or behind it, of a database that was closed and of one that was not.
    for (from, closed) in [
        (end, true),
        (end, false),
        (end + 4096, true),
        (end + 4096, false),
    ] {
        let path = dir.path().join(format!("{from} {closed}"));
        commit_and(&path, 5, closed);
        let own = &segments(&path)[0];
        let mut bytes = std::fs::read(own).unwrap();
        bytes[from..].copy_from_slice(&theirs[from..]);
        std::fs::write(own, &bytes).unwrap();
        let report = short(Retention::All).verify_log(&path).unwrap();
        assert!(report.holes.is_empty(), "{report:?}");
        assert_eq!(report.next, Some(TxnId::new(7)));
        // Nor when it is opened again.
        for rows in [5, 6] {
            let db = short(Retention::All).open(&path).unwrap();
            let table = db.open_table("t").unwrap();
            let read = db.begin_read().unwrap();
            assert_eq!(read.iter(&table).unwrap().count(), rows);
            assert!(db.log().unwrap().check().unwrap().holes.is_empty());
            drop(read);
            commit(&db, 5..6, 50);
        }
    }
}

#[test]
fn a_group_that_was_made_another_databases_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Beside the data file of its own time, and beside an older one that was closed where the group begins.
    for older in [false, true] {
        let path = dir.path().join(format!("{older}"));
        commit_and(&path, 5, true);
        let data = std::fs::read(path.join("data")).unwrap();
        let db = short(Retention::All).open(&path).unwrap();
        commit(&db, 5..6, 50);
        drop(db);
        if older {
            std::fs::write(path.join("data"), data).unwrap();
        }
        let segment = &segments(&path)[0];
        let mut bytes = std::fs::read(segment).unwrap();
        let header = &mut bytes[6 * 4096..][..64];
        header[32] ^= 1;
        let crc = crc_fast::crc32_iscsi(&header[8..]);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(segment, &bytes).unwrap();
        refused(&path, Retention::All);
    }
}

/// Makes a database of so many rows, one a transaction.
fn commit_and(path: &Path, rows: u64, close: bool) {
    let db = short(Retention::All).open(path).unwrap();
    commit(&db, 0..rows, 50);
    match close {
        true => db.close().unwrap(),
        false => drop(db),
    }
}

#[test]
fn the_last_segment_of_another_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("db"), dir.path().join("other"));
    for path in [&path, &other] {
        commit_and(path, 40, false);
    }
    let last = last_used(&path);
    std::fs::copy(&segments(&other)[last], &segments(&path)[last]).unwrap();
    refused(&path, Retention::All);
}
