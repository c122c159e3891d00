#!/usr/bin/env python3
"""Times taskweave and its peers on the same work, in turns, and prints a Markdown table."""

import argparse
import dataclasses
import datetime
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import environment
from contenders import ContenderError, Launch, Refused, Taskweave
from environment import SetupError
from results import WorkResult
from rounds import Plan, WorkRun, say
from table import failures, memory_table, speed_table
from workers.nets import NETS
from works import Work, all_works

INTERRUPTED = 130
# The experiments whose dedicated nets are those of `workers/nets.py`.
EXPERIMENTS = {"mlp": "digits-fashion-mlp", "convnet": "digits-fashion-conv"}


def positive(text: str) -> int:
    """A count of at least one, for the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a count of at least 1 is wanted, not {text!r}")
    return int(text)


def arguments() -> argparse.Namespace:
    keys = ", ".join(work.key for work in all_works(512))
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"Works: {keys}.")
    parser.add_argument("--only", nargs="+", metavar="WORK", help="these works (default: all)")
    parser.add_argument("--batch", type=positive, default=512, metavar="N", help="default: 512")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all processors")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--repetitions", type=positive, metavar="N", help="in each turn (default: by the work)"
    )
    environment.add_arguments(parser)
    parser.add_argument(
        "--timeout",
        type=positive,
        default=900,
        metavar="SECONDS",
        help="longest wait for one answer of a peer, compiling included (default: 900)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every figure here")
    parsed = parser.parse_args()
    unknown = set(parsed.only or ()) - {work.key for work in all_works(parsed.batch)}
    if unknown:
        parser.error(f"no work is called {', '.join(sorted(unknown))}; there are: {keys}")
    return parsed


def check_nets(taskweave: Taskweave) -> None:
    """The program's nets must have as many parameters as those the peers build."""
    for net, experiment in EXPERIMENTS.items():
        printed, _ = taskweave.run(["summary", experiment])
        totals = [line.split()[1] for line in printed.splitlines() if line.startswith("total")]
        wanted = f"{NETS[net].parameters():,}"
        if wanted not in totals:
            raise SetupError(f"`summary {experiment}` totals {totals} parameters, not {wanted}")


def plan(options: argparse.Namespace, works: list[Work]) -> Plan:
    """Everything that is needed before the first work: installed, built and checked."""
    # Not resolved: the interpreter of a virtual environment is a link.
    python = environment.peers_python(options.venv.absolute())
    binary = options.taskweave or environment.build_taskweave()
    threads = options.threads or environment.processors()
    taskweave = Taskweave(binary.resolve(), threads)
    check_nets(taskweave)
    launches = {}
    for module in {peer.worker for work in works for peer in work.peers}:
        for tuned in (False, True):
            variables = environment.worker_environment(
                os.environ, threads, options.venv.absolute() / "cache", tuned=tuned
            )
            launches[module, tuned] = Launch(python, module, variables, options.timeout)
    return Plan(taskweave, launches, options.rounds, options.repetitions)


@dataclasses.dataclass
class Report:
    """All that is printed and kept."""

    date: str
    processor: str
    threads: int
    rounds: int
    taskweave: str
    works: list[WorkResult] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def headline(self) -> str:
        """Date, processor, threads and versions."""
        sets = {line["isa"] for work in self.works for line in work.ours.rounds}
        peers = {one.framework for work in self.works for one in work.tried if one.framework}
        return (
            f"{self.date}, {self.processor} ({', '.join(sorted(sets)) or 'no figures'}), "
            f"{self.threads} threads, {self.rounds} rounds: {self.taskweave}; "
            f"{', '.join(sorted(peers)) or 'no peers'}."
        )

    def markdown(self) -> str:
        parts = [self.headline(), speed_table(self.works), memory_table(self.works)]
        parts += failures(self.works)
        parts += [f"Left out: {title} ({why})." for title, why in self.left_out.items()]
        return "\n\n".join(parts)

    def kept(self) -> dict[str, Any]:
        return {"headline": self.headline(), **dataclasses.asdict(self)}


def measure(report: Report, plan: Plan, works: list[Work], json_file: Path | None) -> None:
    """Adds one work after the other to the report, and keeps what there is."""
    for work in works:
        try:
            report.works.append(WorkRun(work, plan).run())
        except Refused as refused:
            report.left_out[work.title] = str(refused)
            say(f"  left out: {refused}")
        if json_file is not None:
            json_file.write_text(json.dumps(report.kept(), indent=1) + "\n")


def main() -> int:
    options = arguments()
    # Either must end the workers too, even where a shell has us ignore Ctrl-C in the background.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    works = [
        work for work in all_works(options.batch) if not options.only or work.key in options.only
    ]
    try:
        ready = plan(options, works)
        version = ready.taskweave.run(["--version"])[0].strip()
    except (SetupError, ContenderError, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    source = f"binary {options.taskweave}" if options.taskweave else environment.revision()
    report = Report(
        date=datetime.date.today().isoformat(),
        processor=environment.processor_name(),
        threads=ready.taskweave.threads,
        rounds=ready.rounds,
        taskweave=f"{version} ({source})",
    )
    code = 0
    try:
        measure(report, ready, works, options.json)
    except KeyboardInterrupt:
        say("interrupted: the table has the works that were done")
        code = INTERRUPTED
    print(report.markdown())
    return code


if __name__ == "__main__":
    sys.exit(main())
