"""`export.py` as a user runs it, and the lines of `docs/export.md` for every runtime."""

import contextlib
import functools
import io
import re
import shutil

import pytest
from script_runs import error_line, run_help, run_script

from src.cli import ROOT
from src.images.boxes import crop_box
from src.images.io import read_image
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
    estimator = AgeGenderEstimator.load()
    assert len(names["faces"]) == (2 if estimator.mirrored else 1)
    face = crop_box(read_image(ROOT / "samples" / "grace_hopper.jpg"), (161, 137, 377, 353), estimator.margin)
    (age,), (male,) = estimator.predict([face])
    printed_male, printed_age = map(float, printed.getvalue().split())
    assert printed_male == pytest.approx(male, abs=1e-4)
    assert printed_age == pytest.approx(age, abs=1e-3)
