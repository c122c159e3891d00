//! Seeded random streams, keyed by what they are for.
//!
//! A stream is ChaCha with 8 rounds (D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008), keyed
//! by (seed, purpose, epoch, index). No stream is ever drawn from in place of another: resuming,
//! another number of threads or a new use of randomness leaves all others as they are. The
//! conversions to floats, normals and permutations are written out here, so that a seed means the
//! same numbers in every version.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a random stream is for. The numbers are part of the meaning of a seed: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights of a dedicated net; the index counts tasks and tensors.
    DedicatedWeights = 1,
    /// Initial weights of a multitask net; the index counts tasks and tensors.
    MultitaskWeights = 2,
    /// The order of the training images of an epoch; the index tells the nets of a run apart.
    Shuffle = 3,
    /// The order of tied importances; the index counts tasks and tensors.
    OwnerTies = 4,
    /// The operands of benchmarks.
    Benchmark = 5,
    /// How an image is changed before the net sees it; the index is that of the image.
    Augmentation = 6,
    /// What dropout drops; the epoch is the step, the index counts layers and blocks of images.
    Dropout = 7,
}

/// A random stream.
///
/// ```
/// use taskweave::random::{Purpose, Stream};
/// let mut order: Vec<u32> = (0..5).collect();
/// Stream::new(0, Purpose::Shuffle, 1, 0).shuffle(&mut order);
/// assert_eq!(order, [0, 1, 4, 2, 3]);
/// ```
pub struct Stream {
    generator: ChaCha8Rng,
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream of this key, from its beginning.
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key
            .chunks_exact_mut(8)
            .zip([seed, purpose as u64, epoch, index])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self {
            generator: ChaCha8Rng::from_seed(key),
            spare_normal: None,
        }
    }

    /// A number uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.generator.next_u64() >> 11) as f64 * STEP
    }

    /// A standard normal number, by the polar method (G. Marsaglia, T. A. Bray, 1964).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        loop {
            let x = 2.0 * self.uniform() - 1.0;
            let y = 2.0 * self.uniform() - 1.0;
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.spare_normal = Some(y * factor);
                return x * factor;
            }
        }
    }

    /// A whole number uniform in `0..bound`, without bias (D. Lemire, 2019); 0 if `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u64::from(self.generator.next_u32()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// 1 with this probability, else 0, into every byte; each takes one 32-bit number.
    ///
    /// The probability is rounded to a multiple of 2⁻³² and held within 0 and 1.
    pub fn fill_chances(&mut self, probability: f64, chances: &mut [u8]) {
        const WORD: usize = size_of::<u32>();
        let bound = (probability * (1_u64 << 32) as f64).round() as u64;
        let mut bytes = [0; 256 * WORD];
        for chances in chances.chunks_mut(256) {
            let bytes = &mut bytes[..chances.len() * WORD];
            self.generator.fill_bytes(bytes);
            for (chance, word) in chances.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
                *chance = u8::from(u64::from(u32::from_le_bytes(*word)) < bound);
            }
        }
    }

    /// Shuffles in place (Fisher–Yates).
    ///
    /// # Panics
    /// If there are more than 2³²-1 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        let len = u32::try_from(items.len()).expect("at most 2^32 - 1 items to shuffle");
        for last in (1..len).rev() {
            items.swap(last as usize, self.below(last + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_key_never_change() {
        let mut stream = Stream::new(7, Purpose::DedicatedWeights, 0, 3);
        let uniform: Vec<f64> = (0..2).map(|_| stream.uniform()).collect();
        let normal: Vec<f64> = (0..2).map(|_| stream.normal()).collect();
        let below: Vec<u32> = (0..4).map(|_| stream.below(10)).collect();
        assert_eq!(uniform, UNIFORM);
        assert_eq!(normal, NORMAL);
        assert_eq!(below, BELOW);
    }

    const UNIFORM: [f64; 2] = [0.983_152_654_221_198_9, 0.518_702_496_486_164_4];
    const NORMAL: [f64; 2] = [-0.545_586_814_364_655_4, -2.222_991_911_042_343_7];
    const BELOW: [u32; 4] = [3, 7, 1, 1];

    #[test]
    fn chances_take_one_word_each() {
        let mut stream = Stream::new(7, Purpose::Dropout, 0, 3);
        let words: Vec<u32> = (0..600).map(|_| stream.generator.next_u32()).collect();
        for probability in [0.0, 0.3, 1.0] {
            let mut chances = [9; 600];
            Stream::new(7, Purpose::Dropout, 0, 3).fill_chances(probability, &mut chances);
            for (word, chance) in words.iter().zip(chances) {
                let below = f64::from(*word) < probability * 4_294_967_296.0;
                assert_eq!(chance, u8::from(below));
            }
        }
        let mut first = [9; 8];
        Stream::new(7, Purpose::Dropout, 0, 3).fill_chances(0.5, &mut first);
        assert_eq!(first, CHANCES);
    }

    const CHANCES: [u8; 8] = [0, 0, 0, 1, 0, 0, 1, 1];

    #[test]
    fn every_part_of_the_key_matters() {
        let first =
            |seed, purpose, epoch, index| Stream::new(seed, purpose, epoch, index).uniform();
        let base = first(0, Purpose::Shuffle, 0, 0);
        for other in [
            first(1, Purpose::Shuffle, 0, 0),
            first(0, Purpose::OwnerTies, 0, 0),
            first(0, Purpose::Shuffle, 1, 0),
            first(0, Purpose::Shuffle, 0, 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut stream = Stream::new(1, Purpose::Shuffle, 0, 0);
        let count = 100_000;
        let moments = |draw: &mut dyn FnMut() -> f64| {
            let values: Vec<f64> = (0..count).map(|_| draw()).collect();
            let mean = values.iter().sum::<f64>() / f64::from(count);
            let square = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
            (mean, square / f64::from(count))
        };
        let (mean, variance) = moments(&mut || stream.uniform());
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002);
        let (mean, variance) = moments(&mut || stream.normal());
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
        let (mean, _) = moments(&mut || f64::from(stream.below(11)));
        assert!((mean - 5.0).abs() < 0.05);
    }

    #[test]
    fn shuffle_permutes_and_takes_empty_slices() {
        let mut items: Vec<u32> = (0..1_000).collect();
        Stream::new(0, Purpose::Shuffle, 0, 0).shuffle(&mut items);
        assert!(
            items
                .iter()
                .enumerate()
                .any(|(at, &item)| at as u32 != item)
        );
        items.sort_unstable();
        assert!(
            items
                .iter()
                .enumerate()
                .all(|(at, &item)| at as u32 == item)
        );
        Stream::new(0, Purpose::Shuffle, 0, 0).shuffle::<u8>(&mut []);
        assert_eq!(Stream::new(0, Purpose::Shuffle, 0, 0).below(0), 0);
    }
}
