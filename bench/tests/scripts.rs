//! perf-scripts: each explains itself and says which question it answers; shellcheck finds nothing, where it is installed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The scripts that are run, and those that they source.
fn scripts() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf-scripts");
    let mut all = Vec::new();
    for dir in [home.clone(), home.join("nightly")] {
        let entries = std::fs::read_dir(dir).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        all.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "sh")));
    }
    all.sort();
    all.into_iter()
        .partition(|path| !path.ends_with("common.sh"))
}

#[test]
fn every_script_explains_itself_and_names_its_question() {
    let (scripts, _) = scripts();
    assert!(scripts.len() >= 9, "{scripts:?}");
    for script in scripts {
        let output = Command::new("bash")
            .arg(&script)
            .arg("-h")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}: {text}", script.display());
        let name = script.file_name().unwrap().to_str().unwrap();
        assert!(text.starts_with(name), "{name}: {text}");
        assert!(text.contains("answers:"), "{name}: {text}");
    }
}

#[test]
fn shellcheck_finds_nothing_in_the_scripts() {
    let (mut all, sourced) = scripts();
    all.extend(sourced);
    all.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/run"));
    match Command::new("shellcheck").args(&all).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}");
        }
        Err(error) => {
            // Past the harness, which keeps what passing tests print.
            let line = format!("SKIPPED: the scripts were not checked: shellcheck: {error}");
            let _shown = writeln!(std::io::stderr(), "{line}").is_ok();
        }
    }
}

/// A night with programs that only write down how they were called, and end as they are told.
#[test]
fn a_night_goes_on_after_a_failure_and_ends_with_the_worst() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (bin, target) = (dir.path().join("bin"), dir.path().join("target"));
    let log = dir.path().join("called");
    let program = |path: &Path, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(&bin.join("cargo"), "echo cargo \"$@\" >>\"$LOG\"");
    let nsbench = "echo nsbench \"$@\" >>\"$LOG\"; [ \"$1\" != \"$NOISY\" ] || exit 3";
    program(&target.join("release/nsbench"), nsbench);
    let nshard = "echo nshard \"$@\" >>\"$LOG\"; exit \"$HARD\"";
    program(&target.join("release/nshard"), nshard);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf-scripts/nightly/nightly.sh");
    let path = std::env::var("PATH").unwrap();
    let kept = dir.path().join("kept");
    let night = |hard: &str, noisy: &str| {
        drop(std::fs::remove_file(&log));
        let output = Command::new("bash")
            .arg(&script)
            .arg(&kept)
            .env("NSBENCH_PROFILE", "ci")
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("CARGO_TARGET_DIR", &target)
            .env("LOG", &log)
            .env("HARD", hard)
            .env("NOISY", noisy)
            .output()
            .unwrap();
        let called = std::fs::read_to_string(&log).unwrap();
        (output.status.code(), called)
    };
    let (code, called) = night("0", "none");
    assert_eq!(code, Some(0), "{called}");
    let wanted = [
        "cargo build",
        "nsbench doctor",
        "nshard nightly",
        "nsbench run --repeats 5",
        "nsbench gate-test",
        "nsbench versus --quick",
        "nsbench capture-baseline --baselines",
        "nsbench report",
    ];
    let mut rest = called.as_str();
    for words in wanted {
        let (_, after) = rest
            .split_once(words)
            .unwrap_or_else(|| panic!("{words}: {called}"));
        rest = after;
    }
    assert!(called.contains("--history"), "{called}");
    // The nights' baseline is their own: what is tracked stays as it is, or the next night would refuse what it had changed.
    let baselines = kept.canonicalize().unwrap().join("baselines/ci");
    let own = format!("-baseline --baselines {} --repeats 5", baselines.display());
    assert!(called.contains(&own), "{called}");
    let of_a_row = baselines.join("ci/log");
    std::fs::create_dir_all(&of_a_row).unwrap();
    std::fs::write(of_a_row.join("x_r000.json"), "{}").unwrap();
    let (_, called) = night("0", "none");
    let own = format!(
        "refresh-baselines --baselines {} --repeats 5",
        baselines.display()
    );
    assert!(called.contains(&own), "{called}");
    let (code, called) = night("0", "run");
    assert_eq!(code, Some(3), "{called}");
    let (code, called) = night("1", "run");
    assert_eq!(
        code,
        Some(1),
        "what is broken is worse than what is noisy: {called}"
    );
    assert!(
        called.contains("nsbench report"),
        "the page is written all the same: {called}"
    );
}
