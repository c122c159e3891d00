//! Matrix multiplication: packed, blocked, parallel.
//!
//! Every product here, dense layers included, runs on one micro-kernel, which multiplies values
//! of one operand, broadcast, with vectors of sixteen lanes of the other. What differs is where the
//! operands come from. [`gemm`] packs both from any strides, but for a left matrix whose rows are each
//! in one piece, which it reads where it lies, and with it such a right matrix, where a copy would not be
//! faster. A dense layer ([`dense`](crate::dense)) reads its activations as they lie, since the lane layout
//! is a packed operand, and packs only its weights, not even those where images are few, or, for their
//! gradient, one of the activations.
//!
//! The scheme is that of Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication*
//! (2008), with the blocks of one operand read in place where they lie in lanes already.

use crate::dispatch::InstructionSet;
use crate::lanes::LANES;
pub use crate::naive::{Gemm, Matrix};

pub(crate) mod bf16;
pub(crate) mod deep;
pub(crate) mod driver;
pub(crate) mod epilogue;
pub(crate) mod pack;
pub(crate) mod scratch;
mod task;
pub mod tile;

use driver::{Broadcast, Product, Vectors, multiply, tile_size};
use epilogue::Stored;
use pack::{Source, pack, packed_len};
use scratch::with_scratch;

/// `c = alpha · a · b + beta · c`, where element (i, j) of `c` is
/// `c[i * c_strides[0] + j * c_strides[1]]`. What lies between the strides stays as it is.
///
/// As in BLAS, `beta` of zero does not read `c`, and `alpha` of zero reads neither `a` nor `b`. Sizes
/// of zero are legal. The result does not depend on the number of threads.
///
/// ```
/// use taskweave_kernels::dispatch;
/// use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
///
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let product = Gemm {
///     m: 2,
///     n: 2,
///     k: 2,
///     alpha: 1.0,
///     a: Matrix::row_major(&a, 2),
///     b: Matrix::row_major(&b, 2).transposed(),
///     beta: 0.0,
/// };
/// let mut c = [0.0; 4];
/// gemm(dispatch::active(), &product, &mut c, [2, 1]);
/// assert_eq!(c, [17.0, 23.0, 39.0, 53.0]);
/// ```
///
/// # Panics
/// If a slice ends before its matrix does, or if two elements of `c` share a place.
pub fn gemm(set: InstructionSet, args: &Gemm<'_, f32>, c: &mut [f32], c_strides: [usize; 2]) {
    let &Gemm { m, n, k, .. } = args;
    check_matrix(
        "a",
        args.a.values.len(),
        [m, k],
        [args.a.row_stride, args.a.col_stride],
    );
    check_matrix(
        "b",
        args.b.values.len(),
        [k, n],
        [args.b.row_stride, args.b.col_stride],
    );
    check_matrix("c", c.len(), [m, n], c_strides);
    if m == 0 || n == 0 {
        return;
    }
    let [row_stride, col_stride] = c_strides;
    assert!(
        (m == 1 || row_stride > (n - 1) * col_stride && row_stride > 0)
            && (n == 1 || col_stride > 0)
            || (n == 1 || col_stride > (m - 1) * row_stride && col_stride > 0)
                && (m == 1 || row_stride > 0),
        "elements of c, {m}×{n}, share places at strides {row_stride} and {col_stride}"
    );
    if row_stride == 1 && (n == 1 || col_stride != 1) {
        // cᵀ = bᵀ · aᵀ, whose columns lie side by side.
        let transposed = Gemm {
            m: n,
            n: m,
            a: args.b.transposed(),
            b: args.a.transposed(),
            ..*args
        };
        contiguous(set, &transposed, c, col_stride);
    } else if n == 1 || col_stride == 1 {
        contiguous(set, args, c, row_stride);
    } else {
        with_scratch(m * n, |rows| {
            let places = |i: usize| (0..n).map(move |j| i * row_stride + j * col_stride);
            if args.beta != 0.0 {
                for (i, row) in rows.chunks_mut(n).enumerate() {
                    for (value, place) in row.iter_mut().zip(places(i)) {
                        *value = c[place];
                    }
                }
            }
            contiguous(set, args, rows, n);
            for (i, row) in rows.chunks(n).enumerate() {
                for (&value, place) in row.iter().zip(places(i)) {
                    c[place] = value;
                }
            }
        });
    }
}

/// `c = a · b` of operands rounded to bf16, summed in f32, into row-major `c` of `[m, n]`; `size` is
/// `[m, n, k]`. See [`isa::bf16`](crate::isa::bf16) for what is computed to the last bit, on any number
/// of threads and every instruction set but `amx`, which has an order of its own.
///
/// ```
/// use taskweave_kernels::dispatch;
/// use taskweave_kernels::gemm::{Matrix, gemm_bf16};
///
/// let (a, b) = ([1.0, 1e-3, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let factors = [Matrix::row_major(&a, 2), Matrix::row_major(&b, 2).transposed()];
/// let mut c = [0.0; 4];
/// gemm_bf16(dispatch::active(), [2, 2, 2], factors, &mut c);
/// assert_eq!(c[2..], [39.0, 53.0]);
/// // The nearest bf16 to 0.001 is 0.00099945.
/// assert!((c[0] - 5.005996).abs() < 1e-6);
/// ```
///
/// # Panics
/// If a matrix does not fit in its slice, or `c` is not `m · n` long.
pub fn gemm_bf16(
    set: InstructionSet,
    size: [usize; 3],
    [a, b]: [Matrix<'_, f32>; 2],
    c: &mut [f32],
) {
    let [m, n, k] = size;
    check_matrix("a", a.values.len(), [m, k], [a.row_stride, a.col_stride]);
    check_matrix("b", b.values.len(), [k, n], [b.row_stride, b.col_stride]);
    crate::lanes::check("c", c.len(), m * n);
    let product = bf16::Product {
        rows: m,
        columns: n,
        depth: k,
        a: bf16::Operand::Matrix(a),
        b: bf16::Operand::Matrix(b.transposed()),
        target: bf16::Target::Rows {
            columns: n,
            stride: n,
        },
        epilogue: Stored::PLAIN,
    };
    bf16::multiply(set, &product, c);
}

/// [`gemm`] into rows of adjacent elements.
fn contiguous(set: InstructionSet, args: &Gemm<'_, f32>, c: &mut [f32], row_stride: usize) {
    let &Gemm { m, n, alpha, .. } = args;
    let k = if alpha == 0.0 { 0 } else { args.k };
    let a_strides = [args.a.row_stride, args.a.col_stride];
    let b_strides = [args.b.col_stride, args.b.row_stride];
    let a = Source {
        scale: alpha,
        ..Source::strided(args.a.values, [m, k], a_strides)
    };
    let b = Source::strided(args.b.values, [n, k], b_strides);
    let vectors = n.div_ceil(LANES);
    let product = Product {
        rows: m,
        vectors,
        depth: k,
        a: Broadcast::Matrix(a),
        b: Vectors::Matrix(b),
        row_stride,
        vector_stride: LANES,
        last_lanes: n - (vectors - 1) * LANES,
        epilogue: Stored {
            held: args.beta,
            ..Stored::PLAIN
        },
        ahead: None,
    };
    // Rows that are in one piece, to be taken as they are, are read where they lie.
    if a.depth_stride == 1 && a.scale == 1.0 {
        let product = Product {
            a: Broadcast::Rows(a),
            b: Vectors::matrix(set, b, m),
            ..product
        };
        // SAFETY: `gemm` made sure that the elements of `c` lie in different places.
        unsafe { multiply(set, &product, c) };
        return;
    }
    let (tile_rows, tile_vectors) = tile_size(set);
    // Otherwise the smaller operand is packed once for all tasks, the other one within them.
    let (source, width) = if m < n {
        (a, tile_rows)
    } else {
        (b, tile_vectors * LANES)
    };
    with_scratch(packed_len(source.across, k, width), |panels| {
        pack(set, source, width, panels);
        let product = if m < n {
            Product {
                a: Broadcast::Packed(panels),
                ..product
            }
        } else {
            Product {
                b: Vectors::Packed(panels),
                ..product
            }
        };
        // SAFETY: `gemm` made sure that the elements of `c` lie in different places.
        unsafe { multiply(set, &product, c) };
    });
}

/// Holds a matrix of the given shape to its slice.
#[track_caller]
fn check_matrix(name: &str, len: usize, [rows, cols]: [usize; 2], strides: [usize; 2]) {
    if rows == 0 || cols == 0 {
        return;
    }
    let reach = (rows - 1)
        .checked_mul(strides[0])
        .zip((cols - 1).checked_mul(strides[1]))
        .and_then(|(rows, cols)| rows.checked_add(cols));
    assert!(
        reach.is_some_and(|last| last < len),
        "{name}, {rows}×{cols} at strides {} and {}, does not fit in {len} values",
        strides[0],
        strides[1]
    );
}
