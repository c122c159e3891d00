//! Which layers of the nets of several tasks are one shared tensor.

use crate::nn::{NetSpec, ParameterSpec};

/// A task's part in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// The task, by its place among the nets.
    pub task: usize,
    /// The layer's place in the task's net.
    pub layer: usize,
    /// The place of the layer's first parameter in [`NetSpec::parameters`] of the task's net.
    pub first_parameter: usize,
}

/// A layer with parameters, and the tasks whose nets have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLayer {
    /// "conv2d_0".
    pub name: String,
    /// Its parameters, the same for every task.
    pub parameters: Vec<ParameterSpec>,
    /// Who shares it, in order of the tasks.
    pub sharers: Vec<Sharer>,
}

/// The layers of these nets, in the order of the first net that has each. Layers of the same name are
/// one and shared where their parameters have the same shapes, else several.
///
/// # Panics
/// If a net does not [fit together](NetSpec::check).
pub fn shared_layers(nets: &[&NetSpec]) -> Vec<SharedLayer> {
    let mut layers: Vec<SharedLayer> = Vec::new();
    for (task, net) in nets.iter().enumerate() {
        let mut first_parameter = 0;
        let named = net.layer_names().into_iter().zip(net.parameters_by_layer());
        for (layer, (name, parameters)) in named.enumerate() {
            let sharer = Sharer {
                task,
                layer,
                first_parameter,
            };
            first_parameter += parameters.len();
            let shapes = |parameters: &[ParameterSpec]| -> Vec<Vec<usize>> {
                parameters.iter().map(|spec| spec.shape.clone()).collect()
            };
            let same = layers.iter_mut().find(|known| {
                known.name == name && shapes(&known.parameters) == shapes(&parameters)
            });
            match same {
                _ if parameters.is_empty() => {}
                Some(known) => known.sharers.push(sharer),
                None => layers.push(SharedLayer {
                    name,
                    parameters,
                    sharers: vec![sharer],
                }),
            }
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_layer_over_other_channels_is_not_shared() {
        let (colour, grey) = (NetSpec::convnet(3), NetSpec::convnet(1));
        let layers = shared_layers(&[&colour, &grey, &grey]);
        let tasks: Vec<Vec<usize>> = layers
            .iter()
            .map(|layer| layer.sharers.iter().map(|sharer| sharer.task).collect())
            .collect();
        assert_eq!(layers.len(), 8);
        assert_eq!(tasks[0], [0]);
        assert!(tasks[1..7].iter().all(|tasks| tasks == &[0, 1, 2]));
        assert_eq!(
            (&layers[7].name[..], &tasks[7][..]),
            ("conv2d_0", &[1, 2][..])
        );
        let second = layers[1].sharers[2];
        assert_eq!((second.layer, second.first_parameter), (1, 2));
    }
}
