//! Machines that are not at hand, as files below a root.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::machine::{Ring, System};

struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    /// A quiet machine with a local NVMe device: nothing to find.
    fn quiet() -> Self {
        let made = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        made.put(
            "proc/cpuinfo",
            "processor: 0\nmodel name: Fast\nflags: fpu\nprocessor: 1\n",
        );
        made.put(
            "proc/meminfo",
            "MemTotal: 33554432 kB\nMemAvailable: 30000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        );
        made.put("proc/loadavg", "0.10 0.1 0.1 1/100 1\n");
        made.put(
            "proc/self/mountinfo",
            "1 0 259:1 / / rw,noatime - xfs /dev/nvme0n1 rw\n",
        );
        made.put(
            "proc/self/limits",
            "Max locked memory  unlimited unlimited bytes\n",
        );
        made.put("proc/self/cgroup", "0::/\n");
        made.put("dev/nvme0n1", "");
        for (name, text) in [
            ("write_cache", "write back"),
            ("fua", "1"),
            ("scheduler", "[none] mq-deadline"),
            ("rotational", "0"),
            ("nr_requests", "1023"),
            ("wbt_lat_usec", "0"),
        ] {
            made.put(&format!("sys/block/nvme0n1/queue/{name}"), text);
        }
        made.put(
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never",
        );
        made.put(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "performance",
        );
        made.put(
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc",
        );
        made
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn facts(&self) -> Facts {
        Facts::of(&System::at(self.dir.path()), Path::new("/"))
    }

    fn found(&self) -> BTreeSet<&'static str> {
        diagnose(&self.facts()).iter().map(|one| one.id).collect()
    }

    /// What one changed file adds to the findings.
    fn with(path: &str, text: &str) -> BTreeSet<&'static str> {
        let made = Self::quiet();
        made.put(path, text);
        made.found()
    }
}

#[test]
fn a_quiet_machine_with_a_good_disk_has_no_findings() {
    assert_eq!(Made::quiet().found(), BTreeSet::new());
    let text = text(&Made::quiet().facts(), &[]);
    assert!(
        text.contains("xfs on nvme0n1") && text.contains("nothing found"),
        "{text}"
    );
}

#[test]
fn each_thing_that_costs_is_found_by_the_file_that_says_it() {
    let mount = |text: &str| format!("1 0 259:1 / / rw - {text}\n");
    let queue = |name: &str| format!("sys/block/nvme0n1/queue/{name}");
    let mountinfo = "proc/self/mountinfo".to_owned();
    let cases = [
        (
            mountinfo.clone(),
            mount("tmpfs tmpfs rw"),
            "memory_file_system",
        ),
        (
            mountinfo.clone(),
            mount("nfs4 host:/x rw"),
            "remote_file_system",
        ),
        (mountinfo.clone(), mount("overlay overlay rw"), "overlay"),
        (
            mountinfo.clone(),
            mount("btrfs /dev/nvme0n1 rw"),
            "copy_on_write",
        ),
        (
            mountinfo.clone(),
            mount("xfs /dev/nvme0n1 rw,nobarrier"),
            "no_barrier",
        ),
        (
            mountinfo.clone(),
            mount("ext4 /dev/nvme0n1 rw,barrier=0"),
            "no_barrier",
        ),
        (
            mountinfo.clone(),
            mount("ext4 /dev/nvme0n1 rw,data=journal"),
            "data_journal",
        ),
        (
            mountinfo.clone(),
            mount("ext4 /dev/nvme0n1 rw,sync"),
            "mounted_sync",
        ),
        (
            mountinfo.clone(),
            mount("ext4 /dev/nvme0n1 rw,strictatime"),
            "strictatime",
        ),
        (
            mountinfo,
            mount("ext4 /dev/nvme0n1 rw,discard"),
            "online_discard",
        ),
        (queue("fua"), "0".to_owned(), "no_fua"),
        (
            queue("write_cache"),
            "write through".to_owned(),
            "write_through",
        ),
        (queue("scheduler"), "none [bfq]".to_owned(), "scheduler"),
        (queue("rotational"), "1".to_owned(), "rotates"),
        (queue("wbt_lat_usec"), "2000".to_owned(), "write_throttling"),
        (queue("nr_requests"), "32".to_owned(), "short_queue"),
        (
            "proc/self/limits".to_owned(),
            "Max locked memory 65536 65536 bytes".to_owned(),
            "memlock",
        ),
        (
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor".to_owned(),
            "powersave".to_owned(),
            "governor",
        ),
        (
            "sys/devices/system/cpu/intel_pstate/no_turbo".to_owned(),
            "0".to_owned(),
            "turbo",
        ),
        (
            "sys/devices/system/node/online".to_owned(),
            "0-1".to_owned(),
            "numa",
        ),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource".to_owned(),
            "hpet".to_owned(),
            "clocksource",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled".to_owned(),
            "always madvise [never]".to_owned(),
            "no_huge_pages",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/defrag".to_owned(),
            "[always] never".to_owned(),
            "huge_page_stalls",
        ),
        (
            "proc/loadavg".to_owned(),
            "9.5 1 1 1/1 1".to_owned(),
            "busy",
        ),
        (
            "proc/pressure/cpu".to_owned(),
            "some avg10=55.00 avg60=0".to_owned(),
            "busy",
        ),
        (
            "proc/cpuinfo".to_owned(),
            "processor: 0\nflags: fpu hypervisor\n".to_owned(),
            "virtual_machine",
        ),
        (
            "proc/meminfo".to_owned(),
            "MemAvailable: 30000000 kB\nSwapTotal: 2000 kB\nSwapFree: 1000 kB".to_owned(),
            "swap",
        ),
        (
            "proc/meminfo".to_owned(),
            "MemAvailable: 100000 kB".to_owned(),
            "little_memory",
        ),
    ];
    for (path, text, id) in cases {
        let found = Made::with(&path, &text);
        assert!(
            found.contains(id),
            "{path} = {text:?}: {found:?}, without {id}"
        );
    }
}

#[test]
fn limits_of_control_groups_are_found() {
    let made = Made::quiet();
    made.put(
        "proc/self/mountinfo",
        "1 0 259:1 / / rw - xfs /dev/nvme0n1 rw\n2 1 0:5 / /cg rw - cgroup2 cgroup2 rw\n",
    );
    for (name, text) in [
        ("cpu.max", "50000 100000"),
        ("memory.max", "536870912"),
        ("io.max", "259:1 wbps=1048576"),
        ("cpuset.cpus.effective", "0"),
    ] {
        made.put(&format!("cg/{name}"), text);
    }
    let wanted = BTreeSet::from(["cpu_limit", "memory_limit", "io_limit", "cpuset"]);
    assert_eq!(made.found(), wanted);
}

#[test]
fn what_only_trying_tells_is_found_too() {
    let found = |change: fn(&mut Facts)| {
        let mut facts = Made::quiet().facts();
        change(&mut facts);
        let found = diagnose(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    };
    let refused = |disabled| Ring {
        mode: "refused".to_owned(),
        refused: Some("Operation not permitted".to_owned()),
        disabled,
        setup_flags: Vec::new(),
    };
    let by_sysctl = {
        let mut facts = Made::quiet().facts();
        facts.machine.io_uring = Some(refused(Some(2)));
        diagnose(&facts).remove(0)
    };
    assert!(
        by_sysctl.how.contains("kernel.io_uring_disabled"),
        "{by_sysctl:?}"
    );
    let by_filter = {
        let mut facts = Made::quiet().facts();
        facts.machine.io_uring = Some(refused(Some(0)));
        diagnose(&facts).remove(0)
    };
    assert!(by_filter.how.contains("seccomp"), "{by_filter:?}");
    let old = |facts: &mut Facts| {
        facts.machine.io_uring = Some(Ring {
            mode: "cooperative".to_owned(),
            ..Ring::default()
        });
    };
    assert_eq!(found(old).id, "old_io_uring");
    assert_eq!(
        found(|facts| facts.machine.direct_io = Some(false)).id,
        "no_direct_io"
    );
    assert_eq!(
        found(|facts| facts.free_bytes = Some(1 << 20)).id,
        "little_room"
    );
    assert_eq!(
        found(|facts| facts.machine.hardware_counters = Some(false)).id,
        "no_counters"
    );
    assert_eq!(found(|facts| facts.debug_build = true).id, "debug_build");
}

#[test]
fn every_finding_says_what_why_how_and_where() {
    let made = Made::quiet();
    made.put(
        "proc/self/mountinfo",
        "1 0 259:1 / / rw,strictatime,discard - tmpfs /dev/nvme0n1 rw,nobarrier\n",
    );
    made.put("sys/block/nvme0n1/queue/fua", "0");
    let found = diagnose(&made.facts());
    assert!(found.len() >= 4, "{found:?}");
    assert!(found.is_sorted_by_key(|one| one.costs), "{found:?}");
    for one in &found {
        for words in [&one.what, &one.how, &one.source, one.why] {
            assert!(words.len() > 3, "{one:?}");
        }
    }
    let text = text(&made.facts(), &found);
    assert_eq!(text.matches("  why     ").count(), found.len());
}
