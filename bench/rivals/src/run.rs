//! The order of things: every repeat of a row goes once over all engines, A B C A B C, so that what the machine does meets
//! all of them. Spec: BV-002.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::Measured;
use crate::child::{Begin, Child, Task, remove};
use crate::clock::{now, seconds};
use crate::error::{Error, Result};
use crate::groups::{Group, Row, Run};
use crate::memory_group::MemoryGroup;
use crate::report;
use crate::results::{EngineResult, MetricFacts, Results, RowResult, Status};
use crate::rival::{Engine, Setup};
use crate::scale::Scale;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The engines, in the order in which they take turns.
    pub(crate) engines: Vec<Engine>,
    /// The rows, by group.
    pub(crate) groups: Vec<(&'static Group, Vec<&'static Row>)>,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// Where everything random starts.
    pub(crate) seed: u64,
    /// Repeats of each row that is not long.
    pub(crate) repeats: u32,
    /// How long all of it should take: rows that come late for that are not repeated.
    pub(crate) time: Option<Duration>,
    /// Where databases are made.
    pub(crate) scratch: PathBuf,
    /// The control group under which memory is bounded.
    pub(crate) memory_group: Option<PathBuf>,
}

/// Part of the time that the first rows may take beyond their share: loading comes first and is long.
const AHEAD: f64 = 0.15;

impl Plan {
    /// Whether row `number` of `rows` comes later than its share of the time allows.
    fn is_late(&self, elapsed: Duration, number: usize, rows: usize) -> bool {
        let share = (number - 1) as f64 / rows as f64;
        self.time
            .is_some_and(|time| seconds(elapsed) > seconds(time) * (AHEAD + (1.0 - AHEAD) * share))
    }
}

/// An engine that keeps its table from row to row. The process ends before its control group goes.
struct Running {
    child: Child,
    _group: Option<MemoryGroup>,
}

/// Runs the plan; rows are added to `results` and told as they end.
pub(crate) fn run(plan: &Plan, results: &mut Results, say: &dyn Fn(&str)) -> Result<()> {
    let rows: usize = plan.groups.iter().map(|(_, rows)| rows.len()).sum();
    let (mut number, started) = (0, now());
    for (group, rows_here) in &plan.groups {
        if setup(plan, group).memory_bytes.is_some() {
            say(&report::memory_note(results));
        }
        let mut running: BTreeMap<&str, Running> = BTreeMap::new();
        for row in rows_here {
            number += 1;
            let progress = |what: &str| tell(&format!("{number}/{rows} {}: {what}", row.name));
            let enough = || row.once || plan.is_late(started.elapsed(), number, rows);
            let result = one_row(plan, group, row, &enough, &mut running, &progress)?;
            tell("");
            say(&report::row(&result, row.metrics));
            results.rows.push(result);
        }
        for (name, running) in running {
            // What a database does while it closes belongs to no row; that it can is asked by `reopen/after_close`.
            if let Err(error) = running.child.close() {
                say(&format!(
                    "  {name}: closing the table of {}: {error}\n",
                    group.name
                ));
            }
            remove(&dir(plan, group, name))?;
        }
    }
    Ok(())
}

/// A line that the next one replaces, if somebody sits before a terminal.
fn tell(line: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // Nobody is left to tell if that fails.
        drop(write!(err, "\r\x1b[K{line}").and_then(|()| err.flush()));
    }
}

fn setup(plan: &Plan, group: &Group) -> Setup {
    (group.setup)(&plan.scale).1
}

fn dir(plan: &Plan, group: &Group, engine: &str) -> PathBuf {
    plan.scratch.join(format!("{}-{engine}", group.name))
}

fn one_row(
    plan: &Plan,
    group: &'static Group,
    row: &Row,
    enough: &dyn Fn() -> bool,
    running: &mut BTreeMap<&'static str, Running>,
    progress: &dyn Fn(&str),
) -> Result<RowResult> {
    let mut engines: Vec<EngineResult> = plan.engines.iter().map(nothing_yet).collect();
    for repeat in 0..plan.repeats {
        if repeat > 0 && enough() {
            break;
        }
        for (engine, result) in plan.engines.iter().zip(&mut engines) {
            if result.status != Status::Ok {
                continue;
            }
            progress(&format!("{}, repeat {}", engine.name, repeat + 1));
            let path = dir(plan, group, engine.name);
            let done = match row.run {
                Run::Shared(_) => shared(plan, group, engine, row, repeat, running),
                Run::Empty(_) => alone(plan, group, engine, row, repeat, Begin::Empty),
                Run::Loaded(_) => alone(plan, group, engine, row, repeat, Begin::Load),
                Run::Reopen { killed } => reopened(plan, group, engine, row, repeat, killed),
            };
            match done {
                Ok(measured) => {
                    result.repeats.push(measured.metrics);
                    result.rows_checked += measured.rows_checked;
                }
                // What the machine refuses to us is not the engine's fault.
                Err(error @ (Error::File { .. } | Error::Usage(_))) => return Err(error),
                Err(error @ (Error::Wrong(_) | Error::Engine(_) | Error::Child(_))) => {
                    result.status = match matches!(error, Error::Wrong(_)) {
                        true => Status::Wrong,
                        false => Status::Failed,
                    };
                    result.why = Some(error.to_string());
                    running.remove(engine.name);
                    remove(&path)?;
                }
            }
        }
    }
    let metrics = row.metrics.iter().map(|metric| MetricFacts {
        id: metric.id.to_owned(),
        title: metric.title.to_owned(),
        unit: metric.unit.name().to_owned(),
        more_is_better: metric.more_is_better,
    });
    let mut result = RowResult {
        name: row.name.to_owned(),
        question: row.question.to_owned(),
        metrics: metrics.collect(),
        engines,
    };
    result.finish();
    Ok(result)
}

fn nothing_yet(engine: &Engine) -> EngineResult {
    EngineResult {
        engine: engine.name.to_owned(),
        status: Status::Ok,
        why: None,
        repeats: Vec::new(),
        values: BTreeMap::new(),
        rows_checked: 0,
    }
}

fn task(plan: &Plan, group: &Group, engine: &Engine, dir: &Path, begin: Begin) -> Task {
    Task {
        engine: engine.name.to_owned(),
        group: group.name.to_owned(),
        dir: dir.to_owned(),
        scale: plan.scale.clone(),
        seed: plan.seed,
        begin,
        memory_group: None,
    }
}

/// On the table that the group's rows share; made when the first of them comes.
fn shared(
    plan: &Plan,
    group: &'static Group,
    engine: &Engine,
    row: &Row,
    repeat: u32,
    running: &mut BTreeMap<&'static str, Running>,
) -> Result<Measured> {
    if !running.contains_key(engine.name) {
        let path = dir(plan, group, engine.name);
        let mut task = task(plan, group, engine, &path, Begin::Load);
        let bound = plan
            .memory_group
            .as_deref()
            .zip(setup(plan, group).memory_bytes);
        let memory = bound
            .map(|(parent, bytes)| MemoryGroup::create(parent, engine.name, bytes))
            .transpose()?;
        task.memory_group = memory.as_ref().map(MemoryGroup::procs);
        let (child, _) = Child::start(&task)?;
        let one = Running {
            child,
            _group: memory,
        };
        running.insert(engine.name, one);
    }
    match running.get_mut(engine.name) {
        Some(running) => running.child.row(row.name, repeat),
        None => Err(Error::Child("it is not there".to_owned())),
    }
}

/// On a database of its own.
fn alone(
    plan: &Plan,
    group: &Group,
    engine: &Engine,
    row: &Row,
    repeat: u32,
    begin: Begin,
) -> Result<Measured> {
    let path = dir(plan, group, engine.name);
    remove(&path)?;
    let (mut child, _) = Child::start(&task(plan, group, engine, &path, begin))?;
    let measured = child.row(row.name, repeat)?;
    child.close()?;
    remove(&path)?;
    Ok(measured)
}

/// How long a process that is to be killed has been committing by itself.
const KILLED_AFTER: Duration = Duration::from_millis(50);

/// One process fills and ends, another opens.
fn reopened(
    plan: &Plan,
    group: &Group,
    engine: &Engine,
    row: &Row,
    repeat: u32,
    killed: bool,
) -> Result<Measured> {
    let path = dir(plan, group, engine.name);
    remove(&path)?;
    let (mut first, _) = Child::start(&task(plan, group, engine, &path, Begin::Load))?;
    let txns = first.fill(row.name, repeat, killed)?;
    match killed {
        true => {
            // Some commits later, in the middle of one.
            std::thread::sleep(KILLED_AFTER);
            first.kill()?;
        }
        false => first.close()?,
    }
    let (mut second, mut measured) = Child::start(&task(plan, group, engine, &path, Begin::Open))?;
    let filled = second.check_filled(row.name, repeat, (txns, killed))?;
    measured.rows_checked = filled.rows_checked;
    second.close()?;
    remove(&path)?;
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_late_are_not_repeated() {
        let mut plan = Plan {
            engines: Vec::new(),
            groups: Vec::new(),
            scale: Scale::tiny(1),
            seed: 1,
            repeats: 3,
            time: Some(Duration::from_secs(600)),
            scratch: PathBuf::new(),
            memory_group: None,
        };
        assert!(!plan.is_late(Duration::from_secs(80), 2, 33));
        assert!(plan.is_late(Duration::from_secs(120), 2, 33));
        assert!(!plan.is_late(Duration::from_secs(330), 17, 33));
        assert!(plan.is_late(Duration::from_secs(360), 17, 33));
        plan.time = None;
        assert!(!plan.is_late(Duration::from_secs(9999), 2, 33));
    }
}
