"""ONNX weight files: their description, and the validation of untrusted ones.

ONNX Runtime opens every file that a model names for its values, and reserves whatever a model declares. So the
structure is read first, by protobuf and with the part of ONNX's schema that matters here
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). All of `validate` runs in the process of `sandbox`,
except for a file that `export` has just written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.cli import UserError, one_line
from src.labels import AGE_CLASSES, GENDERS
from src.models.weights.info import ATTRIBUTE, WeightsInfo, parse_json, to_json

if TYPE_CHECKING:
    import onnxruntime

ENTRY_LIMIT = 2**20
"""Maximum bytes of one entry of the metadata."""
TRIAL_BATCH = 4
"""Images for the trial prediction."""
FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
INTEGERS = {2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_}
"""Values of TensorProto.DataType that are read, and their types."""
SCHEMA: dict[str, dict[str, tuple[int, type | str]]] = {
    "Model": {"graph": (7, "Graph"), "metadata": (14, "Entry"), "training": (20, bytes), "functions": (25, bytes)},
    "Graph": {"nodes": (1, "Node"), "initializers": (5, "Tensor"), "sparse": (15, bytes)},
    "Node": {"operator": (4, bytes), "attributes": (5, "Attribute"), "domain": (7, bytes)},
    "Attribute": {
        "tensor": (5, "Tensor"),
        "tensors": (10, "Tensor"),
        "graph": (6, bytes),
        "graphs": (11, bytes),
        "sparse": (22, bytes),
        "sparses": (23, bytes),
    },
    "Tensor": {
        "dims": (1, int),
        "type": (2, int),
        "name": (8, bytes),
        "raw": (9, bytes),
        "external": (13, bytes),
        "location": (14, int),
    },
    "Entry": {"key": (1, bytes), "value": (2, bytes)},
}
"""Fields by message: number and type. All are read as repeated, so that none hides another of its number."""


def is_onnx(path: Path) -> bool:
    """Tell whether a file is ONNX, by its suffix."""
    return path.suffix.lower() == ".onnx"


def read_info(path: Path) -> WeightsInfo:
    """Read the description of an ONNX weight file, without ONNX Runtime; raise `UserError` if it has none."""
    entries = [entry for entry in parse(path).metadata if ATTRIBUTE.encode() in entry.key]
    if not entries or any(len(value) > ENTRY_LIMIT for value in entries[-1].value):
        raise no_description(path)
    return parse_json(b"".join(entries[-1].value[-1:]).decode(errors="replace"), path)


def write_info(path: Path, info: WeightsInfo) -> None:
    """Add a description to an ONNX file."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {ATTRIBUTE: to_json(info)})
    onnx.save(model, path)


def no_description(path: Path) -> UserError:
    """Make the error for an ONNX file of another origin."""
    return UserError(
        f"an ONNX weight file must be one that export.py wrote, got {path} without {ATTRIBUTE!r} in its metadata; "
        "export the .hdf5 file again"
    )


def open_session(path: Path, threads: int = 0) -> tuple[onnxruntime.InferenceSession, WeightsInfo]:
    """Open an ONNX weight file that `validate` accepted, on a GPU where ONNX Runtime has one.

    Args:
        threads: Threads of one call; 0: all cores.

    Returns:
        The session, `(n, size, size, 3)` float32 RGB 0..255 -> `(n, 2)` and `(n, 101)`, and the file's description.

    Raises:
        UserError: ONNX Runtime refuses the file, or it is not what its description says.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised anyway
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # detection needs the cores
    usable = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in usable]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own
        raise unreadable(path, error) from error
    text = session.get_modelmeta().custom_metadata_map.get(ATTRIBUTE)
    if text is None:
        raise no_description(path)
    info = parse_json(text, path)
    check_signature(session, info, path)
    return session, info


def unreadable(path: Path, error: Exception) -> UserError:
    """Make the error for a file that a library refuses."""
    return UserError(f"the weight file must be ONNX by its name, got {path}, which cannot be read: {one_line(error)}")


def check_signature(session: onnxruntime.InferenceSession, info: WeightsInfo, path: Path) -> None:
    """Raise `UserError` unless inputs and outputs are those of a network of this project."""

    def described(values: list) -> list[tuple[str, list]]:
        return [(value.type, [size if isinstance(size, int) else None for size in value.shape]) for value in values]

    number = "tensor(float)"
    expected = (
        [(number, [None, info.img_size, info.img_size, 3])],
        [(number, [None, len(GENDERS)]), (number, [None, AGE_CLASSES])],
    )
    found = described(session.get_inputs()), described(session.get_outputs())
    for what, ours, theirs in zip(("input", "outputs"), expected, found, strict=True):
        if ours != theirs:
            text = str([shape for _, shape in ours]).replace("None", "n")
            raise UserError(f"the {what} of {path} must be float32 {text}, got {str(theirs)[:200]}")


def validate(path: Path) -> None:
    """Check an untrusted ONNX weight file: structure first, then ONNX Runtime's own view, then a trial.

    Raises:
        UserError: It is damaged, foreign, names other files, or does not give probabilities.
    """
    check_structure(parse(path), path)
    session, info = open_session(path, threads=1)
    images = np.random.default_rng(0).uniform(0, 255, (TRIAL_BATCH, info.img_size, info.img_size, 3))
    try:
        outputs = session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})
    except Exception as error:
        raise unreadable(path, error) from error
    for output, classes in zip(outputs, (len(GENDERS), AGE_CLASSES), strict=True):
        # At run time a shape may be another than the declared one. NaN fails every comparison.
        good = output.shape == (TRIAL_BATCH, classes) and output.min() >= 0
        if not (good and np.abs(output.sum(axis=1) - 1).max() < 0.01):
            raise UserError(f"{path} must give {classes} probabilities, got other numbers; the file is damaged")


def parse(path: Path) -> Any:
    """Parse a file as the `Model` of `SCHEMA`; raise `UserError` if it is none."""
    from google.protobuf.message import DecodeError

    message = message_class()()
    try:
        message.ParseFromString(path.read_bytes())
    except (DecodeError, MemoryError) as error:
        raise unreadable(path, error) from error
    if not message.graph:
        raise unreadable(path, ValueError("no graph in it"))
    return message


@functools.cache
def message_class() -> type:
    """Build the class of `Model` in `SCHEMA`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    types = {bytes: field_type.TYPE_BYTES, int: field_type.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name="age_gender_onnx.proto", package="age_gender")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number, label=field_type.LABEL_REPEATED)
            added.type = field_type.TYPE_MESSAGE if isinstance(kind, str) else types[kind]
            if isinstance(kind, str):
                added.type_name = f".age_gender.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("age_gender.Model"))


def check_structure(model: Any, path: Path) -> None:
    """Raise `UserError` for whatever a network of this project does not have."""
    try:
        if model.functions or model.training:
            raise ValueError("functions or training steps of its own")
        for graph in model.graph:
            if graph.sparse:
                raise ValueError("sparse values")
            for node in graph.nodes:
                check_node(node)
        for tensor in tensors(model):
            check_tensor(tensor)
    except ValueError as error:
        raise UserError(
            f"{path} must consist of ONNX's own operators and hold all values itself, got {error}"
        ) from error


def tensors(model: Any) -> Iterator[Any]:
    """Yield all tensors of a model, including those in attributes."""
    for graph in model.graph:
        yield from graph.initializers
        for node in graph.nodes:
            for attribute in node.attributes:
                yield from attribute.tensor
                yield from attribute.tensors


def check_node(node: Any) -> None:
    """Raise `ValueError` for an operator that is not ONNX's own, or that holds a graph."""
    operator = readable(b"".join(node.operator))
    if any(domain not in (b"", b"ai.onnx") for domain in node.domain):
        raise ValueError(f"the custom operator {readable(b''.join(node.domain))}.{operator}")
    for attribute in node.attributes:
        if attribute.graph or attribute.graphs or attribute.sparse or attribute.sparses:
            raise ValueError(f"a graph or sparse values inside the operator {operator}")


def check_tensor(tensor: Any) -> None:
    """Raise `ValueError` unless a tensor holds all of its values itself, and they are finite."""
    name = readable(b"".join(tensor.name))
    if tensor.external or any(tensor.location):
        raise ValueError(f"the values of {name} in another file")
    types = FLOATS | INTEGERS
    if len(tensor.type) != 1 or tensor.type[0] not in types:
        raise ValueError(f"values of type {list(tensor.type)[:5]} in {name}")
    size = math.prod(tensor.dims) * np.dtype(types[tensor.type[0]]).itemsize
    held = sum(map(len, tensor.raw))
    if any(side < 0 for side in tensor.dims) or len(tensor.raw) > 1 or size != held:
        raise ValueError(f"{held} bytes in {name}, which declares {size}")
    if tensor.type[0] in FLOATS and held and not np.isfinite(np.frombuffer(tensor.raw[0], types[tensor.type[0]])).all():
        raise ValueError(f"NaN or infinity in {name}")


def readable(name: bytes) -> str:
    """Shorten a name from a file and make it printable."""
    text = name[:80].decode(errors="replace")
    return repr(text) if text.isprintable() else ascii(text)
