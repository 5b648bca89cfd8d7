//! Named subscribers beside the model: what each is given, and how far the database says that it has come.

use northstardb::{Durability, Error, LogFilter, Retention, Subscriber, Tail, TxnId};

use super::Runner;
use crate::model::Draft;
use crate::ops::{Edit, Fill, key_bytes, table_name, value_bytes};
use crate::replica::Replica;
use crate::rng::Rng;
use crate::{During, Failure};

/// How a subscriber stands from a transaction on.
#[derive(Debug, Clone)]
struct Place {
    /// The first transaction that it has not acknowledged.
    next: TxnId,
    /// What all before that come to.
    replica: Replica,
}

/// A subscriber that is reading.
#[derive(Debug)]
struct Reading {
    subscriber: Subscriber,
    /// It shows every transaction, also those that change no table.
    every: bool,
    /// The first transaction that was not given, nor passed over.
    next: TxnId,
    /// What was given comes to.
    replica: Replica,
    /// What was given since it reads: each can be acknowledged.
    given: Vec<(TxnId, Replica)>,
}

/// A subscriber's name, and what must be known of it.
#[derive(Debug)]
pub(super) struct Followed {
    name: &'static str,
    /// Its places, each with the transaction that put it there; none where it was unsubscribed.
    places: Vec<(TxnId, Option<Place>)>,
    reading: Option<Reading>,
}

impl Followed {
    pub(super) fn all() -> Vec<Self> {
        let one = |name| Self {
            name,
            places: Vec::new(),
            reading: None,
        };
        vec![one("one"), one("the other")]
    }

    /// Stops reading, as the end of a process does.
    pub(super) fn stop(&mut self) {
        self.reading = None;
    }

    /// Forgets what came after `txn`.
    pub(super) fn cut(&mut self, txn: TxnId) {
        self.places.retain(|(at, _)| *at <= txn);
    }

    fn place(&self) -> Option<&Place> {
        self.places.last().and_then(|(_, place)| place.as_ref())
    }

    /// Where it is after transaction `txn`.
    pub(super) fn next_at(&self, txn: TxnId) -> Option<TxnId> {
        let places = self.places.iter().rev();
        let (_, place) = places.clone().find(|(at, _)| *at <= txn)?;
        place.as_ref().map(|place| place.next)
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }
}

fn broken<T>(what: String) -> Result<T, Failure> {
    Err(Failure::Broken(what))
}

impl Runner {
    /// One of the subscribers does something.
    pub(super) fn follow(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.settle()?;
        let mut followed = self.followed.swap_remove(rng.index(self.followed.len()));
        let done = self.follow_with(&mut followed, rng);
        self.followed.push(followed);
        done.map_err(|failure| {
            let why = crate::chain(&failure);
            let name = self.followed.last().map_or("", Followed::name);
            Failure::Broken(format!("the subscriber {name:?}: {why}"))
        })?;
        self.positions()
    }

    fn follow_with(&mut self, followed: &mut Followed, rng: &mut Rng) -> Result<(), Failure> {
        let Some(mut reading) = followed.reading.take() else {
            if followed.place().is_some() && rng.chance(6) {
                return self.unsubscribe(followed);
            }
            return self.subscribe(followed, rng);
        };
        let goes_on = match rng.below(10) {
            0 => false,
            1..=5 => {
                let most = rng.pick(&[1, 3, 20, 1000]);
                self.read(&mut reading, most, rng)?
            }
            _ => {
                self.acknowledge(followed, &mut reading, rng)?;
                true
            }
        };
        if goes_on {
            followed.reading = Some(reading);
            return Ok(());
        }
        drop(reading);
        let states = self.db().log().during("log")?.subscribers();
        let mut states = states.during("subscribers")?.into_iter();
        match states.find(|state| state.name == followed.name) {
            Some(state) if state.is_lost => self.unsubscribe(followed),
            _ => Ok(()),
        }
    }

    fn subscribe(&mut self, followed: &mut Followed, rng: &mut Rng) -> Result<(), Failure> {
        let log = self.db().log().during("log")?;
        let every = rng.chance(50);
        let filter = match every {
            true => LogFilter::every_transaction(),
            false => LogFilter::all(),
        };
        let now = self.snapshot()?;
        let begin = match followed.place() {
            Some(place) => place.clone(),
            None if rng.chance(40) && self.setup.log_retention == Retention::All => Place {
                next: TxnId::new(1),
                replica: Replica::default(),
            },
            None => Place {
                next: now.read.txn_id().next(),
                replica: Replica::of(&now.state, &now.handles),
            },
        };
        // Who is known goes on where it was, whatever is asked for.
        let from = match followed.place() {
            Some(_) => rng.pick(&[TxnId::ZERO, log.next()]),
            None => begin.next,
        };
        drop(now);
        let subscribed = log.subscribe(followed.name, from, filter);
        if followed.place().is_none() {
            match &subscribed {
                Ok(_) => {
                    let txn = self.passed(1)?;
                    followed.places.push((txn, Some(begin.clone())));
                }
                // A checkpoint has let it go just now; nothing is left of the try.
                Err(Error::NotInLog { .. }) => drop(self.passed(2)?),
                Err(_) => {}
            }
        }
        let subscriber = match subscribed {
            Ok(subscriber) => subscriber,
            Err(error) => return self.may_be_lost(followed, error),
        };
        if subscriber.acknowledged() != begin.next || Tail::position(&subscriber) != begin.next {
            return broken(format!(
                "it goes on with {:?}, acknowledged is all before {:?}, expected {:?}",
                Tail::position(&subscriber),
                subscriber.acknowledged(),
                begin.next
            ));
        }
        followed.reading = Some(Reading {
            subscriber,
            every,
            next: begin.next,
            replica: begin.replica,
            given: Vec::new(),
        });
        Ok(())
    }

    /// What a subscriber wants next is not in the log: allowed if that may be let go.
    fn may_be_lost(&mut self, followed: &mut Followed, error: Error) -> Result<(), Failure> {
        let gone = matches!(error, Error::NotInLog { .. });
        if gone && followed.place().is_none() {
            return Ok(());
        }
        if !gone || !self.setup.may_lose() {
            return Err(error).during("subscribe");
        }
        self.totals.lost += 1;
        self.unsubscribe(followed)
    }

    fn unsubscribe(&mut self, followed: &mut Followed) -> Result<(), Failure> {
        let log = self.db().log().during("log")?;
        let done = log.unsubscribe(followed.name).during("unsubscribe")?;
        if done != followed.place().is_some() {
            return broken(format!("unsubscribing it came to {done}"));
        }
        if done {
            let txn = self.passed(1)?;
            followed.places.push((txn, None));
        }
        Ok(())
    }

    /// Subscribing and the like took so many transactions, which changed no table. The last of them.
    fn passed(&mut self, count: u64) -> Result<TxnId, Failure> {
        let newest = self.model.newest().0.get();
        for txn in (newest..newest + count).map(|txn| TxnId::new(txn).next()) {
            self.quiet.insert(txn);
            self.committed(txn, self.latest.clone(), true)?;
        }
        let (at, last) = (self.snapshot()?.read.txn_id(), self.model.newest().0);
        match at == last {
            true => Ok(last),
            false => broken(format!(
                "after {count} transactions the database is at {at:?}, expected {last:?}"
            )),
        }
    }

    /// Reads on. False if the log no longer holds what comes next, and may do so.
    fn read(&mut self, reading: &mut Reading, most: u64, rng: &mut Rng) -> Result<bool, Failure> {
        let durable = self.durable;
        for _ in 0..most {
            let found = match reading.subscriber.try_next() {
                Ok(found) => found,
                Err(Error::NotInLog { .. }) if self.setup.may_lose() => {
                    self.totals.lost += 1;
                    return Ok(false);
                }
                Err(error) => return Err(error).during("read the log"),
            };
            let Some(found) = found else {
                let missed = (reading.next.get()..=durable.get()).map(TxnId::new);
                let mut missed = missed.filter(|txn| reading.every || !self.quiet.contains(txn));
                if let Some(txn) = missed.next() {
                    return broken(format!("it was not given {txn:?}, which is durable"));
                }
                break;
            };
            self.given(reading, &found, rng)?;
        }
        Ok(true)
    }

    fn given(
        &mut self,
        reading: &mut Reading,
        found: &northstardb::Transaction,
        rng: &mut Rng,
    ) -> Result<(), Failure> {
        let txn = found.txn_id();
        let left_out = (reading.next.get()..txn.get()).map(TxnId::new);
        let shown = |txn: &TxnId| reading.every || !self.quiet.contains(txn);
        let newest = self.model.newest().0;
        if txn < reading.next || txn > newest || !shown(&txn) || left_out.clone().any(|t| shown(&t))
        {
            return broken(format!(
                "it was given {txn:?}, {:?} comes next, the newest is {newest:?}",
                reading.next
            ));
        }
        for change in found.changes() {
            reading.replica.apply(&change);
        }
        self.totals.followed += 1;
        reading.next = txn.next();
        reading.given.push((txn, reading.replica.clone()));
        let known = self.model.at(txn);
        match known.filter(|_| rng.chance(30)) {
            Some(state) if *state != reading.replica.state() => broken(format!(
                "what it was given up to {txn:?} comes to another state"
            )),
            _ => Ok(()),
        }
    }

    fn acknowledge(
        &mut self,
        followed: &mut Followed,
        reading: &mut Reading,
        rng: &mut Rng,
    ) -> Result<(), Failure> {
        if rng.chance(5) {
            let ahead = Tail::position(&reading.subscriber);
            let refused = reading.subscriber.acknowledge(ahead);
            return match refused {
                Err(Error::InvalidOption { .. }) => Ok(()),
                other => broken(format!("acknowledging {ahead:?} came to {other:?}")),
            };
        }
        if reading.given.is_empty() {
            return Ok(());
        }
        // Mostly one of the last; now and then an old one, which changes nothing.
        let len = reading.given.len();
        let at = match rng.chance(70) {
            true => len - 1 - rng.index(len.min(4)),
            false => rng.index(len),
        };
        let (through, replica) = reading.given[at].clone();
        let place = followed.place().expect("it has subscribed");
        let moves = through >= place.next;
        let place = Place {
            next: through.next(),
            replica,
        };
        self.totals.acknowledged += 1;
        if rng.chance(50) {
            let commit = reading.subscriber.acknowledge(through);
            let commit = commit.during("acknowledge")?;
            if moves {
                self.quiet.insert(commit.txn_id);
                followed.places.push((commit.txn_id, Some(place)));
            }
            return self.committed(commit.txn_id, self.latest.clone(), true);
        }
        let mut write = self.db().begin_write().during("begin_write")?;
        let style = self.setup.shape.key_style;
        let mut draft = Draft::new(self.latest.clone(), style, false);
        let exec = self.exec.as_ref().expect("open between steps");
        let table = exec.handles.get(&table_name(0)).filter(|_| rng.chance(70));
        if let Some(table) = table {
            let key = self.setup.shape.keys.min(3) - 1;
            let seed = u32::try_from(rng.below(1 << 20)).unwrap_or(0);
            let value = Fill { len: 30, seed };
            let put = write.put(table, key_bytes(style, key), value_bytes(value));
            put.during("put")?;
            draft.apply(&Edit::Put {
                slot: 0,
                key,
                value,
            });
        }
        let is_quiet = table.is_none();
        let mark = write.savepoint();
        let acknowledged = write.acknowledge(&mut reading.subscriber, through);
        acknowledged.during("acknowledge")?;
        let mut moves = moves;
        if rng.chance(15) {
            write.rollback_to(&mark).during("rollback_to")?;
            moves = false;
        }
        let durable = match rng.below(10) {
            0..=1 => {
                write.abort();
                return Ok(());
            }
            2..=4 => false,
            _ => true,
        };
        let durability = match durable {
            true => Durability::Durable,
            false => Durability::Buffered,
        };
        let commit = write.commit_with(durability).during("commit")?;
        if moves {
            followed.places.push((commit.txn_id, Some(place)));
            if is_quiet {
                self.quiet.insert(commit.txn_id);
            }
        }
        self.committed(commit.txn_id, draft.state, durable)
    }

    /// What the database says of its subscribers.
    fn positions(&mut self) -> Result<(), Failure> {
        let db = self.db();
        let at = || db.begin_read().map(|read| read.txn_id().get());
        let before = at().during("begin_read")?;
        let states = db.log().during("log")?.subscribers();
        let states = states.during("subscribers")?;
        let after = at().during("begin_read")?;
        for followed in &self.followed {
            let state = states.iter().find(|state| state.name == followed.name);
            let found = state.map(|state| state.position);
            let may_be = |txn| followed.next_at(TxnId::new(txn)) == found;
            if !(before..=after).any(may_be) {
                return broken(format!(
                    "the subscriber {:?} is at {found:?} in t{before} to t{after}, it was put to {:?}",
                    followed.name,
                    followed.next_at(TxnId::new(after))
                ));
            }
            if state.is_some_and(|state| state.is_lost) && !self.setup.may_lose() {
                return broken(format!("{state:?} is lost"));
            }
        }
        match states.len() {
            0..=2 => Ok(()),
            many => broken(format!("{many} subscribers")),
        }
    }
}
