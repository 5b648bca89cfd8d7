//! What the gate and its company answer, by their exit codes: 0 passed, 1 regressed, 2 bad use, 3 too noisy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

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

    /// The gate's answer to results that are as before but for `change`. All repeats are made the same first: what this
    /// machine's noise was is not the question.
    fn gate(&self, change: impl Fn(usize, &mut Value)) -> (i32, String) {
        let (kept, after) = (self.dir.path().join("kept"), self.dir.path().join("after"));
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
        let paths = [kept.to_str().unwrap(), after.to_str().unwrap()];
        nsbench(&["gate", paths[0], "--results", paths[1]])
    }
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
        times(&mut now["results"]["floors"][0]["ratio"], 1.2);
    });
    code(1, &|_, now| now["results"]["fsyncs_per_txn"] = 1.5.into());
    code(1, &|_, now| now["results"]["allocs_per_op"] = 99.0.into());
    code(3, &|repeat, now| {
        let swing = [1.0, 1.4, 0.8, 1.6, 1.3][repeat];
        times(&mut now["results"]["floors"][0]["ratio"], swing);
    });
    code(2, &|_, now| now["schema"] = 1.into());
    code(2, &|_, now| now["config"]["size"] = "full".into());
    let (code, text) = nsbench(&["gate", "no/such/place"]);
    assert_eq!(code, 2, "{text}");
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
