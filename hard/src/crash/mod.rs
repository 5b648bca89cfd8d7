//! A child process killed at random moments: what it leaves must be a prefix of what it did, no shorter than what it
//! acknowledged.
//!
//! One database lives through many rounds. In each, a child opens it, tells the parent, and performs the random
//! transactions of that round; each puts its round and number under one key. The parent reads acknowledgements from
//! a pipe, kills the child at a random moment (while it opens, soon after, in the middle, while it closes), opens
//! the database itself, replays the same transactions into the model up to the number found, and compares everything.
//!
//! - Limit: `SIGKILL` leaves what the kernel was given, so this shows process crashes. Power loss needs the
//!   simulated disk.
//! - Spec: HD-001.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use northstardb::{Backend, Db, Options, Table, TxnId};

use crate::compare::compare_whole;
use crate::exec::{COUNTER_KEY, Ended, Executor, View};
use crate::model::{Draft, State};
use crate::ops::{End, Shape, Stream, Way};
use crate::rng::Rng;
use crate::run::{BUDGET_LEAST, DELTA_BYTES_LEAST};
use crate::{During, Failure, chain};

/// The table that holds the counter.
const COUNTER_TABLE: &str = "counter";
/// A child stops by itself after so many transactions, and closes.
const TXNS_MAX: u64 = 4_000;

/// What a crash run is asked to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `nshard` program, started as the child.
    pub program: PathBuf,
    /// Databases are made below this directory.
    pub dir: PathBuf,
    /// Decides everything but the timing.
    pub seed: u64,
    /// Children to kill.
    pub kills: u64,
    /// Backend; each database draws its own when absent.
    pub backend: Option<Backend>,
    /// Databases under test at the same time.
    pub jobs: u64,
}

/// What a crash run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Children killed.
    pub kills: u64,
    /// Of these, before they had opened the database.
    pub while_opening: u64,
    /// Of these, while they closed it.
    pub while_closing: u64,
    /// Children that were done before the kill reached them.
    pub finished: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Transactions found beyond the acknowledged ones.
    pub beyond: u64,
    /// Rows compared.
    pub rows: u64,
    /// Databases used.
    pub databases: u64,
}

impl Totals {
    const fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.while_opening += other.while_opening;
        self.while_closing += other.while_closing;
        self.finished += other.finished;
        self.acknowledged += other.acknowledged;
        self.beyond += other.beyond;
        self.rows += other.rows;
        self.databases += other.databases;
    }
}

/// Kills `plan.kills` children and checks what each left.
///
/// # Errors
/// The first broken promise, with what is needed to look into it: the database is left where it is.
pub fn run(plan: &Plan) -> Result<Totals, Failure> {
    let share = |job: u64| plan.kills / plan.jobs + u64::from(job < plan.kills % plan.jobs);
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..plan.jobs)
            .map(|job| {
                let mut plan = plan.clone();
                plan.kills = share(job);
                plan.seed = Rng::new(plan.seed).fork(job).word();
                scope.spawn(move || run_job(&plan))
            })
            .collect();
        let mut totals = Totals::default();
        for job in jobs {
            match job.join() {
                Ok(done) => totals.add(&done?),
                Err(_) => return Err(Failure::Broken("a crash job panicked".to_owned())),
            }
        }
        Ok(totals)
    })
}

fn run_job(plan: &Plan) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    let mut rng = Rng::new(plan.seed);
    while totals.kills < plan.kills {
        let seed = rng.word();
        let rounds = rng.between(5, 25);
        let life = Life::new(plan, seed);
        life.live(rounds, plan.kills - totals.kills, &mut totals)?;
        totals.databases += 1;
        std::fs::remove_dir_all(&life.dir).during("remove a database that passed")?;
    }
    Ok(totals)
}

/// One database and its parameters, all drawn from its seed.
#[derive(Debug, Clone)]
pub struct Life {
    program: PathBuf,
    dir: PathBuf,
    seed: u64,
    shape: Shape,
    backend: Backend,
    delta_bytes: usize,
    page_bytes: u32,
}

/// Where a database stands: the last transaction found in it, and the state that follows from it.
#[derive(Debug, Clone, Default)]
struct Stand {
    round: u64,
    number: u64,
    state: State,
}

/// When a child dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after it began to open.
    Opening(Duration),
    /// So long after so many acknowledgements.
    Acknowledged(u64, Duration),
    /// So long after it began to close.
    Closing(Duration),
}

impl Life {
    fn new(plan: &Plan, seed: u64) -> Self {
        let mut life = Self::of(&plan.dir.join(format!("crash-{seed:016x}")), seed);
        life.program.clone_from(&plan.program);
        if let Some(backend) = plan.backend {
            life.backend = backend;
        }
        life
    }

    fn of(dir: &Path, seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(1);
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
        }
    }

    fn options(&self) -> Options {
        Options::new()
            .backend(self.backend)
            .delta_bytes(self.delta_bytes)
            .page_bytes(self.page_bytes)
            .memory_budget(BUDGET_LEAST)
            .buffered_flush(Duration::from_millis(2))
    }

    fn stream(&self, round: u64) -> Stream {
        Stream::new(Rng::new(self.seed).fork(1000 + round).word(), self.shape)
    }

    fn live(&self, rounds: u64, kills_max: u64, totals: &mut Totals) -> Result<(), Failure> {
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
            Moment::Opening(_) | Moment::Acknowledged(..) => TXNS_MAX,
        };
        let heard = self.child(round, txns, moment)?;
        totals.kills += u64::from(heard.killed);
        totals.finished += u64::from(!heard.killed);
        totals.while_opening += u64::from(heard.killed && !heard.opened);
        totals.while_closing += u64::from(heard.killed && heard.closing);
        totals.acknowledged += heard.acknowledged;
        // Half of the rounds leave recovery to the next child, so that recoveries are interrupted too.
        let look = heard.acknowledged > 0 || rng.chance(50);
        if look {
            self.verify(round, &heard, stand, totals)
        } else {
            Ok(())
        }
    }

    /// Starts a child, listens, kills it.
    fn child(&self, round: u64, txns: u64, moment: Moment) -> Result<Heard, Failure> {
        let backend = format!("{:?}", self.backend).to_lowercase();
        // One at a time: between fork and exec a child holds copies of every open file, and with them the lock of a
        // database that another job has open.
        static SPAWNING: Mutex<()> = Mutex::new(());
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
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .during("start a child")?;
        drop(spawning);
        let said = child.stdout.take();
        let complaint = child.stderr.take();
        let (now, wait) = mpsc::channel::<Duration>();
        let killer = std::thread::spawn(move || kill(child, &wait));
        let mut heard = Heard::default();
        for line in said
            .into_iter()
            .flat_map(|pipe| BufReader::new(pipe).lines())
        {
            let Ok(line) = line else { break };
            let mut words = line.split(' ');
            match words.next() {
                Some("opening") => {
                    if let Moment::Opening(delay) = moment {
                        now.send(delay).ok();
                    }
                }
                Some("opened") => heard.opened = true,
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
                    if let Moment::Closing(delay) = moment {
                        now.send(delay).ok();
                    }
                }
                _ => {}
            }
        }
        drop(now);
        let killed = killer
            .join()
            .map_err(|_| Failure::Broken("the killer panicked".to_owned()))?;
        heard.killed = killed.during("wait for a child")?;
        let mut words = String::new();
        if let Some(mut pipe) = complaint {
            std::io::Read::read_to_string(&mut pipe, &mut words).during("read a child's errors")?;
        }
        if words.is_empty() {
            return Ok(heard);
        }
        Err(Failure::Broken(format!(
            "the child failed: {}",
            words.trim()
        )))
    }

    /// Opens what the child left and compares it with the model.
    fn verify(
        &self,
        round: u64,
        heard: &Heard,
        stand: &mut Stand,
        totals: &mut Totals,
    ) -> Result<(), Failure> {
        let db = self
            .options()
            .open(&self.dir)
            .during("open after the kill")?;
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
        drop(read);
        // Some rounds stop cleanly in between, some leave the log as it is.
        if round.is_multiple_of(3) {
            exec.db.close().during("close")
        } else {
            Ok(())
        }
    }
}

/// What a child said before it died.
#[derive(Debug, Default)]
struct Heard {
    opened: bool,
    closing: bool,
    killed: bool,
    acknowledged: u64,
    /// The last acknowledged transaction's number in its round.
    last: u64,
    /// Its id.
    txn: u64,
}

/// Waits for the word, then for the delay, then kills. False when the child was done before.
fn kill(mut child: Child, wait: &mpsc::Receiver<Duration>) -> std::io::Result<bool> {
    if let Ok(delay) = wait.recv() {
        std::thread::sleep(delay);
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(std::os::unix::process::ExitStatusExt::signal(&status).is_some())
}

fn counter_bytes(round: u64, number: u64) -> Vec<u8> {
    format!("{round} {number}").into_bytes()
}

fn parse_counter(bytes: &[u8]) -> Option<(u64, u64)> {
    let (round, number) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Some((round.parse().ok()?, number.parse().ok()?))
}

/// What a child is told.
#[derive(Debug, Clone)]
pub struct ChildPlan {
    /// The database.
    pub dir: PathBuf,
    /// Its seed.
    pub seed: u64,
    /// The round to perform.
    pub round: u64,
    /// Transactions to perform before closing.
    pub txns: u64,
    /// The backend.
    pub backend: Backend,
}

/// The child's part: open, work, acknowledge, close, until killed.
///
/// # Errors
/// When the engine fails.
pub fn child(plan: &ChildPlan) -> Result<(), Failure> {
    let mut life = Life::of(&plan.dir, plan.seed);
    life.backend = plan.backend;
    say("opening")?;
    let db = life.options().open(&life.dir).during("open")?;
    say("opened")?;
    let counter = db.table(COUNTER_TABLE).during("open the counter's table")?;
    let mut exec = Executor::new(db, life.shape.key_style)?;
    exec.handles.remove(COUNTER_TABLE);
    let mut stream = life.stream(plan.round);
    let mut aside = Rng::new(plan.seed).fork(plan.round);
    let mut pending = Vec::new();
    for number in 1..=plan.txns {
        perform(
            &mut exec,
            &mut stream,
            &counter,
            (plan.round, number),
            &mut pending,
        )?;
        if aside.chance(1) {
            let db: Db = exec.db.clone();
            db.checkpoint().during("checkpoint")?;
        }
    }
    wait(&mut pending)?;
    say("closing")?;
    exec.db.close().during("close")
}

fn perform(
    exec: &mut Executor,
    stream: &mut Stream,
    counter: &Table,
    (round, number): (u64, u64),
    pending: &mut Vec<(u64, northstardb::CommitHandle, bool)>,
) -> Result<(), Failure> {
    let txn = stream.txn();
    let bytes = counter_bytes(round, number);
    let durable = txn.end == End::Durable;
    match exec.run(&txn, &mut |_, _, _, _, _| Ok(()), Some((counter, &bytes)))? {
        Ended::Aborted => {}
        Ended::Pending(handle) => {
            pending.push((number, handle, durable));
            if pending.len() > 4 {
                wait(pending)?;
            }
        }
        Ended::Committed(commit) => {
            wait(pending)?;
            if durable {
                say(&format!("ack {number} {} .", commit.txn_id.get()))?;
            }
        }
    }
    Ok(())
}

fn wait(pending: &mut Vec<(u64, northstardb::CommitHandle, bool)>) -> Result<(), Failure> {
    for (number, handle, durable) in pending.drain(..) {
        let commit = handle.wait().during("wait for a submitted batch")?;
        if durable {
            say(&format!("ack {number} {} .", commit.txn_id.get()))?;
        }
    }
    Ok(())
}

/// One line to the parent, in one write.
fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
        .during("tell the parent")
}

/// Lives one database again, for a failure's replay line.
///
/// # Errors
/// As [`run`].
pub fn replay(plan: &Plan, life: u64) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    Life::new(plan, life).live(plan.kills, u64::MAX, &mut totals)?;
    Ok(totals)
}
