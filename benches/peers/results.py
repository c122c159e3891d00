"""What a run keeps: of every piece of work taskweave's rounds and those of each setting tried."""

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ours:
    """Taskweave's figures, one line of `taskweave bench --json` a round."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    failure: str | None = None

    def medians(self) -> list[float]:
        return [line["median_ms"] for line in self.rounds]


@dataclass(eq=False)
class Tried:
    """One setting of one peer."""

    peer: str
    setting: str
    tuned: bool
    framework: str | None = None
    # Times of the repetitions by which the settings of a peer are compared.
    trial_ms: list[float] = field(default_factory=list)
    # Times of the repetitions, round by round; none if another setting was faster when tried.
    rounds_ms: list[list[float]] = field(default_factory=list)
    prepared_bytes: int | None = None
    peak_bytes: int | None = None
    failure: str | None = None

    def label(self) -> str:
        """The peer and its setting in words."""
        return f"{self.peer}, {self.setting}" + (", malloc tuned" if self.tuned else "")

    def trial(self) -> float:
        return statistics.median(self.trial_ms)

    def medians(self) -> list[float]:
        return [statistics.median(times) for times in self.rounds_ms]


@dataclass
class WorkResult:
    """One piece of work."""

    key: str
    title: str
    ours: Ours = field(default_factory=Ours)
    tried: list[Tried] = field(default_factory=list)

    def rows(self) -> list[Tried]:
        """Each peer's best setting, and again with malloc tuned; or one that failed."""
        groups: dict[tuple[str, bool], list[Tried]] = {}
        for one in self.tried:
            groups.setdefault((one.peer, one.tuned), []).append(one)
        return [fastest(group) or group[0] for group in groups.values()]


def fastest(group: list[Tried]) -> Tried | None:
    """The setting with the lowest median when tried, of those that did not fail."""
    working = [one for one in group if one.failure is None]
    return min(working, key=Tried.trial, default=None)
