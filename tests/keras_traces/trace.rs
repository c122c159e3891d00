//! A recorded trace, in the program's own order of pixels.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use taskweave::data::npy;
use taskweave::nn::NetSpec;
use taskweave::tensor::Tensor;

/// Images in a batch of every trace.
pub(crate) const BATCH: usize = 20;
/// Recorded steps.
pub(crate) const STEPS: usize = 6;

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/traces")
        .join(name)
}

/// Where a task's parameter stands in a trace: the name of its layer there, and which of how many
/// tensors stacked in one array it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) layer: String,
    pub(crate) part: &'static str,
    pub(crate) slot: usize,
    pub(crate) of: usize,
}

pub(crate) struct Trace {
    archive: zip::ZipArchive<File>,
}

impl Trace {
    pub(crate) fn open(name: &str) -> Self {
        let path = fixture(&format!("{name}.npz"));
        Self {
            archive: zip::ZipArchive::new(File::open(path).unwrap()).unwrap(),
        }
    }

    /// An array's shape and values.
    pub(crate) fn array(&mut self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let mut bytes = Vec::new();
        let mut file = self.archive.by_name(&format!("{name}.npy")).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let array = npy::parse(&bytes).unwrap();
        let values = match array.integers() {
            Ok(integers) => integers.into_iter().map(|value| value as f32).collect(),
            Err(_) => array.f32().unwrap(),
        };
        (array.shape().to_vec(), values)
    }

    /// The values of a net's parameters under this prefix, in our order. `suffix` follows the part.
    pub(crate) fn parameters(
        &mut self,
        prefix: &str,
        suffix: &str,
        net: &NetSpec,
        places: &[Place],
    ) -> Vec<Vec<f32>> {
        let specs = net.parameters();
        assert_eq!(specs.len(), places.len());
        let mut parameters = Vec::new();
        for (spec, place) in specs.iter().zip(places) {
            let name = format!("{prefix}/{}/{}{suffix}", place.layer, place.part);
            let (_, values) = self.array(&name);
            assert_eq!(values.len(), place.of * spec.elements(), "{name}");
            let values = &values[place.slot * spec.elements()..][..spec.elements()];
            parameters.push(match spec.rows {
                Some(order) => order.from_keras(values),
                None => values.to_vec(),
            });
        }
        parameters
    }

    /// One step's batch of a task: images in our order, and labels.
    pub(crate) fn batch(
        &mut self,
        task: usize,
        step: usize,
        net: &NetSpec,
    ) -> (Vec<f32>, Vec<f32>) {
        let (shape, x) = self.array(&format!("x{task}"));
        assert_eq!(shape[..2], [STEPS, BATCH]);
        let (_, y) = self.array(&format!("y{task}"));
        let [channels, height, width] = net.input.dims();
        let features = channels * height * width;
        assert_eq!(x.len(), STEPS * BATCH * features);
        let mut images = Vec::with_capacity(BATCH * features);
        for image in x[step * BATCH * features..][..BATCH * features].chunks_exact(features) {
            for channel in 0..channels {
                images.extend((0..height * width).map(|pixel| image[pixel * channels + channel]));
            }
        }
        (images, y[step * BATCH..(step + 1) * BATCH].to_vec())
    }
}

/// Tensors of the shapes that a net wants.
pub(crate) fn tensors(net: &NetSpec, values: Vec<Vec<f32>>) -> Vec<Tensor> {
    let specs = net.parameters();
    specs
        .iter()
        .zip(values)
        .map(|(spec, values)| Tensor::from_vec(values, spec.shape.clone()).unwrap())
        .collect()
}
