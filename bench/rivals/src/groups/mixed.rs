//! Reading beside writing.

use super::commit::puts;
use super::read::get;
use super::{Metric, Row, Run};
use crate::bench::{Bench, Measured};
use crate::error::Result;
use crate::generator::Rng;
use crate::ledger::Writes;
use crate::sample::{Sample, in_threads, measure, measure_prepared};
use crate::units::Unit;

pub(super) const ROWS: &[Row] = &[Row {
    name: "mixed/gets_beside_commits",
    question: "one thread gets random keys, a snapshot each; one commits durable transactions of 100 random puts",
    metrics: &[
        Metric::more("per_second", "gets", Unit::PerSecond),
        Metric::less("p99_ns", "get p99", Unit::Nanos),
        Metric::more("commits_per_second", "commits", Unit::PerSecond),
        Metric::less("commit_p99_ns", "commit p99", Unit::Nanos),
    ],
    run: Run::Shared(gets_beside_commits),
    once: false,
}];

/// Rows of one transaction.
const TXN_ROWS: u64 = 100;

fn gets_beside_commits(bench: &mut Bench) -> Result<Measured> {
    let (content, n) = (bench.content, bench.content.len());
    let (first, until) = (bench.ledger.fresh(), bench.until(1.0));
    let shared = &*bench;
    let one = |thread: usize, mut rng: Rng| {
        let (mut session, mut writes) = (shared.session()?, Writes::new());
        if thread == 0 {
            let mut version = first;
            let prepare = |_| {
                let ops = puts(shared, &mut rng, TXN_ROWS, version, &mut writes);
                version += 1;
                ops
            };
            let sample = measure_prepared(until, 1, prepare, |_, ops| session.commit(&ops))?;
            return Ok((Sample::new(), (sample, writes)));
        }
        let sample = measure(until, 1, |_| {
            let i = rng.below(n);
            session.read(&mut |snapshot| get(snapshot, content, i))
        })?;
        Ok((sample, (Sample::new(), writes)))
    };
    let (gets, rests) = in_threads(2, |thread| Ok(shared.rng(thread)), one)?;
    let mut measured = Measured::of(&gets);
    for (commits, writes) in rests {
        if commits.ops > 0 {
            measured = measured
                .with("commits_per_second", commits.per_second())
                .with("commit_p99_ns", commits.nanos(99.0));
        }
        bench.ledger.merge([writes]);
    }
    Ok(measured)
}
