//! Opening after a crash, by how much log there is to read and how large the database is.

use crate::child::{Child, Task, check_filled};
use crate::error::Result;
use crate::floor::ReadFloor;
use crate::row::{Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::units::Unit;

/// The rows about opening after a crash, beside `open_after_kill`, whose tail is as long as it gets.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/store/open_after_kill_tail_4m",
        question: "How long does opening take after kill -9 with 4 MiB of changes in the log?",
        unit: "open",
        run: open_after_kill_tail_4m,
    },
    Row {
        name: "bench/store/open_after_kill_tail_16m",
        question: "How long does opening take after kill -9 with 16 MiB of changes in the log?",
        unit: "open",
        run: open_after_kill_tail_16m,
    },
    Row {
        name: "bench/store/open_after_kill_tail_4m_1m_rows",
        question: "Does opening after kill -9 take longer when the database is large?",
        unit: "open",
        run: open_after_kill_tail_4m_1m_rows,
    },
];

/// Opens, in each of three rounds, a database whose process was killed; gives the opens, and the log bytes read by one.
fn opens(ctx: &Ctx, delta_bytes: u64, load: bool) -> Result<(Sample, u64)> {
    let (mut sample, mut tail) = (Sample::new(), 0);
    for round in 0..3 {
        let dir = ctx.dir("killed")?;
        let task = Task::FillDelta {
            dir: dir.clone(),
            rows: ctx.scale.rows,
            seed: ctx.seed + round,
            delta_bytes,
            load,
        };
        let acknowledged = Child::run_until_killed(&task)?;
        let mut opened = None;
        sample.then(&measure(Until::Ops(1), 1, |_| {
            opened = Some(plain().open(&dir)?);
            Ok(())
        })?);
        if let Some(db) = opened {
            tail = db.stats()?.log_tail_bytes;
            check_filled(&db, &task, acknowledged)?;
            db.close()?;
        }
        remove(&dir)?;
    }
    Ok((sample, tail))
}

/// Question: as `open_after_kill`, with 4 MiB of changes in the log. Unit: one open. Bound: reading the log's tail and
/// inserting its rows; beside it, the tail's bytes at the speed of a raw sequential read.
fn open_after_kill_tail_4m(ctx: &mut Ctx) -> Result<Outcome> {
    by_tail(ctx, 4 << 20)
}

/// Question: as above with 16 MiB. Unit: one open. Bound: as above: four times as long, less what every open takes.
fn open_after_kill_tail_16m(ctx: &mut Ctx) -> Result<Outcome> {
    by_tail(ctx, 16 << 20)
}

fn by_tail(ctx: &Ctx, delta_bytes: u64) -> Result<Outcome> {
    let floor = ReadFloor::open(&ctx.scratch, delta_bytes)?;
    let before = floor.sequential()?;
    let (sample, tail) = opens(ctx, delta_bytes, false)?;
    let raw = before.max(floor.sequential()?);
    let rate = tail as f64 * 1e9 / sample.p50();
    Ok(Outcome::of(sample)
        .floor_rate("raw sequential read", raw, Unit::BytesPerSecond, rate)
        .extra("log_tail_bytes", tail as f64)
        .note("three opens, each of a fresh database"))
}

/// Question: 4 MiB of changes again, with all rows in pages, against the same without. Not timed: loading. Unit: one open.
/// Bound: the open of the small database: what is replayed decides, not what is stored.
fn open_after_kill_tail_4m_1m_rows(ctx: &mut Ctx) -> Result<Outcome> {
    let (small, _) = opens(ctx, 4 << 20, false)?;
    let (sample, tail) = opens(ctx, 4 << 20, true)?;
    Ok(Outcome::of(sample)
        .floor_p50("the same tail, no rows in pages", &small)
        .extra("log_tail_bytes", tail as f64)
        .note("three opens, each of a fresh database"))
}
