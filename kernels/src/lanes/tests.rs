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

fn check_pack_u8(set: InstructionSet, features: usize, table: usize, indices: &[usize]) {
    let pixels: Vec<u8> = (0..table * features).map(|i| (i * 7 % 256) as u8).collect();
    let mut lanes = vec![f32::NAN; lanes_len(indices.len(), features)];
    let gather = PixelGather {
        pixels: &pixels,
        features,
        indices,
        divisor: 255.0,
    };
    pack_u8(set, gather, &mut lanes);
    let rows: Vec<f32> = indices
        .iter()
        .flat_map(|&index| &pixels[index * features..][..features])
        .map(|&pixel| f32::from(pixel) / 255.0)
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
                check_pack_u8(set, features, 40, &indices);
            }
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
        features in 0_usize..70,
        indices in proptest::collection::vec(0_usize..20, 0..50),
    ) {
        for &set in dispatch::all() {
            check_pack_u8(set, features, 20, &indices);
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
        divisor: 255.0,
    };
    pack_u8(dispatch::active(), gather, &mut [0.0; 160]);
}

#[test]
#[should_panic(expected = "lanes holds 160 values where the shape demands 320")]
fn pack_refuses_a_wrong_length() {
    pack(dispatch::active(), 17, 10, &[0.0; 170], &mut [0.0; 160]);
}
