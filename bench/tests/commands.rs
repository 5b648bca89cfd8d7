//! What the commands beside running and judging do, from outside: exit codes, output, colours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn nsbench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsbench"));
    for variable in [
        "FILTER",
        "SUITE",
        "JSON",
        "THREADS",
        "WARMUP_OPS",
        "WARMUP_NS",
        "DIR",
        "QUICK",
        "PROFILE",
        "REPEATS",
    ] {
        command.env_remove(format!("NSBENCH_{variable}"));
    }
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// Runs and gives standard output; fails unless it ends with `code`.
fn ends(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A tiny run of one row with more words; gives what it printed and its results, by repeat.
fn tiny(dir: &Path, row: &str, words: &[&str]) -> (String, Vec<Value>) {
    let json = dir.join("json");
    let text = ends(
        nsbench()
            .args(["--tiny", "--profile", "ci", "--filter", row, "--json"])
            .arg(&json)
            .arg("--dir")
            .arg(dir.join("scratch"))
            .args(words),
        0,
    );
    let mut files: Vec<_> = std::fs::read_dir(json.join(row.split('/').next().unwrap()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    (text, files.iter().map(read).collect())
}

#[test]
fn warm_up_and_threads_take_effect_and_are_kept_with_the_result() {
    let dir = dir();
    let words = [
        "--warmup-ops",
        "40",
        "--warmup-ns",
        "1000",
        "--threads",
        "3",
    ];
    let (_, results) = tiny(dir.path(), "log/commit_32_committers", &words);
    let result = &results[0];
    assert_eq!(result["config"]["threads"], 3);
    assert_eq!(result["config"]["threads_asked"], 3);
    assert_eq!(result["config"]["warmup_ops"], 40);
    let (timed, warmed) = (
        &result["results"]["ops_total"],
        &result["results"]["warmup_ops"],
    );
    let (timed, warmed) = (timed.as_u64().unwrap(), warmed.as_u64().unwrap());
    assert!(
        warmed >= 3 * 40,
        "{warmed} operations warmed up three threads"
    );
    // The engine's own counter saw both, and nothing else.
    let txns = result["results"]["io"]["txns"].as_u64().unwrap();
    assert!(
        txns >= timed + warmed && txns <= timed + warmed + 3,
        "{txns} of {timed} and {warmed}"
    );
    assert_eq!(result["results"]["figures"].as_array().unwrap().len(), 0);
    let notes = result["results"]["notes"].to_string();
    assert!(notes.contains("with 3 threads"), "{notes}");
}

#[test]
fn a_variable_that_says_yes_or_no_ends_no_command() {
    for value in ["1", "0", "true", ""] {
        ends(nsbench().arg("list").env("NSBENCH_QUICK", value), 0);
    }
}

#[test]
fn a_profile_that_is_none_is_refused_before_anything_is_removed() {
    let dir = dir();
    // A build's target directory of its own: that is where the last results lie.
    let program = dir.path().join("debug/nsbench");
    std::fs::create_dir_all(dir.path().join("debug")).unwrap();
    std::fs::write(dir.path().join("CACHEDIR.TAG"), "").unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_nsbench"), &program).unwrap();
    let last = dir.path().join("nsbench-results/kept");
    std::fs::create_dir_all(last.parent().unwrap()).unwrap();
    std::fs::write(&last, "").unwrap();
    let mut run = Command::new(&program);
    run.args(["--tiny", "--profile", "typo", "--filter", "floor/append"]);
    ends(&mut run, 2);
    assert!(last.exists(), "the last results stay");
    let mut run = Command::new(&program);
    run.args(["--tiny", "--profile", "ci", "--filter", "floor/append"]);
    ends(&mut run, 0);
    assert!(!last.exists(), "only one run is the last");
}

#[test]
fn baselines_take_the_profile_from_the_environment_and_are_looked_for_before_an_hour_is_measured() {
    let dir = dir();
    for command in ["capture-baseline", "refresh-baselines"] {
        let mut baseline = nsbench();
        baseline.arg(command).env("NSBENCH_PROFILE", "typo");
        let output = baseline.arg("--dir").arg(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("profile typo"), "{}", said(&output));
    }
    let mut refresh = nsbench();
    refresh.args(["refresh-baselines", "--profile", "ci", "--baselines"]);
    refresh
        .arg(dir.path())
        .arg("--dir")
        .arg(dir.path().join("scratch"));
    let output = refresh.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("does not exist"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_run_replaces_what_an_earlier_one_left_of_its_rows_and_nothing_else() {
    let dir = dir();
    let (_, results) = tiny(dir.path(), "floor/append", &["--repeats", "2"]);
    assert_eq!(results.len(), 2);
    let mine = dir.path().join("json/floor/notes.txt");
    std::fs::write(&mine, "").unwrap();
    let (_, results) = tiny(dir.path(), "log/commit_solo_durable", &[]);
    assert_eq!(results.len(), 1);
    let (_, results) = tiny(dir.path(), "log/commit_solo_durable", &[]);
    assert_eq!(results.len(), 1);
    ends(nsbench().arg("validate").arg(dir.path().join("json")), 0);
    std::fs::remove_file(&mine).unwrap();
    let (_, results) = tiny(dir.path(), "floor/append", &[]);
    assert_eq!(results.len(), 1, "no older repeat stays");
}

#[test]
fn csv_is_alone_on_standard_output() {
    let dir = dir();
    let (text, _) = tiny(dir.path(), "log/commit_solo", &["--csv", "--repeats", "2"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("row,repeat,ops_per_sec,p50_ns"),
        "{text}"
    );
    assert!(lines[1].starts_with("log/commit_solo_durable,0,"), "{text}");
    let columns = |line: &str| line.split(',').count();
    assert!(
        lines.iter().all(|line| columns(line) == columns(lines[0])),
        "{text}"
    );
}

#[test]
fn repeats_end_with_medians_variation_and_a_summary_by_suite() {
    let dir = dir();
    let (text, results) = tiny(dir.path(), "floor/append", &["--repeats", "3"]);
    assert_eq!(results.len(), 3);
    assert!(
        text.contains("medians of 3 repeats") && text.contains("(CV "),
        "{text}"
    );
    assert!(
        text.contains("| floor |      1 |      0 |       0 |"),
        "{text}"
    );
    let summary = std::fs::read(dir.path().join("json/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["suites"]["floor"]["passed"], 1);
    let row = &summary["rows"]["bench/floor/append_4k_flush"];
    assert!(row["numbers"]["ops_per_sec"]["variation"].as_f64().unwrap() >= 0.0);
    ends(nsbench().arg("validate").arg(dir.path().join("json")), 0);
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let plain = ends(nsbench().arg("doctor"), 0);
    assert!(!plain.contains('\u{1b}'), "a pipe");
    let forced = ends(nsbench().arg("doctor").env("CLICOLOR_FORCE", "1"), 0);
    assert!(forced.contains("\u{1b}["), "asked for");
    let refused = ends(
        nsbench()
            .arg("doctor")
            .env("CLICOLOR_FORCE", "1")
            .env("NO_COLOR", "1"),
        0,
    );
    assert!(!refused.contains('\u{1b}'), "refused");
}

#[test]
fn doctor_says_what_why_how_and_where_and_its_check_fails_on_what_is_dear() {
    let text = ends(nsbench().arg("doctor"), 0);
    let count = |words: &str| text.matches(words).count();
    assert!(
        count("  why     ") > 0 && count("  why     ") == count("  source  "),
        "{text}"
    );
    // A test's build is dear by itself.
    assert!(text.contains("debug_build"), "{text}");
    ends(nsbench().args(["doctor", "--check"]), 1);
    let json: Value = serde_json::from_str(&ends(nsbench().args(["doctor", "--json"]), 0)).unwrap();
    assert!(json["machine"]["io_uring"]["mode"].is_string());
    assert!(json["findings"][0]["how"].is_string());
    ends(nsbench().args(["doctor", "--dir", "no/such/place"]), 2);
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let help = ends(nsbench().arg("--help"), 0);
    for code in [
        "0  done",
        "1  a row failed",
        "2  bad use",
        "3  the machine was too noisy",
    ] {
        assert!(help.contains(code), "{help}");
    }
    let dir = dir();
    ends(nsbench().args(["man", "--dir"]).arg(dir.path()), 0);
    let man = ends(nsbench().arg("man"), 0);
    assert!(man.contains(".TH nsbench 1"), "{man}");
    let bash = ends(nsbench().args(["completions", "bash"]), 0);
    for command in [
        "run",
        "list",
        "compare",
        "gate",
        "report",
        "doctor",
        "flamegraph",
        "fuzz",
        "property-test",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
        assert!(
            bash.contains(&format!(
                "nsbench__subcmd__{}",
                command.replace('-', "__subcmd__")
            )) || bash.contains(command),
            "{command}"
        );
        let page =
            std::fs::read_to_string(dir.path().join(format!("nsbench-{command}.1"))).unwrap();
        assert!(page.contains(command), "{command}");
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(ends(nsbench().args(["completions", shell]), 0).contains("nsbench"));
    }
    ends(nsbench().args(["completions", "no-such-shell"]), 2);
}

/// A program in cargo's place shows what it is asked.
#[test]
fn fuzz_is_nshards_and_hands_on_words_and_exit_codes() {
    let dir = dir();
    let cargo = dir.path().join("cargo");
    std::fs::write(&cargo, "#!/bin/sh\necho \"$@\"\nexit \"$CODE\"\n").unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut fuzz = nsbench();
    fuzz.args(["fuzz", "page_decode", "--seconds", "7", "--keep"])
        .env("CARGO", &cargo);
    let text = ends(fuzz.env("CODE", "0"), 0);
    assert!(text.contains("--package nshard"), "{text}");
    assert!(
        text.trim_end()
            .ends_with("-- fuzz page_decode --seconds 7 --keep"),
        "{text}"
    );
    ends(fuzz.env("CODE", "1"), 1);
    ends(fuzz.env("CODE", "2"), 2);
    ends(nsbench().args(["fuzz", "--quick", "--seconds", "7"]), 2);
}

#[test]
fn a_gate_with_limits_that_are_none_or_against_nothing_is_bad_use() {
    for wrong in ["inf", "NaN", "100", "much"] {
        let limit = format!("--threshold-floor={wrong}");
        ends(nsbench().args(["gate", &limit]), 2);
    }
    ends(nsbench().args(["gate", "--against", "no/such/program"]), 2);
}

fn flamegraph(dir: &Path, sampler: &str) -> Option<String> {
    let svg = dir.join(sampler).with_extension("svg");
    let output = nsbench()
        .args([
            "flamegraph",
            "btree/point_get_hot_1m",
            "--tiny",
            "--profile",
            "ci",
            "--repeats",
            "20",
        ])
        .args(["--sampler", sampler, "--output"])
        .arg(&svg)
        .arg("--dir")
        .arg(dir.join("scratch"))
        .output()
        .unwrap();
    if sampler == "perf" && !output.status.success() {
        let _shown = writeln!(
            std::io::stderr(),
            "SKIPPED: a flame graph by perf: {}",
            said(&output)
        )
        .is_ok();
        return None;
    }
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        !svg.with_extension("results").exists(),
        "a profiled run leaves no results"
    );
    let folded = std::fs::read_to_string(svg.with_extension("folded")).unwrap();
    assert!(
        folded.contains("nsbench::sample::timed_loop"),
        "{folded:.500}"
    );
    assert!(
        !folded.contains("data::load;"),
        "what is set up is left out: {folded:.500}"
    );
    Some(std::fs::read_to_string(svg).unwrap())
}

#[test]
fn a_flame_graph_is_one_command_with_perf_and_without() {
    let dir = dir();
    for sampler in ["inside", "perf"] {
        let Some(svg) = flamegraph(dir.path(), sampler) else {
            continue;
        };
        assert!(
            svg.contains("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg:.200}"
        );
        assert!(
            svg.contains("northstardb"),
            "{sampler}: the engine is in it"
        );
    }
    let several = nsbench()
        .args(["flamegraph", "point_get"])
        .output()
        .unwrap();
    assert_eq!(several.status.code(), Some(2));
    assert!(
        said(&several).contains("one row at a time"),
        "{}",
        said(&several)
    );
}
