//! Keys are short: up to sixteen bytes are copied and compared by two loads that may overlap, without a call.

/// Adds `bytes` to `to`.
#[inline(always)]
pub(crate) fn put(bytes: &[u8], to: &mut Vec<u8>) {
    if !put_by::<8>(bytes, to) && !put_by::<4>(bytes, to) {
        to.extend_from_slice(bytes);
    }
}

#[inline(always)]
fn put_by<const N: usize>(bytes: &[u8], to: &mut Vec<u8>) -> bool {
    match ends::<N>(bytes) {
        Some((first, last)) => {
            to.extend_from_slice(first);
            to.truncate(to.len() + bytes.len() - 2 * N);
            to.extend_from_slice(last);
            true
        }
        None => false,
    }
}

/// Whether both are the same bytes, if they are 4 to 16; else false says nothing.
#[inline(always)]
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (is_same_by::<8>(one, other) || is_same_by::<4>(one, other))
}

#[inline(always)]
fn is_same_by<const N: usize>(one: &[u8], other: &[u8]) -> bool {
    let ends_of = ends::<N>(one);
    ends_of.is_some() && ends_of == ends::<N>(other)
}

/// The first and the last `N` bytes, if they are all.
#[inline(always)]
fn ends<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    match bytes.len() <= 2 * N {
        true => Some((bytes.first_chunk()?, bytes.last_chunk()?)),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_are_put_and_compared_as_all_are() {
        let bytes: Vec<u8> = (1..=40).collect();
        for len in 0..bytes.len() {
            let (few, _) = bytes.split_at(len);
            let mut to = b"before".to_vec();
            put(few, &mut to);
            assert_eq!(to, [b"before", few].concat());
            assert_eq!(is_same(few, few), (4..=16).contains(&len), "{len}");
            assert!(!is_same(few, &to));
            for at in 0..len {
                let mut other = few.to_vec();
                if let Some(byte) = other.get_mut(at) {
                    *byte ^= 0x80;
                }
                assert!(!is_same(few, &other), "{len} {at}");
            }
        }
    }
}
