//! Every row of every suite runs, at sizes that say nothing about speed, and leaves nothing behind but its results.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn nsbench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsbench"))
        .args(args)
        .env_remove("NSBENCH_FILTER")
        .env_remove("NSBENCH_SUITE")
        .output()
        .unwrap()
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

/// Runs a suite with tiny inputs: it ends well, stays quiet, writes one sound file for each row, removes its scratch.
fn check(suite: &str) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (json, scratch) = (dir.path().join("json"), dir.path().join("scratch"));
    let paths = [json.to_str().unwrap(), scratch.to_str().unwrap()];
    let output = nsbench(&[
        "--tiny",
        "--profile",
        "ci",
        "--suite",
        suite,
        "--json",
        paths[0],
        "--dir",
        paths[1],
    ]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "", "a pipe sees no progress bar");
    assert!(
        !stdout.contains('\u{1b}'),
        "a pipe sees no colours: {stdout}"
    );
    assert!(!scratch.exists(), "scratch stays behind");

    let listed = nsbench(&["list", "--suite", suite]);
    let rows = text(&listed.stdout)
        .lines()
        .filter(|line| line.contains("bench/"))
        .count();
    let skipped = stdout.matches(" SKIPPED: ").count();
    if skipped == rows && suite == "instructions" {
        // No valgrind here: that is said of each row, and fails nothing.
        assert!(stdout.contains("runs SKIPPED for want of"), "{stdout}");
        return;
    }
    let results = files(&json.join(suite));
    assert_eq!((results.len(), skipped), (rows, 0), "{results:?}");
    for name in results {
        assert!(name.ends_with("_r000.json"), "{name}");
        let json = std::fs::read(json.join(suite).join(&name)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["config"]["seed"], 1, "{name}");
        assert_eq!(json["profile"]["name"], "ci", "{name}");
        assert!(json["results"]["ops_total"].as_u64().unwrap() > 0, "{name}");
        assert!(
            json["results"]["latency_ns"]["p99"].as_f64().unwrap() > 0.0,
            "{name}"
        );
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
}

#[test]
fn soak_rows_run() {
    check("soak");
}

#[test]
fn a_soak_runs_only_if_it_is_asked_for_and_the_list_says_so() {
    let listed = nsbench(&["list"]);
    let line = |name: &str| {
        let mut lines = text(&listed.stdout).lines();
        lines.find(|line| line.contains(name)).unwrap().to_owned()
    };
    assert!(line("bench/soak/steady_mixed").contains("only with --suite or --filter"));
    assert!(!line("bench/btree/point_get_hot_1m ").contains("only with"));
    // A part of its name that other rows have too does not mean it.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (json, scratch) = (dir.path().join("json"), dir.path().join("scratch"));
    let paths = [json.to_str().unwrap(), scratch.to_str().unwrap()];
    let output = nsbench(&[
        "--tiny", "--filter", "mixed", "--json", paths[0], "--dir", paths[1],
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(files(&json), ["btree", "summary.json"]);
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
fn bad_use_exits_with_2_and_says_what_is_wrong() {
    for (args, what) in [
        (&["--filter", "no_such_row"][..], "no_such_row"),
        (&["--profile", "fastest"][..], "fastest"),
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["versus", "--rivals", "leveldb"][..], "leveldb"),
        (&["versus", "--repeats", "0"][..], "--repeats"),
    ] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let output = nsbench(&[args, &["--dir", dir.path().join("s").to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(what),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}
