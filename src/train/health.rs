//! Signs that a net has not learned: they are called out, never passed over.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;
use taskweave_kernels::lanes::LANES;

use super::{Model, TaskImages, TrainError};

use crate::tensor::Tensor;

/// Something that a reader of the results must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warning {
    /// The net answers the same class for every image.
    ConstantPredictor {
        /// The net.
        model: String,
        /// The class it answers.
        class: u32,
    },
    /// The net never answers some classes that occur.
    ClassesNeverPredicted {
        /// The net.
        model: String,
        /// The classes.
        classes: Vec<u32>,
    },
    /// Some relu layers are zero for every image, so nothing behind them sees the input.
    DeadLayers {
        /// The net.
        model: String,
        /// The layers, from 0 at the input.
        layers: Vec<usize>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConstantPredictor { model, class } => write!(
                f,
                "{model} answers class {class} for every image: it has not learned; try another seed"
            ),
            Self::ClassesNeverPredicted { model, classes } => {
                write!(f, "{model} never answers class {}", join(classes))
            }
            Self::DeadLayers { model, layers } => write!(
                f,
                "{model} is dead in hidden layer {}: zero for every image, so nothing behind sees the input",
                join(layers)
            ),
        }
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

impl Warning {
    /// What predictions on a test set say of a net.
    pub fn of_predictions(model: &str, labels: &[u8], predictions: &[u32]) -> Option<Self> {
        let classes: BTreeSet<u32> = labels.iter().map(|&label| u32::from(label)).collect();
        if classes.len() < 2 {
            return None;
        }
        let answered: BTreeSet<u32> = predictions.iter().copied().collect();
        let never: Vec<u32> = classes.difference(&answered).copied().collect();
        match predictions {
            [first, others @ ..] if !others.is_empty() && others.iter().all(|p| p == first) => {
                Some(Self::ConstantPredictor {
                    model: model.to_owned(),
                    class: *first,
                })
            }
            _ if never.is_empty() => None,
            _ => Some(Self::ClassesNeverPredicted {
                model: model.to_owned(),
                classes: never,
            }),
        }
    }
}

/// The relu layers of a task's net that are zero for all of these images, from 0 at the input.
///
/// # Errors
/// When the images are not of the net's size, or a label is no class of the net.
pub fn dead_layers(
    model: &mut Model,
    task: usize,
    images: &TaskImages<'_>,
) -> Result<Vec<usize>, TrainError> {
    let mut alive = vec![false; model.hidden(task).count()];
    model.infer_all(task, images, |model| {
        for (alive, output) in alive.iter_mut().zip(model.hidden(task)) {
            *alive |= any_positive(output);
        }
        match alive.iter().all(|&alive| alive) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok((0..alive.len()).filter(|&layer| !alive[layer]).collect())
}

/// Whether a tensor in lanes is above zero somewhere; empty lanes, which hold anything, aside.
fn any_positive(lanes: &Tensor) -> bool {
    let (images, features) = (lanes.spec().images(), lanes.spec().features());
    let (vectors, _) = lanes.data().as_chunks::<LANES>();
    vectors.iter().enumerate().any(|(at, vector)| {
        let real = (images - at / features * LANES).min(LANES);
        vector[..real].iter().any(|&value| value > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_that_say_nothing_are_called_out() {
        let of = |predictions: &[u32]| Warning::of_predictions("Digit", &[0, 1, 2], predictions);
        assert_eq!(of(&[0, 1, 2]), None);
        assert_eq!(Warning::of_predictions("Digit", &[1, 1], &[1, 1]), None);
        assert!(matches!(
            of(&[1, 1, 1]),
            Some(Warning::ConstantPredictor { class: 1, .. })
        ));
        assert_eq!(
            of(&[0, 1, 0]).unwrap().to_string(),
            "Digit never answers class 2"
        );
    }
}
