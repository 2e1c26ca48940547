"""The runs of one network in one folder: each has its own log, curves and state, and a lock while it is trained."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from src.cli import UserError
from src.files import remove_parts
from src.training.config import differences
from src.training.resume import RunState, read_state


class Run:
    """One training in a folder.

    The first run of a network is named `{model_name}_{img_size}`, later ones `{model_name}_{img_size}_run2` and so on.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.log = folder / f"{name}_log.csv"  # metrics per epoch
        self.curves = folder / f"{name}_curves.png"  # the same as an image
        self.resume = folder / f"{name}_resume.npz"  # the state that `train.resume=true` reads
        self._lock = FileLock(folder / f".{name}.lock", timeout=0)

    @property
    def is_new(self) -> bool:
        """Whether no run of this name has left a file."""
        return not any(path.exists() for path in (self.log, self.curves, self.resume))

    def acquire(self) -> bool:
        """Take the run for this process; `False` where another is training it.

        What a killed process left of half-written files is deleted.
        """
        try:
            self._lock.acquire()
        except Timeout:
            return False
        for path in (self.log, self.curves, self.resume):
            remove_parts(path)
        return True

    def release(self) -> None:
        """Give the run back; harmless where this process does not have it."""
        if self._lock.is_locked:
            _remove_and_release(self._lock)


def _remove_and_release(lock: FileLock) -> None:
    with suppress(OSError):  # Windows keeps open files; filelock removes this one there
        Path(lock.lock_file).unlink()
    lock.release()


@contextmanager
def weights_lock(folder: Path) -> Iterator[None]:
    """Keep other runs from choosing the name of a weight file; delete what killed ones left half-written."""
    lock = FileLock(folder / ".weights.lock")
    lock.acquire()
    try:
        remove_parts(folder / "*_weights.*.hdf5")
        yield
    finally:
        _remove_and_release(lock)


def begin_run(folder: Path, stem: str, config: dict) -> tuple[Run, RunState]:
    """Take the first name, `{stem}` or `{stem}_run2` and so on, that no run of the folder has.

    Raises:
        UserError: the folder is a file.
        OSError: it cannot be made or written to.
    """
    if folder.is_file():
        raise UserError(f"train.checkpoint_dir must be a folder, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([stem], (f"{stem}_run{number}" for number in itertools.count(2)))
    for run in (Run(folder, name) for name in names):
        if run.is_new and run.acquire():
            if run.is_new:  # still: another process may have had it in between
                return run, RunState(config, id=f"{run.name}, begun {datetime.now():%Y-%m-%d %H:%M:%S}")
            run.release()
    raise AssertionError("unreachable: there is always a next number")


def find_runs(folder: Path, stem: str) -> list[Run]:
    """List the runs that can be resumed, the last written first."""
    ending = "_resume.npz"
    names = [path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")]
    runs = [Run(folder, name) for name in names if re.fullmatch(re.escape(stem) + "(_run[0-9]+)?", name)]
    return sorted(runs, key=lambda run: run.resume.stat().st_mtime, reverse=True)


def resume_run(
    folder: Path, stem: str, config: dict, wanted: bool | str, epochs: int, patience: int | None = None
) -> tuple[Run, RunState] | None:
    """Take the run that continues with a configuration: an unfinished one first, then the last written.

    Args:
        stem: `{model_name}_{img_size}`.
        config: The resolved configuration; keys that may change on resume do not count.
        wanted: `train.resume`: `True`, `"auto"` (None if no run matches), or the name of a run.
        epochs: `train.epochs`.
        patience: `train.early_stopping`.

    Raises:
        UserError: no run matches, or another process is training it.
    """
    states = _read_states(folder, stem, wanted)
    matching = [(run, state) for run, state in states if not differences(state.config, config)]
    if not matching:
        if wanted == "auto":
            return None
        raise UserError(_mismatch(folder, stem, states, config))
    matching.sort(key=lambda pair: pair[1].is_finished(epochs, patience))  # stable: the last written stays first
    for run, _ in matching:
        if run.acquire():
            state = read_state(run.resume)  # again: it may have been written before the lock was free
            return run, dataclasses.replace(state, config=config, id=state.id or run.name)
    raise UserError(f"the run {matching[0][0].name} in {folder} is being trained by another process")


def _read_states(folder: Path, stem: str, wanted: bool | str) -> list[tuple[Run, RunState]]:
    """Read the states of the wanted runs, the last written first; unreadable ones are skipped."""
    runs = find_runs(folder, stem)
    if wanted not in (True, "auto"):
        names = ", ".join(sorted(run.name for run in runs))
        runs = [run for run in runs if run.name == wanted]
        if not runs:
            raise UserError(f"train.resume must be true, false, auto or the name of a run ({names}), got {wanted}")
    states, errors = [], []
    for run in runs:
        try:
            states.append((run, read_state(run.resume)))
        except UserError as error:
            errors.append(error)
    if errors and not states:
        raise errors[0]
    return states


def _mismatch(folder: Path, stem: str, states: list[tuple[Run, RunState]], config: Mapping[str, Any]) -> str:
    """Say why no run can be resumed, with the run that differs least."""
    if not states:
        return f"no run of {stem} to resume in {folder}; start a new run with train.resume=false"
    run, state = min(states, key=lambda pair: len(differences(pair[1].config, config)))
    key, (before, now) = next(iter(differences(state.config, config).items()))
    others = f" (the closest of {len(states)} runs)" if len(states) > 1 else ""
    return (
        f"{key} must be {before} as in the run {run.name}{others}, got {now}; "
        "give the same overrides, or start a new run with train.resume=false"
    )
