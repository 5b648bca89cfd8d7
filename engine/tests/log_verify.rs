//! Promise: the commit log can be verified whatever has become of the database, each hole in it is named, and nothing that is
//! damaged passes for sound.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod common;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{copy, files, flip, load, small};
use northstardb::{Error, LogReport, Lsn, Options, Retention, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SEGMENT: u64 = 64 << 10;

/// Segments of the smallest size, so that groups cross them and many come and go.
fn short() -> Options {
    small()
        .log_segment_bytes(SEGMENT as u32)
        .log_retention(Retention::All)
}

/// A group that was written: where it is, and its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    place: Range<u64>,
    txns: Range<u64>,
}

/// A database, the way it was left, and what its log holds.
struct Sound {
    path: PathBuf,
    groups: Vec<Group>,
    /// Nothing but the log itself says how far it was durable.
    crashed: bool,
}

/// What can be wrong beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    Sound,
    NoMeta,
    Missing,
}

fn segment(path: &Path, number: u64) -> PathBuf {
    path.join("log").join(format!("{number:020}.seg"))
}

/// The groups in a sound log that begins at 0.
fn groups(path: &Path) -> Vec<Group> {
    let mut bytes = Vec::new();
    while let Ok(more) = std::fs::read(segment(path, bytes.len() as u64 / SEGMENT)) {
        bytes.extend(more);
    }
    let (mut groups, mut at) = (Vec::new(), 0);
    while bytes.get(at..at + 4) == Some(b"NSLG") {
        let number = |offset: usize| {
            u64::from_le_bytes(bytes[at + offset..at + offset + 8].try_into().unwrap())
        };
        let (from, len, txn) = (at as u64, number(24), number(48));
        groups.push(Group {
            place: from..from + len,
            txns: txn..txn + (number(56) & 0xffff_ffff),
        });
        at += len as usize;
    }
    groups
}

/// Some transactions in more than five segments; they differ with `what`, and take the same places.
fn make(dir: &Path, what: &str) -> [Sound; 2] {
    let (open, closed) = (
        dir.join(format!("{what}-open")),
        dir.join(format!("{what}-closed")),
    );
    let crashed = dir.join(format!("{what}-crashed"));
    let db = short().delta_bytes(2 << 20).open(&open).unwrap();
    let table = db.table(what).unwrap();
    let base = 1000 * u64::from(what.as_bytes()[0]);
    for round in base..base + 40 {
        load(&db, &table, round..round + 10, 1000);
    }
    copy(&open, &crashed);
    db.checkpoint().unwrap();
    db.close().unwrap();
    std::fs::rename(&open, &closed).unwrap();
    [(closed, false), (crashed, true)].map(|(path, crashed)| Sound {
        groups: groups(&path),
        path,
        crashed,
    })
}

impl Sound {
    fn all(&self) -> u64 {
        self.groups
            .iter()
            .map(|group| group.txns.end - group.txns.start)
            .sum()
    }

    fn end(&self) -> u64 {
        self.groups.last().unwrap().place.end
    }

    /// A copy, with what is wrong beside its log.
    fn copied(&self, dir: &Path, data: Data) -> PathBuf {
        let path = dir.join("damaged");
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        copy(&self.path, &path);
        match data {
            Data::Sound => {}
            Data::NoMeta => (0..4).for_each(|page| flip(&path.join("data"), page * 16384 + 100)),
            Data::Missing => std::fs::remove_file(path.join("data")).unwrap(),
        }
        path
    }

    /// The groups that have bytes of `damaged`.
    fn hit(&self, damaged: &Range<u64>) -> Vec<Group> {
        let meets =
            |group: &&Group| group.place.start < damaged.end && damaged.start < group.place.end;
        self.groups.iter().filter(meets).cloned().collect()
    }
}

fn verify(path: &Path) -> LogReport {
    let bytes = |path: &Path| -> Vec<_> {
        let all = files(path).into_iter();
        let ours = all.filter(|file| file.file_name().unwrap() != "LOCK");
        ours.map(|file| (std::fs::read(&file).unwrap(), file))
            .collect()
    };
    let before = bytes(path);
    let report = small().verify_log(path).unwrap();
    assert!(before == bytes(path), "verifying writes nothing");
    report
}

/// One hole in the place of the groups that have bytes of `damaged`; all else is found. If nothing says that the last group was
/// durable, its damage is what a crash may have left.
fn assert_one_hole(sound: &Sound, data: Data, report: &LogReport, damaged: &Range<u64>) -> String {
    let hit = sound.hit(damaged);
    let (first, last) = (hit.first().unwrap(), hit.last().unwrap());
    let txns = first.txns.start..last.txns.end;
    assert_eq!(
        report.transactions,
        sound.all() - (txns.end - txns.start),
        "{report:?}"
    );
    assert_eq!(
        report.without_meta.is_none(),
        data == Data::Sound,
        "{report:?}"
    );
    let proven = !sound.crashed && data == Data::Sound;
    if last == sound.groups.last().unwrap() && !proven {
        let tail = report.tail.as_ref().unwrap();
        assert_eq!(
            (tail.at.get(), tail.transactions),
            (first.place.start, 0),
            "{report:?}"
        );
        assert_eq!(report.holes, [], "{report:?}");
        return tail.why.clone();
    }
    let [hole] = &report.holes[..] else {
        panic!("{report:?}");
    };
    let places = hole.place.map(|(from, to)| from.get()..to.get());
    assert_eq!(
        places,
        Some(first.place.start..last.place.end),
        "{report:?}"
    );
    assert_eq!(hole.next.map(TxnId::get), Some(txns.end), "{report:?}");
    if hole.first.is_some() || first.place.start > 0 || data == Data::Sound && sound.crashed {
        assert_eq!(hole.first.map(TxnId::get), Some(txns.start), "{report:?}");
    }
    assert_eq!(
        (&report.tail, report.unexplained),
        (&None, None),
        "{report:?}"
    );
    hole.why.clone()
}

const ALL_DATA: [Data; 3] = [Data::Sound, Data::NoMeta, Data::Missing];

#[test]
fn a_sound_log_has_no_holes_whether_or_not_the_database_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    for sound in make(dir.path(), "a") {
        assert!(sound.end() > 5 * SEGMENT, "{:?}", sound.groups);
        for data in ALL_DATA {
            let report = verify(&sound.copied(dir.path(), data));
            let ends = (report.first.unwrap().get(), report.next.unwrap().get());
            assert_eq!(ends, (1, 1 + sound.all()), "{report:?}");
            assert_eq!(report.transactions, sound.all(), "{report:?}");
            assert_eq!(report.changes, sound.all() * 10 - 9, "{report:?}");
            assert_eq!((report.holes.len(), &report.tail), (0, &None), "{report:?}");
            assert_eq!(report.recovery.is_some(), data == Data::Sound, "{report:?}");
        }
    }
}

#[test]
fn every_kind_of_damage_is_one_hole_with_its_place_and_its_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let others = make(dir.path(), "b");
    for (sound, other) in make(dir.path(), "a").iter().zip(&others) {
        assert_eq!(sound.groups, other.groups, "the same places");
        for data in ALL_DATA {
            let path = sound.copied(dir.path(), data);
            let check = |damaged: Range<u64>, expected: &str| {
                let report = verify(&path);
                let why = assert_one_hole(sound, data, &report, &damaged);
                assert!(why.contains(expected), "{why}");
                if data == Data::Sound {
                    // What recovery needs decides whether it opens.
                    let last = damaged.end > sound.groups.last().unwrap().place.start;
                    let opened = short().read_only(true).open(&path);
                    assert_eq!(opened.is_ok(), !sound.crashed || last, "{damaged:?}");
                } else {
                    assert!(short().create(false).read_only(true).open(&path).is_err());
                }
            };
            let write =
                |number, bytes: &[u8]| std::fs::write(segment(&path, number), bytes).unwrap();
            let ranges = [0, 1, sound.groups.len() / 2, sound.groups.len() - 1];
            for group in ranges.map(|index| &sound.groups[index]) {
                let at = group.place.start;
                let (number, offset) = (at / SEGMENT, at % SEGMENT);
                let whole = std::fs::read(segment(&path, number)).unwrap();
                // A byte of its payload, one of its header, and its first block.
                flip(&segment(&path, number), offset + 150);
                check(at + 150..at + 151, "PayloadChecksum");
                write(number, &whole);
                flip(&segment(&path, number), offset + 50);
                check(at + 50..at + 51, "HeaderChecksum");
                write(number, &whole);
                if group.place.end < sound.end() {
                    let mut zeroed = whole.clone();
                    zeroed[offset as usize..][..4096].fill(0);
                    write(number, &zeroed);
                    check(at..at + 4096, "Magic");
                }
                write(number, &whole);
            }
            let middle = 3 * SEGMENT..4 * SEGMENT;
            let whole = std::fs::read(segment(&path, 3)).unwrap();
            std::fs::remove_file(segment(&path, 3)).unwrap();
            check(middle.clone(), "segment 3 is not there");
            write(3, &whole[..SEGMENT as usize / 2 + 77]);
            check(3 * SEGMENT + SEGMENT / 2 + 77..middle.end, "log");
            // Its own bytes of an earlier life, and those of another database.
            write(3, &std::fs::read(segment(&path, 1)).unwrap());
            check(middle.clone(), "");
            write(3, &std::fs::read(segment(&other.path, 3)).unwrap());
            check(middle, "");
            write(3, &whole);
            assert_eq!(verify(&path).transactions, sound.all());
        }
    }
}

#[test]
fn what_a_crash_may_have_left_at_the_end_is_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let [closed, crashed] = make(dir.path(), "a");
    let last = crashed.groups.last().unwrap();
    let (number, offset) = (last.place.start / SEGMENT, last.place.start % SEGMENT);
    for data in ALL_DATA {
        let path = crashed.copied(dir.path(), data);
        // Torn after its first block, then altogether absent.
        let mut bytes = std::fs::read(segment(&path, number)).unwrap();
        bytes[offset as usize + 4096..].fill(0);
        std::fs::write(segment(&path, number), &bytes).unwrap();
        if last.place.end > (number + 1) * SEGMENT {
            std::fs::write(segment(&path, number + 1), vec![0; SEGMENT as usize]).unwrap();
        }
        let report = verify(&path);
        let tail = report.tail.as_ref().unwrap();
        assert_eq!(
            (tail.at.get(), report.holes.len()),
            (last.place.start, 0),
            "{report:?}"
        );
        assert_eq!(report.next.unwrap().get(), last.txns.start);
        bytes[offset as usize..].fill(0);
        std::fs::write(segment(&path, number), &bytes).unwrap();
        let report = verify(&path);
        assert_eq!((&report.tail, report.holes.len()), (&None, 0), "{report:?}");
        assert_eq!(report.transactions, crashed.all() - 1, "{report:?}");
        if data == Data::Sound {
            let db = short().open(&path).unwrap();
            assert_eq!(db.begin_read().unwrap().txn_id().get(), crashed.all() - 1);
            db.close().unwrap();
        }
    }
    // Where the meta page says that it was durable, it is one, also if nothing tells how many transactions it takes.
    let path = crashed.copied(dir.path(), Data::Sound);
    let mut data = std::fs::read(path.join("data")).unwrap();
    for meta in data.chunks_mut(16384).take(4) {
        meta[152..160].copy_from_slice(&last.place.end.to_le_bytes());
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &meta[4..]) as u32;
        meta[..4].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(path.join("data"), data).unwrap();
    assert_eq!(verify(&path).transactions, crashed.all());
    let mut bytes = std::fs::read(segment(&path, number)).unwrap();
    bytes[offset as usize..].fill(0);
    std::fs::write(segment(&path, number), &bytes).unwrap();
    let report = verify(&path);
    let [hole] = &report.holes[..] else {
        panic!("{report:?}");
    };
    let place = (lsn(last.place.start), lsn(last.place.end));
    assert_eq!((hole.place, &report.tail), (Some(place), &None));
    assert_eq!((hole.first, hole.next), (Some(txn(last.txns.start)), None));
    assert!(matches!(short().open(&path), Err(Error::Corrupt(_))));
    // So it is in a log that was only kept, and of which the meta page knows all.
    let path = closed.copied(dir.path(), Data::Sound);
    let cut = std::fs::read(segment(&path, number)).unwrap();
    std::fs::write(segment(&path, number), &cut[..offset as usize]).unwrap();
    for beyond in number + 1..number + 9 {
        drop(std::fs::remove_file(segment(&path, beyond)));
    }
    let report = verify(&path);
    let [hole] = &report.holes[..] else {
        panic!("{report:?}");
    };
    assert_eq!(
        hole.place,
        Some((lsn(last.place.start), lsn(last.place.end)))
    );
    assert_eq!(
        (hole.first, hole.next),
        (Some(txn(last.txns.start)), Some(txn(last.txns.end)))
    );
}

fn lsn(at: u64) -> Lsn {
    Lsn::new(at)
}

fn txn(txn: u64) -> TxnId {
    TxnId::new(txn)
}

#[test]
fn a_log_that_begins_later_is_read_from_its_first_group_on() {
    let dir = tempfile::tempdir().unwrap();
    for sound in make(dir.path(), "a") {
        for data in ALL_DATA {
            let path = sound.copied(dir.path(), data);
            for number in 0..2 {
                std::fs::remove_file(segment(&path, number)).unwrap();
            }
            let from = 2 * SEGMENT;
            let report = verify(&path);
            let left = sound
                .groups
                .iter()
                .find(|group| group.place.start >= from)
                .unwrap();
            let crossed = sound
                .groups
                .iter()
                .any(|group| group.place.start < from && from < group.place.end);
            if data == Data::Sound && sound.crashed {
                // Recovery needs what is gone.
                let [hole] = &report.holes[..] else {
                    panic!("{report:?}");
                };
                assert_eq!(hole.place, Some((lsn(0), lsn(left.place.start))));
                assert_eq!(
                    (hole.first, hole.next),
                    (Some(txn(1)), Some(txn(left.txns.start)))
                );
            } else {
                assert_eq!(
                    (report.holes.len(), report.first),
                    (0, Some(txn(left.txns.start))),
                    "{report:?}"
                );
                let before = crossed.then_some((lsn(from), lsn(left.place.start)));
                assert_eq!(report.unexplained, before, "{report:?}");
            }
            assert_eq!(
                report.transactions,
                sound.all() + 1 - left.txns.start,
                "{report:?}"
            );
        }
    }
}

#[test]
fn a_record_that_makes_no_sense_in_a_sound_group_is_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    for sound in make(dir.path(), "a") {
        let group = &sound.groups[sound.groups.len() / 2];
        let at = group.place.start as usize;
        let end = group.place.end as usize;
        // The flags of its first record, or what pads it; then every checksum made right.
        for (place, expected) in [(at + 64 + 38, "Flags"), (end - 1, "Padding")] {
            for data in ALL_DATA {
                let path = sound.copied(dir.path(), data);
                let segments = 0..=sound.end() / SEGMENT;
                let read = |number| std::fs::read(segment(&path, number)).unwrap();
                let mut bytes: Vec<u8> = segments.clone().flat_map(read).collect();
                bytes[place] = 1;
                for (sum, summed) in [
                    (at + 64 + 4, at + 64 + 8..at + 64 + 48),
                    (at + 8, at + 64..end),
                    (at + 4, at + 8..at + 64),
                ] {
                    let crc = crc_fast::CrcAlgorithm::Crc32Iscsi;
                    let crc = crc_fast::checksum(crc, &bytes[summed]) as u32;
                    bytes[sum..sum + 4].copy_from_slice(&crc.to_le_bytes());
                }
                for (number, bytes) in segments.zip(bytes.chunks(SEGMENT as usize)) {
                    std::fs::write(segment(&path, number), bytes).unwrap();
                }
                let report = verify(&path);
                let [hole] = &report.holes[..] else {
                    panic!("{report:?}");
                };
                assert!(hole.why.contains(expected), "{hole:?}");
                assert_eq!(hole.first.map(TxnId::get), Some(group.txns.start));
                assert_eq!(hole.next.map(TxnId::get), Some(group.txns.end));
                assert_eq!(report.transactions, sound.all() - 1, "{report:?}");
            }
        }
    }
}

#[test]
fn random_damage_never_passes_for_sound_and_hides_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = SmallRng::seed_from_u64(7);
    let all = make(dir.path(), "a");
    for _ in 0..200 {
        let sound = &all[rng.random_range(0..2)];
        let data = ALL_DATA[rng.random_range(0..3)];
        let path = sound.copied(dir.path(), data);
        let mut damaged = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..sound.end());
            let (number, offset) = (at / SEGMENT, (at % SEGMENT) as usize);
            let Ok(whole) = std::fs::read(segment(&path, number)) else {
                continue;
            };
            let mut bytes = whole.clone();
            let len = rng
                .random_range(1..20_000)
                .min(bytes.len().saturating_sub(offset));
            match rng.random_range(0..6) {
                0 => bytes.truncate(offset),
                1 => bytes[offset.min(whole.len())..][..len].fill(0),
                2 => rng.fill(&mut bytes[offset.min(whole.len())..][..len]),
                3 => {
                    // Blocks of another place.
                    let from = rng.random_range(0..bytes.len().max(1)) / 4096 * 4096;
                    let to = (offset / 4096 * 4096).min(bytes.len());
                    let len = (bytes.len() - from.max(to)).min(8192);
                    bytes.copy_within(from..from + len, to);
                }
                4 => {
                    std::fs::remove_file(segment(&path, number)).unwrap();
                    damaged.push(number * SEGMENT..(number + 1) * SEGMENT);
                    continue;
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(offset) {
                        *byte ^= 1 << rng.random_range(0..8);
                    }
                }
            }
            std::fs::write(segment(&path, number), &bytes).unwrap();
        }
        // What is damaged is found by comparing.
        for number in 0..=sound.end() / SEGMENT {
            let was = std::fs::read(segment(&sound.path, number)).unwrap();
            let is = std::fs::read(segment(&path, number)).unwrap_or_default();
            for (at, byte) in (number * SEGMENT..).zip(&was) {
                if is.get((at % SEGMENT) as usize) != Some(byte) {
                    damaged.push(at..at + 1);
                }
            }
        }
        let is_damaged = |group: &Group| {
            let place = &group.place;
            damaged
                .iter()
                .any(|range| range.start < place.end && place.start < range.end)
        };
        let report = match small().verify_log(&path) {
            Ok(report) => report,
            // Nothing is left to begin with.
            Err(Error::NotADatabase { .. } | Error::Corrupt(_)) if data != Data::Sound => continue,
            Err(other) => panic!("{other}"),
        };
        let in_hole = |txn: u64| {
            report.holes.iter().any(|hole| {
                let (first, next) = (
                    hole.first.map_or(0, TxnId::get),
                    hole.next.map_or(u64::MAX, TxnId::get),
                );
                (first..next).contains(&txn)
            })
        };
        let (first, next) = (
            report.first.map_or(1, TxnId::get),
            report.next.map_or(1, TxnId::get),
        );
        let mut found = 0;
        for group in &sound.groups {
            for txn in group.txns.clone() {
                let reported = (first..next).contains(&txn) && !in_hole(txn);
                assert!(
                    !(reported && is_damaged(group)),
                    "{txn} {damaged:?} {report:?}"
                );
                found += u64::from(reported);
                // Only what lies before the first or behind the last that is sound is not told from what was never there.
                let sound_ones = !is_damaged(group) && report.tail.is_none();
                assert!(
                    !sound_ones || reported,
                    "{txn} {data:?} {damaged:?} {report:?}"
                );
            }
        }
        assert_eq!(found, report.transactions, "{damaged:?} {report:?}");
        reads_what_is_reported(&path, &report);
    }
}

/// Reading gives what comes before the first hole, and says that there is one; from behind the last hole on, all.
fn reads_what_is_reported(path: &Path, report: &LogReport) {
    let (Some(first), Some(next)) = (report.first, report.next) else {
        return;
    };
    let holes = &report.holes;
    let hole_of = |from: TxnId| {
        holes
            .iter()
            .find(|hole| hole.next.is_none_or(|next| next > from))
    };
    let behind = holes.last().and_then(|hole| hole.next).unwrap_or(first);
    for from in [first, behind.clamp(first, next)] {
        let mut reader = small().read_log(path, from).unwrap();
        let mut expected = from;
        let mut ended = Ok(());
        for found in &mut reader {
            match found {
                Ok(found) => {
                    assert_eq!(found.txn_id(), expected);
                    expected = expected.next();
                }
                Err(error) => ended = Err(error),
            }
        }
        assert!(reader.next().is_none());
        let hole = hole_of(from);
        let until = hole.map_or(next, |hole| hole.first.unwrap_or(from).max(from));
        assert_eq!(expected, until, "from {from}: {report:?}");
        assert_eq!(ended.is_err(), hole.is_some(), "{ended:?} {report:?}");
    }
}

#[test]
fn a_database_that_is_open_and_a_directory_that_is_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = short().open(&path).unwrap();
    let refused = small().verify_log(&path).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    db.close().unwrap();
    // Nothing was ever committed.
    let report = verify(&path);
    assert_eq!(
        (report.transactions, report.holes.len()),
        (0, 0),
        "{report:?}"
    );
    for missing in [dir.path().join("nowhere"), path.join("data")] {
        let refused = small().verify_log(&missing).unwrap_err();
        assert!(matches!(refused, Error::NotADatabase { .. }), "{refused}");
        assert!(!dir.path().join("nowhere").exists());
    }
    let empty = tempfile::tempdir().unwrap();
    let refused = small().verify_log(empty.path()).unwrap_err();
    assert!(matches!(refused, Error::NotADatabase { .. }), "{refused}");
    std::fs::create_dir(empty.path().join("log")).unwrap();
    let refused = small().verify_log(empty.path()).unwrap_err();
    assert!(matches!(refused, Error::NotADatabase { .. }), "{refused}");
    std::fs::write(segment(empty.path(), 7), vec![9; 100_000]).unwrap();
    let report = small().verify_log(empty.path()).unwrap();
    assert_eq!(
        (report.transactions, report.holes.len()),
        (0, 1),
        "{report:?}"
    );
    assert_eq!(files(empty.path()).len(), 1, "verifying writes nothing");
}

#[test]
fn segments_that_are_let_go_while_the_log_is_checked_are_no_holes() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().log_segment_bytes(SEGMENT as u32);
    let db = options.open(dir.path().join("db")).unwrap();
    let table = db.table("t").unwrap();
    let done = AtomicBool::new(false);
    let holes = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0_u64.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let mut batch = northstardb::WriteBatch::new();
                batch.durability(northstardb::Durability::Buffered);
                batch.put(&table, (number % 1000).to_be_bytes(), vec![7; 3000]);
                db.commit(batch).unwrap();
            }
        });
        let log = db.log().unwrap();
        let holes = (0..300).map(|_| log.check().map(|report| report.holes));
        let holes = holes.collect::<Result<Vec<_>, _>>();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        holes.unwrap().concat()
    });
    assert_eq!(holes, [], "of a sound log");
    db.close().unwrap();
}

#[test]
fn a_segment_that_cannot_be_read_is_a_hole_of_an_open_database_too() {
    let dir = tempfile::tempdir().unwrap();
    let db = short().open(dir.path()).unwrap();
    let table = db.table("t").unwrap();
    for number in 0..200 {
        common::put(&db, &table, &number.to_string(), &[7; 2000]);
    }
    db.checkpoint().unwrap();
    let log = db.log().unwrap();
    let _subscriber = log
        .subscribe("s", log.next(), northstardb::LogFilter::all())
        .unwrap();
    let first = &files(&dir.path().join("log"))[0];
    let file = std::fs::File::options().write(true).open(first).unwrap();
    file.set_len(0).unwrap();
    let report = log.check().unwrap();
    assert_eq!(report.holes.len(), 1, "{report:?}");
    assert_eq!(report.holes[0].place.map(|place| place.0.get()), Some(0));
    assert!(report.transactions > 150, "{report:?}");
    assert_eq!(db.holders().unwrap().len(), 1);
}
