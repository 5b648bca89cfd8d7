//! All files of a simulated disk at a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::trace::{FileId, NameOp};

/// Directories, names and contents. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Paths, these and the next, are compared as bytes: whoever uses a disk spells each of them one way.
    dirs: BTreeSet<Arc<OsStr>>,
    names: BTreeMap<Arc<OsStr>, FileId>,
    files: BTreeMap<FileId, Arc<Content>>,
}

impl Image {
    /// A disk with nothing on it but the directory `dir`.
    #[must_use]
    pub fn with_dir(dir: &Path) -> Self {
        let mut image = Self::default();
        image.rename_in(&NameOp::MakeDir(dir.to_owned()));
        image
    }

    pub(super) fn has_dir(&self, path: &Path) -> bool {
        path.parent().is_none()
            || path.as_os_str().is_empty()
            || self.dirs.contains(path.as_os_str())
    }

    pub(super) fn file_of(&self, path: &Path) -> Option<FileId> {
        self.names.get(path.as_os_str()).copied()
    }

    pub(super) fn name_of(&self, file: FileId) -> Option<&Path> {
        let mut names = self.names.iter();
        let found = names.find(|(_, other)| **other == file);
        found.map(|(path, _)| Path::new(&**path))
    }

    pub(super) fn content(&self, file: FileId) -> Option<&Content> {
        self.files.get(&file).map(Arc::as_ref)
    }

    pub(super) fn content_mut(&mut self, file: FileId) -> &mut Content {
        Arc::make_mut(self.files.entry(file).or_default())
    }

    /// Above every id in use.
    pub(super) fn next_file(&self) -> FileId {
        let last = self.files.last_key_value().map(|(id, _)| id.0);
        FileId(last.map_or(0, |last| last + 1))
    }

    /// Names of the entries of a directory, sorted.
    pub(super) fn list(&self, path: &Path) -> Vec<String> {
        let dir = path.as_os_str().as_encoded_bytes();
        let inside = |entry: &Arc<OsStr>| {
            let name = entry.as_encoded_bytes().strip_prefix(dir)?;
            let name = name.strip_prefix(b"/")?;
            let is_direct = !name.contains(&b'/');
            is_direct.then(|| String::from_utf8_lossy(name).into_owned())
        };
        let entries = self.names.keys().chain(&self.dirs);
        let mut entries: Vec<String> = entries.filter_map(inside).collect();
        entries.sort_unstable();
        entries
    }

    /// Performs a change of names; what it needs and does not find is passed over, as a power cut may have lost it.
    pub(super) fn rename_in(&mut self, op: &NameOp) {
        match op {
            NameOp::MakeDir(path) => {
                for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
                    self.dirs.insert(dir.as_os_str().into());
                }
            }
            NameOp::Create(path, file) => {
                self.names.insert(path.as_os_str().into(), *file);
                self.files.entry(*file).or_default();
            }
            NameOp::Rename(from, to, file) => {
                if self.file_of(from) == Some(*file) {
                    self.names.remove(from.as_os_str());
                }
                self.names.insert(to.as_os_str().into(), *file);
            }
            NameOp::Remove(path) => drop(self.names.remove(path.as_os_str())),
        }
    }

    /// Bytes of all files with names.
    pub(super) fn allocated(&self) -> u64 {
        let named = self.names.values().filter_map(|file| self.content(*file));
        named.map(Content::allocated).sum()
    }

    /// Forgets files that have no name.
    pub(super) fn drop_nameless(&mut self) {
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
    }

    /// Every file's path and length, in order of paths.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.names.iter().map(|(path, file)| {
            let len = self.content(*file).map_or(0, |content| content.len);
            (Path::new(&**path), len)
        })
    }

    /// The bytes of a file.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.content(self.file_of(path)?)?;
        let mut bytes = vec![0; usize::try_from(content.len).ok()?];
        content.read(0, &mut bytes);
        Some(bytes)
    }

    /// Damages a file at rest: changes the bits of the byte at `offset` that are set in `bits`. False if nothing was
    /// ever written there.
    pub fn flip(&mut self, path: &Path, offset: u64, bits: u8) -> bool {
        self.file_of(path)
            .is_some_and(|file| self.content_mut(file).flip(offset, bits))
    }

    /// Puts `data`, whole blocks, at `offset` of a file, as something outside the database might.
    pub fn overwrite(&mut self, path: &Path, offset: u64, data: &[u8]) -> bool {
        let Some(file) = self.file_of(path) else {
            return false;
        };
        self.content_mut(file)
            .put(offset, &Arc::from(data), 0, data.len());
        true
    }

    /// Cuts or extends a file, as something outside the database might.
    pub fn resize(&mut self, path: &Path, len: u64) -> bool {
        let Some(file) = self.file_of(path) else {
            return false;
        };
        self.content_mut(file).set_len(len);
        true
    }

    /// Removes a file, as something outside the database might.
    pub fn remove(&mut self, path: &Path) -> bool {
        let known = self.names.remove(path.as_os_str()).is_some();
        self.drop_nameless();
        known
    }

    /// The first file that differs between the two, by its path.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<PathBuf> {
        let paths: BTreeSet<&Arc<OsStr>> = self.names.keys().chain(other.names.keys()).collect();
        let file = |image: &'_ Self, path: &Arc<OsStr>| -> Option<Arc<Content>> {
            image.files.get(image.names.get(path)?).map(Arc::clone)
        };
        paths
            .into_iter()
            .find(|path| match (file(self, path), file(other, path)) {
                (Some(a), Some(b)) => !Arc::ptr_eq(&a, &b) && !a.same(&b),
                _ => true,
            })
            .map(PathBuf::from)
    }

    /// A number that two images share if they hold the same, and hardly ever otherwise.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = super::Fnv::default();
        let mut add = |bytes: &[u8]| hash.words(bytes);
        for (path, file) in &self.names {
            add(path.as_encoded_bytes());
            if let Some(content) = self.content(*file) {
                content.hash_into(&mut add);
            }
        }
        hash.0
    }
}
