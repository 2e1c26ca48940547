"""`evaluate_appa_real.py` over a small tree of true format."""

import re

import pandas as pd
import pytest
from appa_real_tree import write_split
from script_runs import error_line, run_help, run_script, write_weights

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.mark.slow
def test_full_pass(tmp_path):
    weights = write_weights(tmp_path / "tiny.hdf5", margin=0.2)
    rows = [(f"{index:06d}.jpg", 20.0 + index, 4.0, 22 + index) for index in range(6)]
    write_split(tmp_path, "test", rows, size=48)
    options = ["--split", "test", "--image_dir", tmp_path, "--flip", "--output_dir", tmp_path / "out"]
    result = run_script("evaluate_appa_real.py", "--weight_file", weights, *options)
    assert result.returncode == 0, result.stderr
    first, second, third, *rest = result.stdout.splitlines()
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    for line, name, true in [(first, "Apparent", "apparent_age_avg"), (second, "Real", "real_age")]:
        assert re.fullmatch(rf"MAE {name}: \d+\.\d\d", line)
        mae = (predictions["predicted_age"] - predictions[true]).abs().mean()
        assert float(line.split()[-1]) == pytest.approx(mae, abs=0.011)
    assert third.startswith("Model: tiny.hdf5: MobileNetV2, 32 pixels, margin 0.2, averaged over mirror images")
    assert "Images: 6" in rest
    assert "Skipped, not readable: 0" in rest
    assert any(line.startswith("Epsilon-error: ") for line in rest)


@pytest.mark.slow
def test_missing_data_names_the_download(tmp_path):
    weights = write_weights(tmp_path / "tiny.hdf5", margin=0.2)
    result = run_script("evaluate_appa_real.py", "--weight_file", weights, "--image_dir", tmp_path)
    assert result.returncode == 2
    assert "gt_avg_valid.csv not found" in error_line(result)
    assert "download.sh appa-real" in error_line(result)


def test_help_answers_at_once():
    result = run_help("evaluate_appa_real.py")
    assert result.returncode == 0, result.stderr
    assert "--split" in result.stdout
