//! Opening what another process left: after kill -9, after a clean close. The parent runs the two processes.

use super::commit::puts;
use super::{Metric, Row, Run};
use crate::bench::{Bench, Measured};
use crate::error::{Error, Result};
use crate::ledger::Writes;
use crate::units::Unit;

const OPEN: &[Metric] = &[Metric::less("open_ns", "open and first get", Unit::Nanos)];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "reopen/after_kill",
        question: "opening after kill -9 in the middle of durable transactions; every acknowledged row is then looked for",
        metrics: OPEN,
        run: Run::Reopen { killed: true },
        once: false,
    },
    Row {
        name: "reopen/after_close",
        question: "opening after the same work and a clean close",
        metrics: OPEN,
        run: Run::Reopen { killed: false },
        once: false,
    },
];

/// Rows of one transaction.
const TXN_ROWS: u64 = 1000;

/// Commits transactions until enough bytes are written, and gives how many; their rows follow from the generator.
pub(crate) fn fill(bench: &Bench) -> Result<u64> {
    let mut rng = bench.rng(0);
    let (mut txns, mut bytes) = (0, 0);
    let mut session = bench.session()?;
    while bytes < bench.scale.kill_bytes {
        let ops = puts(bench, &mut rng, TXN_ROWS, txns + 1, &mut Writes::new());
        bytes += ops.len() as u64 * bench.content.row_bytes();
        session.commit(&ops)?;
        txns += 1;
    }
    Ok(txns.into())
}

/// Notes what [`fill`] did in a process that is no more, and compares it with what is there.
pub(crate) fn check_filled(bench: &mut Bench, txns: u64) -> Result<Measured> {
    let mut rng = bench.rng(0);
    let txns = u32::try_from(txns).map_err(|_| Error::Child("too many transactions".to_owned()))?;
    for txn in 0..txns {
        let mut writes = Writes::new();
        let ops = puts(bench, &mut rng, TXN_ROWS, txn + 1, &mut writes);
        drop(ops);
        for (i, version) in writes {
            bench.ledger.set(i, Some(version));
        }
    }
    let rows_checked = bench.check()?;
    Ok(Measured {
        rows_checked,
        ..Measured::default()
    })
}
