//! Code computes what lists do, to the last bit.

use super::*;
use crate::check::noise;
use crate::dispatch;
use crate::lanes::LANES;
use crate::sparse::Pattern;
use crate::sparse::code::Code;
use crate::sparse::correlate::Correlation;
use crate::sparse::sheets::Sheets;
use crate::window::{Padding, Window};

/// Bits of floats: NaN is equal to itself here, and 0 is not -0.
fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|float| float.to_bits()).collect()
}

fn mask(len: usize, density: f32) -> Vec<u8> {
    let chance = |value: f32| u8::from(value.abs() < density);
    noise(5, len).into_iter().map(chance).collect()
}

/// Where operands lie: the source, the result, and what windows begin with.
struct Layout {
    sheets: Sheets,
    result_sheets: Sheets,
    before: [usize; 2],
}

/// What the correlation of one way leaves in the result.
fn correlate(
    set: InstructionSet,
    products: &Products,
    layout: &Layout,
    (values, source): (&[f32], &[f32]),
    rectified: bool,
) -> Vec<f32> {
    let outline = products.outline;
    let bias = noise(7, outline.results);
    // What is rectified looks at what was there.
    let mut result = noise(9, layout.result_sheets.end(outline.results));
    products.order().with_ordered(values, |values| {
        let correlation = Correlation {
            products,
            values,
            bias: Some(&bias),
            relu: true,
            rectified,
            source,
            sheets: layout.sheets,
            before: layout.before,
            result_sheets: layout.result_sheets,
        };
        correlation.run(set, &mut result);
    });
    result
}

fn check(set: InstructionSet, pattern: &Pattern, layout: &Layout) {
    let values = noise(1, pattern.len());
    let forward = pattern.forward();
    let outline = forward.outline;
    let source = noise(2, layout.sheets.end(outline.sources));
    let lists = Products::by_lists(outline, pattern.forward_entries());
    assert!(matches!(forward.way, Way::Code(_)), "no code was made");
    let operands = (&values[..], &source[..]);
    for rectified in [false, true] {
        let by_code = correlate(set, forward, layout, operands, rectified);
        let by_lists = correlate(set, &lists, layout, operands, rectified);
        assert_eq!(bits(&by_code), bits(&by_lists));
    }
}

/// Whether code is made for a set: there is none where the system refuses to execute it.
fn has_code(set: InstructionSet) -> bool {
    set.is_avx512() && Code::new(&[]).is_ok()
}

/// The sets of this machine that code is made for.
fn sets() -> impl Iterator<Item = InstructionSet> {
    dispatch::all().iter().copied().filter(|&set| has_code(set))
}

#[test]
fn dense_layers() {
    for set in sets() {
        // Blocks, inputs, outputs: sums in one chunk, in several, and in parts.
        let shapes = [
            [1, 3, 2],
            [9, 60, 29],
            [5, 900, 70],
            [2, 5_000, 33],
            [40, 130, 90],
        ];
        for [blocks, inputs, outputs] in shapes {
            for density in [0.0, 0.02, 0.3, 1.0] {
                let owned = mask(inputs * outputs, density);
                let pattern = Pattern::dense(set, [inputs, outputs], &owned);
                let layout = Layout {
                    sheets: Sheets::of_features(blocks, inputs),
                    result_sheets: Sheets::of_features(blocks, outputs),
                    before: [0; 2],
                };
                check(set, &pattern, &layout);
            }
        }
    }
}

#[test]
fn convolutions() {
    for set in sets() {
        // Blocks, input and output channels, rows, columns, window.
        let shapes = [
            ([1, 1, 1], [5, 4], [3, 3]),
            ([2, 5, 30], [7, 31], [3, 3]),
            ([1, 70, 57], [6, 15], [3, 3]),
            ([2, 24, 57], [6, 13], [3, 3]),
            ([1, 3, 200], [2, 6], [3, 3]),
            ([1, 6, 20], [4, 1], [3, 3]),
            ([1, 12, 8], [9, 10], [5, 2]),
            ([3, 40, 33], [3, 5], [1, 1]),
        ];
        for ([blocks, inputs, outputs], size, kernel) in shapes {
            for padding in [Padding::Same, Padding::Valid] {
                let window = Window {
                    kernel,
                    stride: [1, 1],
                    padding,
                };
                let [height, width] = window.output(size);
                if height * width == 0 {
                    continue;
                }
                for density in [0.05, 0.15, 0.4] {
                    let owned = mask(kernel[0] * kernel[1] * inputs * outputs, density);
                    let pattern = Pattern::conv2d(set, window, [inputs, outputs], &owned);
                    let layout = Layout {
                        sheets: Sheets::of_images(blocks, inputs, size),
                        result_sheets: Sheets::of_images(blocks, outputs, [height, width]),
                        before: window.axes(size).map(|axis| axis.before),
                    };
                    check(set, &pattern, &layout);
                }
            }
        }
    }
}

#[test]
fn other_windows_and_sets_have_lists() {
    for &set in dispatch::all() {
        let pattern = |kernel, stride| {
            let window = Window {
                kernel,
                stride,
                padding: Padding::Same,
            };
            Pattern::conv2d(set, window, [2, 2], &vec![1; kernel[0] * kernel[1] * 4])
        };
        let is_code = |products: &Products| matches!(products.way, Way::Code(_));
        assert_eq!(is_code(pattern([3, 3], [1, 1]).forward()), has_code(set));
        assert_eq!(is_code(pattern([3, 3], [1, 1]).gradient()), has_code(set));
        assert!(!is_code(pattern([3, 3], [2, 1]).forward()));
        assert!(!is_code(pattern([3, 3], [1, 2]).gradient()));
        assert!(!is_code(pattern([7, 1], [1, 1]).forward()));
    }
}

#[test]
fn a_pattern_of_nothing_has_products() {
    for &set in dispatch::all() {
        let pattern = Pattern::dense(set, [4, 3], &[0; 12]);
        let layout = Layout {
            sheets: Sheets::of_features(1, 4),
            result_sheets: Sheets::of_features(1, 3),
            before: [0; 2],
        };
        let source = noise(2, 4 * LANES);
        let result = correlate(set, pattern.forward(), &layout, (&[], &source), false);
        for (result, bias) in result.chunks(LANES).zip(noise(7, 3)) {
            assert_eq!(result, [bias.max(0.0); LANES]);
        }
    }
}
