//! The golden database of format v0 opens, holds what it held, and its damage is named.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

use std::path::{Path, PathBuf};

use northstardb::{Db, Error};
use nshard::golden::damage;
use nshard::golden::{Content, SETS, Set, differences, options, restore};

/// Runs `test` on a fresh copy of every set of golden files.
fn each(test: impl Fn(&Path, Set)) {
    for set in SETS {
        println!("{}", set.name);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        restore(&golden().join(set.name), set, &path).unwrap();
        test(&path, set);
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn page_bytes(data: &[u8]) -> usize {
    u32::from_le_bytes(data[84..88].try_into().unwrap()) as usize
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

fn whole(db: &Db, set: Set) {
    assert_eq!(differences(db, set.content).unwrap(), Vec::<String>::new());
    assert_eq!(db.check().unwrap().faults, Vec::<String>::new());
}

#[test]
fn golden_files_open_and_hold_what_they_held() {
    each(|path, set| {
        let db = options().open(path).unwrap();
        whole(&db, set);
        db.close().unwrap();
        // And again after what this version made of them.
        let db = options().open(path).unwrap();
        whole(&db, set);
    });
}

#[test]
fn golden_files_can_be_read_without_writing() {
    each(|path, set| whole(&options().read_only(true).open(path).unwrap(), set));
}

#[test]
fn a_writer_of_this_version_makes_the_same_rows() {
    for set in SETS {
        let dir = tempfile::tempdir().unwrap();
        let (made, copied, path) = (
            dir.path().join("made"),
            dir.path().join("copy"),
            dir.path().join("db"),
        );
        set.content.write(&made, &copied).unwrap();
        let segment_bytes = match set.content {
            Content::Rows => 4 << 20,
            Content::Kinds | Content::Past => set.segment_bytes,
        };
        let now = Set {
            segment_bytes,
            ..set
        };
        restore(&copied, now, &path).unwrap();
        whole(&options().open(&path).unwrap(), set);
        // Closed, the original holds them too.
        whole(&options().open(&made).unwrap(), set);
    }
}

#[test]
fn damage_to_golden_files_is_answered_in_the_same_words() {
    for set in SETS {
        let kept = std::fs::read_to_string(damage::path(&golden(), set)).unwrap();
        let now = damage::table(&golden(), set).unwrap();
        for (kept, now) in kept.lines().zip(now.lines()) {
            assert_eq!(kept, now, "{}", set.name);
        }
        assert_eq!(kept.lines().count(), now.lines().count(), "{}", set.name);
    }
}

#[test]
fn tables_of_damage_name_every_structure_and_no_answer_is_wrong() {
    let mut lines = Vec::new();
    for set in SETS {
        let text = std::fs::read_to_string(damage::path(&golden(), set)).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    for structure in [
        "every meta copy",
        "leaf of names",
        "leaf of roots",
        "leaf of rows",
        "leaf of history",
        "leaf of runs",
        "branch of names, level 1",
        "branch of roots, level 1",
        "branch of rows, level 2",
        "extent",
        "free map",
        "free directory",
        "group, header",
        "group, record, header",
        "group, record, payload",
        "group, record, trailer",
        "group, padding",
        "data file cut",
        "seg missing",
        "seg cut",
    ] {
        let refusals = lines.iter().filter(|line| line.contains(structure));
        let refusals = refusals
            .filter(|line| line.contains(": corrupt ") || line.contains(" opened, and found"));
        assert!(
            refusals.count() > 0,
            "no damage to {structure:?} was noticed"
        );
    }
    // Other rows than there were are no answer to anything, but for the end of the log that nothing proves durable.
    for line in lines.iter().filter(|line| line.contains("or they differ")) {
        assert!(
            line.starts_with("last group") || line.contains(".seg"),
            "{line}"
        );
    }
}

#[test]
fn every_unknown_feature_and_format_is_named_and_nothing_is_written() {
    let format = |number: u32| {
        (
            80,
            number.to_le_bytes().to_vec(),
            format!("file format {number}"),
        )
    };
    let feature = |bit: u32| (88, bit, format!("feature bit {bit}"));
    each(|path, _| {
        let data = std::fs::read(path.join("data")).unwrap();
        let bytes = page_bytes(&data);
        let generation = |copy: usize| data[copy * bytes + 16..copy * bytes + 20].to_vec();
        let newest = (0..4).max_by_key(|copy| generation(*copy)).unwrap();
        let mut futures = vec![format(1), format(2), format(u32::MAX)];
        for bit in 2..64 {
            let (at, bit, why) = feature(bit);
            let known = u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
            futures.push((at, (known | 1 << bit).to_le_bytes().to_vec(), why));
        }
        for (at, with, why) in futures {
            for copies in [vec![newest], vec![0, 1, 2, 3]] {
                let mut future = data.clone();
                for copy in copies {
                    let page = &mut future[copy * bytes..(copy + 1) * bytes];
                    page[at..at + with.len()].copy_from_slice(&with);
                    nshard::checksum::repair_page(page);
                }
                std::fs::write(path.join("data"), &future).unwrap();
                let log = std::fs::read(segment(path)).unwrap();
                for read_only in [true, false] {
                    let opened = options().read_only(read_only).open(path).map(drop);
                    let Err(Error::NewerFormat { why: said, .. }) = opened else {
                        panic!("{why}: {opened:?}");
                    };
                    assert!(said.starts_with(&why), "{said}, not {why}");
                    assert!(
                        said.len() == why.len() || !said.as_bytes()[why.len()].is_ascii_digit()
                    );
                }
                assert!(std::fs::read(path.join("data")).unwrap() == future, "{why}");
                assert!(std::fs::read(segment(path)).unwrap() == log, "{why}");
            }
        }
    });
}

#[test]
fn damage_in_the_middle_of_the_golden_log_is_refused() {
    each(|path, set| {
        // The first group behind the log's start in a meta page: later ones prove that it was durable.
        let data = std::fs::read(path.join("data")).unwrap();
        let start = |copy: usize| {
            let at = copy * page_bytes(&data) + 128;
            u64::from_le_bytes(data[at..at + 8].try_into().unwrap())
        };
        let start = start(0).max(start(1));
        let name = format!("log/{:020}.seg", start / set.segment_bytes);
        let offset = usize::try_from(start % set.segment_bytes).unwrap();
        change(&path.join(name), offset + 120, &[0x55; 8]);
        let error = options().open(path).map(drop).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    });
}

#[test]
fn golden_files_without_one_meta_page_are_whole() {
    for page in 0..4 {
        each(|path, set| {
            let data = path.join("data");
            let bytes = page_bytes(&std::fs::read(&data).unwrap());
            change(&data, page * bytes, &vec![0; bytes]);
            whole(&options().open(path).unwrap(), set);
        });
    }
}

#[test]
fn golden_files_without_any_meta_page_are_refused() {
    each(|path, _| {
        let data = path.join("data");
        let bytes = page_bytes(&std::fs::read(&data).unwrap());
        change(&data, 0, &vec![0; 4 * bytes]);
        let error = options().open(path).map(drop).unwrap_err();
        assert!(
            matches!(error, Error::Corrupt(_) | Error::NotADatabase { .. }),
            "{error:?}"
        );
    });
}
