//! Memory that the kernel may transfer into and out of: one buffer, or one large mapping.
//!
//! Invariants:
//! 1. A [`Buf`] starts at a multiple of [`Buf::ALIGN`] and its length is a multiple of it: any direct transfer
//!    of a whole buffer is well aligned.
//! 2. A `Buf` is the only way to its bytes while it lives. Moving it into a queue therefore moves the right to
//!    touch them, and the queue may lend them to the kernel.
//! 3. A [`Mapping`] stays where it is until dropped; whoever hands out parts of it (as [`Buf::from_raw`]) keeps
//!    it alive through the `keep` of each part.
//!
//! - Threads: both may move between threads; a mapping may be shared, it gives out only a raw pointer.
//! - Cost: a mapping costs address space until touched; a buffer costs its bytes at once, zeroed. Large buffers are
//!   mappings of their own, so that dropping them gives their memory back to the system and leaves no holes in the heap;
//!   who needs buffers of one size again and again takes them from a [`BufPool`].
#![expect(
    unsafe_code,
    reason = "aligned allocation, mappings, and buffers lent to the kernel"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{IoError, IoKind};

/// A buffer aligned for direct I/O (4 KiB), owned by whoever holds it.
pub struct Buf {
    ptr: NonNull<u8>,
    len: usize,
    owner: Owner,
}

/// Who frees a buffer's bytes.
enum Owner {
    /// The buffer itself: allocated by [`Buf::zeroed`].
    Heap,
    /// A pool, to which the memory goes back; it was allocated as for `Heap`.
    Pool(Arc<BufPool>),
    /// Somebody else, kept alive from here.
    Kept(#[expect(dead_code, reason = "held only for its drop")] Arc<dyn Any + Send + Sync>),
}

// SAFETY: a `Buf` has exclusive access to its bytes (its own allocation, or by the contract of `from_raw`), and
// its keeper is `Send + Sync`; nothing in it is tied to a thread.
unsafe impl Send for Buf {}
// SAFETY: through a shared `Buf` its bytes can only be read.
unsafe impl Sync for Buf {}

impl Buf {
    /// Alignment of the start and of the length, in bytes: what every direct transfer accepts.
    pub const ALIGN: usize = 4096;

    /// From this many bytes on a buffer is a mapping of its own.
    const MAPPED_MIN: usize = 128 * 1024;

    /// A zeroed buffer of `len` bytes; `len` is a multiple of 4096.
    ///
    /// # Panics
    /// If `len` is not a multiple of [`Buf::ALIGN`].
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        assert!(len.is_multiple_of(Self::ALIGN), "buffer of {len} bytes");
        if len == 0 {
            return Self {
                ptr: dangling(),
                len,
                owner: Owner::Heap,
            };
        }
        if len >= Self::MAPPED_MIN
            && let Ok(mapping) = Mapping::reserve(len)
        {
            let ptr = mapping.as_ptr();
            return Self {
                ptr,
                len,
                owner: Owner::Kept(Arc::new(mapping)),
            };
        }
        Self::allocated(len)
    }

    /// A zeroed buffer from the heap; `len` is neither 0 nor ragged.
    fn allocated(len: usize) -> Self {
        let layout = layout(len);
        // SAFETY: the layout's size is not zero, as callers see to.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Self {
            ptr,
            len,
            owner: Owner::Heap,
        }
    }

    /// A buffer over memory that belongs to `keep`, such as a frame of a cache.
    ///
    /// # Panics
    /// If `ptr` or `len` is not a multiple of [`Buf::ALIGN`].
    ///
    /// # Safety
    /// `ptr` starts `len` initialised bytes, readable and writable, that stay valid while `keep` lives; until the
    /// buffer is dropped nobody else reads or writes them.
    #[must_use]
    pub unsafe fn from_raw(ptr: NonNull<u8>, len: usize, keep: Arc<dyn Any + Send + Sync>) -> Self {
        assert!(
            ptr.addr().get().is_multiple_of(Self::ALIGN),
            "buffer at {ptr:?}"
        );
        assert!(len.is_multiple_of(Self::ALIGN), "buffer of {len} bytes");
        Self {
            ptr,
            len,
            owner: Owner::Kept(keep),
        }
    }

    /// Where the bytes start.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

fn dangling() -> NonNull<u8> {
    NonNull::<Aligned>::dangling().cast()
}

/// Only for its alignment.
#[repr(align(4096))]
struct Aligned;
const _: () = assert!(align_of::<Aligned>() == Buf::ALIGN);

fn layout(len: usize) -> Layout {
    match Layout::from_size_align(len, Buf::ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("buffer of {len} bytes exceeds the address space"),
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.owner, Owner::Heap) {
            Owner::Heap if self.len > 0 => {
                // SAFETY: allocated in `zeroed` with this very layout, freed only here.
                unsafe { dealloc(self.ptr.as_ptr(), layout(self.len)) }
            }
            Owner::Heap | Owner::Kept(_) => {}
            Owner::Pool(pool) => {
                // What the pool does not keep is dropped there.
                let inner = std::mem::replace(&mut self.ptr, dangling());
                let len = std::mem::replace(&mut self.len, 0);
                pool.give_back(Self {
                    ptr: inner,
                    len,
                    owner: Owner::Heap,
                });
            }
        }
    }
}

/// Buffers of one size that come back: a buffer taken from a pool returns to it when dropped, wherever that is.
///
/// For who needs many short-lived buffers: without a pool they leave holes in the heap, and each is zeroed anew.
#[derive(Debug)]
pub struct BufPool {
    len: usize,
    keep_max: usize,
    free: Mutex<Vec<Buf>>,
}

impl BufPool {
    /// A pool of buffers of `len` bytes that keeps at most `keep_max` of those not in use. Empty at first.
    ///
    /// # Panics
    /// If `len` is 0 or not a multiple of [`Buf::ALIGN`].
    #[must_use]
    pub fn new(len: usize, keep_max: usize) -> Arc<Self> {
        assert!(
            len > 0 && len.is_multiple_of(Buf::ALIGN),
            "buffers of {len} bytes"
        );
        Arc::new(Self {
            len,
            keep_max,
            free: Mutex::default(),
        })
    }

    /// A buffer with whatever its last user left in it, or zeros.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Buf {
        let free = self.lock().pop();
        let mut buf = free.unwrap_or_else(|| Buf::allocated(self.len));
        debug_assert!(matches!(buf.owner, Owner::Heap), "only heap buffers pool");
        buf.owner = Owner::Pool(Arc::clone(self));
        buf
    }

    fn give_back(&self, buf: Buf) {
        let mut free = self.lock();
        if free.len() < self.keep_max {
            free.push(buf);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Buf>> {
        // Nothing that can panic happens under the lock.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes from `ptr` are ours alone (invariant 2), borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes at {:?})", self.len, self.ptr)
    }
}

/// Buffers that one transfer fills one after the other, and where they are, for the kernel.
#[cfg(target_os = "linux")]
pub(crate) struct Scatter {
    bufs: Vec<Buf>,
    /// Parts of `bufs`, which stay where they are while these do.
    parts: Vec<libc::iovec>,
}

// SAFETY: the addresses in `parts` are of memory that `bufs` own, which may go to another thread with them.
#[cfg(target_os = "linux")]
unsafe impl Send for Scatter {}

#[cfg(target_os = "linux")]
impl Scatter {
    pub(crate) fn new(bufs: Vec<Buf>) -> Self {
        Self {
            parts: Vec::with_capacity(bufs.len()),
            bufs,
        }
    }

    /// `len` bytes from `start` on, as the kernel wants to be told. The kernel must have done with the last answer.
    pub(crate) fn parts(&mut self, start: usize, len: usize) -> &[libc::iovec] {
        self.parts.clear();
        let (mut skip, mut left) = (start, len);
        for buf in &mut self.bufs {
            let skipped = skip.min(buf.len());
            skip -= skipped;
            let part = &mut buf[skipped..];
            let len = part.len().min(left);
            left -= len;
            if len > 0 {
                self.parts.push(libc::iovec {
                    iov_base: part.as_mut_ptr().cast(),
                    iov_len: len,
                });
            }
        }
        &self.parts
    }

    /// The buffers, once the kernel has done with them.
    pub(crate) fn into_bufs(self) -> Vec<Buf> {
        self.bufs
    }
}

/// A large private region of zeroed memory, given pages only where touched, backed by 2 MiB pages where the
/// kernel grants them.
pub struct Mapping {
    /// First usable byte: on a 2 MiB boundary if the region is that large.
    ptr: NonNull<u8>,
    len: usize,
    /// What was mapped, and is unmapped: the usable part and the slack in front of and behind it.
    whole: NonNull<u8>,
    whole_len: usize,
    /// The kernel holds the pages themselves, not their addresses: releasing one would part the two views.
    pinned: Mutex<bool>,
}

// SAFETY: the region belongs to the value, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared mapping gives out a raw pointer, a length, and `release`, which the kernel serialises.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Size and alignment of a huge page, in bytes.
    const HUGE: usize = 2 << 20;

    /// Reserves `len` bytes of address space, rounded up to 4096, all zero; memory is taken when first touched.
    ///
    /// # Errors
    /// The kernel's, with [`IoKind::Memory`].
    pub fn reserve(len: usize) -> Result<Self, IoError> {
        let refused = |errno| IoError::new(IoKind::Memory, "anonymous mapping", 0, len, errno);
        let slack = if len >= Self::HUGE { Self::HUGE } else { 0 };
        let rounded = len.max(1).checked_next_multiple_of(Buf::ALIGN);
        let sizes = rounded.and_then(|len| Some((len, len.checked_add(slack)?)));
        let (len, whole_len) = sizes.ok_or_else(|| refused(libc::ENOMEM))?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                whole_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let whole = match NonNull::new(start.cast::<u8>()) {
            Some(whole) if start != libc::MAP_FAILED => whole,
            _ => return Err(refused(IoError::last_errno())),
        };
        let lead = if slack > 0 {
            whole.as_ptr().align_offset(Self::HUGE)
        } else {
            0
        };
        debug_assert!(lead <= slack, "lead {lead} of slack {slack}");
        // SAFETY: the next multiple of 2 MiB is at most `slack` bytes away, so the sum lies inside the mapping.
        let ptr = unsafe { whole.add(lead) };
        let mapping = Self {
            ptr,
            len,
            whole,
            whole_len,
            pinned: Mutex::new(false),
        };
        #[cfg(target_os = "linux")]
        if slack > 0 {
            // Huge pages are a wish: a kernel built without them refuses, and nothing is lost but speed.
            // SAFETY: advises on the region just mapped, which `mapping` owns; its contents do not change.
            let _refusal_is_fine =
                unsafe { libc::madvise(ptr.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(mapping)
    }

    /// Where the region starts: valid for reads and writes of [`Mapping::len`] bytes while the mapping lives.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Bytes in the region.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "never empty: at least 4096 bytes"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Runs `pin`, which may pin pages for good; if it says that it did, [`Mapping::release`] does nothing from
    /// now on.
    #[cfg(target_os = "linux")]
    pub(crate) fn pin(&self, pin: impl FnOnce() -> bool) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        *pinned |= pin();
    }

    /// Gives the memory of a range back to the system; the range then reads as zeros. Does nothing, leaving the
    /// bytes as they are, where the kernel refuses or a queue has the mapping registered.
    ///
    /// # Panics
    /// If the range is not inside the mapping or not aligned to [`Buf::ALIGN`].
    ///
    /// # Safety
    /// Nobody reads or writes the range during the call or holds a reference into it.
    pub unsafe fn release(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{offset}+{len} of {}",
            self.len
        );
        assert!(
            (offset | len).is_multiple_of(Buf::ALIGN),
            "{offset}+{len} is not aligned"
        );
        // Held over the call, so that no page is pinned between the look and the release.
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if *pinned {
            return;
        }
        // SAFETY: the range lies inside the mapping, asserted above.
        let start = unsafe { self.ptr.add(offset) };
        // SAFETY: the range is ours and, as the caller promises, nobody looks at it while it turns to zeros.
        let _refusal_is_fine =
            unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `reserve` mapped; parts handed out keep the mapping alive, so none is left.
        let failed = unsafe { libc::munmap(self.whole.as_ptr().cast(), self.whole_len) };
        debug_assert_eq!(failed, 0, "munmap: errno {}", IoError::last_errno());
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes at {:?})", self.len, self.ptr)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A buffer over a part of a mapping; the test makes no two that overlap.
    pub(crate) fn part(mapping: &Arc<Mapping>, at: usize, len: usize) -> Buf {
        assert!(at + len <= mapping.len());
        // SAFETY: inside the mapping, asserted above.
        let start = unsafe { mapping.as_ptr().add(at) };
        let keep: Arc<dyn Any + Send + Sync> = Arc::<Mapping>::clone(mapping);
        // SAFETY: zeroed by the kernel, kept by `keep`, and touched by no one else, as the test promises.
        unsafe { Buf::from_raw(start, len, keep) }
    }

    /// Releases a range no buffer of the test lies over any more.
    pub(crate) fn release(mapping: &Mapping, offset: usize, len: usize) {
        // SAFETY: the test dropped its buffers there.
        unsafe { mapping.release(offset, len) }
    }

    #[test]
    fn a_buffer_is_aligned_zeroed_and_its_own() {
        let mut buf = Buf::zeroed(8192);
        assert_eq!(buf.as_ptr().addr().get() % Buf::ALIGN, 0);
        assert!(buf.iter().all(|&byte| byte == 0));
        buf[8191] = 7;
        assert_eq!(buf.last(), Some(&7));
        assert!(Buf::zeroed(0).is_empty());
    }

    #[test]
    fn large_buffers_are_zeroed_and_their_own_too() {
        for len in [Buf::MAPPED_MIN - 4096, Buf::MAPPED_MIN, 5 << 20] {
            let mut buf = Buf::zeroed(len);
            assert_eq!(buf.as_ptr().addr().get() % Buf::ALIGN, 0);
            assert!(buf.len() == len && buf.iter().all(|&byte| byte == 0));
            buf[len - 1] = 7;
            let moved = std::thread::spawn(move || buf).join().unwrap();
            assert_eq!(moved.last(), Some(&7));
        }
    }

    #[test]
    fn buffers_of_a_pool_come_back_as_far_as_it_keeps_them() {
        let pool = BufPool::new(8192, 2);
        let bufs: Vec<_> = (0..4).map(|_| pool.take()).collect();
        let mut places: Vec<_> = bufs.iter().map(Buf::as_ptr).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 4, "no two at one place");
        assert!(
            bufs.iter()
                .flat_map(|buf| buf.iter())
                .all(|&byte| byte == 0)
        );
        // Dropped elsewhere, and after its pool's last other owner.
        std::thread::spawn(move || drop(bufs)).join().unwrap();
        assert_eq!(pool.lock().len(), 2);
        let (one, two, three) = (pool.take(), pool.take(), pool.take());
        assert!(places.contains(&one.as_ptr()) && places.contains(&two.as_ptr()));
        assert!(pool.lock().is_empty());
        drop(pool);
        drop((one, two, three));
    }

    #[test]
    fn a_mapping_is_zeroed_huge_aligned_and_released_to_zeros() {
        let mapping = Arc::new(Mapping::reserve(3 * Mapping::HUGE).unwrap());
        assert_eq!(mapping.as_ptr().addr().get() % Mapping::HUGE, 0);
        assert_eq!(mapping.len(), 3 * Mapping::HUGE);
        let mut buf = part(&mapping, 0, 4096);
        assert_eq!(buf[0], 0);
        buf[4095] = 9;
        drop(buf);
        release(&mapping, 0, 4096);
        assert_eq!(part(&mapping, 0, 4096)[4095], 0);
    }

    #[test]
    fn a_part_keeps_its_mapping_alive() {
        let mapping = Arc::new(Mapping::reserve(1).unwrap());
        assert_eq!(mapping.len(), 4096);
        let mut buf = part(&mapping, 0, 4096);
        drop(mapping);
        buf[0] = 1;
        assert_eq!(buf[0], 1);
    }

    #[test]
    fn an_impossible_mapping_is_a_memory_error() {
        let error = Mapping::reserve(usize::MAX - 5).unwrap_err();
        assert_eq!((error.kind, error.errno), (IoKind::Memory, libc::ENOMEM));
        assert_eq!(Mapping::reserve(1 << 62).unwrap_err().kind, IoKind::Memory);
    }
}
