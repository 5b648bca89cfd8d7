//! Named readers of the commit log, whose positions the database keeps.
//!
//! A position is a row of a system table, moved on by an ordinary transaction: durable when that is, and all or nothing together
//! with whatever else the transaction changes. The log is kept for subscribers down to the one furthest behind, within
//! [`Options::subscriber_log_bytes`](crate::Options::subscriber_log_bytes).
//!
//! - Spec: SE-022.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use northstar_io::planted::planted;

use super::log::{Log, LogFilter, Tail, Transaction};
use super::write::WriteTxn;
use crate::error::{Error, Result};
use crate::ids::{TableId, TxnId};
use crate::txn::positions::{decode, each_of, encode};
use crate::txn::table::check_name;
use crate::writer::wait::Commit;

/// What the database keeps of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberState {
    /// Its name.
    pub name: String,
    /// The first transaction that it has not acknowledged.
    pub position: TxnId,
    /// When it subscribed.
    pub since: SystemTime,
    /// The log no longer holds what comes next: it was further behind than it may be.
    pub is_lost: bool,
}

/// A [`Tail`] of the commit log with a name, under which the database keeps how far it has come: see [`Log::subscribe`].
///
/// It reads like a tail, which it gives access to.
#[derive(Debug)]
pub struct Subscriber {
    tail: Tail,
    name: String,
    since_ns: u64,
    acknowledged: TxnId,
}

impl Log {
    /// Follows the log under a name: from where the subscriber of this name has come to, or, if there is none, from `from` on,
    /// which is at most [`Log::next`].
    ///
    /// What it was given and did not acknowledge is given again, after a crash as after dropping it. So each transaction is
    /// seen at least once; exactly once by who acknowledges within the transaction that holds the outcome
    /// ([`WriteTxn::acknowledge`]). Two that read under one name do not know of each other.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # use northstardb::{Db, LogFilter};
    /// # let db = Db::memory()?;
    /// # let table = db.table("orders")?;
    /// # let total = db.table("total")?;
    /// let mut orders = db.log()?.subscribe("totals", db.log()?.next(), LogFilter::all().table(&table))?;
    /// # let mut txn = db.begin_write()?;
    /// # txn.put(&table, "1", "7 apples")?;
    /// # txn.commit()?;
    /// while let Some(found) = orders.try_next()? {
    ///     let mut txn = db.begin_write()?;
    ///     txn.put(&total, "last", found.txn_id().to_string())?;
    ///     txn.acknowledge(&mut orders, found.txn_id())?;
    ///     txn.commit()?;
    /// }
    /// # assert_eq!(db.log()?.subscribers()?[0].position, orders.acknowledged());
    /// # drop(orders); db.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotInLog`] if the log no longer holds what comes next; that stays so until [`Log::unsubscribe`]. As
    /// [`Log::tail`] and [`Db::begin_write`](crate::Db::begin_write).
    pub fn subscribe(&self, name: &str, from: TxnId, filter: LogFilter) -> Result<Subscriber> {
        check_name(name)?;
        let mut txn = self.begin_write()?;
        let known = txn.subscriber(name)?;
        let (position, since_ns) = match known {
            Some(known) => known,
            None => {
                let since_ns = txn.now_ns();
                let from = from.max(TxnId::ZERO.next());
                // What is refused leaves no transaction behind.
                self.tail(from, filter.clone())?;
                txn.put_subscriber(name, (from, since_ns))?;
                // Kept from now on, and looked at once whoever has not seen that has decided: so nothing goes in between.
                txn.commit()?;
                self.pass_recycling();
                (from, since_ns)
            }
        };
        match self.tail(position, filter) {
            Ok(tail) => Ok(Subscriber {
                tail,
                name: name.to_owned(),
                since_ns,
                acknowledged: position,
            }),
            Err(error) => {
                if known.is_none() {
                    self.unsubscribe(name)?;
                }
                Err(error)
            }
        }
    }

    /// Forgets the subscriber of this name, and lets go of the log that was kept for it. Says whether there was one.
    ///
    /// # Errors
    /// As [`Db::begin_write`](crate::Db::begin_write).
    pub fn unsubscribe(&self, name: &str) -> Result<bool> {
        let mut txn = self.begin_write()?;
        if txn.subscriber(name)?.is_none() {
            return Ok(false);
        }
        txn.delete_subscriber(name)?;
        txn.commit()?;
        Ok(true)
    }

    /// All subscribers, by name.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    pub fn subscribers(&self) -> Result<Vec<SubscriberState>> {
        let first = self.first()?;
        let snapshot = self.snapshot()?;
        let mut states = Vec::new();
        each_of(&snapshot, |name, (position, since_ns)| {
            states.push(SubscriberState {
                name: String::from_utf8_lossy(name).into_owned(),
                position,
                since: SystemTime::UNIX_EPOCH + Duration::from_nanos(since_ns),
                is_lost: position < first,
            });
        })?;
        Ok(states)
    }
}

impl Subscriber {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first transaction that it was not given yet: see [`Tail::position`].
    #[must_use]
    pub fn position(&self) -> TxnId {
        Tail::position(&self.tail)
    }

    /// The first transaction that was not acknowledged by this handle, also where that was done in a write transaction which did
    /// not commit.
    #[must_use]
    pub const fn acknowledged(&self) -> TxnId {
        self.acknowledged
    }

    /// Acknowledges all transactions up to and with `through`, durably: they are not given again. That may be any before
    /// [`Subscriber::position`], also one that its filter left out: whose filter leaves out much should acknowledge that now
    /// and then, or the log is kept for it, and in the end its place is lost. It is a transaction itself, which
    /// [`LogFilter::every_transaction`] shows.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for one that it was not given yet. As [`Db::begin_write`](crate::Db::begin_write) and
    /// [`WriteTxn::commit`].
    pub fn acknowledge(&mut self, through: TxnId) -> Result<Commit> {
        let mut txn = self.tail.log().begin_write()?;
        txn.acknowledge(self, through)?;
        txn.commit()
    }
}

impl WriteTxn {
    /// Acknowledges, with this transaction, all that `subscriber` was given up to and with `through`: so what was made of
    /// it and how far that goes become durable together, or not at all. Going back is not possible: acknowledging less
    /// than before changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a transaction that the subscriber was not given yet, [`Error::UnknownTable`] if it
    /// was unsubscribed, or follows another database; as [`WriteTxn::put`].
    pub fn acknowledge(&mut self, subscriber: &mut Subscriber, through: TxnId) -> Result<()> {
        let given = subscriber.tail.position();
        if through >= given {
            return Err(Error::InvalidOption {
                option: "acknowledged transaction",
                found: through.to_string(),
                expected: format!("one before {given}, which was not given yet"),
            });
        }
        let own = self.snapshot.shape().shared.tables.instance;
        let known = match subscriber.tail.log().instance() == own {
            true => self.subscriber(&subscriber.name)?,
            // One of the same name may be here, too.
            false => None,
        };
        // Another may have its name by now.
        let known = known.filter(|(_, since_ns)| *since_ns == subscriber.since_ns);
        let Some((position, _)) = known else {
            return Err(Error::UnknownTable {
                name: format!("of the subscriber {}", subscriber.name),
            });
        };
        let next = through.next();
        if next > position || planted("an older acknowledgement takes a newer one back") {
            self.put_subscriber(&subscriber.name, (next, subscriber.since_ns))?;
        }
        subscriber.acknowledged = subscriber.acknowledged.max(next);
        Ok(())
    }

    fn subscriber(&self, name: &str) -> Result<Option<(TxnId, u64)>> {
        let row = self.snapshot.get(TableId::SUBSCRIBERS, name.as_bytes())?;
        row.map(|row| decode(&row)).transpose()
    }

    fn put_subscriber(&mut self, name: &str, row: (TxnId, u64)) -> Result<()> {
        self.put_own(TableId::SUBSCRIBERS, name.as_bytes(), &encode(row))
    }

    fn delete_subscriber(&mut self, name: &str) -> Result<()> {
        self.delete_own(TableId::SUBSCRIBERS, name.as_bytes())
    }
}

impl Deref for Subscriber {
    type Target = Tail;

    fn deref(&self) -> &Tail {
        &self.tail
    }
}

impl DerefMut for Subscriber {
    fn deref_mut(&mut self) -> &mut Tail {
        &mut self.tail
    }
}

impl Iterator for Subscriber {
    type Item = Result<Transaction>;

    fn next(&mut self) -> Option<Self::Item> {
        self.tail.next()
    }
}

impl Stream for Subscriber {
    type Item = Result<Transaction>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.tail).poll_next(context)
    }
}
