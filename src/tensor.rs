//! Tensors: f32 storage with a shape and a layout.
//!
//! A tensor is [`RowMajor`](Layout::RowMajor), last axis contiguous, or in [`Lanes`](Layout::Lanes),
//! the layout of the network kernels: sixteen images ride in one vector,
//! `[ceil(N/16)][features...][16]`. The shape is the logical one, `[N, features...]`, in both. Lanes
//! past the last image ("empty lanes") hold finite values in activations and zeros in gradients.

mod error;
mod shape;

pub use error::TensorError;
pub use shape::{Layout, Shape, TensorSpec};

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::dispatch::active;
use taskweave_kernels::lanes;

/// A dense f32 array with a shape and a layout.
///
/// ```
/// use taskweave::tensor::Tensor;
/// let matrix = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?;
/// assert_eq!(matrix.shape().dims(), [2, 3]);
/// assert_eq!(matrix.data()[3], 4.0);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tensor {
    spec: TensorSpec,
    buffer: Buffer,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(spec: TensorSpec) -> Self {
        let buffer = Buffer::zeroed(spec.storage_len());
        Self { spec, buffer }
    }

    /// A tensor of zeros in memory for at least so many floats.
    pub(crate) fn with_capacity(spec: TensorSpec, floats: usize) -> Self {
        let mut buffer = Buffer::zeroed(spec.storage_len().max(floats));
        buffer.resize(spec.storage_len());
        Self { spec, buffer }
    }

    /// A row-major tensor of zeros.
    pub fn zeros_row_major(shape: impl Into<Shape>) -> Self {
        Self::zeros(TensorSpec::row_major(shape))
    }

    /// A row-major tensor of the given values.
    ///
    /// # Errors
    /// When the number of values is not the product of the dimensions.
    pub fn from_vec(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let spec = TensorSpec::row_major(shape);
        if values.len() != spec.storage_len() {
            return Err(TensorError::Length {
                shape: spec.shape,
                values: values.len(),
            });
        }
        Ok(Self {
            buffer: Buffer::from_slice(&values),
            spec,
        })
    }

    /// A row-major tensor of shape `[]` that holds one value.
    pub fn scalar(value: f32) -> Self {
        Self {
            spec: TensorSpec::row_major([]),
            buffer: Buffer::from_slice(&[value]),
        }
    }

    /// Shape and layout.
    pub fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    /// The logical shape, `[N, features...]` in lanes too.
    pub fn shape(&self) -> &Shape {
        &self.spec.shape
    }

    /// The layout of the storage.
    pub fn layout(&self) -> Layout {
        self.spec.layout
    }

    /// The storage, in the order of the layout.
    pub fn data(&self) -> &[f32] {
        &self.buffer
    }

    /// The storage, to write.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.buffer
    }

    /// Gives the tensor another shape and layout and keeps its memory where that suffices. The
    /// contents are unspecified until they are written.
    pub fn respec(&mut self, spec: &TensorSpec) {
        if self.spec != *spec {
            self.buffer.resize(spec.storage_len());
            self.spec = spec.clone();
        }
    }

    /// Floats that fit without allocating anew.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes over another tensor's shape, layout and values, keeping memory where it suffices.
    pub fn copy_from(&mut self, source: &Tensor) {
        self.respec(&source.spec);
        self.buffer.copy_from_slice(&source.buffer);
    }

    /// The same values, last axis contiguous.
    ///
    /// ```
    /// use taskweave::tensor::{Layout, Tensor};
    /// let matrix = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?;
    /// let lanes = matrix.to_lanes()?;
    /// assert_eq!(lanes.layout(), Layout::Lanes);
    /// assert_eq!(lanes.data()[..2], [1.0, 4.0]);
    /// assert_eq!(lanes.to_row_major().data(), matrix.data());
    /// # Ok::<(), taskweave::tensor::TensorError>(())
    /// ```
    pub fn to_row_major(&self) -> Tensor {
        if self.layout() == Layout::RowMajor {
            return self.clone();
        }
        let mut rows = Tensor::zeros_row_major(self.spec.shape.clone());
        let (images, features) = (self.spec.images(), self.spec.features());
        lanes::unpack(active(), images, features, &self.buffer, &mut rows.buffer);
        rows
    }

    /// The same values, the first axis in lanes; empty lanes are zero.
    ///
    /// # Errors
    /// When the tensor is a scalar: it has no axis of images.
    pub fn to_lanes(&self) -> Result<Tensor, TensorError> {
        if self.layout() == Layout::Lanes {
            return Ok(self.clone());
        }
        if self.spec.shape.rank() == 0 {
            return Err(TensorError::Axis {
                op: "to_lanes",
                axis: 0,
                shape: self.spec.shape.clone(),
            });
        }
        let mut packed = Tensor::zeros(TensorSpec::lanes(self.spec.shape.clone()));
        let (images, features) = (self.spec.images(), self.spec.features());
        lanes::pack(active(), images, features, &self.buffer, &mut packed.buffer);
        Ok(packed)
    }

    /// The one value of a tensor with a single element.
    ///
    /// # Errors
    /// When the tensor has more or fewer elements than one.
    pub fn item(&self) -> Result<f32, TensorError> {
        match self.data() {
            [value] => Ok(*value),
            _ => Err(TensorError::NotScalar {
                shape: self.spec.shape.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_vec_refuses_a_wrong_length() {
        let error = Tensor::from_vec(vec![0.0; 5], [2, 3]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "shape [2, 3] holds 6 values, but 5 were given"
        );
    }

    #[test]
    fn lanes_are_padded_to_whole_blocks() {
        let tensor = Tensor::zeros(TensorSpec::lanes([17, 3]));
        assert_eq!(tensor.shape().dims(), [17, 3]);
        assert_eq!(tensor.data().len(), 2 * 3 * 16);
    }

    #[test]
    fn respec_reuses_memory_for_a_short_batch() {
        let mut tensor = Tensor::zeros(TensorSpec::lanes([64, 5]));
        let start = tensor.data().as_ptr();
        tensor.respec(&TensorSpec::lanes([20, 5]));
        assert_eq!(tensor.data().len(), 2 * 5 * 16);
        assert_eq!(tensor.data().as_ptr(), start);
    }

    #[test]
    fn lanes_and_back_for_every_batch_around_a_block() {
        for images in [0, 1, 15, 16, 17, 33] {
            let values = (0..images * 6).map(|i| i as f32).collect();
            let rows = Tensor::from_vec(values, [images, 2, 3]).unwrap();
            let lanes = rows.to_lanes().unwrap();
            assert_eq!(lanes.spec(), &TensorSpec::lanes([images, 2, 3]));
            assert_eq!(lanes.to_row_major().data(), rows.data());
        }
        let scalar = Tensor::scalar(1.0).to_lanes();
        let message = "to_lanes: axis 0 does not exist in shape []";
        assert_eq!(scalar.unwrap_err().to_string(), message);
    }

    #[test]
    fn item_wants_exactly_one_value() {
        assert_eq!(Tensor::scalar(2.5).item().unwrap(), 2.5);
        assert!(Tensor::zeros_row_major([2]).item().is_err());
    }
}
