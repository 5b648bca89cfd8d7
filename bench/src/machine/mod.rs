//! The machine a result belongs to, read from `/proc` and `/sys`. What cannot be read is `None`, never a guess.
//!
//! Everything is read below a root, so that tests can show what is said of machines that are not at hand.

mod block;
mod cgroup;
#[cfg(test)]
mod commit;
mod mount;
mod ring;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use block::Queue;
pub(crate) use cgroup::Cgroup;
pub(crate) use mount::Mount;
pub(crate) use ring::Ring;

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
    /// The disks that the device is made of; itself if it is one.
    #[serde(default)]
    pub(crate) disks: Vec<String>,
    /// Whether the device says that it rotates; virtual disks often do.
    pub(crate) rotational: Option<bool>,
    /// Whether the device has a volatile write cache, so that a flush costs something.
    pub(crate) write_cache: Option<String>,
    /// Runnable tasks over the last minute when the run started.
    pub(crate) load_average: Option<f64>,
    /// Since schema 3: what the kernel says of the device's queue.
    #[serde(default)]
    pub(crate) queue: Option<Queue>,
    /// Since schema 3: options of the mount, and those of its file system.
    #[serde(default)]
    pub(crate) mount_options: Option<String>,
    /// Since schema 3: files of the scratch directory can be opened past the page cache.
    #[serde(default)]
    pub(crate) direct_io: Option<bool>,
    /// Since schema 3: how the processor's clock is chosen, where this system chooses it.
    #[serde(default)]
    pub(crate) governor: Option<String>,
    /// Since schema 3: when memory comes in huge pages: `always`, `madvise` or `never`.
    #[serde(default)]
    pub(crate) transparent_huge_pages: Option<String>,
    /// Since schema 3: bytes that the process may lock in memory, or `unlimited`.
    #[serde(default)]
    pub(crate) memlock: Option<String>,
    /// Since schema 3: what the kernel grants of `io_uring`.
    #[serde(default)]
    pub(crate) io_uring: Option<Ring>,
    /// Since schema 3: what the process's control groups limit.
    #[serde(default)]
    pub(crate) cgroup: Option<Cgroup>,
    /// Since schema 3: runs under a hypervisor.
    #[serde(default)]
    pub(crate) virtual_machine: Option<bool>,
    /// Since schema 3: the processor's own counters can be read.
    #[serde(default)]
    pub(crate) hardware_counters: Option<bool>,
}

/// A place that looks like the root of a file system: `/`, or a test's.
#[derive(Debug, Clone)]
pub(crate) struct System {
    root: PathBuf,
}

impl System {
    /// This machine.
    pub(crate) fn here() -> Self {
        Self::at(Path::new("/"))
    }

    /// What lies below `root`.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A path of this system as one that can be opened.
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A small file's text without the blanks around it.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The value of `key` in a file of `key : value` lines.
    pub(crate) fn field(&self, path: &str, key: &str) -> Option<String> {
        self.text(path)?.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    }

    /// Bytes of a line of `/proc/meminfo`.
    pub(crate) fn memory(&self, key: &str) -> Option<u64> {
        Some(kilobytes(&self.field("/proc/meminfo", key)?)? * 1024)
    }

    /// The word in brackets, as the kernel marks the one of several that holds: `always [madvise] never`.
    pub(crate) fn chosen(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    }

    /// How much memory may be locked, in bytes or `unlimited`.
    fn memlock(&self) -> Option<String> {
        let limits = self.text("/proc/self/limits")?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    /// The governor of the first processor; they are hardly ever set apart.
    fn governor(&self) -> Option<String> {
        self.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    }

    /// Whether the processor says that it is a guest's.
    fn is_virtual(&self) -> Option<bool> {
        let flags = self.field("/proc/cpuinfo", "flags")?;
        Some(flags.split_whitespace().any(|flag| flag == "hypervisor"))
    }
}

/// Kilobytes out of "123 kB".
fn kilobytes(value: &str) -> Option<u64> {
    value.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory the process has resident: now, and at most so far.
pub(crate) fn resident_bytes() -> Option<(u64, u64)> {
    let of = |key| {
        let value = System::here().field("/proc/self/status", key)?;
        kilobytes(&value)
    };
    Some((of("VmRSS")? * 1024, of("VmHWM")? * 1024))
}

/// Whether files in `dir` can be opened with `O_DIRECT`, tried with a file that never gets a name.
fn direct_io(dir: &Path) -> Option<bool> {
    let open = |flags| {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(libc::O_TMPFILE | flags).open(dir)
    };
    open(0).ok()?;
    match open(libc::O_DIRECT) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Some(false),
        Err(_) => None,
    }
}

/// Bytes that an ordinary user can still write in `dir`.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

impl Machine {
    /// Reads this machine's facts; `scratch` tells the file system and the device.
    pub(crate) fn read(scratch: &Path) -> Self {
        Self {
            direct_io: direct_io(scratch),
            io_uring: Some(Ring::probe(&System::here())),
            hardware_counters: Some(crate::counters::hardware_can_be_read()),
            core_count: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            ..Self::of(&System::here(), scratch)
        }
    }

    /// What the files below a root say, without what only trying tells.
    pub(crate) fn of(system: &System, scratch: &Path) -> Self {
        let mount = Mount::of(system, scratch);
        let device = mount
            .as_ref()
            .and_then(|mount| block::disk_of(system, &mount.source));
        let queue = device.as_deref().map(|disk| Queue::read(system, disk));
        let disks = (device.iter()).flat_map(|device| block::disks_below(system, device));
        let disks = disks.collect();
        Self {
            cpu_model: system.field("/proc/cpuinfo", "model name"),
            core_count: system.text("/proc/cpuinfo").map_or(1, |text| {
                let found = text.lines().filter(|line| line.starts_with("processor"));
                found.count().max(1)
            }),
            ram_gb: system
                .memory("MemTotal")
                .map(|bytes| (bytes as f64 / 1024.0 / 1024.0 / 102.4).round() / 10.0),
            os: format!(
                "{} {}",
                std::env::consts::OS,
                system
                    .text("/proc/sys/kernel/osrelease")
                    .unwrap_or_default()
            ),
            fs: mount.as_ref().map(|mount| mount.fs.clone()),
            rotational: queue.as_ref().and_then(|queue| queue.rotational),
            write_cache: queue.as_ref().and_then(|queue| queue.write_cache.clone()),
            load_average: system
                .text("/proc/loadavg")
                .and_then(|line| line.split_whitespace().next()?.parse().ok()),
            mount_options: mount.map(|mount| mount.options),
            direct_io: None,
            governor: system.governor(),
            transparent_huge_pages: system.chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
            memlock: system.memlock(),
            io_uring: None,
            cgroup: Cgroup::read(system),
            virtual_machine: system.is_virtual(),
            hardware_counters: None,
            queue,
            disks,
            device,
        }
    }
}

/// The commit of the sources that this program was built from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Git {
    /// Full hash.
    pub(crate) sha: String,
    /// Branch, or `HEAD` when detached.
    pub(crate) branch: String,
    /// Tracked files that become part of the program differed from the commit.
    pub(crate) dirty: bool,
}

impl Git {
    /// What the build script found; `None` for sources that were not in their repository.
    pub(crate) fn of_this_program() -> Option<Self> {
        Some(Self {
            sha: option_env!("NSBENCH_SHA")?.to_owned(),
            branch: option_env!("NSBENCH_BRANCH")?.to_owned(),
            dirty: option_env!("NSBENCH_DIRTY")? != "false",
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
        assert!(machine.memlock.is_some() && machine.io_uring.is_some());
        assert!(resident_bytes().is_none_or(|(now, max)| now > 0 && now <= max));
    }

    #[test]
    fn this_program_names_a_commit_where_its_sources_are_in_their_repository() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let Some(commit) = commit::Commit::of(package) else {
            return;
        };
        let ours = Git::of_this_program().unwrap();
        // Which one it is may have changed since this was built.
        assert!(ours.sha.len() == commit.sha.len() && !ours.branch.is_empty());
        let told = commit.for_cargo();
        assert!(told.contains(&format!("cargo:rustc-env=NSBENCH_SHA={}", commit.sha)));
        let watched = |wanted: &str| {
            let mut lines = told.iter();
            lines.any(|line| line.starts_with("cargo:rerun") && line.ends_with(wanted))
        };
        assert!(watched("/bench/src") && watched("/profiles") && watched("HEAD"));
    }

    #[test]
    fn sources_that_only_lie_in_a_repository_are_of_no_commit_of_it() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(commit::Commit::of(Path::new("/")).is_none());
        assert!(commit::Commit::of(&package.join("src")).is_none());
    }
}
