"""One piece of work: which settings come into question, then rounds in which all take turns."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from contenders import ContenderError, Launch, Refused, Taskweave, Worker
from figures import milliseconds
from results import Tried, WorkResult, fastest
from works import Peer, Setting, Work


@dataclass(frozen=True)
class Plan:
    """What holds for every piece of work."""

    taskweave: Taskweave
    # How to start a worker of a module, with malloc as it is and tuned.
    launches: Mapping[tuple[str, bool], Launch]
    rounds: int
    # Takes the place of each work's own count.
    repetitions: int | None = None


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class WorkRun:
    """The contenders of one piece of work."""

    def __init__(self, work: Work, plan: Plan) -> None:
        self.work = work
        self.plan = plan
        self.repetitions = plan.repetitions or work.repetitions
        self.result = WorkResult(work.key, work.title)
        self.alive: dict[Tried, Worker] = {}

    def run(self) -> WorkResult:
        """All of it, every process ended. Raises `Refused` if taskweave does not know the work."""
        say(self.work.title)
        ours = self.result.ours
        try:
            # Before any peer is started: a flag that is refused leaves the work out.
            self._bench(repetitions=1)
        except Refused:
            raise
        except ContenderError as error:
            self._fail_ours(error)
            return self.result
        with ExitStack() as stack:
            stack.callback(self._end_all)
            for peer in self.work.peers:
                self._try(peer)
            for number in range(self.plan.rounds):
                if ours.failure is None:
                    self._round(number)
        return self.result

    def _try(self, peer: Peer) -> None:
        """Times every setting alone, then the best with malloc tuned; those two stay alive.

        No more than two, because idle workers keep their memory: gigabytes each in some works.
        """
        group: list[Tried] = []
        for setting in peer.settings:
            group.append(self._trial(peer, setting, tuned=False))
            best = fastest(group)
            for one in group:
                if one is not best:
                    self._end(one)
        best = fastest(group)
        # A product into memory of its own takes none from malloc.
        if best is not None and self.work.job["kind"] != "gemm":
            setting = next(one for one in peer.settings if one.name == best.setting)
            self._trial(peer, setting, tuned=True)

    def _trial(self, peer: Peer, setting: Setting, *, tuned: bool) -> Tried:
        one = Tried(peer.name, setting.name, tuned)
        self.result.tried.append(one)
        job = self.work.job | {"options": setting.options, "threads": self.plan.taskweave.threads}
        try:
            worker = Worker(self.plan.launches[peer.worker, tuned], job)
            self.alive[one] = worker
            one.framework = worker.ready["framework"]
            one.prepared_bytes = worker.ready["prepared_bytes"]
            self._check_same_work(worker.ready)
            one.trial_ms = self._measure(one)
            say(f"  {one.label()}: {milliseconds(one.trial())} ms when tried")
        except ContenderError as error:
            self._fail(one, error)
        return one

    def _check_same_work(self, ready: dict[str, Any]) -> None:
        for what, wanted in (("parameters", self.work.parameters), ("owned", self.work.owned)):
            if ready[what] != wanted:
                raise ContenderError(f"not the same work: {what} {ready[what]}, not {wanted}")

    def _round(self, number: int) -> None:
        """Everyone's turn, each round beginning with another contender."""
        turns: list[Tried | None] = [None, *self.alive]
        first = number % len(turns)
        for one in turns[first:] + turns[:first]:
            try:
                if one is None:
                    figures, peak = self._bench(self.repetitions)
                    self.result.ours.rounds.append(figures)
                    self.result.ours.peak_bytes.append(peak)
                else:
                    one.rounds_ms.append(self._measure(one))
            except ContenderError as error:
                if one is None:
                    self._fail_ours(error)
                    return
                self._fail(one, error)
        say(f"  round {number + 1} of {self.plan.rounds}")

    def _bench(self, repetitions: int) -> tuple[dict[str, Any], int]:
        work = self.work
        return self.plan.taskweave.bench(work.command, work.line, work.job["batch"], repetitions)

    def _measure(self, one: Tried) -> list[float]:
        answer = self.alive[one].measure(self.repetitions)
        one.peak_bytes = answer["peak_bytes"]
        times: list[float] = answer["times_ms"]
        return times

    def _fail_ours(self, error: ContenderError) -> None:
        self.result.ours.failure = str(error)
        say(f"  taskweave failed: {error}")

    def _fail(self, one: Tried, error: ContenderError) -> None:
        one.failure = str(error)
        say(f"  {one.label()} failed: {error}")
        self._end(one)

    def _end(self, one: Tried) -> None:
        worker = self.alive.pop(one, None)
        if worker is not None:
            worker.close()

    def _end_all(self) -> None:
        for one in list(self.alive):
            self._end(one)
