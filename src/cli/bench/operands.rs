//! What kernels are timed on: seeded noise.

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::{dispatch, lanes};

use crate::random::{Purpose, Stream};

/// Values spread evenly over -½ to ½.
pub(super) fn noise(len: usize, index: u64) -> Buffer {
    let mut stream = Stream::new(0, Purpose::Benchmark, 0, index);
    let mut buffer = Buffer::zeroed(len);
    for value in buffer.iter_mut() {
        *value = stream.uniform() as f32 - 0.5;
    }
    buffer
}

/// Noise of so many images in lanes, empty lanes zero.
pub(super) fn lanes_of_noise(images: usize, features: usize, index: u64) -> Buffer {
    let mut buffer = Buffer::zeroed(lanes::lanes_len(images, features));
    let rows = noise(images * features, index);
    lanes::pack(dispatch::active(), images, features, &rows, &mut buffer);
    buffer
}
