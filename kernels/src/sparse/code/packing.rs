//! What code reads: rows that are packed for it, and what is asked for ahead.

use std::ops::Range;

use super::product::{PIXELS, Product, Task};
use super::program::Frame;
use crate::isa::Isa;
use crate::lanes::LANES;

/// Channels whose pixels are packed side by side.
const PACKED_CHANNELS: usize = 16;

/// Bytes of a line of the caches.
const LINE: usize = 64;

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

    /// The row to be packed next.
    #[inline(always)]
    pub(super) fn next_row(&self, row: usize) -> Ahead {
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let (sheets, tile) = (&correlation.sheets, &self.tile);
        let row = (row + program.kernel[0]).wrapping_sub(correlation.before[0]);
        let columns = match sheets.held().contains(&row) {
            true => sheets.size[1].saturating_sub(tile.first[1]),
            false => 0,
        };
        let place = sheets.place(tile.sheet, 0, [row, tile.first[1]]);
        Ahead {
            start: correlation.source.as_ptr().wrapping_add(place),
            channels: program.sources,
            share: program.sources.div_ceil(self.groups.len()),
            columns,
            channel: sheets.channel(),
        }
    }

    /// Results behind those of a group, and their column: the next turn's first ones behind the last.
    pub(super) fn next_results(&self, group: usize, column: usize) -> (Range<usize>, usize) {
        let program = self.product.program;
        match group + 1 < self.groups.end {
            true => (program.results_of(group + 1), column),
            false => (program.results_of(self.groups.start), column + PIXELS),
        }
    }

    /// Code and values that a task of features goes through behind this chunk, or the task that follows it behind the
    /// last one, if there are turns enough to ask for them in.
    pub(super) fn next_code(&self, chunk: usize) -> NextCode {
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let columns = self.tile.len[1];
        if !correlation.sheets.has_features || columns <= PIXELS {
            return NextCode::NONE;
        }
        let groups = self.groups.end..program.groups().min(self.groups.end + self.groups.len());
        let (code, values) = if chunk + 1 < self.chunks.end {
            program.extent(chunk + 1, &self.groups)
        } else if columns == correlation.result_sheets.size[1] && !groups.is_empty() {
            program.extent(self.chunks.start, &groups)
        } else {
            return NextCode::NONE;
        };
        let calls = columns * self.groups.len();
        let piece = |start: *const f32, bytes: usize| Piece {
            start,
            lines: bytes.div_ceil(LINE),
            share: bytes.div_ceil(LINE * calls),
        };
        NextCode([
            piece(program.code.address(code.start as u32).cast(), code.len()),
            piece(
                correlation.values[values.start..].as_ptr(),
                values.len() * size_of::<f32>(),
            ),
        ])
    }

    /// Asks for a group's share of the same chunk of the features of the next block to take its turn, if features
    /// come from memory.
    #[inline(always)]
    pub(super) fn prefetch_features<I: Isa>(
        &self,
        isa: I,
        column: usize,
        chunk: usize,
        group: usize,
    ) {
        if !self.product.has_far_features() {
            return;
        }
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let first = chunk * program.chunk;
        let next = column + PIXELS;
        let (first, column) = match next < self.tile.len[1] {
            true => (first, next),
            false => (first + program.chunk, column % PIXELS),
        };
        let end = program.sources.min(first + program.chunk);
        let share = end.saturating_sub(first).div_ceil(self.groups.len());
        let first = first + group * share;
        let place = [0, self.tile.first[1] + column];
        let sheets = &correlation.sheets;
        for feature in first..end.min(first + share) {
            let place = sheets.place(self.tile.sheet, feature, place);
            isa.prefetch_to_l2(correlation.source.as_ptr().wrapping_add(place));
        }
    }
}

/// A row that comes from memory and is asked for while code runs, a share of the channels for each group.
pub(super) struct Ahead {
    /// Its first pixel.
    start: *const f32,
    channels: usize,
    share: usize,
    columns: usize,
    /// Floats from one channel to the next.
    channel: usize,
}

impl Ahead {
    /// Has the code of a frame ask for channels from this one on, if there is such a row; else for what is `near`,
    /// again and again.
    #[inline(always)]
    pub(super) fn point(&self, frame: &mut Frame, channel: usize, near: *const f32) {
        (frame.ahead, frame.ahead_step) = match self.columns {
            0 => (near, 0),
            _ => (
                self.start.wrapping_add(channel * self.channel),
                self.channel * size_of::<f32>(),
            ),
        };
    }

    /// Asks for a group's share of the channels in a column, if there is such a one.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&self, isa: I, group: usize, column: usize) {
        if column >= self.columns {
            return;
        }
        let first = group * self.share;
        for channel in first..self.channels.min(first + self.share) {
            let place = channel * self.channel + column * LANES;
            isa.prefetch(self.start.wrapping_add(place));
        }
    }
}

/// What a task goes through next, code and values: an instruction waits for its line of memory, which a processor
/// fetches but little ahead by itself.
pub(super) struct NextCode([Piece; 2]);

/// Lines that lie together, some of which are asked for with each call.
struct Piece {
    start: *const f32,
    lines: usize,
    share: usize,
}

impl NextCode {
    const NONE: Self = Self(
        [const {
            Piece {
                start: std::ptr::null(),
                lines: 0,
                share: 0,
            }
        }; 2],
    );

    /// Asks for the share of one call.
    #[inline(always)]
    pub(super) fn prefetch_share<I: Isa>(&mut self, isa: I) {
        for piece in &mut self.0 {
            let share = piece.share.min(piece.lines);
            for _ in 0..share {
                isa.prefetch_to_l2(piece.start);
                piece.start = piece.start.wrapping_byte_add(LINE);
            }
            piece.lines -= share;
        }
    }
}
