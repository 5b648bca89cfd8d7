//! File system, mount options and block device.

use super::facts::Facts;
use super::{Costs, Finding};
use crate::units::{Unit, show};

/// Where the kernel explains `/sys/block`.
const SYSFS_BLOCK: &str = "kernel Documentation/ABI/stable/sysfs-block";
/// Free space below which a full run does not fit.
const FREE_BYTES_MIN: u64 = 4 << 30;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    file_system(facts, &mut found);
    mount_options(facts, &mut found);
    device(facts, &mut found);
    queue(facts, &mut found);
    found
}

fn file_system(facts: &Facts, found: &mut Vec<Finding>) {
    let machine = &facts.machine;
    let fs = machine.fs.as_deref().unwrap_or_default();
    let elsewhere = "put the database on ext4 or XFS on a local disk (Db::open, or nsbench --dir)";
    let mountinfo = "/proc/self/mountinfo";
    if matches!(fs, "tmpfs" | "ramfs" | "devtmpfs") {
        found.push(Finding::new(
            "memory_file_system",
            Costs::Durability,
            format!("{} is on {fs}, which is memory", facts.dir.display()),
            "nothing on it survives a restart, and flushes cost nothing, so figures say nothing of a disk",
            elsewhere,
            format!("{mountinfo}; tmpfs(5)"),
        ));
    }
    let remote = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs"];
    if remote.contains(&fs) || fs.starts_with("fuse") {
        found.push(Finding::new(
            "remote_file_system",
            Costs::Durability,
            format!("{fs} hands every call to another program or machine"),
            "a flush is durable only if that one makes it so, and each call costs a round trip",
            elsewhere,
            format!("{mountinfo}; nfs(5), fuse(4)"),
        ));
    }
    if fs == "overlay" {
        found.push(Finding::new(
            "overlay",
            Costs::Speed,
            "the directory is on a container's overlay",
            "the first write to a file copies it, and what is in it goes with the container",
            "mount a volume and put the database there",
            format!("{mountinfo}; kernel Documentation/filesystems/overlayfs.rst"),
        ));
    }
    if matches!(fs, "btrfs" | "bcachefs" | "zfs") {
        found.push(Finding::new(
            "copy_on_write",
            Costs::Speed,
            format!("{fs} writes every block to a new place"),
            "the log overwrites segments so that a flush carries no metadata; here it does, 1.5 to 3 times the time",
            "on btrfs, `chattr +C` on the empty directory before the database is made; or use ext4 or XFS",
            format!("{mountinfo}; chattr(1)"),
        ));
    }
    if machine.direct_io == Some(false) {
        found.push(Finding::new(
            "no_direct_io",
            Costs::Speed,
            format!("{fs} refuses O_DIRECT"),
            "every page is kept twice, in the engine's cache and the kernel's, and read through a copy",
            elsewhere,
            "an open with O_DIRECT fails; open(2)",
        ));
    }
    if facts.free_bytes.is_some_and(|free| free < FREE_BYTES_MIN) {
        let free = facts.free_bytes.unwrap_or(0) as f64;
        found.push(Finding::new(
            "little_room",
            Costs::Speed,
            format!("{} free", show(free, Unit::Bytes)),
            "a nearly full disk is slow in finding room, and rows that do not fit are skipped",
            "free some, or use another directory (--dir)",
            "statvfs(3)",
        ));
    }
}

fn mount_options(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(mount) = &facts.mount else { return };
    let at = mount.at.display();
    let source = format!("{} in /proc/self/mountinfo", mount.at.display());
    if mount.has("nobarrier") || mount.has("barrier=0") {
        found.push(Finding::new(
            "no_barrier",
            Costs::Durability,
            format!("{at} is mounted without barriers"),
            "a flush then never reaches the device: what was acknowledged is lost with the power, unless the device's cache survives it",
            format!("mount -o remount,barrier {at}, and take the option out of /etc/fstab"),
            format!("{source}; ext4(5), xfs(5)"),
        ));
    }
    if mount.has("data=journal") {
        found.push(Finding::new(
            "data_journal",
            Costs::Speed,
            format!("{at} writes file contents to its journal first"),
            "every block is written twice, and O_DIRECT is not honoured",
            "take data=journal out of /etc/fstab and mount again",
            format!("{source}; ext4(5)"),
        ));
    }
    if mount.has("sync") {
        found.push(Finding::new(
            "mounted_sync",
            Costs::Speed,
            format!("{at} makes every write durable by itself"),
            "the engine flushes where it must; this flushes everywhere",
            format!("mount -o remount,async {at}"),
            format!("{source}; mount(8)"),
        ));
    }
    if mount.has("strictatime") {
        found.push(Finding::new(
            "strictatime",
            Costs::Speed,
            format!("{at} records the time of every read"),
            "reads then dirty inodes, which flushes write",
            format!("mount -o remount,noatime {at}"),
            format!("{source}; mount(8)"),
        ));
    }
    if mount.has("discard") {
        found.push(Finding::new(
            "online_discard",
            Costs::Noise,
            format!("{at} tells the device at once what is free"),
            "files that are removed, and holes that are punched, cost the device time while others wait",
            format!("mount -o remount,nodiscard {at}; systemctl enable --now fstrim.timer"),
            format!("{source}; fstrim(8)"),
        ));
    }
}

fn device(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(device) = facts.machine.device.as_deref() else {
        return;
    };
    if device.starts_with("loop") {
        found.push(Finding::new(
            "loop_device",
            Costs::Speed,
            format!("{device} is a file on another file system"),
            "everything passes two file systems, and a flush is as durable as the lower one makes it",
            "use a partition, or losetup --direct-io=on",
            format!("/sys/block/{device}; losetup(8)"),
        ));
    }
    if device.starts_with("dm-") {
        found.push(Finding::new(
            "mapped_device",
            Costs::Note,
            format!("{device} is made of {}", facts.machine.disks.join(", ")),
            "LVM, encryption or RAID: scheduler and cache are those of the disks below, which this does not show",
            format!("look at /sys/block/{device}/slaves, and at /sys/block/*/queue of those disks"),
            format!("/sys/block/{device}; dmsetup(8)"),
        ));
    }
    if facts.machine.rotational == Some(true) {
        let (costs, how) = match facts.machine.virtual_machine {
            Some(true) => (
                Costs::Note,
                "virtual disks often say so; if it is none: echo 0 > the file below",
            ),
            _ => (Costs::Speed, "use an SSD"),
        };
        found.push(Finding::new(
            "rotates",
            costs,
            format!("{device} says that it rotates"),
            "a random read of a disk that does takes milliseconds; the kernel also chooses its own settings by it",
            how,
            format!("/sys/block/{device}/queue/rotational; {SYSFS_BLOCK}"),
        ));
    }
}

fn queue(facts: &Facts, found: &mut Vec<Finding>) {
    let (Some(device), Some(queue)) = (&facts.machine.device, &facts.machine.queue) else {
        return;
    };
    let file = |name: &str| format!("/sys/block/{device}/queue/{name}");
    let write_back = queue.write_cache.as_deref() == Some("write back");
    if write_back && queue.fua == Some(false) {
        found.push(Finding::new(
            "no_fua",
            Costs::Speed,
            format!("{device} has a volatile write cache and no FUA"),
            "each durable commit is a write and then a flush of the whole cache, which is most of its time",
            "a device with FUA or power-loss protection; a virtual disk: ask its host (cache mode, write-through)",
            format!("{}, {}; {SYSFS_BLOCK}", file("write_cache"), file("fua")),
        ));
    }
    if queue.write_cache.as_deref() == Some("write through") {
        found.push(Finding::new(
            "write_through",
            Costs::Note,
            format!("{device} is said to have no volatile write cache, so the kernel sends no flushes"),
            "right for a device with power-loss protection; if someone set it by hand on another, commits are lost with the power",
            format!("if in doubt: echo 'write back' > {}", file("write_cache")),
            format!("{}; {SYSFS_BLOCK}", file("write_cache")),
        ));
    }
    let fast =
        queue.rotational == Some(false) || device.starts_with("nvme") || device.starts_with("vd");
    if let Some(scheduler) = queue
        .scheduler
        .as_deref()
        .filter(|name| *name != "none" && fast)
    {
        found.push(Finding::new(
            "scheduler",
            Costs::Speed,
            format!("requests to {device} pass the scheduler {scheduler}"),
            "it costs processor time a request, and holds some back to favour others; a fast device orders them itself",
            format!("echo none > {} (as root; a udev rule makes it last)", file("scheduler")),
            format!("{}; kernel Documentation/block/switching-sched.rst", file("scheduler")),
        ));
    }
    if let Some(target) = queue.wbt_lat_usec.filter(|target| *target > 0) {
        found.push(Finding::new(
            "write_throttling",
            Costs::Noise,
            format!("writes to {device} are held back when reads take more than {target} µs"),
            "a checkpoint then runs in fits, by what others read",
            format!("for figures: echo 0 > {}", file("wbt_lat_usec")),
            format!("{}; {SYSFS_BLOCK}", file("wbt_lat_usec")),
        ));
    }
    if let Some(requests) = queue.nr_requests.filter(|requests| *requests < 64) {
        found.push(Finding::new(
            "short_queue",
            Costs::Speed,
            format!("{device} takes {requests} requests before submitting blocks"),
            "up to 64 reads are in flight; the thread that submits the next one stops until one ends",
            format!("echo 256 > {}", file("nr_requests")),
            format!("{}; {SYSFS_BLOCK}", file("nr_requests")),
        ));
    }
}
