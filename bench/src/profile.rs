//! Machine profiles: what to run how large, and which limits the figures have. The data is `profiles/*.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::absolute::Targets;
use crate::compare::Thresholds;
use crate::error::{BenchError, Result};
use crate::figures;
use crate::gate::Judged;
use crate::machine::{Cgroup, Machine};

const CI: &str = include_str!("../../profiles/ci.toml");
const DEV_NVME: &str = include_str!("../../profiles/dev_nvme.toml");

/// One profile file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// As on the command line.
    pub(crate) name: String,
    /// One line for people.
    pub(crate) about: String,
    /// When `auto` picks this profile. Without it: never.
    pub(crate) detect: Option<Detect>,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// Sizes and durations under `--quick`.
    pub(crate) quick: Scale,
    /// What results of its machines are held against.
    #[serde(default)]
    pub(crate) gate: Gate,
    /// Limit of each figure, by its id. Spec: `performance_targets_v0`.
    pub(crate) figures: BTreeMap<String, f64>,
    /// Absolute targets, by rows: of a kind of machine that is known.
    #[serde(default)]
    pub(crate) targets: Targets,
}

/// How results are judged against a kept baseline, which was measured at another time. Without it: all numbers, by the limits of
/// builds that run in turn.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gate {
    /// Which numbers decide.
    pub(crate) judged: Judged,
    /// Shifts that are let pass.
    pub(crate) limits: Thresholds,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            judged: Judged::All,
            limits: Thresholds::default(),
        }
    }
}

/// What a machine must have for a profile.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Detect {
    /// At least so many cores.
    pub(crate) cores: usize,
    /// At least so much memory.
    pub(crate) ram_gib: f64,
    /// The scratch directory lies on an NVMe device that does not rotate.
    pub(crate) nvme: bool,
}

/// Sizes and durations of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    /// Rows of the `_1m` tables.
    pub(crate) rows: u64,
    /// Keys that wait in the delta in `point_get_hot_1m_delta_300k`.
    pub(crate) delta_keys: u64,
    /// Pages of the page-read rows.
    pub(crate) pages: u64,
    /// Length of an ordinary timed loop.
    pub(crate) seconds: f64,
    /// Length of the sustained rows: random blind puts and overwrites.
    pub(crate) sustained_seconds: f64,
    /// Memory budget of the rows whose data exceeds the cache fourfold.
    pub(crate) small_budget_mib: u64,
    /// Delta of the same rows.
    pub(crate) small_delta_mib: u64,
}

/// Rows that a profile can ask for at most: what is made of them is counted in 64 bits.
const ROWS_MAX: u64 = 1 << 40;
/// Pages, at most: 64 TiB.
const PAGES_MAX: u64 = 1 << 32;
/// A memory budget at most, in MiB: 1 TiB.
const BUDGET_MIB_MAX: u64 = 1 << 20;
/// A loop's length at most: a year.
const SECONDS_MAX: f64 = 365.0 * 86400.0;

impl Scale {
    /// What no row could run with.
    fn fault(&self) -> Option<String> {
        let Self {
            rows,
            delta_keys,
            pages,
            seconds,
            sustained_seconds,
            small_budget_mib,
            small_delta_mib,
        } = *self;
        // Loads go in batches of 1,000 and must reach every row.
        if !rows.is_multiple_of(1000) || !(2000..=ROWS_MAX).contains(&rows) {
            return Some(format!(
                "rows is {rows}, not a multiple of 1,000 from 2,000"
            ));
        }
        let tiny = Self::tiny();
        for (name, value, least, most) in [
            ("delta_keys", delta_keys, 1, rows),
            ("pages", pages, tiny.pages, PAGES_MAX),
            (
                "small_budget_mib",
                small_budget_mib,
                tiny.small_budget_mib,
                BUDGET_MIB_MAX,
            ),
            ("small_delta_mib", small_delta_mib, 1, small_budget_mib),
        ] {
            if !(least..=most).contains(&value) {
                return Some(format!("{name} is {value}, expected {least} to {most}"));
            }
        }
        for (name, value) in [
            ("seconds", seconds),
            ("sustained_seconds", sustained_seconds),
        ] {
            // Not a number is in no range.
            if !(0.001..=SECONDS_MAX).contains(&value) {
                return Some(format!(
                    "{name} is {value}, expected 0.001 to {SECONDS_MAX}"
                ));
            }
        }
        None
    }

    /// So small that every row runs as a test.
    pub(crate) fn tiny() -> Self {
        Self {
            rows: 3000,
            delta_keys: 500,
            pages: 64,
            seconds: 0.02,
            sustained_seconds: 0.2,
            small_budget_mib: 32,
            small_delta_mib: 4,
        }
    }
}

impl Profile {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let wrong = |why| BenchError::Profile {
            name: name.to_owned(),
            why,
        };
        let profile: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        // Baselines lie in a directory of this name.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if profile.name.is_empty() || !profile.name.chars().all(plain) {
            return Err(wrong(format!(
                "name is {:?}, expected letters, digits, _ and -",
                profile.name
            )));
        }
        for (part, scale) in [("scale", profile.scale), ("quick", profile.quick)] {
            if let Some(why) = scale.fault() {
                return Err(wrong(format!("{part}.{why}")));
            }
        }
        for (id, limit) in &profile.figures {
            let known = figures::ALL.iter().any(|figure| figure.id == id);
            if !known || !limit.is_finite() || *limit < 0.0 {
                let why = if known {
                    "not from 0 on"
                } else {
                    "of no figure"
                };
                return Err(wrong(format!("figures.{id} is {limit}, {why}")));
            }
        }
        for (row, target) in &profile.targets {
            if !crate::suites::all().iter().any(|known| known.name == row) {
                return Err(wrong(format!("targets.{row:?} is of no row")));
            }
            if let Some(why) = target.fault() {
                return Err(wrong(format!("targets.{row:?}.{why}")));
            }
        }
        if let Some(why) = profile.gate.limits.fault() {
            return Err(wrong(format!("gate.limits.{why}")));
        }
        let ram = profile.detect.as_ref().map_or(0.0, |detect| detect.ram_gib);
        if !ram.is_finite() || ram < 0.0 {
            return Err(wrong(format!("detect.ram_gib is {ram}")));
        }
        Ok(profile)
    }

    /// The built-in profile of this name.
    fn built_in(name: &str) -> Result<Option<Self>> {
        match name {
            "ci" => Self::parse(name, CI).map(Some),
            "dev_nvme" => Self::parse(name, DEV_NVME).map(Some),
            _ => Ok(None),
        }
    }

    /// How results are judged that say they were measured with the profile `name`: of one that is not built in, by the strictest.
    pub(crate) fn gate_of(name: &str) -> Result<Gate> {
        let profile = Self::built_in(name)?;
        Ok(profile.map_or_else(Gate::default, |profile| profile.gate))
    }

    /// The profile called `name` (`auto`: the machine's), and why this one.
    pub(crate) fn find(name: &str, machine: &Machine) -> Result<(Self, String)> {
        match name {
            "auto" => {
                let strong = Self::parse("dev_nvme", DEV_NVME)?;
                match strong.detect.as_ref().map(|detect| detect.refuses(machine)) {
                    Some(None) => Ok((strong, "the machine has all that dev_nvme asks for".into())),
                    Some(Some(why)) => Ok((Self::parse("ci", CI)?, format!("not dev_nvme: {why}"))),
                    None => Ok((
                        Self::parse("ci", CI)?,
                        "no other profile detects itself".into(),
                    )),
                }
            }
            "ci" => Ok((Self::parse(name, CI)?, "asked for".into())),
            "dev_nvme" => Ok((Self::parse(name, DEV_NVME)?, "asked for".into())),
            path if path.ends_with(".toml") => {
                let text = std::fs::read_to_string(path).map_err(|error| BenchError::Profile {
                    name: path.to_owned(),
                    why: error.to_string(),
                })?;
                Ok((
                    Self::parse(path, &text)?,
                    format!("read from {}", Path::new(path).display()),
                ))
            }
            other => Err(BenchError::Profile {
                name: other.to_owned(),
                why: "is none of auto, ci, dev_nvme and not the path of a .toml file".into(),
            }),
        }
    }
}

impl Profile {
    /// Why a machine is not one of this profile's; `ci` takes any.
    pub(crate) fn unfit(&self, machine: &Machine) -> Option<String> {
        self.detect.as_ref()?.refuses(machine)
    }

    /// Why no baseline of this name is of this machine. One that is called like a built-in profile is what that asks for,
    /// whatever file it was read from.
    pub(crate) fn unfit_for_baseline(&self, machine: &Machine) -> Result<Option<String>> {
        let built_in = Self::built_in(&self.name)?;
        let other_sizes = |built_in: &Self| {
            let same = built_in.scale == self.scale && built_in.quick == self.quick;
            (!same).then(|| format!("its sizes are not those of the built-in {}", self.name))
        };
        Ok(self.unfit(machine).or_else(|| {
            let built_in = built_in.as_ref()?;
            built_in.unfit(machine).or_else(|| other_sizes(built_in))
        }))
    }
}

impl Detect {
    /// The first thing the machine lacks.
    fn refuses(&self, machine: &Machine) -> Option<String> {
        if machine.core_count < self.cores {
            return Some(format!(
                "{} cores, it asks for {}",
                machine.core_count, self.cores
            ));
        }
        let limit = machine.cgroup.as_ref().and_then(Cgroup::memory_gib);
        let ram = machine
            .ram_gb
            .unwrap_or(0.0)
            .min(limit.unwrap_or(f64::INFINITY));
        // A 16 GiB machine reports a little less: the kernel keeps some.
        if ram < self.ram_gib * 0.95 {
            return Some(format!("{ram} GiB of memory, it asks for {}", self.ram_gib));
        }
        let is_nvme = |disk: &String| disk.starts_with("nvme");
        let all_nvme = !machine.disks.is_empty() && machine.disks.iter().all(is_nvme);
        if self.nvme && (!all_nvme || machine.rotational != Some(false)) {
            let device = machine.device.as_deref().unwrap_or("an unknown device");
            let of = match machine.disks.join(", ") {
                disks if disks == device || disks.is_empty() => String::new(),
                disks => format!(" (made of {disks})"),
            };
            return Some(format!(
                "the scratch directory is on {device}{of}, it asks for NVMe"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(core_count: usize, ram_gb: f64, device: &str, rotational: bool) -> Machine {
        Machine {
            core_count,
            ram_gb: Some(ram_gb),
            device: Some(device.into()),
            disks: vec![device.into()],
            rotational: Some(rotational),
            ..Machine::read(Path::new("."))
        }
    }

    #[test]
    fn both_profiles_parse_and_limit_exactly_the_known_figures() {
        let known: Vec<&str> = figures::ALL.iter().map(|figure| figure.id).collect();
        for (name, text) in [("ci", CI), ("dev_nvme", DEV_NVME)] {
            let profile = Profile::parse(name, text).unwrap();
            assert_eq!(profile.name, name);
            let mut limited: Vec<&str> = profile.figures.keys().map(String::as_str).collect();
            let mut known = known.clone();
            limited.sort_unstable();
            known.sort_unstable();
            assert_eq!(limited, known);
        }
    }

    #[test]
    fn detection_asks_for_cores_memory_and_a_device_that_does_not_rotate() {
        let picks = |machine| Profile::find("auto", &machine).unwrap().0.name;
        assert_eq!(picks(machine(8, 15.6, "nvme0n1", false)), "dev_nvme");
        assert_eq!(picks(machine(7, 32.0, "nvme0n1", false)), "ci");
        assert_eq!(picks(machine(8, 8.0, "nvme0n1", false)), "ci");
        assert_eq!(picks(machine(8, 32.0, "nvme0n1", true)), "ci");
        assert_eq!(picks(machine(8, 32.0, "vda", false)), "ci");
        let mut mapped = machine(8, 32.0, "dm-0", false);
        mapped.disks = vec!["nvme0n1".into(), "nvme1n1".into()];
        assert_eq!(picks(mapped.clone()), "dev_nvme", "encrypted, or LVM");
        mapped.disks.push("sda".into());
        let (profile, why) = Profile::find("auto", &mapped).unwrap();
        assert_eq!(profile.name, "ci");
        assert!(
            why.contains("dm-0 (made of nvme0n1, nvme1n1, sda)"),
            "{why}"
        );
        let mut contained = machine(8, 32.0, "nvme0n1", false);
        contained.cgroup = Some(Cgroup {
            memory_max: Some((2_u64 << 30).to_string()),
            ..Cgroup::default()
        });
        assert_eq!(picks(contained), "ci");
    }

    #[test]
    fn a_profile_with_odd_sizes_or_unknown_keys_is_refused() {
        assert!(Profile::parse("x", CI).is_ok());
        assert!(Profile::parse("x", &CI.replace("rows = 1_000_000", "rows = 1_500")).is_err());
        assert!(Profile::parse("x", &CI.replace("pages =", "leaves =")).is_err());
        for (line, other) in [
            ("seconds = 2.0", "seconds = -2.0"),
            ("seconds = 2.0", "seconds = nan"),
            ("seconds = 2.0", "seconds = 1e300"),
            ("sustained_seconds = 60.0", "sustained_seconds = 0.0"),
            ("delta_keys = 300_000", "delta_keys = 0"),
            ("pages = 4096", "pages = 0"),
            ("rows = 1_000_000", "rows = 0"),
            ("small_budget_mib = 192", "small_budget_mib = 0"),
            ("small_budget_mib = 192", "small_budget_mib = 99999999999"),
            ("small_delta_mib = 32", "small_delta_mib = 193"),
            ("name = \"ci\"", "name = \"../ci\""),
            ("get_warm_p50 = 800", "get_warm_p50 = -800"),
            ("get_warm_p50 = 800", "get_warm_p51 = 800"),
        ] {
            assert!(CI.contains(line), "{line}");
            let error = Profile::parse("x", &CI.replacen(line, other, 1)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{other}: {error}");
        }
    }

    #[test]
    fn a_baseline_with_a_built_in_name_needs_what_that_profile_asks_for() {
        let (weak, strong) = (
            machine(2, 32.0, "vda", true),
            machine(8, 32.0, "nvme0n1", false),
        );
        let why = |text: &str, machine: &Machine| {
            let profile = Profile::parse("x.toml", text).unwrap();
            profile.unfit_for_baseline(machine).unwrap()
        };
        let undetected = DEV_NVME.replacen("cores = 8", "cores = 1", 1);
        let undetected = undetected.replacen("nvme = true", "nvme = false", 1);
        assert!(why(&undetected, &weak).unwrap().contains("2 cores"));
        assert_eq!(why(&undetected, &strong), None);
        assert_eq!(why(CI, &weak), None);
        let other = CI.replacen("rows = 1_000_000", "rows = 2_000", 1);
        let other = other.replacen("delta_keys = 300_000", "delta_keys = 300", 1);
        assert!(why(&other, &weak).unwrap().contains("sizes"));
        let mine = other.replacen("name = \"ci\"", "name = \"mine\"", 1);
        assert_eq!(why(&mine, &weak), None);
    }

    #[test]
    fn an_unknown_profile_is_bad_use() {
        let error = Profile::find("fast", &machine(1, 1.0, "vda", true)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
