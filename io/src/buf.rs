//! Aligned buffers. Placeholder until the allocation lands: see the module's owner.

/// A buffer aligned for direct I/O (4 KiB), owned by whoever holds it.
#[derive(Debug)]
pub struct Buf(Vec<u8>);

impl Buf {
    /// A zeroed buffer of `len` bytes; `len` is a multiple of 4096.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self(vec![0; len])
    }
}

impl std::ops::Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
