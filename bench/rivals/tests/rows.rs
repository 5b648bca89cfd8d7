//! Every row runs on every engine that was built, at sizes that say nothing about speed, and leaves only its results.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn nsrivals(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsrivals"))
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_row_runs_on_every_engine_that_was_built() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("every_row");
    let (scratch, json) = (dir.join("scratch"), dir.join("results.json"));
    let paths = [scratch.to_str().unwrap(), json.to_str().unwrap()];
    let output = nsrivals(&[
        "--tiny",
        "--repeats",
        "2",
        "--dir",
        paths[0],
        "--json",
        paths[1],
    ]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "", "a pipe sees no progress");
    assert!(!scratch.exists(), "scratch stays behind");

    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = results["rows"].as_array().unwrap();
    let listed = nsrivals(&["list"]);
    assert_eq!(rows.len(), text(&listed.stdout).lines().count());
    let engines = results["engines"].as_array().unwrap();
    let there = engines
        .iter()
        .filter(|engine| engine["skipped"].is_null())
        .count();
    assert!(there >= 1);
    for row in rows {
        let first = row["metrics"][0]["id"].as_str().unwrap();
        let of = row["engines"].as_array().unwrap();
        assert_eq!(of.len(), there, "{}", row["name"]);
        for result in of {
            assert_eq!(result["status"], "ok", "{}: {result}", row["name"]);
            let median = result["values"][first]["median"].as_f64().unwrap();
            assert!(median > 0.0, "{}: {result}", row["name"]);
            assert!(
                result["rows_checked"].as_u64().unwrap() > 0,
                "{}: {result}",
                row["name"]
            );
        }
        assert!(stdout.contains(row["name"].as_str().unwrap()));
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn bad_use_exits_with_2_and_says_what_is_wrong() {
    for (args, what) in [
        (&["--filter", "no_such_row"][..], "no_such_row"),
        (&["--rivals", "leveldb"][..], "leveldb"),
        (&["--repeats", "0"][..], "--repeats"),
        (
            &[
                "--tiny",
                "--filter",
                "beyond/get",
                "--memory-group",
                "no/such/group",
            ][..],
            "no/such/group",
        ),
    ] {
        let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad_use");
        let output = nsrivals(&[args, &["--dir", dir.to_str().unwrap()]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(what), "{args:?}: {stderr}");
    }
}

#[test]
fn an_engine_that_was_left_out_is_named_twice_with_its_reason() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("left_out");
    let output = nsrivals(&[
        "--tiny",
        "--filter",
        "load/sorted_one",
        "--rivals",
        "rocksdb",
        "--skipped",
        "rocksdb=no C++ compiler",
        "--dir",
        dir.to_str().unwrap(),
    ]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert_eq!(
        stdout.matches("SKIPPED: no C++ compiler").count(),
        2,
        "{stdout}"
    );
}
