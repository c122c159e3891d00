//! Max pooling behind a product by code, while its rows are still in the cache.

use super::product::Product;
use super::rows::{Rows, Target};
use crate::conv2d::{Pooling, Ring};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::sparse::sheets::Sheets;

impl Product<'_> {
    /// Computes the largest value in each window over every sheet of the result, which itself is never
    /// stored, and its place if that is wanted: see [`conv2d::forward_max_pool`](crate::conv2d::forward_max_pool).
    pub(in crate::sparse) fn run_pooled(
        &self,
        set: InstructionSet,
        pooling: &Pooling,
        output: &mut [f32],
        argmax: Option<&mut [u8]>,
    ) {
        pooling.for_each_block(output, argmax, |sheet, output, argmax| {
            with_scratch(pooling.ring_len(1), |ring| {
                self.sheet(sheet).with_rows(|rows| {
                    set.run(PooledSheet {
                        rows,
                        pooling,
                        ring,
                        output,
                        argmax,
                    });
                });
            });
        });
    }
}

/// A sheet whose result is pooled.
struct PooledSheet<'a> {
    rows: Rows<'a>,
    pooling: &'a Pooling,
    ring: &'a mut [f32],
    /// And whether to write it past the caches.
    output: (&'a mut [f32], bool),
    argmax: Option<&'a mut [u8]>,
}

impl Kernel for PooledSheet<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let ring_rows = self.pooling.ring_rows(1);
        let correlation = self.rows.task.product.correlation;
        let columns = correlation.result_sheets.size[1];
        let results = correlation.products.outline.results;
        let sheets = Sheets::of_images(1, results, [ring_rows, columns]);
        assert!(sheets.end(results) <= self.ring.len());
        for (y, rows) in self.pooling.rows(1) {
            for row in rows {
                let target = Target {
                    start: self.ring.as_mut_ptr(),
                    sheets: &sheets,
                    sheet: 0,
                    row: row % ring_rows,
                };
                // SAFETY: the ring has a row of every channel at each of its places.
                unsafe { self.rows.compute(isa, row, &target) };
            }
            let ring = Ring {
                values: self.ring,
                rows: ring_rows,
            };
            let output = (&mut *self.output.0, self.output.1);
            let argmax = self.argmax.as_deref_mut();
            self.pooling.pool_row(isa, ring, y, output, argmax);
        }
        if self.output.1 {
            isa.fence();
        }
    }
}
