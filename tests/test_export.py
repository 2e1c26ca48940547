"""`export.py` as a user runs it, and the lines of `docs/export.md` for every runtime."""

import contextlib
import functools
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_help, run_script

from src.cli import ROOT
from src.images.boxes import crop_box
from src.images.io import read_image, write_image
from src.inference.estimator import AgeGenderEstimator
from src.models import weights
from src.models.export import FORMATS

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
OUTPUTS = {"onnx": "age_gender.onnx", "litert": "age_gender.tflite", "openvino": "age_gender.xml"}
OUTPUTS["saved_model"] = "age_gender"


def page_block(text: str) -> str:
    """The block of Python in the page that holds a text."""
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text in block]
    return block


def test_help_answers_without_keras():
    result = run_help("export.py")
    assert result.returncode == 0
    for form in FORMATS:
        assert f"--format {form} -o {OUTPUTS[form]}" in result.stdout


def test_mistakes_are_one_line(tmp_path):
    result = run_script("export.py", "--format", "saved_model", "-o", tmp_path)
    assert result.returncode == 2
    assert error_line(result).startswith(f"error: --output must be a new folder or an older SavedModel, got {tmp_path}")
    result = run_script("export.py", "--format", "coreml", "-o", tmp_path / "a")
    assert result.returncode == 2
    assert "invalid choice: 'coreml'" in error_line(result)


@pytest.fixture
def faces(tmp_path):
    """A table of 12 face crops to train on, one of them damaged, and one of another split; the gender is clear."""
    crop = crop_box(read_image(ROOT / "samples" / "astronaut.png"), (179, 83, 267, 171), 0.1)
    names = [f"{number}.png" for number in range(13)]
    for number, name in enumerate(names):
        write_image(tmp_path / name, np.roll(crop, 3 * number, axis=1))
    (tmp_path / names[5]).write_bytes(b"no image")
    split = ["train"] * 12 + ["val"]
    table = pd.DataFrame({"img_paths": names, "genders": 0, "ages": 40, "split": split, "margin": 0.1})
    table.to_csv(tmp_path / "faces.csv", index=False)
    return tmp_path / "faces.csv"


@pytest.mark.slow
def test_8_bit_integers(tmp_path, faces):
    output = tmp_path / "int8.onnx"
    result = run_script("export.py", "--format", "onnx", "-o", output, "--int8", faces)
    assert result.returncode == 0, result.stderr
    assert "5.png" in result.stderr
    assert "\n8-bit integers change ages by " in result.stdout
    assert output.stat().st_size < 0.4 * weights.bundled(".hdf5").stat().st_size
    crop = read_image(tmp_path / "12.png")
    (age,), (male,) = AgeGenderEstimator.load(output).predict([crop])
    (exact_age,), (exact_male,) = AgeGenderEstimator.load(weights.bundled(".hdf5")).predict([crop])
    assert age == pytest.approx(exact_age, abs=2)
    assert male == pytest.approx(exact_male, abs=0.1)
    assert age != pytest.approx(exact_age, abs=1e-4)


def test_8_bit_integers_need_onnx_and_training_faces(tmp_path, faces):
    result = run_script("export.py", "--format", "litert", "-o", tmp_path / "a", "--int8", faces)
    assert result.returncode == 2
    assert error_line(result) == "error: --int8 requires --format onnx, got litert"
    faces.write_text(faces.read_text().replace("train", "test"))
    result = run_script("export.py", "--format", "onnx", "-o", tmp_path / "a.onnx", "--int8", faces)
    assert result.returncode == 2
    assert error_line(result).startswith("error: the tables must have a train part, got ")


@pytest.fixture(scope="module")
def loaded_once():
    """The bundled weights are read for the first export only."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(weights, "load_model", functools.cache(weights.load_model))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_documented_lines_of_each_runtime(form, tmp_path, monkeypatch, loaded_once):
    assert f"python export.py --format {form} -o {OUTPUTS[form]}\n" in PAGE
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "samples", "samples")
    result = run_script("export.py", "--format", form, "-o", OUTPUTS[form])
    assert result.returncode == 0, result.stderr
    info = weights.identify(weights.bundled())
    assert result.stdout.startswith(f"{OUTPUTS[form]}: {info.model_name}, float32 (n, {info.img_size}, {info.img_size}")
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(page_block("faces = resize("), names)
        exec(page_block(f'"{OUTPUTS[form]}"'), names)
    estimator = AgeGenderEstimator.load(weights.bundled(".hdf5"))  # the .onnx beside it has 8-bit integers
    assert len(names["faces"]) == (2 if estimator.mirrored else 1)
    face = crop_box(read_image(ROOT / "samples" / "grace_hopper.jpg"), (161, 137, 377, 353), estimator.margin)
    (age,), (male,) = estimator.predict([face])
    printed_male, printed_age = map(float, printed.getvalue().split())
    assert printed_male == pytest.approx(male, abs=1e-4)
    assert printed_age == pytest.approx(age, abs=1e-3)
