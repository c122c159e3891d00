"""PyTorch: matrix products, convolutions, training steps and inference."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from workers import nets, protocol
from workers.protocol import Job, Prepared


def build(net: nets.Net) -> nn.Sequential:
    """The net, its last layer giving logits."""
    layers: list[nn.Module] = []
    channels = net.input[-1]
    size = net.input[0]
    features = channels
    for layer in net.layers:
        match layer:
            case nets.Dense(units, relu):
                layers += [nn.Linear(features, units), *([nn.ReLU()] if relu else [])]
                features = units
            case nets.Conv(filters):
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
                channels = filters
            case nets.MaxPool():
                layers.append(nn.MaxPool2d(2, 1))
                size -= 1
            case nets.Flatten():
                layers.append(nn.Flatten())
                features = size * size * channels
    return nn.Sequential(*layers)


def images(net: nets.Net, batch: int) -> torch.Tensor:
    """Noise in the order that PyTorch has its images in."""
    *rows_and_columns, channels = net.input
    return torch.rand(batch, channels, *rows_and_columns)


def layout(options: dict[str, Any]) -> torch.memory_format:
    return torch.channels_last if options.get("channels_last") else torch.contiguous_format


def maybe_compiled(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False) if options.get("compiled") else function


def gemm(job: Job) -> Callable[[], float]:
    m, k, n = job["shape"]
    a, b, c = torch.rand(m, k), torch.rand(k, n), torch.empty(m, n)

    def once() -> float:
        torch.matmul(a, b, out=c)
        return float(c[0, 0])

    return once


def conv(job: Job) -> Callable[[], float]:
    """The convolution and its bias alone; taskweave's figure forward has relu in it."""
    memory_format = layout(job["options"])
    channels, size = job["channels"], job["size"]
    x = torch.rand(job["batch"], channels, size, size).to(memory_format=memory_format)
    grad = torch.rand_like(x)
    weight = torch.rand(channels, channels, 3, 3).to(memory_format=memory_format)
    bias = torch.rand(channels)

    def forward() -> torch.Tensor:
        return functional.conv2d(x, weight, bias, padding=1)

    def backward(wanted: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, [channels], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )

    work = {
        "forward": forward,
        "grad input": lambda: backward([True, False, False])[0],
        "grad weights": lambda: backward([False, True, True])[1],
    }[job["pass"]]
    work = maybe_compiled(work, job["options"])

    def once() -> float:
        with torch.no_grad():
            return float(work()[0, 0, 0, 0])

    return once


def step(job: Job) -> tuple[Callable[[], float], int]:
    options, net = job["options"], nets.NETS[job["net"]]
    x = images(net, job["batch"])
    model = build(net)
    if x.dim() == 4:
        x = x.to(memory_format=layout(options))
        model = model.to(memory_format=layout(options))
    labels = torch.randint(nets.CLASSES, (job["batch"],))
    parameters = list(model.parameters())
    # The fused Adam is the fastest of PyTorch's three.
    optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, fused=True)
    bf16 = job["precision"] == "bf16"

    def loss_of_batch() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return functional.cross_entropy(model(x), labels)

    forward = maybe_compiled(loss_of_batch, options)

    def once() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        optimizer.step()
        return float(loss)

    return once, sum(parameter.numel() for parameter in parameters)


def infer(job: Job) -> tuple[Callable[[], float], int]:
    options, net = job["options"], nets.NETS[job["net"]]
    x = images(net, job["batch"])
    model = build(net).eval()
    if x.dim() == 4:
        x = x.to(memory_format=layout(options))
        model = model.to(memory_format=layout(options))
    if options.get("compiled"):
        from torch._inductor import config

        # Weights become constants, laid out once as the kernels want them.
        config.freezing = True
    forward = maybe_compiled(model, options)

    # `no_grad`, not `inference_mode`: freezing refuses inference tensors.
    def once() -> float:
        with torch.no_grad():
            return float(forward(x)[0, 0])

    return once, sum(parameter.numel() for parameter in model.parameters())


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    framework = f"PyTorch {torch.__version__}"
    match job["kind"]:
        case "gemm":
            return Prepared(framework, gemm(job))
        case "conv":
            return Prepared(framework, conv(job))
        case "step":
            once, parameters = step(job)
        case "infer":
            once, parameters = infer(job)
        case kind:
            raise ValueError(f"PyTorch has no work of the kind {kind}")
    return Prepared(framework, once, parameters)


if __name__ == "__main__":
    protocol.serve(prepare)
