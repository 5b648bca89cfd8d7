//! One seed: a setting, a few threads, a policy, and the judgement.
//!
//! A run is ten transactions or so, and not fewer. Runs of a few took 1.4 to 1.8 ms of processor time instead of 2.1 to 3.0, but
//! found a frame that is reused under its readers once in 2,048 seeds instead of 197, and a waiter that is not woken in 203 instead of
//! 78; a snapshot that does not look again in 1,471 instead of 1,155 (twelve finds each).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use northstar_io::sim::QUEUED_READ;

use super::clients::{self, Book, Outlived, Rough, Stage, has_failed};
use super::explorer::{self, Explorer};
use super::judge::{Left, judge};
use super::policy::Policy;
use super::setting::{KINDS, Setting, Sizes};
use crate::During;
use crate::Failure;
use crate::rng::Rng;
use crate::tally::Tally;

/// Counted: whole runs of the engine, each with an interleaving of its own.
pub const SCHEDULES: &str = "schedules explored";

/// Runs seeds, and keeps what they have in common.
#[derive(Debug, Default)]
pub struct Runner {
    explorer: Explorer,
    settings: BTreeMap<u64, Arc<Setting>>,
}

impl Runner {
    fn setting(&mut self, kind: u64) -> Result<Arc<Setting>, Failure> {
        if let Some(made) = self.settings.get(&kind) {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(Setting::make(kind)?);
        self.settings.insert(kind, Arc::clone(&made));
        Ok(made)
    }

    /// Does one seed.
    ///
    /// # Errors
    /// The first broken promise, with the line that replays it.
    pub fn run(&mut self, seed: u64) -> Result<Tally, Failure> {
        self.seed(seed).map_err(|failure| {
            let why = crate::chain(&failure);
            Failure::Broken(format!("{why}\n  replay: nshard schedule --seed {seed}"))
        })
    }

    fn seed(&mut self, seed: u64) -> Result<Tally, Failure> {
        let mut rng = Rng::new(seed).fork(29);
        let setting = self.setting(rng.below(KINDS))?;
        let policy = Policy::of(seed);
        let sizes = Sizes::of(&mut rng, policy.still);
        let rough = Rough::of(&mut Rng::new(seed).fork(31));
        let disk = setting.disk(rough.faults.clone());
        let left: Arc<Mutex<Option<Book>>> = Arc::default();
        let ran = self.explorer.run(policy, {
            let (setting, disk, left) =
                (Arc::clone(&setting), Arc::clone(&disk), Arc::clone(&left));
            let (mut rng, rough, there) = (rng.fork(1), rough.clone(), Arc::clone(&disk));
            move || {
                let played = setting
                    .open(&disk, sizes, true)
                    .and_then(|db| Stage::new(setting, db, disk, rough.clone()))
                    .and_then(|stage| play(stage, &mut rng));
                match played {
                    // It could not even be opened.
                    Err(failure) if rough.explains(&failure, &there) => {
                        *left.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some(Book::default());
                    }
                    Ok(book) => *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(book),
                    Err(failure) => explorer::fail(failure),
                }
            }
        })?;
        let book = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let book = book.expect("a run that did not fail leaves its book");
        // A page that was asked for ahead and then retired may be read while its place is written anew.
        let (late, broken): (Vec<_>, Vec<_>) = disk
            .violations()
            .into_iter()
            .partition(|violation| violation.starts_with(QUEUED_READ));
        if let Some(broken) = broken.first() {
            return Err(Failure::Broken(broken.clone()));
        }
        let failed = has_failed(&disk);
        let left = Left::of(&setting, &disk, &mut rng, failed)?;
        let judged = judge(&setting, sizes, &book, &left)?;
        let rows = judged.rows;
        let mut tally = Tally::default();
        tally.add(SCHEDULES, 1);
        if rough.closed_early {
            tally.add("of these closed early", 1);
        }
        if failed {
            tally.add("of these on a disk that failed", 1);
        }
        tally.add(
            "of these with too many orders to judge",
            judged.undecided.into(),
        );
        tally.add("threads ended by an error", book.ended);
        tally.add("commits of unknown outcome", book.tried.len() as u64);
        tally.add("steps", ran.steps);
        tally.add("switches", ran.switches);
        tally.add("transactions", book.committed.len() as u64);
        tally.add("snapshots", book.snapshots);
        tally.add("checkpoints asked for", book.checkpoints);
        tally.add("rows compared", rows);
        tally.add("transactions followed", book.followed);
        tally.add("late reads ahead", late.len() as u64);
        tally.hash = ran.hash ^ rows.rotate_left(40);
        Ok(tally)
    }
}

/// Starts the threads, waits for them, and closes the database.
fn play(stage: Stage, rng: &mut Rng) -> Result<Book, Failure> {
    type Work = fn(&Stage, Rng) -> Result<(), Failure>;
    let (writers, readers) = (rng.pick(&[1, 2, 2, 3]), rng.pick(&[0, 1, 1, 2]));
    let tenders = u64::from(rng.chance(40));
    let close = rng.chance(70);
    let outlive = !stage.rough.is_rough() && rng.chance(15);
    let closers = u64::from(stage.rough.closed_early);
    let followers = u64::from(rng.chance(30));
    let works = [
        ("writer", writers, clients::write as Work),
        ("reader", readers, clients::read as Work),
        ("tender", tenders, clients::tend as Work),
        ("closer", closers, clients::close as Work),
        ("follower", followers, clients::follow as Work),
    ];
    let stage = Arc::new(stage);
    let mut threads = Vec::new();
    for (name, count, work) in works {
        for nth in 0..count {
            let (stage, rng) = (
                Arc::clone(&stage),
                rng.fork(1_000 + 10 * nth + threads.len() as u64),
            );
            let name = format!("{name} {nth}");
            threads.push(explorer::spawn(&name, move || match work(&stage, rng) {
                Err(failure) if stage.rough.explains(&failure, &stage.disk) => {
                    stage.book().ended += 1;
                }
                Err(failure) => explorer::fail(failure),
                Ok(()) => {}
            }));
        }
    }
    for thread in threads {
        thread.join();
    }
    let Ok(stage) = Arc::try_unwrap(stage) else {
        return Err(Failure::Broken(
            "a thread that has ended holds on to its stage".to_owned(),
        ));
    };
    let (rough, disk) = (stage.rough.clone(), Arc::clone(&stage.disk));
    let outlived = outlive.then(|| Outlived::begin(&stage, rng)).transpose()?;
    let (db, book) = stage.leave();
    if let Some(outlived) = outlived {
        let book = Arc::new(Mutex::new(book));
        let threads = outlived.end(&book);
        drop(db);
        for thread in threads {
            thread.join();
        }
        return Ok(std::mem::take(
            &mut *book.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }
    if close {
        match db.close().during("close") {
            Err(failure) if rough.explains(&failure, &disk) => {}
            other => other?,
        }
    } else {
        drop(db);
    }
    Ok(book)
}
