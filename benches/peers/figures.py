"""What a set of times comes to: medians, spreads, ratios round by round."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median and the lowest and highest of the values it stands for."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(peer: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times as long the peer took, round by round: both lists go by round."""
    return spread([theirs / own for theirs, own in zip(peer, ours, strict=True)])


def milliseconds(value: float) -> str:
    """Three figures, whole milliseconds from a hundred on."""
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
