//! The file system's side: the space that directories take, bytes written, caches emptied.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise, syncfs};

use crate::error::{Error, Result};
use crate::machine::Machine;

/// Every file below `dir`.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::file(dir))? {
        let path = entry.map_err(Error::file(dir))?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Bytes of storage that the files below `dir` occupy. A file that goes away meanwhile counts as nothing.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut found = Vec::new();
    files(dir, &mut found)?;
    let sizes = found.iter().filter_map(|path| std::fs::metadata(path).ok());
    Ok(sizes.map(|meta| meta.blocks() * 512).sum())
}

/// Waits until the file system has written what it holds back, so that nobody else is measured while it does.
pub(crate) fn write_back(dir: &Path) -> Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a handle for syncfs, no file of the engine"
    )]
    let handle = File::open(dir).map_err(Error::file(dir))?;
    syncfs(&handle).map_err(|error| Error::file(dir)(error.into()))
}

/// Asks the kernel to forget what it has cached of the files below `dir`. They must be closed and written back.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    write_back(dir)?;
    let mut found = Vec::new();
    files(dir, &mut found)?;
    for path in &found {
        #[expect(
            clippy::disallowed_methods,
            reason = "a handle for fadvise, nothing is read"
        )]
        let file = File::open(path).map_err(Error::file(path))?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .map_err(|error| Error::file(path)(error.into()))?;
    }
    Ok(())
}

/// Bytes that the device below `dir` was given so far, by whomever; `None` where the kernel does not say.
///
/// What `/proc` says of one process counts the cached pages it has touched, whole folios of them, not what is written.
pub(crate) fn device_written_bytes(dir: &Path) -> Option<u64> {
    let device = Machine::read(dir).device?;
    let stat = std::fs::read_to_string(format!("/sys/block/{device}/stat")).ok()?;
    // Sectors of 512 bytes, whatever the device's are.
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_space_of_all_files_below_counts_and_can_be_forgotten() {
        let parent = std::env::temp_dir().join(format!("nsrivals-scratch-{}", std::process::id()));
        let scratch = Scratch::create(&parent).unwrap();
        let path = scratch.path().to_owned();
        std::fs::create_dir(path.join("a")).unwrap();
        std::fs::write(path.join("a/file"), vec![1; 100_000]).unwrap();
        forget(&path).unwrap();
        assert!(disk_bytes(&path).unwrap() >= 100_000);
        drop(scratch);
        assert!(!parent.exists());
    }
}
