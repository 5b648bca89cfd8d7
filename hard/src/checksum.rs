//! CRC-32C once more, bit by bit: damage that is to be believed needs a sound checksum. Spec: FF-002.

/// The checksum of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

/// Gives a page that was changed the checksum of what it says now. Spec: FF-003.
pub fn repair_page(page: &mut [u8]) {
    let sum = crc32c(&page[4..]);
    page[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Whether a page has the checksum of what it says.
#[must_use]
pub fn is_sound_page(page: &[u8]) -> bool {
    page.len() > 4 && page[..4] == crc32c(&page[4..]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut page = [7; 64];
        assert!(!is_sound_page(&page));
        repair_page(&mut page);
        assert!(is_sound_page(&page));
    }
}
