//! What the findings are made of.

use std::path::{Path, PathBuf};

use crate::machine::{Machine, Mount, System, free_bytes};

/// The machine as a database in one directory meets it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Where the database would be.
    pub(super) dir: PathBuf,
    /// What is kept with every result too.
    pub(super) machine: Machine,
    /// The mount that holds the directory.
    pub(super) mount: Option<Mount>,
    /// Bytes that can still be written there, and bytes in all.
    pub(super) free_bytes: Option<u64>,
    /// Bytes of memory that programs can get.
    pub(super) memory_available: Option<u64>,
    /// Bytes of swap in use.
    pub(super) swap_used: Option<u64>,
    /// Percent of the last ten seconds in which some task waited for a processor.
    pub(super) cpu_pressure: Option<f64>,
    /// When the kernel stops to make huge pages: `always` and `defer` stall.
    pub(super) huge_page_defrag: Option<String>,
    /// Where the time comes from.
    pub(super) clocksource: Option<String>,
    /// What `perf_event_open` allows.
    pub(super) perf_paranoid: Option<i32>,
    /// The processor may exceed its nominal clock.
    pub(super) turbo: Option<bool>,
    /// Groups of processors with memory of their own.
    pub(super) numa_nodes: usize,
    /// The program was built without optimisation.
    pub(super) debug_build: bool,
}

impl Facts {
    /// Of this machine.
    pub(super) fn read(dir: &Path) -> Self {
        let mut facts = Self::of(&System::here(), dir);
        facts.machine = Machine::read(dir);
        facts.free_bytes = free_bytes(dir);
        facts.debug_build = cfg!(debug_assertions);
        facts
    }

    /// Of what the files below a root say.
    pub(super) fn of(system: &System, dir: &Path) -> Self {
        let turbo = || {
            let intel = system.text("/sys/devices/system/cpu/intel_pstate/no_turbo");
            let other = system.text("/sys/devices/system/cpu/cpufreq/boost");
            intel
                .map(|no| no == "0")
                .or_else(|| other.map(|boost| boost == "1"))
        };
        let nodes = system
            .text("/sys/devices/system/node/online")
            .map_or(1, |list| count_of(&list));
        Self {
            dir: dir.to_owned(),
            machine: Machine::of(system, dir),
            mount: Mount::of(system, dir),
            free_bytes: None,
            memory_available: system.memory("MemAvailable"),
            swap_used: system
                .memory("SwapTotal")
                .zip(system.memory("SwapFree"))
                .map(|(total, free)| total.saturating_sub(free)),
            cpu_pressure: pressure(system),
            huge_page_defrag: system.chosen("/sys/kernel/mm/transparent_hugepage/defrag"),
            clocksource: system
                .text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            perf_paranoid: system
                .text("/proc/sys/kernel/perf_event_paranoid")
                .and_then(|level| level.parse().ok()),
            turbo: turbo(),
            numa_nodes: nodes,
            debug_build: false,
        }
    }
}

/// `avg10` of the line that begins with `some`.
fn pressure(system: &System) -> Option<f64> {
    let text = system.text("/proc/pressure/cpu")?;
    let line = text.lines().find(|line| line.starts_with("some"))?;
    let word = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    word.parse().ok()
}

/// How many a list like `0-3,8` names.
pub(super) fn count_of(list: &str) -> usize {
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.saturating_sub(first) + 1)
    };
    list.split(',').filter_map(|part| one(part.trim())).sum()
}
