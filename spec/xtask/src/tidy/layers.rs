//! Who may use whom inside the engine: `engine/layers.toml` against every `crate::` path in its sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::repo::{Repo, code_of, is_word, without_tests};

const TABLE: &str = "engine/layers.toml";
const SOURCES: &str = "engine/src/";

/// The allowed edges: modules in order from the bottom up, each with what it may use.
type Layers = Vec<(String, BTreeSet<String>)>;

/// Reads the table: lines `module = ["a", "b"]`, which may be broken inside the brackets.
fn parse(text: &str) -> Layers {
    let code: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .collect();
    code.split_inclusive(']')
        .filter_map(|entry| {
            let (name, list) = entry.split_once('=')?;
            let uses = list
                .split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect();
            Some((name.trim().to_owned(), uses))
        })
        .collect()
}

/// The modules named right after `crate::` in a line of code, also in a list: `use crate::{ids, log::Segments}`.
fn used(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("crate::") {
        rest = after;
        if before.bytes().last().is_some_and(is_word) || before.ends_with('$') {
            continue;
        }
        let Some(list) = after.strip_prefix('{') else {
            found.push(first_word(after));
            continue;
        };
        let mut depth = 0_u32;
        let mut at_start = true;
        for (index, byte) in list.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' if depth == 0 => break,
                b'}' => depth -= 1,
                b',' if depth == 0 => at_start = true,
                byte if at_start && is_word(byte) => {
                    found.push(first_word(&list[index..]));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn first_word(text: &str) -> String {
    let end = text
        .bytes()
        .position(|byte| !is_word(byte))
        .unwrap_or(text.len());
    text[..end].to_owned()
}

/// The module a source file of the engine belongs to.
fn module_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix(SOURCES)?;
    let first = inner.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// Edges between modules that the sources have, with one file for each.
fn edges(repo: &Repo) -> BTreeMap<(String, String), String> {
    let mut edges = BTreeMap::new();
    for (path, text) in repo.sources() {
        let Some(module) = module_of(path).filter(|module| *module != "lib") else {
            continue;
        };
        // Lists may be broken over lines.
        let code: String = without_tests(path, text)
            .lines()
            .map(code_of)
            .collect::<Vec<_>>()
            .join(" ");
        for target in used(&code) {
            if target != module {
                edges.insert((module.to_owned(), target), path.to_owned());
            }
        }
    }
    edges
}

/// Uses that the table does not allow, modules it does not know, and edges upwards in the table itself.
pub(crate) fn faults(repo: &Repo) -> Vec<String> {
    let Some(text) = repo.text(TABLE) else {
        return vec![format!("{TABLE} is missing")];
    };
    let layers = parse(text);
    let mut faults = Vec::new();
    let mut below = BTreeSet::new();
    for (module, uses) in &layers {
        for target in uses.difference(&below) {
            faults.push(format!(
                "{TABLE}: {module} may not use {target}, which is not below it"
            ));
        }
        below.insert(module.clone());
    }
    let modules: BTreeMap<&str, &BTreeSet<String>> = layers
        .iter()
        .map(|(module, uses)| (module.as_str(), uses))
        .collect();
    for (path, _) in repo.sources() {
        if let Some(module) = module_of(path).filter(|module| *module != "lib")
            && !modules.contains_key(module)
        {
            faults.push(format!("{path}: module {module} is not in {TABLE}"));
        }
    }
    for ((from, to), path) in edges(repo) {
        let Some(uses) = modules.get(from.as_str()) else {
            continue;
        };
        // A name that is no module is an item of the crate's root: re-exports of what lies below.
        if modules.contains_key(to.as_str()) && !uses.contains(&to) {
            faults.push(format!(
                "{path}: {from} uses {to}, which {TABLE} does not allow"
            ));
        }
    }
    faults
}

/// Edges the table allows and no source has.
#[cfg(test)]
pub(crate) fn unused(repo: &Repo) -> Vec<String> {
    let edges = edges(repo);
    let layers = parse(repo.text(TABLE).unwrap_or_default());
    layers
        .iter()
        .flat_map(|(from, uses)| uses.iter().map(move |to| (from, to)))
        .filter(|(from, to)| !edges.contains_key(&((*from).clone(), (*to).clone())))
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect()
}
