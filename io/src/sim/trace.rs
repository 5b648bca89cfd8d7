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
    Rename(PathBuf, PathBuf, FileId),
    /// The file loses its name.
    Remove(PathBuf),
}

impl NameOp {
    /// The directory whose sync keeps it.
    pub(super) fn dir(&self) -> Option<&std::path::Path> {
        match self {
            Self::MakeDir(path)
            | Self::Create(path, _)
            | Self::Rename(_, path, _)
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
    /// A sync has failed: some of what it covered is lost for good, the rest is kept.
    SyncFailed {
        /// Which sync.
        id: u64,
        /// What is lost, by its place among all that the sync covered.
        lost: Vec<usize>,
    },
    /// A fault is about to happen: its place in the atlas.
    Fault(usize),
    /// The caller's own: what it means is the caller's to know.
    Mark(u64),
}

/// Everything that happened, from an image on.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// In order.
    pub events: Vec<Event>,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Write {
            id,
            file,
            offset,
            data,
        } = self
        else {
            return write!(f, "{self:?}");
        };
        let (file, bytes) = (file.0, data.len());
        write!(f, "Write {id} to {file} at {offset}, {bytes} bytes")
    }
}

impl Trace {
    /// A number that two traces share if the same happened, byte for byte, and hardly ever otherwise.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = super::Fnv::default();
        for event in &self.events {
            let Event::Write {
                id,
                file,
                offset,
                data,
            } = event
            else {
                hash.words(format!("{event:?}").as_bytes());
                continue;
            };
            hash.word(*id);
            hash.word(u64::from(file.0));
            hash.word(*offset);
            hash.words(data);
        }
        hash.0
    }
}
