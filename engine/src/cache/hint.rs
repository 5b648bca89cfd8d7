//! Where the children of resident branches are: a frame number per child, kept beside the branch's frame.
//!
//! A hint is a guess. Whoever follows it compares the page id in the frame, so a stale hint, a reused block or a
//! wrong index costs a look-up in the map and nothing else. That is why blocks are neither cleared nor locked.

use crate::sync::atomic::{AtomicU32, Ordering};

use crate::sync::ArrayQueue;

use super::map::zeroed;

/// Children of a branch that get hints; the rest are found through the map.
pub(crate) const CHILDREN_MAX: usize = 768;
/// One block for so many frames: a branch has some hundred children.
const FRAMES_PER_BLOCK: u32 = 16;
/// Most blocks: their numbers are 16 bits wide, and 0 is none.
const BLOCKS_MAX: u32 = u16::MAX as u32;

/// Blocks of hints, lent to branch frames. Block 0 is never lent.
#[derive(Debug)]
pub(super) struct HintPool {
    hints: Box<[AtomicU32]>,
    free: ArrayQueue<u16>,
}

impl HintPool {
    /// A pool for a cache of `frames`; memory is taken when first used.
    pub(super) fn new(frames: u32) -> Self {
        let blocks = (frames / FRAMES_PER_BLOCK + 8).min(BLOCKS_MAX);
        let free = ArrayQueue::new(blocks as usize);
        for block in 1..blocks {
            if let Ok(block) = u16::try_from(block) {
                // The queue has room for all of them.
                let _never_full = free.push(block);
            }
        }
        Self {
            hints: zeroed(blocks as usize * CHILDREN_MAX),
            free,
        }
    }

    /// A block for a branch that has become resident; 0 if none is left.
    pub(super) fn lend(&self) -> u16 {
        self.free.pop().unwrap_or(0)
    }

    /// Takes a block back.
    pub(super) fn give_back(&self, block: u16) {
        if block != 0 {
            // The queue has room for all of them.
            let _never_full = self.free.push(block);
        }
    }

    #[inline]
    fn place(&self, block: u16, index: u32) -> Option<&AtomicU32> {
        let index = index as usize;
        if block == 0 || index >= CHILDREN_MAX {
            return None;
        }
        self.hints.get(block as usize * CHILDREN_MAX + index)
    }

    /// The frame that may hold child `index`. Relaxed: see the module's first lines.
    #[inline]
    pub(super) fn get(&self, block: u16, index: u32) -> Option<u32> {
        Some(self.place(block, index)?.load(Ordering::Relaxed))
    }

    /// Notes where child `index` was found.
    pub(super) fn set(&self, block: u16, index: u32, frame: u32) {
        if let Some(hint) = self.place(block, index) {
            hint.store(frame, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_run_out_come_back_and_wild_indexes_are_ignored() {
        let pool = HintPool::new(1);
        let blocks = (0..7).map(|_| pool.lend()).collect::<Vec<_>>();
        assert!(blocks.iter().all(|&block| block != 0));
        assert_eq!(pool.lend(), 0);
        pool.set(0, 5, 9);
        assert_eq!(pool.get(0, 5), None);
        pool.set(blocks[0], 767, 9);
        pool.set(blocks[0], 768, 9);
        assert_eq!(pool.get(blocks[0], 767), Some(9));
        assert_eq!(pool.get(blocks[0], 768), None);
        pool.give_back(blocks[0]);
        assert_eq!(pool.lend(), blocks[0]);
    }
}
