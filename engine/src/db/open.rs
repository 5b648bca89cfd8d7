//! Opening: from a path to a running engine.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use northstar_io::planted::planted;
use northstar_io::{
    Choice, Disk, FileLock, IoError, MemoryDisk, NativeDisk, NativeOptions, SyncMethod,
};

use super::options::{Backend, Options};
use super::world::{Sizes, World};
use super::{Db, Engine, Handle};
use crate::checkpoint::govern::Allowance;
use crate::checkpoint::run::{Checkpointer, Place};
use crate::checkpoint::thread::{self, Signal};
use crate::clock::Clock;
use crate::delta::{Delta, DeltaConfig, DeltaWriter, Deltas, Patience};
use crate::error::{Corruption, Error, Result};
use crate::format::leaf::RowValue;
use crate::format::leaf::key_bytes_max;
use crate::format::meta::{HistoryMeta, Meta, TreeRoot};
use crate::history::{self, History};
use crate::ids::{TableId, TxnId};
use crate::limits;
use crate::log::{LogWriter, Retainer, ScanStart, Segments, fingerprint, goes_on, probe};
use crate::marks::{Mark, reached};
use crate::pages::Class;
use crate::pages::store::{Opened, Store, StoreOptions};
use crate::recovery::{Replayed, replay};
use crate::retention::Retention;
use crate::state::StateHash;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, Mutex};
use crate::tree::cursor::Cursor;
use crate::txn::shape::{Roots, Shape, Shapes, Shared};
use crate::writer::core::Core;
use crate::writer::pipeline::{Parts, Pipeline, QUEUE_MAX};

/// Memory for log buffers (3 MiB), pages on their way to and from the disk (2 and 4 MiB), and bookkeeping.
const OTHER_BYTES: usize = 14 << 20;

/// Address space of one delta at least: it may outgrow its trigger by one large transaction.
const DELTA_ADDRESS_BYTES_MIN: usize = 2 << 30;
/// As much as replay may need: for what was frozen, active and in progress at once.
const DELTA_ADDRESS_BYTES_MAX: usize = 16 << 30;
/// Memory of a delta that is kept for the next one at least: less is not worth giving back.
const DELTA_KEPT_BYTES_MIN: usize = 64 << 10;
/// A small entry in a delta: what its filter is sized for.
const DELTA_ENTRY_BYTES: usize = 96;

/// Deltas for about `expected` bytes each.
fn deltas_of(expected: usize, sizes: Option<Sizes>) -> Deltas {
    let reach = expected.saturating_mul(4);
    let reach = reach.clamp(DELTA_ADDRESS_BYTES_MIN, DELTA_ADDRESS_BYTES_MAX);
    let arena_bytes = sizes.map_or(reach, |sizes| sizes.delta_address_bytes);
    let patience = sizes.map_or(Patience::USUAL, |_| Patience::SHORT);
    let kept = expected.max(DELTA_KEPT_BYTES_MIN);
    Deltas::new(delta_config(arena_bytes, expected), kept, patience)
}

/// The delta of a replay, which may be larger than all after it.
fn delta_of_replay(expected: usize, sizes: Option<Sizes>) -> Result<(Arc<Delta>, DeltaWriter)> {
    let reach = sizes.map(|sizes| sizes.delta_address_bytes);
    let config = delta_config(reach.unwrap_or(DELTA_ADDRESS_BYTES_MAX), expected);
    Delta::new(config).map_err(Error::no_delta)
}

fn delta_config(arena_bytes: usize, expected: usize) -> DeltaConfig {
    DeltaConfig {
        arena_bytes,
        filter_keys: expected / DELTA_ENTRY_BYTES,
    }
}

impl Db {
    pub(crate) fn open_with(options: &Options, path: &Path) -> Result<Self> {
        open_in(options, path, World::of(native_disk(options)))
    }

    pub(crate) fn memory_with(options: &Options) -> Result<Self> {
        // What is kept of the past would take memory beyond the budget.
        let options = &Options {
            history: Some(options.history.unwrap_or_default()),
            ..options.clone()
        };
        let mut world = World::of(MemoryDisk::new());
        world.sync_method = Some(SyncMethod::None);
        open_in(options, Path::new("/memory"), world)
    }
}

/// The way to the machine's disks that the options ask for.
pub(super) fn native_disk(options: &Options) -> Arc<dyn Disk> {
    let (uring, direct) = match options.backend {
        Backend::Auto => (Choice::Auto, true),
        Backend::Plain => (Choice::Never, true),
        Backend::Buffered => (Choice::Never, false),
    };
    NativeDisk::new(NativeOptions { uring, direct })
}

/// Opens the database in `dir` of the world's disk, creating it if allowed.
pub(crate) fn open_in(options: &Options, dir: &Path, world: World) -> Result<Db> {
    let disk = Arc::clone(&world.disk);
    let mut found = survey(options, dir, &*disk)?;
    let lock = lock_in(options, dir, &*disk)?;
    if lock.is_some() {
        // Somebody else may have made or changed it until the lock was had.
        found = survey(options, dir, &*disk)?;
    }
    let store_options = store_options(options, world.sizes);
    let Opened {
        store, meta, older, ..
    } = match found {
        Found::Nothing => create(&world, dir, &store_options, false)?,
        Found::Database => Store::open(Arc::clone(&disk), dir, &store_options)?,
    };
    if meta.restoring {
        return Err(Error::NotADatabase {
            path: PathBuf::from(dir),
            why: "a backup was being restored into it, and not all of it is there".to_owned(),
        });
    }
    let store = Arc::new(store);
    let segments = open_segments(&disk, dir, &meta)?;
    let start = ScanStart {
        from: meta.log_start,
        database: meta.database_low(),
        proven_through: meta.durable_through,
    };
    // A clean close says where the log ended, and nothing is appended before that word is taken back. It is
    // believed only beside a sound older slot: a newer slot that was lost may have taken it back.
    let alone = planted("a clean close is believed without its older slot");
    // Nor is it where groups follow: then the data file is older than the log.
    let clean = meta.clean
        && (older.is_some() || alone)
        && !goes_on(&segments, meta.log_start, meta.database_low())?;
    reached(match older {
        Some(_) => Mark::BothSlots,
        None => Mark::OneSlot,
    });
    let history_policy = options.history.unwrap_or_else(|| {
        let kept = meta.history.as_ref();
        kept.map_or(Retention::None, |history| history.policy)
    });
    let notes = history_policy != Retention::None;
    let deltas = deltas_of(options.delta_bytes, world.sizes);
    let replayed = if clean {
        reached(Mark::CleanOpen);
        let delta = deltas.make().map_err(Error::no_delta)?;
        Replayed::nothing(meta.log_start, meta.next_table, delta)
    } else {
        if meta.clean {
            reached(Mark::CleanDoubted);
        }
        let delta = delta_of_replay(options.delta_bytes, world.sizes)?;
        replay(&segments, start, meta.next_table, notes, delta)?
    };
    let roots = load_roots(&store, &meta)?;
    assemble(Assembly {
        options,
        dir,
        world,
        store,
        meta,
        older,
        segments,
        deltas,
        replayed,
        roots,
        lock,
        clean,
        history_policy,
    })
}

/// The lock of the database in `dir`; none if one who only reads cannot have it.
pub(super) fn lock_in(
    options: &Options,
    dir: &Path,
    disk: &dyn Disk,
) -> Result<Option<Box<dyn FileLock>>> {
    match disk.lock(&dir.join("LOCK")) {
        Ok(lock) => Ok(Some(lock)),
        Err(northstar_io::LockError::Io(_)) if options.read_only => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Assembly<'o> {
    options: &'o Options,
    dir: &'o Path,
    world: World,
    store: Arc<Store>,
    meta: Meta,
    older: Option<Meta>,
    segments: Arc<Segments>,
    deltas: Deltas,
    replayed: Replayed,
    roots: Roots,
    lock: Option<Box<dyn FileLock>>,
    /// The word of a clean close was believed.
    clean: bool,
    /// How much of the past is kept.
    history_policy: Retention,
}

fn assemble(parts: Assembly<'_>) -> Result<Db> {
    let Assembly {
        options,
        dir,
        world,
        store,
        meta,
        older,
        segments,
        deltas,
        replayed,
        roots,
        lock,
        clean,
        history_policy,
    } = parts;
    let World { disk, clock, .. } = world.clone();
    let Replayed {
        delta,
        writer,
        end,
        next_table,
        last_timestamp_ns,
        dropped,
    } = replayed;
    let visible = end.end.last_txn;
    // Pages are named by meta only after the log of what they hold is durable.
    if visible < meta.tree_txn {
        return Err(Error::Corrupt(Corruption {
            file: "log",
            offset: None,
            detail: format!(
                "it ends with {visible}, expected {}, with which the trees end",
                meta.tree_txn
            ),
        }));
    }
    let has_older = older.is_some();
    let key_bytes_max = key_bytes_max(store.page_bytes()).min(limits::KEY_BYTES_MAX);
    let shared = Arc::new(Shared::new(Arc::clone(&store), visible, next_table, lock));
    let shapes = Arc::new(Shapes::new(Shape {
        seq: 1,
        generation: meta.generation,
        tree_txn: meta.tree_txn,
        history: Arc::new(load_history(&store, &meta)?),
        active: Arc::clone(&delta),
        frozen: Vec::new(),
        roots: Arc::new(roots),
        shared: Arc::clone(&shared),
    }));
    for (table, txn) in dropped {
        // States before can still be read, and their handles are good for them alone.
        shared.tables.handle(table, "").drop_from(txn);
    }
    let last_timestamp_ns = last_timestamp_ns.max(meta.checkpoint_ns);
    let signal = Arc::new(Signal::default());
    let log = LogWriter::read_only(Arc::clone(&segments), end.end);
    let (on_freeze, on_spare) = {
        let (freeze, spare) = (Arc::clone(&signal), Arc::clone(&signal));
        (
            Box::new(move || freeze.merge()),
            Box::new(move || spare.segment()),
        )
    };
    let pipeline = Arc::new(Pipeline::new(Parts {
        shapes: Arc::clone(&shapes),
        clock: clock.clone(),
        core: Core {
            writer,
            delta,
            next_txn: visible.next(),
            last_timestamp_ns,
            notes: history_policy != Retention::None,
            noted_ns: None,
            unseen: false,
        },
        log,
        delta_bytes: options.delta_bytes as u64,
        database: meta.database_low(),
        deltas,
        on_freeze,
        on_spare,
        background: world.threads,
        queue_max: world.sizes.map_or(QUEUE_MAX, |sizes| sizes.queue_max),
    }));

    pipeline
        .counters
        .begin(meta.log_start.lsn, last_timestamp_ns);
    let checkpointer = Checkpointer {
        shapes: Arc::clone(&shapes),
        pipeline: Arc::clone(&pipeline),
        store,
        segments,
        clock,
        older_log_start: older
            .as_ref()
            .map_or(meta.log_start.lsn, |older| older.log_start.lsn),
        history_policy,
        history_is_damaged: false,
        retainer: Retainer::new(
            options.log_retention,
            options.subscriber_log_bytes,
            meta.database_low(),
        ),
        meta,
        allowance: Allowance {
            moved_from: options.snapshot_held_bytes,
            ended_from: options.snapshot_limit_bytes,
            watch: options.snapshot_watch.clone(),
        },
        whole_after: None,
        noticed: BTreeMap::new(),
        empty_delta: None,
        slice_bytes: options.slice_bytes,
        delta_bytes: options.delta_bytes as u64,
        boundary: None,
        next: Place::of(0),
        merged: 0,
        pages_before: 0,
        // Nothing to tidy before the first change.
        tidied: true,
    };
    let engine = Arc::new(Engine {
        segments: Arc::clone(&checkpointer.segments),
        database: checkpointer.meta.database_low(),
        database_id: checkpointer.meta.database,
        log_end_at_open: end.end.lsn,
        shapes,
        pipeline,
        checkpointer: Mutex::new(checkpointer),
        signal,
        disk,
        key_bytes_max,
        value_bytes_max: options.value_bytes_max,
        memory_budget: options.memory_budget,
        read_only: options.read_only,
        replayed_records: end.records,
        proven: end.proven,
        has_older,
        dir: dir.to_owned(),
        sync_method: world.sync_method,
        awake: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    if !options.read_only && !clean {
        // The log is cut before anybody is shown where it ends: else what is cut later could come back, should that cut be
        // interrupted. After a clean close there is nothing to cut, and the first commit sees to it.
        engine.awaken()?;
    }
    // Made before the threads: if one of them cannot be had, its end stops the other.
    let handle = Handle {
        engine: Arc::clone(&engine),
        threads: Mutex::default(),
    };
    if !options.read_only && world.threads {
        let log = spawn("northstar-log", {
            let (engine, flush) = (Arc::clone(&engine), options.buffered_flush);
            move || {
                let _guard = PanicGuard(&engine);
                engine.pipeline.run_log_thread(flush);
            }
        });
        handle.threads.lock().push(log?);
        let checkpoints = spawn("northstar-ckpt", {
            let (engine, idle) = (engine, options.idle_after);
            move || {
                let _guard = PanicGuard(&engine);
                let Engine {
                    signal,
                    checkpointer,
                    pipeline,
                    shapes,
                    ..
                } = &*engine;
                thread::run(signal, checkpointer, pipeline, shapes, idle);
            }
        });
        handle.threads.lock().push(checkpoints?);
    }
    Ok(Db {
        handle: Arc::new(handle),
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<sync::thread::JoinHandle> {
    sync::thread::spawn(name, body).map_err(|error| Error::InvalidOption {
        option: "threads",
        found: error.to_string(),
        expected: "room for two background threads".to_owned(),
    })
}

/// A background thread that panics stops the writer and wakes whoever waits for the thread.
struct PanicGuard<'e>(&'e Engine);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = self.0.pipeline.halt("a background thread panicked");
            self.0.signal.end(error);
        }
    }
}

pub(super) enum Found {
    Nothing,
    Database,
}

/// Looks at what is at `dir` before anything is written there.
pub(super) fn survey(options: &Options, dir: &Path, disk: &dyn Disk) -> Result<Found> {
    let not_a_database = |why: String| Error::NotADatabase {
        path: PathBuf::from(dir),
        why,
    };
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.cause() == ErrorKind::NotFound => {
            if options.read_only || !options.create {
                return Err(not_a_database("there is no such directory".to_owned()));
            }
            make_dir(dir, disk).map_err(|source| Error::from_io("the database", source))?;
            Vec::new()
        }
        Err(error) if error.cause() == ErrorKind::NotADirectory => {
            return Err(not_a_database(error.to_string()));
        }
        Err(error) => return Err(Error::from_io("the database", error)),
    };
    if names.iter().any(|name| name == "data") {
        return Ok(Found::Database);
    }
    // What a creation that was interrupted leaves: the data file comes last.
    let ours = |name: &String| matches!(name.as_str(), "LOCK" | "log" | "data.tmp" | "lost+found");
    if let Some(foreign) = names.iter().find(|name| !ours(name)) {
        return Err(not_a_database(format!(
            "it holds {foreign:?}, and no file named \"data\""
        )));
    }
    // A database begins without one: this is what is left of one that was there.
    let has_log = names.iter().any(|name| name == "log");
    let log = match has_log {
        true => disk.list(&dir.join("log")),
        false => Ok(Vec::new()),
    };
    let log = match log {
        Err(error) if error.cause() == ErrorKind::NotADirectory => {
            return Err(not_a_database(error.to_string()));
        }
        listed => listed.map_err(|error| Error::from_io("the database", error))?,
    };
    if let Some(first) = log.first() {
        // Somebody else may have made it since.
        let again = disk.list(dir);
        let again = again.map_err(|error| Error::from_io("the database", error))?;
        if again.iter().any(|name| name == "data") {
            return Ok(Found::Database);
        }
        return Err(not_a_database(format!(
            "its log holds {first:?}, and there is no file named \"data\""
        )));
    }
    if options.read_only || !options.create {
        return Err(not_a_database("it holds no file named \"data\"".to_owned()));
    }
    Ok(Found::Nothing)
}

/// Makes a directory and its missing parents, each durable before the next is made in it, the last one by
/// [`secure_names`].
fn make_dir(dir: &Path, disk: &dyn Disk) -> Result<(), IoError> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && disk.list(path).is_err();
    let made: Vec<&Path> = dir.ancestors().take_while(missing).collect();
    for dir in made.into_iter().rev() {
        disk.create_dir(dir)?;
        disk.sync_dir(parent(dir))?;
    }
    Ok(())
}

fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names durable by which the database was found: a process that was killed may have made them and not come
/// to this.
pub(super) fn secure_names(dir: &Path, disk: &dyn Disk) -> Result<(), IoError> {
    if planted("names that were found are not made durable") {
        return Ok(());
    }
    disk.sync_dir(dir)?;
    match disk.sync_dir(parent(dir)) {
        // Who may not read it has not made the directory either.
        Err(error) if error.cause() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

pub(super) fn store_options(options: &Options, sizes: Option<Sizes>) -> StoreOptions {
    // One frozen and one that may grow to twice its size before commits wait; see the pipeline's throttle.
    let deltas = 3 * options.delta_bytes;
    let cache_bytes = options.memory_budget.saturating_sub(deltas + OTHER_BYTES);
    let history = Some(HistoryMeta {
        runs: None,
        horizon: TxnId::ZERO,
        policy: options.history_of_new(),
        state: StateHash::default(),
    });
    StoreOptions {
        page_bytes: options.page_bytes,
        segment_bytes: options.segment_bytes,
        history: history.filter(|history| history.policy != Retention::None),
        cache_bytes: sizes.map_or(cache_bytes.max(4 << 20), |sizes| sizes.cache_bytes),
        read_only: options.read_only,
    }
}

pub(super) fn open_segments(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    meta: &Meta,
) -> Result<Arc<Segments>> {
    let log = dir.join("log");
    Segments::open(Arc::clone(disk), log, u64::from(meta.segment_bytes))
        .map_err(|source| Error::from_io("the commit log", source))
}

/// A number that no other database has, as far as hashing the moment and the process's random keys can tell.
fn random_id(clock: &Clock) -> u128 {
    let half = |salt: u64| {
        let moment = (salt, clock.wall_ns(), std::process::id());
        u128::from(RandomState::new().hash_one(moment))
    };
    half(1) << 64 | half(2)
}

/// Makes an empty database: the log directory first, the data file last, by a rename. If it is for `restoring` a backup, it
/// says so until that has ended.
pub(super) fn create(
    world: &World,
    dir: &Path,
    options: &StoreOptions,
    restoring: bool,
) -> Result<Opened> {
    let World { disk, clock, .. } = world;
    let log = dir.join("log");
    let failed = |source| Error::from_io("a new database", source);
    disk.create_dir(&log).map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    Store::create(
        Arc::clone(disk),
        dir,
        options,
        (
            clock.wall_ns(),
            world.database.unwrap_or_else(|| random_id(clock)),
        ),
        restoring,
    )
}

impl Engine {
    /// Makes the log ready for its first append: takes the word of a clean close back, durably; cuts the log where
    /// it ends; and finds out, once per machine, how its writes become durable fastest.
    pub(crate) fn awaken(&self) -> Result<()> {
        // Acquire: pairs with the Release below, though all that follows is behind locks anyway.
        if self.awake.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut checkpointer = self.checkpointer.lock();
        if self.awake.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let end = self.pipeline.position();
        let segments = Arc::clone(&checkpointer.segments);
        let (known, machine) = match self.sync_method {
            Some(given) => (Some(given), 0),
            None => {
                let machine = fingerprint(&self.dir);
                (checkpointer.meta.sync_method(machine), machine)
            }
        };
        let first = known.unwrap_or(SyncMethod::WriteThenSync);
        secure_names(&self.dir, &*self.disk).map_err(Error::Io)?;
        let mut log = LogWriter::start_at(segments, (self.proven, end), first)?;
        if known.is_none() {
            let methods = [
                SyncMethod::WriteDsync,
                SyncMethod::WriteThenSync,
                SyncMethod::RingDsync,
            ];
            let clock = checkpointer.clock.clone();
            let best = probe(&mut log, &methods, &|| clock.monotonic_ns())?.best;
            checkpointer.meta.remember_sync_method(best, machine);
        }
        checkpointer
            .store
            .settle(&checkpointer.meta, self.has_older)
            .map_err(|error| self.pipeline.halt(&error.to_string()))?;
        // Else the meta page says it already: opening again and again changes no byte.
        let alone = !self.has_older && !self.disk.status().direct;
        let kept = planted("the word of a clean close is not taken back");
        let said = checkpointer.meta.history.map(|history| history.policy);
        let decided = said.unwrap_or_default() != checkpointer.history_policy;
        if (checkpointer.meta.clean && !kept) || known.is_none() || alone || decided {
            checkpointer.mark_in_use()?;
        }
        self.pipeline.install_log(log);
        self.awake.store(true, Ordering::Release);
        Ok(())
    }
}

/// Reads the table of runs.
fn load_history(store: &Store, meta: &Meta) -> Result<History> {
    let Some(kept) = &meta.history else {
        return Ok(History {
            runs: Vec::new(),
            horizon: meta.tree_txn,
        });
    };
    match history::load(store, kept.runs.as_ref())? {
        Ok(runs) => match runs.iter().find(|run| run.to > meta.tree_txn) {
            None => Ok(History {
                runs,
                horizon: kept.horizon,
            }),
            Some(run) => Err(Error::Corrupt(Corruption {
                file: "data",
                offset: None,
                detail: format!(
                    "a run of history ends with {}, the trees with {}",
                    run.to, meta.tree_txn
                ),
            })),
        },
        Err(key) => Err(Error::Corrupt(Corruption {
            file: "data",
            offset: None,
            detail: format!("the table of runs has a row {key:02x?}, expected a run of history"),
        })),
    }
}

/// Reads the tree of roots.
fn load_roots(store: &Store, meta: &Meta) -> Result<Roots> {
    let mut roots = Roots::default();
    roots.set(TableId::NAMES, meta.names);
    roots.set(TableId::ROOTS, meta.roots);
    let Some(root) = &meta.roots else {
        return Ok(roots);
    };
    let mut cursor = Cursor::new(store, Some(root.page), Class::Point);
    cursor.seek(Bound::Unbounded)?;
    while let Some(row) = cursor.row() {
        let bad = |what: &str| {
            Error::Corrupt(Corruption {
                file: "data",
                offset: None,
                detail: format!("the row of a table root has {what}"),
            })
        };
        let id = row.key.try_into().map(u32::from_be_bytes);
        let id = id.map_err(|_| bad("a key that is no table id"))?;
        let table = TableId::new(id);
        if !TableId::ROOTED.contains(&table) && !table.was_given_out(meta.next_table) {
            return Err(bad("a table id that was never given out"));
        }
        let RowValue::Inline(value) = row.value else {
            return Err(bad("a value too large"));
        };
        let root = TreeRoot::decode(value).ok_or_else(|| bad("a value of another length"))?;
        roots.set(table, Some(root));
        cursor.next()?;
    }
    Ok(roots)
}
