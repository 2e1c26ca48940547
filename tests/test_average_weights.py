"""The recipe that averages weight files."""

import numpy as np
import pytest
from script_runs import error_line, run_script

from src.models import WeightsInfo, get_model, load_model, save_weights

SCRIPT = "recipes/average_weights.py"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two weight files of one network, one of another size, and one with another head."""
    folder = tmp_path_factory.mktemp("weights")
    paths = []
    for number, size in enumerate([32, 32, 64, 32]):
        heads = ("gender",) if number == 3 else ("gender", "age")
        metrics = {"val_pred_age_mae": 5.0}
        info = WeightsInfo("MobileNetV2", size, 0.4, metrics=metrics, data=f"table {number}", heads=heads)
        paths.append(save_weights(get_model("MobileNetV2", size), folder / f"{number}.hdf5", info))
    return paths


def test_the_mean_of_two_files(files, tmp_path):
    output = tmp_path / "mean.hdf5"
    result = run_script(SCRIPT, *files[:2], "--shares", 0.25, 0.75, "-o", output)
    assert result.stdout == f"{output}: the mean of 2 files\n", result.stderr
    model, info = load_model(output)
    first, second = (load_model(file)[0].get_weights() for file in files[:2])
    for mean, a, b in zip(model.get_weights(), first, second, strict=True):
        np.testing.assert_allclose(mean, 0.25 * a + 0.75 * b, rtol=1e-5, atol=1e-7)
    assert (info.data, info.metrics) == ("table 1", {})


def test_mistakes(files, tmp_path):
    output = tmp_path / "mean.hdf5"
    shares = run_script(SCRIPT, *files[:2], "--shares", 0.5, 0.6, "-o", output)
    assert error_line(shares) == "error: --shares must be 2 numbers that sum to 1, got [0.5, 0.6]"
    ending = run_script(SCRIPT, *files[:2], "--shares", 0.5, 0.5, "-o", tmp_path / "mean.onnx")
    assert error_line(ending) == f"error: --output must be an .hdf5 file, got {tmp_path / 'mean.onnx'}"
    size = run_script(SCRIPT, *files[1:3], "--shares", 0.5, 0.5, "-o", output)
    assert error_line(size) == f"error: all files must have the img_size of {files[1]}, 32, got 64 in {files[2]}"
    head = run_script(SCRIPT, files[0], files[3], "--shares", 0.5, 0.5, "-o", output)
    assert error_line(head).startswith(f"error: all files must have the heads of {files[0]}, ")
    assert not output.exists()
