"""8-bit integers in the convolutions of an ONNX network: about half the time on a CPU, a third of the file.

The bulk of the work of MobileNet and its relatives are convolutions with kernels of 1 x 1. ONNX Runtime quantizes their
weights per channel, and their inputs by what it sees on calibration images (https://onnxruntime.ai/docs/performance/
model-optimizations/quantization.html). What loses most by it stays in float32: depthwise convolutions, which are
cheap, and the first `FLOAT_CONVOLUTIONS` of the others.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.cli import JobError
from src.labels import expected_age

if TYPE_CHECKING:
    import onnx

Outputs = tuple[np.ndarray, np.ndarray]
"""`pred_gender (n, 2)` and `pred_age (n, 101)`."""

FLOAT_CONVOLUTIONS = 3
MAX_AGE_CHANGE = 0.5
"""Years, mean over the images."""
MAX_GENDER_CHANGE = 0.02
"""Share of the images."""


def quantize(network: Path, faces: np.ndarray) -> None:
    """Replace an ONNX file by its quantized network.

    Args:
        network: As `export.export_model` writes it.
        faces: `(n, size, size, 3)` float32, RGB 0..255, in the crop of the network; they tell the range of every
            convolution's input.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        def __init__(self, batches: Iterator[dict[str, np.ndarray]]):
            self._batches = batches

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    simplified = network.with_name("simplified.onnx")
    logging.disable(logging.WARNING)  # it advises what is done here
    try:
        quant_pre_process(network, simplified, skip_symbolic_shape=True)  # batch norms go into the convolutions
        quantization.quantize_static(
            simplified,
            network,
            Images({"image": face[np.newaxis]} for face in faces),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=float_convolutions(onnx.load(simplified)),
        )
    finally:
        logging.disable(logging.NOTSET)
        simplified.unlink(missing_ok=True)
    store_raw(network)


def float_convolutions(network: "onnx.ModelProto") -> list[str]:
    """Return the names of the convolutions that stay in float32."""
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    grouped = {
        node.name for node in convolutions if any(value.name == "group" and value.i > 1 for value in node.attribute)
    }
    whole = [node.name for node in convolutions if node.name not in grouped]
    return [*grouped, *whole[:FLOAT_CONVOLUTIONS]]


def store_raw(path: Path) -> None:
    """Store all values as bytes, the one form that `weights.onnx` reads."""
    import onnx

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)


def describe_change(before: Outputs, after: Outputs) -> str:
    """Describe how far the outputs of the same images moved.

    Raises:
        JobError: They moved by more than `MAX_AGE_CHANGE` or `MAX_GENDER_CHANGE`.
    """
    years = np.abs(expected_age(before[1]) - expected_age(after[1]))
    other_gender = float(np.mean(before[0].argmax(axis=1) != after[0].argmax(axis=1)))
    change = f"ages by {years.mean():.2f} years on average and {years.max():.2f} at most, {other_gender:.1%} of genders"
    if not (years.mean() <= MAX_AGE_CHANGE and other_gender <= MAX_GENDER_CHANGE):  # NaN fails too
        raise JobError(
            f"8-bit integers must change ages by at most {MAX_AGE_CHANGE:g} years on average and "
            f"{MAX_GENDER_CHANGE:.0%} of genders, got {change}; nothing is kept; export without --int8"
        )
    return f"8-bit integers changed {change}, of {len(years)} images"
