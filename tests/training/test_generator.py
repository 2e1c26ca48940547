import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from record_epochs import CASES, make_table, record_epochs

from src import images
from src.cli import ROOT, JobError, UserError
from src.training.config import AugmentConfig, TargetConfig
from src.training.data import drop_and_report, drop_unreadable, hash_rows, read_predictions
from src.training.distributed import ALONE, Group
from tests.training.test_batches import equal, make_maker

SETTINGS = {"img_size": 8, "batch_size": 4, "margin": 0.1}


# ---------------------------------------------------------------------------------------- what the training step gets


def check_epochs(training, validation, expected):
    np.testing.assert_allclose(training, expected, rtol=1e-6)
    assert expected[0] != expected[1] != expected[2]
    plain = [1.5, 5.5, 9.5, 13.5, 17.5, 20.5][: len(expected[0])]
    np.testing.assert_allclose(validation, [plain] * len(expected))


@pytest.mark.parametrize("case", CASES)
def test_every_step_gets_the_batch_of_its_epoch_and_index(case):
    check_epochs(*record_epochs(**case))


@pytest.mark.slow
def test_every_step_gets_its_batch_on_jax():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs jax (requirements-dev.txt)")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "record_epochs.py"],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    backend, results = json.loads(done.stdout.splitlines()[-1])
    assert backend == "jax"
    assert len(results) == len(CASES)
    for result in results:
        check_epochs(*result)


def test_weight_0_keeps_a_row_out_of_the_loss():
    """Keras takes the tuples of targets and weights in the order of the model's outputs."""
    table = make_table(4).assign(gender=[0.0, float("nan"), 1.0, 1.0], age=[10.0, 20.0, float("nan"), float("nan")])
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    heads = [keras.layers.Dense(size, "softmax", kernel_initializer="zeros") for size in (2, 101)]
    model = keras.Model(inputs, [head(flat) for head in heads])
    model.compile("sgd", loss="categorical_crossentropy")
    metrics = model.evaluate(make_maker(table, **SETTINGS), verbose=0, return_dict=True)
    # Untrained heads are uniform; three genders and two ages of four rows are known.
    assert metrics["loss"] == pytest.approx(3 / 4 * np.log(2) + 2 / 4 * np.log(101), rel=1e-5)


@pytest.mark.parametrize(("count", "steps"), [(9, None), (10, None), (10, 2), (3, None)])
def test_filled_up_batches_give_the_metrics_of_the_rows_that_are_there(count, steps):
    table = make_table(count).assign(gender=[float("nan"), *[1.0] * (count - 1)])
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    heads = [keras.layers.Dense(size, "softmax") for size in (2, 101)]
    model = keras.Model(inputs, [head(flat) for head in heads])
    model.compile("sgd", loss="categorical_crossentropy", weighted_metrics=[["accuracy"], ["accuracy"]])
    sequence = make_maker(table, steps=steps, fill_up=True, **SETTINGS)
    assert {len(sequence[index][0]) for index in range(len(sequence))} == {4}
    one_batch = make_maker(table[: 4 * steps] if steps else table, **{**SETTINGS, "batch_size": count})
    expected = model.evaluate(one_batch, verbose=0, return_dict=True)
    assert model.evaluate(sequence, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)


def test_shares_of_a_filled_up_batch():
    parts = [make_maker(make_table(9), fill_up=True, share=(process, 2), **SETTINGS)[2] for process in range(2)]
    assert [part[0].shape for part in parts] == [(2, 8, 8, 3)] * 2
    np.testing.assert_allclose([part[2][1] for part in parts], [[12 / 9, 0], [0, 0]])


# --------------------------------------------------------------------------------------------------------- the object


def test_length_and_arrays():
    sequence = make_maker(make_table(10), **SETTINGS)
    assert len(sequence) == 3
    batch_images, (gender, age), (gender_weight, age_weight) = sequence[2]
    assert [array.shape for array in (batch_images, gender, age)] == [(2, 8, 8, 3), (2, 2), (2, 101)]
    assert gender_weight.shape == age_weight.shape == (2,)
    assert len(make_maker(make_table(10), steps=2, **SETTINGS)) == 2
    assert len(make_maker(make_table(10), steps=9, **SETTINGS)) == 3


def test_the_number_of_workers_changes_nothing():
    augment = AugmentConfig(geometry_probability=1, rotation=30, gamma_probability=1, gamma=(0.5, 2), mixup_alpha=0.5)
    sequences = [
        make_maker(make_table(), augment=augment, shuffle=True, seed=2, workers=workers, **SETTINGS)
        for workers in (0, 1, 4)
    ]
    for sequence in sequences:
        sequence.set_epoch(4)
    for index in range(len(sequences[0])):
        expected = sequences[0].make(4, index)
        for sequence in sequences:
            batch = expected._replace(**dict(zip(("images", "targets", "weights"), sequence[index], strict=True)))
            assert equal(batch, expected)
    for sequence in sequences:
        sequence.close()


def test_margin_of_the_model_above_the_images():
    with pytest.raises(UserError, match=r"data.margin must be in 0..0.1, .*, got 0.4"):
        make_maker(make_table(), **{**SETTINGS, "margin": 0.4})


# -------------------------------------------------------------------------------------------------- unreadable files


@pytest.fixture
def table_of_files(tmp_path):
    """Rows 0..5: good, damaged, missing, empty, good, and the damaged file once more."""
    good, other = tmp_path / "good é.jpg", tmp_path / "other.png"
    for path in (good, other):
        images.write_image(path, np.full((40, 40, 3), 90, np.uint8))
    damaged, empty = tmp_path / "damaged.jpg", tmp_path / "empty.jpg"
    damaged.write_bytes(good.read_bytes()[:200])
    empty.touch()
    paths = [good, damaged, tmp_path / "missing.jpg", empty, other, damaged]
    return make_table(6).assign(path=[str(path) for path in paths]).drop(columns="image")


def test_unreadable_files_are_named_once_and_skipped(table_of_files):
    kept, unreadable = drop_unreadable(table_of_files)
    assert kept["age"].tolist() == [0, 4]
    assert kept.index.tolist() == [0, 1]
    assert [Path(path).name for path, _ in unreadable] == ["damaged.jpg", "missing.jpg", "empty.jpg"]
    assert [reason for _, reason in unreadable][1:] == ["No such file or directory", "the file is empty"]


def test_no_readable_file_is_an_error(table_of_files):
    message = r"none of the 2 images for val can be read, such as .*missing.jpg: No such file"
    with pytest.raises(JobError, match=message):
        drop_and_report(table_of_files.iloc[[2, 3]], "val", ALONE)


def test_a_process_without_a_readable_image_of_its_own_goes_on(table_of_files, monkeypatch):
    part = table_of_files.iloc[:2]
    monkeypatch.setattr(Group, "sum", lambda self, counts: counts + np.array([1, 0], np.int32))  # the other's
    kept = drop_and_report(part, "val", Group(processes=2, process_id=1))
    assert kept["age"].tolist() == [0]


def test_the_fingerprint_of_rows():
    table = make_table(2).assign(path=["a/1.jpg", "a/2.jpg"], left=[1.0, np.nan])
    before = hash_rows({"train": table}, 0.4, None)
    assert hash_rows({"train": table.assign(path=["b/c/1.jpg", "b/c/2.jpg"])}, 0.4, None) == before
    changes = [
        {"path": ["a/2.jpg", "a/1.jpg"]},
        {"age": table["age"] + 1},
        {"left": [2.0, np.nan]},
        {"margin": table["margin"] / 2},
    ]
    others = {hash_rows({"train": table.assign(**change)}, 0.4, None) for change in changes}
    others |= {hash_rows({"val": table}, 0.4, None), hash_rows({"train": table}, 0.3, None)}
    assert len(others | {before}) == 7


def test_images_inside_the_table_need_no_check():
    kept, unreadable = drop_unreadable(make_table(3))
    assert len(kept) == 3
    assert unreadable == []


def test_the_check_agrees_with_the_reader(tmp_path):
    """What the quick check calls readable is what training can read: cut a file at every length."""
    whole = tmp_path / "whole.jpg"
    images.write_image(whole, np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    data = whole.read_bytes()
    paths = []
    for length in range(0, len(data) + 1, 7):
        paths.append(str(tmp_path / f"{length}.jpg"))
        Path(paths[-1]).write_bytes(data[:length])
    table = make_table(len(paths) + 1).assign(path=[*paths, str(whole)]).drop(columns="image")
    kept, _ = drop_unreadable(table)

    def readable(path):
        try:
            return images.read_image(path) is not None
        except images.ImageError:
            return False

    assert kept["path"].tolist() == [path for path in table["path"] if readable(path)]


def test_an_image_that_vanishes_in_training_is_named_once(table_of_files, caplog):
    table = table_of_files.iloc[[0, 4]]
    sequence = make_maker(table, workers=0, **SETTINGS)
    Path(table["path"].iloc[1]).unlink()
    for epoch in range(3):
        sequence.set_epoch(epoch)
        np.testing.assert_array_equal(sequence[0][2], [[1, 0], [1, 0]])
    (warning,) = caplog.messages
    assert warning.count("other.png can no longer be read") == 1
    assert "\n" not in warning


def test_predictions_are_taught_beside_the_labels():
    predictions = np.full((3, 2), 0.5, np.float32), np.eye(101, dtype=np.float32)[[12, 35, 31]]
    table = make_table(3).assign(gender=[0.0, 1.0, float("nan")])
    target = TargetConfig(predictions=predictions, predictions_share=0.25)
    plain, taught = (make_maker(table, target=each, **SETTINGS).make(0, 0) for each in (None, target))
    np.testing.assert_array_equal(taught.targets[0], [[0.875, 0.125], [0.125, 0.875], [0.5, 0.5]])
    np.testing.assert_array_equal(taught.targets[1][:, [12, 35, 31]].diagonal(), 0.25)
    for before, after in zip(plain.weights, taught.weights, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.fixture
def predictions_file(tmp_path):
    genders, ages = np.array([[0.75, 0.25], [0.5, 0.5]]), np.eye(101)[[20, 40]]
    np.savez(tmp_path / "a.npz", path=np.array(["b", "a"]), gender=genders, age=ages)
    return tmp_path / "a.npz"


def test_predictions_come_in_the_order_of_the_images(predictions_file, capsys):
    genders, ages = read_predictions(str(predictions_file), pd.Series(["a", "b", "c", "a"]))
    np.testing.assert_array_equal(genders, [[0.5, 0.5], [0.75, 0.25], [np.nan, np.nan], [0.5, 0.5]])
    np.testing.assert_array_equal(ages[[0, 1, 3]].argmax(axis=1), [40, 20, 40])
    assert np.isnan(ages[2]).all()
    assert (genders.dtype, ages.dtype) == (np.float32, np.float32)
    printed = capsys.readouterr().out
    assert printed == f"train: 1 images have no prediction in {predictions_file} and learn from their labels alone\n"


def test_predictions_of_other_images_and_other_files_are_refused(predictions_file, tmp_path):
    with pytest.raises(UserError, match="must have the images of training, got .* with none of them; run recipes/pred"):
        read_predictions(str(predictions_file), pd.Series(["c"]))
    np.savez(tmp_path / "keys.npz", path=np.array(["a"]))
    np.savez(tmp_path / "shapes.npz", path=np.array(["a"]), gender=np.ones((1, 2)), age=np.ones((1, 3)))
    (tmp_path / "text.npz").write_text("no arrays")
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "words.npz", path=np.array(["a"]), gender=np.full((1, 2), "x"), age=np.full((1, 101), "x"))
    for name in ("empty.npz", "words.npz", "keys.npz", "shapes.npz", "text.npz", "one.npy", "none.npz"):
        with pytest.raises(UserError, match="train.predictions must be a file of recipes/predict_targets.py, got"):
            read_predictions(str(tmp_path / name), pd.Series(["a"]))
