"""Runs beside each other in one folder, without training."""

import dataclasses
import errno
import json
import os
from unittest import mock

import numpy as np
import pytest

from src.cli import UserError
from src.training.resume import RunState
from src.training.runs import begin_run, find_runs, resume_run, weights_lock

STEM = "MobileNet_32"


def config(lr: float = 0.1, epochs: int = 3) -> dict:
    return {"train": {"lr": lr, "epochs": epochs}}


@pytest.fixture
def finished(tmp_path):
    """`finished(lr, epochs)`: the next run of the folder, trained and over."""

    def finish(lr: float, epochs: int, age: int = 0):
        run, state = begin_run(tmp_path, STEM, config(lr))
        state.history += [{"epoch": epoch + 1, "val_loss": 1.0} for epoch in range(epochs)]
        np.savez(run.resume, state=np.array(json.dumps(dataclasses.asdict(state))))
        stamp = 1_700_000_000 - age
        os.utime(run.resume, (stamp, stamp))
        run.release()
        return run

    return finish


def resume(folder, lr: float, wanted: bool | str = True, epochs: int = 3):
    """Name and finished epochs of the run that is resumed."""
    found = resume_run(folder, STEM, config(lr, epochs), wanted, epochs)
    if found is None:
        return None
    run, state = found
    run.release()
    return run.name, state.epochs


def test_runs_at_the_same_time_have_names_of_their_own(tmp_path):
    runs = [begin_run(tmp_path / "new", STEM, config())[0] for _ in range(3)]
    assert [run.name for run in runs] == [STEM, f"{STEM}_run2", f"{STEM}_run3"]
    assert len({path for run in runs for path in (run.log, run.curves, run.resume)}) == 9
    for run in runs:
        run.release()
    assert list((tmp_path / "new").iterdir()) == []  # a run that wrote nothing leaves nothing
    assert begin_run(tmp_path / "new", STEM, config())[0].name == STEM


def test_a_run_that_left_a_file_keeps_its_name(tmp_path):
    (tmp_path / f"{STEM}_log.csv").touch()
    assert begin_run(tmp_path, STEM, config())[0].name == f"{STEM}_run2"


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path, monkeypatch):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"train\.checkpoint_dir must be a folder, got the file .*a\.txt"):
        begin_run(tmp_path / "a.txt", STEM, config())
    monkeypatch.setattr(os, "open", mock.Mock(side_effect=PermissionError(errno.EACCES, "Permission denied", "x")))
    with pytest.raises(PermissionError):
        begin_run(tmp_path, STEM, config())


def test_what_a_killed_run_left_half_written_is_deleted(tmp_path):
    own = [f".{STEM}_resume.7.part.npz", f".{STEM}_log.7.part.csv", f".{STEM}_curves.7.part.png"]
    others = [f".{STEM}_run2_resume.8.part.npz", ".faces.9.part.csv"]
    weights = f".{STEM}_weights.01-5.29.7.part.hdf5"
    for name in (*own, *others, weights):
        (tmp_path / name).touch()
    run, _ = begin_run(tmp_path, STEM, config())
    assert sorted(path.name for path in tmp_path.glob(".*part*")) == sorted([*others, weights])
    with weights_lock(tmp_path):
        assert sorted(path.name for path in tmp_path.glob(".*part*")) == sorted(others)
    run.release()


def test_the_run_of_the_same_configuration_is_resumed(tmp_path, finished):
    finished(0.1, 2, age=30)
    finished(0.2, 1, age=20)
    assert resume(tmp_path, 0.1) == (STEM, 2)
    assert resume(tmp_path, 0.2) == (f"{STEM}_run2", 1)
    assert resume(tmp_path, 0.2, wanted="auto") == (f"{STEM}_run2", 1)
    assert resume(tmp_path, 0.3, wanted="auto") is None


def test_of_equal_runs_the_unfinished_one_is_resumed_then_the_last(tmp_path, finished):
    finished(0.1, 2, age=30)
    finished(0.1, 3, age=20)
    finished(0.1, 3, age=10)
    assert resume(tmp_path, 0.1) == (STEM, 2)
    assert resume(tmp_path, 0.1, epochs=2) == (f"{STEM}_run3", 3)
    assert resume(tmp_path, 0.1, wanted=f"{STEM}_run2") == (f"{STEM}_run2", 3)


def test_a_run_that_ended_early_is_finished(tmp_path, finished):
    finished(0.1, 2, age=10)
    finished(0.1, 3, age=20)  # no better loss since the first of three epochs
    assert RunState({}, [{"epoch": 1, "val_loss": 1.0}, {"epoch": 2, "val_loss": 0.9}]).is_finished(3, 1) is False
    run, state = resume_run(tmp_path, STEM, config(), True, 4, 2)
    run.release()
    assert (run.name, state.is_finished(4, 2)) == (STEM, False)
    run, state = resume_run(tmp_path, STEM, config(), f"{STEM}_run2", 4, 2)
    run.release()
    assert state.is_finished(4, 2)
    assert not state.is_finished(4, None)
    assert not RunState({}).is_finished(4, 1)


def test_other_data_are_refused():
    state = RunState({})
    state.require_same_data("a")  # a state of an older version knows none
    assert state.fingerprint == "a"
    state.require_same_data("a")
    with pytest.raises(UserError, match="rows, labels, margins and predictions must be those that the run"):
        state.require_same_data("b")


def test_a_run_in_progress_is_not_resumed(tmp_path, finished):
    finished(0.1, 2)
    run, _ = resume_run(tmp_path, STEM, config(), True, 3)
    with pytest.raises(UserError, match=f"the run {STEM} in .* is being trained by another process"):
        resume(tmp_path, 0.1)
    run.release()
    assert resume(tmp_path, 0.1) == (STEM, 2)


def test_what_does_not_match_is_named(tmp_path, finished):
    with pytest.raises(UserError, match=f"no run of {STEM} to resume in .*; start a new run with train.resume=false"):
        resume(tmp_path, 0.1)
    finished(0.2, 1)
    with pytest.raises(UserError, match=f"^train.lr must be 0.2 as in the run {STEM}, got 0.1; give the same"):
        resume(tmp_path, 0.1)
    finished(0.3, 1)
    with pytest.raises(UserError, match=r"as in the run .* \(the closest of 2 runs\), got 0.1"):
        resume(tmp_path, 0.1)
    with pytest.raises(UserError, match=rf"auto or the name of a run \({STEM}, {STEM}_run2\), got run9"):
        resume(tmp_path, 0.1, wanted="run9")


def test_other_files_are_no_runs(tmp_path, finished):
    finished(0.1, 1)
    (tmp_path / f"{STEM}_run2_resume.npz").write_bytes(b"damaged")
    (tmp_path / f"{STEM}4_resume.npz").write_bytes(b"another network")
    assert {run.name for run in find_runs(tmp_path, STEM)} == {STEM, f"{STEM}_run2"}
    assert resume(tmp_path, 0.1) == (STEM, 1)


def test_a_state_of_an_older_version_lacks_keys(tmp_path):
    """They have the defaults of today."""
    run, _ = begin_run(tmp_path, STEM, {})
    state = RunState({"train": {"lr": 0.1}})
    np.savez(run.resume, state=np.array(json.dumps({"config": state.config, "history": []})))
    run.release()
    found, state = resume_run(tmp_path, STEM, {"train": {"lr": 0.1, "ema": 0.0}}, True, 3)
    found.release()
    assert state.id == STEM
    with pytest.raises(UserError, match="train.ema must be 0.0 as in"):
        resume_run(tmp_path, STEM, {"train": {"lr": 0.1, "ema": 0.9}}, True, 3)


def test_the_best_epoch_has_a_loss():
    nan = float("nan")
    history = [{"epoch": epoch + 1, "val_loss": loss} for epoch, loss in enumerate([nan, 2.0, 1.0, nan])]
    assert RunState({}, history).best_epoch == 3
    assert RunState({}, history[:1]).best_epoch is None
