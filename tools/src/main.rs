//! `northstar`: import a tree of files into a database, read it back, check it.
//!
//! Exit codes: 0 done; 1 not found, a fault found, or an error; 2 bad use of the command line.
#![forbid(unsafe_code)]

mod backup;
mod import;
mod log;
mod past;
mod path;
mod place;
mod read;
mod replay;
mod report;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use northstardb::{Options, Retention};

#[derive(Debug, Parser)]
#[command(
    name = "northstar",
    version,
    about = "Work with a NorthstarDB database",
    after_help = "Exit codes: 0 done; 1 not found, a fault found, or an error; 2 bad use.",
    arg_required_else_help = true
)]
struct Arguments {
    /// The database's directory
    #[arg(
        long,
        global = true,
        env = "NORTHSTAR_DB",
        value_name = "PATH",
        value_parser = clap::value_parser!(OsString)
    )]
    db: Option<OsString>,
    /// The table to work with
    #[arg(long, global = true, default_value = "files", value_name = "NAME")]
    table: String,
    /// Answer in JSON: one object, or one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store every regular file below a directory under its path, one transaction a directory
    ///
    /// Symbolic links are not followed. Files of more than 16 MiB are named and skipped. A file whose stored
    /// content is equal is not written again, so an interrupted import is simply started once more. Files that
    /// have gone from the directory stay in the database.
    Import {
        /// The directory
        dir: PathBuf,
        /// Keep every version that is superseded from now on, for `as-of`; the database remembers it
        #[arg(long)]
        keep_history: bool,
        /// Keep the whole commit log, also after its transactions are in pages; whoever opens the database without asking for that, as
        /// an import without this does, lets go of what is in pages
        #[arg(long)]
        keep_log: bool,
    },
    #[command(flatten)]
    Read(Read),
    /// Read the database as it was
    ///
    /// As far back as history is kept: an error says how far. See `import --keep-history`.
    #[command(name = "as-of")]
    AsOf {
        /// A transaction id, a moment as in 2026-01-31T12:00:00Z, or tag:NAME
        #[arg(value_name = "STATE")]
        state: past::State,
        #[command(subcommand)]
        read: Read,
    },
    /// List every version of a path, oldest first: when it was written, by which transaction, with what tag
    ///
    /// Times are rounded down to the millisecond: so `as-of` takes them.
    History {
        #[command(flatten)]
        path: path::Given,
    },
    /// List the paths whose content differs between two states
    Diff {
        /// The earlier state, as `as-of` takes it
        #[arg(value_name = "STATE")]
        before: past::State,
        /// The later one
        #[arg(value_name = "STATE")]
        after: past::State,
    },
    /// Read the commit log: what was committed, transaction by transaction
    ///
    /// As far back as it was kept: see `import --keep-log`.
    #[command(subcommand)]
    Log(log::Log),
    /// Back the database up, whole or what was committed since, and verify backups
    #[command(subcommand)]
    Backup(backup::Command),
    /// Make a database of a full backup and its increments; --db names the new one
    Restore {
        /// The full backup
        full: PathBuf,
        /// What leads on from it, in order; of those behind TXN, no more than what they lead on from is looked at
        increments: Vec<PathBuf>,
        /// Up to and with this transaction; as far as the increments go if absent
        #[arg(long, value_name = "TXN")]
        to: Option<u64>,
    },
    /// Rebuild the database from its commit log, or prove that its pages hold what the log says
    ///
    /// As far back as the log was kept (see `import --keep-log`), or from a backup on. The database must open for reading, but for
    /// --log-alone: of a log whose data file is lost, `log verify` says what it holds, and that rebuilds it.
    Replay(replay::Replay),
    /// Print what the database says about itself
    Stat,
    /// Read every page, verify every checksum and invariant, and list every fault
    Check,
}

#[derive(Debug, Subcommand)]
enum Read {
    /// Print the content stored under a path
    Get {
        #[command(flatten)]
        path: path::Given,
    },
    /// List paths and lengths in order
    ///
    /// Control characters and bytes that are no text are shown as \xNN, which a path may also have by itself; with --json a path that
    /// is no text, or has a zero byte, is `path_hex`, which can be given again with --hex.
    Scan {
        /// Only paths that start with this
        #[arg(long, value_name = "PATH")]
        prefix: Option<OsString>,
        /// The prefix is given as hex digits, as JSON has a path in `path_hex`
        #[arg(long, requires = "prefix")]
        hex: bool,
        /// From the last path to the first
        #[arg(long)]
        reverse: bool,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
}

/// What ends the command early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Use(String),
    /// What was asked for is not there, or something is wrong with it. Already said in full.
    #[error("{0}")]
    Found(String),
    /// The engine's answer.
    #[error("{during}")]
    Engine {
        /// What was being done.
        during: String,
        /// The engine's error.
        source: northstardb::Error,
    },
    /// A file beside the database.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Whoever reads our output has stopped.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// Adds to an error what was being done.
trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, northstardb::Error> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure::Engine {
            during: what(),
            source,
        })
    }
}

fn main() -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done =
        perform(Arguments::parse(), &mut out).and_then(|()| out.flush().map_err(Failure::Output));
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    if let Failure::Output(error) = &failure
        && error.kind() == std::io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    out.flush().ok();
    writeln!(std::io::stderr(), "northstar: {}", chain(&failure)).ok();
    ExitCode::from(if matches!(failure, Failure::Use(_)) {
        2
    } else {
        1
    })
}

fn perform(arguments: Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let Arguments {
        db,
        table,
        json,
        command,
    } = arguments;
    if let Command::Backup(backup::Command::Verify { files }) = &command {
        return backup::verify(files, json, out);
    }
    // A variable may be there and say nothing.
    let path = db.filter(|path| !path.is_empty()).ok_or_else(|| {
        Failure::Use("no database is named: give --db PATH or set NORTHSTAR_DB".to_owned())
    })?;
    let path = PathBuf::from(path);
    let open = |options: Options| {
        options
            .open(&path)
            .during(|| format!("cannot open the database {}", path.display()))
    };
    // What only reads must not make a database, nor change one.
    let existing = || open(Options::new().create(false).read_only(true));
    match command {
        Command::Import {
            dir,
            keep_history,
            keep_log,
        } => {
            // Before a database is made for nothing.
            if !dir.is_dir() {
                return Err(Failure::Use(format!(
                    "{} is not a directory",
                    dir.display()
                )));
            }
            let retention = if keep_log {
                Retention::All
            } else {
                Retention::None
            };
            let mut options = Options::new().log_retention(retention);
            if keep_history {
                options = options.history(Retention::All);
            }
            let db = open(options)?;
            let plan = import::Plan {
                dir: &dir,
                table: &table,
                database: &path,
            };
            let bar = std::io::stderr().is_terminal();
            let done = import::import(&db, &plan, bar);
            let closed = db.close().during(|| "cannot close the database".to_owned());
            let totals = done?;
            closed?;
            let printed = totals.print(out, json);
            // Also where nobody reads to the end.
            totals.verdict().and(printed)
        }
        Command::Read(command) => {
            let db = existing()?;
            let read = db.begin_read().during(|| "cannot read".to_owned())?;
            perform_read(&read, &table, &command, json, out)
        }
        Command::AsOf {
            state,
            read: command,
        } => {
            let read = state.open(&existing()?)?;
            perform_read(&read, &table, &command, json, out)
        }
        Command::History { path } => past::history(&existing()?, &table, &path.bytes()?, json, out),
        Command::Diff { before, after } => {
            past::diff(&existing()?, &table, (&before, &after), json, out)
        }
        Command::Log(log::Log::Print(command)) => log::perform(&existing()?, &command, json, out),
        Command::Log(log::Log::Verify) => log::verify(&path, json, out),
        Command::Log(log::Log::Unsubscribe { name }) => {
            // What is to be kept of the log is for those to say who use the database.
            let keeping = Options::new().create(false).log_retention(Retention::All);
            let db = open(keeping)?;
            let done = log::unsubscribe(&db, &name, json, out);
            db.close()
                .during(|| "cannot close the database".to_owned())?;
            done
        }
        Command::Backup(backup::Command::Write { file, after }) => {
            backup::write(&existing()?, &file, after.as_deref(), json, out)
        }
        Command::Backup(backup::Command::Verify { files }) => backup::verify(&files, json, out),
        Command::Restore {
            full,
            increments,
            to,
        } => {
            let parts = (&*full, &*increments);
            backup::restore(&path, parts, to.map(northstardb::TxnId::new), json, out)
        }
        Command::Replay(replay) if replay.is_of_log_alone() => {
            replay::perform_alone(&path, &replay, json, out)
        }
        Command::Replay(replay) => replay::perform(&existing()?, &path, &replay, json, out),
        Command::Stat => report::stat(&existing()?, json, out),
        Command::Check => report::check(&existing()?, json, out),
    }
}

fn perform_read(
    read: &northstardb::ReadTxn,
    table: &str,
    command: &Read,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let table = read
        .open_table(table)
        .during(|| format!("cannot read the table {table:?}"))?;
    match command {
        Read::Get { path } => read::get(read, &table, &path.bytes()?, json, out),
        Read::Scan {
            prefix,
            hex,
            reverse,
            limit,
        } => {
            let prefix = path::given(prefix.as_deref().unwrap_or_default(), *hex)?;
            let wanted = read::Wanted {
                prefix: &prefix,
                reverse: *reverse,
                limit: limit.unwrap_or(usize::MAX),
            };
            read::scan(read, &table, &wanted, json, out)
        }
    }
}

/// An error with all its causes, as one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
