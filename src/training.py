"""The whole job of learning: configuration in, weight files out."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from src import backbones, datasets, distribution, factory, losses, weights
from src.augmentation import AugmentConfig
from src.backend import sixteen_bit_type
from src.batches import TargetConfig
from src.callbacks import Checkpoint, ResumeFile, RunState, WandbLogger, WeightAverage
from src.cli import ROOT, UserError
from src.distribution import ALONE, Group
from src.generator import EpochSetter, ImageSequence, drop_unreadable
from src.labels import AGE_CLASSES
from src.losses import expected_age_error
from src.steps import StepBar, StepCallbacks
from src.weights import WeightsInfo

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
    "wandb.project",
)
"""Configuration keys that do not change what a run computes in an epoch, or not by much."""
MAY_DIFFER_BETWEEN_PROCESSES = ("distributed.process_id", "data.image_dir", "train.workers", "train.checkpoint_dir")
"""Configuration keys that each process of a training may have its own of."""


def train(cfg: DictConfig) -> keras.callbacks.History:
    """Trains a network and writes its best weights, a log, curves and a state to resume from.

    Args:
        cfg: The keys of `src/config.yaml`, which explains each.

    Returns:
        Figures by epoch, those before a resume included: `loss`, `pred_gender_loss`, `pred_age_loss`,
        `pred_gender_accuracy`, `pred_age_accuracy`, `pred_age_mae` (years), each with `val_` for validation.

    Raises:
        UserError: the configuration asks for something impossible.
        JobError: no picture is left, ImageNet weights cannot be downloaded, or the loss is no number.
        KeyboardInterrupt: Ctrl-C; its text says how to go on.
    """
    check_config(cfg)
    with distribution.join(cfg) as group:
        return _train(cfg, group)


def _train(cfg: DictConfig, group: Group) -> keras.callbacks.History:
    group.require_same(_text_of(cfg, MAY_DIFFER_BETWEEN_PROCESSES), "configuration")
    folder = Path(cfg.train.checkpoint_dir or ROOT / "checkpoints")
    stem = f"{cfg.model.model_name}_{cfg.model.img_size}"
    resume_path = folder / f"{stem}_resume.npz"
    state = start_state(cfg, resume_path, group)
    if state.epochs >= cfg.train.epochs:
        print(f"All {state.epochs} epochs are done; raise train.epochs to go on.")
        return _history(keras.callbacks.History(), state)
    use_wandb = cfg.wandb.project and group.is_first
    if use_wandb:
        WandbLogger.check_login()
    keras.mixed_precision.set_global_policy(precision_policy(cfg.train.mixed_precision))

    training, validation, margin = make_sequences(cfg, group)
    model = make_model(cfg, len(training), resuming=state.epochs > 0, group=group)
    average = WeightAverage(model, cfg.train.ema) if cfg.train.ema else None
    if group.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    resume_file = ResumeFile(resume_path, model, average, group)
    if state.epochs:
        resume_file.load_variables()
        print(f"Going on after epoch {state.epochs} of {cfg.train.epochs}.")
    info = WeightsInfo(
        model_name=cfg.model.model_name, img_size=cfg.model.img_size, margin=margin, data=", ".join(_table_names(cfg))
    )
    checkpoint = Checkpoint(folder, info, state, resume_file, average, cfg.train.early_stopping, group)
    callbacks = [EpochSetter(training), *([average] if average else []), checkpoint]
    if group.is_first:
        callbacks.append(StepBar(len(training)))
    if use_wandb:
        callbacks.append(
            WandbLogger(cfg.wandb.project, OmegaConf.to_container(cfg, resolve=True), folder / f"{stem}_curves.png")
        )
    return _fit(cfg, model, training, validation, callbacks, state)


def _text_of(cfg: DictConfig, without: Sequence[str]) -> str:
    """The configuration but for some keys, to compare."""
    config = _flat(OmegaConf.to_container(cfg, resolve=True))
    return json.dumps({key: value for key, value in sorted(config.items()) if key not in without})


def _fit(cfg, model, training, validation, callbacks, state) -> keras.callbacks.History:
    steps = {"verbose": 2, "epochs": cfg.train.epochs, "steps": len(training)}
    try:
        history = model.fit(
            training,
            validation_data=validation,
            epochs=cfg.train.epochs,
            initial_epoch=state.epochs,
            callbacks=StepCallbacks(callbacks, add_history=True, add_progbar=True, model=model, **steps),
            shuffle=False,  # the sequence shuffles by seed and epoch
            verbose=2,
        )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"{state.epochs} of {cfg.train.epochs} epochs are kept; the same command with train.resume=true goes on"
        ) from error
    return _history(history, state)


def _history(history: keras.callbacks.History, state: RunState) -> keras.callbacks.History:
    """Gives a `History` the rows of all epochs, those before a resume included."""
    history.epoch = list(range(state.epochs))
    history.history = {key: [row[key] for row in state.history] for key in state.history[0]}
    return history


def check_config(cfg: DictConfig) -> None:
    """Raises `UserError` for values that no later step would name clearly; before any picture is read."""
    backbones.check_name(cfg.model.model_name)
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
    backbones.check_size(cfg.model.model_name, cfg.model.img_size)
    factory.check_optimizer_name(cfg.train.optimizer_name)
    factory.get_scheduler(cfg.train.schedule, 0.0, 1, 1)


def _check_number(cfg: DictConfig, key: str, kind, least: float, expected: str, below: float = np.inf) -> None:
    value = OmegaConf.select(cfg, key)
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < below:
        raise UserError(f"expected {key} to be {expected}, received {value!r}; correct {key}")


def start_state(cfg: DictConfig, resume_path: Path, group: Group = ALONE) -> RunState:
    """A new state, or with `train.resume=true` the one of the last run.

    Raises:
        UserError: there is none, or its configuration computes something else.
    """
    config = OmegaConf.to_container(cfg, resolve=True)
    config.pop("hydra", None)
    if not cfg.train.resume:
        return RunState(config)
    state = ResumeFile(resume_path, None, group=group).read_state()
    before, now = _flat(state.config), _flat(config)
    for key in sorted(set(before) | set(now)):
        if key not in MAY_CHANGE_ON_RESUME and before.get(key) != now.get(key):
            raise UserError(
                f"expected {key}={before.get(key)} as in the run that is to go on, received {now.get(key)}; "
                "give the same overrides, or start anew with train.resume=false"
            )
    return dataclasses.replace(state, config=config)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def precision_policy(mixed: bool) -> str:
    """Name of the Keras policy."""
    return f"mixed_{sixteen_bit_type()}" if mixed else "float32"


def make_sequences(
    cfg: DictConfig,
    group: Group = ALONE,
) -> tuple[ImageSequence, ImageSequence, float]:
    """Training and validation batches, and the model's margin.

    Of several processes each gets its share of every batch.

    Raises:
        UserError: a table is missing, empty, of whole photographs, or tighter than the margin.
    """
    data = OmegaConf.to_container(cfg.data, resolve=True)
    table = datasets.load_table(data["db"], data["image_dir"], data["target"], data["split"])
    parts = {split: table[table["split"] == split].reset_index(drop=True) for split in ("train", "val")}
    for split, part in parts.items():
        if part.empty:
            raise UserError(f"expected pictures for {split} in {', '.join(_table_names(cfg))}, received none; add rows")
        datasets.require_crops(part)
    margin = choose_margin(cfg.data.margin, pd.concat(parts.values())["margin"])
    for split, part in parts.items():
        parts[split] = _drop_and_report(part, split, group)
        labels = parts[split][["gender", "age"]].to_numpy(np.float64)
        group.require_same(hashlib.sha256(labels.tobytes()).hexdigest(), f"pictures for {split}")
    common = {
        "img_size": cfg.model.img_size,
        "batch_size": cfg.train.batch_size,
        "margin": margin,
        "workers": cfg.train.workers,
        "share": group.share,
    }
    training = ImageSequence(
        parts["train"],
        augment=AugmentConfig.from_config(cfg.augment),
        seed=cfg.train.seed,
        shuffle=True,
        steps_per_epoch=cfg.train.steps_per_epoch,
        target=TargetConfig(
            cfg.train.age_target,
            cfg.train.age_sigma,
            age_class_weights(parts["train"]["age"], cfg.train.age_class_weights),
        ),
        **common,
    )
    validation = ImageSequence(parts["val"], fill_up=True, steps_per_epoch=cfg.train.validation_steps, **common)
    return training, validation, margin


def _drop_and_report(part: pd.DataFrame, split: str, group: Group) -> pd.DataFrame:
    """The rows whose picture can be read; of several processes each tries its share."""
    own = part.assign(row=np.arange(len(part))).iloc[group.process_id :: group.processes]
    kept, unreadable = drop_unreadable(own) if len(own) else (own, [])
    for path, reason in unreadable:
        print(f"left out, {reason}: {path}", file=sys.stderr)
    readable = np.zeros(len(part), np.int32)
    readable[kept["row"]] = 1
    kept = part[group.sum(readable) > 0].reset_index(drop=True)
    left_out = len(part) - len(kept)
    print(f"{split}: {len(kept):,} pictures" + (f", {left_out:,} unreadable left out" if left_out else ""))
    return kept


def choose_margin(margin: float | None, margins: pd.Series) -> float:
    """The configured margin, or the smallest of the tables.

    Raises:
        UserError: the configured margin is negative or above a table's.
    """
    smallest = float(margins.min())
    if margin is None:
        return smallest
    if not 0 <= margin <= smallest:
        raise UserError(
            f"expected data.margin in 0..{smallest:g}, the margin that the pictures come with, received {margin:g}; "
            "leave data.margin out, or crop the photographs with a larger margin (crop_faces.py)"
        )
    return float(margin)


def age_class_weights(ages: pd.Series, power: float) -> np.ndarray | None:
    """Weights for rare ages: `frequency ** -power`, with mean 1 over the rows.

    The frequency is smoothed over neighbouring years (Yang et al., "Delving into Deep Imbalanced Regression", arXiv
    2102.09554), so that an age with one picture does not outweigh its neighbours.

    Returns:
        `(101,)` float64, or None for power 0.
    """
    if not 0 <= power <= 1:
        raise UserError(f"expected train.age_class_weights in 0..1, received {power}; use for instance 0.5")
    known = ages.dropna().round().astype(int).to_numpy()
    if power == 0 or known.size == 0:
        return None
    counts = np.bincount(known, minlength=AGE_CLASSES).astype(float)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum(), mode="same")
    class_weights = np.maximum(smooth, smooth[smooth > 0].min()) ** -power
    return class_weights / class_weights[known].mean()


def make_model(
    cfg: DictConfig,
    steps_per_epoch: int,
    resuming: bool = False,
    group: Group = ALONE,
) -> keras.Model:
    """Builds and compiles the network, with the weights that `model.weights` names.

    Args:
        cfg: See `train`.
        steps_per_epoch: Batches of an epoch, for the schedule and the batch norm momentum.
        resuming: All variables are about to be loaded from a run's state; `model.weights` is not read again.
        group: Of several processes the first reads the weights and gives them to the others.
    """
    start = None if resuming else cfg.model.weights
    if start is None or group.processes == 1:
        model = _build(cfg, start)
    else:
        model = _build(cfg, None)
        random = model.get_weights()
        model.set_weights(group.arrays_from_first(lambda: _build(cfg, start).get_weights(), random))
        backbones.finalize_normalization(model)
    momentum = cfg.train.batch_norm_momentum
    backbones.set_batch_norm_momentum(
        model, backbones.batch_norm_momentum(steps_per_epoch) if momentum == "auto" else momentum
    )
    compile_model(cfg, model, steps_per_epoch)
    return model


def _build(cfg: DictConfig, start: str | None) -> keras.Model:
    pretrained = "imagenet" if start == "imagenet" else None
    model = factory.get_model(cfg.model.model_name, cfg.model.img_size, pretrained, cfg.model.dropout)
    if start is not None and pretrained is None:
        load_start_weights(model, start, cfg.model.model_name, cfg.model.img_size)
    return model


def load_start_weights(model: keras.Model, path: str | os.PathLike, model_name: str, img_size: int) -> None:
    """Loads a weight file into a network that is about to be trained.

    Raises:
        UserError: the file is for another network; for other sizes the same network's weights fit.
    """
    info = weights.identify(path)
    if info.model_name != model_name:
        raise UserError(
            f"expected weights of {model_name} in {path}, received those of {info.model_name}; "
            f"use model.model_name={info.model_name}"
        )
    if info.colour != "RGB" or info.gender_order != WeightsInfo(model_name, img_size, 0.0).gender_order:
        raise UserError(
            f"expected weights that take RGB and give female, male, received {path} with {info.colour} and "
            f"{', '.join(info.gender_order)}; such weights can be used by demo.py and evaluate.py, not trained further"
        )
    weights.load_weights_into(model, path)


def compile_model(cfg: DictConfig, model: keras.Model, steps_per_epoch: int) -> None:
    """Compiles with both losses, the configured optimizer and the figures of the log."""
    schedule = factory.get_scheduler(
        cfg.train.schedule, cfg.train.lr, cfg.train.epochs, steps_per_epoch, cfg.train.warmup_epochs
    )
    optimizer = factory.get_optimizer(cfg.train.optimizer_name, schedule, cfg.train.weight_decay)
    factory.exclude_from_weight_decay(optimizer, model)
    model.compile(
        optimizer=optimizer,
        loss=["categorical_crossentropy", losses.age_loss(float(cfg.train.age_expectation_weight))],
        loss_weights=[1.0, float(cfg.train.age_loss_weight)],
        weighted_metrics=[
            [keras.metrics.CategoricalAccuracy(name="accuracy")],
            [keras.metrics.CategoricalAccuracy(name="accuracy"), AgeMeanAbsoluteError(name="mae")],
        ],
    )
    model.optimizer.build(model.trainable_variables)  # with float16 Keras has wrapped it, to scale the loss


class AgeMeanAbsoluteError(keras.metrics.MeanMetricWrapper):
    """Mean absolute error in years between the expectations of true and predicted age distributions."""

    def __init__(self, name: str = "mae", dtype=None):
        super().__init__(expected_age_error, name=name, dtype=dtype)
        self._direction = "down"

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def _table_names(cfg: DictConfig) -> list[str]:
    names = cfg.data.db if OmegaConf.is_list(cfg.data.db) else [cfg.data.db]
    return [Path(str(name)).name for name in names]
