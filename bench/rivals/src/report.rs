//! What is printed: the conditions, then a table for each row. Rows we lose look like rows we win.

use std::time::Duration;

use crate::groups::Metric;
use crate::machine::Machine;
use crate::results::{EngineFacts, EngineResult, Results, RowResult, Status};
use crate::units::{Unit, show};

/// Part of the load a machine may have before times are those of a busy machine.
const BUSY: f64 = 0.5;

/// Machine, sizes, engines and their promises.
pub(crate) fn heading(results: &Results) -> String {
    let Machine {
        cpu_model,
        core_count,
        ram_gb,
        os,
        fs,
        device,
        load_average,
        ..
    } = &results.machine;
    let unknown = || "unknown".to_owned();
    let scale = &results.scale;
    let mut text = format!(
        "{}, {core_count} cores, {} GiB, {os}, {} on {}, load {}\n",
        cpu_model.clone().unwrap_or_else(unknown),
        ram_gb.map_or_else(unknown, |gb| gb.to_string()),
        fs.clone().unwrap_or_else(unknown),
        device.clone().unwrap_or_else(unknown),
        load_average.map_or_else(unknown, |load| load.to_string()),
    );
    if load_average.is_some_and(|load| load > *core_count as f64 * BUSY) {
        text.push_str("the machine is busy: times are of a busy machine, read the ratios\n");
    }
    if cfg!(debug_assertions) {
        text.push_str("built without --release: these figures say nothing about any engine\n");
    }
    text.push_str(&format!(
        "{} size, seed {}, {} repeats in turn; {} rows of 16 + 100 bytes, {} of cache for each engine\n",
        scale.name,
        results.seed,
        results.repeats,
        scale.rows,
        show(scale.cache_bytes as f64, Unit::Bytes),
    ));
    text.push_str(
        "every commit is durable, every transaction atomic, every read from a snapshot; what an engine leaves to do after a row's \
         last commit (merges, compactions) is done outside of the time that counts\n\n",
    );
    for engine in &results.engines {
        text.push_str(&engine_line(engine));
    }
    text
}

fn engine_line(engine: &EngineFacts) -> String {
    let EngineFacts {
        name,
        version,
        durable,
        notes,
        skipped,
    } = engine;
    match skipped {
        Some(why) => format!("  {name:<10} SKIPPED: {why}\n"),
        None => format!("  {name:<10} {version}: {durable}\n             {notes}\n"),
    }
}

/// Said once above the rows whose data exceeds the memory.
pub(crate) fn memory_note(results: &Results) -> String {
    let memory = show(results.scale.memory_bytes as f64, Unit::Bytes);
    let bound = match results.memory_bounded {
        true => "a control group bounds each process and the kernel's cache of its files to that".to_owned(),
        false => "NOT BOUNDED: the kernel may cache all of the data for the engines that read through it, which all do but \
                  ours; --memory-group bounds it"
            .to_owned(),
    };
    format!("\ndata four times {memory} of memory, caches emptied before each loop; {bound}\n")
}

/// How many rows each engine was best in, what went wrong, and who was not there.
pub(crate) fn ending(results: &Results, took: Duration) -> String {
    let mut text = String::from("\nbest in:");
    for engine in results
        .engines
        .iter()
        .filter(|engine| engine.skipped.is_none())
    {
        let is_best = |row: &&RowResult| {
            let first = row.metrics.first().map(|metric| metric.id.as_str());
            let of = row
                .engines
                .iter()
                .find(|result| result.engine == engine.name);
            of.filter(|result| result.status == Status::Ok)
                .and_then(|result| result.values.get(first?))
                .is_some_and(|value| value.of_best >= 1.0)
        };
        let count = results.rows.iter().filter(is_best).count();
        text.push_str(&format!(" {} {count},", engine.name));
    }
    let rows = results.rows.len();
    let took = show(took.as_nanos() as f64, Unit::Nanos);
    text.push_str(&format!(" of {rows} rows in {took}"));
    let of = |status| {
        let all = results.rows.iter().flat_map(|row| &row.engines);
        all.filter(|result| result.status == status).count()
    };
    for (status, count) in [Status::Wrong, Status::Failed].map(|status| (status, of(status))) {
        if count > 0 {
            text.push_str(&format!("; {count} times {}", word(status)));
        }
    }
    for engine in &results.engines {
        if let Some(why) = &engine.skipped {
            text.push_str(&format!("\n{} was SKIPPED: {why}", engine.name));
        }
    }
    if results.scale.name != "full" {
        text.push_str("\nnot full size: indications only");
    }
    text.push('\n');
    text
}

/// One row: a line for each engine, in order of the first metric.
pub(crate) fn row(row: &RowResult, metrics: &[Metric]) -> String {
    let mut text = format!("\n{}: {}\n", row.name, row.question);
    let mut lines = vec![titles(metrics)];
    let mut order: Vec<&EngineResult> = row.engines.iter().collect();
    let rank = |result: &EngineResult| {
        let first = metrics
            .first()
            .and_then(|metric| result.values.get(metric.id));
        match result.status {
            Status::Ok => first.map_or(0.0, |value| value.of_best),
            Status::Wrong | Status::Failed => -1.0,
        }
    };
    order.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    let mut remarks = Vec::new();
    for (place, result) in order.iter().enumerate() {
        let best = place == 0 && result.status == Status::Ok;
        lines.push(cells(result, metrics, best));
        if result.status != Status::Ok {
            remarks.push(format!(
                "  {} {}: {}\n",
                result.engine,
                word(result.status),
                result.why.as_deref().unwrap_or("for no reason it gave")
            ));
        }
    }
    text.push_str(&aligned(&lines));
    text.extend(remarks);
    text
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "",
        Status::Wrong => "WRONG",
        Status::Failed => "FAILED",
    }
}

fn titles(metrics: &[Metric]) -> Vec<String> {
    let mut cells = vec![String::new()];
    for (index, metric) in metrics.iter().enumerate() {
        cells.push(metric.title.to_owned());
        if index == 0 {
            cells.push("spread".to_owned());
            cells.push("of best".to_owned());
        }
    }
    cells
}

fn cells(result: &EngineResult, metrics: &[Metric], best: bool) -> Vec<String> {
    let mark = if best { "* " } else { "  " };
    let mut cells = vec![format!("{mark}{}", result.engine)];
    for (index, metric) in metrics.iter().enumerate() {
        let value = result.values.get(metric.id);
        cells.push(match (value, result.status) {
            (Some(value), Status::Ok) => show(value.median, metric.unit),
            (_, Status::Ok) => "-".to_owned(),
            (_, status) if index == 0 => word(status).to_owned(),
            _ => String::new(),
        });
        if index == 0 {
            let shown = value.filter(|_| result.status == Status::Ok);
            cells.push(
                shown.map_or_else(String::new, |value| match result.repeats.len() {
                    1 => "one run".to_owned(),
                    _ => format!("±{:.0} %", value.spread * 100.0),
                }),
            );
            cells.push(shown.map_or_else(String::new, |value| show(value.of_best, Unit::Ratio)));
        }
    }
    cells
}

/// The first column to the left, all others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut out = String::from("  ");
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match index {
                0 => out.push_str(&format!("{cell:<width$}")),
                _ => out.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row as result;

    const METRICS: &[Metric] = &[
        Metric {
            id: "rate",
            title: "gets",
            unit: Unit::PerSecond,
            more_is_better: true,
        },
        Metric {
            id: "p50",
            title: "p50",
            unit: Unit::Nanos,
            more_is_better: false,
        },
    ];

    #[test]
    fn the_best_stands_first_and_is_marked_whoever_it_is() {
        let result = result(&[
            ("northstar", Status::Ok, &[(1000.0, 10.0), (1010.0, 11.0)]),
            ("other", Status::Ok, &[(2000.0, 5.0), (2020.0, 5.0)]),
            ("broken", Status::Wrong, &[(9000.0, 1.0)]),
        ]);
        let text = row(&result, METRICS);
        let lines: Vec<&str> = text.trim().lines().collect();
        assert!(
            lines[2].contains("* other") && lines[2].contains("2.01 K/s"),
            "{text}"
        );
        assert!(
            lines[3].contains("northstar") && lines[3].contains("0.50"),
            "{text}"
        );
        assert!(
            lines[4].contains("broken") && lines[4].contains("WRONG"),
            "{text}"
        );
        assert!(text.contains("broken WRONG: row 3 is missing"), "{text}");
    }
}
