//! The models, each with the question it answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Plain};

use loom::cell::UnsafeCell;

use crate::cache::epoch::Domain;
use crate::cache::{Frame, link, unlink};
use crate::delta::{Hashes, Keys, RecordLink, WayIn};
use crate::ids::{Generation, Lsn, PageId};
pub use crate::sync::Weak;
use crate::sync::atomic::{AtomicBool, AtomicU64 as Shared, Ordering, fence};
use crate::sync::{Mutex, thread, weaken};
use crate::txn::bell::Bell;
use crate::txn::registry::Registry;
use crate::writer::handover::{is_raised, try_take};
use crate::writer::wait::{Ticket, settle_group};

/// A model.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// Switches away from a thread that could go on, at most; all there are when absent.
    pub switches: Option<usize>,
    /// Fails when `SeqCst` means no more than acquire and release.
    pub needs_one_order: bool,
    body: fn(),
}

/// All of them.
pub const MODELS: &[Model] = &[
    Model {
        name: "registry",
        question: "Is a snapshot either seen by the scan that follows a publication, or does it start over?",
        switches: None,
        needs_one_order: true,
        body: registry,
    },
    Model {
        name: "visible",
        question: "Does a snapshot of an old shape never take a transaction that only the new one holds?",
        switches: None,
        needs_one_order: false,
        body: visible,
    },
    Model {
        name: "epoch",
        question: "Are a frame's bytes never written while a reader that found them is inside?",
        switches: Some(3),
        needs_one_order: true,
        body: epoch,
    },
    Model {
        name: "pins",
        question: "Are a frame's bytes never written while they are pinned, after the reader has left?",
        switches: Some(3),
        needs_one_order: true,
        body: pins,
    },
    Model {
        name: "role",
        question: "Is work that was announced to the holder of a role never left lying?",
        switches: None,
        needs_one_order: true,
        body: role,
    },
    Model {
        name: "waiters",
        question: "Does everyone who waits for a group wake when it is settled?",
        switches: Some(2),
        needs_one_order: true,
        body: waiters,
    },
    Model {
        name: "bell",
        question: "Does everyone who waits for the next commit learn of it?",
        switches: Some(3),
        needs_one_order: true,
        body: bell,
    },
    Model {
        name: "split",
        question: "Does a reader find every key that was there before, while leaves split and fill again?",
        switches: Some(2),
        needs_one_order: false,
        body: split,
    },
    Model {
        name: "forward",
        question: "Does a walk from left to right come by every key once, while a leaf splits?",
        switches: Some(2),
        needs_one_order: false,
        body: || walk(true),
    },
    Model {
        name: "backward",
        question: "Does a walk from right to left come by every key once, while a leaf splits?",
        switches: Some(2),
        needs_one_order: false,
        body: || walk(false),
    },
    Model {
        name: "filter",
        question: "Does the filter never deny a key that is visible?",
        switches: Some(3),
        needs_one_order: false,
        body: filter,
    },
];

/// Why a model failed.
#[derive(Debug, thiserror::Error)]
#[error("model {name}, execution {execution}: {why}")]
pub struct Wrong {
    name: &'static str,
    execution: u64,
    why: String,
}

impl Model {
    /// Tries every execution, with so many switches more than the model says. Returns how many that was.
    ///
    /// # Errors
    /// The first that broke the promise.
    pub fn check(&self, more_switches: usize) -> Result<u64, Wrong> {
        self.explore(more_switches, Weak::Not)
    }

    /// As [`Model::check`], with accesses that order less than the sources say.
    ///
    /// # Errors
    /// The first execution that broke the promise.
    pub fn check_weakened(&self, weak: Weak) -> Result<u64, Wrong> {
        self.explore(0, weak)
    }

    fn explore(&self, more: usize, weak: Weak) -> Result<u64, Wrong> {
        let executions = Arc::new(AtomicU64::new(0));
        let (count, body) = (Arc::clone(&executions), self.body);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = self.switches.map(|switches| switches + more);
        builder.max_branches = 100_000;
        weaken(weak);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            builder.check(move || {
                count.fetch_add(1, Plain::Relaxed);
                body();
            });
        }));
        weaken(Weak::Not);
        let execution = executions.load(Plain::Relaxed);
        outcome.map(|()| execution).map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            Wrong {
                name: self.name,
                execution,
                why: text.unwrap_or("it panicked").to_owned(),
            }
        })
    }
}

/// `Shapes::publish` and `Snapshot::open`, around the registry. Shape, number and generation are the same here.
fn registry() {
    let registry = Arc::new(Registry::default());
    let (current, seq) = (Arc::new(Shared::new(1)), Arc::new(Shared::new(1)));
    let reader = {
        let (registry, current, seq) = (
            Arc::clone(&registry),
            Arc::clone(&current),
            Arc::clone(&seq),
        );
        thread::spawn(move || {
            // It starts over for a publication, never for one that is half done: see `Shapes::is_current`.
            for _ in 0..=PUBLICATIONS {
                let shape = current.load(Ordering::Acquire);
                let generation = u32::try_from(shape).expect("a small number");
                let slot = registry
                    .claim(Generation::new(generation))
                    .expect("a slot is free");
                if seq.load(Ordering::SeqCst) <= shape {
                    return shape;
                }
                registry.release(slot);
            }
            panic!("a reader waited for a publication");
        })
    };
    let mut scans = Vec::new();
    for shape in 2..2 + PUBLICATIONS {
        current.store(shape, Ordering::Release);
        seq.store(shape, Ordering::SeqCst);
        scans.push((shape, registry.oldest()));
    }
    let taken = reader.join().expect("the reader ends");
    for (shape, oldest) in scans {
        // Pages that only older shapes reach are free for reuse if nobody is seen to read those.
        let seen = oldest.is_some_and(|oldest| u64::from(oldest.get()) <= taken);
        assert!(seen || taken >= shape, "a snapshot was overlooked");
    }
}

/// In the model of the registry.
const PUBLICATIONS: u64 = 2;

/// Transactions 2 and on belong to the second shape: readers of the first must not take them.
fn visible() {
    let seq = Arc::new(Shared::new(1));
    let newest = Arc::new(Shared::new(1));
    let writer = {
        let (seq, newest) = (Arc::clone(&seq), Arc::clone(&newest));
        thread::spawn(move || {
            seq.store(2, Ordering::SeqCst);
            newest.store(2, Ordering::Release);
        })
    };
    let visible = newest.load(Ordering::Acquire);
    fence(Ordering::Acquire);
    if seq.load(Ordering::SeqCst) == 1 {
        assert_eq!(visible, 1, "the old shape does not hold what is visible");
    }
    writer.join().expect("the writer ends");
}

const PAGE: PageId = PageId::new(7);

/// A frame, its bytes, and the domain that guards it.
struct Cached {
    domain: Domain,
    frame: Frame,
    bytes: UnsafeCell<u8>,
}

impl Cached {
    #[expect(
        clippy::arc_with_non_send_sync,
        reason = "whether the bytes may be shared is what the model finds out"
    )]
    fn new() -> Arc<Self> {
        let cached = Self {
            domain: Domain::new(),
            frame: Frame::new(),
            bytes: UnsafeCell::new(1),
        };
        link(&cached.frame, PAGE);
        Arc::new(cached)
    }

    fn read(&self) {
        // Tells the model that the bytes are looked at; it fails if they can be written at the same time.
        self.bytes.with(|_| ());
    }

    /// As `Arena::retire` and `Arena::reclaim`: unlinks the page, and writes the frame if nobody can be in it.
    fn reuse(&self) {
        assert!(unlink(&self.frame, PAGE), "the page was linked");
        let stamp = self.domain.stamp();
        self.domain.advance(stamp);
        if self.domain.min_active() > stamp && self.frame.is_unpinned() {
            self.bytes.with_mut(|_| ());
        }
    }
}

fn epoch() {
    let cached = Cached::new();
    let reader = {
        let cached = Arc::clone(&cached);
        thread::spawn(move || {
            let slot = cached.domain.register();
            // Twice: the second time it may find the domain moved on.
            for _ in 0..2 {
                cached.domain.announce(slot);
                if cached.frame.holds(PAGE) {
                    cached.read();
                }
                slot.withdraw();
            }
            slot.unregister();
        })
    };
    cached.reuse();
    reader.join().expect("the reader ends");
}

fn pins() {
    let cached = Cached::new();
    let reader = {
        let cached = Arc::clone(&cached);
        thread::spawn(move || {
            let slot = cached.domain.register();
            cached.domain.announce(slot);
            let pinned = cached.frame.holds(PAGE);
            if pinned {
                cached.frame.pin();
            }
            slot.withdraw();
            if pinned {
                cached.read();
                cached.frame.unpin();
            }
        })
    };
    cached.reuse();
    reader.join().expect("the reader ends");
}

/// The second hand-over rule of the pipeline: whoever appends raises the flag and tries to take the role; whoever gives
/// it back looks at the flag.
fn role() {
    let shared = Arc::new((AtomicBool::new(false), Mutex::new(0_u32)));
    let drive = |shared: &(AtomicBool, Mutex<u32>)| {
        while let Some(mut role) = try_take(&shared.1) {
            if shared.0.load(Ordering::SeqCst) {
                shared.0.store(false, Ordering::SeqCst);
                *role += 1;
            }
            drop(role);
            if !is_raised(&shared.0) {
                break;
            }
        }
    };
    let other = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            shared.0.store(true, Ordering::SeqCst);
            drive(&shared);
        })
    };
    // Holds the role for nothing, as somebody whose own group is written does.
    drive(&shared);
    other.join().expect("the other ends");
    assert_eq!(*shared.1.lock(), 1, "work was left lying");
}

fn bell() {
    let shared = Arc::new((Bell::default(), Shared::new(0)));
    let waiters: Vec<_> = (1..=2)
        .map(|wanted| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let ready = || shared.1.load(Ordering::Acquire) >= wanted;
                assert!(shared.0.wait(None, ready), "woken for nothing");
            })
        })
        .collect();
    for visible in 1..=2 {
        shared.1.store(visible, Ordering::Release);
        assert!(shared.0.ring().is_empty());
    }
    for waiter in waiters {
        waiter.join().expect("a waiter ends");
    }
}

fn waiters() {
    let tickets: Vec<_> = (0..2).map(|_| Arc::new(Mutex::new(None))).collect();
    let threads: Vec<_> = tickets
        .iter()
        .map(|place| {
            let place = Arc::clone(place);
            thread::spawn(move || {
                let ticket = Ticket::blocking();
                *place.lock() = Some(Arc::clone(&ticket));
                let commit = ticket.wait().expect("nobody is asked to lead");
                assert_eq!(commit.map(|commit| commit.lsn), Ok(Lsn::new(7)));
            })
        })
        .collect();
    let mut left = tickets.len();
    while left > 0 {
        let mut group: Vec<_> = tickets
            .iter()
            .filter_map(|place| place.lock().take())
            .collect();
        left -= group.len();
        assert!(settle_group(&mut group, Lsn::new(7), None).is_empty());
        if left > 0 {
            loom::thread::yield_now();
        }
    }
    for thread in threads {
        thread.join().expect("a waiter ends");
    }
}

fn split() {
    let keys = Arc::new(Keys::new());
    let mut way = WayIn::default();
    for key in [b"10", b"20", b"30", b"40"] {
        keys.insert(key, &mut way);
    }
    let reader = {
        let keys = Arc::clone(&keys);
        thread::spawn(move || {
            for key in [b"30", b"10"] {
                assert_eq!(keys.find(key), Some(&key[..]), "a key was not found");
            }
        })
    };
    // Splits the leaf, and puts the new key where one was that moved.
    keys.insert(b"15", &mut way);
    reader.join().expect("the reader ends");
    assert_eq!(keys.walk(true), [b"10", b"15", b"20", b"30", b"40"]);
}

/// What was there before is walked by once, in order; what is added meanwhile may be seen.
fn walk(forward: bool) {
    let keys = Arc::new(Keys::new());
    let mut way = WayIn::default();
    for key in [b"10", b"20", b"30", b"40"] {
        keys.insert(key, &mut way);
    }
    let reader = {
        let keys = Arc::clone(&keys);
        thread::spawn(move || {
            let mut seen = keys.walk(forward);
            if !forward {
                seen.reverse();
            }
            seen.retain(|key| *key != b"15");
            assert_eq!(seen, [b"10", b"20", b"30", b"40"], "forward {forward}");
        })
    };
    keys.insert(b"15", &mut way);
    reader.join().expect("the reader ends");
}

fn filter() {
    const HASH: u64 = 0x1234_5678_9abc_def1;
    const OTHER: u64 = 0x9234_5678_1abc_def7;
    let shared = Arc::new((Hashes::new(), RecordLink::default()));
    let reader = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            if shared.1.is_raised() {
                assert!(shared.0.may_contain(HASH), "a visible key was denied");
            }
        })
    };
    shared.0.insert(HASH);
    shared.1.raise();
    shared.0.insert(OTHER);
    reader.join().expect("the reader ends");
}
