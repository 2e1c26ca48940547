"""The whole job of training: configuration in, weight files out."""

import json
from pathlib import Path

import keras
from omegaconf import DictConfig

from src import cli
from src.cli import ROOT, JobError
from src.models import WeightsInfo, export_beside, storable
from src.training import distributed
from src.training.callbacks import (
    Checkpoint,
    EpochSetter,
    Interrupter,
    StepBar,
    StepCallbacks,
    WandbLogger,
    weights_path,
    write_log,
)
from src.training.config import Config
from src.training.data import make_sequences, table_names
from src.training.distributed import ALONE, Group
from src.training.model import make_model, precision_policy
from src.training.resume import ResumeFile, RunState
from src.training.runs import Run, begin_run, resume_run
from src.training.weight_average import WeightAverage


def train(
    config: DictConfig, commands: tuple[str, str] = ("the same command", "the same command and train.resume=true")
) -> keras.callbacks.History:
    """Train a network and write its best weights, a log, curves and a state to resume from.

    Args:
        config: The keys of `src/config.yaml`, which explains each.
        commands: The commands that start and resume this training, for the message after Ctrl-C.

    Returns:
        Metrics per epoch, those before a resume included: `loss`, `pred_gender_loss`, `pred_age_loss`,
        `pred_gender_accuracy`, `pred_age_accuracy`, `pred_age_mae` (years), each with `val_` for validation. A head
        without labels has none, and the loss of the other is then `loss`.

    Raises:
        UserError: the configuration asks for something impossible.
        JobError: no image is left, ImageNet weights cannot be downloaded, the loss is not finite, or a file cannot be
            written, as on a full disk; the text of the last says how to resume.
        KeyboardInterrupt: Ctrl-C, noted since `cli.defer_interrupts`; its text says how to resume.
    """
    cfg = Config.check(config)
    with distributed.join(cfg) as group:
        group.require_same(cfg.shared(), "configuration")
        if cfg.wandb.project and group.is_first:
            WandbLogger.check_login()
        run, state = open_run(cfg, group)
        try:
            if state.epochs:
                print(f"Resuming run {run.name} in {run.folder} after epoch {state.epochs} of {cfg.train.epochs}.")
            else:
                print(f"Run {run.name}: log, curves and state are {run.folder / run.name}_*")
            cli.set_interrupt_text(lambda: interrupt_text(run, state, cfg.train.epochs, commands))
            return _train(cfg, group, run, state)
        except BrokenPipeError:
            raise  # src.cli ends quietly
        except OSError as error:
            if not run.folder.is_dir():  # nothing is kept
                raise
            kept = interrupt_text(run, state, cfg.train.epochs, commands)
            raise JobError(f"{cli.describe_os_error(error)}; {kept}") from error
        finally:
            run.release()


def open_run(cfg: Config, group: Group = ALONE) -> tuple[Run, RunState]:
    """Take a new run, or with `train.resume` one whose configuration computes the same, for process 0.

    Raises:
        UserError: there is none to resume, another process is training it, or the folder of runs is a file.
        OSError: that folder cannot be made or written to.
    """
    folder = Path(cfg.train.checkpoint_dir or ROOT / "checkpoints")
    stem = f"{cfg.model.model_name}_{cfg.model.img_size}"
    config = cfg.dump()
    taken = []

    def take() -> str:
        wanted, ends = cfg.train.resume, (cfg.train.epochs, cfg.train.early_stopping)
        found = resume_run(folder, stem, config, wanted, *ends) if wanted else None
        run, state = found or begin_run(folder, stem, config)
        taken.append(run)
        return json.dumps([run.name, state.history, state.id, state.fingerprint, state.validation_labels])

    name, *state = json.loads(group.text_from_first(take))
    return (taken or [Run(folder, name)])[0], RunState(config, *state)


def interrupt_text(run: Run, state: RunState, epochs: int, commands: tuple[str, str]) -> str:
    """Describe what an interruption leaves, and how to resume."""
    if not state.kept:
        return f"no epoch is done, so there is nothing for train.resume=true; start again with: {commands[0]}"
    return f"{state.kept} of {epochs} epochs are kept in {run.resume}; resume with: {commands[1]}"


def _train(cfg: Config, group: Group, run: Run, state: RunState) -> keras.callbacks.History:
    if state.is_finished(cfg.train.epochs, cfg.train.early_stopping):
        early = state.epochs < cfg.train.epochs
        key = "train.early_stopping" if early else "train.epochs"
        print(f"All {state.epochs} epochs are done{' (training ended early)' * early}; raise {key} to continue.")
        if group.is_first:
            _complete(cfg, run, state)
        return _history(keras.callbacks.History(), state)
    keras.mixed_precision.set_global_policy(precision_policy(cfg.train.mixed_precision))
    training, validation, margin, fingerprint = make_sequences(cfg, group)
    state.require_same_data(fingerprint)
    model = make_model(cfg, len(training), state.epochs > 0, group, training.has_ranges, training.heads)
    average = WeightAverage(model, cfg.train.ema) if cfg.train.ema else None
    resume_file = ResumeFile(run.resume, model, average, group)
    if state.epochs:
        resume_file.load_variables()
    info = WeightsInfo(
        model_name=cfg.model.model_name,
        img_size=cfg.model.img_size,
        margin=margin,
        data=storable(", ".join(dict.fromkeys(table_names(cfg)))),
        mirrored=cfg.model.mirrored,
        heads=training.heads,
    )
    checkpoint = Checkpoint(
        run, info, state, resume_file, validation, average, cfg.train.early_stopping, group, cfg.train.save_dtype
    )
    callbacks = [EpochSetter(training), *([average] if average else []), checkpoint]
    if group.is_first:
        callbacks.append(StepBar(len(training), len(validation)))
        if cfg.wandb.project:
            callbacks.append(WandbLogger(cfg.wandb.project, state.config, run.curves))
    history = _fit(cfg, model, training, validation, [*callbacks, Interrupter()], state)
    if cfg.train.export_onnx and group.is_first and state.best_epoch:
        print(export_beside(weights_path(run, state, state.best_epoch)))
    return history


def _complete(cfg: Config, run: Run, state: RunState) -> None:
    """Write what a training that was killed after its last epoch lacks."""
    write_log(run, state)
    if cfg.train.export_onnx and state.best_epoch:
        best = weights_path(run, state, state.best_epoch)
        if best.is_file() and not best.with_suffix(".onnx").exists():
            print(export_beside(best))


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
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, WandbLogger):
                callback.on_train_end(exit_code=1)
        raise
    return _history(history, state)


def _history(history: keras.callbacks.History, state: RunState) -> keras.callbacks.History:
    """Give a `History` the rows of all epochs, those before a resume included."""
    history.epoch = list(range(state.epochs))
    history.history = {key: [row[key] for row in state.history] for key in state.history[0]}
    return history
