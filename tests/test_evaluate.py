"""`evaluate.py` from weights and images to files."""

import json

import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_help, run_script, write_weights

from src.images.boxes import crop_to_margin
from src.images.io import read_image, write_image

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.hdf5", margin=0.1)


@pytest.fixture
def my_table(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["genders,ages,img_paths,split,margin"]
    for index in range(5):
        write_image(tmp_path / f"{index}.png", rng.integers(0, 256, (60, 50, 3), dtype=np.uint8))
        rows.append(f"{index % 2},{10 * index},{index}.png,test,0.4")
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "my.csv"


@pytest.mark.slow
def test_real_weights_on_a_users_table(weights, my_table, tmp_path):
    out = tmp_path / "out"
    options = ["--weight_file", weights, "--db", my_table, "--output_dir", out, "--batch_size", "2"]
    result = run_script("evaluate.py", *options)
    assert result.returncode == 0, result.stderr
    assert "tiny.hdf5: MobileNetV2, 32 pixels, margin 0.1, trained on noise" in result.stdout
    assert "7.25 years" in result.stdout

    from src.inference.estimator import AgeGenderEstimator

    faces = [crop_to_margin(read_image(my_table.with_name(f"{i}.png")), 0.4, 0.1) for i in range(5)]
    ages, male = AgeGenderEstimator.load(weights).predict(faces)
    predictions = pd.read_csv(out / "predictions.csv")
    assert predictions["predicted_age"].to_numpy() == pytest.approx(ages, abs=0.011)
    assert predictions["male_probability"].to_numpy() == pytest.approx(male, abs=0.0011)
    mae = np.abs(ages - 10 * np.arange(5)).mean()
    report = json.loads((out / "report.json").read_text())
    assert report["mae"] == pytest.approx(mae, abs=0.001)
    assert f"MAE: {report['mae']:.2f} years" in result.stdout.splitlines()
    assert (out / "scatter.png").exists()


@pytest.mark.slow
def test_weights_of_a_wider_margin_are_one_line(tmp_path, my_table):
    wide = write_weights(tmp_path / "wide.hdf5", margin=0.6)
    result = run_script("evaluate.py", "--weight_file", wide, "--db", my_table)
    assert result.returncode == 2
    line = error_line(result)
    assert line.startswith("error: the margin of the weights must be in 0..0.4, the margin of face crops such as ")
    assert ", got 0.6;" in line


def test_help_answers_at_once():
    result = run_help("evaluate.py")
    assert result.returncode == 0, result.stderr
    assert "--weight_file" in result.stdout
