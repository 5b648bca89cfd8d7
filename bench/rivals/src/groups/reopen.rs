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
        question: "opening after kill -9 in the middle of durable transactions; all that was acknowledged is then looked for",
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

/// Commits transactions until enough bytes are written, then has `say` told how many; their rows follow from the generator.
/// If it `goes_on`, it then commits until somebody ends the process.
pub(crate) fn fill(
    bench: &Bench,
    goes_on: bool,
    mut say: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut rng = bench.rng(0);
    let (mut txns, mut bytes) = (0, 0);
    let mut session = bench.session()?;
    let mut is_told = false;
    loop {
        let ops = puts(bench, &mut rng, TXN_ROWS, txns + 1, &mut Writes::new());
        bytes += ops.len() as u64 * bench.content.row_bytes();
        session.commit(&ops)?;
        txns += 1;
        if bytes < bench.scale.kill_bytes || is_told {
            continue;
        }
        say(txns.into())?;
        is_told = true;
        if !goes_on {
            return Ok(());
        }
    }
}

/// Notes what [`fill`] did in a process that is no more, and compares it with what is there: so many transactions, or, if it
/// was killed, also some of those that it told nobody of, in order.
pub(crate) fn check_filled(bench: &mut Bench, told: u64, killed: bool) -> Result<Measured> {
    let mut rng = bench.rng(0);
    let told = u32::try_from(told).map_err(|_| Error::Child("too many transactions".to_owned()))?;
    for txn in 0.. {
        let mut writes = Writes::new();
        drop(puts(bench, &mut rng, TXN_ROWS, txn + 1, &mut writes));
        if txn >= told && !(killed && is_there(bench, &writes)?) {
            break;
        }
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

/// Whether a transaction that wrote these has happened, by one of its rows; the rest is compared later.
fn is_there(bench: &Bench, writes: &Writes) -> Result<bool> {
    let Some((i, version)) = writes.first_key_value() else {
        return Ok(false);
    };
    let (key, mut found) = (bench.content.key(*i), Ok(0));
    bench.session()?.read(&mut |snapshot| {
        snapshot.get(&key, &mut |value| found = bench.content.version(*i, value))
    })?;
    Ok(found? >= *version)
}
