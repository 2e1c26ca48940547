"""What happens beside the steps of a training: checkpoints, resuming, logs, progress."""

import dataclasses
import itertools
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from src import cli, datasets, models
from src.cli import JobError, Progress, UserError
from src.files import write_whole
from src.labels import HEADS
from src.models import WeightsInfo
from src.training.distributed import Group
from src.training.generator import ImageSequence
from src.training.resume import MONITOR, ResumeFile, RunState, to_numpy
from src.training.runs import Run, weights_lock
from src.training.weight_average import WeightAverage


class Interrupter(keras.callbacks.Callback):
    """Stop after a Ctrl-C, between two steps; an epoch that is done is written first."""

    def on_train_batch_end(self, *_, **__):
        cli.raise_if_interrupted()

    on_test_batch_end = on_epoch_end = on_train_batch_end


@dataclasses.dataclass(eq=False)
class Checkpoint(keras.callbacks.Callback):
    """At the end of an epoch: best weights, then the state to resume from, then the log and its curves.

    In this order a process that is killed in between repeats at most the epoch whose state was not written. Of several
    processes all decide alike, the first writes.
    """

    run: Run
    info: WeightsInfo
    state: RunState
    resume_file: ResumeFile
    validation: ImageSequence
    average: WeightAverage | None
    early_stopping: int | None
    group: Group
    save_dtype: str

    def __post_init__(self):
        super().__init__()

    def on_epoch_end(self, epoch, logs=None):
        self._clear_unmeasured(epoch, logs)
        row = {
            "epoch": epoch + 1,
            "lr": float(to_numpy(self.model.optimizer.learning_rate)),
            **{key: float(value) for key, value in logs.items()},
        }
        if not np.isfinite(row["loss"]):
            raise JobError(
                f"the loss must be finite, got {row['loss']} in epoch {epoch + 1}; lower train.lr "
                "(the weights of earlier epochs are kept)"
            )
        self.state.history.append(row)
        if self.state.best_epoch == epoch + 1:
            self._save_weights(row)
        if self.group.is_first:
            self.resume_file.save(self.state)
        self.state.kept = self.state.epochs  # before the log, which may fail too
        if self.group.is_first:
            write_log(self.run, self.state)
        if self.state.has_stopped_early(self.early_stopping):
            print(f"No better validation loss for {self.early_stopping} epochs: training ends.")
            self.model.stop_training = True

    def _clear_unmeasured(self, epoch: int, logs: dict) -> None:
        """Make validation metrics that mislead NaN, for the callbacks that follow too.

        They are all metrics of a head without a label, and the losses where images have become unreadable: Keras
        divides the sum over the others by all rows, which gives too little.
        """
        unmeasured = tuple(f"val_pred_{head}_" for head in HEADS if head not in self.validation.heads)
        has_lost = self._has_lost_labels(epoch)
        for key in logs:
            if key.startswith(unmeasured) or (has_lost and key.startswith("val_") and key.endswith("loss")):
                logs[key] = np.nan

    def _has_lost_labels(self, epoch: int) -> bool:
        """Tell whether this validation had fewer labels than the run's first one, or none, and print both numbers."""
        labels = int(self.group.sum(np.array(self.validation.known_labels, np.int32)))
        first = self.state.validation_labels = self.state.validation_labels or labels
        if labels >= max(first, 1):
            return False
        print(
            f"warning: validation of epoch {epoch + 1} has {labels:,} labels, the first one had {first:,}: images can "
            "no longer be read, and this epoch is not taken for the best",
            file=sys.stderr,
        )
        return True

    def _save_weights(self, row: dict) -> None:
        metrics = {key: value for key, value in row.items() if key.startswith("val_") and np.isfinite(value)}
        info = dataclasses.replace(self.info, epoch=row["epoch"], metrics=metrics, run=self.state.id)
        with self.average.applied() if self.average else nullcontext():
            if not self.group.is_first:
                return
            with weights_lock(self.run.folder):
                path = weights_path(self.run, self.state, row["epoch"])
                models.save_weights(self.model, path, info, self.save_dtype)
        print(f"Validation loss fell to {row[MONITOR]:.4f}: {path.name}")


def weights_path(run: Run, state: RunState, epoch: int) -> Path:
    """`{model_name}_{img_size}_weights.{epoch:02d}-{val_loss:.2f}.hdf5`, epochs from 1.

    Where another run has written a file of this name `_2` and so on is appended.
    """
    model = state.config["model"]
    loss = state.history[epoch - 1][MONITOR]
    stem = f"{model['model_name']}_{model['img_size']}_weights.{epoch:02d}-{loss:.2f}"
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    paths = (run.folder / f"{name}.hdf5" for name in names)
    return next(path for path in paths if not path.exists() or _wrote(state, path))


def _wrote(state: RunState, path: Path) -> bool:
    try:
        return models.identify(path).run == state.id
    except UserError:
        return False


def write_log(run: Run, state: RunState) -> None:
    """Write the metrics per epoch and their curves."""
    log = pd.DataFrame(state.history)
    datasets.write_csv(log, run.log)
    draw_curves(log, run.curves)


CURVES = (
    ("loss", "loss", "Loss"),
    ("pred_age_mae", "mean absolute error, years", "Age"),
    ("pred_gender_accuracy", "accuracy", "Gender"),
)
"""Metric, axis label and title of each panel."""


def draw_curves(log: pd.DataFrame, path: Path) -> None:
    """Draw training and validation metrics over the epochs; those that a table lacks are skipped."""
    from matplotlib.ticker import MaxNLocator

    panels = [panel for panel in CURVES if panel[0] in log]
    figure, grid = datasets.new_figure(4.5 * len(panels), 3.6, columns=len(panels))
    for axes, (name, label, title) in zip(grid, panels, strict=True):
        axes.plot(log["epoch"], log[name], marker=".", label="training (augmented)")
        axes.plot(log["epoch"], log[f"val_{name}"], marker=".", label="validation")
        axes.set(xlabel="epoch", ylabel=label, title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(loc="center right")
    with write_whole(path) as part:
        figure.savefig(part, dpi=120)


@dataclasses.dataclass(eq=False)
class WandbLogger(keras.callbacks.Callback):
    """Send the metrics of every epoch, the configuration and the curves to Weights & Biases.

    wandb's own Keras callbacks read TensorFlow; `wandb.log` works on every backend.
    """

    project: str
    config: dict
    curves: Path

    def __post_init__(self):
        super().__init__()
        self._run = None

    @staticmethod
    def check_login() -> None:
        """Raise `UserError` unless this machine is logged in to wandb, or works offline."""
        import wandb

        if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            return
        try:
            if wandb.login(prompt=False):
                return
            reason = ""
        except (wandb.Error, OSError, ValueError) as error:
            reason = f" ({error})"
        raise UserError(
            f"wandb needs a login{reason}; run `wandb login`, set WANDB_MODE=offline, or leave wandb.project out"
        )

    def on_train_begin(self, logs=None):
        import wandb

        self._run = wandb.init(project=self.project, config=self.config)

    def on_epoch_end(self, epoch, logs=None):
        """Log an epoch, counted from 1."""
        import wandb

        metrics = {key: float(value) for key, value in logs.items()}
        if self.curves.is_file():
            metrics["curves"] = wandb.Image(str(self.curves))
        self._run.log(metrics, step=epoch + 1)

    def on_train_end(self, logs=None, exit_code=0):
        """Close the run, if there is one."""
        if self._run is not None:
            self._run.finish(exit_code)
            self._run = None


class EpochSetter(keras.callbacks.Callback):
    """Set the epoch of an `ImageSequence` before its first batch is read, and stop its workers after training."""

    def __init__(self, sequence: ImageSequence):
        super().__init__()
        self.sequence = sequence

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.sequence.set_epoch(epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.sequence.close()


class StepCallbacks(keras.callbacks.CallbackList):
    """Keras' list of callbacks, which gives them no metrics of single steps.

    Keras' own turns the metrics of every step into Python numbers. For that the host waits until the device has done
    the step, and then the device waits for the host.
    """

    def on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(batch)

    def on_test_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_test_batch_end(batch)


class StepBar(keras.callbacks.Callback):
    """Progress over the steps of an epoch and of its validation; the metrics are in the line after the epoch."""

    def __init__(self, steps: int, validation_steps: int):
        super().__init__()
        self._steps, self._validation_steps = steps, validation_steps

    def on_epoch_begin(self, epoch, logs=None):
        self._bar = Progress(total=self._steps, unit="steps", label=f"epoch {epoch + 1}", leave=False)

    def on_train_batch_end(self, batch, logs=None):
        self._bar.update()

    on_test_batch_end = on_train_batch_end

    def on_test_begin(self, logs=None):
        self._bar.close()
        self._bar = Progress(total=self._validation_steps, unit="steps", label="validation", leave=False)

    def on_epoch_end(self, epoch, logs=None):
        self._bar.close()
