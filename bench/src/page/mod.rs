//! `nsbench report`: one self-contained page from kept results, with plots, tables and the machine they belong to.
//!
//! The page has no script and loads nothing: it can be mailed, kept with a release, or opened from a CI artifact.
//! Spec: `benchmarks_v0`.

mod depths;
mod engines;
mod plots;
mod runs;
mod svg;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::cli::{Ended, say};
use crate::compare::{Thresholds, compare};
use crate::error::{BenchError, Result};
use crate::figures;
use crate::gate::comparable;
use crate::results::Record;
use crate::suites;
use crate::summary::Summary;

use plots::Rows;
use svg::escape;

const STYLE: &str = include_str!("style.css");

/// What the page is made from.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The results that it is about.
    pub(crate) results: PathBuf,
    /// Results before, to compare with.
    pub(crate) before: Option<PathBuf>,
    /// Directories whose subdirectories are older runs.
    pub(crate) history: Vec<PathBuf>,
    /// Comparisons with other engines; those beside the results are found without.
    pub(crate) versus: Vec<PathBuf>,
    /// What counts as a shift.
    pub(crate) limits: Thresholds,
}

/// Writes the page to `to`.
pub(crate) fn write(inputs: &Inputs, to: &Path) -> Result<Ended> {
    let page = page(inputs)?;
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(BenchError::file(folder))?;
    }
    std::fs::write(to, page).map_err(BenchError::file(to))?;
    say(&format!("{}\n", to.display()));
    Ok(Ended::Met)
}

/// A section of the page: what stands in the list of contents, and its text.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

fn page(inputs: &Inputs) -> Result<String> {
    let all = Record::read_all(&inputs.results)?;
    let Some(newest) = all
        .values()
        .flatten()
        .max_by_key(|record| record.timestamp_unix_s)
    else {
        return Err(BenchError::BadUse("no results".to_owned()));
    };
    let rows = in_order(&all);
    let summary = Summary::read(&inputs.results);
    let mut sections = Vec::new();
    let mut add = |id, title, body: Option<String>| {
        sections.extend(body.map(|body| Section { id, title, body }));
    };
    add(
        "figures",
        "Figures and their limits",
        tables::figures(&rows),
    );
    add("latency", "Latency", Some(latency(&rows)));
    add("floors", "Beside the floors", plots::ratios(&rows).map(|plot| {
        format!(
            "<p>What the row did, divided by what the same machine does with no database in between, in the same minute. \
             <span class=\"mono\">●</span> times, where left is better; <span class=\"mono\">▲</span> rates, where right \
             is better. The dashed line is the floor itself.</p><div class=\"card\">{plot}</div>"
        )
    }));
    add("depths", "By queue depth", depths::section(&rows));
    add("variation", "Over repeats", plots::variations(&rows).map(|plot| {
        format!(
            "<p>Standard deviation divided by the mean, over the repeats: bars are throughput, dots the 99th percentile. \
             A row beyond 10 % (dashed) is unstable: a difference smaller than that says nothing.</p>\
             <div class=\"card\">{plot}</div>"
        )
    }));
    add("history", "Over time", history(inputs, &rows)?);
    add("compare", "Before and after", shifts(inputs, &all)?);
    add("versus", "Beside other engines", engines::section(inputs)?);
    add("rows", "Every row", Some(tables::rows(&rows)));
    add(
        "suites",
        "Suites",
        Some(tables::suites(&rows, summary.as_ref())),
    );
    add("machine", "The machine", Some(tables::machine(newest)));
    add("reading", "How to read this", Some(READING.to_owned()));
    Ok(whole(newest, &rows, summary.as_ref(), &sections))
}

/// Rows in the order in which they run; those that this build does not know come last.
fn in_order(all: &BTreeMap<String, Vec<Record>>) -> Rows<'_> {
    let order: Vec<&str> = suites::all().iter().map(|row| row.name).collect();
    let place = |name: &str| order.iter().position(|known| *known == name);
    let mut rows: Vec<_> = all.iter().collect();
    rows.sort_by_key(|(name, _)| (place(name).unwrap_or(usize::MAX), name.as_str()));
    rows.into_iter()
        .map(|(name, records)| {
            (
                name.strip_prefix("bench/").unwrap_or(name),
                records.as_slice(),
            )
        })
        .collect()
}

fn suite_of(short: &str) -> &str {
    short.split('/').next().unwrap_or(short)
}

fn latency(rows: &Rows<'_>) -> String {
    let mut text = String::from(
        "<p>Of one operation, on an axis of powers of ten; medians over the repeats. Resting the pointer on a mark names it. \
         Rows of one suite share an axis; suites do not.</p>",
    );
    text.push_str(&format!("<div class=\"card\">{}", plots::latency_legend()));
    for of_suite in rows.chunk_by(|(a, _), (b, _)| suite_of(a) == suite_of(b)) {
        if let Some((first, _)) = of_suite.first() {
            text.push_str(&format!("<h3>{}</h3>", escape(suite_of(first))));
            text.push_str(&plots::latencies(&of_suite.to_vec()));
        }
    }
    text + "</div>"
}

/// Throughput over older runs and this one; over the repeats of this one where there are no older ones.
fn history(inputs: &Inputs, rows: &Rows<'_>) -> Result<Option<String>> {
    let older = runs::older(&inputs.history, &inputs.results)?;
    let mut text = String::new();
    for (name, records) in rows {
        let points = match older.is_empty() {
            true => runs::repeats(records),
            false => runs::points(&older, records),
        };
        if points.len() > 1 {
            let unit = records
                .first()
                .map_or("operation", |record| record.unit.as_str());
            text.push_str(&plots::history(name, unit, &points));
        }
    }
    if text.is_empty() {
        return Ok(None);
    }
    let words = match older.is_empty() {
        true => {
            "Throughput of each repeat, in the order in which they ran. A slope means that a repeat changed what the next one met. \
                 With <code>--history DIR</code> this shows earlier runs instead."
        }
        false => {
            "Throughput of earlier runs and this one, by commit: the median of the repeats, and from their least to their most. \
                  The axis need not begin at 0."
        }
    };
    Ok(Some(format!(
        "<p>{words}</p><div class=\"grid\">{text}</div>"
    )))
}

fn shifts(inputs: &Inputs, after: &BTreeMap<String, Vec<Record>>) -> Result<Option<String>> {
    let Some(before) = &inputs.before else {
        return Ok(None);
    };
    let before = Record::read_all(before)?;
    let other = match comparable(&before, after) {
        Ok(None) => String::new(),
        Ok(Some(other)) => format!("<div class=\"warn\">{}</div>", escape(&other)),
        Err(error) => {
            return Ok(Some(format!(
                "<p class=\"bad\">{}</p>",
                escape(&error.to_string())
            )));
        }
    };
    let all = compare(&before, after, &inputs.limits);
    let plot = plots::shifts(&all).map_or_else(
        || "<p class=\"good\">No number shifted by more than is allowed.</p>".to_owned(),
        |plot| format!("<div class=\"card\">{plot}</div>"),
    );
    Ok(Some(format!(
        "{other}<p>Numbers that shifted beyond their threshold. The band is what is allowed: the threshold, or three times the median \
         deviation of the repeats where that is more. Beyond the band a number is <span class=\"good\">better</span> or \
         <span class=\"bad\">worse</span>, within it the machine was <span class=\"unsure\">too noisy to tell</span>, or there were too few repeats. All other \
         numbers are the same.</p>{plot}{}",
        tables::shifts(&all)
    )))
}

/// The page around its sections.
fn whole(
    newest: &Record,
    rows: &Rows<'_>,
    summary: Option<&Summary>,
    sections: &[Section],
) -> String {
    let when = i64::try_from(newest.timestamp_unix_s)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(String::new, |at| {
            at.strftime("%Y-%m-%d %H:%M UTC").to_string()
        });
    let commit = newest.git.as_ref().map_or_else(
        || "unknown commit".to_owned(),
        |git| {
            let short = git.sha.get(..10).unwrap_or(&git.sha);
            format!(
                "{short} on {}{}",
                git.branch,
                if git.dirty { ", with changes" } else { "" }
            )
        },
    );
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>nsbench report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <h1>NorthstarDB: benchmark report</h1>\n<p class=\"muted\">{} · profile {} · {} size · {} · seed {}</p>\n",
        escape(&when),
        escape(&newest.profile.name),
        escape(&newest.config.size),
        escape(&commit),
        newest.config.seed,
    );
    text.push_str(&tiles(rows, summary));
    text.push_str(&warnings(newest));
    text.push_str("<nav>");
    for section in sections {
        text.push_str(&format!(
            "<a href=\"#{}\">{}</a>",
            section.id, section.title
        ));
    }
    text.push_str("</nav>\n</header>\n<main>\n");
    for section in sections {
        text.push_str(&format!(
            "<section id=\"{}\">\n<h2>{}</h2>\n{}\n</section>\n",
            section.id, section.title, section.body
        ));
    }
    text.push_str(&format!(
        "</main>\n<footer>Written by nsbench {} from results of schema {}. No script, nothing loaded.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        newest.schema
    ));
    text
}

fn tiles(rows: &Rows<'_>, summary: Option<&Summary>) -> String {
    let verdicts: Vec<Option<bool>> = tables::middle_figures(rows)
        .values()
        .map(|figure| figure.met)
        .collect();
    let count = |wanted| verdicts.iter().filter(|met| **met == Some(wanted)).count();
    let repeats = rows
        .iter()
        .map(|(_, records)| records.len())
        .max()
        .unwrap_or(0);
    let total = summary.map(Summary::total).unwrap_or_default();
    let class = |bad: usize| if bad > 0 { "bad" } else { "" };
    let mut all = vec![
        (rows.len().to_string(), "rows with results", ""),
        (repeats.to_string(), "repeats at most", ""),
        (count(true).to_string(), "figures met", "good"),
        (
            count(false).to_string(),
            "figures missed",
            class(count(false)),
        ),
    ];
    if summary.is_some() {
        all.push((
            total.failed.to_string(),
            "rows failed",
            class(total.failed as usize),
        ));
        all.push((total.skipped.to_string(), "rows skipped", ""));
    }
    let tiles: Vec<String> = all
        .iter()
        .map(|(number, words, class)| {
            format!(
                "<div class=\"tile\"><b class=\"{class}\">{number}</b><span>{words}</span></div>"
            )
        })
        .collect();
    let expected = figures::ALL.len();
    let missing = expected - verdicts.len().min(expected);
    let note = match missing {
        0 => String::new(),
        _ => format!(
            "<p class=\"muted\">{missing} of {expected} figures were not measured in these results.</p>"
        ),
    };
    format!("<div class=\"tiles\">{}</div>{note}\n", tiles.join(""))
}

/// What a reader must know before the numbers.
fn warnings(newest: &Record) -> String {
    let machine = &newest.profile.machine;
    let mut all = Vec::new();
    if newest.build.mode != "release" {
        all.push("Built without optimisation: these figures say nothing about the engine.");
    }
    if newest.config.size != "full" {
        all.push("Not the full size: figures are indications, and those that depend on the size are not judged.");
    }
    if machine
        .load_average
        .is_some_and(|load| load > machine.core_count as f64 / 2.0)
    {
        all.push(
            "The machine was busy: times are of a busy machine. Read ratios to floors and counts.",
        );
    }
    if newest.git.as_ref().is_some_and(|git| git.dirty) {
        all.push("The sources had changes that are in no commit.");
    }
    all.iter()
        .map(|words| format!("<div class=\"warn\">{words}</div>\n"))
        .collect()
}

const READING: &str = "\
<p>A <b>row</b> is one named measurement and answers one question. A <b>floor</b> is what the machine does with no database in \
between; ratios to floors travel between machines, times do not. A <b>figure</b> is a row's number with a limit, met or missed. \
A <b>repeat</b> is the whole row once more; medians are over repeats.</p>\
<p>On shared or virtual machines compare ratios and counts (flushes, allocations, bytes); compare times only of runs that \
alternated (<code>nsbench gate --against</code>). A maximum is one event and never worth a conclusion by itself.</p>\
<p><code>nsbench doctor</code> says what on a machine costs speed or durability.</p>";

#[cfg(test)]
mod tests;
