//! Tiles: squares of the source that overlap by two places, squares of the result that do not.

use std::marker::PhantomData;
use std::ops::Range;

use super::transform::{Line, MOST_POINTS, Transform};
use crate::isa::Isa;
use crate::lanes::LANES;

/// A matrix of as many lines as a line has values.
pub(super) type Square<V> = [Line<V>; MOST_POINTS];

/// A plane of `rows` by `columns` vectors, cut into squares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Places of zeros before the first row and the first column.
    pub(super) before: [usize; 2],
}

/// The part of a square that lies on its plane.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Rows and columns of the square that lie on the plane.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Where its first value would lie in the plane, in floats; wraps around before the start.
    corner: usize,
    whole: bool,
}

impl Place {
    /// The corner in a plane that starts here; need not be valid.
    #[inline(always)]
    pub(super) fn corner_in(&self, plane: *const f32) -> *const f32 {
        plane.wrapping_add(self.corner)
    }
}

impl Plane {
    /// Floats of the plane.
    pub(super) fn len(&self) -> usize {
        self.rows * self.columns * LANES
    }

    /// The square of `size` by `size` places that stands at `step` times the given row and column.
    #[inline(always)]
    pub(super) fn square(&self, [row, column]: [usize; 2], step: usize, size: usize) -> Place {
        let [rows, columns] = [
            inside(row * step, self.before[0], self.rows, size),
            inside(column * step, self.before[1], self.columns, size),
        ];
        let whole = rows.len() == size && columns.len() == size;
        let first_row = (row * step).wrapping_sub(self.before[0]);
        let first_column = (column * step).wrapping_sub(self.before[1]);
        Place {
            rows,
            columns,
            corner: first_row
                .wrapping_mul(self.columns)
                .wrapping_add(first_column)
                .wrapping_mul(LANES),
            whole,
        }
    }
}

/// Places of a square at `start` that lie on an axis of `len` places behind `before` places of
/// zeros.
#[inline(always)]
fn inside(start: usize, before: usize, len: usize, size: usize) -> Range<usize> {
    let first = before.saturating_sub(start).min(size);
    let last = (len + before).saturating_sub(start).min(size);
    first..last.max(first)
}

/// What happens to each line of a square on its way to the products.
pub(super) trait ToPoints {
    /// Values that go in.
    const SIZE: usize;
    /// Values that come out.
    const POINTS: usize;

    fn line<I: Isa>(isa: I, line: Line<I::F32>) -> Line<I::F32>;
}

/// [`Transform::input`].
pub(super) struct Input<T>(PhantomData<T>);

impl<T: Transform> ToPoints for Input<T> {
    const SIZE: usize = T::POINTS;
    const POINTS: usize = T::POINTS;

    #[inline(always)]
    fn line<I: Isa>(isa: I, line: Line<I::F32>) -> Line<I::F32> {
        T::input(isa, line)
    }
}

/// [`Transform::grad_output`].
pub(super) struct GradOutput<T>(PhantomData<T>);

impl<T: Transform> ToPoints for GradOutput<T> {
    const SIZE: usize = T::OUTPUTS;
    const POINTS: usize = T::POINTS;

    #[inline(always)]
    fn line<I: Isa>(isa: I, line: Line<I::F32>) -> Line<I::F32> {
        T::grad_output(isa, line)
    }
}

/// The value of an expression for each index of a line, written out: values that a loop indexes
/// would lie in memory, where these stay in registers.
macro_rules! line {
    ($index:ident => $value:expr) => {
        [
            line!(0, $index => $value),
            line!(1, $index => $value),
            line!(2, $index => $value),
            line!(3, $index => $value),
            line!(4, $index => $value),
            line!(5, $index => $value),
        ]
    };
    ($at:literal, $index:ident => $value:expr) => {{
        let $index: usize = $at;
        $value
    }};
}

/// The vectors of a square: (i, j) at `corner[i · row_stride + j · column_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Vectors {
    /// Need not be valid.
    pub(super) corner: *const f32,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Vectors {
    /// Those of a place of a plane that starts here.
    #[inline(always)]
    pub(super) fn of(start: *const f32, plane: &Plane, place: &Place) -> Self {
        Self {
            corner: place.corner_in(start),
            row_stride: plane.columns * LANES,
            column_stride: LANES,
        }
    }

    #[inline(always)]
    pub(super) fn at(&self, i: usize, j: usize) -> *const f32 {
        self.corner
            .wrapping_add(i * self.row_stride + j * self.column_stride)
    }
}

/// Reads a square, zeros beside the plane, transforms each column, then each of the rows that
/// result, and writes vector (i, j) to `target[(i · POINTS + j) · stride]`.
///
/// # Safety
/// The vectors are valid for reading where `place` lies on its plane; the target is valid for writing.
#[inline(always)]
pub(super) unsafe fn transform_square<I: Isa, L: ToPoints>(
    isa: I,
    source: Vectors,
    place: &Place,
    target: (*mut f32, usize),
) {
    // SAFETY: as the caller vouches.
    unsafe {
        if place.whole {
            transform::<I, L, true>(isa, source, place, target);
        } else {
            transform::<I, L, false>(isa, source, place, target);
        }
    }
}

/// [`transform_square`], `WHOLE` if all of it lies on the plane.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn transform<I: Isa, L: ToPoints, const WHOLE: bool>(
    isa: I,
    source: Vectors,
    place: &Place,
    (target, stride): (*mut f32, usize),
) {
    let zero = isa.zero();
    let half: Square<I::F32> = line!(j => {
        let used = j < L::SIZE && (WHOLE || place.columns.contains(&j));
        let column = line!(i => {
            if used && i < L::SIZE && (WHOLE || place.rows.contains(&i)) {
                // SAFETY: this row and column lie on the plane.
                unsafe { isa.load_ptr(source.at(i, j)) }
            } else {
                zero
            }
        });
        L::line(isa, column)
    });
    line!(i => if i < L::POINTS {
        let row = L::line(isa, line!(j => half[j][i]));
        line!(j => if j < L::POINTS {
            let to = target.wrapping_add((i * L::POINTS + j) * stride);
            // SAFETY: the caller vouches for the target.
            unsafe { isa.store_ptr(to, row[j]) };
        });
    });
}

/// Asks for the pixels of tiles ahead of their use, some rows of a tile at a time, so that memory
/// works while products are computed.
pub(super) struct Ahead<const TILES: usize> {
    /// Where the tiles begin in the first channel; need not be valid.
    corners: [*const f32; TILES],
    tiles: usize,
    /// Rows of a tile.
    rows: usize,
    /// Vectors of a row.
    columns: usize,
    row_stride: usize,
    channels: usize,
    channel_stride: usize,
    /// What comes next: which row of which tile of which channel.
    channel: usize,
    tile: usize,
    row: usize,
    /// Rows to ask for at a time.
    at_once: usize,
}

impl<const TILES: usize> Ahead<TILES> {
    /// No tiles yet; those that come have so many rows and columns, in so many channels of a plane.
    #[inline(always)]
    pub(super) fn new(plane: &Plane, rows: usize, columns: usize, channels: usize) -> Self {
        Self {
            corners: [std::ptr::null(); TILES],
            tiles: 0,
            rows,
            columns,
            row_stride: plane.columns * LANES,
            channels,
            channel_stride: plane.len(),
            channel: 0,
            tile: 0,
            row: 0,
            at_once: 0,
        }
    }

    /// The same in memory that is laid out in another way.
    #[inline(always)]
    pub(super) fn with_strides(self, row_stride: usize, channel_stride: usize) -> Self {
        Self {
            row_stride,
            channel_stride,
            ..self
        }
    }

    /// Adds a tile by its corner.
    #[inline(always)]
    pub(super) fn add(&mut self, corner: *const f32) {
        self.corners[self.tiles] = corner;
        self.tiles += 1;
    }

    /// Adds the square of a tile on a plane of so many rows and columns of tiles, whose first channel is at
    /// `start`. Behind the last tile of a block come those of the next one, which is read next most likely.
    #[inline(always)]
    pub(super) fn add_square(
        &mut self,
        (plane, [down, across]): (&Plane, [usize; 2]),
        start: *const f32,
        tile: usize,
    ) {
        let (block, tile) = (tile / (down * across), tile % (down * across));
        let place = plane.square([tile / across, tile % across], self.columns, self.rows);
        let block_len = self.channels * self.channel_stride;
        self.add(place.corner_in(start.wrapping_add(block * block_len)));
    }

    /// Asks for everything in so many calls of [`fetch`](Self::fetch).
    #[inline(always)]
    pub(super) fn spread_over(&mut self, calls: usize) {
        self.at_once = (self.channels * self.tiles * self.rows).div_ceil(calls.max(1));
    }

    /// Asks for the next rows.
    #[inline(always)]
    pub(super) fn fetch<I: Isa>(&mut self, isa: I) {
        for _ in 0..self.at_once {
            if self.channel == self.channels {
                return;
            }
            let offset = self.channel * self.channel_stride + self.row * self.row_stride;
            let line = self.corners[self.tile].wrapping_add(offset);
            for column in 0..self.columns {
                isa.prefetch(line.wrapping_add(column * LANES));
            }
            self.row += 1;
            if self.row == self.rows {
                (self.row, self.tile) = (0, self.tile + 1);
                if self.tile == self.tiles {
                    (self.tile, self.channel) = (0, self.channel + 1);
                }
            }
        }
    }
}

/// What becomes of an output before it is written.
#[derive(Clone, Copy)]
pub(super) struct Last {
    pub(super) bias: f32,
    pub(super) relu: bool,
    /// See [`Epilogue`](crate::conv2d::Epilogue).
    pub(super) rectified: bool,
    /// See [`PlaneTarget`](super::PlaneTarget).
    pub(super) streamed: bool,
}

/// Transforms the products of one channel of one tile back and writes what lies on the plane.
///
/// # Safety
/// `products[(i · points + j) · stride]` is valid for reading, and `target` for writing, and for reading
/// if the outputs are rectified, where `place` lies on its plane, whose rows are `row_stride` floats
/// apart. If they are streamed, `target` and `row_stride` are whole vectors of 64 bytes.
#[inline(always)]
pub(super) unsafe fn write_outputs<I: Isa, T: Transform>(
    isa: I,
    (products, stride): (*const f32, usize),
    place: &Place,
    (target, row_stride): (*mut f32, usize),
    last: Last,
) {
    let zero = isa.zero();
    let half: Square<I::F32> = line!(j => {
        let column = line!(i => {
            if i < T::POINTS && j < T::POINTS {
                let from = products.wrapping_add((i * T::POINTS + j) * stride);
                // SAFETY: the caller vouches for the products.
                unsafe { isa.load_ptr(from) }
            } else {
                zero
            }
        });
        T::output(isa, column)
    });
    let bias = isa.splat(last.bias);
    // No floor leaves every value as it is, NaN too.
    let floor = isa.splat(if last.relu { 0.0 } else { f32::NEG_INFINITY });
    line!(i => if i < T::OUTPUTS && place.rows.contains(&i) {
        let row = T::output(isa, line!(j => half[j][i]));
        line!(j => if j < T::OUTPUTS && place.columns.contains(&j) {
            let mut value = isa.max(floor, isa.add(row[j], bias));
            let to = target.wrapping_add(i * row_stride + j * LANES);
            // SAFETY: this row and column lie on the plane.
            unsafe {
                if last.rectified {
                    value = isa.select_gt_zero(isa.load_ptr(to), value);
                }
                isa.write_ptr(to, value, last.streamed);
            }
        });
    });
}
