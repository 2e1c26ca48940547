"""Reads weight files of strangers as plain data: names, shapes and numbers, never objects or code.

Three layouts are read, told apart by content and not by the file's ending:

* *ordered*: Keras' HDF5 layout (`.hdf5`, `.h5`), a whole model of Keras 2 or 3 or its weights alone. Layers stand in an
  ordered list of names.
* *counted*: `.weights.h5`. Layers stand under names counted by class: `layers/conv2d`, `layers/conv2d_1`, ...
* *zipped*: `.keras`, a zip archive with the second layout inside.

What a file declares is compared with limits before it is read, and links are not followed, so that neither memory nor
other files are at a stranger's disposal. Whatever is wrong with a file becomes one `UserError`.
"""

import json
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.cli import UserError
from src.models.weights.published import check_regular

MAX_TEXT = 8 * 2**20
"""Bytes of one attribute or JSON text; the largest network of `keras.applications` describes itself in about 1.5 MB."""
MAX_LAYERS = 10_000
MAX_EXPANSION = 4
"""Times that packed numbers may grow when they are read. Keras does not pack them, and numbers hardly shrink."""
SCALING_PREFIX = "scale_"
"""How the names of the scaling layers of `backbones` begin."""
SAFE_FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))
"""Filters that are part of the HDF5 library itself; any other would make it look for plug-ins to run."""


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a file that has weights: its name there and its arrays, not read yet."""

    name: str
    arrays: tuple[h5py.Dataset, ...]


@dataclass(frozen=True)
class WeightFile:
    """An open weight file.

    Attributes:
        path: The user's path, for messages.
        file: The HDF5 file; of a `.keras` archive, the one inside.
        config: The graph as Keras described it, as plain JSON, where the file has one.
    """

    path: Path
    file: h5py.File
    config: dict | None

    def text(self, attribute: str, limit: int = MAX_TEXT) -> str | None:
        """A root attribute as text, or None when there is none."""
        value = read_attribute(self.file, attribute, limit)
        return None if value is None else as_text(value)

    @cached_property
    def is_counted(self) -> bool:
        """Whether the layers are named by class and count (`.weights.h5`, `.keras`)."""
        return self._ordered_group is None

    @cached_property
    def _ordered_group(self) -> h5py.Group | None:
        if "layer_names" in self.file.attrs or "layer_names0" in self.file.attrs:
            return self.file
        return member(self.file, "model_weights", h5py.Group) if "model_weights" in self.file else None

    @cached_property
    def _counted_group(self) -> h5py.Group:
        for name in ("layers", "_layer_checkpoint_dependencies"):  # the second: Keras 2.12 and 2.13
            if name in self.file:
                group = member(self.file, name, h5py.Group)
                if len(group) > MAX_LAYERS:
                    raise ValueError(f"{len(group)} layers")
                return group
        raise ValueError("no layers in it")

    @cached_property
    def config_layers(self) -> list[dict]:
        """The layers of `config`, in order; empty without one."""
        if self.config is None:
            return []
        layers = self.config["config"]["layers"]
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise ValueError("a graph that is no list of layers")
        return layers

    @cached_property
    def layer_names(self) -> list[str]:
        """Names of all layers, with and without weights; in the order of the graph, except in `.weights.h5`."""
        if self.config_layers:
            return [str(layer["config"]["name"]) for layer in self.config_layers]
        if self._ordered_group is not None:
            return read_names(self._ordered_group, "layer_names")
        return [self._counted_name(key) for key in self._counted_group]

    def _counted_name(self, key: str) -> str:
        """The layer's own name where Keras left it, else its place in the count."""
        group = member(self._counted_group, key, h5py.Group)
        name = read_attribute(member(group, "vars", h5py.Group), "name", MAX_TEXT) if "vars" in group else None
        return key if name is None else as_text(name)

    @property
    def has_our_scaling(self) -> bool:
        """Whether the graph begins with a scaling layer of `backbones.SCALING`."""
        return any(name.startswith(SCALING_PREFIX) for name in self.layer_names)

    @property
    def input_size(self) -> int | None:
        """Side of the square input in pixels as the graph says, or None where it does not.

        Raises:
            ValueError: The input is not a square RGB image.
        """
        for layer in self.config_layers:
            if layer.get("class_name") == "InputLayer":
                shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
                if not isinstance(shape, list) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
                    raise ValueError(f"an input of shape {shape!s:.60}")
                return shape[1]
        return None

    def refuse_code(self) -> None:
        """Raises `UserError` when a layer holds code, or belongs to no published Keras.

        The code would not run, but without it the network's answers would be others than those of who saved it.
        """
        names = [str(layer.get(key)) for layer in self.config_layers for key in ("class_name", "registered_name")]
        code = [name for name in names if name == "Lambda" or ">" in name]
        code += [name for name in self.layer_names if name.startswith("lambda")]
        if code:
            raise UserError(
                f"expected a network of Keras' own layers, received {self.path} with {code[0][:80]!r}, whose code is "
                "never run; save the weights of the network without it"
            )

    def layers_with_weights(self, classes: Sequence[str]) -> list[StoredLayer]:
        """All layers that have weights, in the order of the graph.

        Args:
            classes: Class names of all layers of the network that the file should be for, in order; the *counted*
                layout is read by them.
        """
        if self._ordered_group is None:
            return self._counted_layers(classes)
        layers = []
        for name in read_names(self._ordered_group, "layer_names"):
            group = member(self._ordered_group, name, h5py.Group)
            names = read_names(group, "weight_names")
            if names:
                layers.append(StoredLayer(name, tuple(member(group, array, h5py.Dataset) for array in names)))
        return layers

    def _counted_layers(self, classes: Sequence[str]) -> list[StoredLayer]:
        count: dict[str, int] = {}
        ordered = []
        for class_name in classes:
            key = snake_case(class_name)
            number = count[key] = count.get(key, -1) + 1
            ordered.append(f"{key}_{number}" if number else key)
        others = [key for key in self._counted_group if key not in set(ordered)]
        layers = [StoredLayer(key, self._counted_arrays(key)) for key in [*ordered, *others]]
        return [layer for layer in layers if layer.arrays]

    def _counted_arrays(self, key: str) -> tuple[h5py.Dataset, ...]:
        group: Any = self._counted_group
        for part in (key, "vars"):
            if part not in group:
                return ()
            group = member(group, part, h5py.Group)
        return tuple(member(group, str(number), h5py.Dataset) for number in range(min(len(group), MAX_LAYERS)))


@contextmanager
def open_weight_file(path: Path) -> Iterator[WeightFile]:
    """Opens a weight file of any of the three layouts.

    Raises:
        UserError: There is no such file, or something in it cannot be read; also for whatever goes wrong in the body
            of the `with` statement, which should do nothing but read.
    """
    try:
        check_regular(path)
        with ExitStack() as stack:
            unzipped, config_text = path, None
            if starts_as_zip(path):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                unzipped, config_text = unzip(path, Path(folder))
            file = stack.enter_context(h5py.File(unzipped, "r"))
            yield WeightFile(path, file, read_config(file, config_text))
    except UserError:
        raise
    except Exception as error:  # damaged files make the libraries raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"expected a weight file (.hdf5, .h5, .weights.h5, .keras), received {path}, which cannot be read: {reason}"
        ) from error


def starts_as_zip(path: Path) -> bool:
    """Whether the file begins like a `.keras` archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def unzip(path: Path, folder: Path) -> tuple[Path, str]:
    """Unpacks the HDF5 file of a `.keras` archive into a folder and reads its description."""
    limit = MAX_EXPANSION * path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        with archive.open("config.json") as stream:
            text = stream.read(MAX_TEXT + 1)
        if len(text) > MAX_TEXT:
            raise ValueError(f"a config.json of more than {MAX_TEXT} bytes")
        declared = archive.getinfo("model.weights.h5").file_size
        if declared > limit:
            raise ValueError(f"an archive that unpacks to {declared} bytes from {path.stat().st_size}")
        target = folder / "model.weights.h5"
        with archive.open("model.weights.h5") as stream, target.open("wb") as out:
            shutil.copyfileobj(stream, out, 2**20)  # zipfile ends the stream at the declared size
    return target, text.decode()


def read_config(file: h5py.File, text: str | None) -> dict | None:
    """The graph's description as plain JSON."""
    if text is None:
        value = read_attribute(file, "model_config", MAX_TEXT)
        text = None if value is None else as_text(value)
    config = None if text is None else json.loads(text)
    if config is not None and not isinstance(config, dict):
        raise ValueError("a model_config that describes no model")
    return config


def read_attribute(owner: h5py.Group, name: str, limit: int) -> Any:
    """An attribute's value, or None; compares the declared size with a limit before reading."""
    if name not in owner.attrs:
        return None
    declared = owner.attrs.get_id(name)
    size = math.prod(declared.shape) * declared.dtype.itemsize
    if size > limit:
        raise ValueError(f"an attribute {name!r} of {size} bytes")
    return owner.attrs[name]


def as_text(value: Any) -> str:
    """Text of an attribute, which libraries of different age wrote as str, bytes or an array of one."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{type(value).__name__} in the place of text")
    return value


def read_names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, which Keras cuts into `NAME0`, `NAME1`, ... when it is too long for one attribute."""
    parts = [attribute]
    if attribute not in group.attrs:
        parts = []
        while f"{attribute}{len(parts)}" in group.attrs and len(parts) < MAX_LAYERS:
            parts.append(f"{attribute}{len(parts)}")
    names = [as_text(name) for part in parts for name in np.atleast_1d(read_attribute(group, part, MAX_TEXT))]
    if len(names) > MAX_LAYERS:
        raise ValueError(f"{len(names)} names in {attribute!r}")
    return names


def member(group: h5py.Group, name: str, kind: type) -> Any:
    """A group or dataset below `group`, reached through hard links only.

    Raises:
        ValueError: A link to elsewhere, data kept elsewhere, or something else than `kind`.
    """
    current: Any = group
    for part in name.split("/"):
        link = current.get(part, getlink=True) if isinstance(current, h5py.Group) and part else None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"no {name[:80]!r} inside the file itself")
        current = current[part]
    if not isinstance(current, kind):
        raise ValueError(f"{name[:80]!r} is no {kind.__name__.lower()}")
    return current


def check_array(dataset: h5py.Dataset) -> None:
    """Raises `ValueError` unless an array holds plain numbers of its own, about as many as the file has room for."""
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
        raise ValueError(f"expected numbers in {dataset.name}, received {dataset.dtype!s:.40}")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the numbers of {dataset.name} lie in another file")
    properties = dataset.id.get_create_plist()
    if not all(properties.get_filter(i)[0] in SAFE_FILTERS for i in range(properties.get_nfilters())):
        raise ValueError(f"the numbers of {dataset.name} are packed by an unknown filter")
    room = max(2**20, MAX_EXPANSION * dataset.id.get_storage_size())
    if dataset.nbytes > room:
        raise ValueError(f"{dataset.name} declares {dataset.nbytes} bytes and holds {dataset.id.get_storage_size()}")
    if dataset.chunks and math.prod(dataset.chunks) > max(2**20, 2 * dataset.size):
        raise ValueError(f"the numbers of {dataset.name} are packed in pieces of shape {dataset.chunks}")


def read_array(dataset: h5py.Dataset, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers of a dataset whose shape must be `shape`; checked before anything is read.

    Raises:
        ValueError: Other numbers than expected, see also `check_array`; or not finite.
    """
    if dataset.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, received {dataset.shape}")
    check_array(dataset)
    with np.errstate(over="ignore"):  # what is too large for the type becomes infinite and is refused below
        values = np.asarray(dataset[()]).astype(dtype)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("expected finite numbers, received NaN or infinity")
    return values


def snake_case(class_name: str) -> str:
    """The name that Keras counts layers of a class by: `DepthwiseConv2D` -> `depthwise_conv2d`."""
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", class_name).lower()
