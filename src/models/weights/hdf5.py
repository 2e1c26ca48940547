"""Describe untrusted weight files as plain data: names, sizes and JSON, never objects or code.

Three layouts are read, identified by content, not by suffix:

* *ordered*: Keras' HDF5 layout (`.hdf5`, `.h5`), a whole model of Keras 2 or 3 or its weights alone. Layers have an
  ordered list of names.
* *counted*: `.weights.h5`. Layers have names counted by class: `layers/conv2d`, `layers/conv2d_1`, ...
* *zipped*: `.keras`, a zip archive with the second layout inside.

What a file declares is compared with limits before it is read, and links are refused, so that an untrusted file
cannot exhaust memory or read other files. After that Keras may read the arrays. Any error becomes one `UserError`.
"""

import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.cli import UserError, one_line
from src.models.weights.info import ATTRIBUTE
from src.models.weights.published import check_regular

MAX_TEXT = 8 * 2**20
"""Maximum bytes of one attribute or JSON text; the largest network of `keras.applications` needs about 1.5 MB."""
MAX_LAYERS = 10_000
MAX_EXPANSION = 4
"""Maximum ratio of compressed arrays. Keras does not compress them, and weights compress little."""
SCALING_PREFIX = "scale_"
"""Prefix of the names of the scaling layers of `backbones`."""
SAFE_FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))
"""Filters that are part of the HDF5 library; any other would make it load plug-ins."""


@dataclass(frozen=True)
class FileFacts:
    """Content of a weight file as plain data."""

    layout: str  # "ordered", "counted" or "zipped", see the header of this module
    description: str | None  # JSON text of the attribute `age_gender`
    input_size: int | None  # side of the square input in pixels as the graph says
    layer_names: list[str]  # of all layers, with and without weights; in the order of the graph, except in *counted*
    factors: list[list[float]]  # by what layers of the graph scale their input, where they do so per channel
    arrays: int  # number of arrays of weights

    @property
    def has_our_scaling(self) -> bool:
        """Tell whether the graph begins with a scaling layer of `backbones.SCALING`."""
        return any(name.startswith(SCALING_PREFIX) for name in self.layer_names)


def read_facts(path: Path, content: bool = False) -> FileFacts:
    """Describe a weight file.

    Args:
        content: Read and check all of it, so that Keras may read it afterwards; only in the process of `sandbox`.

    Raises:
        UserError: There is no such file, something in it cannot be read, or it holds code, links or lies about sizes.
    """
    try:
        check_regular(path)
        with ExitStack() as stack:
            unzipped, text = path, None
            if zipped := starts_as_zip(path):
                unzipped, text = unzip(path, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            file = stack.enter_context(h5py.File(unzipped, "r"))
            if content:
                check_content(file)
            layers = read_layers_of_graph(file, text)
            names, arrays, ordered = read_layers(file)
            names = [str(layer["config"]["name"]) for layer in layers] or names
            refuse_code(path, layers, names)
            scales = [layer["config"]["scale"] for layer in layers if isinstance(layer["config"].get("scale"), list)]
            factors = [[float(factor) for factor in scale] for scale in scales]
            layout = "zipped" if zipped else "ordered" if ordered else "counted"
            return FileFacts(layout, read_text(file, ATTRIBUTE), input_size(layers), names, factors, arrays)
    except UserError:
        raise
    except Exception as error:  # damaged files make the libraries raise nearly anything
        raise UserError(
            f"the weight file must be a .hdf5, .h5, .weights.h5 or .keras, got {path}, which cannot be read: "
            f"{one_line(error)}"
        ) from error


@contextmanager
def named_for_keras(path: Path, facts: FileFacts) -> Iterator[Path]:
    """Yield a path to the same weights with the suffix that Keras expects for their layout."""
    with tempfile.TemporaryDirectory() as folder:
        if facts.layout == "zipped":
            yield unzip(path, Path(folder))[0]
            return
        link = Path(folder, "model.hdf5" if facts.layout == "ordered" else "model.weights.h5")
        try:
            link.symlink_to(path.resolve())
        except OSError:  # Windows asks for a privilege
            shutil.copyfile(path, link)
        yield link


def starts_as_zip(path: Path) -> bool:
    """Tell whether the file starts like a `.keras` archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def unzip(path: Path, folder: Path) -> tuple[Path, str]:
    """Unpack the HDF5 file of a `.keras` archive into a folder and read its description."""
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


def read_layers_of_graph(file: h5py.File, text: str | None) -> list[dict]:
    """List the layers of the graph's description, in order, as plain JSON; none without a description."""
    text = read_text(file, "model_config") if text is None else text
    if text is None:
        return []
    layers = json.loads(text)["config"]["layers"]
    if not isinstance(layers, list) or not all(isinstance(layer["config"], dict) for layer in layers):
        raise ValueError("a graph that is no list of layers")
    return layers


def input_size(layers: list[dict]) -> int | None:
    """Read the side of the square input in pixels; None if the layers do not have it.

    Raises:
        ValueError: The input is not a square RGB image.
    """
    for layer in layers:
        if layer.get("class_name") == "InputLayer":
            shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
            if not isinstance(shape, list) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
                raise ValueError(f"an input of shape {shape!s:.60}")
            return shape[1]
    return None


def refuse_code(path: Path, layers: list[dict], names: list[str]) -> None:
    """Raise `UserError` if a layer contains code, or is not part of a published Keras.

    The code would not run, but without it the predictions would be others than those of who saved it.
    """
    classes = [str(layer.get(key)) for layer in layers for key in ("class_name", "registered_name")]
    code = [name for name in classes if name == "Lambda" or ">" in name]
    code += [name for name in names if name.startswith("lambda")]
    if code:
        raise UserError(
            f"{path} must be of Keras' own layers, got {code[0][:80]!r}, whose code is never run; "
            "save the weights of the network without it"
        )


def read_layers(file: h5py.File) -> tuple[list[str], int, bool]:
    """Read the names of the layers, the number of their arrays, and whether the layout is *ordered*."""
    group = file
    if "layer_names" not in file.attrs and "layer_names0" not in file.attrs:
        if "model_weights" not in file:
            return *_read_counted(member(file, "layers", h5py.Group)), False
        group = member(file, "model_weights", h5py.Group)
    names = read_names(group, "layer_names")
    layers = [member(group, name, h5py.Group) for name in names]
    arrays = [member(layer, name, h5py.Dataset) for layer in layers for name in read_names(layer, "weight_names")]
    return names, len(arrays), True


def _read_counted(group: h5py.Group) -> tuple[list[str], int]:
    """Read the names of the layers, if stored, else their counted names; and the number of arrays."""
    if len(group) > MAX_LAYERS:
        raise ValueError(f"{len(group)} layers")
    names, arrays = [], 0
    for key in group:
        layer = member(group, key, h5py.Group)
        variables = member(layer, "vars", h5py.Group) if "vars" in layer else None
        name = None if variables is None else read_text(variables, "name")
        names.append(key if name is None else name)
        arrays += 0 if variables is None else len(variables)
    return names, arrays


def check_content(file: h5py.File) -> None:
    """Raise `ValueError` unless the file is hard links, attributes of limited size and arrays of plain numbers."""
    foreign: list[bytes | str] = []
    items: list[Any] = [file]
    # An exception in these callbacks would not always come out as it is.
    file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else foreign.append(name))
    if foreign:
        raise ValueError(f"no {as_text(foreign[0])[:80]!r} inside the file itself")
    file.visititems(lambda _, item: items.append(item))
    for item in items:
        for attribute in item.attrs:
            read_attribute(item, attribute)
        if isinstance(item, h5py.Dataset):
            check_array(item)
            item[()]


def read_attribute(owner: h5py.Group, name: str) -> Any:
    """Read an attribute's value, or None; compare the declared size with a limit first."""
    if name not in owner.attrs:
        return None
    declared = owner.attrs.get_id(name)
    size = math.prod(declared.shape or ()) * declared.dtype.itemsize  # no shape: an empty attribute
    if size > MAX_TEXT:
        raise ValueError(f"an attribute {name!r} of {size} bytes")
    return owner.attrs[name]


def read_text(owner: h5py.Group, name: str) -> str | None:
    """Read an attribute that is text, or None."""
    value = read_attribute(owner, name)
    return None if value is None else as_text(value)


def as_text(value: Any) -> str:
    """Decode the text of an attribute: str, bytes or an array with one of these."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{type(value).__name__} in the place of text")
    return value


def read_names(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names, which Keras splits into `NAME0`, `NAME1`, ... if it is too long for one attribute."""
    parts = [attribute]
    if attribute not in group.attrs:
        parts = []
        while f"{attribute}{len(parts)}" in group.attrs and len(parts) < MAX_LAYERS:
            parts.append(f"{attribute}{len(parts)}")
    names = [as_text(name) for part in parts for name in np.atleast_1d(read_attribute(group, part))]
    if len(names) > MAX_LAYERS:
        raise ValueError(f"{len(names)} names in {attribute!r}")
    return names


def member(group: h5py.Group, name: str, kind: type) -> Any:
    """Get a group or dataset below `group`; raise `ValueError` where there is none."""
    item = group.get(name)
    if not isinstance(item, kind):
        raise ValueError(f"no {kind.__name__.lower()} {name[:80]!r} inside the file itself")
    return item


def check_array(dataset: h5py.Dataset) -> None:
    """Raise `ValueError` unless an array contains plain numbers, in the file, and not more than fit into it."""
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
        raise ValueError(f"{dataset.name} must hold numbers, got {dataset.dtype!s:.40}")
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
