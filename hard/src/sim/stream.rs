//! What the commit log says, held against the oracle: its transactions without a gap, and what they come to.

use northstardb::{Db, LogFilter, Retention, TxnId};

use super::oracle::Oracle;
use super::setup::SimSetup;
use crate::replica::Replica;
use crate::{During, Failure};

/// Counts transactions read from the log.
pub const STREAMED: &str = "transactions read from the log";

/// Reads the log of a database that is at `at`. Gives how many transactions that was.
///
/// # Errors
/// A gap, a state that the oracle does not know, and that less is kept than was asked for.
pub fn compare(db: &Db, setup: &SimSetup, oracle: &Oracle, at: TxnId) -> Result<u64, Failure> {
    let log = db.log().during("log")?;
    let (first, next) = (log.first().during("the log's first")?, log.next());
    let broken = |what: String| Err(Failure::Broken(what));
    if next != at.next() {
        return broken(format!(
            "the log goes on with {next:?}, the database is at {at:?}"
        ));
    }
    let wanted = match setup.retention {
        Retention::All => TxnId::new(1),
        Retention::Txns(many) => TxnId::new(next.get().saturating_sub(many).max(1)),
        Retention::None | Retention::Age(_) | Retention::Bytes(_) | _ => next,
    };
    // Only a disk that lied may have lost a segment that nobody needs.
    if first > wanted && !oracle.allowed.damage {
        return broken(format!(
            "the log begins with {first:?}, it was to keep {wanted:?}"
        ));
    }
    let every = LogFilter::every_transaction();
    let mut tail = log.tail(first, every).during("tail")?;
    let mut replica = (first.get() == 1).then(Replica::default);
    let mut expected = first;
    while let Some(found) = tail.try_next().during("read the log")? {
        if found.txn_id() != expected {
            return broken(format!(
                "{:?} follows, expected {expected:?}",
                found.txn_id()
            ));
        }
        if let Some(replica) = &mut replica {
            for change in found.changes() {
                replica.apply(&change);
            }
            if let Some(state) = oracle.state(expected)
                && replica.state() != *state
            {
                return broken(format!("the log up to {expected:?} comes to another state"));
            }
        }
        expected = expected.next();
    }
    if expected != next {
        return broken(format!(
            "the log ends before {expected:?}, expected {next:?}"
        ));
    }
    Ok(next.get() - first.get())
}
