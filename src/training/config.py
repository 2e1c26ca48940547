"""The configuration of training: types, limits, and what may change when a run is resumed.

The defaults are in `src/config.yaml`, which explains every key.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, Self, cast, get_args

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic.fields import FieldInfo

from src import models
from src.cli import ROOT, UserError

MAY_CHANGE = "may change on resume"
"""Marks a key that does not change what a run computes in an epoch, or not by much."""
OWN = "each process may have its own"
"""Marks a key that the processes of one training need not share."""

Pair = tuple[float, float]


def _ascending(low: float, high: float) -> WrapValidator:
    """Require two numbers within limits, the lower first."""

    def check(value: Any, validate: Callable[[Any], Pair]) -> Pair:
        with suppress(TypeError, ValidationError):
            pair = validate(tuple(value))  # JSON has lists
            if low <= pair[0] <= pair[1] <= high:
                return pair
        raise ValueError(f"two ascending numbers in {low:g}..{high:g}")

    return WrapValidator(check)


def _address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("HOST:PORT, where process 0 can be reached")
    return address


def _network(name: str) -> str:
    models.check_name(name)
    return name


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Half = Annotated[float, Field(ge=0, le=0.5)]
UserPath = Annotated[str, AfterValidator(os.path.expanduser)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    """What is trained on."""

    db: UserPath | Annotated[list[UserPath], Field(min_length=1)]
    image_dir: Annotated[UserPath | list[UserPath | None] | None, MAY_CHANGE, OWN]
    target: Literal["real", "apparent"]
    margin: float | None
    split: Literal["person", "random"]


class ModelConfig(_Section):
    """The network."""

    model_name: Annotated[str, AfterValidator(_network)]
    img_size: Count
    batch_size: Count
    weights: UserPath | None
    mirrored: Annotated[bool, MAY_CHANGE]
    dropout: BelowOne
    frozen: BelowOne

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        models.check_size(self.model_name, self.img_size)
        return self


class TrainConfig(_Section):
    """How it is trained."""

    optimizer_name: Literal["sgd", "adam", "adamw"]
    lr: NonNegative
    schedule: Literal["step", "cosine", "constant"]
    warmup_epochs: NonNegative
    weight_decay: NonNegative
    epochs: Annotated[Count, MAY_CHANGE]
    batch_size: Count
    steps_per_epoch: Count | None
    validation_steps: Count | None
    age_loss_weight: NonNegative
    age_target: Literal["onehot", "gaussian"]
    age_sigma: Annotated[float, Field(gt=0)]
    age_expectation_weight: NonNegative
    age_class_weights: Fraction
    predictions: UserPath | None
    predictions_share: Fraction
    batch_norm_momentum: Literal["auto"] | BelowOne
    ema: BelowOne
    early_stopping: Annotated[Count | None, MAY_CHANGE]
    mixed_precision: bool
    export_onnx: Annotated[bool, MAY_CHANGE]
    save_dtype: Literal["float32", "float16"]
    devices: Annotated[Literal["auto"] | Count, MAY_CHANGE]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    workers: Annotated[Natural, MAY_CHANGE, OWN]
    resume: Annotated[bool | str, MAY_CHANGE]
    checkpoint_dir: Annotated[UserPath | None, MAY_CHANGE, OWN]

    @model_validator(mode="after")
    def _check_weight_decay(self) -> Self:
        if self.weight_decay > 0 and self.optimizer_name != "adamw":
            raise UserError(
                f"train.optimizer_name must be adamw with train.weight_decay={self.weight_decay:g}, "
                f"got {self.optimizer_name}"
            )
        return self


class DistributedConfig(_Section):
    """A training of several processes."""

    mode: Annotated[Literal["off", "on", "auto"], MAY_CHANGE]
    processes: Annotated[Count, MAY_CHANGE]
    process_id: Annotated[Natural, MAY_CHANGE, OWN]
    coordinator: Annotated[Annotated[str, AfterValidator(_address)] | None, MAY_CHANGE]

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.mode != "on" and (self.processes > 1 or self.process_id > 0):
            raise UserError(
                f"distributed.mode must be on with distributed.processes or process_id, got {self.mode}; they would be "
                "ignored"
            )
        if self.mode == "off" and self.coordinator is not None:
            raise UserError(
                "distributed.mode must be on or auto with distributed.coordinator, got off; it would be ignored"
            )
        if self.mode == "on" and self.process_id >= self.processes:
            raise UserError(f"distributed.process_id must be < {self.processes}, got {self.process_id}")
        if self.mode == "on" and self.processes > 1 and self.coordinator is None:
            raise UserError("distributed.coordinator must be HOST:PORT, where process 0 can be reached, got None")
        return self


class AugmentConfig(_Section):
    """Strengths of all random changes. `AugmentConfig()` changes nothing."""

    enabled: bool = True
    flip_probability: Fraction = 0.0
    geometry_probability: Fraction = 0.0
    shift: Half = 0.0
    scale: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    crop_jitter_probability: Fraction = 0.0
    crop_jitter_shift: Half = 0.0
    crop_jitter_scale: Half = 0.0
    brightness_contrast_probability: Fraction = 0.0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    gamma_probability: Fraction = 0.0
    gamma: Annotated[Pair, _ascending(0.1, 10)] = (1.0, 1.0)
    colour_cast_probability: Fraction = 0.0
    colour_cast: Fraction = 0.0
    grey_probability: Fraction = 0.0
    blur_probability: Fraction = 0.0
    blur_sigma: Annotated[Pair, _ascending(0, 0.2)] = (0.0, 0.0)
    motion_probability: Fraction = 0.0
    motion_length: Annotated[Pair, _ascending(0, 0.5)] = (0.0, 0.0)
    low_resolution_probability: Fraction = 0.0
    low_resolution_pixels: Annotated[Pair, _ascending(4, 4096)] = (4096.0, 4096.0)
    jpeg_probability: Fraction = 0.0
    jpeg_quality: Annotated[Pair, _ascending(1, 100)] = (100.0, 100.0)
    erasing_probability: Fraction = 0.0
    erasing_area: Annotated[Pair, _ascending(0.001, 0.99)] = (0.02, 0.4)
    erasing_aspect: Annotated[Pair, _ascending(0.01, 100)] = (0.3, 1 / 0.3)
    mixup_alpha: Annotated[float, Field(ge=0, le=100)] = 0.0


class WandbConfig(_Section):
    """Weights & Biases."""

    project: Annotated[str | None, MAY_CHANGE]


class Config(_Section):
    """All keys of `src/config.yaml`, checked."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    distributed: DistributedConfig
    augment: AugmentConfig
    wandb: WandbConfig

    @classmethod
    def check(cls, cfg: DictConfig) -> Self:
        """Check a composed configuration; raise `UserError` if a value has the wrong type or is outside its limits."""
        try:
            values = plain_values(cfg)
            return cls.model_validate_json(json.dumps(values))
        except InterpolationResolutionError as error:
            raise UserError(str(error).split("\n")[0]) from error
        except ValidationError as error:
            raise UserError(_describe(error, values)) from error

    def dump(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return self.model_dump(mode="json")

    def shared(self) -> str:
        """Return the keys that the processes of one training share, as text to compare."""
        keys = flatten(self.dump())
        return json.dumps({key: value for key, value in keys.items() if OWN not in _field(key).metadata})


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """What the heads are taught; see `src/training/targets.py`."""

    age_target: str = "onehot"
    age_sigma: float = 2.0  # years
    age_class_weights: np.ndarray | None = None  # (101,)
    has_ranges: bool = False  # age targets are (n, 303), see targets.py
    predictions: tuple[np.ndarray, np.ndarray] | None = None  # of other networks, see targets.blend
    predictions_share: float = 0.5


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Find the keys by which a configuration cannot resume a run of another, each with both values.

    Keys that did not exist `before` have their default there.
    """
    defaults = flatten(plain_values(OmegaConf.load(ROOT / "src" / "config.yaml"), resolve=False))
    earlier, later = defaults | flatten(before), flatten(now)
    return {
        key: (earlier.get(key), value)
        for key, value in sorted(later.items())
        if MAY_CHANGE not in _field(key).metadata and earlier.get(key) != value
    }


def plain_values(cfg: DictConfig | ListConfig, resolve: bool = True) -> dict[str, Any]:
    """Convert a configuration to plain values, without Hydra's own."""
    values = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=resolve))
    return {key: value for key, value in values.items() if key != "hydra"}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten `{"train": {"lr": 1}}` to `{"train.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _field(key: str) -> FieldInfo:
    section, name = key.split(".")
    return cast(type[BaseModel], Config.model_fields[section].annotation).model_fields[name]


_EXPECTED = {
    "greater_than_equal": ">= {ge}",
    "greater_than": "> {gt}",
    "less_than_equal": "<= {le}",
    "less_than": "< {lt}",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "too_short": "a list of at least {min_length}",
    "value_error": "{error}",
    "literal_error": "{expected}",
}
"""What pydantic's kinds of errors expect."""


def _describe(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Describe the first invalid key in one line: `train.lr must be >= 0, got -1`."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":  # a lone surrogate: a name whose bytes are no UTF-8
        key, value = next((key, value) for key, value in flatten(values).items() if not _is_utf8(value))
        return f"{key} must be UTF-8, got {value!r}; rename the file"
    path = [str(part) for part in errors[0]["loc"][:2]]
    key = ".".join(path)
    if errors[0]["type"] == "extra_forbidden":
        return f"{key} is not a key of src/config.yaml"
    if errors[0]["type"] == "missing":
        return f"{key} must have a value, got none: keys of src/config.yaml cannot be deleted"
    if len(path) == 1:
        return f"{key} must have the keys that it has in src/config.yaml, got {values[key]!r}"
    section, name = path
    expected = [
        _EXPECTED.get(one["type"], one["msg"]).format(**_plain(one.get("ctx", {})))
        for one in errors
        if one["loc"][:2] == (section, name)
    ]
    if type(None) in get_args(_field(key).annotation):
        expected.append("null")
    return f"{key} must be {' or '.join(dict.fromkeys(expected))}, got {values[section][name]!r}"


def _is_utf8(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(context: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{value:g}" if isinstance(value, float) else str(value).replace("'", "") for key, value in context.items()
    }
