//! The block device below the scratch directory, as its queue describes it.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;

/// What `/sys/block/<device>` says.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Queue {
    /// As the device names itself.
    pub(crate) model: Option<String>,
    /// It says that it rotates.
    pub(crate) rotational: Option<bool>,
    /// `write back`: acknowledged writes may be lost until a flush. `write through`: a flush has nothing to do.
    pub(crate) write_cache: Option<String>,
    /// A single write can be made durable without a flush of everything.
    pub(crate) fua: Option<bool>,
    /// The I/O scheduler in use.
    pub(crate) scheduler: Option<String>,
    /// It can be polled for completions.
    pub(crate) io_poll: Option<bool>,
    /// Requests that wait in the kernel before submitting blocks.
    pub(crate) nr_requests: Option<u64>,
    /// The largest request in KiB.
    pub(crate) max_sectors_kb: Option<u64>,
    /// Microseconds of read latency from which on the kernel holds writes back; 0 is never.
    pub(crate) wbt_lat_usec: Option<u64>,
    /// The largest write that is torn by nothing, in bytes; 0 is none.
    pub(crate) atomic_write_bytes: Option<u64>,
}

impl Queue {
    /// Reads what there is; a device of another kind says nothing.
    pub(crate) fn read(system: &System, disk: &str) -> Self {
        let text = |name: &str| system.text(&format!("/sys/block/{disk}/{name}"));
        let number = |name: &str| text(name)?.parse().ok();
        let flag = |name: &str| Some(text(name)? == "1");
        Self {
            model: text("device/model").filter(|model| !model.is_empty()),
            rotational: flag("queue/rotational"),
            write_cache: text("queue/write_cache"),
            fua: flag("queue/fua"),
            scheduler: {
                let path = format!("/sys/block/{disk}/queue/scheduler");
                // A device with one choice marks none.
                system.chosen(&path).or_else(|| system.text(&path))
            },
            io_poll: flag("queue/io_poll"),
            nr_requests: number("queue/nr_requests"),
            max_sectors_kb: number("queue/max_sectors_kb"),
            wbt_lat_usec: number("queue/wbt_lat_usec"),
            atomic_write_bytes: number("queue/atomic_write_unit_max_bytes"),
        }
    }
}

/// The disks that `device` is made of, whatever is mapped over them (LVM, encryption, RAID): itself if it is one.
pub(super) fn disks_below(system: &System, device: &str) -> Vec<String> {
    let slaves = system.path(&format!("/sys/block/{device}/slaves"));
    let mut below: Vec<String> = (std::fs::read_dir(slaves).into_iter().flatten().flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| disk_of(system, &format!("/dev/{name}")))
        .flat_map(|disk| disks_below(system, &disk))
        .collect();
    below.sort();
    below.dedup();
    match below.is_empty() {
        true => vec![device.to_owned()],
        false => below,
    }
}

/// The disk of a mount source: `/dev/nvme0n1p2` is on `nvme0n1`.
pub(super) fn disk_of(system: &System, source: &str) -> Option<String> {
    let device = system.path(source);
    let device = device.canonicalize().unwrap_or(device);
    let name = device.file_name()?.to_str()?.to_owned();
    let block = system.path("/sys/block");
    if block.join(&name).exists() {
        return Some(name);
    }
    let partition = system.path("/sys/class/block").join(&name);
    let disk = partition.canonicalize().ok()?;
    let parent = disk.parent()?.file_name()?.to_str()?.to_owned();
    Path::new(&block).join(&parent).exists().then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_volume_of_two_partitions_is_made_of_their_disks() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(dir.path().join(path)).unwrap();
        for disk in ["nvme0n1", "nvme1n1"] {
            let partition = format!("sys/block/{disk}/{disk}p1");
            make(&partition);
            make(&format!("sys/block/dm-0/slaves/{disk}p1"));
            make("sys/class/block");
            std::os::unix::fs::symlink(
                dir.path().join(partition),
                dir.path().join(format!("sys/class/block/{disk}p1")),
            )
            .unwrap();
        }
        make("sys/block/dm-1/slaves/dm-0");
        make("dev/mapper");
        std::fs::write(dir.path().join("dev/dm-1"), "").unwrap();
        std::os::unix::fs::symlink(
            dir.path().join("dev/dm-1"),
            dir.path().join("dev/mapper/data"),
        )
        .unwrap();
        let system = System::at(dir.path());
        let device = disk_of(&system, "/dev/mapper/data").unwrap();
        assert_eq!(device, "dm-1");
        assert_eq!(disks_below(&system, &device), ["nvme0n1", "nvme1n1"]);
        assert_eq!(disks_below(&system, "nvme0n1"), ["nvme0n1"]);
    }
}
