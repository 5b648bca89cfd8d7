//! The mount that holds a directory, and how it is mounted.

use std::path::{Path, PathBuf};

use super::System;

/// One mount.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    /// What is mounted: a device, or a word.
    pub(crate) source: String,
    /// Type of the file system.
    pub(crate) fs: String,
    /// Options of the mount and of its file system, comma-separated.
    pub(crate) options: String,
    /// Where it is mounted.
    pub(crate) at: PathBuf,
    /// Which part of the file system is mounted there.
    pub(crate) root: PathBuf,
}

/// `\040` and the like, as the kernel writes blanks in paths.
fn unescaped(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

impl Mount {
    /// Every mount that the process sees, oldest first.
    pub(crate) fn all(system: &System) -> Vec<Self> {
        let text = system.text("/proc/self/mountinfo").unwrap_or_default();
        text.lines().filter_map(Self::parse).collect()
    }

    /// `36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/vda rw,errors=continue`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, fs) = line.split_once(" - ")?;
        let mut mount = mount.split_whitespace().skip(3);
        let (root, at, options) = (mount.next()?, mount.next()?, mount.next()?);
        let mut words = fs.split_whitespace();
        let (fs, source) = (words.next()?, words.next()?);
        let super_options = words.next().unwrap_or_default();
        let known: Vec<&str> = options.split(',').collect();
        let more = super_options
            .split(',')
            .filter(|option| !option.is_empty() && !known.contains(option));
        let all: Vec<&str> = known.iter().copied().chain(more).collect();
        Some(Self {
            source: unescaped(source),
            fs: fs.to_owned(),
            options: all.join(","),
            at: PathBuf::from(unescaped(at)),
            root: PathBuf::from(unescaped(root)),
        })
    }

    /// The mount that holds `path`: the longest mount point that is a prefix of it, the newest of those on one point.
    pub(crate) fn of(system: &System, path: &Path) -> Option<Self> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let holds = |mount: &Self| path.starts_with(&mount.at);
        let all = Self::all(system).into_iter().filter(holds);
        all.max_by_key(|mount| mount.at.components().count())
    }

    /// Whether it is mounted with `option`.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_newest_mount_point_holds_a_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(
            dir.path().join("proc/self/mountinfo"),
            "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro\n\
             2 1 8:2 / /no\\040such/place rw - xfs /dev/sdb rw\n\
             3 1 8:3 /sub /no\\040such/place rw,noatime - xfs /dev/sdc rw,nobarrier\n",
        )
        .unwrap();
        let system = System::at(dir.path());
        let mount = Mount::of(&system, Path::new("/no such/place/db")).unwrap();
        assert_eq!(
            (mount.source.as_str(), mount.fs.as_str()),
            ("/dev/sdc", "xfs")
        );
        assert!(mount.has("noatime") && mount.has("nobarrier") && !mount.has("barrier"));
        let root = Mount::of(&system, Path::new("/elsewhere")).unwrap();
        assert_eq!(root.options, "rw,relatime,errors=remount-ro");
    }
}
