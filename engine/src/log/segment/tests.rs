//! The parts of which making, checking and cutting segments consist.

use northstar_io::sim::{Fault, FaultPlan, Image, Rule, SimDisk, SimOptions, What};

use super::*;

const CHUNK: u64 = CHUNK_BYTES as u64;

fn file(rules: Vec<Rule>) -> Arc<dyn File> {
    let disk = SimDisk::new(SimOptions {
        faults: FaultPlan {
            rules,
            ..FaultPlan::default()
        },
        ..SimOptions::new(Image::with_dir(Path::new("log")))
    });
    disk.open(Path::new("log/file"), OpenMode::CreateNew)
        .unwrap()
}

fn segments(names: &[&str], segment_bytes: u64) -> Arc<Segments> {
    let disk: Arc<dyn Disk> = SimDisk::new(SimOptions::new(Image::with_dir(Path::new("log"))));
    for name in names {
        disk.open(&Path::new("log").join(name), OpenMode::CreateNew)
            .unwrap();
    }
    Segments::open(disk, "log", segment_bytes).unwrap()
}

#[test]
fn a_range_is_cut_into_chunks_and_a_rest() {
    let cut = |from, to| pieces(from, to).collect::<Vec<_>>();
    assert_eq!(cut(4096, 4096), []);
    assert_eq!(cut(4096, 8192), [(4096, 4096)]);
    assert_eq!(cut(0, CHUNK), [(0, CHUNK_BYTES)]);
    assert_eq!(
        cut(4096, 2 * CHUNK + 8192),
        [
            (4096, CHUNK_BYTES),
            (CHUNK + 4096, CHUNK_BYTES),
            (2 * CHUNK + 4096, 4096)
        ]
    );
}

#[test]
fn bytes_that_differ_from_zero_are_seen_wherever_they_are() {
    assert!(all_zero(&[]) && all_zero(&[0; 10_000]));
    for at in [0, 1, 4095, 4096, 9999] {
        let mut bytes = [0; 10_000];
        bytes[at] = 0x80;
        assert!(!all_zero(&bytes), "{at}");
    }
    assert!(!all_zero(&[5, 5, 0, 0]), "two that are alike");

    let file = file(Vec::new());
    fill_with_zeros(&*file, 0, 2 * CHUNK + 4096).unwrap();
    assert_eq!(file.len().unwrap(), 2 * CHUNK + 4096);
    assert!(is_zero(&*file, 0, 2 * CHUNK + 4096).unwrap());
    let mut one = Buf::zeroed(4096);
    one[4095] = 1;
    for at in [0, CHUNK, 2 * CHUNK] {
        file.write_at(at, &one, 4096).unwrap();
        assert!(!is_zero(&*file, 0, 2 * CHUNK + 4096).unwrap(), "{at}");
        assert!(
            is_zero(&*file, at + 4096, 2 * CHUNK + 4096).unwrap(),
            "{at}"
        );
        fill_with_zeros(&*file, at, at + 4096).unwrap();
        assert!(is_zero(&*file, 0, 2 * CHUNK + 4096).unwrap(), "{at}");
    }
}

#[test]
fn bytes_are_copied_only_as_two_readings_agree_on_them() {
    let flip = |after, sticky| Rule {
        what: What::Read,
        file: None,
        after,
        sticky,
        fault: Fault::Flipped(7),
    };
    let copied = |rules: Vec<Rule>| {
        let file = file(rules);
        let mut bytes = Buf::zeroed(4096);
        bytes.fill(9);
        file.write_at(4096, &bytes, 4096).unwrap();
        read_twice(&*file, 4096, 4096).map(|read| read[..] == bytes[..])
    };
    assert!(copied(Vec::new()).unwrap());
    for bad in 0..3 {
        assert!(copied(vec![flip(bad, false)]).unwrap(), "reading {bad}");
    }
    // Right and wrong in turns: four readings, no two in a row alike.
    let turns = |first: u64| vec![flip(first, false), flip(first + 2, false)];
    assert!(copied(turns(0)).is_err() && copied(turns(1)).is_err());
    assert!(!copied(vec![flip(0, true)]).unwrap(), "always the same");
}

#[test]
fn only_names_of_twenty_digits_within_the_stream_are_segments() {
    let last = (u64::MAX / 65536 - 1, u64::MAX / 65536);
    let (last, beyond) = (segment_name(last.0), segment_name(last.1));
    let found = segments(
        &[
            "00000000000000000003.seg",
            &last,
            &beyond,
            "0000000000000000004.seg",
            "+0000000000000000005.seg",
            "00000000000000000006.segment",
            "spare-00000000000000000007",
            "spare-8",
            "00000000000000000009.tmp",
            "other.tmp",
        ],
        65536,
    );
    assert_eq!(found.numbers_from(0), [3, u64::MAX / 65536 - 1]);
    assert_eq!(found.counts(), (2, 1));
    assert_eq!(found.workshop.lock().leftovers.len(), 2);
    assert_eq!(found.numbers_from(4).len(), 1);
}

#[test]
fn positions_lie_in_segments_and_chunks_do_not_cross_them() {
    let small = segments(&[], 65536);
    assert_eq!(small.segment_bytes(), 65536);
    assert_eq!(small.chunk_bytes(), 65536);
    assert_eq!(small.locate(Lsn::new(3 * 65536 + 5)), (3, 5));
    assert_eq!(segments(&[], 4 * CHUNK).chunk_bytes(), CHUNK);
    assert_eq!(small.room(), 65536);
    small.note_end(Lsn::new(65536 - 4096));
    assert_eq!((small.room(), small.end().get()), (4096, 65536 - 4096));
    let needed = |bytes| small.last_for(bytes);
    assert_eq!(
        [0, 1, 4096, 4097, 4096 + 65536].map(needed),
        [0, 0, 0, 1, 1]
    );
    assert_eq!(needed(4096 + 65536 + 1), 2);
    small.head.store(5, Ordering::SeqCst);
    assert_eq!((needed(0), small.room()), (5, 5 * 65536 + 4096));
}

#[test]
fn a_segment_that_failed_halfway_leaves_nothing_behind_where_it_can_be_removed() {
    let rule = |what, after| Rule {
        what,
        file: Some(".tmp"),
        after,
        sticky: false,
        fault: Fault::Error(28),
    };
    for what in [What::Open, What::Write, What::Sync] {
        let disk = SimDisk::new(SimOptions {
            faults: FaultPlan {
                rules: vec![rule(what, 1)],
                ..FaultPlan::default()
            },
            ..SimOptions::new(Image::with_dir(Path::new("log")))
        });
        let shared: Arc<dyn Disk> = Arc::<SimDisk>::clone(&disk);
        let segments = Segments::open(shared, "log", 65536).unwrap();
        segments.cut_at(Lsn::default()).unwrap();
        assert_eq!(segments.prepare(2 * 65536).unwrap_err().errno, 28);
        assert_eq!(segments.counts(), (1, 0), "{what:?}");
        assert!(segments.workshop.lock().leftovers.is_empty());
        assert_eq!(disk.image().files().count(), 1);
        assert_eq!(segments.room(), 65536);
        segments.prepare(2 * 65536).unwrap();
        assert_eq!((segments.room(), segments.counts()), (2 * 65536, (2, 0)));
    }
}

#[test]
fn nothing_is_made_or_removed_after_closing() {
    let segments = segments(&[], 65536);
    segments.cut_at(Lsn::default()).unwrap();
    segments.prepare(4 * 65536).unwrap();
    assert_eq!(segments.counts(), (4, 0));
    segments.shut();
    segments.prepare(9 * 65536).unwrap();
    segments.drop_prepared(0).unwrap();
    segments.recycle_before(Lsn::new(3 * 65536), 65536).unwrap();
    assert_eq!(segments.counts(), (4, 0));
}

#[test]
fn old_segments_become_spares_as_far_as_is_asked_for() {
    let segments = segments(&[], 65536);
    segments.cut_at(Lsn::default()).unwrap();
    segments.prepare(6 * 65536).unwrap();
    let recycled = |before: u64, spares: u64| {
        segments.recycle_before(Lsn::new(before), spares).unwrap();
        segments.counts()
    };
    assert_eq!(recycled(65535, 9 * 65536), (6, 0), "it holds the last byte");
    assert_eq!(recycled(3 * 65536, 2 * 65536), (3, 2));
    assert_eq!(recycled(3 * 65536, 65536 + 65535), (3, 1), "surplus goes");
    assert_eq!(recycled(3 * 65536, 9 * 65536), (3, 1), "none is made here");
    assert_eq!(recycled(4 * 65536, 0), (2, 0));
}
