//! What tests of operands in lanes share.

use taskweave_kernels::dispatch::InstructionSet;
use taskweave_kernels::lanes::{lanes_len, pack, unpack};
use taskweave_kernels::naive;

/// The same values in f64.
pub(crate) fn exact(values: &[f32]) -> Vec<f64> {
    naive::convert(values)
}

/// Images in lanes.
pub(crate) fn packed(set: InstructionSet, images: usize, rows: &[f32]) -> Vec<f32> {
    let features = rows.len().checked_div(images).unwrap_or(0);
    let mut lanes = vec![f32::NAN; lanes_len(images, features)];
    pack(set, images, features, rows, &mut lanes);
    lanes
}

/// Lanes as images, `features` values each.
pub(crate) fn unpacked(
    set: InstructionSet,
    images: usize,
    lanes: &[f32],
    features: usize,
) -> Vec<f32> {
    let mut rows = vec![f32::NAN; images * features];
    unpack(set, images, features, lanes, &mut rows);
    rows
}
