//! One result: what a row measured in one repeat, as its JSON file says it.
//!
//! The published schema, `spec/nsbench_result.schema.json`, is made from these types. A file is written only after it was
//! read back, and used only if it reads whole and its numbers can be: so what is compared was validated twice.
//! Spec: `benchmarks_v0`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};
use crate::machine::{Git, Machine};
use crate::profile::Scale;

/// Raised when a field changes its meaning, or when programs from before could not read a file for what was added.
///
/// 3 added `counters_per_op`, `warmup_ops`, what was asked of warm-up and threads, and facts of the machine. No field of
/// schema 2 changed, so files of both are read, and compared with each other. 5 added `latencies`; its `io` counts all files.
pub(crate) const SCHEMA: u32 = 5;
/// The oldest that is still read.
pub(crate) const SCHEMA_OLDEST: u32 = 2;

/// A row's result in one repeat.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Version of this schema.
    #[schemars(range(min = SCHEMA_OLDEST, max = SCHEMA))]
    pub(crate) schema: u32,
    /// `bench/<suite>/<words>`.
    pub(crate) bench_name: String,
    /// The question that the row answers.
    pub(crate) question: String,
    /// What one operation is.
    pub(crate) unit: String,
    /// The profile that gave sizes and limits, and the machine.
    pub(crate) profile: ProfileFacts,
    /// The build.
    pub(crate) build: Build,
    /// The source's commit, where it is known.
    pub(crate) git: Option<Git>,
    /// What was asked for.
    pub(crate) config: Config,
    /// What was measured.
    pub(crate) results: Results,
    /// Which repeat, from 0.
    pub(crate) repeat: u32,
    /// Repeats in all.
    pub(crate) repeats: u32,
    /// When it was measured.
    pub(crate) timestamp_unix_s: u64,
}

/// A profile's name beside the facts of the machine.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ProfileFacts {
    /// The profile's name.
    pub(crate) name: String,
    /// The machine.
    #[serde(flatten)]
    pub(crate) machine: Machine,
}

/// How the program was built.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Build {
    /// Of the bench and the engine.
    pub(crate) version: String,
    /// `debug` or `release`.
    pub(crate) mode: String,
    /// The processor's architecture.
    pub(crate) target: String,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything random started.
    pub(crate) seed: u64,
    /// `full`, `quick` or `tiny`.
    pub(crate) size: String,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// Threads that measured.
    pub(crate) threads: usize,
    /// How the database was set up.
    pub(crate) db: BTreeMap<String, String>,
    /// Since schema 3: threads that were asked for instead of the row's own number.
    #[serde(default)]
    pub(crate) threads_asked: Option<usize>,
    /// Since schema 3: operations that were asked for before each loop that runs for a time.
    #[serde(default)]
    pub(crate) warmup_ops: u64,
    /// Since schema 3: nanoseconds that were asked for before each such loop.
    #[serde(default)]
    pub(crate) warmup_ns: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    /// Operations.
    pub(crate) ops_total: u64,
    /// Since schema 3: operations before them that warmed up. `io` holds what they did too.
    #[serde(default)]
    pub(crate) warmup_ops: u64,
    /// Wall time that they took, in nanoseconds.
    pub(crate) duration_ns: u64,
    /// Operations a second.
    pub(crate) ops_per_sec: f64,
    /// Latency of an operation in nanoseconds.
    pub(crate) latency_ns: Latency,
    /// Since schema 5: so many latencies were recorded: of operations, or of batches of them.
    #[serde(default)]
    pub(crate) latencies: Option<u64>,
    /// What happened to files; absent where no database took part.
    pub(crate) io: Option<Io>,
    /// Flushes a transaction; absent where nothing was committed.
    pub(crate) fsyncs_per_txn: Option<f64>,
    /// What the measuring threads allocated; absent, since schema 4, where it was not counted.
    pub(crate) alloc: Option<Alloc>,
    /// Allocations an operation; absent, since schema 4, where they were not counted.
    pub(crate) allocs_per_op: Option<f64>,
    /// Since schema 3: events of the measuring threads an operation, such as `cycles`; what the machine cannot count is absent.
    #[serde(default)]
    pub(crate) counters_per_op: BTreeMap<String, f64>,
    /// What the row is read against.
    pub(crate) floors: Vec<FloorResult>,
    /// Values of the table of figures.
    pub(crate) figures: Vec<FigureResult>,
    /// Further numbers, by name.
    pub(crate) extra: BTreeMap<String, f64>,
    /// Operations that failed. A row that meets one has no result, so this is 0.
    pub(crate) errors_total: u64,
    /// What a reader of the figure needs.
    pub(crate) notes: Vec<String>,
}

/// Percentiles.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    /// The median.
    pub(crate) p50: f64,
    /// One in twenty is slower.
    pub(crate) p95: f64,
    /// One in a hundred is slower.
    pub(crate) p99: f64,
    /// One in a thousand is slower.
    pub(crate) p99_9: f64,
    /// The slowest.
    pub(crate) max: f64,
}

/// What the engine did to files.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Io {
    /// Transactions committed.
    pub(crate) txns: u64,
    /// Flushes of the log for groups.
    pub(crate) fsync_log: u64,
    /// All other flushes: of the data file, and of segments of the log that are made ready. Older results lack the latter.
    pub(crate) fsync_data: u64,
    /// Bytes read from all files.
    pub(crate) bytes_read: u64,
    /// Bytes written to all files.
    pub(crate) bytes_written: u64,
    /// Pages read because they were not in memory.
    pub(crate) page_reads: u64,
}

/// Allocations.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alloc {
    /// How many.
    pub(crate) count: u64,
    /// Of how many bytes.
    pub(crate) bytes: u64,
}

/// A floor, and the row beside it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FloorResult {
    /// What the raw loop did.
    pub(crate) what: String,
    /// Its figure.
    pub(crate) value: f64,
    /// `ns`, `per_second`, `bytes_per_second`, `bytes`, `count` or `ratio`.
    pub(crate) unit: String,
    /// The row's figure divided by the floor's.
    pub(crate) ratio: f64,
}

/// A figure with its verdict.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FigureResult {
    /// Its name in profiles.
    pub(crate) id: String,
    /// What was measured.
    pub(crate) value: f64,
    /// The limit.
    pub(crate) limit: f64,
    /// The floor that the limit is a factor of.
    pub(crate) floor: Option<f64>,
    /// On the good side; absent where the run is too small for the limit to mean anything.
    pub(crate) met: Option<bool>,
}

impl Results {
    /// Operations that `io` counts.
    pub(crate) fn ops_with_warmup(&self) -> u64 {
        (self.ops_total + self.warmup_ops).max(1)
    }
}

impl Record {
    /// The name without `bench/`.
    pub(crate) fn short(&self) -> &str {
        self.bench_name
            .strip_prefix("bench/")
            .unwrap_or(&self.bench_name)
    }

    /// Where it lies below a directory of results.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}_r{:03}.json", self.short(), self.repeat))
    }

    /// Reads a result.
    ///
    /// # Errors
    /// What is not a result of this schema, or has numbers that no run can have given.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |why: String| BenchError::Result {
            path: path.to_owned(),
            why,
        };
        let any: serde_json::Value =
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let schema = any.get("schema").and_then(serde_json::Value::as_u64);
        let known = u64::from(SCHEMA_OLDEST)..=u64::from(SCHEMA);
        if !schema.is_some_and(|found| known.contains(&found)) {
            let found = schema.map_or_else(|| "none".to_owned(), |found| found.to_string());
            return Err(wrong(format!(
                "schema is {found}, expected {SCHEMA_OLDEST} to {SCHEMA}"
            )));
        }
        // Not from `any`: errors of text have a place.
        let record: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match record.fault() {
            Some(why) => Err(wrong(why)),
            None => Ok(record),
        }
    }

    /// A number that cannot be.
    fn fault(&self) -> Option<String> {
        if !is_name(&self.bench_name) {
            return Some(format!(
                "bench_name is {:?}, expected bench/<suite>/<words> of small letters, digits and _",
                self.bench_name
            ));
        }
        let Results {
            ops_total,
            ops_per_sec,
            latency_ns,
            allocs_per_op,
            errors_total,
            fsyncs_per_txn,
            floors,
            duration_ns,
            ..
        } = &self.results;
        let Latency {
            p50,
            p95,
            p99,
            p99_9,
            max,
        } = *latency_ns;
        if *ops_total == 0 || *ops_per_sec <= 0.0 {
            return Some(format!(
                "ops_total is {ops_total} and ops_per_sec {ops_per_sec}, expected more than 0"
            ));
        }
        if !(0.0 < p50 && p50 <= p95 && p95 <= p99 && p99 <= p99_9 && p99_9 <= max) {
            return Some(format!("latency_ns does not rise: {latency_ns:?}"));
        }
        let counters = &self.results.counters_per_op;
        if let Some((name, count)) = counters.iter().find(|(_, count)| **count < 0.0) {
            return Some(format!("counters_per_op.{name} is {count}"));
        }
        if allocs_per_op.is_some_and(|allocs| allocs < 0.0) || *errors_total > 0 {
            return Some(format!(
                "allocs_per_op is {allocs_per_op:?} and errors_total {errors_total}"
            ));
        }
        if fsyncs_per_txn.is_some_and(|flushes| flushes < 0.0) {
            return Some(format!("fsyncs_per_txn is {fsyncs_per_txn:?}"));
        }
        if let Some(floor) = floors
            .iter()
            .find(|floor| floor.ratio <= 0.0 || floor.value <= 0.0)
        {
            return Some(format!(
                "{} is {} and the row {} times it, expected more than 0",
                floor.what, floor.value, floor.ratio
            ));
        }
        if *duration_ns == 0 {
            return Some("duration_ns is 0".to_owned());
        }
        if self.repeat >= self.repeats {
            return Some(format!(
                "repeat is {}, of {} from 0 on",
                self.repeat, self.repeats
            ));
        }
        None
    }

    /// Writes it below `dir`, once it was seen to read back.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        self.stage(dir)?.place()
    }

    /// Writes it beside its place below `dir`.
    pub(crate) fn stage(&self, dir: &Path) -> Result<Staged> {
        let path = self.path(dir);
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| BenchError::file(&path)(std::io::Error::other(error)))?;
        text.push('\n');
        Self::parse(&path, &text)?;
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).map_err(BenchError::file(folder))?;
        // Whole or not there, whenever the run ends.
        let part = path.with_extension("part");
        std::fs::write(&part, text).map_err(BenchError::file(&part))?;
        Ok(Staged { part, path })
    }

    /// All results in a file or below a directory, by name and repeat.
    ///
    /// # Errors
    /// The first that is none, or if there is none at all.
    pub(crate) fn read_all(path: &Path) -> Result<BTreeMap<String, Vec<Self>>> {
        let all = Self::read_any(path)?;
        if all.is_empty() {
            return Err(BenchError::Result {
                path: path.to_owned(),
                why: "holds no results, expected files that end in .json".to_owned(),
            });
        }
        Ok(all)
    }

    /// The same where there may be none.
    ///
    /// # Errors
    /// The first that is none.
    pub(crate) fn read_any(path: &Path) -> Result<BTreeMap<String, Vec<Self>>> {
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let mut files = Vec::new();
        find(path, &mut files)?;
        // What a run, or a comparison with other engines, leaves beside its results.
        let beside = |name: &str| name == crate::summary::FILE || name.starts_with("versus");
        files.retain(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            file == path || !name.is_some_and(beside)
        });
        let mut all: BTreeMap<String, Vec<Self>> = BTreeMap::new();
        for file in &files {
            let text = std::fs::read_to_string(file).map_err(BenchError::file(file))?;
            let record = Self::parse(file, &text)?;
            all.entry(record.bench_name.clone())
                .or_default()
                .push(record);
        }
        for repeats in all.values_mut() {
            repeats.sort_by_key(|record| record.repeat);
        }
        Ok(all)
    }

    /// Removes all repeats of the row called `name` from a directory of results, and nothing else.
    pub(crate) fn remove(dir: &Path, name: &str) -> Result<()> {
        let place = dir.join(name.strip_prefix("bench/").unwrap_or(name));
        let (Some(folder), Some(row)) = (place.parent(), place.file_name()) else {
            return Ok(());
        };
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let is_repeat = stem
                .and_then(|stem| stem.rsplit_once("_r"))
                .is_some_and(|(name, n)| Some(name) == row.to_str() && n.parse::<u32>().is_ok());
            if is_repeat && path.extension().is_some_and(|end| end == "json") {
                std::fs::remove_file(&path).map_err(BenchError::file(&path))?;
            }
        }
        Ok(())
    }

    /// The published schema.
    pub(crate) fn schema() -> String {
        let schema = schemars::schema_for!(Self);
        let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// A result that was written beside its place.
#[derive(Debug)]
pub(crate) struct Staged {
    part: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Puts it there, over what was.
    pub(crate) fn place(self) -> Result<()> {
        std::fs::rename(&self.part, &self.path).map_err(BenchError::file(&self.path))
    }
}

/// Whether a row may be called so. Its file is, too: a name leads nowhere else.
fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        let is_letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !word.is_empty() && word.bytes().all(is_letter)
    };
    let words = name.strip_prefix("bench/").map(|rest| rest.split('/'));
    words.is_some_and(|words| words.clone().count() >= 2 && words.clone().all(is_word))
}

/// Result files at or below `path`.
fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(BenchError::file(path))?;
    for entry in entries {
        let entry = entry.map_err(BenchError::file(path))?.path();
        if entry.is_dir() {
            find(&entry, files)?;
        } else if entry.extension().is_some_and(|end| end == "json") {
            files.push(entry);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A result as a run may give it.
    pub(crate) fn record() -> Record {
        Record {
            schema: SCHEMA,
            bench_name: "bench/log/commit_solo_durable".to_owned(),
            question: "How long?".to_owned(),
            unit: "commit".to_owned(),
            profile: ProfileFacts {
                name: "ci".to_owned(),
                machine: Machine::read(Path::new(".")),
            },
            build: Build {
                version: "0.1.0".to_owned(),
                mode: "release".to_owned(),
                target: "x86_64".to_owned(),
            },
            git: None,
            config: Config {
                seed: 1,
                size: "full".to_owned(),
                scale: Scale::tiny(),
                threads: 1,
                db: BTreeMap::new(),
                threads_asked: None,
                warmup_ops: 0,
                warmup_ns: 0,
            },
            results: Results {
                ops_total: 1000,
                warmup_ops: 0,
                duration_ns: 100_000_000,
                ops_per_sec: 10_000.0,
                latency_ns: Latency {
                    p50: 100_000.0,
                    p95: 110_000.0,
                    p99: 120_000.0,
                    p99_9: 130_000.0,
                    max: 140_000.0,
                },
                latencies: Some(1000),
                io: Some(Io {
                    txns: 1000,
                    fsync_log: 1000,
                    fsync_data: 0,
                    bytes_read: 0,
                    bytes_written: 4_096_000,
                    page_reads: 0,
                }),
                fsyncs_per_txn: Some(1.0),
                alloc: Some(Alloc { count: 0, bytes: 0 }),
                allocs_per_op: Some(0.0),
                counters_per_op: BTreeMap::from([("cycles".to_owned(), 1234.5)]),
                floors: vec![FloorResult {
                    what: "raw append + flush".to_owned(),
                    value: 95_000.0,
                    unit: "ns".to_owned(),
                    ratio: 1.05,
                }],
                figures: Vec::new(),
                extra: BTreeMap::new(),
                errors_total: 0,
                notes: Vec::new(),
            },
            repeat: 0,
            repeats: 5,
            timestamp_unix_s: 1,
        }
    }

    #[test]
    fn a_result_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let written = record();
        written.write(dir.path()).unwrap();
        let all = Record::read_all(dir.path()).unwrap();
        let read = &all["bench/log/commit_solo_durable"][0];
        assert_eq!(
            serde_json::to_value(read).unwrap(),
            serde_json::to_value(written).unwrap()
        );
    }

    #[test]
    fn only_a_rows_own_repeats_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        let mut longer = record();
        longer.bench_name = "bench/log/commit_solo_durable_twice".to_owned();
        longer.write(dir.path()).unwrap();
        let other = dir.path().join("log/commit_solo_durable_rest.json");
        std::fs::write(&other, "mine").unwrap();
        Record::remove(dir.path(), "bench/log/commit_solo_durable").unwrap();
        Record::remove(dir.path(), "bench/none/at_all").unwrap();
        std::fs::remove_file(&other).unwrap();
        let left = Record::read_all(dir.path()).unwrap();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), [longer.bench_name]);
    }

    #[test]
    fn what_cannot_be_a_result_is_refused_and_says_why() {
        let why = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = serde_json::to_value(record()).unwrap();
            change(&mut value);
            let error = Record::parse(Path::new("x.json"), &value.to_string()).unwrap_err();
            error.to_string()
        };
        let latency = "results.latency_ns.p99";
        assert!(why(&|v| v["schema"] = 1.into()).contains("schema is 1, expected 2 to 5"));
        assert!(why(&|v| v["schema"] = 6.into()).contains("schema is 6"));
        assert!(why(&|v| v["odd"] = 1.into()).contains("odd"));
        let cycles =
            |v: &mut serde_json::Value| v["results"]["counters_per_op"]["cycles"] = (-1).into();
        assert!(why(&cycles).contains("counters_per_op.cycles is -1"));
        assert!(
            why(&|v| v["results"]["latency_ns"]["p99"] = 1.into()).contains("rise"),
            "{latency}"
        );
        assert!(why(&|v| v["results"]["ops_total"] = 0.into()).contains("ops_total"));
        assert!(why(&|v| v["repeat"] = 5.into()).contains("repeat is 5"));
        for name in [
            "bench/log",
            "log/x",
            "bench/log/",
            "bench/../../x",
            "bench/log/a b",
            "bench/Log/x",
        ] {
            assert!(
                why(&|v| v["bench_name"] = name.into()).contains("bench_name is"),
                "{name}"
            );
        }
        let results = |name: &str, number: i64| {
            why(&|v: &mut serde_json::Value| v["results"][name] = number.into())
        };
        for (name, number) in [
            ("fsyncs_per_txn", -3),
            ("allocs_per_op", -1),
            ("duration_ns", 0),
        ] {
            let told = results(name, number);
            assert!(told.contains(name), "{told}");
        }
        let floor = why(&|v| v["results"]["floors"][0]["ratio"] = (-5).into());
        assert!(floor.contains("the row -5 times it"), "{floor}");
    }

    /// A file as builds from before schema 3 wrote it.
    #[test]
    fn results_of_schema_2_are_still_read_and_fit_the_published_schema() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["schema"] = 2.into();
        let since_3 = [
            (
                "profile",
                &["queue", "mount_options", "direct_io", "governor", "memlock"][..],
            ),
            (
                "profile",
                &[
                    "transparent_huge_pages",
                    "io_uring",
                    "cgroup",
                    "virtual_machine",
                    "hardware_counters",
                ],
            ),
            ("config", &["threads_asked", "warmup_ops", "warmup_ns"]),
            ("results", &["warmup_ops", "counters_per_op"]),
        ];
        for (part, names) in since_3 {
            for name in names {
                let removed = value[part].as_object_mut().unwrap().remove(*name);
                assert!(removed.is_some(), "{part}.{name}");
            }
        }
        let schema = serde_json::from_str(&Record::schema()).unwrap();
        assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&value));
        let old = Record::parse(Path::new("x.json"), &value.to_string()).unwrap();
        assert_eq!(old.schema, 2);
        assert!(old.results.counters_per_op.is_empty() && old.profile.machine.queue.is_none());
    }

    #[test]
    fn the_published_schema_is_that_of_the_types_and_fits_what_is_written() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/nsbench_result.schema.json");
        let published = std::fs::read_to_string(path).unwrap();
        assert_eq!(published, Record::schema(), "run `nsbench schema`");
        let schema = serde_json::from_str(&published).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let good = serde_json::to_value(record()).unwrap();
        assert!(validator.is_valid(&good));
        let mut bad = good;
        bad["results"]["ops_total"] = "many".into();
        assert!(!validator.is_valid(&bad));
    }
}
