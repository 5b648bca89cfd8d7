//! A bounded queue, before each operation of which another thread may run.

use super::pause;

/// As its namesake of `crossbeam-queue`.
#[derive(Debug)]
pub(crate) struct ArrayQueue<T>(crossbeam_queue::ArrayQueue<T>);

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(crossbeam_queue::ArrayQueue::new(capacity))
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        pause();
        self.0.push(value)
    }

    pub(crate) fn pop(&self) -> Option<T> {
        pause();
        self.0.pop()
    }

    pub(crate) fn len(&self) -> usize {
        pause();
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        pause();
        self.0.is_empty()
    }
}
