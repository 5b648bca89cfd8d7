//! Written is what is read, in as few calls as promised.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::disk::{FusedDisk, snapshot};
use super::*;
use northstar_io::{Choice, NativeDisk, NativeOptions};

#[test]
fn random_groups_come_back_in_order_whatever_the_segment_size() {
    for (seed, segment_bytes) in [
        (1, 4 * KIB),
        (2, 64 * KIB),
        (3, 1024 * KIB),
        (4, 3072 * KIB),
    ] {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut log = TestLog::create(&memory_disk(), segment_bytes);
        for _ in 0..40 {
            let bytes = 1 << rng.random_range(0..18);
            log.group(&mut rng, bytes);
        }
        let (end, seen) = log.recover().unwrap();
        assert_eq!(
            (end.end, end.groups, end.torn),
            (log.end(), 40, false),
            "seed {seed}"
        );
        assert!(seen == log.model, "seed {seed}");
        for &(border, txns) in &log.borders {
            let (end, seen) = scan_all(&log.disk, segment_bytes, start(border)).unwrap();
            assert_eq!(end.end, log.end());
            assert!(seen == log.model[txns..], "from {border:?}");
        }
    }
}

#[test]
fn a_record_of_forty_megabytes_spans_segments_and_comes_back() {
    let mut log = TestLog::create(&memory_disk(), 16 * 1024 * KIB);
    log.push(b"", vec![b"before".into()]);
    log.flush().unwrap();
    let mut value = vec![0; 10 << 20];
    SmallRng::seed_from_u64(5).fill_bytes(&mut value);
    log.push(b"giant", vec![value; 4]);
    log.flush().unwrap();
    log.push(b"", vec![b"after".into()]);
    log.flush().unwrap();
    let (end, seen) = log.recover().unwrap();
    assert_eq!(end.end, log.end());
    assert!(seen == log.model);
}

#[test]
fn a_commit_in_steady_state_is_one_durable_write_and_no_other_call() {
    let disk = FusedDisk::new(&memory_disk(), u64::MAX);
    let calls = Arc::clone(&disk.calls);
    let disk: Arc<dyn Disk> = disk;
    let mut log = TestLog::create(&disk, 1024 * KIB);
    let counters = log.writer.counters();
    let before = calls.counts();
    for commit in 1..=10 {
        log.push(b"tag", vec![vec![7; 100]]);
        log.flush().unwrap();
        assert_eq!(calls.counts(), (before.0 + commit, before.1, before.2));
        assert_eq!((counters.groups(), counters.flushes()), (commit, commit));
        assert_eq!(
            (counters.writes(), counters.bytes()),
            (commit, commit * 4096)
        );
    }
}

#[test]
fn a_prepared_segment_spares_the_writer_every_directory_operation() {
    let disk = FusedDisk::new(&memory_disk(), u64::MAX);
    let calls = Arc::clone(&disk.calls);
    let disk: Arc<dyn Disk> = disk;
    let mut log = TestLog::create(&disk, 64 * KIB);
    log.push(b"", vec![vec![7; 3000]]);
    log.flush().unwrap();
    for _ in 0..20 {
        assert!(log.writer.segments().room() < 64 * KIB);
        log.writer.segments().prepare(64 * KIB).unwrap();
        assert!(log.writer.segments().room() >= 64 * KIB);
        let before = calls.counts();
        // As many blocks as a segment has: the last group enters the next one.
        for _ in 0..16 {
            log.push(b"", vec![vec![7; 3000]]);
            log.flush().unwrap();
        }
        assert_eq!(calls.counts(), (before.0 + 16, before.1, before.2));
        log.writer
            .segments()
            .recycle_before(log.end().lsn, 64 * KIB)
            .unwrap();
    }
    assert_eq!(log.writer.segments().counts(), (1, 1));
}

#[test]
fn stale_groups_of_recycled_segments_never_parse() {
    let mut rng = SmallRng::seed_from_u64(6);
    let segment_bytes = 64 * KIB;
    let mut log = TestLog::create(&memory_disk(), segment_bytes);
    for round in 0..200 {
        let bytes = rng.random_range(1..20_000);
        log.group(&mut rng, bytes);
        if round % 10 == 9 {
            let (kept, txns) = log.borders[log.borders.len() - 3];
            log.writer
                .segments()
                .recycle_before(kept.lsn, 2 * segment_bytes)
                .unwrap();
            let (segments, spares) = log.writer.segments().counts();
            assert!(
                segments <= 3 && spares <= 2,
                "{segments} segments, {spares} spares"
            );
            let (end, seen) = scan_all(&log.disk, segment_bytes, start(kept)).unwrap();
            assert_eq!((end.end, end.torn), (log.end(), false));
            assert!(seen == log.model[txns..]);
        }
    }
    assert!(log.end().lsn.get() / segment_bytes > 10);
}

/// Between the removal of a file and of its number, readers still find the number.
#[test]
fn what_was_recycled_since_it_was_listed_hides_nothing_that_is_left() {
    let mut rng = SmallRng::seed_from_u64(8);
    let mut log = TestLog::create(&memory_disk(), 64 * KIB);
    while log.end().lsn.get() < 8 * 64 * KIB {
        log.group(&mut rng, 20_000);
    }
    let segments = open_segments(&log.disk, log.segment_bytes);
    let newest = log.end();
    let begins = |number| {
        let begins = Follower::begins(log.writer.segments(), DATABASE, number);
        begins.unwrap().unwrap().0
    };
    let firsts: Vec<TxnId> = (0..8).map(begins).collect();
    for gone in 0..7 {
        let path = Path::new(DIR).join(format!("{gone:020}.seg"));
        log.disk.remove(&path).unwrap();
        let first = firsts[gone + 1];
        let follower = Follower::from_first(&segments, DATABASE, newest.lsn);
        assert_eq!(follower.unwrap().unwrap().txn(), first, "{gone}");
        for (number, txn) in firsts.iter().enumerate() {
            let sought = Follower::seek(&segments, DATABASE, *txn, newest);
            match number > gone {
                true => assert_eq!(sought.unwrap().txn(), *txn, "{gone}, {number}"),
                false => assert!(matches!(sought, Err(LogError::Gone)), "{gone}, {number}"),
            }
        }
    }
}

#[test]
fn nothing_is_written_after_a_failed_write() {
    for fuse in 0..40 {
        let memory = memory_disk();
        let disk = FusedDisk::new(&memory, u64::MAX);
        let calls = Arc::clone(&disk.calls);
        let disk: Arc<dyn Disk> = disk;
        let mut log = TestLog::create(&disk, 16 * KIB);
        log.push(b"", vec![b"durable".into()]);
        log.flush().unwrap();
        calls.fuse.store(fuse, Ordering::Relaxed);
        let error = loop {
            log.push(b"", vec![vec![7; 9000]]);
            if let Err(error) = log.flush() {
                break error;
            }
        };
        assert!(matches!(error, LogError::Io(_)), "{error:?}");
        calls.fuse.store(u64::MAX, Ordering::Relaxed);
        let (counts, image) = (calls.counts(), snapshot(&memory));
        let at = log.writer.position();
        log.builder = GroupBuilder::new();
        log.builder
            .push_record(at.last_txn.next(), 0, b"late", OpWriter::new());
        let late = log.seal();
        assert!(matches!(log.writer.append(&late), Err(LogError::Halted)));
        assert_eq!((calls.counts(), snapshot(&memory)), (counts, image));
        let durable = log.borders.last().unwrap().1;
        let (_, seen) = log.recover().unwrap();
        assert!(seen.len() >= durable && seen == log.model[..seen.len()]);
    }
}

/// Records around the size from which they are not copied, alone and behind small ones, ending at every place of a
/// segment and of a block.
#[test]
fn giant_records_are_the_same_bytes_as_small_ones() {
    let mut rng = SmallRng::seed_from_u64(11);
    let mut log = TestLog::create(&memory_disk(), 1024 * KIB);
    let giant = 1024 * 1024;
    for len in [
        giant - 20,
        giant - 1,
        giant,
        giant + 4096,
        3 * giant + 77,
        5 * giant,
    ] {
        for before in [0, 1, 3000, 300_000] {
            if before > 0 {
                log.push(b"small", vec![vec![9; before]]);
            }
            let mut value = vec![0; len];
            rng.fill_bytes(&mut value);
            log.push(b"giant", vec![value]);
            log.flush().unwrap();
            log.push(b"", vec![vec![7; 5]]);
            log.flush().unwrap();
        }
    }
    let (end, seen) = log.recover().unwrap();
    assert_eq!((end.end, end.torn), (log.end(), false));
    assert!(seen == log.model);
}

#[test]
fn a_million_small_records_are_scanned_without_keeping_any() {
    let mut log = TestLog::create(&memory_disk(), 16 * 1024 * KIB);
    for txn in 1..=1_000_000 {
        let mut ops = OpWriter::new();
        ops.put(TableId::new(16), b"key", b"value");
        if !log.builder.fits(ops.bytes().len()) {
            log.flush().unwrap();
        }
        log.builder.push_record(TxnId::new(txn), txn, b"", ops);
    }
    log.flush().unwrap();
    let (mut records, mut values) = (0_u64, 0);
    let segments = open_segments(&log.disk, log.segment_bytes);
    let found = scan(&segments, start(LogPosition::default()), |_, record| {
        records += 1;
        values += record
            .ops()
            .filter(|op| {
                matches!(
                    op,
                    Ok(Op::Put {
                        value: b"value",
                        ..
                    })
                )
            })
            .count();
        Ok::<_, LogError>(())
    });
    let found = found.unwrap();
    assert_eq!(
        (records, values, found.records),
        (1_000_000, 1_000_000, 1_000_000)
    );
    assert_eq!(found.end, log.end());
}

#[test]
fn buffers_go_round_without_new_ones() {
    let mut log = TestLog::create(&memory_disk(), 1024 * KIB);
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..20 {
        log.push(b"", vec![vec![7; 5000]]);
        let group = log.seal();
        places.insert(group.whole().unwrap().as_ptr());
        log.writer.append(&group).unwrap();
        log.builder.recycle(group);
    }
    assert!(places.len() <= 2, "{} buffers", places.len());
}

#[test]
fn a_visitor_stops_the_scan_with_its_own_error() {
    let mut log = TestLog::create(&memory_disk(), 64 * KIB);
    log.push(b"", vec![b"one".into()]);
    log.push(b"", vec![b"two".into()]);
    log.flush().unwrap();
    #[derive(Debug)]
    struct Enough(u64);
    impl From<LogError> for Enough {
        fn from(error: LogError) -> Self {
            panic!("{error}")
        }
    }
    let segments = open_segments(&log.disk, log.segment_bytes);
    let stopped = scan(&segments, start(LogPosition::default()), |_, record| {
        if record.txn.get() == 2 {
            Err(Enough(2))
        } else {
            Ok(())
        }
    });
    assert_eq!(stopped.unwrap_err().0, 2);
}

#[test]
fn the_probe_prefers_the_fastest_method_and_leaves_the_stream_as_it_is() {
    let mut log = TestLog::create(&memory_disk(), 32 * KIB);
    for fill in [1, 5000, 9000, 3000] {
        log.push(b"", vec![vec![7; fill]]);
        log.flush().unwrap();
        // Every second write is of the second method; its clock runs slower.
        let (time, calls) = (Cell::new(0), Cell::new(0));
        let clock = || {
            calls.set(calls.get() + 1);
            time.set(time.get() + if calls.get() % 4 == 0 { 50 } else { 100 });
            time.get()
        };
        let methods = [SyncMethod::WriteThenSync, SyncMethod::WriteDsync];
        let found = probe(&mut log.writer, &methods, &clock).unwrap();
        assert_eq!(found.best, SyncMethod::WriteDsync);
        assert_eq!(found.medians_ns, [(methods[0], 100), (methods[1], 50)]);
        assert_eq!(log.writer.method(), SyncMethod::WriteDsync);
        assert_eq!(log.recover().unwrap().1, log.model);
    }
    log.push(b"", vec![b"after".into()]);
    log.flush().unwrap();
    assert_eq!(log.recover().unwrap().1, log.model);
}

#[test]
fn the_fingerprint_of_a_place_is_stable() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(fingerprint(dir.path()), fingerprint(dir.path()));
}

#[test]
fn the_same_log_lives_on_real_files_with_and_without_a_ring() {
    for uring in [Choice::Auto, Choice::Never] {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = NativeDisk::new(NativeOptions {
            uring,
            direct: true,
        });
        let open = || Segments::open(Arc::clone(&disk), dir.path(), 2048 * KIB).unwrap();
        let (mut end, mut expected) = (LogPosition::default(), Vec::new());
        for method in [
            SyncMethod::WriteThenSync,
            SyncMethod::WriteDsync,
            SyncMethod::RingDsync,
        ] {
            let mut writer = LogWriter::start_at(open(), (end.lsn, end), method).unwrap();
            let mut builder = GroupBuilder::new();
            for len in [10, 5000, 200_000, 3_000_000, 1, 700_000] {
                let at = writer.position();
                let mut ops = OpWriter::new();
                ops.put(TableId::new(16), b"key", &vec![0x5a; len]);
                let txn = at.last_txn.next();
                expected.push(ops.bytes().to_vec());
                builder.push_record(txn, 0, b"", ops);
                let group = builder.seal(at, at.lsn, DATABASE);
                writer.append(&group).unwrap();
                builder.recycle(group);
            }
            writer.segments().prepare(2048 * KIB).unwrap();
            end = writer.position();
            let mut seen = Vec::new();
            let found = scan(&open(), start(LogPosition::default()), |_, record| {
                let mut ops = OpWriter::new();
                record.ops().for_each(|op| ops.push(op.unwrap()));
                seen.push(ops.bytes().to_vec());
                Ok::<_, LogError>(())
            });
            assert_eq!(found.unwrap().end, end);
            assert!(seen == expected, "{method:?}, ring: {uring:?}");
        }
    }
}

/// A group that is longer than a segment leaves some in which none begins.
#[test]
fn transactions_are_found_beside_groups_that_are_longer_than_segments() {
    let mut rng = SmallRng::seed_from_u64(9);
    let segment_bytes = 64 * KIB;
    let mut log = TestLog::create(&memory_disk(), segment_bytes);
    for _ in 0..6 {
        for bytes in [5_000, 400_000, 2_000, 90_000, 300] {
            log.group(&mut rng, bytes);
        }
    }
    let newest = log.end();
    // What the writer noted, and what somebody finds who has only the files.
    let found = open_segments(&log.disk, segment_bytes);
    for segments in [log.writer.segments(), &found] {
        let mut places = Places::new(segments, DATABASE, newest.lsn);
        let mut last = Lsn::new(0);
        for txn in (1..=newest.last_txn.get()).map(TxnId::new) {
            let place = places.segment_of(txn).unwrap().unwrap();
            assert!(place >= last, "{txn} at {place} after {last}");
            last = place;
            let sought = Follower::seek(segments, DATABASE, txn, newest);
            assert_eq!(sought.unwrap().txn(), txn);
        }
    }
    let ends = newest.lsn.get() / segment_bytes;
    let same = |number| log.writer.segments().begins(number) == found.begins(number);
    let noted = (1..ends).filter(|number| same(*number));
    // Those that a search never came to are not known to who has only the files.
    assert!(noted.count() > 20);
    let contradicts = |number: &u64| {
        let [one, other] = [log.writer.segments(), &found].map(|known| known.begins(*number));
        one != other && other != begins::Begins::Unknown
    };
    // The writer notes none for where it began.
    assert_eq!((1..ends).find(contradicts), None);
}
