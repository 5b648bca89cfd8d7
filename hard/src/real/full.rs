//! Disks that fill up under a database: what is refused is refused whole, and everything else goes on.
//!
//! A small file system is filled by a file that is not ours until little room is left, then by commits until they are
//! refused. Then, on the full disk: reads, deletes, checkpoints, opening again. What is deleted makes room for new
//! commits, and so does the other file once it is gone. All is held against a map of what was acknowledged.
//!
//! - Spec: HD-012.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;

use northstardb::{Backend, Db, Error, Options, Table, WriteBatch};

use super::place::{self, Kind, NoPlace, Place};
use crate::rng::Rng;
use crate::run::BUDGET_LEAST;
use crate::tally::Tally;
use crate::{During, Failure};

/// What is counted.
pub const FULL: &str = "full disks met";
/// Seeds until every file system has met every backend.
pub const SEEDS: u64 = 12;

const HALTED: &str = "writers halted by a full btrfs";
const TABLE: &str = "rows";
/// Commits after which a disk has to be full.
const COMMITS_MAX: u64 = 20_000;

/// Does some seeds.
///
/// # Errors
/// The first broken promise; the files are copied from the file system before it is gone.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if place::or_skip(place::own_mounts(), &mut tally, FULL)?.is_none() {
        return Ok(tally);
    }
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let kind = Kind::ALL[usize::try_from(seed % 4).unwrap_or(0)];
        let backend = [Backend::Auto, Backend::Plain, Backend::Buffered]
            [usize::try_from(seed / 4 % 3).unwrap_or(0)];
        let made = Place::make(kind, rng.between(96, 160));
        let Some(place) = place::or_skip(made, &mut tally, &format!("a full {kind}"))? else {
            continue;
        };
        let options = Options::new()
            .backend(backend)
            .memory_budget(BUDGET_LEAST)
            .delta_bytes(rng.pick(&[64 << 10, 512 << 10, 2 << 20]))
            .page_bytes(rng.pick(&[4096, 16384]))
            .log_segment_bytes(rng.pick(&[64 << 10, 1 << 20, 4 << 20]));
        let seen = Seen::on(kind, &place, options, rng);
        let done = seen.and_then(|mut seen| seen.all(&mut tally));
        done.map_err(|failure| {
            let why = crate::chain(&place.keep(&failure));
            Failure::Broken(format!("seed {seed}: {why}\n  backend {backend:?}"))
        })?;
        place.close()?;
        tally.add(FULL, 1);
        tally.add(&format!("of these {kind}"), 1);
    }
    Ok(tally)
}

/// Keys with their new values; none for those to delete.
type Change = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A database on a disk that fills up, and what it acknowledged.
struct Seen {
    kind: Kind,
    options: Options,
    dir: PathBuf,
    other: PathBuf,
    db: Option<Db>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    rng: Rng,
}

/// Room left by the file that is not ours, at first.
const ROOM_BYTES: Range<u64> = 20 << 20..40 << 20;

impl Seen {
    fn on(kind: Kind, place: &Place, options: Options, mut rng: Rng) -> Result<Self, Failure> {
        let room = rng.between(ROOM_BYTES.start, ROOM_BYTES.end);
        let other = place.path().join("other");
        leave(&other, room)?;
        Ok(Self {
            kind,
            options,
            dir: place.path().join("db"),
            other,
            db: None,
            rows: BTreeMap::new(),
            rng,
        })
    }

    fn all(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        self.open(tally)?;
        // There, every change of a log block or a page takes new room and gives the old one back late: how much room
        // would do cannot be said.
        let turns = if self.kind == Kind::Btrfs { 0 } else { 2 };
        for turn in 0..turns {
            self.fill(tally)?;
            self.read(tally)?;
            self.shrink(tally)?;
            self.read(tally)?;
            if turn == 0 {
                // What was deleted is room for something new.
                self.again(tally)?;
            }
            self.open(tally)?;
            self.read(tally)?;
        }
        self.fill(tally)?;
        self.read(tally)?;
        self.open(tally)?;
        self.read(tally)?;
        if self.other.exists() {
            self.give_back(u64::MAX)?;
        }
        for _ in 0..20 {
            let change = self.puts();
            if !self.commit(change, tally)? {
                return Err(Failure::Broken(
                    "a commit was refused though there is room again".to_owned(),
                ));
            }
        }
        self.open(tally)?;
        self.read(tally)
    }

    fn db(&self) -> Result<&Db, Failure> {
        let none = || Failure::Broken("no database is open".to_owned());
        self.db.as_ref().ok_or_else(none)
    }

    /// Opens it, or opens it again: after a close that may be refused, or after none.
    ///
    /// Opening cuts the log's tail, for which a full disk may have no room: then readers still read all, and giving
    /// room back helps.
    fn open(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        if let Some(db) = self.db.take()
            && self.rng.chance(50)
        {
            match db.close() {
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(error) if self.expected(&error) => {}
                Err(error) => return Err(error).during("close on a full disk"),
            }
        }
        loop {
            match self.options.clone().open(&self.dir) {
                Ok(db) => {
                    self.db = Some(db);
                    return Ok(());
                }
                Err(Error::Full { .. }) => {
                    let readable = self.options.clone().read_only(true).open(&self.dir);
                    self.db = Some(readable.during("open for reading on a full disk")?);
                    self.read(tally)?;
                    self.db = None;
                    self.relent("opening", tally)?;
                }
                Err(error) => return Err(error).during("open on a full disk"),
            }
        }
    }

    /// Here a write into room that was had long ago needs new room, and nobody can promise that there is any.
    fn expected(&self, error: &Error) -> bool {
        let full = |reason: &str| reason.contains("os error 28");
        self.kind == Kind::Btrfs && matches!(error, Error::Halted { reason } if full(reason))
    }

    /// Makes the other file smaller, or removes it.
    fn give_back(&self, bytes: u64) -> Result<(), Failure> {
        let cut = || -> std::io::Result<bool> {
            let file = std::fs::OpenOptions::new().write(true).open(&self.other)?;
            let len = file.metadata()?.len();
            file.set_len(len.saturating_sub(bytes))?;
            file.sync_all()?;
            Ok(len > bytes)
        };
        if !matches!(cut(), Ok(true)) {
            // A full file system may refuse even that.
            std::fs::remove_file(&self.other).during("remove the other file")?;
        }
        // Some file systems know of the room only after their next transaction.
        let words: [&OsStr; 3] = ["sync".as_ref(), "-f".as_ref(), self.dir.as_ref()];
        match place::tool(&words) {
            Ok(()) | Err(NoPlace::Missing(_)) => Ok(()),
            Err(NoPlace::Failed(failure)) => Err(failure),
        }
    }

    /// Lets go of some room, while there is any to let go of.
    fn relent(&self, what: &str, tally: &mut Tally) -> Result<(), Failure> {
        if !self.other.exists() {
            let stats = nix::sys::statvfs::statvfs(&self.dir).map_err(std::io::Error::from);
            let stats = stats.during("ask for free room")?;
            return Err(Failure::Broken(format!(
                "{what}: refused though the other file is gone and {} of {} blocks of {} bytes are free",
                stats.blocks_available(),
                stats.blocks(),
                stats.fragment_size()
            )));
        }
        tally.add(&format!("MiB given back for {what}"), 1);
        self.give_back(1 << 20)
    }

    fn table(&self) -> Result<Table, Failure> {
        self.db()?.table(TABLE).during("open the table")
    }

    fn puts(&mut self) -> Change {
        let most = self.rng.pick(&[200, 2_000, 20_000, 60_000]);
        let many = self.rng.between(1, 12);
        let put = |_| {
            let key = format!("{:06}", self.rng.below(30_000)).into_bytes();
            let words = self.rng.below(most).div_ceil(8);
            let value = (0..words).flat_map(|_| self.rng.word().to_le_bytes());
            (key, Some(value.collect()))
        };
        (0..many).map(put).collect()
    }

    /// Commits a change. False if it was refused.
    fn commit(&mut self, change: Change, tally: &mut Tally) -> Result<bool, Failure> {
        let table = self.table()?;
        let mut batch = WriteBatch::new();
        for (key, value) in &change {
            match value {
                Some(value) => drop(batch.put(&table, key, value)),
                None => drop(batch.delete(&table, key)),
            }
        }
        match self.db()?.commit(batch) {
            Ok(_) => self.apply(change),
            Err(Error::Full { .. }) => {
                tally.add("commits refused", 1);
                return Ok(false);
            }
            Err(error) if self.expected(&error) => {
                tally.add(HALTED, 1);
                self.open(tally)?;
                if self.settle(&change)? {
                    self.apply(change);
                } else {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error).during("commit on a full disk"),
        }
        Ok(true)
    }

    fn apply(&mut self, change: Change) {
        for (key, value) in change {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
    }

    /// After a halt: a change whose fate was unknown is there, or not: but whole.
    fn settle(&self, change: &Change) -> Result<bool, Failure> {
        let last: BTreeMap<_, _> = change.iter().map(|(key, value)| (key, value)).collect();
        let table = self.table()?;
        let read = self.db()?.begin_read().during("begin_read")?;
        let (mut there, mut not) = (0, 0);
        for (key, value) in last {
            let found = read.get(&table, key).during("get")?;
            let found = found.map(|found| found.to_vec());
            let before = self.rows.get(key);
            there += u64::from(found.as_ref() == value.as_ref() && before != value.as_ref());
            not += u64::from(found.as_ref() == before && before != value.as_ref());
        }
        if there > 0 && not > 0 {
            return Err(Failure::Broken(format!(
                "of one transaction {there} changes are there, {not} are not"
            )));
        }
        Ok(there > 0)
    }

    /// Commits until some are refused.
    fn fill(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        let mut refused = 0;
        let halts = tally.get(HALTED);
        for _ in 0..COMMITS_MAX {
            let change = self.puts();
            let done = self.commit(change, tally)?;
            if tally.get(HALTED) > halts {
                return Ok(());
            }
            if done {
                tally.add("commits", 1);
                continue;
            }
            refused += 1;
            if refused == 10 {
                return Ok(());
            }
        }
        Err(Failure::Broken(format!(
            "{COMMITS_MAX} commits did not fill it; {refused} were refused"
        )))
    }

    /// Deletes most rows, a few at a time, and merges.
    ///
    /// Deletes need room in the log and merging needs room for new pages. There is no reserve for either, so they are
    /// refused on a disk without any; a little room must do.
    fn shrink(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        let gone: Vec<_> = self.rows.keys().cloned().collect();
        let gone: Vec<_> = gone.into_iter().filter(|_| self.rng.chance(90)).collect();
        for keys in gone.chunks(20) {
            let change: Change = keys.iter().map(|key| (key.clone(), None)).collect();
            let mut merged = false;
            while !self.commit(change.clone(), tally)? {
                // What is merged frees log, but it may not be enough for the next segment.
                if !self.merge(tally)? || merged {
                    self.relent("deletes", tally)?;
                }
                merged = true;
            }
            tally.add("rows deleted on a full disk", keys.len() as u64);
        }
        for _ in 0..3 {
            while !self.merge(tally)? {
                self.relent("checkpoints", tally)?;
            }
        }
        Ok(())
    }

    /// Merges what is buffered. False if the disk had no room for it.
    fn merge(&mut self, tally: &mut Tally) -> Result<bool, Failure> {
        match self.db()?.checkpoint() {
            Ok(()) => {
                tally.add("checkpoints on a full disk", 1);
                Ok(true)
            }
            Err(Error::Full { .. }) => {
                tally.add("checkpoints refused", 1);
                Ok(false)
            }
            Err(error) if self.expected(&error) => {
                tally.add(HALTED, 1);
                self.open(tally)?;
                Ok(false)
            }
            Err(error) => Err(error).during("checkpoint on a full disk"),
        }
    }

    /// Commits into the room that deletes have made.
    fn again(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        for _ in 0..5 {
            let change = self.puts();
            while !self.commit(change.clone(), tally)? {
                self.relent("commits after deletes", tally)?;
            }
            tally.add("commits into room that was deleted", 1);
        }
        Ok(())
    }

    fn read(&self, tally: &mut Tally) -> Result<(), Failure> {
        let db = self.db()?;
        let table = self.table()?;
        let read = db.begin_read().during("begin_read")?;
        let mut expected = self.rows.iter();
        let mut wrong = None;
        let mut rows = 0;
        read.scan::<&[u8]>(&table, .., |key, value| {
            let next = expected.next();
            if next.is_some_and(|(k, v)| k == key && v == value) {
                rows += 1;
                return ControlFlow::Continue(());
            }
            wrong = Some(format!(
                "key {:?} with {} bytes, expected {:?}",
                String::from_utf8_lossy(key),
                value.len(),
                next.map(|(key, value)| (String::from_utf8_lossy(key), value.len()))
            ));
            ControlFlow::Break(())
        })
        .during("scan a full disk")?;
        if let Some(wrong) = wrong {
            return Err(Failure::Broken(format!("a scan found {wrong}")));
        }
        if let Some((key, _)) = expected.next() {
            let key = String::from_utf8_lossy(key);
            return Err(Failure::Broken(format!("a scan did not find {key:?}")));
        }
        tally.add("rows compared", rows);
        let report = db.check().during("check")?;
        if report.faults.is_empty() {
            return Ok(());
        }
        Err(Failure::Broken(format!("check found {:?}", report.faults)))
    }
}

/// Takes all but `room` bytes of a file system.
fn leave(other: &std::path::Path, room: u64) -> Result<(), Failure> {
    let file = std::fs::File::create(other).during("make the other file")?;
    let stats = nix::sys::statvfs::fstatvfs(&file).map_err(std::io::Error::from);
    let stats = stats.during("ask for free room")?;
    let free = stats
        .blocks_available()
        .saturating_mul(stats.fragment_size());
    if let Some(taken) = free.checked_sub(room).filter(|taken| *taken > 0) {
        let flags = nix::fcntl::FallocateFlags::empty();
        let taken = i64::try_from(taken).unwrap_or(i64::MAX);
        nix::fcntl::fallocate(&file, flags, 0, taken)
            .map_err(std::io::Error::from)
            .during("take room away")?;
    }
    Ok(())
}
