//! Processor, memory, kernel, control groups, and what else runs.

use super::facts::{Facts, count_of};
use super::{Costs, Finding};
use crate::units::{Unit, show};

/// What an open database takes by default.
const MEMORY_BYTES: u64 = 768 << 20;
/// Locked memory below which kernels before 5.12 refuse a ring.
const MEMLOCK_BYTES_MIN: u64 = 1 << 20;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    ring(facts, &mut found);
    locked(facts, &mut found);
    processor(facts, &mut found);
    memory(facts, &mut found);
    groups(facts, &mut found);
    others(facts, &mut found);
    measuring(facts, &mut found);
    found
}

fn ring(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(ring) = &facts.machine.io_uring else {
        return;
    };
    if let Some(why) = &ring.refused {
        let (what, how) = match ring.disabled {
            Some(2) => (
                "io_uring is switched off for everyone".to_owned(),
                "sysctl kernel.io_uring_disabled=0",
            ),
            Some(1) => (
                "io_uring is switched off for ordinary users".to_owned(),
                "sysctl kernel.io_uring_disabled=0, or join the group of kernel.io_uring_group",
            ),
            _ => (
                format!("io_uring is refused: {why}"),
                "allow io_uring_setup, _enter and _register in the container's seccomp profile; or a kernel that has it",
            ),
        };
        found.push(Finding::new(
            "no_io_uring",
            Costs::Speed,
            what,
            "reads are then made one call and one thread at a time: cold scans and multi_get lose their depth",
            how,
            "io_uring_setup fails; /proc/sys/kernel/io_uring_disabled; io_uring_setup(2)",
        ));
    } else if ring.mode != "deferred" {
        found.push(Finding::new(
            "old_io_uring",
            Costs::Speed,
            format!(
                "rings are {}: the kernel grants {}",
                ring.mode,
                ring.setup_flags.join(", ")
            ),
            "completions interrupt the thread that submitted instead of waiting for it",
            "Linux 6.1 or newer",
            "io_uring_setup refuses IORING_SETUP_DEFER_TASKRUN; io_uring_setup(2)",
        ));
    }
}

fn locked(facts: &Facts, found: &mut Vec<Finding>) {
    let memlock = facts.machine.memlock.as_deref().unwrap_or("unlimited");
    if let Ok(bytes) = memlock.parse::<u64>() {
        let (costs, why) = match bytes < MEMLOCK_BYTES_MIN {
            true => (
                Costs::Speed,
                "kernels before 5.12 count the memory of rings against it, and refuse them",
            ),
            false => (
                Costs::Note,
                "enough for rings; frames registered with the kernel, which the engine does not do, would not fit",
            ),
        };
        found.push(Finding::new(
            "memlock",
            costs,
            format!(
                "{} may be locked in memory",
                show(bytes as f64, Unit::Bytes)
            ),
            why,
            "ulimit -l unlimited; LimitMEMLOCK=infinity in a systemd unit",
            "/proc/self/limits; getrlimit(2)",
        ));
    }
}

fn processor(facts: &Facts, found: &mut Vec<Finding>) {
    if let Some(governor) = facts
        .machine
        .governor
        .as_deref()
        .filter(|name| *name != "performance")
    {
        found.push(Finding::new(
            "governor",
            Costs::Speed,
            format!("the processor's clock follows the governor {governor}"),
            "a thread that waits for the disk lets the clock fall, and commits wait for it to rise again",
            "cpupower frequency-set -g performance",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor; cpupower-frequency-set(1)",
        ));
    }
    if facts.turbo == Some(true) {
        found.push(Finding::new(
            "turbo",
            Costs::Noise,
            "the processor may exceed its nominal clock",
            "how far depends on heat and on what other cores do, so times drift within a run",
            "for figures: echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo, or echo 0 > .../cpufreq/boost",
            "/sys/devices/system/cpu; kernel Documentation/admin-guide/pm/cpufreq.rst",
        ));
    }
    if facts.machine.virtual_machine == Some(true) {
        found.push(Finding::new(
            "virtual_machine",
            Costs::Noise,
            "this is a virtual machine",
            "cores and disk are shared with guests that cannot be seen: read ratios to floors of the same run, and counts",
            "measure absolute values on a machine of its own",
            "the flag hypervisor in /proc/cpuinfo",
        ));
    }
    if facts.numa_nodes > 1 {
        found.push(Finding::new(
            "numa",
            Costs::Noise,
            format!("{} nodes with memory of their own", facts.numa_nodes),
            "a get whose frames lie on the other node takes up to twice as long",
            "for figures: numactl --cpunodebind=0 --membind=0 nsbench ...",
            "/sys/devices/system/node/online; numactl(8)",
        ));
    }
    if let Some(clock) = facts.clocksource.as_deref() {
        let fast = [
            "tsc",
            "kvm-clock",
            "arch_sys_counter",
            "hyperv_clocksource_tsc_page",
        ];
        if !fast.contains(&clock) {
            found.push(Finding::new(
                "clocksource",
                Costs::Speed,
                format!("the time comes from {clock}"),
                "each reading is a system call or a device access: a microsecond instead of 20 ns, in every figure",
                "boot with tsc=reliable if the processor's counter is sound",
                "/sys/devices/system/clocksource/clocksource0/current_clocksource; kernel Documentation/timers",
            ));
        }
    }
}

fn memory(facts: &Facts, found: &mut Vec<Finding>) {
    if facts.machine.transparent_huge_pages.as_deref() == Some("never") {
        found.push(Finding::new(
            "no_huge_pages",
            Costs::Speed,
            "memory comes in small pages only",
            "the page cache is one large mapping: with huge pages a get takes 25 to 50 % less, by fewer misses of the TLB",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            "that file; kernel Documentation/admin-guide/mm/transhuge.rst",
        ));
    }
    if facts.huge_page_defrag.as_deref() == Some("always") {
        found.push(Finding::new(
            "huge_page_stalls",
            Costs::Noise,
            "a thread that touches new memory may have to make room for a huge page itself",
            "single operations then take milliseconds",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/defrag",
            "that file; kernel Documentation/admin-guide/mm/transhuge.rst",
        ));
    }
    if let Some(used) = facts.swap_used.filter(|used| *used > 0) {
        found.push(Finding::new(
            "swap",
            Costs::Noise,
            format!("{} of swap are in use", show(used as f64, Unit::Bytes)),
            "a page of the cache that was swapped out is read twice: from swap, and instead of the file",
            "swapoff -a while measuring; vm.swappiness=1",
            "/proc/meminfo; swapon(8)",
        ));
    }
    if let Some(available) = facts.memory_available.filter(|bytes| *bytes < MEMORY_BYTES) {
        found.push(Finding::new(
            "little_memory",
            Costs::Speed,
            format!(
                "{} of memory are available",
                show(available as f64, Unit::Bytes)
            ),
            "a database takes 512 MiB by default, and rows of nsbench more",
            "end other programs, or Options::memory_budget",
            "MemAvailable in /proc/meminfo",
        ));
    }
}

fn groups(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(cgroup) = &facts.machine.cgroup else {
        return;
    };
    let source = |file: &str| {
        format!(
            "{file} of the groups in /proc/self/cgroup; kernel Documentation/admin-guide/cgroup-v2.rst"
        )
    };
    let cores = facts.machine.core_count;
    if let Some(limit) = cgroup.cores() {
        found.push(Finding::new(
            "cpu_limit",
            Costs::Noise,
            format!("the control group gives {limit:.1} cores of time ({})", cgroup.cpu_max.as_deref().unwrap_or_default()),
            "what exceeds it stops for the rest of the period, up to 100 ms: it shows as p99",
            "raise or remove the limit (docker --cpus, Kubernetes limits.cpu), or pin with cpusets instead",
            source("cpu.max"),
        ));
    }
    if let Some(cpus) = cgroup.cpus.as_deref().filter(|cpus| count_of(cpus) < cores) {
        found.push(Finding::new(
            "cpuset",
            Costs::Note,
            format!("the control group leaves the processors {cpus}"),
            "threads of rows with many share them",
            "docker --cpuset-cpus, AllowedCPUs= in a systemd unit",
            source("cpuset.cpus.effective"),
        ));
    }
    let memory = cgroup
        .memory_max
        .as_deref()
        .and_then(|max| max.parse::<u64>().ok());
    if let Some(bytes) = memory {
        let costs = match bytes < 2 * MEMORY_BYTES {
            true => Costs::Speed,
            false => Costs::Note,
        };
        found.push(Finding::new(
            "memory_limit",
            costs,
            format!(
                "the control group gives {} of memory",
                show(bytes as f64, Unit::Bytes)
            ),
            "at the limit the process is killed, and near it the kernel takes back what it caches",
            "raise the limit, or keep Options::memory_budget well below it",
            source("memory.max"),
        ));
    }
    if let Some(io) = &cgroup.io_max {
        found.push(Finding::new(
            "io_limit",
            Costs::Speed,
            format!("the control group limits devices: {io}"),
            "requests beyond it wait, whatever the device could do; floors and figures alike",
            "remove the limit while measuring (docker --device-write-bps, IOWriteBandwidthMax=)",
            source("io.max"),
        ));
    }
}

fn others(facts: &Facts, found: &mut Vec<Finding>) {
    let cores = facts.machine.core_count as f64;
    let load = facts
        .machine
        .load_average
        .filter(|load| *load > cores / 2.0);
    let pressure = facts.cpu_pressure.filter(|percent| *percent > 10.0);
    if load.is_some() || pressure.is_some() {
        let load = facts.machine.load_average.unwrap_or(0.0);
        let pressure = facts.cpu_pressure.map_or_else(String::new, |percent| {
            format!(", and someone waited for a processor {percent:.0} % of the last ten seconds")
        });
        found.push(Finding::new(
            "busy",
            Costs::Noise,
            format!("{load} tasks want to run on {cores} cores{pressure}"),
            "a thread that was woken waits for a core: a commit of 0.1 ms becomes one of 4 ms",
            "end other work, or read ratios and counts only",
            "/proc/loadavg, /proc/pressure/cpu",
        ));
    }
}

fn measuring(facts: &Facts, found: &mut Vec<Finding>) {
    if facts.machine.hardware_counters == Some(false) {
        let refused = facts.perf_paranoid.is_some_and(|level| level > 2);
        let (what, how) = match refused {
            true => (
                "counters of the processor may not be read",
                "sysctl kernel.perf_event_paranoid=2",
            ),
            false => (
                "the processor's counters cannot be read",
                "virtual machines: ask the host for a virtual PMU; containers: allow perf_event_open",
            ),
        };
        found.push(Finding::new(
            "no_counters",
            Costs::Note,
            what,
            "results have no cycles, instructions and misses, and profiles sample the clock",
            how,
            "perf_event_open fails; /proc/sys/kernel/perf_event_paranoid; perf_event_open(2)",
        ));
    }
    if facts.debug_build {
        found.push(Finding::new(
            "debug_build",
            Costs::Speed,
            "this nsbench was built without optimisation",
            "its figures say nothing about the engine",
            "cargo build --release -p nsbench",
            "this program's build",
        ));
    }
}
