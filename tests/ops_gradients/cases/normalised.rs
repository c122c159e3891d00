//! Cases of the operations that differ between training and inference.

use taskweave::autograd::Mode;
use taskweave::ops;
use taskweave::random::{Purpose, Stream};
use taskweave_kernels::naive::{self, BatchNormShape, Normalization};

use super::{Case, lanes, positive, tensor};

pub(super) fn add(cases: &mut Vec<Case>) {
    batch_norm(cases);
    dropout(cases);
}

fn batch_norm(cases: &mut Vec<Case>) {
    const EPSILON: f32 = 1e-2;
    let shapes: [&'static [usize]; 7] = [
        &[2, 1],
        &[16, 3],
        &[17, 2],
        &[1, 2, 2, 3],
        &[15, 2, 2, 1],
        &[33, 1, 1, 2],
        &[0, 2, 3, 3],
    ];
    for dims in shapes {
        let channels = dims[1];
        let shape = BatchNormShape {
            images: dims[0],
            channels,
            pixels: dims[2..].iter().product(),
        };
        for mode in [Mode::Training { step: 3 }, Mode::Inference] {
            let inputs = vec![
                lanes(&tensor(dims, 0)),
                tensor(&[channels], 1),
                tensor(&[channels], 2),
                tensor(&[channels], 3),
                positive(&[channels], 4),
            ];
            let reference = move |x: &[Vec<f64>]| {
                let (mean, variance) = match mode {
                    Mode::Training { .. } => naive::batch_statistics(shape, &x[0]),
                    Mode::Inference => (x[3].clone(), x[4].clone()),
                };
                let normalization = Normalization {
                    mean: &mean,
                    inverse_deviation: &naive::inverse_deviation(&variance, f64::from(EPSILON)),
                    gamma: &x[1],
                    beta: &x[2],
                };
                naive::batch_norm(shape, normalization, &x[0])
            };
            let op = ops::BatchNorm { epsilon: EPSILON };
            cases.push(Case::new(op, inputs, reference).mode(mode));
        }
    }
}

fn dropout(cases: &mut Vec<Case>) {
    let shapes: [&'static [usize]; 5] = [&[1, 3], &[16, 4], &[17, 3], &[33, 2, 1, 2], &[0, 2]];
    for dims in shapes {
        for (rate, mode) in [
            (0.4, Mode::Training { step: 3 }),
            (0.0, Mode::Training { step: 3 }),
            (0.4, Mode::Inference),
        ] {
            let op = ops::Dropout {
                rate,
                seed: 5,
                layer: 2,
            };
            let features: usize = dims[1..].iter().product();
            let reference = move |x: &[Vec<f64>]| match mode {
                Mode::Training { step } => dropped(op, step, features, &x[0]),
                Mode::Inference => x[0].clone(),
            };
            let inputs = vec![lanes(&tensor(dims, 0))];
            cases.push(Case::new(op, inputs, reference).mode(mode));
        }
    }
}

/// One stream for each block of sixteen images, drawn from in the order of the lanes.
fn dropped(op: ops::Dropout, step: u64, features: usize, x: &[f64]) -> Vec<f64> {
    let keep = 1.0 - f64::from(op.rate);
    let mut y = vec![0.0; x.len()];
    for (block, (y, x)) in y
        .chunks_mut(16 * features)
        .zip(x.chunks(16 * features))
        .enumerate()
    {
        let index = op.layer << 32 | block as u64;
        let mut kept = vec![0; 16 * features];
        Stream::new(op.seed, Purpose::Dropout, step, index).fill_chances(keep, &mut kept);
        for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let (image, feature) = (at / features, at % features);
            if kept[feature * 16 + image] == 1 {
                *y = x / keep;
            }
        }
    }
    y
}
