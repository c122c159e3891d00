//! A training step takes its memory once: after the second step nothing is allocated. So do predictions: each
//! batch but the first costs nothing.

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

/// Random images of the net's size, and their labels.
struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Images {
    fn new(count: usize) -> Self {
        let mut stream = Stream::new(0, Purpose::Benchmark, 0, 0);
        let mut draw =
            |len: usize, below: u32| (0..len).map(|_| stream.below(below) as u8).collect();
        Self {
            pixels: draw(count * net().input.features(), 256),
            labels: draw(count, 10),
        }
    }

    fn of_task(&self) -> TaskImages<'_> {
        TaskImages::new(&self.pixels, &self.labels, net().input.features(), 10).unwrap()
    }
}

/// A model of two tasks.
fn model() -> Model {
    let net = net();
    let mut stream = Stream::new(0, Purpose::Benchmark, 0, 1);
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
    model
}

/// Allocations of each of five steps of two tasks.
fn allocations_per_step() -> [u64; 5] {
    let images = Images::new(BATCH);
    let images = images.of_task();
    let mut model = model();
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

/// Allocations of predictions for one batch, then for one and for four.
fn allocations_of_predictions() -> [u64; 3] {
    let images = [1, 4].map(|batches| Images::new(batches * BATCH));
    let [one, four] = images.each_ref().map(Images::of_task);
    let mut model = model();
    [&one, &one, &four].map(|images| {
        let before = ALLOCATOR.allocations();
        let predictions = model.predict(0, images).unwrap();
        assert_eq!(predictions.len(), images.len());
        ALLOCATOR.allocations() - before
    })
}

// One test, for allocations of two at once would be counted together.
#[test]
fn nothing_is_allocated_after_the_second_step_or_the_first_batch() {
    // On more threads, which of them comes to a task first is a matter of luck, and each keeps
    // memory of its own.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.unwrap();
    let [first, _, later @ ..] = pool.install(allocations_per_step);
    assert!(first > 0);
    assert_eq!(later, [0; 3]);
    let [first, one, four] = pool.install(allocations_of_predictions);
    assert!(first > one, "{first} and {one}");
    assert_eq!(four, one, "of four batches, and of one");
}
