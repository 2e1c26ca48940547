"""The configuration of training: types, allowed values, and what may change on resume."""

import dataclasses
import json
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src import models
from src.cli import ROOT, UserError

MAY_CHANGE_ON_RESUME = (
    "train.epochs",
    "train.workers",
    "train.resume",
    "train.checkpoint_dir",
    "train.early_stopping",
    "train.devices",
    "distributed.mode",
    "distributed.processes",
    "distributed.process_id",
    "distributed.coordinator",
    "data.image_dir",
    "model.mirrored",
    "wandb.project",
)
"""Configuration keys that do not change what a run computes in an epoch, or not by much."""

MAY_DIFFER_BETWEEN_PROCESSES = ("distributed.process_id", "data.image_dir", "train.workers", "train.checkpoint_dir")
"""Configuration keys that each process of a training may have its own of."""

Range = tuple[float, float]

# Allowed values where they are not 0..1; both ends included. src/config.yaml says what each means.
_LIMITS = {
    "shift": (0, 0.5),
    "scale": (0, 0.9),
    "rotation": (0, 180),
    "crop_jitter_shift": (0, 0.5),
    "crop_jitter_scale": (0, 0.5),
    "gamma": (0.1, 10),
    "blur_sigma": (0, 0.2),
    "motion_length": (0, 0.5),
    "low_resolution_pixels": (4, 4096),
    "jpeg_quality": (1, 100),
    "erasing_area": (0.001, 0.99),
    "erasing_aspect": (0.01, 100),
    "mixup_alpha": (0, 100),
}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Numbers of all changes; `src/config.yaml` explains each key. `AugmentConfig()` changes nothing."""

    enabled: bool = True
    flip_probability: float = 0.0
    geometry_probability: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    rotation: float = 0.0
    crop_jitter_probability: float = 0.0
    crop_jitter_shift: float = 0.0
    crop_jitter_scale: float = 0.0
    brightness_contrast_probability: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma_probability: float = 0.0
    gamma: Range = (1.0, 1.0)
    colour_cast_probability: float = 0.0
    colour_cast: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: Range = (0.0, 0.0)
    motion_probability: float = 0.0
    motion_length: Range = (0.0, 0.0)
    low_resolution_probability: float = 0.0
    low_resolution_pixels: Range = (4096, 4096)
    jpeg_probability: float = 0.0
    jpeg_quality: Range = (100, 100)
    erasing_probability: float = 0.0
    erasing_area: Range = (0.02, 0.4)
    erasing_aspect: Range = (0.3, 1 / 0.3)
    mixup_alpha: float = 0.0

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> "AugmentConfig":
        """Checks the `augment` block of the configuration; keys that are missing stay off.

        Raises:
            UserError: an unknown key, or a value that is no number of its range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(node) - set(fields))
        if unknown:
            raise UserError(f"augment: expected keys out of {', '.join(fields)}; received {unknown[0]}; remove it")
        return cls(**{name: _checked(fields[name], value) for name, value in node.items()})


def _checked(field: dataclasses.Field, value: Any) -> Any:
    if field.name == "enabled":
        if not isinstance(value, bool):
            raise UserError(f"augment.enabled: expected true or false, received {value!r}; correct it")
        return value
    low, high = _LIMITS.get(field.name, (0, 1))
    is_range = isinstance(field.default, tuple)
    values = tuple(value) if is_range and isinstance(value, Sequence) else (value,)
    numeric = all(isinstance(v, numbers.Real) and not isinstance(v, bool) and low <= v <= high for v in values)
    if not numeric or len(values) != 1 + is_range or values[0] > values[-1]:
        expected = f"two ascending numbers [low, high] in {low}..{high}" if is_range else f"a number in {low}..{high}"
        raise UserError(f"augment.{field.name}: expected {expected}, received {value!r}; correct it")
    return tuple(float(v) for v in values) if is_range else float(value)


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """How the age head is taught; see `src/training/targets.py`."""

    age_target: str = "onehot"
    age_sigma: float = 2.0  # years
    age_class_weights: np.ndarray | None = None  # (101,)
    has_ranges: bool = False  # age targets are (n, 303), see targets.py


def check_config(cfg: DictConfig) -> None:
    """Raises `UserError` for values that no later step would name clearly; before any picture is read."""
    models.check_name(cfg.model.model_name)
    for key in ("model.img_size", "train.batch_size", "train.epochs"):
        _check_number(cfg, key, int, 1, "a whole number of at least 1")
    for key in ("train.steps_per_epoch", "train.validation_steps", "train.early_stopping"):
        if OmegaConf.select(cfg, key) is not None:
            _check_number(cfg, key, int, 1, "null or a whole number of at least 1")
    for key in (
        "train.lr",
        "train.warmup_epochs",
        "train.weight_decay",
        "train.age_loss_weight",
        "train.age_expectation_weight",
    ):
        _check_number(cfg, key, (int, float), 0, "a number of at least 0")
    for key in ("model.dropout", "train.ema"):
        _check_number(cfg, key, (int, float), 0, "a number in 0..1, below 1", below=1)
    for key in ("train.workers", "train.seed"):
        _check_number(cfg, key, int, 0, "a whole number of at least 0")
    if not isinstance(cfg.train.resume, bool | str):
        raise UserError(f"train.resume must be true, false, auto or the name of a run, got {cfg.train.resume!r}")
    models.check_size(cfg.model.model_name, cfg.model.img_size)
    models.check_optimizer_name(cfg.train.optimizer_name)
    if cfg.train.save_dtype not in models.SAVE_DTYPES:
        raise UserError(f"train.save_dtype must be {' or '.join(models.SAVE_DTYPES)}, got {cfg.train.save_dtype}")
    models.get_scheduler(cfg.train.schedule, 0.0, 1, 1)


def _check_number(cfg: DictConfig, key: str, kind, least: float, expected: str, below: float = np.inf) -> None:
    value = OmegaConf.select(cfg, key)
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < below:
        raise UserError(f"expected {key} to be {expected}, received {value!r}; correct {key}")


def config_text(cfg: DictConfig, without: Sequence[str]) -> str:
    """The configuration but for some keys, to compare."""
    config = flatten(OmegaConf.to_container(cfg, resolve=True))
    return json.dumps({key: value for key, value in sorted(config.items()) if key not in without})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys by which a configuration cannot resume a run of another, each with both values.

    Args:
        before: The run's; keys that did not exist then have their default.
        now: The other.
    """
    defaults = flatten(OmegaConf.to_container(OmegaConf.load(ROOT / "src" / "config.yaml")))
    earlier, later = defaults | flatten(before), flatten(now)
    return {
        key: (earlier.get(key), value)
        for key, value in sorted(later.items())
        if key not in MAY_CHANGE_ON_RESUME and earlier.get(key) != value
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"lr": 1}}` as `{"train.lr": 1}`."""
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
