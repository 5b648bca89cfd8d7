//! Runs threads as fibers on one thread of the system, switching where the engine pauses.
//!
//! Invariants:
//! 1. One fiber runs at a time; it stops only inside a call of the engine's `Scheduler`.
//! 2. What a fiber waits for is known. If nobody can run and no wait may end by time, somebody was not woken.
//!
//! - Threads: a fiber never leaves the thread of the system that explores.
//! - Failure: fibers of a run that failed are left as they are; the memory of their stacks is not given back.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use generator::{Generator, Gn};
use northstardb::internals::{self, Joined, Locals, Scheduler};

use super::policy::Policy;
use crate::Failure;

/// Words of a fiber's stack; memory is taken as it is used.
const STACK_WORDS: usize = 1 << 17;
/// Steps after which a run is said to make no progress.
const STEPS_MAX: u64 = 3_000_000;
/// Switches that a failure shows.
const SHOWN: usize = 24;

type Body = Box<dyn FnOnce() + Send>;
type Fiber = Generator<'static, (), ()>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Ready,
    Blocked { on: usize, until: Option<u64> },
    Ended,
}

#[derive(Debug)]
struct Thread {
    name: String,
    standing: Standing,
    /// The last wait ended by waking, not by time.
    woken: bool,
    /// Not on the processor before this step, unless nobody else can run.
    stalled_until: u64,
    joined: Arc<Handle>,
}

impl Thread {
    fn rouse(&mut self, woken: bool) {
        self.standing = Standing::Ready;
        self.woken = woken;
    }
}

/// What a run is in the middle of.
#[derive(Debug)]
struct Now {
    policy: Policy,
    threads: Vec<Thread>,
    running: usize,
    /// Bodies of threads that have no fiber yet, in order.
    born: Vec<Work>,
    /// Pauses so far.
    step: u64,
    /// Pauses granted to the running thread.
    granted: u32,
    switches: u64,
    last: std::collections::VecDeque<(usize, u64)>,
    hash: u64,
    failure: Option<Failure>,
    /// Threads that are looked at, to reuse the memory.
    found: Vec<usize>,
}

/// A body, which cannot be shown.
struct Work(Body);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

thread_local! {
    static NOW: RefCell<Option<Now>> = const { RefCell::new(None) };
    /// A fiber runs.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// What the fiber that is resumed next shall do.
    static TASK: RefCell<Option<Body>> = const { RefCell::new(None) };
    /// Nanoseconds that have passed.
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// The time of the run, which moves on by `step` nanoseconds with each look.
pub fn look_at_clock(step: u64) -> u64 {
    TIME.with(|time| {
        time.set(time.get() + step);
        time.get()
    })
}

/// Ends the run with a failure, at the next switch.
pub fn fail(failure: Failure) {
    with(|now| {
        now.failure.get_or_insert(failure);
    });
}

/// Starts a thread of the run.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Arc<dyn Joined> {
    Turns.spawn(name, Box::new(body))
}

/// Blocks until somebody wakes those who wait for `what`, which only the engine's own parts do.
pub fn wait_for<T>(what: &T) {
    Turns.block(std::ptr::from_ref(what).addr(), None);
}

/// Another number that follows from the seed, below `end`.
pub fn draw(end: usize) -> usize {
    with(|now| now.policy.rng.index(end)).unwrap_or(0)
}

fn with<R>(work: impl FnOnce(&mut Now) -> R) -> Option<R> {
    NOW.with(|now| now.borrow_mut().as_mut().map(work))
}

/// Whether the caller is a thread of a run that goes on.
fn is_inside() -> bool {
    INSIDE.with(Cell::get) && !std::thread::panicking()
}

/// Gives the turn to the thread that is `now.running`, if that is another one.
#[expect(
    deprecated,
    reason = "the newer call wants the fiber's own handle passed down"
)]
fn change(to: Option<bool>) {
    if to == Some(true) {
        generator::yield_with(());
    }
}

/// The scheduler that the engine sees.
#[derive(Debug)]
struct Turns;

impl Scheduler for Turns {
    fn pause(&self) {
        if is_inside() {
            change(with(|now| now.decide(false)));
        }
    }

    fn step_aside(&self) {
        if is_inside() {
            change(with(|now| now.decide(true)));
        }
    }

    fn block(&self, on: usize, at_most: Option<Duration>) -> bool {
        if INSIDE.with(Cell::get) && std::thread::panicking() {
            // Cannot go on, and has failed anyway.
            fail(Failure::Broken(
                "a thread that panicked had to wait".to_owned(),
            ));
            change(Some(true));
        }
        if !is_inside() {
            return false;
        }
        let me = with(|now| {
            let until = at_most.map(|at_most| {
                let nanos = u64::try_from(at_most.as_nanos()).unwrap_or(u64::MAX / 4);
                TIME.with(Cell::get).saturating_add(nanos)
            });
            let me = now.running;
            now.threads[me].standing = Standing::Blocked { on, until };
            me
        });
        change(with(|now| now.decide(true)));
        with(|now| now.threads[me.unwrap_or(0)].woken).unwrap_or(false)
    }

    fn wake(&self, on: usize, all: bool) {
        with(|now| now.wake(on, all));
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Arc<dyn Joined> {
        let joined = with(|now| now.bear(name, body));
        joined.expect("a thread is started inside a run")
    }
}

/// A thread that was started.
#[derive(Debug)]
struct Handle {
    thread: usize,
    ended: AtomicBool,
    panicked: AtomicBool,
}

impl Handle {
    fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Joined for Handle {
    fn join(&self) -> bool {
        internals::pause();
        // Relaxed: all on one thread of the system.
        while !self.ended.load(Ordering::Relaxed) {
            Turns.block(self.place(), None);
        }
        !self.panicked.load(Ordering::Relaxed)
    }

    fn is_current(&self) -> bool {
        is_inside() && with(|now| now.running) == Some(self.thread)
    }
}

impl Now {
    fn bear(&mut self, name: &str, body: Body) -> Arc<dyn Joined> {
        let thread = self.threads.len();
        let joined = Arc::new(Handle {
            thread,
            ended: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        self.threads.push(Thread {
            name: name.to_owned(),
            standing: Standing::Ready,
            woken: false,
            stalled_until: 0,
            joined: Arc::clone(&joined),
        });
        self.born.push(Work(body));
        joined
    }

    fn wake(&mut self, on: usize, all: bool) {
        let waits = |thread: &Thread| matches!(thread.standing, Standing::Blocked { on: at, .. } if at == on);
        let count = self.threads.iter().filter(|thread| waits(thread)).count();
        if count == 0 {
            return;
        }
        let one = (!all).then(|| self.policy.rng.index(count));
        let waiting = self.threads.iter_mut().filter(|thread| waits(thread));
        for (nth, thread) in waiting.enumerate() {
            if one.is_none_or(|one| one == nth) {
                thread.rouse(true);
            }
        }
        if self.policy.is_strict() {
            // The next pause decides.
            self.account();
            self.granted = 0;
            internals::pass(0);
        }
    }

    /// Counts the pauses that have passed since the last grant.
    fn account(&mut self) {
        let left = internals::pass(0);
        self.step += u64::from(self.granted.saturating_sub(left));
        self.granted = left;
    }

    /// Chooses who runs on, and grants pauses. True if that is not who runs now, or if the run must end.
    fn decide(&mut self, aside: bool) -> bool {
        self.account();
        self.step += 1;
        if self.step > STEPS_MAX {
            let all = self.standings();
            self.broken(format!("no end after {STEPS_MAX} steps{all}"));
        }
        if self.policy.spurious() {
            let waits = |thread: &&mut Thread| matches!(thread.standing, Standing::Blocked { on, .. } if on != 0);
            let count = self.threads.iter_mut().filter(waits).count();
            if count > 0 {
                let nth = self.policy.rng.index(count);
                if let Some(thread) = self.threads.iter_mut().filter(waits).nth(nth) {
                    thread.rouse(true);
                }
            }
        }
        if self.policy.hasty() {
            self.pass_time(true);
        }
        if let Some(steps) = self.policy.stall() {
            let until = self.step + steps;
            self.threads[self.running].stalled_until = until;
        }
        let before = self.running;
        let Some(next) = self.next(aside) else {
            return true;
        };
        self.granted = self.policy.pauses(self.step);
        internals::pass(self.granted);
        if next != before {
            self.switches += 1;
            self.running = next;
            self.hash = (self.hash ^ (self.step << 8 | next as u64))
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
            if self.last.len() == SHOWN {
                self.last.pop_front();
            }
            self.last.push_back((next, self.step));
        }
        next != before || self.failure.is_some()
    }

    fn next(&mut self, aside: bool) -> Option<usize> {
        loop {
            let ready = self.threads.iter().enumerate();
            let ready = ready.filter(|(_, thread)| thread.standing == Standing::Ready);
            let on = |thread: &Thread| thread.stalled_until <= self.step;
            self.found.clear();
            self.found.extend(
                ready
                    .clone()
                    .filter(|(_, thread)| on(thread))
                    .map(|(at, _)| at),
            );
            if self.found.is_empty() {
                self.found.extend(ready.map(|(at, _)| at));
            }
            if !self.found.is_empty() {
                let (found, running) = (&self.found, self.running);
                return Some(self.policy.choose(found, running, self.step, aside));
            }
            if !self.pass_time(!self.policy.still) {
                let ended = |thread: &Thread| thread.standing == Standing::Ended;
                if !self.threads.iter().all(ended) {
                    let all = self.standings();
                    self.broken(format!("nobody can go on: somebody was not woken{all}"));
                }
                return None;
            }
        }
    }

    /// Ends the wait that ends first by time: any, or only those that nobody could end by waking.
    fn pass_time(&mut self, any: bool) -> bool {
        let first = self.threads.iter().enumerate().filter_map(|(at, thread)| {
            let Standing::Blocked { on, until } = thread.standing else {
                return None;
            };
            (any || on == 0).then_some((until?, at))
        });
        let Some((until, at)) = first.min() else {
            return false;
        };
        TIME.with(|time| time.set(time.get().max(until)));
        self.threads[at].rouse(false);
        true
    }

    fn broken(&mut self, why: String) {
        self.failure.get_or_insert(Failure::Broken(why));
    }

    fn standings(&self) -> String {
        let mut text = String::new();
        for thread in &self.threads {
            let how = match thread.standing {
                Standing::Ready => "can run",
                Standing::Blocked { until: None, .. } => "waits",
                Standing::Blocked { on: 0, .. } => "sleeps",
                Standing::Blocked { .. } => "waits, for some time at most",
                Standing::Ended => "has ended",
            };
            write!(text, "\n    {} {how}", thread.name).ok();
        }
        text.push_str("\n  last switches, with steps:");
        for (thread, step) in &self.last {
            let name = self.threads.get(*thread).map_or("?", |t| &t.name);
            write!(text, " {name}@{step}").ok();
        }
        text
    }
}

/// What a run was.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Pauses.
    pub steps: u64,
    /// Of these, so many gave the turn to another thread.
    pub switches: u64,
    /// The same whenever the same happened.
    pub hash: u64,
}

/// Explores one run after the other, and keeps the stacks.
#[derive(Default)]
pub struct Explorer {
    idle: Vec<Fiber>,
}

impl std::fmt::Debug for Explorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Explorer").finish_non_exhaustive()
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        for mut fiber in self.idle.drain(..) {
            // Finds no task, and ends.
            fiber.resume();
        }
    }
}

impl Explorer {
    /// Runs `first` and every thread it starts, to their ends.
    ///
    /// # Errors
    /// What [`fail`] was told; a thread that panicked; threads that wait for ever.
    pub fn run(
        &mut self,
        policy: Policy,
        first: impl FnOnce() + Send + 'static,
    ) -> Result<Ran, Failure> {
        // A run is the same whatever this thread has done before.
        Locals::settle();
        let mut now = Now {
            policy,
            threads: Vec::new(),
            running: 0,
            born: Vec::new(),
            step: 0,
            granted: 0,
            switches: 0,
            last: std::collections::VecDeque::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            found: Vec::new(),
            failure: None,
        };
        now.bear("main", Box::new(first));
        TIME.with(|time| time.set(1));
        NOW.with(|place| *place.borrow_mut() = Some(now));
        internals::run_under(Arc::new(Turns), || self.turns());
        let ended = NOW.with(|place| place.borrow_mut().take());
        let nothing = || Failure::Broken("a run has no end".to_owned());
        let ended = ended.ok_or_else(nothing)?;
        let ran = Ran {
            steps: ended.step,
            switches: ended.switches,
            hash: ended.hash,
        };
        ended.failure.map_or(Ok(ran), Err)
    }

    /// Resumes whoever's turn it is, until all have ended or one has failed.
    fn turns(&mut self) {
        let mut fibers: Vec<Option<(Fiber, Locals)>> = Vec::new();
        loop {
            let (born, running, over) = with(|now| {
                let over =
                    now.failure.is_some() || now.threads[now.running].standing != Standing::Ready;
                (std::mem::take(&mut now.born), now.running, over)
            })
            .expect("a run goes on");
            for Work(body) in born {
                let mut fiber = self.idle.pop().unwrap_or_else(fiber);
                TASK.with(|task| *task.borrow_mut() = Some(body));
                // Takes its task, and waits for its first turn.
                fiber.resume();
                let number = u32::try_from(fibers.len()).unwrap_or(u32::MAX);
                fibers.push(Some((fiber, Locals::of(number))));
            }
            let Some(place) = fibers.get_mut(running).filter(|_| !over) else {
                break;
            };
            let Some((fiber, locals)) = place else {
                break;
            };
            locals.swap();
            INSIDE.with(|inside| inside.set(true));
            fiber.resume();
            INSIDE.with(|inside| inside.set(false));
            locals.swap();
            let has_ended = with(|now| now.threads[running].standing == Standing::Ended);
            if has_ended == Some(true)
                && let Some((fiber, locals)) = place.take()
            {
                drop(locals);
                self.idle.push(fiber);
            }
        }
        for (fiber, locals) in fibers.into_iter().flatten() {
            // In the middle of something that will not end.
            Box::leak(Box::new((fiber, locals)));
        }
    }
}

/// A fiber that does one task after the other.
fn fiber() -> Fiber {
    Gn::<()>::new_opt(STACK_WORDS, || {
        loop {
            let Some(body) = TASK.with(|task| task.borrow_mut().take()) else {
                // Nothing more to do: the explorer is gone.
                return;
            };
            change(Some(true));
            let outcome = catch_unwind(AssertUnwindSafe(body));
            with(|now| {
                now.account();
                let me = now.running;
                let joined = Arc::clone(&now.threads[me].joined);
                if let Err(payload) = outcome {
                    let text = payload.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                    let name = now.threads[me].name.clone();
                    now.broken(format!("{name} panicked: {}", text.unwrap_or("?")));
                    joined.panicked.store(true, Ordering::Relaxed);
                }
                joined.ended.store(true, Ordering::Relaxed);
                now.threads[me].standing = Standing::Ended;
                now.wake(joined.place(), true);
                now.decide(true);
            });
            change(Some(true));
        }
    })
}
