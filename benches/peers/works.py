"""What is timed: every piece of work, taskweave's command for it and the peers that do it too."""

from dataclasses import dataclass, field
from typing import Any

from workers.nets import NETS


@dataclass(frozen=True)
class Setting:
    """One way to run a peer; the options are its worker's."""

    name: str
    options: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A program that does the work: its worker's module, and the settings to choose from."""

    name: str
    worker: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Work:
    """One row of the table for each peer."""

    key: str
    title: str
    # Arguments behind `taskweave bench`, batch and threads apart.
    command: tuple[str, ...]
    # The `name` of taskweave's line of figures; none where it prints only one.
    line: str | None
    # What the workers are told, threads and options apart.
    job: dict[str, Any]
    repetitions: int
    peers: tuple[Peer, ...]

    @property
    def parameters(self) -> int | None:
        """Numbers that every contender must say it has; none where the work is one operation."""
        if "net" not in self.job:
            return None
        tasks: int = self.job.get("tasks", 1)
        return NETS[self.job["net"]].parameters() * tasks

    @property
    def owned(self) -> int | None:
        """Positions that the tasks of a masked net own together."""
        if self.job.get("percentile") is None:
            return None
        tasks: int = self.job["tasks"]
        return NETS[self.job["net"]].owned(self.job["percentile"]) * tasks


EAGER = Setting("eager")
COMPILED = Setting("compiled", {"compiled": True})
BY_LAYOUT = (
    Setting("NCHW", {}),
    Setting("channels_last", {"channels_last": True}),
    Setting("NCHW, compiled", {"compiled": True}),
    Setting("channels_last, compiled", {"channels_last": True, "compiled": True}),
)
KERAS = (
    Setting("train_on_batch"),
    Setting("tf.function", {"function": True}),
    Setting("tf.function, XLA", {"function": True, "xla": True}),
)


def torch(net: str, suffix: str = "") -> Peer:
    settings = BY_LAYOUT if net == "convnet" else (EAGER, COMPILED)
    return Peer(f"PyTorch{suffix}", "workers.torch_worker", settings)


def keras(name: str = "Keras / TensorFlow") -> Peer:
    return Peer(name, "workers.keras_worker", KERAS)


def gemm(shape: tuple[int, int, int], batch: int) -> Work:
    size = "x".join(map(str, shape))
    return Work(
        key="gemm-1024" if shape == (1_024,) * 3 else "gemm-dense",
        title=f"GEMM {size.replace('x', '×')}",
        command=("gemm",),
        line=f"gemm {size}, row-major",
        job={"kind": "gemm", "shape": shape, "batch": batch},
        repetitions=20,
        peers=(
            Peer("PyTorch", "workers.torch_worker", (EAGER,)),
            Peer("NumPy", "workers.numpy_worker", (Setting("OpenBLAS"),)),
        ),
    )


def conv(which: str, batch: int) -> Work:
    return Work(
        key=f"conv-{which.replace(' ', '-')}",
        title=f"conv 3×3 64→64 27×27, {which}, batch {batch}",
        command=("conv2d",),
        line=f"conv 64->64 27x27, {which}",
        job={"kind": "conv", "pass": which, "channels": 64, "size": 27, "batch": batch},
        repetitions=5,
        peers=(Peer("PyTorch", "workers.torch_worker", BY_LAYOUT),),
    )


def step(net: str, batch: int, precision: str = "f32") -> Work:
    bf16 = precision == "bf16"
    return Work(
        key=f"{net}-step" + ("-bf16" if bf16 else ""),
        title=f"{net} step, batch {batch}" + (", bf16" if bf16 else ""),
        command=("step", "--net", net, *(("--precision", "bf16") if bf16 else ())),
        line=None,
        job={
            "kind": "step",
            "net": net,
            "batch": batch,
            "precision": precision,
            "tasks": 1,
            "percentile": None,
        },
        repetitions=10 if net == "mlp" else 3,
        peers=(
            keras("Keras / TensorFlow, mixed_bfloat16" if bf16 else "Keras / TensorFlow"),
            torch(net, ", bf16 autocast" if bf16 else ""),
        ),
    )


def masked_step(net: str, batch: int, percentile: int) -> Work:
    return Work(
        key=f"{net}-step-masked",
        title=f"two-task masked {net} step, {percentile} %, batch {batch}",
        command=("step", "--net", net, "--tasks", "2", "--percentile", str(percentile)),
        line=None,
        job={
            "kind": "step",
            "net": net,
            "batch": batch,
            "precision": "f32",
            "tasks": 2,
            "percentile": percentile,
        },
        repetitions=5 if net == "mlp" else 3,
        peers=(keras("BeyondML / TensorFlow"),),
    )


def infer(net: str, batch: int, percentile: int | None = None) -> Work:
    """With a percentile, taskweave's net has few weights; the peers' are dense: none has kernels for it."""
    frozen = tuple(
        Setting(setting.name.replace("compiled", "compiled and frozen"), setting.options)
        for setting in torch(net).settings
    )
    return Work(
        key=f"{net}-infer-{batch}" + ("-masked" if percentile else ""),
        title=f"{net} inference, "
        + (f"{percentile} % against dense, " if percentile else "")
        + f"batch {batch}",
        command=(
            *("infer", "--net", net),
            *(("--percentile", str(percentile)) if percentile else ()),
        ),
        line=None,
        job={"kind": "infer", "net": net, "batch": batch},
        repetitions=100 if batch == 1 else 20 if batch <= 32 else 5,
        peers=(
            Peer(
                "onnxruntime",
                "workers.onnxruntime_worker",
                (Setting("run"), Setting("I/O binding", {"bound": True})),
            ),
            Peer("PyTorch", "workers.torch_worker", frozen),
        ),
    )


def all_works(batch: int) -> list[Work]:
    """Every piece of work, the batch taking the place of 512."""
    return [
        gemm((batch, 1_000, 1_000), batch),
        gemm((1_024, 1_024, 1_024), batch),
        *[conv(which, batch) for which in ("forward", "grad input", "grad weights")],
        step("mlp", batch),
        step("mlp", batch, "bf16"),
        step("convnet", batch),
        step("convnet", batch, "bf16"),
        masked_step("mlp", batch, 90),
        masked_step("convnet", batch, 80),
        *[infer(net, size) for net in NETS for size in sorted({1, 32, batch})],
        *[infer(net, size, 90) for net in NETS for size in sorted({1, batch})],
    ]
