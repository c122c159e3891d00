"""The nets of the comparison as data, and how many parameters they have."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Dense:
    """A dense layer, with relu unless it is the last."""

    units: int
    relu: bool = True


@dataclass(frozen=True)
class Conv:
    """A 3×3 convolution with stride 1, zero padding to the same size, and relu."""

    filters: int


@dataclass(frozen=True)
class MaxPool:
    """Maximum over 2×2 with stride 1, no padding."""


@dataclass(frozen=True)
class Flatten:
    """Makes an image one row of features."""


Layer = Dense | Conv | MaxPool | Flatten

CLASSES = 10


@dataclass(frozen=True)
class Net:
    """An input, `(features,)` or `(height, width, channels)`, and the layers behind it."""

    input: tuple[int, ...]
    layers: tuple[Layer, ...]

    def parameter_sizes(self) -> list[int]:
        """Positions of each weight and bias tensor, in order."""
        shape, sizes = self.input, []
        for layer in self.layers:
            match layer:
                case Dense(units):
                    sizes += [math.prod(shape) * units, units]
                    shape = (units,)
                case Conv(filters):
                    sizes += [9 * shape[2] * filters, filters]
                    shape = (shape[0], shape[1], filters)
                case MaxPool():
                    shape = (shape[0] - 1, shape[1] - 1, shape[2])
                case Flatten():
                    shape = (math.prod(shape),)
        return sizes

    def parameters(self) -> int:
        """Weights and biases together."""
        return sum(self.parameter_sizes())

    def owned(self, percentile: float) -> int:
        """Positions that one task owns in all tensors together."""
        return sum(share(size, percentile) for size in self.parameter_sizes())


def share(positions: int, percentile: float) -> int:
    """Positions of a tensor at or above a percentile: what one task owns."""
    return positions - math.ceil((positions - 1) * percentile / 100)


NETS = {
    "mlp": Net((784,), (*[Dense(1_000)] * 6, Dense(CLASSES, relu=False))),
    "convnet": Net(
        (28, 28, 1),
        (
            *[Conv(32)] * 2,
            MaxPool(),
            *[Conv(64)] * 2,
            MaxPool(),
            Flatten(),
            *[Dense(256)] * 2,
            Dense(CLASSES, relu=False),
        ),
    ),
}
