//! What memory and one core do with no database in between: streams, loads that wait for each other, a sorted map.
//!
//! Memory is as large as the data that a row is about, so that both meet the same caches.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::data::{Rng, Rows};
use crate::error::Result;
use crate::sample::{Sample, Until, measure};

/// Bytes of a cache line.
const LINE_BYTES: u64 = 64;
/// Words of a cache line.
const LINE_WORDS: usize = 8;
/// Loads of one get: a branch, a leaf's head, the row in it.
const GET_LOADS: u32 = 3;

/// Cache lines in a circle of random order. Each holds the place of the next, so a load begins when the one before it has
/// ended: what a search in a tree waits for.
#[derive(Debug)]
pub(crate) struct Chase {
    words: Vec<u64>,
    at: u64,
}

impl Chase {
    /// Over `bytes` of memory.
    pub(crate) fn new(bytes: u64, rng: &mut Rng) -> Self {
        let order = rng.permutation((bytes / LINE_BYTES).max(2));
        let mut words = vec![0; order.len() * LINE_WORDS];
        let nexts = order.iter().skip(1).chain(order.first());
        for (line, next) in order.iter().zip(nexts) {
            words[*line as usize * LINE_WORDS] = *next;
        }
        Self { words, at: 0 }
    }

    /// As many loads as a get waits for, one after the other, in batches of 16.
    pub(crate) fn run(&mut self, until: Until) -> Result<Sample> {
        measure(until, 16, |_| {
            for _ in 0..GET_LOADS {
                self.at = self.words[self.at as usize * LINE_WORDS];
            }
            black_box(self.at);
            Ok(())
        })
    }
}

/// Memory that is read from front to back, every word added.
#[derive(Debug)]
pub(crate) struct Stream {
    words: Vec<u64>,
}

impl Stream {
    /// Of `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            words: (0..(bytes / 8).max(1)).collect(),
        }
    }

    /// `bytes` of it from a random start.
    pub(crate) fn run(&self, until: Until, bytes: u64, rng: &mut Rng) -> Result<Sample> {
        let count = (bytes as usize / 8).min(self.words.len());
        measure(until, 1, |_| {
            let starts = (self.words.len() - count) as u64 + 1;
            let start = rng.below(starts) as usize;
            black_box(sum(&self.words[start..start + count]));
            Ok(())
        })
    }
}

fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Memory read from front to back, every word added, in bytes a second: the best of a few passes.
pub(crate) fn memory_stream(bytes: usize) -> Result<f64> {
    let passes = memory_passes(bytes)?;
    Ok(bytes as f64 * 1e9 / passes.nanos(0.0))
}

/// Four such passes, each an operation.
pub(crate) fn memory_passes(bytes: usize) -> Result<Sample> {
    let Stream { words } = Stream::new(bytes as u64);
    measure(Until::Ops(4), 1, |_| {
        black_box(sum(&words));
        Ok(())
    })
}

/// `count` random rows put into the standard library's sorted map, which begins empty; batches of 16. What the engine
/// does with a row in its delta is no less: a search and a copy.
pub(crate) fn sorted_map(rows: Rows, count: u64, rng: &mut Rng) -> Result<Sample> {
    let mut map = BTreeMap::new();
    let sample = measure(Until::Ops(count.max(1)), 16, |version| {
        let i = rng.below(rows.n);
        map.insert(rows.key(i), rows.value(i, version));
        Ok(())
    })?;
    black_box(map.len());
    Ok(sample)
}

/// A store, a full fence, a load, and a store that takes it back, of one word of this thread's own; batches of 64. The least
/// that announcing a snapshot to other threads can cost.
pub(crate) fn announcement(until: Until) -> Result<Sample> {
    let word = AtomicU64::new(0);
    let word = black_box(&word);
    measure(until, 64, |index| {
        // The orderings are those of a slot that another thread would read; here they only have their price.
        word.store(index | 1, Ordering::SeqCst);
        black_box(word.load(Ordering::Acquire));
        word.store(0, Ordering::Release);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chase_comes_by_every_line_before_it_is_back() {
        let chase = Chase::new(100 * LINE_BYTES, &mut Rng::new(1, 1));
        let (mut at, mut steps) = (0, 0);
        loop {
            at = chase.words[at as usize * LINE_WORDS];
            steps += 1;
            if at == 0 {
                break;
            }
        }
        assert_eq!(steps, 100);
    }

    #[test]
    fn the_floors_of_memory_run() {
        let mut rng = Rng::new(1, 1);
        assert_eq!(
            Chase::new(1 << 12, &mut rng)
                .run(Until::Ops(32))
                .unwrap()
                .ops,
            32
        );
        // More than there is: all of it.
        let stream = Stream::new(1 << 12);
        assert_eq!(stream.run(Until::Ops(5), 1 << 20, &mut rng).unwrap().ops, 5);
        assert!(memory_stream(1 << 20).unwrap() > 0.0);
        let rows = Rows::new(100);
        assert_eq!(sorted_map(rows, 64, &mut rng).unwrap().ops, 64);
        assert_eq!(announcement(Until::Ops(128)).unwrap().ops, 128);
    }
}
