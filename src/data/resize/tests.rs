use std::fs::File;
use std::io::Read;

use proptest::prelude::*;
use zip::ZipArchive;

use super::*;
use crate::data::npy;

/// Images `[count, height, width, 3]` of the fixture.
fn golden(name: &str) -> (Vec<usize>, Vec<u8>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/resize_32_to_28.npz");
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    let mut entry = archive.by_name(&format!("{name}.npy")).unwrap();
    entry.read_to_end(&mut bytes).unwrap();
    let array = npy::parse(&bytes).unwrap();
    (array.shape().to_vec(), array.u8().unwrap().to_vec())
}

/// Channels moved before rows and columns.
fn planar((dims, values): (Vec<usize>, Vec<u8>)) -> ImageSet {
    let [count, height, width, channels] = dims[..] else {
        panic!("{dims:?}");
    };
    let plane = height * width;
    let pixels: Vec<u8> = (0..values.len())
        .map(|at| {
            let (image, within) = (at / (plane * channels), at % (plane * channels));
            let (channel, place) = (within / plane, within % plane);
            values[(image * plane + place) * channels + channel]
        })
        .collect();
    let shape = ImageShape {
        count,
        height,
        width,
        channels,
    };
    ImageSet::new(pixels, shape, vec![0; count], 1).unwrap()
}

#[test]
fn every_byte_is_that_of_opencv() {
    let expected = planar(golden("y"));
    let resized = planar(golden("x")).resized(28, 28).unwrap();
    assert_eq!(expected.pixels().len(), 80 * 3 * 28 * 28);
    assert_eq!(resized.shape(), expected.shape());
    let differing = resized.pixels().iter().zip(expected.pixels());
    assert_eq!(differing.filter(|(a, b)| a != b).count(), 0);
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * i * 7 + i * 13) as u8).collect()
}

fn resize(source: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    let mut target = vec![0; to[0] * to[1]];
    Bilinear::new(from, to).resize(source, &mut target);
    target
}

#[test]
fn the_same_size_is_the_same_image() {
    for size in [[1, 1], [1, 9], [9, 1], [7, 5]] {
        let source = bytes(size[0] * size[1]);
        assert_eq!(resize(&source, size, size), source);
    }
    let set = planar(golden("x"));
    assert_eq!(set.resized(32, 32).unwrap().pixels(), set.pixels());
}

#[test]
fn one_pixel_fills_any_size_and_one_size_stays_what_it_is() {
    for value in 0..=255 {
        assert_eq!(resize(&[value], [1, 1], [3, 5]), [value; 15]);
        assert_eq!(resize(&[value; 63], [7, 9], [10, 4]), [value; 40]);
    }
}

#[test]
fn halving_both_sides_takes_the_mean_of_four() {
    let source = bytes(12 * 8);
    let halved = resize(&source, [12, 8], [6, 4]);
    for (place, &byte) in halved.iter().enumerate() {
        let first = place / 4 * 16 + place % 4 * 2;
        let four = [first, first + 1, first + 8, first + 9];
        let sum: u32 = four.map(|at| u32::from(source[at])).iter().sum();
        assert_eq!(u32::from(byte), (sum + 2) / 4);
    }
}

#[test]
fn labels_and_planes_stay_with_their_images() {
    let shape = ImageShape {
        count: 2,
        height: 1,
        width: 2,
        channels: 2,
    };
    let pixels = vec![0, 100, 200, 200, 8, 0, 255, 255];
    let set = ImageSet::new(pixels, shape, vec![4, 2], 5).unwrap();
    let resized = set.resized(2, 1).unwrap();
    assert_eq!(resized.pixels(), [50, 50, 200, 200, 4, 4, 255, 255]);
    assert_eq!((resized.labels(), resized.classes()), (&[4, 2][..], 5));
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let set = planar(golden("x"));
    for (height, width) in [(0, 28), (28, 0), (1 << 20, 1 << 20), (usize::MAX, 2)] {
        assert_eq!(
            set.resized(height, width).unwrap_err().to_string(),
            format!(
                "images of 32x32 cannot be resized to {height}x{width}: every side needs a \
                 pixel, and at most 1 GiB of pixels is made"
            )
        );
    }
    let flat = ImageShape {
        height: 0,
        ..set.shape()
    };
    let flat = ImageSet::new(Vec::new(), flat, vec![0; 80], 1).unwrap();
    assert!(flat.resized(2, 2).is_err());
}

/// Interpolation in f64, with the outermost pixels repeated beyond the edges.
fn interpolate(source: &[u8], from: [usize; 2], to: [usize; 2], place: [usize; 2]) -> f64 {
    let along = |side: usize| {
        let position = (place[side] as f64 + 0.5) * from[side] as f64 / to[side] as f64 - 0.5;
        let position = position.clamp(0.0, (from[side] - 1) as f64);
        let first = position.floor() as usize;
        let second = (first + 1).min(from[side] - 1);
        [(first, 1.0 - position.fract()), (second, position.fract())]
    };
    let mut sum = 0.0;
    for (row, row_weight) in along(0) {
        for (column, column_weight) in along(1) {
            sum += f64::from(source[row * from[1] + column]) * row_weight * column_weight;
        }
    }
    sum
}

proptest! {
    #[test]
    fn resizing_is_interpolation_up_to_its_rounding(
        from in [1_usize..40, 1_usize..40],
        to in [1_usize..40, 1_usize..40],
        seed in any::<u8>(),
    ) {
        let source: Vec<u8> = bytes(from[0] * from[1])
            .into_iter()
            .map(|byte| byte.wrapping_mul(seed | 1))
            .collect();
        // A weight is off by 2^-12 at most, in rows and in columns; positions are rounded to f32.
        let weights = 2.0 * 255.0 * (2_f64.powi(-12) + 40.0 * f64::from(f32::EPSILON));
        // Cut off: below 2^-7 of the rows, below a quarter of each product; rounded: a half.
        let (below, above) = (weights + 2_f64.powi(-7) + 0.5 + 0.5, weights + 0.5);
        for (at, &byte) in resize(&source, from, to).iter().enumerate() {
            let exact = interpolate(&source, from, to, [at / to[1], at % to[1]]);
            let difference = f64::from(byte) - exact;
            prop_assert!(
                -below <= difference && difference <= above,
                "{from:?} to {to:?}, place {at}: {byte} for {exact}"
            );
        }
    }
}
