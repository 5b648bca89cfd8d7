//! Specs and code hold hands: clause ids, the item paths and test names in clauses, bench rows, figures.
//!
//! A clause is a heading `## FF-003 Title`. Its bullets `- Validator:` and `- Tests:` name, in backticks, the items
//! that enforce it and the test functions that show it. A clause without a promise says `- Kind: definition`; one
//! whose promise is not kept yet says `- Not there yet:`; one that no test reaches says why: `- Untested:`.

use std::collections::{BTreeMap, BTreeSet};

use crate::repo::{Repo, is_word};

const BENCHES: &str = "spec/benchmarks_v0.md";
const TARGETS: &str = "spec/performance_targets_v0.md";

/// Where the sources of a crate lie, by the name its items are reached with. The first is the default.
const CRATES: &[(&str, &str)] = &[
    ("northstardb", "engine/src/"),
    ("northstar_io", "io/src/"),
    ("nsbench", "bench/src/"),
    ("nsrivals", "bench/rivals/src/"),
    ("nshard", "hard/src/"),
    ("nsorders", "hard/orders/src/"),
    ("northstar", "tools/src/"),
    ("xtask", "spec/xtask/src/"),
];

/// One clause of a spec.
#[derive(Debug)]
struct Clause<'a> {
    id: &'a str,
    path: &'a str,
    validators: Vec<&'a str>,
    tests: Vec<&'a str>,
    /// Says that it promises nothing, or nothing yet.
    excused: bool,
    /// Says why no test reaches it.
    untested: bool,
}

/// Ids like `FF-003` in `text`, wherever they stand.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('-').filter_map(|(at, _)| {
        let bytes = text.as_bytes();
        let start = at.checked_sub(2)?;
        let id = bytes.get(start..at + 4)?;
        let letters = id.iter().take(2).all(u8::is_ascii_uppercase);
        let digits = id.iter().skip(3).all(u8::is_ascii_digit);
        let alone = !start
            .checked_sub(1)
            .and_then(|before| bytes.get(before))
            .is_some_and(|byte| is_word(*byte))
            && !bytes.get(at + 4).is_some_and(|byte| is_word(*byte));
        (letters && digits && alone).then(|| &text[start..at + 4])
    })
}

/// What stands in backticks.
fn ticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn clauses<'a>(path: &'a str, text: &'a str) -> Vec<Clause<'a>> {
    let mut clauses: Vec<Clause<'a>> = Vec::new();
    let mut bullet = "";
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            bullet = "";
            if let Some(id) = ids(heading).next().filter(|id| heading.starts_with(id)) {
                clauses.push(Clause {
                    id,
                    path,
                    validators: Vec::new(),
                    tests: Vec::new(),
                    excused: false,
                    untested: false,
                });
            }
            continue;
        }
        let Some(clause) = clauses.last_mut() else {
            continue;
        };
        if let Some(item) = line.strip_prefix("- ") {
            bullet = item.split(':').next().unwrap_or_default();
        } else if !line.starts_with("  ") {
            bullet = "";
        }
        match bullet {
            "Validator" => clause.validators.extend(ticked(line)),
            "Tests" => clause.tests.extend(ticked(line)),
            "Kind" | "Not there yet" => clause.excused = true,
            "Untested" => clause.untested = true,
            _ => {}
        }
    }
    clauses
}

/// Whether `name` is defined in `text`: a function, type, constant, module, macro, field or variant.
fn defines(text: &str, name: &str) -> bool {
    let keywords = [
        "fn",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "mod",
        "macro_rules!",
    ];
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].trim_end();
        let after = &text[at + name.len()..];
        let alone =
            text[..at].ends_with(|c: char| !is_word_char(c)) && !after.starts_with(is_word_char);
        let defined = keywords.iter().any(|keyword| before.ends_with(keyword));
        // A field, or a variant at the start of its line.
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        let member = matches!(line.trim(), "" | "pub" | "pub(crate)" | "pub(super)")
            && after.trim_start().starts_with([':', ',', '{', '(', '='])
            && !after.starts_with("::");
        alone && (defined || member)
    })
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether the item at `path` exists: modules lead to files, the other parts are defined in these.
fn item_exists(repo: &Repo, path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let (root, parts) = match CRATES.iter().find(|(name, _)| parts.first() == Some(name)) {
        Some((_, root)) => (*root, &parts[1..]),
        None => (CRATES[0].1, &parts[..]),
    };
    // The longest start of the path that is a module.
    (0..=parts.len()).rev().any(|modules| {
        let module = parts[..modules].join("/");
        let base = format!("{root}{module}");
        let files: Vec<&str> = repo
            .sources()
            .filter(|(file, _)| {
                let inside = if module.is_empty() {
                    file.starts_with(root)
                } else {
                    file.starts_with(&format!("{base}/"))
                };
                inside || *file == format!("{base}.rs")
            })
            .map(|(_, text)| text)
            .collect();
        !files.is_empty()
            && parts[modules..]
                .iter()
                .all(|part| files.iter().any(|text| defines(text, part)))
    })
}

fn test_exists(repo: &Repo, name: &str) -> bool {
    let function = format!("fn {name}(");
    repo.sources().any(|(_, text)| text.contains(&function))
}

/// Ids without clause, clauses twice, promises without validator or test, items that do not exist.
pub(crate) fn faults(repo: &Repo) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let mut prefixes = BTreeSet::new();
    for (path, text) in repo.specs() {
        for clause in clauses(path, text) {
            prefixes.insert(&clause.id[..2]);
            if let Some(other) = known.insert(clause.id, path) {
                faults.push(format!("{path}: clause {} is in {other} too", clause.id));
            }
            faults.extend(clause_faults(repo, &clause));
        }
    }
    for (path, text) in repo
        .files()
        .filter(|(path, _)| !path.starts_with("spec/xtask/"))
    {
        for (line, number) in text.lines().zip(1..) {
            for id in ids(line) {
                let cited = prefixes.contains(&id[..2]) || line.contains("Spec: ");
                if cited && !known.contains_key(id) {
                    faults.push(format!("{path}:{number}: no spec has a clause {id}"));
                }
            }
        }
    }
    faults
}

fn clause_faults(repo: &Repo, clause: &Clause<'_>) -> Vec<String> {
    let Clause { id, path, .. } = clause;
    let mut faults = Vec::new();
    for item in clause
        .validators
        .iter()
        .filter(|item| !item_exists(repo, item))
    {
        faults.push(format!(
            "{path}: {id} names the item {item}, which does not exist"
        ));
    }
    for test in clause.tests.iter().filter(|test| !test_exists(repo, test)) {
        faults.push(format!(
            "{path}: {id} names the test {test}, which does not exist"
        ));
    }
    if !clause.excused {
        if clause.validators.is_empty() {
            faults.push(format!(
                "{path}: {id} promises something and names no validator"
            ));
        }
        if clause.tests.is_empty() && !clause.untested {
            faults.push(format!("{path}: {id} promises something and names no test"));
        }
    }
    faults
}

/// What the specs themselves admit.
pub(crate) fn notes(repo: &Repo) -> Vec<String> {
    let mut all = Vec::new();
    let (mut promises, mut untested) = (0, Vec::new());
    for (path, text) in repo.specs() {
        for clause in clauses(path, text).iter().filter(|clause| !clause.excused) {
            promises += 1;
            if clause.untested {
                untested.push(clause.id.to_owned());
            }
        }
    }
    all.push(format!(
        "{promises} clauses promise something; no test reaches: {}",
        list(&untested)
    ));
    all
}

fn list(ids: &[String]) -> String {
    if ids.is_empty() {
        "none".to_owned()
    } else {
        ids.join(", ")
    }
}

/// Rows and figures that are in the bench or its profiles and not in the specs, or the other way round.
pub(crate) fn bench_faults(repo: &Repo) -> Vec<String> {
    let mut faults = Vec::new();
    let rows: BTreeSet<&str> = repo
        .sources()
        .filter(|(path, _)| path.starts_with("bench/src/suites/"))
        .flat_map(|(_, text)| text.split('"').skip(1).step_by(2))
        .filter(|quoted| quoted.starts_with("bench/") && quoted.matches('/').count() == 2)
        .collect();
    compare(
        repo,
        BENCHES,
        &rows,
        |name| name.starts_with("bench/"),
        &mut faults,
    );
    // And the rows that have absolute targets, whose names are quoted there.
    let figures: BTreeSet<&str> = repo
        .files()
        .filter(|(path, _)| path.starts_with("profiles/") && path.ends_with(".toml"))
        .filter_map(|(_, text)| text.split_once("\n[figures]\n"))
        .flat_map(|(_, figures)| figures.lines())
        .filter_map(|line| {
            line.split_once('=')
                .map(|(id, _)| id.trim().trim_matches('"'))
        })
        .filter(|id| !id.starts_with('#'))
        .collect();
    let is_id = |name: &str| {
        name.contains('_')
            && !name.contains("v0")
            && name
                .bytes()
                .all(|byte| is_word(byte) && !byte.is_ascii_uppercase())
    };
    let is_name = |name: &str| is_id(name) || name.starts_with("bench/");
    compare(repo, TARGETS, &figures, is_name, &mut faults);
    faults
}

/// Names in the first column of a spec's tables against those in the program.
fn compare(
    repo: &Repo,
    spec: &str,
    there: &BTreeSet<&str>,
    is_name: impl Fn(&str) -> bool,
    faults: &mut Vec<String>,
) {
    if there.is_empty() {
        // A workspace without that program.
        return;
    }
    let text = repo.text(spec).unwrap_or_default();
    let named: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(|line| ticked(line.split('|').nth(1)?).next())
        .filter(|name| is_name(name))
        .collect();
    for missing in there.difference(&named) {
        faults.push(format!("{spec}: {missing} is not described"));
    }
    for surplus in named.difference(there) {
        faults.push(format!("{spec}: {surplus} does not exist"));
    }
}
