//! A training step takes its memory once: after the second step nothing is allocated.

use taskweave::nn::{ImageSize, Initializer, LayerSpec, NetSpec};
use taskweave::optim::OptimizerSpec;
use taskweave::random::{Purpose, Stream};
use taskweave::train::{Model, TaskImages};
use taskweave_kernels::allocations::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const BATCH: usize = 33;

/// Every kind of layer.
fn net() -> NetSpec {
    let mut net = NetSpec::convnet(1);
    net.input = ImageSize {
        channels: 1,
        height: 9,
        width: 9,
    };
    let dense = net.layers.len() - 1;
    net.layers.insert(dense, LayerSpec::Dropout { rate: 0.25 });
    net.layers.insert(1, LayerSpec::batch_norm());
    net
}

/// Allocations of each of five steps of two tasks.
fn allocations_per_step() -> [u64; 5] {
    let net = net();
    let features = net.input.features();
    let mut stream = Stream::new(0, Purpose::Benchmark, 0, 0);
    let pixels: Vec<u8> = (0..BATCH * features)
        .map(|_| stream.below(256) as u8)
        .collect();
    let labels: Vec<u8> = (0..BATCH).map(|_| stream.below(10) as u8).collect();
    let images = TaskImages::new(&pixels, &labels, features, 10).unwrap();
    let mut model = Model::new(BATCH, 255.0);
    for task in ["one", "two"] {
        let parameters = net.parameters();
        let weights = parameters
            .iter()
            .map(|parameter| Initializer::GlorotUniform.draw(parameter, &mut stream));
        model
            .add_task(task, net.clone(), weights.collect())
            .unwrap();
    }
    let mut optimizer = model.optimizer(OptimizerSpec::adam());
    let order: Vec<usize> = (0..BATCH).collect();
    // The fourth batch is a short one, as the last of an epoch may be.
    [BATCH, BATCH, BATCH, BATCH - 20, BATCH].map(|images_used| {
        let before = ALLOCATOR.allocations();
        optimizer.begin_step();
        for task in 0..2 {
            model.set_batch(task, &images, &order[..images_used]);
            model.forward(&[task]).unwrap();
            model.learn(task, 1.0, &mut optimizer).unwrap();
            model.release(task);
        }
        ALLOCATOR.allocations() - before
    })
}

#[test]
fn nothing_is_allocated_after_the_second_step() {
    // On more threads, which of them comes to a task first is a matter of luck, and each keeps
    // memory of its own.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let [first, _, later @ ..] = pool.unwrap().install(allocations_per_step);
    assert!(first > 0);
    assert_eq!(later, [0; 3]);
}
