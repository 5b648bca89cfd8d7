//! Segments made ready, kept and given back.

use northstar_io::sim::{FaultPlan, Image, SimDisk, SimOptions};

use super::*;

const SEGMENT: u64 = 65536;

fn names(disk: &Arc<dyn Disk>) -> Vec<String> {
    disk.list(Path::new(DIR)).unwrap()
}

fn started(segments: &Arc<Segments>) -> LogWriter {
    LogWriter::start_at(
        Arc::clone(segments),
        (Lsn::default(), LogPosition::default()),
        SyncMethod::None,
    )
    .unwrap()
}

#[test]
fn what_was_made_before_a_disk_is_full_is_known_and_used() {
    let disk: Arc<dyn Disk> = SimDisk::new(SimOptions {
        faults: FaultPlan {
            room_bytes: Some(4 * SEGMENT - 1),
            ..FaultPlan::default()
        },
        ..SimOptions::new(Image::with_dir(Path::new(DIR)))
    });
    let segments = Segments::open(Arc::clone(&disk), DIR, SEGMENT).unwrap();
    let _writer = started(&segments);
    assert_eq!(segments.room(), SEGMENT);
    let error = segments.prepare(5 * SEGMENT).unwrap_err();
    assert_eq!(error.errno, 28);
    assert_eq!(segments.room(), 3 * SEGMENT);
    segments.prepare(3 * SEGMENT).unwrap();
    segments.drop_prepared(0).unwrap();
    assert_eq!(segments.room(), 2 * SEGMENT);
    let whole = |name: &String| name.ends_with(".seg");
    assert_eq!(names(&disk).iter().filter(|name| whole(name)).count(), 2);
    // What was half made when the disk was full is made anew.
    segments.prepare(3 * SEGMENT).unwrap();
    assert_eq!(segments.room(), 3 * SEGMENT);
}

#[test]
fn a_log_that_was_not_cut_gives_nothing_back() {
    let disk = memory_disk();
    let segments = Segments::open(Arc::clone(&disk), DIR, SEGMENT).unwrap();
    let _writer = started(&segments);
    segments.prepare(5 * SEGMENT).unwrap();
    let before = names(&disk);
    let again = Segments::open(Arc::clone(&disk), DIR, SEGMENT).unwrap();
    again.drop_prepared(0).unwrap();
    assert_eq!(names(&disk), before);
}

#[test]
fn what_is_claimed_is_not_given_back() {
    let disk = memory_disk();
    let segments = Segments::open(Arc::clone(&disk), DIR, SEGMENT).unwrap();
    let _writer = started(&segments);
    segments.prepare(8 * SEGMENT).unwrap();
    let claim = segments.claim(3 * 65536);
    assert!(segments.claimed() > 3 * SEGMENT && segments.claimed() <= 3 * SEGMENT + 4096);
    segments.drop_prepared(0).unwrap();
    assert_eq!(segments.room(), 4 * SEGMENT);
    segments.drop_prepared(SEGMENT).unwrap();
    assert_eq!(segments.room(), 4 * SEGMENT, "nothing is made here");
    drop(claim);
    assert_eq!(segments.claimed(), 0);
    segments.drop_prepared(0).unwrap();
    assert_eq!(segments.room(), 2 * SEGMENT);
    let handed = segments.claim(1).hand_over();
    assert_eq!(segments.claimed(), handed);
    segments.release(handed);
    // Header and frame and the record, in whole blocks.
    let frame = 64 + 56;
    for (payload, bytes) in [(0, 4096), (4096 - frame, 4096), (4096 - frame + 1, 8192)] {
        assert_eq!(segments.claim(payload).hand_over(), bytes, "{payload}");
        segments.release(bytes);
    }
    assert_eq!(segments.claimed(), 0);
}
