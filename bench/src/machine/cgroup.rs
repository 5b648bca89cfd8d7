//! What the control groups of this process limit, in the words of version 2 whichever version is mounted.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mount, System};

/// Limits; absent where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Cgroup {
    /// Microseconds of processor time in each period, and the period: `200000 100000` is two cores.
    pub(crate) cpu_max: Option<String>,
    /// Bytes of memory.
    pub(crate) memory_max: Option<String>,
    /// Bytes and operations a second of devices, `major:minor rbps=... wbps=...`.
    pub(crate) io_max: Option<String>,
    /// Processors that may be used.
    pub(crate) cpus: Option<String>,
}

/// A limit of version 1 that is none: the largest multiple of a page.
const MEMORY_UNLIMITED_V1: u64 = i64::MAX as u64 / 4096 * 4096;

impl Cgroup {
    /// GiB of memory that may be used; absent without a limit.
    pub(crate) fn memory_gib(&self) -> Option<f64> {
        let bytes: u64 = self.memory_max.as_deref()?.parse().ok()?;
        Some(bytes as f64 / f64::from(1 << 30))
    }

    /// Reads the groups of this process and those above them; `None` where there are no control groups.
    pub(crate) fn read(system: &System) -> Option<Self> {
        let groups = system.text("/proc/self/cgroup")?;
        let mounts = Mount::all(system);
        let mut found = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let two = controllers.is_empty();
            let fits = |mount: &&Mount| match two {
                true => mount.fs == "cgroup2",
                false => mount.fs == "cgroup" && controllers.split(',').all(|name| mount.has(name)),
            };
            let Some(mount) = mounts.iter().find(fits) else {
                continue;
            };
            for dir in upwards(mount, Path::new(path)) {
                let text = |name: &str| system.text(dir.join(name).to_str()?);
                let found_here = if two {
                    Self::two(&text)
                } else {
                    Self::one(&text)
                };
                found.fill(found_here);
            }
        }
        Some(found)
    }

    /// A group of version 2.
    fn two(text: &dyn Fn(&str) -> Option<String>) -> Self {
        let limit =
            |name: &str| text(name).filter(|limit| !limit.is_empty() && !limit.starts_with("max"));
        Self {
            cpu_max: limit("cpu.max"),
            memory_max: limit("memory.max"),
            io_max: limit("io.max").map(|lines| lines.lines().collect::<Vec<_>>().join("; ")),
            cpus: limit("cpuset.cpus.effective"),
        }
    }

    /// A group of version 1, whose controllers have trees of their own.
    fn one(text: &dyn Fn(&str) -> Option<String>) -> Self {
        let quota = text("cpu.cfs_quota_us").filter(|quota| quota != "-1");
        let period = text("cpu.cfs_period_us");
        let memory = text("memory.limit_in_bytes").and_then(|bytes| bytes.parse::<u64>().ok());
        let throttles = [
            ("rbps", "blkio.throttle.read_bps_device"),
            ("wbps", "blkio.throttle.write_bps_device"),
            ("riops", "blkio.throttle.read_iops_device"),
            ("wiops", "blkio.throttle.write_iops_device"),
        ];
        let io: Vec<String> = throttles
            .iter()
            .filter_map(|(word, file)| {
                let text = text(file)?;
                let one = |line: &str| Some(line.replacen(' ', &format!(" {word}="), 1));
                let lines: Vec<String> = text.lines().filter_map(one).collect();
                (!lines.is_empty()).then(|| lines.join("; "))
            })
            .collect();
        Self {
            cpu_max: quota.map(|quota| format!("{quota} {}", period.unwrap_or_default())),
            memory_max: memory
                .filter(|bytes| *bytes < MEMORY_UNLIMITED_V1)
                .map(|bytes| bytes.to_string()),
            io_max: (!io.is_empty()).then(|| io.join("; ")),
            cpus: text("cpuset.effective_cpus")
                .or_else(|| text("cpuset.cpus"))
                .filter(|cpus| !cpus.is_empty()),
        }
    }

    /// Takes what is not known yet: the group that is nearest to the process says it first.
    fn fill(&mut self, other: Self) {
        let both = [
            (&mut self.cpu_max, other.cpu_max),
            (&mut self.memory_max, other.memory_max),
            (&mut self.io_max, other.io_max),
            (&mut self.cpus, other.cpus),
        ];
        for (mine, theirs) in both {
            *mine = mine.take().or(theirs);
        }
    }

    /// Cores that `cpu_max` comes to.
    pub(crate) fn cores(&self) -> Option<f64> {
        let (quota, period) = self.cpu_max.as_deref()?.split_once(' ')?;
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
        (period > 0.0).then(|| quota / period)
    }
}

/// The group's directory and those above it, as far as the mount shows them.
fn upwards(mount: &Mount, group: &Path) -> Vec<PathBuf> {
    // In a container the mount's root may be below the group that the process is told.
    let inside = group.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let leaf = mount.at.join(inside);
    let below = |dir: &&Path| dir.starts_with(&mount.at);
    leaf.ancestors()
        .take_while(below)
        .map(Path::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let system = System::at(dir.path());
        (dir, system)
    }

    #[test]
    fn limits_of_version_2_come_from_the_group_or_one_above_it() {
        let (_dir, system) = system(&[
            ("proc/self/cgroup", "0::/job/step\n"),
            (
                "proc/self/mountinfo",
                "1 0 0:1 / /cg rw - cgroup2 cgroup2 rw\n",
            ),
            ("cg/job/step/cpu.max", "max 100000\n"),
            ("cg/job/cpu.max", "150000 100000\n"),
            ("cg/job/step/memory.max", "1073741824\n"),
            (
                "cg/job/step/io.max",
                "254:0 rbps=max wbps=1048576 riops=max wiops=max\n",
            ),
        ]);
        let found = Cgroup::read(&system).unwrap();
        assert!(
            found
                .cores()
                .is_some_and(|cores| (cores - 1.5).abs() < 1e-9)
        );
        assert_eq!(found.memory_max.as_deref(), Some("1073741824"));
        assert!(found.io_max.unwrap().contains("wbps=1048576"));
        assert_eq!(found.cpus, None);
    }

    #[test]
    fn limits_of_version_1_are_said_in_the_same_words() {
        let (_dir, system) = system(&[
            (
                "proc/self/cgroup",
                "3:memory:/a\n2:cpu,cpuacct:/a\n1:blkio:/\n0::/\n",
            ),
            (
                "proc/self/mountinfo",
                "1 0 0:1 / /m rw - cgroup cgroup rw,memory\n\
                 2 0 0:2 /a /c rw - cgroup cgroup rw,cpu,cpuacct\n\
                 3 0 0:3 / /b rw - cgroup cgroup rw,blkio\n",
            ),
            ("m/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("c/cpu.cfs_quota_us", "50000\n"),
            ("c/cpu.cfs_period_us", "100000\n"),
            ("b/blkio.throttle.write_bps_device", "254:0 1048576\n"),
        ]);
        let found = Cgroup::read(&system).unwrap();
        assert_eq!(found.cpu_max.as_deref(), Some("50000 100000"));
        assert_eq!(found.memory_max, None);
        assert_eq!(found.io_max.as_deref(), Some("254:0 wbps=1048576"));
    }
}
