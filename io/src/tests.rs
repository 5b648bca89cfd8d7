//! What every disk promises, checked on each kind: `check` holds the promises, the tests below name the disks.

use std::path::Path;
use std::sync::Arc;

use crate::{
    Buf, Choice, Completion, Disk, File, IoError, IoKind, LockError, Mapping, MemoryDisk,
    NativeDisk, NativeOptions, Op, OpenMode, Queue, SyncMethod,
};

/// A block of a pattern told apart by `seed`.
fn pattern(len: usize, seed: u64) -> Buf {
    let mut buf = Buf::zeroed(len);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for eight in buf.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes());
    }
    buf
}

fn read(file: &dyn File, offset: u64, len: usize) -> Result<Buf, IoError> {
    let mut buf = pattern(len, 0xdead);
    file.read_at(offset, &mut buf).map(|()| buf)
}

/// Runs all promises in the existing directory `dir` of `disk`.
fn check(disk: &dyn Disk, dir: &Path) {
    let dir = &dir.join("made/of/two");
    disk.create_dir(dir).unwrap();
    disk.create_dir(dir).unwrap();
    names(disk, dir);
    lengths(disk, dir);
    transfers(disk, dir);
    refusals(disk, dir);
    locks(disk, dir);
    queue_round_trip(disk, dir);
    queue_reports_errors(disk, dir);
    queue_dropped_in_flight(disk, dir);
    queues_in_threads(disk, dir);
}

fn names(disk: &dyn Disk, dir: &Path) {
    let missing = disk.open(&dir.join("a"), OpenMode::Write).unwrap_err();
    assert_eq!((missing.kind, missing.errno), (IoKind::Open, libc::ENOENT));
    assert!(missing.to_string().contains("made/of/two/a"), "{missing}");
    let a = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    let exists = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap_err();
    assert_eq!(exists.errno, libc::EEXIST);
    a.write_at(0, &pattern(4096, 1), 4096).unwrap();
    disk.open(&dir.join("b"), OpenMode::CreateNew).unwrap();
    disk.create_dir(&dir.join("c")).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["a", "b", "c"]);
    disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["b", "c"]);
    let b = disk.open(&dir.join("b"), OpenMode::Read).unwrap();
    assert_eq!(*read(&*b, 0, 4096).unwrap(), *pattern(4096, 1));
    disk.remove(&dir.join("b")).unwrap();
    assert_eq!(disk.remove(&dir.join("b")).unwrap_err().errno, libc::ENOENT);
    assert_eq!(
        *read(&*b, 0, 4096).unwrap(),
        *pattern(4096, 1),
        "open though removed"
    );
    assert_eq!(
        disk.list(&dir.join("none")).unwrap_err().errno,
        libc::ENOENT
    );
    assert_eq!(
        disk.sync_dir(&dir.join("none")).unwrap_err().errno,
        libc::ENOENT
    );
    assert_eq!(
        disk.open(&dir.join("none/x"), OpenMode::CreateNew)
            .unwrap_err()
            .errno,
        libc::ENOENT
    );
}

fn lengths(disk: &dyn Disk, dir: &Path) {
    let file = disk
        .open(&dir.join("lengths"), OpenMode::CreateNew)
        .unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.write_at(65536, &pattern(131_072, 2), 131_072).unwrap();
    assert_eq!(file.len().unwrap(), 196_608);
    assert!(
        read(&*file, 0, 65536)
            .unwrap()
            .iter()
            .all(|&byte| byte == 0),
        "a hole is zeros"
    );
    file.punch(69632, 65536).unwrap();
    file.punch(0, 0).unwrap();
    let (whole, now) = (pattern(131_072, 2), read(&*file, 65536, 131_072).unwrap());
    assert_eq!(now[..4096], whole[..4096]);
    assert!(now[4096..69632].iter().all(|&byte| byte == 0), "punched");
    assert_eq!(now[69632..], whole[69632..]);
    assert_eq!(file.len().unwrap(), 196_608);
    assert!(file.allocated().unwrap() <= 196_608);
    // Cut inside a block, grow again: the cut part is zeros.
    file.set_len(65536 + 100).unwrap();
    file.set_len(73728).unwrap();
    let now = read(&*file, 65536, 8192).unwrap();
    assert_eq!(now[..100], whole[..100]);
    assert!(now[100..].iter().all(|&byte| byte == 0), "cut");
    // A ragged end is readable up to its last whole block only.
    file.set_len(65536 + 5000).unwrap();
    assert_eq!(file.len().unwrap(), 70536);
    read(&*file, 65536, 4096).unwrap();
    for (offset, len) in [(65536, 8192), (69632, 4096), (73728, 4096), (1 << 40, 4096)] {
        let end = read(&*file, offset, len).unwrap_err();
        assert_eq!((end.kind, end.errno), (IoKind::Read, IoError::END_OF_FILE));
        assert_eq!((end.offset, end.len), (offset, len));
        let text = end.to_string();
        assert!(
            text.starts_with("Read of ") && text.contains("two/lengths at offset"),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("{len} bytes: the file ends before")),
            "{text}"
        );
    }
    file.sync().unwrap();
}

fn transfers(disk: &dyn Disk, dir: &Path) {
    let file = disk
        .open(&dir.join("transfers"), OpenMode::CreateNew)
        .unwrap();
    let before = disk.counters().counts();
    let large = pattern(3 << 20, 3);
    file.write_at(4096, &large, large.len()).unwrap();
    assert_eq!(*read(&*file, 4096, large.len()).unwrap(), *large);
    let methods = [
        SyncMethod::WriteThenSync,
        SyncMethod::WriteDsync,
        SyncMethod::RingDsync,
        SyncMethod::None,
    ];
    for (block, method) in (1..).zip(methods) {
        let buf = pattern(16384, block);
        file.write_durable(block * 65536, &buf, 8192, method)
            .unwrap();
        let now = read(&*file, block * 65536, 16384).unwrap();
        assert_eq!(now[..8192], buf[..8192], "{method:?}");
        let behind = usize::try_from(block * 65536 - 4096).unwrap() + 8192;
        assert_eq!(
            now[8192..],
            large[behind..behind + 8192],
            "{method:?} wrote too much"
        );
    }
    file.sync().unwrap();
    let counts = disk.counters().counts().since(&before);
    assert_eq!((counts.reads, counts.writes, counts.syncs), (5, 5, 5));
    assert_eq!(counts.read_bytes, (3 << 20) + 4 * 16384);
    assert_eq!(counts.write_bytes, (3 << 20) + 4 * 8192);
}

fn refusals(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("transfers"), OpenMode::Read).unwrap();
    let buf = Buf::zeroed(4096);
    assert_eq!(file.write_at(0, &buf, 4096).unwrap_err().errno, libc::EBADF);
    assert_eq!(read(&*file, 512, 4096).unwrap_err().errno, libc::EINVAL);
    let file = disk.open(&dir.join("transfers"), OpenMode::Write).unwrap();
    assert_eq!(file.write_at(0, &buf, 100).unwrap_err().errno, libc::EINVAL);
    assert_eq!(
        file.write_at(0, &buf, 8192).unwrap_err().errno,
        libc::EINVAL
    );
    let far = file.write_at(1 << 63, &buf, 4096).unwrap_err();
    assert!(far.is_full(), "{far}");
    file.write_at(0, &buf, 0).unwrap();
}

fn locks(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("LOCK");
    let held = disk.lock(&path).unwrap();
    let refused = disk.lock(&path).unwrap_err();
    let LockError::Held { pid, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(*pid, Some(std::process::id()));
    let text = refused.to_string();
    assert!(
        text.ends_with(&format!("LOCK is locked by process {}", std::process::id())),
        "{text}"
    );
    drop(held);
    let again = disk.lock(&path).unwrap();
    drop(again);
    let nowhere = disk.lock(&dir.join("none/LOCK")).unwrap_err();
    assert!(matches!(nowhere, LockError::Io(error) if error.errno == libc::ENOENT));
}

/// Polls until nothing is in flight; by token.
fn drain(queue: &mut dyn Queue, mut ended: Vec<Completion>) -> Vec<Completion> {
    while queue.in_flight() > 0 {
        queue.poll(usize::MAX, &mut ended).unwrap();
    }
    ended.sort_by_key(|completion| completion.token);
    ended
}

/// Writes 150 differing blocks, some large, through a queue of 32; syncs; reads them back in another order.
fn queue_round_trip(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("queued"), OpenMode::CreateNew).unwrap();
    let mut queue = disk.queue(32).unwrap();
    queue.register_file(&file);
    let place = |token: u64| {
        (
            token * (5 << 18),
            if token % 50 == 7 { 5 << 18 } else { 16384 },
        )
    };
    let mut ended = Vec::new();
    for token in 0..150 {
        let (offset, len) = place(token);
        let op = Op::Write {
            file: Arc::clone(&file),
            offset,
            buf: pattern(len, token),
        };
        queue.submit(token, op).unwrap();
        if token % 20 == 0 {
            queue.poll(0, &mut ended).unwrap();
        }
    }
    assert_eq!(queue.in_flight() + ended.len(), 150);
    let ended = drain(&mut *queue, ended);
    assert!((0..150).eq(ended.iter().map(|completion| completion.token)));
    for completion in &ended {
        completion.result.clone().unwrap();
        let (_, len) = place(completion.token);
        assert_eq!(
            **completion.buf.as_ref().unwrap(),
            *pattern(len, completion.token)
        );
    }
    queue
        .submit(
            1000,
            Op::Sync {
                file: Arc::clone(&file),
            },
        )
        .unwrap();
    let mut synced = Vec::new();
    queue.poll(1, &mut synced).unwrap();
    assert_eq!((synced[0].token, synced[0].buf.is_none()), (1000, true));
    synced[0].result.clone().unwrap();

    for step in 0..150 {
        let token = step * 77 % 150;
        let (offset, len) = place(token);
        let buf = Buf::zeroed(len);
        queue
            .submit(
                token,
                Op::Read {
                    file: Arc::clone(&file),
                    offset,
                    buf,
                },
            )
            .unwrap();
    }
    let mut some = Vec::new();
    queue.poll(1, &mut some).unwrap();
    assert!(!some.is_empty());
    for completion in drain(&mut *queue, some) {
        completion.result.unwrap();
        let (offset, len) = place(completion.token);
        let expected = pattern(len, completion.token);
        assert_eq!(
            *completion.buf.unwrap(),
            *expected,
            "queued, token {}",
            completion.token
        );
        assert_eq!(*read(&*file, offset, len).unwrap(), *expected, "blocking");
    }
    let mut none = Vec::new();
    queue.poll(1, &mut none).unwrap();
    assert!(none.is_empty(), "polling an idle queue returns at once");

    // Runs: the same bytes into pieces of every size, in one transfer, also of more bytes than are tried at once.
    for step in 0..150 {
        let token = step * 77 % 150;
        let (offset, len) = place(token);
        let (mut bufs, mut left) = (Vec::new(), len);
        while left > 0 {
            let piece = (4096 << (bufs.len() % 4)).min(left);
            bufs.push(Buf::zeroed(piece));
            left -= piece;
        }
        let file = Arc::clone(&file);
        queue
            .submit(token, Op::ReadRun { file, offset, bufs })
            .unwrap();
    }
    for completion in drain(&mut *queue, Vec::new()) {
        completion.result.unwrap();
        assert!(completion.buf.is_none());
        let (_, len) = place(completion.token);
        let read: Vec<u8> = completion.run.iter().flat_map(|buf| buf.to_vec()).collect();
        assert!(
            read == *pattern(len, completion.token),
            "run {}",
            completion.token
        );
    }
}

fn queue_reports_errors(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("queued"), OpenMode::Read).unwrap();
    let beyond = file.len().unwrap() / 4096 * 4096 - 4096;
    for (offset, errno) in [(beyond, IoError::END_OF_FILE), (512, libc::EINVAL)] {
        let mut queue = disk.queue(8).unwrap();
        let read = Op::ReadRun {
            file: Arc::clone(&file),
            offset,
            bufs: vec![Buf::zeroed(4096), Buf::zeroed(8192)],
        };
        queue.submit(7, read).unwrap();
        let ended = drain(&mut *queue, Vec::new());
        assert_eq!(ended[0].result.clone().unwrap_err().errno, errno);
        assert_eq!(ended[0].run.len(), 2, "the buffers come back");
    }
    let other = MemoryDisk::new()
        .open(Path::new("other"), OpenMode::CreateNew)
        .unwrap();
    let mut queue = disk.queue(8).unwrap();
    let end = file.len().unwrap();
    let ops = [
        (&file, end, "the file ends before"),
        (&file, end - 4096, "the file ends before"),
        (&file, 1024, "Invalid argument"),
        (&other, 0, "the file ends before"),
    ];
    for (token, (file, offset, _)) in (0..).zip(&ops) {
        let op = Op::Read {
            file: Arc::clone(file),
            offset: *offset,
            buf: Buf::zeroed(8192),
        };
        queue.submit(token, op).unwrap();
    }
    let buf = Buf::zeroed(4096);
    queue
        .submit(
            4,
            Op::Write {
                file: Arc::clone(&file),
                offset: 0,
                buf,
            },
        )
        .unwrap();
    let ended = drain(&mut *queue, Vec::new());
    for (completion, (_, offset, reason)) in ended.iter().zip(&ops) {
        let error = completion.result.clone().unwrap_err();
        assert_eq!(
            (error.kind, error.offset, error.len),
            (IoKind::Read, *offset, 8192)
        );
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(
            completion.buf.as_ref().unwrap().len(),
            8192,
            "buffers come back"
        );
    }
    let refused = ended[4].result.clone().unwrap_err();
    assert_eq!((refused.kind, refused.errno), (IoKind::Write, libc::EBADF));
}

fn queue_dropped_in_flight(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("queued"), OpenMode::Write).unwrap();
    for round in 0..20 {
        let mut queue = disk.queue(64).unwrap();
        for token in 0..64 {
            let buf = pattern(65536, token);
            let op = Op::Write {
                file: Arc::clone(&file),
                offset: token * 65536,
                buf,
            };
            queue.submit(token, op).unwrap();
        }
        if round % 2 == 0 {
            queue.poll(1, &mut Vec::new()).unwrap();
        }
    }
    let mut queue = disk.queue(4).unwrap();
    queue.submit(1, Op::Sync { file }).unwrap();
}

fn queues_in_threads(disk: &dyn Disk, dir: &Path) {
    let file = disk
        .open(&dir.join("threads"), OpenMode::CreateNew)
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let file = &file;
            scope.spawn(move || {
                let mut queue = disk.queue(16).unwrap();
                for token in 0..64 {
                    let place = token * 4 + thread;
                    let (offset, buf) = (place * 8192, pattern(8192, place));
                    let file = Arc::clone(file);
                    queue
                        .submit(token, Op::Write { file, offset, buf })
                        .unwrap();
                }
                for completion in drain(&mut *queue, Vec::new()) {
                    completion.result.unwrap();
                }
            });
        }
    });
    for place in 0..256 {
        assert_eq!(
            *read(&*file, place * 8192, 8192).unwrap(),
            *pattern(8192, place)
        );
    }
}

fn native(uring: Choice, direct: bool) -> Arc<NativeDisk> {
    NativeDisk::new(NativeOptions { uring, direct })
}

#[test]
fn memory_keeps_every_promise() {
    let disk = MemoryDisk::new();
    check(&*disk, Path::new("/db"));
    assert_eq!(disk.status().backend, "memory");
    assert!(disk.status().warnings.is_empty());
}

#[test]
fn pread_direct_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let disk = native(Choice::Never, true);
    check(&*disk, dir.path());
    assert_eq!(disk.status().backend, "pread");
}

#[test]
fn pread_buffered_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let disk = native(Choice::Never, false);
    check(&*disk, dir.path());
    let status = disk.status();
    assert!(!status.direct);
    assert!(
        !status.warnings.iter().any(|text| text.contains("direct")),
        "{status:?}"
    );
}

#[test]
fn uring_keeps_every_promise_direct_and_buffered() {
    for direct in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let disk = native(Choice::Auto, direct);
        check(&*disk, dir.path());
        // Where rings are refused, this ran over the fallback, which says so.
        let status = disk.status();
        let refused = status.warnings.iter().any(|text| text.contains("io_uring"));
        assert!(status.backend == "io_uring" || refused, "{status:?}");
    }
}

#[test]
fn tmpfs_keeps_every_promise_with_at_most_a_warning() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    for (number, uring) in [Choice::Auto, Choice::Never].into_iter().enumerate() {
        let disk = native(uring, true);
        check(&*disk, &dir.path().join(number.to_string()));
        let status = disk.status();
        let warned = status
            .warnings
            .iter()
            .any(|text| text.contains("no direct I/O"));
        assert_eq!(status.direct, !warned, "{status:?}");
    }
}

#[test]
fn a_refused_ring_is_one_warning_and_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let options = NativeOptions::default();
    let disk = NativeDisk::with_probe(options, Some(Err(libc::EPERM)));
    check(&*disk, dir.path());
    let status = disk.status();
    assert_eq!(status.backend, "pread");
    let about_rings = status
        .warnings
        .iter()
        .filter(|text| text.contains("io_uring"));
    let about_rings = about_rings.collect::<Vec<_>>();
    assert_eq!(about_rings.len(), 1, "{status:?}");
    assert!(
        about_rings[0].contains("Operation not permitted"),
        "{status:?}"
    );
    // A durable write asked of the ring is made another way; that is not one more refusal.
    let others = status.warnings.len() - 1;
    let plain = native(Choice::Never, true);
    check(&*plain, &dir.path().join("plain"));
    assert_eq!(others, plain.status().warnings.len(), "{status:?}");
    assert!(
        !plain
            .status()
            .warnings
            .iter()
            .any(|text| text.contains("durable writes")),
        "{:?}",
        plain.status()
    );
}

#[cfg(target_os = "linux")]
mod rings;

#[cfg(feature = "sim")]
#[test]
fn the_simulated_disk_keeps_every_promise() {
    use crate::sim::{Image, SimDisk, SimOptions};
    let dir = Path::new("dir");
    let disk = SimDisk::new(SimOptions::new(Image::with_dir(dir)));
    check(&*disk, dir);
    assert_eq!(disk.violations(), Vec::<String>::new());
}

#[test]
fn a_pipe_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for mode in [OpenMode::Read, OpenMode::Write] {
        let refused = native(Choice::Never, true).open(&pipe, mode).unwrap_err();
        assert_eq!((refused.kind, refused.errno), (IoKind::Open, libc::EINVAL));
    }
}
