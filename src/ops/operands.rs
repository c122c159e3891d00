//! Checks of the number and layout of an operation's operands.

use crate::tensor::{Layout, TensorError, TensorSpec};

/// Exactly `N` operands, of any layout.
pub(super) fn exactly<'a, const N: usize>(
    op: &'static str,
    inputs: &[&'a TensorSpec],
) -> Result<[&'a TensorSpec; N], TensorError> {
    inputs.try_into().map_err(|_| TensorError::Arity {
        op,
        expected: N,
        found: inputs.len(),
    })
}

/// Exactly `N` operands, all row-major.
pub(super) fn row_major<'a, const N: usize>(
    op: &'static str,
    inputs: &[&'a TensorSpec],
) -> Result<[&'a TensorSpec; N], TensorError> {
    let specs = exactly(op, inputs)?;
    for (input, spec) in specs.iter().enumerate() {
        layout(op, input, spec, Layout::RowMajor)?;
    }
    Ok(specs)
}

/// Operand number `input` has the `expected` layout.
pub(super) fn layout(
    op: &'static str,
    input: usize,
    spec: &TensorSpec,
    expected: Layout,
) -> Result<(), TensorError> {
    if spec.layout == expected {
        return Ok(());
    }
    Err(TensorError::WrongLayout {
        op,
        input,
        expected,
        found: spec.layout,
    })
}

/// The error of operands whose shapes do not go together.
pub(super) fn misfit(
    op: &'static str,
    inputs: &[&TensorSpec],
    expected: impl Into<String>,
) -> TensorError {
    TensorError::Shapes {
        op,
        shapes: inputs.iter().map(|spec| spec.shape.clone()).collect(),
        expected: expected.into(),
    }
}

/// `axis` exists in the operand.
pub(super) fn axis(op: &'static str, axis: usize, spec: &TensorSpec) -> Result<(), TensorError> {
    if axis < spec.shape.rank() {
        return Ok(());
    }
    Err(TensorError::Axis {
        op,
        axis,
        shape: spec.shape.clone(),
    })
}
