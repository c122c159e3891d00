//! What can be wrong with a tensor or with the operands of an operation.

use thiserror::Error;

use super::{Layout, Shape};

/// A tensor, or the operands of an operation, that do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The number of values is not what the shape holds.
    #[error("shape {shape} holds {} values, but {values} were given", shape.elements())]
    Length {
        /// The shape asked for.
        shape: Shape,
        /// The number of values given.
        values: usize,
    },
    /// One value was wanted of a tensor that has another number of them.
    #[error("a single value was wanted of a tensor of shape {shape}")]
    NotScalar {
        /// The shape found.
        shape: Shape,
    },
    /// An operation was given another number of inputs than it takes.
    #[error("{op} takes {expected} inputs, but {found} were given")]
    Arity {
        /// The operation.
        op: &'static str,
        /// The number it takes.
        expected: usize,
        /// The number given.
        found: usize,
    },
    /// An operand has another layout than the operation works on.
    #[error("{op} works on {expected} tensors, but input {input} is {found}")]
    WrongLayout {
        /// The operation.
        op: &'static str,
        /// Which operand, from 0.
        input: usize,
        /// The layout wanted.
        expected: Layout,
        /// The layout found.
        found: Layout,
    },
    /// The shapes of the operands do not go together.
    #[error("{op}: shapes {} do not fit; {expected}", list(shapes))]
    Shapes {
        /// The operation.
        op: &'static str,
        /// The shapes found.
        shapes: Vec<Shape>,
        /// What would have fitted.
        expected: String,
    },
    /// An axis lies outside the tensor.
    #[error("{op}: axis {axis} does not exist in shape {shape}")]
    Axis {
        /// The operation.
        op: &'static str,
        /// The axis asked for.
        axis: usize,
        /// The shape of the tensor.
        shape: Shape,
    },
    /// A value that the operation cannot take.
    #[error("{op}: {message}")]
    Value {
        /// The operation.
        op: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

fn list(shapes: &[Shape]) -> String {
    let shapes: Vec<String> = shapes.iter().map(Shape::to_string).collect();
    shapes.join(" and ")
}
