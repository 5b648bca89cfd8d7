//! States that a block device could have been left in: recorded once, opened at a sample of the flushes and between them.
//!
//! A database works on a real file system, which lies on a loop device over a device that logs all its requests. After
//! each acknowledgement the length of that log is noted. Then the image is made again as it was at a flush, alone and with
//! some of the requests up to the next one; it is mounted, which repairs the file system, opened, and held against the
//! model: what was acknowledged before that flush was logged is there, and it is a prefix.
//!
//! - Spec: HD-018.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use northstardb::Backend;
use tempfile::TempDir;

use super::block_log::{BlockLog, Entry};
use super::place::{self, Kind, NoPlace, Place};
use crate::crash::{self, Heard, Life, Stand, Totals};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::{During, Failure};

/// What is counted.
pub const STATES: &str = "block states opened";
/// States of one seed.
const STATES_PER_SEED: usize = 40;
const KINDS: [Kind; 3] = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];

/// Does some seeds.
///
/// # Errors
/// The first broken promise; the files are copied from the file system before it is gone.
pub fn run(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if place::or_skip(place::own_mounts(), &mut tally, STATES)?.is_none() {
        return Ok(tally);
    }
    for seed in seeds {
        let kind = KINDS[usize::try_from(seed % 3).unwrap_or(0)];
        let what = format!("block states under {kind}");
        let Some(recorded) = place::or_skip(Recorded::make(seed, kind), &mut tally, &what)? else {
            continue;
        };
        let opened = recorded.states(&mut tally);
        let told = |failure: Failure| {
            let why = crate::chain(&failure);
            Failure::Broken(format!(
                "seed {seed}: {why}\n  replay, though not of the same log: nshard work blocks --seed {seed} --seeds 1"
            ))
        };
        place::or_skip(
            opened.map_err(|no| match no {
                NoPlace::Failed(failure) => NoPlace::Failed(told(failure)),
                missing @ NoPlace::Missing(_) => missing,
            }),
            &mut tally,
            &what,
        )?;
    }
    Ok(tally)
}

/// A run that was recorded.
struct Recorded {
    seed: u64,
    kind: Kind,
    dir: TempDir,
    backend: Backend,
    log: BlockLog,
    /// The log's length when a transaction was acknowledged, its number, its id.
    acknowledged: Vec<(u64, u64, u64)>,
}

impl Recorded {
    /// Makes a file system, works on it, and keeps the log.
    fn make(seed: u64, kind: Kind) -> Result<Self, NoPlace> {
        let mut rng = Rng::new(seed).fork(5);
        let dir = TempDir::with_prefix_in("nshard-blocks-", place::near());
        let dir = dir.during("make a directory")?;
        let disk = dir.path().join("disk");
        place::empty_image(&disk, kind.least_mib())?;
        kind.format(&disk)?;
        copy(&disk, &dir.path().join("first"))?;
        let backend = rng.pick(&[Backend::Auto, Backend::Plain, Backend::Buffered]);
        let device = Device::start(dir.path(), kind.least_mib() << 20)?;
        let log = dir.path().join("log");
        let mut acknowledged = Vec::new();
        let place = Place::of_image(kind, &device.export)?;
        let life = life(&place, seed, backend)?;
        let txns = rng.between(60, 150);
        crash::live(&life, 1, txns, &mut |line| {
            let mut words = line.split(' ');
            if words.next() == Some("ack") {
                let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                let length = std::fs::metadata(&log).during("look at the log")?.len();
                acknowledged.push((length, number(), number()));
            }
            Ok(())
        })?;
        place.close()?;
        device.stop()?;
        let log = BlockLog::read(&log)?;
        Ok(Self {
            seed,
            kind,
            dir,
            backend,
            log,
            acknowledged,
        })
    }

    /// Opens states.
    fn states(&self, tally: &mut Tally) -> Result<(), NoPlace> {
        let mut rng = Rng::new(self.seed).fork(6);
        let flushes: Vec<usize> = (0..self.log.entries.len())
            .filter(|at| self.log.entries[*at].flush)
            .collect();
        tally.add("requests recorded", self.log.entries.len() as u64);
        tally.add("flushes recorded", flushes.len() as u64);
        if flushes.len() < 10 || self.acknowledged.len() < 10 {
            return Err(Failure::Broken(format!(
                "only {} flushes and {} acknowledgements were recorded",
                flushes.len(),
                self.acknowledged.len()
            ))
            .into());
        }
        let prefix = self.dir.path().join("first");
        let image = OpenOptions::new().write(true).open(&prefix);
        let image = image.during("open an image")?;
        let state = self.dir.path().join("state");
        let mut done = 0;
        let percent = (STATES_PER_SEED * 100 / flushes.len()).clamp(1, 100) as u64;
        for (at, flush) in flushes.iter().copied().enumerate() {
            for entry in &self.log.entries[done..=flush] {
                self.log.apply(entry, &image)?;
            }
            done = flush + 1;
            if !rng.chance(percent) {
                continue;
            }
            let next = flushes.get(at + 1).copied();
            let after = &self.log.entries[done..next.unwrap_or(self.log.entries.len())];
            copy(&prefix, &state)?;
            self.open(&state, flush, tally)?;
            tally.add("of these at a flush", 1);
            if !after.is_empty() {
                copy(&prefix, &state)?;
                let some = self.some(after, &state, &mut rng)?;
                self.open(&state, flush, tally)?;
                tally.add("of these between flushes", 1);
                tally.add("requests lost", after.len() as u64 - some);
            }
        }
        Ok(())
    }

    /// Does any of the requests that were under way. Gives how many.
    fn some(&self, entries: &[Entry], state: &Path, rng: &mut Rng) -> Result<u64, Failure> {
        let image = OpenOptions::new().write(true).open(state);
        let image: File = image.during("open an image")?;
        let chance = rng.pick(&[15, 50, 85]);
        let mut many = 0;
        for entry in entries {
            if rng.chance(chance) {
                self.log.apply(entry, &image)?;
                many += 1;
            }
        }
        Ok(many)
    }

    /// Mounts, opens and compares a state at a flush or after it.
    fn open(&self, state: &Path, flush: usize, tally: &mut Tally) -> Result<(), NoPlace> {
        let place = Place::of_image(self.kind, state)?;
        let end = self.log.entries[flush].end;
        let mut before = self
            .acknowledged
            .iter()
            .filter(|(length, ..)| *length <= end);
        let count = before.clone().count() as u64;
        let (_, last, txn) = before.next_back().copied().unwrap_or_default();
        let heard = Heard {
            acknowledged: count,
            last,
            txn,
            ..Heard::default()
        };
        let mut totals = Totals::default();
        let life = life(&place, self.seed, self.backend)?;
        let verified = life.verify(1, &heard, &mut Stand::default(), &mut totals);
        verified.map_err(|failure| {
            let why = crate::chain(&place.keep(&failure));
            Failure::Broken(format!(
                "at entry {flush} of {}, with {count} acknowledged: {why}",
                self.log.entries.len()
            ))
        })?;
        place.close()?;
        tally.add(STATES, 1);
        tally.add(&format!("of these under {}", self.kind), 1);
        tally.add("rows compared", totals.rows);
        tally.add("states with something acknowledged", u64::from(count > 0));
        Ok(())
    }
}

fn life(place: &Place, seed: u64, backend: Backend) -> Result<Life, Failure> {
    let plan = crash::Plan {
        program: std::env::current_exe().during("find this program")?,
        dir: place.path(),
        seed,
        kills: 0,
        backend: Some(backend),
        jobs: 1,
        under: None,
    };
    Ok(Life::new(&plan, seed))
}

/// Copies an image, holes and all.
fn copy(from: &Path, to: &Path) -> Result<(), NoPlace> {
    let words: [&OsStr; 4] = [
        "cp".as_ref(),
        "--sparse=auto".as_ref(),
        from.as_ref(),
        to.as_ref(),
    ];
    place::tool(&words)
}

/// The process that serves an image as a device and logs its requests.
struct Device {
    server: Child,
    export: PathBuf,
}

impl Device {
    fn start(dir: &Path, bytes: u64) -> Result<Self, NoPlace> {
        if !Path::new("/dev/fuse").exists() {
            return Err(NoPlace::Missing("there is no /dev/fuse".to_owned()));
        }
        let (disk, log, export) = (dir.join("disk"), dir.join("log"), dir.join("export"));
        for path in [&log, &export] {
            drop(File::create(path).during("make a file")?);
        }
        let with = |words: &str, path: &Path| {
            let mut text = OsString::from(words);
            text.push(path);
            text
        };
        let server = place::command("qemu-storage-daemon".as_ref())
            .arg("--blockdev")
            .arg(with("driver=file,node-name=disk,filename=", &disk))
            .arg("--blockdev")
            .arg(with("driver=file,node-name=log,filename=", &log))
            .args([
                "--blockdev",
                "driver=blklogwrites,node-name=both,file=disk,log=log",
            ])
            .arg("--export")
            .arg(with(
                "type=fuse,id=export,node-name=both,writable=on,mountpoint=",
                &export,
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let server = match server {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let why = "qemu-storage-daemon is not installed".to_owned();
                return Err(NoPlace::Missing(why));
            }
            started => started.during("start qemu-storage-daemon")?,
        };
        let mut device = Self { server, export };
        for _ in 0..500 {
            if std::fs::metadata(&device.export).is_ok_and(|found| found.len() == bytes) {
                return Ok(device);
            }
            if device
                .server
                .try_wait()
                .during("look after the device")?
                .is_some()
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        device.server.kill().during("stop the device")?;
        let mut said = String::new();
        if let Some(pipe) = &mut device.server.stderr {
            std::io::Read::read_to_string(pipe, &mut said).during("hear the device")?;
        }
        // Built without one of the drivers, or not allowed to mount.
        Err(NoPlace::Missing(format!(
            "qemu-storage-daemon serves no device: {}",
            said.trim()
        )))
    }

    /// Ends it in order: the log is complete.
    fn stop(mut self) -> Result<(), Failure> {
        let pid = self.server.id().to_string();
        let words: [&OsStr; 3] = ["kill".as_ref(), "-TERM".as_ref(), pid.as_ref()];
        match place::tool(&words) {
            Ok(()) => {}
            Err(NoPlace::Failed(failure)) => return Err(failure),
            Err(NoPlace::Missing(why)) => return Err(Failure::Broken(why)),
        }
        let status = self.server.wait().during("wait for the device")?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Broken(format!("the device ended with {status}")))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
