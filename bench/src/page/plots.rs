//! The report's plots, each from results alone.

use std::collections::BTreeMap;

use super::svg::{Anchor, Axis, Svg, escape, tick};
use crate::compare::{Compared, Finding};
use crate::results::Record;
use crate::stats::median;
use crate::summary::{UNSTABLE, aggregates};
use crate::units::{Unit, show};

/// Width of plots that take the page's.
const WIDTH: f64 = 1020.0;
/// Where names of rows end and values begin.
const LEFT: f64 = 304.0;
/// Where values end and numbers in words begin.
const RIGHT: f64 = 860.0;
/// Height of a row.
const ROW: f64 = 24.0;
/// Height above the rows, for the axis.
const TOP: f64 = 26.0;

/// A row's repeats, with the row's short name.
pub(super) type Rows<'a> = Vec<(&'a str, &'a [Record])>;

/// The name without its suite.
fn words(short: &str) -> &str {
    short.split_once('/').map_or(short, |(_, words)| words)
}

/// Grid and labels of an axis above rows.
fn frame(svg: &mut Svg, axis: &Axis, ticks: &[(f64, String)], rows: usize) {
    let bottom = TOP + rows as f64 * ROW;
    for (value, label) in ticks {
        let x = axis.at(*value);
        svg.line((x, TOP), (x, bottom), "gridline");
        svg.text((x, TOP - 8.0), Anchor::Middle, "tick", label);
    }
    svg.line((axis.from, bottom), (axis.to, bottom), "axis");
}

fn middle(index: usize) -> f64 {
    TOP + (index as f64 + 0.5) * ROW
}

/// Medians over the repeats of one number.
pub(super) fn of(records: &[Record], number: fn(&Record) -> f64) -> f64 {
    median(&records.iter().map(number).collect::<Vec<_>>())
}

/// Percentiles of each row on one logarithmic axis of time.
pub(super) fn latencies(rows: &Rows<'_>) -> String {
    type Mark = (&'static str, &'static str, f64, fn(&Record) -> f64);
    const MARKS: [Mark; 5] = [
        ("max", "max", 3.5, |record| record.results.latency_ns.max),
        ("p99.9", "p999", 4.0, |record| {
            record.results.latency_ns.p99_9
        }),
        ("p99", "p99", 4.5, |record| record.results.latency_ns.p99),
        ("p95", "p95", 4.5, |record| record.results.latency_ns.p95),
        ("p50", "p50", 5.5, |record| record.results.latency_ns.p50),
    ];
    let all = rows
        .iter()
        .flat_map(|(_, records)| [of(records, MARKS[0].3), of(records, MARKS[4].3)]);
    let axis = Axis::log(all, LEFT, RIGHT);
    let mut svg = Svg::new(WIDTH, TOP + rows.len() as f64 * ROW + 8.0);
    let ticks: Vec<_> = axis
        .ticks(9)
        .into_iter()
        .map(|at| (at, tick(at, Unit::Nanos)))
        .collect();
    frame(&mut svg, &axis, &ticks, rows.len());
    for (index, (name, records)) in rows.iter().enumerate() {
        let y = middle(index);
        let values = MARKS.map(|(.., number)| of(records, number));
        let numbers = format!(
            "{} · {}",
            show(values[4], Unit::Nanos),
            show(values[2], Unit::Nanos)
        );
        svg.text((LEFT - 12.0, y + 4.0), Anchor::End, "name", words(name));
        svg.text((RIGHT + 12.0, y + 4.0), Anchor::Start, "soft", &numbers);
        svg.line((axis.at(values[4]), y), (axis.at(values[0]), y), "span");
        for ((label, class, radius, _), value) in MARKS.iter().zip(values) {
            let title = format!("{name}: {label} {}", show(value, Unit::Nanos));
            svg.dot((axis.at(value), y), *radius, class, &title);
        }
    }
    svg.finish("Latency percentiles of each row, logarithmic")
}

/// How the marks of [`latencies`] are read.
pub(super) fn latency_legend() -> String {
    let mut svg = Svg::new(WIDTH, 22.0);
    let marks = [
        ("p50", "p50"),
        ("p95", "p95"),
        ("p99", "p99"),
        ("p999", "p99.9"),
        ("max", "slowest"),
    ];
    let mut x = LEFT;
    for (class, words) in marks {
        svg.dot((x, 11.0), 5.0, class, words);
        svg.text((x + 11.0, 15.0), Anchor::Start, "soft", words);
        x += 76.0;
    }
    svg.text((RIGHT + 12.0, 15.0), Anchor::Start, "soft", "p50 · p99");
    svg.finish("Legend: percentiles")
}

/// Each row's figure divided by that of its floors.
pub(super) fn ratios(rows: &Rows<'_>) -> Option<String> {
    let mut found: Vec<(&str, String, bool, f64, String)> = Vec::new();
    for (name, records) in rows {
        let mut floors: BTreeMap<&str, (bool, Vec<f64>)> = BTreeMap::new();
        for floor in records.iter().flat_map(|record| &record.results.floors) {
            let rising = floor.unit.ends_with("per_second");
            let entry = floors.entry(&floor.what).or_insert((rising, Vec::new()));
            entry.1.push(floor.ratio);
        }
        for (what, (rising, ratios)) in floors {
            let value = median(&ratios);
            found.push((
                name,
                format!("{value:.2} x {what}"),
                rising,
                value,
                what.to_owned(),
            ));
        }
    }
    if found.is_empty() {
        return None;
    }
    let values = found.iter().map(|(.., value, _)| *value).chain([0.9, 1.1]);
    let axis = Axis::log(values, LEFT, RIGHT - 190.0);
    let mut svg = Svg::new(WIDTH, TOP + found.len() as f64 * ROW + 8.0);
    let powers = axis.ticks(9);
    // Between more powers of ten there is no room.
    let steps: &[f64] = match powers.len() {
        ..=4 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let ticks: Vec<_> = powers
        .iter()
        .flat_map(|power| steps.iter().map(move |step| power * step))
        .filter(|value| powers.last().is_some_and(|last| value <= last))
        .map(|value| (value, format!("{value}x")))
        .collect();
    frame(&mut svg, &axis, &ticks, found.len());
    let one = axis.at(1.0);
    svg.line((one, TOP), (one, TOP + found.len() as f64 * ROW), "rule");
    for (index, (name, text, rising, value, what)) in found.iter().enumerate() {
        let y = middle(index);
        let at = (axis.at(*value), y);
        svg.text((LEFT - 12.0, y + 4.0), Anchor::End, "name", name);
        svg.text((RIGHT - 178.0, y + 4.0), Anchor::Start, "soft", text);
        svg.line((one, y), at, "span");
        let title = format!("{name}: {value:.3} times {what}");
        match rising {
            true => svg.triangle(at, 6.0, "p95", &title),
            false => svg.dot(at, 5.5, "p50", &title),
        }
    }
    Some(svg.finish("Ratio of each row to its floors, logarithmic"))
}

/// Coefficient of variation of throughput and p99 over repeats.
pub(super) fn variations(rows: &Rows<'_>) -> Option<String> {
    let found: Vec<(&str, f64, f64, usize)> = rows
        .iter()
        .filter_map(|(name, records)| {
            let all = aggregates(records);
            let of = |number: &str| all.get(number).and_then(|one| one.variation);
            Some((*name, of("ops_per_sec")?, of("p99_ns")?, records.len()))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    let values = found
        .iter()
        .flat_map(|(_, throughput, p99, _)| [*throughput, *p99, 0.0, 0.12]);
    let axis = Axis::linear(values, LEFT, RIGHT);
    let mut svg = Svg::new(WIDTH, TOP + found.len() as f64 * ROW + 8.0);
    let ticks: Vec<_> = axis
        .ticks(8)
        .into_iter()
        .map(|at| (at, format!("{:.0} %", at * 100.0)))
        .collect();
    frame(&mut svg, &axis, &ticks, found.len());
    let limit = axis.at(UNSTABLE);
    svg.line(
        (limit, TOP),
        (limit, TOP + found.len() as f64 * ROW),
        "rule",
    );
    for (index, (name, throughput, p99, repeats)) in found.iter().enumerate() {
        let y = middle(index);
        let class = if *throughput > UNSTABLE {
            "unsure"
        } else {
            "bar"
        };
        svg.text((LEFT - 12.0, y + 4.0), Anchor::End, "name", name);
        let title = format!(
            "{name}: throughput {:.1} % over {repeats} repeats",
            throughput * 100.0
        );
        let zero = axis.at(0.0);
        svg.rect(
            (zero, y - 6.0),
            (axis.at(*throughput) - zero, 12.0),
            class,
            &title,
        );
        let title = format!("{name}: p99 {:.1} %", p99 * 100.0);
        svg.dot((axis.at(*p99), y), 4.5, "p99", &title);
        let text = format!("{:.1} % · {:.1} %", throughput * 100.0, p99 * 100.0);
        svg.text((RIGHT + 12.0, y + 4.0), Anchor::Start, "soft", &text);
    }
    Some(svg.finish("Coefficient of variation over repeats: bars throughput, dots p99"))
}

/// One point of a row's history: a run, or a repeat.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Under the axis: a commit, or a repeat's number.
    pub(super) label: String,
    /// Longer, where the pointer rests.
    pub(super) title: String,
    /// Operations a second of each repeat.
    pub(super) values: Vec<f64>,
}

/// A row's throughput over runs, as a card with its name.
pub(super) fn history(name: &str, unit: &str, points: &[Point]) -> String {
    const W: f64 = 330.0;
    const H: f64 = 150.0;
    let all = points.iter().flat_map(|point| point.values.iter().copied());
    let axis = Axis::linear(all, H - 30.0, 10.0);
    let mut svg = Svg::new(W, H);
    for at in axis.ticks(3) {
        let y = axis.at(at);
        svg.line((64.0, y), (W - 10.0, y), "gridline");
        svg.text(
            (58.0, y + 4.0),
            Anchor::End,
            "tick",
            &tick(at, Unit::PerSecond),
        );
    }
    let step = (W - 118.0) / (points.len().max(2) - 1) as f64;
    let x = |index: usize| match points.len() {
        1 => 64.0 + (W - 74.0) / 2.0,
        _ => 80.0 + index as f64 * step,
    };
    // As many labels as do not touch.
    let every = points.len().div_ceil(5);
    let mut line = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let value = median(&point.values);
        let at = (x(index), axis.at(value));
        let low = point.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = point
            .values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        svg.line((at.0, axis.at(low)), (at.0, axis.at(high)), "whisker");
        line.push(at);
        if index % every == 0 {
            svg.text((at.0, H - 10.0), Anchor::Middle, "tick", &point.label);
        }
    }
    svg.polyline(&line, "trend");
    for (at, point) in line.iter().zip(points) {
        let value = show(median(&point.values), Unit::PerSecond);
        svg.dot(*at, 3.5, "p50", &format!("{}: {value}", point.title));
    }
    format!(
        "<div class=\"card\"><code>{}</code><div class=\"unit\">{} / s</div>{}</div>\n",
        escape(name),
        escape(unit),
        svg.finish(&format!("Throughput of {name} over time"))
    )
}

/// Shifts of every number that both sides have, beside what is allowed.
pub(super) fn shifts(all: &[Compared]) -> Option<String> {
    let all: Vec<&Compared> = all
        .iter()
        .filter(|one| one.finding != Finding::Same && one.shift().is_finite())
        .collect();
    if all.is_empty() {
        return None;
    }
    const LEFT_HERE: f64 = 430.0;
    let percent = |one: &Compared| 100.0 * one.shift();
    let allowed = |one: &Compared| 100.0 * one.allowed / one.before.abs().max(f64::MIN_POSITIVE);
    let values = all.iter().flat_map(|one| [percent(one), 0.0, 10.0, -10.0]);
    let axis = Axis::linear(values, LEFT_HERE, RIGHT);
    let mut svg = Svg::new(WIDTH, TOP + all.len() as f64 * ROW + 8.0);
    let ticks: Vec<_> = axis
        .ticks(7)
        .into_iter()
        .map(|at| match at == 0.0 {
            true => (at, "0 %".to_owned()),
            false => (at, format!("{at:+.0} %")),
        })
        .collect();
    frame(&mut svg, &axis, &ticks, all.len());
    let zero = axis.at(0.0);
    svg.line((zero, TOP), (zero, TOP + all.len() as f64 * ROW), "rule");
    for (index, one) in all.iter().enumerate() {
        let y = middle(index);
        let short = one.bench.strip_prefix("bench/").unwrap_or(&one.bench);
        let name = format!("{short}  {}", one.metric);
        svg.text(
            (LEFT_HERE - 12.0, y + 4.0),
            Anchor::End,
            "name",
            &shortened(&name, 56),
        );
        let (low, high) = (axis.at(-allowed(one)), axis.at(allowed(one)));
        svg.rect(
            (low, y - 9.0),
            (high - low, 18.0),
            "band",
            "what is allowed",
        );
        let at = axis.at(percent(one));
        let class = match one.finding {
            Finding::Better => "good",
            Finding::Worse => "bad",
            Finding::Noisy | Finding::TooFew => "unsure",
            Finding::Same => "same",
        };
        let title = format!(
            "{name}: {} to {}",
            show(one.before, one.unit),
            show(one.after, one.unit)
        );
        svg.rect(
            (zero.min(at), y - 4.0),
            ((at - zero).abs(), 8.0),
            class,
            &title,
        );
        svg.dot((at, y), 4.5, class, &title);
        let text = format!("{:+.1} %", percent(one));
        svg.text((RIGHT + 12.0, y + 4.0), Anchor::Start, "soft", &text);
    }
    Some(svg.finish("Shifts between the two sets of results"))
}

/// At most so many letters, the middle left out.
fn shortened(text: &str, letters: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    if all.len() <= letters {
        return text.to_owned();
    }
    let half = (letters - 1) / 2;
    let front: String = all.iter().take(half).collect();
    let back: String = all.iter().skip(all.len() - half).collect();
    format!("{front}…{back}")
}

/// Engines side by side on one workload: bars from 0, the longest as wide as the plot.
pub(super) fn engines(bars: &[(String, f64, String)], own: &str) -> String {
    let most = bars.iter().map(|(_, value, _)| *value).fold(0.0, f64::max);
    let mut svg = Svg::new(WIDTH, bars.len() as f64 * ROW + 6.0);
    for (index, (engine, value, text)) in bars.iter().enumerate() {
        let y = 3.0 + index as f64 * ROW;
        let wide = if most > 0.0 {
            value / most * (RIGHT - LEFT)
        } else {
            0.0
        };
        let class = if engine.contains(own) {
            "bar"
        } else {
            "bar other"
        };
        svg.text(
            (LEFT - 12.0, y + 16.0),
            Anchor::End,
            "name",
            &shortened(engine, 36),
        );
        svg.rect(
            (LEFT, y + 3.0),
            (wide, ROW - 8.0),
            class,
            &format!("{engine}: {text}"),
        );
        svg.text((LEFT + wide + 8.0, y + 16.0), Anchor::Start, "soft", text);
    }
    svg.finish("Engines side by side")
}
