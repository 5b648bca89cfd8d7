//! What happened to a simulated disk, in order.

use std::path::PathBuf;
use std::sync::Arc;

/// Names a file of a simulated disk, whatever it is called at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) u32);

/// A change of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOp {
    /// A directory, and its missing parents.
    MakeDir(PathBuf),
    /// A new file.
    Create(PathBuf, FileId),
    /// The file gets another name, whose file, if any, loses it.
    Rename(PathBuf, PathBuf),
    /// The file loses its name.
    Remove(PathBuf),
}

impl NameOp {
    /// The directory whose sync keeps it.
    pub(super) fn dir(&self) -> Option<&std::path::Path> {
        match self {
            Self::MakeDir(path)
            | Self::Create(path, _)
            | Self::Rename(_, path)
            | Self::Remove(path) => path.parent(),
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Names changed.
    Names(NameOp),
    /// A directory's changes so far were kept.
    DirSynced(PathBuf),
    /// A file was cut or extended.
    Resized {
        /// Which.
        file: FileId,
        /// To how many bytes.
        len: u64,
    },
    /// A range of a file was given back.
    Punched {
        /// Of which file.
        file: FileId,
        /// From where on.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A write is on its way.
    Write {
        /// Which write.
        id: u64,
        /// To which file.
        file: FileId,
        /// Where.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// A write has ended: syncs submitted from now on cover it.
    Done {
        /// Which write.
        id: u64,
    },
    /// A write has vanished: nothing of it is anywhere.
    Gone {
        /// Which write.
        id: u64,
    },
    /// A sync was submitted. It covers the writes to the file that are done by now.
    SyncBegun {
        /// Which sync.
        id: u64,
        /// Of which file.
        file: FileId,
        /// Only this write, as writes with `RWF_DSYNC` are.
        only: Option<u64>,
    },
    /// A sync has ended: what it covers is kept.
    Synced {
        /// Which sync.
        id: u64,
    },
    /// A sync has failed: of what it covered, some is kept and the rest is lost for good, as `kept` says by dice.
    SyncFailed {
        /// Which sync.
        id: u64,
        /// Chances in 256 of each write it covered to be kept.
        kept: u8,
    },
    /// The caller's own: what it means is the caller's to know.
    Mark(u64),
}

/// Everything that happened, from an image on.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// In order.
    pub events: Vec<Event>,
}
