//! What comes from memory and is packed next.

use std::ops::Range;

use crate::isa::Isa;
use crate::lanes::LANES;
use crate::sparse::sheets::{TilePlace, Window};

/// Runs of vectors of the source, asked for one vector after the other while products are computed: all at
/// once, they would hold up what packs them.
pub(super) struct Ahead {
    next: *const f32,
    /// Vectors of this run that are still to come.
    left: usize,
    /// Vectors of each run.
    run: usize,
    /// This run and those behind it.
    runs: usize,
    /// Floats from one run to the next.
    apart: usize,
}

impl Ahead {
    pub(super) fn nothing() -> Self {
        Self {
            next: std::ptr::null(),
            left: 0,
            run: 0,
            runs: 0,
            apart: 0,
        }
    }

    /// Some features of the blocks of a tile.
    pub(super) fn of_features(
        window: &Window<'_>,
        tile: &TilePlace,
        features: Range<usize>,
    ) -> Self {
        let sheets = window.sheets;
        let start = sheets.place(tile.sheet, features.start, tile.first);
        Self {
            next: window.values[start..].as_ptr(),
            left: features.len(),
            run: features.len(),
            runs: tile.len[1],
            apart: sheets.pixel,
        }
    }

    /// Some channels of the rows that a tile at the left reaches, whole, but for those that the tile above
    /// reaches, too.
    pub(super) fn of_rows(window: &Window<'_>, tile: &TilePlace, channels: Range<usize>) -> Self {
        let (sheets, reach) = (window.sheets, window.reach);
        let [rows, columns] = sheets.size;
        let end = |first: usize| {
            let end = first * reach.stride[0] + reach.packed[0];
            end.saturating_sub(window.before[0]).min(rows)
        };
        let first = tile.first[0];
        let above = first.checked_sub(reach.tile[0]).map_or(0, end);
        let (row, run) = (above, (end(first) - above) * columns);
        if tile.first[1] > 0 || run == 0 || channels.is_empty() {
            return Self::nothing();
        }
        let start = sheets.place(tile.sheet, channels.start, [row, 0]);
        Self {
            next: window.values[start..].as_ptr(),
            left: run,
            run,
            runs: channels.len(),
            apart: sheets.channel(),
        }
    }

    /// Vectors to ask for, before the first of them was.
    pub(super) fn len(&self) -> usize {
        self.run * self.runs
    }

    /// Asks for so many more of them.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&mut self, isa: I, count: usize) {
        for _ in 0..count {
            if self.left == 0 {
                return;
            }
            isa.prefetch_to_l2(self.next);
            self.next = self.next.wrapping_add(LANES);
            self.left -= 1;
            if self.left == 0 && self.runs > 1 {
                self.runs -= 1;
                self.left = self.run;
                let gap = self.apart.wrapping_sub(self.run * LANES);
                self.next = self.next.wrapping_add(gap);
            }
        }
    }
}
