//! One database that lives through many children, and the model of what they did.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use northstardb::{Backend, Db, Options, Retention, StateHash, TxnId};

use super::beside::{Beside, Found};
use super::child::parse_counter;
use super::{COUNTER_TABLE, Plan, TXNS_MAX, Totals};
use crate::compare::compare_whole;
use crate::exec::{COUNTER_KEY, Executor, View};
use crate::model::{Draft, State};
use crate::ops::{End, Shape, Stream, Way};
use crate::rng::Rng;
use crate::run::{BUDGET_LEAST, DELTA_BYTES_LEAST};
use crate::{During, Failure, chain};

/// Held while a child is started: until it has spoken, it may still hold copies of every open file, and with them the lock of a
/// database that another job has open.
pub(super) static SPAWNING: Mutex<()> = Mutex::new(());

/// One database and its parameters, all drawn from its seed.
#[derive(Debug, Clone)]
pub struct Life {
    program: PathBuf,
    /// The database.
    pub dir: PathBuf,
    /// Decides everything but the timing.
    pub seed: u64,
    pub(super) shape: Shape,
    pub(super) backend: Backend,
    delta_bytes: usize,
    page_bytes: u32,
    pub(super) history: Retention,
    pub(super) log_retention: Retention,
    /// What children are denied, in the words of `nshard child --under`.
    pub under: Option<String>,
    /// Children may meet errors of the disk: then they say so and are done.
    pub may_fail: bool,
}

/// Where a database stands: the last transaction found in it, and the state that follows from it.
#[derive(Debug, Clone, Default)]
pub struct Stand {
    round: u64,
    number: u64,
    state: State,
    beside: Beside,
}

/// When a child dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// By itself, when it is done.
    Never,
    /// So long after it began to open.
    Opening(Duration),
    /// So long after so many acknowledgements.
    Acknowledged(u64, Duration),
    /// So long after it began to close.
    Closing(Duration),
}

impl Life {
    /// The one of that seed, below the plan's directory.
    #[must_use]
    pub fn new(plan: &Plan, seed: u64) -> Self {
        let mut life = Self::of(&plan.dir.join(format!("crash-{seed:016x}")), seed);
        life.program.clone_from(&plan.program);
        life.under.clone_from(&plan.under);
        if let Some(backend) = plan.backend {
            life.backend = backend;
        }
        life
    }

    /// The one of that seed, in `dir`.
    #[must_use]
    pub fn of(dir: &Path, seed: u64) -> Self {
        let (mut rng, mut aside) = (Rng::new(seed).fork(1), Rng::new(seed).fork(3));
        let page_bytes = rng.pick(&[4096, 16384, 16384]);
        let mut shape = Shape::random(&mut rng).for_pages(page_bytes);
        shape.value_bytes_max = shape.value_bytes_max.min(20_000);
        Self {
            program: PathBuf::new(),
            dir: dir.to_owned(),
            seed,
            shape,
            backend: rng.pick(&[Backend::Plain, Backend::Auto, Backend::Auto]),
            delta_bytes: rng.pick(&[DELTA_BYTES_LEAST, 256 << 10, 2 << 20]),
            page_bytes,
            history: aside.pick(&[
                Retention::None,
                Retention::All,
                Retention::All,
                Retention::Within {
                    age: Duration::from_secs(3600),
                    bytes: 4 << 20,
                },
            ]),
            log_retention: aside.pick(&[Retention::None, Retention::None, Retention::All]),
            under: None,
            may_fail: false,
        }
    }

    /// The options to open with.
    pub fn options(&self) -> Options {
        Options::new()
            .backend(self.backend)
            .delta_bytes(self.delta_bytes)
            .page_bytes(self.page_bytes)
            .memory_budget(BUDGET_LEAST)
            .history(self.history)
            .log_retention(self.log_retention)
            .buffered_flush(Duration::from_millis(2))
    }

    /// The transactions of a round.
    #[must_use]
    pub fn stream(&self, round: u64) -> Stream {
        Stream::new(Rng::new(self.seed).fork(1000 + round).word(), self.shape)
    }

    pub(super) fn live(
        &self,
        rounds: u64,
        kills_max: u64,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let mut rng = Rng::new(self.seed).fork(2);
        let mut stand = Stand::default();
        let before = totals.kills;
        for round in 1..=rounds {
            if totals.kills - before >= kills_max {
                break;
            }
            self.round(round, &mut rng, &mut stand, totals).map_err(|failure| {
                Failure::Broken(format!(
                    "{}\n  in round {round} of {self:?}\n  the database is kept in {}\n  replay: nshard crash --life {} --kills {round}",
                    chain(&failure),
                    self.dir.display(),
                    self.seed
                ))
            })?;
        }
        Ok(())
    }

    fn round(
        &self,
        round: u64,
        rng: &mut Rng,
        stand: &mut Stand,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let heard = self.work(round, rng, totals)?;
        // Half of the rounds leave recovery to the next child, so that recoveries are interrupted too. Not those that
        // may have committed something: how much that was is asked of the database, and the next child changes it.
        let look = heard.opened || rng.chance(50);
        if look {
            self.verify(round, &heard, stand, totals)
        } else {
            Ok(())
        }
    }

    /// A child that is killed at a random moment.
    ///
    /// # Errors
    /// When a child cannot be had, or fails.
    pub fn work(&self, round: u64, rng: &mut Rng, totals: &mut Totals) -> Result<Heard, Failure> {
        let micros = |rng: &mut Rng, most: u64| Duration::from_micros(rng.below(most));
        let moment = match rng.below(20) {
            0..=3 => Moment::Opening(micros(rng, 8_000)),
            4..=5 => Moment::Closing(micros(rng, 6_000)),
            6..=11 => Moment::Acknowledged(1, micros(rng, 3_000)),
            12..=16 => Moment::Acknowledged(1, micros(rng, 50_000)),
            _ => Moment::Acknowledged(rng.between(1, 300), micros(rng, 1_000)),
        };
        // A child that is to die while it closes does a random amount of work first.
        let txns = match moment {
            Moment::Closing(_) => rng.between(1, 300),
            Moment::Opening(_) | Moment::Acknowledged(..) | Moment::Never => TXNS_MAX,
        };
        let heard = self.child(round, txns, moment)?;
        totals.kills += u64::from(heard.killed);
        totals.finished += u64::from(!heard.killed);
        totals.while_opening += u64::from(heard.killed && !heard.opened);
        totals.while_closing += u64::from(heard.killed && heard.closing);
        totals.acknowledged += heard.acknowledged;
        Ok(heard)
    }

    /// A child that is left alone until it has done so much.
    ///
    /// # Errors
    /// When a child cannot be had, or fails.
    pub fn finish(&self, round: u64, txns: u64, totals: &mut Totals) -> Result<Heard, Failure> {
        let heard = self.child(round, txns, Moment::Never)?;
        totals.finished += 1;
        totals.acknowledged += heard.acknowledged;
        Ok(heard)
    }

    /// Starts a child, listens, kills it.
    fn child(&self, round: u64, txns: u64, moment: Moment) -> Result<Heard, Failure> {
        let backend = format!("{:?}", self.backend).to_lowercase();
        // One at a time, until it has spoken. The end of `spawn` is no proof: the kernel lets the parent go on before it
        // closes what the child has copies of.
        let spawning = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(&self.program)
            .arg("child")
            .args([
                "--seed",
                &self.seed.to_string(),
                "--round",
                &round.to_string(),
            ])
            .args(["--txns", &txns.to_string(), "--backend", &backend])
            .args(self.under.iter().flat_map(|word| ["--under", word]))
            .arg("--dir")
            .arg(&self.dir)
            // No room set aside beforehand: what is allocated is to meet the limits that it is given.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .during("start a child")?;
        let mut spawning = Some(spawning);
        let said = child.stdout.take();
        let complaint = child.stderr.take();
        let (now, wait) = mpsc::channel::<Duration>();
        let killer = std::thread::spawn(move || kill(child, &wait));
        let mut heard = Heard::default();
        for line in said
            .into_iter()
            .flat_map(|pipe| BufReader::new(pipe).lines())
        {
            drop(spawning.take());
            let Ok(line) = line else { break };
            let mut words = line.split(' ');
            match words.next() {
                Some("opening") => {
                    if let Moment::Opening(delay) = moment {
                        now.send(delay).ok();
                    }
                }
                Some("opened") => {
                    heard.opened = true;
                    heard.status = words.collect::<Vec<_>>().join(" ");
                }
                Some("followed") => {
                    if let (Some(Ok(txn)), Some(".")) = (words.next().map(str::parse), words.next())
                    {
                        heard.followed = txn;
                    }
                }
                Some("failed") => heard.failed = words.next().map(str::to_owned),
                Some("ack") => {
                    // A line may be cut short by the kill: only a whole one ends in a full stop.
                    let mut number = || words.next().and_then(|word| word.parse().ok());
                    let (Some(id), Some(txn)) = (number(), number()) else {
                        break;
                    };
                    if words.next() != Some(".") {
                        break;
                    }
                    heard.acknowledged += 1;
                    heard.last = id;
                    heard.txn = txn;
                    if let Moment::Acknowledged(many, delay) = moment
                        && heard.acknowledged == many
                    {
                        now.send(delay).ok();
                    }
                }
                Some("closing") => {
                    heard.closing = true;
                    heard.status = words.collect::<Vec<_>>().join(" ");
                    if let Moment::Closing(delay) = moment {
                        now.send(delay).ok();
                    }
                }
                _ => {}
            }
        }
        drop(spawning);
        drop(now);
        let died = killer
            .join()
            .map_err(|_| Failure::Broken("the killer panicked".to_owned()))?;
        let Died { sent, status } = died.during("wait for a child")?;
        let mut words = String::new();
        if let Some(mut pipe) = complaint {
            std::io::Read::read_to_string(&mut pipe, &mut words).during("read a child's errors")?;
        }
        let signal = status.signal();
        let killed = sent && signal == Some(libc::SIGKILL);
        let aborted =
            (killed || signal == Some(libc::SIGABRT)) && words.starts_with("memory allocation of");
        // Who is told of an error says so first and complains after: the kill may come in between, or later.
        let told = heard.failed.is_some() && (signal.is_none() || killed);
        let met = self.may_fail && (told || aborted) && !words.contains("panicked");
        let silent = words.is_empty() && heard.failed.is_none();
        heard.killed = killed || aborted;
        if met || (silent && (killed || status.success())) {
            return Ok(heard);
        }
        Err(Failure::Broken(format!(
            "the child failed ({status}): {}",
            words.trim()
        )))
    }

    /// Opens what the child left and compares it with the model.
    ///
    /// # Errors
    /// The first difference.
    pub fn verify(
        &self,
        round: u64,
        heard: &Heard,
        stand: &mut Stand,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let mut rng = Rng::new(self.seed).fork(3000 + round);
        let told = match rng.fork(1).chance(20) {
            true => self.ask_log(totals)?,
            false => None,
        };
        let opened = self.options().open(&self.dir);
        let db = opened.during("open after the kill")?;
        let exec = self.compare(db, round, heard, stand, totals)?;
        let at = exec.db.begin_read().during("begin_read")?.txn_id();
        if let Some(told) = told {
            told.compare(&exec.db)?;
        }
        let found = Found {
            db: &exec.db,
            life: self,
            at,
            state: &stand.state,
        };
        stand.beside.heard(TxnId::new(heard.followed));
        if rng.chance(30) {
            stand.beside.check(&found, &mut rng, totals)?;
        }
        // Some rounds stop cleanly in between, some leave the log as it is.
        if round.is_multiple_of(3) {
            exec.db.close().during("close")
        } else {
            Ok(())
        }
    }

    /// Reads the log without the database, which whoever was killed had open. None if it was not even made.
    fn ask_log(&self, totals: &mut Totals) -> Result<Option<Told>, Failure> {
        // No child may get a copy of the lock.
        let _spawning = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        let options = || Options::new().backend(self.backend);
        let report = match options().verify_log(&self.dir) {
            Err(northstardb::Error::NotADatabase { .. }) => return Ok(None),
            other => other.during("verify the log")?,
        };
        totals.logs += 1;
        if !report.holes.is_empty() {
            return Err(Failure::Broken(format!("the log has holes: {report:?}")));
        }
        let first = TxnId::new(1);
        let next = report.next.unwrap_or(first);
        let last = TxnId::new(next.get() - 1);
        if report.first != Some(first) || report.transactions == 0 {
            return Ok(Some(Told { last, state: None }));
        }
        let copy = Db::memory().during("make a copy")?;
        let mut apply = copy.begin_apply().during("begin to apply")?;
        for found in options()
            .read_log(&self.dir, first)
            .during("read the log")?
        {
            let found = found.during("read the log")?;
            apply.push(found).during("apply the log")?;
        }
        apply.finish().during("apply the log")?;
        let read = copy.begin_read().during("begin_read of a copy")?;
        let state = Some(read.state_hash().during("hash a copy")?);
        Ok(Some(Told { last, state }))
    }

    /// Compares an open database with the model. Gives it back.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(
        &self,
        db: Db,
        round: u64,
        heard: &Heard,
        stand: &mut Stand,
        totals: &mut Totals,
    ) -> Result<Executor, Failure> {
        let read = db.begin_read().during("begin_read")?;
        if read.txn_id() < TxnId::new(heard.txn) {
            return Err(Failure::Broken(format!(
                "opened at {:?}, t{} was acknowledged",
                read.txn_id(),
                heard.txn
            )));
        }
        let (at_round, number) = match db.open_table(COUNTER_TABLE) {
            Err(northstardb::Error::UnknownTable { .. }) => (0, 0),
            Err(other) => return Err(other).during("open the counter's table"),
            Ok(table) => match read.value(&table, COUNTER_KEY).during("read the counter")? {
                None => (0, 0),
                Some(bytes) => parse_counter(&bytes)
                    .ok_or_else(|| Failure::Broken(format!("counter is {bytes:?}")))?,
            },
        };
        let acknowledged = heard.last;
        let moved = (at_round, number) != (stand.round, stand.number);
        if at_round < stand.round
            || at_round > round
            || (at_round == stand.round && number < stand.number)
        {
            return Err(Failure::Broken(format!(
                "transaction {number} of round {at_round} is the last one found; {} of {} was there before",
                stand.number, stand.round
            )));
        }
        if acknowledged > 0 && (at_round != round || number < acknowledged) {
            return Err(Failure::Broken(format!(
                "transaction {number} of round {at_round} is the last one found; {acknowledged} of {round} was acknowledged"
            )));
        }
        if moved {
            let mut stream = self.stream(at_round);
            for _ in 0..number {
                let txn = stream.txn();
                let mut draft = Draft::new(
                    stand.state.clone(),
                    self.shape.key_style,
                    txn.way != Way::Exclusive,
                );
                for edit in &txn.edits {
                    draft.apply(edit);
                }
                if txn.end != End::Abort {
                    stand.state = draft.state;
                }
            }
            (stand.round, stand.number) = (at_round, number);
            if at_round == round {
                totals.beyond += number - acknowledged;
            }
        }
        let names = read.names().during("tables")?;
        let mut expected: Vec<_> = stand.state.tables.keys().cloned().collect();
        if names.iter().any(|name| name == COUNTER_TABLE) {
            expected.push(COUNTER_TABLE.to_owned());
        }
        expected.sort();
        if names != expected {
            return Err(Failure::Broken(format!(
                "tables are {names:?}, expected {expected:?}"
            )));
        }
        let exec = Executor::new(db, self.shape.key_style)?;
        let what = format!("after transaction {number} of round {at_round}");
        totals.rows += compare_whole(&read, &stand.state, &exec.handles, &what)?;
        let report = exec.db.check().during("check")?;
        if !report.faults.is_empty() {
            return Err(Failure::Broken(format!("check found {:?}", report.faults)));
        }
        Ok(exec)
    }
}

/// What a log said before its database was opened.
struct Told {
    last: TxnId,
    /// The state that all of it leads to, where it is all there.
    state: Option<StateHash>,
}

impl Told {
    /// Fails unless opening has found the same.
    fn compare(&self, db: &Db) -> Result<(), Failure> {
        let read = db.begin_read().during("begin_read")?;
        let at = read.txn_id();
        let state = match self.state {
            Some(_) => Some(read.state_hash().during("hash")?),
            None => None,
        };
        if (self.last, self.state) == (at, state) {
            return Ok(());
        }
        Err(Failure::Broken(format!(
            "the log alone led to {:?} with {:?}, opening to {at:?} with {state:?}",
            self.last, self.state
        )))
    }
}

/// What a child said before it died.
#[derive(Debug, Default)]
pub struct Heard {
    /// It said that it had opened the database.
    pub opened: bool,
    /// What the opened database said: backend, `direct` or `buffered`, and its warnings, `|` between them.
    pub status: String,
    /// The kind of the engine's error that ended it.
    pub failed: Option<String>,
    /// It said that it was about to close.
    pub closing: bool,
    /// It was killed, and not done before.
    pub killed: bool,
    /// Transactions it acknowledged.
    pub acknowledged: u64,
    /// The last acknowledged transaction's number in its round.
    pub last: u64,
    /// Its id.
    pub txn: u64,
    /// Its subscriber has acknowledged all before.
    pub followed: u64,
}

/// How a child ended.
struct Died {
    /// It was sent the signal that kills.
    sent: bool,
    status: ExitStatus,
}

/// Waits for the word, then for the delay, then kills.
fn kill(mut child: Child, wait: &mpsc::Receiver<Duration>) -> std::io::Result<Died> {
    let delay = wait.recv();
    let sent = delay.is_ok();
    if let Ok(delay) = delay {
        std::thread::sleep(delay);
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(Died { sent, status })
}
