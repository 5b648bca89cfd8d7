//! Whether what was seen is what one order of the commits explains, and whether a power cut leaves a prefix of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use northstar_io::sim::{Event, Shadow, SimDisk};
use northstardb::TxnId;

use super::clients::{Answer, Book, Seen};
use super::setting::{Setting, Sizes};
use crate::compare::{compare_names, compare_whole};
use crate::exec::{Executor, Pair};
use crate::model::{Bytes, Draft, State};
use crate::ops::table_name;
use crate::rng::Rng;
use crate::sim::storm;
use crate::{During, Failure};

/// Every state, by the transaction that made it.
#[derive(Debug)]
pub struct History(BTreeMap<TxnId, Arc<State>>);

impl History {
    /// What the commits in the book came to, one after the other.
    ///
    /// # Errors
    /// If two have one id, or one has none.
    pub fn of(setting: &Setting, book: &mut Book) -> Result<Self, Failure> {
        let mut states = BTreeMap::from([(setting.at, Arc::clone(&setting.state))]);
        let (mut at, mut state) = (setting.at, Arc::clone(&setting.state));
        book.committed.sort_by_key(|(txn, _)| *txn);
        for (txn, edits) in &book.committed {
            if *txn != TxnId::new(at.get() + 1) {
                return Err(Failure::Broken(format!(
                    "{txn:?} follows {at:?} in the order of commits"
                )));
            }
            let mut draft = Draft::new(State::clone(&state), setting.style, false);
            for edit in edits {
                draft.apply(edit);
            }
            (at, state) = (*txn, Arc::new(draft.state));
            states.insert(at, Arc::clone(&state));
        }
        Ok(Self(states))
    }

    fn state(&self, at: TxnId) -> Result<&Arc<State>, Failure> {
        self.0.get(&at).ok_or_else(|| {
            Failure::Broken(format!("somebody read at {at:?}, which nobody committed"))
        })
    }

    fn newest(&self) -> TxnId {
        self.0.last_key_value().map_or(TxnId::ZERO, |(txn, _)| *txn)
    }

    /// Compares what was read. Returns how many rows that was.
    ///
    /// # Errors
    /// The first answer that is not that of its transaction's state.
    pub fn explain(&self, seen: &[Seen]) -> Result<u64, Failure> {
        let mut rows = 0;
        for Seen { at, slot, what } in seen {
            let state = self.state(*at)?;
            let name = table_name(*slot);
            let is_right = match what {
                Answer::Value(key, found) => {
                    rows += 1;
                    let expected = state.rows(&name).and_then(|rows| rows.get(key.as_slice()));
                    found.as_deref() == expected.map(|value| &value[..])
                }
                Answer::Rows(from, to, found) => {
                    rows += found.len() as u64;
                    let expected = state.range(&name, from, to);
                    let same = |(found, expected): (&Pair, &(Bytes, Bytes))| {
                        found.0[..] == expected.0[..] && found.1[..] == expected.1[..]
                    };
                    found.len() == expected.len() && found.iter().zip(&expected).all(same)
                }
            };
            if !is_right {
                return Err(self.accuse(*at, &name, what));
            }
        }
        Ok(rows)
    }

    /// What is wrong with an answer, and which transactions explain it.
    fn accuse(&self, at: TxnId, name: &str, what: &Answer) -> Failure {
        let rows = |txn: TxnId, key: &[u8]| {
            let state = self.0.get(&txn)?;
            state.rows(name)?.get(key).cloned()
        };
        let told = |key: &[u8], found: Option<&[u8]>| {
            let right = |txn: &&TxnId| rows(**txn, key).as_deref() == found;
            let right: Vec<_> = self.0.keys().filter(right).map(|txn| txn.get()).collect();
            let end = String::from_utf8_lossy(&key[key.len().saturating_sub(8)..]).into_owned();
            let what = match found {
                Some(value) => format!("{} bytes", value.len()),
                None => "nothing".to_owned(),
            };
            format!("\n    key ..{end:?}: {what}, right at {right:?}")
        };
        let mut wrong = String::new();
        match what {
            Answer::Value(key, found) => wrong.push_str(&told(key, found.as_deref())),
            Answer::Rows(from, to, found) => {
                let expected = self.0.get(&at).map(|state| state.range(name, from, to));
                let found: BTreeMap<&[u8], &[u8]> = found
                    .iter()
                    .map(|(key, value)| (&key[..], &value[..]))
                    .collect();
                let expected = expected.unwrap_or_default();
                let keys = expected.iter().map(|(key, _)| &key[..]);
                let keys: BTreeSet<&[u8]> = keys.chain(found.keys().copied()).collect();
                for key in keys {
                    let found = found.get(key).copied();
                    if found != rows(at, key).as_deref() {
                        wrong.push_str(&told(key, found));
                    }
                }
                write!(
                    wrong,
                    "\n    in a range of {} rows, {from:?} to {to:?}",
                    found.len()
                )
                .ok();
            }
        }
        Failure::Broken(format!(
            "a reader at {at:?} of {name} got a wrong answer; the newest is {:?}{wrong}",
            self.newest()
        ))
    }

    /// Cuts the power somewhere in the run, or after it, and compares what is left. Returns how many rows that was.
    ///
    /// # Errors
    /// If it is not a prefix, or lacks something that somebody knew.
    pub fn survive(
        &self,
        setting: &Setting,
        sizes: Sizes,
        disk: &SimDisk,
        rng: &mut Rng,
    ) -> Result<u64, Failure> {
        let events = disk.take_trace().events;
        let whole = rng.chance(30);
        let until = if whole {
            events.len()
        } else {
            rng.index(events.len() + 1)
        };
        let mut shadow = Shadow::new(setting.image.clone());
        let mut known = setting.at;
        for event in &events[..until] {
            shadow.apply(event);
            if let Event::Mark(txn) = event {
                known = known.max(TxnId::new(*txn));
            }
        }
        if whole {
            // Closed, or dropped after a last flush: nothing may be missing.
            known = self.newest();
        }
        let plan = storm::draw(rng, shadow.units());
        let image = shadow.crash(plan, &mut || rng.word());
        self.compare(setting, sizes, image, known)
            .map_err(|failure| {
                Failure::Broken(format!(
                    "{}\n  power cut, {plan:?}, behind event {until} of {}",
                    crate::chain(&failure),
                    events.len()
                ))
            })
    }

    fn compare(
        &self,
        setting: &Setting,
        sizes: Sizes,
        image: northstar_io::sim::Image,
        known: TxnId,
    ) -> Result<u64, Failure> {
        let db = setting.open(&Setting::quiet_disk(image), sizes, false)?;
        let read = db.begin_read().during("begin_read")?;
        let at = read.txn_id();
        if at < known {
            return Err(Failure::Broken(format!(
                "{at:?} is the last transaction found, {known:?} was known to be durable"
            )));
        }
        let state = self.state(at)?;
        let what = "what a power cut left";
        compare_names(&read, state, what)?;
        let exec = Executor::new(db.clone(), setting.style)?;
        let rows = compare_whole(&read, state, &exec.handles, what)?;
        let report = db.check().during("check")?;
        if !report.faults.is_empty() {
            return Err(Failure::Broken(format!("check found {:?}", report.faults)));
        }
        Ok(rows)
    }
}
