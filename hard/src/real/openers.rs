//! Processes that race to open one database: one wins, the others are told who has it.
//!
//! Each winner adds one to a number in the database and says which it has come to. So two winners at once, or one whose
//! work is lost, show in the number.
//!
//! - Spec: HD-013.

use std::io::{BufRead, BufReader, Lines, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use northstardb::{Backend, Db, Error, Options};

use crate::rng::Rng;
use crate::run::BUDGET_LEAST;
use crate::tally::Tally;
use crate::{During, Failure};

/// What is counted.
pub const RACES: &str = "races to open";
/// Races of one seed, for one database.
pub const RACES_PER_SEED: u64 = 20;
const REFUSED: &str = "openers refused";

fn options(backend: Backend) -> Options {
    Options::new().backend(backend).memory_budget(BUDGET_LEAST)
}

const TABLE: &str = "openings";
const KEY: &[u8] = b"number";

/// One more opening; which one this is.
fn count(db: &Db) -> Result<u64, Failure> {
    let table = db.table(TABLE).during("open the table")?;
    let mut write = db.begin_write().during("begin_write")?;
    let before = write.get(&table, KEY).during("get")?;
    let before = before.map_or(Ok(0), |bytes| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.parse::<u64>()
            .map_err(|_| Failure::Broken(format!("the number of openings is {text:?}")))
    })?;
    let now = before + 1;
    write
        .put(&table, KEY, now.to_string().as_bytes())
        .during("put")?;
    write.commit().during("commit")?;
    Ok(now)
}

/// A racer's part: ready; at a line of input, open; then hold the database until the input ends.
///
/// # Errors
/// When the engine fails in another way than being locked.
pub fn opener(dir: &Path, backend: Backend) -> Result<(), Failure> {
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .during("tell the parent")
    };
    let mut input = std::io::stdin().lines();
    say("ready")?;
    if input.next().is_none() {
        return Ok(());
    }
    match options(backend).open(dir) {
        Ok(db) => {
            say(&format!("won {}", count(&db)?))?;
            input.next();
            db.close().during("close")
        }
        Err(Error::Locked { pid, .. }) => {
            let pid = pid.map_or_else(|| "nobody".to_owned(), |pid| pid.to_string());
            say(&format!("locked {pid}"))
        }
        Err(error) => Err(error).during("open"),
    }
}

struct Racer {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Racer {
    fn start(dir: &Path, backend: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe().during("find this program")?;
        let mut child = Command::new(program)
            .arg("opener")
            .arg("--dir")
            .arg(dir)
            .args(["--backend", backend])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .during("start a racer")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Broken("a racer has no pipes".to_owned()));
        };
        let mut racer = Self {
            child,
            input: Some(input),
            output: BufReader::new(output).lines(),
        };
        match racer.hear()?.as_str() {
            "ready" => Ok(racer),
            other => Err(Failure::Broken(format!("a racer began with {other:?}"))),
        }
    }

    fn go(&mut self) -> Result<(), Failure> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        input.write_all(b"go\n").during("start the race")
    }

    fn hear(&mut self) -> Result<String, Failure> {
        match self.output.next() {
            Some(line) => line.during("hear a racer"),
            None => {
                let status = self.child.wait().during("wait for a racer")?;
                Err(Failure::Broken(format!("a racer ended with {status}")))
            }
        }
    }

    /// Ends it: killed, or told to close.
    fn end(mut self, kill: bool) -> Result<(), Failure> {
        if kill {
            self.child.kill().during("kill a racer")?;
        }
        drop(self.input.take());
        let status = self.child.wait().during("wait for a racer")?;
        if kill || status.success() {
            return Ok(());
        }
        Err(Failure::Broken(format!("a racer closed with {status}")))
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Does some seeds.
///
/// # Errors
/// The first broken promise.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        let dir = tempfile::tempdir().during("make a directory")?;
        let mut racing = Racing {
            dir: dir.path().join("db"),
            rng: Rng::new(seed),
            openings: 0,
            holder: None,
            before: None,
        };
        for race in 0..RACES_PER_SEED {
            let done = racing.race(&mut tally);
            done.map_err(|failure| {
                let why = crate::chain(&failure);
                Failure::Broken(format!("race {race} of seed {seed}: {why}"))
            })?;
        }
        racing.finish()?;
    }
    Ok(tally)
}

struct Racing {
    dir: std::path::PathBuf,
    rng: Rng,
    /// Openings that said that they had won.
    openings: u64,
    holder: Option<Racer>,
    /// The process that had it last.
    before: Option<u32>,
}

impl Racing {
    fn race(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        let many = self.rng.between(2, 6);
        let backend = self.rng.pick(&["auto", "auto", "plain", "buffered"]);
        let start = |_| Racer::start(&self.dir, backend);
        let mut racers = (0..many).map(start).collect::<Result<Vec<_>, _>>()?;
        // Half of the holders are ended while the others already try: then nobody has to win.
        let kill = self.rng.chance(75);
        let late = self.rng.chance(50);
        let mut held = false;
        if let Some(holder) = self.holder.take() {
            self.before = Some(holder.child.id());
            if late {
                held = true;
                for racer in &mut racers {
                    racer.go()?;
                }
            }
            holder.end(kill)?;
            tally.add(
                if kill {
                    "holders killed"
                } else {
                    "holders closed"
                },
                1,
            );
        }
        if !held {
            for racer in &mut racers {
                racer.go()?;
            }
        }
        let mut won: Option<(u64, Racer)> = None;
        let mut told = Vec::new();
        for mut racer in racers {
            let line = racer.hear()?;
            if let Some(number) = line.strip_prefix("won ") {
                let number = number.parse().unwrap_or(0);
                if let Some((other, _)) = &won {
                    return Err(Failure::Broken(format!(
                        "two had it open at once, as opening {other} and {number}"
                    )));
                }
                won = Some((number, racer));
            } else if let Some(pid) = line.strip_prefix("locked ") {
                told.push(pid.parse::<u32>().ok());
                racer.end(false)?;
                tally.add(REFUSED, 1);
            } else {
                return Err(Failure::Broken(format!("a racer said {line:?}")));
            }
        }
        let winner = won.as_ref().map(|(_, racer)| racer.child.id());
        for pid in told {
            // Between taking the lock and signing it, a process is refused in the name of the one before, or of nobody.
            if pid != winner && pid != self.before && pid.is_some() {
                return Err(Failure::Broken(format!(
                    "{winner:?} has it open, one was told {pid:?}"
                )));
            }
            let exact = pid.is_some() && pid == winner;
            tally.add("told before it was signed", u64::from(!exact && !held));
        }
        if won.is_none() && !held {
            return Err(Failure::Broken("nobody could open it".to_owned()));
        }
        if let Some((number, racer)) = won {
            if number != self.openings + 1 {
                return Err(Failure::Broken(format!(
                    "opening {number} followed {}",
                    self.openings
                )));
            }
            self.openings = number;
            self.refused(racer.child.id(), tally)?;
            self.holder = Some(racer);
        }
        tally.add(RACES, 1);
        Ok(())
    }

    /// While one has it, everybody is told exactly who: also readers.
    fn refused(&self, holder: u32, tally: &mut Tally) -> Result<(), Failure> {
        for read_only in [false, true] {
            let opened = options(Backend::Plain).read_only(read_only).open(&self.dir);
            match opened {
                Err(Error::Locked { pid, .. }) if pid == Some(holder) => tally.add(REFUSED, 1),
                other => {
                    return Err(Failure::Broken(format!(
                        "{holder} has it open, but opening came to {other:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        if let Some(holder) = self.holder.take() {
            holder.end(true)?;
        }
        let db = options(Backend::Auto)
            .open(&self.dir)
            .during("open in the end")?;
        let number = count(&db)?;
        if number != self.openings + 1 {
            return Err(Failure::Broken(format!(
                "opening {number} followed {}",
                self.openings
            )));
        }
        let report = db.check().during("check")?;
        if !report.faults.is_empty() {
            return Err(Failure::Broken(format!("check found {:?}", report.faults)));
        }
        db.close().during("close")
    }
}
