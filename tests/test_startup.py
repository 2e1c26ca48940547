"""What a start imports; `benchmarks/demo_speed.py` measures what it costs."""

import json
import subprocess
import sys

import pytest

from src.cli import ROOT

HEAVY = {"keras", "tensorflow", "h5py", "pandas", "matplotlib", "scipy", "pydantic", "wandb"}
"""Packages whose import is felt, and that labelling a photo with an `.onnx` file does not need."""

REPORT = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def start(*arguments: object, code: int = 0) -> tuple[set[str], str]:
    """Run `demo.py`; the modules that it imported, and its stderr."""
    command = [sys.executable, "-c", REPORT, "demo.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    *err, modules = done.stderr.splitlines(keepends=True)
    return set(json.loads(modules)), "".join(err)


def test_help():
    modules, _ = start("--help")
    assert not modules & (HEAVY | {"cv2", "dlib", "numpy", "onnxruntime"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image_dir", "nowhere", "--output_dir", "OUT"], "nowhere"),
        (["--image_dir", "samples", "--output_dir", "README.md"], "README.md"),
        (["--image_dir", "samples", "--output_dir", "OUT", "--weight_file", "none.onnx"], "none.onnx"),
        (["--image_dir", "samples", "--output_dir", "OUT", "--weight_file", "none.hdf5"], "none.hdf5"),
        (["--image_dir", "samples", "--output_dir", "OUT", "--margin", "-1"], "margin"),
        (["--camera", "nowhere.mp4", "--output_dir", "OUT"], "nowhere.mp4"),
    ],
)
def test_user_errors(arguments, words, tmp_path):
    arguments = [str(tmp_path) if argument == "OUT" else argument for argument in arguments]
    modules, err = start(*arguments, code=2)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not modules & (HEAVY | {"onnxruntime", "numpy", "cv2", "dlib", "av"})


def test_one_photo(tmp_path):
    photo = tmp_path / "photo" / "grace_hopper.jpg"
    photo.parent.mkdir()
    photo.write_bytes((ROOT / "samples" / photo.name).read_bytes())
    modules, err = start("--image_dir", photo.parent, "--output_dir", tmp_path / "out")
    assert err == ""
    assert not modules & HEAVY


@pytest.mark.slow
def test_keras_prints_nothing(tmp_path):
    arguments = ["--image_dir", "samples", "--output_dir", tmp_path / "out"]
    file = next((ROOT / "pretrained_models").glob("*.hdf5"))
    _, err = start(*arguments, "--weight_file", file)
    # A slow machine tells once a minute how far it is.
    assert [line for line in err.splitlines() if " per second, " not in line] == []
