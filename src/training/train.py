"""The whole job of learning: configuration in, weight files out."""

import dataclasses
from pathlib import Path

import keras
from omegaconf import DictConfig, OmegaConf

from src.cli import ROOT, UserError
from src.models import WeightsInfo
from src.training import distributed
from src.training.callbacks import Checkpoint, EpochSetter, StepBar, StepCallbacks, WandbLogger, WeightAverage
from src.training.config import (
    MAY_CHANGE_ON_RESUME,
    MAY_DIFFER_BETWEEN_PROCESSES,
    check_config,
    config_text,
    flatten,
)
from src.training.data import make_sequences, table_names
from src.training.distributed import ALONE, Group
from src.training.model import make_model, precision_policy
from src.training.resume import ResumeFile, RunState


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
    with distributed.join(cfg) as group:
        return _train(cfg, group)


def _train(cfg: DictConfig, group: Group) -> keras.callbacks.History:
    group.require_same(config_text(cfg, MAY_DIFFER_BETWEEN_PROCESSES), "configuration")
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
    model = make_model(cfg, len(training), state.epochs > 0, group, training.has_ranges)
    average = WeightAverage(model, cfg.train.ema) if cfg.train.ema else None
    if group.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    resume_file = ResumeFile(resume_path, model, average, group)
    if state.epochs:
        resume_file.load_variables()
        print(f"Going on after epoch {state.epochs} of {cfg.train.epochs}.")
    info = WeightsInfo(
        model_name=cfg.model.model_name,
        img_size=cfg.model.img_size,
        margin=margin,
        data=", ".join(table_names(cfg)),
        mirrored=cfg.model.mirrored,
    )
    checkpoint = Checkpoint(
        folder, info, state, resume_file, average, cfg.train.early_stopping, group, cfg.train.save_dtype
    )
    callbacks = [EpochSetter(training), *([average] if average else []), checkpoint]
    if group.is_first:
        callbacks.append(StepBar(len(training)))
    if use_wandb:
        callbacks.append(
            WandbLogger(cfg.wandb.project, OmegaConf.to_container(cfg, resolve=True), folder / f"{stem}_curves.png")
        )
    return _fit(cfg, model, training, validation, callbacks, state)


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
    before, now = flatten(state.config), flatten(config)
    for key in sorted(set(before) | set(now)):
        if key not in MAY_CHANGE_ON_RESUME and before.get(key) != now.get(key):
            raise UserError(
                f"expected {key}={before.get(key)} as in the run that is to go on, received {now.get(key)}; "
                "give the same overrides, or start anew with train.resume=false"
            )
    return dataclasses.replace(state, config=config)
