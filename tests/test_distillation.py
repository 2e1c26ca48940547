"""The recipes that train on what other networks predict."""

import importlib.util
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_script

from src.cli import ROOT
from src.images.io import read_image, write_image
from src.inference.estimator import AgeGenderEstimator
from src.models.factory import get_model
from src.models.weights.info import WeightsInfo
from src.models.weights.store import save_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks, a table of 10 images, 8 of them to train on, and one that lacks the first two."""
    folder = tmp_path_factory.mktemp("distillation")
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(10)]
    for name in names:
        write_image(folder / name, np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((10, 10, 1))).astype(np.uint8))
    split = ["train"] * 8 + ["val"] * 2
    table = pd.DataFrame({"img_paths": names, "genders": [0, 1] * 5, "ages": 30, "split": split, "margin": 0.1})
    table.to_csv(folder / "faces.csv", index=False)
    table.drop(index=[0, 1]).to_csv(folder / "fewer.csv", index=False)
    for number, name in enumerate(("one", "two")):
        model = get_model("MobileNetV2", 32)
        for head in ("pred_gender", "pred_age"):
            kernel, bias = model.get_layer(head).get_weights()
            model.get_layer(head).set_weights([kernel, bias + number * np.linspace(-1, 1, len(bias))])
        save_weights(model, folder / f"{name}.hdf5", WeightsInfo("MobileNetV2", 32, 0.1))
    return folder


def ask(folder, table):
    names = [folder / "one.hdf5", folder / "two.hdf5"]
    output = folder / f"{table}.npz"
    result = run_script("recipes/ask_networks.py", "-o", output, "--db", folder / table, "--weight_file", *names)
    assert result.returncode == 0, result.stderr
    return output


def test_answers_are_the_mean_over_the_networks(folder):
    answers = np.load(ask(folder, "faces.csv"))
    assert answers["path"].tolist() == [str(folder / f"{number}.png") for number in range(8)]
    estimators = [AgeGenderEstimator.load(folder / f"{name}.hdf5") for name in ("one", "two")]
    for row, path in enumerate(answers["path"]):
        ages, males = zip(*(estimator.predict([read_image(path)]) for estimator in estimators), strict=True)
        assert answers["age"][row] @ np.arange(101) == pytest.approx(np.mean(ages), abs=1e-3)
        assert answers["gender"][row, 1] == pytest.approx(np.mean(males), abs=1e-5)
        assert abs(ages[0] - ages[1]) > 1, "the networks must differ"


def test_ask_refuses_another_kind_of_file(folder):
    result = run_script(
        "recipes/ask_networks.py", "-o", folder / "a.csv", "--db", "utkface", "--weight_file", folder / "one.hdf5"
    )
    assert result.returncode == 2
    assert error_line(result).startswith("error: --output must be an .npz file in a folder that exists, got ")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_training_needs_answers_for_all_images(folder):
    settings = ["model.model_name=MobileNetV2", "model.img_size=32", "model.weights=null", "model.batch_size=4"]
    settings += ["train.epochs=1", "train.export_onnx=false", f"train.checkpoint_dir={folder / 'run'}"]

    def train(answers) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "recipes" / "train_on_answers.py", f"data.db={folder / 'faces.csv'}"]
        environment = {"PATH": "/usr/bin:/bin", "ANSWERS": str(answers)}
        return subprocess.run(
            [*command, *settings], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    done = train(folder / "none.npz")
    assert done.returncode == 1
    assert error_line(done).startswith("error: ANSWERS must name a file of recipes/ask_networks.py, got ")
    done = train(ask(folder, "fewer.csv"))
    assert done.returncode == 2
    assert "must have all images of training, got none for 2 of them, such as " in error_line(done)
    done = train(ask(folder, "faces.csv"))
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "run").glob("*_weights.01-*.hdf5"))) == 1
