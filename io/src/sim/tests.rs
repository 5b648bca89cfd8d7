use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::{Buf, Disk, File, IoError, Op, OpenMode, SyncMethod};

const DIR: &str = "dir";
const BLOCK: usize = Buf::ALIGN;

fn block(byte: u8) -> Buf {
    let mut buf = Buf::zeroed(BLOCK);
    buf.fill(byte);
    buf
}

fn disk_with(faults: FaultPlan) -> Arc<SimDisk> {
    SimDisk::new(SimOptions {
        faults,
        trace: true,
        ..SimOptions::new(Image::with_dir(Path::new(DIR)))
    })
}

fn disk() -> Arc<SimDisk> {
    disk_with(FaultPlan::default())
}

fn create(disk: &SimDisk, name: &str) -> Arc<dyn File> {
    let path = Path::new(DIR).join(name);
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file
}

/// The shadow after all that has happened.
fn shadow(disk: &SimDisk) -> Shadow {
    let mut shadow = Shadow::new(Image::with_dir(Path::new(DIR)));
    for event in &disk.take_trace().events {
        shadow.apply(event);
    }
    shadow
}

fn plan(survival: Survival) -> CrashPlan {
    CrashPlan {
        survival,
        names: Names::Nothing,
        garbage: false,
    }
}

fn bytes(image: &Image, name: &str) -> Option<Vec<u8>> {
    image.bytes(&Path::new(DIR).join(name))
}

/// First byte of each sector.
fn sectors(image: &Image, name: &str) -> Vec<u8> {
    let bytes = bytes(image, name).unwrap();
    bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
}

#[test]
fn a_sync_keeps_what_was_done_before_it_and_a_crash_any_part_of_the_rest() {
    let disk = disk();
    let file = create(&disk, "a");
    file.write_at(0, &block(1), BLOCK).unwrap();
    file.sync().unwrap();
    file.write_at(0, &block(2), BLOCK).unwrap();
    let shadow = shadow(&disk);
    assert_eq!(shadow.units(), 8);
    let at = |survival| sectors(&shadow.crash(plan(survival), &mut || 0), "a");
    assert_eq!(at(Survival::Nothing), [1; 8]);
    assert_eq!(at(Survival::All), [2; 8]);
    assert_eq!(at(Survival::First(3)), [2, 2, 2, 1, 1, 1, 1, 1]);
    assert_eq!(at(Survival::Last(6)), [1, 1, 1, 1, 1, 1, 2, 2]);
    assert_eq!(at(Survival::Mask(0b1001_0001)), [2, 1, 1, 1, 2, 1, 1, 2]);
    let mut number = 0;
    let torn = shadow.crash(
        CrashPlan {
            garbage: true,
            ..plan(Survival::Units(128))
        },
        &mut || {
            number += 1;
            number * 0x9e37_79b9
        },
    );
    assert_eq!(bytes(&torn, "a").unwrap().len(), BLOCK);
}

#[test]
fn a_write_on_its_way_is_not_covered_and_ends_in_any_order() {
    let disk = disk();
    let file = create(&disk, "a");
    file.set_len(2 * BLOCK as u64).unwrap();
    file.sync().unwrap();
    let mut queue = disk.queue(4).unwrap();
    for token in 0..2 {
        let op = Op::Write {
            file: Arc::clone(&file),
            offset: token * BLOCK as u64,
            buf: block(7),
        };
        queue.submit(token, op).unwrap();
    }
    file.sync().unwrap();
    let mut seen = Buf::zeroed(BLOCK);
    let mut ended = Vec::new();
    queue.poll(1, &mut ended).unwrap();
    assert_eq!((ended.len(), ended[0].token, queue.in_flight()), (1, 0, 1));
    file.sync().unwrap();
    queue.poll(1, &mut ended).unwrap();
    file.read_at(0, &mut seen).unwrap();
    assert!(seen.iter().all(|&byte| byte == 7));
    assert_eq!(disk.violations(), Vec::<String>::new());
    let image = shadow(&disk).crash(plan(Survival::Nothing), &mut || 0);
    assert_eq!(sectors(&image, "a"), [[7; 8], [0; 8]].concat());
}

#[test]
fn a_read_of_what_is_being_written_is_torn() {
    let disk = disk();
    let file = create(&disk, "a");
    file.set_len(BLOCK as u64).unwrap();
    let mut queue = disk.queue(1).unwrap();
    let op = Op::Write {
        file: Arc::clone(&file),
        offset: 0,
        buf: block(7),
    };
    queue.submit(0, op).unwrap();
    let mut torn = Buf::zeroed(BLOCK);
    file.read_at(0, &mut torn).unwrap();
    // What was there before in part, and in part neither that nor what is being written.
    assert!(torn.contains(&0) && !torn.contains(&7) && torn.iter().any(|&byte| byte != 0));
    let mut ended = Vec::new();
    queue.poll(1, &mut ended).unwrap();
    file.read_at(0, &mut torn).unwrap();
    assert!(torn.iter().all(|&byte| byte == 7));
    assert_eq!(disk.violations(), Vec::<String>::new());
}

#[test]
fn names_and_lengths_wait_for_their_syncs() {
    let disk = disk();
    let a = create(&disk, "a");
    a.set_len(3 * BLOCK as u64).unwrap();
    let path = |name: &str| Path::new(DIR).join(name);
    disk.rename(&path("a"), &path("b")).unwrap();
    drop(disk.open(&path("c"), OpenMode::CreateNew).unwrap());
    let shadow = shadow(&disk);
    let names = |names| {
        let crashed = CrashPlan {
            names,
            ..plan(Survival::Nothing)
        };
        let image = shadow.crash(crashed, &mut || 1);
        let name = |(path, len): (&Path, u64)| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                len,
            )
        };
        image.files().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(Names::Nothing), [("a".to_owned(), 0)]);
    assert_eq!(
        names(Names::All),
        [("b".to_owned(), 0), ("c".to_owned(), 0)]
    );
    assert_eq!(names(Names::First), [("b".to_owned(), 0)]);
    assert_eq!(shadow.pending_names(), 2);
    let long = shadow.crash(plan(Survival::All), &mut || 0);
    assert_eq!(bytes(&long, "a").unwrap().len(), 3 * BLOCK);
}

#[test]
fn a_durable_write_keeps_itself_and_nothing_else() {
    for (method, other) in [
        (SyncMethod::WriteDsync, 0),
        (SyncMethod::RingDsync, 0),
        (SyncMethod::WriteThenSync, 3),
    ] {
        let disk = disk();
        let file = create(&disk, "a");
        file.set_len(2 * BLOCK as u64).unwrap();
        file.sync().unwrap();
        file.write_at(0, &block(3), BLOCK).unwrap();
        file.write_durable(BLOCK as u64, &block(4), BLOCK, method)
            .unwrap();
        let image = shadow(&disk).crash(plan(Survival::Nothing), &mut || 0);
        assert_eq!(sectors(&image, "a"), [[other; 8], [4; 8]].concat());
    }
}

/// What [`under`] saw.
struct Seen {
    answers: [Result<(), i32>; 3],
    read: u8,
    left: Vec<u8>,
    faults: usize,
}

/// One write, one sync and one read under a fault; what was answered and what a crash leaves.
fn under(what: What, fault: Fault) -> Seen {
    let rule = Rule {
        what,
        file: Some("a"),
        after: 1,
        sticky: false,
        fault,
    };
    let disk = disk_with(FaultPlan {
        rules: vec![rule],
        ..FaultPlan::default()
    });
    let file = create(&disk, "a");
    file.write_at(0, &block(1), BLOCK).unwrap();
    file.set_len(3 * BLOCK as u64).unwrap();
    file.sync().unwrap();
    file.read_at(0, &mut Buf::zeroed(BLOCK)).unwrap();
    let errno = |result: Result<(), IoError>| result.map_err(|error| error.errno);
    let wrote = errno(file.write_at(0, &block(2), BLOCK));
    let synced = errno(file.sync());
    let mut buf = Buf::zeroed(BLOCK);
    let read = errno(file.read_at(0, &mut buf));
    let faults = disk.atlas().len();
    let left = shadow(&disk).crash(plan(Survival::Nothing), &mut || 0);
    Seen {
        answers: [wrote, synced, read],
        read: buf[0],
        left: sectors(&left, "a"),
        faults,
    }
}

#[test]
fn every_fault_does_what_it_says_and_is_in_the_atlas() {
    let good = [Ok(()), Ok(()), Ok(())];
    let (zero, one, two) = ([0; 8], [1; 8], [2; 8]);
    let three = |first: [u8; 8], second: [u8; 8]| [first, second, zero].concat();
    for (what, fault, answers, seen, left) in [
        (
            What::Write,
            Fault::Error(5),
            [Err(5), Ok(()), Ok(())],
            2,
            three(two, zero),
        ),
        (
            What::Write,
            Fault::Error(libc::EINTR),
            good,
            2,
            three(two, zero),
        ),
        (
            What::Write,
            Fault::ErrorAfter(5),
            [Err(5), Ok(()), Ok(())],
            2,
            three(two, zero),
        ),
        (What::Write, Fault::Short(0), good, 2, three(two, zero)),
        (What::Write, Fault::Lost, good, 1, three(one, zero)),
        (
            What::Write,
            Fault::Misdirected(4096),
            good,
            1,
            three(one, two),
        ),
        (What::Sync, Fault::SyncLies, good, 2, three(one, zero)),
        (
            What::Sync,
            Fault::SyncFails(5, Kept::Nothing),
            [Ok(()), Err(5), Ok(())],
            1,
            three(one, zero),
        ),
        (
            What::Sync,
            Fault::SyncFails(5, Kept::All),
            [Ok(()), Err(5), Ok(())],
            2,
            three(two, zero),
        ),
        (
            What::Sync,
            Fault::Error(5),
            [Ok(()), Err(5), Ok(())],
            2,
            three(one, zero),
        ),
        (
            What::Read,
            Fault::Error(5),
            [Ok(()), Ok(()), Err(5)],
            0,
            three(two, zero),
        ),
        (
            What::Read,
            Fault::MisdirectedRead(4096),
            good,
            0,
            three(two, zero),
        ),
        (What::Read, Fault::Flipped(1), good, 0, three(two, zero)),
        (What::Read, Fault::Slow(5), good, 2, three(two, zero)),
    ] {
        let found = under(what, fault);
        let found = (found.answers, found.read, found.left, found.faults);
        assert_eq!(found, (answers, seen, left, 1), "{fault:?}");
    }
    // A stale read gives what a sync kept, whatever was written since.
    let rule = |after| Rule {
        what: What::Read,
        file: None,
        after,
        sticky: true,
        fault: Fault::Stale,
    };
    let disk = disk_with(FaultPlan {
        rules: vec![rule(0)],
        ..FaultPlan::default()
    });
    let file = create(&disk, "a");
    file.write_at(0, &block(1), BLOCK).unwrap();
    file.sync().unwrap();
    file.write_at(0, &block(2), BLOCK).unwrap();
    let mut buf = Buf::zeroed(BLOCK);
    file.read_at(0, &mut buf).unwrap();
    assert_eq!(buf[0], 1);
}

#[test]
fn a_short_write_of_a_queue_goes_on_and_can_fail_half_way() {
    let three = |faults: &[Fault]| {
        let rule = |(after, fault)| Rule {
            what: What::Write,
            file: None,
            after,
            sticky: false,
            fault,
        };
        let disk = disk_with(FaultPlan {
            rules: (0..).zip(faults.iter().copied()).map(rule).collect(),
            ..FaultPlan::default()
        });
        let file = create(&disk, "a");
        file.set_len(3 * BLOCK as u64).unwrap();
        file.sync().unwrap();
        let mut queue = disk.queue(1).unwrap();
        let mut buf = Buf::zeroed(3 * BLOCK);
        buf.fill(7);
        let op = Op::Write {
            file,
            offset: 0,
            buf,
        };
        queue.submit(0, op).unwrap();
        let mut ended = Vec::new();
        queue.poll(1, &mut ended).unwrap();
        assert_eq!(disk.violations(), Vec::<String>::new());
        let seen = sectors(&disk.image(), "a");
        let answer = ended[0].result.as_ref().map_err(|error| error.errno);
        let answer = answer.copied();
        let writes = disk.take_trace().events;
        let writes = writes.iter();
        let writes = writes.filter(|event| matches!(event, Event::Write { .. }));
        (answer, seen, writes.count(), disk.atlas().len())
    };
    assert_eq!(three(&[]), (Ok(()), vec![7; 24], 1, 0));
    assert_eq!(three(&[Fault::Short(4096)]), (Ok(()), vec![7; 24], 3, 1));
    assert_eq!(three(&[Fault::Short(512)]), (Ok(()), vec![7; 24], 2, 1));
    let failed = three(&[Fault::Short(8192), Fault::Error(5)]);
    assert_eq!((failed.0, failed.3), (Err(5), 2));
    assert_eq!(failed.1[..16], [7; 16]);
    // Enough for all of it is no fault.
    assert_eq!(three(&[Fault::Short(12288)]), (Ok(()), vec![7; 24], 1, 0));
}

#[test]
fn a_full_disk_refuses_what_is_new_and_takes_what_is_not() {
    let disk = disk_with(FaultPlan {
        room_bytes: Some(2 * BLOCK as u64),
        ..FaultPlan::default()
    });
    let file = create(&disk, "a");
    file.write_at(0, &block(1), BLOCK).unwrap();
    file.write_at(BLOCK as u64, &block(1), BLOCK).unwrap();
    let full = file.write_at(2 * BLOCK as u64, &block(1), BLOCK);
    assert!(full.unwrap_err().is_full());
    file.write_at(0, &block(2), BLOCK).unwrap();
    file.punch(0, BLOCK as u64).unwrap();
    file.write_at(2 * BLOCK as u64, &block(3), BLOCK).unwrap();
}

#[test]
fn without_power_nothing_happens_any_more() {
    let mut traces = Vec::new();
    for after in 0..8 {
        let disk = disk_with(FaultPlan {
            power_off_after: Some(after),
            ..FaultPlan::default()
        });
        let path = Path::new(DIR).join("a");
        let run = || -> Result<(), IoError> {
            let file = disk.open(&path, OpenMode::CreateNew)?;
            disk.sync_dir(Path::new(DIR))?;
            file.write_at(0, &block(1), BLOCK)?;
            file.sync()?;
            file.write_at(0, &block(2), BLOCK)?;
            file.sync()
        };
        assert_eq!(run().is_ok(), after >= 6, "{after}");
        traces.push(disk.take_trace().events.len());
    }
    assert!(traces.is_sorted() && traces[0] == 0, "{traces:?}");
}

#[test]
fn the_same_operations_leave_the_same_image() {
    let run = || {
        let disk = disk();
        for name in ["a", "b", "c"] {
            let file = create(&disk, name);
            file.write_at(BLOCK as u64, &block(name.as_bytes()[0]), BLOCK)
                .unwrap();
        }
        disk.image()
    };
    let (one, mut two) = (run(), run());
    assert_eq!((one.hash(), one.difference(&two)), (two.hash(), None));
    let b = Path::new(DIR).join("b");
    assert!(two.flip(&b, BLOCK as u64 + 5, 1));
    assert!(!two.flip(&b, 5, 1), "never written");
    assert_eq!(one.difference(&two), Some(b));
    assert_ne!(one.hash(), two.hash());
}

#[test]
fn what_a_failed_sync_lost_is_still_seen_only_through_the_systems_memory() {
    for direct in [false, true] {
        let rule = Rule {
            what: What::Sync,
            file: None,
            after: 1,
            sticky: false,
            fault: Fault::SyncFails(5, Kept::Nothing),
        };
        let disk = SimDisk::new(SimOptions {
            faults: FaultPlan {
                rules: vec![rule],
                ..FaultPlan::default()
            },
            trace: true,
            direct,
            ..SimOptions::new(Image::with_dir(Path::new("dir")))
        });
        let file = create(&disk, "a");
        file.write_at(0, &block(1), BLOCK).unwrap();
        file.sync().unwrap();
        file.write_at(0, &block(2), BLOCK).unwrap();
        assert_eq!(file.sync().unwrap_err().errno, 5);
        let expected = if direct { 1 } else { 2 };
        assert_eq!(sectors(&disk.image(), "a"), [expected; 8]);
        file.sync().unwrap();
        let kept = shadow(&disk).crash(plan(Survival::All), &mut || 0);
        assert_eq!(
            sectors(&kept, "a"),
            [1; 8],
            "a later sync makes up for nothing"
        );
    }
}
