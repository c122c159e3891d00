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

/// Bytes of a core's first-level cache of data, 32 KB where the processor does not say.
pub(crate) fn first_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| x86::first_level_kilobytes().unwrap_or(32) * 1024)
}

/// Bytes of a core's second-level cache, one megabyte where the processor does not say.
pub(crate) fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| x86::second_level_kilobytes().unwrap_or(1024) * 1024)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

    pub(super) fn is_amd() -> bool {
        // The vendor's name stands in three registers, four letters in each.
        let CpuidResult { ebx, edx, ecx, .. } = __cpuid(0);
        [ebx, edx, ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
    }

    pub(super) fn first_level_kilobytes() -> Option<usize> {
        if is_amd() {
            const CACHES: u32 = 0x8000_0005;
            let is_known = __cpuid(0x8000_0000).eax >= CACHES;
            let kilobytes = is_known.then(|| __cpuid(CACHES).ecx >> 24)?;
            return (kilobytes != 0).then_some(kilobytes as usize);
        }
        const CACHES: u32 = 4;
        if __cpuid(0).eax < CACHES {
            return None;
        }
        // One after the other, by kind and level; the kind is zero behind the last.
        let caches = (0..16).map(|index| __cpuid_count(CACHES, index));
        let mut known = caches.take_while(|cache| cache.eax & 31 != 0);
        let data = known.find(|cache| cache.eax & 31 == 1 && cache.eax >> 5 & 7 == 1)?;
        let CpuidResult { ebx, ecx, .. } = data;
        let [ways, partitions, line] = [ebx >> 22, ebx >> 12 & 1023, ebx & 4095];
        let factors = [ways, partitions, line, ecx].map(|less_one| less_one as usize + 1);
        Some(factors.iter().product::<usize>() / 1024)
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

    pub(super) fn first_level_kilobytes() -> Option<usize> {
        None
    }

    pub(super) fn second_level_kilobytes() -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_have_sizes_that_caches_can_have() {
        let (first, second) = (first_level_cache(), second_level_cache());
        assert!((8 << 10..=1 << 20).contains(&first), "{first}");
        assert!((64 << 10..=64 << 20).contains(&second), "{second}");
    }
}
