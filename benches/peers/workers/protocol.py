"""How a worker talks to the harness: one JSON object a line.

The first line that comes in is the job. The worker builds it, runs it a few times and answers with
what it has built. After that every line asks for a number of repetitions, and is answered with
their times. The end of the input ends the worker.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Job = dict[str, Any]

WARM_UPS = 3
# Idle since its last turn, a worker first finds its data in memory again.
WARM_UPS_PER_TURN = 1


@dataclass
class Prepared:
    """A piece of work that is ready to be timed."""

    framework: str
    # Does the work once; its answer (a loss, a sum) must be finite.
    once: Callable[[], float]
    # Numbers that are trained or applied; none where the work is one operation.
    parameters: int | None = None
    # Of a masked net: positions that the tasks own, all together.
    owned: int | None = None


def peak_bytes() -> int:
    """The most memory this process ever had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _timed(once: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    answer = once()
    return (time.perf_counter() - start) * 1e3, answer


def _turn(prepared: Prepared, repetitions: int) -> dict[str, Any]:
    for _ in range(WARM_UPS_PER_TURN):
        prepared.once()
    runs = [_timed(prepared.once) for _ in range(repetitions)]
    answer = runs[-1][1]
    if not math.isfinite(answer):
        raise ValueError(f"the work's answer is {answer}: its time means nothing")
    return {"times_ms": [run[0] for run in runs], "answer": answer, "peak_bytes": peak_bytes()}


def serve(prepare: Callable[[Job], Prepared]) -> None:
    """Answers the harness until its input ends; `prepare` is called once, with the job."""
    # Frameworks print to standard output as they like; the answers keep a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        prepared = prepare(json.loads(sys.stdin.readline()))
        imported = peak_bytes()
        for _ in range(WARM_UPS):
            prepared.once()
        answer(
            {
                "framework": prepared.framework,
                "parameters": prepared.parameters,
                "owned": prepared.owned,
                "prepared_bytes": imported,
            }
        )
        for line in sys.stdin:
            answer(_turn(prepared, json.loads(line)["repetitions"]))
    except Exception as error:  # whatever a framework raises becomes a row that says so
        answer({"error": f"{type(error).__name__}: {error}"})
        raise
