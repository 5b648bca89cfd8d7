//! A process for each engine: it has the engine open, runs rows when asked, and can be killed.
//!
//! So engines do not share an allocator, a cache or background threads, one that aborts takes nobody along, and an idle one
//! does nothing while another is measured. Requests and answers are lines of JSON on standard input and output.
//!
//! - Failure: a child that ends, stays silent for too long, or says something else than expected, is an error; it is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Measured};
use crate::clock::now;
use crate::error::{Error, Result};
use crate::groups::{GROUPS, Run, check_filled, fill, find};
use crate::machine::resident_bytes;
use crate::memory_group::enter;
use crate::rivals::ENGINES;
use crate::scale::Scale;

/// Longest silence: far beyond what any row takes.
const SILENCE_MAX: Duration = Duration::from_secs(900);

/// What a child is started for; travels as JSON on its command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The engine.
    pub(crate) engine: String,
    /// The group, which says what the table is.
    pub(crate) group: String,
    /// The database's directory.
    pub(crate) dir: PathBuf,
    /// Sizes and durations.
    pub(crate) scale: Scale,
    /// Where everything random starts.
    pub(crate) seed: u64,
    /// What is done before the first answer.
    pub(crate) begin: Begin,
    /// The file of a control group to enter.
    pub(crate) memory_group: Option<PathBuf>,
}

/// How a child begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Begin {
    /// With an empty database.
    Empty,
    /// By loading all rows.
    Load,
    /// By opening what is there, timed.
    Open,
}

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Request {
    /// Run a row.
    Row { name: String, repeat: u32 },
    /// Commit transactions for a row whose processes end; if it goes on, until it is killed.
    Fill {
        name: String,
        repeat: u32,
        goes_on: bool,
    },
    /// Compare what is there with what so many of these transactions made, or more if it was killed.
    CheckFilled {
        name: String,
        repeat: u32,
        txns: u64,
        killed: bool,
    },
    /// Close the database and end.
    Close,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Measured(Measured),
    Count(u64),
    Wrong(String),
    Failed(String),
}

/// The parent's side of a child.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Child {
    /// Starts a process and waits until it has begun; gives what it measured while it did.
    pub(crate) fn start(task: &Task) -> Result<(Self, Measured)> {
        let failed = |why: &dyn std::fmt::Display| Error::Child(why.to_string());
        let json = serde_json::to_string(task).map_err(|error| failed(&error))?;
        let exe = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut process = Command::new(exe)
            .args(["child", &json])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("cannot start: {error}")))?;
        let input = process.stdin.take();
        let (sender, lines) = channel();
        if let Some(output) = process.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let mut child = Self {
            process,
            input,
            lines,
        };
        let measured = child.measured()?;
        Ok((child, measured))
    }

    /// Runs a row.
    pub(crate) fn row(&mut self, name: &str, repeat: u32) -> Result<Measured> {
        let name = name.to_owned();
        self.ask(&Request::Row { name, repeat })?;
        self.measured()
    }

    /// Commits transactions for a row whose processes end; gives how many. If it `goes_on`, it is committing more by then.
    pub(crate) fn fill(&mut self, name: &str, repeat: u32, goes_on: bool) -> Result<u64> {
        let name = name.to_owned();
        self.ask(&Request::Fill {
            name,
            repeat,
            goes_on,
        })?;
        match self.answer()? {
            Answer::Count(count) => Ok(count),
            other @ (Answer::Measured(_) | Answer::Wrong(_) | Answer::Failed(_)) => {
                Err(unexpected(&other))
            }
        }
    }

    /// Compares what is there with what [`Child::fill`] did in a process that is no more.
    pub(crate) fn check_filled(
        &mut self,
        name: &str,
        repeat: u32,
        (txns, killed): (u64, bool),
    ) -> Result<Measured> {
        let name = name.to_owned();
        self.ask(&Request::CheckFilled {
            name,
            repeat,
            txns,
            killed,
        })?;
        self.measured()
    }

    /// Closes the database and waits for the process.
    pub(crate) fn close(mut self) -> Result<()> {
        self.ask(&Request::Close)?;
        self.answer()?;
        let status = self.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Child(format!("it ended with {status}"))),
        }
    }

    /// SIGKILL, wherever it is.
    pub(crate) fn kill(mut self) -> Result<()> {
        let killed = self.process.kill();
        killed.map_err(|error| Error::Child(format!("cannot kill: {error}")))?;
        self.wait().map(drop)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.input.take());
        let status = self.process.wait();
        status.map_err(|error| Error::Child(format!("cannot wait: {error}")))
    }

    fn ask(&mut self, request: &Request) -> Result<()> {
        let json =
            serde_json::to_string(request).map_err(|error| Error::Child(error.to_string()))?;
        let sent = self.input.as_mut().map(|input| writeln!(input, "{json}"));
        match sent {
            Some(Ok(())) => Ok(()),
            // It is gone: its status says more than the broken pipe.
            _ => self.answer().map(drop),
        }
    }

    fn measured(&mut self) -> Result<Measured> {
        match self.answer()? {
            Answer::Measured(measured) => Ok(measured),
            other @ (Answer::Count(_) | Answer::Wrong(_) | Answer::Failed(_)) => {
                Err(unexpected(&other))
            }
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        match self.lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => serde_json::from_str(&line)
                .map_err(|_| Error::Child(format!("it said {:?}", line.trim()))),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait()?;
                Err(Error::Child(format!("it ended with {status}")))
            }
            Err(RecvTimeoutError::Timeout) => {
                drop(self.process.kill());
                let limit = SILENCE_MAX.as_secs();
                Err(Error::Child(format!(
                    "it was silent for {limit} s and was killed"
                )))
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A child that was closed or killed is already collected: both calls then do nothing.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::Wrong(why) => Error::Wrong(why.clone()),
        Answer::Failed(why) => Error::Engine(why.clone()),
        Answer::Measured(_) | Answer::Count(_) => {
            Error::Child(format!("it gave another answer than asked for: {answer:?}"))
        }
    }
}

/// The child's side: begins, answers requests, ends when there are no more.
pub(crate) fn serve(json: &str) -> Result<()> {
    let task: Task = serde_json::from_str(json).map_err(|error| Error::Child(error.to_string()))?;
    let began = begin(&task);
    let mut bench = match began {
        Ok((bench, measured)) => {
            say(&Answer::Measured(measured))?;
            bench
        }
        Err(error) => return say(&answer_of(Err(error))),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Error::Child(error.to_string()))?;
        let request =
            serde_json::from_str(&line).map_err(|error| Error::Child(error.to_string()))?;
        let last = matches!(request, Request::Close);
        if let Request::Fill {
            name,
            repeat,
            goes_on,
        } = request
        {
            bench.begin(&name, repeat);
            let filled = fill(&bench, goes_on, |txns| say(&Answer::Count(txns)));
            if filled.is_err() {
                say(&answer_of(filled.map(|()| Answer::Count(0))))?;
            }
            continue;
        }
        say(&answer_of(answer(&mut bench, request)))?;
        if last {
            break;
        }
    }
    Ok(())
}

fn begin(task: &Task) -> Result<(Bench, Measured)> {
    if let Some(group) = &task.memory_group {
        enter(group)?;
    }
    let engine = ENGINES.iter().find(|engine| engine.name == task.engine);
    let group = GROUPS.iter().find(|group| group.name == task.group);
    let (Some(engine), Some(group)) = (engine, group) else {
        return Err(Error::Child("no such engine or group".to_owned()));
    };
    let table = (group.setup)(&task.scale);
    let started = now();
    let is_there = task.begin == Begin::Open;
    let mut bench = Bench::open(
        *engine,
        &task.dir,
        task.scale.clone(),
        table,
        task.seed,
        is_there,
    )?;
    let mut measured = Measured::default();
    match task.begin {
        Begin::Empty => {}
        Begin::Load => {
            bench.load_all()?;
            bench.settle()?;
            measured.rows_checked = bench.check()?;
        }
        Begin::Open => {
            let key = bench.content.key(0);
            bench
                .session()?
                .read(&mut |snapshot| snapshot.get(&key, &mut |_| ()))?;
            measured = measured.with("open_ns", started.elapsed().as_nanos() as f64);
        }
    }
    Ok((bench, measured))
}

fn answer(bench: &mut Bench, request: Request) -> Result<Answer> {
    match request {
        Request::Row { name, repeat } => {
            let row = find(&name).map(|(_, row)| row.run);
            let Some(Run::Shared(run) | Run::Empty(run) | Run::Loaded(run)) = row else {
                return Err(Error::Child(format!("{name} is no row of one process")));
            };
            bench.begin(&name, repeat);
            let mut measured = run(bench)?;
            // A row that only reads has looked at every answer, and leaves nothing to do.
            if bench.ledger.is_changed() {
                bench.settle()?;
                measured.rows_checked += bench.check()?;
            }
            if let Some((_, highest)) = resident_bytes() {
                measured = measured.with("resident_bytes_max", highest as f64);
            }
            Ok(Answer::Measured(measured))
        }
        Request::Fill { .. } => Err(Error::Child("it answers by itself".to_owned())),
        Request::CheckFilled {
            name,
            repeat,
            txns,
            killed,
        } => {
            bench.begin(&name, repeat);
            Ok(Answer::Measured(check_filled(bench, txns, killed)?))
        }
        Request::Close => {
            bench.close()?;
            Ok(Answer::Measured(Measured::default()))
        }
    }
}

fn answer_of(answer: Result<Answer>) -> Answer {
    match answer {
        Ok(answer) => answer,
        Err(Error::Wrong(why)) => Answer::Wrong(why),
        Err(Error::Engine(why)) => Answer::Failed(why),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn say(answer: &Answer) -> Result<()> {
    let json = serde_json::to_string(answer).map_err(|error| Error::Child(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{json}").and_then(|()| out.flush());
    said.map_err(|error| Error::Child(error.to_string()))
}

/// Removes a database.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(dir)(error)),
        _ => Ok(()),
    }
}
