//! The portable set, on `wide`: SSE2 on x86-64, NEON on aarch64, plain code elsewhere.

use wide::f32x16;

use super::{Isa, sealed};
use crate::gemm::tile::TileKernel;
use crate::lanes::LANES;

/// Token of the portable set, which every machine has.
#[derive(Clone, Copy, Debug)]
pub struct Portable {
    _private: (),
}

impl Portable {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}

/// `2^n` for integral `n` from -126 to 127, by its exponent bits.
#[inline(always)]
fn pow2(n: f32) -> f32 {
    f32::from_bits(((n as i32 + 127) as u32) << 23)
}

impl sealed::Sealed for Portable {}

impl Isa for Portable {
    type F32 = f32x16;
    type Mask = f32x16;

    const NAME: &'static str = "portable";

    #[inline(always)]
    fn splat(self, value: f32) -> f32x16 {
        f32x16::splat(value)
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> f32x16 {
        // SAFETY: the caller vouches for sixteen floats.
        f32x16::new(unsafe { source.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store_ptr(self, target: *mut f32, vector: f32x16) {
        // SAFETY: the caller vouches for sixteen floats.
        unsafe {
            target
                .cast::<[f32; LANES]>()
                .write_unaligned(vector.to_array())
        }
    }

    #[inline(always)]
    fn load_u8(self, source: &[u8; LANES]) -> f32x16 {
        let mut lanes = [0.0; LANES];
        for (lane, &byte) in lanes.iter_mut().zip(source) {
            *lane = f32::from(byte);
        }
        f32x16::new(lanes)
    }

    #[inline(always)]
    fn store_u8(self, target: &mut [u8; LANES], vector: f32x16) {
        // From 2^23 on the last bits of a float are those of the whole number.
        for (byte, lane) in target.iter_mut().zip((vector + 8_388_608.0).to_array()) {
            *byte = lane.to_bits() as u8;
        }
    }

    #[inline(always)]
    fn add(self, a: f32x16, b: f32x16) -> f32x16 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32x16, b: f32x16) -> f32x16 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32x16, b: f32x16) -> f32x16 {
        a * b
    }

    #[inline(always)]
    fn div(self, a: f32x16, b: f32x16) -> f32x16 {
        a / b
    }

    #[inline(always)]
    fn mul_add(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn max(self, a: f32x16, b: f32x16) -> f32x16 {
        b.simd_lt(a).bitselect(a, b)
    }

    #[inline(always)]
    fn min(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_lt(b).bitselect(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: f32x16) -> f32x16 {
        a.sqrt()
    }

    #[inline(always)]
    fn abs(self, a: f32x16) -> f32x16 {
        a.abs()
    }

    #[inline(always)]
    fn floor(self, a: f32x16) -> f32x16 {
        // `f32x16::floor` calls the C library for each lane on baseline x86-64.
        let rounded = self.round_ties_even(a);
        a.simd_lt(rounded).bitselect(rounded - 1.0, rounded)
    }

    #[inline(always)]
    fn round_ties_even(self, a: f32x16) -> f32x16 {
        // From 2^23 on every float is an integer, so a sum in that range rounds to one.
        let integral = f32x16::splat(8_388_608.0);
        let magnitude = a.abs();
        let rounded = (magnitude + integral - integral) | (a & f32x16::splat(-0.0));
        magnitude.simd_lt(integral).bitselect(rounded, a)
    }

    #[inline(always)]
    fn mul_pow2(self, a: f32x16, n: f32x16) -> f32x16 {
        // In two factors, neither of which leaves the range of normal numbers.
        let head = self.round_ties_even(n * 0.5);
        let mut heads = head.to_array();
        let mut tails = (n - head).to_array();
        for (head, tail) in heads.iter_mut().zip(&mut tails) {
            *head = pow2(*head);
            *tail = pow2(*tail);
        }
        a * f32x16::new(heads) * f32x16::new(tails)
    }

    #[inline(always)]
    fn lt(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_lt(b)
    }

    #[inline(always)]
    fn le(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_le(b)
    }

    #[inline(always)]
    fn eq(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_eq(b)
    }

    #[inline(always)]
    fn exceeds(self, a: f32x16, b: f32x16) -> f32x16 {
        b.simd_eq(b) & !a.simd_le(b)
    }

    #[inline(always)]
    fn select(self, mask: f32x16, yes: f32x16, no: f32x16) -> f32x16 {
        mask.bitselect(yes, no)
    }

    #[inline(always)]
    fn transpose(self, rows: [f32x16; LANES]) -> [f32x16; LANES] {
        f32x16::transpose(rows)
    }

    // One vector fills four 128-bit registers: two rows leave room for it among SSE's sixteen, six
    // among the thirty-two of NEON.
    #[inline(always)]
    fn gemm_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        if cfg!(target_arch = "aarch64") {
            kernel.run::<Self, 6, 1>(self)
        } else {
            kernel.run::<Self, 2, 1>(self)
        }
    }

    #[inline(always)]
    fn conv2d_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        self.gemm_tile(kernel)
    }

    #[inline(always)]
    fn sparse_line<K: TileKernel>(self, kernel: K) -> K::Output {
        self.sparse_tile(kernel)
    }

    #[inline(always)]
    fn sparse_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        kernel.run::<Self, 3, 3>(self)
    }

    #[inline(always)]
    fn outer_product_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        if cfg!(target_arch = "aarch64") {
            kernel.run::<Self, 2, 2>(self)
        } else {
            kernel.run::<Self, 1, 1>(self)
        }
    }
}
