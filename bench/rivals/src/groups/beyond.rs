//! Data four times as large as the memory. Spec: BV-003.

use super::read::{get, in_snapshot, multi_gets, scans};
use super::{Metric, P50, P99, Row, Run, commit};
use crate::bench::{Bench, Measured};
use crate::error::Result;
use crate::generator::Rng;
use crate::sample::in_threads;
use crate::units::Unit;

const GETS: &[Metric] = &[
    Metric::more("per_second", "gets", Unit::PerSecond),
    P50,
    P99,
];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "beyond/get",
        question: "gets of random keys, one thread",
        metrics: GETS,
        run: Run::Shared(|bench| gets(bench, 1)),
        once: false,
    },
    Row {
        name: "beyond/get_32_threads",
        question: "gets of random keys, 32 threads",
        metrics: GETS,
        run: Run::Shared(|bench| gets(bench, 32)),
        once: false,
    },
    Row {
        name: "beyond/multi_get_64",
        question: "64 random keys asked for at once, one thread",
        metrics: &[
            Metric::more("per_second", "keys", Unit::PerSecond),
            Metric::less("p50_ns", "64 keys, p50", Unit::Nanos),
            Metric::less("p99_ns", "p99", Unit::Nanos),
        ],
        run: Run::Shared(|bench| {
            bench.cool()?;
            multi_gets(bench, WARM_UP)?;
            multi_gets(bench, 1.0)
        }),
        once: false,
    },
    Row {
        name: "beyond/scan_all",
        question: "scans of all rows",
        metrics: &[Metric::more("per_second", "rows", Unit::PerSecond)],
        run: Run::Shared(|bench| {
            bench.cool()?;
            scans(bench, u64::MAX)
        }),
        once: false,
    },
    Row {
        name: "beyond/rows_1000",
        question: "durable transactions of 1,000 random puts, one thread",
        metrics: &[
            Metric::more("per_second", "commits", Unit::PerSecond),
            P50,
            P99,
        ],
        run: Run::Shared(|bench| {
            bench.cool()?;
            commit::commits(bench, 1, 1000)
        }),
        once: false,
    },
];

/// Part of the usual time that is spent filling caches, untimed.
const WARM_UP: f64 = 0.5;

fn gets(bench: &mut Bench, threads: usize) -> Result<Measured> {
    bench.cool()?;
    let (content, n) = (bench.content, bench.content.len());
    let bench = &*bench;
    let of_part = |part: f64| {
        let until = bench.until(part);
        let one = move |_: usize, mut rng: Rng| {
            let op = |snapshot: &mut dyn crate::rival::Snapshot| {
                let i = rng.below(n);
                get(snapshot, content, i)
            };
            Ok((in_snapshot(bench, until, 1, op)?, ()))
        };
        // The warm-up reads other keys than the loop.
        let stream = move |thread| Ok(bench.rng(thread + (part < 1.0) as usize * 1000));
        in_threads(threads, stream, one)
    };
    of_part(WARM_UP)?;
    Ok(Measured::of(&of_part(1.0)?.0))
}
