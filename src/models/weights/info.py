"""The description of a weight file: its fields, their JSON form, and the validation of untrusted ones."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

from src.cli import MAX_TABLE_MARGIN, UserError, one_line, printable
from src.labels import GENDERS, HEADS

ATTRIBUTE = "age_gender"
"""Root attribute of a weight file that holds `WeightsInfo` as JSON."""
FORMAT_VERSION = 1
MIN_SIZE, MAX_SIZE = 16, 1024
"""Maximum side of an input, pixels; a batch of larger images would not fit into memory."""
MAX_TEXT = 1000
"""Maximum length of a text, characters."""


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """Description of a weight file, mostly from the file itself.

    Attributes:
        model_name: Name that `factory.get_model` knows.
        img_size: Side of the square input in pixels.
        margin: Crop margin that the model was trained with, as a share of the sides of the face box.
        colour: Channel order of its input, `"RGB"` or `"BGR"`.
        gender_order: Meaning of the two classes of the gender head.
        age_decoding: `"expectation"`: the age is the expectation of the softmax over 0..100 years.
        data: Training data.
        epoch: Number of epochs trained.
        metrics: Validation metrics by name.
        versions: Versions of the libraries that wrote it.
        heads: The trained heads, out of `HEADS`; the output of others is meaningless. Empty: a network to train on.
        run: The training run that wrote it: its name, which its log and curves begin with, and when it began.
        label: Name of a published file, or a readable name.
        scaled: Whether the graph includes the input scaling of `backbones.SCALING`. In files of other projects it does
            not; their networks take raw values, unless the application scales its input (EfficientNet).
        resize: How faces are resized to the input: `"area"`, area averaging to shrink; `"bilinear"`, like the
            original, from a copy of the photo whose longest side is 640 pixels.
        mirrored: Whether predictions are averaged over a face and its mirror image.
        version: Version of this project that wrote the file; empty: an older one, or none.
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
    heads: tuple[str, ...] = HEADS
    run: str = ""
    label: str = ""
    scaled: bool = True
    resize: str = "area"
    mirrored: bool = False
    version: str = ""


def storable(text: str) -> str:
    """Make a text one that a weight file may hold: printable, at most `MAX_TEXT` characters."""
    return printable(text)[:MAX_TEXT]


def to_json(info: WeightsInfo) -> str:
    """Return the JSON text of a file's `age_gender` attribute."""
    return json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(info)})


def parse_json(text: str, path: Path) -> WeightsInfo:
    """Parse the `age_gender` attribute; raise `UserError` if it is damaged, or of a newer version of this project."""
    try:
        values = json.loads(text)
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(f"the format version of {path} must be {FORMAT_VERSION}, got {version!r:.20}; update")
        values["gender_order"] = tuple(values["gender_order"])
        values["heads"] = tuple(values.get("heads", HEADS))
        info = WeightsInfo(**values)
        check_info(info)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"the attribute {ATTRIBUTE!r} of {path} must describe the network, got {one_line(error)}"
        ) from error
    checked_size(info.img_size, path)
    return info


def check_info(info: WeightsInfo) -> None:
    """Raise `ValueError` if a field has another type or value than `WeightsInfo` documents."""

    def is_number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    def is_text(value: object) -> bool:
        return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()

    def is_table(value: object, of: Callable[[object], bool]) -> bool:
        return isinstance(value, dict) and len(value) <= 100 and all(is_text(k) and of(v) for k, v in value.items())

    texts = ("model_name", "data", "run", "label", "version")
    checks = {name: is_text(getattr(info, name)) for name in texts} | {
        "img_size": type(info.img_size) is int,
        "margin": is_number(info.margin) and 0 <= info.margin <= MAX_TABLE_MARGIN,
        "colour": info.colour in ("RGB", "BGR"),
        "gender_order": info.gender_order in (GENDERS, GENDERS[::-1]),
        "age_decoding": info.age_decoding == "expectation",
        "epoch": info.epoch is None or type(info.epoch) is int,
        "metrics": is_table(info.metrics, is_number),
        "versions": is_table(info.versions, is_text),
        "heads": info.heads in (HEADS, HEADS[:1], HEADS[1:], ()),
        "scaled": type(info.scaled) is bool,
        "resize": info.resize in ("area", "bilinear"),
        "mirrored": type(info.mirrored) is bool,
    }
    checks["model_name"] &= str(info.model_name).isidentifier()
    for name, good in checks.items():
        if not good:
            raise ValueError(f"{name} = {getattr(info, name)!r:.80}")


def checked_size(img_size: int, path: Path) -> int:
    """Raise `UserError` unless a network for images of that size fits into memory."""
    if not MIN_SIZE <= img_size <= MAX_SIZE:
        raise UserError(
            f"the input of {path} must have {MIN_SIZE} to {MAX_SIZE} pixels per side, got {str(img_size)[:20]}"
        )
    return img_size
