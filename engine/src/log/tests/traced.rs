//! What is read and written where, on a disk that keeps an account of it and misreads when told to.

use std::collections::BTreeSet;

use northstar_io::sim::{
    Event, Fault, FaultPlan, Image, Kept, NameOp, Rule, SimDisk, SimOptions, What,
};

use super::disk::{edit, restore, snapshot};
use super::*;

const SEGMENT: u64 = 64 * KIB;

fn traced(image: Image, direct: bool, rules: Vec<Rule>) -> Arc<SimDisk> {
    SimDisk::new(SimOptions {
        direct,
        trace: true,
        faults: FaultPlan {
            rules,
            ..FaultPlan::default()
        },
        ..SimOptions::new(image)
    })
}

fn shared(disk: &Arc<SimDisk>) -> Arc<dyn Disk> {
    Arc::<SimDisk>::clone(disk)
}

/// A log of `groups` groups of one block each.
fn log_on(disk: &Arc<SimDisk>, groups: usize) -> TestLog {
    let mut log = TestLog::create(&shared(disk), SEGMENT);
    for _ in 0..groups {
        log.push(b"", vec![vec![7; 3000]]);
        log.flush().unwrap();
    }
    log
}

fn empty() -> Image {
    Image::with_dir(Path::new(DIR))
}

fn written(event: &Event) -> Option<(u64, usize)> {
    let Event::Write { offset, data, .. } = event else {
        return None;
    };
    Some((*offset, data.len()))
}

/// Offsets and lengths of all writes since last asked.
fn writes(disk: &SimDisk) -> Vec<(u64, usize)> {
    let trace = disk.take_trace().events;
    trace.iter().filter_map(written).collect()
}

/// Today's behaviour, not a promise. A record carries the checksum of its payload behind it, and the group's checksum is
/// of the same kind over both: whatever the payload is, as long as its length is the same, it comes to the same. So the
/// chain tells histories apart by what the records' headers say (ids, times, lengths), not by what was written. Damage
/// is found none the less: it does not make the record's own checksum right.
#[test]
fn the_chain_does_not_tell_payloads_of_the_same_length_apart() {
    let ends = [b"one", b"two"].map(|tag| {
        let mut log = TestLog::create(&memory_disk(), SEGMENT);
        log.push(tag, vec![vec![tag[0]; 100]]);
        log.flush().unwrap();
        log.end()
    });
    assert_eq!(ends[0], ends[1]);
}

/// Names of files that took the place of others since last asked.
fn renamed(disk: &SimDisk) -> BTreeSet<String> {
    let name = |event| {
        let Event::Names(NameOp::Rename(_, to, _)) = event else {
            return None;
        };
        Some(to.file_name().unwrap().to_string_lossy().into_owned())
    };
    disk.take_trace()
        .events
        .into_iter()
        .filter_map(name)
        .collect()
}

fn segment(number: u64) -> String {
    format!("{number:020}.seg")
}

#[test]
fn one_bad_reading_is_no_end() {
    let disk = traced(empty(), true, Vec::new());
    let log = log_on(&disk, 3);
    // A bit of the magic number, of a length, of a record; of the first group and of the last.
    for bit in [0, 8 * 24, 8 * 100, 8 * 8192, 8 * 8300] {
        let rule = Rule {
            what: What::Read,
            file: None,
            after: 0,
            sticky: false,
            fault: Fault::Flipped(bit),
        };
        let misread = traced(disk.image(), true, vec![rule.clone()]);
        let (found, seen) =
            scan_all(&shared(&misread), SEGMENT, start(LogPosition::default())).unwrap();
        assert_eq!((found.end, found.torn), (log.end(), false), "bit {bit}");
        assert!(seen == log.model);
        assert_eq!(misread.atlas().len(), 1, "the fault was met");
        // Twice the same is believed: then nothing proves the last group, and the first is proven by later ones.
        let rule = Rule {
            sticky: true,
            ..rule
        };
        let misread = traced(disk.image(), true, vec![rule]);
        let found = scan_all(&shared(&misread), SEGMENT, start(LogPosition::default()));
        match bit / 8 {
            0..8192 => assert!(matches!(found, Err(LogError::Corrupt { .. })), "bit {bit}"),
            _ => assert_eq!(found.unwrap().0.groups, 2, "bit {bit}"),
        }
    }
}

#[test]
fn a_group_of_another_history_at_the_right_place_does_not_follow() {
    let (mut one, mut other) = (
        TestLog::create(&memory_disk(), SEGMENT),
        TestLog::create(&memory_disk(), SEGMENT),
    );
    for (log, tag) in [(&mut one, &b"one"[..]), (&mut other, b"other")] {
        for _ in 0..2 {
            log.push(tag, vec![vec![7; 100]]);
            log.flush().unwrap();
        }
    }
    let (mut image, stale) = (snapshot(&one.disk), snapshot(&other.disk));
    image.get_mut(&segment(0)).unwrap()[4096..8192]
        .copy_from_slice(&stale[&segment(0)][4096..8192]);
    let (found, seen) = scan_all(&restore(&image), SEGMENT, start(LogPosition::default())).unwrap();
    assert_eq!((found.end, found.torn), (one.borders[1].0, false));
    assert!(seen == one.model[..1]);
}

#[test]
fn a_later_group_proves_only_what_it_says_was_durable_before_it() {
    for (says, proves) in [(0, false), (1, false), (2, true)] {
        let mut log = TestLog::create(&memory_disk(), SEGMENT);
        for group in 0..3 {
            log.push(b"", vec![vec![7; 100]]);
            let at = log.writer.position();
            let durable = match group {
                2 => Lsn::new(says * 4096),
                _ => at.lsn,
            };
            let sealed = log.builder.seal(at, durable, DATABASE);
            let end = log.writer.append(&sealed).unwrap();
            log.borders.push((end, log.model.len()));
        }
        let mut image = snapshot(&log.disk);
        let second = log.borders[1].0.lsn;
        edit(
            &mut image,
            SEGMENT,
            second.plus(200),
            second.plus(201),
            |byte| *byte ^= 1,
        );
        let found = scan_all(&restore(&image), SEGMENT, start(LogPosition::default()));
        match found {
            Err(LogError::Corrupt { at, later, .. }) => {
                assert!(proves, "says {says}");
                assert_eq!((at, later), (second, Some(log.borders[2].0.lsn)));
            }
            other => {
                let (found, _) = other.unwrap();
                assert!(!proves, "says {says}");
                assert_eq!((found.end.lsn, found.torn), (second, true));
            }
        }
    }
}

#[test]
fn what_the_system_may_only_remember_is_written_anew_unless_reads_pass_by_it() {
    for direct in [true, false] {
        let disk = traced(empty(), direct, Vec::new());
        // Three segments: the second ends with a group, the third has one.
        let log = log_on(&disk, 33);
        let (borders, end) = (&log.borders, log.end());
        assert_eq!(borders[32].0.lsn.get(), 2 * SEGMENT);
        let cases = [
            (borders[33].0, end, vec![]),
            (borders[32].0, end, vec![segment(2)]),
            (borders[31].0, end, vec![segment(1), segment(2)]),
            (borders[0].0, borders[32].0, vec![segment(0), segment(1)]),
            (borders[17].0, borders[31].0, vec![segment(1)]),
        ];
        for (proven, end, mut expected) in cases {
            let again = traced(disk.image(), direct, Vec::new());
            let segments = open_segments(&shared(&again), SEGMENT);
            LogWriter::start_at(segments, (proven.lsn, end), SyncMethod::None).unwrap();
            if direct {
                expected.clear();
            }
            let renewed = renamed(&again);
            assert!(renewed.iter().eq(&expected), "{proven:?} {renewed:?}");
            let start = start(LogPosition::default());
            let (found, _) = scan_all(&shared(&again), SEGMENT, start).unwrap();
            assert_eq!(found.end, end);
        }
    }
}

#[test]
fn nothing_but_zeros_follows_a_cut() {
    for direct in [true, false] {
        let disk = traced(empty(), direct, Vec::new());
        let log = log_on(&disk, 40);
        log.writer.segments().prepare(2 * SEGMENT).unwrap();
        let borders = [0, 1, 15, 16, 17, 31, 32, 40].map(|groups| log.borders[groups].0);
        for end in borders {
            let again = traced(disk.image(), direct, Vec::new());
            let segments = open_segments(&shared(&again), SEGMENT);
            LogWriter::start_at(Arc::clone(&segments), (end.lsn, end), SyncMethod::None).unwrap();
            let (last, offset) = (end.lsn.get() / SEGMENT, end.lsn.get() % SEGMENT);
            let image = again.image();
            let mut names = BTreeSet::new();
            for (path, len) in image.files() {
                let number = path.file_stem().unwrap().to_string_lossy();
                let number: u64 = number.parse().unwrap();
                let bytes = image.bytes(path).unwrap();
                let used = match number.cmp(&last) {
                    std::cmp::Ordering::Less => bytes.len(),
                    std::cmp::Ordering::Equal => usize::try_from(offset).unwrap(),
                    std::cmp::Ordering::Greater => 0,
                };
                assert_eq!(len, SEGMENT);
                assert!(
                    bytes[used..].iter().all(|byte| *byte == 0),
                    "{end:?} {path:?}"
                );
                names.insert(number);
            }
            // The next one stays if it was never written.
            let next = if last == 2 { last + 1 } else { last };
            assert!(names.iter().copied().eq(0..=next), "{end:?} {names:?}");
            assert_eq!(segments.end(), end.lsn);
            let ready = names.last().unwrap() + 1;
            assert_eq!(segments.room(), ready * SEGMENT - end.lsn.get());
            // Done again, only the place of the next group is written, if that.
            writes(&again);
            let segments = open_segments(&shared(&again), SEGMENT);
            LogWriter::start_at(segments, (end.lsn, end), SyncMethod::None).unwrap();
            let trace = again.take_trace().events;
            let written = trace.iter().filter_map(written);
            let expected = [(offset, 4096)];
            assert!(written.eq(if direct { &[][..] } else { &expected }.iter().copied()));
            // Each segment up to the cut is synced: what was found may not have been.
            let synced = trace
                .iter()
                .filter(|event| matches!(event, Event::Synced { .. }));
            assert_eq!(synced.count() as u64, last + 1);
        }
    }
}

#[test]
fn a_probe_writes_small_groups_one_after_the_other_behind_the_log() {
    let methods = [SyncMethod::WriteThenSync, SyncMethod::WriteDsync];
    for groups in [0, 1, 11, 12, 13, 16, 31] {
        let disk = traced(empty(), true, Vec::new());
        let mut log = log_on(&disk, groups);
        writes(&disk);
        probe(&mut log.writer, &methods, &|| 0).unwrap();
        let used = log.end().lsn.get() % SEGMENT;
        // Where not even the largest write fits, in the next segment.
        let from = if used + 4 * 4096 > SEGMENT { 0 } else { used };
        let mut at = from;
        let expected = (0..16)
            .flat_map(|round| [round % 4 + 1; 2])
            .map(|blocks: u64| {
                let len = blocks * 4096;
                if at + len > SEGMENT {
                    at = from;
                }
                at += len;
                (at - len, usize::try_from(len).unwrap())
            });
        let expected: Vec<_> = expected.collect();
        let mut found = writes(&disk);
        // What makes the next segment comes first.
        let extra = found.len() - expected.len();
        assert_eq!(extra > 0, from == 0 && groups > 0, "{groups}");
        assert_eq!(found.split_off(extra), expected, "{groups}");
        log.push(b"", vec![vec![7; 100]]);
        log.flush().unwrap();
        assert!(log.recover().unwrap().1 == log.model);
    }
}

#[test]
fn a_later_method_must_win_by_a_twentieth() {
    for (second, wins) in [(951, false), (950, false), (949, true), (2000, false)] {
        let mut log = TestLog::create(&memory_disk(), SEGMENT);
        let (time, calls) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let clock = || {
            let call = calls.replace(calls.get() + 1);
            let step = [0, 1000, 0, second][call % 4];
            time.replace(time.get() + step) + step
        };
        let methods = [SyncMethod::WriteDsync, SyncMethod::WriteThenSync];
        let found = probe(&mut log.writer, &methods, &clock).unwrap();
        assert_eq!(found.best == methods[1], wins, "{second}");
        assert_eq!(found.medians_ns, [(methods[0], 1000), (methods[1], second)]);
    }
}

#[test]
fn a_method_that_is_refused_is_left_out_and_a_failing_device_is_an_error() {
    let failing = |errno, sticky| {
        let rule = Rule {
            what: What::Write,
            file: Some(".seg"),
            after: 0,
            sticky,
            fault: Fault::Error(errno),
        };
        let disk = traced(empty(), true, vec![rule]);
        let mut log = log_on(&disk, 0);
        let methods = [SyncMethod::WriteThenSync, SyncMethod::WriteDsync];
        probe(&mut log.writer, &methods, &|| 0).map(|found| found.medians_ns)
    };
    let left = [(SyncMethod::WriteDsync, 0)];
    assert_eq!(failing(95, false).unwrap(), left);
    for refusal in [22, 95] {
        let none = failing(refusal, true).unwrap_err();
        assert!(matches!(none, LogError::Io(error) if error.errno == refusal));
    }
    assert!(matches!(failing(5, false), Err(LogError::Io(error)) if error.errno == 5));
}

#[test]
fn places_are_told_apart_by_their_device() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (fingerprint(dir.path()), fingerprint(Path::new("/proc")));
    let nowhere = fingerprint(&dir.path().join("missing"));
    assert_ne!(here, there);
    assert_eq!(nowhere & 0xffff_ffff, 0);
    assert!(here >> 32 == there >> 32 && here >> 32 == nowhere >> 32 && here >> 32 > 1);
}

#[test]
fn the_median_decides_and_not_the_fastest_or_slowest() {
    for outliers in [0, 7] {
        let mut log = TestLog::create(&memory_disk(), SEGMENT);
        let (time, calls) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let clock = || {
            let call = calls.replace(calls.get() + 1);
            // The first method is fast at first, the second slow.
            let step = match (call % 4, call / 4 < outliers) {
                (1, true) => 1,
                (1, false) => 1000,
                (3, true) => 9000,
                (3, false) => 500,
                _ => 0,
            };
            time.replace(time.get() + step) + step
        };
        let methods = [SyncMethod::WriteDsync, SyncMethod::WriteThenSync];
        let found = probe(&mut log.writer, &methods, &clock).unwrap();
        assert_eq!(found.medians_ns, [(methods[0], 1000), (methods[1], 500)]);
        assert_eq!((found.best, log.writer.method()), (methods[1], methods[1]));
    }
}

#[test]
fn a_segment_is_durable_under_its_name_before_it_is_written() {
    for prepared in [false, true] {
        let disk = traced(empty(), true, Vec::new());
        let mut log = log_on(&disk, 15);
        writes(&disk);
        if prepared {
            log.writer.segments().prepare(2 * SEGMENT).unwrap();
        }
        log.push(b"", vec![vec![7; 9000]]);
        log.flush().unwrap();
        let mut renamed = false;
        let mut synced = false;
        for event in disk.take_trace().events {
            if matches!(event, Event::Names(NameOp::Rename(..))) {
                (renamed, synced) = (true, false);
            } else if matches!(event, Event::DirSynced(_)) {
                synced = renamed;
            } else if written(&event) == Some((0, 8192)) {
                // The second part of the group.
                assert!(synced, "prepared: {prepared}");
            }
        }
        assert!(renamed && synced);
    }
}

#[test]
fn spares_of_the_right_length_are_used_and_others_removed() {
    let disk = traced(empty(), true, Vec::new());
    let log = log_on(&disk, 33);
    let segments = log.writer.segments();
    segments.recycle_before(log.end().lsn, 9 * SEGMENT).unwrap();
    assert_eq!(segments.counts(), (1, 2));
    let short = Path::new(DIR).join(format!("spare-{:020}", 0));
    let file = disk.open(&short, northstar_io::OpenMode::Write).unwrap();
    file.set_len(SEGMENT - 4096).unwrap();
    writes(&disk);
    segments.prepare(SEGMENT).unwrap();
    assert_eq!(segments.counts(), (2, 0));
    assert_eq!(writes(&disk), [], "nothing is filled");
    let names = disk.image();
    let names: Vec<_> = names
        .files()
        .map(|(path, len)| (path.to_owned(), len))
        .collect();
    let expected = [2, 3].map(|number| (Path::new(DIR).join(segment(number)), SEGMENT));
    assert_eq!(names, expected);
}

#[test]
fn a_flush_that_failed_is_not_tried_again() {
    let rule = Rule {
        what: What::Sync,
        file: Some(".seg"),
        after: 1,
        sticky: false,
        fault: Fault::SyncFails(5, Kept::Nothing),
    };
    let disk = traced(empty(), true, vec![rule]);
    let segments = open_segments(&shared(&disk), SEGMENT);
    let at = LogPosition::default();
    let mut writer =
        LogWriter::start_at(segments, (at.lsn, at), SyncMethod::WriteThenSync).unwrap();
    let mut builder = GroupBuilder::new();
    builder.push_record(TxnId::new(1), 0, b"", OpWriter::new());
    let group = builder.seal(at, at.lsn, DATABASE);
    assert!(matches!(writer.append(&group), Err(LogError::Io(error)) if error.errno == 5));
    writes(&disk);
    assert!(matches!(writer.append(&group), Err(LogError::Halted)));
    assert!(
        disk.take_trace().events.is_empty(),
        "and nothing is asked of the disk any more"
    );
    assert_eq!(disk.atlas().len(), 1);
    assert_eq!(writer.position(), at);
}

#[test]
fn a_failed_part_of_a_streamed_group_fails_the_group() {
    for part in 0..6 {
        let rule = Rule {
            what: What::Write,
            file: Some(".seg"),
            after: part,
            sticky: false,
            fault: Fault::Error(5),
        };
        let disk = traced(empty(), true, vec![rule]);
        let mut log = TestLog::create(&shared(&disk), 4096 * KIB);
        // Six writes of half a megabyte, four of them in flight.
        log.push(b"", vec![vec![7; 3 << 20]]);
        let failed = log.flush().unwrap_err();
        assert_eq!(disk.atlas().len(), 1, "part {part}");
        assert!(matches!(failed, LogError::Io(error) if error.errno == 5));
        assert_eq!(log.writer.position(), LogPosition::default());
    }
}
