//! Counting heads below a key: the inner loop of every search.
//!
//! A linear count over contiguous heads loads all its cache lines at once and so pays one memory latency, where a
//! binary search pays one after the other; it is the fastest search of a node up to some hundreds of entries. Longer
//! arrays are first halved without branches.
//!
//! - Cost: one AVX-512 compare for 16 heads, AVX2 for 8, SSE2 for 4; chosen at run time, detection is cached by std.
//! - Source: research/performance.md, "Node layout and search".
#![expect(unsafe_code, reason = "vector intrinsics load from raw pointers")]

use zerocopy::little_endian::U32;

/// Beyond this many heads a search halves first: 1 KiB, sixteen cache lines.
const LINEAR_MAX: usize = 256;

/// Number of leading heads below `head`; the heads ascend.
#[inline]
pub(crate) fn count_below(heads: &[U32], head: u32) -> usize {
    let (skipped, heads) = if heads.len() > LINEAR_MAX {
        narrow(heads, head)
    } else {
        (0, heads)
    };
    skipped + count(heads, head)
}

/// Number of leading heads at or below `head`; the heads ascend.
#[inline]
pub(crate) fn count_up_to(heads: &[U32], head: u32) -> usize {
    match head.checked_add(1) {
        Some(above) => count_below(heads, above),
        None => heads.len(),
    }
}

/// Halves `heads` until a linear count is cheap; returns how many heads were skipped, all of them below `head`.
fn narrow(mut heads: &[U32], head: u32) -> (usize, &[U32]) {
    let mut skipped = 0;
    while heads.len() > LINEAR_MAX {
        let (low, high) = heads.split_at(heads.len() / 2);
        let is_above = low.last().is_some_and(|last| last.get() < head);
        skipped += if is_above { low.len() } else { 0 };
        heads = if is_above { high } else { low };
    }
    (skipped, heads)
}

#[inline]
fn count(heads: &[U32], head: u32) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F, as was just detected.
            return unsafe { x86::count_avx512(heads, head) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as was just detected.
            return unsafe { x86::count_avx2(heads, head) };
        }
        // SAFETY: SSE2 is part of x86_64.
        unsafe { x86::count_sse2(heads, head) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    count_scalar(heads, head)
}

#[inline]
fn count_scalar(heads: &[U32], head: u32) -> usize {
    heads
        .iter()
        .map(|other| usize::from(other.get() < head))
        .sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_castsi128_ps, _mm_cmplt_epi32, _mm_loadu_si128, _mm_movemask_ps,
        _mm_set1_epi32, _mm_xor_si128, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_loadu_si256,
        _mm256_movemask_ps, _mm256_set1_epi32, _mm256_xor_si256, _mm512_cmplt_epu32_mask,
        _mm512_loadu_si512, _mm512_mask_cmplt_epu32_mask, _mm512_maskz_loadu_epi32,
        _mm512_set1_epi32,
    };

    use super::{U32, count_scalar};

    /// Flips the sign bit: signed comparison of flipped numbers is unsigned comparison of the numbers.
    const FLIP: i32 = i32::MIN;

    #[target_feature(enable = "avx512f")]
    pub(super) fn count_avx512(heads: &[U32], head: u32) -> usize {
        let wanted = _mm512_set1_epi32(head.cast_signed());
        let mut below = 0;
        let chunks = heads.chunks_exact(16);
        let rest = chunks.remainder();
        for chunk in chunks {
            // SAFETY: the chunk is 16 numbers of 4 bytes, as many as are loaded; alignment is not asked for.
            let some = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
            below += _mm512_cmplt_epu32_mask(some, wanted).count_ones();
        }
        let mask = (1_u16 << rest.len()) - 1;
        // SAFETY: only the lanes in `mask` are loaded, one for each of the fewer than 16 numbers left.
        let some = unsafe { _mm512_maskz_loadu_epi32(mask, rest.as_ptr().cast()) };
        below += _mm512_mask_cmplt_epu32_mask(mask, some, wanted).count_ones();
        below as usize
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn count_avx2(heads: &[U32], head: u32) -> usize {
        let flip = _mm256_set1_epi32(FLIP);
        let wanted = _mm256_set1_epi32(head.cast_signed() ^ FLIP);
        let mut below = 0;
        let chunks = heads.chunks_exact(8);
        let rest = chunks.remainder();
        for chunk in chunks {
            // SAFETY: the chunk is 8 numbers of 4 bytes, as many as are loaded; alignment is not asked for.
            let some = unsafe { _mm256_loadu_si256(chunk.as_ptr().cast::<__m256i>()) };
            let is_below = _mm256_cmpgt_epi32(wanted, _mm256_xor_si256(some, flip));
            below += _mm256_movemask_ps(_mm256_castsi256_ps(is_below)).count_ones();
        }
        below as usize + count_scalar(rest, head)
    }

    #[target_feature(enable = "sse2")]
    pub(super) fn count_sse2(heads: &[U32], head: u32) -> usize {
        let flip = _mm_set1_epi32(FLIP);
        let wanted = _mm_set1_epi32(head.cast_signed() ^ FLIP);
        let mut below = 0;
        let chunks = heads.chunks_exact(4);
        let rest = chunks.remainder();
        for chunk in chunks {
            // SAFETY: the chunk is 4 numbers of 4 bytes, as many as are loaded; alignment is not asked for.
            let some = unsafe { _mm_loadu_si128(chunk.as_ptr().cast::<__m128i>()) };
            let is_below = _mm_cmplt_epi32(_mm_xor_si128(some, flip), wanted);
            below += _mm_movemask_ps(_mm_castsi128_ps(is_below)).count_ones();
        }
        below as usize + count_scalar(rest, head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_count_equals_the_scalar_one() {
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u32
        };
        for len in (0..80).chain([127, 128, 129, 255, 256, 257, 680, 768, 2000, 7281]) {
            let shift = [0, 8, 20, 29][len % 4];
            let mut heads: Vec<u32> = (0..len).map(|_| random() << 1 >> shift).collect();
            heads.extend((len > 3).then_some(u32::MAX));
            heads.sort_unstable();
            let stored: Vec<U32> = heads.iter().copied().map(U32::new).collect();
            let probes = heads
                .iter()
                .flat_map(|&h| [h.saturating_sub(1), h, h.saturating_add(1)]);
            for probe in probes.chain([0, 1, u32::MAX, 1 << 31, (1 << 31) - 1]) {
                let expected = heads.partition_point(|&other| other < probe);
                assert_eq!(count_below(&stored, probe), expected);
                assert_eq!(count_scalar(&stored, probe), expected);
                assert_eq!(
                    count_up_to(&stored, probe),
                    heads.partition_point(|&other| other <= probe)
                );
                #[cfg(target_arch = "x86_64")]
                {
                    // SAFETY: part of x86_64.
                    assert_eq!(unsafe { x86::count_sse2(&stored, probe) }, expected);
                    if is_x86_feature_detected!("avx2") {
                        // SAFETY: detected.
                        assert_eq!(unsafe { x86::count_avx2(&stored, probe) }, expected);
                    }
                }
            }
        }
    }
}
