//! AVX2 with FMA: a vector is two 256-bit registers.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Isa, sealed};
use crate::gemm::tile::TileKernel;
use crate::lanes::LANES;

/// Token of the AVX2 set: it exists only where the processor has avx2 and fma.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    _private: (),
}

impl Avx2 {
    /// # Safety
    /// The processor has avx2 and fma.
    #[inline(always)]
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self { _private: () }
    }
}

/// Sixteen f32: lanes 0 to 7, then 8 to 15.
type Pair = [__m256; 2];

/// The address, which the compiler then does not take for a sum of registers.
#[inline(always)]
#[expect(
    clippy::pointers_in_nomem_asm_block,
    reason = "nobody follows the address"
)]
pub(super) fn in_register(mut address: *const f32) -> *const f32 {
    // SAFETY: there is no instruction; the register stays as it is.
    unsafe {
        asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}

impl sealed::Sealed for Avx2 {}

impl Isa for Avx2 {
    type F32 = Pair;
    type Mask = Pair;

    const NAME: &'static str = "avx2";

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> Pair {
        // SAFETY: the token proves AVX2; the caller vouches for the memory.
        unsafe { [_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8))] }
    }

    #[inline(always)]
    fn address(self, base: *const f32, offset: usize) -> *const f32 {
        in_register(base.wrapping_add(offset))
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
    unsafe fn store_ptr(self, target: *mut f32, vector: Pair) {
        // SAFETY: the token proves AVX2; the caller vouches for the memory.
        unsafe {
            _mm256_storeu_ps(target, vector[0]);
            _mm256_storeu_ps(target.add(8), vector[1]);
        }
    }

    #[inline(always)]
    unsafe fn stream_ptr(self, target: *mut f32, vector: Pair) {
        // SAFETY: the token proves AVX2; the caller vouches for the memory and its alignment.
        unsafe {
            _mm256_stream_ps(target, vector[0]);
            _mm256_stream_ps(target.add(8), vector[1]);
        }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn load_first_ptr(self, source: *const f32, count: usize) -> Pair {
        let masks = first(self, count);
        // SAFETY: the token proves AVX2; the caller vouches for the lanes that the masks select, and
        // the others are not read.
        unsafe {
            [
                _mm256_maskload_ps(source, masks[0]),
                _mm256_maskload_ps(source.wrapping_add(8), masks[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store_first_ptr(self, target: *mut f32, vector: Pair, count: usize) {
        let masks = first(self, count);
        // SAFETY: the token proves AVX2; the caller vouches for the lanes that the masks select, and
        // the others are not written.
        unsafe {
            _mm256_maskstore_ps(target, masks[0], vector[0]);
            _mm256_maskstore_ps(target.wrapping_add(8), masks[1], vector[1]);
        }
    }

    #[inline(always)]
    fn load_u8(self, source: &[u8; LANES]) -> Pair {
        // SAFETY: the token proves AVX2; the array holds sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(source.as_ptr().cast());
            [
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))),
            ]
        }
    }

    #[inline(always)]
    fn store_u8(self, target: &mut [u8; LANES], vector: Pair) {
        // SAFETY: the token proves AVX2; the array holds sixteen bytes.
        unsafe {
            let (low, high) = (
                _mm256_cvttps_epi32(vector[0]),
                _mm256_cvttps_epi32(vector[1]),
            );
            // Packing works within 128-bit halves, whose quarters then change places.
            let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packus_epi16(
                _mm256_castsi256_si128(shorts),
                _mm256_extracti128_si256::<1>(shorts),
            );
            _mm_storeu_si128(target.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            [
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1]),
            ]
        }
    }

    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sqrt(self, a: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])] }
    }

    #[inline(always)]
    fn abs(self, a: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
    }

    #[inline(always)]
    fn floor(self, a: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_floor_ps(a[0]), _mm256_floor_ps(a[1])] }
    }

    #[inline(always)]
    fn round_ties_even(self, a: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            [
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[0]),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[1]),
            ]
        }
    }

    #[inline(always)]
    fn mul_pow2(self, a: Pair, n: Pair) -> Pair {
        [mul_pow2(self, a[0], n[0]), mul_pow2(self, a[1], n[1])]
    }

    #[inline(always)]
    fn lt(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            [
                _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]),
                _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1]),
            ]
        }
    }

    #[inline(always)]
    fn le(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            [
                _mm256_cmp_ps::<_CMP_LE_OQ>(a[0], b[0]),
                _mm256_cmp_ps::<_CMP_LE_OQ>(a[1], b[1]),
            ]
        }
    }

    #[inline(always)]
    fn eq(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            [
                _mm256_cmp_ps::<_CMP_EQ_OQ>(a[0], b[0]),
                _mm256_cmp_ps::<_CMP_EQ_OQ>(a[1], b[1]),
            ]
        }
    }

    #[inline(always)]
    fn exceeds(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        let half = |a, b| unsafe {
            let is_number = _mm256_cmp_ps::<_CMP_ORD_Q>(b, b);
            _mm256_and_ps(is_number, _mm256_cmp_ps::<_CMP_NLE_UQ>(a, b))
        };
        [half(a[0], b[0]), half(a[1], b[1])]
    }

    #[inline(always)]
    fn select(self, mask: Pair, yes: Pair, no: Pair) -> Pair {
        // SAFETY: the token proves AVX2.
        unsafe {
            [
                _mm256_blendv_ps(no[0], yes[0], mask[0]),
                _mm256_blendv_ps(no[1], yes[1], mask[1]),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, vector: Pair) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let eight = _mm256_add_ps(vector[0], vector[1]);
            let four = _mm_add_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    // Halves, quarters and so on of two vectors are added at a time, and stand side by side.
    #[inline(always)]
    fn sum_eight(self, vectors: [Pair; 8]) -> [f32; 8] {
        // SAFETY: the token proves AVX2.
        unsafe {
            // Not by `map`, which is not always inlined.
            let mut halves = [_mm256_setzero_ps(); 8];
            for (half, [low, high]) in halves.iter_mut().zip(vectors) {
                *half = _mm256_add_ps(low, high);
            }
            let [a, b, c, d, e, f, g, h] = halves;
            let four_apart = |a, b| {
                let low = _mm256_permute2f128_ps::<0x20>(a, b);
                _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
            };
            let two_apart = |a, b| {
                let low = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                _mm256_add_ps(low, _mm256_shuffle_ps::<0b11_10_11_10>(a, b))
            };
            let first = two_apart(four_apart(a, b), four_apart(c, d));
            let second = two_apart(four_apart(e, f), four_apart(g, h));
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(first, second);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(first, second);
            // a, c, e, g and b, d, f, h.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let sums = _mm256_permutevar8x32_ps(_mm256_add_ps(even, odd), order);
            std::mem::transmute::<__m256, [f32; 8]>(sums)
        }
    }

    #[inline(always)]
    fn transpose(self, rows: [Pair; LANES]) -> [Pair; LANES] {
        let mut out = rows;
        // Four 8×8 transposes; those off the diagonal change places.
        for row_half in 0..2 {
            for column_half in 0..2 {
                let mut square = [rows[0][0]; 8];
                for r in 0..8 {
                    square[r] = rows[8 * row_half + r][column_half];
                }
                let square = transpose_8x8(self, square);
                for c in 0..8 {
                    out[8 * column_half + c][row_half] = square[c];
                }
            }
        }
        out
    }

    // Sixteen registers: 12 sums, two of the other operand, the broadcast.
    #[inline(always)]
    fn gemm_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 6, 1>(self)
    }

    #[inline(always)]
    fn conv2d_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 6, 1>(self)
    }

    #[inline(always)]
    fn conv2d_narrow_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 3, 1>(self)
    }

    // Sixteen registers: 14 sums of pixels and the broadcast; or 12 of positions and two of the gradient.
    #[inline(always)]
    fn sparse_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 6, 7>(self)
    }

    // Of 512 images' 32 blocks an eighth; eight sums.
    #[inline(always)]
    fn sparse_line<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 6, 4>(self)
    }

    // Sixteen registers: 8 sums, four of one operand, two of the other.
    #[inline(always)]
    fn outer_product_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 2, 2>(self)
    }
}

/// Masks of the first `count` lanes, at most sixteen.
#[inline(always)]
fn first(_: Avx2, count: usize) -> [__m256i; 2] {
    // A window that slides over sixteen ones and sixteen zeros.
    static WINDOW: [i32; 2 * LANES] = {
        let mut window = [0; 2 * LANES];
        let mut lane = 0;
        while lane < LANES {
            window[lane] = -1;
            lane += 1;
        }
        window
    };
    let masks = &WINDOW[LANES - count..][..LANES];
    // SAFETY: the token proves AVX2; the slice holds sixteen integers.
    unsafe {
        let start = masks.as_ptr().cast::<__m256i>();
        [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))]
    }
}

/// `a · 2^n` in two factors, neither of which leaves the range of normal numbers.
#[inline(always)]
fn mul_pow2(_: Avx2, a: __m256, n: __m256) -> __m256 {
    // SAFETY: the token proves AVX2.
    unsafe {
        let exponent = _mm256_cvtps_epi32(n);
        let head = _mm256_srai_epi32::<1>(exponent);
        let tail = _mm256_sub_epi32(exponent, head);
        let bias = _mm256_set1_epi32(127);
        let head = _mm256_slli_epi32::<23>(_mm256_add_epi32(head, bias));
        let tail = _mm256_slli_epi32::<23>(_mm256_add_epi32(tail, bias));
        let a = _mm256_mul_ps(a, _mm256_castsi256_ps(head));
        _mm256_mul_ps(a, _mm256_castsi256_ps(tail))
    }
}

#[inline(always)]
fn transpose_8x8(_: Avx2, rows: [__m256; 8]) -> [__m256; 8] {
    let mut t = rows;
    // SAFETY: the token proves AVX2.
    unsafe {
        // Within each 128-bit half: 4×4 transposes, in two steps.
        for r in [0, 4] {
            let (a, b, c, d) = (t[r], t[r + 1], t[r + 2], t[r + 3]);
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            t[r] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
            t[r + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
            t[r + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
            t[r + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
        }
        // Then the halves.
        let mut out = t;
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(t[c], t[c + 4]);
            out[c + 4] = _mm256_permute2f128_ps::<0x31>(t[c], t[c + 4]);
        }
        out
    }
}
