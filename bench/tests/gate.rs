//! What the gate and its company answer, by their exit codes: 0 passed, 1 regressed, 2 bad use, 3 too noisy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn nsbench(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nsbench"))
        .args(args)
        .env_remove("NSBENCH_FILTER")
        .env_remove("NSBENCH_SUITE")
        .env_remove("NSBENCH_JSON")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap();
    (code, String::from_utf8_lossy(&text).into_owned())
}

/// Results of five repeats of one row, and a copy of them with one number changed in each.
struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    fn measure() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (before, scratch) = (dir.path().join("before"), dir.path().join("scratch"));
        let (code, text) = nsbench(&[
            "--tiny",
            "--profile",
            "ci",
            "--filter",
            "commit_solo_durable",
            "--repeats",
            "5",
            "--json",
            before.to_str().unwrap(),
            "--dir",
            scratch.to_str().unwrap(),
        ]);
        assert_eq!(code, 0, "{text}");
        Self { dir }
    }

    fn before(&self) -> PathBuf {
        self.dir.path().join("before")
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("kept")
    }

    fn after(&self) -> PathBuf {
        self.dir.path().join("after")
    }

    /// The gate's answer to results that are as before but for `change`.
    fn gate(&self, change: impl Fn(usize, &mut Value)) -> (i32, String) {
        self.write(change);
        self.answer(&[])
    }

    /// Writes results before, and after but for `change`. All repeats are made the same first: what this machine's noise was is
    /// not the question.
    fn write(&self, change: impl Fn(usize, &mut Value)) {
        let (kept, after) = (self.kept(), self.after());
        for dir in [&kept, &after] {
            drop(std::fs::remove_dir_all(dir));
        }
        let files = |dir: &Path| -> Vec<PathBuf> {
            let mut files: Vec<_> = std::fs::read_dir(dir.join("log"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            files
        };
        let found = files(&self.before());
        assert_eq!(found.len(), 5);
        let first: Value = serde_json::from_slice(&std::fs::read(&found[0]).unwrap()).unwrap();
        for (repeat, file) in found.iter().enumerate() {
            let mut value = first.clone();
            value["repeat"] = repeat.into();
            for (dir, changed) in [(&kept, false), (&after, true)] {
                if changed {
                    change(repeat, &mut value);
                }
                let dir = dir.join("log");
                std::fs::create_dir_all(&dir).unwrap();
                let path = dir.join(file.file_name().unwrap());
                std::fs::write(path, value.to_string()).unwrap();
            }
        }
    }

    /// The gate's answer to what was written.
    fn answer(&self, words: &[&str]) -> (i32, String) {
        let (kept, after) = (self.kept(), self.after());
        let args = [
            "gate",
            kept.to_str().unwrap(),
            "--results",
            after.to_str().unwrap(),
        ];
        nsbench(&[&args[..], words].concat())
    }
}

const ROW: &str = "log/commit_solo_durable";

/// The file of a repeat of the row that was measured, as if it were of `row`.
fn as_row(dir: &Path, repeat: usize, row: &str) {
    let file = |row: &str| dir.join(format!("{row}_r{repeat:03}.json"));
    let mut value: Value = serde_json::from_slice(&std::fs::read(file(ROW)).unwrap()).unwrap();
    value["bench_name"] = format!("bench/{row}").into();
    std::fs::create_dir_all(file(row).parent().unwrap()).unwrap();
    std::fs::write(file(row), value.to_string()).unwrap();
}

fn times(value: &mut Value, factor: f64) {
    *value = (value.as_f64().unwrap() * factor).into();
}

#[test]
fn the_gate_is_green_red_or_undecided() {
    let pair = Pair::measure();
    let code = |wanted, change: &dyn Fn(usize, &mut Value)| {
        let (code, text) = pair.gate(change);
        assert_eq!(code, wanted, "{text}");
    };
    code(0, &|_, _| {});
    // Times are not judged on this profile, ratios and counts are.
    code(0, &|_, now| times(&mut now["results"]["ops_per_sec"], 0.5));
    code(1, &|_, now| {
        times(&mut now["results"]["floors"][0]["ratio"], 1.3);
    });
    code(1, &|_, now| now["results"]["fsyncs_per_txn"] = 1.5.into());
    code(1, &|_, now| now["results"]["allocs_per_op"] = 99.0.into());
    code(3, &|repeat, now| {
        let swing = [1.0, 1.4, 0.8, 1.6, 1.3][repeat];
        times(&mut now["results"]["floors"][0]["ratio"], swing);
    });
    code(2, &|_, now| now["schema"] = 1.into());
    code(2, &|_, now| now["config"]["size"] = "full".into());
    // One repeat of another run is enough.
    let last = |repeat: usize| repeat == 4;
    code(2, &|repeat, now| {
        if last(repeat) {
            now["config"]["seed"] = 7.into();
        }
    });
    code(2, &|repeat, now| {
        if last(repeat) {
            now["git"] = serde_json::json!({"sha": "0".repeat(40), "branch": "x", "dirty": false});
        }
    });
    code(3, &|_, now| now["profile"]["core_count"] = 4711.into());
    code(3, &|_, now| now["profile"]["cpu_model"] = "Other".into());
    // Not even where it is worse, or better, or something is missing.
    code(3, &|_, now| {
        now["profile"]["core_count"] = 4711.into();
        now["results"]["fsyncs_per_txn"] = 9.into();
    });
    // A better ratio is no doubt, nor is one that is ten times as large, even of one repeat.
    let one = |now: &mut Value| now["repeats"] = 1.into();
    for (factor, wanted) in [(0.1, 0), (1.3, 3), (10.0, 1)] {
        pair.write(|_, now| {
            one(now);
            times(&mut now["results"]["floors"][0]["ratio"], factor);
        });
        for repeat in 1..5 {
            let file = pair.after().join(format!("{ROW}_r{repeat:03}.json"));
            std::fs::remove_file(file).unwrap();
        }
        let (code, text) = pair.answer(&[]);
        assert_eq!(code, wanted, "{factor}: {text}");
        assert_eq!(text.contains("too few repeats"), wanted == 3, "{text}");
    }
    let (code, text) = nsbench(&["gate", "no/such/place"]);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn what_is_not_there_does_not_pass_unless_it_was_not_asked_for() {
    let pair = Pair::measure();
    let says = |words: &[&str], wanted: i32, part: &str| {
        let (code, text) = pair.answer(words);
        assert_eq!(code, wanted, "{text}");
        assert!(text.contains(part), "{part}: {text}");
    };
    let after = |repeat: usize| pair.after().join(format!("{ROW}_r{repeat:03}.json"));
    // A number, a repeat, a row.
    pair.write(|_, now| now["results"]["floors"] = Value::Array(Vec::new()));
    says(&[], 1, "lacks times raw append + flush");
    pair.write(|_, _| {});
    std::fs::remove_file(after(2)).unwrap();
    says(&[], 1, "results of 4 of 5 repeats");
    pair.write(|_, _| {});
    (0..5).for_each(|repeat| as_row(&pair.kept(), repeat, "log/other"));
    says(
        &[],
        1,
        "bench/log/other was measured before and has no result now",
    );
    says(&["--filter", "solo_durable"], 0, "passed");
    says(&["--filter", "other"], 1, "bench/log/other");
    says(&["--suite", "log"], 1, "bench/log/other");
    says(&["--suite", "btree"], 2, "no row matches btree");
    // A row that does not block may be gone.
    std::fs::remove_dir_all(pair.kept()).unwrap();
    pair.write(|_, _| {});
    (0..5).for_each(|repeat| as_row(&pair.kept(), repeat, "floor/other"));
    says(&[], 0, "bench/floor/other has no result now");
    // The same repeat twice: another run's results are among them.
    let stale = pair.after().join("log/stale");
    std::fs::create_dir_all(&stale).unwrap();
    std::fs::copy(after(2), stale.join("x.json")).unwrap();
    says(&[], 2, "is there twice");
    let (kept, now) = (pair.kept(), pair.after());
    let (code, text) = nsbench(&["compare", kept.to_str().unwrap(), now.to_str().unwrap()]);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn the_gate_knows_from_the_summary_what_was_asked_for_and_what_failed_or_was_skipped() {
    let pair = Pair::measure();
    pair.write(|_, _| {});
    (0..5).for_each(|repeat| as_row(&pair.kept(), repeat, "log/other"));
    let summary = |asked: &str, end: &str| {
        let row = serde_json::json!({"end": end, "why": "no luck", "repeats": 0, "numbers": {}});
        let summary = serde_json::json!({"summary": 1, "suites": {}, "asked": [{"filter": asked, "suite": null}],
            "rows": {"bench/log/other": row}});
        std::fs::write(pair.after().join("summary.json"), summary.to_string()).unwrap();
        pair.answer(&[])
    };
    let (code, text) = summary("solo_durable", "passed");
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("the run was asked for --filter solo_durable"),
        "{text}"
    );
    let (code, text) = summary("log/", "failed");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("bench/log/other failed: no luck"), "{text}");
    let (code, text) = summary("log/", "skipped");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("is skipped now: no luck"), "{text}");
}

#[test]
fn who_reads_the_output_does_not_change_the_verdict() {
    let pair = Pair::measure();
    let ends = |out: Stdio| {
        let mut gate = Command::new(env!("CARGO_BIN_EXE_nsbench"));
        gate.arg("gate")
            .arg(pair.kept())
            .arg("--results")
            .arg(pair.after());
        for variable in ["FILTER", "SUITE", "JSON"] {
            gate.env_remove(format!("NSBENCH_{variable}"));
        }
        let mut child = gate.stdout(out).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap().code()
    };
    // Gone before the first line is written.
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let full = || {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        Stdio::from(full.unwrap())
    };
    pair.write(|_, now| now["results"]["fsyncs_per_txn"] = 1.5.into());
    assert_eq!(ends(gone()), Some(1), "red");
    assert_eq!(ends(full()), Some(1));
    pair.write(|_, _| {});
    assert_eq!(ends(gone()), Some(0), "green");
    assert_eq!(ends(full()), Some(1), "it could not be written");
}

/// A build in the other's place: a script that lists a row more and runs this one.
fn other_build(dir: &Path) -> PathBuf {
    let path = dir.join("nsbench");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = list ]; then echo bench/log/gone bench/floor/gone; fi\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_nsbench")
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn against_another_build_rows_of_both_are_expected_and_skipped_ones_are_said() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let other = other_build(dir.path());
    let against = |filter: &str, path: Option<&str>| {
        let mut gate = Command::new(env!("CARGO_BIN_EXE_nsbench"));
        gate.args([
            "gate",
            "--quick",
            "--repeats",
            "1",
            "--profile",
            "ci",
            "--filter",
            filter,
        ])
        .arg("--against")
        .arg(&other);
        for variable in ["SUITE", "JSON", "DIR"] {
            gate.env_remove(format!("NSBENCH_{variable}"));
        }
        if let Some(path) = path {
            gate.env("PATH", path);
        }
        let output = gate.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = against("log/gone", None);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("bench/log/gone: this build has no such row"),
        "{text}"
    );
    let (code, text) = against("no_such_row", None);
    assert_eq!(code, Some(2), "{text}");
    // It is not critical: no number of it decides.
    let (code, text) = against("bench/floor/append_4k_flush", None);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("no number that decides is on both sides"));
    assert!(text.contains("1 runs of each build"), "{text}");
    assert!(
        text.contains("before is of ") && text.contains("; after is of "),
        "{text}"
    );
    // No valgrind on this path: nothing is measured, nothing claimed, nothing passed.
    let (code, text) = against("bench/instructions/leaf_search", Some("/bin/no/such"));
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("leaf_search: skipped") && !text.contains("runs of each build"),
        "{text}"
    );
}

#[test]
fn results_can_be_validated_dumped_and_compared() {
    let pair = Pair::measure();
    let before = pair.before();
    let before = before.to_str().unwrap();
    let (code, text) = nsbench(&["validate", before]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("5 results of 1 rows"), "{text}");
    let (code, text) = nsbench(&["dump", before]);
    assert_eq!((code, text.lines().count()), (0, 6), "{text}");
    let columns = |line: &str| line.split(',').count();
    assert!(text.lines().all(|line| columns(line) == 12), "{text}");
    let (code, text) = nsbench(&["compare", before, before, "--all"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("throughput") && text.contains("same"),
        "{text}"
    );
    let (code, text) = nsbench(&["validate", "Cargo.toml"]);
    assert_eq!(code, 2, "{text}");
}
