//! What code reads: rows that are packed for it, and what is asked for ahead.

use std::ops::Range;

use super::product::{Product, TURNS, Task};
use crate::isa::Isa;
use crate::lanes::LANES;

/// Channels whose pixels are packed side by side.
const PACKED_CHANNELS: usize = 16;

impl Task<'_> {
    /// Packs a row that windows on the tile reach, `[column][channel][16]`, zeros where there is none.
    #[inline(always)]
    pub(super) fn pack_row<I: Isa>(&self, isa: I, row: usize, packed: &mut [f32]) {
        let correlation = self.product.correlation;
        let (sheets, before) = (&correlation.sheets, correlation.before);
        let row = row.wrapping_sub(before[0]);
        if row >= sheets.size[0] {
            return packed.fill(0.0);
        }
        let sources = self.product.program.sources;
        let (vectors, _) = packed.as_chunks_mut::<LANES>();
        let columns = vectors.len() / sources.max(1);
        // Those that there are.
        let first = before[1].saturating_sub(self.tile.first[1]).min(columns);
        let end = (sheets.size[1] + before[1]).saturating_sub(self.tile.first[1]);
        let end = end.min(columns).max(first);
        vectors[..first * sources].fill([0.0; LANES]);
        vectors[end * sources..].fill([0.0; LANES]);
        if first == end {
            return;
        }
        let column = self.tile.first[1] + first - before[1];
        // Some channels at a time, pixel by pixel: what is written lies together, and what is read in few lines of
        // pixels.
        for start in (0..sources).step_by(PACKED_CHANNELS) {
            let count = PACKED_CHANNELS.min(sources - start);
            let from = |channel: usize| {
                let from = sheets.place(self.tile.sheet, start + channel, [row, column]);
                &correlation.source[from..][..(end - first) * LANES]
            };
            let mut lines = [from(0); PACKED_CHANNELS];
            for (channel, line) in lines.iter_mut().enumerate().take(count) {
                *line = from(channel);
            }
            for pixel in 0..end - first {
                let targets = &mut vectors[(first + pixel) * sources + start..][..count];
                for (line, target) in lines.iter().zip(targets) {
                    // SAFETY: a line holds `end - first` pixels.
                    let from = unsafe { isa.load_ptr(line.as_ptr().add(pixel * LANES)) };
                    isa.store(target, from);
                }
            }
        }
    }

    /// What comes from memory while the code of a group runs, a share of it for each group: the same chunk of the
    /// features of the next block to take its turn, or the row to be packed next.
    #[inline(always)]
    pub(super) fn ahead(&self, [row, first_column]: [usize; 2], chunk: usize) -> Ahead {
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let sheets = &correlation.sheets;
        let (channels, row, first) = match sheets.has_features {
            true => {
                let first = chunk * program.chunk;
                let next = first_column + TURNS;
                let (chunk, column) = match next < self.tile.len[1] {
                    true => (first, next),
                    false => (first + program.chunk, first_column % TURNS),
                };
                let end = match self.product.has_far_features() {
                    true => program.sources.min(chunk + program.chunk),
                    false => chunk,
                };
                (chunk..end, row, column)
            }
            false => {
                let row = (row + program.kernel[0]).wrapping_sub(correlation.before[0]);
                let end = match chunk == self.chunks.start && sheets.held().contains(&row) {
                    true => program.sources,
                    false => 0,
                };
                (0..end, row, first_column)
            }
        };
        let column = self.tile.first[1] + first;
        let place = sheets.place(self.tile.sheet, channels.start, [row, column]);
        Ahead {
            start: correlation.source.as_ptr().wrapping_add(place),
            channels: channels.len(),
            share: channels.len().div_ceil(self.groups.len()),
            columns: sheets.size[1].saturating_sub(column),
            channel: sheets.channel(),
            pixel: sheets.pixel,
        }
    }
}

/// Pixels of some channels that are asked for ahead.
pub(super) struct Ahead {
    /// The first column of the first channel.
    start: *const f32,
    channels: usize,
    /// Channels of each group.
    share: usize,
    columns: usize,
    /// Floats from one channel to the next, and from one column to the next.
    channel: usize,
    pixel: usize,
}

impl Ahead {
    /// Asks for those of the columns that there are.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&self, isa: I, group: usize, columns: Range<usize>) {
        let first = group * self.share;
        let columns = columns.start..columns.end.min(self.columns);
        for channel in first..self.channels.min(first + self.share) {
            let start = self.start.wrapping_add(channel * self.channel);
            for column in columns.clone() {
                isa.prefetch_to_l2(start.wrapping_add(column * self.pixel));
            }
        }
    }
}
