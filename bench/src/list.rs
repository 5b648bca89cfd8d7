//! `nsbench list`: every row, the question it answers, whether a regression of it blocks a change.

use serde::Serialize;

use crate::cli::{Ended, say};
use crate::row::{Row, is_critical};

/// A row as `list --json` says it.
#[derive(Debug, Serialize)]
struct Listed {
    bench_name: &'static str,
    suite: &'static str,
    critical: bool,
    question: &'static str,
    unit: &'static str,
}

/// Prints the rows.
pub(crate) fn show(rows: &[Row], json: bool) -> Ended {
    match json {
        true => say(&as_json(rows)),
        false => say(&as_text(rows)),
    }
    Ended::Met
}

fn as_json(rows: &[Row]) -> String {
    let listed: Vec<Listed> = rows
        .iter()
        .map(|row| Listed {
            bench_name: row.name,
            suite: row.suite(),
            critical: is_critical(row.name),
            question: row.question,
            unit: row.unit,
        })
        .collect();
    serde_json::to_string_pretty(&listed).unwrap_or_default() + "\n"
}

fn as_text(rows: &[Row]) -> String {
    let critical_of = |rows: &[&Row]| rows.iter().filter(|row| is_critical(row.name)).count();
    let rows: Vec<&Row> = rows.iter().collect();
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let (mut text, mut suites) = (String::new(), 0);
    for of_suite in rows.chunk_by(|a, b| a.suite() == b.suite()) {
        let Some(first) = of_suite.first() else {
            continue;
        };
        suites += 1;
        text.push_str(&format!(
            "{}: {} rows, {} critical\n",
            first.suite(),
            of_suite.len(),
            critical_of(of_suite)
        ));
        for row in of_suite {
            let mark = if is_critical(row.name) {
                "CRITICAL"
            } else {
                ""
            };
            let only = match row.only_if_asked() {
                Some(word) if word == row.suite() => " (runs only with --suite or --filter)",
                Some(_) => " (runs only with --filter)",
                None => "",
            };
            text.push_str(&format!(
                "  {:<width$}  {mark:<8}  {}{only}\n",
                row.name, row.question
            ));
        }
    }
    text.push_str(&format!(
        "{} rows in {suites} suites, {} critical: a regression of one blocks a change\n",
        rows.len(),
        critical_of(&rows)
    ));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::suites;

    /// Rows of the specification's tables: name, question, unit, critical.
    fn specified() -> BTreeMap<String, (String, String, bool)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/benchmarks_v0.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text.lines().filter(|line| line.starts_with("| `bench/"));
        rows.map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 5, "{line}");
            let name = cells[0].trim_matches('`').to_owned();
            let critical = match cells[4] {
                "yes" => true,
                "" => false,
                other => panic!("{name}: critical is {other:?}"),
            };
            (name, (cells[1].to_owned(), cells[2].to_owned(), critical))
        })
        .collect()
    }

    #[test]
    fn the_list_and_the_specification_say_the_same_of_the_same_rows() {
        let specified = specified();
        let json: serde_json::Value = serde_json::from_str(&as_json(&suites::all())).unwrap();
        let mut listed = BTreeMap::new();
        for row in json.as_array().unwrap() {
            let word = |key: &str| row[key].as_str().unwrap().to_owned();
            let facts = (
                word("question"),
                word("unit"),
                row["critical"].as_bool().unwrap(),
            );
            listed.insert(word("bench_name"), facts);
        }
        for (name, facts) in &listed {
            assert_eq!(
                specified.get(name),
                Some(facts),
                "{name} is listed, the specification says otherwise"
            );
        }
        for (name, facts) in &specified {
            assert_eq!(
                listed.get(name),
                Some(facts),
                "{name} is specified, the list says otherwise"
            );
        }
    }

    #[test]
    fn the_list_for_people_names_every_row_with_its_mark_and_counts() {
        let rows = suites::all();
        let text = as_text(&rows);
        for row in &rows {
            let line = text
                .lines()
                .find(|line| line.split_whitespace().next() == Some(row.name));
            let line = line.unwrap_or_else(|| panic!("{} is not listed", row.name));
            assert!(line.contains(row.question), "{line}");
            assert_eq!(line.contains("CRITICAL"), is_critical(row.name), "{line}");
        }
        assert!(text.contains(&format!("{} rows in", rows.len())), "{text}");
        assert!(text.contains("floor: 5 rows, 0 critical"), "{text}");
    }
}
