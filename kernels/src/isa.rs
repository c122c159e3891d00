//! Instruction-set tokens: one generic kernel, compiled once for every set.
//!
//! A kernel is written against [`Isa`], whose vector always holds sixteen f32: one register on
//! AVX-512, two on AVX2, four SSE or NEON registers in the portable set. A value of a type that
//! implements `Isa` is a *token*: it exists only where the processor has the set, so the safe
//! arithmetic methods may use its instructions.
//!
//! Tokens are handed out by [`InstructionSet::run`](crate::dispatch::InstructionSet::run), which
//! enters a function compiled for the set. Every function between there and the arithmetic must be
//! `#[inline(always)]`: a function that is not inlined is compiled for the baseline processor, and a
//! closure given to `rayon` is such a function, so each parallel task calls `run` itself.

use crate::gemm::tile::TileKernel;
use crate::lanes::LANES;

pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod bf16;
pub mod portable;
pub(crate) mod processor;

/// Floats of a table that [`Isa::pick_ptr`] picks from.
pub const TABLE: usize = 64;

/// Where [`Isa::pick_ptr`] picks nothing.
pub const NO_PLACE: u8 = 128;

mod sealed {
    /// Keeps [`Isa`](super::Isa) to the tokens of this crate, which are handed out only after detection.
    pub trait Sealed {}
}

/// Sixteen-lane f32 arithmetic on one instruction set.
///
/// Results agree bit for bit between sets, except for [`mul_add`](Isa::mul_add) on a portable set
/// without fused multiply-add and for the payload of NaN.
///
/// A vector may also hold sixteen pairs of bf16, as bits: see [`bf16`].
pub trait Isa: Copy + Send + Sync + 'static + sealed::Sealed {
    /// Sixteen f32.
    type F32: Copy + Send + Sync;
    /// Sixteen truth values, from a comparison.
    type Mask: Copy + Send + Sync;

    /// The name that `TASKWEAVE_ISA` knows this set by.
    const NAME: &'static str;

    /// Whether a multiply-add can read a value from memory and broadcast it in one instruction.
    const MULTIPLIES_FROM_MEMORY: bool = false;

    /// Sixteen times `value`.
    fn splat(self, value: f32) -> Self::F32;

    /// Sixteen zeros.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// Reads sixteen floats.
    ///
    /// # Safety
    /// `source` is valid for reading sixteen floats; any alignment of a float will do.
    unsafe fn load_ptr(self, source: *const f32) -> Self::F32;

    /// The address so many floats behind another one, in a register of its own: many x86 processors take
    /// an operand in memory that is addressed by two registers for an instruction more.
    #[inline(always)]
    fn address(self, base: *const f32, offset: usize) -> *const f32 {
        base.wrapping_add(offset)
    }

    /// Asks for the cache line at an address, which need not be valid, ahead of reading it.
    #[inline(always)]
    fn prefetch(self, _address: *const f32) {}

    /// Like [`prefetch`](Isa::prefetch), but no further than into the second-level cache.
    #[inline(always)]
    fn prefetch_to_l2(self, _address: *const f32) {}

    /// Writes sixteen floats.
    ///
    /// # Safety
    /// `target` is valid for writing sixteen floats; any alignment of a float will do.
    unsafe fn store_ptr(self, target: *mut f32, vector: Self::F32);

    /// Writes sixteen floats that nobody will read soon past the caches, where the set can: their
    /// lines are not read first and displace nothing. Other threads may see them only after
    /// [`fence`](Isa::fence).
    ///
    /// # Safety
    /// `target` is valid for writing sixteen floats and aligned to 64 bytes.
    #[inline(always)]
    unsafe fn stream_ptr(self, target: *mut f32, vector: Self::F32) {
        // SAFETY: as the caller vouches.
        unsafe { self.store_ptr(target, vector) }
    }

    /// Writes sixteen floats, past the caches if they are to be `streamed`.
    ///
    /// # Safety
    /// As [`stream_ptr`](Isa::stream_ptr) or [`store_ptr`](Isa::store_ptr).
    #[inline(always)]
    unsafe fn write_ptr(self, target: *mut f32, vector: Self::F32, streamed: bool) {
        // SAFETY: as the caller vouches.
        unsafe {
            match streamed {
                true => self.stream_ptr(target, vector),
                false => self.store_ptr(target, vector),
            }
        }
    }

    /// Orders what [`stream_ptr`](Isa::stream_ptr) wrote before every later write of this thread.
    #[inline(always)]
    fn fence(self) {}

    /// Reads `count` floats, at most sixteen, into the first lanes; the others are zero.
    ///
    /// # Safety
    /// `source` is valid for reading `count` floats.
    #[inline(always)]
    unsafe fn load_first_ptr(self, source: *const f32, count: usize) -> Self::F32 {
        let mut lanes = [0.0; LANES];
        for (lane, value) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: `lane < count`, and the caller vouches for `count` floats.
            *value = unsafe { *source.add(lane) };
        }
        self.load(&lanes)
    }

    /// Writes the first `count` lanes, at most sixteen, and nothing beyond them.
    ///
    /// # Safety
    /// `target` is valid for writing `count` floats.
    #[inline(always)]
    unsafe fn store_first_ptr(self, target: *mut f32, vector: Self::F32, count: usize) {
        for (lane, value) in self.to_array(vector).into_iter().enumerate().take(count) {
            // SAFETY: `lane < count`, and the caller vouches for `count` floats.
            unsafe { *target.add(lane) = value };
        }
    }

    /// Reads sixteen floats.
    #[inline(always)]
    fn load(self, source: &[f32; LANES]) -> Self::F32 {
        // SAFETY: the array holds sixteen floats.
        unsafe { self.load_ptr(source.as_ptr()) }
    }

    /// Writes sixteen floats.
    #[inline(always)]
    fn store(self, target: &mut [f32; LANES], vector: Self::F32) {
        // SAFETY: the array holds sixteen floats.
        unsafe { self.store_ptr(target.as_mut_ptr(), vector) }
    }

    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self, vector: Self::F32) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, vector);
        lanes
    }

    /// Sixteen bytes as floats from 0 to 255.
    fn load_u8(self, source: &[u8; LANES]) -> Self::F32;

    /// Where sixteen bytes are `byte`.
    #[inline(always)]
    fn eq_u8(self, bytes: &[u8; LANES], byte: u8) -> Self::Mask {
        self.eq(self.load_u8(bytes), self.splat(f32::from(byte)))
    }

    /// Of a table of [`TABLE`] floats one for each lane: the one at its place, or zero where the place is
    /// [`NO_PLACE`].
    ///
    /// # Safety
    /// `table` is valid for reading [`TABLE`] floats; places are less than that or [`NO_PLACE`].
    #[inline(always)]
    unsafe fn pick_ptr(self, table: *const f32, places: &[u8; LANES]) -> Self::F32 {
        let mut lanes = [0.0; LANES];
        for (lane, &place) in lanes.iter_mut().zip(places) {
            // SAFETY: what is left of a place is less than `TABLE`.
            *lane = unsafe { *table.add(place as usize % TABLE) };
        }
        let is_place = self.lt(self.load_u8(places), self.splat(TABLE as f32));
        self.select(is_place, self.load(&lanes), self.zero())
    }

    /// Writes lanes that hold whole numbers from 0 to 255 as bytes; of others the byte is unspecified.
    fn store_u8(self, target: &mut [u8; LANES], vector: Self::F32);

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a · b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a / b`, correctly rounded.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a · b + c`, rounded once where the set has fused multiply-add, else twice.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;

    /// `a` where `a > b`, else `b`: where either is NaN the result is `b`.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a` where `a < b`, else `b`: where either is NaN the result is `b`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F32) -> Self::F32;

    /// `a` with its sign bit cleared.
    fn abs(self, a: Self::F32) -> Self::F32;

    /// `-a`, also of zero.
    #[inline(always)]
    fn neg(self, a: Self::F32) -> Self::F32 {
        self.sub(self.splat(-0.0), a)
    }

    /// The largest integer not above `a`.
    fn floor(self, a: Self::F32) -> Self::F32;

    /// The nearest integer, halves to the even one.
    fn round_ties_even(self, a: Self::F32) -> Self::F32;

    /// `a · 2^n` for integral `n` from -252 to 254; rounded once where `|a|` is in `[0.5, 2)`, and
    /// unspecified where `n` is NaN or out of range.
    fn mul_pow2(self, a: Self::F32, n: Self::F32) -> Self::F32;

    /// Where `a < b`; nowhere beside NaN.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where `a <= b`; nowhere beside NaN.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where `a == b`; nowhere beside NaN.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where `a > b`, or `a` is the first NaN: nowhere beside a NaN in `b`.
    fn exceeds(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// `sum + value` where the mask holds, else `sum`, of which -0 may become 0.
    #[inline(always)]
    fn add_where(self, mask: Self::Mask, sum: Self::F32, value: Self::F32) -> Self::F32 {
        self.add(sum, self.select(mask, value, self.zero()))
    }

    /// `yes` where the mask holds, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;

    /// `yes` where `a < b`, else `no`.
    #[inline(always)]
    fn select_lt(self, a: Self::F32, b: Self::F32, yes: Self::F32, no: Self::F32) -> Self::F32 {
        self.select(self.lt(a, b), yes, no)
    }

    /// `value` where `a > 0`, else zero: the gradient of relu.
    #[inline(always)]
    fn select_gt_zero(self, a: Self::F32, value: Self::F32) -> Self::F32 {
        self.select(self.lt(self.zero(), a), value, self.zero())
    }

    /// The sum of the lanes, in the same order on every set: lanes eight apart are added first, then
    /// those four, two and one apart.
    #[inline(always)]
    fn sum(self, vector: Self::F32) -> f32 {
        let mut lanes = self.to_array(vector);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The [`sum`](Isa::sum) of each of eight vectors, to the last bit.
    #[inline(always)]
    fn sum_eight(self, vectors: [Self::F32; 8]) -> [f32; 8] {
        vectors.map(|vector| self.sum(vector))
    }

    /// The transpose of a 16×16 matrix of row vectors.
    fn transpose(self, rows: [Self::F32; LANES]) -> [Self::F32; LANES];

    /// Sixteen pairs of the nearest bf16, of `even` in the low halves and of `odd` in the high ones:
    /// see [`bf16::round`].
    #[inline(always)]
    fn pair_bf16(self, even: Self::F32, odd: Self::F32) -> Self::F32 {
        bf16::pair(self, even, odd)
    }

    /// Adds the products of sixteen pairs of bf16 with sixteen others to f32 sums: see
    /// [`bf16::multiply_add`].
    #[inline(always)]
    fn dot_bf16(self, sums: Self::F32, a: Self::F32, b: Self::F32) -> Self::F32 {
        bf16::dot(self, sums, a, b)
    }

    /// Tiles that Winograd's convolutions transform and multiply together at most. With 64 channels the 36
    /// points of three are 442 KB, which a second-level cache of 512 KB holds; those of six are
    /// 884 KB, for one of 2 MB.
    const WINOGRAD_TILES: usize = 3;

    /// Calls `kernel` with the tile of the GEMM micro-kernel that suits this set's registers.
    fn gemm_tile<K: TileKernel>(self, kernel: K) -> K::Output;

    /// The same for values that are read where they lie, in rows far apart: at most eight rows, as all of
    /// them may fall on one set of the first-level cache.
    #[inline(always)]
    fn gemm_rows_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        self.gemm_tile(kernel)
    }

    /// Calls `kernel` with the tile of a direct convolution that suits this set's registers: channels
    /// whose weights are broadcast, by neighbouring pixels.
    fn conv2d_tile<K: TileKernel>(self, kernel: K) -> K::Output;

    /// Calls `kernel` with the tile of a direct convolution with three channels of results or fewer.
    #[inline(always)]
    fn conv2d_narrow_tile<K: TileKernel>(self, kernel: K) -> K::Output {
        self.conv2d_tile(kernel)
    }

    /// Calls `kernel` with the tile of a sparse kernel that suits this set's registers: positions whose
    /// products are summed together, and pixels that share a broadcast weight.
    fn sparse_tile<K: TileKernel>(self, kernel: K) -> K::Output;

    /// The same for single pixels, of which a packed channel is smaller: then more channels lie in the
    /// first-level cache, and each output has more weights among them.
    fn sparse_line<K: TileKernel>(self, kernel: K) -> K::Output;

    /// Calls `kernel` with a tile of products of vectors with vectors that suits this set's registers.
    fn outer_product_tile<K: TileKernel>(self, kernel: K) -> K::Output;
}

/// The exponential of each lane: at most 1.25 units in the last place from the exact value, 0 below
/// about -103.97, subnormal results rounded, infinity above about 88.72, NaN for NaN.
///
/// `e^x = 2^n · e^r` with `n = round(x / ln 2)`, so `|r| <= ln 2 / 2`, where a polynomial of degree 7
/// (its first coefficients those of the series) has a relative error below 1e-8.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Beyond these the result is 0 or infinity whatever the rest computes. NaN survives as the second operand.
    let x = isa.min(isa.splat(89.0), x);
    let x = isa.max(isa.splat(-104.5), x);
    let n = isa.round_ties_even(isa.mul(x, isa.splat(std::f32::consts::LOG2_E)));
    // The head of ln 2 has ten bits, so that n · head is exact without fused multiply-add too.
    let r = isa.mul_add(n, isa.splat(-0.693_359_4), x);
    let r = isa.mul_add(n, isa.splat(2.121_944_4e-4), r);
    let coefficients = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    let mut polynomial = isa.splat(1.0 / 5040.0);
    for coefficient in coefficients {
        polynomial = isa.mul_add(polynomial, r, isa.splat(coefficient));
    }
    let polynomial = isa.mul_add(polynomial, isa.mul(r, r), r);
    isa.mul_pow2(isa.add(polynomial, isa.splat(1.0)), n)
}

#[cfg(test)]
mod tests;
