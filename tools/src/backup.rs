//! Backups: written, verified, restored.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Subcommand;
use jiff::Timestamp;
use northstardb::{Backup, Db, Options, Restore, StateHash, TxnId};
use serde_json::{Value, json};

use crate::path::{shown, with};
use crate::place::{IN_THAT_CASE, Place, beside, sync_parent};
use crate::{During, Failure, report};

/// Bytes of one write or read of a file.
const BUFFER_BYTES: usize = 1 << 20;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write all rows to a file, or with --after only what was committed since another backup
    Write {
        /// The file; it appears once it is whole and durable
        file: PathBuf,
        /// The backup that this one leads on from: full or an increment itself
        #[arg(long, value_name = "FILE")]
        after: Option<PathBuf>,
    },
    /// Read backups from end to end, and see whether each leads on from the one before it
    ///
    /// As for a restore, the first is a full one; an increment is verified alone if it is all that is given.
    Verify {
        /// A full backup and its increments, in order
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Reads a backup's file.
pub(crate) fn reader(path: &Path) -> Result<BufReader<File>, Failure> {
    let file = OpenOptions::new().read(true).open(path);
    let file = file.map_err(|error| Failure::file(path, error))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

/// Why `next`, written to lead on from `before`, does not, if it does not.
fn leads_on(before: &Backup, next: &Backup) -> Result<(), String> {
    if next.database != before.database {
        let (next, before) = (next.database, before.database);
        return Err(format!(
            "that is of database {before:032x}, this of {next:032x}"
        ));
    }
    match (before.to_time, next.from_time) {
        (Some(one), Some(other)) if one != other => Err(format!(
            "they meet at {}, which was committed at {} in one and at {} in the other: one is of a copy that went its own way",
            next.from,
            moment(one),
            moment(other)
        )),
        _ => Ok(()),
    }
}

fn moment(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

fn verified(path: &Path) -> Result<Backup, Failure> {
    Backup::verify(reader(path)?).during(|| format!("cannot verify {}", path.display()))
}

fn figures(backup: &Backup) -> Value {
    let content = match backup.is_full {
        true => "rows",
        false => "transactions",
    };
    json!({
        "kind": if backup.is_full { "full" } else { "increment" },
        "database": format!("{:032x}", backup.database),
        "from_txn": backup.from.get(),
        "to_txn": backup.to.get(),
        content: backup.count,
        "bytes": backup.bytes,
        "state": backup.state.map(|state| state.to_string()),
    })
}

/// Writes a backup of `db`.
pub(crate) fn write(
    db: &Db,
    path: &Path,
    after: Option<&Path>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    // Also a link that names nothing.
    if path.symlink_metadata().is_ok() {
        return Err(Failure::Use(format!("{} exists", path.display())));
    }
    let since = after.map(verified).transpose()?;
    let part = beside(path, ".part");
    let file = match File::create_new(&part) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::Use(format!(
                "{} exists: somebody is writing this backup, {IN_THAT_CASE}",
                part.display()
            )));
        }
        created => created.map_err(|error| Failure::file(&part, error))?,
    };
    let written = write_part(db, (&part, file), since.as_ref());
    let named = written.and_then(|backup| name_it(&part, path).map(|()| backup));
    let backup = named.inspect_err(|_| {
        // Half a backup helps nobody.
        std::fs::remove_file(&part).ok();
    })?;
    sync_parent(path)?;
    report::print(&figures(&backup), json, out)
}

/// Gives a file its name, unless something has that by now.
fn name_it(part: &Path, path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::file(path, error);
    match std::fs::hard_link(part, path) {
        Ok(()) => std::fs::remove_file(part).map_err(failed),
        // A file system without links.
        Err(error)
            if error.kind() != std::io::ErrorKind::AlreadyExists
                && path.symlink_metadata().is_err() =>
        {
            std::fs::rename(part, path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn write_part(
    db: &Db,
    (part, file): (&Path, File),
    since: Option<&Backup>,
) -> Result<Backup, Failure> {
    let failed = |error| Failure::file(part, error);
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let backup = match since {
        None => db.backup(&mut file),
        Some(since) => db.backup_since(since.to, &mut file),
    };
    let backup = backup.during(|| "cannot back the database up".to_owned())?;
    if let Some(since) = since {
        leads_on(since, &backup)
            .map_err(|why| Failure::Use(format!("it would not lead on from that: {why}")))?;
    }
    let file = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(backup)
}

/// Verifies a full backup and what leads on from it.
pub(crate) fn verify(files: &[PathBuf], json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut before: Option<Backup> = None;
    // All are verified, also where nobody reads to the end.
    let mut printed = Ok(());
    for path in files {
        let backup = match &before {
            None => {
                let first = verified(path)?;
                if !first.is_full && files.len() > 1 {
                    return Err(Failure::Found(format!(
                        "{} is an increment: give the full backup first",
                        path.display()
                    )));
                }
                first
            }
            Some(before) => {
                let found = before.verify_next(reader(path)?);
                let leads_on = !matches!(found, Err(northstardb::Error::InvalidOption { .. }));
                found.during(|| match leads_on {
                    true => format!("cannot verify {}", path.display()),
                    false => format!("{} does not lead on from those before it", path.display()),
                })?
            }
        };
        let name = path.as_os_str().as_bytes();
        let line = if json {
            with("file", name, figures(&backup)).to_string()
        } else {
            let kind = if backup.is_full { "full" } else { "increment" };
            let (from, to) = (backup.from, backup.to);
            format!("{}: sound, {kind}, {from} to {to}", shown(name))
        };
        printed = printed.and_then(|()| writeln!(out, "{line}"));
        // One that leads no further than those before it changes nothing.
        if before.is_none_or(|before| backup.to > before.to) {
            before = Some(backup);
        }
    }
    Ok(printed?)
}

/// Makes a database of a full backup and increments.
pub(crate) fn restore(
    db: &Path,
    (full, increments): (&Path, &[PathBuf]),
    to: Option<TxnId>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let place = Place::empty(db, "")?;
    let restore = Options::new()
        .restore(place.dir(), reader(full)?)
        .during(|| format!("cannot restore {}", full.display()))?;
    // From here on what is there is ours, and nobody else's who began at the same time.
    let restored = lead_on(restore, (full, increments), to);
    let (reached, state) = restored.inspect_err(|_| place.discard())?;
    let figures = json!({ "txn": reached.get(), "state": state.to_string() });
    report::print(&figures, json, out)
}

/// The state that was reached, and its digest.
fn lead_on(
    mut restore: Restore,
    (full, increments): (&Path, &[PathBuf]),
    to: Option<TxnId>,
) -> Result<(TxnId, StateHash), Failure> {
    let during = |path: &Path| format!("cannot restore {}", path.display());
    let begun = restore.state().during(|| during(full))?;
    if to.is_some_and(|to| to < begun) {
        return Err(Failure::Found(format!(
            "the full backup is of state {begun}, which is later than what was asked for"
        )));
    }
    for path in increments {
        restore
            .increment(reader(path)?, to)
            .during(|| during(path))?;
    }
    let reached = restore.state().during(|| during(full))?;
    let restored = restore.finish();
    let state = restored.begin_read().and_then(|read| read.state_hash());
    let state = state.during(|| "cannot read what was restored".to_owned())?;
    restored
        .close()
        .during(|| "cannot close what was restored".to_owned())?;
    match to {
        Some(to) if reached < to => Err(Failure::Found(format!(
            "the increments lead to state {reached}, not to {to}"
        ))),
        _ => Ok((reached, state)),
    }
}
