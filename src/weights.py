"""Weight files that describe themselves: save, identify, load.

A file is Keras' HDF5 layout of a whole model plus one root attribute, `age_gender`, that holds `WeightsInfo` as JSON.
Nothing is ever deserialised from a file: the network is built by `src.factory` and the numbers are read into it, so a
file from a stranger cannot run code.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from src.cli import ROOT, UserError
from src.labels import GENDERS

if TYPE_CHECKING:
    import keras

ATTRIBUTE = "age_gender"
FORMAT_VERSION = 1
BUNDLED = "MobileNetV2_96_utkface.hdf5"
"""Name of the weights in `pretrained_models/` that are used when none are named."""


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """What a weight file says about itself.

    Attributes:
        model_name: Name that `factory.get_model` knows.
        img_size: Side of the square input in pixels.
        margin: Crop margin that the model was trained with, as a part of the face box's sides.
        colour: Channel order of its input, `"RGB"` or `"BGR"`.
        gender_order: Meaning of the two classes of the gender head.
        age_decoding: `"expectation"`: the age is the expectation of the softmax over 0..100 years.
        data: What it was trained on.
        epoch: Epochs of training behind it, counted from 1.
        metrics: Validation figures by name.
        versions: Versions of the libraries that wrote it.
        label: A published file's name, or a name for people.
    """

    model_name: str
    img_size: int
    margin: float
    colour: str = "RGB"
    gender_order: tuple[str, str] = GENDERS
    age_decoding: str = "expectation"
    data: str = ""
    epoch: int | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    label: str = ""


def save_weights(model: keras.Model, path: str | Path, info: WeightsInfo) -> Path:
    """Writes a weight file that `load_model` reads, whole or not at all.

    The file is written beside its place and renamed, so that a reader never sees half of it and a full disk or a kill
    leaves an older file of that name as it was.

    Args:
        model: Network of `factory.get_model(info.model_name, info.img_size)`.
        path: Any name; its folder is made when missing.
        info: Stored as JSON; an empty `versions` is filled in.

    Returns:
        The path.

    Raises:
        OSError: The file could not be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not info.versions:
        info = dataclasses.replace(info, versions=library_versions())
    # Keras chooses the layout by the ending; the process number keeps two writers apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.hdf5")
    try:
        with quiet_absl():
            model.save(temporary, include_optimizer=False)
        with h5py.File(temporary, "r+") as file:
            file.attrs[ATTRIBUTE] = to_json(info)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def to_json(info: WeightsInfo) -> str:
    """The JSON text that stands in a file's `age_gender` attribute."""
    return json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(info)})


def library_versions() -> dict[str, str]:
    """Versions of what writes a weight file."""
    import keras

    return {"keras": keras.__version__, "backend": keras.backend.backend(), "h5py": h5py.__version__}


def identify(path: str | Path) -> WeightsInfo:
    """Says which network a weight file is for, without building it and without importing Keras.

    Raises:
        UserError: Not a weight file of a network that this project knows.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get(ATTRIBUTE)
    except OSError as error:
        raise UserError(f"expected a weight file, received {path}: {error}") from error
    if text is None:
        raise UserError(f"expected a weight file with a description, received {path}: no attribute {ATTRIBUTE!r}")
    known = {field.name for field in dataclasses.fields(WeightsInfo)}
    values: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
    values["gender_order"] = tuple(values.get("gender_order", GENDERS))
    return WeightsInfo(**values)


def load_model(path: str | Path) -> tuple[keras.Model, WeightsInfo]:
    """Builds the network that a weight file is for and loads the numbers into it.

    Returns:
        The model (see `factory.get_model`) and what the file says about itself.

    Raises:
        UserError: See `identify`; or the numbers do not fit the network.
    """
    from src.factory import get_model

    info = identify(path)
    model = get_model(info.model_name, info.img_size)
    load_weights_into(model, path)
    return model, info


def load_weights_into(model: keras.Model, path: str | Path) -> None:
    """Loads the numbers of a weight file into a network of the same kind.

    Raises:
        UserError: The numbers do not fit the network.
    """
    try:
        model.load_weights(path)
    except (ValueError, OSError) as error:
        raise UserError(f"expected weights of {model.name}, received {path}: {error}") from error


def bundled() -> Path:
    """The weights that come with the project.

    Raises:
        UserError: They are not in their place.
    """
    path = ROOT / "pretrained_models" / BUNDLED
    if not path.is_file():
        raise UserError(f"expected the bundled weights {path}, received no such file; name others with --weight_file")
    return path


@contextmanager
def quiet_absl():
    """Keeps Keras from advising against the HDF5 layout at every save."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
