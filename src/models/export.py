"""Export networks for other runtimes with Keras, and check them in these runtimes.

An exported network takes float32 `(batch, size, size, 3)`, RGB 0..255, and returns `pred_gender (batch, 2)` (female,
male) and `pred_age (batch, 101)`, in this order, whatever conventions the weights have.
"""

import dataclasses
import importlib.util
import logging
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np

from src.cli import ROOT, JobError, UserError, one_line, shell_command
from src.labels import GENDERS, expected_age
from src.models import weights
from src.models.quantize import quantize
from src.models.weights.info import WeightsInfo
from src.models.weights.onnx import validate

if TYPE_CHECKING:
    import keras

MAX_PROBABILITY_DIFFERENCE = 1e-4
MAX_AGE_DIFFERENCE = 1e-3
"""Years."""
MAX_INT8_AGE_CHANGE = 0.5
"""Years, mean over the faces: a ninth of the bundled model's error."""
MAX_INT8_GENDER_CHANGE = 0.02
"""Share of the faces."""
SAVED_MODEL = frozenset(
    ["saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets", "assets.extra"]
)
"""What TensorFlow writes into the folder of a SavedModel."""
PART = 8
"""Images that ONNX Runtime gets at once."""

Outputs = tuple[np.ndarray, np.ndarray]
"""`pred_gender (n, 2)` and `pred_age (n, 101)`."""


def run_onnx(path: Path, images: np.ndarray) -> Outputs:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: images[start : start + PART]}) for start in range(0, len(images), PART)]
    gender, age = map(np.concatenate, zip(*parts, strict=True))
    return gender, age


def run_litert(path: Path, images: np.ndarray) -> Outputs:
    from ai_edge_litert.interpreter import Interpreter

    outputs = Interpreter(model_path=str(path)).get_signature_runner()(image=images)
    return outputs["output_0"], outputs["output_1"]


def run_openvino(path: Path, images: np.ndarray) -> Outputs:
    import openvino

    # Where the processor has bfloat16, OpenVINO uses it by default: ages change by years.
    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return tuple(model(images).values())


def run_saved_model(path: Path, images: np.ndarray) -> Outputs:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # its variables live as long as it has a name
    return tuple(output.numpy() for output in loaded.serve(images))


@dataclass(frozen=True)
class Format:
    """A format of `keras.Model.export`."""

    keras_name: str  # in `export`
    ending: str  # suffix of the file; empty for a folder
    packages: dict[str, str]  # modules required to write and check, with the names to install
    run: Callable[[Path, np.ndarray], Outputs]  # computes the outputs of an exported network in its runtime


FORMATS = {
    "onnx": Format("onnx", ".onnx", {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"}, run_onnx),
    "litert": Format("litert", ".tflite", {"ai_edge_litert": "ai-edge-litert"}, run_litert),
    "openvino": Format("openvino", ".xml", {"openvino": "openvino"}, run_openvino),
    "saved_model": Format("tf_saved_model", "", {"tensorflow": "tensorflow"}, run_saved_model),
}


def export_model(
    weight_file: str | Path,
    format_name: str,
    output: str | Path,
    read_faces: Callable[[WeightsInfo], np.ndarray] | None = None,
) -> str:
    """Export a network and check its outputs in its own runtime before it gets its name.

    ONNX files get the weights' description and are weight files themselves, see `weights.onnx`.

    Args:
        weight_file: See `weights.load_model`.
        format_name: A key of `FORMATS`.
        output: A file (`.xml` for OpenVINO, which also writes a `.bin`) or, for `saved_model`, a folder. An existing
            export is replaced only by a network that passed the check.
        read_faces: For ONNX in 8-bit integers, see `quantize`. Called with the weights' description, returns faces
            `(n, size, size, 3)` float32, RGB 0..255, 2 or more. Half of them calibrate, the others measure the change.

    Returns:
        One line: what was written, its input, and how far its outputs are from the original's, with `read_faces`
        before quantization; then another one about the change.

    Raises:
        UserError: Weights that cannot be loaded, missing packages, or an unsuitable `output`.
        JobError: The export failed, its outputs differ, or quantization changes them too much; `output` is unchanged.
    """
    form, output, change = FORMATS[format_name], Path(output), ""
    if read_faces and format_name != "onnx":
        raise UserError(f"--int8 requires --format onnx, got {format_name}")
    check_place(form, output)
    check_packages(format_name)
    model, info = weights.load_model(weight_file)
    faces = read_faces(info) if read_faces else None
    images = example_images(info.img_size)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder, whole_float32():
        expected = normalized_outputs(model, info, images)
        written = Path(folder) / f"network{form.ending}"
        write(plain_network(model, info), form, written)
        differences = compare(expected, run(form, written, images))
        if faces is not None:
            written, change = quantize_and_compare(written, faces)
        if format_name == "onnx":
            weights.write_info(written, dataclasses.replace(info, colour="RGB", gender_order=GENDERS, scaled=True))
            try:
                validate(written)
            except UserError as error:
                raise JobError(f"the exported network is not kept: {error}") from error
        put_in_place(written, output)
    return (
        f"{output}: {info.model_name}, float32 (n, {info.img_size}, {info.img_size}, 3) RGB 0..255, face crops with "
        f"margin {info.margin:g} -> {GENDERS} probabilities, 101 age probabilities; largest difference "
        f"{'before quantization ' if change else ''}{differences[0]:.1e} in probability, {differences[1]:.1e} years"
        f"{change}"
    )


def export_beside(weight_file: Path) -> str:
    """Export a weight file to ONNX under the same name, in another process, which may use another backend.

    Returns:
        One line: what was written, or why not and how to do it.
    """
    output = weight_file.with_suffix(".onnx")
    options = ["--weight_file", str(weight_file), "--format", "onnx", "-o", str(output)]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}  # GPUs may be full
    done = subprocess.run(
        [sys.executable, str(ROOT / "export.py"), *options],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        return f"For use without TensorFlow: {output}"
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
    return f"No {output.name} written ({reason}); for it run {shell_command('python', 'export.py', *options)}"


def check_packages(format_name: str) -> None:
    """Raise `UserError` if a package for the format is missing, or Keras runs on another backend."""
    form = FORMATS[format_name]
    missing = [name for module, name in form.packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"--format {format_name} requires the packages {', '.join(form.packages.values())}, missing "
            f"{', '.join(missing)}; run pip install -r requirements-export.txt"
        )
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"export requires Keras on TensorFlow, got {keras.backend.backend()}; set "
            "KERAS_BACKEND=tensorflow (weight files are the same for all backends)"
        )


def check_place(form: Format, output: Path) -> None:
    """Raise `UserError` if `output` exists and is not an earlier export, which could be replaced."""
    if form.ending == ".xml" and output.suffix != ".xml":
        raise UserError(f"--output must end in .xml for --format openvino, got {output}")
    if form.ending == ".xml" and output.with_suffix(".bin").exists() and not output.exists():
        raise UserError(
            f"{output.with_suffix('.bin')} exists without {output} and would be overwritten; choose another name"
        )
    if form.ending and output.is_dir():
        raise UserError(f"--output must be a file, got the folder {output}")
    if form.ending and output.is_file() and (output.suffix != form.ending or h5py.is_hdf5(output)):
        raise UserError(f"--output must be a new file or an older export ({form.ending}), got {output}")
    if not form.ending and output.exists() and not (output / "saved_model.pb").is_file():
        raise UserError(f"--output must be a new folder or an older SavedModel, got {output}")
    if not form.ending and output.exists() and (others := sorted({*os.listdir(output)} - SAVED_MODEL)):
        raise UserError(
            f"--output must have nothing but an older SavedModel in it, which is replaced, got {output} with"
            f" {len(others):,} other file(s), such as {others[0]}: move them or choose another name"
        )


@contextmanager
def whole_float32() -> Iterator[None]:
    """Prevent GPUs from rounding to TensorFloat-32 (10 bits), which the check would report as a broken export."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def example_images(size: int) -> np.ndarray:
    """Generate `(8, size, size, 3)`, float32 in 0..255: black, white, two of noise and four of smooth colours."""
    rng = np.random.default_rng(0)
    images = [np.zeros((size, size, 3)), np.full((size, size, 3), 255.0)]
    for side in (size, size, 4, 4, 6, 6):
        images.append(cv2.resize(rng.uniform(0, 255, (side, side, 3)), (size, size), interpolation=cv2.INTER_LINEAR))
    return np.stack(images).astype(np.float32)


def normalized_outputs(model: "keras.Model", info: WeightsInfo, images: np.ndarray) -> Outputs:
    """Compute the outputs for RGB images, gender as female, male."""
    values = images[..., ::-1] if info.colour == "BGR" else images
    gender, age = (np.asarray(output) for output in model(values, training=False))
    return (gender if info.gender_order == GENDERS else gender[:, ::-1]), age


def plain_network(model: "keras.Model", info: WeightsInfo) -> "keras.Model":
    """Rebuild the network from operations that every exporter supports, for RGB, gender as female, male."""
    import keras

    network = keras.models.clone_model(model, clone_function=plain_layer)
    for copy in network.layers:
        if not copy.weights:  # this includes the inputs, whose names changed
            continue
        layer = model.get_layer(copy.name)
        values = layer.get_weights()
        if is_depthwise(layer):
            values[0] = np.swapaxes(values[0], 2, 3)  # (height, width, 1, channels) -> (height, width, channels, 1)
        copy.set_weights(values)
    inputs = keras.Input(model.inputs[0].shape[1:], name="image")
    gender, age = network(keras.ops.flip(inputs, axis=-1) if info.colour == "BGR" else inputs)
    if info.gender_order != GENDERS:
        gender = keras.ops.flip(gender, axis=-1)
    plain = keras.Model(inputs, [gender, age])
    plain(np.zeros((1, *inputs.shape[1:]), np.float32))  # the ONNX exporter requires a model that was called
    return plain


def plain_layer(layer: "keras.Layer") -> "keras.Layer":
    """Copy a layer, without its weights, in a form that every exporter supports.

    Keras 3.15 on TensorFlow does not export these: to ONNX the constants of `Normalization` (they become inputs),
    convolutions with one group per channel, and `gelu`; to OpenVINO `silu` (inner results become outputs).
    """
    import keras

    if isinstance(layer, keras.layers.Normalization):
        return as_rescaling(layer)
    if is_depthwise(layer):
        keys = ("name", "kernel_size", "strides", "padding", "use_bias")
        return keras.layers.DepthwiseConv2D(**{key: layer.get_config()[key] for key in keys})
    copy = layer.__class__.from_config(layer.get_config())
    if getattr(layer, "activation", None) is keras.activations.silu:
        copy.activation = lambda x: x * keras.ops.sigmoid(x)
    if getattr(layer, "activation", None) is keras.activations.gelu:  # with the error function, not its complement
        copy.activation = lambda x: 0.5 * x * (1 + keras.ops.erf(x / math.sqrt(2)))
    return copy


def is_depthwise(layer: "keras.Layer") -> bool:
    """Check for a convolution with one group per channel (ConvNeXt), without an activation."""
    import keras

    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == layer.filters > 1
        and layer.activation is keras.activations.linear
    )


def as_rescaling(layer: "keras.layers.Normalization") -> "keras.layers.Rescaling":
    """Write `(x - mean) / sqrt(variance)` as `x * scale + offset` with constants."""
    import keras

    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(value), np.float64).reshape(-1) for value in (layer.mean, layer.variance)
    )
    deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())
    return keras.layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist(), name=layer.name)


def write(network: "keras.Model", form: Format, path: Path) -> None:
    """Run Keras' export; raise `JobError` if it fails, `OSError` if the disk is full or the folder read-only."""
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it logs a line per unsupported operation
    try:
        with warnings.catch_warnings(), mended_openvino() if form.keras_name == "openvino" else nullcontext():
            warnings.simplefilter("ignore")  # the exporters' own, about versions of numpy and similar
            network.export(str(path), format=form.keras_name, verbose=False)
    except OSError:
        raise
    except Exception as error:  # four exporters of four projects
        raise JobError(f"Keras' export to {form.keras_name} failed: {one_line(error, 300)}") from error


@contextmanager
def mended_openvino() -> Iterator[None]:
    """Make OpenVINO 2026.4 convert under Python 3.13.

    It reads TensorFlow's version in a function with two calls of `exec`, which no longer share variables (PEP 667).
    """
    import tensorflow as tf
    from openvino.frontend.tensorflow import utils

    original = utils.get_environment_setup
    utils.get_environment_setup = lambda _: {"tensorflow": tf.__version__}
    try:
        yield
    finally:
        utils.get_environment_setup = original


def run(form: Format, path: Path, images: np.ndarray) -> Outputs:
    """Compute the outputs of an exported network in its runtime; raise `JobError` if that refuses it."""
    try:
        return form.run(path, images)
    except Exception as error:  # four runtimes of four projects
        raise JobError(
            f"{form.keras_name}: the runtime refuses the exported network, which is not kept: {one_line(error, 300)}"
        ) from error


def compare(expected: Outputs, received: Outputs) -> tuple[float, float]:
    """Return the maximum differences in probability and in years.

    Raises:
        JobError: They exceed `MAX_PROBABILITY_DIFFERENCE` or `MAX_AGE_DIFFERENCE`, or shapes differ.
    """
    shapes = [np.shape(value) for value in received]
    if shapes != [value.shape for value in expected]:
        raise JobError(f"outputs must have the shapes {[value.shape for value in expected]}, got {shapes}; not kept")
    probability = max(float(np.abs(a - b).max()) for a, b in zip(expected, received, strict=True))
    years = float(np.abs(expected_age(expected[1]) - expected_age(received[1])).max())
    if not (probability <= MAX_PROBABILITY_DIFFERENCE and years <= MAX_AGE_DIFFERENCE):  # NaN fails too
        raise JobError(
            f"outputs differ from those of the weights by up to {probability:.2g} in probability and "
            f"{years:.2g} years; the exported network is not kept"
        )
    return probability, years


def quantize_and_compare(network: Path, faces: np.ndarray) -> tuple[Path, str]:
    """Quantize a network; see `export_model`.

    Returns:
        The quantized file and a line about the change.
    """
    output = network.with_name("quantized.onnx")
    try:
        quantize(network, faces[::2], output)
    except OSError:
        raise
    except Exception as error:  # ONNX Runtime's own
        raise JobError(f"quantization failed: {one_line(error, 300)}") from error
    before, after = (run(FORMATS["onnx"], path, faces[1::2]) for path in (network, output))
    years, genders = int8_change(before, after)
    return output, f"\n8-bit integers change ages by {years:.2f} years on average and {genders:.1%} of genders"


def int8_change(before: Outputs, after: Outputs) -> tuple[float, float]:
    """Return the mean difference in years and the share of other genders.

    Raises:
        JobError: They exceed `MAX_INT8_AGE_CHANGE` or `MAX_INT8_GENDER_CHANGE`.
    """
    years = float(np.abs(expected_age(before[1]) - expected_age(after[1])).mean())
    genders = float(np.mean(before[0].argmax(axis=1) != after[0].argmax(axis=1)))
    if not (years <= MAX_INT8_AGE_CHANGE and genders <= MAX_INT8_GENDER_CHANGE):  # NaN fails too
        raise JobError(
            f"8-bit integers must change ages by <= {MAX_INT8_AGE_CHANGE:g} years on average and <= "
            f"{MAX_INT8_GENDER_CHANGE:.0%} of genders, got {years:.2f} years and {genders:.1%}; the exported network "
            "is not kept; export without --int8"
        )
    return years, genders


def put_in_place(written: Path, output: Path) -> None:
    """Rename an export to its final name: a file, an `.xml` and its `.bin`, or a folder in place of an older one."""
    if written.is_dir():
        if output.exists():
            os.replace(output, written.with_name("older"))  # deleted with the temporary folder
        os.replace(written, output)
        return
    if written.suffix == ".xml":
        os.replace(written.with_suffix(".bin"), output.with_suffix(".bin"))
    os.replace(written, output)
