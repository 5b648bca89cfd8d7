//! CRC-32C, the only checksum of the format. Spec: FF-002.

use crc_fast::CrcAlgorithm;

/// CRC-32C (Castagnoli) of `bytes`.
#[must_use]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a 32-bit CRC in a 64-bit return type"
    )]
    {
        crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
    }
}

/// CRC-32C of bytes that arrive in pieces.
#[derive(Debug)]
pub(crate) struct Crc32c(crc_fast::Digest);

impl Crc32c {
    /// Of no bytes yet.
    pub(crate) fn new() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes the next piece.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes pieces that were summed elsewhere.
    pub(crate) fn combine(&mut self, next: &Self) {
        self.0.combine(&next.0);
    }

    /// The checksum of all pieces.
    #[must_use]
    pub(crate) fn finish(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a 32-bit CRC in a 64-bit return type"
        )]
        {
            self.0.finalize() as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        let mut pieces = Crc32c::new();
        pieces.update(b"1234");
        pieces.update(b"56789");
        assert_eq!(pieces.finish(), 0xe306_9283);
        for split in 0..=9 {
            let (front, back) = b"123456789".split_at(split);
            let (mut one, mut two) = (Crc32c::new(), Crc32c::new());
            one.update(front);
            two.update(back);
            one.combine(&two);
            assert_eq!(one.finish(), 0xe306_9283, "{split}");
            one.update(b"");
            one.update(b"tail");
            assert_eq!(one.finish(), crc32c(b"123456789tail"), "{split}");
        }
    }
}
