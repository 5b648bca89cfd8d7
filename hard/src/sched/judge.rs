//! Whether what was seen is what one order of the commits explains, and whether a power cut leaves a prefix of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Bound;
use std::sync::Arc;

use northstar_io::sim::{Event, Image, Shadow, SimDisk};
use northstardb::{Db, TxnId};

use super::clients::{Answer, Book, CLOSED, Seen};
use super::setting::{Setting, Sizes, TABLES};
use crate::compare::{compare_names, compare_present};
use crate::exec::{Executor, Pair, Pairs, View, tables_of};
use crate::model::{Bytes, Draft, State};
use crate::ops::{Edit, table_name};
use crate::rng::Rng;
use crate::sim::storm;
use crate::{During, Failure};

/// Orders that are tried before a run with many commits of unknown outcome is given up.
const ORDERS_MAX: usize = 2_000;

/// What came of judging.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    /// Rows compared.
    pub rows: u64,
    /// Too many orders were possible to try all, and none that was tried fits.
    pub undecided: bool,
}

/// Holds what was seen and what is left against the commits. Commits of unknown outcome may have become any of the
/// transactions that nobody knows: what was seen must fit one choice of them.
///
/// # Errors
/// What does not fit, whatever is chosen: said of the first choice.
pub fn judge(setting: &Setting, sizes: Sizes, book: &Book, left: &Left) -> Result<Judged, Failure> {
    let db = left.open(setting, sizes)?;
    let found = db.begin_read().during("begin_read")?.txn_id();
    // Whatever the order was.
    let report = db.check().during("check")?;
    if !report.faults.is_empty() || left.known.is_some_and(|known| found < known) {
        let (known, faults, cut) = (left.known, report.faults, &left.cut);
        return Err(Failure::Broken(format!(
            "{found:?} was found, {known:?} was known to be durable, check found {faults:?}\n  {cut}"
        )));
    }
    let saved = restored(setting, sizes, &book.saved)?;
    let known: BTreeMap<TxnId, &[Edit]> = book
        .committed
        .iter()
        .map(|(txn, edits)| (*txn, &edits[..]))
        .collect();
    if known.len() < book.committed.len() {
        return Err(Failure::Broken("two commits have one id".to_owned()));
    }
    let seen = book.seen.iter().chain(&saved).map(|seen| seen.at);
    let newest = known.keys().copied().chain(seen).chain([found]).max();
    let newest = newest.unwrap_or(found);
    let ids = (setting.at.get() + 1..=newest.get()).map(TxnId::new);
    let gaps: Vec<TxnId> = ids.filter(|txn| !known.contains_key(txn)).collect();
    let tried: Vec<&[Edit]> = book.tried.values().map(|edits| &edits[..]).collect();
    let mut orders = Vec::new();
    choose(gaps.len(), &tried, &mut Vec::new(), &mut orders);
    let mut why = None;
    for order in &orders {
        let mut all = known.clone();
        all.extend(gaps.iter().zip(order).map(|(txn, nth)| (*txn, tried[*nth])));
        let history = History::of(setting, &all);
        let fits = history.explain(&book.seen).and_then(|rows| {
            let saved = history.explain(&saved)?;
            let kept = history.survive(setting, &db, left)?;
            Ok(rows + saved + kept)
        });
        match fits {
            Ok(rows) => {
                return Ok(Judged {
                    rows,
                    undecided: false,
                });
            }
            Err(failure) => {
                why.get_or_insert(failure);
            }
        }
    }
    if orders.len() >= ORDERS_MAX {
        return Ok(Judged {
            rows: 0,
            undecided: true,
        });
    }
    Err(why.unwrap_or_else(|| {
        Failure::Broken(format!(
            "nobody committed {gaps:?}, {} commits are of unknown outcome; the newest seen is {newest:?}, {found:?} was left",
            tried.len()
        ))
    }))
}

/// What backups come to when they are restored: all rows of each table.
fn restored(
    setting: &Setting,
    sizes: Sizes,
    saved: &[(TxnId, Vec<u8>)],
) -> Result<Vec<Seen>, Failure> {
    let mut seen = Vec::new();
    for (to, backup) in saved {
        let db = setting.restore(sizes, backup)?;
        let read = db.begin_read().during("begin_read of what was restored")?;
        if read.txn_id() != *to {
            return Err(Failure::Broken(format!(
                "a backup of {to:?} was restored to {:?}",
                read.txn_id()
            )));
        }
        let handles = tables_of(&read)?;
        for slot in 0..TABLES {
            let rows = match handles.get(&table_name(slot)) {
                Some(table) => read.prefixed(table, &[]).during("read what was restored")?,
                None => Pairs::new(),
            };
            seen.push(Seen {
                at: read.txn_id(),
                slot,
                what: Answer::Rows(Bound::Unbounded, Bound::Unbounded, rows),
            });
        }
    }
    Ok(seen)
}

/// Every way to take `many` of `tried` one after the other, those that are the same taken once.
fn choose(many: usize, tried: &[&[Edit]], order: &mut Vec<usize>, orders: &mut Vec<Vec<usize>>) {
    if orders.len() >= ORDERS_MAX {
        return;
    }
    if order.len() == many {
        orders.push(order.clone());
        return;
    }
    for nth in 0..tried.len() {
        let is_free = |other: usize| !order.contains(&other);
        let is_first = !(0..nth).any(|other| is_free(other) && tried[other] == tried[nth]);
        if is_free(nth) && is_first {
            order.push(nth);
            choose(many, tried, order, orders);
            order.pop();
        }
    }
}

/// What a power cut left, somewhere in a run or after it.
#[derive(Debug)]
pub struct Left {
    image: Image,
    /// The newest transaction that somebody knew to be durable; all that were committed, if absent.
    known: Option<TxnId>,
    /// Where and how the power was cut.
    cut: String,
}

impl Left {
    /// Cuts the power.
    ///
    /// # Errors
    /// If something was written after the database had been closed.
    pub fn of(
        setting: &Setting,
        disk: &SimDisk,
        rng: &mut Rng,
        failed: bool,
    ) -> Result<Self, Failure> {
        let events = disk.take_trace().events;
        let is_closed = |event: &Event| matches!(event, Event::Mark(CLOSED));
        let mut later = events.iter().skip_while(|event| !is_closed(event));
        if let Some(late) = later.find(|event| !matches!(event, Event::Mark(_))) {
            return Err(Failure::Broken(format!("after closing came {late}")));
        }
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
            if let Event::Mark(txn) = event
                && !is_closed(event)
            {
                known = known.max(TxnId::new(*txn));
            }
        }
        let plan = storm::draw(rng, shadow.units());
        let all = events.len();
        Ok(Self {
            // Closed, or dropped after a last flush: nothing may be missing.
            known: (!whole || failed).then_some(known),
            cut: format!("power cut, {plan:?}, behind event {until} of {all}"),
            image: shadow.crash(plan, &mut || rng.word()),
        })
    }

    fn open(&self, setting: &Setting, sizes: Sizes) -> Result<Db, Failure> {
        let disk = Setting::quiet_disk(self.image.clone());
        setting.open(&disk, sizes, false).map_err(|failure| {
            let why = crate::chain(&failure);
            Failure::Broken(format!("{why}\n  {}", self.cut))
        })
    }
}

/// Every state, by the transaction that made it.
#[derive(Debug)]
struct History(BTreeMap<TxnId, Arc<State>>);

impl History {
    /// What transactions came to, one after the other.
    fn of(setting: &Setting, commits: &BTreeMap<TxnId, &[Edit]>) -> Self {
        let mut states = BTreeMap::from([(setting.at, Arc::clone(&setting.state))]);
        let mut state = Arc::clone(&setting.state);
        for (txn, edits) in commits {
            let mut draft = Draft::new(State::clone(&state), setting.style, false);
            for edit in *edits {
                draft.apply(edit);
            }
            state = Arc::new(draft.state);
            states.insert(*txn, Arc::clone(&state));
        }
        Self(states)
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
    fn explain(&self, seen: &[Seen]) -> Result<u64, Failure> {
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

    /// Compares what a power cut left. Returns how many rows that was.
    ///
    /// # Errors
    /// If it is not a prefix, or lacks something that somebody knew.
    fn survive(&self, setting: &Setting, db: &Db, left: &Left) -> Result<u64, Failure> {
        self.compare(setting, db, left.known.unwrap_or_else(|| self.newest()))
            .map_err(|failure| {
                let why = crate::chain(&failure);
                Failure::Broken(format!("{why}\n  {}", left.cut))
            })
    }

    fn compare(&self, setting: &Setting, db: &Db, known: TxnId) -> Result<u64, Failure> {
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
        let rows = compare_present(&read, state, &exec.handles, what)?;
        Ok(rows)
    }
}
