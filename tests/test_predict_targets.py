"""`recipes/predict_targets.py`, and a training on what it writes."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_script

from src.cli import ROOT
from src.images import crop_to_margin, read_image, write_image
from src.inference import AgeGenderEstimator
from src.models.factory import get_model
from src.models.weights.info import WeightsInfo
from src.models.weights.store import save_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks, and a table of 8 images to train on, one of them damaged, and 2 others."""
    folder = tmp_path_factory.mktemp("predictions")
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(10)]
    for name in names:
        write_image(folder / name, np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((10, 10, 1))).astype(np.uint8))
    (folder / "3.png").write_bytes(b"no image")
    split = ["train"] * 8 + ["val"] * 2
    table = pd.DataFrame({"img_paths": names, "genders": [0, 1] * 5, "ages": 30, "split": split, "margin": 0.4})
    table.to_csv(folder / "faces.csv", index=False)
    for number, name in enumerate(("one", "two")):
        model = get_model("MobileNetV2", 32)
        for head in ("pred_gender", "pred_age"):
            kernel, bias = model.get_layer(head).get_weights()
            model.get_layer(head).set_weights([kernel, bias + number * np.linspace(-1, 1, len(bias))])
        save_weights(model, folder / f"{name}.hdf5", WeightsInfo("MobileNetV2", 32, 0.1, mirrored=bool(number)))
    return folder


def predict_targets(folder, *options):
    weights = [folder / "one.hdf5", folder / "two.hdf5"]
    options = "-o", folder / "a.npz", "--db", folder / "faces.csv", "--weight_file", *weights, *options
    return run_script("recipes/predict_targets.py", *options)


@pytest.mark.parametrize("flip", [None, True])
def test_the_file_has_the_mean_over_the_networks(folder, flip):
    result = predict_targets(folder, *(["--flip"] if flip else []))
    assert result.returncode == 0, result.stderr
    assert "3.png" in result.stderr
    predictions = np.load(folder / "a.npz")
    assert predictions["path"].tolist() == [str(folder / f"{number}.png") for number in (0, 1, 2, 4, 5, 6, 7)]
    estimators = [AgeGenderEstimator.load(folder / f"{name}.hdf5", mirrored=flip) for name in ("one", "two")]
    for row, path in enumerate(predictions["path"]):
        face = crop_to_margin(read_image(path), 0.4, 0.1)
        ages, males = zip(*(estimator.predict([face]) for estimator in estimators), strict=True)
        assert predictions["age"][row] @ np.arange(101) == pytest.approx(np.mean(ages), abs=1e-3)
        assert predictions["gender"][row, 1] == pytest.approx(np.mean(males), abs=1e-5)
        assert abs(ages[0] - ages[1]) > 1, "the networks must differ"


def test_only_the_first_images_and_mistakes(folder):
    assert predict_targets(folder, "--limit", "2").stdout == f"{folder / 'a.npz'}: predictions for 2 of 2 images\n"
    result = predict_targets(folder, "-o", folder / "a.csv")
    assert result.returncode == 2
    assert error_line(result).startswith("error: --output must be an .npz file in a folder that exists, got ")


@pytest.mark.slow
def test_training_learns_the_predictions_and_validates_on_labels(folder):
    assert predict_targets(folder).returncode == 0
    settings = [
        f"data.db={folder / 'faces.csv'}",
        "model.model_name=MobileNetV2",
        "model.img_size=32",
        "model.weights=null",
    ]
    settings += ["model.batch_size=4", "train.epochs=1", "train.lr=0", "train.export_onnx=false"]
    losses = []
    for name, options in (("labels", []), ("predictions", [f"train.predictions={folder / 'a.npz'}"])):
        command = [sys.executable, ROOT / "tests" / "tiny_train.py", *settings, *options]
        done = subprocess.run(
            [*command, f"train.checkpoint_dir={folder / name}"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        losses.append(pd.read_csv(next((folder / name).glob("*_log.csv"))).iloc[0])
    labels, predictions = losses
    assert predictions["val_loss"] == pytest.approx(labels["val_loss"], rel=1e-5)
    assert predictions["loss"] != pytest.approx(labels["loss"], rel=1e-3)
