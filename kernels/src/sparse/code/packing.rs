//! What code reads: rows that are packed for it, and what is asked for ahead.

use super::product::{PIXELS, Product, Task};
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

    /// Asks for what comes after a pixel of the tile, a share at each group, for it comes from memory while
    /// the code runs: the same chunk of the features of the next pixel to take its turn, or a pixel of the
    /// row to be packed next.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(
        &self,
        isa: I,
        [row, column]: [usize; 2],
        chunk: usize,
        group: usize,
    ) {
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let sheets = &correlation.sheets;
        let (channels, pixel) = match sheets.has_features {
            true if !self.product.has_far_features() => return,
            true => {
                let first = chunk * program.chunk;
                let next = column + PIXELS;
                let (chunk, column) = match next < self.tile.len[1] {
                    true => (first, next),
                    false => (first + program.chunk, column % PIXELS),
                };
                let end = program.sources.min(chunk + program.chunk);
                (chunk..end, [row, self.tile.first[1] + column])
            }
            false if chunk == self.chunks.start => {
                let row = (row + program.kernel[0]).wrapping_sub(correlation.before[0]);
                (0..program.sources, [row, self.tile.first[1] + column])
            }
            false => return,
        };
        let is_there = sheets.held().contains(&pixel[0]) && pixel[1] < sheets.size[1];
        if channels.is_empty() || !is_there {
            return;
        }
        let share = channels.len().div_ceil(self.groups.len());
        let first = channels.start + group * share;
        let start = correlation.source.as_ptr();
        for channel in first..channels.end.min(first + share) {
            let place = sheets.place(self.tile.sheet, channel, pixel);
            isa.prefetch_to_l2(start.wrapping_add(place));
        }
    }
}
