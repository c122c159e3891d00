use proptest::prelude::*;

use super::*;
use crate::dispatch;

/// Sizes around a block of images and a square of features.
const IMAGES: [usize; 8] = [0, 1, 15, 16, 17, 31, 32, 33];
const FEATURES: [usize; 7] = [0, 1, 15, 16, 17, 33, 784];

fn rows(images: usize, features: usize) -> Vec<f32> {
    (0..images * features).map(|i| i as f32 + 1.0).collect()
}

fn check_pack(set: InstructionSet, images: usize, features: usize) {
    let rows = rows(images, features);
    let mut lanes = vec![f32::NAN; lanes_len(images, features)];
    pack(set, images, features, &rows, &mut lanes);
    for (position, &value) in lanes.iter().enumerate() {
        let (block, within) = (position / (features * LANES), position % (features * LANES));
        let (feature, image) = (within / LANES, block * LANES + within % LANES);
        let expected = if image < images {
            rows[image * features + feature]
        } else {
            0.0
        };
        assert_eq!(value, expected, "{set:?}: image {image}, feature {feature}");
    }
    let mut back = vec![f32::NAN; rows.len()];
    unpack(set, images, features, &lanes, &mut back);
    assert_eq!(back, rows, "{set:?}");
}

#[test]
fn pack_places_every_value_and_unpack_returns_it() {
    for &set in dispatch::all() {
        for images in IMAGES {
            for features in FEATURES {
                check_pack(set, images, features);
            }
        }
    }
}

fn check_pack_u8(
    set: InstructionSet,
    plane: usize,
    scales: &[PixelScale],
    table: usize,
    indices: &[usize],
) {
    let features = plane * scales.len();
    let pixels: Vec<u8> = (0..table * features).map(|i| (i * 7 % 256) as u8).collect();
    let mut lanes = vec![f32::NAN; lanes_len(indices.len(), features)];
    let gather = PixelGather {
        pixels: &pixels,
        features,
        indices,
        scales,
    };
    pack_u8(set, gather, &mut lanes);
    let rows: Vec<f32> = indices
        .iter()
        .flat_map(|&index| pixels[index * features..][..features].iter().enumerate())
        .map(|(feature, &pixel)| {
            let scale = scales[feature / plane];
            (f32::from(pixel) - scale.mean) / scale.divisor
        })
        .collect();
    let mut expected = vec![f32::NAN; lanes.len()];
    pack(set, indices.len(), features, &rows, &mut expected);
    assert_eq!(lanes, expected, "{set:?}");
}

#[test]
fn pack_u8_gathers_and_divides_exactly() {
    for &set in dispatch::all() {
        for images in IMAGES {
            for features in FEATURES {
                let indices: Vec<usize> = (0..images).map(|i| i * 5 % 40).collect();
                let scale = PixelScale::divide_by(255.0);
                check_pack_u8(set, features, &[scale], 40, &indices);
            }
        }
    }
}

#[test]
fn pack_u8_divides_as_plain_division_does() {
    let gather = PixelGather {
        pixels: &(0..=255).collect::<Vec<u8>>(),
        features: 256,
        indices: &[0],
        scales: &[PixelScale::divide_by(255.0)],
    };
    for &set in dispatch::all() {
        let mut lanes = vec![f32::NAN; lanes_len(1, 256)];
        pack_u8(set, gather, &mut lanes);
        for (feature, values) in lanes.chunks(LANES).enumerate() {
            assert_eq!(values[0].to_bits(), (feature as f32 / 255.0).to_bits());
            assert!(values[1..].iter().all(|value| value.to_bits() == 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pack_matches_its_definition(images in 0_usize..70, features in 0_usize..70) {
        for &set in dispatch::all() {
            check_pack(set, images, features);
        }
    }

    #[test]
    fn pack_u8_matches_its_definition(
        plane in 0_usize..70,
        scales in proptest::collection::vec((0.0_f32..255.0, 0.01_f32..300.0), 1..5),
        indices in proptest::collection::vec(0_usize..20, 0..50),
    ) {
        let scale = |(mean, divisor)| PixelScale { mean, divisor };
        let scales: Vec<PixelScale> = scales.into_iter().map(scale).collect();
        for &set in dispatch::all() {
            check_pack_u8(set, plane, &scales, 20, &indices);
        }
    }
}

#[test]
#[should_panic(expected = "image 3 of a table of 3 images (30 bytes)")]
fn pack_u8_refuses_an_index_outside_the_table() {
    let gather = PixelGather {
        pixels: &[0; 30],
        features: 10,
        indices: &[0, 3],
        scales: &[PixelScale::divide_by(255.0)],
    };
    pack_u8(dispatch::active(), gather, &mut [0.0; 160]);
}

#[test]
#[should_panic(expected = "10 features in 3 channels")]
fn pack_u8_refuses_channels_of_unequal_size() {
    let gather = PixelGather {
        pixels: &[0; 30],
        features: 10,
        indices: &[0],
        scales: &[PixelScale::divide_by(255.0); 3],
    };
    pack_u8(dispatch::active(), gather, &mut [0.0; 160]);
}

#[test]
#[should_panic(expected = "lanes holds 160 values where the shape demands 320")]
fn pack_refuses_a_wrong_length() {
    pack(dispatch::active(), 17, 10, &[0.0; 170], &mut [0.0; 160]);
}
