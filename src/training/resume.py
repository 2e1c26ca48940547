"""The state of a training between two epochs, in a file to resume from."""

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from src import models
from src.cli import UserError
from src.files import write_whole
from src.training.distributed import ALONE, Group
from src.training.weight_average import WeightAverage

MONITOR = "val_loss"
"""The best weights are those with the lowest validation loss."""


@dataclasses.dataclass
class RunState:
    """What a run must remember beside its variables."""

    config: dict  # the resolved configuration, to compare with when the run is resumed
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)  # metrics of each finished epoch
    id: str = ""  # tells the run from every other, deleted ones included
    fingerprint: str = ""  # of the data, see `data.make_sequences`; "" in files of older versions
    validation_labels: int = 0  # known ones of the first validation; 0 in files of older versions

    def __post_init__(self):
        self.kept = self.epochs  # finished epochs that the resume file holds; not written to it

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def best_epoch(self) -> int | None:
        """Number of the epoch with the lowest validation loss, from 1; None where none has a finite one."""
        finite = [row for row in self.history if np.isfinite(row[MONITOR])]
        return int(min(finite, key=lambda row: row[MONITOR])["epoch"]) if finite else None

    def require_same_data(self, fingerprint: str) -> None:
        """Note the data of the run; raise `UserError` if they are not those that it began with."""
        if self.fingerprint not in ("", fingerprint):
            raise UserError(
                "rows, labels, margins and predictions must be those that the run began with, got others (an image "
                "that cannot be read is a missing row); restore them, or start a new run with train.resume=false"
            )
        self.fingerprint = fingerprint

    def has_stopped_early(self, patience: int | None) -> bool:
        """Tell whether the last `patience` epochs brought no better validation loss; `train.early_stopping`."""
        return patience is not None and self.epochs - (self.best_epoch or 0) >= patience

    def is_finished(self, epochs: int, patience: int | None) -> bool:
        """Tell whether no epoch is left to train; `train.epochs` and `train.early_stopping`."""
        return self.epochs >= epochs or self.has_stopped_early(patience)


@dataclasses.dataclass(frozen=True)
class ResumeFile:
    """All variables of a training between two epochs, in one `.npz` file that is replaced whole.

    Of several processes the first alone writes and reads it.
    """

    path: Path
    model: keras.Model
    average: WeightAverage | None = None
    group: Group = ALONE

    def _variables(self) -> list[keras.Variable]:
        """Weights, batch norm statistics, states of random generators, optimizer and averages, in a fixed order."""
        average = self.average.shadow if self.average else []
        return [*self.model.variables, *self.model.optimizer.variables, *average]

    def save(self, state: RunState) -> None:
        """Write variables and state; the file is replaced when all is written.

        Raises:
            OSError: it cannot be written, as on a full disk; the older file is whole.
        """
        arrays = {f"v{i}": to_numpy(variable) for i, variable in enumerate(self._variables())}
        with write_whole(self.path, durable=True) as part:
            np.savez(part, allow_pickle=False, state=np.array(json.dumps(dataclasses.asdict(state))), **arrays)

    def load_variables(self) -> None:
        """Set all variables; raise `UserError` if the file is that of another network or optimizer."""
        variables = self._variables()
        now = [to_numpy(variable) for variable in variables]
        arrays = self.group.arrays_from_first(lambda: self._read_arrays([array.shape for array in now]), now)
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        models.finalize_normalization(self.model)

    def _read_arrays(self, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        with _open(self.path) as file:
            arrays = [file[f"v{i}"] for i in range(len(file.files) - 1)]
        if [array.shape for array in arrays] != shapes:
            raise UserError(
                f"{self.path} is the state of another network or optimizer; start a new run with train.resume=false"
            )
        return arrays


def read_state(path: Path) -> RunState:
    """Read the state of a run without its variables; raise `UserError` if the file is damaged or foreign."""
    with _open(path) as file:
        return RunState(**json.loads(str(file["state"])))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not the state of an earlier run: {error}; start a new run with train.resume=false"
        ) from error


def to_numpy(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable))
