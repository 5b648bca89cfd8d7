//! Every row of every suite runs, at sizes that say nothing about speed, and leaves nothing behind but its results.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn nsbench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsbench"));
    command.args(args);
    for variable in ["FILTER", "SUITE", "THREADS", "WARMUP_OPS", "WARMUP_NS"] {
        command.env_remove(format!("NSBENCH_{variable}"));
    }
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A run with tiny inputs that ended well, and removed its scratch.
struct Tiny {
    stderr: String,
    dir: tempfile::TempDir,
}

impl Tiny {
    fn run(args: &[&str], path: Option<&str>) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut command = nsbench(args);
        command.args(["--tiny", "--profile", "ci", "--json"]);
        command.arg(dir.path().join("json"));
        command.arg("--dir").arg(dir.path().join("scratch"));
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = command.output().unwrap();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{stdout}{stderr}");
        assert!(
            !stdout.contains('\u{1b}'),
            "a pipe sees no colours: {stdout}"
        );
        assert!(!dir.path().join("scratch").exists(), "scratch stays behind");
        Self {
            stderr: stderr.to_owned(),
            dir,
        }
    }

    /// The results of a suite.
    fn results(&self, suite: &str) -> Vec<Value> {
        let dir = self.dir.path().join("json").join(suite);
        let names = files(&dir);
        let read = |name: String| {
            assert!(name.ends_with("_r000.json"), "{name}");
            serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
        };
        names.into_iter().map(read).collect()
    }

    /// How many rows it said to have skipped; it said nothing else on standard error, where a pipe sees no progress bar.
    fn skipped(&self) -> usize {
        let lines = self.stderr.lines();
        let said = lines.inspect(|line| assert!(line.contains(": skipped: "), "{line}"));
        said.count()
    }
}

/// The rows of a suite, each with its mark.
fn listed(suite: &str) -> Vec<(String, bool)> {
    let listed = nsbench(&["list", "--json", "--suite", suite])
        .output()
        .unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let row = |row: &Value| {
        let name = row["bench_name"].as_str().unwrap().to_owned();
        (name, row["critical"].as_bool().unwrap())
    };
    rows.iter().map(row).collect()
}

/// The row that its suite alone does not run.
const HOUR: &str = "bench/load/sustained_1hour";

/// Runs a suite with tiny inputs: one sound result for each row, which a gate can judge if the row is critical. Only rows
/// that count instructions may be skipped, where there is no valgrind.
fn check(suite: &str) {
    let run = Tiny::run(&["--suite", suite], None);
    let (mut rows, results) = (listed(suite), run.results(suite));
    rows.retain(|(name, _)| name != HOUR);
    let skipped = match suite {
        "instructions" => run.skipped(),
        _ => {
            assert_eq!(run.stderr, "");
            0
        }
    };
    assert_eq!(results.len() + skipped, rows.len(), "{}", run.stderr);
    for result in &results {
        sound(result);
        let name = result["bench_name"].as_str().unwrap();
        let critical = rows.iter().any(|(row, critical)| row == name && *critical);
        if critical {
            judgeable(name, &result["results"]);
        }
    }
}

fn sound(result: &Value) {
    let (name, results) = (&result["bench_name"], &result["results"]);
    assert_eq!(result["config"]["seed"], 1, "{name}");
    assert_eq!(result["profile"]["name"], "ci", "{name}");
    assert!(results["ops_total"].as_u64().unwrap() > 0, "{name}");
    assert!(
        results["latency_ns"]["p99"].as_f64().unwrap() > 0.0,
        "{name}"
    );
}

/// Where times are not judged, ratios to what the same run measured are, and instructions: a critical row has one of them,
/// and each of its figures that is a factor has its ratio too.
fn judgeable(name: &str, results: &Value) {
    let floors = results["floors"].as_array().unwrap();
    let ratios = floors.iter().map(|floor| floor["ratio"].as_f64().unwrap());
    let instructions = results["extra"].get("instructions_per_op");
    assert!(
        instructions.is_some() || !floors.is_empty(),
        "{name} has no ratio"
    );
    for ratio in ratios.clone() {
        assert!(ratio.is_finite() && ratio > 0.0, "{name}: {ratio}");
    }
    for figure in results["figures"].as_array().unwrap() {
        if let Some(floor) = figure["floor"].as_f64() {
            let factor = figure["value"].as_f64().unwrap() / floor;
            assert!(
                ratios
                    .clone()
                    .any(|ratio| (ratio / factor - 1.0).abs() < 1e-6),
                "{name}: no ratio is {factor} as {} is",
                figure["id"]
            );
        }
    }
}

#[test]
fn floor_rows_run() {
    check("floor");
}

#[test]
fn io_rows_run() {
    check("io");
}

#[test]
fn cache_rows_run() {
    check("cache");
}

#[test]
fn instructions_rows_run_or_say_why_not() {
    check("instructions");
    // As on a machine without valgrind: each row says so, and fails nothing.
    let run = Tiny::run(&["--suite", "instructions"], Some("/no/such/place"));
    assert_eq!(run.skipped(), listed("instructions").len());
    assert!(run.stderr.contains("valgrind is not installed"));
    assert_eq!(files(&run.dir.path().join("json")), ["summary.json"]);
}

#[test]
fn hardening_rows_run() {
    check("hardening");
}

#[test]
fn soak_rows_run() {
    check("soak");
}

#[test]
fn a_soak_runs_only_if_it_is_asked_for_and_the_list_says_so() {
    let listed = nsbench(&["list"]).output().unwrap();
    let line = |name: &str| {
        let mut lines = text(&listed.stdout).lines();
        lines.find(|line| line.contains(name)).unwrap().to_owned()
    };
    assert!(line("bench/soak/steady_mixed").contains("only with --suite or --filter"));
    assert!(!line("bench/btree/point_get_hot_1m ").contains("only with"));
    assert!(line(HOUR).contains("only with --filter"));
    // A part of its name that other rows have too does not mean it.
    let run = Tiny::run(&["--filter", "mixed"], None);
    assert_eq!(
        files(&run.dir.path().join("json")),
        ["btree", "hardening", "load", "summary.json"]
    );
}

#[test]
fn load_rows_run() {
    check("load");
}

#[test]
fn an_hour_runs_only_if_it_is_named_and_is_short_in_a_test() {
    for name in [HOUR, "1hour"] {
        let results = Tiny::run(&["--filter", name], None).results("load");
        assert_eq!(results.len(), 1, "{name}");
        sound(&results[0]);
        assert_eq!(results[0]["bench_name"], HOUR);
    }
}

#[test]
fn pager_rows_run() {
    check("pager");
}

#[test]
fn btree_rows_run() {
    check("btree");
}

#[test]
fn mvcc_rows_run() {
    check("mvcc");
}

#[test]
fn log_rows_run() {
    check("log");
}

#[test]
fn store_rows_run() {
    check("store");
}

#[test]
fn timetravel_rows_run() {
    check("timetravel");
}

#[test]
fn macro_rows_run() {
    check("macro");
}

/// What warms up is in the engine's counters and in its rows, and is no part of what is told of those that were timed.
#[test]
fn a_warm_up_changes_no_answer_and_no_count_an_operation() {
    let warmed = |row: &str| {
        let words = ["--filter", row, "--warmup-ops", "30", "--warmup-ns", "1000"];
        let run = Tiny::run(&words, None);
        assert_eq!(run.stderr, "", "{row}");
        let suite = row.split('/').next().unwrap();
        let mut results = run.results(suite);
        assert_eq!(results.len(), 1, "{row}");
        results.remove(0)["results"].take()
    };
    let number = |results: &Value, path: &str| results.pointer(path).unwrap().as_f64().unwrap();
    // Rows and rounds: what was done for each of the 30.
    for (row, each) in [
        ("store/random_puts_beyond_cache", 1000.0),
        ("store/disk_after_overwrites", 1.0),
        ("btree/mixed_80_20_1m", 4.0 * 10.0),
    ] {
        let results = warmed(row);
        let warmup = number(&results, "/warmup_ops");
        assert!(warmup >= 30.0 * each, "{row}: {warmup}");
        let bytes_put = match row {
            "store/disk_after_overwrites" => 116_000.0,
            "btree/mixed_80_20_1m" => 116.0 / 5.0,
            _ => 116.0,
        };
        let ops = number(&results, "/ops_total") + warmup;
        let written = number(&results, "/io/bytes_written") / ops / bytes_put;
        let told = number(&results, "/extra/bytes_written_per_byte_put");
        // A loop so short may end before the first write.
        assert!(
            (told - written).abs() <= 1e-6 * written,
            "{row}: {told}, {written}"
        );
    }
    // Its answer is checked against what was done.
    assert!(number(&warmed("mvcc/conflict_detection_basic"), "/warmup_ops") >= 180.0);
    // Four blocks, each with a last commit that is waited for.
    let results = warmed("log/append_commit_record");
    let done = number(&results, "/ops_total") + number(&results, "/warmup_ops");
    assert_eq!(number(&results, "/io/txns"), done + 4.0);
    // The second database has as many commits as the first had with its warm-up.
    assert!(number(&warmed("timetravel/held_snapshot"), "/ops_total") > 30.0);
}

/// Threads that warm up for longer than they are timed.
#[test]
fn a_warm_up_of_threads_takes_no_time_that_is_counted() {
    let words = ["--filter", "log/commit_32", "--warmup-ns", "400000000"];
    let run = Tiny::run(&words, None);
    let results = run.results("log");
    let took = results[0]["results"]["duration_ns"].as_f64().unwrap();
    assert!(took < 4e8, "{took} ns, of loops of 20 ms");
}

#[test]
fn bad_use_exits_with_2_and_says_what_is_wrong() {
    for (args, what) in [
        (&["--filter", "no_such_row"][..], "no_such_row"),
        (&["--profile", "fastest"][..], "fastest"),
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["versus", "--rivals", "leveldb"][..], "leveldb"),
        (&["versus", "--repeats", "0"][..], "--repeats"),
    ] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut command = nsbench(args);
        command.arg("--dir").arg(dir.path().join("s"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(what),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}
