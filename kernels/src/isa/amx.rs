//! AMX: products of tiles of bf16 in registers of 16 rows of 64 bytes.
//!
//! What `TDPBF16PS` computes is defined in Intel's *64 and IA-32 Architectures Software Developer's
//! Manual*, volume 2. A tile of sums, 16 by 16 f32, grows by the products of 16 rows with 16 columns
//! over 32 steps, of which each 32-bit place holds two. For every sum the first steps of all pairs are
//! added up in order from zero, and so are the second steps; both together are added to the sum. Each
//! operation rounds to nearest, halves to even, and takes subnormal numbers for zeros, as in
//! [`bf16::multiply_add`](super::bf16::multiply_add).
//!
//! Linux lends a process these registers, 8 KB, when it asks for them; other systems have another way,
//! which is not taken here.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) use absent::{Tiles, Unit};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use linux::{Tiles, Unit};

use super::Isa;

/// Rows and columns of the sums that are computed at a time: two tiles by two.
pub(crate) const SIDE: usize = 32;

/// Steps of the sum in a tile.
pub(crate) const STEPS: usize = 32;

/// Floats of a tile, each a pair of bf16 or a sum.
pub(crate) const TILE: usize = 256;

/// Sums of two tiles by two, row by row.
#[repr(align(64))]
pub(crate) struct Sums(pub(crate) [f32; SIDE * SIDE]);

/// Generic code that may use tile registers.
pub(crate) trait TiledKernel {
    /// The code; as [`Kernel::run`](crate::dispatch::Kernel::run), `#[inline(always)]` all the way.
    fn run<I: Isa>(self, isa: I, tiles: &Tiles);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;

    use super::{SIDE, Sums, TILE, TiledKernel};
    use crate::dispatch::{Kernel, has_avx512, run_avx512_bf16};
    use crate::isa::Isa;

    /// Proof that the processor has AMX with bf16, and AVX-512 with bf16, and that the system lends
    /// this process the registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Unit(());

    impl Unit {
        /// Asks the processor, and then the system, once for the whole process.
        pub(crate) fn detect() -> Option<Self> {
            const AMX_BF16: u32 = 1 << 22;
            const AMX_TILE: u32 = 1 << 24;
            const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
            const XFEATURE_XTILEDATA: libc::c_long = 18;
            let has_avx512 = has_avx512() && is_x86_feature_detected!("avx512bf16");
            if !has_avx512 || __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) != AMX_BF16 | AMX_TILE
            {
                return None;
            }
            // SAFETY: the call takes two numbers and touches no memory; a system that does not know it
            // refuses.
            let refusal = unsafe {
                libc::syscall(
                    libc::SYS_arch_prctl,
                    ARCH_REQ_XCOMP_PERM,
                    XFEATURE_XTILEDATA,
                )
            };
            (refusal == 0).then_some(Self(()))
        }

        /// Runs a kernel compiled for AVX-512 with bf16, with tile registers at hand.
        #[inline]
        pub(crate) fn run<K: TiledKernel>(self, kernel: K) {
            // SAFETY: this value proves the features.
            unsafe { run_avx512_bf16(WithTiles(kernel, Tiles::new(self))) }
        }
    }

    struct WithTiles<K>(K, Tiles);

    impl<K: TiledKernel> Kernel for WithTiles<K> {
        type Output = ();

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            self.0.run(isa, &self.1);
        }
    }

    /// The tile registers of this thread, laid out for whole tiles until this is dropped.
    pub(crate) struct Tiles {
        /// Not for other threads.
        _private: std::marker::PhantomData<*const ()>,
    }

    /// What `LDTILECFG` reads: palette 1, and of each of eight tiles the bytes of a row and the rows.
    #[repr(C, align(64))]
    struct Layout {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    impl Tiles {
        fn new(_: Unit) -> Self {
            const WHOLE: Layout = Layout {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
                rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
            };
            // SAFETY: the unit proves that there are tile registers, which nothing but this module
            // uses; the layout is one of the manual's.
            unsafe {
                asm!(
                    "ldtilecfg [{layout}]",
                    layout = in(reg) &WHOLE,
                    options(readonly, nostack, preserves_flags),
                );
            }
            Self {
                _private: std::marker::PhantomData,
            }
        }

        /// Sums the products of 32 rows with 32 columns. `a` holds for every 32 steps two tiles of
        /// sixteen rows, each `[rows][pairs]`, and `b` two of sixteen columns, each `[pairs][columns]`.
        ///
        /// # Panics
        /// If the operands differ in length or are not whole tiles.
        #[inline(always)]
        pub(crate) fn multiply(&self, a: &[f32], b: &[f32], sums: &mut Sums) {
            assert!(a.len() == b.len() && a.len().is_multiple_of(2 * TILE));
            let blocks = a.len() / (2 * TILE);
            if blocks == 0 {
                sums.0 = [0.0; SIDE * SIDE];
                return;
            }
            // A register that is cleared before it is loaded need not wait for what still reads it: a
            // third less time on a processor that holds tile instructions back to save power.
            //
            // SAFETY: each of so many blocks is two tiles of 1 KB in either operand, and the sums are
            // 32 rows of 128 bytes.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tilezero tmm4",
                    "tileloadd tmm4, [{a} + {row}*1]",
                    "tilezero tmm6",
                    "tileloadd tmm6, [{b} + {row}*1]",
                    "tilezero tmm7",
                    "tileloadd tmm7, [{b} + {row}*1 + 1024]",
                    "tilezero tmm5",
                    "tileloadd tmm5, [{a} + {row}*1 + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {blocks}",
                    "jnz 2b",
                    "add {row}, {row}",
                    "tilestored [{sums} + {row}*1], tmm0",
                    "tilestored [{sums} + {row}*1 + 64], tmm1",
                    "tilestored [{sums} + {row}*1 + 2048], tmm2",
                    "tilestored [{sums} + {row}*1 + 2112], tmm3",
                    a = inout(reg) a.as_ptr() => _,
                    b = inout(reg) b.as_ptr() => _,
                    blocks = inout(reg) blocks => _,
                    row = inout(reg) 64_usize => _,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    options(nostack),
                );
            }
        }
    }

    impl Drop for Tiles {
        #[inline(always)]
        fn drop(&mut self) {
            // SAFETY: there are tile registers, whose content nobody needs any more. So released, they
            // need not be kept when another thread takes the processor.
            unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod absent {
    use super::{Sums, TiledKernel};

    /// There is none.
    #[derive(Clone, Copy)]
    pub(crate) enum Unit {}

    impl Unit {
        #[cfg(target_arch = "x86_64")]
        pub(crate) fn detect() -> Option<Self> {
            None
        }

        pub(crate) fn run<K: TiledKernel>(self, _: K) {
            match self {}
        }
    }

    /// There are none.
    pub(crate) enum Tiles {}

    impl Tiles {
        pub(crate) fn multiply(&self, _: &[f32], _: &[f32], _: &mut Sums) {
            match *self {}
        }
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;
