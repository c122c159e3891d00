"""Keras on TensorFlow: training steps of single nets, and of BeyondML's masked multitask nets."""

import sys
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workers import nets, protocol
from workers.protocol import Job, Prepared


def single(net: nets.Net) -> keras.Model:
    """The net in Keras's own layers, its last layer giving logits."""
    layers: list[Any] = [keras.Input(net.input)]
    for layer in net.layers:
        match layer:
            case nets.Dense(units, relu):
                layers.append(keras.layers.Dense(units, "relu" if relu else None))
            case nets.Conv(filters):
                layers.append(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
            case nets.MaxPool():
                layers.append(keras.layers.MaxPool2D(2, 1))
            case nets.Flatten():
                layers.append(keras.layers.Flatten())
    return keras.Sequential(layers)


def beyondml_layers() -> Any:
    # The package imports PyTorch for its other half, which would bring a second set of threads.
    sys.modules["beyondml.pt"] = types.ModuleType("beyondml.pt")
    import beyondml.tflow.layers

    return beyondml.tflow.layers


def masked(net: nets.Net, tasks: int, percentile: float) -> tuple[keras.Model, int]:
    """The net in BeyondML's layers, and how many positions the tasks own.

    Each layer holds one weight tensor per task, stacked, and multiplies it with a 0/1 mask in the
    forward pass. The masks are drawn by chance; no position belongs to two tasks.
    """
    library = beyondml_layers()
    inputs = [keras.Input(net.input) for _ in range(tasks)]
    values: Any = inputs
    random, owned = np.random.default_rng(0), 0
    for layer in net.layers:
        match layer:
            case nets.Dense(units, relu):
                built = library.MultiMaskedDense(units, activation="relu" if relu else None)
            case nets.Conv(filters):
                built = library.MultiMaskedConv2D(filters, 3, padding="same", activation="relu")
            case nets.MaxPool():
                built = library.MultiMaxPool2D((2, 2), (1, 1), padding="valid")
            case nets.Flatten():
                values = [keras.layers.Flatten()(value) for value in values]
                continue
        values = built(values)
        if hasattr(built, "set_masks"):
            masks = [exclusive(random, tensor.shape, percentile) for tensor in (built.w, built.b)]
            built.set_masks(masks)
            owned += sum(int(mask.sum()) for mask in masks)
    return keras.Model(inputs, values), owned


def exclusive(random: np.random.Generator, shape: tuple[int, ...], percentile: float) -> np.ndarray:
    """A mask `[tasks, ...]` in which every task owns its share of the positions alone."""
    mask = np.zeros(shape, dtype=np.float32).reshape(shape[0], -1)
    count = nets.share(mask.shape[1], percentile)
    order = random.permutation(mask.shape[1])
    for task, row in enumerate(mask):
        row[order[task * count : (task + 1) * count]] = 1
    return mask.reshape(shape)


def by_train_on_batch(
    model: keras.Model, images: list[tf.Tensor], labels: list[tf.Tensor], xla: bool
) -> Callable[[], float]:
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in labels]
    one = len(labels) == 1
    model.compile("adam", losses[0] if one else losses, jit_compile=xla)
    x, y = (images[0], labels[0]) if one else (images, labels)

    def once() -> float:
        return float(np.ravel(model.train_on_batch(x, y))[0])

    return once


def by_function(
    model: keras.Model, images: list[tf.Tensor], labels: list[tf.Tensor], xla: bool
) -> Callable[[], float]:
    """A training step of our own, without what `train_on_batch` does around it."""
    loss_of_task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def step(images: list[tf.Tensor], labels: list[tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images if len(images) > 1 else images[0], training=True)
            logits = logits if isinstance(logits, list | tuple) else [logits]
            loss = tf.add_n([loss_of_task(y, z) for y, z in zip(labels, logits, strict=True)])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: float(step(images, labels))


def prepare(job: Job) -> Prepared:
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    if job["precision"] == "bf16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    net, tasks, owned = nets.NETS[job["net"]], job["tasks"], None
    framework = f"Keras {keras.__version__} on TensorFlow {tf.__version__}"
    if job["percentile"] is None:
        model = single(net)
    else:
        model, owned = masked(net, tasks, job["percentile"])
        framework = f"BeyondML {sys.modules['beyondml'].__version__} with {framework}"

    shape = (job["batch"], *net.input)
    images = [tf.random.uniform(shape) for _ in range(tasks)]
    labels = [tf.random.uniform(shape[:1], 0, nets.CLASSES, tf.int32) for _ in range(tasks)]
    way = by_function if job["options"].get("function") else by_train_on_batch
    once = way(model, images, labels, bool(job["options"].get("xla")))
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return Prepared(framework, once, parameters, owned)


if __name__ == "__main__":
    protocol.serve(prepare)
