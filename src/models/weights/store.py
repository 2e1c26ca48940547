"""Weight files that describe themselves: save, identify, load.

A file is Keras' HDF5 layout of a whole model plus one root attribute, `age_gender`, that holds `WeightsInfo` as JSON.
Nothing is ever deserialized from a file: `factory.py` builds the network and only arrays are read into it, so an
untrusted file cannot run code.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

import src
from src.cli import MARGIN, UserError
from src.files import write_whole
from src.models.weights import onnx, published
from src.models.weights.hdf5 import FileFacts, read_facts
from src.models.weights.info import ATTRIBUTE, WeightsInfo, checked_size, parse_json, to_json
from src.models.weights.sandbox import resolve

if TYPE_CHECKING:
    import keras

ORIGINAL_NAME = re.compile(r"([A-Za-z][A-Za-z0-9]*)_([0-9]{1,5})_.+")
"""Names of weight files that training has always written: `{model_name}_{img_size}_*`."""

logger = logging.getLogger(__name__)


def save_weights(model: keras.Model, path: str | Path, info: WeightsInfo, dtype: str = "float32") -> Path:
    """Write a weight file that `load_model` reads.

    A temporary file is written and renamed, so a reader never sees half of it, and a full disk or a kill does not
    change an older file of that name.

    Args:
        model: Network of `factory.get_model(info.model_name, info.img_size)`.
        path: Any name; its folder is created if missing.
        info: Stored as JSON; an empty `versions` or `version` is filled in.
        dtype: "float32" or "float16", which halves the file; predicted ages change by less than 0.02 years.

    Returns:
        The path.

    Raises:
        OSError: The file could not be written; nothing is left behind.
    """
    import keras

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = {"keras": keras.__version__, "backend": keras.backend.backend(), "h5py": h5py.__version__}
    info = dataclasses.replace(info, versions=info.versions or versions, version=info.version or src.__version__)
    buffer = NamedBuffer()
    logging.getLogger("absl").addFilter(is_no_advice)
    model.save(buffer, include_optimizer=False)
    if dtype == "float16":
        buffer = halve_kernels(buffer)
    with h5py.File(buffer, "r+") as file:
        file.attrs[ATTRIBUTE] = to_json(info)
    with write_whole(path, durable=True) as part:
        part.write_bytes(buffer.getbuffer())
    return path


def halve_kernels(buffer: NamedBuffer) -> NamedBuffer:
    """Copy an HDF5 file with its large kernels as float16.

    Rounding errors average out over the inputs of a sum. So the first convolution and depthwise ones, which sum few,
    keep their type, as do biases, batch norm, and values that float16 cannot hold: a twelfth of EfficientNetLite0.
    """
    halved = NamedBuffer()
    with h5py.File(buffer, "r") as source, h5py.File(halved, "w") as target:
        target.attrs.update(source.attrs)

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                copied = target.create_dataset(name, data=values.astype(np.float16) if _can_halve(values) else values)
            else:
                copied = target.require_group(name)
            copied.attrs.update(item.attrs)

        source.visititems(copy)
    return halved


def _can_halve(values: np.ndarray) -> bool:
    if values.dtype != np.float32 or values.ndim < 2:
        return False
    is_depthwise, inputs = values.shape[-1] == 1, math.prod(values.shape[:-1])
    return not is_depthwise and inputs >= 64 and np.abs(values).max() <= np.finfo(np.float16).max


class NamedBuffer(io.BytesIO):
    """A buffer that `model.save` accepts as a path with the suffix `.hdf5`, and h5py as an open file.

    On a full disk the HDF5 library fails once for every object that it still holds, each time with a traceback; bytes
    that are complete fail in one place.
    """

    def __fspath__(self) -> str:
        return "weights.hdf5"

    __str__ = __fspath__


def identify(weight_file: str | Path) -> WeightsInfo:
    """Identify the network of a weight file, without building it and without importing Keras.

    Checks, in this order: the file's own `age_gender` attribute; its bytes, which may be those of a published file;
    its name, which may be a published one or `{model_name}_{img_size}_*`. Files of the last kind count as the
    original project's: BGR, margin 0.4.

    Args:
        weight_file: A path, or a name of `published.PUBLISHED`, which is downloaded if missing.

    Raises:
        UserError: No weight file, or its network cannot be identified.
        JobError: A download failed.
    """
    path = resolve(weight_file)
    return onnx.read_info(path) if onnx.is_onnx(path) else identify_facts(path, read_facts(path))


def identify_facts(path: Path, facts: FileFacts) -> WeightsInfo:
    """Identify an HDF5 file by its content, its bytes and its name."""
    if facts.description is not None:
        info = parse_json(facts.description, path)
        if facts.input_size is None:
            raise UserError(f"{path}, which describes itself, must be a whole model, got weights alone")
    else:
        info = dataclasses.replace(identify_by_content_or_name(path), scaled=facts.has_our_scaling)
    if facts.input_size not in (None, info.img_size):
        raise UserError(
            f"{path} must have an input of {info.img_size} pixels, as it says of itself or by its name, got a graph "
            f"for {facts.input_size}"
        )
    return info


def identify_by_content_or_name(path: Path) -> WeightsInfo:
    """Identify a file without a description by its bytes or its name; raise `UserError` if both are unknown."""
    name = published.find_by_content(path)
    if name is None and path.name in published.PUBLISHED:
        name = path.name
        if published.known_hash(name) is not None:
            logger.warning("%s has other bytes than the published file of this name", path)
    if name is not None:
        row = published.PUBLISHED[name]
        network = (row.model_name, row.img_size, row.margin, row.colour, row.gender_order)
        return WeightsInfo(*network, data=row.data, label=name, resize="bilinear")
    match = ORIGINAL_NAME.fullmatch(path.name)
    if match is None:
        raise UserError(
            f"the weight file must be of this project (with an attribute {ATTRIBUTE!r}), a published one "
            f"({', '.join(published.PUBLISHED)}) or named like EfficientNetB3_224_*.hdf5, got {path}; "
            "rename it to {model_name}_{img_size}_*"
        )
    img_size = checked_size(int(match[2]), path)
    return WeightsInfo(match[1], img_size, MARGIN, "BGR", label=path.name, resize="bilinear")


def load_model(weight_file: str | Path) -> tuple[keras.Model, WeightsInfo]:
    """Build the network of a weight file and load its weights.

    Args:
        weight_file: A path, or a name of `published.PUBLISHED`, which is downloaded if missing.

    Returns:
        The model, `(batch, size, size, 3)` values 0..255 in `info.colour` order ->
        `[pred_gender (batch, 2) in info.gender_order, pred_age (batch, 101)]`, and the description of the file.

    Raises:
        UserError: See `identify`; or the weights do not fit the network.
        JobError: A download failed.
    """
    path, facts = read_hdf5(weight_file)
    info = identify_facts(path, facts)

    from src.models.factory import get_model
    from src.models.weights.fill import fill, without_scaling

    model = get_model(info.model_name, info.img_size)
    fill(model, path, facts)
    return model if info.scaled else without_scaling(model), info


def load_weights_into(model: keras.Model, weight_file: str | Path) -> None:
    """Load the weights of a file into a network of the same kind, all or none.

    Args:
        model: A network of `factory.get_model`.
        weight_file: A path, or a name of `published.PUBLISHED`, which is downloaded if missing.

    Raises:
        UserError: No weight file, or its weights do not fit the network.
        JobError: A download failed.
    """
    from src.models.weights.fill import fill

    fill(model, *read_hdf5(weight_file))


def read_hdf5(weight_file: str | Path) -> tuple[Path, FileFacts]:
    """Resolve and describe a weight file; raise `UserError` for one that only ONNX Runtime can use."""
    path = resolve(weight_file)
    if onnx.is_onnx(path):
        raise UserError(
            f"the weight file must be a .hdf5, which can be trained on and exported, got {path}; use its .hdf5"
        )
    return path, read_facts(path)


def is_no_advice(record: logging.LogRecord) -> bool:
    """Tell whether a log record is something else than Keras' advice against the HDF5 layout."""
    return "HDF5" not in record.getMessage()
