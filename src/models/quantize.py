"""8-bit integers in an ONNX network.

Nearly all work of MobileNet and its relatives is in convolutions of 1 x 1. ONNX Runtime quantizes their weights per
channel, and their inputs by the range that it sees on calibration images
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). Depthwise convolutions and the first
`FLOAT_CONVOLUTIONS` of the others stay in float32: little time, and most of the error. Ages of the bundled MobileNet
move by 0.2 to 0.3 years on average so, by more than 2 with all convolutions in integers.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

FLOAT_CONVOLUTIONS = 3


def quantize(network: Path, faces: np.ndarray, output: Path) -> None:
    """Quantize an ONNX network.

    Args:
        network: As `export.export_model` writes it.
        faces: `(n, size, size, 3)` float32, RGB 0..255, in the crop of the network, to calibrate.
        output: File to write; a file beside it is overwritten.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Faces(quantization.CalibrationDataReader):
        def __init__(self):
            self._faces = iter(faces)

        def get_next(self) -> dict[str, np.ndarray] | None:
            face = next(self._faces, None)
            return None if face is None else {"image": face[np.newaxis]}

    simplified = output.with_name("simplified.onnx")
    with quiet():
        quant_pre_process(network, simplified, skip_symbolic_shape=True)  # batch norms go into the convolutions
        quantization.quantize_static(
            simplified,
            output,
            Faces(),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=float_convolutions(onnx.load(simplified)),
        )
    store_raw(output)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings: ONNX Runtime advises what is done here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def float_convolutions(network: "onnx.ModelProto") -> list[str]:
    """Return the names of the convolutions that stay in float32."""
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    grouped = [node.name for node in convolutions if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    others = [node.name for node in convolutions if node.name not in grouped]
    return grouped + others[:FLOAT_CONVOLUTIONS]


def store_raw(path: Path) -> None:
    """Store all values of a network as bytes, the one form that `weights.onnx` reads."""
    import onnx

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)
