"""The two kinds of contender: a peer's warm worker, and taskweave, started anew for every turn."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
USAGE_ERROR = 2


class ContenderError(Exception):
    """A contender that could not do its work; the message is a row of the table."""


class Refused(ContenderError):
    """Taskweave does not know a flag of this command."""


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that leads its own group, and whatever it started, stopped or not."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Launch:
    """How a worker is started."""

    python: Path
    module: str
    environment: dict[str, str]
    timeout: float


class Worker:
    """A peer's process: warm, and stopped by a signal whenever it is not its turn.

    Thread pools spin for a while after the work, which would slow the next contender down, and
    which is a good setting for the peer itself. A stopped process cannot spin.
    """

    def __init__(self, launch: Launch, job: dict[str, Any]) -> None:
        self._timeout = launch.timeout
        self._pending = b""
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        # A group of its own in our session: Ctrl-C is ours to handle, and should we be killed
        # ourselves, the system ends orphaned groups whose processes are stopped.
        self._process = subprocess.Popen(
            [launch.python, "-m", launch.module],
            cwd=HERE,
            env=launch.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            process_group=0,
        )
        try:
            self.ready = self._ask(job)
        except BaseException:
            self.close()
            raise

    def measure(self, repetitions: int) -> dict[str, Any]:
        """One turn: times in milliseconds, the work's answer, the process's peak of memory."""
        return self._ask({"repetitions": repetitions})

    def close(self) -> None:
        kill_group(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._errors.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        answer: dict[str, Any] = json.loads(self._line())
        self._stop()
        if "error" in answer:
            raise ContenderError(answer["error"].splitlines()[0][:200])
        return answer

    def _signal(self, which: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, which)
        except ProcessLookupError:
            raise self._ended() from None

    def _stop(self) -> None:
        """Returns when every thread stands still, or the process has ended."""
        self._signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = os.waitstatus_to_exitcode(status)

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(self._timeout):
                    raise ContenderError(f"no answer within {self._timeout:.0f} s")
                read = os.read(self._process.stdout.fileno(), 65_536)
                if not read:
                    raise self._ended()
                self._pending += read
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self) -> ContenderError:
        code = self._process.wait()
        self._errors.seek(0)
        said = last_line(self._errors.read().decode(errors="replace"))
        return ContenderError(f"ended with exit code {code}: {said[:200]}")


@dataclass(frozen=True)
class Taskweave:
    """The program under test."""

    binary: Path
    threads: int

    def run(self, arguments: list[str]) -> tuple[str, int]:
        """What a command printed, and its peak of resident memory in bytes."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [self.binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                process_group=0,
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                kill_group(process)
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            if process.returncode == USAGE_ERROR:
                raise Refused((said.strip().splitlines() or ["it said nothing"])[0])
            if process.returncode != 0:
                raise ContenderError(f"exit code {process.returncode}: {last_line(said)}")
            peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
            return out.read().decode(), peak

    def bench(
        self, command: tuple[str, ...], line: str | None, batch: int, repetitions: int
    ) -> tuple[dict[str, Any], int]:
        """One turn: the line of figures of that name, and the process's peak of memory."""
        printed, peak = self.run(
            [
                "bench",
                *command,
                "--json",
                *("--batch", str(batch)),
                *("--threads", str(self.threads)),
                *("--repetitions", str(repetitions)),
            ]
        )
        lines: list[dict[str, Any]] = [json.loads(text) for text in printed.splitlines()]
        if line is None and len(lines) == 1:
            return lines[0], peak
        for figures in lines:
            if figures["name"] == line:
                return figures, peak
        names = ", ".join(repr(figures["name"]) for figures in lines)
        raise ContenderError(f"no line {line!r} among {names}")
