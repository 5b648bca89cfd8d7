//! The page as text; `tests/report.rs` opens it in a browser.

use super::*;
use crate::results::tests::record;

fn results(dir: &Path, factor: f64, sha: &str, at: u64) {
    for name in [
        "bench/log/commit_solo_durable",
        "bench/btree/point_get_hot_1m",
    ] {
        for repeat in 0..5 {
            let mut one = record();
            one.bench_name = name.to_owned();
            one.repeat = repeat;
            one.timestamp_unix_s = at;
            one.git = Some(crate::machine::Git {
                sha: sha.to_owned(),
                branch: "main".to_owned(),
                dirty: false,
            });
            one.results.ops_per_sec *= factor * (1.0 + f64::from(repeat) / 100.0);
            one.results.notes = vec!["<script>alert(1)</script>".to_owned()];
            one.write(dir).unwrap();
        }
    }
}

fn inputs(dir: &Path) -> Inputs {
    Inputs {
        results: dir.join("new"),
        before: None,
        history: Vec::new(),
        versus: Vec::new(),
        limits: Thresholds::default(),
    }
}

#[test]
fn a_page_needs_nothing_but_itself_and_believes_no_text() {
    let dir = tempfile::tempdir().unwrap();
    results(&dir.path().join("new"), 1.0, "aaaaaaaaaaaa", 1000);
    let text = page(&inputs(dir.path())).unwrap();
    for outside in [
        "<script", "<link", "<img", "http:", "https:", "url(", "@import", " src=",
    ] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(
        text.contains("&lt;script&gt;alert(1)"),
        "notes are shown as text"
    );
    for section in [
        "latency",
        "floors",
        "variation",
        "history",
        "rows",
        "suites",
        "machine",
        "reading",
    ] {
        assert!(
            text.contains(&format!("<section id=\"{section}\"")),
            "{section}"
        );
        assert!(text.contains(&format!("href=\"#{section}\"")), "{section}");
    }
    assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    assert!(
        !text.contains("NaN") && !text.contains("inf\""),
        "a number that is none"
    );
}

#[test]
fn older_runs_make_a_history_by_commit_and_two_sets_a_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    results(&kept.join("one"), 0.8, "1111111aaaa", 1000);
    results(&kept.join("two"), 0.9, "2222222bbbb", 2000);
    results(&dir.path().join("new"), 0.5, "3333333cccc", 3000);
    let mut inputs = inputs(dir.path());
    inputs.history = vec![kept.clone()];
    inputs.before = Some(kept.join("two"));
    let text = page(&inputs).unwrap();
    let places =
        ["1111111", "2222222", "3333333"].map(|sha| text.find(&format!(">{sha}</text>")).unwrap());
    assert!(places.is_sorted(), "by time: {places:?}");
    assert!(
        text.contains("<section id=\"compare\"") && text.contains("worse"),
        "half the throughput"
    );
}

#[test]
fn the_page_says_of_a_figure_what_most_repeats_say_and_of_other_results_that_they_are_not_comparable()
 {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    results(&old, 1.0, "aaaaaaaaaaaa", 1000);
    for repeat in 0..3_u32 {
        let mut one = record();
        (one.repeat, one.repeats, one.config.seed) = (repeat, 3, 9);
        one.results.figures = vec![crate::results::FigureResult {
            id: "begin_read_p50".to_owned(),
            value: [90.0, 80.0, 10.0][repeat as usize],
            limit: 50.0,
            floor: None,
            met: Some(repeat == 2),
        }];
        one.write(&new).unwrap();
    }
    let mut inputs = inputs(dir.path());
    inputs.before = Some(old);
    let text = page(&inputs).unwrap();
    assert!(
        text.contains("MISSED") && text.contains("80.0 ns"),
        "the middle one"
    );
    assert!(text.contains("seed of log/commit_solo_durable"), "refused");
}

#[test]
fn other_engines_are_shown_from_files_beside_the_results_and_a_wrong_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new");
    results(&new, 1.0, "aaaaaaaaaaaa", 1000);
    let file = new.join("versus.json");
    std::fs::write(
        &file,
        r#"{"title": "Reads", "rows": [
            {"workload": "get", "engine": "northstardb", "value": 2e6, "unit": "per_second"},
            {"workload": "get", "engine": "other & sons", "value": 1e6, "unit": "per_second"}]}"#,
    )
    .unwrap();
    let text = page(&inputs(dir.path())).unwrap();
    assert!(text.contains("other &amp; sons") && text.contains("2.00 M/s"));
    // Where `nsbench versus` leaves it if it is not told where to.
    let left = dir.path().join("nsbench-versus.json");
    std::fs::rename(&file, &left).unwrap();
    let text = page(&inputs(dir.path())).unwrap();
    assert!(text.contains("other &amp; sons"));
    std::fs::remove_file(&left).unwrap();
    std::fs::write(
        &file,
        r#"{"schema": 1, "rows": [{"name": "read/get_hot", "question": "How fast?",
            "metrics": [{"id": "p50", "title": "median", "unit": "ns", "more_is_better": false},
                        {"id": "rate", "title": "gets", "unit": "per_second", "more_is_better": true}],
            "engines": [{"engine": "northstardb", "status": "ok", "why": null, "values": {"p50": {"median": 300, "spread": 0.1},
                         "rate": {"median": 3e6}}},
                        {"engine": "other", "status": "wrong", "why": "a row was missing", "values": {}}]}]}"#,
    )
    .unwrap();
    let text = page(&inputs(dir.path())).unwrap();
    for words in [
        "read/get_hot",
        "short is good",
        "300 ns",
        "3.00 M/s",
        "wrong a row was missing",
    ] {
        assert!(text.contains(words), "{words}");
    }
    std::fs::write(&file, r#"{"rows": [{"engine": "x"}]}"#).unwrap();
    let error = page(&inputs(dir.path())).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
}
