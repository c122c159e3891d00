"""What the harness needs around it: the peers' virtual environment, the program, the machine."""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUIREMENTS = HERE / "requirements.txt"
REQUIREMENTS_NO_DEPS = HERE / "requirements-no-deps.txt"
# The one the requirements were tried with; Python brings older ones.
PIP = "pip==26.3"

# Most of the peers' memory comes from malloc, which by its default gives large blocks back to the
# system after every step and takes them again as fresh 4 KB pages. This keeps them, in huge pages
# (GNU C library 2.35 and later; others ignore it).
MALLOC_TUNED = {
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {
            "hugetlb": 1,
            "arena_max": 1,
            "mmap_threshold": 1 << 40,
            "trim_threshold": 1 << 40,
        }.items()
    )
}


class SetupError(Exception):
    """Something without which nothing can be timed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which binary and which virtual environment to use."""
    parser.add_argument(
        "--taskweave", type=Path, metavar="PATH", help="a binary (default: build this checkout)"
    )
    parser.add_argument(
        "--venv",
        type=Path,
        metavar="PATH",
        default=ROOT / "target" / "peers-venv",
        help="the peers' virtual environment (default: target/peers-venv)",
    )


def _run(command: list[str | Path]) -> None:
    # Standard output is the table's alone.
    try:
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    except FileNotFoundError as error:
        raise SetupError(f"cannot run {command[0]}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise SetupError(f"{' '.join(map(str, command))} ended with {error.returncode}") from error


def peers_python(folder: Path) -> Path:
    """The Python of the virtual environment, made or brought up to the requirements if need be."""
    python = folder / "bin" / "python"
    stamp = folder / "requirements.sha256"
    wanted = hashlib.sha256(
        REQUIREMENTS.read_bytes() + REQUIREMENTS_NO_DEPS.read_bytes()
    ).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise SetupError(
            f"the pinned peers need Python 3.11 to 3.13, this is {platform.python_version()}"
        )
    print(f"installing the peers into {folder}", file=sys.stderr)
    _run([sys.executable, "-m", "venv", folder])
    pip: list[str | Path] = [python, "-m", "pip", "install", "--only-binary", ":all:"]
    _run([*pip, PIP])
    _run([*pip, "--requirement", REQUIREMENTS])
    _run([*pip, "--no-deps", "--requirement", REQUIREMENTS_NO_DEPS])
    stamp.write_text(wanted)
    return python


def build_taskweave() -> Path:
    """The release binary of this checkout."""
    _run(["cargo", "build", "--release", "--locked", "--bin", "taskweave"])
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "taskweave"


def worker_environment(
    environment: Mapping[str, str], threads: int, cache: Path, *, tuned: bool
) -> dict[str, str]:
    """The environment of a peer's process."""
    count = str(threads)
    kept = {
        name: value
        for name, value in environment.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "GLIBC_TUNABLES")
    }
    return kept | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(cache / "keras"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # One compiling process, which ends with its worker: a pool of them would linger.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        **(MALLOC_TUNED if tuned else {}),
    }


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def revision() -> str:
    """The checkout's commit, `-dirty` behind it if files differ."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown revision"
