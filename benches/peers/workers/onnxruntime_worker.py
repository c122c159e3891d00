"""onnxruntime: inference of a model that is built here, node by node."""

import math
from typing import Any

from workers import nets, protocol
from workers.protocol import Job, Prepared


def build(net: nets.Net, batch: int) -> tuple[bytes, tuple[int, ...], int]:
    """The model as bytes, the shape of its input, and how many parameters it has."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shape = (batch, net.input[-1], *net.input[:-1])
    nodes: list[Any] = []
    weights: list[Any] = []
    input_shape, value = shape, "images"

    def tensor(name: str, *sizes: int) -> str:
        fan = math.prod(sizes[1:]) + sizes[0]
        values = random.normal(0, math.sqrt(2 / fan), sizes).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    def node(operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    for index, layer in enumerate(net.layers):
        match layer:
            case nets.Dense(units, relu):
                weight = tensor(f"weight_{index}", shape[1], units)
                value = node("Gemm", value, weight, tensor(f"bias_{index}", units))
                value = node("Relu", value) if relu else value
                shape = (batch, units)
            case nets.Conv(filters):
                weight = tensor(f"weight_{index}", filters, shape[1], 3, 3)
                bias = tensor(f"bias_{index}", filters)
                value = node("Relu", node("Conv", value, weight, bias, pads=[1, 1, 1, 1]))
                shape = (batch, filters, *shape[2:])
            case nets.MaxPool():
                value = node("MaxPool", value, kernel_shape=[2, 2], strides=[1, 1])
                shape = (*shape[:2], shape[2] - 1, shape[3] - 1)
            case nets.Flatten():
                value = node("Flatten", value)
                shape = (batch, math.prod(shape[1:]))

    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    parameters = sum(math.prod(weight.dims) for weight in weights)
    return model.SerializeToString(), input_shape, parameters


def prepare(job: Job) -> Prepared:
    import numpy as np
    import onnxruntime as ort

    model, shape, parameters = build(nets.NETS[job["net"]], job["batch"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    del model
    x = np.random.default_rng(1).random(shape, dtype=np.float32)

    if job["options"].get("bound"):
        binding = session.io_binding()
        result = np.empty((job["batch"], nets.CLASSES), dtype=np.float32)
        binding.bind_cpu_input("images", x)
        binding.bind_output(
            session.get_outputs()[0].name, "cpu", 0, np.float32, result.shape, result.ctypes.data
        )

        def once() -> float:
            session.run_with_iobinding(binding)
            return float(result[0, 0])

    else:
        feed = {"images": x}

        def once() -> float:
            return float(session.run(None, feed)[0][0, 0])

    return Prepared(f"onnxruntime {ort.__version__}", once, parameters)


if __name__ == "__main__":
    protocol.serve(prepare)
