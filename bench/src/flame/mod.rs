//! `nsbench flamegraph`: where one row's time goes, as one SVG.
//!
//! `perf` samples where it can be used: cycles, or the clock where the processor's counters cannot be read. Elsewhere the
//! program samples itself with a timer's signal, which sees no kernel and nothing inside of the C library. Stacks are kept beside
//! the picture, folded, one a line, for other tools. The picture is `inferno`'s: to zoom and search in, in any browser.

mod stacks;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{self, Options};

use crate::cli::{Ended, RunArgs, say};
use crate::error::{BenchError, Result};
use crate::row::Row;
use crate::run::run;

use stacks::Stacks;

/// Samples a second: not a round number, so that nothing that happens by the clock is always or never met.
const HERTZ: u32 = 997;
/// The function around the part of a loop that is timed: [`crate::sample`].
const TIMED: &str = "nsbench::sample::timed_loop";
/// Where the raw loops are that run beside a row.
const FLOORS: &str = "nsbench::floor::";
/// How the names of the engine's own threads begin.
const ENGINE: &str = "northstar-";

/// Who takes the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sampler {
    /// `perf record`.
    Perf,
    /// This program, by a timer's signal.
    Inside,
}

/// Profiles one row.
pub(crate) fn draw(
    args: &RunArgs,
    sampler: Option<Sampler>,
    whole: bool,
    output: Option<PathBuf>,
) -> Result<Ended> {
    let row = one(&args.select.rows()?, args.select.filter.as_deref())?;
    let output = output.unwrap_or_else(|| {
        let name = row.short().replace('/', "_");
        let folder = crate::cli::default_dir().with_file_name("nsbench-flamegraphs");
        folder.join(name).with_extension("svg")
    });
    let folder = output.parent().filter(|dir| !dir.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(BenchError::file(folder))?;
    let sampler = sampler.unwrap_or_else(|| {
        if perf_works() {
            Sampler::Perf
        } else {
            Sampler::Inside
        }
    });
    let mut args = args.clone();
    args.select.filter = Some(row.name.to_owned());
    // Figures of a run that is interrupted a thousand times a second are nobody's last results.
    let results = output.with_extension("results");
    args.json = Some(results.clone());
    let (mut all, how) = match sampler {
        Sampler::Perf => by_perf(&args, &output)?,
        Sampler::Inside => inside(&args)?,
    };
    drop(std::fs::remove_dir_all(&results));
    let total = all.samples();
    if !whole {
        all = all.timed(TIMED, ENGINE);
        if row.suite() != "floor" {
            all = all.without(FLOORS);
        }
    }
    let samples = all.samples();
    if samples == 0 {
        return Err(BenchError::Child(format!(
            "{total} samples were taken and none in a timed loop: the row is too short (--whole shows its setup)"
        )));
    }
    let folded = output.with_extension("folded");
    std::fs::write(&folded, all.folded()).map_err(BenchError::file(&folded))?;
    let title = format!("{}: {samples} of {total} samples, {how}", row.short());
    let svg = picture(&all, &title)?;
    std::fs::write(&output, svg).map_err(BenchError::file(&output))?;
    say(&format!(
        "{title}\n{}\n{}\n",
        folded.display(),
        output.display()
    ));
    Ok(Ended::Met)
}

/// The one row that is meant: the only one, or the one whose name is just that.
fn one(rows: &[Row], asked: Option<&str>) -> Result<Row> {
    let exact = rows
        .iter()
        .find(|row| asked == Some(row.short()) || asked == Some(row.name));
    match (exact, rows) {
        (Some(row), _) | (None, [row]) => Ok(*row),
        _ => {
            let names: Vec<&str> = rows.iter().map(Row::short).collect();
            let all = names.join(", ");
            Err(BenchError::BadUse(format!("one row at a time, of: {all}")))
        }
    }
}

/// Whether `perf record` can be started and take a sample of the clock.
fn perf_works() -> bool {
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-o",
        "/dev/null",
        "--",
        "true",
    ]);
    let quiet = perf
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs the row in a process of its own under `perf`.
fn by_perf(args: &RunArgs, output: &Path) -> Result<(Stacks, String)> {
    let event = match crate::counters::hardware_can_be_read() {
        true => "cycles",
        false => "cpu-clock",
    };
    let data = output.with_extension("perf.data");
    let exe = std::env::current_exe().map_err(|error| BenchError::Child(error.to_string()))?;
    let failed =
        |what: &str, why: &dyn std::fmt::Display| BenchError::Child(format!("perf {what}: {why}"));
    let mut record = Command::new("perf");
    record
        .args(["record", "-q", "-F", &HERTZ.to_string(), "-e", event])
        // The release build keeps no frame pointers; 16 KiB of stack reach through an engine's call.
        .args(["--call-graph", "dwarf,16384", "-o"])
        .arg(&data)
        .arg("--")
        .arg(exe)
        .arg("run")
        .args(args.words())
        .stdout(Stdio::null());
    let status = record.status().map_err(|error| failed("record", &error))?;
    if !status.success() {
        return Err(failed("record", &status));
    }
    let script = Command::new("perf")
        // Looking up inlined functions starts a process for each address.
        .args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"])
        .arg(&data)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed("script", &error))?;
    if !script.status.success() {
        return Err(failed("script", &script.status));
    }
    // Large, and of no use once the stacks are known.
    drop(std::fs::remove_file(&data));
    let all = Stacks::of_perf(&String::from_utf8_lossy(&script.stdout));
    Ok((all, format!("perf, {event} at {HERTZ} Hz")))
}

/// Runs the row in this process, which interrupts itself.
fn inside(args: &RunArgs) -> Result<(Stacks, String)> {
    let failed = |error: pprof::Error| BenchError::Child(format!("the sampler: {error}"));
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(HERTZ as i32)
        // Unwinding from inside of these may wait for a lock that the interrupted thread holds.
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()
        .map_err(failed)?;
    let ended = run(args)?;
    let report = guard.report().build().map_err(failed)?;
    if ended != Ended::Met {
        return Err(BenchError::Child("the row did not end well".to_owned()));
    }
    let mut all = Stacks::default();
    for (frames, count) in &report.data {
        // Innermost first, as the functions that were inlined into one come before it.
        let symbols = frames.frames.iter().flatten();
        let names = symbols.map(|symbol| stacks::qualified(&symbol.name(), &symbol.filename()));
        let names: Vec<String> = names.collect();
        let count = u64::try_from(*count).unwrap_or(0);
        all.add(&frames.thread_name, names.into_iter().rev(), count);
    }
    let how = format!(
        "sampled from inside at {HERTZ} Hz of processor time, without kernel and C library"
    );
    Ok((all, how))
}

/// The stacks as one SVG.
fn picture(stacks: &Stacks, title: &str) -> Result<Vec<u8>> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.colors = Palette::Multi(MultiPalette::Rust);
    // The same samples give the same picture.
    options.deterministic = true;
    let folded = stacks.folded();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut svg)
        .map_err(|error| BenchError::Child(format!("the picture: {error}")))?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_tell_their_samples_and_names_are_text() {
        let mut all = Stacks::default();
        let stack = |names: [&str; 2]| names.map(str::to_owned).into_iter();
        all.add("nsbench", stack(["main", "northstardb::get<u8>"]), 3);
        all.add("nsbench", stack(["main", "std::read"]), 1);
        let svg = String::from_utf8(picture(&all, "a & b").unwrap()).unwrap();
        assert!(
            svg.contains("<title>northstardb::get&lt;u8&gt; (3 samples, 75.00%)</title>"),
            "{svg}"
        );
        assert!(
            svg.contains("<title>std::read (1 samples, 25.00%)</title>"),
            "{svg}"
        );
        assert!(svg.contains("a &amp; b"), "{svg}");
    }
}
