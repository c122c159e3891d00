//! The multiply-add rate that this machine reaches at best: the yardstick of every matrix product.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;

/// Steps of each chain between two looks at the clock: about a millisecond, so that a burst of a
/// higher clock that no product sustains does not count.
const STEPS: usize = 250_000;

/// Rounds, begun by all threads together; the fastest counts, as whatever else runs here can only
/// slow them.
const ROUNDS: usize = 12;

/// Measures the f32 multiply-add peak of `threads` threads at once, in GFLOP/s (a multiply-add is
/// two): as many chains of them as the micro-kernel keeps in registers, without memory. Takes some
/// milliseconds.
///
/// On a portable set without fused multiply-add this is the rate of a multiply and an add.
pub fn fma_peak_gflops(set: InstructionSet, threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let measure = || {
        [(); ROUNDS].map(|()| {
            barrier.wait();
            let start = Instant::now();
            let (result, operations) = set.run(Chains);
            std::hint::black_box(result);
            operations as f64 / start.elapsed().as_secs_f64() / 1e9
        })
    };
    let rates: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(measure)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join())
            .collect()
    });
    let together = |round: usize| rates.iter().map(|rates| rates[round]).sum();
    (0..ROUNDS).map(together).fold(0.0, f64::max)
}

struct Chains;

impl Kernel for Chains {
    type Output = (f32, usize);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (f32, usize) {
        isa.gemm_tile(self)
    }
}

impl TileKernel for Chains {
    /// A value that depends on every chain, and the number of operations.
    type Output = (f32, usize);

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) -> (f32, usize) {
        let factor = isa.splat(std::hint::black_box(0.999));
        let term = isa.splat(std::hint::black_box(1e-3));
        let mut sums = [[isa.zero(); VECTORS]; ROWS];
        for _ in 0..STEPS {
            for row in &mut sums {
                for sum in row {
                    *sum = isa.mul_add(*sum, factor, term);
                }
            }
        }
        let mut total = isa.zero();
        for row in sums {
            for sum in row {
                total = isa.add(total, sum);
            }
        }
        (isa.sum(total), 2 * ROWS * VECTORS * LANES * STEPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;

    #[test]
    fn the_peak_is_a_rate_that_a_processor_can_have() {
        for &set in dispatch::all() {
            let peak = fma_peak_gflops(set, 1);
            assert!((0.1..10_000.0).contains(&peak), "{set:?}: {peak} GFLOP/s");
        }
    }
}
