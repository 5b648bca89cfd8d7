//! `nsbench report` in a real browser: the page is laid out, its text fits its plots, nothing is loaded from elsewhere.
//!
//! The browser is whichever is on the path; without one the test says SKIPPED, past the harness that keeps what passing tests
//! print, and checks the page as text.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const BROWSERS: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome-headless-shell",
];

/// Appended to a copy of the page: what a layout can tell, as JSON in an attribute of the body.
const PROBE: &str = r#"<script>
const faults = [];
const within = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
    && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
for (const svg of document.querySelectorAll("svg")) {
    const box = svg.getBoundingClientRect();
    const name = svg.getAttribute("aria-label");
    if (box.width < 100 || box.height < 10) faults.push(`${name}: ${box.width} x ${box.height}`);
    const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    for (const [text, rect] of texts) if (!within(rect, box)) faults.push(`${name}: ${text} leaves the plot`);
    texts.forEach(([a, one], index) => {
        for (const [b, other] of texts.slice(index + 1))
            if (!apart(one, other)) faults.push(`${name}: ${a} touches ${b}`);
    });
}
if (document.documentElement.scrollWidth > window.innerWidth + 1) faults.push("the page is wider than its window");
const style = getComputedStyle(document.body);
document.body.setAttribute("data-probe", JSON.stringify({
    faults, svgs: document.querySelectorAll("svg").length, loaded: performance.getEntriesByType("resource").length,
    background: style.backgroundColor, ink: style.color }));
</script>"#;

fn nsbench(args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_nsbench"))
        .args(args)
        .env_remove("NSBENCH_FILTER")
        .env_remove("NSBENCH_SUITE")
        .env_remove("NSBENCH_JSON")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

/// Results of two repeats of some rows, of earlier runs made from them, and of other engines.
fn results(dir: &Path) -> PathBuf {
    let (new, scratch) = (dir.join("new"), dir.join("scratch"));
    for filter in ["floor/append", "commit_", "point_get"] {
        nsbench(&[
            "--tiny",
            "--profile",
            "ci",
            "--repeats",
            "2",
            "--filter",
            filter,
            "--json",
            new.to_str().unwrap(),
            "--dir",
            scratch.to_str().unwrap(),
        ]);
    }
    for age in 1..8_u64 {
        for suite in ["floor", "log", "btree", "pager"] {
            let to = dir.join(format!("kept/{age}")).join(suite);
            std::fs::create_dir_all(&to).unwrap();
            for entry in std::fs::read_dir(new.join(suite)).unwrap() {
                let path = entry.unwrap().path();
                let mut value: Value =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let at = value["timestamp_unix_s"].as_u64().unwrap();
                value["timestamp_unix_s"] = (at - age * 86_400).into();
                value["git"] = serde_json::json!({ "sha": format!("{age:x}").repeat(40), "branch": "main", "dirty": false });
                let rate = value["results"]["ops_per_sec"].as_f64().unwrap();
                value["results"]["ops_per_sec"] = (rate * (1.0 + age as f64 / 10.0)).into();
                std::fs::write(to.join(path.file_name().unwrap()), value.to_string()).unwrap();
            }
        }
    }
    let rows = serde_json::json!({ "title": "Reads", "rows": [
        { "workload": "get", "engine": "northstardb", "value": 2e6, "unit": "per_second" },
        { "workload": "get", "engine": "another engine", "value": 1e6, "unit": "per_second" }] });
    std::fs::write(new.join("versus.json"), rows.to_string()).unwrap();
    new
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let all = BROWSERS
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    all.into_iter().find(|program| program.is_file())
}

/// Opens a page and gives what `more` asks of the browser; `None` if it does not start here at all.
fn open(browser: &Path, home: &Path, page: &Path, more: &[&str]) -> Option<String> {
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ])
        .arg(format!("--user-data-dir={}", home.display()))
        .args(more)
        .arg(format!("file://{}", page.display()))
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn skipped(why: &str) {
    // The harness does not see this stream's writer, so it is shown although the test passes.
    let _shown = writeln!(
        std::io::stderr(),
        "SKIPPED: the report was not opened in a browser: {why}"
    )
    .is_ok();
}

#[test]
fn the_report_is_laid_out_by_a_browser_and_nothing_leaves_its_plot() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let new = results(dir.path());
    let (kept, page) = (dir.path().join("kept"), dir.path().join("report.html"));
    nsbench(&[
        "report",
        new.to_str().unwrap(),
        "--history",
        kept.to_str().unwrap(),
        "--before",
        kept.join("3").to_str().unwrap(),
        "--output",
        page.to_str().unwrap(),
    ]);
    let text = std::fs::read_to_string(&page).unwrap();
    let svgs = text.matches("<svg").count();
    assert!(svgs > 8, "{svgs} plots");
    let Some(browser) = browser() else {
        return skipped(&format!("none of {} is on the path", BROWSERS.join(", ")));
    };
    let probed = dir.path().join("probed.html");
    std::fs::write(&probed, text.replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    let home = dir.path().join("home");
    let mut colours = Vec::new();
    // Wide, narrow as a telephone, and dark.
    for more in [
        &["--window-size=1200,900"][..],
        &["--window-size=500,900"],
        &[
            "--window-size=1200,900",
            "--blink-settings=preferredColorScheme=0",
        ],
    ] {
        let Some(dom) = open(&browser, &home, &probed, &[more, &["--dump-dom"]].concat()) else {
            return skipped(&format!("{} does not start here", browser.display()));
        };
        let probe = dom
            .split_once("data-probe=\"")
            .and_then(|(_, rest)| rest.split_once('"'));
        let probe = probe
            .unwrap_or_else(|| panic!("the page did not load: {dom:.300}"))
            .0;
        let probe = probe
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        let probe: Value = serde_json::from_str(&probe).unwrap();
        assert_eq!(probe["faults"], serde_json::json!([]), "{more:?}");
        assert_eq!(probe["svgs"].as_u64(), Some(svgs as u64));
        assert_eq!(probe["loaded"].as_u64(), Some(0), "something was loaded");
        colours.push((probe["background"].clone(), probe["ink"].clone()));
    }
    assert_eq!(colours[0], colours[1]);
    assert_ne!(colours[0], colours[2], "dark as light");
}
