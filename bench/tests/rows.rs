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
    let results = files(&json.join(suite));
    assert_eq!(results.len(), rows, "{results:?}");
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
