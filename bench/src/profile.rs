//! Machine profiles: what to run how large, and which limits the figures have. The data is `profiles/*.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};
use crate::machine::Machine;

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
    /// Limit of each figure, by its id. Spec: `performance_targets_v0`.
    pub(crate) figures: BTreeMap<String, f64>,
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
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
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

impl Scale {
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
        for scale in [profile.scale, profile.quick] {
            // Loads go in batches of 1,000 and must reach every row.
            if scale.rows < 2000 || !scale.rows.is_multiple_of(1000) {
                return Err(wrong(format!(
                    "rows is {}, not a multiple of 1,000 from 2,000",
                    scale.rows
                )));
            }
        }
        Ok(profile)
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
        let ram = machine.ram_gb.unwrap_or(0.0);
        // A 16 GiB machine reports a little less: the kernel keeps some.
        if ram < self.ram_gib * 0.95 {
            return Some(format!("{ram} GiB of memory, it asks for {}", self.ram_gib));
        }
        let device = machine.device.as_deref().unwrap_or("an unknown device");
        if self.nvme && (!device.starts_with("nvme") || machine.rotational != Some(false)) {
            return Some(format!(
                "the scratch directory is on {device}, it asks for NVMe"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures;

    fn machine(core_count: usize, ram_gb: f64, device: &str, rotational: bool) -> Machine {
        Machine {
            core_count,
            ram_gb: Some(ram_gb),
            device: Some(device.into()),
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
    }

    #[test]
    fn a_profile_with_odd_sizes_or_unknown_keys_is_refused() {
        assert!(Profile::parse("x", CI).is_ok());
        assert!(Profile::parse("x", &CI.replace("rows = 1_000_000", "rows = 1_500")).is_err());
        assert!(Profile::parse("x", &CI.replace("pages =", "leaves =")).is_err());
    }

    #[test]
    fn an_unknown_profile_is_bad_use() {
        let error = Profile::find("fast", &machine(1, 1.0, "vda", true)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
