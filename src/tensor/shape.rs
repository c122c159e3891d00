//! Shapes, layouts, and the storage length they imply.

use std::fmt;

use smallvec::SmallVec;

/// Images in one vector of the lanes layout.
const LANES: usize = 16;

/// Dimensions of a tensor, outermost first. `[]` is the shape of a scalar.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[usize; 4]>);

impl Shape {
    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements: the product of the dimensions, 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self(SmallVec::from_slice(&dims))
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self(dims.into())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self(SmallVec::from_slice(dims))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How the elements of a tensor lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Last axis contiguous.
    RowMajor,
    /// Sixteen images in a vector: `[ceil(N/16)][features...][16]`.
    Lanes,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RowMajor => "row-major",
            Self::Lanes => "lanes",
        })
    }
}

/// Shape and layout of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// The logical shape; in lanes `[N, features...]`.
    pub shape: Shape,
    /// The layout of the storage.
    pub layout: Layout,
}

impl TensorSpec {
    /// A row-major tensor of this shape.
    pub fn row_major(shape: impl Into<Shape>) -> Self {
        Self {
            shape: shape.into(),
            layout: Layout::RowMajor,
        }
    }

    /// A tensor in lanes: `[N, features...]`, with at least the axis of images.
    pub fn lanes(shape: impl Into<Shape>) -> Self {
        Self {
            shape: shape.into(),
            layout: Layout::Lanes,
        }
    }

    /// Images of a tensor in lanes: its first dimension (1 for a scalar).
    pub fn images(&self) -> usize {
        self.shape.dims().first().copied().unwrap_or(1)
    }

    /// Elements per image: the product of all dimensions but the first.
    pub fn features(&self) -> usize {
        self.shape.dims().iter().skip(1).product()
    }

    /// Floats of storage, empty lanes included.
    pub fn storage_len(&self) -> usize {
        match self.layout {
            Layout::RowMajor => self.shape.elements(),
            Layout::Lanes => self.images().next_multiple_of(LANES) * self.features(),
        }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.layout, self.shape)
    }
}
