//! The report's tables.

use std::collections::BTreeMap;

use super::plots::Rows;
use super::svg::escape;
use crate::compare::{Compared, Finding};
use crate::figures::{self, Side};
use crate::results::{FigureResult, Record};
use crate::row::is_critical;
use crate::stats::median;
use crate::summary::{Counts, RowEnd, Summary, middle};
use crate::units::{Unit, show};

/// A cell: its text, already safe, and its class.
pub(super) struct Cell(String, &'static str);

fn words(text: &str) -> Cell {
    Cell(escape(text), "")
}

pub(super) fn number(text: &str) -> Cell {
    Cell(escape(text), "n")
}

pub(super) fn code(text: &str) -> Cell {
    Cell(format!("<code>{}</code>", escape(text)), "")
}

/// A table in a card; heads of columns whose cells are numbers end with a blank in `heads`.
pub(super) fn table(heads: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut text = String::from("<div class=\"card\"><table><thead><tr>");
    for head in heads {
        let class = if head.ends_with(' ') {
            " class=\"n\""
        } else {
            ""
        };
        text.push_str(&format!("<th{class}>{}</th>", escape(head.trim_end())));
    }
    text.push_str("</tr></thead><tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for Cell(cell, class) in row {
            text.push_str(&format!("<td class=\"{class}\">{cell}</td>"));
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>\n"
}

/// Each figure as the repeat in the middle gave it.
pub(super) fn middle_figures<'a>(rows: &Rows<'a>) -> BTreeMap<&'a str, &'a FigureResult> {
    let mut repeats: BTreeMap<&str, Vec<&FigureResult>> = BTreeMap::new();
    let all = rows.iter().flat_map(|(_, records)| records.iter());
    for figure in all.flat_map(|record| &record.results.figures) {
        repeats.entry(&figure.id).or_default().push(figure);
    }
    let parts = |figure: &&FigureResult| (figure.value, figure.limit);
    let of_repeats = |(id, all)| Some((id, middle(id, all, parts)?));
    repeats.into_iter().filter_map(of_repeats).collect()
}

/// The table of figures; `None` where no row measured one.
pub(super) fn figures(rows: &Rows<'_>) -> Option<String> {
    let found = middle_figures(rows);
    let mut lines = Vec::new();
    for figure in figures::ALL {
        let Some(result) = found.get(figure.id) else {
            continue;
        };
        let sign = match figure.side {
            Side::AtMost => "≤",
            Side::AtLeast => "≥",
            Side::Exactly => "=",
        };
        let floor = result
            .floor
            .map_or_else(String::new, |floor| show(floor, figure.unit));
        lines.push(vec![
            words(&figure.what.replace("  ", "· ")),
            code(figure.row),
            number(&show(result.value, figure.unit)),
            number(&format!("{sign} {}", show(result.limit, figure.unit))),
            number(&floor),
            match result.met {
                Some(true) => Cell("met".to_owned(), "good"),
                Some(false) => Cell("MISSED".to_owned(), "bad"),
                None => Cell("too small to judge".to_owned(), "muted"),
            },
        ]);
    }
    (!lines.is_empty()).then(|| {
        format!(
            "<p>What the engine is held to, from the repeat in the middle. Limits are the profile's; where a floor stands beside one, the limit is \
             a factor of it.</p>{}",
            table(&["figure", "row", "measured ", "limit ", "floor ", ""], &lines)
        )
    })
}

/// Medians of every row.
pub(super) fn rows(rows: &Rows<'_>) -> String {
    let mut counters: Vec<&str> = Vec::new();
    for record in rows.iter().flat_map(|(_, records)| records.iter()) {
        for name in record.results.counters_per_op.keys() {
            if !counters.contains(&name.as_str()) {
                counters.push(name);
            }
        }
    }
    let mut heads = vec![
        "row",
        "",
        "throughput ",
        "p50 ",
        "p95 ",
        "p99 ",
        "p99.9 ",
        "max ",
        "allocs/op ",
        "fsyncs/txn ",
        "written/op ",
        "read/op ",
    ];
    let counter_heads: Vec<String> = counters
        .iter()
        .map(|name| format!("{}/op ", name.replace('_', " ")))
        .collect();
    heads.extend(counter_heads.iter().map(String::as_str));
    let mut lines = Vec::new();
    for (name, records) in rows {
        let of = |get: &dyn Fn(&Record) -> Option<f64>| {
            let values: Vec<f64> = records.iter().filter_map(get).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let cell = |get: &dyn Fn(&Record) -> Option<f64>, unit| {
            number(&of(get).map_or_else(|| "–".to_owned(), |value| show(value, unit)))
        };
        let per_op = |record: &Record, bytes: u64| {
            Some(bytes as f64 / record.results.ops_with_warmup() as f64)
        };
        let nanos = |get: fn(&Record) -> f64| cell(&|record| Some(get(record)), Unit::Nanos);
        let critical = records
            .first()
            .is_some_and(|record| is_critical(&record.bench_name));
        let mut line = vec![
            code(name),
            Cell((if critical { "critical" } else { "" }).to_owned(), "muted"),
            cell(&|record| Some(record.results.ops_per_sec), Unit::PerSecond),
            nanos(|record| record.results.latency_ns.p50),
            nanos(|record| record.results.latency_ns.p95),
            nanos(|record| record.results.latency_ns.p99),
            nanos(|record| record.results.latency_ns.p99_9),
            nanos(|record| record.results.latency_ns.max),
            cell(&|record| record.results.allocs_per_op, Unit::Count),
            cell(&|record| record.results.fsyncs_per_txn, Unit::Count),
            cell(
                &|record| per_op(record, record.results.io?.bytes_written),
                Unit::Bytes,
            ),
            cell(
                &|record| per_op(record, record.results.io?.bytes_read),
                Unit::Bytes,
            ),
        ];
        for counter in &counters {
            line.push(cell(
                &|record| record.results.counters_per_op.get(*counter).copied(),
                Unit::Count,
            ));
        }
        lines.push(line);
    }
    format!(
        "<p>Medians over the repeats. A dash: the row has no such number, or the machine cannot count it.</p>{}{}",
        table(&heads, &lines),
        questions(rows)
    )
}

fn questions(rows: &Rows<'_>) -> String {
    let mut lines = Vec::new();
    for (name, records) in rows {
        let Some(record) = records.first() else {
            continue;
        };
        let notes = record.results.notes.join("; ");
        lines.push(vec![
            code(name),
            Cell(escape(&record.question), "wrap"),
            words(&record.unit),
            Cell(escape(&notes), "wrap"),
        ]);
    }
    format!(
        "<h3>What they ask</h3>{}",
        table(&["row", "question", "one operation", "notes"], &lines)
    )
}

/// Counts by suite, and rows without a result.
pub(super) fn suites(rows: &Rows<'_>, summary: Option<&Summary>) -> String {
    let Some(summary) = summary else {
        let mut suites: BTreeMap<&str, Counts> = BTreeMap::new();
        for (name, _) in rows {
            suites.entry(super::suite_of(name)).or_default().passed += 1;
        }
        let lines: Vec<_> = suites
            .iter()
            .map(|(suite, counts)| vec![code(suite), number(&counts.passed.to_string())])
            .collect();
        return format!(
            "<p>These results have no <code>summary.json</code>, so rows that failed or were skipped are not known.</p>{}",
            table(&["suite", "rows with results "], &lines)
        );
    };
    let line = |(suite, counts): (&String, &Counts)| {
        let bad = if counts.failed > 0 { "n bad" } else { "n" };
        vec![
            code(suite),
            number(&counts.passed.to_string()),
            Cell(counts.failed.to_string(), bad),
            number(&counts.skipped.to_string()),
        ]
    };
    let lines: Vec<_> = summary.suites.iter().map(line).collect();
    let mut text = table(&["suite", "passed ", "failed ", "skipped "], &lines);
    let without: Vec<_> = summary
        .rows
        .iter()
        .filter(|(_, row)| row.end != RowEnd::Passed)
        .map(|(name, row)| {
            let (word, class) = match row.end {
                RowEnd::Skipped => ("skipped", "unsure"),
                RowEnd::Failed | RowEnd::Passed => ("failed", "bad"),
            };
            let why = row.why.as_deref().unwrap_or_default();
            vec![
                code(name),
                Cell(word.to_owned(), class),
                Cell(escape(why), "wrap"),
            ]
        })
        .collect();
    if !without.is_empty() {
        text.push_str(&table(&["row", "", "why"], &without));
    }
    text
}

/// What shifted, in numbers.
pub(super) fn shifts(all: &[Compared]) -> String {
    let lines: Vec<_> = all
        .iter()
        .filter(|one| one.finding != Finding::Same)
        .map(|one| {
            let class = match one.finding {
                Finding::Better => "good",
                Finding::Worse => "bad",
                Finding::Noisy | Finding::TooFew => "unsure",
                Finding::Same => "",
            };
            vec![
                code(one.bench.strip_prefix("bench/").unwrap_or(&one.bench)),
                words(&one.metric),
                number(&show(one.before, one.unit)),
                number(&show(one.after, one.unit)),
                number(&format!("{:+.1} %", 100.0 * one.shift())),
                number(&format!("± {}", show(one.allowed, one.unit))),
                Cell(one.finding.words().to_owned(), class),
            ]
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    table(
        &[
            "row", "number", "before ", "after ", "shift ", "allowed ", "",
        ],
        &lines,
    )
}

/// Every fact that a result keeps of its machine, build and configuration.
pub(super) fn machine(record: &Record) -> String {
    let mut lines = Vec::new();
    let parts = [
        serde_json::to_value(&record.profile),
        serde_json::to_value(&record.build),
        serde_json::to_value(&record.config),
    ];
    for value in parts.iter().flatten() {
        facts("", value, &mut lines);
    }
    format!(
        "<p>As the newest result says it. What cannot be read on a machine is not there.</p>{}",
        table(&["fact", "value"], &lines)
    )
}

/// Leaves of a JSON value, named by their path.
fn facts(path: &str, value: &serde_json::Value, lines: &mut Vec<Vec<Cell>>) {
    let text = match value {
        serde_json::Value::Null => return,
        serde_json::Value::Object(parts) => {
            for (name, part) in parts {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                facts(&path, part, lines);
            }
            return;
        }
        serde_json::Value::Array(all) => {
            let all: Vec<String> = all
                .iter()
                .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                .collect();
            all.join(", ")
        }
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Bool(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
        serde_json::Value::Number(number) => number.to_string(),
    };
    lines.push(vec![
        words(&path.replace('_', " ")),
        Cell(escape(&text), "wrap"),
    ]);
}
