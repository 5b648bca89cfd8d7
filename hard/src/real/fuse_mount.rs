//! A [`Volume`] mounted through FUSE: the kernel's own paths, with a server that misbehaves.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::fault_fs::{Kind, Volume};
use super::place::{self, NoPlace};
use crate::{During, Failure};

/// A volume that the kernel and its holder share.
pub type Shared = Arc<Mutex<Volume>>;

/// The volume, alone.
pub fn lock(volume: &Shared) -> MutexGuard<'_, Volume> {
    volume.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mounted volume.
#[derive(Debug)]
pub struct Mounted<'p> {
    path: &'p Path,
    session: Option<BackgroundSession>,
}

impl<'p> Mounted<'p> {
    /// Mounts it.
    ///
    /// # Errors
    /// [`NoPlace::Missing`] where there is no FUSE, or no right to it.
    pub fn new(volume: &Shared, path: &'p Path) -> Result<Self, NoPlace> {
        if !Path::new("/dev/fuse").exists() {
            return Err(NoPlace::Missing("there is no /dev/fuse".to_owned()));
        }
        let server = Server(Arc::clone(volume));
        let session = fuser::spawn_mount(server, path, &Config::default());
        let session = session.map_err(|error| {
            use std::io::ErrorKind::{NotFound, PermissionDenied};
            if [NotFound, PermissionDenied].contains(&error.kind()) {
                NoPlace::Missing(format!("FUSE is refused: {error}"))
            } else {
                NoPlace::Failed(Failure::Broken(format!("mount through FUSE: {error}")))
            }
        })?;
        Ok(Self {
            path,
            session: Some(session),
        })
    }

    /// Unmounts it; what the kernel remembered of it is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn close(mut self) -> Result<(), Failure> {
        place::unmount(self.path).during("unmount a FUSE volume")?;
        match self.session.take() {
            Some(session) => session.join().during("end a FUSE session"),
            None => Ok(()),
        }
    }
}

/// Nothing is remembered: every question is asked anew.
const NOT_KEPT: Duration = Duration::ZERO;

struct Server(Shared);

fn attributes(number: u64, kind: Kind) -> FileAttr {
    let (size, file_type, perm) = match kind {
        Kind::File(size) => (size, FileType::RegularFile, 0o644),
        Kind::Directory => (0, FileType::Directory, 0o755),
    };
    let then = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind: file_type,
        perm,
        nlink: 1,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn text(name: &OsStr) -> &str {
    name.to_str().unwrap_or_default()
}

fn empty(done: Result<(), i32>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(Errno::from_i32(errno)),
    }
}

impl Server {
    fn attributes(&self, number: u64) -> Option<FileAttr> {
        let kind = lock(&self.0).kind(number)?;
        Some(attributes(number, kind))
    }

    fn entry(&self, found: Result<u64, i32>, reply: ReplyEntry) {
        let found = found.and_then(|number| self.attributes(number).ok_or(libc::ENOENT));
        match found {
            Ok(attributes) => reply.entry(&NOT_KEPT, &attributes, Generation(0)),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = lock(&self.0).find(parent.0, text(name));
        self.entry(found.ok_or(libc::ENOENT), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Some(attributes) => reply.attr(&NOT_KEPT, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| lock(&self.0).resize(ino.0, size));
        match resized {
            Ok(()) => self.getattr(request, ino, handle, reply),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = lock(&self.0).make(parent.0, text(name), true);
        self.entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(lock(&self.0).unlink(parent.0, text(name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != new_parent {
            return reply.error(Errno::EXDEV);
        }
        let renamed = lock(&self.0).rename(parent.0, text(name), text(new_name));
        empty(renamed, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = lock(&self.0).make(parent.0, text(name), false);
        match made.and_then(|number| self.attributes(number).ok_or(libc::ENOENT)) {
            Ok(attributes) => reply.created(
                &NOT_KEPT,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = lock(&self.0).read(ino.0, offset, size as usize);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = lock(&self.0).write(ino.0, offset, data, flags.0);
        match written.and_then(|len| u32::try_from(len).map_err(|_| libc::EFBIG)) {
            Ok(len) => reply.written(len),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(lock(&self.0).sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(lock(&self.0).sync(ino.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        empty(lock(&self.0).punch(ino.0, offset, length), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = lock(&self.0).list(ino.0);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, number)) in (1..).zip(listed).skip(skipped) {
            let kind = match self.attributes(number) {
                Some(attributes) => attributes.kind,
                None => continue,
            };
            if reply.add(INodeNo(number), at, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
