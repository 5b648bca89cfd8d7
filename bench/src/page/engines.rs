//! Other engines beside ours, from files that another program wrote, in either of two shapes.
//!
//! The full one is an object with `rows`, each with a `name`, a `question`, `metrics` (`id`, `title`, `unit`, `more_is_better`; the
//! first is drawn) and `engines` (`engine`, `status`, `why`, and `values` with a `median` by the metric's id).
//!
//! The small one is an object with `rows`, or the array itself. Each row has `workload`, `engine` and `value` (a number), and
//! may have `unit` (`ns`, `per_second`, `bytes`, `bytes_per_second`, `ratio`, `count`); `title` of the object heads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::svg::escape;
use super::tables::{self, Cell};
use super::{Inputs, plots};
use crate::error::{BenchError, Result};
use crate::units::{Unit, show};

/// How our engine is called there.
const OWN: &str = "northstar";

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Full {
        rows: Vec<FullRow>,
    },
    Titled {
        title: Option<String>,
        rows: Vec<Row>,
    },
    Rows(Vec<Row>),
}

#[derive(Debug, Deserialize)]
struct Row {
    #[serde(alias = "bench_name", alias = "row")]
    workload: String,
    engine: String,
    #[serde(alias = "ops_per_sec")]
    value: f64,
    unit: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FullRow {
    name: String,
    #[serde(default)]
    question: String,
    metrics: Vec<Metric>,
    engines: Vec<Engine>,
}

#[derive(Debug, Deserialize)]
struct Metric {
    id: String,
    title: String,
    unit: String,
    more_is_better: bool,
}

#[derive(Debug, Deserialize)]
struct Engine {
    engine: String,
    #[serde(default)]
    status: String,
    why: Option<String>,
    values: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Value {
    median: f64,
}

impl Metric {
    fn unit(&self) -> Unit {
        Unit::named(&self.unit).unwrap_or(Unit::Count)
    }
}

/// A row of the full shape: the first metric as bars, all of them as a table.
fn full(row: &FullRow) -> String {
    let Some(first) = row.metrics.first() else {
        return String::new();
    };
    let value = |engine: &Engine, metric: &Metric| {
        let value = engine.values.get(&metric.id)?;
        Some((value.median, show(value.median, metric.unit())))
    };
    let bars: Vec<(String, f64, String)> = row
        .engines
        .iter()
        .map(|engine| {
            let (number, text) = value(engine, first).unwrap_or_else(|| {
                let why = engine.why.clone().unwrap_or_default();
                (0.0, format!("{} {why}", engine.status))
            });
            (engine.engine.clone(), number, text)
        })
        .collect();
    let better = if first.more_is_better {
        "long is good"
    } else {
        "short is good"
    };
    let mut html = format!(
        "<h3><code>{}</code> {}: <span class=\"muted\">{better}</span></h3><p class=\"muted\">{}</p>{}",
        escape(&row.name),
        escape(&first.title),
        escape(&row.question),
        plots::engines(&bars, OWN)
    );
    if row.metrics.len() > 1 {
        let heads: Vec<String> = row
            .metrics
            .iter()
            .map(|metric| format!("{} ", metric.title))
            .collect();
        let heads: Vec<&str> = std::iter::once("engine")
            .chain(heads.iter().map(String::as_str))
            .collect();
        let lines: Vec<Vec<Cell>> = row
            .engines
            .iter()
            .map(|engine| {
                let cells = row.metrics.iter().map(|metric| {
                    let text =
                        value(engine, metric).map_or_else(|| "–".to_owned(), |(_, text)| text);
                    tables::number(&text)
                });
                std::iter::once(tables::code(&engine.engine))
                    .chain(cells)
                    .collect()
            })
            .collect();
        html.push_str(&tables::table(&heads, &lines));
    }
    html
}

/// The files that were named, those in the directory of the results whose names begin with `versus`, and what `nsbench versus`
/// leaves beside it.
fn files(inputs: &Inputs) -> Vec<PathBuf> {
    let mut found = inputs.versus.clone();
    let entries = std::fs::read_dir(&inputs.results).into_iter().flatten();
    let mut beside: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("versus") && name.ends_with(".json"))
        })
        .collect();
    beside.sort();
    found.extend(beside);
    let left = inputs.results.with_file_name("nsbench-versus.json");
    found.extend(left.is_file().then_some(left));
    found
}

/// The section; `None` without files.
pub(super) fn section(inputs: &Inputs) -> Result<Option<String>> {
    let files = files(inputs);
    if files.is_empty() {
        return Ok(None);
    }
    let mut text = String::from(
        "<p>Medians of engines that ran the same work on the same machine, in turn. Our own is coloured.</p>",
    );
    for file in files {
        text.push_str(&one(&file)?);
    }
    Ok(Some(text))
}

fn one(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(BenchError::file(path))?;
    let file: File = serde_json::from_str(&text).map_err(|error| BenchError::Result {
        path: path.to_owned(),
        why: format!("expected rows of workload, engine, value: {error}"),
    })?;
    let (title, rows) = match file {
        File::Full { rows } => {
            let rows: Vec<String> = rows.iter().map(full).collect();
            return Ok(format!("<div class=\"card\">{}</div>", rows.join("")));
        }
        File::Titled { title, rows } => (title, rows),
        File::Rows(rows) => (None, rows),
    };
    let mut workloads: Vec<&str> = Vec::new();
    for row in &rows {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    let mut html = title.map_or_else(String::new, |title| format!("<h3>{}</h3>", escape(&title)));
    html.push_str("<div class=\"card\">");
    for workload in workloads {
        let bars: Vec<(String, f64, String)> = rows
            .iter()
            .filter(|row| row.workload == workload)
            .map(|row| {
                let unit = row.unit.as_deref().unwrap_or("per_second");
                (
                    row.engine.clone(),
                    row.value,
                    show(row.value, Unit::named(unit).unwrap_or(Unit::Count)),
                )
            })
            .collect();
        let less = rows.iter().any(|row| {
            row.workload == workload
                && matches!(row.unit.as_deref(), Some("ns" | "bytes" | "ratio"))
        });
        let better = if less {
            "short is good"
        } else {
            "long is good"
        };
        html.push_str(&format!(
            "<h3><code>{}</code> <span class=\"muted\">{better}</span></h3>{}",
            escape(workload),
            plots::engines(&bars, OWN)
        ));
    }
    Ok(html + "</div>")
}
