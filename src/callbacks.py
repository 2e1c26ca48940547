"""What happens beside the steps of a training: checkpoints, resuming, logs, averaged weights."""

import dataclasses
import json
import os
import zipfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from src import backbones, weights
from src.backend import moving_average, sync_state
from src.cli import JobError, UserError
from src.distribution import ALONE, Group
from src.weights import WeightsInfo

MONITOR = "val_loss"
"""The best weights are those with the lowest validation loss."""


@dataclasses.dataclass
class RunState:
    """What a run must remember beside its variables.

    Attributes:
        config: The resolved configuration of the run, to compare with when it goes on.
        history: One row of figures per finished epoch.
    """

    config: dict
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def best_epoch(self) -> int | None:
        """Number of the epoch with the lowest validation loss, from 1; None before the first."""
        losses = [row[MONITOR] for row in self.history]
        return int(np.argmin(losses)) + 1 if losses else None


class ResumeFile:
    """All variables of a training between two epochs, in one `.npz` file that is replaced whole.

    Of several processes the first alone writes and reads it.
    """

    def __init__(
        self,
        path: Path,
        model: keras.Model | None,
        average: "WeightAverage | None" = None,
        group: Group = ALONE,
    ):
        self.path = path
        self._model = model
        self._average = average
        self._group = group

    def _variables(self) -> list[keras.Variable]:
        """Weights, batch norm statistics, states of random generators, optimizer and averages, in a fixed order."""
        average = self._average.shadow if self._average else []
        return [*self._model.variables, *self._model.optimizer.variables, *average]

    def save(self, state: RunState) -> None:
        """Writes variables and state beside the file's place and renames.

        Raises:
            OSError: the disk is full; the older file is whole.
        """
        arrays = {f"v{i}": _to_numpy(variable) for i, variable in enumerate(self._variables())}
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            with part.open("wb") as file:
                np.savez(file, state=np.array(json.dumps(dataclasses.asdict(state))), **arrays)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def read_state(self) -> RunState:
        """The state alone.

        Raises:
            UserError: there is no such file, or it is none of ours.
        """
        return RunState(**json.loads(self._group.text_from_first(self._read_json)))

    def _read_json(self) -> str:
        with self._open() as file:
            return str(file["state"])

    def load_variables(self) -> None:
        """Sets all variables of the model, its optimizer and the averages.

        Raises:
            UserError: the file was written by another network or optimizer.
        """
        variables = self._variables()
        now = [_to_numpy(variable) for variable in variables]
        arrays = self._group.arrays_from_first(lambda: self._read_arrays([array.shape for array in now]), now)
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        backbones.finalize_normalization(self._model)

    def _read_arrays(self, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        with self._open() as file:
            arrays = [file[f"v{i}"] for i in range(len(file.files) - 1)]
        if [array.shape for array in arrays] != shapes:
            raise UserError(
                f"expected a run of the same network and optimizer in {self.path}, received another; "
                "start anew with train.resume=false"
            )
        return arrays

    @contextmanager
    def _open(self):
        try:
            with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                yield file
        except FileNotFoundError as error:
            raise UserError(
                f"expected the state of an earlier run in {self.path}, received no such file; "
                "start anew with train.resume=false"
            ) from error
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"expected the state of an earlier run in {self.path}, received {error}; "
                "start anew with train.resume=false"
            ) from error


def _to_numpy(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable))


class WeightAverage(keras.callbacks.Callback):
    """Exponential moving average of all weights, batch norm statistics included (Polyak & Juditsky, 1992).

    Validation and weight files use the averages, training goes on with the weights. The first steps average over
    fewer: the decay of step t is at most (1 + t) / (10 + t).
    """

    def __init__(self, model: keras.Model, decay: float):
        super().__init__()
        if not 0 < decay < 1:
            raise UserError(f"expected train.ema in 0..1, received {decay}; use for instance 0.999, or 0 for none")
        self.decay = decay
        self._weights = [w for w in model.weights if "float" in w.dtype]
        # Through numpy: on TensorFlow a variable made from a variable's value shares its memory.
        self._averages = [
            keras.Variable(_to_numpy(weight), trainable=False, name=f"average_{i}")
            for i, weight in enumerate(self._weights)
        ]
        self._moving = moving_average(model, self._weights, self._averages)
        self._step = None
        self._applied = nullcontext()

    @property
    def shadow(self) -> list[keras.Variable]:
        """The averages, in the order of the weights."""
        self._moving.sync()
        return self._averages

    def on_train_batch_end(self, batch, logs=None):
        """Moves the averages towards the weights."""
        if self._step is None:  # later steps are counted: asking the optimizer is waiting for the device
            sync_state(self.model)
            self._step = int(_to_numpy(self.model.optimizer.iterations))
        else:
            self._step += 1
        self._moving.step(min(self.decay, (1 + self._step) / (10 + self._step)))

    def on_test_begin(self, logs=None):
        """Validates the averages."""
        sync_state(self.model)
        self._applied = self.applied()
        self._applied.__enter__()

    def on_test_end(self, logs=None):
        """Gives the weights back to training."""
        self._applied.__exit__(None, None, None)

    @contextmanager
    def applied(self):
        """Within it the model has the averages for weights."""
        kept = [keras.ops.copy(weight.value) for weight in self._weights]
        try:
            for weight, average in zip(self._weights, self.shadow, strict=True):
                weight.assign(keras.ops.copy(average.value))  # JAX's steps consume the arrays that they are given
            yield
        finally:
            for weight, value in zip(self._weights, kept, strict=True):
                weight.assign(value)


class Checkpoint(keras.callbacks.Callback):
    """At the end of an epoch: best weights, then the state to resume from, then the log and its picture.

    In this order a process that is killed in between repeats at most the epoch whose state was not written. Of several
    processes all decide alike, the first writes.
    """

    def __init__(
        self,
        folder: Path,
        info: WeightsInfo,
        state: RunState,
        resume_file: ResumeFile,
        average: WeightAverage | None = None,
        early_stopping: int | None = None,
        group: Group = ALONE,
    ):
        super().__init__()
        self.folder = folder
        self._group = group
        self.info = info
        self.state = state
        self._resume_file = resume_file
        self._average = average
        self._early_stopping = early_stopping

    def weights_path(self, epoch: int, loss: float) -> Path:
        """`{model_name}_{img_size}_weights.{epoch:02d}-{val_loss:.2f}.hdf5`, epochs from 1."""
        return self.folder / f"{self.info.model_name}_{self.info.img_size}_weights.{epoch:02d}-{loss:.2f}.hdf5"

    def on_epoch_end(self, epoch, logs=None):
        """Writes everything; `epoch` counts from 0."""
        row = {"epoch": epoch + 1, "lr": self._learning_rate(), **{key: float(value) for key, value in logs.items()}}
        if not np.isfinite(row["loss"]):
            raise JobError(
                f"expected a finite loss, received {row['loss']} in epoch {epoch + 1}; lower train.lr "
                "(the weights of earlier epochs are whole)"
            )
        self.state.history.append(row)
        if self.state.best_epoch == epoch + 1:
            self._save_weights(row)
        if self._group.is_first:
            self._resume_file.save(self.state)
            self._write_log()
        if self._early_stopping is not None and epoch + 1 - self.state.best_epoch >= self._early_stopping:
            print(f"No better validation loss for {self._early_stopping} epochs: training ends.")
            self.model.stop_training = True

    def _learning_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def _save_weights(self, row: dict) -> None:
        metrics = {key: value for key, value in row.items() if key.startswith("val_")}
        info = dataclasses.replace(self.info, epoch=row["epoch"], metrics=metrics)
        path = self.weights_path(row["epoch"], row[MONITOR])
        with self._average.applied() if self._average else nullcontext():
            if self._group.is_first:
                weights.save_weights(self.model, path, info)
        print(f"Validation loss fell to {row[MONITOR]:.4f}: {path.name}")

    def _write_log(self) -> None:
        stem = f"{self.info.model_name}_{self.info.img_size}"
        log = pd.DataFrame(self.state.history)
        part = self.folder / f".{stem}_log.csv.part"
        log.to_csv(part, index=False, lineterminator="\n")
        part.replace(self.folder / f"{stem}_log.csv")
        draw_curves(log, self.folder / f"{stem}_curves.png")


CURVES = (
    ("loss", "loss", "Loss"),
    ("pred_age_mae", "mean absolute error, years", "Age"),
    ("pred_gender_accuracy", "accuracy", "Gender"),
)
"""Figure, axis label and title of each panel."""


def draw_curves(log: pd.DataFrame, path: Path) -> None:
    """Draws training and validation figures over the epochs; a figure that a table lacks is left out."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state
    from matplotlib.ticker import MaxNLocator

    panels = [panel for panel in CURVES if panel[0] in log]
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for axes, (name, label, title) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        axes.plot(log["epoch"], log[name], marker=".", label="training (augmented)")
        axes.plot(log["epoch"], log[f"val_{name}"], marker=".", label="validation")
        axes.set(xlabel="epoch", ylabel=label, title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    part = path.with_name(f".{path.name}.part.png")
    figure.savefig(part, dpi=120)
    part.replace(path)


class WandbLogger(keras.callbacks.Callback):
    """Sends the figures of every epoch, the configuration and the curves to Weights & Biases.

    wandb's own Keras callbacks read TensorFlow; `wandb.log` works on every backend.
    """

    def __init__(self, project: str, config: dict, curves: Path):
        super().__init__()
        self._project = project
        self._config = config
        self._curves = curves

    @staticmethod
    def check_login() -> None:
        """Raises `UserError` unless this machine is logged in to wandb, or works offline."""
        import wandb

        if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            return
        try:
            logged_in = wandb.login(prompt=False)
        except (wandb.Error, OSError, ValueError) as error:
            raise UserError(
                f"expected a login to wandb, received {error}; run `wandb login`, set WANDB_MODE=offline, or leave "
                "wandb.project out"
            ) from error
        if not logged_in:
            raise UserError(
                "expected a login to wandb, received none; run `wandb login`, set WANDB_MODE=offline, or leave "
                "wandb.project out"
            )

    def on_train_begin(self, logs=None):
        """Opens the run."""
        import wandb

        self._run = wandb.init(project=self._project, config=self._config)

    def on_epoch_end(self, epoch, logs=None):
        """Logs an epoch, counted from 1."""
        import wandb

        figures = {key: float(value) for key, value in logs.items()}
        if self._curves.is_file():
            figures["curves"] = wandb.Image(str(self._curves))
        self._run.log(figures, step=epoch + 1)

    def on_train_end(self, logs=None):
        """Closes the run."""
        self._run.finish()
