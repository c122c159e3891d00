//! Which instruction sets this machine has, which one is used, and the way into it.
//!
//! ```
//! use taskweave_kernels::dispatch::{self, Kernel};
//! use taskweave_kernels::isa::Isa;
//!
//! /// Doubles sixteen floats.
//! struct Double<'a>(&'a mut [f32; 16]);
//!
//! impl Kernel for Double<'_> {
//!     type Output = ();
//!
//!     #[inline(always)]
//!     fn run<I: Isa>(self, isa: I) {
//!         let value = isa.load(self.0);
//!         isa.store(self.0, isa.add(value, value));
//!     }
//! }
//!
//! for set in dispatch::all() {
//!     let mut values = [1.5; 16];
//!     set.run(Double(&mut values));
//!     assert_eq!(values, [3.0; 16]);
//! }
//! ```

use std::env;
use std::fmt;
use std::sync::OnceLock;

use crate::isa::Isa;
use crate::isa::amx;
#[cfg(target_arch = "x86_64")]
use crate::isa::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use crate::isa::avx512::Avx512;
use crate::isa::portable::Portable;

/// The environment variable that forces an instruction set.
pub const ENV: &str = "TASKWEAVE_ISA";

/// Names of every set that this crate knows, on whatever machine.
const KNOWN: [&str; 4] = ["portable", "avx2", "avx512", "amx"];

/// An instruction set that this machine has: there is no other way to get one than by detection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstructionSet(Set);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512, and tiles for products of bf16.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// A request for an instruction set that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// No set has this name.
    #[error("unknown instruction set '{name}' in {ENV}: this machine has {available}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that would be accepted here.
        available: String,
    },
    /// The set exists, but not on this machine.
    #[error("instruction set '{name}' in {ENV} is not available: this machine has {available}")]
    Unavailable {
        /// What was asked for.
        name: String,
        /// The names that would be accepted here.
        available: String,
    },
}

/// Generic code to run on one instruction set.
pub trait Kernel {
    /// What the kernel returns.
    type Output;

    /// The code. Implementations, and all that they call, are `#[inline(always)]`: what is not
    /// inlined is compiled for the baseline processor and slow. The same holds for closures, so a
    /// kernel spawns no parallel tasks; parallel tasks run kernels.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

impl InstructionSet {
    /// The name that [`ENV`] knows this set by: `portable`, `avx2`, `avx512` or `amx`, which is
    /// `avx512` but for products of bf16.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => Portable::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => Avx2::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => Avx512::<false>::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Amx => "amx",
        }
    }

    /// The set of this name, if the machine has it.
    pub fn by_name(name: &str) -> Result<Self, DispatchError> {
        if let Some(&set) = all().iter().find(|set| set.name() == name) {
            return Ok(set);
        }
        let available = all().iter().map(|set| set.name()).collect::<Vec<_>>();
        let (name, available) = (name.to_owned(), available.join(", "));
        Err(if KNOWN.contains(&name.as_str()) {
            DispatchError::Unavailable { name, available }
        } else {
            DispatchError::Unknown { name, available }
        })
    }

    /// Whether the products of bf16 are instructions here; elsewhere they are emulated, to the same
    /// bits as on `avx512` but many times slower.
    pub fn has_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Amx => is_x86_feature_detected!("avx512bf16"),
            _ => false,
        }
    }

    /// The set whose kernels of f32 this one runs: itself, or `avx512` for `amx`.
    pub fn of_f32(self) -> Self {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Amx => Self(Set::Avx512),
            _ => self,
        }
    }

    /// Whether the kernels of f32 are those of AVX-512.
    pub(crate) fn is_avx512(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Amx => true,
            _ => false,
        }
    }

    /// Whether this set multiplies bf16 by tile registers: several times as fast as f32.
    pub fn has_tiles(self) -> bool {
        self.tiles().is_some()
    }

    /// The tile registers, if this set multiplies bf16 by them.
    pub(crate) fn tiles(self) -> Option<amx::Unit> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Amx => tile_unit(),
            _ => None,
        }
    }

    /// Runs a kernel compiled for this set and, where there are, its instructions for bf16. Others
    /// gain nothing by it.
    #[inline]
    pub fn run_bf16<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: `all` made this value after it detected the features, the last one is
            // detected here.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Amx if self.has_bf16() => unsafe { run_avx512_bf16(kernel) },
            _ => self.run(kernel),
        }
    }

    /// Runs a kernel compiled for this set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Portable => kernel.run(Portable::new()),
            // SAFETY: `all` made this value after it detected the features.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: `all` made this value after it detected the features.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Amx => unsafe { run_avx512(kernel) },
        }
    }
}

impl fmt::Debug for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// # Safety
/// The processor has avx2 and fma.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    kernel.run(unsafe { Avx2::new_unchecked() })
}

/// # Safety
/// The processor has avx512f, avx512bw, avx512dq, avx512vl, avx2 and fma.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    kernel.run(unsafe { Avx512::<false>::new_unchecked() })
}

/// Whether the processor has all that [`Avx512`] stands for, its instructions for bf16 aside.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
}

/// # Safety
/// The processor has avx512f, avx512bw, avx512dq, avx512vl, avx512bf16, avx2 and fma.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(crate) unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the features.
    kernel.run(unsafe { Avx512::<true>::new_unchecked() })
}

/// Detected once.
#[cfg(target_arch = "x86_64")]
fn tile_unit() -> Option<amx::Unit> {
    static UNIT: OnceLock<Option<amx::Unit>> = OnceLock::new();
    *UNIT.get_or_init(amx::Unit::detect)
}

/// The instruction sets of this machine, slowest first: the portable one, then what was detected.
pub fn all() -> &'static [InstructionSet] {
    static ALL: OnceLock<Vec<InstructionSet>> = OnceLock::new();
    ALL.get_or_init(|| {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut sets = vec![InstructionSet(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                sets.push(InstructionSet(Set::Avx2));
            }
            if has_avx512() {
                sets.push(InstructionSet(Set::Avx512));
                if tile_unit().is_some() {
                    sets.push(InstructionSet(Set::Amx));
                }
            }
        }
        sets
    })
}

/// The set that [`ENV`] asks for; where it is unset or empty, the fastest of this machine. A program calls this once at
/// its start, to report a wrong request in its own way.
pub fn from_env() -> Result<InstructionSet, DispatchError> {
    match env::var_os(ENV).filter(|name| !name.is_empty()) {
        Some(name) => InstructionSet::by_name(&name.to_string_lossy()),
        None => Ok(all()[all().len() - 1]),
    }
}

/// The set in use, chosen once by [`from_env`].
///
/// # Panics
/// If [`ENV`] asks for a set that this machine does not have.
pub fn active() -> InstructionSet {
    static ACTIVE: OnceLock<InstructionSet> = OnceLock::new();
    *ACTIVE.get_or_init(|| from_env().unwrap_or_else(|error| panic!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_the_machine_is_there_and_named() {
        let mut names: Vec<_> = all().iter().map(|set| set.name()).collect();
        // Whether there are tiles the system has a say in.
        if names.last() == Some(&"amx") {
            names.pop();
            assert!(all()[all().len() - 1].has_bf16());
        }
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut expected = vec!["portable"];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                expected.push("avx2");
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    expected.push("avx512");
                }
            }
        }
        assert_eq!(names, expected);
        for &set in all() {
            assert_eq!(InstructionSet::by_name(set.name()), Ok(set));
        }
    }

    #[test]
    fn run_enters_the_set_that_it_names() {
        struct Name;
        impl Kernel for Name {
            type Output = &'static str;
            #[inline(always)]
            fn run<I: Isa>(self, _: I) -> &'static str {
                I::NAME
            }
        }
        for &set in all() {
            assert_eq!(set.run(Name), set.of_f32().name());
            assert_eq!(set.run_bf16(Name), set.of_f32().name());
        }
    }

    #[test]
    fn refusals_name_what_is_available() {
        let error = InstructionSet::by_name("sse9").unwrap_err().to_string();
        assert!(error.starts_with(
            "unknown instruction set 'sse9' in TASKWEAVE_ISA: this machine has portable"
        ));
        let absent = KNOWN
            .iter()
            .find(|name| all().iter().all(|set| set.name() != **name));
        if let Some(name) = absent {
            let error = InstructionSet::by_name(name).unwrap_err().to_string();
            assert!(error.contains("is not available: this machine has portable"));
        }
    }
}
