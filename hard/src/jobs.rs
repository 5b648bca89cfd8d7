//! What there is to run: each job with the question it answers, and how much of it every change and every night needs.
//!
//! Work is cut into seeds. They are done by worker processes, a few seeds each: so that jobs use every core, and one
//! process's threads, caches and marks never disturb another's.

use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nsorders::models::MODELS;

use crate::fuzz::{Target, drive};
use crate::properties::{self, PROPERTIES};
#[cfg(target_os = "linux")]
use crate::real::{blocks, filesystems, full, memory, openers, restricted};
use crate::sched::run as sched;
use crate::sim::script::{self, Plan};
use crate::sim::{nth, paths, pins, restored, rot, scope, shrink, storm};
use crate::tally::Tally;
use crate::{During, Failure, clock, crash, races, run};

/// How much of something is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// A count of a [`Tally`].
    pub what: &'static str,
    /// How much every change needs.
    pub ci: u64,
    /// How much a night adds.
    pub nightly: u64,
}

/// One kind of run.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Its name.
    pub name: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// It is done when all are reached. The first says how fast it goes.
    pub goals: &'static [Goal],
    /// Seeds that one worker does.
    pub chunk: u64,
    /// One worker at a time: it uses several cores by itself.
    pub alone: bool,
    /// Does some seeds.
    pub run: fn(Range<u64>) -> Result<Tally, Failure>,
}

/// All jobs, in the order in which they are run.
pub const JOBS: &[Job] = &[
    Job {
        name: "regressions",
        question: "Do seeds that once broke a promise keep it now?",
        goals: &[Goal {
            what: REGRESSIONS,
            ci: 1,
            nightly: 1,
        }],
        chunk: 1,
        alone: true,
        run: |_| regressions(),
    },
    Job {
        name: "power",
        question: "Does a power cut at any moment leave all that was acknowledged, also one during recovery?",
        goals: &[
            Goal {
                what: storm::CRASHES,
                ci: 1_000_000,
                nightly: 10_000_000,
            },
            Goal {
                what: storm::IN_RECOVERY,
                ci: 100_000,
                nightly: 2_000_000,
            },
        ],
        chunk: 25,
        alone: false,
        run: |seeds| sim(seeds, false),
    },
    Job {
        name: "faults",
        question: "Does a disk that fails, fills up, tears or lies ever lead to wrong rows, or to lost ones once it is sound?",
        goals: &[Goal {
            what: storm::CRASHES,
            ci: 150_000,
            nightly: 4_000_000,
        }],
        chunk: 25,
        alone: false,
        run: |seeds| sim(seeds, true),
    },
    Job {
        name: "scope",
        question: "Does any sequence of three operations, cut at any event with any subset kept, lose something?",
        goals: &[Goal {
            what: scope::SEQUENCES,
            ci: 1_110,
            nightly: 2_000,
        }],
        chunk: 10,
        alone: false,
        // Seeds begin at 1, sequences at 0; the longer ones come after those of three.
        run: |seeds| each(seeds, |seed| scope::run(seed - 1)),
    },
    Job {
        name: "nth",
        question: "Does it do harm if the i-th operation of the disk fails, for any i, in any way, once or for good?",
        goals: &[Goal {
            what: nth::FAILED,
            ci: 10_000,
            nightly: 1_000_000,
        }],
        chunk: 1,
        alone: false,
        run: |seeds| each(seeds, nth::run),
    },
    Job {
        name: "rot",
        question: "Is anything read wrong after bits have flipped at rest, in any structure?",
        goals: &[
            Goal {
                what: rot::FLIPS,
                ci: 100_000,
                nightly: 1_000_000,
            },
            Goal {
                what: rot::SLOTS,
                ci: 10_000,
                nightly: 100_000,
            },
        ],
        chunk: 10,
        alone: false,
        run: |seeds| each(seeds, rot::run),
    },
    Job {
        name: "restores",
        question: "Does a restore that a power cut or a fault ends leave what nobody opens, or exactly what was saved?",
        goals: &[Goal {
            what: restored::CUT,
            ci: 20_000,
            nightly: 500_000,
        }],
        chunk: 25,
        alone: false,
        run: restores,
    },
    Job {
        name: "protocol",
        question: "Led wherever the model of the protocol can go, does the engine keep what the model keeps?",
        goals: &[Goal {
            what: paths::PATHS,
            ci: 4_000,
            nightly: 200_000,
        }],
        chunk: 5,
        alone: false,
        run: paths::run,
    },
    Job {
        name: "pins",
        question: "Do values that are kept stay what they are, also of more pages than the cache has frames?",
        goals: &[Goal {
            what: pins::KEPT,
            ci: 2_000,
            nightly: 20_000,
        }],
        chunk: 2,
        alone: false,
        run: |seeds| each(seeds, pins::run),
    },
    Job {
        name: "schedules",
        question: "Does every interleaving of clients, log, checkpoints and eviction that is tried end, and read one order of commits?",
        goals: &[Goal {
            what: sched::SCHEDULES,
            ci: 100_000,
            nightly: 10_000_000,
        }],
        chunk: 1_000,
        alone: false,
        run: schedules,
    },
    Job {
        name: "orders",
        question: "Do the lock-free parts keep their promises in every execution that the memory model allows?",
        goals: &[Goal {
            what: MODELS_TRIED,
            ci: 11,
            nightly: 22,
        }],
        chunk: 1,
        alone: false,
        run: orders,
    },
    Job {
        name: "races",
        question: "Do threads of the system race for anything, as far as ThreadSanitizer can see?",
        goals: &[Goal {
            what: races::TESTS,
            ci: 1,
            nightly: 1,
        }],
        chunk: 1,
        alone: true,
        run: |_| races::run(),
    },
    Job {
        name: "model",
        question: "Do random work, what subscribers, backups and copies make of it, and reopenings come to what the model says?",
        goals: &[Goal {
            what: MODEL_STEPS,
            ci: 20_000,
            nightly: 500_000,
        }],
        chunk: 10,
        alone: false,
        run: model,
    },
    Job {
        name: "properties",
        question: "Does what must hold for any work hold: other ways to say the same, snapshots, earlier states, isolation?",
        goals: &[Goal {
            what: HELD,
            ci: 800,
            nightly: 50_000,
        }],
        chunk: 10,
        alone: false,
        run: |seeds| each(seeds, held),
    },
    Job {
        name: "kills",
        question: "Does a real process that is killed at any moment lose nothing it acknowledged?",
        goals: &[Goal {
            what: KILLS,
            ci: 2_000,
            nightly: 20_000,
        }],
        chunk: 1,
        alone: false,
        run: kills,
    },
    Job {
        name: "fuzz",
        question: "Do hostile bytes, found by following coverage, ever get more than an error out of decoders or databases?",
        goals: &[Goal {
            what: drive::EXECUTIONS,
            ci: 1_000_000,
            nightly: 100_000_000,
        }],
        chunk: 1,
        alone: true,
        run: fuzz_all,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "filesystems",
        question: "Does it on tmpfs, ext4, XFS and btrfs, too, by every way to the disk?",
        goals: &[Goal {
            what: filesystems::KILLS,
            ci: filesystems::SEEDS * filesystems::KILLS_PER_SEED,
            nightly: 10 * filesystems::SEEDS * filesystems::KILLS_PER_SEED,
        }],
        chunk: 1,
        alone: true,
        run: filesystems::run,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "full",
        question: "Does a disk that fills up refuse commits whole, and is everything else still possible?",
        goals: &[Goal {
            what: full::FULL,
            ci: full::SEEDS,
            nightly: 50 * full::SEEDS,
        }],
        chunk: 1,
        alone: false,
        run: full::run,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "openers",
        question: "Of processes that open one database at once, does exactly one get it?",
        goals: &[Goal {
            what: openers::RACES,
            ci: 400,
            nightly: 10_000,
        }],
        chunk: 1,
        alone: false,
        run: openers::run,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "restricted",
        question: "Does a process without io_uring, direct I/O, locked memory or rights do the same, or say what it lacks?",
        goals: &[Goal {
            what: restricted::RESTRICTED,
            ci: 150,
            nightly: 3_000,
        }],
        chunk: 1,
        alone: false,
        run: restricted::run,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "memory",
        question: "Does a process that runs out of memory, at any allocation, lose nothing it acknowledged?",
        goals: &[Goal {
            what: memory::FAILED,
            ci: 1_000,
            nightly: 50_000,
        }],
        chunk: 10,
        alone: false,
        run: memory::run,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "fuse",
        question: "Does a file system that fails syncs, cuts writes short, fails reads and loses power lose anything acknowledged?",
        goals: &[Goal {
            what: FAILING,
            ci: 240,
            nightly: 10_000,
        }],
        chunk: 1,
        alone: false,
        run: failing,
    },
    #[cfg(target_os = "linux")]
    Job {
        name: "blocks",
        question: "Under ext4, XFS and btrfs: does a power cut between any two flushes of the block device lose anything?",
        goals: &[Goal {
            what: blocks::STATES,
            ci: 200,
            nightly: 10_000,
        }],
        // Every kind of file system comes once, so that a kind which cannot be had ends no other.
        chunk: 3,
        alone: false,
        run: blocks::run,
    },
];

/// The job of that name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static Job, Failure> {
    let found = JOBS.iter().find(|job| job.name == name);
    found.ok_or_else(|| Failure::Broken(format!("there is no job {name:?}; see `nshard list`")))
}

#[cfg(all(target_os = "linux", feature = "fuse"))]
const FAILING: &str = crate::real::fuse::ROUNDS;
#[cfg(all(target_os = "linux", not(feature = "fuse")))]
const FAILING: &str = "rounds on a failing file system";

#[cfg(all(target_os = "linux", feature = "fuse"))]
fn failing(seeds: Range<u64>) -> Result<Tally, Failure> {
    crate::real::fuse::run(seeds)
}

#[cfg(all(target_os = "linux", not(feature = "fuse")))]
fn failing(_: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    tally.skip(FAILING, "built without the feature `fuse`");
    Ok(tally)
}

const REGRESSIONS: &str = "old failures tried again";

fn regressions() -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for plan in script::regressions()? {
        tally.merge(&simulate(&plan)?);
        tally.add(REGRESSIONS, 1);
    }
    Ok(tally)
}

fn each(seeds: Range<u64>, one: impl Fn(u64) -> Result<Tally, Failure>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        tally.merge(&one(seed)?);
    }
    Ok(tally)
}

const MODEL_STEPS: &str = "steps beside the model";

fn model(seeds: Range<u64>) -> Result<Tally, Failure> {
    const STEPS: u64 = 300;
    let mut tally = Tally::default();
    for seed in seeds {
        let dir = tempfile::tempdir().during("make a directory")?;
        let done = run::run_seed(seed, STEPS, dir.path())?;
        tally.add(MODEL_STEPS, STEPS);
        tally.add("transactions", done.commits);
        tally.add("rows compared", done.rows);
        tally.add("earlier states compared", done.as_of);
        tally.add("pasts of tables without history refused", done.unkept);
        tally.add("differences between states compared", done.differences);
        tally.add("transactions given to subscribers", done.followed);
        tally.add("backups", done.backups);
        tally.add("databases restored", done.restored);
        tally.add("transactions applied to copies", done.applied);
        tally.add("digests of states compared", done.digests);
    }
    Ok(tally)
}

fn restores(seeds: Range<u64>) -> Result<Tally, Failure> {
    same_again(seeds, restored::run, |seed| {
        format!("nshard work restores --seed {seed} --seeds 1")
    })
}

const HELD: &str = "properties tried";

fn held(seed: u64) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for property in PROPERTIES {
        let rows = properties::hold(property, seed)?;
        tally.add(HELD, 1);
        tally.add("rows compared", rows);
    }
    Ok(tally)
}

const KILLS: &str = "processes killed";

/// A seed is some hundred kills.
fn kills(seeds: Range<u64>) -> Result<Tally, Failure> {
    const KILLS_PER_SEED: u64 = 500;
    // A child mostly waits: for its disk, and for the moment at which it is killed.
    const KILLED_AT_ONCE: u64 = 6;
    let mut tally = Tally::default();
    for seed in seeds {
        let dir = tempfile::tempdir().during("make a directory")?;
        let plan = crash::Plan {
            program: std::env::current_exe().during("find this program")?,
            dir: dir.path().to_owned(),
            seed,
            kills: KILLS_PER_SEED,
            backend: None,
            jobs: KILLED_AT_ONCE,
            under: None,
        };
        let done = crash::run(&plan).inspect_err(|_| drop(dir.keep()))?;
        tally.add(KILLS, done.kills);
        tally.add("of these while opening", done.while_opening);
        tally.add("of these while closing", done.while_closing);
        tally.add("transactions", done.acknowledged);
        tally.add("earlier states read", done.past);
        tally.add("logs read alone", done.logs);
        tally.add("transactions followed", done.followed);
        tally.add("backups", done.backups);
        tally.add("rows compared", done.rows);
    }
    Ok(tally)
}

/// A seed is a round over all targets.
fn fuzz_all(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        tally.merge(&drive::fuzz(&Target::ALL, drive::Length::Seed(seed))?);
    }
    Ok(tally)
}

/// Every so many seeds one is done twice: the same must happen.
const TWICE: u64 = 50;

/// Adds up what seeds do, some of them twice; `replay` says how one is done again by hand.
fn same_again(
    seeds: Range<u64>,
    mut run: impl FnMut(u64) -> Result<Tally, Failure>,
    replay: impl Fn(u64) -> String,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        let done = run(seed)?;
        if seed % TWICE == 0 {
            let again = run(seed)?;
            if again.hash != done.hash {
                return Err(Failure::Broken(format!(
                    "the same seed came to {:x} and then to {:x}\n  replay: {}",
                    done.hash,
                    again.hash,
                    replay(seed)
                )));
            }
            tally.add("seeds done twice", 1);
        }
        tally.merge(&done);
    }
    Ok(tally)
}

/// What a seed does on a disk with faults.
#[must_use]
pub const fn faults_plan(seed: u64) -> Plan {
    let mut plan = Plan::of(seed);
    plan.faults = true;
    plan.cuts = 40;
    plan
}

fn sim(seeds: Range<u64>, faults: bool) -> Result<Tally, Failure> {
    let plan = |seed| match faults {
        true => faults_plan(seed),
        false => Plan::of(seed),
    };
    let many = seeds.end - seeds.start;
    let done = same_again(
        seeds,
        |seed| simulate(&plan(seed)),
        |seed| plan(seed).replay(),
    );
    let mut tally = done?;
    tally.add("seeds", many);
    Ok(tally)
}

/// One seed; a failure is made small and says how to have it again.
///
/// # Errors
/// The first broken promise.
pub fn simulate(plan: &Plan) -> Result<Tally, Failure> {
    storm::run(plan).map_err(|failure| {
        let small = shrink::shrink(plan, |plan| storm::run(plan).is_err());
        let why = match storm::run(&small) {
            Err(failure) => crate::chain(&failure),
            Ok(_) => crate::chain(&failure),
        };
        Failure::Broken(format!(
            "{why}\n  replay: {}\n  whole: {}",
            small.replay(),
            plan.replay()
        ))
    })
}

const MODELS_TRIED: &str = "models tried in every execution";

fn orders(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        tally.add("executions", model_of(seed)?);
        tally.add(MODELS_TRIED, 1);
    }
    Ok(tally)
}

/// A seed is one model; every other round has one more switch. Returns how many executions there are.
pub(crate) fn model_of(seed: u64) -> Result<u64, Failure> {
    let number = usize::try_from(seed.saturating_sub(1)).unwrap_or(0);
    let model = &MODELS[number % MODELS.len()];
    // What is tried is finite: rounds beyond these would be repetitions, or take for ever.
    let more = (number / MODELS.len()) % 2;
    model
        .check(more)
        .map_err(|wrong| Failure::Broken(format!("{}\n  {wrong}", model.question)))
}

fn schedules(seeds: Range<u64>) -> Result<Tally, Failure> {
    let mut runner = sched::Runner::default();
    let replay = |seed| format!("nshard schedule --seed {seed}");
    same_again(seeds, |seed| runner.run(seed), replay)
}

/// How a job is driven.
#[derive(Debug, Clone, Copy)]
pub struct Drive<'p> {
    /// This program, started as a worker.
    pub program: &'p Path,
    /// Workers at a time.
    pub workers: usize,
    /// The first seed.
    pub first: u64,
    /// How much is to be done, in the order of the job's goals.
    pub goals: &'p [u64],
    /// No seeds are begun after this.
    pub until: Option<Instant>,
}

impl Drive<'_> {
    fn done(&self, job: &Job, tally: &Tally) -> bool {
        let reached = |(goal, wanted): (&Goal, &u64)| tally.get(goal.what) >= *wanted;
        // What cannot be tried here at all is never reached.
        let idle = tally.counts.is_empty() && !tally.skipped.is_empty();
        let late = self.until.is_some_and(|until| clock::now() >= until);
        idle || late || job.goals.iter().zip(self.goals).all(reached)
    }
}

/// Does a job until its goal is reached. Returns what was done and the first seed that was not.
///
/// # Errors
/// The first failure of a worker, in its own words.
pub fn drive(job: &Job, drive: &Drive<'_>) -> Result<(Tally, u64), Failure> {
    struct Shared {
        next: u64,
        tally: Tally,
        failed: Option<Failure>,
    }
    let shared = Mutex::new(Shared {
        next: drive.first,
        tally: Tally::default(),
        failed: None,
    });
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..if job.alone { 1 } else { drive.workers } {
            scope.spawn(|| {
                loop {
                    let mut now = lock();
                    if now.failed.is_some() || drive.done(job, &now.tally) {
                        return;
                    }
                    let first = now.next;
                    now.next += job.chunk;
                    drop(now);
                    let done = work(job, drive.program, first);
                    let mut now = lock();
                    match done {
                        Ok(done) => now.tally.merge(&done),
                        Err(failure) => {
                            now.failed.get_or_insert(failure);
                        }
                    }
                }
            });
        }
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    shared.failed.map_or(Ok((shared.tally, shared.next)), Err)
}

/// One worker process.
fn work(job: &Job, program: &Path, first: u64) -> Result<Tally, Failure> {
    let output = Command::new(program)
        .args(["work", job.name, "--seed", &first.to_string()])
        .args(["--seeds", &job.chunk.to_string()])
        // Large tables come zeroed from the system, instead of being cleared for each database that is opened.
        .env("MALLOC_MMAP_THRESHOLD_", "1048576")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .during("start a worker")?;
    let said = String::from_utf8_lossy(&output.stdout);
    match serde_json::from_str(&said) {
        Ok(tally) if output.status.success() => Ok(tally),
        _ => Err(Failure::Broken(format!(
            "job {}, seeds from {first}: {}\n{}",
            job.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        ))),
    }
}
