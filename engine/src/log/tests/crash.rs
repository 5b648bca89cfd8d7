//! What a crash or a fault leaves behind, and what recovery makes of it.

use super::disk::{FusedDisk, Image, edit, restore, snapshot};
use super::*;

const SEGMENT: u64 = 32 * KIB;
const SECTOR: u64 = 512;

/// Some groups, the last of five blocks across two segments, over recycled segments that hold stale ones.
fn worn_log(seed: u64) -> (TestLog, LogPosition) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut log = TestLog::create(&memory_disk(), SEGMENT);
    while log.end().lsn.get() < 5 * SEGMENT {
        let bytes = rng.random_range(1..12_000);
        log.group(&mut rng, bytes);
    }
    let from = log.end();
    log.writer
        .segments()
        .recycle_before(from.lsn, 4 * SEGMENT)
        .unwrap();
    for _ in 0..9 {
        log.group(&mut rng, 6000);
    }
    while log.end().lsn.get() % SEGMENT != SEGMENT - 2 * 4096 {
        log.group(&mut rng, 100);
    }
    log.group(&mut rng, 4 * 4096);
    assert_eq!(log.end().lsn.get() % SEGMENT, 3 * 4096);
    (log, from)
}

fn txns_at(log: &TestLog, border: LogPosition) -> usize {
    log.borders
        .iter()
        .find(|known| known.0 == border)
        .unwrap()
        .1
}

/// Recovers from `image`, checks that the first groups up to `border` are there, then writes on and recovers again.
fn recovers_to(
    log: &TestLog,
    image: &Image,
    from: LogPosition,
    border: LogPosition,
    context: &str,
) {
    let disk = restore(image);
    let (first, txns) = (txns_at(log, from), txns_at(log, border));
    let (found, seen) = scan_all(&disk, SEGMENT, start(from)).expect(context);
    assert_eq!(found.end, border, "{context}");
    assert!(seen == log.model[first..txns], "{context}");
    assert_eq!(
        &snapshot(&disk),
        image,
        "scanning writes nothing: {context}"
    );

    let mut on = TestLog::resume(&disk, SEGMENT, found.end, log.model[..txns].to_vec());
    let (again, _) = scan_all(&disk, SEGMENT, start(from)).expect(context);
    assert_eq!((again.end, again.torn), (border, false), "{context}");
    on.push(b"on", vec![b"small".into()]);
    on.flush().unwrap();
    on.push(b"on", vec![vec![1; 9000]]);
    on.flush().unwrap();
    let (found, seen) = scan_all(&disk, SEGMENT, start(from)).expect(context);
    assert_eq!(found.end, on.end(), "{context}");
    assert!(seen == on.model[first..], "{context}");
}

#[test]
fn a_last_group_torn_at_any_sector_is_cut_and_the_log_goes_on() {
    let (log, from) = worn_log(7);
    let (before, after) = (log.borders[log.borders.len() - 2].0, log.end());
    let whole = snapshot(&log.disk);
    recovers_to(&log, &whole, from, after, "whole");
    let sectors = (after.lsn.get() - before.lsn.get()) / SECTOR;
    for sector in 0..sectors {
        let (low, high) = (
            before.lsn.plus(sector * SECTOR),
            before.lsn.plus((sector + 1) * SECTOR),
        );
        for fill in [0, 0xa5] {
            // Lost or garbled from here on, and this sector alone.
            for to in [after.lsn, high] {
                let mut image = whole.clone();
                edit(&mut image, SEGMENT, low, to, |byte| *byte = fill);
                if image != whole {
                    recovers_to(
                        &log,
                        &image,
                        from,
                        before,
                        &format!("{sector} {fill} {to:?}"),
                    );
                }
            }
            // Only this sector and what follows arrived.
            let mut image = whole.clone();
            edit(&mut image, SEGMENT, before.lsn, high, |byte| *byte = fill);
            recovers_to(
                &log,
                &image,
                from,
                before,
                &format!("first {sector} {fill}"),
            );
        }
    }
}

#[test]
fn damage_to_a_group_that_later_ones_prove_durable_is_corruption_and_never_cut() {
    let (log, from) = worn_log(8);
    let whole = snapshot(&log.disk);
    let first = log
        .borders
        .iter()
        .position(|known| known.0 == from)
        .unwrap();
    for pair in log.borders[first..log.borders.len() - 1].windows(2) {
        let (start_of, end_of) = (pair[0].0.lsn, pair[1].0.lsn);
        let mut at = start_of;
        while at < end_of {
            let mut image = whole.clone();
            edit(&mut image, SEGMENT, at, at.plus(1), |byte| *byte ^= 0x10);
            match scan_all(&restore(&image), SEGMENT, start(from)) {
                Err(LogError::Corrupt {
                    at,
                    later: Some(later),
                    durable_through,
                    ..
                }) => {
                    assert_eq!((at, later, durable_through), (start_of, end_of, end_of));
                }
                other => panic!("{at:?}: {:?}", other.map(|(found, _)| found)),
            }
            at = at.plus(SECTOR);
        }
    }
}

#[test]
fn a_lost_segment_before_proven_groups_is_corruption() {
    let (log, from) = worn_log(9);
    let whole = snapshot(&log.disk);
    // The last group is the proof for all before it; its own segment must be there.
    let numbers = from.lsn.get() / SEGMENT..log.end().lsn.get() / SEGMENT - 1;
    assert!(!numbers.is_empty());
    for number in numbers {
        let mut image = whole.clone();
        image.remove(&format!("{number:020}.seg")).unwrap();
        let lost = scan_all(&restore(&image), SEGMENT, start(from)).map(|(found, _)| found);
        assert!(
            matches!(lost, Err(LogError::Corrupt { .. })),
            "{number}: {lost:?}"
        );
        let mut image = whole.clone();
        image
            .get_mut(&format!("{number:020}.seg"))
            .unwrap()
            .truncate(4096 + 100);
        let cut = scan_all(&restore(&image), SEGMENT, start(from)).map(|(found, _)| found);
        assert!(
            matches!(cut, Err(LogError::Corrupt { .. })),
            "{number}: {cut:?}"
        );
    }
}

#[test]
fn a_log_that_ends_before_what_meta_proves_is_corruption() {
    let (log, from) = worn_log(10);
    let before = log.borders[log.borders.len() - 2].0;
    let mut image = snapshot(&log.disk);
    edit(
        &mut image,
        SEGMENT,
        before.lsn,
        before.lsn.plus(1),
        |byte| *byte ^= 1,
    );
    let disk = restore(&image);
    let proven = |proven_through| {
        scan_all(
            &disk,
            SEGMENT,
            ScanStart {
                proven_through,
                ..start(from)
            },
        )
    };
    assert!(proven(before.lsn).is_ok());
    let refused = proven(log.end().lsn).unwrap_err();
    assert!(
        matches!(refused, LogError::Corrupt { later: None, .. }),
        "{refused:?}"
    );
    let nothing = ScanStart {
        proven_through: log.end().lsn,
        ..start(from)
    };
    assert!(scan_all(&memory_disk(), SEGMENT, nothing).is_err());
}

#[test]
fn a_segment_that_is_short_behind_the_end_of_the_log_is_made_whole_again() {
    let (log, from) = worn_log(11);
    let (number, used) = (log.end().lsn.get() / SEGMENT, log.end().lsn.get() % SEGMENT);
    let mut image = snapshot(&log.disk);
    let bytes = image.get_mut(&format!("{number:020}.seg")).unwrap();
    bytes.truncate(usize::try_from(used).unwrap() + 4096 + 300);
    bytes[usize::try_from(used).unwrap()..].fill(0);
    recovers_to(&log, &image, from, log.end(), "short");
}

#[test]
fn recovery_interrupted_anywhere_ends_the_same() {
    let (log, from) = worn_log(12);
    let before = log.borders[log.borders.len() - 2].0;
    let mut image = snapshot(&log.disk);
    edit(
        &mut image,
        SEGMENT,
        before.lsn.plus(4096),
        log.end().lsn,
        |byte| *byte = 0x77,
    );
    image.insert(format!("{:020}.tmp", 99), vec![1; 5000]);
    let memory = restore(&image);
    let mut interrupted = 0;
    loop {
        let disk: Arc<dyn Disk> = FusedDisk::new(&memory, interrupted);
        let (found, _) = scan_all(&disk, SEGMENT, start(from)).unwrap();
        assert_eq!(found.end, before, "after {interrupted} interruptions");
        let segments = open_segments(&disk, SEGMENT);
        match LogWriter::start_at(segments, (found.proven, found.end), SyncMethod::None) {
            Ok(_) => break,
            Err(LogError::Io(_)) => interrupted += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(interrupted > 1, "interrupted {interrupted} times");
    recovers_to(&log, &snapshot(&memory), from, before, "at last");
    assert!(!snapshot(&memory).keys().any(|name| name.ends_with(".tmp")));
}

#[test]
fn a_sound_group_that_makes_no_sense_is_never_cut() {
    // A gap in the transaction ids, and a group of another database, both otherwise in order.
    for (last_txn, database) in [(5, DATABASE), (0, DATABASE + 1)] {
        let mut log = TestLog::create(&memory_disk(), SEGMENT);
        let at = LogPosition {
            last_txn: TxnId::new(last_txn),
            ..LogPosition::default()
        };
        log.builder
            .push_record(at.last_txn.next(), 0, b"", OpWriter::new());
        let group = log.builder.seal(at, at.lsn, database);
        let mut writer = LogWriter::start_at(
            Arc::clone(log.writer.segments()),
            (at.lsn, at),
            SyncMethod::None,
        )
        .unwrap();
        writer.append(&group).unwrap();
        let refused = log.recover().unwrap_err();
        assert!(matches!(refused, LogError::Corrupt { .. }), "{refused:?}");
    }
}

#[test]
fn random_damage_gives_a_prefix_or_an_error_and_never_panics() {
    let (log, from) = worn_log(13);
    let whole = snapshot(&log.disk);
    let first = txns_at(&log, from);
    let mut rng = SmallRng::seed_from_u64(14);
    for round in 0..300 {
        let mut image = whole.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = from
                .lsn
                .plus(rng.random_range(0..log.end().lsn.get() - from.lsn.get()));
            let to = at.plus(rng.random_range(1..5000)).min(log.end().lsn);
            match rng.random_range(0..3) {
                0 => edit(&mut image, SEGMENT, at, to, |byte| *byte = 0),
                1 => edit(&mut image, SEGMENT, at, to, |byte| *byte = rng.random()),
                _ => edit(&mut image, SEGMENT, at, at.plus(1), |byte| {
                    *byte ^= 1 << (round % 8);
                }),
            }
        }
        if let Ok((_, seen)) = scan_all(&restore(&image), SEGMENT, start(from)) {
            assert!(seen == log.model[first..][..seen.len()], "round {round}");
        }
    }
}

#[test]
fn crash_after_crash_keeps_every_acknowledged_transaction() {
    for seed in 20..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut log = TestLog::create(&memory_disk(), SEGMENT);
        let mut kept = LogPosition::default();
        for _ in 0..12 {
            for _ in 0..rng.random_range(0..6) {
                let bytes = 1 << rng.random_range(0..16);
                log.group(&mut rng, bytes);
                if rng.random_bool(0.3) {
                    kept = log.borders[rng.random_range(0..log.borders.len())]
                        .0
                        .max_by_lsn(kept);
                    log.writer
                        .segments()
                        .recycle_before(kept.lsn, 2 * SEGMENT)
                        .unwrap();
                }
                if rng.random_bool(0.3) {
                    log.writer.segments().prepare(SEGMENT).unwrap();
                }
            }
            // A group in flight: each of its sectors arrives or does not.
            let acknowledged = (log.end(), log.model.len());
            let old = snapshot(&log.disk);
            let bytes = 1 << rng.random_range(0..16);
            log.group(&mut rng, bytes);
            let in_flight = log.end();
            let mut image = snapshot(&log.disk);
            let mut at = acknowledged.0.lsn;
            while at < in_flight.lsn {
                if rng.random_bool(0.5) {
                    let (name, offset) = (
                        format!("{:020}.seg", at.get() / SEGMENT),
                        at.get() % SEGMENT,
                    );
                    let range =
                        usize::try_from(offset).unwrap()..usize::try_from(offset + SECTOR).unwrap();
                    let stale = old
                        .get(&name)
                        .map_or(&[0; 512][..], |bytes| &bytes[range.clone()]);
                    image.get_mut(&name).unwrap()[range].copy_from_slice(stale);
                }
                at = at.plus(SECTOR);
            }
            let disk = restore(&image);
            let (found, seen) = scan_all(&disk, SEGMENT, start(kept)).unwrap();
            assert!(
                found.end == acknowledged.0 || found.end == in_flight,
                "seed {seed}: {found:?}"
            );
            let txns = usize::try_from(found.end.last_txn.get()).unwrap();
            let first = usize::try_from(kept.last_txn.get()).unwrap();
            assert!(seen == log.model[first..txns], "seed {seed}");
            log = TestLog::resume(&disk, SEGMENT, found.end, log.model[..txns].to_vec());
        }
    }
}

impl LogPosition {
    fn max_by_lsn(self, other: Self) -> Self {
        if self.lsn >= other.lsn { self } else { other }
    }
}

#[test]
fn impossible_starts_and_file_names_are_errors_or_ignored() {
    let disk = memory_disk();
    for name in [
        "18446744073709551615.seg",
        "99999999999999999999.seg",
        "1.seg",
        "other",
    ] {
        disk.open(
            &Path::new(DIR).join(name),
            northstar_io::OpenMode::CreateNew,
        )
        .unwrap();
    }
    for (lsn, last_txn) in [
        (1, 0),
        (u64::MAX, 0),
        (u64::MAX - 4095, u64::MAX),
        (0, u64::MAX),
    ] {
        let from = LogPosition {
            lsn: Lsn::new(lsn),
            checksum: 0,
            last_txn: TxnId::new(last_txn),
        };
        let found = scan_all(&disk, SEGMENT, start(from)).map(|(found, _)| found.end);
        assert!(
            found.is_err() || found.is_ok_and(|end| end == from),
            "{from:?}"
        );
    }
    assert_eq!(open_segments(&disk, SEGMENT).counts(), (0, 0));
    for inside in [1, 512, 4095, 4097] {
        let from = LogPosition {
            lsn: Lsn::new(inside),
            ..LogPosition::default()
        };
        match scan_all(&disk, SEGMENT, start(from)) {
            Err(LogError::Corrupt { at, why, .. }) => {
                assert_eq!((at, why.expected), (from.lsn, inside / 4096 * 4096));
            }
            other => panic!("{inside}: {other:?}"),
        }
    }
}
