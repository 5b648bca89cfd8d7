//! What only a ring can get wrong.

use super::*;
use crate::buf::tests::{part, release};
use crate::plain::NativeFile;
use crate::ring::set_up;
use crate::ring_queue::RingQueue;
use crate::transfer::Target;

fn disk_and_file(dir: &Path) -> (Arc<NativeDisk>, Arc<dyn File>) {
    let disk = native(Choice::Auto, true);
    let file = disk.open(&dir.join("file"), OpenMode::CreateNew).unwrap();
    file.write_at(0, &pattern(1 << 20, 5), 1 << 20).unwrap();
    (disk, file)
}

fn read_op(file: &Arc<dyn File>, offset: u64) -> Op {
    Op::Read {
        file: Arc::clone(file),
        offset,
        buf: Buf::zeroed(4096),
    }
}

#[test]
fn a_ring_refused_late_makes_the_queue_inline() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = disk_and_file(dir.path());
    let refuse = |_, _| Err(std::io::Error::from_raw_os_error(libc::EMFILE));
    let mut queue = RingQueue::with_setup(disk.shared(), 8, refuse);
    queue.submit(1, read_op(&file, 4096)).unwrap();
    assert!(!queue.register_file(&file));
    assert_eq!(queue.in_flight(), 1);
    let ended = drain(&mut queue, Vec::new());
    assert_eq!(
        **ended[0].buf.as_ref().unwrap(),
        pattern(1 << 20, 5)[4096..8192]
    );
    let status = disk.status();
    assert!(
        status.warnings.iter().any(|text| text.contains("io_uring")),
        "{status:?}"
    );
}

#[test]
fn a_queue_may_move_between_threads_when_nothing_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = disk_and_file(dir.path());
    let mut queue = disk.queue(8).unwrap();
    let mapping = Arc::new(Mapping::reserve(1 << 20).unwrap());
    queue.register(&mapping);
    for round in 0..4 {
        queue = std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                for token in 0..8 {
                    queue
                        .submit(token, read_op(&file, (round * 8 + token) * 4096))
                        .unwrap();
                }
                for completion in drain(&mut *queue, Vec::new()) {
                    completion.result.unwrap();
                }
                queue
            });
            mover.join().unwrap()
        });
    }
}

#[test]
fn a_queue_moved_with_operations_on_their_way_says_so_or_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = disk_and_file(dir.path());
    let mut queue = disk.queue(8).unwrap();
    queue.submit(1, read_op(&file, 0)).unwrap();
    std::thread::scope(|scope| {
        let away = scope.spawn(|| match queue.submit(2, read_op(&file, 0)) {
            Ok(()) => drain(&mut *queue, Vec::new()).len(),
            Err(error) => {
                assert_eq!((error.kind, error.errno), (IoKind::Ring, libc::EEXIST));
                0
            }
        });
        away.join().unwrap();
    });
    for completion in drain(&mut *queue, Vec::new()) {
        completion.result.unwrap();
    }
    queue.submit(3, read_op(&file, 0)).unwrap();
    // Dropped elsewhere with an operation on its way: given up, not freed.
    std::thread::scope(|scope| {
        scope.spawn(move || drop(queue));
    });
}

#[test]
fn every_kind_of_ring_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = disk_and_file(dir.path());
    let expected = pattern(1 << 20, 5);
    let kinds: [crate::ring::Setup; 3] = [
        set_up,
        |entries, _| set_up(entries, true),
        |entries, _| io_uring::IoUring::new(entries),
    ];
    for kind in kinds {
        let mut queue = RingQueue::with_setup(disk.shared(), 100, kind);
        for token in 0..256 {
            queue.submit(token, read_op(&file, token * 4096)).unwrap();
        }
        for completion in drain(&mut queue, Vec::new()) {
            completion.result.unwrap();
            let start = usize::try_from(completion.token).unwrap() * 4096;
            assert_eq!(*completion.buf.unwrap(), expected[start..start + 4096]);
        }
    }
}

#[test]
fn a_registered_mapping_is_read_and_written_and_no_longer_released() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = disk_and_file(dir.path());
    let mapping = Arc::new(Mapping::reserve(4 << 20).unwrap());
    let mut queue = disk.queue(16).unwrap();
    let registered = queue.register(&mapping);
    assert_eq!(
        queue.register(&mapping),
        registered,
        "twice is as good as once"
    );
    queue.register_file(&file);
    let part = |at: usize| part(&mapping, at, 16384);
    for token in 0..64_u64 {
        let at = usize::try_from(token).unwrap() * 16384;
        let op = Op::Read {
            file: Arc::clone(&file),
            offset: token * 16384,
            buf: part(at),
        };
        queue.submit(token, op).unwrap();
    }
    let expected = pattern(1 << 20, 5);
    for completion in drain(&mut *queue, Vec::new()) {
        completion.result.unwrap();
        let at = usize::try_from(completion.token).unwrap() * 16384;
        let buf = completion.buf.unwrap();
        assert_eq!(*buf, expected[at..at + 16384]);
        // Back to where the next one lies: nothing but the ring tells them apart.
        let offset = (1 << 20) + completion.token * 16384;
        let op = Op::Write {
            file: Arc::clone(&file),
            offset,
            buf,
        };
        queue.submit(completion.token, op).unwrap();
    }
    for completion in drain(&mut *queue, Vec::new()) {
        completion.result.unwrap();
    }
    assert_eq!(*read(&*file, 1 << 20, 1 << 20).unwrap(), *expected);
    release(&mapping, 0, 1 << 20);
    let kept = if registered { expected[0] } else { 0 };
    assert_eq!(part(0)[0], kept);
}

#[test]
fn a_file_that_refuses_direct_transfers_late_goes_on_buffered() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = disk_and_file(dir.path());
    let native = file.as_any().downcast_ref::<NativeFile>().unwrap();
    native.give_up_direct();
    assert!(!native.is_direct());
    let status = disk.status();
    assert!(!status.direct);
    assert!(
        status
            .warnings
            .iter()
            .any(|text| text.contains("no direct I/O")),
        "{status:?}"
    );
    assert_eq!(*read(&*file, 0, 1 << 20).unwrap(), *pattern(1 << 20, 5));
    let mut queue = disk.queue(4).unwrap();
    queue.submit(9, read_op(&file, 8192)).unwrap();
    let ended = drain(&mut *queue, Vec::new());
    assert_eq!(
        **ended[0].buf.as_ref().unwrap(),
        pattern(1 << 20, 5)[8192..12288]
    );
}
