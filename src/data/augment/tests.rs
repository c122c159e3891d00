use proptest::prelude::*;

use super::*;
use crate::data::ImageShape;

const NONE: Augmentation = Augmentation {
    crop_padding: None,
    flip_probability: 0.0,
    cutout: None,
};

fn padded(pixels: usize, mode: PaddingMode) -> Augmentation {
    Augmentation {
        crop_padding: Some(CropPadding { pixels, mode }),
        ..NONE
    }
}

fn image(size: [usize; 3], seed: usize) -> Vec<u8> {
    let bytes: usize = size.iter().product();
    // No zeros: those are what padding and cutout leave.
    (0..bytes)
        .map(|i| ((i * 37 + seed * 11) % 255 + 1) as u8)
        .collect()
}

/// The image as changed under this key.
fn changed(augmentation: &Augmentation, size: [usize; 3], index: u64) -> Vec<u8> {
    let mut stream = Stream::new(1, Purpose::Augmentation, 2, index);
    let mut target = vec![99; size.iter().product()];
    augmentation.apply(&image(size, 0), size, &mut stream, &mut target);
    target
}

/// The image with padding all around, built as an array, `[channels, height + 2p, width + 2p]`.
fn pad(source: &[u8], [channels, height, width]: [usize; 3], padding: CropPadding) -> Vec<u8> {
    let p = padding.pixels as isize;
    let mut all = Vec::new();
    for channel in 0..channels {
        for y in -p..height as isize + p {
            for x in -p..width as isize + p {
                let mirror = |at: isize, length: usize| {
                    let last = length as isize - 1;
                    last - (last - at.abs()).abs()
                };
                let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
                let (row, column) = (mirror(y, height) as usize, mirror(x, width) as usize);
                all.push(match padding.mode {
                    PaddingMode::Zero if !inside => 0,
                    _ => source[(channel * height + row) * width + column],
                });
            }
        }
    }
    all
}

/// A window of the padded image, mirrored or not, with or without a square of zeros.
#[derive(Debug)]
struct Window {
    top: usize,
    left: usize,
    flip: bool,
    centre: Option<[usize; 2]>,
}

fn naive(augmentation: &Augmentation, source: &[u8], size: [usize; 3], window: &Window) -> Vec<u8> {
    let [channels, height, width] = size;
    let padding = augmentation.crop_padding.unwrap_or(CropPadding {
        pixels: 0,
        mode: PaddingMode::Zero,
    });
    let all = pad(source, size, padding);
    let (all_height, all_width) = (height + 2 * padding.pixels, width + 2 * padding.pixels);
    let mut target = Vec::new();
    for channel in 0..channels {
        for row in 0..height {
            for column in 0..width {
                let from = if window.flip {
                    width - 1 - column
                } else {
                    column
                };
                let place =
                    (channel * all_height + window.top + row) * all_width + window.left + from;
                let is_cut = window.centre.is_some_and(|[y, x]| {
                    let side = augmentation.cutout.unwrap();
                    let covers = |at: usize, centre: usize| {
                        let first = centre as isize - (side / 2) as isize;
                        (first..first + side as isize).contains(&(at as isize))
                    };
                    covers(row, y) && covers(column, x)
                });
                target.push(if is_cut { 0 } else { all[place] });
            }
        }
    }
    target
}

/// Every window that an image can be changed to.
fn windows(augmentation: &Augmentation, [_, height, width]: [usize; 3]) -> Vec<Window> {
    let shifts = 2 * augmentation
        .crop_padding
        .map_or(0, |padding| padding.pixels)
        + 1;
    let flips = match augmentation.flip_probability {
        0.0 => vec![false],
        1.0 => vec![true],
        _ => vec![false, true],
    };
    let centres = match augmentation.cutout {
        None => vec![None],
        Some(_) => (0..height * width)
            .map(|at| Some([at / width, at % width]))
            .collect(),
    };
    let mut all = Vec::new();
    for top in 0..shifts {
        for left in 0..shifts {
            for &flip in &flips {
                for &centre in &centres {
                    all.push(Window {
                        top,
                        left,
                        flip,
                        centre,
                    });
                }
            }
        }
    }
    all
}

#[test]
fn nothing_asked_for_changes_nothing() {
    assert_eq!(Augmentation::default(), NONE);
    assert!(NONE.is_none() && !padded(1, PaddingMode::Zero).is_none());
    for size in [[3, 5, 4], [1, 1, 1], [1, 0, 3]] {
        assert_eq!(changed(&NONE, size, 5), image(size, 0));
    }
}

#[test]
fn a_certain_flip_mirrors_every_row_of_every_plane() {
    let flip = Augmentation {
        flip_probability: 1.0,
        ..NONE
    };
    let mut target = [0; 12];
    let source = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let mut stream = Stream::new(0, Purpose::Augmentation, 0, 0);
    flip.apply(&source, [2, 2, 3], &mut stream, &mut target);
    assert_eq!(target, [3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10]);
}

/// Under many keys every possible change occurs, and nothing else does.
#[test]
fn changes_are_the_windows_of_the_padded_image_and_all_of_them() {
    let size = [2, 4, 5];
    let cut = |side| Augmentation {
        cutout: Some(side),
        ..NONE
    };
    let all = Augmentation {
        flip_probability: 0.5,
        cutout: Some(3),
        ..padded(1, PaddingMode::Reflect)
    };
    for augmentation in [
        padded(1, PaddingMode::Zero),
        padded(3, PaddingMode::Reflect),
        cut(1),
        cut(2),
        cut(4),
        all,
    ] {
        augmentation.validate(4, 5).unwrap();
        let windows = windows(&augmentation, size);
        let mut possible: Vec<Vec<u8>> = windows
            .iter()
            .map(|window| naive(&augmentation, &image(size, 0), size, window))
            .collect();
        possible.sort();
        possible.dedup();
        let mut found: Vec<Vec<u8>> = (0..windows.len() as u64 * 30)
            .map(|index| changed(&augmentation, size, index))
            .collect();
        found.sort();
        found.dedup();
        assert!(
            found == possible,
            "{augmentation:?}: {} of {}",
            found.len(),
            possible.len()
        );
    }
}

#[test]
fn half_of_many_images_are_flipped() {
    let flip = Augmentation {
        flip_probability: 0.5,
        ..NONE
    };
    let size = [1, 1, 2];
    let count = 10_000;
    let flipped = (0..count).filter(|&index| changed(&flip, size, index) != image(size, 0));
    // Five standard deviations of 50.
    assert!(flipped.count().abs_diff(count as usize / 2) < 250);
}

#[test]
fn one_change_leaves_the_choices_of_the_others_as_they_are() {
    let size = [1, 6, 6];
    let crop = padded(2, PaddingMode::Zero);
    let both = Augmentation {
        flip_probability: 0.5,
        ..crop
    };
    for index in 0..40 {
        let cropped = changed(&crop, size, index);
        let mut mirrored = cropped.clone();
        mirrored.chunks_mut(6).for_each(<[u8]>::reverse);
        let found = changed(&both, size, index);
        assert!(found == cropped || found == mirrored);
    }
}

/// What the first keys of a seed choose, in every version.
#[test]
fn the_changes_of_a_key_never_change() {
    let augmentation = Augmentation {
        flip_probability: 0.5,
        cutout: Some(8),
        ..padded(4, PaddingMode::Zero)
    };
    let choices = (0..3).map(|index| {
        let mut stream = Stream::new(7, Purpose::Augmentation, 1, index);
        let choice = augmentation.choose([32, 32], &mut stream);
        let [rows, columns] = choice.cutout.unwrap();
        let shifts = [choice.rows.shift, choice.columns.shift];
        (shifts, choice.flip, rows, columns)
    });
    assert_eq!(choices.collect::<Vec<_>>(), CHOICES);
}

/// Shifts, whether it is mirrored, and the rows and columns that are cut out.
type Chosen = ([isize; 2], bool, Range<usize>, Range<usize>);

const CHOICES: [Chosen; 3] = [
    ([1, 3], true, 8..16, 0..5),
    ([-2, 3], false, 18..26, 0..7),
    ([4, 4], true, 20..28, 0..5),
];

fn set(count: usize) -> ImageSet {
    let shape = ImageShape {
        count,
        height: 8,
        width: 6,
        channels: 3,
    };
    let pixels: Vec<u8> = (0..count)
        .flat_map(|index| image([3, 8, 6], index))
        .collect();
    ImageSet::new(pixels, shape, vec![0; count], 1).unwrap()
}

const LIVELY: Augmentation = Augmentation {
    crop_padding: Some(CropPadding {
        pixels: 2,
        mode: PaddingMode::Reflect,
    }),
    flip_probability: 0.5,
    cutout: Some(3),
};

#[test]
fn a_batch_is_its_images_each_changed_by_its_own_stream() {
    let images = set(50);
    let indices: Vec<usize> = (0..33).map(|i| i * 7 % 50).chain([3, 3]).collect();
    let mut bytes = vec![1; 10_000];
    LIVELY.gather(&Batch::of(&images, &indices, 11, 4), &mut bytes);
    assert_eq!(bytes.len(), 35 * 144);
    for (&index, found) in indices.iter().zip(bytes.chunks(144)) {
        let mut stream = Stream::new(11, Purpose::Augmentation, 4, index as u64);
        let mut expected = vec![0; 144];
        LIVELY.apply(
            images.image(index).unwrap(),
            [3, 8, 6],
            &mut stream,
            &mut expected,
        );
        assert_eq!(found, expected);
    }
    // A seed, an epoch or an image more is another change; as many threads as there are is none.
    let gather = |indices: &[usize], seed, epoch| {
        let mut bytes = Vec::new();
        LIVELY.gather(&Batch::of(&images, indices, seed, epoch), &mut bytes);
        bytes
    };
    assert_ne!(gather(&indices, 12, 4), bytes);
    assert_ne!(gather(&indices, 11, 5), bytes);
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    assert_eq!(one.install(|| gather(&indices, 11, 4)), bytes);
    assert!(gather(&[], 11, 4).is_empty());
}

#[test]
#[should_panic(expected = "range")]
fn an_index_outside_the_images_is_refused() {
    let images = set(2);
    LIVELY.gather(&Batch::of(&images, &[2], 0, 0), &mut Vec::new());
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let sentence =
        |augmentation: Augmentation| augmentation.validate(28, 32).unwrap_err().to_string();
    for (probability, text) in [(-0.1, "-0.1"), (1.5, "1.5"), (f64::NAN, "NaN")] {
        let flip = Augmentation {
            flip_probability: probability,
            ..NONE
        };
        assert_eq!(
            sentence(flip),
            format!("flip_probability is {text}; a probability from 0 to 1 is wanted")
        );
    }
    for pixels in [0, 28, usize::MAX] {
        assert_eq!(
            sentence(padded(pixels, PaddingMode::Reflect)),
            format!("crop_padding of {pixels} pixels: images of 28x32 take 1 to 27")
        );
    }
    for side in [0, 29, usize::MAX] {
        let cutout = Augmentation {
            cutout: Some(side),
            ..NONE
        };
        assert_eq!(
            sentence(cutout),
            format!("cutout of {side}x{side} pixels: images of 28x32 take 1 to 28")
        );
    }
    LIVELY.validate(28, 32).unwrap();
}

#[test]
fn settings_travel_as_json_and_unknown_ones_are_refused() {
    let text = serde_json::to_string(&LIVELY).unwrap();
    assert_eq!(
        text,
        r#"{"crop_padding":{"pixels":2,"mode":"reflect"},"flip_probability":0.5,"cutout":3}"#
    );
    let read = serde_json::from_str::<Augmentation>;
    assert_eq!(read(&text).unwrap(), LIVELY);
    assert_eq!(read("{}").unwrap(), NONE);
    assert!(read(r#"{"flip":0.5}"#).is_err());
    assert!(read(r#"{"crop_padding":{"pixels":2,"mode":"wrap"}}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_change_is_one_of_the_windows(
        size in (1_usize..4, 2_usize..9, 2_usize..9),
        pixels in 1_usize..8,
        reflect in any::<bool>(),
        flip_probability in 0.0_f64..=1.0,
        side in 1_usize..9,
        index in any::<u64>(),
    ) {
        let size = [size.0, size.1, size.2];
        let shorter = size[1].min(size[2]);
        let mode = if reflect { PaddingMode::Reflect } else { PaddingMode::Zero };
        let augmentation = Augmentation {
            flip_probability,
            cutout: Some(side.min(shorter)),
            ..padded(pixels.min(shorter - 1), mode)
        };
        augmentation.validate(size[1], size[2]).unwrap();
        let found = changed(&augmentation, size, index);
        let source = image(size, 0);
        let mut possible = windows(&augmentation, size).into_iter();
        prop_assert!(possible.any(|window| naive(&augmentation, &source, size, &window) == found));
    }
}
