"""Runs the scripts as a user does, and makes small real weights for them."""

import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from src.cli import ROOT

KEEPS_OUT = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = {"keras", "tensorflow", "cv2", "dlib", "matplotlib"} & set(sys.modules)
    assert not heavy, heavy
"""


def run_script(name: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a script in this process, which has paid for importing TensorFlow already."""
    out, err = io.StringIO(), io.StringIO()
    argv = [str(ROOT / name), *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_path(argv[0], run_name="__main__")
    return subprocess.CompletedProcess(argv, end.value.code or 0, out.getvalue(), err.getvalue())


def run_script_alone(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, for what only a whole process shows."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def run_help(name: str) -> subprocess.CompletedProcess:
    """`--help`; fails when answering it takes an import that lasts seconds."""
    command = [sys.executable, "-c", KEEPS_OUT, str(ROOT / name)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def error_line(result: subprocess.CompletedProcess) -> str:
    """The last line of stderr; TensorFlow's own start-up messages may stand before it, a traceback may not."""
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr.splitlines()[-1]


def write_weights(path: Path, margin: float) -> Path:
    """Random weights of MobileNetV2 for 32 pixels, or of what stands in for it."""
    from src.models.factory import get_model
    from src.models.weights.info import WeightsInfo
    from src.models.weights.store import save_weights

    metrics = {"val_pred_age_mae": 7.25, "val_pred_gender_accuracy": 0.875}
    info = WeightsInfo("MobileNetV2", 32, margin, data="noise", metrics=metrics)
    return save_weights(get_model("MobileNetV2", 32), path, info)
