//! Which thread runs next: drawn per seed, so that each way of choosing finds what the others miss.
//!
//! - Random walks switch every so many steps, to anybody: short windows between two threads.
//! - Priorities let the first thread that can run go on until it cannot, but for a few points where it falls behind all
//!   others: long delays in one place. Source: Burckhardt et al., A randomized scheduler with probabilistic guarantees
//!   of finding bugs (2010).

use crate::rng::Rng;

/// How a seed chooses.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Draws all that follows.
    pub rng: Rng,
    order: Order,
    /// One in so many decisions wakes somebody for no reason; never at 0.
    spurious: u64,
    /// One in so many decisions ends somebody's wait before its time; never at 0.
    hasty: u64,
    /// One in so many decisions puts a thread off the processor for long; never at 0.
    stalls: u64,
    /// No wait ends by time: whoever needs waking must be woken.
    pub still: bool,
}

#[derive(Debug, Clone)]
enum Order {
    /// Anybody, after `gap` steps on average.
    Random { gap: u64 },
    /// By priority. `changes` are the steps, falling, at which the running thread falls behind; `lowest` is what it
    /// then gets.
    Priorities {
        of: Vec<u64>,
        changes: Vec<u64>,
        lowest: u64,
    },
}

/// Priorities begin above this; below are those of threads that fell behind.
const PRIORITY_MIN: u64 = 1 << 32;

impl Policy {
    /// The policy of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(17);
        let order = if rng.chance(60) {
            Order::Random {
                gap: rng.pick(&[2, 5, 15, 40, 150, 600]),
            }
        } else {
            let within = rng.pick(&[200, 1_000, 5_000, 20_000]);
            let mut changes: Vec<u64> = (0..rng.between(1, 6)).map(|_| rng.below(within)).collect();
            changes.sort_unstable_by(|a, b| b.cmp(a));
            Order::Priorities {
                of: Vec::new(),
                changes,
                lowest: PRIORITY_MIN,
            }
        };
        Self {
            order,
            spurious: rng.pick(&[0, 0, 0, 50, 500]),
            hasty: rng.pick(&[0, 0, 100, 1_000]),
            stalls: rng.pick(&[0, 0, 30, 200]),
            still: rng.chance(50),
            rng,
        }
    }

    /// Steps until the next decision, at step `now`.
    pub fn pauses(&mut self, now: u64) -> u32 {
        let pauses = match &self.order {
            Order::Random { gap } => self.rng.below(2 * gap),
            Order::Priorities { changes, .. } => changes
                .last()
                .map_or(1_000, |change| change.saturating_sub(now).min(1_000)),
        };
        u32::try_from(pauses).unwrap_or(u32::MAX)
    }

    /// True if whoever was just woken must be looked at before the running thread goes on.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        matches!(self.order, Order::Priorities { .. })
    }

    /// Which of the threads `ready` (never empty) runs on from step `now`. `aside`: the one that runs waits for others.
    pub fn choose(&mut self, ready: &[usize], running: usize, now: u64, aside: bool) -> usize {
        match &mut self.order {
            Order::Random { .. } => {
                let others = || ready.iter().filter(|thread| **thread != running);
                let count = others().count();
                if aside && count > 0 {
                    let nth = self.rng.index(count);
                    return others().nth(nth).copied().unwrap_or(running);
                }
                ready[self.rng.index(ready.len())]
            }
            Order::Priorities {
                of,
                changes,
                lowest,
            } => {
                let most = ready.iter().copied().max().unwrap_or(0).max(running);
                while of.len() <= most {
                    of.push(PRIORITY_MIN + self.rng.below(1 << 32));
                }
                let mut fell = aside;
                while changes.pop_if(|change| *change <= now).is_some() {
                    fell = true;
                }
                if fell {
                    *lowest -= 1;
                    of[running] = *lowest;
                }
                let best = ready.iter().copied().max_by_key(|thread| of[*thread]);
                best.unwrap_or(running)
            }
        }
    }

    /// Whether somebody is woken for no reason now.
    pub fn spurious(&mut self) -> bool {
        self.spurious > 0 && self.rng.below(self.spurious) == 0
    }

    /// Whether somebody's wait ends before its time now.
    pub fn hasty(&mut self) -> bool {
        self.hasty > 0 && !self.still && self.rng.below(self.hasty) == 0
    }

    /// For how many steps the running thread is put off the processor now.
    pub fn stall(&mut self) -> Option<u64> {
        if self.stalls == 0 || self.rng.below(self.stalls) != 0 {
            return None;
        }
        Some(self.rng.pick(&[30, 300, 3_000]))
    }
}
