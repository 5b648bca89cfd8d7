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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }
}
