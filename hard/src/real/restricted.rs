//! Processes that are denied what the engine would like to use, and places that cannot be written.
//!
//! The work and the oracle are those of [`crash`]: children are put under a limit, do random work, and are killed or
//! close; the parent, which is under none, holds what they left against the model. So the results are the same, and the
//! only trace of a limit is one warning. Where nothing can be done, the error says what was refused.
//!
//! - Spec: HD-014.

use std::fs::Permissions;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{Gid, Uid};
use northstardb::{Backend, Error};
use tempfile::TempDir;

use super::limits::{Limit, NOBODY};
use super::place::{self, Kind, Place};
use crate::crash::{self, Heard, Life, Stand, Totals};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::{During, Failure};

/// What is counted.
pub const RESTRICTED: &str = "restricted processes";
/// Seeds until everything was denied once.
pub const SEEDS: u64 = 8;
/// Processes of one seed that is about a limit.
const ROUNDS: u64 = 6;

/// Does some seeds.
///
/// # Errors
/// The first broken promise.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        let done = match usize::try_from(seed % SEEDS).unwrap_or(0) {
            at @ 0..5 => bearable(seed, Limit::BEARABLE[at], &mut tally),
            5 => few_files(seed, &mut tally),
            6 => read_only(seed, &mut tally),
            _ => not_permitted(seed, &mut tally),
        };
        done.map_err(|failure| {
            let why = crate::chain(&failure);
            Failure::Broken(format!(
                "seed {seed}: {why}\n  replay: nshard work restricted --seed {seed} --seeds 1"
            ))
        })?;
    }
    Ok(tally)
}

fn life(dir: &Path, seed: u64, under: Option<Limit>) -> Result<Life, Failure> {
    let plan = crash::Plan {
        program: std::env::current_exe().during("find this program")?,
        dir: dir.to_owned(),
        seed,
        kills: 0,
        backend: Some(Backend::Auto),
        jobs: 1,
        under: under.map(Limit::word),
    };
    Ok(Life::new(&plan, seed))
}

/// A directory that anybody may pass.
fn open_directory() -> Result<TempDir, Failure> {
    let dir = tempfile::tempdir().during("make a directory")?;
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755))
        .during("open a directory to all")?;
    Ok(dir)
}

/// Gives a directory and its files to nobody, if that is ours to do.
fn give_away(dir: &Path) -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY));
    give(dir).during("give a directory away")?;
    for entry in std::fs::read_dir(dir).during("list a directory")? {
        let path = entry.during("list a directory")?.path();
        if path.is_dir() {
            give_away(&path)?;
        } else {
            give(&path).during("give a file away")?;
        }
    }
    Ok(())
}

/// What a database said about its disk.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    backend: String,
    direct: bool,
    ring_warnings: usize,
    direct_warnings: usize,
    warnings: usize,
}

impl Status {
    fn of(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let backend = words.next()?.to_owned();
        let direct = words.next()? == "direct";
        let all = words.next().unwrap_or_default();
        let all: Vec<_> = all.split('|').filter(|text| !text.is_empty()).collect();
        let about = |word| all.iter().filter(|text| text.contains(word)).count();
        Some(Self {
            backend,
            direct,
            ring_warnings: about("io_uring"),
            direct_warnings: about("direct I/O"),
            warnings: all.len(),
        })
    }
}

/// Limits under which everything works.
fn bearable(seed: u64, limit: Limit, tally: &mut Tally) -> Result<(), Failure> {
    let dir = open_directory()?;
    let mut rng = Rng::new(seed).fork(3);
    let mut totals = Totals::default();
    // What this machine has without the limit.
    let free = life(&dir.path().join("free"), seed, None)?;
    let free = free.finish(1, 3, &mut totals)?;
    let free = parsed(&free)?;
    let below = dir.path().join("under");
    std::fs::create_dir(&below).during("make a directory")?;
    let life = life(&below, seed, Some(limit))?;
    let mut stand = Stand::default();
    for round in 1..=ROUNDS {
        give_away(&below)?;
        let heard = if round % 2 == 1 {
            life.finish(round, rng.between(20, 200), &mut totals)?
        } else {
            life.work(round, &mut rng, &mut totals)?
        };
        if heard.opened {
            told(limit, &free, &parsed(&heard)?, &heard)?;
        }
        life.verify(round, &heard, &mut stand, &mut totals)?;
        tally.add(RESTRICTED, 1);
        tally.add(&format!("of these {}", limit.word()), 1);
    }
    tally.add("transactions", totals.acknowledged);
    tally.add("rows compared", totals.rows);
    Ok(())
}

fn parsed(heard: &Heard) -> Result<Status, Failure> {
    let status = Status::of(&heard.status);
    status.ok_or_else(|| Failure::Broken(format!("a child said {heard:?}")))
}

/// One warning for what was denied, no other.
fn told(limit: Limit, free: &Status, now: &Status, heard: &Heard) -> Result<(), Failure> {
    let no_ring = matches!(
        limit,
        Limit::RingForbidden | Limit::RingMissing | Limit::NoRingNoDirect
    );
    let no_direct = matches!(limit, Limit::NoDirect | Limit::NoRingNoDirect);
    // Old kernels count rings as locked memory: then they are refused.
    let may_lack = limit == Limit::NoLockedMemory && now.ring_warnings == 1;
    let no_ring = no_ring || may_lack || free.ring_warnings == 1;
    let no_direct = no_direct || free.direct_warnings == 1;
    let others = free.warnings - free.ring_warnings - free.direct_warnings;
    let expected = Status {
        backend: if no_ring { "pread" } else { "io_uring" }.to_owned(),
        direct: !no_direct,
        ring_warnings: usize::from(no_ring),
        direct_warnings: usize::from(no_direct),
        warnings: usize::from(no_ring) + usize::from(no_direct) + others,
    };
    if *now == expected {
        return Ok(());
    }
    Err(Failure::Broken(format!(
        "under {} a database said {:?}; expected was {expected:?}",
        limit.word(),
        heard.status
    )))
}

/// Ever more open files: at first too few to open, then too few for a ring, then enough.
fn few_files(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let dir = tempfile::tempdir().during("make a directory")?;
    let mut rng = Rng::new(seed).fork(3);
    let mut totals = Totals::default();
    let mut stand = Stand::default();
    let (mut refused, mut worked) = (0, 0);
    for (round, files) in (1..).zip(4..40) {
        let mut life = life(dir.path(), seed, Some(Limit::OpenFiles(files)))?;
        life.may_fail = true;
        let heard = life.finish(round, rng.between(5, 60), &mut totals)?;
        match heard.failed.as_deref() {
            None => worked += 1,
            Some("Io" | "Halted") => refused += 1,
            Some(other) => {
                return Err(Failure::Broken(format!(
                    "with {files} open files it failed with {other}"
                )));
            }
        }
        life.verify(round, &heard, &mut stand, &mut totals)?;
        tally.add(RESTRICTED, 1);
        tally.add("of these with few files", 1);
    }
    tally.add("refused for lack of files", refused);
    tally.add("rows compared", totals.rows);
    if refused == 0 || worked == 0 {
        return Err(Failure::Broken(format!(
            "of numbers of open files {refused} were too few, {worked} enough"
        )));
    }
    Ok(())
}

/// A file system that cannot be written: readers read, writers are told.
fn read_only(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let what = "file systems for reading only";
    if place::or_skip(place::own_mounts(), tally, what)?.is_none() {
        return Ok(());
    }
    for kind in Kind::ALL {
        let what = format!("{kind} for reading only");
        let Some(place) = place::or_skip(Place::make(kind, 300), tally, &what)? else {
            continue;
        };
        let mut rng = Rng::new(seed).fork(3);
        let mut totals = Totals::default();
        let life = life(&place.path(), seed, None)?;
        // Killed or closed: with a tail that a writer would cut, or without.
        let heard = if rng.chance(70) {
            life.work(1, &mut rng, &mut totals)?
        } else {
            life.finish(1, 100, &mut totals)?
        };
        place.read_only()?;
        writer_is_told(&life, libc::EROFS)?;
        if heard.acknowledged > 0 {
            reads_all(&life, &heard, &mut totals)?;
            tally.add("rows compared", totals.rows);
        }
        place.close()?;
        tally.add(RESTRICTED, 1);
        tally.add(&format!("of these reading from {kind} for reading only"), 1);
    }
    Ok(())
}

/// Files of somebody else: readers read, writers are told.
fn not_permitted(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        tally.skip(
            "files of somebody else",
            "needs the superuser, to be somebody else",
        );
        return Ok(());
    }
    let dir = open_directory()?;
    let mut rng = Rng::new(seed).fork(3);
    for turn in 0..ROUNDS {
        let mut totals = Totals::default();
        let life = life(dir.path(), seed.wrapping_mul(ROUNDS) + turn, None)?;
        let heard = if turn % 2 == 0 {
            life.work(1, &mut rng, &mut totals)?
        } else {
            life.finish(1, 100, &mut totals)?
        };
        if heard.acknowledged == 0 {
            continue;
        }
        as_nobody(|| {
            writer_is_told(&life, libc::EACCES)?;
            reads_all(&life, &heard, &mut totals)
        })?;
        // Nobody may not even look: that is an error too, for readers as well.
        std::fs::set_permissions(&life.dir, Permissions::from_mode(0o700))
            .during("close a directory")?;
        as_nobody(|| {
            writer_is_told(&life, libc::EACCES)?;
            match life.options().read_only(true).open(&life.dir) {
                Err(Error::Io(error)) if error.errno == libc::EACCES => Ok(()),
                other => Err(Failure::Broken(format!("a reader was told {other:?}"))),
            }
        })?;
        tally.add("rows compared", totals.rows);
        tally.add(RESTRICTED, 1);
        tally.add("of these with files of somebody else", 1);
    }
    Ok(())
}

/// Does something with the rights of nobody; this process is alone.
fn as_nobody(act: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let become_user = |group: u32, user: u32, first_group: bool| {
        let group = || nix::unistd::setegid(Gid::from_raw(group));
        let user = || nix::unistd::seteuid(Uid::from_raw(user));
        let done = if first_group {
            group().and_then(|()| user())
        } else {
            user().and_then(|()| group())
        };
        done.map_err(std::io::Error::from)
            .during("become somebody else")
    };
    become_user(NOBODY, NOBODY, true)?;
    let done = act();
    become_user(0, 0, false)?;
    done
}

fn writer_is_told(life: &Life, errno: i32) -> Result<(), Failure> {
    match life.options().open(&life.dir) {
        Err(Error::Io(error)) if error.errno == errno => Ok(()),
        other => Err(Failure::Broken(format!(
            "a writer was told {other:?}, expected was error number {errno}"
        ))),
    }
}

/// Opens for reading and compares everything; nothing is written, also not to recover.
fn reads_all(life: &Life, heard: &Heard, totals: &mut Totals) -> Result<(), Failure> {
    let opened = life.options().read_only(true).open(&life.dir);
    let db = opened.during("open for reading only")?;
    let exec = life.compare(db, 1, heard, &mut Stand::default(), totals)?;
    let refused = exec.db.begin_write();
    match refused {
        Err(Error::ReadOnly) => Ok(()),
        other => Err(Failure::Broken(format!("a reader may write: {other:?}"))),
    }
}
