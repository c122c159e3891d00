#!/usr/bin/env python3
"""Holds what `taskweave export` writes to onnxruntime: its probabilities are those of `predict`."""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import environment
from contenders import ContenderError, Taskweave
from environment import SetupError

# The largest difference of two probabilities.
TOLERANCE = 1e-5
EXPERIMENTS = ("quickstart", "quickstart-conv")
# Task by task the set of the embedded images.
TASKS = {"Digit": "mnist", "Fashion": "fashion-mnist"}
HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    environment.add_arguments(parser)
    return parser.parse_args()


def models(folder: Path) -> list[tuple[Path, str]]:
    """Every model that a run kept, with each of its tasks."""
    dedicated = [(folder / f"dedicated-{task.lower()}.safetensors", task) for task in TASKS]
    return dedicated + [(folder / "multitask.safetensors", task) for task in TASKS]


def compare(python: Path, onnx: Path, pixels: Path, expected: Path) -> float:
    """The largest difference between onnxruntime's probabilities and the expected ones."""
    command = [python, "-m", "workers.onnx_check", onnx, pixels, expected]
    done = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["largest_difference"])


def check(taskweave: Taskweave, python: Path, folder: Path) -> bool:
    """Prints a row for every model and task; whether all are near enough."""
    near = True
    print("| experiment | model | task | largest difference |\n| --- | --- | --- | --- |")
    with zipfile.ZipFile(environment.ROOT / "fixtures" / "quickstart.npz") as archive:
        for task, dataset in TASKS.items():
            pixels = archive.read(f"{dataset}/x_test.npy")
            (folder / f"{task}.npy").write_bytes(pixels)
    for experiment in EXPERIMENTS:
        out = folder / experiment
        taskweave.run(["run", experiment, "--epochs", "2", "--out", str(out), "--quiet"])
        for model, task in models(out):
            pixels, expected = folder / f"{task}.npy", folder / "expected.npy"
            onnx = folder / "model.onnx"
            of_task = [str(model), "--task", task]
            taskweave.run(["export", *of_task, "--onnx", str(onnx)])
            predict = ["predict", of_task[0], str(pixels), *of_task[1:], "--proba"]
            taskweave.run([*predict, "--out", str(expected)])
            largest = compare(python, onnx, pixels, expected)
            # Not a number is not near.
            near &= largest <= TOLERANCE
            print(f"| {experiment} | {model.stem} | {task} | {largest:.1e} |", flush=True)
    return near


def main() -> int:
    options = arguments()
    try:
        python = environment.peers_python(options.venv.absolute())
        binary = options.taskweave or environment.build_taskweave()
        taskweave = Taskweave(binary.resolve(), environment.processors())
        with tempfile.TemporaryDirectory() as folder:
            near = check(taskweave, python, Path(folder))
    except (SetupError, ContenderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: {error}\n{error.stderr}", file=sys.stderr)
        return 1
    if not near:
        print(f"error: more than {TOLERANCE} apart", file=sys.stderr)
    return 0 if near else 1


if __name__ == "__main__":
    sys.exit(main())
