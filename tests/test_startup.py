"""What a start costs, in seconds of processor time: a busy machine lengthens the wall clock, not this."""

import os
import subprocess
import sys

import pytest

from src.cli import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the processor time of children")

BASE = """
import cv2, dlib, numpy
image = cv2.cvtColor(cv2.imread("samples/grace_hopper.jpg"), cv2.COLOR_BGR2RGB)
dlib.get_frontal_face_detector()(image, 0)
"""
"""What any program of this kind has to do for one photo."""


def processor_seconds(*command: object, code: int = 0, times: int = 3) -> tuple[float, str]:
    """The least processor time of a command and its children out of some runs, and its last stderr."""
    seconds = []
    for _ in range(times):
        before = os.times()
        done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        after = os.times()
        assert done.returncode == code, done.stderr
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(seconds), done.stderr


def test_help():
    assert processor_seconds("demo.py", "--help")[0] < 0.5


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
    seconds, err = processor_seconds("demo.py", *arguments, code=2)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert seconds < 0.5


def test_one_photo(tmp_path):
    photo = tmp_path / "photo" / "grace_hopper.jpg"
    photo.parent.mkdir()
    photo.write_bytes((ROOT / "samples" / photo.name).read_bytes())
    base, _ = processor_seconds("-c", BASE)
    ours, err = processor_seconds("demo.py", "--image_dir", photo.parent, "--output_dir", tmp_path / "out")
    print(f"{ours:.2f} s of processor time, {base:.2f} for imports and one detection")
    assert ours <= 1.5 * base
    assert err == ""


@pytest.mark.slow
def test_keras_prints_nothing(tmp_path):
    arguments = ["--image_dir", "samples", "--output_dir", tmp_path / "out"]
    file = next((ROOT / "pretrained_models").glob("*.hdf5"))
    _, err = processor_seconds("demo.py", *arguments, "--weight_file", file, times=1)
    # A slow machine tells once a minute how far it is.
    assert [line for line in err.splitlines() if " per second, " not in line] == []
