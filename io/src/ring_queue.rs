//! The queue over a ring: makes the ring for the thread that uses it, and does without where none may be had.
//!
//! A ring is made at the first use, for the thread that does it. The fastest kind of ring (completions run only when
//! this thread asks for them) can be driven by no other thread. A queue that is found to have moved, with nothing on
//! its way, gets a ring of the movable kind from then on. With something on its way, `submit` and `poll` answer
//! `EEXIST` until it is back, and dropping it there leaks what is on its way.
//!
//! - Threads: one at a time.
//! - Failure: a refused ring turns the queue into an inline one, with a warning of the disk.

use std::sync::Arc;

use crate::flight::Flight;
use crate::native::Shared;
use crate::plain::errno;
use crate::ring::{DEPTH_MAX, GATHER, Ring, Setup, broken, set_up};
use crate::{Completion, File, IoError, Mapping, Op, Queue, inline};

/// See the module.
pub(crate) struct RingQueue {
    disk: Arc<Shared>,
    depth: u32,
    setup: Setup,
    engine: Engine,
    /// Ended without the ring: misaligned, or on a file of another disk or of one that takes no rings.
    ready: Vec<Completion>,
    mappings: Vec<Arc<Mapping>>,
    files: Vec<Arc<dyn File>>,
}

/// What runs the operations.
enum Engine {
    /// Not yet needed.
    None,
    Ring(Box<Ring>),
    /// A ring was refused: operations run inside `submit`.
    Inline,
}

impl RingQueue {
    /// A queue for `depth` operations on their way; nothing is set up yet.
    pub(crate) fn new(disk: &Arc<Shared>, depth: u32) -> Self {
        Self::with_setup(disk, depth, set_up)
    }

    /// As [`RingQueue::new`], with another way to make rings.
    pub(crate) fn with_setup(disk: &Arc<Shared>, depth: u32, setup: Setup) -> Self {
        Self {
            disk: Arc::clone(disk),
            depth: depth.clamp(1, DEPTH_MAX),
            setup,
            engine: Engine::None,
            ready: Vec::new(),
            mappings: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The ring, made or replaced if need be; `None` if the queue is inline.
    fn ring(&mut self) -> Result<Option<&mut Ring>, IoError> {
        let movable = match &self.engine {
            Engine::None => Some(false),
            Engine::Ring(ring) if ring.usable_here() => None,
            Engine::Ring(ring) if ring.flying > 0 => return Err(broken(libc::EEXIST)),
            Engine::Ring(_) => Some(true),
            Engine::Inline => None,
        };
        if let Some(movable) = movable {
            // The old ring goes first: two at once might be one too many for the user's limits.
            if let Engine::Ring(mut old) = std::mem::replace(&mut self.engine, Engine::None) {
                self.ready.append(&mut old.landed);
            }
            self.engine = match (self.setup)(self.depth.next_power_of_two(), movable) {
                Ok(uring) => {
                    let mut ring = Box::new(Ring::new(uring, self.depth));
                    // What is refused now works unregistered.
                    self.mappings.retain(|mapping| ring.register(mapping));
                    self.files.retain(|file| ring.register_file(file));
                    Engine::Ring(ring)
                }
                Err(error) => {
                    self.disk.warn_ring(errno(&error));
                    Engine::Inline
                }
            };
        }
        match &mut self.engine {
            Engine::Ring(ring) => Ok(Some(ring)),
            Engine::None | Engine::Inline => Ok(None),
        }
    }
}

impl Queue for RingQueue {
    fn submit(&mut self, token: u64, op: Op) -> Result<(), IoError> {
        let Some(ring) = self.ring()? else {
            self.ready.push(inline::run(token, op));
            return Ok(());
        };
        let flight = match Flight::new(token, op) {
            Ok(flight) => flight,
            Err(op) => {
                self.ready.push(inline::run(token, op));
                return Ok(());
            }
        };
        ring.make_room()?;
        ring.take_off(flight);
        if ring.waiting() >= GATHER {
            ring.enter(0)?;
        }
        Ok(())
    }

    fn poll(&mut self, at_least: usize, ended: &mut Vec<Completion>) -> Result<(), IoError> {
        if self.in_flight() == 0 {
            return Ok(());
        }
        // First, for a moved ring leaves its landed ones in `ready`.
        self.ring()?;
        let missing = at_least.saturating_sub(self.ready.len());
        ended.append(&mut self.ready);
        match &mut self.engine {
            Engine::Ring(ring) => ring.poll(missing, ended),
            Engine::None | Engine::Inline => Ok(()),
        }
    }

    fn in_flight(&self) -> usize {
        let ring = match &self.engine {
            Engine::Ring(ring) => ring.flying + ring.landed.len(),
            Engine::None | Engine::Inline => 0,
        };
        self.ready.len() + ring
    }

    fn register(&mut self, mapping: &Arc<Mapping>) -> bool {
        let Ok(Some(ring)) = self.ring() else {
            return false;
        };
        let taken = ring.register(mapping);
        if taken {
            self.mappings.push(Arc::clone(mapping));
        }
        taken
    }

    fn register_file(&mut self, file: &Arc<dyn File>) -> bool {
        let Ok(Some(ring)) = self.ring() else {
            return false;
        };
        let taken = ring.register_file(file);
        if taken {
            self.files.push(Arc::clone(file));
        }
        taken
    }
}

impl std::fmt::Debug for RingQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = match &self.engine {
            Engine::None => "unmade",
            Engine::Ring(ring) if ring.deferred => "deferred",
            Engine::Ring(_) => "movable",
            Engine::Inline => "inline",
        };
        f.debug_struct("RingQueue")
            .field("engine", &engine)
            .field("depth", &self.depth)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}
