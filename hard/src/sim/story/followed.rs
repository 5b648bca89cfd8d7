//! A named subscriber in a story: it reads, acknowledges, and must be found where it was put.

use northstardb::{Db, Durability, Error, LogFilter, Retention, Subscriber, TxnId};

use super::{Note, Teller};
use crate::rng::Rng;
use crate::{During, Failure};

const NAME: &str = "follower";

/// The subscriber, while it reads.
pub(super) struct Reading {
    subscriber: Subscriber,
    /// What it must be given next.
    next: TxnId,
}

fn broken<T>(what: String) -> Result<T, Failure> {
    Err(Failure::Broken(what))
}

/// The database says of the subscriber what it must say.
pub(in crate::sim) fn is_at(db: &Db, place: Option<TxnId>) -> Result<(), Failure> {
    let states = db.log().during("log")?.subscribers();
    let states = states.during("subscribers")?;
    let found: Vec<_> = states.iter().map(|state| state.position).collect();
    match found == Vec::from_iter(place) {
        true => Ok(()),
        false => broken(format!("subscribers are at {found:?}, expected {place:?}")),
    }
}

/// The log holds all that the subscriber has not acknowledged, up to `at`, without a gap.
pub(in crate::sim) fn is_held(db: &Db, place: TxnId, at: TxnId) -> Result<(), Failure> {
    let log = db.log().during("log")?;
    let tail = log.tail(place, LogFilter::every_transaction());
    let mut tail = tail.during("follow the log from a subscriber's place")?;
    for expected in (place.get()..=at.get()).map(TxnId::new) {
        let found = tail.try_next().during("read the log for a subscriber")?;
        let found = found.map(|found| found.txn_id());
        if found != Some(expected) {
            return broken(format!(
                "behind a subscriber's place comes {found:?}, expected {expected:?}"
            ));
        }
    }
    Ok(())
}

impl Teller {
    pub(super) fn follow(&mut self, pick: u32) -> Result<(), Failure> {
        // After a halt the log ends, and nobody moves on in it.
        if self.halted {
            self.reading = None;
            return Ok(());
        }
        let mut rng = Rng::new(pick.into());
        let Some(mut reading) = self.reading.take() else {
            return match self.place {
                Some(_) if rng.chance(10) => self.quietly(&[None], |db| {
                    db.log()?.unsubscribe(NAME)?;
                    Ok((visible(db), true))
                }),
                _ => self.subscribe(&mut rng),
            };
        };
        match rng.below(10) {
            // Let go, as at the end of a process.
            0 => return Ok(()),
            1..=3 => {}
            _ => self.read(&mut reading, rng.pick(&[2, 5, 100]))?,
        }
        if rng.chance(60) {
            self.acknowledge(&mut reading, &mut rng)?;
        }
        self.reading = Some(reading);
        Ok(())
    }

    fn subscribe(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let first = self.setup.retention == Retention::All && rng.chance(30);
        let subscribe = |db: &Db, from| {
            let filter = LogFilter::every_transaction();
            db.log()?.subscribe(NAME, from, filter)
        };
        let (next, subscriber) = match self.place {
            Some(place) => (place, subscribe(&self.db(), TxnId::ZERO)),
            None => {
                let next = self.db().log().during("log")?.next();
                let next = if first { TxnId::new(1) } else { next };
                let mut made = None;
                // What cannot be followed is taken back.
                self.quietly(&[Some(next), None], |db| {
                    made = Some(subscribe(db, next)?);
                    Ok((visible(db), true))
                })?;
                match made {
                    Some(subscriber) => (next, Ok(subscriber)),
                    None => return Ok(()),
                }
            }
        };
        let subscriber = match subscriber {
            Err(error) if self.allowed().log_lost(&error) => return Ok(()),
            subscriber => subscriber.during("subscribe")?,
        };
        if subscriber.acknowledged() != next {
            return broken(format!(
                "a subscriber goes on with {:?}, expected {next:?}",
                subscriber.acknowledged()
            ));
        }
        self.reading = Some(Reading { subscriber, next });
        Ok(())
    }

    fn read(&mut self, reading: &mut Reading, most: u64) -> Result<(), Failure> {
        for _ in 0..most {
            let found = match reading.subscriber.try_next() {
                Err(error) if self.allowed().log_lost(&error) => return Ok(()),
                found => found.during("read the log")?,
            };
            let Some(found) = found else {
                let at = self.db().begin_read().during("begin_read")?.txn_id();
                return match at < reading.next {
                    true => Ok(()),
                    false => broken(format!("a subscriber was not given {:?}", reading.next)),
                };
            };
            if found.txn_id() != reading.next || found.txn_id() > self.oracle.newest() {
                return broken(format!(
                    "a subscriber was given {:?}, {:?} comes next",
                    found.txn_id(),
                    reading.next
                ));
            }
            reading.next = reading.next.next();
            // Who was given a transaction may tell others.
            self.note(Note::Acked(found.txn_id()));
        }
        Ok(())
    }

    fn acknowledge(&mut self, reading: &mut Reading, rng: &mut Rng) -> Result<(), Failure> {
        let place = self.place.expect("it has subscribed");
        // The last that was given, or one before it, also of those that were acknowledged.
        let back = rng.pick(&[1, 1, 1, 2, 3, 5]);
        let through = TxnId::new(reading.next.get().saturating_sub(back));
        if through >= reading.next || through == TxnId::ZERO {
            return Ok(());
        }
        let durable = rng.chance(70);
        let durability = match durable {
            true => Durability::Durable,
            false => Durability::Buffered,
        };
        self.quietly(&[Some(through.next().max(place))], |db| {
            let mut write = db.begin_write()?;
            write.acknowledge(&mut reading.subscriber, through)?;
            let commit = write.commit_with(durability)?;
            Ok((commit.txn_id, durable))
        })
    }

    /// Does what moves the subscriber and nothing else: to each of `places`, by a transaction each, as far as it gets. It
    /// says which transaction it came to, and whether that is durable.
    fn quietly(
        &mut self,
        places: &[Option<TxnId>],
        what: impl FnOnce(&Db) -> northstardb::Result<(TxnId, bool)>,
    ) -> Result<(), Failure> {
        let (db, before) = (self.db(), self.oracle.newest());
        let begun = places.iter().map(|_| self.note(Note::Begun(None)));
        let begun: Vec<usize> = begun.collect();
        let done = what(&db);
        let halted = matches!(done, Err(Error::Halted { .. }));
        let (at, durable) = match &done {
            Ok(done) => *done,
            // Whatever can be seen has happened.
            Err(_) => (visible(&db), true),
        };
        let settled = self.place;
        for (number, (begun, place)) in (1..).zip(begun.into_iter().zip(places)) {
            let txn = TxnId::new(before.get() + number);
            // After a halt nobody knows which of them will be found.
            if halted || txn <= at {
                self.place = *place;
                self.moved += 1;
                self.becomes(begun, txn, self.latest.clone());
            }
        }
        if halted {
            self.place = settled;
        }
        if at.get() > before.get() + places.len() as u64 {
            return broken(format!(
                "moving a subscriber came to {at:?}, after {before:?}"
            ));
        }
        if durable {
            self.note(Note::Acked(at));
        }
        match done {
            Err(error) if self.allowed().log_lost(&error) => Ok(()),
            done => done.map(drop).during("move a subscriber by a commit"),
        }
    }
}

/// The last transaction that can be seen.
fn visible(db: &Db) -> TxnId {
    db.log().map_or(TxnId::ZERO, |log| {
        TxnId::new(log.next().get().saturating_sub(1))
    })
}
