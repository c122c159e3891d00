//! What this processor is like beyond its instructions. Nothing here may change a result, only how long it
//! takes.

use std::sync::OnceLock;

/// Whether multiply-adds from memory wait for loads, rather than for instructions being taken up. AMD's cores take
/// up eight in a cycle, which no other thread of theirs can halve, but load two vectors, as many as they
/// multiply.
pub(crate) fn is_bound_by_loads() -> bool {
    static IS_AMD: OnceLock<bool> = OnceLock::new();
    *IS_AMD.get_or_init(x86::is_amd)
}

/// Bytes of a core's second-level cache, one megabyte where the processor does not say.
pub(crate) fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| x86::second_level_kilobytes().unwrap_or(1024) * 1024)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__cpuid, CpuidResult};

    pub(super) fn is_amd() -> bool {
        // The vendor's name stands in three registers, four letters in each.
        let CpuidResult { ebx, edx, ecx, .. } = __cpuid(0);
        [ebx, edx, ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
    }

    pub(super) fn second_level_kilobytes() -> Option<usize> {
        const CACHES: u32 = 0x8000_0006;
        let is_known = __cpuid(0x8000_0000).eax >= CACHES;
        let kilobytes = is_known.then(|| __cpuid(CACHES).ecx >> 16)?;
        (kilobytes != 0).then_some(kilobytes as usize)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    pub(super) fn is_amd() -> bool {
        false
    }

    pub(super) fn second_level_kilobytes() -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_has_a_size_that_a_cache_can_have() {
        let bytes = second_level_cache();
        assert!((64 << 10..=64 << 20).contains(&bytes), "{bytes}");
    }
}
