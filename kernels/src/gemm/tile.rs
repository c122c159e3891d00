//! The register tile: the one micro-kernel of every matrix product.
//!
//! A tile of the result, `ROWS` by `VECTORS` vectors of sixteen lanes, stays in registers while the
//! kernel walks along the summed dimension. At each step it reads `VECTORS` vectors of one operand,
//! broadcasts `ROWS` values of the other, and multiplies each with each.

use crate::isa::{Isa, processor};
use crate::lanes::LANES;

/// A kernel over the register tile of an instruction set; see [`Isa::gemm_tile`].
pub trait TileKernel {
    /// What the kernel returns.
    type Output;

    /// Runs with tiles of `ROWS` broadcast values by `VECTORS` vectors of sixteen lanes.
    /// Implementations are `#[inline(always)]`.
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) -> Self::Output;
}

/// Where the operands and the result of one tile lie; all strides in floats.
///
/// Step `s = outer · inner + i` of the sum reads the values `a[r · a_row + outer · a_outer + i]`, or, of
/// `R` rows that lie side by side, `a[r + outer · a_outer + i · R]`, and the vectors at
/// `b[v · b_vector + s · b_step]`.
#[derive(Clone, Copy)]
pub(crate) struct Tile<F = Store> {
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_outer: usize,
    pub(crate) b: *const f32,
    pub(crate) b_vector: usize,
    pub(crate) b_step: usize,
    pub(crate) outer: usize,
    pub(crate) inner: usize,
    /// What to ask for ahead of its use.
    pub(crate) ahead: Ahead,
    /// The result: vector v of row r at `c[r · c_row + v · c_vector]`.
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    pub(crate) c_vector: usize,
    /// Rows to write; the others are computed and dropped.
    pub(crate) rows: usize,
    /// Lanes to write of the last vector.
    pub(crate) last_lanes: usize,
    pub(crate) finish: F,
}

impl<F> Tile<F> {
    /// Where vector `v` of row `r` of the result lies.
    #[inline(always)]
    pub(crate) fn place(&self, r: usize, v: usize) -> *mut f32 {
        self.c.wrapping_add(r * self.c_row + v * self.c_vector)
    }
}

/// Memory that the next tiles will read, asked for while this one is computed: at step
/// `s = outer · inner + i` the cache line at `start[outer · outer_stride + i · inner_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) start: *const f32,
    pub(crate) outer_stride: usize,
    pub(crate) inner_stride: usize,
}

impl Ahead {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        start: std::ptr::null(),
        outer_stride: 0,
        inner_stride: 0,
    };
}

/// What becomes of the sums of a tile.
pub(crate) trait Finish: Copy {
    /// Asks for the memory that [`finish`](Self::finish) will read, before the sums are computed.
    fn prepare<I: Isa>(isa: I, tile: &Tile<Self>, vectors: usize);

    /// Uses up the sums; rows from [`Tile::rows`] on and lanes from [`Tile::last_lanes`] on do not count.
    ///
    /// # Safety
    /// As [`micro_kernel`].
    unsafe fn finish<I: Isa, const ROWS: usize, const VECTORS: usize>(
        isa: I,
        tile: &Tile<Self>,
        sums: [[I::F32; VECTORS]; ROWS],
    );
}

/// Writes the sums to the result.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    /// Add what the result holds, times this; zero does not read it.
    pub(crate) held: f32,
    /// Add one value per row, the first of them here; null for none.
    pub(crate) bias: *const f32,
    /// Replace negative values by zero.
    pub(crate) relu: bool,
}

impl Store {
    /// The sums as they are.
    pub(crate) const PLAIN: Self = Self {
        held: 0.0,
        bias: std::ptr::null(),
        relu: false,
    };
}

/// Steps of a tile at most whose operands leave its result in the first-level cache.
const SHORT: usize = 64;

impl Finish for Store {
    #[inline(always)]
    fn prepare<I: Isa>(isa: I, tile: &Tile<Self>, vectors: usize) {
        if tile.finish.held == 0.0 {
            return;
        }
        let is_short = tile.outer * tile.inner <= SHORT;
        for r in 0..tile.rows {
            for v in 0..vectors {
                let place = tile.place(r, v).cast_const();
                if is_short {
                    isa.prefetch(place);
                } else {
                    isa.prefetch_to_l2(place);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa, const ROWS: usize, const VECTORS: usize>(
        isa: I,
        tile: &Tile<Self>,
        sums: [[I::F32; VECTORS]; ROWS],
    ) {
        let whole = tile.rows == ROWS && tile.last_lanes == LANES;
        // SAFETY: the caller vouches for the result and the bias.
        unsafe {
            if whole {
                store_whole(isa, tile, sums);
            } else {
                store_part(isa, tile, &sums);
            }
        }
    }
}

/// Computes one tile of `ROWS` by `VECTORS` vectors. `A_ROW` is the stride between broadcast values
/// where it is known when this is compiled; zero takes [`Tile::a_row`]. [`Tile::ahead`] counts only
/// with `AHEAD`.
///
/// # Safety
/// Every value and vector that [`Tile`] describes, for `ROWS` rows, is valid for reading; `rows`
/// rows of the result, its last vector `last_lanes` lanes wide, are valid for writing
/// and reading by this call alone, and so is whatever else `finish` names: a bias is null or valid
/// for `rows` floats.
#[inline(always)]
pub(crate) unsafe fn micro_kernel<
    I: Isa,
    F: Finish,
    const ROWS: usize,
    const VECTORS: usize,
    const A_ROW: usize,
    const AHEAD: bool,
>(
    isa: I,
    tile: &Tile<F>,
) {
    F::prepare(isa, tile, VECTORS);
    // SAFETY: the caller vouches for every value and vector of every step, and for all that the finish
    // names.
    unsafe {
        let reads_memory = I::MULTIPLIES_FROM_MEMORY && A_ROW == 1;
        let sums = if reads_memory && processor::is_bound_by_loads() {
            sum_steps::<I, F, ROWS, VECTORS, A_ROW, AHEAD, true>(isa, tile)
        } else {
            sum_steps::<I, F, ROWS, VECTORS, A_ROW, AHEAD, false>(isa, tile)
        };
        F::finish(isa, tile, sums);
    }
}

/// The sums of a tile over all its steps. `ONCE` loads each value once for all vectors.
///
/// # Safety
/// As [`micro_kernel`].
#[inline(always)]
unsafe fn sum_steps<
    I: Isa,
    F: Finish,
    const ROWS: usize,
    const VECTORS: usize,
    const A_ROW: usize,
    const AHEAD: bool,
    const ONCE: bool,
>(
    isa: I,
    tile: &Tile<F>,
) -> [[I::F32; VECTORS]; ROWS] {
    let mut sums = [[isa.zero(); VECTORS]; ROWS];
    let mut b = tile.b;
    for outer in 0..tile.outer {
        let mut steps = Steps::<A_ROW, AHEAD, ONCE> {
            a: tile.a.wrapping_add(outer * tile.a_outer),
            b,
            ahead: tile
                .ahead
                .start
                .wrapping_add(outer * tile.ahead.outer_stride),
        };
        // SAFETY: the caller vouches for every value and vector of every step.
        unsafe {
            let mut left = tile.inner;
            // Rows that lie apart take up the registers for addresses.
            if I::MULTIPLIES_FROM_MEMORY && A_ROW != 0 && ROWS * VECTORS <= ROOMY {
                for _ in 0..tile.inner / 2 {
                    let [first, second] = steps.next_values::<I, ROWS, VECTORS, 2>(isa);
                    steps.add(isa, tile, first, &mut sums);
                    steps.add(isa, tile, second, &mut sums);
                }
                left = tile.inner % 2;
            }
            for _ in 0..left {
                let [values] = steps.next_values::<I, ROWS, VECTORS, 1>(isa);
                steps.add(isa, tile, values, &mut sums);
            }
        }
        b = steps.b;
    }
    sums
}

/// Sums of a tile that leaves enough of 32 registers to take two steps between counts.
const ROOMY: usize = 24;

/// Rows that one address reaches where their stride is not known when this is compiled: the row there and
/// those one and two strides behind it.
const NEAR_ROWS: usize = 3;

/// Where the operands of the next steps lie. Pointers may step past the end of an operand only after the
/// last read.
struct Steps<const A_ROW: usize, const AHEAD: bool, const ONCE: bool> {
    a: *const f32,
    b: *const f32,
    ahead: *const f32,
}

impl<const A_ROW: usize, const AHEAD: bool, const ONCE: bool> Steps<A_ROW, AHEAD, ONCE> {
    /// Where the values of the next steps begin, an address for each vector: by one address for all, the
    /// compiler would load each value only once.
    #[inline(always)]
    fn next_values<I: Isa, const ROWS: usize, const VECTORS: usize, const COUNT: usize>(
        &mut self,
        isa: I,
    ) -> [[*const f32; VECTORS]; COUNT] {
        let a_inner = if A_ROW == 1 { ROWS } else { 1 };
        let mut address = self.a;
        let first = [(); VECTORS].map(|()| {
            if I::MULTIPLIES_FROM_MEMORY && A_ROW != 0 {
                address = isa.address(address, 0);
            }
            address
        });
        self.a = self.a.wrapping_add(COUNT * a_inner);
        std::array::from_fn(|step| first.map(|a| a.wrapping_add(step * a_inner)))
    }

    /// Adds the products of one step.
    ///
    /// A core that two threads share takes up three instructions in a cycle for each, of which two should
    /// multiply. So where a set can, rows take their values from memory: all of them in a packed tile of
    /// two vectors, every other one elsewhere, where more loads would take longer; none of a packed tile
    /// where loads bind.
    ///
    /// # Safety
    /// As [`micro_kernel`], for this step.
    #[inline(always)]
    unsafe fn add<I: Isa, F, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        tile: &Tile<F>,
        a: [*const f32; VECTORS],
        sums: &mut [[I::F32; VECTORS]; ROWS],
    ) {
        let a_row = if A_ROW == 0 { tile.a_row } else { A_ROW };
        if AHEAD {
            isa.prefetch_to_l2(self.ahead);
            self.ahead = self.ahead.wrapping_add(tile.ahead.inner_stride);
        }
        let mut vectors = [isa.zero(); VECTORS];
        for (v, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: the caller vouches for every vector of every step.
            *vector = unsafe { isa.load_ptr(self.b.add(v * tile.b_vector)) };
        }
        self.b = self.b.wrapping_add(tile.b_step);
        if A_ROW == 0 {
            let (groups, rest) = sums.as_chunks_mut::<NEAR_ROWS>();
            let mut first = a[0];
            for group in groups {
                first = isa.address(first, 0);
                for (r, row) in group.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for `ROWS` values of every step.
                    unsafe { add_row(isa, first.add(r * a_row), vectors, row) };
                }
                first = first.wrapping_add(NEAR_ROWS * a_row);
            }
            for (r, row) in rest.iter_mut().enumerate() {
                // SAFETY: as above.
                unsafe { add_row(isa, first.add(r * a_row), vectors, row) };
            }
            return;
        }
        for (r, row) in sums.iter_mut().enumerate() {
            let is_loaded_once = ONCE || r % 2 == 0 && (A_ROW != 1 || VECTORS > 2);
            for (v, (sum, vector)) in row.iter_mut().zip(vectors).enumerate() {
                let a = a[if is_loaded_once { 0 } else { v }];
                // SAFETY: the caller vouches for `ROWS` values of every step.
                let value = isa.splat(unsafe { *a.add(r * a_row) });
                *sum = isa.mul_add(value, vector, *sum);
            }
        }
    }
}

/// Adds the products of one value, `*value`, with every vector.
///
/// # Safety
/// The value is valid for reading.
#[inline(always)]
unsafe fn add_row<I: Isa, const VECTORS: usize>(
    isa: I,
    value: *const f32,
    vectors: [I::F32; VECTORS],
    row: &mut [I::F32; VECTORS],
) {
    // SAFETY: the caller vouches for the value.
    let value = isa.splat(unsafe { *value });
    for (sum, vector) in row.iter_mut().zip(vectors) {
        *sum = isa.mul_add(value, vector, *sum);
    }
}

/// Finishes and writes a whole tile. One pass for each step, so that the loops unroll and the sums
/// never leave their registers.
///
/// # Safety
/// As [`micro_kernel`], with `ROWS` rows of whole vectors.
#[inline(always)]
unsafe fn store_whole<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    tile: &Tile,
    mut sums: [[I::F32; VECTORS]; ROWS],
) {
    let Store { held, bias, relu } = tile.finish;
    if held != 0.0 {
        let held = isa.splat(held);
        for (r, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                // SAFETY: the caller vouches for `ROWS` rows of whole vectors.
                let before = unsafe { isa.load_ptr(tile.place(r, v)) };
                *sum = isa.mul_add(held, before, *sum);
            }
        }
    }
    if !bias.is_null() {
        for (r, row) in sums.iter_mut().enumerate() {
            // SAFETY: a bias that is not null has as many values as there are rows.
            let bias = isa.splat(unsafe { *bias.add(r) });
            for sum in row {
                *sum = isa.add(*sum, bias);
            }
        }
    }
    if relu {
        for row in &mut sums {
            for sum in row {
                // In this order NaN stays NaN.
                *sum = isa.max(isa.zero(), *sum);
            }
        }
    }
    for (r, row) in sums.iter().enumerate() {
        for (v, &sum) in row.iter().enumerate() {
            // SAFETY: the caller vouches for `ROWS` rows of whole vectors.
            unsafe { isa.store_ptr(tile.place(r, v), sum) };
        }
    }
}

/// Finishes and writes the rows and lanes of a tile that there are.
///
/// # Safety
/// As [`micro_kernel`].
#[inline(always)]
unsafe fn store_part<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    tile: &Tile,
    sums: &[[I::F32; VECTORS]; ROWS],
) {
    let Store { held, bias, relu } = tile.finish;
    // A copy: the sums themselves must not be indexed by what is known only at run time, or they
    // would lie in memory all along.
    let sums = *sums;
    for (r, row) in sums.iter().enumerate().take(tile.rows) {
        for (v, &sum) in row.iter().enumerate() {
            let lanes = if v + 1 == VECTORS {
                tile.last_lanes
            } else {
                LANES
            };
            let mut sum = sum;
            // SAFETY: the caller vouches for `rows` rows, the last vector `last_lanes` lanes wide,
            // and for `rows` values of a bias that is not null.
            unsafe {
                if held != 0.0 {
                    let before = isa.load_first_ptr(tile.place(r, v), lanes);
                    sum = isa.mul_add(isa.splat(held), before, sum);
                }
                if !bias.is_null() {
                    sum = isa.add(sum, isa.splat(*bias.add(r)));
                }
                if relu {
                    sum = isa.max(isa.zero(), sum);
                }
                isa.store_first_ptr(tile.place(r, v), sum, lanes);
            }
        }
    }
}
