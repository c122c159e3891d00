//! AVX-512 (F, BW, DQ, VL) with FMA: a vector is one 512-bit register.
//!
//! The token comes in two kinds, with and without the instructions for bf16, which not every such
//! processor has. Everything else is the same, and so are the results.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Isa, TABLE, avx2, bf16, sealed};
use crate::gemm::tile::TileKernel;
use crate::lanes::LANES;

/// Token of the AVX-512 set: it exists only where the processor has avx512f, avx512bw, avx512dq,
/// avx512vl, avx2 and fma; with `BF16`, avx512bf16 too.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const BF16: bool> {
    _private: (),
}

impl<const BF16: bool> Avx512<BF16> {
    /// # Safety
    /// The processor has avx512f, avx512bw, avx512dq, avx512vl, avx2 and fma; with `BF16`, avx512bf16
    /// too.
    #[inline(always)]
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self { _private: () }
    }
}

/// Places of two halves of sixteen words, a word of each in turns.
static TURNS: [i16; 2 * LANES] = {
    let mut turns = [0; 2 * LANES];
    let mut place = 0;
    while place < 2 * LANES {
        turns[place] = (place / 2 + place % 2 * LANES) as i16;
        place += 1;
    }
    turns
};

/// A mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= LANES);
    ((1_u32 << count) - 1) as __mmask16
}

impl<const BF16: bool> sealed::Sealed for Avx512<BF16> {}

impl<const BF16: bool> Isa for Avx512<BF16> {
    type F32 = __m512;
    type Mask = __mmask16;

    const NAME: &'static str = "avx512";

    const MULTIPLIES_FROM_MEMORY: bool = true;

    const WINOGRAD_TILES: usize = 6;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller vouches for the memory.
        unsafe { _mm512_loadu_ps(source) }
    }

    #[inline(always)]
    fn address(self, base: *const f32, offset: usize) -> *const f32 {
        avx2::in_register(base.wrapping_add(offset))
    }

    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn prefetch_to_l2(self, address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, target: *mut f32, vector: __m512) {
        // SAFETY: the token proves AVX-512; the caller vouches for the memory.
        unsafe { _mm512_storeu_ps(target, vector) }
    }

    #[inline(always)]
    unsafe fn stream_ptr(self, target: *mut f32, vector: __m512) {
        // SAFETY: the token proves AVX-512; the caller vouches for the memory and its alignment.
        unsafe { _mm512_stream_ps(target, vector) }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn load_first_ptr(self, source: *const f32, count: usize) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller vouches for the memory.
        unsafe { _mm512_maskz_loadu_ps(first(count), source) }
    }

    #[inline(always)]
    unsafe fn store_first_ptr(self, target: *mut f32, vector: __m512, count: usize) {
        // SAFETY: the token proves AVX-512; the caller vouches for the memory.
        unsafe { _mm512_mask_storeu_ps(target, first(count), vector) }
    }

    #[inline(always)]
    fn load_u8(self, source: &[u8; LANES]) -> __m512 {
        // SAFETY: the token proves AVX-512; the array holds sixteen bytes.
        unsafe {
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(
                source.as_ptr().cast(),
            )))
        }
    }

    #[inline(always)]
    fn eq_u8(self, bytes: &[u8; LANES], byte: u8) -> __mmask16 {
        // SAFETY: the token proves AVX-512; the array holds sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_cmpeq_epi8_mask(bytes, _mm_set1_epi8(byte as i8))
        }
    }

    #[inline(always)]
    unsafe fn pick_ptr(self, table: *const f32, places: &[u8; LANES]) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller vouches for the table.
        unsafe {
            let mut quarters = [_mm512_setzero_ps(); TABLE / LANES];
            for (at, quarter) in quarters.iter_mut().enumerate() {
                *quarter = _mm512_loadu_ps(table.add(at * LANES));
            }
            let bytes = _mm_loadu_si128(places.as_ptr().cast());
            // Each register pair answers the five low bits; the sixth says which pair, the highest none.
            let place = _mm512_cvtepu8_epi32(bytes);
            let is_none = _mm_movepi8_mask(bytes);
            let is_upper = _mm_movepi8_mask(_mm_slli_epi16::<2>(bytes));
            let lower = _mm512_maskz_permutex2var_ps(!is_none, quarters[0], place, quarters[1]);
            let upper = _mm512_permutex2var_ps(quarters[2], place, quarters[3]);
            _mm512_mask_mov_ps(lower, is_upper, upper)
        }
    }

    #[inline(always)]
    fn store_u8(self, target: &mut [u8; LANES], vector: __m512) {
        // SAFETY: the token proves AVX-512; the array holds sixteen bytes.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(vector));
            _mm_storeu_si128(target.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn floor(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn round_ties_even(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn mul_pow2(self, a: __m512, n: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_scalef_ps(a, n) }
    }

    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn le(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn exceeds(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let is_number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(b, b);
            _mm512_mask_cmp_ps_mask::<_CMP_NLE_UQ>(is_number, a, b)
        }
    }

    #[inline(always)]
    fn add_where(self, mask: __mmask16, sum: __m512, value: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mask_add_ps(sum, mask, sum, value) }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mask_blend_ps(mask, no, yes) }
    }

    #[inline(always)]
    fn transpose(self, rows: [__m512; LANES]) -> [__m512; LANES] {
        let mut t = rows;
        // SAFETY: the token proves AVX-512.
        unsafe {
            // Within each 128-bit quarter: 4×4 transposes, in two steps.
            for r in (0..LANES).step_by(4) {
                let (a, b, c, d) = (t[r], t[r + 1], t[r + 2], t[r + 3]);
                let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                t[r] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
                t[r + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
                t[r + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
                t[r + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
            }
            // Then a 4×4 transpose of the quarters themselves.
            let mut out = t;
            for c in 0..4 {
                let (a, b, d, e) = (t[c], t[c + 4], t[c + 8], t[c + 12]);
                let (ab_low, ab_high) = (
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
                );
                let (de_low, de_high) = (
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(d, e),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(d, e),
                );
                out[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_low, de_low);
                out[c + 4] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, de_high);
                out[c + 8] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_low, de_low);
                out[c + 12] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, de_high);
            }
            out
        }
    }

    #[inline(always)]
    fn pair_bf16(self, even: __m512, odd: __m512) -> __m512 {
        if !BF16 {
            return bf16::pair(self, even, odd);
        }
        // SAFETY: the token proves AVX-512, with `BF16` its bf16 instructions.
        unsafe {
            // All even ones, then all odd ones: taken in turns.
            let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
            let turns = _mm512_loadu_epi16(TURNS.as_ptr());
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(turns, both))
        }
    }

    #[inline(always)]
    fn dot_bf16(self, sums: __m512, a: __m512, b: __m512) -> __m512 {
        if !BF16 {
            return bf16::dot(self, sums, a, b);
        }
        // SAFETY: the token proves AVX-512, with `BF16` its bf16 instructions. All three types are
        // 512 bits.
        unsafe {
            let pairs = |vector| transmute::<__m512, __m512bh>(vector);
            _mm512_dpbf16_ps(sums, pairs(a), pairs(b))
        }
    }

    // Halves, quarters and so on of two vectors are added at a time, and stand side by side.
    #[inline(always)]
    fn sum_eight(self, [a, b, c, d, e, f, g, h]: [__m512; 8]) -> [f32; 8] {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let eight_apart = |a, b| {
                let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
                _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
            };
            let four_apart = |a, b| {
                let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
            };
            let first = four_apart(eight_apart(a, b), eight_apart(c, d));
            let second = four_apart(eight_apart(e, f), eight_apart(g, h));
            let low = _mm512_shuffle_ps::<0b01_00_01_00>(first, second);
            let two_apart = _mm512_add_ps(low, _mm512_shuffle_ps::<0b11_10_11_10>(first, second));
            let even = _mm512_shuffle_ps::<0b10_00_10_00>(two_apart, two_apart);
            let odd = _mm512_shuffle_ps::<0b11_01_11_01>(two_apart, two_apart);
            // Of every four lanes the first two: one of the first four sums, one of the others.
            let sums = _mm512_add_ps(even, odd);
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
            let sums = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums));
            transmute::<__m256, [f32; 8]>(sums)
        }
    }

    // Thirty-two registers: 28 sums, two vectors of the other operand, the broadcast.
    #[inline(always)]
    fn gemm_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 14, 2>(self)
    }

    #[inline(always)]
    fn gemm_rows_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 8, 3>(self)
    }

    // Most layers have a multiple of eight channels. 24 sums, three vectors, the broadcast.
    #[inline(always)]
    fn conv2d_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 8, 3>(self)
    }

    // A quarter of 28 pixels. 21 sums, seven vectors, the broadcast.
    #[inline(always)]
    fn conv2d_narrow_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 3, 7>(self)
    }

    // Half of 27 and 28 pixels; and as many sums as multiply-adds are under way at once.
    #[inline(always)]
    fn sparse_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 8, 14>(self)
    }

    // A quarter of the blocks of 512 images; and as many sums as multiply-adds are under way at once.
    #[inline(always)]
    fn sparse_line<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 8, 8>(self)
    }

    // The nine places of a 3×3 window: 27 sums, three vectors, one of the other operand.
    #[inline(always)]
    fn outer_product_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 9, 3>(self)
    }
}
