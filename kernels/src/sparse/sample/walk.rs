//! The way through lists of positions, and the products with the gradient of a tile.

use std::ops::Range;

use super::ahead::Ahead;
use super::{SLACK, Sampling};
use crate::dispatch::Kernel;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::sparse::index::{List, run_tile};
use crate::sparse::lists::row_step;
use crate::sparse::sheets::{Next, TilePlace, Window, prefetch_pixels};

/// Channels of the gradient that are asked for before they are read.
const AHEAD: usize = 2;

/// Vectors of the source that are asked for with a list, at least: the last lists ask, so that what comes stays
/// near.
const ASKED: usize = 2;

/// Some chunks of some channels of the result, over some tiles.
pub(super) struct Task<'a> {
    pub(super) sampling: &'a Sampling<'a>,
    pub(super) tiles: Range<usize>,
    pub(super) results: Range<usize>,
    pub(super) chunks: Range<usize>,
    pub(super) packed: &'a mut [f32],
    /// One for each of its values, chunk by chunk, and [`SLACK`], to which products are added.
    pub(super) sums: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        run_tile(isa, self.sampling.index.outline.reach.is_line(), self);
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Sampling {
            index,
            source,
            sheets,
            before,
            grad,
            grad_sheets,
        } = self.sampling;
        let outline = &index.outline;
        let reach = &outline.reach;
        let window = Window {
            values: source,
            sheets,
            reach,
            before: *before,
        };
        // Of features, what one chunk wants of all tiles stays near, weights and sums among it; of images,
        // what all chunks want of one tile.
        let by_chunk = sheets.has_features;
        let is_far = !by_chunk || sheets.has_far_features(source);
        let (tile_count, chunk_count) = (self.tiles.len(), self.chunks.len());
        let turn = |step: usize| match by_chunk {
            true => (step % tile_count, step / tile_count),
            false => (step / chunk_count, step % chunk_count),
        };
        let place = |tile_at: usize| TilePlace::new(grad_sheets, reach, self.tiles.start + tile_at);
        let channels = |chunk_at: usize| outline.channels(self.chunks.start + chunk_at);
        let tiles: usize = grad_sheets.tiles(reach).iter().product();
        let all_tiles = tiles * grad_sheets.count;
        let mut passed = 0;
        for step in 0..tile_count * chunk_count {
            let (tile_at, chunk_at) = turn(step);
            let tile = place(tile_at);
            let chunk = self.chunks.start + chunk_at;
            if chunk_at == 0 {
                passed = 0;
            }
            let weights = index.weights(chunk, self.results.clone());
            let first_sum = passed;
            if !by_chunk || tile_at + 1 == tile_count {
                passed += weights.len();
            }
            if weights.is_empty() {
                continue;
            }
            // What is nearer than memory can be asked for all at once.
            let next = (!is_far).then_some(Next::Tile);
            window.pack(isa, &tile, channels(chunk_at), (self.packed, next));
            let ahead = match turn(step + 1) {
                (tile, chunk) if is_far && by_chunk && chunk < chunk_count => {
                    Ahead::of_features(&window, &place(tile), channels(chunk))
                }
                (tile, chunk) if !by_chunk && self.tiles.start + tile < all_tiles => {
                    Ahead::of_rows(&window, &place(tile), channels(chunk))
                }
                _ => Ahead::nothing(),
            };
            let first_grad = grad_sheets.place(tile.sheet, 0, tile.first);
            let lists = Lists {
                lists: index.lists_and_next(chunk, self.results.clone()),
                offsets: index.offsets[weights.clone()].as_ptr(),
                x: self.packed.as_ptr(),
                x_row: row_step(reach),
                x_pixel: reach.stride[1] * LANES,
                grad: grad[first_grad..].as_ptr(),
                grad_channel: grad_sheets.channel(),
                grad_row: grad_sheets.row(),
                grad_pixel: grad_sheets.pixel,
                size: tile.len,
                sums: self.sums[first_sum..][..weights.len() + SLACK].as_mut_ptr(),
                ahead,
            };
            // The next chunk finds the gradient of an image near.
            let asks = by_chunk || chunk_at == 0;
            // SAFETY: the index was built for packed chunks of this reach, and its lists follow one another;
            // the sampling held the gradient to its sheets, on which the tile lies.
            unsafe {
                match (reach.is_line(), reach.stride[1], tile.len[1]) {
                    (true, 1, len) if len == VECTORS && is_far => {
                        lists.run::<I, ROWS, Line<I, VECTORS>, true>(isa, asks);
                    }
                    (true, 1, len) if len == VECTORS => {
                        lists.run::<I, ROWS, Line<I, VECTORS>, false>(isa, asks);
                    }
                    (false, 1, len) if len == VECTORS => {
                        lists.run::<I, ROWS, Columns<VECTORS>, true>(isa, asks);
                    }
                    // What is left of 27 columns.
                    (false, 1, 13) if VECTORS == 14 => {
                        lists.run::<I, ROWS, Columns<13>, true>(isa, asks);
                    }
                    (false, 1, 6) if VECTORS == 7 => {
                        lists.run::<I, ROWS, Columns<6>, true>(isa, asks);
                    }
                    _ => lists.run::<I, ROWS, Columns<0>, true>(isa, asks),
                }
            }
        }
    }
}

/// The positions of some channels of the result in a packed chunk, with the gradient of one tile.
struct Lists<'a> {
    /// And the one behind them.
    lists: &'a [List],
    /// Of the positions that are still to come.
    offsets: *const u32,
    x: *const f32,
    x_row: usize,
    x_pixel: usize,
    /// At the first pixel of the tile in the first channel.
    grad: *const f32,
    grad_channel: usize,
    grad_row: usize,
    grad_pixel: usize,
    /// Rows and columns of the tile.
    size: [usize; 2],
    /// Of the same positions, and [`SLACK`].
    sums: *mut f32,
    ahead: Ahead,
}

impl Lists<'_> {
    /// Adds the products of the tile to the sums of all positions, `AT_ONCE` of them at a time. Asks for the
    /// gradient of lists to come, if it is far, and if the source `IS_FAR`, for what is packed next.
    ///
    /// # Safety
    /// Each position of the lists has an offset, and a sum with [`SLACK`] behind the last. Every vector of the
    /// tile is valid for reading, in the packed chunk at each offset and in the gradient of each channel that
    /// has a list; the tile is as the shape says.
    #[inline(always)]
    unsafe fn run<I: Isa, const AT_ONCE: usize, S: Shape<I>, const IS_FAR: bool>(
        mut self,
        isa: I,
        asks: bool,
    ) {
        let lists = self.lists;
        let last = lists.len() - 1;
        let share = self.ahead.len().div_ceil(last.max(1)).max(ASKED);
        let asking = last.saturating_sub(self.ahead.len().div_ceil(share));
        for at in 0..last {
            let (list, next) = (lists[at], lists[at + 1]);
            if IS_FAR && at >= asking {
                self.ahead.prefetch(isa, share);
            }
            if asks {
                S::prefetch(isa, &self, self.grad_of(&lists[last.min(at + AHEAD)]));
            }
            let grad = self.grad_of(&list);
            let mut count = (next.start - list.start) as usize;
            // SAFETY: as the caller vouches.
            unsafe {
                let shape = S::new(isa, &self, grad);
                while count >= AT_ONCE {
                    self.add::<I, S, AT_ONCE>(isa, &shape);
                    count -= AT_ONCE;
                }
                macro_rules! add_rest {
                    ($($rest:literal)*) => {
                        match count {
                            $($rest => self.add::<I, S, $rest>(isa, &shape),)*
                            _ => {}
                        }
                    };
                }
                add_rest!(1 2 3 4 5 6 7);
            }
        }
    }

    /// The first pixel of the tile in the gradient of a list's channel.
    #[inline(always)]
    fn grad_of(&self, list: &List) -> *const f32 {
        let channel = list.result as usize * self.grad_channel;
        self.grad.wrapping_add(channel)
    }

    /// Adds the products of the tile to the sums of the next positions, which are then behind.
    ///
    /// # Safety
    /// As for [`run`](Self::run), of so many positions.
    #[inline(always)]
    unsafe fn add<I: Isa, S: Shape<I>, const COUNT: usize>(&mut self, isa: I, shape: &S) {
        const { assert!(COUNT <= SLACK) };
        // SAFETY: as the caller vouches.
        unsafe {
            let offsets = self.offsets.cast::<[u32; COUNT]>().read();
            let x = offsets.map(|offset| isa.address(self.x, offset as usize));
            let mut dots = [isa.zero(); SLACK];
            shape.add(isa, self, x, &mut dots);
            if COUNT == 1 {
                *self.sums += isa.sum(dots[0]);
            } else {
                // All of them in one vector, of which the others are zero.
                let sums = &mut *self.sums.cast::<[f32; SLACK]>();
                for (sum, total) in sums.iter_mut().zip(isa.sum_eight(dots)) {
                    *sum += total;
                }
            }
        }
        self.offsets = self.offsets.wrapping_add(COUNT);
        self.sums = self.sums.wrapping_add(COUNT);
    }
}

/// The gradient of one channel of the result on a tile of some shape.
trait Shape<I: Isa> {
    /// Asks for that whose first pixel lies here.
    fn prefetch(isa: I, lists: &Lists<'_>, grad: *const f32);

    /// # Safety
    /// Every vector of the tile is valid for reading.
    unsafe fn new(isa: I, lists: &Lists<'_>, grad: *const f32) -> Self;

    /// Makes each of the first sums, which are zero, that of the products with the vectors of the source from
    /// one place on.
    ///
    /// # Safety
    /// Every vector of the tile is valid for reading, in the gradient and from each place on.
    unsafe fn add<const COUNT: usize>(
        &self,
        isa: I,
        lists: &Lists<'_>,
        x: [*const f32; COUNT],
        dots: &mut [I::F32; SLACK],
    );
}

/// A row of so many pixels, whose vectors of the source lie side by side.
struct Line<I: Isa, const COLUMNS: usize>([I::F32; COLUMNS]);

impl<I: Isa, const COLUMNS: usize> Shape<I> for Line<I, COLUMNS> {
    #[inline(always)]
    fn prefetch(isa: I, lists: &Lists<'_>, grad: *const f32) {
        prefetch_pixels(isa, grad, [1, COLUMNS], [0, lists.grad_pixel]);
    }

    #[inline(always)]
    unsafe fn new(isa: I, lists: &Lists<'_>, grad: *const f32) -> Self {
        let pixel = lists.grad_pixel;
        // SAFETY: the caller vouches for the vectors of the tile.
        Self(std::array::from_fn(|column| unsafe {
            isa.load_ptr(grad.wrapping_add(column * pixel))
        }))
    }

    #[inline(always)]
    unsafe fn add<const COUNT: usize>(
        &self,
        isa: I,
        _: &Lists<'_>,
        x: [*const f32; COUNT],
        dots: &mut [I::F32; SLACK],
    ) {
        // SAFETY: the caller vouches for the vectors of the tile.
        let load = |x: *const f32, column| unsafe { isa.load_ptr(x.add(column * LANES)) };
        for (column, &grad) in self.0.iter().enumerate() {
            for (dot, x) in dots.iter_mut().zip(x) {
                *dot = match column {
                    // The first product needs no sum before it.
                    0 => isa.mul(load(x, 0), grad),
                    _ => isa.mul_add(load(x, column), grad, *dot),
                };
            }
        }
    }
}

/// Rows of so many pixels of images, whose vectors lie side by side, or if that is zero, of as many and as far
/// apart as the lists say.
struct Columns<const COLUMNS: usize>(*const f32);

impl<I: Isa, const COLUMNS: usize> Shape<I> for Columns<COLUMNS> {
    #[inline(always)]
    fn prefetch(isa: I, lists: &Lists<'_>, grad: *const f32) {
        let (columns, pixel) = match COLUMNS {
            0 => (lists.size[1], lists.grad_pixel),
            _ => (COLUMNS, LANES),
        };
        prefetch_pixels(isa, grad, [lists.size[0], columns], [lists.grad_row, pixel]);
    }

    #[inline(always)]
    unsafe fn new(_: I, _: &Lists<'_>, grad: *const f32) -> Self {
        Self(grad)
    }

    #[inline(always)]
    unsafe fn add<const COUNT: usize>(
        &self,
        isa: I,
        lists: &Lists<'_>,
        mut x: [*const f32; COUNT],
        dots: &mut [I::F32; SLACK],
    ) {
        let (columns, x_pixel, grad_pixel) = match COLUMNS {
            0 => (lists.size[1], lists.x_pixel, lists.grad_pixel),
            _ => (COLUMNS, LANES, LANES),
        };
        let mut grad_row = self.0;
        for _ in 0..lists.size[0] {
            for column in 0..columns {
                // SAFETY: the caller vouches for the vectors of the tile.
                let factor = unsafe { isa.load_ptr(grad_row.add(column * grad_pixel)) };
                for (dot, x) in dots.iter_mut().zip(x) {
                    // SAFETY: as above.
                    let x = unsafe { isa.load_ptr(x.add(column * x_pixel)) };
                    *dot = isa.mul_add(x, factor, *dot);
                }
            }
            grad_row = grad_row.wrapping_add(lists.grad_row);
            for x in &mut x {
                *x = x.wrapping_add(lists.x_row);
            }
        }
    }
}
