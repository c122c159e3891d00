//! Activations as the sparse kernels see them: channels of rows of pixels, a vector each.

use std::ops::Range;

use super::index::Reach;
use crate::isa::Isa;
use crate::lanes::LANES;

/// Floats of features that no second-level cache holds, 8 MB: they are asked for ahead.
const FAR: usize = 2 << 20;

/// Some planes of pixels for each channel. Of a convolution there is a sheet for each block of images; of a
/// dense layer there is one, whose pixels are the blocks. Strides are in floats.
#[derive(Clone, Copy)]
pub(super) struct Sheets {
    pub(super) count: usize,
    /// Rows and columns.
    pub(super) size: [usize; 2],
    /// The rows that there is memory for, all of them unless of a single sheet.
    held: [usize; 2],
    sheet: usize,
    channel: usize,
    row: usize,
    pub(super) pixel: usize,
    /// Whether this is the one sheet of a dense layer.
    pub(super) has_features: bool,
}

impl Sheets {
    /// Blocks of images with so many channels of so many rows and columns.
    pub(super) fn of_images(blocks: usize, channels: usize, size: [usize; 2]) -> Self {
        let [rows, columns] = size;
        Self {
            count: blocks,
            size,
            held: [0, rows],
            sheet: channels * rows * columns * LANES,
            channel: rows * columns * LANES,
            row: columns * LANES,
            pixel: LANES,
            has_features: false,
        }
    }

    /// One row of blocks, so many features each.
    pub(super) fn of_features(blocks: usize, features: usize) -> Self {
        Self {
            count: 1,
            size: [1, blocks],
            held: [0, 1],
            sheet: 0,
            channel: LANES,
            row: 0,
            pixel: features * LANES,
            has_features: true,
        }
    }

    /// A sheet of which there is memory for some rows alone.
    ///
    /// # Panics
    /// If there is more than one sheet.
    pub(super) fn of_rows(self, rows: Range<usize>) -> Self {
        assert!(self.count <= 1 && rows.end <= self.size[0]);
        Self {
            held: [rows.start, rows.end],
            channel: rows.len() * self.row,
            ..self
        }
    }

    /// The rows that there is memory for.
    #[inline(always)]
    pub(super) fn held(&self) -> Range<usize> {
        self.held[0]..self.held[1]
    }

    /// Whether these values are features that come from memory.
    #[inline(always)]
    pub(super) fn has_far_features(&self, values: &[f32]) -> bool {
        self.has_features && values.len() >= FAR
    }

    /// Where a pixel of a channel of a sheet lies, in a row that there is memory for.
    #[inline(always)]
    pub(super) fn place(&self, sheet: usize, channel: usize, [row, column]: [usize; 2]) -> usize {
        let row = row.wrapping_sub(self.held[0]).wrapping_mul(self.row);
        (sheet * self.sheet + channel * self.channel)
            .wrapping_add(row)
            .wrapping_add(column * self.pixel)
    }

    /// The end of what so many channels of all sheets take.
    pub(super) fn end(&self, channels: usize) -> usize {
        let columns = self.size[1];
        if [self.count, channels, self.held().len(), columns].contains(&0) {
            return 0;
        }
        let last = [self.held[1] - 1, columns - 1];
        self.place(self.count - 1, channels - 1, last) + LANES
    }

    /// Asks for the pixels of a tile in one channel.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(
        &self,
        isa: I,
        start: *const f32,
        tile: &TilePlace,
        channel: usize,
    ) {
        let first = start.wrapping_add(self.place(tile.sheet, channel, tile.first));
        prefetch_pixels(isa, first, tile.len, [self.row, self.pixel]);
    }

    /// Floats from one channel to the next.
    #[inline(always)]
    pub(super) fn channel(&self) -> usize {
        self.channel
    }

    /// Floats from one row to the next.
    #[inline(always)]
    pub(super) fn row(&self) -> usize {
        self.row
    }

    /// Tiles of a sheet by rows and columns.
    pub(super) fn tiles(&self, reach: &Reach) -> [usize; 2] {
        [0, 1].map(|at| self.size[at].div_ceil(reach.tile[at]))
    }
}

/// Asks for so many rows and columns of pixels, from the first one on, by floats from one to the next.
#[inline(always)]
pub(super) fn prefetch_pixels<I: Isa>(
    isa: I,
    first: *const f32,
    [rows, columns]: [usize; 2],
    [row, pixel]: [usize; 2],
) {
    for at in 0..rows {
        let first = first.wrapping_add(at * row);
        for column in 0..columns {
            isa.prefetch(first.wrapping_add(column * pixel));
        }
    }
}

/// A tile of the result: where it begins and how much of it there is.
#[derive(Clone, Copy)]
pub(super) struct TilePlace {
    pub(super) sheet: usize,
    /// Its first row and column.
    pub(super) first: [usize; 2],
    /// Its rows and columns.
    pub(super) len: [usize; 2],
}

impl TilePlace {
    /// Tile number `index` of all sheets of a result.
    pub(super) fn new(result: &Sheets, reach: &Reach, index: usize) -> Self {
        let [down, across] = result.tiles(reach);
        let (sheet, tile) = (index / (down * across), index % (down * across));
        let at = [tile / across, tile % across];
        let first = [0, 1].map(|axis| at[axis] * reach.tile[axis]);
        Self {
            sheet,
            first,
            len: [0, 1].map(|axis| reach.tile[axis].min(result.size[axis] - first[axis])),
        }
    }
}

/// What is packed next, and asked for meanwhile.
#[derive(Clone, Copy)]
pub(super) enum Next {
    /// The channels behind these, for the same tile.
    Channels,
    /// The same channels, for the tile to the right.
    Tile,
}

/// The part of the source that one tile reaches.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) values: &'a [f32],
    pub(super) sheets: &'a Sheets,
    pub(super) reach: &'a Reach,
    /// Places before the first row and column, where windows begin.
    pub(super) before: [usize; 2],
}

impl Window<'_> {
    /// Packs some channels for a tile, `[channel][row][column][16]`, zeros where there is no pixel, and
    /// asks for what comes next, unless that is asked for elsewhere.
    ///
    /// # Panics
    /// If the target is shorter than so many channels.
    #[inline(always)]
    pub(super) fn pack<I: Isa>(
        &self,
        isa: I,
        tile: &TilePlace,
        channels: Range<usize>,
        (packed, next): (&mut [f32], Option<Next>),
    ) {
        let [rows, columns] = self.reach.packed;
        let (vectors, _) = packed.as_chunks_mut::<LANES>();
        let vectors = &mut vectors[..channels.len() * rows * columns];
        let Self { sheets, reach, .. } = self;
        let next = next.map(|next| match next {
            Next::Channels => channels.len() * sheets.channel,
            Next::Tile => reach.tile[1] * reach.stride[1] * sheets.pixel,
        });
        if sheets.has_features {
            return self.pack_features(isa, tile, channels, (vectors, next));
        }
        let mut targets = vectors.chunks_exact_mut(columns);
        for channel in channels {
            for at in 0..rows {
                let target = targets.next().expect("a row for each");
                match self.source(0, tile, at) {
                    Some(row) => self.pack_row(isa, tile, [channel, row], (target, next)),
                    None => target.fill([0.0; LANES]),
                }
            }
        }
    }

    /// Packs some features of the blocks of a tile: block by block, since its features lie side by side.
    /// Asks for what lies so many floats behind each.
    #[inline(always)]
    fn pack_features<I: Isa>(
        &self,
        isa: I,
        tile: &TilePlace,
        channels: Range<usize>,
        (vectors, next): (&mut [[f32; LANES]], Option<usize>),
    ) {
        let columns = self.reach.packed[1];
        for column in 0..columns {
            let targets = vectors[column..].iter_mut().step_by(columns);
            if column >= tile.len[1] {
                targets.for_each(|target| *target = [0.0; LANES]);
                continue;
            }
            let place = [0, tile.first[1] + column];
            let from = self.sheets.place(tile.sheet, channels.start, place);
            let (features, _) = self.values[from..].as_chunks::<LANES>();
            for (target, feature) in targets.zip(&features[..channels.len()]) {
                if let Some(next) = next {
                    isa.prefetch_to_l2(feature.as_ptr().wrapping_add(next));
                }
                isa.store(target, isa.load(feature));
            }
        }
    }

    /// Packs one row of a channel, and asks for what lies so many floats behind each pixel.
    #[inline(always)]
    fn pack_row<I: Isa>(
        &self,
        isa: I,
        tile: &TilePlace,
        [channel, row]: [usize; 2],
        (target, next): (&mut [[f32; LANES]], Option<usize>),
    ) {
        let Self { sheets, reach, .. } = self;
        let start = sheets.place(tile.sheet, channel, [row, 0]);
        let (pixels, _) = self.values[start..].as_chunks::<LANES>();
        let vector = |pixel: &[f32; LANES]| {
            if let Some(next) = next {
                isa.prefetch_to_l2(pixel.as_ptr().wrapping_add(next));
            }
            isa.load(pixel)
        };
        if reach.dilation[1] > 1 {
            for (at, target) in target.iter_mut().enumerate() {
                let pixel = self.source(1, tile, at).map(|column| &pixels[column]);
                isa.store(target, pixel.map_or(isa.zero(), vector));
            }
            return;
        }
        let origin = tile.first[1] * reach.stride[1];
        let first = self.before[1].saturating_sub(origin).min(target.len());
        let end = (sheets.size[1] + self.before[1]).saturating_sub(origin);
        let end = end.min(target.len()).max(first);
        target[..first].fill([0.0; LANES]);
        target[end..].fill([0.0; LANES]);
        let pixels = match first == end {
            true => &[],
            false => &pixels[origin + first - self.before[1]..][..end - first],
        };
        for (target, pixel) in target[first..end].iter_mut().zip(pixels) {
            isa.store(target, vector(pixel));
        }
    }

    /// The row or column of the source at a place of the window on a tile, if there is one.
    #[inline(always)]
    fn source(&self, axis: usize, tile: &TilePlace, at: usize) -> Option<usize> {
        let reach = self.reach;
        let place = tile.first[axis] * reach.stride[axis] + at;
        let place = place.checked_sub(self.before[axis])?;
        let (place, between) = match reach.dilation[axis] {
            1 => (place, 0),
            dilation => (place / dilation, place % dilation),
        };
        (between == 0 && place < self.sheets.size[axis]).then_some(place)
    }
}
