//! The delta's memory: one reserved mapping, handed out from the front, given back as a whole, to the next delta if it has
//! a use for it.
//!
//! Offsets are 32 bits wide in units of 8 bytes, so an arena spans at most 32 GiB. Two kinds of thing live in it:
//! *nodes*, structs of atomics that start out all zero, and *records*, whose bytes are written once, before anyone
//! can know where they are. An [`At`] is the typed address of one of them.
//!
//! Invariants:
//! 1. An [`At<T>`] is made here only, when its target is complete: by [`Arena::alloc`] and [`Arena::alloc_record`],
//!    and by loading a link that such an address was stored in.
//! 2. An address reaches another thread only through a [`Link`] or [`Fork`], whose stores are `Release` and whose loads
//!    are `Acquire`, or through something at least as strong. So who holds an `At` also sees what is behind it.
//! 3. The bytes of a record never change, except its `aborted` byte, which is atomic. A node is all atomics.
//! 4. No byte is handed out twice: `used` only grows.
//! 5. A node's bytes are zero before anyone can know where they are: those of a fresh mapping are, those that an earlier
//!    arena may have written are made so.
//! 6. An `At` is used with the arena it came from. The arena is a private field of one `Delta`, and no address
//!    leaves the delta's folder.
//!
//! - Threads: any. In practice one thread allocates and many read.
//! - Failure: an arena with no room says [`ArenaFull`] and stays as it was.
#![expect(
    unsafe_code,
    reason = "typed references into one mapping shared by a writer and its readers"
)]

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::Arc;

use northstar_io::{Buf, IoError, Mapping};
use zerocopy::FromZeros;

use crate::prefetch::prefetch_line;
use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Bytes of one offset step.
const UNIT: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes at the start that are never handed out, so that offset 0 can mean "none".
const RESERVED_BYTES: usize = 64;
/// Most bytes that 32-bit offsets can address.
pub(super) const ARENA_BYTES_MAX: usize = (u32::MAX as usize) * UNIT;

/// The arena has no room for an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("delta arena is full: {wanted} bytes wanted, {free} left")]
pub(crate) struct ArenaFull {
    /// Bytes asked for.
    pub(crate) wanted: usize,
    /// Bytes left.
    pub(crate) free: usize,
}

/// The address of a complete `T` in the arena.
pub(super) struct At<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> At<T> {
    fn from_units(units: u32) -> Option<Self> {
        NonZeroU32::new(units).map(|units| Self(units, PhantomData))
    }

    /// Bytes from the start of the arena. Later allocations lie at higher offsets.
    pub(super) fn offset(self) -> usize {
        self.0.get() as usize * UNIT
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
impl<T> Eq for At<T> {}
impl<T> fmt::Debug for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.offset())
    }
}

/// A shared place that holds an address or none. Zero bytes mean none.
#[derive(FromZeros)]
#[repr(transparent)]
pub(super) struct Link<T>(AtomicU32, PhantomData<fn() -> T>);

impl<T> Link<T> {
    /// The address stored last. Pairs with [`Link::store`].
    #[inline]
    pub(super) fn load(&self) -> Option<At<T>> {
        At::from_units(self.0.load(Ordering::Acquire))
    }

    /// Publishes `at` and everything written before.
    #[inline]
    pub(super) fn store(&self, at: At<T>) {
        self.0.store(at.0.get(), Ordering::Release);
    }
}

/// One of two kinds of node.
pub(super) enum Either<A, B> {
    /// The first kind.
    Low(At<A>),
    /// The second kind.
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

/// A [`Link`] to one of two kinds of node, told apart by the lowest bit.
#[derive(FromZeros)]
#[repr(transparent)]
pub(super) struct Fork<A, B>(AtomicU32, PhantomData<fn() -> (A, B)>);

impl<A, B> Fork<A, B> {
    // Both kinds start at even multiples of the unit, so the lowest bit of an offset is free for the kind.
    const ALIGNED: () = assert!(align_of::<A>() >= 2 * UNIT && align_of::<B>() >= 2 * UNIT);

    /// The address stored last. Pairs with [`Fork::store`].
    #[inline]
    pub(super) fn load(&self) -> Option<Either<A, B>> {
        let bits = self.0.load(Ordering::Acquire);
        if bits & 1 == 0 {
            At::from_units(bits).map(Either::Low)
        } else {
            At::from_units(bits & !1).map(Either::High)
        }
    }

    /// Publishes `at` and everything written before.
    #[inline]
    pub(super) fn store(&self, at: Either<A, B>) {
        let () = Self::ALIGNED;
        let bits = match at {
            Either::Low(at) => at.0.get(),
            Either::High(at) => at.0.get() | 1,
        };
        self.0.store(bits, Ordering::Release);
    }
}

/// What [`At<Record>`] points at: a head, the key, the value. Read through [`Arena::record`].
pub(super) enum Record {}

/// The head of a record as it lies in the arena, 4-byte aligned so that the key follows without a gap.
#[repr(C)]
struct Head {
    txn: [u32; 2],
    older: u32,
    value_len: u32,
    key_len: u16,
    kind: u8,
    aborted: AtomicU8,
}

const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES == 20 && align_of::<Head>() == 4);

/// What a new record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewRecord<'a> {
    /// The transaction that writes it.
    pub(super) txn: u64,
    /// The record it supersedes.
    pub(super) older: Option<At<Record>>,
    /// Opaque here.
    pub(super) kind: u8,
    /// At most `u16::MAX` bytes.
    pub(super) key: &'a [u8],
    /// At most `u32::MAX` bytes.
    pub(super) value: &'a [u8],
}

impl NewRecord<'_> {
    /// Bytes the record takes in an arena.
    pub(super) fn arena_bytes(&self) -> usize {
        (HEAD_BYTES + self.key.len() + self.value.len()).next_multiple_of(UNIT)
    }
}

/// A record in the arena.
#[derive(Clone, Copy)]
pub(super) struct RecordRef<'a> {
    head: &'a Head,
    /// The key's bytes.
    pub(super) key: &'a [u8],
    /// The value's bytes.
    pub(super) value: &'a [u8],
}

impl RecordRef<'_> {
    /// The transaction that wrote it.
    #[inline]
    pub(super) fn txn(&self) -> u64 {
        u64::from(self.head.txn[0]) | u64::from(self.head.txn[1]) << 32
    }

    /// The record it supersedes. It was complete before this one was written, so it is visible too.
    #[inline]
    pub(super) fn older(&self) -> Option<At<Record>> {
        At::from_units(self.head.older)
    }

    /// What [`NewRecord::kind`] said.
    #[inline]
    pub(super) fn kind(&self) -> u8 {
        self.head.kind
    }

    /// Whether the record was taken back. Relaxed: a snapshot that could see the record's transaction was published
    /// after it, hence after every roll-back before it, and that publication orders this load.
    #[inline]
    pub(super) fn is_aborted(&self) -> bool {
        self.head.aborted.load(Ordering::Relaxed) != 0
    }

    /// Takes the record back for good. Ordered by the publication of the next visible transaction.
    pub(super) fn abort(&self) {
        self.head.aborted.store(1, Ordering::Relaxed);
    }
}

/// The memory of an arena that ended, for the next one: what the system hands out anew costs it a zeroed page, and on a
/// virtual machine often one of the host's too.
pub(super) struct Spare {
    /// At most one.
    worn: ArrayQueue<Worn>,
    /// Bytes that are kept of one; what a large transaction took beyond is given back.
    kept_bytes: usize,
}

/// A mapping and how many bytes at its start may be other than zero.
struct Worn {
    mapping: Mapping,
    touched: usize,
}

impl Spare {
    /// Room for one mapping, of which at most so many bytes stay in memory.
    pub(super) fn new(kept_bytes: usize) -> Self {
        Self {
            worn: ArrayQueue::new(1),
            kept_bytes: kept_bytes.next_multiple_of(Buf::ALIGN),
        }
    }

    #[cfg(test)]
    pub(super) fn is_there(&self) -> bool {
        !self.worn.is_empty()
    }

    /// Gives back to the system what is there.
    pub(super) fn release(&self) {
        drop(self.worn.pop());
    }

    fn take(&self, bytes: usize) -> Option<Worn> {
        self.worn.pop().filter(|worn| worn.mapping.len() >= bytes)
    }

    fn put(&self, worn: Worn) {
        let kept = self.kept_bytes.min(worn.mapping.len());
        if worn.touched > kept {
            // SAFETY: the arena that handed these bytes out has ended, so nobody has an address in them.
            unsafe { worn.mapping.release(kept, worn.mapping.len() - kept) };
        }
        // With another one there, this one goes.
        drop(self.worn.push(worn));
    }
}

/// The arena itself.
pub(super) struct Arena {
    base: NonNull<u8>,
    capacity: usize,
    used: AtomicUsize,
    /// Owns what `base` points at. There until the arena is dropped.
    mapping: Option<Mapping>,
    /// Bytes at the start that an earlier arena may have written.
    touched: usize,
    /// Where the mapping goes.
    spare: Arc<Spare>,
}

// SAFETY: `base` points into the mapping the arena owns; what is shared behind it is atomic or no longer changes
// (invariants 2 and 3), and allocation is an atomic bump (invariant 4).
unsafe impl Send for Arena {}
// SAFETY: as above; every method takes `&self` with these invariants in mind.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves an arena of `bytes`; memory is taken as it is used.
    pub(super) fn reserve(bytes: usize, spare: &Arc<Spare>) -> Result<Self, IoError> {
        let bytes = bytes.clamp(RESERVED_BYTES, ARENA_BYTES_MAX);
        let Worn { mapping, touched } = match spare.take(bytes) {
            Some(worn) => worn,
            None => Worn {
                mapping: Mapping::reserve(bytes)?,
                touched: 0,
            },
        };
        Ok(Self {
            base: mapping.as_ptr(),
            capacity: mapping.len().min(ARENA_BYTES_MAX),
            used: AtomicUsize::new(RESERVED_BYTES),
            touched,
            mapping: Some(mapping),
            spare: Arc::clone(spare),
        })
    }

    /// Bytes handed out so far.
    pub(super) fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn start(&self) -> *const u8 {
        self.base.as_ptr()
    }

    #[cfg(test)]
    pub(super) fn touched(&self) -> usize {
        self.touched
    }

    /// Says no now if `wanted` more bytes would not fit.
    pub(super) fn require(&self, wanted: usize) -> Result<(), ArenaFull> {
        let free = self.capacity - self.used_bytes();
        if wanted > free {
            return Err(ArenaFull { wanted, free });
        }
        Ok(())
    }

    /// A new node, all zero.
    pub(super) fn alloc<T: FromZeros + Sync>(&self) -> Result<At<T>, ArenaFull> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) };
        let units = self.bump(size_of::<T>(), align_of::<T>().max(UNIT))?;
        let start = units.get() as usize * UNIT;
        if start < self.touched {
            let node = self.at(start, size_of::<T>());
            // SAFETY: in bounds; `bump` gave these bytes to nobody else, and nobody can know their address yet.
            unsafe { node.write_bytes(0, size_of::<T>()) };
        }
        // Zero bytes are a `T`.
        Ok(At(units, PhantomData))
    }

    /// The node at `at`.
    #[inline]
    pub(super) fn get<T: FromZeros + Sync>(&self, at: At<T>) -> &T {
        let node = self.at(at.offset(), size_of::<T>()).cast::<T>();
        // SAFETY: `at` came from `alloc::<T>` (invariants 1, 5 and 6), so a zeroed, hence valid, aligned `T` starts here,
        // and no other kind of reference to these bytes is ever made. `T` is `Sync`.
        unsafe { node.as_ref() }
    }

    /// Writes a record.
    ///
    /// # Panics
    /// If a length does not fit its field: the writer has checked both long before.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves of a 64-bit number"
    )]
    pub(super) fn alloc_record(&self, new: NewRecord<'_>) -> Result<At<Record>, ArenaFull> {
        let (Ok(key_len), Ok(value_len)) =
            (u16::try_from(new.key.len()), u32::try_from(new.value.len()))
        else {
            panic!(
                "key of {} or value of {} bytes",
                new.key.len(),
                new.value.len()
            );
        };
        let units = self.bump(new.arena_bytes(), UNIT)?;
        let start = self.at(units.get() as usize * UNIT, new.arena_bytes());
        let head = Head {
            txn: [new.txn as u32, (new.txn >> 32) as u32],
            older: new.older.map_or(0, |at| at.0.get()),
            value_len,
            key_len,
            kind: new.kind,
            aborted: AtomicU8::new(0),
        };
        // SAFETY: `bump` gave these `arena_bytes` to nobody else, and nobody can know their address yet; they are
        // aligned to 8.
        unsafe { start.cast::<Head>().write(head) };
        // SAFETY: the key follows the head, inside the same fresh bytes.
        let key = unsafe { start.add(HEAD_BYTES) };
        // SAFETY: `key.len()` fresh bytes start here; a borrowed slice cannot overlap bytes without an address.
        unsafe { key.copy_from_nonoverlapping(NonNull::from(new.key).cast(), new.key.len()) };
        // SAFETY: the value follows the key, inside the same fresh bytes.
        let value = unsafe { key.add(new.key.len()) };
        // SAFETY: as for the key.
        unsafe { value.copy_from_nonoverlapping(NonNull::from(new.value).cast(), new.value.len()) };
        Ok(At(units, PhantomData))
    }

    /// The record at `at`.
    #[inline]
    pub(super) fn record(&self, at: At<Record>) -> RecordRef<'_> {
        let start = self.at(at.offset(), HEAD_BYTES);
        // SAFETY: `at` came from `alloc_record` (invariants 1 and 6), so a head was written here and is visible
        // (invariant 2); its plain fields never change again (invariant 3).
        let head = unsafe { start.cast::<Head>().as_ref() };
        let (key_len, value_len) = (usize::from(head.key_len), head.value_len as usize);
        // SAFETY: `alloc_record` put that many bytes of key and value behind the head, in one allocation.
        let key = unsafe { start.add(HEAD_BYTES) };
        // SAFETY: as above.
        let value = unsafe { key.add(key_len) };
        // SAFETY: written before the address was known, never changed since; alive as long as the arena, hence `self`.
        let key = unsafe { NonNull::slice_from_raw_parts(key, key_len).as_ref() };
        // SAFETY: as above.
        let value = unsafe { NonNull::slice_from_raw_parts(value, value_len).as_ref() };
        RecordRef { head, key, value }
    }

    /// Asks the processor for the first cache line of a record. Has no effect that a program could see.
    #[inline]
    pub(super) fn warm_record(&self, at: At<Record>) {
        self.warm(at.offset());
    }

    /// Asks the processor for all cache lines of a node.
    #[inline]
    pub(super) fn warm_node<T>(&self, at: At<T>) {
        for line in 0..size_of::<T>() / LINE {
            self.warm(at.offset() + line * LINE);
        }
    }

    #[inline]
    fn warm(&self, offset: usize) {
        prefetch_line(self.base.as_ptr().wrapping_add(offset));
    }

    /// Takes `bytes` from the front.
    fn bump(&self, bytes: usize, align: usize) -> Result<NonZeroU32, ArenaFull> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let start = used.next_multiple_of(align);
            let end = start
                .checked_add(bytes)
                .map(|end| end.next_multiple_of(UNIT));
            let Some(end) = end.filter(|&end| end <= self.capacity) else {
                let free = self.capacity - used;
                return Err(ArenaFull {
                    wanted: bytes,
                    free,
                });
            };
            // Relaxed: the counter gives out disjoint ranges and orders nothing; publication is the links' work.
            match self
                .used
                .compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    let units = u32::try_from(start / UNIT).ok().and_then(NonZeroU32::new);
                    return units.ok_or(ArenaFull {
                        wanted: bytes,
                        free: 0,
                    });
                }
                Err(now) => used = now,
            }
        }
    }

    /// The address `offset` bytes in, with `bytes` more behind it.
    #[inline]
    fn at(&self, offset: usize, bytes: usize) -> NonNull<u8> {
        assert!(
            offset + bytes <= self.capacity,
            "{bytes} bytes at {offset} of an arena of {}",
            self.capacity
        );
        // SAFETY: the mapping has at least `capacity` bytes from `base` on, and the sum was checked against it.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let touched = self.touched.max(self.used_bytes());
        if let Some(mapping) = self.mapping.take() {
            self.spare.put(Worn { mapping, touched });
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} of {} bytes)", self.used_bytes(), self.capacity)
    }
}
