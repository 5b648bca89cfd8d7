//! In the place of the delta's arena: the same addresses and links, over boxes instead of a mapping.
//!
//! That a node is zero before its first use, and that records never change, holds here by construction.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering as Plain};

use crate::sync::atomic::{AtomicU32, Ordering};

/// Nodes and records of a model.
const PLACES: usize = 64;

/// What can stand in fresh memory.
pub(super) trait FromZeros: Default + Send + 'static {}
impl<T: Default + Send + 'static> FromZeros for T {}

/// There was no room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArenaFull;

/// The address of a `T`. Even, so that the lowest bit is free.
pub(super) struct At<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> At<T> {
    fn from_bits(bits: u32) -> Option<Self> {
        NonZeroU32::new(bits).map(|bits| Self(bits, PhantomData))
    }

    fn index(self) -> usize {
        self.0.get() as usize / 2
    }

    pub(super) fn offset(self) -> usize {
        self.index()
    }
}

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for At<T> {}
impl<T> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> fmt::Debug for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A shared place that holds an address or none.
pub(crate) struct Link<T>(AtomicU32, PhantomData<fn() -> T>);

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self(AtomicU32::new(0), PhantomData)
    }
}

impl<T> Link<T> {
    pub(super) fn load(&self) -> Option<At<T>> {
        At::from_bits(self.0.load(Ordering::Acquire))
    }

    pub(super) fn store(&self, at: At<T>) {
        self.0.store(at.0.get(), Ordering::Release);
    }

    /// Publishes something, for a model without records.
    pub(crate) fn raise(&self) {
        self.0.store(2, Ordering::Release);
    }

    /// Whether something was published.
    pub(crate) fn is_raised(&self) -> bool {
        self.load().is_some()
    }
}

/// One of two kinds of node.
pub(super) enum Either<A, B> {
    Low(At<A>),
    High(At<B>),
}

impl<A, B> Clone for Either<A, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A, B> Copy for Either<A, B> {}
impl<A, B> PartialEq for Either<A, B> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Low(a), Self::Low(b)) => a == b,
            (Self::High(a), Self::High(b)) => a == b,
            (Self::Low(_), Self::High(_)) | (Self::High(_), Self::Low(_)) => false,
        }
    }
}

/// A link to one of two kinds of node.
pub(super) struct Fork<A, B>(AtomicU32, PhantomData<fn() -> (A, B)>);

impl<A, B> Default for Fork<A, B> {
    fn default() -> Self {
        Self(AtomicU32::new(0), PhantomData)
    }
}

impl<A, B> Fork<A, B> {
    pub(super) fn load(&self) -> Option<Either<A, B>> {
        let bits = self.0.load(Ordering::Acquire);
        if bits & 1 == 0 {
            At::from_bits(bits).map(Either::Low)
        } else {
            At::from_bits(bits & !1).map(Either::High)
        }
    }

    pub(super) fn store(&self, at: Either<A, B>) {
        let bits = match at {
            Either::Low(at) => at.0.get(),
            Either::High(at) => at.0.get() | 1,
        };
        self.0.store(bits, Ordering::Release);
    }
}

/// What `At<Record>` points at.
pub(crate) enum Record {}

/// A record: a value that the first transaction stored.
#[derive(Clone, Copy)]
pub(super) struct RecordRef<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl RecordRef<'_> {
    pub(super) fn txn(&self) -> u64 {
        1
    }

    pub(super) fn older(&self) -> Option<At<Record>> {
        None
    }

    pub(super) fn kind(&self) -> u8 {
        super::version::PUT
    }

    pub(super) fn is_aborted(&self) -> bool {
        false
    }
}

/// The boxes.
pub(super) struct Arena {
    places: [OnceLock<Box<dyn Any + Send + Sync>>; PLACES],
    // Not a part of the model: addresses are given out by one thread.
    used: AtomicUsize,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            places: [const { OnceLock::new() }; PLACES],
            used: AtomicUsize::new(1),
        }
    }
}

impl Arena {
    fn put<T>(&self, what: Box<dyn Any + Send + Sync>) -> Result<At<T>, ArenaFull> {
        let index = self.used.fetch_add(1, Plain::Relaxed);
        let place = self.places.get(index).ok_or(ArenaFull)?;
        place.set(what).map_err(|_| ArenaFull)?;
        let bits = u32::try_from(index * 2).map_err(|_| ArenaFull)?;
        At::from_bits(bits).ok_or(ArenaFull)
    }

    fn place<T: 'static>(&self, index: usize) -> &T {
        let found = self.places.get(index).and_then(OnceLock::get);
        let found = found.and_then(|found| found.downcast_ref());
        found.expect("an address is made with what it points at")
    }

    pub(super) fn alloc<T: FromZeros + Sync>(&self) -> Result<At<T>, ArenaFull> {
        self.put(Box::new(T::default()))
    }

    pub(super) fn get<T: FromZeros + Sync>(&self, at: At<T>) -> &T {
        self.place(at.index())
    }

    pub(super) fn alloc_record(&self, key: &'static [u8]) -> At<Record> {
        self.put(Box::new(RecordRef { key, value: &[] }))
            .expect("the model's arena has room")
    }

    pub(super) fn record(&self, at: At<Record>) -> RecordRef<'_> {
        *self.place::<RecordRef<'static>>(at.index())
    }

    pub(super) fn warm_record(&self, _at: At<Record>) {}

    pub(super) fn warm_node<T>(&self, _at: At<T>) {}
}
