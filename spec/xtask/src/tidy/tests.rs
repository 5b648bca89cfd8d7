//! The checks on this workspace, and each check on a small one with a fault planted.

use super::{layers, marks, readme, size, specs};
use crate::repo::Repo;

fn workspace() -> Repo {
    Repo::read().expect("the workspace can be read")
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_use_inside_the_engine_is_one_that_layers_toml_allows() {
    none(&layers::faults(&workspace()));
}

#[test]
fn every_clause_cited_exists_and_every_promise_names_what_keeps_and_tests_it() {
    none(&specs::faults(&workspace()));
}

#[test]
fn bench_rows_and_figures_are_the_ones_the_specs_describe() {
    none(&specs::bench_faults(&workspace()));
}

#[test]
fn unsafe_code_is_only_in_the_listed_files() {
    none(&marks::unsafe_faults(&workspace()));
}

#[test]
fn no_test_is_ignored() {
    none(&marks::ignored_tests(&workspace()));
}

#[test]
fn every_todo_names_its_issue() {
    none(&marks::todos(&workspace()));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    none(&marks::machine_paths(&workspace()));
}

#[test]
fn no_source_file_is_longer_than_one_concept_needs() {
    none(&size::faults(&workspace()));
}

#[test]
fn commands_shown_in_the_documents_exist() {
    none(&readme::faults(&workspace()));
}

fn one_fault(faults: &[String], part: &str) {
    assert!(
        faults.len() == 1 && faults[0].contains(part),
        "wanted one fault with {part:?}, found {faults:?}"
    );
}

#[test]
fn an_upward_use_is_found_in_plain_and_in_listed_form() {
    let table = "ids = []\nlog = [\"ids\"] # text\ntree = [\n  \"ids\",\n]\n";
    for code in [
        "use crate::tree::Tree;",
        "use crate::{ids, tree::{A, B}};",
        "fn f() { crate::tree::f() }",
    ] {
        let repo = Repo::of(&[
            ("engine/layers.toml", table),
            ("engine/src/log/mod.rs", code),
            ("engine/src/tree.rs", "use crate::ids::A; // use crate::log"),
        ]);
        one_fault(&layers::faults(&repo), "log uses tree");
    }
    let repo = Repo::of(&[
        ("engine/layers.toml", "log = [\"ids\"]\nids = []"),
        ("engine/src/new/mod.rs", "fn f() {}"),
    ]);
    assert_eq!(
        layers::faults(&repo).len(),
        2,
        "an upward edge in the table, a module not in it"
    );
    assert_eq!(layers::unused(&repo), ["log -> ids"]);
}

const CLAUSE: &str = "## FF-001 Pages\nText.\n- Validator: `format::page::Page::verify`,\n  \
                      `limits::PAGE`.\n- Tests: `a_page_is_checked`.\n";

fn specs_repo(spec: &str, page: &str) -> Repo {
    Repo::of(&[
        ("spec/file_format_v0.md", spec),
        ("engine/src/format/page.rs", page),
        (
            "engine/src/limits.rs",
            "pub(crate) const PAGE: u32 = 1; // Spec: FF-001",
        ),
    ])
}

#[test]
fn broken_links_between_spec_and_code_are_found() {
    let page = "pub struct Page;\nimpl Page {\n    fn verify() {}\n}\n#[test]\nfn a_page_is_checked() {}\n";
    none(&specs::faults(&specs_repo(CLAUSE, page)));
    let cases = [
        (
            page.replace("verify", "check"),
            CLAUSE.to_owned(),
            "Page::verify",
        ),
        (
            page.replace("a_page_is", "no_page_is"),
            CLAUSE.to_owned(),
            "the test a_page_is_checked",
        ),
        (
            format!("{page}// Spec: FF-002\n"),
            CLAUSE.to_owned(),
            "no spec has a clause FF-002",
        ),
        (
            format!("{page}// Spec: ZZ-002\n"),
            CLAUSE.to_owned(),
            "no spec has a clause ZZ-002",
        ),
        (
            page.to_owned(),
            CLAUSE.replace("- Tests:", "Tests:"),
            "names no test",
        ),
        (
            page.to_owned(),
            CLAUSE.replace("- Validator:", "Validator:"),
            "names no validator",
        ),
        (
            page.to_owned(),
            format!("{CLAUSE}{CLAUSE}"),
            "is in spec/file_format_v0.md too",
        ),
    ];
    for (page, spec, part) in cases {
        one_fault(&specs::faults(&specs_repo(&spec, &page)), part);
    }
    none(&specs::faults(&specs_repo(
        &format!("{CLAUSE}\n## FF-002 Words\n- Kind: definition.\n"),
        page,
    )));
}

#[test]
fn a_bench_row_or_figure_missing_on_either_side_is_found() {
    let repo = |row: &str, figure: &str| {
        Repo::of(&[
            ("bench/src/suites/log.rs", "name: \"bench/log/append\","),
            (
                "profiles/ci.toml",
                "[scale]\na = 1\n\n[figures]\nsolo_p50 = 1.2 # times\n",
            ),
            ("spec/benchmarks_v0.md", row),
            ("spec/performance_targets_v0.md", figure),
        ])
    };
    none(&specs::bench_faults(&repo(
        "| `bench/log/append` | x |",
        "| `solo_p50` | y |",
    )));
    one_fault(
        &specs::bench_faults(&repo("| `x` |", "| `solo_p50` |")),
        "bench/log/append is not described",
    );
    let surplus = repo(
        "| `bench/log/append` |\n| `bench/log/gone` |",
        "| `solo_p50` |",
    );
    one_fault(
        &specs::bench_faults(&surplus),
        "bench/log/gone does not exist",
    );
    let target = |spec| {
        let profile = "[figures]\na_b = 1\n\n[targets]\n\"bench/log/x\" = { p50_ns = 1 }\n";
        specs::bench_faults(&Repo::of(&[
            ("bench/src/suites/log.rs", ""),
            ("profiles/mine.toml", &format!("\n{profile}")),
            ("spec/performance_targets_v0.md", spec),
        ]))
    };
    none(&target("| `a_b` |\n| `bench/log/x` |"));
    one_fault(&target("| `a_b` |"), "bench/log/x is not described");
    one_fault(
        &specs::bench_faults(&repo("| `bench/log/append` |", "")),
        "solo_p50 is not described",
    );
}

#[test]
fn marks_are_found_in_code_and_not_in_words_about_them() {
    let file = |text: &str| Repo::of(&[("engine/src/a.rs", text)]);
    one_fault(
        &marks::unsafe_faults(&file("let a = unsafe { *p };")),
        "engine/src/a.rs:1",
    );
    one_fault(
        &marks::unsafe_faults(&file("#![expect(unsafe_code, reason = \"\")]")),
        "not listed",
    );
    none(&marks::unsafe_faults(&file(
        "#![forbid(unsafe_code)]\n// unsafe is not used",
    )));
    one_fault(
        &marks::ignored_tests(&file("    #[ignore = \"slow\"]")),
        "does not run",
    );
    one_fault(&marks::todos(&file("// TODO: later")), "without an issue");
    none(&marks::todos(&file("// TODO(#7): later")));
    one_fault(
        &marks::machine_paths(&file("open(\"/home/me/db\")")),
        "one machine",
    );
    none(&marks::machine_paths(&file(
        "https://example.org/home/x and ~/home/x",
    )));
    one_fault(&size::faults(&file(&"a\n".repeat(701))), "701 lines");
    none(&size::faults(&file(&format!(
        "a\nmod tests {{\n{}",
        "a\n".repeat(701)
    ))));
}

#[test]
fn commands_that_do_not_exist_are_found() {
    let repo = |command: &str| {
        Repo::of(&[
            ("README.md", &format!("```sh\n{command}\n```\n")),
            ("ARCHITECTURE.md", ""),
            (
                "bench/src/main.rs",
                &format!(
                    "struct Args {{ profile: String }}\nenum Command {{ List }}{}",
                    "\n".repeat(9)
                ),
            ),
        ])
    };
    none(&readme::faults(&repo(
        "cargo run --release -p nsbench -- list --profile auto",
    )));
    none(&readme::faults(&repo("ls --anything")));
    one_fault(
        &readme::faults(&repo("cargo run -p nsbench -- --speed")),
        "knows no --speed",
    );
    one_fault(
        &readme::faults(&repo("cargo run -p nsbench -- fly")),
        "knows no fly",
    );
    one_fault(
        &readme::faults(&repo("cargo run -p nothing -- list")),
        "no program nothing",
    );
}
