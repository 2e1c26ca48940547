"""Trainings that lack labels: of all heads, of one, in one part, or because images vanish."""

import keras
import numpy as np
import pandas as pd
import pytest

from src import models
from src.cli import UserError
from src.training import callbacks
from src.training.resume import read_state
from src.training.train import train

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture
def train_with(compose, training_overrides, faces_csv):
    """`train_with(change, *overrides)`: trains on the table after `change(table)`."""

    def train_changed(change, *overrides: str):
        table = pd.read_csv(faces_csv, dtype={"genders": "Int64", "ages": "Int64"})
        change(table)
        table.to_csv(faces_csv, index=False)
        return train(compose(*training_overrides, "train.epochs=1", *overrides)).history

    return train_changed


def clear(column: str, split: str | None = None, but: int = 0):
    """A change that empties the cells of a column, those of the last `but` rows excepted."""

    def change(table: pd.DataFrame) -> None:
        rows = table.index if split is None else table.index[table["split"] == split]
        table.loc[rows[: len(rows) - but], column] = pd.NA

    return change


def both(*changes):
    return lambda table: [change(table) for change in changes]


@pytest.mark.parametrize(
    ("change", "part", "heads"),
    [
        (both(clear("genders"), clear("ages")), "train", "gender or age"),
        (both(clear("genders", "train"), clear("ages", "train")), "train", "gender or age"),
        (both(clear("genders", "val"), clear("ages", "val")), "val", "gender or age"),
        (both(clear("genders", "train"), clear("ages", "val")), "val", "age"),
    ],
)
def test_a_part_without_labels_is_an_error_before_the_first_epoch(train_with, tmp_path, change, part, heads):
    with pytest.raises(UserError) as caught:
        train_with(change)
    assert f"the {part} part of faces.csv has a known {heads}; fill in" in str(caught.value)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_labels_beyond_the_validation_steps_do_not_count(train_with):
    change = both(clear("genders", "val", but=1), clear("ages", "val", but=1))
    with pytest.raises(UserError, match="no row in the first 1 batches of the val part of faces.csv"):
        train_with(change, "train.validation_steps=1")


@pytest.mark.parametrize(("column", "untrained", "trained"), [("genders", "gender", "age"), ("ages", "age", "gender")])
def test_a_head_without_labels_is_not_trained(train_with, tmp_path, capsys, column, untrained, trained):
    history = train_with(clear(column, "train"), "train.optimizer_name=adamw", "train.weight_decay=0.1", "train.lr=0.1")
    assert f"no {untrained} is known in the train part: that head is not trained" in capsys.readouterr().out
    assert not [key for key in history if untrained in key]
    (file,) = (tmp_path / "checkpoints").glob("*.hdf5")
    info = models.identify(file)
    assert info.heads == (trained,)
    assert f"val_pred_{trained}_accuracy" in info.metrics
    assert not [key for key in info.metrics if untrained in key]
    keras.utils.set_random_seed(0)  # of train.seed
    before, after = models.get_model("MobileNet", 32), models.load_model(file)[0]
    for head, same in [(untrained, True), (trained, False)]:
        kernels = [model.get_layer(f"pred_{head}").get_weights()[0] for model in (before, after)]
        assert np.array_equal(*kernels) == same


@pytest.mark.parametrize(("column", "head", "other"), [("genders", "gender", "age"), ("ages", "age", "gender")])
def test_a_trained_head_that_validation_lacks_is_named_and_not_measured(
    train_with, tmp_path, capsys, column, head, other
):
    history = train_with(clear(column, "val"))
    assert capsys.readouterr().err.count(f"warning: no {head} is known in validation: that head is trained") == 1
    log = pd.read_csv(tmp_path / "checkpoints" / "MobileNet_32_log.csv")
    for metric in ("loss", "accuracy"):
        assert np.isnan(history[f"val_pred_{head}_{metric}"]).all()
        assert log[f"val_pred_{head}_{metric}"].isna().all()
        assert np.isfinite(history[f"pred_{head}_{metric}"]).all()
        assert np.isfinite(history[f"val_pred_{other}_{metric}"]).all()
    assert np.isfinite(history["val_loss"]).all()
    (file,) = (tmp_path / "checkpoints").glob("*.hdf5")
    info = models.identify(file)
    assert info.heads == ("gender", "age")
    assert not [key for key in info.metrics if head in key]


@pytest.mark.parametrize("gone", [range(16, 24), range(16, 20)])
def test_no_epoch_is_best_without_all_labels_of_validation(train_with, tmp_path, faces_csv, monkeypatch, capsys, gone):
    """Validation images vanish in epoch 2, whose loss, divided by all rows, is too low."""
    original = callbacks.EpochSetter.on_epoch_begin

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            for number in gone:
                (faces_csv.with_suffix("") / f"{number}.png").unlink(missing_ok=True)
        original(self, epoch, logs)

    monkeypatch.setattr(callbacks.EpochSetter, "on_epoch_begin", on_epoch_begin)
    history = train_with(lambda table: None, "train.epochs=9", "train.early_stopping=2")
    assert np.isfinite(history["val_loss"]).tolist() == [True, False, False]
    assert np.isfinite(history["val_pred_gender_loss"]).tolist() == [True, False, False]
    assert [path.name.split(".")[1][:2] for path in (tmp_path / "checkpoints").glob("*.hdf5")] == ["01"]
    left = 2 * (8 - len(gone))
    assert f"validation of epoch 2 has {left} labels, the first one had 16: images" in capsys.readouterr().err
    log = pd.read_csv(tmp_path / "checkpoints" / "MobileNet_32_log.csv")
    assert log["val_loss"].isna().tolist() == [False, True, True]
    assert read_state(tmp_path / "checkpoints" / "MobileNet_32_resume.npz").validation_labels == 16
