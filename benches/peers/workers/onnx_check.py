"""onnxruntime on an exported model: how far its probabilities are from the expected ones."""

import json
import sys


def main() -> None:
    import numpy as np
    import onnx
    import onnxruntime as ort

    model, pixels, expected = sys.argv[1:]
    onnx.checker.check_model(model, full_check=True)
    images = np.load(pixels)
    images = images.reshape(len(images), 1, *images.shape[1:])
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"pixels": images})
    difference = np.abs(found - np.load(expected)).max()
    print(json.dumps({"largest_difference": float(difference)}))


if __name__ == "__main__":
    main()
