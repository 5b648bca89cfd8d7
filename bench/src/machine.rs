//! The machine a result belongs to, read from `/proc` and `/sys`. What cannot be read is `None`, never a guess.

use std::path::Path;
use std::process::Command;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The facts a figure depends on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Machine {
    /// As the processor names itself.
    pub(crate) cpu_model: Option<String>,
    /// Threads the scheduler gives us.
    pub(crate) core_count: usize,
    /// Memory, rounded to one decimal.
    pub(crate) ram_gb: Option<f64>,
    /// Kernel name and release.
    pub(crate) os: String,
    /// File system of the scratch directory.
    pub(crate) fs: Option<String>,
    /// Block device below it, by its kernel name.
    pub(crate) device: Option<String>,
    /// Whether the device says that it rotates; virtual disks often do.
    pub(crate) rotational: Option<bool>,
    /// Whether the device has a volatile write cache, so that a flush costs something.
    pub(crate) write_cache: Option<String>,
    /// Runnable tasks over the last minute when the run started.
    pub(crate) load_average: Option<f64>,
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The value of `key` in a file of `key : value` lines.
fn field(path: &str, key: &str) -> Option<String> {
    text(path)?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// Kilobytes out of "123 kB".
fn kilobytes(value: &str) -> Option<u64> {
    value.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory the process has resident: now, and at most so far.
pub(crate) fn resident_bytes() -> Option<(u64, u64)> {
    let of = |key| {
        field("/proc/self/status", key)
            .as_deref()
            .and_then(kilobytes)
    };
    Some((of("VmRSS")? * 1024, of("VmHWM")? * 1024))
}

impl Machine {
    /// Reads the facts; `scratch` tells the file system and the device.
    pub(crate) fn read(scratch: &Path) -> Self {
        let (source, fs) = mount_of(scratch).unzip();
        let device = source.as_deref().and_then(disk_of);
        let queue = |name: &str| text(&format!("/sys/block/{}/queue/{name}", device.as_deref()?));
        Self {
            cpu_model: field("/proc/cpuinfo", "model name"),
            core_count: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            ram_gb: field("/proc/meminfo", "MemTotal")
                .as_deref()
                .and_then(kilobytes)
                .map(|kb| (kb as f64 / 1024.0 / 102.4).round() / 10.0),
            os: format!(
                "{} {}",
                std::env::consts::OS,
                text("/proc/sys/kernel/osrelease").unwrap_or_default()
            ),
            fs,
            rotational: queue("rotational").map(|flag| flag == "1"),
            write_cache: queue("write_cache"),
            load_average: text("/proc/loadavg")
                .and_then(|line| line.split_whitespace().next()?.parse().ok()),
            device,
        }
    }
}

/// Source and type of the mount that holds `path`: the longest mount point that is a prefix of it.
fn mount_of(path: &Path) -> Option<(String, String)> {
    let path = path.canonicalize().ok()?;
    let mounts = text("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (source, at, fs) = (words.next()?, words.next()?, words.next()?);
            path.starts_with(at)
                .then(|| (at.len(), source.to_owned(), fs.to_owned()))
        })
        .max_by_key(|(len, ..)| *len)
        .map(|(_, source, fs)| (source, fs))
}

/// The disk of a mount source: `/dev/nvme0n1p2` is on `nvme0n1`.
fn disk_of(source: &str) -> Option<String> {
    let device = Path::new(source).canonicalize().ok()?;
    let name = device.file_name()?.to_str()?.to_owned();
    if Path::new("/sys/block").join(&name).exists() {
        return Some(name);
    }
    let disk = Path::new("/sys/class/block")
        .join(&name)
        .canonicalize()
        .ok()?;
    let parent = disk.parent()?.file_name()?.to_str()?.to_owned();
    Path::new("/sys/block")
        .join(&parent)
        .exists()
        .then_some(parent)
}

/// The commit of the source tree the run was started in, if it is ours.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Git {
    /// Full hash.
    pub(crate) sha: String,
    /// Branch, or `HEAD` when detached.
    pub(crate) branch: String,
    /// Tracked files differ from the commit.
    pub(crate) dirty: bool,
}

impl Git {
    /// Asks git; `None` without git or outside of the repository.
    pub(crate) fn read() -> Option<Self> {
        let git = |args: &[&str]| {
            let output = Command::new("git").args(args).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim().to_owned())
        };
        let top = git(&["rev-parse", "--show-toplevel"])?;
        Path::new(&top)
            .join("bench/src/machine.rs")
            .exists()
            .then_some(())?;
        Some(Self {
            sha: git(&["rev-parse", "HEAD"])?,
            branch: git(&["rev-parse", "--abbrev-ref", "HEAD"])?,
            dirty: git(&["status", "--porcelain", "--untracked-files=no"])
                .is_some_and(|s| !s.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::read(Path::new("."));
        assert!(machine.core_count >= 1);
        assert!(resident_bytes().is_none_or(|(now, max)| now > 0 && now <= max));
    }
}
